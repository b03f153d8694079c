"""Calendar periods in the wall-clock time of a time zone, and conversions to and from it. Pure.

The first part of the file has periods and their suffixes in keys. All datetimes in it are
naive. The format of suffixes is bitmapist's (https://github.com/Doist/bitmapist):
unpadded numbers, and the ISO 8601 year beside the ISO week.

The second part converts arguments of callers and the present to naive wall-clock time, and
wall-clock times back to timestamps. Not every ``tzinfo`` works like `zoneinfo.ZoneInfo`:
with one of pytz, ``replace(tzinfo=...)`` gives the local mean time of the 19th century, and
one without ``fold`` (PEP 495) knows only one of the two moments that a wall clock shows
twice. All of them convert correctly from UTC to their zone, so only that is used.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Final, Literal, NoReturn

from ..errors import InvalidTypeError, InvalidValueError
from .arguments import checked_int, described
from .untrusted import kind_with_module, reraise_from_handler, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "UNIQUE_SUFFIX",
    "By",
    "Granularity",
    "Period",
    "checked_zone",
    "clock_at",
    "count_between",
    "dated",
    "parse_suffix",
    "periods_between",
    "suffix_of",
    "timestamp",
    "wall_clock",
]

#: The suffix of a bitmap without a date.
UNIQUE_SUFFIX = "u"

_EPOCH: Final = datetime(1970, 1, 1)
_DAY: Final = timedelta(days=1)

#: The moments at which a time zone is checked: in winter and in summer of each year.
_PROBES: Final = tuple(
    datetime(year, month, 1, 12, tzinfo=timezone.utc)
    for year in range(1970, 2038)
    for month in (1, 7)
)

#: Outside of these, a conversion may leave the years that a datetime can have.
_EARLIEST: Final = datetime.min + 2 * _DAY
_LATEST: Final = datetime.max - 2 * _DAY


class Granularity(enum.Flag):
    """The kind of a bitmap's period; values combine with ``|``.

    Marks return the combination of the granularities whose bit they flipped:
    it is falsy if no bit changed, ``Granularity.DAY in flipped`` tests for
    one of them, and iterating yields the single ones.
    """

    MONTH = enum.auto()
    WEEK = enum.auto()
    DAY = enum.auto()
    HOUR = enum.auto()
    UNIQUE = enum.auto()
    YEAR = enum.auto()

    def __iter__(self) -> Iterator[Granularity]:  # a part of enum.Flag from Python 3.11 on
        """Yield the single granularities in the order of their definition."""
        return (member for member in type(self) if member in self)

    def __str__(self) -> str:
        """Return the names in lower case, such as ``month|week|day``, or ``none``."""
        return "|".join(str(member.name).lower() for member in self) or "none"


#: A dated granularity, or its name.
By = Granularity | Literal["hour", "day", "week", "month", "year"]


def dated(by: By) -> Granularity:
    """Return a dated granularity that is given as such or by its name.

    Raises:
        InvalidTypeError, InvalidValueError: this is not exactly one dated granularity.
    """
    if isinstance(by, Granularity):
        if by in _DATED.values():
            return by
    elif not isinstance(by, str):
        raise InvalidTypeError(f"a granularity is {_DATED_NAMES}, got {shown(by)}")
    elif (name := str.__str__(by)) in _DATED:  # an exact str, also of a subclass
        return _DATED[name]
    got = str(by) if isinstance(by, Granularity) else by
    raise InvalidValueError(f"a granularity with periods is {_DATED_NAMES}, got {shown(got)}")


_DATED = {
    str(granularity): granularity
    for granularity in (
        Granularity.HOUR,
        Granularity.DAY,
        Granularity.WEEK,
        Granularity.MONTH,
        Granularity.YEAR,
    )
}
_DATED_NAMES = "one of " + ", ".join(map(repr, _DATED))


@dataclass(frozen=True)
class Period:
    """One calendar unit, such as the day 2026-11-23 or the ISO week 2026-W48.

    Attributes:
        granularity: YEAR, MONTH, WEEK, DAY or HOUR.
        start: the period's first moment, as naive wall-clock time of the tally's zone.
            Build periods with `containing`, which computes the start.

    When the clock is set back an hour, the hour that occurs twice is one
    period, with one key. ``str()`` gives the notation of ISO 8601:
    ``2026``, ``2026-11``, ``2026-W48``, ``2026-11-23``, ``2026-11-23T09``.

    Raises:
        InvalidTypeError, InvalidValueError: ``granularity`` is not a dated one, or
            ``start`` is not the naive start of such a period.
    """

    granularity: Granularity
    start: datetime

    def __post_init__(self) -> None:
        begin = _start(self.granularity, self.start)
        try:
            is_start = self.start == begin  # False for an aware one
        except (ArithmeticError, TypeError, ValueError) as error:  # raised by a tzinfo
            reraise_from_handler(error)
            is_start = False
        if not is_start:
            raise InvalidValueError(
                f"{shown(self.start)} is not the start of a {self.granularity}, in naive time"
            )

    @classmethod
    def containing(cls, granularity: Granularity, moment: datetime) -> Period:
        """Return the period of a granularity that contains a naive moment.

        Arguments:
            granularity: a dated one.
            moment: a naive datetime, or a date for its midnight.

        Raises:
            InvalidTypeError, InvalidValueError: ``granularity`` is not a dated one, or
                ``moment`` is neither a datetime nor a date.
        """
        return cls(granularity, _start(granularity, moment))

    @property
    def end(self) -> datetime:
        """The first moment after the period, naive; not a part of the period.

        Raises:
            InvalidValueError: the end lies after the year 9999.
        """
        return self.shift(1).start

    def shift(self, count: int) -> Period:
        """Return the period ``count`` units later (earlier, if negative).

        Raises:
            InvalidTypeError: the count is no int.
            InvalidValueError: the result lies outside the years 1 to 9999.
        """
        number = checked_int("count", count)
        try:
            return Period(self.granularity, _shifted(self.granularity, self.start, number))
        except (OverflowError, ValueError) as error:
            reraise_from_handler(error)
            raise InvalidValueError(
                f"{self.granularity} {self.suffix} cannot be shifted that far: "
                "it leaves the years 1 to 9999"
            ) from error

    def days(self) -> Iterator[Period]:
        """Yield every day of the period, in order; for an hour, the day that contains it."""
        day = Period.containing(Granularity.DAY, self.start)
        while True:
            yield day
            try:
                day = day.shift(1)
            except InvalidValueError:  # after 9999-12-31
                return
            if Period.containing(self.granularity, day.start) != self:
                return

    def __str__(self) -> str:
        start = self.start
        if self.granularity is Granularity.WEEK:
            year, week, _ = start.isocalendar()
            return f"{year:04}-W{week:02}"
        return start.isoformat()[: _ISO_LENGTHS[self.granularity]]

    @property
    def suffix(self) -> str:
        """The period's part of a key, such as ``2026-11-23`` or ``W2026-48``."""
        if self.granularity is Granularity.HOUR:
            return f"{suffix_of(Granularity.DAY, self.start)}-{self.start.hour}"
        return suffix_of(self.granularity, self.start)


