"""Event sets of long periods and of ranges of days: the unions of bitmaps to read. Pure.

The bitmap of a wide period may replace those of the periods inside it only if it has all
their users. A mark sets the bits of its month, its week and its day together, so the bitmap
of a month has the users of its days as long as it exists; but it may expire before they do.
Years and hours are marked on request only, so they never replace other bitmaps: they are
read in addition, where they may outlive the others.
"""

from __future__ import annotations

import functools
from calendar import isleap, monthrange
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Final

from ..errors import InvalidValueError
from .arguments import check_name, checked_int, immutable
from .events import Bitmap, EventSet
from .periods import Granularity, Period
from .untrusted import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .events import Bounds, Origin

__all__ = [
    "BITMAPS_OF_A_DAY",
    "Coverage",
    "DayRange",
    "PeriodUnion",
    "Union",
    "cover",
    "days_of",
    "shifted_bounds",
    "spans",
]

#: The dated granularities, the widest first.
_DATED: Final = (
    Granularity.YEAR,
    Granularity.MONTH,
    Granularity.WEEK,
    Granularity.DAY,
    Granularity.HOUR,
)

#: The granularities that every mark sets, also one of bitmapist; the widest first.
_ALWAYS: Final = (Granularity.MONTH, Granularity.WEEK, Granularity.DAY)

_HOURS: Final = 24

#: The lifetime of bitmaps that never expire: longer than the calendar.
_FOR_EVER: Final = timedelta(days=4_000_000)

#: The most by which the offset of a time zone may change between the ends of two periods.
_SHIFT: Final = timedelta(days=2)

#: How many days the widest bitmap of a range has at most: those of a month.
_DAYS_OF_A_MONTH: Final = 31

#: How many dated bitmaps have marks of one day at most: those of its 24 hours, of the day, and
#: of its week, its month and its year.
BITMAPS_OF_A_DAY: Final = 28

#: The granularity of a period, and the ordinals of its first day and of the day after it.
_Span = tuple[Granularity, int, int]


class Union(EventSet):
    """The users of an event in a span of time, as a union of bitmaps of several periods.

    Attributes:
        event: the event's name.
    """

    __slots__ = ()

    event: str

    @property
    def size(self) -> int:
        """About how many bitmaps the union has."""
        return 12

    def periods(self) -> tuple[Period, ...]:
        """Return the periods whose bitmaps are united."""
        raise NotImplementedError

    def max_size(self) -> int:
        """Return an upper bound of the number of periods, in constant time."""
        raise NotImplementedError

    def iter_periods(self) -> Iterator[Period]:
        """Yield the periods one by one, as they are computed."""
        return iter(self.periods())

    def bitmaps(self) -> Iterator[Bitmap]:
        """Yield the bitmaps of all periods."""
        return (Bitmap(self.origin, self.event, period) for period in self.periods())


@immutable
@dataclass(frozen=True, repr=False, slots=True)
class PeriodUnion(Union):
    """The users of an event in a period whose own bitmap may lack some of them.

    That is a year, since marks set bits of years on request only; and with the option
    ``expire`` any period whose bitmap expires before those of the periods inside it.

    Attributes:
        origin, event, period: as in `Bitmap`.
        coverage: which bitmaps the database has.
    """

    origin: Origin
    event: str
    period: Period
    coverage: Coverage

    def __post_init__(self) -> None:
        check_name("event", self.event)

    @property
    def own_bitmap(self) -> Bitmap | None:
        """The bitmap of the period itself; ``None`` if its granularity is not marked."""
        if self.coverage.has(self.period.granularity):
            return Bitmap(self.origin, self.event, self.period)
        return None

    def _bounds(self) -> Bounds:
        return self.period.start, self.period.end

    def shift(self, count: int) -> PeriodUnion:
        """Return the set of the period ``count`` units later."""
        checked_int("count", count)
        return replace(self, period=self.period.shift(count))

    def at(self, origin: Origin) -> PeriodUnion:
        """Return the same set of another database or prefix."""
        return PeriodUnion(origin, self.event, self.period, self.coverage)

    def periods(self) -> tuple[Period, ...]:
        """Return the period itself, if its granularity is marked, and the periods that cover it."""
        return tuple(self.iter_periods())

    def max_size(self) -> int:
        """Return how many dated bitmaps have marks of these days at most."""
        first, after = days_of(self.period)
        return BITMAPS_OF_A_DAY * (after - first)

    def iter_periods(self) -> Iterator[Period]:
        """Yield the periods one by one, as they are computed."""
        if self.coverage.has(self.period.granularity):
            yield self.period
        for part in cover(*days_of(self.period), self.coverage):
            if part != self.period:
                yield part

    def __repr__(self) -> str:
        return f"{self.period.granularity}({self.event!r}, {self.period})"


