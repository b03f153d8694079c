"""The async driver's connections to one server for all that is not a mark."""

from __future__ import annotations

import asyncio
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

import anyio

from .._core.observers import Operation, Outage, observe
from .._redis.stores import store_label
from ..errors import StoreError, StoreTimeoutError
from .connection import Connection
from .sharing import SharedFlights

if TYPE_CHECKING:
    from .._cluster.handshake import Greeting
    from .._cluster.routing import Deliverable
    from .._core.observers import Observer

__all__ = ["MAX_LONG_REQUESTS", "Channel"]

#: How many long requests are on their way at the same time, beside the small ones that
#: share two round trips; others wait. Redis does one thing at a time, so more of them
#: would not be answered sooner.
MAX_LONG_REQUESTS: Final = 6


class Channel:
    """Sends requests over a few connections of a redis-py client. Belongs to one event loop."""

    def __init__(
        self,
        client: Any,
        *,
        owned: bool = False,
        greeting: Greeting | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Begin without a connection.

        Arguments:
            client: the client.
            owned: whether the tally made it.
            greeting: what to say first.
            observer: is told of each attempt.
        """
        self._client = client
        self.owned = owned
        self._greeting = greeting
        self._observer = observer
        #: The embedded store answers before the event loop can look at the deadline.
        self._embedded = client.connection_pool.connection_kwargs.get("server") is not None
        self._store = store_label(client)
        self._outage = Outage(f"{self._store} for reads", time.monotonic)
        #: Connections that nobody uses.
        self._idle: list[Connection] = []
        #: All connections of our own that were made, in use or not.
        self._made: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._shared = SharedFlights(self.exchange)
        self._places = anyio.Semaphore(MAX_LONG_REQUESTS)
        self._closed = False

    async def replies(self, request: Deliverable, deadline: float) -> list[Any]:
        """Make one attempt to have a request answered.

        Raises:
            StoreError: what kept it from being answered; `StoreTimeoutError` at the deadline,
                in the event loop's time.
        """
        if request.share > 1:
            return await self._shared.replies(request, deadline)
        with anyio.CancelScope(deadline=deadline):
            await self._places.acquire()
            try:
                return await self.exchange(request.encode(), request.reply_count(), deadline)
            finally:
                self._places.release()
        raise StoreTimeoutError

    async def close(self) -> None:
        """Wait for round trips whose callers have gone, and disconnect."""
        self._closed = True
        try:
            await self._shared.close()
        finally:
            while self._idle:
                await self._idle.pop().close(gently=True)

    def discard(self) -> None:
        """Close all at once, after the event loop has been closed."""
        self._closed = True
        for link in list(self._made):
            link.discard()
        self._idle.clear()

    def _make_link(self) -> Connection:
        link = Connection(self._client, owned=self.owned, greeting=self._greeting)
        if self.owned:
            self._made.add(link)
        return link

    async def exchange(self, data: bytes, count: int, deadline: float) -> list[Any]:
        """Send commands over a connection that nobody uses, and return their replies.

        Raises as `replies`.
        """
        idle = self._idle
        link = idle.pop() if idle else self._make_link()
        replies: list[Any] = []
        intact = False
        failure: StoreError | None = None
        began = 0.0
        try:
            with anyio.CancelScope(deadline=deadline):
                if not link.ready:
                    await link.connect()
                began = time.perf_counter()
                await link.send(data)
                await link.receive(replies, count)
                intact = not (self._embedded and asyncio.get_running_loop().time() >= deadline)
            if not intact:
                raise StoreTimeoutError
        except StoreError as error:
            failure = error
            time_is_up = asyncio.get_running_loop().time() >= deadline
            self._outage.failed(failure, final=time_is_up)
            raise
        else:
            if self._outage.lasts:
                self._outage.is_over()
        finally:
            if self._observer is not None and (intact or failure is not None):
                seconds = time.perf_counter() - began if began else 0.0
                told = (self._store, count, len(data) if began else 0)
                observe(self._observer, Operation("read", *told, time.time(), seconds, failure))
            if not intact or self._closed:
                await link.close()
            elif self.owned:
                idle.append(link)
            else:
                await link.release()
        return replies
