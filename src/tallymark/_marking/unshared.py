"""The write commands that marks never share: of exact unmarks, and of many users. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from .._core import encoding
from .._core.failures import unexpected_reply
from .._core.untrusted import escaped, shown
from ..errors import CommandError
from .marks import DenseMarks, ExactUnmark, PreparedMarks, SparseMarks
from .results import checked_bits, checked_list, explained, has_bit, result_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .marks import Counts, Result

__all__ = ["MERGE_DENSE", "ExactClear", "MergeDense", "PreparedCommand", "SetSparse"]

#: KEYS holds each bitmap, followed by the keys of its other days. ARGV holds the offset,
#: then how many other days each bitmap has. Everything is read before anything is
#: written, so a key of the wrong type leaves every bitmap unchanged. Only bits that are
#: set get cleared, so no bitmap grows and no key is created.
_EXACT_CLEAR: Final = b"""
local offset, at = ARGV[1], 1
local flips = {}
for i = 2, #ARGV do
  local last = at + tonumber(ARGV[i])
  local flip = redis.call('GETBIT', KEYS[at], offset)
  for witness = at + 1, last do
    if redis.call('GETBIT', KEYS[witness], offset) == 1 then flip = 0 end
  end
  flips[i - 1] = {KEYS[at], flip}
  at = last + 1
end
local flipped = {}
for i, pair in ipairs(flips) do
  if pair[2] == 1 then redis.call('SETBIT', pair[1], offset, 0) end
  flipped[i] = pair[2]
