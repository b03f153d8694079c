"""Marks of many rows of one event: other users in each bitmap, in one transaction. Pure.

The rows of some days of a month share the bitmap of the month and those of the weeks. Each bitmap
gets its bits in the form that takes less of Redis's time: one by one, as a ``BITFIELD``, or as
a part of a bitmap, which a script merges.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._core import encoding
from .._core.failures import unexpected_reply
from .._core.untrusted import escaped, shown
from ..errors import CommandError
from .marks import Bitmaps, PreparedMarks
from .results import checked_list, explained, has_bit
from .unshared import PreparedCommand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .._core.periods import Granularity
    from .id_marks import KnownNumbers
    from .marks import Counts, Result

__all__ = ["Dense", "RowBitmaps", "RowMarks", "Sparse"]

#: KEYS holds bitmaps and two temporary keys. ARGV holds how many parts of bitmaps there
#: are; each part, after the index of its first byte; and for each bitmap, which of the parts to
#: merge into it. All types are checked before the first write.
#:
#: A bitmap that ends within the part, and has no expiry, is merged where it is; the others in a
#: copy of that part, since ``BITOP`` would read all of it, and drop its expiry.
_MERGE: Final = b"""
local count, old, new = tonumber(ARGV[1]), KEYS[#KEYS - 1], KEYS[#KEYS]
local lengths, changed = {}, {}
for i = 1, #KEYS - 2 do lengths[i] = redis.call('STRLEN', KEYS[i]) end
for i = 1, #KEYS - 2 do
  local part = tonumber(ARGV[2 * count + 1 + i])
  local key, first, bits = KEYS[i], tonumber(ARGV[2 * part]), ARGV[2 * part + 1]
  if lengths[i] <= first then
    redis.call('SETRANGE', key, first, bits)
    changed[i] = redis.call('BITCOUNT', key, first, -1)
  elseif first == 0 and lengths[i] <= 2 * #bits and redis.call('PTTL', key) == -1 then
    local before = redis.call('BITCOUNT', key)
    redis.call('SET', new, bits)
    redis.call('BITOP', 'OR', key, key, new)
    changed[i] = redis.call('BITCOUNT', key) - before
  else
    local last = first + #bits - 1
    local before = redis.call('BITCOUNT', key, first, last)
    redis.call('SET', old, redis.call('GETRANGE', key, first, last))
    redis.call('SET', new, bits)
    redis.call('BITOP', 'OR', new, old, new)
    changed[i] = redis.call('BITCOUNT', new) - before
    if changed[i] > 0 then redis.call('SETRANGE', key, first, redis.call('GET', new)) end
  end
end
redis.call('UNLINK', old, new)
return changed
"""


class Sparse(NamedTuple):
    """Bits of one bitmap that are set one by one.

    Attributes:
        granularity: of the bitmap.
        key: its key.
        tail: the operations of the ``BITFIELD``, encoded.
        bits: how many bits these are, repetitions included.
    """

    granularity: Granularity
    key: bytes
    tail: bytes
    bits: int


class Dense(NamedTuple):
    """Bits of one bitmap that a script merges.

    Attributes:
        granularity: of the bitmap.
        key: its key.
        first: the index of the first byte of the part.
        bits: the bytes of the part, with a 1 for each user.
    """

    granularity: Granularity
    key: bytes
    first: int
    bits: bytes


class RowBitmaps(Bitmaps):
    """The bitmaps of some days of one event. Belong to one mark.

    They have none of the tables for the replies to a `BitMark`, whose number doubles with each
    bitmap.
    """

    __slots__ = ()

    def __init__(
        self,
        event: str,
        shard: int,
        keys: Sequence[bytes],
        granularities: Sequence[Granularity],
        expiring: list[tuple[bytes, float]],
        *,
        uncounted: bool,
    ) -> None:
        """Precompute the commands for the expiry.

        Arguments:
            event, shard, keys, granularities: as for `Bitmaps`.
            expiring: the keys that expire, and when.
            uncounted: as the attribute.
        """
        self.event = event
        self.shard = shard
        self.order_key = (event, shard) if shard else event
        self.granularities = tuple(granularities)
        self.keys = tuple(keys)
        self.expiring = expiring
        self.expiry_commands = b"".join(
            encoding.command(b"EXPIREAT", key, b"%d" % time) for key, time in expiring
        )
        self.expiry_count = len(expiring)
        self.command_count = len(self.keys) + self.expiry_count
        self.expires_at = min([time for _, time in expiring], default=math.inf)
        self.size = len(self.expiry_commands)
        self.uncounted = uncounted
        self.sent = False


class RowMarks(PreparedMarks):
    """Set the bits of many rows of one event.

    Attributes:
        data: the encoded commands.
        rows: how many rows these are, repetitions included.
        temp_keys: two keys for temporary values of the script; empty without it.
        users: for users with ids, the marks of each unit, if their numbers have changed.
    """

    __slots__ = ("bitmaps", "counts", "data", "dense", "rows", "size", "temp_keys", "users")

    def __init__(
        self,
        bitmaps: Bitmaps,
        dense: Sequence[Dense],
        sparse: Sequence[Sparse],
        *,
        temp_keys: tuple[bytes, ...],
        rows: int,
        users: Callable[[KnownNumbers], Iterator[tuple[Bitmaps, Sequence[Any]]]],
    ) -> None:
        """Encode the commands: here, as another batch may be in flight meanwhile.

        Arguments:
            bitmaps: the bitmaps of all parts, those of ``dense`` first.
            dense, sparse: the bits.
            temp_keys, rows, users: as the attributes.
        """
        self.bitmaps = bitmaps
        self.rows = rows
        self.users = users
        self.temp_keys = temp_keys if dense else ()
        self.dense = [part.granularity for part in dense]
        #: The granularity, the key and the number of bits of each bitmap whose bits are set one
        #: by one.
        self.counts = [(part.granularity, part.key, part.bits) for part in sparse]
        pieces = [_merge(dense, temp_keys)] if dense else []
        for part in sparse:
            pieces += (encoding.bitfield_head(part.bits, part.key), part.tail)
        self.data = b"".join(pieces)
        self.size = len(self.data) + bitmaps.size

    def command(self, index: int) -> SetRows:
        """Return the write command of the marks, without their expiry."""
        return SetRows(index, self)

    def parts(self, known: KnownNumbers) -> Iterator[tuple[Bitmaps, Sequence[Any]]]:
        """Yield the bitmaps of each day or hour, and the keys of its users' ids."""
        return self.users(known)


def _merge(dense: Sequence[Dense], temp_keys: tuple[bytes, ...]) -> bytes:
    """Encode the script that merges parts of bitmaps; equal parts are sent once."""
    parts: dict[int, int] = {}
    arguments: list[bytes] = []
    indexes = []
    for part in dense:
        index = parts.get(id(part.bits))
        if index is None:
            index = parts[id(part.bits)] = len(parts) + 1
            arguments += (b"%d" % part.first, part.bits)
        indexes.append(b"%d" % index)
    keys = [part.key for part in dense] + list(temp_keys)
    return encoding.command(
        b"EVAL", _MERGE, b"%d" % len(keys), *keys, b"%d" % len(parts), *arguments, *indexes
    )


class SetRows(PreparedCommand):
    """The write command of `RowMarks`."""

    __slots__ = ()

    mark: RowMarks

    def command_count(self) -> int:
        """Return how many Redis commands `encode` returns."""
        return bool(self.mark.dense) + len(self.mark.counts)

    def encode(self) -> bytes:
        """Return the Redis commands."""
        return self.mark.data

    def parse(self, replies: Sequence[Any]) -> Result:
        """Return the counts of flipped bits."""
        mark = self.mark
        counts: Counts = dict.fromkeys(mark.bitmaps.granularities, 0)
        if mark.dense:
            reply, *replies = replies
            if isinstance(reply, CommandError):
                reason = f"rows of {shown(mark.bitmaps.event)}: some bits were not changed"
                return explained(reply, reason, applied=any(map(has_bit, replies)))
            changes = checked_list(reply, len(mark.dense))
            if not all(type(change) is int and change >= 0 for change in changes):
                raise unexpected_reply(reply)
            for granularity, change in zip(mark.dense, changes, strict=True):
                counts[granularity] += change
        for (granularity, key, count), bits in zip(mark.counts, replies, strict=True):
            if isinstance(bits, CommandError):
                reason = f"{escaped(key)} was not changed; others may have been"
                applied = bool(mark.dense) or any(map(has_bit, replies))
                return explained(bits, reason, applied=applied)
            if not {0, 1}.issuperset(checked_list(bits, count)):
                error = next((bit for bit in bits if isinstance(bit, CommandError)), None)
                if error is None:
                    raise unexpected_reply(bits)
                reason = f"{escaped(key)} was not changed; others may have been"
                return explained(error, reason, applied=any(map(has_bit, replies)))
            counts[granularity] += bits.count(0)
        return counts
