"""The async driver's connections to one server for reads.

Small requests of concurrent tasks are pipelined: two round trips are in flight at a time, so
that Redis executes one while Python parses the other. Further requests wait, and are sent
together when one of the two round trips has ended. Long requests have a connection each.
"""

from __future__ import annotations

import asyncio
import math
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import anyio

from .._core.failures import copied
from .._core.observers import Operation, Outage, observe
from .._redis.clocks import clocks
from .._redis.stores import store_label
from ..errors import StoreError, StoreTimeoutError
from .connection import Connection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._cluster.handshake import Handshake
    from .._core.observers import Observer
    from .._reading.execution import Sendable

__all__ = ["MAX_LONG_REQUESTS", "ReadPool", "RequestPipeline"]

#: The limit of in-flight long requests, beside the two round trips of small requests; further
#: ones wait. Redis executes one command at a time, so a higher limit would give no sooner
#: answers.
MAX_LONG_REQUESTS: Final = 6

#: The limit of in-flight round trips of small requests.
_MAX_ROUND_TRIPS: Final = 2

#: A request, the future of its caller, and the deadline.
_Waiting = tuple["Sendable", asyncio.Future[Any], float]


class ReadPool:
    """A few connections of a redis-py client, for reads. Belongs to one event loop."""

    def __init__(
        self,
        client: Any,
        *,
        owned: bool = False,
        handshake: Handshake | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Begin without a connection.

        Arguments:
            client: the client.
            owned: whether the tally made the client.
            handshake: as for `Connection`.
            observer: called after each attempt.
        """
        self._client = client
        self._owned = owned
        self._handshake = handshake
        self._observer = observer
        #: The embedded store answers without a turn of the event loop, which would cancel the
        #: exchange at the deadline.
        self._embedded = client.connection_pool.connection_kwargs.get("server") is not None
        self._store = store_label(client)
        self._outage = Outage(f"{self._store} for reads", clocks.monotonic)
        self._idle: list[Connection] = []
        #: All connections of the tally's own client, in use or not.
        self._made: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._pipeline = RequestPipeline(self._exchange)
        self._long_requests = anyio.Semaphore(MAX_LONG_REQUESTS)
        self._closed = False

    def exchange(
        self, request: Sendable, deadline: float, *, urgent: bool = False
    ) -> Awaitable[list[Any]]:
        """Make one attempt: send a request, return its replies. Await the result at once.

        Arguments:
            request: the request.
            deadline: when to give up, in the event loop's time.
            urgent: whether to send the request at once, on a connection of its own.

        Raises:
            StoreError: the attempt failed; `StoreTimeoutError` at the deadline.
        """
        if urgent:
            return self._exchange(request.encode(), request.reply_count(), deadline)
        if request.share > 1:
            return self._pipeline.exchange(request, deadline)
        return self._exchange_long(request, deadline)

    async def _exchange_long(self, request: Sendable, deadline: float) -> list[Any]:
        """Make one attempt at a long request, when few others are in flight."""
        with anyio.CancelScope(deadline=deadline):
            await self._long_requests.acquire()
            try:
                return await self._exchange(request.encode(), request.reply_count(), deadline)
            finally:
                self._long_requests.release()
        raise StoreTimeoutError

    async def close(self) -> None:
        """Wait for round trips whose callers were cancelled, then disconnect."""
        self._closed = True
        try:
            await self._pipeline.close()
        finally:
            while self._idle:
                await self._idle.pop().close(gently=True)

    def discard(self) -> None:
        """Close all connections, after the event loop has been closed."""
        self._closed = True
        for connection in list(self._made):
            connection.discard()
        self._idle.clear()

    def _new_connection(self) -> Connection:
        connection = Connection(self._client, owned=self._owned, handshake=self._handshake)
        if self._owned:
            self._made.add(connection)
        return connection

    async def _exchange(self, data: bytes, count: int, deadline: float) -> list[Any]:
        """Send commands on an idle or a new connection; return their replies.

        Raises as `exchange`.
        """
        idle = self._idle
        connection = idle.pop() if idle else self._new_connection()
        replies: list[Any] = []
        intact = False
        failure: StoreError | None = None
        began = 0.0
        try:
            with anyio.CancelScope(deadline=deadline):
                if not connection.ready:
                    await connection.connect()
                began = clocks.perf_counter()
                await connection.send(data)
                await connection.receive(replies, count)
                intact = not (self._embedded and asyncio.get_running_loop().time() >= deadline)
            if not intact:
                raise StoreTimeoutError
        except StoreError as error:
            failure = error
            expired = asyncio.get_running_loop().time() >= deadline
            self._outage.failed(failure, final=expired)
            raise
        else:
            if self._outage.lasts:
                self._outage.end()
        finally:
            if self._observer is not None and (intact or failure is not None):
                seconds = clocks.perf_counter() - began if began else 0.0
                written = len(data) if began else 0
                ended = time.time()
                operation = Operation("read", self._store, count, written, ended, seconds, failure)
                observe(self._observer, operation)
            if not intact or self._closed:
                await connection.close()
            elif self._owned:
                idle.append(connection)
            else:
                await connection.release()
        return replies


class RequestPipeline:
    """Sends small requests, several with one write. Belongs to one event loop."""

    def __init__(self, attempt: Callable[[bytes, int, float], Awaitable[list[Any]]]) -> None:
        """Begin idle.

        Arguments:
            attempt: sends commands and returns as many replies as the second argument says,
                or raises a `StoreError`, by a deadline in the event loop's time.
        """
        self._attempt = attempt
        self._in_flight = 0
        self._waiting: deque[_Waiting] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def exchange(self, request: Sendable, deadline: float) -> list[Any]:
        """Return the replies to a request.

        Cancelled: the other requests of its round trip go on.

        Raises:
            StoreError: the attempt failed; `StoreTimeoutError` at the deadline.
        """
        if self._in_flight < _MAX_ROUND_TRIPS:
            self._in_flight += 1
            try:
                return await self._attempt(request.encode(), request.reply_count(), deadline)
            finally:
                self._in_flight -= 1
                self._send_waiting()
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting.append((request, future, deadline))
        timer = None
        if deadline != math.inf:
            timer = loop.call_at(deadline, _resolve, future, StoreTimeoutError())
        try:
            result: list[Any] | StoreError = await future
        finally:
            if timer is not None:
                timer.cancel()
        if isinstance(result, StoreError):
            raise result
        return result

    async def close(self) -> None:
        """Wait for round trips whose callers were cancelled."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _send_waiting(self) -> None:
        if self._waiting and self._in_flight < _MAX_ROUND_TRIPS:
            self._in_flight += 1
            task = asyncio.create_task(self._drain())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _drain(self) -> None:
        """Send groups of waiting requests, until no request waits."""
        group: list[_Waiting] = []
        try:
            while group := self._next_group():
                data = b"".join([request.encode() for request, _, _ in group])
                counts = [request.reply_count() for request, _, _ in group]
                deadline = max(deadline for _, _, deadline in group)
                try:
                    replies = await self._attempt(data, sum(counts), deadline)
                except StoreError as error:
                    for _, future, _ in group:
                        _resolve(future, copied(error, str(error)))
                else:
                    at = 0
                    for (_, future, _), count in zip(group, counts, strict=True):
                        _resolve(future, replies[at : at + count])
                        at += count
        finally:
            # If the end of the event loop cancels this task, no other task sends the group.
            for _, future, _ in group:
                future.cancel()
            self._in_flight -= 1
            self._send_waiting()

    def _next_group(self) -> list[_Waiting]:
        """Take as many waiting requests as may share a round trip; at least one, if any waits."""
        group: list[_Waiting] = []
        free = 1.0
        while self._waiting:
            request, future, _ = self._waiting[0]
            if future.done():  # cancelled
                self._waiting.popleft()
                continue
            if group and free < 1 / request.share:
                break
            free -= 1 / request.share
            group.append(self._waiting.popleft())
        return group


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)
