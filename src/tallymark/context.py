"""What a tally knows when it builds event sets and asks about them. Pure."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from .errors import InvalidTypeError, InvalidValueError
from .events import Bitmap, DayRange, EventSet, Origin, YearOfMonths, checked
from .periods import Granularity
from .wall_clock import wall_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from datetime import date

    from .keys import KeySchema
    from .options import Options
    from .periods import Period

__all__ = ["Context"]


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

    def local(self, moment: date | None, name: str = "moment") -> datetime:
        """Return a moment, or the present, as the wall clock of the tally's zone shows it."""
        zone = self.options.zone
        if moment is None:
            return datetime.fromtimestamp(self.clock(), zone).replace(tzinfo=None)
        return wall_clock(moment, zone, name)

    def during(self, event: str, period: Period) -> EventSet:
        """Return the users of an event in a period."""
        if period.granularity is Granularity.YEAR and not self.options.track_yearly:
            return YearOfMonths(self.origin, event, period)
        return Bitmap(self.origin, event, period)

    def days(self, event: str, first: datetime, after: datetime) -> EventSet:
        """Return the users of an event on any day from one midnight to another."""
        return DayRange(self.origin, event, first, after, self.options.track_yearly)

    def checked(self, event_set: EventSet) -> EventSet:
        """Return an event set if it is one of this database.

        Raises:
            InvalidTypeError, InvalidValueError: it is not.
        """
        if checked(event_set).origin != self.origin:
            raise InvalidValueError(
                f"{event_set!r} is of another database, or of another prefix, than this tally"
            )
        return event_set

    def checked_many(self, event_sets: Iterable[EventSet]) -> list[EventSet]:
        """Return some event sets if they are of this database."""
        if not isinstance(event_sets, Iterable) or isinstance(event_sets, str):
            raise InvalidTypeError(f"not an iterable of event sets: {event_sets!r:.80}")
        # One more than may be asked about at once, of an iterable that may have no end.
        most = self.options.max_bitmaps + 1
        return [self.checked(event_set) for event_set in itertools.islice(event_sets, most)]

    def bitmaps(self, event_set: EventSet) -> tuple[Bitmap, ...]:
        """Return the bitmaps of an event set of this database, each once."""
        return tuple(dict.fromkeys(self.checked(event_set).bitmaps()))
