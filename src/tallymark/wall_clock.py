"""What the wall clock of a tally's zone shows. Pure.

Periods are reckoned in naive wall-clock time; this is where whatever a caller
passes as a moment becomes that.
"""

from __future__ import annotations

from datetime import date, datetime, tzinfo

from .errors import InvalidTypeError, InvalidValueError

__all__ = ["wall_clock"]


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
        if moment.utcoffset() is None:
            return moment.replace(tzinfo=None)
        try:
            return moment.astimezone(zone).replace(tzinfo=None)
        except OverflowError as error:
            raise InvalidValueError(
                f"{name} must lie in the years 1 to 9999 in the tally's zone, got {moment!r}"
            ) from error
    if isinstance(moment, date):
        return datetime(moment.year, moment.month, moment.day)
    raise InvalidTypeError(f"{name} must be a date or datetime, got {moment!r:.80}")
