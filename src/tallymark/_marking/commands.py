"""Steps: how marks are written to Redis, and what its replies mean for each. Pure.

A step is one or more commands of a transaction that belong together. It
encodes itself, and takes its own replies to tell the result of each mark.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from .._core import resp as wire
from .._core.failures import copied, unexpected_reply
from .._core.periods import Granularity
from .._core.untrusted import escaped, reraise_from_handler, shown
from ..errors import CommandError
from .marks import DenseMarks, ExactUnmark, SparseMarks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .marks import Bitmaps, BitMark, Result

__all__ = ["BitRun", "Step", "explained", "step_for", "with_expiry"]

#: What a mark flipped, by the value that it wrote and the bits that it found.
_KnownFlips = tuple[dict[tuple[int, ...], Granularity], dict[tuple[int, ...], Granularity]]

#: KEYS holds each bitmap, followed by its witnesses. ARGV holds the offset, then
#: how many witnesses each bitmap has. All is read before anything is written,
#: so a key of the wrong type leaves every bitmap as it was, and only bits that
#: are set get cleared, so no bitmap grows and no key comes into being.
_EXACT_UNMARK: Final = b"""
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


#: KEYS holds the bitmaps, and two scratch keys. ARGV holds the index of a byte, the
#: bits from there on, and the value to write. Only that part of a bitmap is touched, so
#: it takes as long as the part is, and SETRANGE leaves the expiry as it was. All is read
#: before anything is written, so a key of the wrong type leaves every bitmap as it was;
#: clearing makes no bitmap longer.
_DENSE_WRITE: Final = b"""
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


class BitRun:
    """Bit marks of one event on the same bitmaps, in call order."""

    __slots__ = ("_bitfield", "bitmaps", "indexes", "marks")

    def __init__(self, bitmaps: Bitmaps, bitfield: bool) -> None:
        self.bitmaps = bitmaps
        self.indexes: list[int] = []
        self.marks: list[BitMark] = []
        self._bitfield = bitfield

    def command_count(self) -> int:
        """Return how many commands it takes."""
        return len(self.bitmaps.keys) * (1 if self._bitfield else len(self.marks))

    def encode(self) -> bytes:
        """Return its commands: one for each key, or without BITFIELD for each bit."""
        if len(self.marks) == 1:
            (mark,) = self.marks
            return wire.setbit(self.bitmaps.setbit_heads, mark.offset, mark.value)
        if self._bitfield:
            bits = [(mark.offset, mark.value) for mark in self.marks]
            return wire.bitfield(self.bitmaps.bulk_keys, bits)
        return b"".join(
            wire.setbit((head,), mark.offset, mark.value)
            for head in self.bitmaps.setbit_heads
            for mark in self.marks
        )

    def settle(self, replies: Iterator[Any]) -> list[Result]:
        """Return each mark's result; takes this step's replies, no more."""
        known = _known_flips(self.bitmaps.granularities)
        if len(self.marks) == 1:
            old_bits = tuple(itertools.islice(replies, len(self.bitmaps.keys)))
            return [self._result_of(self.marks[0], old_bits, known)]
        found = list(self._old_bits(replies))
        try:
            return [
                known[mark.value][old_bits]
                for mark, old_bits in zip(self.marks, found, strict=True)
            ]
        except (KeyError, TypeError) as error:  # one of them is an error, or no bit at all
            reraise_from_handler(error)
            return [
                self._result_of(mark, old_bits, known)
                for mark, old_bits in zip(self.marks, found, strict=True)
            ]

    def _result_of(self, mark: BitMark, old_bits: tuple[Any, ...], known: _KnownFlips) -> Result:
        try:
            return known[mark.value][old_bits]
        except (KeyError, TypeError) as error:  # a TypeError if it has no hash
            reraise_from_handler(error)
            bits = _checked(old_bits, len(self.bitmaps.keys))
            flips = [bit if isinstance(bit, CommandError) else bit ^ mark.value for bit in bits]
            return _result(self.bitmaps, flips)

    def _old_bits(self, replies: Iterator[Any]) -> Iterable[tuple[Any, ...]]:
        """Return for each of several marks what it found, which nobody has looked at yet."""
        keys, marks = len(self.bitmaps.keys), len(self.marks)
        if not self._bitfield:
            bits = tuple(itertools.islice(replies, keys * marks))
            return (bits[mark::marks] for mark in range(marks))
        columns = [
            # One error stands for all bits of its key.
            [bits] * marks if isinstance(bits, CommandError) else _listed(bits, marks)
            for bits in itertools.islice(replies, keys)
        ]
        return zip(*columns, strict=True)


ScriptMarkT = TypeVar("ScriptMarkT", bound=ExactUnmark | DenseMarks)


class _OneScript(Generic[ScriptMarkT]):
    """What a script on the server does: one mark, one command."""

    __slots__ = ("bitmaps", "indexes", "mark")

    def __init__(self, index: int, mark: ScriptMarkT) -> None:
        self.indexes = [index]
        self.bitmaps = mark.bitmaps
        self.mark = mark

    def command_count(self) -> int:
        """Return how many commands it takes."""
        return 1


class ScriptStep(_OneScript[ExactUnmark]):
    """One exact unmark."""

    __slots__ = ()

    def encode(self) -> bytes:
        """Return its commands."""
        keys = []
        for key, witnesses in zip(self.bitmaps.keys, self.mark.witnesses, strict=True):
            keys += [key, *witnesses]
        counts = [b"%d" % len(witnesses) for witnesses in self.mark.witnesses]
        return wire.command(
            b"EVAL", _EXACT_UNMARK, b"%d" % len(keys), *keys, b"%d" % self.mark.offset, *counts
        )

    def settle(self, replies: Iterator[Any]) -> list[Result]:
        """Return the mark's result, alone in a list."""
        reply = next(replies)
        if isinstance(reply, CommandError):
            reason = f"exact unmark of {shown(self.bitmaps.event)}: nothing was changed"
            return [explained(reply, reason)]
        return [_result(self.bitmaps, _checked(reply, len(self.bitmaps.keys)))]


