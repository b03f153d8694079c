"""The context of one tally: its database, options and clock; and the event sets it builds. Pure."""

from __future__ import annotations

import functools
import itertools
import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol

from ..errors import InvalidTypeError, InvalidValueError
from .arguments import checked_int, checked_name, iterated
from .calendars import DaySpan
from .events import Bitmap, EventSet, Origin, checked
from .hours import HourRange, wall_hours
from .options import switches
from .periods import Granularity, Period, clock_at, wall_clock
from .unions import Coverage, DayRange, PeriodUnion
from .untrusted import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable
    from datetime import date, datetime

    from .keys import KeySchema
    from .options import Options

__all__ = [
    "MIN_WRITE_COST",
    "TAIL_FACTOR",
    "Context",
    "EventSets",
    "Lengths",
]

#: How many seconds the lengths of bitmaps are cached, and of how many events.
_FRESH: Final = 60.0
_EVENTS: Final = 1000

#: The least cost of a temporary key, in bytes: a server executes a command of a transaction in
#: the time in which it combines this many bytes.
MIN_WRITE_COST: Final = 4096

#: Redis combines whole words up to the end of the shortest operand, and single bytes after it.
#: Each of these bytes takes about as long as this many bytes before (redis/src/bitops.c,
#: bitopCommand).
TAIL_FACTOR: Final = 6

_DAY: Final = timedelta(days=1)


class Lengths:
    """A cache of the lengths of bitmaps: of the longest one of each event, for a minute."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Make an empty cache.

        Arguments:
            clock: returns seconds.
        """
        self._clock = clock
        self._known: dict[str, tuple[float, int]] = {}

    def learn(self, bitmaps: Iterable[Bitmap], lengths: Iterable[int]) -> None:
        """Store the lengths of some bitmaps, in bytes, as the server has reported them."""
        longest: dict[str, int] = {}
        for bitmap, length in zip(bitmaps, lengths, strict=True):
            longest[bitmap.event] = max(length, longest.get(bitmap.event, 0))
        if len(self._known) + len(longest) > _EVENTS:
            self._known.clear()
        if len(longest) <= _EVENTS:
            now = self._clock()
            self._known.update({event: (now, length) for event, length in longest.items()})

    def longest(self, bitmaps: Iterable[Bitmap]) -> int | None:
        """Return the cached length of the longest bitmap of some bitmaps' events, in bytes.

        ``None`` if an event is not in the cache.
        """
        now = self._clock()
        longest = 0
        for bitmap in bitmaps:
            entry = self._known.get(bitmap.event)
            if entry is None or not 0 <= now - entry[0] < _FRESH:
                return None
            longest = max(longest, entry[1])
        return longest


