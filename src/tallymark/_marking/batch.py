"""A batch: marks that share one transaction, its bytes, and the results in its replies. Pure.

A driver sends the encoded batch and passes the replies back; the result of each mark is
decided here, once for all drivers.

In a batch, marks act in call order. Marks of different events or shards never share a
key, and marks of different users never share a bit, so only the order of marks of one
event and one user matters. Marks of one event on the same bitmaps share a `SetBits`,
which is one Redis command per key, if the server has ``BITFIELD``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from .._core import encoding
from .._core.failures import RedirectedError, check_replicated, unexpected_reply
from ..errors import CommandError, StoreNotReadyError
from .chunks import NO_BIT
from .commands import (
    SetBits,
    encode_all,
    indexes_and_count,
    parse_all,
    with_expiry,
    write_command,
)
from .marks import NO_FLIPS, BitMark, PreparedMarks
from .results import explained, retriable

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from .._core.periods import Granularity
    from .chunks import Chunk
    from .commands import SingleBit, WriteCommand
    from .marks import Bitmaps, Mark, Result

__all__ = ["MAX_BATCH_SIZE", "MAX_COMMAND_MARKS", "Batch", "SingleMark", "wait_command"]

#: How many marks one command should have at most; Redis before version 7 accepts 2**20
#: arguments.
MAX_COMMAND_MARKS: Final = 16_384

#: How many bytes one transaction has at most, unless the marks of one call take more.
MAX_BATCH_SIZE: Final = 256 * 1024


class _OpenCommands:
    """The `SetBits` commands of one event that its next mark may join, if there are several."""

    __slots__ = ("commands", "offsets")

    def __init__(self, first: SetBits) -> None:
        self.commands = {first.bitmaps: first}
        #: The bits that these commands write.
        self.offsets = set(first.offsets)

    def command_for(self, bitmaps: Bitmaps, offset: int) -> SetBits | None:
        """Return the command that a mark may join; ``None`` if it needs a new one.

        It may join any of the commands as long as none of them writes the mark's bit;
        else it might overtake an earlier mark. Then all of them end.
        """
        if offset in self.offsets:
            self.commands.clear()
            self.offsets.clear()
        self.offsets.add(offset)
        return self.commands.get(bitmaps)


class Batch:
    """Marks that share one transaction.

    Attributes:
        size: about how many bytes the marks take on the wire.
        refused: after `parse`, whether Redis discarded the transaction.
        retriable: after `parse`, the indexes of marks that were not applied only because
            Redis refused another mark. They may be sent again.
    """

    __slots__ = (
        "_bitfield",
        "_command_count",
        "_commands",
        "_count",
        "_open",
        "_replicas",
        "refused",
        "retriable",
        "size",
    )

    #: How many batches one write may have.
    share = 1

    #: Whether to encode it only when it is about to be sent, on the connection that sends it.
    late = False

    def __init__(self, *, bitfield: bool = True, replicas: int = 0) -> None:
        """Begin an empty batch.

        Arguments:
            bitfield: write several bits of one key with one ``BITFIELD``;
                False for servers that lack this command.
            replicas: how many replicas must acknowledge the batch.
        """
        self._bitfield = bitfield
        self._replicas = replicas
        self._commands: list[WriteCommand] = []
        #: How many Redis commands these are.
        self._command_count = 0
        #: For each order key, the command or commands that the next mark may join; or of a
        #: `SingleBit`, its index in the commands.
        self._open: dict[Hashable, int | SetBits | _OpenCommands] = {}
        self._count = 0
        self.size = 0
        self.refused = False
        self.retriable: set[int] = set()

    def __len__(self) -> int:
        """Return how many marks the batch holds."""
        return self._count

    def add(self, mark: Mark) -> int:
        """Append a mark and return its index in the results of `parse`."""
        index = self._count
        self._count = index + 1
        bitmaps = mark.bitmaps
        if isinstance(mark, BitMark):
            joined = self._open.get(bitmaps.order_key)
            if isinstance(joined, SetBits) and joined.bitmaps is bitmaps:
                joined.indexes.append(index)
                joined.offsets.append(mark.offset)
                joined.values.append(mark.value)
            elif joined is None:
                if self._bitfield:
                    self._open[bitmaps.order_key] = len(self._commands)
                self._commands.append((index, mark))
                self._command_count += bitmaps.command_count
            else:
                self._join(joined, index, mark)
            self.size += bitmaps.size
        else:  # no later mark of this event, or of these events, may overtake it
            if isinstance(mark, PreparedMarks):
                self.seal()
            self._open.pop(bitmaps.order_key, None)
            command = write_command(index, mark, self._bitfield)
            self._commands.append(command)
            self._command_count += command.command_count()
            self.size += mark.size
        return index

    def add_chunk(self, chunk: Chunk, most: int) -> int:
        """Append the first marks of a chunk, as far as there is room; return how many.

        Arguments:
            chunk: the chunk.
            most: how many to append at most.
        """
        opened = self._open
        end = self._count + most
        begin = index = self._count
        for bitmaps, offset, value, _, _ in chunk.rows():
            if index >= end or self.size > MAX_BATCH_SIZE:
                break
            joined = opened.get(bitmaps.order_key)
            if type(joined) is SetBits and joined.bitmaps is bitmaps and value != NO_BIT:
                # As `add` does, for nearly all marks.
                joined.indexes.append(index)
                joined.offsets.append(offset)
                joined.values.append(value)
                self._count = index + 1
                self.size += bitmaps.size
            else:
                self.add(offset if value == NO_BIT else BitMark(bitmaps, offset, value))
            index += 1
        return index - begin

    @property
    def commands(self) -> Sequence[WriteCommand]:
        """The write commands of the marks."""
        return self._commands

    @property
    def command_count(self) -> int:
        """How many Redis commands the write commands have."""
        return self._command_count

    def seal(self) -> None:
        """Have no later mark join the commands of earlier marks."""
        self._open.clear()

    def keep_together(self) -> None:
        """Have all marks share one transaction, as they do in any case."""

    def _join(self, joined: int | SetBits | _OpenCommands, index: int, mark: BitMark) -> None:
        """Add a mark to one of the commands that it may join, or to a new one."""
        bitmaps = mark.bitmaps
        if isinstance(joined, int):
            first_index, first = cast("SingleBit", self._commands[joined])
            command = SetBits(first.bitmaps, [first_index], [first.offset], [first.value])
            self._commands[joined] = with_expiry(command)
            if first.bitmaps is bitmaps:
                self._open[bitmaps.order_key] = command
                command.add(index, mark.offset, mark.value)
                return
            joined = command
        if isinstance(joined, SetBits):
            joined = self._open[bitmaps.order_key] = _OpenCommands(joined)
        joined_command = joined.command_for(bitmaps, mark.offset)
        if joined_command is None:
            joined_command = joined.commands[bitmaps] = SetBits(bitmaps, [], [], [])
            self._commands.append(with_expiry(joined_command))
            self._command_count += bitmaps.command_count
        joined_command.add(index, mark.offset, mark.value)

    def encode(self) -> bytes:
        """Return the bytes to send at once: ``MULTI`` to ``EXEC``, and ``WAIT`` if required."""
        return b"".join(
            [
                encoding.MULTI,
                *encode_all(self._commands),
                encoding.EXEC,
                wait_command(self._replicas),
            ]
        )

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes of `encode`, one write command at a time."""
        yield encoding.MULTI
        for command in self._commands:
            yield from encode_all((command,))
        yield encoding.EXEC + wait_command(self._replicas)

    def reply_count(self) -> int:
        """Return how many replies the server gives to the bytes of `encode`."""
        return 2 + self._command_count + bool(self._replicas)

    def parse(self, replies: Sequence[Any]) -> list[Result]:
        """Return the result of each mark, in call order.

        Arguments:
            replies: the server's replies, `reply_count` many, with a `CommandError` for
                each error reply.

        Raises:
            StoreNotReadyError: some keys are being migrated to another node.
            StoreUnavailableError: too few replicas have acknowledged the marks.
            StoreError: the replies do not fit the commands, so the results are unknown.
        """
        wait_reply: Any = None
        if self._replicas:
            *replies, wait_reply = replies
        multi, *queued, executed = replies
        if isinstance(executed, CommandError):
            return self._refused(multi, queued, executed)
        if not isinstance(executed, list) or len(executed) != len(queued):
            raise unexpected_reply(executed)
        results: list[Result] = [NO_FLIPS] * self._count
        parse_all(self._commands, results, executed)
        if self._replicas:
            check_replicated(wait_reply, self._replicas)
        return results

    def _refused(self, multi: Any, queued: Sequence[Any], executed: CommandError) -> list[Result]:
        """Return an error for each mark of a transaction that was not executed."""
        for reply in (executed, *queued):
            if isinstance(reply, RedirectedError) and reply.kind == "TRYAGAIN":
                raise StoreNotReadyError(str(reply))
        self.refused = True
        if isinstance(multi, CommandError):
            # Without MULTI, the server has executed each command by itself.
            reason = "MULTI was refused; single bits may have been changed without a transaction"
            applied = not all(isinstance(reply, CommandError) for reply in queued)
            return [explained(multi, reason, applied=applied) for _ in range(self._count)]
        refusals = [reply for reply in queued if isinstance(reply, CommandError)]
        results: list[Result] = [
            explained(
                refusals[0], "nothing was applied: another mark of the transaction was refused"
            )
            if refusals
            else explained(executed, "nothing was applied: the transaction was refused")
            for _ in range(self._count)
        ]
        begin = end = 0
        for command in self._commands:
            indexes, count = indexes_and_count(command)
            begin, end = end, end + count
            own = queued[begin:end]
            refusal = next((reply for reply in own if isinstance(reply, CommandError)), None)
            if refusal is not None:
                for index in indexes:
                    results[index] = explained(refusal, "nothing was applied: refused")
            elif refusals:
                self.retriable.update(indexes)
                for index in indexes:
                    results[index] = retriable(refusals[0])
        return results


class SingleMark:
    """A transaction of one bit mark, on bitmaps that do not expire.

    For a caller without company, who waits for all the time that our process takes: to make
    and encode it takes a fourth of the time of a `Batch` with the mark; and its reply, one of
    eight for three bitmaps, is known without a parser.
    """

    __slots__ = ("mark",)

    share = 1

    def __init__(self, mark: BitMark) -> None:
        self.mark = mark

    def encode(self) -> bytes:
        """Return the bytes to send at once."""
        mark = self.mark
        setbits = encoding.setbit(mark.bitmaps.setbit_heads, mark.offset, mark.value)
        return b"%b%b%b" % (encoding.MULTI, setbits, encoding.EXEC)

    def known_replies(self) -> dict[bytes, Granularity]:
        """Return the result of the mark for each reply without an error."""
        return self.mark.bitmaps.replies[self.mark.value]

    def batch(self) -> Batch:
        """Return the batch with the mark, which parses all other replies."""
        batch = Batch()
        batch.add(self.mark)
        return batch


def wait_command(replicas: int) -> bytes:
    """Return the encoded ``WAIT`` for some replicas; no bytes for none."""
    return encoding.command(*encoding.wait(replicas)) if replicas else b""
