"""Writes, and the flights in which they leave: what group commit has in its hands."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._marking.batch import MAX_RUN_MARKS

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable, Iterator, Sequence

    from .._cluster.shard_transactions import ShardBatches
    from .._marking.batch import Batch
    from .._marking.marks import Mark
    from ..errors import TallymarkError

__all__ = [
    "LARGE",
    "MAX_BATCH_MARKS",
    "MAX_BATCH_SIZE",
    "Bounced",
    "Flight",
    "Write",
    "boarded",
    "boarding",
    "count",
    "live",
]

#: Redis does nothing else while it runs a transaction. A thousand marks on three
#: keys hold it for 1.6 ms, and larger batches save next to nothing.
MAX_BATCH_MARKS: Final = 1000

#: The same bound in bytes, for marks that take more of them than others.
MAX_BATCH_SIZE: Final = 256 * 1024

#: Marks of one call from so many on are put together in a thread, and so are their results.
LARGE: Final = 2_000

#: The marks of one call, which belong into one transaction: where the caller waits,
#: when it gives up, its only mark or all of several, and how many seconds it has. A
#: plain tuple, because there is one for each mark, and classes take longer to make and
#: for the collector to see.
#:
#: The future never holds an exception, which would go unretrieved if the caller is
#: cancelled in that moment: an error is a result like any other.
Write = tuple[asyncio.Future[Any], float, "Mark | None", "Sequence[Mark]", float]


class Bounced(NamedTuple):
    """What a call gets instead of a result from who does not try again by itself.

    Attributes:
        failure: what went wrong.
        sent: whether a byte of its marks may have reached the server.
        missed: what did not happen in time, if that is the reason.
        final: whether it is not the server's failure: the call's own time is too short.
    """

    failure: TallymarkError
    sent: bool
    missed: str
    final: bool


class Flight:
    """A batch on its way."""

    __slots__ = (
        "batch",
        "data",
        "given_up",
        "large",
        "left",
        "on_the_wire",
        "replies",
        "sent",
        "writes",
    )

    def __init__(self, writes: Sequence[Write], batch: Batch | ShardBatches, large: bool) -> None:
        self.writes = writes
        self.batch = batch
        #: Whether it takes long to put it together: somebody has to `build` it.
        self.large = large
        self.data = b"" if large else batch.encode()
        self.replies: list[Any] = []
        #: Whether a byte of it may have reached the server.
        self.sent = False
        #: Whether all of it was written, so that the connection owes its replies.
        self.on_the_wire = False
        #: Whether all of its callers' time is up.
        self.given_up = False
        #: When it was sent.
        self.left = 0.0

    def build(self) -> None:
        """Put a large one together, step by step: a batch does not have its marks yet."""
        for write in self.writes:
            _add(write, self.batch)
        self.data = self.batch.encode()

    @property
    def deadline(self) -> float:
        """When the last of its callers gives up."""
        return max(write[1] for write in self.writes)


def count(writes: Iterable[Write]) -> int:
    """Return how many marks some writes have."""
    return sum(len(marks) or 1 for _, _, _, marks, _ in writes)


def live(writes: Iterable[Write]) -> Iterator[Write]:
    """Return the writes whose callers wait."""
    return (write for write in writes if not write[0].done())


def boarded(writes: Sequence[Write], batch: Batch | ShardBatches) -> Flight:
    """Return a flight of just these writes, which fill an empty batch."""
    large = False
    for write in writes:
        if len(write[3]) > LARGE:
            large = True
    if not large:
        for write in writes:
            _add(write, batch)
    return Flight(writes, batch, large)


def boarding(
    waiting: deque[Write], limit: int, batch: Batch | ShardBatches, *, horizon: float
) -> tuple[Flight, list[Write], int]:
    """Take writes out of a queue, as many as one transaction may hold.

    A write is never divided, so one that is too large flies alone. Those whose
    callers have gone are taken out, and left behind.

    Arguments:
        waiting: the queue, in which somebody waits.
        limit: how many marks to take at most.
        batch: an empty one, for them.
        horizon: when the flight may be expected to be over. Whoever gives up
            before is left behind too: under overload, a queue in call order
            would be served a moment too late throughout. But the flight takes
            at least one.

    Returns:
        The flight, who was left behind without hope, and how many marks were
        taken out of the queue.
    """
    taken: list[Write] = []
    hopeless: list[Write] = []
    aboard = left = 0
    while waiting:
        write = waiting.popleft()
        future, deadline, mark, marks, _ = write
        size = len(marks) or 1
        if not future.done():
            if deadline < horizon and waiting:
                hopeless.append(write)
                left += size
                continue
            aboard += size
            if taken and (aboard > limit or batch.size > MAX_BATCH_SIZE):
                waiting.appendleft(write)
                break
            if size > LARGE:
                return Flight([write], batch, True), hopeless, left + size
            if mark is not None:
                batch.add(mark)
            else:
                _add(write, batch)
            taken.append(write)
        left += size
    if not taken and hopeless:
        return boarded([hopeless.pop()], batch), hopeless, left
    return Flight(taken, batch, False), hopeless, left


def _add(write: Write, batch: Batch | ShardBatches) -> None:
    _, _, mark, marks, _ = write
    if mark is not None:
        batch.add(mark)
    for count, mark in enumerate(marks):
        if count and count % MAX_RUN_MARKS == 0:
            batch.seal()
        batch.add(mark)
