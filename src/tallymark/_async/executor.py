"""The async driver's way to ask: queries in, answers out, beside the marks.

Queries have connections of their own, so a long answer keeps no mark waiting;
and what takes the processor long is done in a thread, so it keeps no task
waiting either.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread

from .._core.bits import algebra
from .._core.failures import TRANSIENT, Attempts, overloaded, with_outcome
from .._core.options import checked_timeout
from .._reading.requests import Checkpoint, Found, Nodes, Request, Round, Work
from ..errors import StoreError, StoreTimeoutError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from .._reading.requests import Query, Step
    from .channel import Channel

__all__ = ["BaseReader", "Reader"]

#: A thread that reckons without a break keeps the event loop from running for up to 5 ms
#: each time (`sys.getswitchinterval`), and Python hands over to whoever waits only while
#: the other sleeps. So it sleeps for so many seconds after so many seconds of work.
_PAUSE: Final = 50e-6
_BETWEEN_PAUSES: Final = 5e-4

#: After so many seconds without a turn of the event loop, a `Checkpoint` is one.
TURN = 5e-3

AnswerT = TypeVar("AnswerT")


class BaseReader:
    """Runs queries, with requests that somebody else brings. Belongs to one event loop."""

    def __init__(
        self, *, timeout: float, max_pending: int, check_usable: Callable[[], None]
    ) -> None:
        """Begin.

        Arguments:
            timeout: how many seconds each request may take, attempts to
                connect included; ``math.inf`` for no limit.
            max_pending: how many requests may wait; the next one is refused.
            check_usable: raises if the tally cannot be used (here).
        """
        self._timeout = timeout
        self._max_pending = max_pending
        self._check_usable = check_usable
        self._asking = 0
        self._became_idle: anyio.Event | None = None

    async def answer(self, query: Query[AnswerT], timeout: float | None = None) -> AnswerT:
        """Return a query's answer.

        Arguments:
            query: the query.
            timeout: how many seconds all of it may take; ``None`` for the
                usual ones, which each of its requests has.

        Cancelled: the server may still do what was sent; the connection is
        closed, and all others go on.

        Raises:
            InvalidTypeError, InvalidValueError: the query has an argument that
                is not allowed; nothing was sent.
            CommandError: Redis refused.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            OverloadedError: too many requests are waiting.
        """
        self._check_usable()
        seconds, ends = self._timeout, None
        if timeout is not None:
            seconds = checked_timeout(timeout)
            ends = asyncio.get_running_loop().time() + seconds
        turns: _Turns | None = None
        try:
            step = next(query)
            while True:
                if isinstance(step, Checkpoint):
                    turns = turns or _Turns()
                    await turns.pause(seconds, ends)
                    step = next(query)
                else:
                    step = query.send(await self._done(step, seconds, ends))
                    turns = None  # it has just had one
        except StopIteration as end:
            answer: AnswerT = end.value
            return answer

    async def stream(
        self, query: Query[None], timeout: float | None = None
    ) -> AsyncGenerator[Any, None]:
        """Yield what a query finds, one by one. Raises as `answer`, where it gets to that."""
        async for part in self.parts(query, timeout):
            for item in part:
                yield item

    async def parts(
        self, query: Query[None], timeout: float | None = None
    ) -> AsyncGenerator[Any, None]:
        """Yield what a query finds, part by part; each request has so many seconds.

        Raises as `answer`.
        """
        self._check_usable()
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        turns = _Turns()
        began = turns.last
        with contextlib.suppress(StopIteration):
            step = next(query)
            while True:
                if isinstance(step, Found):
                    yield step.items
                    # Whoever takes them may never wait for anything.
                    await turns.pause(seconds, None)
                    began = turns.now()
                    step = next(query)
                elif isinstance(step, Checkpoint):
                    await turns.pause(seconds, began + seconds)
                    step = next(query)
                else:
                    outcome = await self._done(step, seconds, None)
                    began = turns.have_been()
                    step = query.send(outcome)

    async def close(self) -> None:
        """Accept no more requests, wait for those under way, and disconnect."""
        try:
            while self._asking:
                self._became_idle = self._became_idle or anyio.Event()
                await self._became_idle.wait()
        finally:
            await self._close()

    async def _done(self, step: Step, seconds: float, ends: float | None) -> Any:
        """Do a step.

        Arguments:
            step: what to do.
            seconds: how many there are for it, or for all steps.
            ends: when all steps have to be done, if that is known.
        """
        if isinstance(step, Request | Round):
            meanwhile = step.meanwhile
            if meanwhile is None:
                return await self._ask(step, seconds, ends)
            work = Work(meanwhile)
            working = asyncio.create_task(self._worked(work, seconds, ends))
            # Where the request fails too, nobody asks how it ended.
            working.add_done_callback(lambda task: task.cancelled() or task.exception())
            try:
                replies = await self._ask(step, seconds, ends)
                await working
            finally:
                working.cancel()
            return replies
        if isinstance(step, Work):
            return await self._worked(step, seconds, ends)
        if isinstance(step, Nodes):
            return [""]  # all shards are on the one server
        raise TypeError(step)

    async def _worked(self, work: Work, seconds: float, ends: float | None) -> None:
        """Do some work in a thread, which ends with the step that it is at if this is cancelled.

        Arguments:
            work: what to do.
            seconds, ends: as for `_done`.

        Raises:
            StoreTimeoutError: time is up.
        """
        deadline = asyncio.get_running_loop().time() + seconds if ends is None else ends
        stopped = threading.Event()
        try:
            with anyio.CancelScope(deadline=deadline):
                await anyio.to_thread.run_sync(_work, work, stopped, abandon_on_cancel=True)
                return
        finally:
            stopped.set()
        raise with_outcome(
            StoreTimeoutError(), sent=None, timeout=seconds, missed="the call was not worked out"
        )

    async def _ask(self, request: Request | Round, seconds: float, ends: float | None) -> list[Any]:
        """Return what a request came to; it is repeated if that may mend it."""
        self._check_usable()
        if self._asking >= self._max_pending:
            raise overloaded(self._asking, "reads", self._max_pending)
        self._asking += 1
        try:
            return await self._settled(request, seconds, ends)
        finally:
            self._asking -= 1
            if self._became_idle is not None and not self._asking:
                self._became_idle.set()
                self._became_idle = None

    async def _settled(
        self, request: Request | Round, seconds: float, ends: float | None
    ) -> list[Any]:
        """Have a request answered and settled; it is repeated if that may mend it.

        Arguments:
            request: the request.
            seconds: how many there are for it, or for all of the query.
            ends: when the query has to be done, if that is known.
        """
        raise NotImplementedError

    @staticmethod
    async def _pause(
        attempts: Attempts, failure: StoreError, deadline: float, seconds: float
    ) -> None:
        """Pause before another attempt.

        Raises:
            StoreError: no time is left.
        """
        left = deadline - asyncio.get_running_loop().time()
        try:
            pause = attempts.pause(failure, left)
        except StoreError as told:
            raise with_outcome(told, sent=None, timeout=seconds) from told.__cause__
        await anyio.sleep(pause)

    async def _close(self) -> None:
        """Disconnect, when nothing is asked any more."""
        raise NotImplementedError

    def discard(self) -> None:
        """Close all at once, after the event loop has been closed."""
        raise NotImplementedError


class Reader(BaseReader):
    """Runs queries over a few connections of a redis-py client. Belongs to one event loop."""

    def __init__(
        self,
        primary: Channel,
        replica: Channel | None = None,
        *,
        timeout: float,
        max_pending: int,
        check_usable: Callable[[], None],
    ) -> None:
        """Begin.

        Arguments:
            primary: connections to the server that takes marks.
            replica: those for what changes nothing, if they are others.
            timeout, max_pending, check_usable: as for `BaseReader`.
        """
        super().__init__(timeout=timeout, max_pending=max_pending, check_usable=check_usable)
        self.primary = primary
        self._replica = replica

    async def _settled(
        self, request: Request | Round, seconds: float, ends: float | None
    ) -> list[Any]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds if ends is None else ends
        channel = self.primary if request.changes or self._replica is None else self._replica
        attempts = Attempts()
        while True:
            why: StoreError
            try:
                return request.settle(await channel.replies(request, deadline))
            except TRANSIENT as failure:
                why = failure
            await self._pause(attempts, why, deadline, seconds)

    async def _close(self) -> None:
        try:
            await self.primary.close()
        finally:
            if self._replica is not None:
                await self._replica.close()

    def discard(self) -> None:
        """Close all at once, after the event loop has been closed."""
        self.primary.discard()
        if self._replica is not None:
            self._replica.discard()


class _Turns:
    """Gives the event loop a turn in the middle of a long computation.

    Attributes:
        now: tells the loop's time.
        last: when it had one last.
    """

    __slots__ = ("last", "now")

    def __init__(self) -> None:
        self.now = asyncio.get_running_loop().time
        self.last = self.now()

    def have_been(self) -> float:
        """Take note of a turn that the loop has had; return when."""
        self.last = self.now()
        return self.last

    async def pause(self, seconds: float, ends: float | None) -> None:
        """Let other tasks run, if none has for a while.

        Arguments:
            seconds: how many seconds there are in all.
            ends: when these are over, if that is known.

        Raises:
            StoreTimeoutError: they are.
        """
        now = self.now()
        if ends is not None and now >= ends:
            missed = "the answer was not worked out"
            raise with_outcome(StoreTimeoutError(), sent=None, timeout=seconds, missed=missed)
        if now - self.last >= TURN:
            await asyncio.sleep(0)
            self.have_been()


def _work(work: Work, stopped: threading.Event) -> None:
    """Do all steps, in a thread of their own, until it is stopped."""
    pauses = work.pauses or not algebra().lets_others_run
    paused = time.perf_counter()
    for _ in work.steps:
        if stopped.is_set():
            return
        if pauses and time.perf_counter() - paused >= _BETWEEN_PAUSES:
            time.sleep(_PAUSE)
            paused = time.perf_counter()
