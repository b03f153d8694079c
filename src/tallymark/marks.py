"""A batch: marks in, the commands of one transaction out, replies in, results out.

Pure. A driver encodes the batch, moves the bytes, and hands back the replies;
what they mean for each mark is decided here, once for all drivers.

In a batch, marks act in call order. Marks of different events never share a
key, so only the order within an event matters: consecutive marks of one event
on the same bitmaps form a `_BitRun` that is written with one command per key,
and anything else about this event (other bitmaps, an exact unmark) begins a
new step. Redis answers a `BITFIELD` bit by bit, in order, so each mark of a
run gets the reply it would have got alone.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from . import wire
from .errors import CommandError, StoreError, TallymarkError
from .periods import Granularity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Batch", "BitMark", "Bitmaps", "ExactUnmark", "Mark", "Result"]

#: What one mark came to: the granularities whose bit it flipped, or its error.
Result = Granularity | TallymarkError

#: What a mark flipped, by the bits that it found and the value that it wrote.
_KnownFlips = dict[tuple[tuple[int, ...], int], Granularity]


class Bitmaps:
    """The bitmaps of one event that a mark touches together. Immutable and shared.

    Attributes:
        event: the event's name.
        granularities: one for each bitmap.
        keys: one for each bitmap, in the same order.
        bulk_keys, setbit_heads: the keys, encoded for the wire once and for all.
    """

    __slots__ = ("bulk_keys", "event", "granularities", "keys", "setbit_heads")

    def __init__(
        self, event: str, granularities: Iterable[Granularity], keys: Iterable[bytes]
    ) -> None:
        self.event = event
        self.granularities = tuple(granularities)
        self.keys = tuple(keys)
        self.bulk_keys = tuple(map(wire.bulk, self.keys))
        self.setbit_heads = tuple(map(wire.setbit_head, self.keys))


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


Mark = BitMark | ExactUnmark

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


class _BitRun:
    """Consecutive bit marks of one event on the same bitmaps."""

    __slots__ = ("_bitfield", "bitmaps", "indexes", "marks")

    def __init__(self, bitmaps: Bitmaps, bitfield: bool) -> None:
        self.bitmaps = bitmaps
        self.indexes: list[int] = []
        self.marks: list[BitMark] = []
        self._bitfield = bitfield

    def command_count(self) -> int:
        return len(self.bitmaps.keys) * (1 if self._is_joined() else len(self.marks))

    def encode(self) -> bytes:
        if self._is_joined():
            bits = [(mark.offset, mark.value) for mark in self.marks]
            return wire.bitfield(self.bitmaps.bulk_keys, bits)
        if len(self.marks) == 1:
            (mark,) = self.marks
            return wire.setbit(self.bitmaps.setbit_heads, mark.offset, mark.value)
        return b"".join(
            wire.setbit((head,), mark.offset, mark.value)
            for head in self.bitmaps.setbit_heads
            for mark in self.marks
        )

    def settle(self, replies: Iterator[Any]) -> Iterator[tuple[int, Result]]:
        """Yield each mark's index and result; takes this step's replies, no more."""
        known = _known_flips(self.bitmaps.granularities)
        for index, mark, old_bits in zip(
            self.indexes, self.marks, self._old_bits(replies), strict=True
        ):
            yield index, self._result_of(mark, old_bits, known)

    def _result_of(self, mark: BitMark, old_bits: tuple[Any, ...], known: _KnownFlips) -> Result:
        try:
            return known[old_bits, mark.value]
        except (KeyError, TypeError):  # a TypeError if there is no hash to look it up by
            bits = _checked(old_bits, len(self.bitmaps.keys))
            flips = [bit if isinstance(bit, CommandError) else bit ^ mark.value for bit in bits]
            return _result(self.bitmaps, flips)

    def _old_bits(self, replies: Iterator[Any]) -> Iterable[tuple[Any, ...]]:
        """Return for each mark what it found in each bitmap, which nobody has looked at yet."""
        keys, marks = len(self.bitmaps.keys), len(self.marks)
        if not self._is_joined():
            bits = tuple(itertools.islice(replies, keys * marks))
            return (bits[mark::marks] for mark in range(marks))
        columns = [
            # One error stands for all bits of its key.
            [bits] * marks if isinstance(bits, CommandError) else _checked(bits, marks)
            for bits in itertools.islice(replies, keys)
        ]
        return zip(*columns, strict=True)

    def _is_joined(self) -> bool:
        """Tell whether one BITFIELD writes all marks' bits of a key."""
        return self._bitfield and len(self.marks) > 1


class _ScriptStep:
    """One exact unmark."""

    __slots__ = ("bitmaps", "indexes", "mark")

    def __init__(self, index: int, mark: ExactUnmark) -> None:
        self.indexes = [index]
        self.bitmaps = mark.bitmaps
        self.mark = mark

    def command_count(self) -> int:
        return 1

    def encode(self) -> bytes:
        keys = []
        for key, witnesses in zip(self.bitmaps.keys, self.mark.witnesses, strict=True):
            keys += [key, *witnesses]
        counts = [b"%d" % len(witnesses) for witnesses in self.mark.witnesses]
        return wire.command(
            b"EVAL", _EXACT_UNMARK, b"%d" % len(keys), *keys, b"%d" % self.mark.offset, *counts
        )

    def settle(self, replies: Iterator[Any]) -> Iterator[tuple[int, Result]]:
        """Yield the mark's index and result."""
        reply = next(replies)
        if isinstance(reply, CommandError):
            yield (
                self.indexes[0],
                _explained(reply, f"exact unmark of {self.bitmaps.event!r}: nothing was changed"),
            )
        else:
            flips = _checked(reply, len(self.bitmaps.keys))
            yield self.indexes[0], _result(self.bitmaps, flips)


