"""Unions of bitmaps: which ones define the users of an event in a range of days. Pure.

A wide bitmap may only take the place of those inside it if it holds all that they hold.
A mark sets the bits of its month, its week and its day together, so a month holds what its
days hold while it is there; but if it expires before they do, they know more. Years and
hours are marked on request only, so they never replace anything: they are asked too, where
they may outlive the others.
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
    "Coverage",
    "DayRange",
    "PeriodUnion",
    "Union",
    "cover",
    "days_of",
]

#: All that have periods, the widest first.
_DATED: Final = (
    Granularity.YEAR,
    Granularity.MONTH,
    Granularity.WEEK,
    Granularity.DAY,
    Granularity.HOUR,
)

#: Those that every mark sets, also bitmapist's, the widest first.
_ALWAYS: Final = (Granularity.MONTH, Granularity.WEEK, Granularity.DAY)

_HOURS: Final = 24

#: A life that has no end: longer than the calendar.
_FOR_EVER: Final = timedelta(days=4_000_000)

#: By how much the offset of a time zone may change between the ends of two periods, at most.
_SHIFT: Final = timedelta(days=2)

#: How many days a bitmap of a range is of at most: those of a month.
_DAYS_OF_A_MONTH: Final = 31

#: In how many bitmaps with a date a day is, at most: its 24 hours', and its own, and those
#: of its week, its month and its year.
_BITMAPS_OF_A_DAY: Final = 28

#: A granularity, and the ordinals of one of its periods' first day and of the day after it.
_Span = tuple[Granularity, int, int]


class Union(EventSet):
    """A union of bitmaps of one event that stands for a stretch of time.

    Attributes:
        event: the event's name.
    """

    __slots__ = ()

    event: str

    @property
    def size(self) -> int:
        """About how many bitmaps it has."""
        return 12

    def periods(self) -> tuple[Period, ...]:
        """Return the periods whose bitmaps are united."""
        raise NotImplementedError

    def most(self) -> int:
        """Return how many periods there are at most, without a look at them."""
        raise NotImplementedError

    def unfolded(self) -> Iterator[Period]:
        """Yield the periods one by one, as they are found."""
        return iter(self.periods())

    def bitmaps(self) -> Iterator[Bitmap]:
        """Yield the bitmaps of all its periods."""
        return (Bitmap(self.origin, self.event, period) for period in self.periods())


@immutable
@dataclass(frozen=True, repr=False, slots=True)
class PeriodUnion(Union):
    """An event in a period whose own bitmap may hold less than those inside the period.

    That is a year, which has a bitmap for some of its marks or for none; and with the
    option ``expire`` any period that expires before its parts do.

    Attributes:
        origin, event, period: as in `Bitmap`.
        coverage: which bitmaps there are.
    """

    origin: Origin
    event: str
    period: Period
    coverage: Coverage

    def __post_init__(self) -> None:
        check_name("event", self.event)

    @property
    def own(self) -> Bitmap | None:
        """The bitmap of the period itself; ``None`` if there are none of its kind."""
        if self.coverage.has(self.period.granularity):
            return Bitmap(self.origin, self.event, self.period)
        return None

    def _bounds(self) -> Bounds:
        return self.period.start, self.period.end

    def shift(self, count: int) -> PeriodUnion:
        """Return the period that is so many units later."""
        checked_int("count", count)
        return replace(self, period=self.period.shift(count))

    def at(self, origin: Origin) -> PeriodUnion:
        """Return the same period somewhere else."""
        return PeriodUnion(origin, self.event, self.period, self.coverage)

    def periods(self) -> tuple[Period, ...]:
        """Return the period itself, if it may have a bitmap, and those that cover it."""
        return tuple(self.unfolded())

    def most(self) -> int:
        """Return how many bitmaps it has if it needs all that there are of its days."""
        first, after = days_of(self.period)
        return _BITMAPS_OF_A_DAY * (after - first)

    def unfolded(self) -> Iterator[Period]:
        """Yield the periods one by one, as they are found."""
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
    """An event on any day of a range, from as few bitmaps as are certain to say that.

    Attributes:
        origin, event: as in `Bitmap`.
        first, after: midnights; the day of ``after`` is not a part of it.
        coverage: which bitmaps there are.
    """

    origin: Origin
    event: str
    first: datetime
    after: datetime
    coverage: Coverage
    #: Its periods, once they have been found: it is asked for them several times.
    _periods: tuple[Period, ...] | None = field(init=False, compare=False, default=None)

    def __post_init__(self) -> None:
        check_name("event", self.event)
        if self.first >= self.after:
            raise InvalidValueError(
                f"a range begins before it ends, got {self.first} to {self.after}"
            )

    @property
    def size(self) -> int:
        """About how many bitmaps it has: those of the months, and some at the edges."""
        return 12 + (self.after - self.first).days // 28

    def _bounds(self) -> Bounds:
        return self.first, self.after

    def shift(self, count: int) -> DayRange:
        """Return the range moved by so many times its own length."""
        try:
            distance: timedelta = checked_int("count", count) * (self.after - self.first)
            return replace(self, first=self.first + distance, after=self.after + distance)
        except OverflowError as error:
            raise InvalidValueError(
                f"{shown(self)} cannot be shifted that far: it leaves the years 1 to 9999"
            ) from error

    def at(self, origin: Origin) -> DayRange:
        """Return the same range somewhere else."""
        there = DayRange(origin, self.event, self.first, self.after, self.coverage)
        object.__setattr__(there, "_periods", self._periods)
        return there

    @property
    def widest(self) -> int:
        """Of how many days one of its bitmaps is at most."""
        return _DAYS_OF_A_MONTH

    def most(self) -> int:
        """Return how many bitmaps it has if it needs all that there are of its days."""
        return _BITMAPS_OF_A_DAY * (self.after - self.first).days

    def unfolded(self) -> Iterator[Period]:
        """Yield the periods one by one, as they are found."""
        if self._periods is not None:
            yield from self._periods
            return
        found = []
        for period in cover(self.first.toordinal(), self.after.toordinal(), self.coverage):
            found.append(period)
            yield period
        object.__setattr__(self, "_periods", tuple(found))

    def periods(self) -> tuple[Period, ...]:
        """Return whole months and weeks where they fit and suffice, and days at the edges."""
        return self._periods or tuple(self.unfolded())

    def __repr__(self) -> str:
        return f"between({self.event!r}, {self.first:%Y-%m-%d}, {self.after:%Y-%m-%d})"


@dataclass(frozen=True)
class Coverage:
    """Which bitmaps a database has, and how long they live after their periods.

    Attributes:
        lives: how long those of each granularity live, the widest first.
    """

    lives: tuple[tuple[Granularity, timedelta], ...]

    @classmethod
    def of(cls, lives: Mapping[Granularity, timedelta], *, yearly: bool, hourly: bool) -> Coverage:
        """Return the coverage of a tally with these options.

        Arguments:
            lives: how long bitmaps live after their periods; all others stay.
            yearly, hourly: whether there may be bitmaps of years and of hours.
        """
        optional = {Granularity.YEAR: yearly, Granularity.HOUR: hourly}
        return cls(
            tuple(
                (granularity, min(lives.get(granularity, _FOR_EVER), _FOR_EVER))
                for granularity in _DATED
                if optional.get(granularity, True)
            )
        )

    @functools.cached_property
    def alone(self) -> frozenset[Granularity]:
        """Those of which one bitmap is certain to hold all that others inside its period hold."""
        return frozenset(
            granularity
            for granularity in (*_ALWAYS, Granularity.HOUR)
            if all(
                self.life(granularity) >= life
                for part, life in self.lives
                if _DATED.index(part) > _DATED.index(granularity)
            )
        )

    @functools.cached_property
    def staying(self) -> tuple[Granularity, ...]:
        """Those that every mark sets and that never expire, the widest first."""
        return tuple(each for each in _ALWAYS if self.life(each) == _FOR_EVER)

    def has(self, granularity: Granularity) -> bool:
        """Return whether there may be bitmaps of this granularity."""
        return any(granularity is each for each, _ in self.lives)

    def life(self, granularity: Granularity) -> timedelta:
        """Return how long bitmaps of a granularity live after their periods."""
        return dict(self.lives).get(granularity, _FOR_EVER)


def days_of(period: Period) -> tuple[int, int]:
    """Return the ordinals of a period's first day and of the day after its last."""
    _, start, stop = _span(period.granularity, period.start.toordinal())
    return start, stop