def suffix_of(granularity: Granularity, start: date) -> str:
    """Return the suffix of the day, week, month or year that begins on a day.

    For thousands of days: takes a third of the time of a `Period` and its suffix.
    """
    if granularity is Granularity.DAY:
        return f"{start.year}-{start.month}-{start.day}"
    if granularity is Granularity.MONTH:
        return f"{start.year}-{start.month}"
    if granularity is Granularity.YEAR:
        return f"{start.year}"
    year, week, _ = start.isocalendar()
    return f"W{year}-{week}"


def count_between(granularity: Granularity, begin: datetime, end: datetime) -> int:
    """Return about how many periods have a moment in ``[begin, end)``, in constant time.

    Arguments:
        granularity: a dated one.
        begin, end: naive datetimes, ``begin`` no later than ``end``.

    Returns:
        The number of periods, or up to two more.
    """
    if granularity is Granularity.YEAR:
        return end.year - begin.year + 1
    if granularity is Granularity.MONTH:
        return 12 * (end.year - begin.year) + end.month - begin.month + 1
    return (end - begin) // _LENGTHS[granularity] + 2


_LENGTHS = {
    Granularity.HOUR: timedelta(hours=1),
    Granularity.DAY: timedelta(days=1),
    Granularity.WEEK: timedelta(weeks=1),
}


def periods_between(granularity: Granularity, begin: datetime, end: datetime) -> Iterator[Period]:
    """Yield in order the periods that have a moment in ``[begin, end)``.

    Arguments:
        granularity: a dated one.
        begin, end: naive datetimes.
    """
    period = Period.containing(granularity, begin)
    while period.start < end:
        yield period
        try:
            period = period.shift(1)
        except InvalidValueError:  # after the last one of the year 9999
            return


