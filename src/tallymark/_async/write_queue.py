"""Marks that wait for a batch, in a bounded queue, and the batch that is in flight."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._marking.batch import MAX_RUN_MARKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .._cluster.shard_transactions import ShardBatches
    from .._marking.batch import Batch
    from .._marking.marks import Mark
    from ..errors import TallymarkError

__all__ = [
    "LARGE",
    "MAX_BATCH_SIZE",
    "InFlightBatch",
    "NotCommitted",
    "PendingWrite",
    "WriteQueue",
    "batch_of",
    "count",
    "live",
]

#: How many bytes one transaction has at most, unless one call's marks take more.
MAX_BATCH_SIZE: Final = 256 * 1024

#: A call with more marks than that is a batch of its own, which is built and parsed in
#: a thread.
LARGE: Final = 2_000

#: The marks of one call, which belong into one transaction: the future that gets the
#: result, the deadline in the event loop's time, the call's only mark or all of several,
#: and its timeout in seconds. A plain tuple, because there is one for each mark, and
#: classes take longer to make and to be traversed by the garbage collector.
#:
#: The future never holds an exception, which would never be retrieved if the caller is
#: cancelled in that moment: an error is a result like any other.
PendingWrite = tuple[asyncio.Future[Any], float, "Mark | None", "Sequence[Mark]", float]


class NotCommitted(NamedTuple):
    """The result of a call whose group commit does not retry by itself.

    Attributes:
        failure: what went wrong.
        sent: whether a byte of its marks may have reached the server.
        missed: what did not happen in time, if that is the reason.
        final: whether the server is not to blame: the call's own time is too short.
    """

    failure: TallymarkError
    sent: bool
    missed: str
    final: bool


class InFlightBatch:
    """A batch on its way to the server and back.

    Attributes:
        writes: the calls whose marks it has.
        batch: their marks, as one transaction.
        large: whether it has to be built by `build`, in a thread.
        data: its bytes.
        replies: what the server has answered so far.
        sent: whether a byte of it may have reached the server.
        on_the_wire: whether all of it was written, so that the connection owes its replies.
        given_up: whether the deadline of all of its callers has passed.
        sent_at: when it was sent, as `time.perf_counter` has it.
    """

    __slots__ = (
        "batch",
        "data",
        "given_up",
        "large",
        "on_the_wire",
        "replies",
        "sent",
        "sent_at",
        "writes",
    )

    def __init__(
        self, writes: Sequence[PendingWrite], batch: Batch | ShardBatches, *, large: bool = False
    ) -> None:
        self.writes = writes
        self.batch = batch
        self.large = large
        self.data = b"" if large else batch.encode()
        self.replies: list[Any] = []
        self.sent = False
        self.on_the_wire = False
        self.given_up = False
        self.sent_at = 0.0

    def build(self) -> None:
        """Fill and encode a batch that is still empty."""
        for write in self.writes:
            _add(write, self.batch)
        self.data = self.batch.encode()

    def rebuild(self, writes: Sequence[PendingWrite], batch: Batch | ShardBatches) -> None:
        """Hold only these of the writes, none or some, in an empty batch that replaces its own."""
        self.writes, self.batch = writes, batch
        self.build()

    @property
    def deadline(self) -> float:
        """The latest deadline of its callers."""
        return max(write[1] for write in self.writes)


def count(writes: Iterable[PendingWrite]) -> int:
    """Return how many marks some writes have."""
    return sum(len(marks) or 1 for _, _, _, marks, _ in writes)


def live(writes: Iterable[PendingWrite]) -> Iterator[PendingWrite]:
    """Return the writes whose callers still wait."""
    return (write for write in writes if not write[0].done())


def batch_of(writes: Sequence[PendingWrite], batch: Batch | ShardBatches) -> InFlightBatch:
    """Return these writes as one batch, made of an empty one."""
    if any(len(marks) > LARGE for _, _, _, marks, _ in writes):
        return InFlightBatch(writes, batch, large=True)
    for write in writes:
        _add(write, batch)
    return InFlightBatch(writes, batch)


class WriteQueue:
    """Writes in call order, so many marks at most; further callers wait for a place.

    This is the backpressure of group commit: whoever marks faster than Redis
    commits is slowed down here. Callers are admitted strictly in the order in which
    they came. Belongs to one event loop.
    """

    __slots__ = ("_admitted", "_free", "_size", "_turns", "_waiting_outside", "_writes")

    def __init__(self, size: int) -> None:
        """Begin empty.

        Arguments:
            size: how many marks it holds. A call with several marks is admitted when
                one place is free, so that no call is too large ever to be admitted.
        """
        self._size = self._free = size
        self._writes: deque[PendingWrite] = deque()
        #: The callers that wait for a place, and how many places each wants.
        self._turns: deque[tuple[asyncio.Future[None], int]] = deque()
        #: Places of callers that were admitted and have not resumed yet.
        self._admitted = 0
        #: Places that the callers in `_turns` want.
        self._waiting_outside = 0

    def __iter__(self) -> Iterator[PendingWrite]:
        """Iterate over the writes in the queue, in call order."""
        return iter(self._writes)

    def __bool__(self) -> bool:
        """Return whether there are writes in the queue."""
        return bool(self._writes)

    @property
    def is_full(self) -> bool:
        """Whether a caller that comes now has to `wait`."""
        return self._free <= 0 or bool(self._admitted) or bool(self._turns)

    @property
    def size(self) -> int:
        """How many places are taken."""
        return self._size - self._free

    @property
    def waiting(self) -> int:
        """How many places are wanted by callers that are not in the queue yet."""
        return self._admitted + self._waiting_outside

    def put(self, write: PendingWrite, places: int) -> None:
        """Append a write of so many marks, if the queue is not full."""
        self._free -= places
        self._writes.append(write)

    def put_back(self, writes: Sequence[PendingWrite]) -> int:
        """Put writes in front of all others, for another batch; return how many marks they have."""
        places = count(writes)
        self._free -= places
        self._writes.extendleft(reversed(writes))
        return places

    def take_batch(
        self, batch: Batch | ShardBatches, *, limit: int, expected_end: float
    ) -> tuple[InFlightBatch, list[PendingWrite]]:
        """Take as many writes as one transaction may hold; some caller has to wait.

        A write is never divided: one that is too large is a batch of its own.
        Writes whose callers have gone are taken out and dropped.

        Arguments:
            batch: an empty batch, for the writes.
            limit: how many marks to take at most.
            expected_end: when the batch may be expected to be committed. Writes
                whose deadline is earlier are dropped: under overload, a queue in
                call order would otherwise serve every caller a moment too late. The
                batch has at least one write in any case.

        Returns:
            The batch, and the writes that were dropped for their deadline.
        """
        taken: list[PendingWrite] = []
        expired: list[PendingWrite] = []
        marks_taken = places = 0
        writes = self._writes
        while writes:
            write = writes.popleft()
            future, deadline, mark, marks, _ = write
            size = len(marks) or 1
            if not future.done():
                if deadline < expected_end and writes:
                    expired.append(write)
                    places += size
                    continue
                marks_taken += size
                if taken and (marks_taken > limit or batch.size > MAX_BATCH_SIZE):
                    writes.appendleft(write)
                    break
                if size > LARGE:
                    taken, places = [write], places + size
                    break
                if mark is not None:
                    batch.add(mark)
                else:
                    _add(write, batch)
                taken.append(write)
            places += size
        if len(taken) == 1 and len(taken[0][3]) > LARGE:
            in_flight = batch_of(taken, batch)
        elif not taken and expired:
            in_flight = batch_of([expired.pop()], batch)
        else:
            in_flight = InFlightBatch(taken, batch)
        self._release(places)
        return in_flight, expired

    def clear(self) -> None:
        """Drop all writes in the queue."""
        places = count(self._writes)
        self._writes.clear()
        self._release(places)

    async def wait(self, places: int) -> None:
        """Wait for a place.

        The places are reserved then, and no later caller is admitted before this one
        resumes: it has to call `resumed` and, if it still wants to, `put`,
        without awaiting anything in between.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.append((turn, places))
        self._waiting_outside += places
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # cancelled in the moment of its admission
                self.resumed(places)
            else:
                turn.cancel()
                self._waiting_outside -= places
                # Callers whose time is up leave in the order in which they came: while
                # no batch ends for long, cancelled turns would be all that is left here.
                while self._turns and self._turns[0][0].done():
                    self._turns.popleft()
            raise

    def resumed(self, places: int) -> None:
        """Note that an admitted caller is running again: it calls `put` now, or never."""
        self._admitted -= places
        self._release(places)

    def _release(self, places: int) -> None:
        """Free places, and admit callers to them."""
        self._free += places
        while self._turns and self._free > 0:
            turn, wanted = self._turns.popleft()
            if not turn.done():
                self._free -= wanted
                self._waiting_outside -= wanted
                self._admitted += wanted
                turn.set_result(None)


def _add(write: PendingWrite, batch: Batch | ShardBatches) -> None:
    _, _, mark, marks, _ = write
    if mark is not None:
        batch.add(mark)
    for index, mark in enumerate(marks):
        if index and index % MAX_RUN_MARKS == 0:
            batch.seal()
        batch.add(mark)