@immutable
@dataclass(frozen=True, repr=False, slots=True)
class DayRange(Union):
    """The users of an event on any day of a range, as the union that `cover` chooses.

    Attributes:
        origin, event: as in `Bitmap`.
        first, after: naive midnights; the day of ``after`` is not a part of the range.
        coverage: which bitmaps the database has.
    """

    origin: Origin
    event: str
    first: datetime
    after: datetime
    coverage: Coverage
    #: The periods, once they have been computed, since they are needed several times.
    _periods: tuple[Period, ...] | None = field(init=False, compare=False, default=None)

    def __post_init__(self) -> None:
        check_name("event", self.event)
        if self.first >= self.after:
            raise InvalidValueError(
                f"a range begins before it ends, got {self.first} to {self.after}"
            )

    @property
    def size(self) -> int:
        """About how many bitmaps the union has: those of its months, and some at the edges."""
        return 12 + (self.after - self.first).days // 28

    def _bounds(self) -> Bounds:
        return self.first, self.after

    def shift(self, count: int) -> DayRange:
        """Return the range shifted by ``count`` times its length."""
        first, after = shifted_bounds(self, self.first, self.after, count)
        return replace(self, first=first, after=after)

    def at(self, origin: Origin) -> DayRange:
        """Return the same range of another database or prefix."""
        moved = DayRange(origin, self.event, self.first, self.after, self.coverage)
        object.__setattr__(moved, "_periods", self._periods)
        return moved

    @property
    def max_days_per_bitmap(self) -> int:
        """How many days the widest bitmap of the union has at most."""
        return _DAYS_OF_A_MONTH

    def max_size(self) -> int:
        """Return how many dated bitmaps have marks of these days at most."""
        return BITMAPS_OF_A_DAY * (self.after - self.first).days

    def iter_periods(self) -> Iterator[Period]:
        """Yield the periods one by one, as they are computed."""
        if self._periods is not None:
            yield from self._periods
            return
        periods = []
        for period in cover(self.first.toordinal(), self.after.toordinal(), self.coverage):
            periods.append(period)
            yield period
        object.__setattr__(self, "_periods", tuple(periods))

    def periods(self) -> tuple[Period, ...]:
        """Return whole months and weeks where they fit and suffice, and days at the edges."""
        return self._periods or tuple(self.iter_periods())

    def __repr__(self) -> str:
        return f"between({self.event!r}, {self.first:%Y-%m-%d}, {self.after:%Y-%m-%d})"


def shifted_bounds(
    event_set: EventSet, first: datetime, after: datetime, count: int
) -> tuple[datetime, datetime]:
    """Return the bounds of a range, shifted by ``count`` times its length.

    Arguments:
        event_set: the range.
        first, after: its bounds.
        count: how many lengths.

    Raises:
        InvalidTypeError: the count is no int.
        InvalidValueError: a bound would leave the years 1 to 9999.
    """
    try:
        distance: timedelta = checked_int("count", count) * (after - first)
        return first + distance, after + distance
    except OverflowError as error:
        raise InvalidValueError(
            f"{shown(event_set)} cannot be shifted that far: it leaves the years 1 to 9999"
        ) from error


@dataclass(frozen=True)
class Coverage:
    """Which bitmaps a database has, and how long they live after their periods.

    Attributes:
        lifetimes: the granularities that are marked, and how long their bitmaps live; the
            widest first.
    """

    lifetimes: tuple[tuple[Granularity, timedelta], ...]

    @classmethod
    def of(
        cls, lifetimes: Mapping[Granularity, timedelta], *, yearly: bool, hourly: bool
    ) -> Coverage:
        """Return the coverage of a tally with these options.

        Arguments:
            lifetimes: how long bitmaps live after their periods, by granularity; those of others
                never expire.
            yearly, hourly: whether there may be bitmaps of years and of hours.
        """
        optional = {Granularity.YEAR: yearly, Granularity.HOUR: hourly}
        return cls(
            tuple(
                (granularity, min(lifetimes.get(granularity, _FOR_EVER), _FOR_EVER))
                for granularity in _DATED
                if optional.get(granularity, True)
            )
        )

    @functools.cached_property
    def complete(self) -> frozenset[Granularity]:
        """Granularities whose bitmaps have all users of the bitmaps of shorter periods inside."""
        return frozenset(
            granularity
            for granularity in (*_ALWAYS, Granularity.HOUR)
            if all(
                self.lifetime(granularity) >= life
                for part, life in self.lifetimes
                if _DATED.index(part) > _DATED.index(granularity)
            )
        )

    @functools.cached_property
    def permanent(self) -> tuple[Granularity, ...]:
        """The granularities that every mark sets and that never expire, the widest first."""
        return tuple(always for always in _ALWAYS if self.lifetime(always) == _FOR_EVER)

    def has(self, granularity: Granularity) -> bool:
        """Return whether there may be bitmaps of this granularity."""
        return any(granularity is marked for marked, _ in self.lifetimes)

    def lifetime(self, granularity: Granularity) -> timedelta:
        """Return how long bitmaps of a granularity live after their periods."""
        return dict(self.lifetimes).get(granularity, _FOR_EVER)