def parse_suffix(suffix: str) -> Period | None:
    """Return the period that a key's suffix names: the inverse of `Period.suffix`.

    Returns:
        The period, or ``None`` for `UNIQUE_SUFFIX`.

    Raises:
        InvalidValueError: this is no suffix of a key, such as ``2026-01`` or ``2026-13``.
    """
    if suffix == UNIQUE_SUFFIX:
        return None
    try:
        period = _parse_period(suffix)
    except (ValueError, OverflowError) as error:
        reraise_from_handler(error)
        raise InvalidValueError(f"not a period's suffix: {shown(suffix)}") from error
    if period.suffix != suffix:  # zero padding, "+1", " 1", digits that are not ASCII
        raise InvalidValueError(f"not a period's suffix: {shown(suffix)}")
    return period


def _parse_period(suffix: str) -> Period:
    if suffix.startswith("W"):
        year, week = map(int, suffix[1:].split("-"))
        return Period(Granularity.WEEK, datetime.fromisocalendar(year, week, 1))
    numbers = [int(part) for part in suffix.split("-")]
    granularity = _BY_NUMBERS.get(len(numbers))
    if granularity is None:
        raise ValueError(suffix)
    year, month, day, hour = numbers + _FIRST[len(numbers) :]
    return Period(granularity, datetime(year, month, day, hour))


#: The granularity of a suffix by how many numbers the suffix has; weeks apart.
_BY_NUMBERS = {
    1: Granularity.YEAR,
    2: Granularity.MONTH,
    3: Granularity.DAY,
    4: Granularity.HOUR,
}
#: How many characters of ``2026-11-23T09:00:00`` the notation of a period has; weeks apart.
_ISO_LENGTHS = {
    Granularity.YEAR: 4,
    Granularity.MONTH: 7,
    Granularity.DAY: 10,
    Granularity.HOUR: 13,
}
#: The first year, month, day and hour: for the numbers that a suffix does not have.
_FIRST = [1, 1, 1, 0]


def _start(granularity: Granularity, moment: datetime) -> datetime:
    if type(moment) is not datetime and not isinstance(moment, date):
        raise InvalidTypeError(f"a moment must be a datetime, got {described(moment)}")
    try:
        midnight = datetime(moment.year, moment.month, moment.day)
        if granularity is Granularity.HOUR:
            return midnight.replace(hour=getattr(moment, "hour", 0))
    except (TypeError, ValueError) as error:  # pandas' NaT, whose year is a NaN
        reraise_from_handler(error)
        raise InvalidValueError(f"{shown(moment)} is no moment") from error
    if granularity is Granularity.DAY:
        return midnight
    if granularity is Granularity.WEEK:
        return midnight - timedelta(days=moment.weekday())
    if granularity is Granularity.MONTH:
        return midnight.replace(day=1)
    if granularity is Granularity.YEAR:
        return midnight.replace(month=1, day=1)
    if isinstance(granularity, Granularity):
        raise InvalidValueError(f"a period has one of the dated granularities, not {granularity}")
    raise InvalidTypeError(f"granularity must be a Granularity, got {described(granularity)}")


def _shifted(granularity: Granularity, start: datetime, count: int) -> datetime:
    if granularity is Granularity.HOUR:
        return start + timedelta(hours=count)
    if granularity is Granularity.DAY:
        return start + timedelta(days=count)
    if granularity is Granularity.WEEK:
        return start + timedelta(weeks=count)
    if granularity is Granularity.YEAR:
        return start.replace(year=start.year + count)
    years, month = divmod(start.month - 1 + count, 12)
    return start.replace(year=start.year + years, month=month + 1)


def wall_clock(moment: date, zone: tzinfo, name: str = "now") -> datetime:
    """Return the naive wall-clock time of a moment in a time zone.

    Arguments:
        moment: an aware datetime is converted, a naive one is taken to be in
            the zone, and a date stands for its midnight.
        zone: the tally's time zone.
        name: the name of the argument, for the error.

    Raises:
        InvalidTypeError: ``moment`` is neither a date nor a datetime.
        InvalidValueError: the result leaves the years 1 to 9999, or the conversion fails.
    """
    if isinstance(moment, datetime):
        try:
            aware = moment.utcoffset() is not None
            local = (moment.astimezone(zone) if aware else moment).replace(tzinfo=None)
        except Exception as error:
            # Outside the years 1 to 9999; pandas' NaT, which is a datetime, too; or a
            # ``tzinfo`` that is broken.
            reraise_from_handler(error)
            raise InvalidValueError(
                f"{name} must lie in the years 1 to 9999 in the tally's zone, got {shown(moment)}"
            ) from error
        if type(local) is datetime:
            return local
        # An exact datetime of a subclass, such as pandas' Timestamp, which has nanoseconds.
        clock = (local.hour, local.minute, local.second, local.microsecond)
        return datetime(local.year, local.month, local.day, *clock, fold=local.fold)
    if isinstance(moment, date):
        return datetime(moment.year, moment.month, moment.day)
    raise InvalidTypeError(f"{name} must be a date or datetime, got {shown(moment)}")


