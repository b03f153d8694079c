"""Performs executions: the only place where a read of the async driver waits."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread

from .._core.failures import overloaded
from .._reading.bits import algebra
from .._reading.execution import Computation, Exchange, ExchangeAll, Refresh, Sleep
from .._reading.requests import Checkpoint, Compute, Page
from ..errors import StoreError, StoreTimeoutError
from .loop_bound import running_loop

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from .._reading.execution import Execution, Executions
    from .._reading.requests import Query
    from .pool import ReadPool

__all__ = ["Executor"]

#: A thread that computes without a break keeps the event loop from running for up to 5 ms
#: each time (`sys.getswitchinterval`), and Python switches to a waiting thread only while
#: the other one sleeps. So it sleeps for so many seconds after so many seconds of work.
_PAUSE: Final = 50e-6
_BETWEEN_PAUSES: Final = 5e-4

#: After so many seconds without a turn of the event loop, a `Checkpoint` is one.
TURN = 5e-3

AnswerT = TypeVar("AnswerT")


class Executor:
    """Answers queries of one tally. Belongs to one event loop."""

    def __init__(
        self,
        executions: Executions,
        pool: Callable[[Exchange], ReadPool],
        close: Callable[[], Awaitable[None]],
        *,
        max_pending: int,
        refresh: Callable[[Refresh], Awaitable[None]] | None = None,
    ) -> None:
        """Begin.

        Arguments:
            executions: makes executions of queries.
            pool: returns the connections for an attempt.
            close: disconnects, when no query runs any more.
            max_pending: how many queries may run; the next one is refused.
            refresh: reads the topology of the cluster.
        """
        self._executions = executions
        self._pool = pool
        self._close = close
        self._max_pending = max_pending
        self._refresh = refresh
        self._running = 0
        self._became_idle: anyio.Event | None = None

    async def answer(self, query: Query[AnswerT], timeout: float | None = None) -> AnswerT:
        """Return a query's answer.

        Arguments:
            query: the query.
            timeout: how many seconds all of it may take; ``None`` for the
                tally's, for each of its requests.

        Cancelled: the server may still execute what was sent; the connection is
        closed, and all other queries go on.

        Raises:
            InvalidTypeError, InvalidValueError: the query has an argument that
                is not allowed; nothing was sent.
            CommandError: Redis refused.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            OverloadedError: too many queries are running.
        """
        self._executions.check_usable()
        self._admit()
        try:
            return await self.run(self._executions.whole(query, timeout))
        finally:
            self._leave()

    async def stream(
        self, query: Query[None], timeout: float | None = None
    ) -> AsyncGenerator[Any, None]:
        """Yield the items of a query's pages. Raises as `answer`."""
        async for page in self.pages(query, timeout):
            for item in page:
                yield item

    async def pages(
        self, query: Query[None], timeout: float | None = None
    ) -> AsyncGenerator[Any, None]:
        """Yield a query's pages; each request may take the timeout. Raises as `answer`."""
        self._executions.check_usable()
        execution = self._executions.paged(query, timeout)
        turns = _Turns()
        try:
            effect = next(execution)
            while True:
                if isinstance(effect, Page):
                    yield effect.items
                if isinstance(effect, Page | Checkpoint):
                    # Whoever takes the items may never wait for anything.
                    await turns.give()
                    effect = next(execution)
                    continue
                self._admit()
                try:
                    outcome = await self._perform(effect)
                except StoreError as failure:
                    effect = execution.throw(failure)
                else:
                    turns.taken()
                    effect = execution.send(outcome)
                finally:
                    self._leave()
        except StopIteration:
            return

    async def run(self, execution: Execution[AnswerT]) -> AnswerT:
        """Perform the effects of an execution; return its result."""
        turns: _Turns | None = None
        try:
            effect = next(execution)
            while True:
                if isinstance(effect, Checkpoint):
                    turns = turns or _Turns()
                    await turns.give()
                    effect = next(execution)
                    continue
                try:
                    outcome = await self._perform(effect)
                except StoreError as failure:
                    effect = execution.throw(failure)
                else:
                    turns = None  # the loop has just had one
                    effect = execution.send(outcome)
        except StopIteration as end:
            answer: AnswerT = end.value
            return answer

    async def close(self) -> None:
        """Wait for the requests in flight, then disconnect; the tally accepts no more."""
        try:
            while self._running:
                self._became_idle = self._became_idle or anyio.Event()
                await self._became_idle.wait()
        finally:
            await self._close()

    async def _perform(self, effect: Any) -> Any:
        if isinstance(effect, Exchange | ExchangeAll):
            exchange = self._replies(effect)
            if effect.meanwhile is None:
                return await exchange
            return await _beside(Computation(Compute(effect.meanwhile), effect.deadline), exchange)
        if isinstance(effect, Sleep):
            return await anyio.sleep(effect.seconds)
        if isinstance(effect, Computation):
            return await _computed(effect)
        if isinstance(effect, Refresh) and self._refresh is not None:
            return await self._refresh(effect)
        raise TypeError(effect)

    def _replies(self, effect: Exchange | ExchangeAll) -> Awaitable[list[Any]]:
        if isinstance(effect, Exchange):
            return self._exchange(effect)
        return self._exchange_all(effect)

    async def _exchange(self, effect: Exchange) -> list[Any]:
        pool = self._pool(effect)
        return await pool.exchange(effect.request, effect.deadline, urgent=effect.urgent)

    async def _exchange_all(self, effect: ExchangeAll) -> list[list[Any] | StoreError]:
        if len(effect.exchanges) == 1:
            return [await self._tried(effect.exchanges[0])]
        return await asyncio.gather(*(self._tried(each) for each in effect.exchanges))

    async def _tried(self, effect: Exchange) -> list[Any] | StoreError:
        try:
            return await self._exchange(effect)
        except StoreError as failure:
            return failure

    def _admit(self) -> None:
        if self._running >= self._max_pending:
            raise overloaded(self._running, "reads", self._max_pending)
        self._running += 1

    def _leave(self) -> None:
        self._running -= 1
        if self._became_idle is not None and not self._running:
            self._became_idle.set()
            self._became_idle = None


