"""Write commands: how marks are encoded for Redis, and how its replies are parsed. Pure.

A write command is one or more commands of a transaction, for one or more marks. It encodes
itself, and parses its own replies into the result of each of its marks.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from .._core import encoding
from .._core.failures import copied, unexpected_reply
from .._core.periods import Granularity
from .._core.untrusted import escaped, reraise_from_handler, shown
from ..errors import CommandError
from .marks import DenseMarks, ExactUnmark, SparseMarks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .marks import Bitmaps, BitMark, Result

__all__ = ["SetBits", "WriteCommand", "explained", "with_expiry", "write_command"]

#: The flips of a mark, by the value that it wrote and the bits that were there before.
_FlipTable = tuple[dict[tuple[int, ...], Granularity], dict[tuple[int, ...], Granularity]]

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
_MERGE_DENSE: Final = b"""
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


class SetBits:
    """Bit marks of one event on the same bitmaps, in call order.

    One ``SETBIT`` per key for a single mark, else one ``BITFIELD`` per key. Redis
    executes the operations of a ``BITFIELD`` in order, so each mark gets the reply that
    it would have got alone.
    """

    __slots__ = ("_bitfield", "bitmaps", "indexes", "marks")

    def __init__(self, bitmaps: Bitmaps, bitfield: bool) -> None:
        self.bitmaps = bitmaps
        self.indexes: list[int] = []
        self.marks: list[BitMark] = []
        self._bitfield = bitfield

    def command_count(self) -> int:
        """Return how many Redis commands `encode` returns."""
        return len(self.bitmaps.keys) * (1 if self._bitfield else len(self.marks))

    def encode(self) -> bytes:
        """Return the Redis commands: one per key, or without ``BITFIELD`` one per bit."""
        if len(self.marks) == 1:
            (mark,) = self.marks
            return encoding.setbit(self.bitmaps.setbit_heads, mark.offset, mark.value)
        if self._bitfield:
            bits = [(mark.offset, mark.value) for mark in self.marks]
            return encoding.bitfield(self.bitmaps.bulk_keys, bits)
        return b"".join(
            encoding.setbit((head,), mark.offset, mark.value)
            for head in self.bitmaps.setbit_heads
            for mark in self.marks
        )

    def parse(self, replies: Iterator[Any]) -> list[Result]:
        """Return the result of each mark; consume the replies to these commands only."""
        flips = _flip_table(self.bitmaps.granularities)
        if len(self.marks) == 1:
            old_bits = tuple(itertools.islice(replies, len(self.bitmaps.keys)))
            return [self._result_of(self.marks[0], old_bits, flips)]
        rows = list(self._old_bits(replies))
        try:
            return [
                flips[mark.value][old_bits] for mark, old_bits in zip(self.marks, rows, strict=True)
            ]
        except (KeyError, TypeError) as error:  # a reply is an error, or not a bit
            reraise_from_handler(error)
            return [
                self._result_of(mark, old_bits, flips)
                for mark, old_bits in zip(self.marks, rows, strict=True)
            ]

    def _result_of(self, mark: BitMark, old_bits: tuple[Any, ...], flips: _FlipTable) -> Result:
        try:
            return flips[mark.value][old_bits]
        except (KeyError, TypeError) as error:  # a TypeError if a reply is not hashable
            reraise_from_handler(error)
            bits = _checked_bits(old_bits, len(self.bitmaps.keys))
            changes = [bit if isinstance(bit, CommandError) else bit ^ mark.value for bit in bits]
            return _result(self.bitmaps, changes)

    def _old_bits(self, replies: Iterator[Any]) -> Iterable[tuple[Any, ...]]:
        """Return the unchecked replies to each of several marks, one for each bitmap."""
        keys, marks = len(self.bitmaps.keys), len(self.marks)
        if not self._bitfield:
            bits = tuple(itertools.islice(replies, keys * marks))
            return (bits[mark::marks] for mark in range(marks))
        columns = [
            # An error in place of a list concerns all bits of its key.
            [bits] * marks if isinstance(bits, CommandError) else _checked_list(bits, marks)
            for bits in itertools.islice(replies, keys)
        ]
        return zip(*columns, strict=True)


ScriptMarkT = TypeVar("ScriptMarkT", bound=ExactUnmark | DenseMarks)


