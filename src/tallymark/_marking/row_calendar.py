"""Which bitmaps the days and hours of rows have: their suffixes, and when they expire. Pure."""

from __future__ import annotations

import math
from datetime import date, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from .._core.periods import UNIQUE_SUFFIX, Granularity, Period, suffix_of
from .row_marks import GRANULARITIES

if TYPE_CHECKING:
    from .._core.expiry import Expiry
    from .._core.options import Options

__all__ = ["RowCalendar", "Span", "Unit"]

#: How many days or hours are cached; rows of 20 years have 7,300 days.
_CACHED: Final = 20_000


_INDEXES: Final = {granularity: index for index, granularity in enumerate(GRANULARITIES)}


class Span(NamedTuple):
    """The period of a bitmap.

    Attributes:
        granularity: its kind, as an index of `GRANULARITIES`.
        suffix: the end of the key, from ``_`` on.
        expires_at: when the bitmap expires, in seconds since 1970; ``math.inf`` for never.
    """

    granularity: int
    suffix: bytes
    expires_at: float


class Unit(NamedTuple):
    """The smallest period that rows have: a day, or an hour.

    Attributes:
        group: equal for units whose rows share all bitmaps of ``wide``.
        wide: the spans of the month, of the year, and without a date.
        narrow: the spans of the week, the day, and the hour, each within the one before, but
            that a month or a year may end within a week.
        spans: all of these.
    """

    group: int
    wide: tuple[Span, ...]
    narrow: tuple[Span, ...]
    spans: tuple[Span, ...]


class RowCalendar:
    """Makes the units of days or hours, and caches them."""

    def __init__(self, options: Options, expiry: Expiry, granularities: Granularity) -> None:
        """Prepare for one call.

        Arguments:
            options: the tally's.
            expiry: when bitmaps expire.
            granularities: of the bitmaps of each row.
        """
        self.granularities = granularities
        self.hourly = Granularity.HOUR in granularities
        self._expiry = expiry
        self._expiring = options.lifetimes
        self._dateless = Span(_INDEXES[Granularity.UNIQUE], b"_" + UNIQUE_SUFFIX.encode(), math.inf)
        self._all_expire = all(granularity in self._expiring for granularity in granularities)
        self._units: dict[int, Unit] = {}
        self._spans: dict[tuple[Granularity, int], Span] = {}

    def unit(self, number: int) -> Unit:
        """Return a unit.

        Arguments:
            number: the day's ordinal, or the hour's, as `tallymark._core.moments` numbers them.
        """
        unit = self._units.get(number)
        if unit is None:
            if len(self._units) >= _CACHED:
                self._units.clear()
                self._spans.clear()
            unit = self._units[number] = self._make(number)
        return unit

    def has_expired(self, number: int, now: float) -> bool:
        """Return whether all bitmaps of a unit have expired; then so have earlier ones.

        Arguments:
            number: as for `unit`.
            now: the present, in seconds since 1970.
        """
        return self._all_expire and all(span.expires_at <= now for span in self.unit(number).spans)

    def _make(self, number: int) -> Unit:
        ordinal, hour = divmod(number, 24) if self.hourly else (number, 0)
        day = date.fromordinal(ordinal)
        month = 12 * day.year + day.month
        wide = [self._span(Granularity.MONTH, month, day)]
        if Granularity.YEAR in self.granularities:
            wide.append(self._span(Granularity.YEAR, day.year, day))
        if Granularity.UNIQUE in self.granularities:
            wide.append(self._dateless)
        narrow = [
            self._span(Granularity.WEEK, (ordinal - 1) // 7, day),
            self._span(Granularity.DAY, ordinal, day),
        ]
        if self.hourly:
            narrow.append(self._made(Granularity.HOUR, day, hour))
        return Unit(month, tuple(wide), tuple(narrow), (*wide, *narrow))

    def _span(self, granularity: Granularity, number: int, day: date) -> Span:
        span = self._spans.get((granularity, number))
        if span is None:
            span = self._spans[granularity, number] = self._made(granularity, day, 0)
        return span

    def _made(self, granularity: Granularity, day: date, hour: int) -> Span:
        expires_at = math.inf
        if granularity in self._expiring:
            moment = datetime(day.year, day.month, day.day, hour)
            expires_at = self._expiry.time(Period.containing(granularity, moment))
        if granularity is Granularity.HOUR:
            suffix = f"_{suffix_of(Granularity.DAY, day)}-{hour}"
        else:
            suffix = f"_{suffix_of(granularity, day)}"
        return Span(_INDEXES[granularity], suffix.encode(), expires_at)
