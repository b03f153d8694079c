"""Marks: what a verb asks for, as values. Pure.

`tallymark.steps` says how they are written to Redis, `tallymark.batches` how
many of them share a transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import wire
from .errors import TallymarkError
from .periods import Granularity

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["BitMark", "Bitmaps", "ExactUnmark", "Mark", "Result"]

#: What one mark came to: the granularities whose bit it flipped, or its error.
Result = Granularity | TallymarkError

#: The bytes around a key in a command, roughly: the command's name, the offset, the value.
_AROUND_A_KEY = 50


class Bitmaps:
    """The bitmaps of one event that a mark touches together. Immutable and shared.

    Attributes:
        event: the event's name.
        granularities: one for each bitmap.
        keys: one for each bitmap, in the same order.
        bulk_keys, setbit_heads: the keys, encoded for the wire once and for all.
        size: about how many bytes a mark on them takes on the wire.
    """

    __slots__ = ("bulk_keys", "event", "granularities", "keys", "setbit_heads", "size")

    def __init__(
        self, event: str, granularities: Iterable[Granularity], keys: Iterable[bytes]
    ) -> None:
        self.event = event
        self.granularities = tuple(granularities)
        self.keys = tuple(keys)
        self.bulk_keys = tuple(map(wire.bulk, self.keys))
        self.setbit_heads = tuple(map(wire.setbit_head, self.keys))
        self.size = _size(self.keys)


class BitMark:
    """Set or clear one user's bit in some bitmaps of an event."""

    __slots__ = ("bitmaps", "offset", "value")

    def __init__(self, bitmaps: Bitmaps, offset: int, value: int) -> None:
        self.bitmaps = bitmaps
        self.offset = offset
        self.value = value


@dataclass(frozen=True)
class ExactUnmark:
    """Clear a user's bits, each only where none of its witnesses has the user.

    Attributes:
        bitmaps: what to clear.
        offset: the user's bit.
        witnesses: for each bitmap, the keys of the other days that keep it
            set; empty for a bitmap that is cleared in any case.
    """

    bitmaps: Bitmaps
    offset: int
    witnesses: tuple[tuple[bytes, ...], ...]

    @property
    def size(self) -> int:
        """About how many bytes it takes on the wire."""
        return self.bitmaps.size + sum(map(_size, self.witnesses))


Mark = BitMark | ExactUnmark


def _size(keys: tuple[bytes, ...]) -> int:
    return sum(map(len, keys)) + _AROUND_A_KEY * len(keys)