class _ScriptCommand(Generic[ScriptMarkT]):
    """The base of the write commands that are a Lua script: one mark, one ``EVAL``."""

    __slots__ = ("bitmaps", "indexes", "mark")

    def __init__(self, index: int, mark: ScriptMarkT) -> None:
        self.indexes = [index]
        self.bitmaps = mark.bitmaps
        self.mark = mark

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

    def parse(self, replies: Iterator[Any]) -> list[Result]:
        """Return the mark's result, as the only one of a list."""
        reply = next(replies)
        if isinstance(reply, CommandError):
            reason = f"exact unmark of {shown(self.bitmaps.event)}: nothing was changed"
            return [explained(reply, reason)]
        return [_result(self.bitmaps, _checked_bits(reply, len(self.bitmaps.keys)))]


class SetSparse:
    """The bits of some users, one by one."""

    __slots__ = ("_bitfield", "bitmaps", "indexes", "mark")

    def __init__(self, index: int, mark: SparseMarks, bitfield: bool) -> None:
        self.indexes = [index]
        self.bitmaps = mark.bitmaps
        self.mark = mark
        self._bitfield = bitfield

    def command_count(self) -> int:
        """Return how many Redis commands `encode` returns."""
        return len(self.bitmaps.keys) * (1 if self._bitfield else len(self.mark.offsets))

    def encode(self) -> bytes:
        """Return the Redis commands: one per key, or without ``BITFIELD`` one per bit."""
        if self._bitfield:
            return self.mark.commands
        return b"".join(
            encoding.setbit((head,), offset, self.mark.value)
            for head in self.bitmaps.setbit_heads
            for offset in self.mark.offsets
        )

    def parse(self, replies: Iterator[Any]) -> list[Result]:
        """Return the counts of flipped bits, as the only result of a list."""
        users = len(self.mark.offsets)
        columns = [
            next(replies) if self._bitfield else list(itertools.islice(replies, users))
            for _ in self.bitmaps.keys
        ]
        counts = {}
        for key, granularity, column in zip(
            self.bitmaps.keys, self.bitmaps.granularities, columns, strict=True
        ):
            # An error in place of a list concerns all bits of its key.
            bits = _checked_list(
                [column] * users if isinstance(column, CommandError) else column, users
            )
            error = next((bit for bit in bits if isinstance(bit, CommandError)), None)
            if error is not None:
                reason = f"{escaped(key)} was not changed; others may have been"
                return [explained(error, reason, applied=any(map(_has_bit, columns)))]
            if not {0, 1}.issuperset(bits):
                raise unexpected_reply(bits)
            counts[granularity] = bits.count(1 - self.mark.value)
        return [counts]


class MergeDense(_ScriptCommand[DenseMarks]):
    """The bits of many users with neighbouring offsets, merged by a script."""

    __slots__ = ()

    def encode(self) -> bytes:
        """Return the ``EVAL`` command."""
        keys = (*self.bitmaps.keys, *self.mark.temp_keys)
        arguments = (b"%d" % self.mark.first, self.mark.bits, b"%d" % self.mark.value)
        return encoding.command(b"EVAL", _MERGE_DENSE, b"%d" % len(keys), *keys, *arguments)

    def parse(self, replies: Iterator[Any]) -> list[Result]:
        """Return the counts of flipped bits, as the only result of a list."""
        reply = next(replies)
        if isinstance(reply, CommandError):
            reason = f"users of {shown(self.bitmaps.event)}: nothing was changed"
            return [explained(reply, reason)]
        counts = _checked_list(reply, len(self.bitmaps.keys))
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            raise unexpected_reply(reply)
        return [dict(zip(self.bitmaps.granularities, counts, strict=True))]


