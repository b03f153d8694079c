"""Group commit: marks of concurrent tasks share transactions.

While one batch is on the wire, the marks of other tasks gather, and leave
together in the next one: an idle tally sends at once, a busy one fills its
batches by itself. There is no timer to wait for and no task that outlives the
work. As in the write groups of storage engines, the first caller leads: it
sends its own mark without a detour. If others have gathered meanwhile, a task
sends for them, for as long as marks keep coming.

Each mark has a future of its own, so a caller that is cancelled takes nobody
with it. Where a leader is cancelled, its batch stays on the wire, and whoever
comes next reads the rest of its replies: the connection stays in step, and no
later mark can overtake one that was sent.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

from .._core.failures import TRANSIENT, overloaded, with_outcome
from .._core.observers import Operation, Outage, observe
from .._core.options import checked_timeout
from .._marking.stats import Totals
from ..errors import (
    ClosedError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    TallymarkError,
)
from .flights import LARGE, MAX_BATCH_MARKS, Bounced, boarded, boarding, count, live
from .loop_bound import OfOneLoop, no_loop, running_loop
from .room import Room

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from .._cluster.shard_transactions import ShardBatches
    from .._core.observers import Observer
    from .._marking.batch import Batch
    from .._marking.marks import Mark, Result
    from .._marking.stats import Stats
    from .connection import Link
    from .flights import Flight, Write

__all__ = ["MAX_WAITING", "GroupCommit"]

#: How many marks wait for a batch at most; callers beyond that wait for room.
MAX_WAITING: Final = 10_000

#: Calls whose time is up are told so at most this many seconds late.
_WATCH_EVERY: Final = 0.01

#: So many marks leave together even if that is all there are.
_UNDIVIDED: Final = 16

#: About what a mark takes us. A flight that takes longer than its marks do has a long
#: way to go; splitting what waits in two would only make half of it wait for two flights.
_SECONDS_PER_MARK: Final = 10e-6

#: After a flight that took less than this part of the time that calls have, the next
#: one may be twice as large, if they had to be made smaller before.
_SHORT: Final = 0.25

#: What a call is told that never got that far.
_NO_TURN: Final = "its turn did not come"


class GroupCommit(OfOneLoop):
    """Sends marks over one connection, those of several callers in one transaction.

    Belongs to one event loop.
    """

    def __init__(
        self,
        link: Link,
        *,
        new_batch: Callable[[], Batch | ShardBatches],
        timeout: float,
        max_pending: int,
        store: str = "Redis",
        observer: Observer | None = None,
        backoff: Callable[[], Callable[[int], float]],
        bounces: bool = False,
    ) -> None:
        """Begin idle.

        Arguments:
            link: the connection, which nobody else uses.
            new_batch: makes an empty batch.
            timeout: how many seconds a call may take that does not say so
                itself; ``math.inf`` for no limit.
            max_pending: how many marks may wait; the next one is refused.
            store: how logs and observers call the server.
            observer: is told of each attempt.
            backoff: begins a series of attempts; what it returns tells the
                seconds to pause after so many failures.
            bounces: whether calls get a `Bounced` at the first failure, instead of
                another attempt here; for who knows other ways.
        """
        super().__init__()
        self._link = link
        self._new_batch = new_batch
        self._bounces = bounces
        self._timeout = timeout
        self._backoff = backoff
        self._store = store
        self._observer = observer
        self._outage = Outage(store, time.monotonic)
        #: How often in a row the connection has failed, why, how long to pause after so
        #: many failures, and so when to try again.
        self._failures = 0
        self._failure: StoreError | None = None
        self._pause = backoff()
        self._retry_at = 0.0
        self._room = Room(min(MAX_WAITING, max_pending))
        self._max_pending = max_pending
        self._waiting: deque[Write] = deque()
        #: How many marks the last flight had, how many of its callers have had no
        #: chance to come again, and whether it took no longer than its marks take us.
        self._landed = 0
        self._landing = 0
        self._quick = False
        #: How long the last two flights took, and how many marks the next one may have.
        self._took = (0.0, 0.0)
        self._most = MAX_BATCH_MARKS
        self._flight: Flight | None = None
        #: Where a flight is being prepared.
        self._scope: anyio.CancelScope | None = None
        self._aborting: asyncio.Task[None] | None = None
        #: Whether a caller or the task is sending, or about to.
        self._led = False
        self._task: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._became_idle: anyio.Event | None = None
        self._abandoned = False
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
        room = self._room
        if timeout is not None or not self._led or room.crowded:
            return self._enter(self._write(mark, (), timeout, loop), loop)
        # What `_enter` would do, for the many that follow a leader.
        seconds = self._timeout
        future = loop.create_future()
        room.enter(1)
        self._waiting.append((future, loop.time() + seconds, mark, (), seconds))
        return future

    def submit_together(
        self, marks: Sequence[Mark], timeout: float | None = None
    ) -> Awaitable[list[Result]]:
        """Send one or more marks in one transaction. What is returned must be awaited at once.

        Cancelled: no mark is sent, or all are applied. Raises as `submit`.
        """
        loop = running_loop()
        self._bind(loop)
        return self._enter(self._write(None, marks, timeout, loop), loop)

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
        room = self._room
        future = loop.create_future()
        write = (future, deadline, mark, marks, seconds)
        if not self._led or room.crowded:
            return self._enter(write, loop)
        room.enter(len(marks) or 1)
        self._waiting.append(write)
        return future

    def holds_up(self, seconds: float) -> bool:
        """Return whether what is on the wire has been there for so long."""
        flight = self._flight
        return (
            flight is not None
            and bool(flight.left)
            and (time.perf_counter() - flight.left > seconds)
        )

    def break_off(self) -> None:
        """Have what is on the wire fail now."""
        if self._flight is not None and self._flight.on_the_wire:
            self._aborting = asyncio.get_running_loop().create_task(self._link.abort())

    def stats(self) -> Stats:
        """Return what was done so far."""
        return self._totals.stats(count(self._unsettled()) + self._room.outside)

    async def close(self) -> None:
        """Accept nothing more, wait until nothing is left to send, then disconnect.

        Cancelled: fails what is left, and disconnects. May be called again.
        """
        self.end_use()
        try:
            await self._until_idle()
        except BaseException:
            self.abandon()
            with anyio.CancelScope(shield=True):
                await self._until_idle()
            raise
        finally:
            if self._watch is not None:
                self._watch.cancel()
            await self._link.close(gently=True)
            self._closing_on = None

    def discard(self) -> None:
        """Close all at once, after the event loop has been closed."""
        self.end_use()
        self._closing_on = None
        self._link.discard()

    # --- callers

    def _write(
        self,
        mark: Mark | None,
        marks: Sequence[Mark],
        timeout: float | None,
        loop: asyncio.AbstractEventLoop,
    ) -> Write:
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        return loop.create_future(), loop.time() + seconds, mark, marks, seconds

    def _enter(self, write: Write, loop: asyncio.AbstractEventLoop) -> Awaitable[Any]:
        room = self._room
        if room.crowded:
            pending = room.taken + room.outside
            if pending >= self._max_pending:
                raise overloaded(pending, "marks", self._max_pending)
            return self._enter_later(write, loop)
        return self._queue(write, loop)

    async def _enter_later(self, write: Write, loop: asyncio.AbstractEventLoop) -> Any:
        """Wait for room, then do as all others."""
        future, places = write[0], count([write])
        result: Awaitable[Any] = future
        entered = False
        try:
            with anyio.CancelScope(deadline=write[1]):
                await self._room.wait(places)
                entered = True
                if self._abandoned:
                    self._fail([write], _closed(), sent=False)
                elif not future.done():
                    result = self._queue(write, loop)
                self._room.entered(places)
            if not entered:
                waited = f"no room among {self._room.taken} waiting marks"
                self._fail([write], StoreTimeoutError(), sent=False, missed=waited)
        finally:
            self._tell_if_idle()
        return await result

    def _queue(self, write: Write, loop: asyncio.AbstractEventLoop) -> Awaitable[Any]:
        self._watch_until(write[1], loop)
        # Where the last batch was of several callers, more of them will follow in this
        # step of the loop, as web requests come in bursts: a task sends in the next one.
        solitary = self._landed <= 1 and self._flight is None and self._link.ready
        if len(write[3]) > LARGE:
            solitary = False  # who leads does not see its own deadline while others work
        if solitary and not self._led:
            return self._lead(write)
        self._room.enter(count([write]))
        self._waiting.append(write)
        if not self._led:
            self._led = True
            self._task = loop.create_task(self._commit())
        return write[0]

    async def _lead(self, write: Write) -> Any:
        """Send the one write there is over a connection that is ready, and let others go on."""
        future = write[0]
        try:
            self._led = True  # here: a signal handler that raises may keep it from beginning
            flight = self._flight = boarded((write,), self._new_batch())
            await self._fly(flight)
        except BaseException:
            future.cancel()
            raise
        finally:
            self._hand_over()
        return await future

    async def _commit(self) -> None:
        """Send batches for as long as marks keep coming."""
        try:
            while self._is_wanted():
                flight = self._flight = self._next_flight()
                await self._fly(flight)
                if self._flight is not None or (self._waiting and self._quick):
                    continue
                if len(flight.writes) == 1 and not self._waiting:
                    break  # a single caller is served faster without a task
                # Those who have just got their results may have more to send. Over a
                # long way, they had better not miss the next flight.
                await asyncio.sleep(0)
                self._landing = 0
            await self._link.rest()
        finally:
            self._hand_over()

    def _hand_over(self) -> None:
        """Let a task go on if anybody waits; else be idle."""
        if (self._flight is not None or self._waiting) and self._is_wanted():
            self._task = asyncio.get_running_loop().create_task(self._commit())
            return
        self._led = False
        self._landing = 0
        self._task = None
        if self._waiting:
            # They have all gone, and others may wait for their room.
            self._room.leave(count(self._waiting))
            self._waiting.clear()
        self._tell_if_idle()

    def _unsettled(self) -> Iterator[Write]:
        """Return the writes whose callers wait, in call order."""
        flying = self._flight.writes if self._flight is not None else ()
        return live(itertools.chain(flying, self._waiting))

    def _is_wanted(self) -> bool:
        return next(self._unsettled(), None) is not None

    def _tell_if_idle(self) -> None:
        if self._became_idle is not None and not self._led and not self._room.outside:
            self._became_idle.set()
            self._became_idle = None

    async def _until_idle(self) -> None:
        while self._led or self._room.outside:
            self._became_idle = self._became_idle or anyio.Event()
            await self._became_idle.wait()

    # --- flights

    async def _fly(self, flight: Flight) -> None:
        """Make one attempt to bring a batch to its end.

        Cancelled: leaves the flight for others to go on with.
        """
        try:
            results = await self._exchanged(flight)
        except StoreError as error:
            # We closed the connection if time was up.
            failure = StoreTimeoutError(str(error)) if flight.given_up else error
            try:
                self._observe(flight, failure)
            finally:
                try:
                    await self._link.close()
                finally:
                    self._interrupted(flight, failure)
        except BaseException as error:
            # The connection owes replies, which whoever comes next will read.
            in_step = flight.on_the_wire and isinstance(error, asyncio.CancelledError)
            if not in_step or not self._link.owned:
                flight.on_the_wire = False
                await self._link.close()
            if isinstance(error, Exception):
                # Such as one of a signal handler. It goes its way, and the other callers'
                # marks are sent again.
                self._interrupted(flight, StoreUnavailableError(f"interrupted by {error!r:.80}"))
            raise
        else:
            self._flight = None
            if results is None:
                return
            try:
                if self._observer is not None:
                    self._observe(flight, None)
            finally:
                self._settle(flight, results)

    async def _exchanged(self, flight: Flight) -> list[Result] | None:
        """Send a batch and return its results; None if nobody waits for it any more."""
        if flight.on_the_wire:
            self._check_time(flight)
        else:
            if flight.large and not await self._build(flight):
                return None
            if not self._link.ready:
                await self._prepare(flight)
            flight.sent = True
            flight.left = time.perf_counter()
            await self._link.send(flight.data)
            flight.on_the_wire = True
            self._totals.bytes_sent += len(flight.data)
        await self._link.receive(flight.replies, flight.batch.reply_count())
        if flight.large:
            return await anyio.to_thread.run_sync(flight.batch.settle, flight.replies)
        return flight.batch.settle(flight.replies)

    async def _build(self, flight: Flight) -> bool:
        """Put a large flight together in a thread; return whether anybody still waits for it."""
        await anyio.to_thread.run_sync(flight.build)
        return next(live(flight.writes), None) is not None

    def _observe(self, flight: Flight, failure: StoreError | None) -> None:
        if self._observer is None:
            return
        seconds = time.perf_counter() - flight.left if flight.left else 0.0
        size, written = count(flight.writes), len(flight.data) if flight.sent else 0
        told = Operation("write", self._store, size, written, time.time(), seconds, failure)
        observe(self._observer, told)

    async def _prepare(self, flight: Flight) -> None:
        """Connect; after a failure, pause before that."""
        loop = asyncio.get_running_loop()
        seconds = flight.deadline - loop.time()
        with anyio.move_on_after(None if seconds == math.inf else seconds) as scope:
            self._scope = scope
            try:
                # If there is less time than that, the attempt is made all the same.
                pause = min(self._retry_at - loop.time(), seconds / 2)
                if self._failures and pause > 0:
                    await anyio.sleep(pause)
                await self._link.connect()
            finally:
                self._scope = None
        if scope.cancelled_caught:
            raise self._failure or StoreTimeoutError

    def _check_time(self, flight: Flight) -> None:
        """See to it that a flight that was left behind does not keep others for ever."""
        loop = asyncio.get_running_loop()
        if loop.time() >= flight.deadline:
            raise StoreTimeoutError
        self._watch_until(flight.deadline, loop)

    def _next_flight(self) -> Flight:
        """Return the flight to go on with, or a new one of what is waiting; somebody waits."""
        flight = self._flight
        if flight is None:
            return self._take_waiting()
        if flight.on_the_wire:
            return flight
        # To be sent again, but for those who have gone meanwhile.
        writes = list(live(flight.writes))
        if not writes:
            return self._take_waiting()
        again = boarded(writes, self._new_batch())
        again.sent = flight.sent
        self._totals.retries += flight.sent
        return again

    def _take_waiting(self) -> Flight:
        """Take as many of the waiting writes as should share a transaction."""
        limit = self._most
        if self._quick:
            # While Redis works on one half of the callers' marks, we work on the other.
            half = (self._room.taken + self._landing) // 2
            limit = min(limit, max(_UNDIVIDED, half))
        # Of two, for one alone may have been held up by what is over now.
        horizon = asyncio.get_running_loop().time() + min(self._took)
        flight, hopeless, left = boarding(self._waiting, limit, self._new_batch(), horizon=horizon)
        self._room.leave(left)
        self._fail(hopeless, self._failure or StoreTimeoutError(), sent=False, missed=_NO_TURN)
        return flight

    def _interrupted(self, flight: Flight, failure: StoreError) -> None:
        """See to a flight whose connection has gone: it is tried again, or fails."""
        flight.on_the_wire = False
        now = asyncio.get_running_loop().time()
        time_is_up = now >= flight.deadline
        final = time_is_up or not isinstance(failure, TRANSIENT)
        self._outage.failed(failure, final=final)
        if time_is_up and flight.sent:
            # Where Redis or the network is that slow, fewer marks may arrive in time.
            self._took = (self._took[1], time.perf_counter() - flight.left)
            self._most = max(_UNDIVIDED, count(flight.writes) // 2)
        if final or self._bounces:
            self._flight = None
            self._fail(flight.writes, failure, sent=flight.sent)
            if self._bounces:  # those who wait need not find out one after the other
                self._fail(self._waiting, failure, sent=False)
        else:
            self._failures += 1
            self._failure = failure
            self._retry_at = now + self._pause(self._failures)

    def _settle(self, flight: Flight, results: list[Result]) -> None:
        """Give every caller its results."""
        if self._outage.lasts:
            self._outage.is_over()
        if self._failures:
            self._failures = 0
            self._failure = None
            self._pause = self._backoff()
        self._landed = self._landing = len(results)
        took = time.perf_counter() - flight.left
        self._quick = took < self._landed * _SECONDS_PER_MARK
        self._took = (self._took[1], took)
        if self._most < MAX_BATCH_MARKS and took < _SHORT * self._timeout:
            self._most = min(MAX_BATCH_MARKS, 2 * self._most)
        blameless = flight.batch.blameless
        again: list[Write] = []
        at = 0
        for write in flight.writes:
            future, _, mark, marks, _ = write
            begin = at
            at += len(marks) or 1
            if blameless and blameless.issuperset(range(begin, at)):
                again.append(write)
            elif not future.done():
                future.set_result(results[begin:at] if mark is None else results[begin])
        # Nothing was applied of what shared a transaction with a mark that was
        # refused. It goes again, before all others and without that mark.
        postponed = count(again)
        self._waiting.extendleft(reversed(again))
        self._room.enter(postponed)
        refused = flight.batch.refused
        self._totals.settle(results, refused=refused, postponed=postponed)

    def _fail(
        self, writes: Iterable[Write], failure: TallymarkError, *, sent: bool, missed: str = ""
    ) -> None:
        """End calls with an error."""
        final = bool(missed)
        missed = missed or ("Redis did not answer" if sent else "there was no connection to Redis")
        for future, _, mark, marks, seconds in live(writes):
            if self._bounces:
                future.set_result(Bounced(failure, sent, missed, final))
                continue
            self._totals.errors += len(marks) or 1
            error = with_outcome(failure, sent=sent, timeout=seconds, missed=missed)
            future.set_result([error] * len(marks) if mark is None else error)

    # --- time

    def _give_up(self, loop: asyncio.AbstractEventLoop) -> None:
        """Fail the calls whose time is up, and look again when the next one's is."""
        now = loop.time()
        flight = self._flight
        following = [now + self._timeout] if self._led else []  # of who comes from now on
        if flight is not None:
            late = [write for write in flight.writes if write[1] <= now]
            self._fail(late, self._failure or StoreTimeoutError(), sent=flight.sent)
            if now < flight.deadline:
                following.append(flight.deadline)
            elif self._scope is None:
                flight.given_up = True
                self._aborting = loop.create_task(self._link.abort())
        late = [write for write in self._waiting if write[1] <= now]
        self._fail(late, self._failure or StoreTimeoutError(), sent=False, missed=_NO_TURN)
        following += [write[1] for write in self._unsettled()]
        self._watch = None
        if following:
            self._watch_until(max(min(following), now + _WATCH_EVERY), loop)

    def _watch_until(self, deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        """Call `_give_up` no later than then."""
        if self._watch is not None:
            if self._watch.when() <= deadline:
                return
            self._watch.cancel()
        if deadline != math.inf:
            self._watch = loop.call_at(deadline, self._give_up, loop)

    def abandon(self) -> None:
        """Fail everything now."""
        self._abandoned = True
        if self._flight is not None:
            self._fail(self._flight.writes, _closed(), sent=self._flight.sent)
        self._fail(list(self._waiting), _closed(), sent=False)
        if self._scope is not None:
            self._scope.cancel()
        else:
            self._aborting = asyncio.get_running_loop().create_task(self._link.abort())


def _closed() -> ClosedError:
    return ClosedError("the tally was closed")
