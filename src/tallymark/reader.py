"""The async driver's way to ask: queries in, answers out, beside the marks.

Queries have connections of their own, so a long answer keeps no mark waiting;
and what takes the processor long is done in a thread, so it keeps no task
waiting either.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread

from . import redis_py
from .bits import algebra
from .errors import StoreTimeoutError, StoreUnavailableError, with_fate
from .link import Link
from .requests import Found, Request, Work
from .sharing import SharedFlights

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from .requests import Query

__all__ = ["MAX_LONG_REQUESTS", "Reader"]

#: A thread that reckons without a break keeps the event loop from running for up to 5 ms
#: each time (`sys.getswitchinterval`), and Python hands over to whoever waits only while
#: the other sleeps. So it sleeps for so many seconds after so many seconds of work.
_PAUSE: Final = 50e-6
_BETWEEN_PAUSES: Final = 5e-4

#: How many long requests are on their way at the same time, beside the small ones that
#: share two round trips; others wait. Redis does one thing at a time, so more of them
#: would not be answered sooner.
MAX_LONG_REQUESTS: Final = 6

AnswerT = TypeVar("AnswerT")


class Reader:
    """Runs queries over a few connections of a redis-py client. Belongs to one event loop."""

    def __init__(self, client: Any, *, timeout: float, check_usable: Callable[[], None]) -> None:
        """Begin without a connection.

        Arguments:
            client: the client.
            timeout: how many seconds each request may take, attempts to
                connect included; ``math.inf`` for no limit.
            check_usable: raises if the tally cannot be used (here).
        """
        self._client = client
        self._timeout = timeout
        self._check_usable = check_usable
        #: Whether the tally made the client.
        self.owned = False
        self._idle: list[Link] = []
        self._shared = SharedFlights(self._attempt)
        self._places = anyio.Semaphore(MAX_LONG_REQUESTS)
        self._asking = 0
        self._became_idle: anyio.Event | None = None
        self._closed = False

    async def answer(self, query: Query[AnswerT]) -> AnswerT:
        """Return a query's answer.

        Cancelled: the server may still do what was sent; the connection is
        closed, and all others go on.

        Raises:
            InvalidTypeError, InvalidValueError: the query has an argument that
                is not allowed; nothing was sent.
            CommandError: Redis refused.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
        """
        self._check_usable()
        try:
            step = next(query)
            while True:
                step = query.send(await self._done(step))
        except StopIteration as end:
            answer: AnswerT = end.value
            return answer

    async def stream(self, query: Query[None]) -> AsyncGenerator[Any, None]:
        """Yield what a query finds, one by one. Raises as `answer`, where it gets to that."""
        async for part in self.parts(query):
            for item in part:
                yield item

    async def parts(self, query: Query[None]) -> AsyncGenerator[Any, None]:
        """Yield what a query finds, part by part. Raises as `answer`."""
        with contextlib.suppress(StopIteration):
            step = next(query)
            while True:
                if isinstance(step, Found):
                    yield step.items
                    step = next(query)
                else:
                    step = query.send(await self._done(step))

    async def close(self) -> None:
        """Accept no more requests, wait for those under way, and disconnect."""
        self._closed = True
        try:
            while self._asking:
                self._became_idle = self._became_idle or anyio.Event()
                await self._became_idle.wait()
            await self._shared.close()
        finally:
            while self._idle:
                await self._idle.pop().close(gently=True)

    async def _done(self, step: Request | Work | Found) -> Any:
        if isinstance(step, Request):
            if step.meanwhile is None:
                return await self._ask(step)
            working = asyncio.create_task(anyio.to_thread.run_sync(_work, step.meanwhile))
            try:
                replies = await self._ask(step)
                await working
            finally:
                working.cancel()
            return replies
        if isinstance(step, Work):
            return await anyio.to_thread.run_sync(_work, step.steps)
        raise TypeError(step)

    async def _ask(self, request: Request) -> list[Any]:
        """Return the replies to a request, which is repeated if its connection breaks."""
        self._check_usable()
        self._asking += 1
        try:
            replies = await self._replies(request)
        finally:
            self._asking -= 1
            if self._became_idle is not None and not self._asking:
                self._became_idle.set()
                self._became_idle = None
        return request.settle(replies)

    async def _replies(self, request: Request) -> list[Any]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        pause = None
        while True:
            try:
                if request.share > 1:
                    return await self._shared.replies(request, deadline)
                return await self._alone(request, deadline)
            except (StoreUnavailableError, StoreTimeoutError) as failure:
                pause = pause or redis_py.backoff()
                seconds = pause.compute(1)
                if loop.time() + seconds >= deadline:
                    raise with_fate(failure, sent=None, timeout=self._timeout) from None
            await anyio.sleep(seconds)

    async def _alone(self, request: Request, deadline: float) -> list[Any]:
        """Send a request that may take the server or the network long."""
        with anyio.CancelScope(deadline=deadline):
            await self._places.acquire()
            try:
                return await self._attempt(request.encode(), request.reply_count(), deadline)
            finally:
                self._places.release()
        raise StoreTimeoutError

    async def _attempt(self, data: bytes, count: int, deadline: float) -> list[Any]:
        """Send commands over a connection that nobody uses, and return their replies."""
        link = self._idle.pop() if self._idle else Link(self._client, owned=self.owned)
        replies: list[Any] = []
        intact = False
        try:
            with anyio.CancelScope(deadline=deadline):
                if not link.ready:
                    await link.connect()
                await link.send(data)
                await link.receive(replies, count)
                intact = True
        finally:
            if not intact or self._closed:
                await link.close()
            elif self.owned:
                self._idle.append(link)
            else:
                await link.rest()
        if not intact:
            raise StoreTimeoutError
        return replies


def _work(steps: Iterator[None]) -> None:
    """Do all steps, in a thread of their own."""
    if algebra().lets_others_run:
        for _ in steps:
            pass
        return
    paused = time.perf_counter()
    for _ in steps:
        if time.perf_counter() - paused >= _BETWEEN_PAUSES:
            time.sleep(_PAUSE)
            paused = time.perf_counter()
