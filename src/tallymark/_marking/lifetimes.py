"""How long bitmaps live, counted from the end of their period. Pure."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Final

from .._core.periods import Granularity, timestamp
from ..errors import InvalidValueError

if TYPE_CHECKING:
    from .._core.options import Options
    from .._core.periods import Period

__all__ = ["Lifetimes"]

#: Of the years 1 to 9999.
_MIDDLE: Final = datetime(5000, 1, 1)


class Lifetimes:
    """When the bitmaps of a tally go, as the option ``expire`` says.

    That depends on nothing but their period: whoever marks a bitmap, and
    however late, gives it the same end.
    """

    def __init__(self, options: Options) -> None:
        """Prepare for a tally's options."""
        self._lives = options.lifetimes
        self._zone = options.zone
        #: Whether the bitmaps of days end at all.
        self.days_end = Granularity.DAY in options.lifetimes

    def end(self, period: Period | None) -> float:
        """Return when a bitmap goes, in seconds since 1970; ``math.inf`` if it stays.

        Arguments:
            period: the bitmap's; ``None`` for the dateless one.

        Raises:
            InvalidValueError: the tally's zone is of a class that fails in those years.
        """
        if period is None or period.granularity not in self._lives:
            return math.inf
        life = self._lives[period.granularity]
        try:
            last = period.end
        except InvalidValueError:  # with the year 9999
            return math.inf
        try:
            end = timestamp(last, self._zone)
        except OverflowError:
            # At one end of what Python can say; only one of them is to come.
            return math.inf if period.start > _MIDDLE else -math.inf
        return math.ceil(end + life.total_seconds())