class SparseStep:
    """Bits of some users, one by one."""

    __slots__ = ("_bitfield", "bitmaps", "indexes", "mark")

    def __init__(self, index: int, mark: SparseMarks, bitfield: bool) -> None:
        self.indexes = [index]
        self.bitmaps = mark.bitmaps
        self.mark = mark
        self._bitfield = bitfield

    def command_count(self) -> int:
        """Return how many commands it takes."""
        return len(self.bitmaps.keys) * (1 if self._bitfield else len(self.mark.offsets))

    def encode(self) -> bytes:
        """Return its commands."""
        if self._bitfield:
            return self.mark.commands
        return b"".join(
            wire.setbit((head,), offset, self.mark.value)
            for head in self.bitmaps.setbit_heads
            for offset in self.mark.offsets
        )

    def settle(self, replies: Iterator[Any]) -> list[Result]:
        """Return the marks' counts, alone in a list."""
        users = len(self.mark.offsets)
        columns = [
            next(replies) if self._bitfield else list(itertools.islice(replies, users))
            for _ in self.bitmaps.keys
        ]
        counts = {}
        for key, granularity, column in zip(
            self.bitmaps.keys, self.bitmaps.granularities, columns, strict=True
        ):
            # One error stands for all bits of its key.
            bits = _listed([column] * users if isinstance(column, CommandError) else column, users)
            error = next((bit for bit in bits if isinstance(bit, CommandError)), None)
            if error is not None:
                told = f"{escaped(key)} was not changed; others may have been"
                return [explained(error, told, applied=any(map(_has_bit, columns)))]
            if not {0, 1}.issuperset(bits):
                raise unexpected_reply(bits)
            counts[granularity] = bits.count(1 - self.mark.value)
        return [counts]


class DenseStep(_OneScript[DenseMarks]):
    """Bits of many neighbours."""

    __slots__ = ()

    def encode(self) -> bytes:
        """Return its commands."""
        keys = (*self.bitmaps.keys, *self.mark.scratch)
        arguments = (b"%d" % self.mark.first, self.mark.bits, b"%d" % self.mark.value)
        return wire.command(b"EVAL", _DENSE_WRITE, b"%d" % len(keys), *keys, *arguments)

    def settle(self, replies: Iterator[Any]) -> list[Result]:
        """Return the marks' counts, alone in a list."""
        reply = next(replies)
        if isinstance(reply, CommandError):
            reason = f"users of {shown(self.bitmaps.event)}: nothing was changed"
            return [explained(reply, reason)]
        counts = _listed(reply, len(self.bitmaps.keys))
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            raise unexpected_reply(reply)
        return [dict(zip(self.bitmaps.granularities, counts, strict=True))]


