"""The bounded queue of marks that wait for a batch, and the batch in flight."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from .._marking.batch import MAX_BATCH_SIZE, MAX_COMMAND_MARKS
from .._marking.chunks import Chunk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .._cluster.batches import AnyBatch
    from .._marking.batch import Batch
    from .._marking.marks import Mark, Result
    from ..errors import TallymarkError

__all__ = [
    "LARGE",
    "AwaitedWrite",
    "InFlightBatch",
    "NotCommitted",
    "PendingWrite",
    "WriteQueue",
    "batch_of",
    "count",
    "live",
    "to_repeat",
]

#: A call with more marks than that is a batch of its own, built and parsed in a thread.
LARGE: Final = 2_000

#: The marks of one call, which share a transaction: the future for the result, the
#: deadline in the event loop's time, the only mark or all of several, and the timeout in
#: seconds. A plain tuple: there is one for each mark, and instances of classes take longer
#: to create and to be traversed by the garbage collector. Marks of a buffer are a `Chunk`, which
#: is both the marks and in place of the future.
#:
#: Errors are set as results. The future never holds an exception, because that would never
#: be retrieved if the caller was cancelled at the same moment.
PendingWrite = tuple[asyncio.Future[Any] | Chunk, float, "Mark | None", "Sequence[Mark]", float]

#: The same, with a future: those of callers who wait.
AwaitedWrite = tuple[asyncio.Future[Any], float, "Mark | None", "Sequence[Mark]", float]


class NotCommitted(NamedTuple):
    """The result of a failed call of a group commit without retries.

    Attributes:
        failure: what went wrong.
        sent: whether a byte of the marks may have reached the server.
        missed: what did not happen in time, for the message of a timeout.
        final: whether the call's own timeout is the reason, and not the server.
    """

    failure: TallymarkError
    sent: bool
    missed: str
    final: bool


class InFlightBatch:
    """A batch that is sent to the server, or is about to be.

    Attributes:
        writes: the calls whose marks are in the batch.
        batch: the marks, as one transaction.
        large: whether `build` must be called first, in a thread.
        data: the encoded batch; of a late one, when it is about to be sent.
        replies: the replies that were received so far.
        sent: whether a byte of the batch may have reached the server.
        on_the_wire: whether all of it was written, so that the connection owes its replies.
        given_up: whether the deadlines of all calls have passed.
        sent_at: when it was sent, by `time.perf_counter`; 0.0 before.
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
        self, writes: Sequence[PendingWrite], batch: AnyBatch, *, large: bool = False
    ) -> None:
        self.writes = writes
        self.batch = batch
        self.large = large
        self.data = b"" if large or batch.late else batch.encode()
        self.replies: list[Any] = []
        self.sent = False
        self.on_the_wire = False
        self.given_up = False
        self.sent_at = 0.0

    def build(self) -> None:
        """Fill and encode the batch, which is still empty."""
        for write in self.writes:
            _add(write, self.batch)
        if not self.batch.late:
            self.data = self.batch.encode()

    def rebuild(self, writes: Sequence[PendingWrite], batch: AnyBatch) -> None:
        """Replace the writes by some or none of them, and the batch by an empty one; build it."""
        self.writes, self.batch = writes, batch
        self.build()

    @property
    def deadline(self) -> float:
        """The latest deadline of the calls."""
        return max(write[1] for write in self.writes)


def count(writes: Iterable[PendingWrite]) -> int:
    """Return how many marks the writes have."""
    return sum(len(marks) or 1 for _, _, _, marks, _ in writes)


def live(writes: Iterable[PendingWrite]) -> Iterator[PendingWrite]:
    """Return the writes whose callers still wait."""
    return (write for write in writes if not write[0].done())


def batch_of(writes: Sequence[PendingWrite], batch: AnyBatch) -> InFlightBatch:
    """Return an in-flight batch with the marks of some writes.

    Arguments:
        writes: one or more writes; a large one alone.
        batch: an empty batch, which is filled.
    """
    if len(writes[0][3]) > LARGE:  # then it is the only one
        return InFlightBatch(writes, batch, large=True)
    for write in writes:
        _add(write, batch)
    return InFlightBatch(writes, batch)


