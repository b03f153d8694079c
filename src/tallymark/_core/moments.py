"""Columns of moments: to days or hours of the wall clock of a time zone. Pure.

A day or an hour is a number here: the day's ordinal (`datetime.date.toordinal`), or 24 times that
plus the hour. With numpy, millions of moments take no Python object each; what is rare, such as
the day on which the clocks change, is left to `tallymark._core.periods`.
"""

from __future__ import annotations

import functools
import sys
from datetime import date, datetime, timezone, tzinfo
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..errors import InvalidValueError, TallymarkError
from .periods import clock_at, wall_clock
from .untrusted import reraise_from_handler, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Instants",
    "IrregularError",
    "loaded_numpy",
    "numpy_or_none",
    "unit_of",
    "units_of_instants",
    "units_of_list",
]

#: The ordinal of 1970-01-01, and of the days after the last one that a datetime can have.
_EPOCH: Final = date(1970, 1, 1).toordinal()
_END: Final = date.max.toordinal() + 1

_DAY: Final = 86_400
_HOUR: Final = 3_600

#: How many of each unit of numpy a second has.
_PER_SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

#: Up to so many days between the first and the last one, a table has an entry for each.
_TABLE: Final = 100_000

_zone_of: Final = attrgetter("tzinfo")


class IrregularError(Exception):
    """Some values need a look at each: they may be wrong, or are of a rare type."""


class Instants(NamedTuple):
    """A column of moments as a numpy array.

    Attributes:
        values: an array of ``datetime64``.
        aware: whether they are in UTC, and not on the wall clock of the tally's zone.
    """

    values: Any
    aware: bool

    def value(self, index: int) -> object:
        """Return a moment as an object that `unit_of` takes."""
        moment = self.values[index]
        if not self.aware:
            return moment
        exact = _as_datetime(moment)
        return exact.replace(tzinfo=timezone.utc) if isinstance(exact, datetime) else moment


def loaded_numpy() -> Any:
    """Return the module numpy if it has been imported; ``None`` if not."""
    numpy = sys.modules.get("numpy")
    return numpy if hasattr(numpy, "ndarray") else None  # another thread may import it just now


@functools.cache
def numpy_or_none() -> Any:
    """Import numpy and return it; ``None`` if it is not installed."""
    try:
        import numpy  # noqa: PLC0415 - optional, and slow to import
    except ImportError:
        return None
    return numpy


def unit_of(moment: Any, zone: tzinfo, *, hourly: bool) -> int:
    """Return the day, or the hour, of one moment.

    Arguments:
        moment: a date, a datetime, or a ``datetime64``, which is naive.
        zone: the tally's time zone.
        hourly: whether to return the hour.

    Raises:
        InvalidTypeError, InvalidValueError: the moment is not allowed.
    """
    numpy = loaded_numpy()
    if numpy is not None and isinstance(moment, numpy.datetime64):
        exact = _as_datetime(moment)
        if not isinstance(exact, date):
            raise InvalidValueError(f"moment must lie in the years 1 to 9999, got {shown(moment)}")
        moment = exact
    local = wall_clock(moment, zone, "moment")
    try:
        return 24 * local.toordinal() + local.hour if hourly else local.toordinal()
    except (TypeError, ValueError) as error:  # a NaT of pandas
        reraise_from_handler(error)
        raise InvalidValueError(f"{shown(moment)} is no moment") from error


def units_of_list(moments: Sequence[Any], zone: tzinfo, *, hourly: bool) -> list[int]:
    """Return the days, or the hours, of many moments. Arguments as for `unit_of`.

    Raises:
        IrregularError: they are not all dates, or not all datetimes, or some are not allowed.
    """
    kinds = set(map(type, moments))
    if kinds == {date}:
        days = map(date.toordinal, moments)
        return [24 * day for day in days] if hourly else list(days)
    if kinds != {datetime}:
        raise IrregularError
    # Not the set of zones: a class of the caller may have a hash of its own.
    zones = {id(other): other for other in map(_zone_of, moments)}
    if not all(other is None or other is zone for other in zones.values()):
        if not all(type(other) in _safe_zones() for other in zones.values()):
            raise IrregularError
        try:
            moments = [moment.astimezone(zone) for moment in moments]
        except Exception as error:
            reraise_from_handler(error)
            raise IrregularError from error
    if hourly:
        return [24 * moment.toordinal() + moment.hour for moment in moments]
    return list(map(date.toordinal, moments))