class ExpiringStep:
    """Another step, after which its bitmaps have their end set.

    Always, not only when they are new: another client may have deleted one
    meanwhile, or brought it back without an end.
    """

    __slots__ = ("_step",)

    def __init__(self, step: BitRun | SparseStep | DenseStep) -> None:
        self._step = step

    @property
    def indexes(self) -> list[int]:
        """The indexes of its marks."""
        return self._step.indexes

    def command_count(self) -> int:
        """Return how many commands it takes."""
        return self._step.command_count() + self._step.bitmaps.expiring

    def encode(self) -> bytes:
        """Return its commands."""
        return self._step.encode() + self._step.bitmaps.expiries

    def settle(self, replies: Iterator[Any]) -> list[Result]:
        """Return the results of the step; takes the replies of all commands."""
        bitmaps = self._step.bitmaps
        results = self._step.settle(replies)
        for reply in itertools.islice(replies, bitmaps.expiring):
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


Step = BitRun | ScriptStep | SparseStep | DenseStep | ExpiringStep


def step_for(index: int, mark: ExactUnmark | SparseMarks | DenseMarks, bitfield: bool) -> Step:
    """Return the step of a mark that shares its commands with no other."""
    if isinstance(mark, ExactUnmark):
        return ScriptStep(index, mark)  # clears bits, and so creates nothing that has to end
    if isinstance(mark, SparseMarks):
        return with_expiry(SparseStep(index, mark, bitfield))
    return with_expiry(DenseStep(index, mark))


def with_expiry(step: BitRun | SparseStep | DenseStep) -> Step:
    """Return a step that also sets the end of its bitmaps, if one of them has one."""
    return ExpiringStep(step) if step.bitmaps.expiring else step


def _listed(bits: Any, count: int) -> Sequence[Any]:
    """Return the replies if they are ``count`` many; never guess at others."""
    if not isinstance(bits, list | tuple) or len(bits) != count:
        raise unexpected_reply(bits)
    return bits


def _checked(bits: Any, count: int) -> Sequence[int | CommandError]:
    """Return the replies if they are ``count`` bits or errors."""
    for bit in _listed(bits, count):
        if not isinstance(bit, CommandError) and bit not in (0, 1):
            raise unexpected_reply(bits)
    checked: Sequence[int | CommandError] = bits
    return checked


@functools.cache
def _known_flips(granularities: tuple[Granularity, ...]) -> _KnownFlips:
    """Return the result of a mark without errors, for both values and all bits it can find."""
    found = list(itertools.product((0, 1), repeat=len(granularities)))
    return (
        {bits: _flipped(granularities, bits) for bits in found},
        {bits: _flipped(granularities, [1 - bit for bit in bits]) for bits in found},
    )


def _flipped(
    granularities: tuple[Granularity, ...], flips: Sequence[int | CommandError]
) -> Granularity:
    flipped = Granularity(0)
    for granularity, flip in zip(granularities, flips, strict=True):
        if flip == 1:
            flipped |= granularity
    return flipped


def _result(bitmaps: Bitmaps, flips: Sequence[int | CommandError]) -> Result:
    """Turn one mark's flips, a 0, 1 or error for each bitmap, into its result."""
    flipped = _flipped(bitmaps.granularities, flips)
    for key, flip in zip(bitmaps.keys, flips, strict=True):
        if isinstance(flip, CommandError):
            return explained(
                flip,
                f"{escaped(key)} was not changed; flipped in the mark's other bitmaps: {flipped}",
                applied=_has_bit(flips),
            )
    return flipped


def _has_bit(replies: Any) -> bool:
    """Return whether one of the replies is no error, so that its command was applied."""
    return not isinstance(replies, CommandError) and any(
        not isinstance(each, CommandError) for each in replies
    )


def explained(error: CommandError, reason: str, *, applied: bool = False) -> CommandError:
    """Return a new error of the same class that says what it means for a mark.

    Arguments:
        error: the server's.
        reason: what it means.
        applied: whether another part of the mark was applied, or may have been.
    """
    told = copied(error, f"{reason} ({error})")
    told._may_be_applied = applied  # noqa: SLF001
    return told
