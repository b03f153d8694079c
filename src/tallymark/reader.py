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
from .errors import (
    MAY_PASS,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    overloaded,
    with_fate,
)
from .link import Link
from .observers import Operation, Outage, observe
from .options import checked_timeout
from .requests import Found, Request, Work
from .sharing import SharedFlights
from .stores import store_label

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from .observers import Observer
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

    def __init__(
        self,
        client: Any,
        replica: Any = None,
        *,
        timeout: float,
        max_pending: int,
        observer: Observer | None = None,
        check_usable: Callable[[], None],
    ) -> None:
        """Begin without a connection.

        Arguments:
            client: the client.
            replica: the client for what changes nothing, if it is another one,
                which is the tally's own.
            timeout: how many seconds each request may take, attempts to
                connect included; ``math.inf`` for no limit.
            max_pending: how many requests may wait; the next one is refused.
            observer: is told of each attempt.
            check_usable: raises if the tally cannot be used (here).
        """
        self._client = client
        self._replica = replica
        self._timeout = timeout
        self._max_pending = max_pending
        self._check_usable = check_usable
        self._observer = observer
        self._stores = {
            True: store_label(client),
            False: store_label(replica or client),
        }
        self._outages = {
            primary: Outage(f"{store} for reads", time.monotonic)
            for primary, store in self._stores.items()
        }
        #: Whether the tally made the client.
        self.owned = False
        #: Connections that nobody uses, to the server that takes marks or not.
        self._idle: dict[bool, list[Link]] = {True: [], False: []}
        self._shared = SharedFlights(self._attempt)
        self._places = anyio.Semaphore(MAX_LONG_REQUESTS)
        self._asking = 0
        self._became_idle: anyio.Event | None = None
        self._closed = False

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
        try:
            step = next(query)
            while True:
                step = query.send(await self._done(step, seconds, ends))
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
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        with contextlib.suppress(StopIteration):
            step = next(query)
            while True:
                if isinstance(step, Found):
                    yield step.items
                    step = next(query)
                else:
                    step = query.send(await self._done(step, seconds, None))

    async def close(self) -> None:
        """Accept no more requests, wait for those under way, and disconnect."""
        self._closed = True
        try:
            while self._asking:
                self._became_idle = self._became_idle or anyio.Event()
                await self._became_idle.wait()
            await self._shared.close()
        finally:
            for idle in self._idle.values():
                while idle:
                    await idle.pop().close(gently=True)

    async def _done(self, step: Request | Work | Found, seconds: float, ends: float | None) -> Any:
        """Do a step.

        Arguments:
            step: what to do.
            seconds: how many there are for it, or for all steps.
            ends: when all steps have to be done, if that is known.
        """
        if isinstance(step, Request):
            if step.meanwhile is None:
                return await self._ask(step, seconds, ends)
            working = asyncio.create_task(anyio.to_thread.run_sync(_work, step.meanwhile))
            try:
                replies = await self._ask(step, seconds, ends)
                await working
            finally:
                working.cancel()
            return replies
        if isinstance(step, Work):
            return await anyio.to_thread.run_sync(_work, step.steps)
        raise TypeError(step)

    async def _ask(self, request: Request, seconds: float, ends: float | None) -> list[Any]:
        """Return what a request came to; it is repeated if that may mend it."""
        self._check_usable()
        if self._asking >= self._max_pending:
            raise overloaded(self._asking, "reads", self._max_pending)
        self._asking += 1
        try:
            replies = await self._replies(request, seconds, ends)
        finally:
            self._asking -= 1
            if self._became_idle is not None and not self._asking:
                self._became_idle.set()
                self._became_idle = None
        return request.settle(replies)

    async def _replies(self, request: Request, seconds: float, ends: float | None) -> list[Any]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds if ends is None else ends
        pauses = None
        told: StoreUnavailableError | None = None
        while True:
            try:
                if request.share > 1:
                    return await self._shared.replies(request, deadline)
                return await self._alone(request, deadline)
            except MAY_PASS as failure:
                if isinstance(failure, StoreUnavailableError):
                    told = failure  # which explains more than that the last attempt took too long
                left = deadline - loop.time()
                if left <= redis_py.TOO_SHORT:
                    raise with_fate(told or failure, sent=None, timeout=seconds) from None
            pauses = pauses or redis_py.backoff()
            await anyio.sleep(min(pauses.compute(1), left / 2))

    async def _alone(self, request: Request, deadline: float) -> list[Any]:
        """Send a request that may take the server or the network long."""
        with anyio.CancelScope(deadline=deadline):
            await self._places.acquire()
            try:
                return await self._attempt(
                    request.encode(), request.reply_count(), deadline, changes=request.changes
                )
            finally:
                self._places.release()
        raise StoreTimeoutError

    async def _attempt(
        self, data: bytes, count: int, deadline: float, *, changes: bool = False
    ) -> list[Any]:
        """Send commands over a connection that nobody uses, and return their replies."""
        primary = changes or self._replica is None
        client, owned = (self._client, self.owned) if primary else (self._replica, True)
        idle = self._idle[primary]
        link = idle.pop() if idle else Link(client, owned=owned)
        replies: list[Any] = []
        intact = False
        outage = self._outages[primary]
        failure: StoreError | None = None
        began = 0.0
        try:
            with anyio.CancelScope(deadline=deadline):
                if not link.ready:
                    await link.connect()
                began = time.perf_counter()
                await link.send(data)
                await link.receive(replies, count)
                intact = True
            if not intact:
                raise StoreTimeoutError
        except StoreError as error:
            failure = error
            time_is_up = asyncio.get_running_loop().time() >= deadline
            outage.failed(failure, final=time_is_up)
            raise
        else:
            if outage.lasts:
                outage.is_over()
        finally:
            if self._observer is not None and (intact or failure is not None):
                seconds = time.perf_counter() - began if began else 0.0
                told = (self._stores[primary], count, len(data) if began else 0)
                observe(self._observer, Operation("read", *told, time.time(), seconds, failure))
            if not intact or self._closed:
                await link.close()
            elif owned:
                idle.append(link)
            else:
                await link.rest()
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
