"""What a tally knows when it builds event sets and asks about them. Pure."""

from __future__ import annotations

import functools
import itertools
import math
import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol

from ..errors import InvalidTypeError, InvalidValueError
from .arguments import iterated
from .events import Bitmap, EventSet, Origin, checked
from .keys import checked_int, checked_name
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
    "LEAST_WRITTEN",
    "SLOWER",
    "Context",
    "EventSets",
    "Lengths",
]

#: For so many seconds, and of so many events, is it remembered how long bitmaps are.
_FRESH: Final = 60.0
_EVENTS: Final = 1000

#: What a temporary key costs the server, at least, in bytes that it could have combined
#: meanwhile: a command in a transaction takes it as long as so many.
LEAST_WRITTEN: Final = 4096

#: As long as all operands last, Redis combines whole words; each byte beyond the shortest
#: takes it about as long as so many others (redis/src/bitops.c, bitopCommand).
SLOWER: Final = 6

_DAY: Final = timedelta(days=1)


class Lengths:
    """How long the bitmaps of events are, as the server has told for some of them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin without any. The clock tells the time in seconds."""
        self._clock = clock
        self._known: dict[str, tuple[float, int]] = {}

    def learn(self, bitmaps: Iterable[Bitmap], lengths: Iterable[int]) -> None:
        """Remember for a while how long the longest of each event is."""
        longest: dict[str, int] = {}
        for bitmap, length in zip(bitmaps, lengths, strict=True):
            longest[bitmap.event] = max(length, longest.get(bitmap.event, 0))
        if len(self._known) + len(longest) > _EVENTS:
            self._known.clear()
        if len(longest) <= _EVENTS:
            now = self._clock()
            self._known.update({event: (now, length) for event, length in longest.items()})

    def longest(self, bitmaps: Iterable[Bitmap]) -> int | None:
        """Return how long the longest may be; ``None`` if that is not known of each event."""
        now = self._clock()
        longest = 0
        for event in {bitmap.event for bitmap in bitmaps}:
            when, length = self._known.get(event, (-math.inf, 0))
            if not 0 <= now - when < _FRESH:
                return None
            longest = max(longest, length)
        return longest


@dataclass(frozen=True)
class Context:
    """A database, and how one tally looks at it.

    Attributes:
        origin: the database and the prefix.
        options: the tally's.
        schema: its keys.
        clock: returns the present moment in seconds since 1970.
    """

    origin: Origin
    options: Options
    schema: KeySchema
    clock: Callable[[], float]

    @classmethod
    def of(cls, database: Hashable, options: Options, clock: Callable[[], float]) -> Context:
        """Return the context of a tally with these options."""
        return cls(Origin(database, options.prefix), options, options.schema(), clock)

    @functools.cached_property
    def shards(self) -> tuple[Context, ...]:
        """The context of each shard, a plain database; empty in the plain format."""
        if self.schema.shards is None:
            return ()
        return tuple(
            replace(self, origin=Origin(self.origin.database, part.prefix), schema=part)
            for part in self.schema.parts
        )

    @property
    def coverage(self) -> Coverage:
        """Which bitmaps there are, and which of them live longer than others."""
        hourly = self.options.track_hourly
        # The switch may change at any time; hours that single calls mark are not known here.
        return self._coverages[switches.track_hourly if hourly is None else hourly]

    @functools.cached_property
    def _coverages(self) -> tuple[Coverage, Coverage]:
        """The coverage without bitmaps of hours, and with them."""
        lives, yearly = self.options.lives, self.options.track_yearly
        without, with_hours = (Coverage.of(lives, yearly=yearly, hourly=h) for h in (False, True))
        return without, with_hours

    @functools.cached_property
    def sure_writes(self) -> int:
        """How many temporary keys may be written for a question, however long bitmaps are.

        If all ids are such as the tally accepts, these stay below ``max_temp_bytes``.
        """
        limit = self.options.max_temp_bytes
        if limit is None:
            return sys.maxsize
        shards = self.schema.shards or 1
        longest = (self.schema.max_user_id // shards >> 3) + 1
        return limit // (shards * max(SLOWER * longest, LEAST_WRITTEN))

    @functools.cached_property
    def lengths(self) -> Lengths:
        """How long bitmaps were a moment ago."""
        return Lengths(self.clock)

    def local(self, moment: date | None, name: str = "moment") -> datetime:
        """Return a moment, or the present, as the wall clock of the tally's zone shows it."""
        zone = self.options.zone
        if moment is None:
            return clock_at(self.clock(), zone)[0]
        return wall_clock(moment, zone, name)

    def during(self, event: str, period: Period) -> EventSet:
        """Return the users of an event in a period."""
        if period.granularity in self.coverage.alone:
            return Bitmap(self.origin, event, period)
        return PeriodUnion(self.origin, event, period, self.coverage)

    def days(self, event: str, first: datetime, after: datetime) -> EventSet:
        """Return the users of an event on any day from one midnight to another."""
        return DayRange(self.origin, event, first, after, self.coverage)

    def checked(self, event_set: EventSet) -> EventSet:
        """Return an event set if it is one of this database.

        Raises:
            InvalidTypeError, InvalidValueError: it is not.
        """
        if checked(event_set).origin != self.origin:
            raise InvalidValueError(
                f"{shown(event_set)} is of another database, or of another prefix, than this tally"
            )
        return event_set

    def checked_many(self, event_sets: Iterable[EventSet]) -> list[EventSet]:
        """Return some event sets if they are of this database."""
        each = iterated("not an iterable of event sets", event_sets)
        # One more than may be asked about at once, of an iterable that may have no end.
        most = self.options.max_bitmaps + 1
        return [self.checked(event_set) for event_set in itertools.islice(each, most)]


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
