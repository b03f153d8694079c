"""Group commit: marks of concurrent tasks share transactions.

While one batch is in flight, the marks of other tasks gather in the write queue, and the
next batch takes them together: an idle tally sends at once, a busy one fills its batches
by itself. There is no timer, and no task without marks to send. As in the write groups of
storage engines, the first caller is the leader: it sends its own mark directly. If other
marks have gathered meanwhile, a task sends them, for as long as marks keep coming.

Each mark has a future of its own, so the cancellation of one caller concerns no other. If
a leader is cancelled, its batch stays in flight, and the next leader reads the remaining
replies: the connection stays in step, and no later mark overtakes one that was sent.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from typing import TYPE_CHECKING, Any, Final

import anyio

from .._core.failures import TRANSIENT, overloaded, with_outcome
from .._core.options import checked_timeout
from .._marking.buffering import GATHERED, GATHERING
from .._marking.sizing import BatchSizer
from .._marking.stats import Totals
from .._redis.clocks import clocks
from ..errors import (
    ClosedError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    TallymarkError,
)
from .connection import BatchSender
from .loop_bound import ClosedWhenIdle, no_loop, running_loop
from .write_queue import (
    LARGE,
    NotCommitted,
    WriteQueue,
    batch_of,
    count,
    live,
    to_repeat,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from .._cluster.batches import AnyBatch
    from .._core.observers import Observer
    from .._marking.chunks import Chunk
    from .._marking.marks import Mark, Result
    from .._marking.stats import Stats
    from .connection import Connection
    from .write_queue import AwaitedWrite, InFlightBatch, PendingWrite

__all__ = ["MAX_WAITING", "GroupCommit"]

#: How many marks the queue holds at most; further callers wait for a place in it.
MAX_WAITING: Final = 10_000

#: A call times out at most this many seconds late.
_TIMEOUT_RESOLUTION: Final = 0.01

#: The reason in the error of a call that timed out in the queue.
_NOT_SENT: Final = "its turn did not come"


class GroupCommit(ClosedWhenIdle):
    """Commits marks over one connection, those of several callers in one transaction.

    Belongs to one event loop.

    Attributes:
        totals: the counters so far.
        orders_by_shard: whether only marks of the same shard keep their order.
    """

    orders_by_shard = False

    def __init__(
        self,
        connection: Connection,
        *,
        new_batch: Callable[[], AnyBatch],
        timeout: float,
        max_pending: int,
        store: str = "Redis",
        observer: Observer | None = None,
        retry: bool = True,
        event_quota: bool = False,
    ) -> None:
        """Begin idle.

        Arguments:
            connection: the connection, which nobody else uses.
            new_batch: makes an empty batch.
            timeout: the default timeout of a call, in seconds; ``math.inf`` for none.
            max_pending: how many marks may wait; further ones are refused.
            store: the server's name for logs and observers.
            observer: called after each attempt.
            retry: whether to send a batch again after its connection broke. If not, its
                calls get a `NotCommitted` at the first failure: on a cluster, another node
                may own their shard by now.
            event_quota: whether to record that marks on uncounted bitmaps were sent.
        """
        super().__init__()
        self._connection = connection
        self._new_batch = new_batch
        self._retry = retry
        self._timeout = timeout
        self.totals = Totals()
        self._sender = BatchSender(
            connection,
            self.totals,
            new_batch=new_batch,
            store=store,
            observer=observer,
            event_quota=event_quota,
        )
        self._queue = WriteQueue(min(MAX_WAITING, max_pending))
        self._max_pending = max_pending
        self._sizer = BatchSizer()
        self._in_flight: InFlightBatch | None = None
        #: Whether a caller or the task is sending, or about to.
        self._has_leader = False
        self._task: asyncio.Task[None] | None = None
        self._deadline_timer: asyncio.TimerHandle | None = None
        #: When the timer calls `_expire`; ``math.inf`` without a timer. `submit` compares each
        #: deadline with it, which takes less time than to ask the timer.
        self._expires_at = math.inf
        self._aborted = False
        #: Begins to send marks of buffers that gather.
        self._gathering: asyncio.TimerHandle | None = None
        #: How many marks at the front of the queue are sent again, and so are a batch of their own.
        self._repeated = 0

    def submit(self, mark: Mark, timeout: float | None = None) -> Awaitable[Result]:
        """Send a mark. The returned awaitable must be awaited at once.

        Arguments:
            mark: the mark.
            timeout: the timeout in seconds; ``None`` for the default.

        Cancelled: the mark is not sent, or it is applied whole.

        Raises:
            ClosedError, WrongEventLoopError: the group commit cannot be used here.
            OverloadedError: too many marks are waiting.
            InvalidTypeError, InvalidValueError: the timeout is not allowed.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise no_loop() from None
        if loop is not self._loop:
            self._bind(loop)
        queue = self._queue
        if timeout is not None or queue.is_full:
            return self._admit(self._write(mark, (), timeout, loop), loop)
        # The short way of `_write` and `_admit`, for nearly all marks.
        seconds = self._timeout
        deadline = loop.time() + seconds
        write = (loop.create_future(), deadline, mark, (), seconds)
        if not self._has_leader:
            return self._enqueue(write, loop)
        if deadline < self._expires_at:  # the timeout of the leader is longer
            self._expire_by(deadline, loop)
        queue.put(write, 1)
        return write[0]

    def submit_together(
        self, marks: Sequence[Mark], timeout: float | None = None
    ) -> Awaitable[list[Result]]:
        """Send one or more marks in one transaction; otherwise as `submit`.

        Cancelled: no mark is sent, or all are applied.
        """
        loop = running_loop()
        self._bind(loop)
        return self._admit(self._write(None, marks, timeout, loop), loop)

    def submit_until(
        self,
        mark: Mark | None,
        marks: Sequence[Mark],
        deadline: float,
        seconds: float,
        loop: asyncio.AbstractEventLoop,
    ) -> Awaitable[Any]:
        """Send one mark, or several in one transaction, of a call that was admitted already.

        Otherwise as `submit`, but never raises an `OverloadedError`.

        Arguments:
            mark: the only mark; ``None`` for several.
            marks: several marks; empty for one.
            deadline: when to give up, in the event loop's time.
            seconds: the timeout from which the deadline was computed, for error messages.
            loop: the running event loop.
        """
        if loop is not self._loop:
            self._bind(loop)
        queue = self._queue
        future = loop.create_future()
        write = (future, deadline, mark, marks, seconds)
        if queue.is_full:
            return self._admit_later(write, loop)
        if not self._has_leader:
            return self._enqueue(write, loop)
        if deadline < self._expires_at:
            self._expire_by(deadline, loop)
        queue.put(write, len(marks) or 1)
        return future

    def post(self, chunk: Chunk, timeout: float) -> None:
        """Send the marks of a chunk, each of which gets its result by `Chunk.set_result`.

        Arguments:
            chunk: the chunk. Marks may be appended to it as long as it has room.
            timeout: the timeout in seconds; that of its first mark.

        Raises:
            ClosedError, WrongEventLoopError: the group commit cannot be used here.
        """
        loop = running_loop()
        self._bind(loop)
        deadline = loop.time() + timeout
        self._expire_by(deadline, loop)
        self._queue.put_chunk((chunk, deadline, None, chunk, timeout), chunk)
        if not self._has_leader:
            self._gather(loop)

    def send_now(self) -> None:
        """Send the marks of buffers that gather."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._end_gathering()

    def end_use(self) -> None:
        """Refuse all further calls, since the group commit is being closed."""
        super().end_use()
        self._queue.close_chunk()

    def abandon(self, owner: object, failure: TallymarkError) -> None:
        """End the marks of all chunks of a buffer with an error."""
        in_flight = self._in_flight
        if in_flight is not None:
            self._fail(_owned(in_flight.writes, owner), failure, sent=in_flight.sent)
        self._fail(_owned(self._queue, owner), failure, sent=False)

    def is_stuck(self, seconds: float) -> bool:
        """Return whether the batch in flight was sent more than ``seconds`` ago."""
        in_flight = self._in_flight
        return (
            in_flight is not None
            and bool(in_flight.sent_at)
            and (clocks.perf_counter() - in_flight.sent_at > seconds)
        )

    def abort(self) -> None:
        """Make the batch in flight fail now."""
        if self._in_flight is not None and self._in_flight.on_the_wire:
            self._sender.disconnect()

    def fail_all(self) -> None:
        """End all calls with an error now."""
        self._aborted = True
        self.send_now()
        if self._in_flight is not None:
            self._fail(self._in_flight.writes, _closed(), sent=self._in_flight.sent)
        self._fail(list(self._queue), _closed(), sent=False)
        self._sender.abort()

    def stats(self) -> Stats:
        """Return the counters so far."""
        return self.totals.stats(count(self._pending()) + self._queue.waiting)

    async def close(self) -> None:
        """Accept no more marks, wait until all marks are committed or failed, then disconnect.

        Cancelled: fails the waiting calls and disconnects. May be called again.
        """
        self.end_use()
        self.send_now()
        try:
            await self._until_idle()
        except BaseException:
            self.fail_all()
            with anyio.CancelScope(shield=True):
                await self._until_idle()
            raise
        finally:
            if self._deadline_timer is not None:
                self._deadline_timer.cancel()
            await self._connection.close(gently=True)
            self._closing_on = None

    def discard(self) -> None:
        """Close the connection at once, after the event loop has been closed."""
        self.end_use()
        self._closing_on = None
        self._gathering = None
        self._connection.discard()

    # --- callers

    def _write(
        self,
        mark: Mark | None,
        marks: Sequence[Mark],
        timeout: float | None,
        loop: asyncio.AbstractEventLoop,
    ) -> AwaitedWrite:
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        return loop.create_future(), loop.time() + seconds, mark, marks, seconds

    def _admit(self, write: AwaitedWrite, loop: asyncio.AbstractEventLoop) -> Awaitable[Any]:
        queue = self._queue
        if queue.is_full:
            pending = queue.size + queue.waiting
            if pending >= self._max_pending:
                raise overloaded(pending, "marks", self._max_pending)
            return self._admit_later(write, loop)
        return self._enqueue(write, loop)

    async def _admit_later(self, write: AwaitedWrite, loop: asyncio.AbstractEventLoop) -> Any:
        """Wait until the queue has a place."""
        future, places = write[0], count([write])
        result: Awaitable[Any] = future
        admitted = False
        try:
            with anyio.CancelScope(deadline=write[1]):
                await self._queue.wait(places)
                admitted = True
                if self._aborted:
                    self._fail([write], _closed(), sent=False)
                elif not future.done():
                    result = self._enqueue(write, loop)
                self._queue.resumed(places)
            if not admitted:
                missed = f"no room among {self._queue.size} waiting marks"
                self._fail([write], StoreTimeoutError(), sent=False, missed=missed)
        finally:
            self._notify_idle()
        return await result

    def _enqueue(self, write: AwaitedWrite, loop: asyncio.AbstractEventLoop) -> Awaitable[Any]:
        if write[1] < self._expires_at:
            self._expire_by(write[1], loop)
        # If the last batch had several callers, more of them will follow in this step of
        # the loop, as web requests come in bursts: a task sends in the next step.
        alone = self._sizer.last_size <= 1 and self._in_flight is None and not self._queue
        # A leader would not notice its own deadline while a thread builds its batch.
        alone = alone and len(write[3]) <= LARGE
        if alone and not self._has_leader and self._connection.ready:
            return self._lead(write)
        self._queue.put(write, len(write[3]) or 1)
        if not self._has_leader:
            self._start(loop)
        return write[0]

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let a task send what is in the queue."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        self._has_leader = True
        self._task = loop.create_task(self._drain())

    # --- marks of buffers

    def _gather(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send the marks of buffers that are in the queue, soon or now; there is no leader."""
        if not self._may_gather():
            self._start(loop)
        elif self._gathering is None:
            # Each chunk has a timeout of its own, and should not spend it here.
            seconds = min(GATHERING, self._queue.shortest_timeout / 4)
            self._gathering = loop.call_later(seconds, self._end_gathering)

    def _may_gather(self) -> bool:
        """Return whether only marks of buffers wait, few of them, and none is sent again."""
        if self._closed or self._repeated:
            return False
        return self._queue.has_only_chunks and self._queue.marks < GATHERED

    def _end_gathering(self) -> None:
        self._gathering = None
        if not self._has_leader:
            self._start(asyncio.get_running_loop())

    async def _lead(self, write: AwaitedWrite) -> Any:
        """Send the only waiting write over a ready connection, then hand over."""
        future = write[0]
        try:
            self._has_leader = True  # here: a signal handler may keep it from beginning
            in_flight = self._in_flight = batch_of((write,), self._new_batch())
            await self._send(in_flight)
        except BaseException:
            future.cancel()
            raise
        finally:
            self._hand_over()
        return await future

    async def _drain(self) -> None:
        """Send batches for as long as marks keep coming."""
        try:
            while self._has_callers():
                in_flight = self._in_flight = self._next_batch()
                await self._send(in_flight)
                if self._in_flight is not None:
                    continue
                if self._queue and self._may_gather():
                    break
                if self._queue and self._sizer.fast:
                    continue
                if len(in_flight.writes) == 1 and not self._queue:
                    break  # a lone caller is served faster without a task
                # Callers that have just got their results may mark again. If the round trip
                # is long, the next batch should include those marks.
                await asyncio.sleep(0)
                self._sizer.returning = 0
            await self._connection.release()
        finally:
            self._hand_over()

    def _hand_over(self) -> None:
        """Let a task send if a caller waits; else become idle."""
        if self._in_flight is not None or self._queue:
            if self._has_callers():
                loop = asyncio.get_running_loop()
                if self._in_flight is None:
                    self._has_leader = False
                    self._gather(loop)
                else:
                    self._start(loop)
                return
            # All of these callers were cancelled, and others may wait for the places.
            self._queue.clear()
        self._has_leader = False
        self._sizer.returning = 0
        self._task = None
        self._notify_idle()

    def _pending(self) -> Iterator[PendingWrite]:
        """Return the writes whose callers still wait, in call order."""
        in_flight = self._in_flight.writes if self._in_flight is not None else ()
        return live(itertools.chain(in_flight, self._queue))

    def _is_idle(self) -> bool:
        return not self._has_leader and not self._queue.waiting and self._gathering is None

    def _has_callers(self) -> bool:
        return next(self._pending(), None) is not None

    # --- batches

    async def _send(self, in_flight: InFlightBatch) -> None:
        """Make one attempt to commit a batch.

        Cancelled: leaves the batch in flight, for the next leader.
        """
        try:
            if in_flight.on_the_wire:
                self._check_deadline(in_flight)
            results = await self._sender.exchange(in_flight)
        except StoreError as error:
            # `_expire` closed the connection at the deadline.
            failure = StoreTimeoutError(str(error)) if in_flight.given_up else error
            try:
                self._sender.observe(in_flight, failure)
            finally:
                try:
                    await self._connection.close()
                finally:
                    self._attempt_failed(in_flight, failure)
        except BaseException as error:
            # The connection owes replies, which the next leader will read.
            in_step = in_flight.on_the_wire and isinstance(error, asyncio.CancelledError)
            if not in_step or not self._connection.owned:
                in_flight.on_the_wire = False
                await self._connection.close()
            if isinstance(error, Exception):
                # Such as the exception of a signal handler. It is raised unchanged, and the
                # marks of the other callers are sent again.
                failure = StoreUnavailableError(f"interrupted by {error!r:.80}")
                self._attempt_failed(in_flight, failure)
            raise
        else:
            self._in_flight = None
            if results is None:
                return
            try:
                self._sender.observe(in_flight, None)
            finally:
                self._resolve(in_flight, results)

    def _check_deadline(self, in_flight: InFlightBatch) -> None:
        """Check the deadline of a batch whose leader was cancelled, and time it out later."""
        loop = asyncio.get_running_loop()
        if loop.time() >= in_flight.deadline:
            raise StoreTimeoutError
        self._expire_by(in_flight.deadline, loop)

    def _next_batch(self) -> InFlightBatch:
        """Return the batch in flight, or a new one from the queue; some caller must wait."""
        in_flight = self._in_flight
        if in_flight is None:
            return self._take_batch()
        if in_flight.on_the_wire:
            return in_flight
        # It is sent again, without the writes whose callers were cancelled meanwhile.
        writes = list(live(in_flight.writes))
        if not writes:
            return self._take_batch()
        repeated = batch_of(writes, self._new_batch())
        repeated.sent = in_flight.sent
        self.totals.retries += in_flight.sent
        return repeated

    def _take_batch(self) -> InFlightBatch:
        """Take as many writes from the queue as should share a transaction."""
        in_flight, expired = self._queue.take_batch(
            self._new_batch(),
            limit=self._repeated or self._sizer.limit(self._queue.marks),
            expected_end=asyncio.get_running_loop().time() + self._sizer.expected_duration,
        )
        self._repeated = 0
        if expired:
            self._time_out(expired, sent=False, missed=_NOT_SENT)
        return in_flight

    def _attempt_failed(self, in_flight: InFlightBatch, failure: StoreError) -> None:
        """Arrange for another attempt, or end the calls of a batch with an error."""
        in_flight.on_the_wire = False
        expired = asyncio.get_running_loop().time() >= in_flight.deadline
        final = expired or not isinstance(failure, TRANSIENT)
        self._sender.failed(failure, final=final)
        if expired and in_flight.sent:
            seconds = clocks.perf_counter() - in_flight.sent_at
            self._sizer.timed_out(count(in_flight.writes), seconds)
        if final or not self._retry:
            self._in_flight = None
            self._fail(in_flight.writes, failure, sent=in_flight.sent)
            if not self._retry:  # the writes in the queue would meet the same failure
                self._fail(self._queue, failure, sent=False)
        else:
            self._sender.back_off(failure)

    def _resolve(self, in_flight: InFlightBatch, results: list[Result]) -> None:
        """Resolve the future of each caller with its results."""
        if self._sender.is_failing:
            self._sender.succeeded()
        seconds = clocks.perf_counter() - in_flight.sent_at
        self._sizer.completed(len(results), seconds, self._timeout)
        retriable = in_flight.batch.retriable
        repeated: list[PendingWrite] = []
        begin = end = 0
        for write in in_flight.writes:
            future, _, mark, marks, _ = write
            begin, end = end, end + (len(marks) or 1)
            if retriable and (again := to_repeat(write, begin, results, retriable)):
                repeated.append(again)
            elif not future.done():
                future.set_result(results[begin:end] if mark is None else results[begin])
        # Redis applies nothing of a transaction with a mark that it refuses. The other
        # marks are sent again, before all others and without any of them: with marks that are
        # refused too, they might be sent again and again.
        postponed = self._repeated = self._queue.put_back(repeated) if repeated else 0
        refused = in_flight.batch.refused
        self.totals.record(results, refused=refused, postponed=postponed)

    def _fail(
        self,
        writes: Iterable[PendingWrite],
        failure: TallymarkError,
        *,
        sent: bool,
        missed: str = "",
    ) -> None:
        """End calls with an error.

        Arguments:
            writes: the calls; those that have ended already are skipped.
            failure: what went wrong.
            sent: whether a byte of their marks may have reached the server.
            missed: what did not happen in time, if the timeout of the call itself is the
                reason.
        """
        final = bool(missed)
        missed = missed or ("Redis did not answer" if sent else "there was no connection to Redis")
        for future, _, mark, marks, seconds in live(writes):
            if not self._retry:
                future.set_result(NotCommitted(failure, sent, missed, final))
                continue
            self.totals.errors += len(marks) or 1
            error = with_outcome(failure, sent=sent, timeout=seconds, missed=missed)
            future.set_result([error] * len(marks) if mark is None else error)

    def _time_out(self, writes: Iterable[PendingWrite], *, sent: bool, missed: str = "") -> None:
        """End calls whose deadline has passed; arguments as for `_fail`."""
        failure = self._sender.last_failure or StoreTimeoutError()
        self._fail(writes, failure, sent=sent, missed=missed)

    # --- deadlines

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        """Fail the calls whose deadline has passed, and set the timer for the next deadline."""
        now = loop.time()
        in_flight = self._in_flight
        following = [now + self._timeout] if self._has_leader else []  # of later calls
        if in_flight is not None:
            expired = [write for write in in_flight.writes if write[1] <= now]
            self._time_out(expired, sent=in_flight.sent)
            if now < in_flight.deadline:
                following.append(in_flight.deadline)
            elif not self._sender.is_connecting:
                in_flight.given_up = True
                self._sender.disconnect()
        expired = [write for write in self._queue if write[1] <= now]
        self._time_out(expired, sent=False, missed=_NOT_SENT)
        following += [write[1] for write in self._pending()]
        self._deadline_timer = None
        self._expires_at = math.inf
        if following:
            self._expire_by(max(min(following), now + _TIMEOUT_RESOLUTION), loop)

    def _expire_by(self, deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        """Have `_expire` called no later than at a deadline."""
        if deadline >= self._expires_at:
            return
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._expires_at = deadline
        self._deadline_timer = loop.call_at(deadline, self._expire, loop)


def _owned(writes: Iterable[PendingWrite], owner: object) -> list[PendingWrite]:
    """Return the writes that are chunks of a buffer."""
    return [write for write in writes if getattr(write[0], "owner", None) is owner]


def _closed() -> ClosedError:
    return ClosedError("the tally was closed")
