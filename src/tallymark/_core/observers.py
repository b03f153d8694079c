"""Observability: operations for observers, and outages of a server for the log. Pure."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from ..errors import StoreTimeoutError
from .untrusted import reraise_from_handler, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..errors import StoreError

__all__ = ["Observer", "Operation", "Outage", "observe"]

_log = logging.getLogger("tallymark")
_log.addHandler(logging.NullHandler())  # no output unless the program configures logging


class Operation(NamedTuple):
    """One exchange with Redis, successful or failed: the argument of an `Observer`.

    Attributes:
        kind: ``"write"`` for a batch of marks in one transaction, ``"read"`` for a
            request of a read.
        store: the server, such as ``redis://localhost:6379/0``; never with a password.
        size: how many marks the batch, or how many commands the request has.
        bytes_sent: how many bytes were written.
        ended: when the exchange ended, in seconds since 1970.
        seconds: how long it took, from the first byte that was written.
        error: why it failed; ``None`` if all replies have arrived. Marks that
            Redis refused one by one do not count as a failure of their batch.
    """

    kind: Literal["write", "read"]
    store: str
    size: int
    bytes_sent: int
    ended: float
    seconds: float
    error: StoreError | None


class Observer(Protocol):
    """The type of the option ``observer``: a function that is called after each operation."""

    def __call__(self, operation: Operation, /) -> object:
        """Record an ``operation``. Must be quick: marks wait meanwhile.

        An exception is logged, and has no effect on marks and reads.
        """


def observe(observer: Observer, operation: Operation) -> None:
    """Call an observer, and log an exception that it raises."""
    try:
        observer(operation)
    except Exception as error:  # noqa: BLE001 - of the program's code; logged
        reraise_from_handler(error)
        _log.exception("the observer %s failed", shown(observer))


class Outage:
    """Logs when a server becomes unavailable, and when it is available again, each once.

    Does not log a single failure after which the retry succeeds: Redis closes idle
    connections, and restarts.

    Attributes:
        lasts: whether the last attempt failed.
    """

    def __init__(self, store: str, clock: Callable[[], float]) -> None:
        """Assume that the server is available.

        Arguments:
            store: the name of the server in the log.
            clock: returns seconds.
        """
        self._store = store
        self._clock = clock
        self._begun = 0.0
        self._failures = 0
        self._is_logged = False
        self.lasts = False

    def failed(self, failure: StoreError, *, final: bool) -> None:
        """Record a failed attempt.

        Arguments:
            failure: the error of the attempt.
            final: whether the call fails with this error.
        """
        if not self.lasts:
            self.lasts = True
            self._begun = self._clock()
            self._failures = 0
        if not self._is_logged and (final or self._failures):
            self._is_logged = True
            reason = " in time" if isinstance(failure, StoreTimeoutError) else f": {failure}"
            _log.warning("no answer from %s%s", self._store, reason)
        self._failures += 1

    def end(self) -> None:
        """Record a reply, which ends the outage. Call this only if the outage `lasts`."""
        self.lasts = False
        if not self._is_logged:
            return
        self._is_logged = False
        seconds = self._clock() - self._begun
        _log.info("%s is back after %.3g s, %d failures", self._store, seconds, self._failures)