end
return flipped
"""


#: KEYS holds the bitmaps and two temporary keys. ARGV holds the index of a byte, the bits
#: from there on, and the value to write. Only that part of a bitmap is read and written,
#: so the script's time depends on the length of the part; SETRANGE keeps the expiry.
#: Everything is read before anything is written, so a key of the wrong type leaves every
#: bitmap unchanged; clearing makes no bitmap longer.
MERGE_DENSE: Final = b"""
local first, bits, mark = tonumber(ARGV[1]), ARGV[2], ARGV[3] == '1'
local old, new = KEYS[#KEYS - 1], KEYS[#KEYS]
local found, changed = {}, {}
for i = 1, #KEYS - 2 do
  found[i] = redis.call('GETRANGE', KEYS[i], first, first + #bits - 1)
end
for i = 1, #KEYS - 2 do
  redis.call('SET', old, found[i])
  redis.call('SET', new, bits)
  if mark then
    redis.call('BITOP', 'OR', new, old, new)
    changed[i] = redis.call('BITCOUNT', new) - redis.call('BITCOUNT', old)
  else
    redis.call('BITOP', 'AND', new, old, new)
    changed[i] = redis.call('BITCOUNT', new)
    redis.call('BITOP', 'XOR', new, old, new)
  end
  if changed[i] > 0 then
    local bytes = redis.call('GET', new)
    if not mark then bytes = string.sub(bytes, 1, #found[i]) end
    redis.call('SETRANGE', KEYS[i], first, bytes)
  end
end
redis.call('UNLINK', old, new)
return changed
"""

MarkT = TypeVar("MarkT", bound=ExactUnmark | SparseMarks | DenseMarks | PreparedMarks)


class _OneMark(Generic[MarkT]):
    """The base of the write commands of one mark that is not a `BitMark`."""

    __slots__ = ("bitmaps", "indexes", "mark")

    def __init__(self, index: int, mark: MarkT) -> None:
        self.indexes = [index]
        self.bitmaps = mark.bitmaps
        self.mark = mark

    def parse(self, replies: Sequence[Any]) -> Result:
        """Return the mark's result."""
        raise NotImplementedError

    def parse_into(self, results: list[Result], replies: Sequence[Any]) -> None:
        """Put the mark's result at its index in ``results``."""
        results[self.indexes[0]] = self.parse(replies)


class PreparedCommand(_OneMark[PreparedMarks]):
    """The base of the write commands of `PreparedMarks`."""

    __slots__ = ()

    def command_count(self) -> int:
        """Return how many Redis commands `encode` returns."""
        raise NotImplementedError

    def encode(self) -> bytes:
        """Return the Redis commands."""
        raise NotImplementedError


class _ScriptCommand(_OneMark[MarkT]):
    """The base of the write commands that are a Lua script: one ``EVAL``."""

    __slots__ = ()

    def command_count(self) -> int:
        """Return how many Redis commands `encode` returns."""
        return 1


class ExactClear(_ScriptCommand[ExactUnmark]):
    """An exact unmark: clear bits that no other day of the period needs."""

    __slots__ = ()

    def encode(self) -> bytes:
        """Return the ``EVAL`` command."""
        keys = []
        for key, other_days in zip(self.bitmaps.keys, self.mark.other_days, strict=True):
            keys += [key, *other_days]
        counts = [b"%d" % len(other_days) for other_days in self.mark.other_days]
        return encoding.command(
            b"EVAL", _EXACT_CLEAR, b"%d" % len(keys), *keys, b"%d" % self.mark.offset, *counts
        )

    def parse(self, replies: Sequence[Any]) -> Result:
        """Return the mark's result."""
        (reply,) = replies
        if isinstance(reply, CommandError):
            reason = f"exact unmark of {shown(self.bitmaps.event)}: nothing was changed"
            return explained(reply, reason)
        return result_of(self.bitmaps, checked_bits(reply, len(self.bitmaps.keys)))


class SetSparse(_OneMark[SparseMarks]):
    """The bits of some users, one by one."""

    __slots__ = ("_bitfield",)

    def __init__(self, index: int, mark: SparseMarks, bitfield: bool) -> None:
        super().__init__(index, mark)
        self._bitfield = bitfield

    def command_count(self) -> int:
        """Return how many Redis commands `encode` returns."""
        return len(self.bitmaps.keys) * (1 if self._bitfield else len(self.mark.offsets))

    def encode(self) -> bytes:
        """Return the Redis commands: one per key, or without ``BITFIELD`` one per bit."""
        if self._bitfield:
            return self.mark.commands
        return b"".join(
            encoding.setbit((head, b""), offset, self.mark.value)
            for head in self.bitmaps.setbit_heads[:-1]
            for offset in self.mark.offsets
        )

    def parse(self, replies: Sequence[Any]) -> Result:
        """Return the counts of flipped bits."""
        users = len(self.mark.offsets)
        columns = (
            replies
            if self._bitfield
            else [replies[at : at + users] for at in range(0, len(replies), users)]
        )
        counts: Counts = {}
        for key, granularity, column in zip(
            self.bitmaps.keys, self.bitmaps.granularities, columns, strict=True
        ):
            # An error in place of a list concerns all bits of its key.
            bits = checked_list(
                [column] * users if isinstance(column, CommandError) else column, users
            )
            if bits.count(0) + bits.count(1) != users:  # not a set: a bit may be a list
                error = next((bit for bit in bits if isinstance(bit, CommandError)), None)
                if error is None:
                    raise unexpected_reply(bits)
                reason = f"{escaped(key)} was not changed; others may have been"
                return explained(error, reason, applied=any(map(has_bit, columns)))
            counts[granularity] = bits.count(1 - self.mark.value)
        return counts


class MergeDense(_ScriptCommand[DenseMarks]):
    """The bits of many users with neighbouring offsets, merged by a script."""

    __slots__ = ()

    def encode(self) -> bytes:
        """Return the ``EVAL`` command."""
        keys = (*self.bitmaps.keys, *self.mark.temp_keys)
        arguments = (b"%d" % self.mark.first, self.mark.bits, b"%d" % self.mark.value)
        return encoding.command(b"EVAL", MERGE_DENSE, b"%d" % len(keys), *keys, *arguments)

    def parse(self, replies: Sequence[Any]) -> Result:
        """Return the counts of flipped bits."""
        (reply,) = replies
        if isinstance(reply, CommandError):
            reason = f"users of {shown(self.bitmaps.event)}: nothing was changed"
            return explained(reply, reason)
        counts = checked_list(reply, len(self.bitmaps.keys))
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            raise unexpected_reply(reply)
        return dict(zip(self.bitmaps.granularities, counts, strict=True))
