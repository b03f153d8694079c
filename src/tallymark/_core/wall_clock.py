"""What the wall clock of a tally's zone shows. Pure.

Periods are reckoned in naive wall-clock time; this is where whatever a caller
passes as a moment becomes that, and where the end of a period becomes a moment.

Not every ``tzinfo`` says the same as `zoneinfo.ZoneInfo` would. With one of pytz,
``replace(tzinfo=...)`` gives the local mean time of some hundred years ago; one without
``fold`` (PEP 495) tells only one of the two moments that a wall clock shows twice. What is
right with all of them is the way from UTC to the zone, so nothing else is asked of them.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone, tzinfo
from typing import Final, NoReturn
from zoneinfo import ZoneInfo

from ..errors import InvalidTypeError, InvalidValueError
from .excerpts import kind_with_module, shown
from .handlers import let_handlers_pass

__all__ = ["checked_zone", "clock_at", "timestamp", "wall_clock"]

_EPOCH: Final = datetime(1970, 1, 1)
_DAY: Final = timedelta(days=1)

#: What a zone has to answer for: a winter and a summer of each year with its own rules.
_PROBES: Final = tuple(
    datetime(year, month, 1, 12, tzinfo=timezone.utc)
    for year in range(1970, 2038)
    for month in (1, 7)
)

#: Outside of these, a zone may have no answer, since Python has none.
_FIRST: Final = datetime.min + 2 * _DAY
_LAST: Final = datetime.max - 2 * _DAY


def wall_clock(moment: date, zone: tzinfo, name: str = "now") -> datetime:
    """Return a moment as the wall clock of a zone shows it, naive.

    Arguments:
        moment: an aware datetime is converted, a naive one is taken to be in
            the zone, and a date is its midnight.
        zone: the tally's.
        name: what the argument is called, for the error.

    Raises:
        InvalidTypeError: this is no moment.
        InvalidValueError: it leaves the years 1 to 9999 on the way to the zone.
    """
    if isinstance(moment, datetime):
        try:
            aware = moment.utcoffset() is not None
            local = (moment.astimezone(zone) if aware else moment).replace(tzinfo=None)
        except Exception as error:
            # What leaves the years 1 to 9999 raises, and pandas' NaT, which is a datetime too,
            # and whatever a ``tzinfo`` raises that is not up to its task.
            let_handlers_pass(error)
            raise InvalidValueError(
                f"{name} must lie in the years 1 to 9999 in the tally's zone, got {shown(moment)}"
            ) from error
        if type(local) is datetime:
            return local
        # Of a subclass, such as pandas' Timestamp, which has nanoseconds besides.
        clock = (local.hour, local.minute, local.second, local.microsecond)
        return datetime(local.year, local.month, local.day, *clock, fold=local.fold)
    if isinstance(moment, date):
        return datetime(moment.year, moment.month, moment.day)
    raise InvalidTypeError(f"{name} must be a date or datetime, got {shown(moment)}")


def checked_zone(zone: tzinfo) -> tzinfo:
    """Return a time zone if it can be reckoned with.

    Raises:
        InvalidValueError: it does not tell which time its clock shows at a moment.
    """
    if type(zone) in {timezone, ZoneInfo}:
        return zone
    for moment in _PROBES:
        try:
            local = moment.astimezone(zone)
            offset = local.utcoffset()
        except Exception as error:
            let_handlers_pass(error)
            # Whatever somebody else's class may raise.
            let_handlers_pass(error)
            raise _unusable(zone, f"{type(error).__name__} for {moment}") from error
        if offset is None:
            raise _unusable(zone, f"no offset for {moment}")
        if local.replace(tzinfo=None) - offset != moment.replace(tzinfo=None):
            raise _unusable(zone, f"another offset than its own clock for {moment}")
    return zone


def timestamp(local: datetime, zone: tzinfo) -> float:
    """Return when the wall clock of a zone shows a time, in seconds since 1970.

    Arguments:
        local: the time, naive. If the clock shows it twice, the first time counts; a time
            that it skips is reckoned from the time before, so that the beginning of what
            it skips is the moment of the change.
        zone: one that `checked_zone` lets pass.

    Raises:
        OverflowError: this is at one end of the years 1 to 9999.
        InvalidValueError: the zone fails at a time that `checked_zone` has not looked at.
    """
    if type(zone) in {timezone, ZoneInfo}:  # these do just that by themselves
        return local.replace(tzinfo=zone, fold=0).timestamp()
    # An offset holds for more than two days, but for a change on this one.
    before, after = _offset(local - _DAY, zone), _offset(local + _DAY, zone)
    found = [offset for offset in (before, after) if _offset(local - offset, zone) == offset]
    return (local - _EPOCH - (found or [before])[0]).total_seconds()


def _offset(moment: datetime, zone: tzinfo) -> timedelta:
    """Return what has to be added to a moment of UTC, naive, for a zone's wall clock.

    Raises as `timestamp`.
    """
    try:
        local = moment.replace(tzinfo=timezone.utc).astimezone(zone)
        return local.replace(tzinfo=None) - moment
    except Exception as error:  # whatever somebody else's class may raise
        if not _FIRST <= moment <= _LAST:
            let_handlers_pass(error)
            raise OverflowError from error
        _failed(zone, moment, error)


def clock_at(seconds: float, zone: tzinfo) -> tuple[datetime, timedelta | None]:
    """Return what the wall clock of a zone shows at a moment, naive, and its offset from UTC.

    Arguments:
        seconds: the moment, in seconds since 1970.
        zone: one that `checked_zone` lets pass.

    Raises:
        InvalidValueError: the zone fails at a moment that `checked_zone` has not looked at.
    """
    try:
        local = datetime.fromtimestamp(seconds, zone)
        return local.replace(tzinfo=None), local.utcoffset()
    except Exception as error:  # noqa: BLE001 - whatever somebody else's class may raise
        _failed(zone, _EPOCH + timedelta(seconds=seconds), error)


def _failed(zone: tzinfo, moment: datetime, error: Exception) -> NoReturn:
    """Raise for a zone that has failed."""
    let_handlers_pass(error)
    raise _unusable(zone, f"{type(error).__name__} for {moment}+00:00") from error


def _unusable(zone: tzinfo, why: str) -> InvalidValueError:
    return InvalidValueError(
        f"timezone is a tzinfo of {kind_with_module(zone)} that cannot be "
        f"reckoned with ({why}); take a name such as 'Europe/Berlin', or a zoneinfo.ZoneInfo"
    )
