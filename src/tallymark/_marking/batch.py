"""A batch: marks in, the commands of one transaction out, replies in, results out.

Pure. A driver encodes the batch, moves the bytes, and hands back the replies;
what they mean for each mark is decided here, once for all drivers.

In a batch, marks act in call order. Marks of different events, or in different
shards, never share a key, and marks of different users never a bit, so only the
order of marks on one event and one user matters. Marks of one event on the same bitmaps form a
`BitRun`, which is written with one command per key; Redis answers a `BITFIELD`
bit by bit, in order, so each mark of a run gets the reply it would have got
alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .._core import resp as wire
from .._core.failures import RedirectedError, unexpected_reply
from .._core.periods import Granularity
from ..errors import CommandError, StoreNotReadyError
from .commands import BitRun, explained, step_for, with_expiry
from .marks import BitMark
from .replication import check_replicated, wait_for

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from .commands import Step
    from .marks import Mark, Result

__all__ = ["MAX_RUN_MARKS", "Batch"]

#: No command should have more marks than that; Redis before version 7 takes 2**20 arguments.
MAX_RUN_MARKS: Final = 16_384


class _EventRuns:
    """The runs that the next mark of one event may join, where there are several."""

    __slots__ = ("runs", "touched")

    def __init__(self, first: BitRun) -> None:
        self.runs = {first.bitmaps: first}
        #: The users that the runs touch.
        self.touched = {mark.offset for mark in first.marks}

    def open_for(self, mark: BitMark) -> BitRun | None:
        """Return the run that a mark may join, or None if it needs one of its own.

        It may join any of them, as long as none touches its user; else it
        might overtake an earlier mark. Then all runs end, and a new one begins.
        """
        if mark.offset in self.touched:
            self.runs.clear()
            self.touched.clear()
        self.touched.add(mark.offset)
        return self.runs.get(mark.bitmaps)


class Batch:
    """Marks that share one transaction.

    Attributes:
        size: about how many bytes its marks take on the wire.
        refused: after `settle`, whether nothing was applied at all.
        blameless: after `settle`, the indexes of marks that were not applied
            only because another mark was refused. They may be sent again.
    """

    __slots__ = (
        "_bitfield",
        "_count",
        "_lanes",
        "_replicas",
        "_steps",
        "blameless",
        "refused",
        "size",
    )

    #: A batch goes alone.
    share = 1

    def __init__(self, *, bitfield: bool = True, replicas: int = 0) -> None:
        """Begin an empty batch.

        Arguments:
            bitfield: write several bits of one key with one ``BITFIELD``;
                False for servers that lack this command.
            replicas: how many replicas have to confirm it.
        """
        self._bitfield = bitfield
        self._replicas = replicas
        self._steps: list[Step] = []
        self._lanes: dict[Hashable, BitRun | _EventRuns] = {}
        self._count = 0
        self.size = 0
        self.refused = False
        self.blameless: set[int] = set()

    def __len__(self) -> int:
        """Return how many marks the batch holds."""
        return self._count

    def add(self, mark: Mark) -> int:
        """Append a mark and return its index, at which `settle` puts its result."""
        index = self._count
        self._count = index + 1
        if isinstance(mark, BitMark):
            bitmaps = mark.bitmaps
            run = self._lanes.get(bitmaps.lane)
            if not isinstance(run, BitRun) or run.bitmaps is not bitmaps:
                run = self._run_for(mark, run)
            run.indexes.append(index)
            run.marks.append(mark)
            self.size += bitmaps.size
        else:  # nothing on this event may overtake it
            self._lanes.pop(mark.bitmaps.lane, None)
            self._steps.append(step_for(index, mark, self._bitfield))
            self.size += mark.size
        return index

    def seal(self) -> None:
        """Have no later mark share a command with those that are there."""
        self._lanes.clear()

    def pieces(self) -> Iterator[bytes]:
        """Yield what `encode` returns, step by step."""
        yield wire.MULTI
        for step in self._steps:
            yield step.encode()
        yield wire.EXEC + wait_for(self._replicas)

    def _run_for(self, mark: BitMark, open_runs: BitRun | _EventRuns | None) -> BitRun:
        lane = mark.bitmaps.lane
        if isinstance(open_runs, BitRun):
            open_runs = self._lanes[lane] = _EventRuns(open_runs)
        run = None if open_runs is None else open_runs.open_for(mark)
        if run is None:
            run = BitRun(mark.bitmaps, self._bitfield)
            self._steps.append(with_expiry(run))
            if open_runs is None:
                self._lanes[lane] = run
            else:
                open_runs.runs[mark.bitmaps] = run
        return run

    def encode(self) -> bytes:
        """Return the transaction, ``MULTI`` to ``EXEC``, and what follows, to send at once."""
        steps = [step.encode() for step in self._steps]
        return b"".join([wire.MULTI, *steps, wire.EXEC, wait_for(self._replicas)])

    def reply_count(self) -> int:
        """Return how many replies the server gives to `encode`'s bytes."""
        commands = sum([step.command_count() for step in self._steps])
        return 2 + commands + bool(self._replicas)

    def settle(self, replies: Sequence[Any]) -> list[Result]:
        """Return the result of each mark, in call order.

        Arguments:
            replies: the server's answers to all commands, `reply_count` many,
                with a `CommandError` wherever the server gave an error.

        Raises:
            StoreError: the replies do not fit the commands, so nothing can be
                said about any mark; or too few replicas have confirmed them.
        """
        confirmed: Any = None
        if self._replicas:
            *replies, confirmed = replies
        multi, *queued, executed = replies
        if isinstance(executed, CommandError):
            return self._refused(multi, queued, executed)
        if not isinstance(executed, list) or len(executed) != len(queued):
            raise unexpected_reply(executed)
        results: list[Result] = [Granularity(0)] * self._count
        values = iter(executed)
        for step in self._steps:
            for index, result in zip(step.indexes, step.settle(values), strict=True):
                results[index] = result
        if self._replicas:
            check_replicated(confirmed, self._replicas)
        return results

    def _refused(self, multi: Any, queued: Sequence[Any], executed: CommandError) -> list[Result]:
        """Return an error for each mark of a transaction that was not executed."""
        for reply in (executed, *queued):
            if isinstance(reply, RedirectedError) and reply.kind == "TRYAGAIN":
                raise StoreNotReadyError(str(reply))
        self.refused = True
        if isinstance(multi, CommandError):
            # Without MULTI, the server has run the commands one by one as they came.
            reason = "MULTI was refused; single bits may have been changed without a transaction"
            run = not all(isinstance(reply, CommandError) for reply in queued)
            return [explained(multi, reason, applied=run) for _ in range(self._count)]
        refusals = [reply for reply in queued if isinstance(reply, CommandError)]
        results: list[Result] = [
            explained(
                refusals[0], "nothing was applied: another mark of the transaction was refused"
            )
            if refusals
            else explained(executed, "nothing was applied: the transaction was refused")
            for _ in range(self._count)
        ]
        answers = iter(queued)
        for step in self._steps:
            own = [next(answers) for _ in range(step.command_count())]
            refusal = next((reply for reply in own if isinstance(reply, CommandError)), None)
            if refusal is not None:
                for index in step.indexes:
                    results[index] = explained(refusal, "nothing was applied: refused")
            elif refusals:
                self.blameless.update(step.indexes)
        return results
