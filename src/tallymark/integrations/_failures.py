"""What an integration does about errors: it logs them, and the request goes on."""

from __future__ import annotations

import atexit
import contextlib
import logging
import time
import traceback
import weakref
from typing import TYPE_CHECKING, Final

from .._core.untrusted import kind_of, reraise_from_handler
from ..errors import TallymarkError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["LoggedFailures", "log_the_rest"]

_log = logging.getLogger("tallymark.integrations")

#: The seconds between two messages of one kind of failure.
_INTERVAL: Final = 10.0

#: The most kinds of failures that a log tells apart; later ones share one kind.
_MOST_KINDS: Final = 100

#: All logs of the process.
_logs: Final[weakref.WeakSet[LoggedFailures]] = weakref.WeakSet()


class LoggedFailures:
    """Logs errors: of each kind one in ten seconds, and the number of those that were not logged.

    The kind of an error of tallymark is its class. That of any other exception, which is one of
    the program's code, is its class and the line that has raised it.

    ``with failures:`` logs the exceptions of the block in place of raising them.
    """

    def __init__(self, what: str) -> None:
        """Say what failed, as the beginning of the messages."""
        self._what = what
        self._silent_until: dict[str, float] = {}
        self._unlogged: dict[str, int] = {}
        _logs.add(self)

    def log(self, error: BaseException) -> None:
        """Log an error, or count it until the next message of its kind. Raises nothing."""
        with _contained():
            kind = _kind(error)
            if kind not in self._silent_until and len(self._silent_until) >= _MOST_KINDS:
                kind = "other errors"
            now = time.monotonic()
            if now < self._silent_until.get(kind, now):
                self._unlogged[kind] = self._unlogged.get(kind, 0) + 1
                return
            self._silent_until[kind] = now + _INTERVAL
            unlogged = self._unlogged.pop(kind, 0)
            _log.warning(
                "%s: %s%s",
                self._what,
                error,
                f" (and {unlogged} more, not logged)" if unlogged else "",
                exc_info=None if isinstance(error, TallymarkError) else error,
            )

    def log_the_rest(self) -> None:
        """Log how many errors were not logged yet. Raises nothing."""
        for kind in list(self._unlogged):
            with _contained():
                _log.warning("%s: %d more, %s", self._what, self._unlogged.pop(kind, 0), kind)

    def __enter__(self) -> None:
        """Begin a block whose exceptions are logged."""

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Log an exception of the block; return whether there was one to log."""
        if not isinstance(exc, Exception):
            return False
        self.caught(exc)
        return True

    def caught(self, error: BaseException) -> None:
        """Log an exception of the program's code, as ``with failures:`` does for a block."""
        reraise_from_handler(error)
        self.log(error)


@atexit.register
def log_the_rest() -> None:
    """Log how many errors the logs have not logged, as the process or an app ends."""
    for log in list(_logs):
        log.log_the_rest()


@contextlib.contextmanager
def _contained() -> Iterator[None]:
    """Print what filters and handlers of the program's logging raise, as `logging` does."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - of the program's code; it has nothing to do with the request
        reraise_from_handler(error)
        with contextlib.suppress(Exception):
            traceback.print_exc()


def _kind(error: BaseException) -> str:
    """Return the kind of an error, as messages show it."""
    if isinstance(error, TallymarkError):
        return kind_of(error)
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = "" if place is None else f" at {place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
    return f"{kind_of(error)}{where}"
