"""Which users an expression of bitmapist's is about: a set of them, or everybody else. Pure.

A complement has no bitmap of its own, since no bitmap says who there is. So it is kept
as what it leaves out, and met with other sets by the laws of De Morgan; only if the whole
expression comes out as a complement, somebody has to say who everybody is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .._core.events import Bitmap, Origin

if TYPE_CHECKING:
    from .._core.events import EventSet

__all__ = ["RawBitmap", "Selection"]

#: Where a selection is does not matter before it is asked about.
_NOWHERE: Final = Origin(None, "")


class RawBitmap(Bitmap):
    """A bitmap whose key is given, in the place of the event's name, and need follow no schema."""

    __slots__ = ()

    def __post_init__(self) -> None:
        """Check nothing: a key may have any name."""

    @property
    def key(self) -> bytes:
        """Its key in the database."""
        return self.event.encode()

    def key_below(self, prefix: str) -> bytes:
        """Return the same key: it has no prefix."""
        return self.key

    def at(self, origin: Origin) -> RawBitmap:
        """Return the bitmap with the same key somewhere else."""
        return RawBitmap(origin, self.event, None)


@dataclass(frozen=True)
class Selection:
    """Some users, or all others.

    Attributes:
        event_set: which users; of no database before it is asked about.
        inverted: whether it is all others.
    """

    event_set: EventSet
    inverted: bool = False

    @classmethod
    def of_key(cls, key: str) -> Selection:
        """Return the users in the bitmap under a key."""
        return cls(RawBitmap(_NOWHERE, key, None))

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
