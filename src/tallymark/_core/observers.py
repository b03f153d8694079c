"""What a tally tells the outside about its traffic: operations, and outages in the log. Pure."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from ..errors import StoreTimeoutError
from .untrusted import let_handlers_pass, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..errors import StoreError

__all__ = ["Observer", "Operation", "Outage", "observe"]

_log = logging.getLogger("tallymark")
_log.addHandler(logging.NullHandler())  # quiet where the program has not set up its logging


class Operation(NamedTuple):
    """One attempt to have Redis do something: what an `Observer` is told.

    Attributes:
        kind: ``"write"`` for a batch of marks in one transaction, ``"read"`` for a
            request of a read.
        store: where, such as ``redis://localhost:6379/0``; never with a password.
        size: how many marks, or how many commands.
        bytes_sent: how many bytes were written.
        ended: when it ended, in seconds since 1970.
        seconds: how long it took, from the first byte that was written.
        error: why it failed; ``None`` if all replies are there. Marks that
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
    """What the option ``observer`` takes: something to call after each operation."""

    def __call__(self, operation: Operation, /) -> object:
        """Take note of an operation, quickly: marks wait meanwhile.

        An exception is logged, and harms nobody.
        """


def observe(observer: Observer, operation: Operation) -> None:
    """Tell an observer, whatever it makes of it."""
    try:
        observer(operation)
    except Exception as error:  # noqa: BLE001 - logged, which is all that there is to do
        let_handlers_pass(error)
        _log.exception("the observer %s failed", shown(observer))


class Outage:
    """Tells the log when a server is lost, and when it is found again, each once.

    A single failure that the next attempt mends is nothing to talk about: Redis
    closes connections that have been idle, or restarts.

    Attributes:
        lasts: whether the last attempt failed.
    """

    def __init__(self, store: str, clock: Callable[[], float]) -> None:
        """Begin with a server that is there.

        Arguments:
            store: how the log calls it.
            clock: returns seconds.
        """
        self._store = store
        self._clock = clock
        self._begun = 0.0
        self._failures = 0
        self._told = False
        self.lasts = False

    def failed(self, failure: StoreError, *, final: bool) -> None:
        """Take note of a failed attempt.

        Arguments:
            failure: why.
            final: whether a call failed with it.
        """
        if not self.lasts:
            self.lasts = True
            self._begun = self._clock()
            self._failures = 0
        if not self._told and (final or self._failures):
            self._told = True
            told = "" if isinstance(failure, StoreTimeoutError) else f": {failure}"
            _log.warning("no answer from %s%s", self._store, told or " in time")
        self._failures += 1

    def is_over(self) -> None:
        """Take note of an answer, if it `lasts`."""
        self.lasts = False
        if not self._told:
            return
        self._told = False
        seconds = self._clock() - self._begun
        _log.info("%s is back after %.3g s, %d failures", self._store, seconds, self._failures)