def units_of_instants(instants: Instants, zone: tzinfo, *, hourly: bool) -> Any:
    """Return the days, or the hours, of a column, as an array. Arguments as for `unit_of`.

    Raises:
        IrregularError: some are missing, or outside the years 1 to 9999.
    """
    numpy = sys.modules["numpy"]
    values, aware = instants
    unit, steps = numpy.datetime_data(values.dtype)
    if unit in _PER_SECOND and steps == 1:
        numbers = values.view(numpy.int64)
        if aware and zone is not timezone.utc:
            _check_range(numbers, _PER_SECOND[unit])
            numbers = _local_seconds(numpy, numbers // _PER_SECOND[unit], zone)
            unit = "s"
        seconds = _PER_SECOND[unit]
        _check_range(numbers, seconds)
        numbers = numbers // (seconds * (_HOUR if hourly else _DAY))
    elif aware or unit == "generic":
        raise IrregularError
    else:
        # Units from a minute on, and multiples: of years, 32 bits are more than there are.
        raw = values.view(numpy.int64)
        if len(raw) and (raw.min() < -(2**31) or raw.max() > 2**31):
            raise IrregularError
        numbers = values.astype("datetime64[h]" if hourly else "datetime64[D]")
        numbers = numbers.view(numpy.int64)
        per_day = 24 if hourly else 1
        if len(numbers) and not (
            numbers.min() >= (1 - _EPOCH) * per_day and numbers.max() < (_END - _EPOCH) * per_day
        ):
            raise IrregularError
    return numbers + (24 * _EPOCH if hourly else _EPOCH)


def _check_range(numbers: Any, per_second: int) -> None:
    """Raise an `IrregularError` unless all are in the years 1 to 9999, as since 1970."""
    # A NaT is the least number.
    if len(numbers) and not (
        int(numbers.min()) >= (1 - _EPOCH) * _DAY * per_second
        and int(numbers.max()) < (_END - _EPOCH) * _DAY * per_second
    ):
        raise IrregularError


def _local_seconds(numpy: Any, seconds: Any, zone: tzinfo) -> Any:
    """Return the wall clock of a zone at some times in UTC, all in whole seconds.

    An offset lasts for more than a day, so if it is the same at both ends of a day, it is the
    offset of the whole day. On other days, each second is looked up.
    """
    if not len(seconds):
        return seconds
    days = seconds // _DAY
    first = int(days.min())
    if int(days.max()) - first < _TABLE:
        present = numpy.flatnonzero(numpy.bincount(days - first)) + first
    else:
        present = numpy.unique(days)
    offsets, changing = [], []
    ends: dict[int, int] = {}
    for day in present.tolist():
        begin, end = (
            ends[at] if at in ends else ends.setdefault(at, _offset(at * _DAY, zone))
            for at in (day, day + 1)
        )
        offsets.append(begin)
        changing.append(begin != end)
    indexes = numpy.searchsorted(present, days)
    local = seconds + numpy.array(offsets, dtype=numpy.int64)[indexes]
    if any(changing):
        for index in numpy.flatnonzero(numpy.array(changing)[indexes]).tolist():
            second = int(seconds[index])
            local[index] = second + _offset(second, zone)
    return local


def _offset(second: int, zone: tzinfo) -> int:
    try:
        _, offset = clock_at(second, zone)
    except (TallymarkError, OverflowError) as error:  # at the ends of the years 1 to 9999
        reraise_from_handler(error)
        raise IrregularError from error
    if offset is None or offset.microseconds:
        raise IrregularError
    return 86_400 * offset.days + offset.seconds


def _as_datetime(moment: Any) -> object:
    """Return a ``datetime64`` as a date or datetime; another object if there is none."""
    return moment.astype("datetime64[us]").item()


@functools.cache
def _safe_zones() -> frozenset[type]:
    """Return the classes of the standard library, whose conversions depend on nothing else."""
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - takes 2 ms

    return frozenset((timezone, ZoneInfo))
