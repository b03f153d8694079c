"""Which bitmaps cover a range of days: as few of them as possible. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .errors import InvalidValueError
from .periods import Granularity, Period

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

__all__ = ["cover", "covering"]

#: What ranges are covered with, the widest first. Only some tallies mark years.
_GRANULARITIES: Final = (Granularity.YEAR, Granularity.MONTH, Granularity.WEEK, Granularity.DAY)


def cover(begin: datetime, end: datetime, *, yearly: bool) -> tuple[Period, ...]:
    """Return what `covering` yields."""
    return tuple(covering(begin, end, yearly=yearly))


def covering(begin: datetime, end: datetime, *, yearly: bool) -> Iterator[Period]:
    """Yield the fewest periods that together are exactly the days of ``[begin, end)``.

    They may overlap, as a week and a month do: their bitmaps are for a union.
    For the first day that is not covered yet, the period that holds it and
    reaches furthest is the best choice (interval covering is one of the
    problems that the greedy choice solves).

    Arguments:
        begin, end: midnights, ``begin`` no later than ``end``.
        yearly: whether there are bitmaps of years.
    """
    granularities = _GRANULARITIES if yearly else _GRANULARITIES[1:]
    day = begin
    while day < end:
        inside = [
            (period, after)
            for granularity in granularities
            for period in (Period.containing(granularity, day),)
            if period.start >= begin
            if (after := _after(period, end)) is not None
        ]
        # Of those that reach equally far, the first and so the widest.
        chosen, day = max(inside, key=lambda choice: choice[1])
        yield chosen


def _after(period: Period, end: datetime) -> datetime | None:
    """Return the end of a period if it is not after this one."""
    try:
        after = period.end
    except InvalidValueError:  # after the year 9999
        return None
    return after if after <= end else None