def days_of(period: Period) -> tuple[int, int]:
    """Return the ordinals of a period's first day and of the day after its last."""
    _, start, stop = _span(period.granularity, period.start.toordinal())
    return start, stop


def spans(granularity: Granularity, first: int, after: int) -> Iterator[tuple[int, int]]:
    """Yield the days of the periods that overlap a range of days, in order.

    Arguments:
        granularity: DAY, WEEK, MONTH or YEAR.
        first, after: ordinals of the first day and of the day after the last one.

    Yields:
        For each period, the ordinals of its first day and of the day after its last.
    """
    while first < after:
        _, start, first = _span(granularity, first)
        yield start, first


def cover(first: int, after: int, coverage: Coverage) -> Iterator[Period]:
    """Yield periods inside a range of days whose bitmaps together have all users of the range.

    That is: whichever bitmaps have expired, the union of those of these periods has every
    user of any bitmap of a period inside the range. The periods may overlap, as a week and
    a month do.

    Among the periods whose bitmaps never expire, the greedy choice takes the fewest (interval
    covering): of those that contain the first day not covered yet, the one that ends last.
    For a day with no such period inside the range, all periods are taken that may outlive
    the others.

    Arguments:
        first, after: ordinals of the first day and of the day after the last one, which may
            be the day after the year 9999.
        coverage: which bitmaps the database has.
    """
    yielded: dict[Granularity, int] = {}
    day = first
    while day < after:
        best: _Span | None = None
        for granularity in coverage.permanent:
            span = _span(granularity, day)
            # Of spans that end on the same day, the first and so the widest.
            if span[1] >= first and span[2] <= after and (best is None or span[2] > best[2]):
                best = span
        if best is not None:
            yield Period(best[0], datetime.fromordinal(best[1]))
            day = best[2]
            continue
        for granularity, start, _ in _longest_lived(first, after, day, coverage):
            if yielded.get(granularity) != start:
                yielded[granularity] = start
                yield from _periods(granularity, start)
        day += 1


def _longest_lived(first: int, after: int, day: int, coverage: Coverage) -> Sequence[_Span]:
    """Return the periods of a day that no other period makes superfluous; see `_outlives`.

    Only those inside the range of days from ``first`` up to, not including, ``after``.
    """
    inside = [
        (span, life)
        for granularity, life in coverage.lifetimes
        for span in (_span(granularity, day),)
        if span[1] >= first and span[2] <= after
    ]
    return [period[0] for period in inside if not any(_outlives(other, period) for other in inside)]


def _outlives(one: tuple[_Span, timedelta], other: tuple[_Span, timedelta]) -> bool:
    """Return whether the bitmap of one period of a day makes that of another superfluous.

    That is: every mark of the day that is in the other one is also in this one, and this one
    expires no earlier. A lifetime begins with the end of the period, so a bitmap that ends
    no earlier and lives no shorter expires no earlier, whatever the offset of the time zone.
    """
    (granularity, start, stop), life = one
    (other_granularity, other_start, other_stop), other_life = other
    if granularity is other_granularity or granularity not in _ALWAYS:
        return False
    if stop == other_stop and life == other_life:  # the wider one serves more days
        return start < other_start or other_granularity not in _ALWAYS
    if stop >= other_stop and life >= other_life:
        return True
    return timedelta(days=stop - other_stop) + life - other_life >= _SHIFT


def _periods(granularity: Granularity, start: int) -> Iterator[Period]:
    """Yield the period of a granularity that begins on a day; for HOUR, all hours of the day."""
    midnight = datetime.fromordinal(start)
    if granularity is Granularity.HOUR:
        for hour in range(_HOURS):
            yield Period(granularity, midnight + timedelta(hours=hour))
    else:
        yield Period(granularity, midnight)


def _span(granularity: Granularity, day: int) -> _Span:
    """Return the span of the period that contains a day; for HOUR, the span of the day."""
    if granularity is Granularity.WEEK:
        start = day - (day - 1) % 7  # the day with ordinal 1 was a Monday
        return granularity, start, start + 7
    if granularity is Granularity.MONTH:
        this = date.fromordinal(day)
        start = day - this.day + 1
        return granularity, start, start + monthrange(this.year, this.month)[1]
    if granularity is Granularity.YEAR:
        this = date.fromordinal(day)
        start = this.replace(month=1, day=1).toordinal()
        return granularity, start, start + 365 + isleap(this.year)
    return granularity, day, day + 1
