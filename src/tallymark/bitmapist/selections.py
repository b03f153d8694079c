"""The users that an expression of bitmapist selects: an event set, or its complement.

Redis has no bitmap of all users, so a complement has no bitmap either. A `Selection` keeps
the event set that is left out, and combines it with others by De Morgan's laws. Only if a
whole expression is a complement, the universe is read that it is taken of.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .._core.events import Bitmap, Origin, any_of
from .._core.keys import KeySchema
from .._core.periods import Granularity, Period
from .._reading.keyspace import periods_of
from ..errors import InvalidValueError

if TYPE_CHECKING:
    from .._core.events import EventSet
    from .._sync.tally import SyncTally

__all__ = ["RawBitmap", "Selection", "Universe", "origin_of", "resolve"]

#: The origin of selections, which have no database before they are resolved.
_NO_ORIGIN: Final = Origin(None, "")


class RawBitmap(Bitmap):
    """A bitmap with any key. The key stands in place of the event's name, without a schema."""

    __slots__ = ()

    def __post_init__(self) -> None:
        """Check nothing: any name is a key."""

    @property
    def key(self) -> bytes:
        """Its key in the database."""
        return self.event.encode()

    def key_with_prefix(self, prefix: str) -> bytes:
        """Return the same key: it has no prefix."""
        return self.key

    def at(self, origin: Origin) -> RawBitmap:
        """Return the bitmap with the same key in another database."""
        return RawBitmap(origin, self.event, None)


@dataclass(frozen=True)
class Selection:
    """The users of an event set, or all others.

    Attributes:
        event_set: the event set; it has no database before `resolve`.
        inverted: whether all other users are selected.
    """

    event_set: EventSet
    inverted: bool = False

    @classmethod
    def of_key(cls, key: str) -> Selection:
        """Return the users in the bitmap under a key."""
        return cls(RawBitmap(_NO_ORIGIN, key, None))

    def __invert__(self) -> Selection:
        return Selection(self.event_set, not self.inverted)

    def __and__(self, other: Selection) -> Selection:
        mine, theirs = self.event_set, other.event_set
        if self.inverted and other.inverted:
            return Selection(mine | theirs, inverted=True)
        if self.inverted:
            return Selection(theirs - mine)
        return Selection(mine - theirs if other.inverted else mine & theirs)

    def __or__(self, other: Selection) -> Selection:
        return ~(~self & ~other)

    def __xor__(self, other: Selection) -> Selection:
        return Selection(self.event_set ^ other.event_set, self.inverted != other.inverted)


def origin_of(tally: SyncTally) -> Origin:
    """Return the origin of a tally's bitmaps."""
    return tally.backend.context.origin


def resolve(tally: SyncTally, selection: Selection, universe: Universe | None = None) -> EventSet:
    """Return the event set, in a tally's database, that holds the users of a selection.

    Arguments:
        tally: the tally. Its database is read only if the selection is a complement.
        selection: the selection.
        universe: the universe of the database, if several selections share one, so that
            the bitmaps of an event are listed only once.
    """
    event_set = selection.event_set.at(origin_of(tally))
    if not selection.inverted:
        return event_set
    return (universe or Universe(tally)).of(event_set) - event_set


class Universe:
    """The users that a database knows of, by event: what complements are taken of."""

    def __init__(self, tally: SyncTally) -> None:
        """Take the tally; nothing is read yet."""
        self._tally = tally
        self._bitmaps: dict[str, list[EventSet]] = {}

    def of(self, event_set: EventSet) -> EventSet:
        """Return all users of the events that an event set names."""
        schema = KeySchema()
        bitmaps = dict.fromkeys(event_set.bitmaps())
        universe: list[EventSet] = list(bitmaps)
        names: dict[str, None] = {}
        for bitmap in bitmaps:
            with contextlib.suppress(InvalidValueError):  # a key of the program's own
                names[schema.parse(bitmap.key)[0]] = None
        for name in names:
            if name not in self._bitmaps:
                self._bitmaps[name] = self._bitmaps_of(name)
            universe += self._bitmaps[name]
        return any_of(universe)

    def _bitmaps_of(self, name: str) -> list[EventSet]:
        """Return the bitmaps of an event that together hold all its users.

        They are its flag, its months, and the periods whose months are not all there: a
        tally may have marked years, or let months expire, which bitmapist does not.
        """
        tally = self._tally
        periods: list[Period] = tally.backend.reader.answer(periods_of(tally.backend.context, name))
        months = {period for period in periods if period.granularity is Granularity.MONTH}
        chosen = [
            period
            for period in periods
            if period in months
            or not months.issuperset(
                Period.containing(Granularity.MONTH, day.start) for day in period.days()
            )
        ]
        return [tally.unique(name), *(Bitmap(origin_of(tally), name, period) for period in chosen)]
