"""Marks of many rows: other users in each bitmap, in one transaction. Pure.

The rows of some days of a month share the bitmap of the month and those of the weeks. Each bitmap
gets its bits in the form that takes less of Redis's time: one by one, as a ``BITFIELD``, or as
a part of a bitmap, which a script merges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._core import encoding
from .._core.failures import unexpected_reply
from .._core.periods import Granularity
from .._core.untrusted import escaped
from ..errors import CommandError
from .marks import Bitmaps, PreparedMarks
from .results import checked_list, explained, has_bit
from .unshared import PreparedCommand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .id_marks import KnownNumbers
    from .marks import Result

__all__ = ["GRANULARITIES", "Dense", "RowBitmaps", "RowMarks", "merge"]

#: Where a granularity is a number, it is the index in this tuple: to hash one takes 0.25 us.
GRANULARITIES: Final = tuple(Granularity)

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


class Dense(NamedTuple):
    """Bits of one bitmap that a script merges.

    Attributes:
        granularity: of the bitmap, as an index of `GRANULARITIES`.
        key: its key.
        first: the index of the first byte of the part.
        bits: the bytes of the part, with a 1 for each user.
    """

    granularity: int
    key: bytes
    first: int
    bits: bytes


def merge(dense: Sequence[Dense], temp_keys: tuple[bytes, ...]) -> bytes:
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


class RowBitmaps(Bitmaps):
    """The bitmaps of some rows. Belong to one mark.

    They have none of the tables for the replies to a `BitMark`, whose number doubles with each
    bitmap.
    """

    __slots__ = ()

    def __init__(
        self,
        event: str,
        shard: int,
        keys: Iterable[bytes],
        expiring: list[tuple[bytes, float]],
        *,
        uncounted: bool,
    ) -> None:
        """Precompute the commands for the expiry.

        Arguments:
            event: the name of the only event, or of one that counts towards ``max_events``.
            shard, keys: as for `Bitmaps`.
            expiring: the keys that expire, and when.
            uncounted: as the attribute.
        """
        self.event = event
        self.shard = shard
        self.order_key = (event, shard) if shard else event
        self.keys = tuple(keys)
        self.expiring = expiring
        self.expiry_commands = b"".join(
            [encoding.command(b"EXPIREAT", key, b"%d" % time) for key, time in expiring]
        )
        self.expiry_count = len(expiring)
        self.size = len(self.expiry_commands)
        self.uncounted = uncounted
        self.sent = False


class RowMarks(PreparedMarks):
    """Set the bits of many rows.

    Attributes:
        data: the encoded commands.
        rows: how many rows these are, repetitions included.
        temp_keys: two keys for temporary values of scripts; empty without scripts.
        kinds: for each command, which granularity it writes; of a script, a tuple.
        counts: for each command, how many bits it sets one by one; 0 for a script.
    """

    __slots__ = (
        "_names",
        "_users",
        "bitmaps",
        "counts",
        "data",
        "kinds",
        "rows",
        "size",
        "temp_keys",
    )

    def __init__(
        self,
        bitmaps: Bitmaps,
        data: bytes,
        kinds: Sequence[int | tuple[int, ...]],
        counts: Sequence[int],
        names: Sequence[bytes],
        *,
        temp_keys: tuple[bytes, ...],
        rows: int,
        users: Callable[[KnownNumbers], Iterable[tuple[Bitmaps, Sequence[Any]]]],
    ) -> None:
        """Begin with encoded commands.

        Arguments:
            bitmaps: the bitmaps of all commands.
            data, kinds, counts, temp_keys, rows: as the attributes.
            names: for each command, the name of its bitmap, or event, for errors.
            users: for users with ids, the marks of each unit, if their numbers have changed.
        """
        self.bitmaps = bitmaps
        self.data = data
        self.kinds = kinds
        self.counts = counts
        self.rows = rows
        self.temp_keys = temp_keys
        self.size = len(data) + bitmaps.size
        self._names = names
        self._users = users

    def command(self, index: int) -> SetRows:
        """Return the write command of the marks, without their expiry."""
        return SetRows(index, self)

    def parts(self, known: KnownNumbers) -> Iterable[tuple[Bitmaps, Sequence[Any]]]:
        """Return the bitmaps of each day or hour, and the keys of its users' ids."""
        return self._users(known)

    def name(self, command: int) -> str:
        """Return the name of what a command writes to, for an error."""
        return escaped(self._names[command])


class SetRows(PreparedCommand):
    """The write command of `RowMarks`."""

    __slots__ = ()

    mark: RowMarks

    def command_count(self) -> int:
        """Return how many Redis commands `encode` returns."""
        return len(self.mark.counts)

    def encode(self) -> bytes:
        """Return the Redis commands."""
        return self.mark.data

    def parse(self, replies: Sequence[Any]) -> Result:
        """Return the counts of flipped bits."""
        mark = self.mark
        totals = [0] * len(GRANULARITIES)
        for at, (kind, count, reply) in enumerate(
            zip(mark.kinds, mark.counts, replies, strict=True)
        ):
            if isinstance(kind, tuple):
                if isinstance(reply, CommandError):
                    return self._failed(at, reply, replies)
                for granularity, change in zip(kind, checked_list(reply, len(kind)), strict=True):
                    if type(change) is not int or change < 0:
                        raise unexpected_reply(reply)
                    totals[granularity] += change
            elif (
                type(reply) is list
                and len(reply) == count
                and (zeros := reply.count(0)) + reply.count(1) == count
            ):
                totals[kind] += zeros
            else:
                return self._failed(at, reply, replies)
        return {
            granularity: count
            for granularity, count in zip(GRANULARITIES, totals, strict=True)
            if count
        }

    def _failed(self, at: int, reply: Any, replies: Sequence[Any]) -> Result:
        """Return the error of a command."""
        error = reply
        if not isinstance(reply, CommandError):
            checked = checked_list(reply, self.mark.counts[at])
            error = next((bit for bit in checked if isinstance(bit, CommandError)), None)
            if error is None:
                raise unexpected_reply(reply)
        reason = f"{self.mark.name(at)} was not changed; others may have been"
        return explained(error, reason, applied=any(map(has_bit, replies)))