def cover(first: int, after: int, coverage: Coverage) -> Iterator[Period]:
    """Yield the periods whose bitmaps together tell all that is known of some days.

    They lie inside the range, and may overlap, as a week and a month do: their bitmaps
    are for a union. Whatever has expired, that union holds everybody who is in any bitmap
    of a period inside the range.

    For the first day that is not covered yet, the period that holds it and reaches
    furthest is the best choice among those that stay (interval covering is one of the
    problems that the greedy choice solves). Where none of these is inside the range, each
    is taken that may outlive the others.

    Arguments:
        first, after: ordinals of the first day and of the day after the last, which may
            be that after the year 9999.
        coverage: which bitmaps there are.
    """
    taken: dict[Granularity, int] = {}
    day = first
    while day < after:
        best: _Span | None = None
        for granularity in coverage.staying:
            span = _span(granularity, day)
            # Of those that reach equally far, the first and so the widest.
            if span[1] >= first and span[2] <= after and (best is None or span[2] > best[2]):
                best = span
        if best is not None:
            yield Period(best[0], datetime.fromordinal(best[1]))
            day = best[2]
            continue
        for granularity, start, _ in _longest_lived(first, after, day, coverage):
            if taken.get(granularity) != start:
                taken[granularity] = start
                yield from _periods(granularity, start)
        day += 1