@dataclass(frozen=True)
class Context:
    """A database, and the options with which one tally uses it.

    Attributes:
        origin: the database and the prefix.
        options: the tally's options.
        schema: the key schema.
        clock: returns the present moment in seconds since 1970.
    """

    origin: Origin
    options: Options
    schema: KeySchema
    clock: Callable[[], float]

    @classmethod
    def of(cls, database: Hashable, options: Options, clock: Callable[[], float]) -> Context:
        """Return the context of a tally with these options.

        Arguments:
            database: as in `Origin`.
            options: the tally's options.
            clock: as the attribute.
        """
        return cls(Origin(database, options.prefix), options, options.schema(), clock)

    @functools.cached_property
    def shards(self) -> tuple[Context, ...]:
        """The context of each shard, a plain database; a plain database is its own only shard."""
        return tuple(
            replace(self, origin=Origin(self.origin.database, part.prefix), schema=part)
            for part in self.schema.parts
        )

    @property
    def coverage(self) -> Coverage:
        """Which bitmaps the database has, and how long they live."""
        hourly = self.options.track_hourly
        # Not cached, since the switch may change. Hours that single calls mark are unknown.
        return self._coverages[switches.track_hourly if hourly is None else hourly]

    @functools.cached_property
    def _coverages(self) -> tuple[Coverage, Coverage]:
        """The coverage without bitmaps of hours, and with them."""
        lifetimes, yearly = self.options.lifetimes, self.options.track_yearly
        without, with_hours = (
            Coverage.of(lifetimes, yearly=yearly, hourly=h) for h in (False, True)
        )
        return without, with_hours

    @functools.cached_property
    def safe_writes(self) -> int:
        """How many temporary keys a query may write without a check of the lengths of bitmaps.

        With this many, the cost stays below ``max_temp_bytes`` even if all bitmaps are as long as
        the user ids that the tally allows can make them.
        """
        limit = self.options.max_temp_bytes
        if limit is None:
            return sys.maxsize
        shards = len(self.schema.parts)
        longest = (self.schema.max_user_id // shards >> 3) + 1
        return limit // (shards * max(TAIL_FACTOR * longest, MIN_WRITE_COST))

    @functools.cached_property
    def lengths(self) -> Lengths:
        """The cache of the lengths of bitmaps."""
        return Lengths(self.clock)

    def local(self, moment: date | None, name: str = "moment") -> datetime:
        """Return the naive wall-clock time of a moment in the tally's time zone.

        Arguments:
            moment: as in `wall_clock`; ``None`` for the present.
            name: the name of the argument, for errors.

        Raises:
            InvalidTypeError, InvalidValueError: this is no moment.
        """
        zone = self.options.zone
        if moment is None:
            return clock_at(self.clock(), zone)[0]
        return wall_clock(moment, zone, name)

    def during(self, event: str, period: Period) -> EventSet:
        """Return the users of an event in a period."""
        if type(period) is DaySpan:
            return self.days(event, period.start, period.end)
        if period.granularity in self.coverage.complete:
            return Bitmap(self.origin, event, period)
        return PeriodUnion(self.origin, event, period, self.coverage)

    def days(self, event: str, first: datetime, after: datetime) -> EventSet:
        """Return the users of an event on any day from a naive midnight to another."""
        return DayRange(self.origin, event, first, after, self.coverage)

    def checked(self, event_set: EventSet) -> EventSet:
        """Return an argument if it is an event set of this database and prefix.

        Raises:
            InvalidTypeError: it is no event set.
            InvalidValueError: it is of another database or prefix.
        """
        if checked(event_set).origin != self.origin:
            raise InvalidValueError(
                f"{shown(event_set)} is of another database, or of another prefix, than this tally"
            )
        return event_set

    def checked_many(self, event_sets: Iterable[EventSet]) -> list[EventSet]:
        """Return event sets as a list. Raises as `checked`.

        Takes one more than ``max_bitmaps`` at most, since the iterable may be infinite.
        """
        items = iterated("not an iterable of event sets", event_sets)
        most = self.options.max_bitmaps + 1
        return [self.checked(item) for item in itertools.islice(items, most)]


class HasContext(Protocol):
    """A backend, as far as `EventSets` needs it."""

    @property
    def context(self) -> Context:
        """The tally's context."""
        ...


class EventSets:
    """The methods of both tallies that build event sets. No I/O: verbs read the database.

    The set of a period is read from the bitmap of the period. If that bitmap expires before
    those of shorter periods inside the period (option ``expire``), these are read too.
    """

    backend: HasContext

    @property
    def _context(self) -> Context:
        return self.backend.context

    def hour(self, event: str, moment: date | None = None) -> EventSet:
        """Return the users of an event in the hour of a moment, if hours were marked.

        Arguments:
            event: the event's name.
            moment: a moment of the hour; the present by default. An aware datetime is
                converted to the tally's time zone, a naive one is taken to be
                in it, and a date stands for its midnight.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
        """
        return self._containing(Granularity.HOUR, event, moment)

    def day(self, event: str, moment: date | None = None) -> EventSet:
        """Return the users of an event on the day of a moment.

        Arguments:
            event: the event's name.
            moment: a moment of the day; the present by default. An aware datetime is
                converted to the tally's time zone, a naive one is taken to be
                in it, and a date stands for its midnight.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
        """
        return self._containing(Granularity.DAY, event, moment)

    def week(self, event: str, moment: date | None = None) -> EventSet:
        """Return the users of an event in the ISO week (from Monday on) of a moment.

        Arguments:
            event: the event's name.
            moment: a moment of the week; the present by default. An aware datetime is
                converted to the tally's time zone, a naive one is taken to be
                in it, and a date stands for its midnight.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
        """
        return self._containing(Granularity.WEEK, event, moment)

    def month(self, event: str, moment: date | None = None) -> EventSet:
        """Return the users of an event in the month of a moment.

        Arguments:
            event: the event's name.
            moment: a moment of the month; the present by default. An aware datetime is
                converted to the tally's time zone, a naive one is taken to be
                in it, and a date stands for its midnight.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
        """
        return self._containing(Granularity.MONTH, event, moment)

    def year(self, event: str, moment: date | None = None) -> EventSet:
        """Return the users of an event in the year of a moment.

        That is the union of the bitmaps of its months; and with the option ``track_yearly``,
        of the year's own bitmap too, which may be the last to expire.

        Arguments:
            event: the event's name.
            moment: a moment of the year; the present by default. An aware datetime is
                converted to the tally's time zone, a naive one is taken to be
                in it, and a date stands for its midnight.

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
        """Return the users of an event in a `Period` of any granularity.

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

        With datetimes, every day counts that has a moment in between: a range up to
        noon includes the whole day, since marks are of days. Reads
        as few bitmaps as possible: those of whole months and weeks where they fit
        and do not expire before their days, and those of days at the edges.

        The set has every user who is in any bitmap, not expired, of a period inside the
        range (hours are read if they live longer than days, with the option
        ``track_hourly=True`` or the switch ``TRACK_HOURLY``). An `unmark_event` that is
        not ``exact`` removes a user from the whole week and month, and so from ranges that
        contain them.

        Arguments:
            event: the event's name.
            start, end: datetimes or dates, as ``moment`` of `day`; ``start`` is the
                earlier one.

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
            days: how many days, 1 or more, the moment's own included; 28 by default, four
                whole weeks, so that each day of the week counts equally.
            moment: the last moment, as in `day`; the present by default.

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

    def last_hours(self, event: str, hours: int = 24, moment: date | None = None) -> EventSet:
        """Return the users of an event in the hour of a moment or the hours before it.

        For tallies that mark hours (``track_hourly``). These are hours of real time: where
        the clock is put forward or back, the set has the hours of the wall clock that belong to
        them. An hour that occurs twice has one bitmap, and is in the set if one of the two is.

        Whole days in between are read from the bitmaps of days, weeks and months, as those of
        `between`: they also have the users who were marked without hours.

        Arguments:
            event: the event's name.
            hours: how many hours, 1 or more, the moment's own included; 24 by default.
            moment: the last moment, as in `day`; the present by default.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
        """
        context = self._context
        event = checked_name("event", event)
        hours = checked_int("hours", hours)
        if hours < 1:
            raise InvalidValueError(f"hours must be 1 or more, got {shown(hours)}")
        first, after = wall_hours(context.local(moment), hours, context.options.zone)
        return HourRange(context.origin, event, first, after, context.coverage)

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
