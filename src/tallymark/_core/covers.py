"""Which bitmaps cover a range of days: as few of them as are certain to tell all of it. Pure.

A wide bitmap may only take the place of those inside it if it holds all that they hold.
A mark sets the bits of its month, its week and its day together, so a month holds what its
days hold while it is there; but if it expires before they do, they know more. Years and
hours are marked on request only, so they never replace anything: they are asked too, where
they may outlive the others.
"""

from __future__ import annotations

import functools
from calendar import isleap, monthrange
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Final

from .periods import Granularity, Period

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Coverage", "cover", "days_of"]

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

#: A granularity, and the ordinals of one of its periods' first day and of the day after it.
_Span = tuple[Granularity, int, int]


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