class WithExpiry:
    """Another write command, followed by ``EXPIREAT`` for its bitmaps.

    The expiry is set every time, not only for new keys: another client may have deleted
    a bitmap meanwhile, or created it again without an expiry.
    """

    __slots__ = ("_command",)

    def __init__(self, command: SetBits | SetSparse | MergeDense) -> None:
        self._command = command

    @property
    def indexes(self) -> list[int]:
        """The indexes of the marks."""
        return self._command.indexes

    def command_count(self) -> int:
        """Return how many Redis commands `encode` returns."""
        return self._command.command_count() + self._command.bitmaps.expiry_count

    def encode(self) -> bytes:
        """Return the Redis commands."""
        return self._command.encode() + self._command.bitmaps.expiry_commands

    def parse(self, replies: Iterator[Any]) -> list[Result]:
        """Return the results of the marks; consume the replies to all commands."""
        bitmaps = self._command.bitmaps
        results = self._command.parse(replies)
        for reply in itertools.islice(replies, bitmaps.expiry_count):
            if isinstance(reply, CommandError):
                reason = f"marks of {shown(bitmaps.event)} are written, but a bitmap has no end"
                return [
                    result
                    if isinstance(result, CommandError)
                    else explained(reply, reason, applied=True)
                    for result in results
                ]
            if reply not in (0, 1):
                raise unexpected_reply(reply)
        return results


WriteCommand = SetBits | ExactClear | SetSparse | MergeDense | WithExpiry


def write_command(
    index: int, mark: ExactUnmark | SparseMarks | DenseMarks, bitfield: bool
) -> WriteCommand:
    """Return the write command of a mark that shares it with no other mark.

    Arguments:
        index: the index of the mark in its batch.
        mark: the mark.
        bitfield: whether the server has ``BITFIELD``.
    """
    if isinstance(mark, ExactUnmark):
        return ExactClear(index, mark)  # creates no key, so there is no expiry to set
    if isinstance(mark, SparseMarks):
        return with_expiry(SetSparse(index, mark, bitfield))
    return with_expiry(MergeDense(index, mark))


def with_expiry(command: SetBits | SetSparse | MergeDense) -> WriteCommand:
    """Return a write command that also sets the expiry of its bitmaps, if any expires."""
    return WithExpiry(command) if command.bitmaps.expiry_count else command


def _checked_list(reply: Any, count: int) -> Sequence[Any]:
    """Return a reply that is a list of ``count`` items.

    Raises:
        StoreError: it is not.
    """
    if not isinstance(reply, list | tuple) or len(reply) != count:
        raise unexpected_reply(reply)
    return reply


def _checked_bits(reply: Any, count: int) -> Sequence[int | CommandError]:
    """Return a reply that is a list of ``count`` bits or errors.

    Raises:
        StoreError: it is not.
    """
    for bit in _checked_list(reply, count):
        if not isinstance(bit, CommandError) and bit not in (0, 1):
            raise unexpected_reply(reply)
    checked: Sequence[int | CommandError] = reply
    return checked


@functools.cache
def _flip_table(granularities: tuple[Granularity, ...]) -> _FlipTable:
    """Return the result of a mark without errors, for both values and all old bits."""
    combinations = list(itertools.product((0, 1), repeat=len(granularities)))
    return (
        {bits: _flipped(granularities, bits) for bits in combinations},
        {bits: _flipped(granularities, [1 - bit for bit in bits]) for bits in combinations},
    )


def _flipped(
    granularities: tuple[Granularity, ...], changes: Sequence[int | CommandError]
) -> Granularity:
    flipped = Granularity(0)
    for granularity, change in zip(granularities, changes, strict=True):
        if change == 1:
            flipped |= granularity
    return flipped


def _result(bitmaps: Bitmaps, changes: Sequence[int | CommandError]) -> Result:
    """Return a mark's result.

    Arguments:
        bitmaps: the mark's bitmaps.
        changes: for each bitmap, 1 if the bit was flipped, 0 if not, or an error.
    """
    flipped = _flipped(bitmaps.granularities, changes)
    for key, change in zip(bitmaps.keys, changes, strict=True):
        if isinstance(change, CommandError):
            return explained(
                change,
                f"{escaped(key)} was not changed; flipped in the mark's other bitmaps: {flipped}",
                applied=_has_bit(changes),
            )
    return flipped


def _has_bit(replies: Any) -> bool:
    """Return whether any reply is not an error, so that its command was applied."""
    return not isinstance(replies, CommandError) and any(
        not isinstance(reply, CommandError) for reply in replies
    )


def explained(error: CommandError, reason: str, *, applied: bool = False) -> CommandError:
    """Return a new error of the same class, whose message also says what it means for a mark.

    Arguments:
        error: the server's error.
        reason: what the error means for the mark.
        applied: whether another part of the mark was applied, or may have been.
    """
    explanation = copied(error, f"{reason} ({error})")
    explanation._may_be_applied = applied  # noqa: SLF001
    return explanation
