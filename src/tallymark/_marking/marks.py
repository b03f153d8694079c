"""Marks: what a verb asks for, as values. Pure.

`tallymark._marking.commands` says how they are written to Redis, `tallymark._marking.batch` how
many of them share a transaction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._core import resp as wire
from .._core.periods import Granularity
from ..errors import TallymarkError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

__all__ = [
    "BitMark",
    "Bitmaps",
    "Counts",
    "DenseMarks",
    "ExactUnmark",
    "Mark",
    "Result",
    "SparseMarks",
    "note_sent",
]

#: What marks of many users came to: how many bits they flipped, for each granularity.
Counts = dict[Granularity, int]

#: What one mark came to: the granularities whose bit it flipped, or its error.
Result = Granularity | Counts | TallymarkError

#: The bytes around a key in a command, roughly: the command's name, the offset, the value.
_AROUND_A_KEY = 50


class Bitmaps:
    """The bitmaps of one event that a mark touches together. Immutable and shared.

    Attributes:
        event: the event's name.
        shard: the shard that they are in; 0 where there are none.
        lane: what is equal for all bitmaps whose marks keep their order: those of an
            event in a shard.
        granularities: one for each bitmap.
        keys: one for each bitmap, in the same order.
        bulk_keys, setbit_heads: the keys, encoded for the wire once and for all.
        size: about how many bytes a mark on them takes on the wire.
        expiring: how many of them have an end.
        expiries: the commands that set it.
        over: when the first of them ends, in seconds since 1970.
        on_trial: whether it is not known yet if their event counts as one that was marked.
            These are of one call alone, and not shared.
        sent: of those on trial, whether a byte of their marks may have been written.
    """

    __slots__ = (
        "bulk_keys",
        "event",
        "expiries",
        "expiring",
        "granularities",
        "keys",
        "lane",
        "on_trial",
        "over",
        "sent",
        "setbit_heads",
        "shard",
        "size",
    )

    def __init__(
        self,
        event: str,
        granularities: Iterable[Granularity],
        keys: Iterable[bytes],
        ends: Iterable[float] = (),
        shard: int = 0,
    ) -> None:
        """Encode what marks on them share.

        Arguments:
            event: the event's name.
            granularities, keys: of each bitmap.
            ends: when each ends, in seconds since 1970; ``math.inf`` if it stays.
            shard: the shard that they are in.
        """
        self.event = event
        self.shard = shard
        self.lane: Hashable = (event, shard) if shard else event
        self.granularities = tuple(granularities)
        self.keys = tuple(keys)
        self.bulk_keys = tuple(map(wire.bulk, self.keys))
        self.setbit_heads = tuple(map(wire.setbit_head, self.keys))
        ends = tuple(ends)
        finite = [(key, end) for key, end in zip(self.keys, ends, strict=False) if end < math.inf]
        self.expiries = b"".join(wire.command(b"EXPIREAT", key, b"%d" % end) for key, end in finite)
        self.expiring = len(finite)
        self.over = min(ends, default=math.inf)
        self.size = _size(self.keys) + len(self.expiries)
        self.on_trial = False
        self.sent = False


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


class SparseMarks:
    """Set or clear the bits of some users, one by one."""

    __slots__ = ("bitmaps", "commands", "offsets", "size", "value")

    def __init__(self, bitmaps: Bitmaps, offsets: list[int], value: int) -> None:
        self.bitmaps = bitmaps
        self.offsets = offsets
        self.value = value
        self.size = bitmaps.size * len(offsets)
        #: With BITFIELD. Made here, which may be while another batch is on the wire.
        self.commands = wire.bitfield(bitmaps.bulk_keys, [(offset, value) for offset in offsets])


@dataclass(frozen=True)
class DenseMarks:
    """Set or clear the bits of many users who are neighbours.

    Attributes:
        bitmaps: where.
        first: the index of the first byte.
        bits: the bytes from there on, with a 1 for each of the users.
        value: the bit to write.
        scratch: two keys for temporary values.
    """

    bitmaps: Bitmaps
    first: int
    bits: bytes
    value: int
    scratch: tuple[bytes, bytes]

    @property
    def size(self) -> int:
        """About how many bytes it takes on the wire."""
        return self.bitmaps.size + len(self.bits)


Mark = BitMark | ExactUnmark | SparseMarks | DenseMarks


def note_sent(marks: Iterable[Mark]) -> None:
    """Take note, of marks on trial, that a byte of them may have been written."""
    for mark in marks:
        if mark.bitmaps.on_trial:
            mark.bitmaps.sent = True


def _size(keys: tuple[bytes, ...]) -> int:
    return sum(map(len, keys)) + _AROUND_A_KEY * len(keys)