class Batch:
    """Marks that share one transaction.

    Attributes:
        sent: a driver sets it before it writes the batch's first byte. Until
            then it is certain that no mark was applied.
    """

    __slots__ = ("_bitfield", "_count", "_open_runs", "_steps", "sent")

    def __init__(self, *, bitfield: bool = True) -> None:
        """Begin an empty batch.

        Arguments:
            bitfield: write several bits of one key with one ``BITFIELD``;
                False for servers that lack this command.
        """
        self._bitfield = bitfield
        self._steps: list[_BitRun | _ScriptStep] = []
        self._open_runs: dict[str, _BitRun] = {}
        self._count = 0
        self.sent = False

    def __len__(self) -> int:
        """Return how many marks the batch holds."""
        return self._count

    def add(self, mark: Mark) -> int:
        """Append a mark and return its index, at which `settle` puts its result."""
        index = self._count
        self._count += 1
        event = mark.bitmaps.event
        if isinstance(mark, ExactUnmark):
            self._open_runs.pop(event, None)
            self._steps.append(_ScriptStep(index, mark))
            return index
        run = self._open_runs.get(event)
        if run is None or run.bitmaps is not mark.bitmaps:
            run = self._open_runs[event] = _BitRun(mark.bitmaps, self._bitfield)
            self._steps.append(run)
        run.indexes.append(index)
        run.marks.append(mark)
        return index

    def encode(self) -> bytes:
        """Return the whole transaction, ``MULTI`` to ``EXEC``, as bytes to send at once."""
        return b"".join([wire.MULTI, *(step.encode() for step in self._steps), wire.EXEC])

    def reply_count(self) -> int:
        """Return how many replies the server gives to `encode`'s bytes."""
        return 2 + sum(step.command_count() for step in self._steps)

    def settle(self, replies: Sequence[Any]) -> list[Result]:
        """Return the result of each mark, in call order.

        Arguments:
            replies: the server's answers to all commands, `reply_count` many,
                with a `CommandError` wherever the server gave an error.

        Raises:
            StoreError: the replies do not fit the commands, so nothing can be
                said about any mark.
        """
        multi, *queued, executed = replies
        if isinstance(executed, CommandError):
            return self._refused(multi, queued, executed)
        if not isinstance(executed, list) or len(executed) != len(queued):
            raise _misfit(executed)
        results: list[Result] = [Granularity(0)] * self._count
        values = iter(executed)
        for step in self._steps:
            for index, result in step.settle(values):
                results[index] = result
        return results

    def _refused(self, multi: Any, queued: Sequence[Any], executed: CommandError) -> list[Result]:
        """Return an error for each mark of a transaction that was not executed."""
        if isinstance(multi, CommandError):
            # Without MULTI, the server has run the commands one by one as they came.
            reason = "MULTI was refused; single bits may have been changed without a transaction"
            return [_explained(multi, reason) for _ in range(self._count)]
        refusals = [reply for reply in queued if isinstance(reply, CommandError)]
        results: list[Result] = [
            _explained(
                refusals[0], "nothing was applied: another mark of the transaction was refused"
            )
            if refusals
            else _explained(executed, "nothing was applied: the transaction was refused")
            for _ in range(self._count)
        ]
        answers = iter(queued)
        for step in self._steps:
            own = [next(answers) for _ in range(step.command_count())]
            refusal = next((reply for reply in own if isinstance(reply, CommandError)), None)
            if refusal is not None:
                for index in step.indexes:
                    results[index] = _explained(refusal, "nothing was applied: refused")
        return results


def _checked(bits: Any, count: int) -> Sequence[int | CommandError]:
    """Return the replies if they are ``count`` bits or errors; never guess at others."""
    if (
        not isinstance(bits, list | tuple)
        or len(bits) != count
        or not all(bit in (0, 1) or isinstance(bit, CommandError) for bit in bits)
    ):
        raise _misfit(bits)
    return bits


@functools.cache
def _known_flips(granularities: tuple[Granularity, ...]) -> _KnownFlips:
    """Return the result of a mark without errors, for all bits it can find and both values."""
    return {
        (old_bits, value): _flipped(granularities, [bit ^ value for bit in old_bits])
        for old_bits in itertools.product((0, 1), repeat=len(granularities))
        for value in (0, 1)
    }


def _flipped(
    granularities: tuple[Granularity, ...], flips: Sequence[int | CommandError]
) -> Granularity:
    flipped = Granularity(0)
    for granularity, flip in zip(granularities, flips, strict=True):
        if flip == 1:
            flipped |= granularity
    return flipped


def _misfit(reply: object) -> StoreError:
    return StoreError(f"the server's reply does not fit the commands: {reply!r:.80}")


def _result(bitmaps: Bitmaps, flips: Sequence[int | CommandError]) -> Result:
    """Turn one mark's flips, a 0, 1 or error for each bitmap, into its result."""
    flipped = _flipped(bitmaps.granularities, flips)
    for key, flip in zip(bitmaps.keys, flips, strict=True):
        if isinstance(flip, CommandError):
            return _explained(
                flip,
                f"{key.decode()} was not changed; flipped in the mark's other bitmaps: {flipped}",
            )
    return flipped


def _explained(error: CommandError, reason: str) -> CommandError:
    """Return a new error of the same class that says what it means for a mark.

    Every mark gets an instance of its own: one that is raised in several tasks
    would gather the tracebacks of all.
    """
    explained = type(error)(f"{reason} ({error})")
    explained.__cause__ = error.__cause__
    return explained
