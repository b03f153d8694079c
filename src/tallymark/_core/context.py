"""What a tally knows when it builds event sets and asks about them. Pure."""

from __future__ import annotations

import functools
import itertools
import math
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from ..errors import InvalidValueError
from .arguments import iterated
from .covers import Coverage
from .events import Bitmap, DayRange, EventSet, Origin, PeriodUnion, checked
from .excerpts import shown
from .graphs import LEAST_WRITTEN, SLOWER
from .switches import switches
from .wall_clock import clock_at, wall_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable
    from datetime import date, datetime

    from .keys import KeySchema
    from .options import Options
    from .periods import Period

__all__ = ["Context", "Lengths"]

#: For so many seconds, and of so many events, is it remembered how long bitmaps are.
_FRESH: Final = 60.0
_EVENTS: Final = 1000


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
        """The context of each shard, a plain database; a plain database is its own only shard."""
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
        shards = len(self.schema.parts)
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
