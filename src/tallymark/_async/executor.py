"""The executor of the async driver: performs the effects of executions."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread

from .._core.failures import overloaded
from .._reading.bits import algebra
from .._reading.execution import Computation, Exchange, ExchangeAll, Refresh, Sleep, resume
from .._reading.requests import Checkpoint, Compute, Page
from .._redis.clocks import clocks
from ..errors import StoreError, StoreTimeoutError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from .._reading.execution import Execution, Executions
    from .._reading.requests import Query
    from .pool import ReadPool

__all__ = ["PAUSE", "PAUSE_INTERVAL", "Executor"]

#: A thread that computes without pauses keeps the event loop from running for up to 5 ms at a
#: time (`sys.getswitchinterval`): it has the interpreter's lock. So it sleeps for `PAUSE`
#: seconds after every `PAUSE_INTERVAL` seconds of work.
PAUSE: Final = 50e-6
PAUSE_INTERVAL: Final = 5e-4

#: A `Checkpoint` lets other tasks run if the last one that did was this many seconds ago.
TURN = 5e-3

AnswerT = TypeVar("AnswerT")


class Executor:
    """Answers queries of one tally. Belongs to one event loop."""

    def __init__(
        self,
        executions: Executions,
        pool: Callable[[Exchange], ReadPool],
        close: Callable[[], Awaitable[None]],
        refresh: Callable[[Refresh], Awaitable[None]] | None = None,
    ) -> None:
        """Begin.

        Arguments:
            executions: makes executions of queries.
            pool: returns the connections for an exchange.
            close: closes the connections; called when no query runs any more.
            refresh: performs a `Refresh`; ``None`` without a cluster.
        """
        self._executions = executions
        self._pool = pool
        self._close = close
        self._max_pending = executions.options.max_pending
        self._refresh = refresh
        self._running = 0
        self._became_idle: anyio.Event | None = None
        #: When a `Checkpoint` last gave the event loop a turn, in its time.
        self._turn_at = 0.0

    async def answer(self, query: Query[AnswerT], timeout: float | None = None) -> AnswerT:
        """Return a query's answer.

        Arguments:
            query: the query.
            timeout: how many seconds the whole query may take; ``None`` for the tally's
                timeout for each request.

        Cancelled: the server may still execute the commands that were sent; the connection
        is closed, and all other queries go on.

        Raises:
            InvalidTypeError, InvalidValueError: the query has an argument that
                is not allowed; nothing was sent.
            CommandError: Redis refused.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            OverloadedError: too many queries are running.
            ClosedError, WrongEventLoopError: the tally cannot be used here.
        """
        execution = self._executions.of(query, timeout)
        self._admit()
        try:
            return await self.run(execution)
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
        execution = self._executions.paged(query, timeout)
        try:
            effect = next(execution)
            while True:
                outcome = None
                if isinstance(effect, Page):
                    yield effect.items
                    await self._checkpoint()  # the caller may take pages without waiting
                elif isinstance(effect, Checkpoint):
                    await self._checkpoint()
                else:
                    self._admit()
                    try:
                        outcome = await self._outcome(effect)
                    finally:
                        self._leave()
                effect = resume(execution, outcome)
        except StopIteration:
            return

    async def run(self, execution: Execution[AnswerT]) -> AnswerT:
        """Perform the effects of an execution; return its result."""
        try:
            effect = next(execution)
            while True:
                effect = resume(execution, await self._outcome(effect))
        except StopIteration as end:
            answer: AnswerT = end.value
            return answer

    async def close(self) -> None:
        """Wait for the in-flight queries, then disconnect."""
        try:
            while self._running:
                self._became_idle = self._became_idle or anyio.Event()
                await self._became_idle.wait()
        finally:
            await self._close()

    async def _outcome(self, effect: Any) -> Any:
        """Perform an effect; return its outcome, or the `StoreError` with which it failed."""
        try:
            exchange: Awaitable[Any]
            if isinstance(effect, Exchange):
                exchange = self._pool(effect).exchange(
                    effect.request, effect.deadline, urgent=effect.urgent
                )
            elif isinstance(effect, ExchangeAll):
                exchange = self._exchange_all(effect)
            else:
                return await self._perform(effect)
            if effect.meanwhile is None:
                return await exchange
            return await _beside(Computation(Compute(effect.meanwhile), effect.deadline), exchange)
        except StoreError as failure:
            return failure

    async def _perform(self, effect: Any) -> None:
        if isinstance(effect, Checkpoint):
            await self._checkpoint()
        elif isinstance(effect, Sleep):
            await anyio.sleep(effect.seconds)
        elif isinstance(effect, Computation):
            await _computed(effect)
        elif isinstance(effect, Refresh) and self._refresh is not None:
            await self._refresh(effect)
        else:
            raise TypeError(effect)

    async def _exchange_all(self, effect: ExchangeAll) -> list[list[Any] | StoreError]:
        if len(effect.exchanges) == 1:  # needs no task
            return [await self._outcome(effect.exchanges[0])]
        outcomes: list[Any] = await asyncio.gather(*map(self._outcome, effect.exchanges))
        return outcomes

    async def _checkpoint(self) -> None:
        """Let other tasks run, if no checkpoint has done so for `TURN` seconds."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._turn_at >= TURN:
            await asyncio.sleep(0)
            self._turn_at = loop.time()

    def _admit(self) -> None:
        if self._running >= self._max_pending:
            raise overloaded(self._running, "reads", self._max_pending)
        self._running += 1

    def _leave(self) -> None:
        self._running -= 1
        if self._became_idle is not None and not self._running:
            self._became_idle.set()
            self._became_idle = None


async def _beside(computation: Computation, exchange: Awaitable[AnswerT]) -> AnswerT:
    """Compute in a thread during an exchange; return the replies when both are done."""
    computing = asyncio.create_task(_computed(computation))
    # If the exchange fails, nobody retrieves the task's exception.
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
    """Compute in a thread.

    Cancelled: the thread ends after its present step.

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
    """Do all steps, until stopped. Runs in a thread."""
    pauses = work.pauses or not algebra().releases_gil
    paused = clocks.perf_counter()
    for _ in work.steps:
        if stopped.is_set():
            return
        if pauses and clocks.perf_counter() - paused >= PAUSE_INTERVAL:
            time.sleep(PAUSE)
            paused = clocks.perf_counter()
