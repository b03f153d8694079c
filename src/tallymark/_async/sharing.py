"""Small requests of concurrent tasks share round trips, as marks do.

Two are under way at the same time, so that Redis has something to do while
Python reads answers. What comes meanwhile waits, and leaves together as soon
as one of them is back. A lone caller does not notice any of this.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from .._core.failures import copied
from ..errors import StoreError, StoreTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._cluster.routing import Deliverable

__all__ = ["SharedFlights"]

#: How many round trips are under way at the same time.
_FLIGHTS: Final = 2

#: A request, where its caller waits, and until when.
_Waiting = tuple["Deliverable", asyncio.Future[Any], float]


class SharedFlights:
    """Brings requests to the server, several with one write. Belongs to one event loop."""

    def __init__(self, attempt: Callable[[bytes, int, float], Awaitable[list[Any]]]) -> None:
        """Begin idle.

        Arguments:
            attempt: sends commands and returns so many replies, or raises a
                `StoreError`, by a deadline in the event loop's time.
        """
        self._attempt = attempt
        self._flying = 0
        self._waiting: deque[_Waiting] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def replies(self, request: Deliverable, deadline: float) -> list[Any]:
        """Return the replies to a request.

        Cancelled: those who share its round trip do not notice.

        Raises:
            StoreError: what kept it from being answered; `StoreTimeoutError`
                at the deadline.
        """
        if self._flying < _FLIGHTS:
            self._flying += 1
            try:
                return await self._attempt(request.encode(), request.reply_count(), deadline)
            finally:
                self._flying -= 1
                self._send_who_waits()
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting.append((request, future, deadline))
        timer = None
        if deadline != math.inf:
            timer = loop.call_at(deadline, _give, future, StoreTimeoutError())
        try:
            found: list[Any] | StoreError = await future
        finally:
            if timer is not None:
                timer.cancel()
        if isinstance(found, StoreError):
            raise found
        return found

    async def close(self) -> None:
        """Wait for round trips whose callers have gone."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _send_who_waits(self) -> None:
        if self._waiting and self._flying < _FLIGHTS:
            self._flying += 1
            task = asyncio.create_task(self._fly())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _fly(self) -> None:
        """Bring what waits to the server, until nothing does."""
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
                        _give(future, copied(error, str(error)))
                else:
                    at = 0
                    for (_, future, _), count in zip(group, counts, strict=True):
                        _give(future, replies[at : at + count])
                        at += count
        finally:
            # Cancelled, which the end of the loop does: nobody will bring the others.
            for _, future, _ in group:
                future.cancel()
            self._flying -= 1
            self._send_who_waits()

    def _next_group(self) -> list[_Waiting]:
        """Take as many requests as may share a round trip, at least one if any waits."""
        group: list[_Waiting] = []
        room = 1.0
        while self._waiting:
            request, future, _ = self._waiting[0]
            if future.done():  # cancelled
                self._waiting.popleft()
                continue
            if group and room < 1 / request.share:
                break
            room -= 1 / request.share
            group.append(self._waiting.popleft())
        return group


def _give(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)