def _longest_lived(first: int, after: int, day: int, coverage: Coverage) -> Sequence[_Span]:
    """Return the periods of a day that no other is certain to outlive, and to hold all of.

    A life begins with the end of the period. So what reaches further and lives no shorter
    is there longer, whatever the time zone's clock does meanwhile.
    """
    inside = [
        (span, life)
        for granularity, life in coverage.lives
        for span in (_span(granularity, day),)
        if span[1] >= first and span[2] <= after
    ]
    return [each[0] for each in inside if not any(_outlives(other, each) for other in inside)]


def _outlives(one: tuple[_Span, timedelta], other: tuple[_Span, timedelta]) -> bool:
    """Tell of two periods of a day whether one makes the other superfluous on that day."""
    (granularity, start, stop), life = one
    (others, others_start, others_stop), others_life = other
    if granularity is others or granularity not in _ALWAYS:
        return False
    if stop == others_stop and life == others_life:  # the wider one is in use anyway
        return start < others_start or others not in _ALWAYS
    if stop >= others_stop and life >= others_life:
        return True
    return timedelta(days=stop - others_stop) + life - others_life >= _SHIFT


def _periods(granularity: Granularity, start: int) -> Iterator[Period]:
    """Yield the period of a granularity that begins with a day; of hours, all of that day."""
    midnight = datetime.fromordinal(start)
    if granularity is Granularity.HOUR:
        for hour in range(_HOURS):
            yield Period(granularity, midnight + timedelta(hours=hour))
    else:
        yield Period(granularity, midnight)


def _span(granularity: Granularity, day: int) -> _Span:
    """Return the period that holds a day; of hours, the day."""
    if granularity is Granularity.WEEK:
        start = day - (day - 1) % 7  # the first of all days was a Monday
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
