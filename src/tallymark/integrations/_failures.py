"""What an integration does about errors: it logs them, and the request goes on."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from .._core.untrusted import reraise_from_handler
from ..errors import TallymarkError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["LoggedFailures"]

_log = logging.getLogger("tallymark.integrations")

#: The seconds between two messages of one log.
_INTERVAL: Final = 10.0


class LoggedFailures:
    """Logs errors: one in ten seconds, which has the number of those that were not logged.

    ``with failures:`` logs the exceptions of the block in place of raising them.
    """

    def __init__(self, what: str) -> None:
        """Say what failed, as the beginning of the messages."""
        self._what = what
        self._unlogged = 0
        self._silent_until = 0.0

    def log(self, error: Exception) -> None:
        """Log an error, or count it until the next message."""
        now = time.monotonic()
        if now < self._silent_until:
            self._unlogged += 1
            return
        self._silent_until, unlogged, self._unlogged = now + _INTERVAL, self._unlogged, 0
        _log.warning(
            "%s: %s%s",
            self._what,
            error,
            f" (and {unlogged} more, not logged)" if unlogged else "",
            # Any other exception is one of the program's code.
            exc_info=None if isinstance(error, TallymarkError) else error,
        )

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
        reraise_from_handler(exc)
        self.log(exc)
        return True
