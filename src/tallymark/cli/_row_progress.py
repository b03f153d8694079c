"""How many rows an export or a restore has done, on a line of the terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

from .._core.untrusted import escaped

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["RowProgress"]

#: How many seconds are between two states of the line.
_BETWEEN: Final = 0.2

#: How many characters of a name are shown.
_NAME: Final = 30


class RowProgress:
    """A line on the standard error, if that is a terminal; cleared at the end."""

    def __init__(self, *, shown: bool) -> None:
        """Begin.

        Arguments:
            shown: whether to show anything.
        """
        self._shown = shown and sys.stderr.isatty()
        self._begun = self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._print("")

    def show(self, rows: int, name: str) -> None:
        """Show how many rows are done, and of what, now and then."""
        now = time.monotonic()
        if self._shown and now - self._last >= _BETWEEN:
            self._last = now
            rate = rows / (now - self._begun)
            self._print(f"{rows:,} rows, {rate:,.0f} rows/s: {escaped(name, _NAME)}")

    def _print(self, text: str) -> None:
        print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)  # noqa: T201