class _Turns:
    """Gives the event loop a turn in the middle of a long computation."""

    __slots__ = ("_last", "_now")

    def __init__(self) -> None:
        self._now = running_loop().time
        self._last = self._now()

    def taken(self) -> None:
        """Note that the loop has had a turn."""
        self._last = self._now()

    async def give(self) -> None:
        """Let other tasks run, if none has for a while."""
        if self._now() - self._last >= TURN:
            await asyncio.sleep(0)
            self.taken()


async def _beside(computation: Computation, exchange: Awaitable[AnswerT]) -> AnswerT:
    """Compute in a thread until the replies are there; return them when both are done."""
    computing = asyncio.create_task(_computed(computation))
    # Where the exchange fails too, nobody asks how it ended.
    computing.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        try:
            outcome = await exchange
        except StoreError as error:
            failure = error
        else:
            await computing
            return outcome
    finally:
        computing.cancel()
    raise failure


async def _computed(computation: Computation) -> None:
    """Compute in a thread, which ends with the step that it is at if this is cancelled.

    Raises:
        StoreTimeoutError: the deadline has passed.
    """
    stopped = threading.Event()
    try:
        with anyio.CancelScope(deadline=computation.deadline):
            await anyio.to_thread.run_sync(_work, computation.work, stopped, abandon_on_cancel=True)
            return
    finally:
        stopped.set()
    raise StoreTimeoutError


def _work(work: Compute, stopped: threading.Event) -> None:
    """Do all steps, in a thread of their own, until it is stopped."""
    pauses = work.pauses or not algebra().lets_others_run
    paused = time.perf_counter()
    for _ in work.steps:
        if stopped.is_set():
            return
        if pauses and time.perf_counter() - paused >= _BETWEEN_PAUSES:
            time.sleep(_PAUSE)
            paused = time.perf_counter()