def checked_zone(zone: tzinfo) -> tzinfo:
    """Return a time zone that converts from UTC correctly, winter and summer, 1970 to 2037.

    Raises:
        InvalidValueError: the zone raises, has no offset, or an offset that differs from
            its own wall-clock time.
    """
    if _is_standard(zone):
        return zone
    for moment in _PROBES:
        try:
            local = moment.astimezone(zone)
            offset = local.utcoffset()
        except Exception as error:  # a tzinfo of the caller's may raise anything
            reraise_from_handler(error)
            raise _unusable(zone, f"{type(error).__name__} for {moment}") from error
        if offset is None:
            raise _unusable(zone, f"no offset for {moment}")
        if local.replace(tzinfo=None) - offset != moment.replace(tzinfo=None):
            raise _unusable(zone, f"another offset than its own clock for {moment}")
    return zone


def _is_standard(zone: tzinfo) -> bool:
    """Return whether a time zone is of exactly a class of the standard library."""
    if type(zone) is timezone:
        return True
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - takes 2 ms, and most tallies have UTC

    return type(zone) is ZoneInfo


def timestamp(local: datetime, zone: tzinfo) -> float:
    """Return the timestamp of a wall-clock time in a time zone, in seconds since 1970.

    Arguments:
        local: the wall-clock time, naive. Of a time that occurs twice, the first one is
            taken. A time that the clock skips is converted with the offset before the
            change, so that the first skipped time is the moment of the change.
        zone: a zone that `checked_zone` has returned.

    Raises:
        OverflowError: the time is at one end of the years 1 to 9999.
        InvalidValueError: the zone fails at a moment that `checked_zone` has not tested.
    """
    if _is_standard(zone):  # they treat such times in the same way
        return local.replace(tzinfo=zone, fold=0).timestamp()
    # An offset lasts for more than two days, so at most one change lies between these.
    before, after = _offset(local - _DAY, zone), _offset(local + _DAY, zone)
    valid = [offset for offset in (before, after) if _offset(local - offset, zone) == offset]
    return (local - _EPOCH - (valid or [before])[0]).total_seconds()


def _offset(moment: datetime, zone: tzinfo) -> timedelta:
    """Return the offset of a zone's wall clock from UTC at a moment, which is naive, in UTC.

    Raises as `timestamp`.
    """
    try:
        local = moment.replace(tzinfo=timezone.utc).astimezone(zone)
        return local.replace(tzinfo=None) - moment
    except Exception as error:  # a tzinfo of the caller's may raise anything
        if not _EARLIEST <= moment <= _LATEST:
            reraise_from_handler(error)
            raise OverflowError from error
        _failed(zone, moment, error)


def clock_at(seconds: float, zone: tzinfo) -> tuple[datetime, timedelta | None]:
    """Return the naive wall-clock time of a zone at a timestamp, and its offset from UTC.

    Arguments:
        seconds: the timestamp, in seconds since 1970.
        zone: a zone that `checked_zone` has returned.

    Raises:
        InvalidValueError: the zone fails at a moment that `checked_zone` has not tested.
    """
    try:
        local = datetime.fromtimestamp(seconds, zone)
        return local.replace(tzinfo=None), local.utcoffset()
    except Exception as error:  # noqa: BLE001 - a tzinfo of the caller's may raise anything
        _failed(zone, _EPOCH + timedelta(seconds=seconds), error)


def _failed(zone: tzinfo, moment: datetime, error: Exception) -> NoReturn:
    """Raise the error for a time zone that has raised one."""
    reraise_from_handler(error)
    raise _unusable(zone, f"{type(error).__name__} for {moment}+00:00") from error


def _unusable(zone: tzinfo, why: str) -> InvalidValueError:
    return InvalidValueError(
        f"timezone is a tzinfo of {kind_with_module(zone)} that cannot be "
        f"reckoned with ({why}); take a name such as 'Europe/Berlin', or a zoneinfo.ZoneInfo"
    )
