"""How a tally builds event sets: the same methods for both facades. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from ..errors import InvalidTypeError, InvalidValueError
from .events import Bitmap
from .excerpts import shown
from .keys import checked_int, checked_name
from .periods import Granularity, Period

if TYPE_CHECKING:
    from datetime import date, datetime

    from .context import Context
    from .events import EventSet

__all__ = ["EventSets"]

_DAY = timedelta(days=1)


class HasContext(Protocol):
    """What a tally works on, as far as event sets need it."""

    @property
    def context(self) -> Context:
        """The tally's context."""
        ...


class EventSets:
    """Builds event sets. No I/O: the verbs that take them go and look.

    In all of these, ``moment`` is the present by default; else a datetime (an
    aware one is converted to the tally's time zone, a naive one is taken to be
    in it) or a date, which stands for its midnight.

    What is asked for a period is its bitmap. If that may know less than those
    of shorter periods inside it, since it expires before they do (option
    ``expire``), these are asked too.

    Raises, from all of these:
        InvalidTypeError, InvalidValueError: an argument is not allowed.
    """

    backend: HasContext

    @property
    def _context(self) -> Context:
        return self.backend.context

    def hour(self, event: str, moment: date | None = None) -> EventSet:
        """Return the users of an event in the hour of a moment, if hours were marked.

        Arguments:
            event: the event's name.
            moment: a moment of it; the present by default. An aware datetime is
                converted to the tally's time zone, a naive one is taken to be
                in it, and a date is its midnight.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
        """
        return self._containing(Granularity.HOUR, event, moment)

    def day(self, event: str, moment: date | None = None) -> EventSet:
        """Return the users of an event on the day of a moment.

        Arguments:
            event: the event's name.
            moment: a moment of it; the present by default. An aware datetime is
                converted to the tally's time zone, a naive one is taken to be
                in it, and a date is its midnight.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
        """
        return self._containing(Granularity.DAY, event, moment)

    def week(self, event: str, moment: date | None = None) -> EventSet:
        """Return the users of an event in the ISO week (from Monday on) of a moment.

        Arguments:
            event: the event's name.
            moment: a moment of it; the present by default. An aware datetime is
                converted to the tally's time zone, a naive one is taken to be
                in it, and a date is its midnight.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
        """
        return self._containing(Granularity.WEEK, event, moment)

    def month(self, event: str, moment: date | None = None) -> EventSet:
        """Return the users of an event in the month of a moment.

        Arguments:
            event: the event's name.
            moment: a moment of it; the present by default. An aware datetime is
                converted to the tally's time zone, a naive one is taken to be
                in it, and a date is its midnight.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
        """
        return self._containing(Granularity.MONTH, event, moment)

    def year(self, event: str, moment: date | None = None) -> EventSet:
        """Return the users of an event in the year of a moment.

        That is the union of its months; and with the option ``track_yearly``,
        of the year's own bitmap too, which may be the last to expire.

        Arguments:
            event: the event's name.
            moment: a moment of it; the present by default. An aware datetime is
                converted to the tally's time zone, a naive one is taken to be
                in it, and a date is its midnight.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
        """
        return self._containing(Granularity.YEAR, event, moment)

    def unique(self, event: str) -> EventSet:
        """Return the users who have a flag: the dateless bitmap of an event.

        Arguments:
            event: the event's name.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
        """
        return Bitmap(self._context.origin, checked_name("event", event), None)

    def during(self, event: str, period: Period) -> EventSet:
        """Return the users of an event in a `Period`, whichever its granularity.

        Arguments:
            event: the event's name.
            period: the period.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
        """
        if not isinstance(period, Period):
            raise InvalidTypeError(f"during takes a Period, got {shown(period)}")
        return self._context.during(checked_name("event", event), period)

    def between(self, event: str, start: date, end: date) -> EventSet:
        """Return the users of an event on any day from ``start`` up to, not including, ``end``.

        With datetimes, all days that have a moment in between: up to noon
        takes the whole day in, since days are what is marked. Covers the days
        with as few bitmaps as possible: whole months and weeks where they fit
        and do not expire before their days, days at the edges.

        So it finds whoever is in any bitmap of a period inside the range that
        has not expired (hours are read if they live longer than days, with the option
        ``track_hourly=True`` or the switch ``TRACK_HOURLY``). An `unmark_event` that is
        not ``exact`` takes a user out of a whole week and month, and so out of ranges that
        contain them.

        Arguments:
            event: the event's name.
            start, end: datetimes or dates; ``start`` is the earlier one.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
        """
        context = self._context
        event = checked_name("event", event)
        if start is None or end is None:
            raise InvalidTypeError("between takes a date or datetime for start and for end")
        first = _midnight(context.local(start, "start"))
        last = context.local(end, "end")
        after = _midnight(last)
        if after < last:
            after = _shifted(after, 1)
        return context.days(event, first, after)

    def last(self, event: str, days: int = 28, moment: date | None = None) -> EventSet:
        """Return the users of an event on the day of a moment or the days before it.

        Arguments:
            event: the event's name.
            days: how many days, the moment's own included; 28 by default, four
                whole weeks, so that each day of the week counts equally.
            moment: the present by default.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
        """
        context = self._context
        event = checked_name("event", event)
        days = checked_int("days", days)
        if days < 1:
            raise InvalidValueError(f"days must be 1 or more, got {shown(days)}")
        after = _shifted(_midnight(context.local(moment)), 1)
        first = _shifted(after, -days)
        return context.days(event, first, after)

    def _containing(self, granularity: Granularity, event: str, moment: date | None) -> EventSet:
        event = checked_name("event", event)
        period = Period.containing(granularity, self._context.local(moment))
        return self._context.during(event, period)


def _midnight(moment: datetime) -> datetime:
    return Period.containing(Granularity.DAY, moment).start


def _shifted(midnight: datetime, days: int) -> datetime:
    try:
        return midnight + days * _DAY
    except OverflowError as error:
        raise InvalidValueError("the range leaves the years 1 to 9999") from error
