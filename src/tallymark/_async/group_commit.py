"""Group commit: marks of concurrent tasks share transactions.

While one batch is in flight, the marks of other tasks gather in the write queue, and
the next batch takes them together: an idle tally sends at once, a busy one fills its
batches by itself. There is no timer to wait for and no task that outlives the work. As
in the write groups of storage engines, the first caller leads: it sends its own mark
directly. If others have gathered meanwhile, a task sends for them, for as long as marks
keep coming.

Each mark has a future of its own, so cancelling one caller concerns no other. Where a
leader is cancelled, its batch stays in flight, and the next leader reads the rest of its
replies: the connection stays in step, and no later mark can overtake one that was sent.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import anyio.to_thread

from .._core.failures import TRANSIENT, Backoff, overloaded, with_outcome
from .._core.observers import Operation, Outage, observe
from .._core.options import checked_timeout
from .._marking.marks import note_sent
from .._marking.sizing import BatchSizer
from .._marking.stats import Totals
from ..errors import (
    ClosedError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    TallymarkError,
)
from .loop_bound import OfOneLoop, no_loop, running_loop
from .write_queue import LARGE, NotCommitted, WriteQueue, batch_of, count, live

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from .._cluster.shard_transactions import ShardBatches
    from .._core.observers import Observer
    from .._marking.batch import Batch
    from .._marking.marks import Mark, Result
    from .._marking.stats import Stats
    from .connection import Connection
    from .write_queue import InFlightBatch, PendingWrite

__all__ = ["MAX_WAITING", "GroupCommit"]

#: How many marks wait for a batch at most; callers beyond that wait for room.
MAX_WAITING: Final = 10_000

#: A call gets its timeout at most this many seconds late.
_WATCH_EVERY: Final = 0.01

#: Why a call has timed out that was never sent.
_NOT_SENT: Final = "its turn did not come"


class GroupCommit(OfOneLoop):
    """Sends marks over one connection, those of several callers in one transaction.

    Belongs to one event loop.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        new_batch: Callable[[], Batch | ShardBatches],
        timeout: float,
        max_pending: int,
        store: str = "Redis",
        observer: Observer | None = None,
        retry: bool = True,
        trials: bool = False,
    ) -> None:
        """Begin idle.

        Arguments:
            connection: the connection, which nobody else uses.
            new_batch: makes an empty batch.
            timeout: how many seconds a call may take that does not say so
                itself; ``math.inf`` for no limit.
            max_pending: how many marks may wait; the next one is refused.
            store: the server's name for logs and observers.
            observer: called after each attempt.
            retry: whether to send a batch again after its connection broke. If not,
                its calls get a `NotCommitted` at the first failure: on a cluster,
                another node may have their shard.
            trials: whether to note, of marks on trial, that they were sent.
        """
        super().__init__()
        self._connection = connection
        self._new_batch = new_batch
        self._retry = retry
        self._trials = trials
        self._timeout = timeout
        self._store = store
        self._observer = observer
        self._outage = Outage(store, time.monotonic)
        #: How often in a row the connection has failed, the last failure, the pauses of
        #: this series of attempts, and when to make the next one.
        self._failures = 0
        self._failure: StoreError | None = None
        self._backoff = Backoff()
        self._retry_at = 0.0
        self._queue = WriteQueue(min(MAX_WAITING, max_pending))
        self._max_pending = max_pending
        self._sizer = BatchSizer()
        self._in_flight: InFlightBatch | None = None
        #: The cancel scope of an attempt to connect.
        self._connecting: anyio.CancelScope | None = None
        self._aborting: asyncio.Task[None] | None = None
        #: Whether a caller or the task is sending, or about to.
        self._led = False
        self._task: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._became_idle: anyio.Event | None = None
        self._aborted = False
        self._totals = Totals()

    def submit(self, mark: Mark, timeout: float | None = None) -> Awaitable[Result]:
        """Send a mark. What is returned must be awaited at once.

        Arguments:
            mark: the mark.
            timeout: how many seconds it has; ``None`` for the usual ones.

        Cancelled: the mark is not sent, or it is applied whole.

        Raises:
            ClosedError, WrongEventLoopError: it cannot be used, or not here.
            OverloadedError: too many are waiting.
            InvalidTypeError, InvalidValueError: there is no such timeout.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise no_loop() from None
        if loop is not self._loop:
            self._bind(loop)
        queue = self._queue
        if timeout is not None or not self._led or queue.is_full:
            return self._admit(self._write(mark, (), timeout, loop), loop)
        # What `_admit` would do, for the many that follow a leader.
        seconds = self._timeout
        future = loop.create_future()
        queue.put((future, loop.time() + seconds, mark, (), seconds), 1)
        return future

    def submit_together(
        self, marks: Sequence[Mark], timeout: float | None = None
    ) -> Awaitable[list[Result]]:
        """Send one or more marks in one transaction. What is returned must be awaited at once.

        Cancelled: no mark is sent, or all are applied. Raises as `submit`.
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
        """Send one mark, or several in one transaction. What is returned must be awaited at once.

        Arguments:
            mark, marks: the one, or the others.
            deadline: when to give up, in the event loop's time.
            seconds: how many there were for it.
            loop: the running one.
        """
        if loop is not self._loop:
            self._bind(loop)
        queue = self._queue
        future = loop.create_future()
        write = (future, deadline, mark, marks, seconds)
        if not self._led or queue.is_full:
            return self._admit(write, loop)
        queue.put(write, len(marks) or 1)
        return future

    def is_stuck(self, seconds: float) -> bool:
        """Return whether the batch in flight was sent longer ago than that."""
        in_flight = self._in_flight
        return (
            in_flight is not None
            and bool(in_flight.sent_at)
            and (time.perf_counter() - in_flight.sent_at > seconds)
        )

    def abort(self) -> None:
        """Make the batch in flight fail now."""
        if self._in_flight is not None and self._in_flight.on_the_wire:
            self._aborting = asyncio.get_running_loop().create_task(self._connection.abort())

    def stats(self) -> Stats:
        """Return what was done so far."""
        return self._totals.stats(count(self._pending()) + self._queue.waiting)

    async def close(self) -> None:
        """Accept nothing more, wait until nothing is left to send, then disconnect.

        Cancelled: fails what is left, and disconnects. May be called again.
        """
        self.end_use()
        try:
            await self._until_idle()
        except BaseException:
            self.fail_all()
            with anyio.CancelScope(shield=True):
                await self._until_idle()
            raise
        finally:
            if self._watch is not None:
                self._watch.cancel()
            await self._connection.close(gently=True)
            self._closing_on = None

    def discard(self) -> None:
        """Close all at once, after the event loop has been closed."""
        self.end_use()
        self._closing_on = None
        self._connection.discard()

    # --- callers

    def _write(
        self,
        mark: Mark | None,
        marks: Sequence[Mark],
        timeout: float | None,
        loop: asyncio.AbstractEventLoop,
    ) -> PendingWrite:
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        return loop.create_future(), loop.time() + seconds, mark, marks, seconds

    def _admit(self, write: PendingWrite, loop: asyncio.AbstractEventLoop) -> Awaitable[Any]:
        queue = self._queue
        if queue.is_full:
            pending = queue.size + queue.waiting
            if pending >= self._max_pending:
                raise overloaded(pending, "marks", self._max_pending)
            return self._admit_later(write, loop)
        return self._enqueue(write, loop)

    async def _admit_later(self, write: PendingWrite, loop: asyncio.AbstractEventLoop) -> Any:
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
            self._signal_idle()
        return await result

    def _enqueue(self, write: PendingWrite, loop: asyncio.AbstractEventLoop) -> Awaitable[Any]:
        self._watch_until(write[1], loop)
        # Where the last batch was of several callers, more of them will follow in this
        # step of the loop, as web requests come in bursts: a task sends in the next one.
        alone = self._sizer.last_size <= 1 and self._in_flight is None
        # A caller that leads does not see its own deadline while a thread works for it.
        alone = alone and len(write[3]) <= LARGE
        if alone and not self._led and self._connection.ready:
            return self._lead(write)
        self._queue.put(write, len(write[3]) or 1)
        if not self._led:
            self._led = True
            self._task = loop.create_task(self._drain())
        return write[0]

    async def _lead(self, write: PendingWrite) -> Any:
        """Send the only write there is over a connection that is ready, then hand over."""
        future = write[0]
        try:
            self._led = True  # here: a signal handler that raises may keep it from beginning
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
            while self._is_wanted():
                in_flight = self._in_flight = self._next_batch()
                await self._send(in_flight)
                if self._in_flight is not None or (self._queue and self._sizer.fast):
                    continue
                if len(in_flight.writes) == 1 and not self._queue:
                    break  # a lone caller is served faster without a task
                # Callers that have just got their results may mark again. Over a link with
                # a long round trip, they had better not miss the next batch.
                await asyncio.sleep(0)
                self._sizer.returning = 0
            await self._connection.release()
        finally:
            self._hand_over()

    def _hand_over(self) -> None:
        """Let a task go on if a caller waits; else become idle."""
        if (self._in_flight is not None or self._queue) and self._is_wanted():
            self._task = asyncio.get_running_loop().create_task(self._drain())
            return
        self._led = False
        self._sizer.returning = 0
        self._task = None
        if self._queue:
            # Their callers have all gone, and others may wait for their places.
            self._queue.clear()
        self._signal_idle()

    def _pending(self) -> Iterator[PendingWrite]:
        """Return the writes whose callers wait, in call order."""
        in_flight = self._in_flight.writes if self._in_flight is not None else ()
        return live(itertools.chain(in_flight, self._queue))

    def _is_wanted(self) -> bool:
        return next(self._pending(), None) is not None

    def _signal_idle(self) -> None:
        if self._became_idle is not None and not self._led and not self._queue.waiting:
            self._became_idle.set()
            self._became_idle = None

    async def _until_idle(self) -> None:
        while self._led or self._queue.waiting:
            self._became_idle = self._became_idle or anyio.Event()
            await self._became_idle.wait()

    # --- batches

    async def _send(self, in_flight: InFlightBatch) -> None:
        """Make one attempt to commit a batch.

        Cancelled: leaves the batch in flight, for the next leader.
        """
        try:
            results = await self._exchange(in_flight)
        except StoreError as error:
            # `_expire` closed the connection at the deadline.
            failure = StoreTimeoutError(str(error)) if in_flight.given_up else error
            try:
                self._observe(in_flight, failure)
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
                # Such as one of a signal handler. It is raised as it is, and the marks of
                # the other callers are sent again.
                failure = StoreUnavailableError(f"interrupted by {error!r:.80}")
                self._attempt_failed(in_flight, failure)
            raise
        else:
            self._in_flight = None
            if results is None:
                return
            try:
                if self._observer is not None:
                    self._observe(in_flight, None)
            finally:
                self._committed(in_flight, results)

    async def _exchange(self, in_flight: InFlightBatch) -> list[Result] | None:
        """Send a batch and return its results; ``None`` if no caller waits any more."""
        if in_flight.on_the_wire:
            self._check_deadline(in_flight)
        else:
            if in_flight.large or not self._connection.ready:
                await self._prepare(in_flight)
                if not in_flight.writes:
                    return None
            in_flight.sent = True
            if self._trials:
                for _, _, mark, marks, _ in in_flight.writes:
                    note_sent(marks or (cast("Mark", mark),))
            in_flight.sent_at = time.perf_counter()
            await self._connection.send(in_flight.data)
            in_flight.on_the_wire = True
            self._totals.bytes_sent += len(in_flight.data)
        await self._connection.receive(in_flight.replies, in_flight.batch.reply_count())
        if in_flight.large:
            return await anyio.to_thread.run_sync(in_flight.batch.settle, in_flight.replies)
        return in_flight.batch.settle(in_flight.replies)

    async def _prepare(self, in_flight: InFlightBatch) -> None:
        """Build a large batch and connect; drop the writes of calls that end meanwhile.

        The error of a call whose deadline passes here says that nothing was sent.
        """
        if in_flight.large:
            await anyio.to_thread.run_sync(in_flight.build)
        if not self._connection.ready:
            await self._connect(in_flight)
        if any(write[0].done() for write in in_flight.writes):
            in_flight.rebuild(list(live(in_flight.writes)), self._new_batch())

    def _observe(self, in_flight: InFlightBatch, failure: StoreError | None) -> None:
        if self._observer is None:
            return
        seconds = time.perf_counter() - in_flight.sent_at if in_flight.sent_at else 0.0
        size, written = count(in_flight.writes), len(in_flight.data) if in_flight.sent else 0
        operation = Operation("write", self._store, size, written, time.time(), seconds, failure)
        observe(self._observer, operation)

    async def _connect(self, in_flight: InFlightBatch) -> None:
        """Connect; after a failure, pause before that."""
        loop = asyncio.get_running_loop()
        seconds = in_flight.deadline - loop.time()
        with anyio.move_on_after(None if seconds == math.inf else seconds) as scope:
            self._connecting = scope
            try:
                # If there is less time than that, the attempt is made all the same.
                pause = min(self._retry_at - loop.time(), seconds / 2)
                if self._failures and pause > 0:
                    await anyio.sleep(pause)
                await self._connection.connect()
            finally:
                self._connecting = None
        if scope.cancelled_caught:
            raise self._failure or StoreTimeoutError

    def _check_deadline(self, in_flight: InFlightBatch) -> None:
        """Bound the time that a batch, whose leader was cancelled, may take from others."""
        loop = asyncio.get_running_loop()
        if loop.time() >= in_flight.deadline:
            raise StoreTimeoutError
        self._watch_until(in_flight.deadline, loop)

    def _next_batch(self) -> InFlightBatch:
        """Return the batch to go on with, or a new one from the queue; some caller waits."""
        in_flight = self._in_flight
        if in_flight is None:
            return self._take_batch()
        if in_flight.on_the_wire:
            return in_flight
        # To be sent again, without the writes whose callers have gone meanwhile.
        writes = list(live(in_flight.writes))
        if not writes:
            return self._take_batch()
        again = batch_of(writes, self._new_batch())
        again.sent = in_flight.sent
        self._totals.retries += in_flight.sent
        return again

    def _take_batch(self) -> InFlightBatch:
        """Take as many of the waiting writes as should share a transaction."""
        in_flight, expired = self._queue.take_batch(
            self._new_batch(),
            limit=self._sizer.limit(self._queue.size),
            expected_end=asyncio.get_running_loop().time() + self._sizer.expected_duration,
        )
        self._fail(expired, self._failure or StoreTimeoutError(), sent=False, missed=_NOT_SENT)
        return in_flight

    def _attempt_failed(self, in_flight: InFlightBatch, failure: StoreError) -> None:
        """Arrange for another attempt, or end the calls of a batch with an error."""
        in_flight.on_the_wire = False
        now = asyncio.get_running_loop().time()
        expired = now >= in_flight.deadline
        final = expired or not isinstance(failure, TRANSIENT)
        self._outage.failed(failure, final=final)
        if expired and in_flight.sent:
            seconds = time.perf_counter() - in_flight.sent_at
            self._sizer.timed_out(count(in_flight.writes), seconds)
        if final or not self._retry:
            self._in_flight = None
            self._fail(in_flight.writes, failure, sent=in_flight.sent)
            if not self._retry:  # the waiting ones need not find out one after the other
                self._fail(self._queue, failure, sent=False)
        else:
            self._failures += 1
            self._failure = failure
            self._retry_at = now + self._backoff.next()

    def _committed(self, in_flight: InFlightBatch, results: list[Result]) -> None:
        """Give each caller its results."""
        if self._outage.lasts:
            self._outage.end()
        if self._failures:
            self._failures = 0
            self._failure = None
            self._backoff = Backoff()
        seconds = time.perf_counter() - in_flight.sent_at
        self._sizer.completed(len(results), seconds, self._timeout)
        retriable = in_flight.batch.blameless
        again: list[PendingWrite] = []
        at = 0
        for write in in_flight.writes:
            future, _, mark, marks, _ = write
            begin = at
            at += len(marks) or 1
            if retriable and retriable.issuperset(range(begin, at)):
                again.append(write)
            elif not future.done():
                future.set_result(results[begin:at] if mark is None else results[begin])
        # Redis applies nothing of a transaction with a mark that it refuses. The other
        # marks go again, before all others and without that one.
        postponed = self._queue.put_back(again) if again else 0
        refused = in_flight.batch.refused
        self._totals.settle(results, refused=refused, postponed=postponed)

    def _fail(
        self,
        writes: Iterable[PendingWrite],
        failure: TallymarkError,
        *,
        sent: bool,
        missed: str = "",
    ) -> None:
        """End calls with an error."""
        final = bool(missed)
        missed = missed or ("Redis did not answer" if sent else "there was no connection to Redis")
        for future, _, mark, marks, seconds in live(writes):
            if not self._retry:
                future.set_result(NotCommitted(failure, sent, missed, final))
                continue
            self._totals.errors += len(marks) or 1
            error = with_outcome(failure, sent=sent, timeout=seconds, missed=missed)
            future.set_result([error] * len(marks) if mark is None else error)

    # --- deadlines

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        """Fail the calls whose deadline has passed, and look again at the next deadline."""
        now = loop.time()
        in_flight = self._in_flight
        following = [now + self._timeout] if self._led else []  # of calls yet to come
        if in_flight is not None:
            late = [write for write in in_flight.writes if write[1] <= now]
            self._fail(late, self._failure or StoreTimeoutError(), sent=in_flight.sent)
            if now < in_flight.deadline:
                following.append(in_flight.deadline)
            elif self._connecting is None:
                in_flight.given_up = True
                self._aborting = loop.create_task(self._connection.abort())
        late = [write for write in self._queue if write[1] <= now]
        self._fail(late, self._failure or StoreTimeoutError(), sent=False, missed=_NOT_SENT)
        following += [write[1] for write in self._pending()]
        self._watch = None
        if following:
            self._watch_until(max(min(following), now + _WATCH_EVERY), loop)

    def _watch_until(self, deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        """Call `_expire` no later than then."""
        if self._watch is not None:
            if self._watch.when() <= deadline:
                return
            self._watch.cancel()
        if deadline != math.inf:
            self._watch = loop.call_at(deadline, self._expire, loop)

    def fail_all(self) -> None:
        """End all calls with an error now."""
        self._aborted = True
        if self._in_flight is not None:
            self._fail(self._in_flight.writes, _closed(), sent=self._in_flight.sent)
        self._fail(list(self._queue), _closed(), sent=False)
        if self._connecting is not None:
            self._connecting.cancel()
        else:
            self._aborting = asyncio.get_running_loop().create_task(self._connection.abort())


def _closed() -> ClosedError:
    return ClosedError("the tally was closed")
