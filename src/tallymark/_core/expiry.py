"""When bitmaps expire, by the option ``expire``. Pure."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Final

from ..errors import InvalidValueError
from .periods import Granularity, timestamp

if TYPE_CHECKING:
    from .options import Options
    from .periods import Period

__all__ = ["Expiry"]

#: The middle of the years 1 to 9999.
_MIDDLE: Final = datetime(5000, 1, 1)


class Expiry:
    """When bitmaps expire, by the option ``expire``.

    The expiry time depends on the bitmap's period alone: every mark, however late, sets
    the same one.
    """

    def __init__(self, options: Options) -> None:
        """Prepare for a tally's options."""
        self._lifetimes = options.lifetimes
        self._zone = options.zone
        #: Whether the bitmaps of days expire.
        self.days_expire = Granularity.DAY in options.lifetimes

    def time(self, period: Period | None) -> float:
        """Return when a bitmap expires, in seconds since 1970; ``math.inf`` for never.

        Arguments:
            period: the bitmap's period; ``None`` for the dateless bitmap.

        Raises:
            InvalidValueError: the tally's zone is of a class that fails in those years.
        """
        if period is None or period.granularity not in self._lifetimes:
            return math.inf
        lifetime = self._lifetimes[period.granularity]
        try:
            period_end = period.end
        except InvalidValueError:  # the year 9999, after which there is no datetime
            return math.inf
        try:
            end = timestamp(period_end, self._zone)
        except OverflowError:
            # At either limit of datetime: in the far future or the far past.
            return math.inf if period.start > _MIDDLE else -math.inf
        return math.ceil(end + lifetime.total_seconds())