def to_repeat(
    write: PendingWrite, begin: int, results: Sequence[Result], retriable: set[int]
) -> PendingWrite | None:
    """Return what has to be sent again of a write; ``None`` if all of its results are final.

    A write is sent again if it was not applied only because another one of its transaction was
    refused. Of a chunk, that may be some marks; the others get their results.

    Arguments:
        write: the write.
        begin: the index of its first mark in the batch.
        results: the results of the batch.
        retriable: the indexes of the marks that may be sent again.
    """
    chunk, deadline, _, marks, seconds = write
    indexes = range(begin, begin + (len(marks) or 1))
    if retriable.issuperset(indexes):
        return write
    if not isinstance(chunk, Chunk) or chunk.done() or retriable.isdisjoint(indexes):
        return None
    ended = [index for index in indexes if index not in retriable]
    repeated = chunk.part(index - begin for index in indexes if index in retriable)
    chunk.part(index - begin for index in ended).set_result([results[index] for index in ended])
    return repeated, deadline, None, repeated, seconds


class WriteQueue:
    """A bounded queue of writes in call order. A place is room for one mark.

    This is the backpressure of group commit: callers that mark faster than Redis commits
    wait here for places. They are admitted strictly in the order in which they came.
    Belongs to one event loop.
    """

    __slots__ = (
        "_admitted",
        "_capacity",
        "_chunks",
        "_free",
        "_last",
        "_waiters",
        "_waiting_places",
        "_writes",
    )

    def __init__(self, capacity: int) -> None:
        """Begin empty.

        Arguments:
            capacity: how many places the queue has. A call with several marks is admitted
                as soon as one place is free, so that no call is too large.
        """
        self._capacity = self._free = capacity
        self._writes: deque[PendingWrite] = deque()
        #: The last write, if it is a chunk that may have room.
        self._last: Chunk | None = None
        #: The chunks among the writes, in the same order.
        self._chunks: deque[Chunk] = deque()
        #: The callers that wait for a place, each with the number of places that it needs.
        self._waiters: deque[tuple[asyncio.Future[None], int]] = deque()
        #: The places that the waiters need.
        self._waiting_places = 0
        #: The places of callers that were admitted and have not resumed yet.
        self._admitted = 0

    def __iter__(self) -> Iterator[PendingWrite]:
        """Iterate over the writes in the queue, in call order."""
        return iter(self._writes)

    def __bool__(self) -> bool:
        """Return whether there are writes in the queue."""
        return bool(self._writes)

    @property
    def is_full(self) -> bool:
        """Whether a new caller has to `wait`."""
        return self._free <= 0 or bool(self._admitted) or bool(self._waiters)

    @property
    def size(self) -> int:
        """How many places are taken."""
        return self._capacity - self._free

    @property
    def marks(self) -> int:
        """How many marks are in the queue."""
        return self.size + sum(map(len, self._chunks))

    @property
    def has_only_chunks(self) -> bool:
        """Whether all writes are chunks."""
        return len(self._writes) == len(self._chunks)

    @property
    def shortest_timeout(self) -> float:
        """The shortest of the timeouts of the writes, in seconds."""
        return min(write[4] for write in self._writes)

    @property
    def waiting(self) -> int:
        """How many places are needed by callers that are not in the queue yet."""
        return self._admitted + self._waiting_places

    def put(self, write: PendingWrite, places: int) -> None:
        """Append a write of ``places`` marks; the queue must not be full."""
        if self._last is not None:
            self.close_chunk()
        self._free -= places
        self._writes.append(write)

    def put_chunk(self, write: PendingWrite, chunk: Chunk) -> None:
        """Append a chunk, also to a full queue. It keeps its room as long as it is the last."""
        self.close_chunk()
        self._last = chunk
        self._chunks.append(chunk)
        self._writes.append(write)

    def close_chunk(self) -> None:
        """Have no more marks appended to the last chunk."""
        if self._last is not None:
            self._last.room = 0
            self._last = None

    def put_back(self, writes: Sequence[PendingWrite]) -> int:
        """Put writes in front of all others, to be sent again; return how many marks they have."""
        marks = places = count(writes)
        for write in reversed(writes):
            if isinstance(write[0], Chunk):
                places -= len(write[0])
                self._chunks.appendleft(write[0])
        self._free -= places
        self._writes.extendleft(reversed(writes))
        return marks

    def take_batch(  # noqa: PLR0912 - one loop
        self, batch: AnyBatch, *, limit: int, expected_end: float
    ) -> tuple[InFlightBatch, list[PendingWrite]]:
        """Take as many writes as one transaction may hold. Some caller must still wait.

        A write is never divided, unless it is a chunk: a large one is a batch of its own. Writes
        whose callers were cancelled are dropped.

        Arguments:
            batch: an empty batch, which is filled.
            limit: how many marks to take at most.
            expected_end: when the batch is expected to be committed, in the event loop's
                time. Writes with an earlier deadline expire now: under overload, a queue
                in call order would otherwise serve every caller a moment too late. The
                batch has at least one write in any case.

        Returns:
            The batch, and the writes that expired.
        """
        taken: list[PendingWrite] = []
        expired: list[PendingWrite] = []
        marks_taken = places = 0
        writes = self._writes
        while writes:
            write = writes.popleft()
            future, deadline, mark, marks, _ = write
            if mark is None and isinstance(future, Chunk):
                if not future.done() and deadline < expected_end and writes:
                    expired.append(write)
                    self._chunks.popleft()
                    continue
                was_done = future.done()
                size = self._take_chunk(write, future, batch, limit - marks_taken, taken)
                if size < len(future):
                    break
                marks_taken += 0 if was_done else size
                continue
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
        places = self.size
        self.close_chunk()
        self._writes.clear()
        self._chunks.clear()
        self._release(places)

    async def wait(self, places: int) -> None:
        """Wait for a place, and reserve the places of a call.

        No later caller is admitted before this one resumes. It must then call `resumed`
        and may call `put`, without awaiting anything in between.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((waiter, places))
        self._waiting_places += places
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():  # admitted and cancelled at once
                self.resumed(places)
            else:
                waiter.cancel()
                self._waiting_places -= places
                # Waiters mostly time out in the order in which they came. If no batch ends
                # for long, cancelled waiters would fill the deque.
                while self._waiters and self._waiters[0][0].done():
                    self._waiters.popleft()
            raise

    def resumed(self, places: int) -> None:
        """Free the reserved places of an admitted caller, which calls `put` now or never."""
        self._admitted -= places
        self._release(places)

    def _take_chunk(
        self,
        write: PendingWrite,
        chunk: Chunk,
        batch: AnyBatch,
        room: int,
        taken: list[PendingWrite],
    ) -> int:
        """Take the first marks of a chunk, and put the others back; return how many it has taken.

        Arguments:
            write: the write of the chunk, which was the first one.
            chunk: the chunk; all of its marks count as taken if they have results.
            batch: takes the marks.
            room: how many marks to take at most.
            taken: takes the write.
        """
        self._chunks.popleft()
        chunk.room = 0
        if chunk.done():
            return len(chunk)
        # A cluster's batches never have chunks: see `tallymark._async.shard_posts`.
        size = cast("Batch", batch).add_chunk(chunk, room)
        if size == len(chunk):
            taken.append(write)
            return size
        _, deadline, _, _, seconds = write
        if size:
            first, chunk = chunk.split(size)
            taken.append((first, deadline, None, first, seconds))
        self._writes.appendleft((chunk, deadline, None, chunk, seconds))
        self._chunks.appendleft(chunk)
        return size

    def _release(self, places: int) -> None:
        """Free places, and admit waiting callers to them."""
        self._free += places
        while self._waiters and self._free > 0:
            waiter, needed = self._waiters.popleft()
            if not waiter.done():
                self._free -= needed
                self._waiting_places -= needed
                self._admitted += needed
                waiter.set_result(None)


def _add(write: PendingWrite, batch: AnyBatch) -> None:
    _, _, mark, marks, _ = write
    if mark is not None:
        batch.add(mark)
        return
    if len(marks) > 1 and not isinstance(marks, Chunk):
        batch.keep_together()
    for index, mark in enumerate(marks):
        if index and index % MAX_COMMAND_MARKS == 0:
            batch.seal()
        batch.add(mark)
