"""Event sets of the last hours: the unions of bitmaps of hours, and of the days in between. Pure.

Bitmaps of hours are named by the wall clock. Where it is put forward, an hour of the calendar
has no bitmap, and where it is put back, two hours share one. So so many hours of real time are
covered by fewer or more hours of the wall clock, which follow each other without a gap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final

from ..errors import InvalidValueError
from .arguments import check_name, immutable
from .periods import Granularity, Period
from .unions import BITMAPS_OF_A_DAY, Coverage, Union, cover, shifted_bounds
from .untrusted import reraise_from_handler, shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import tzinfo

    from .events import Bounds, Origin

__all__ = ["HourRange", "wall_hours"]

_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)

#: By how many hours a clock is put back at most. (By two: Antarctica/Troll; by three: Casey.)
_PUT_BACK: Final = 3

#: How many bitmaps have marks of the hours at both ends at most.
_EDGES: Final = 2 * 24


@immutable
@dataclass(frozen=True, repr=False, slots=True)
class HourRange(Union):
    """The users of an event in several hours that follow each other on the wall clock.

    Whole days among them are read as `cover` chooses: a mark of an hour is one of its day, too.

    Attributes:
        origin, event: as in `Bitmap`.
        first, after: naive; the beginning of the first hour, and the end of the last one.
        coverage: which bitmaps the database has.
    """

    origin: Origin
    event: str
    first: datetime
    after: datetime
    coverage: Coverage

    def __post_init__(self) -> None:
        check_name("event", self.event)

    @property
    def size(self) -> int:
        """About how many bitmaps the union has."""
        length = self.after - self.first
        return min(length // _HOUR, _EDGES) + length // (28 * _DAY)

    def _bounds(self) -> Bounds:
        return self.first, self.after

    def shift(self, count: int) -> HourRange:
        """Return the range shifted by ``count`` times its length on the wall clock."""
        first, after = shifted_bounds(self, self.first, self.after, count)
        return replace(self, first=first, after=after)

    def at(self, origin: Origin) -> HourRange:
        """Return the same range of another database or prefix."""
        return HourRange(origin, self.event, self.first, self.after, self.coverage)

    def max_size(self) -> int:
        """Return how many dated bitmaps have marks of these hours at most."""
        return _EDGES + BITMAPS_OF_A_DAY * ((self.after - self.first) // _DAY)

    def periods(self) -> tuple[Period, ...]:
        """Return the hours at both ends, and the periods of the whole days in between."""
        return tuple(self.iter_periods())

    def iter_periods(self) -> Iterator[Period]:
        """Yield the periods one by one, as they are computed."""
        # Of the years 1 to 9999, since `shift` and `wall_hours` return no others.
        begin = self.first.toordinal() + (self.first != _midnight(self.first))
        end = self.after.toordinal()
        if begin >= end:
            yield from _hours(self.first, self.after)
            return
        yield from _hours(self.first, datetime.fromordinal(begin))
        yield from cover(begin, end, self.coverage)
        yield from _hours(datetime.fromordinal(end), self.after)

    def __repr__(self) -> str:
        first, after = (each.isoformat(" ", "minutes") for each in (self.first, self.after))
        return f"hours({self.event!r}, {first}, {after})"


def wall_hours(moment: datetime, hours: int, zone: tzinfo) -> tuple[datetime, datetime]:
    """Return the beginning of the first and the end of the last hour of the wall clock.

    Of those that have a moment of the last so many hours of real time. The hour of the moment
    is the last one of these.

    Arguments:
        moment: a moment, naive, in the zone; its ``fold`` matters.
        hours: how many hours, 1 or more.
        zone: a time zone.

    Raises:
        InvalidValueError: an hour is not in the years 1 to 9999.
    """
    try:
        begun = moment.replace(minute=0, second=0, microsecond=0)
        last = begun.replace(tzinfo=zone).astimezone(timezone.utc)
        first = last - (hours - 1) * _HOUR
        # If the clock is put back in the first hours, a later one of these is the first on it;
        # if in the last hours, an earlier one is the last.
        distances = [step * _HOUR for step in range(1, min(_PUT_BACK + 1, hours))]
        firsts = [_at(first + distance, zone) for distance in distances]
        lasts = [_at(last - distance, zone) for distance in distances]
        first_hour = min([begun, _at(first, zone), *firsts])
        return _hour(first_hour), _hour(max([begun, *lasts])) + _HOUR
    except Exception as error:
        reraise_from_handler(error)
        raise InvalidValueError(
            f"the last {shown(hours)} hours before {moment} leave the years 1 to 9999"
        ) from error


def _at(instant: datetime, zone: tzinfo) -> datetime:
    """Return the beginning of the hour of the wall clock at an instant."""
    return _hour(instant.astimezone(zone).replace(tzinfo=None))


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0, fold=0)


def _midnight(moment: datetime) -> datetime:
    return _hour(moment).replace(hour=0)


def _hours(first: datetime, after: datetime) -> Iterator[Period]:
    while first < after:
        yield Period(Granularity.HOUR, first)
        first += _HOUR
