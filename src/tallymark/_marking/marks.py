"""Marks: the bits that one write call sets or clears, as values. Pure.

`tallymark._marking.commands` turns them into Redis commands, `tallymark._marking.batch`
into one transaction.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from .._core import encoding
from .._core.periods import Granularity
from ..errors import TallymarkError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

__all__ = [
    "NO_FLIPS",
    "BitMark",
    "Bitmaps",
    "Counts",
    "DenseMarks",
    "ExactUnmark",
    "Mark",
    "PreparedMarks",
    "Result",
    "SparseMarks",
    "flipped",
    "record_sent",
]

#: The result of marks of several users: how many bits they flipped, by granularity.
Counts = dict[Granularity, int]

#: The result of a mark: the granularities whose bit it flipped, counts, or an error.
Result = Granularity | Counts | TallymarkError

#: The result of a mark that flips nothing. To make one takes 0.5 us.
NO_FLIPS: Final = Granularity(0)

#: The flips of a mark, by the value that it wrote and the bits that were there before.
_FlipTable = tuple[dict[tuple[int, ...], Granularity], dict[tuple[int, ...], Granularity]]

#: The same, by the value and all bytes of the reply.
_ReplyTable = tuple[dict[bytes, Granularity], dict[bytes, Granularity]]

#: About how many bytes a command has besides its key: its name, the offset, the value.
_COMMAND_OVERHEAD = 50


class Bitmaps:
    """The bitmaps of one event that a mark writes to. Shared by marks, and immutable.

    Attributes:
        event: the event's name.
        shard: the shard of the keys; 0 in a database without shards.
        order_key: equal for all bitmaps whose marks must keep their order: those of an
            event in a shard.
        granularities: one for each bitmap.
        keys: one for each bitmap, in the same order.
        flips: the result of a mark by the value that it writes and the bits that were there.
        replies: the result of a mark by the value that it writes and all bytes of the reply,
            if the mark is a transaction of its own.
        bulk_keys, setbit_heads: the keys, encoded for the wire once and for all.
        size: about how many bytes a mark on these bitmaps takes on the wire.
        command_count: how many Redis commands a mark has that shares them with no other.
        expiring: the key of each bitmap that expires, and when, in seconds since 1970.
        expiry_count: how many of the bitmaps expire.
        expiry_commands: the encoded commands that set their expiry.
        expires_at: when the first of the bitmaps expires, in seconds since 1970;
            ``math.inf`` if none does.
        uncounted: whether the event does not count towards ``max_events`` yet. Such
            bitmaps belong to one call and are not shared.
        sent: for uncounted bitmaps, whether a byte of their marks may have been written.
    """

    __slots__ = (
        "bulk_keys",
        "command_count",
        "event",
        "expires_at",
        "expiring",
        "expiry_commands",
        "expiry_count",
        "flips",
        "granularities",
        "keys",
        "order_key",
        "replies",
        "sent",
        "setbit_heads",
        "shard",
        "size",
        "uncounted",
    )

    def __init__(
        self,
        event: str,
        granularities: Iterable[Granularity],
        keys: Iterable[bytes],
        expiry_times: Iterable[float] = (),
        shard: int = 0,
    ) -> None:
        """Precompute the keys and the heads of commands for marks on these bitmaps.

        Arguments:
            event: the event's name.
            granularities, keys: of each bitmap.
            expiry_times: when each bitmap expires, in seconds since 1970; ``math.inf``
                for never.
            shard: the shard of the keys.
        """
        self.event = event
        self.shard = shard
        self.order_key: Hashable = (event, shard) if shard else event
        self.granularities = tuple(granularities)
        # Found once: for each mark, to hash the granularities would take 0.25 us.
        self.flips = _flip_table(self.granularities)
        self.replies = _reply_table(self.granularities)
        self.keys = tuple(keys)
        self.bulk_keys = tuple(map(encoding.bulk, self.keys))
        self.setbit_heads = (*map(encoding.setbit_head, self.keys), b"")
        times = tuple(expiry_times)
        self.expiring = expiring = [
            (key, time) for key, time in zip(self.keys, times, strict=False) if time < math.inf
        ]
        self.expiry_commands = b"".join(
            encoding.command(b"EXPIREAT", key, b"%d" % time) for key, time in expiring
        )
        self.expiry_count = len(expiring)
        self.command_count = len(self.keys) + self.expiry_count
        self.expires_at = min(times, default=math.inf)
        self.size = _size(self.keys) + len(self.expiry_commands)
        self.uncounted = False
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
    """Clear a user's bits; in weeks, months and years only if no other day has the user.

    Attributes:
        bitmaps: the bitmaps to clear.
        offset: the user's bit.
        other_days: for each bitmap, the keys of the other days of its period: a bit set
            in one of them keeps the bitmap's bit set. Empty for a bitmap that is
            cleared unconditionally.
    """

    bitmaps: Bitmaps
    offset: int
    other_days: tuple[tuple[bytes, ...], ...]

    @property
    def size(self) -> int:
        """About how many bytes the mark takes on the wire."""
        return self.bitmaps.size + sum(map(_size, self.other_days))


class SparseMarks:
    """Set or clear the bits of some users, one by one."""

    __slots__ = ("bitmaps", "commands", "offsets", "size", "value")

    def __init__(self, bitmaps: Bitmaps, offsets: list[int], value: int) -> None:
        self.bitmaps = bitmaps
        self.offsets = offsets
        self.value = value
        self.size = bitmaps.size * len(offsets)
        #: The encoded ``BITFIELD`` commands. Encoded here, because another batch may be
        #: in flight meanwhile.
        self.commands = encoding.bitfield(bitmaps.bulk_keys, offsets, itertools.repeat(value))


@dataclass(frozen=True)
class DenseMarks:
    """Set or clear the bits of many users with neighbouring offsets.

    Attributes:
        bitmaps: the bitmaps to write to.
        first: the index of the first byte to write to.
        bits: the bytes from there on, with a 1 for each user.
        value: the bit to write.
        temp_keys: two keys for temporary values of the script.
    """

    bitmaps: Bitmaps
    first: int
    bits: bytes
    value: int
    temp_keys: tuple[bytes, bytes]

    @property
    def size(self) -> int:
        """About how many bytes the marks take on the wire."""
        return self.bitmaps.size + len(self.bits)


class PreparedMarks:
    """Marks that make their own write command; see `tallymark._marking.row_marks`.

    Attributes:
        bitmaps: the bitmaps to write to.
        size: about how many bytes the marks take on the wire.
        rows: how many rows these are, repetitions included.
    """

    __slots__ = ()

    bitmaps: Bitmaps
    size: int
    rows: int

    def command(self, index: int) -> Any:
        """Return the write command, a `tallymark._marking.unshared.PreparedCommand`.

        Arguments:
            index: the index of the mark in its batch.
        """
        raise NotImplementedError

    def parts(self, known: Any) -> Iterable[tuple[Bitmaps, Sequence[Any]]]:
        """Return bitmaps, and for each of them the keys of users' ids, that have the same marks.

        Arguments:
            known: has the keys, by the users' numbers.
        """
        raise NotImplementedError


#: `tallymark._marking.id_marks` has subclasses for users whose number is not known yet.
Mark = BitMark | ExactUnmark | SparseMarks | DenseMarks | PreparedMarks


def record_sent(marks: Iterable[Mark]) -> None:
    """Record, for marks on uncounted bitmaps, that a byte of them may have been written."""
    for mark in marks:
        if mark.bitmaps.uncounted:
            mark.bitmaps.sent = True


def flipped(
    granularities: tuple[Granularity, ...], changes: Sequence[int | TallymarkError]
) -> Granularity:
    """Return the granularities of the bits that were flipped.

    Arguments:
        granularities: of each bit.
        changes: for each bit, 1 if it was flipped, 0 if not, or an error.
    """
    result = NO_FLIPS
    for granularity, change in zip(granularities, changes, strict=True):
        if change == 1:
            result |= granularity
    return result


@functools.cache
def _flip_table(granularities: tuple[Granularity, ...]) -> _FlipTable:
    """Return the result of a mark without errors, for both values and all old bits."""
    combinations = list(itertools.product((0, 1), repeat=len(granularities)))
    return (
        {bits: flipped(granularities, bits) for bits in combinations},
        {bits: flipped(granularities, [1 - bit for bit in bits]) for bits in combinations},
    )


@functools.cache
def _reply_table(granularities: tuple[Granularity, ...]) -> _ReplyTable:
    """Return the result of a mark by its reply, for both values: `_flip_table`, encoded."""
    count = len(granularities)
    head = b"+OK\r\n" + count * b"+QUEUED\r\n" + b"*%d\r\n" % count
    for_clearing, for_setting = (
        {
            head + b"".join([b":%d\r\n" % bit for bit in bits]): result
            for bits, result in flips.items()
        }
        for flips in _flip_table(granularities)
    )
    return for_clearing, for_setting


def _size(keys: tuple[bytes, ...]) -> int:
    return sum(map(len, keys)) + _COMMAND_OVERHEAD * len(keys)
