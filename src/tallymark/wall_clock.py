"""What the wall clock of a tally's zone shows. Pure.

Periods are reckoned in naive wall-clock time; this is where whatever a caller
passes as a moment becomes that.
"""

from __future__ import annotations

from datetime import date, datetime, tzinfo
from typing import Final

from .errors import InvalidTypeError, InvalidValueError
from .excerpts import shown

__all__ = ["wall_clock"]

#: What leaves the years 1 to 9999 raises, and pandas' NaT, which is a datetime too, and
#: a ``tzinfo`` that is not up to its task.
_NO_MOMENT: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


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
        except _NO_MOMENT as error:
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
