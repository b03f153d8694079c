"""Marks of buffers on a cluster: the chunks of each shard, one after another."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from .._core.failures import with_outcome
from .._marking.chunks import retriable_indexes
from ..errors import StoreTimeoutError, TallymarkError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .._marking.chunks import Chunk
    from .._marking.marks import Mark, Result

__all__ = ["ShardPosts"]


class ShardPosts:
    """Sends the chunks of each shard in the order in which they came, one at a time.

    So a redirected or repeated mark is never overtaken by a later one of the same user, and a
    node that is away holds up its own shards only. Belongs to one event loop.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Mark], float, float], Awaitable[list[Result]]],
        notify_idle: Callable[[], None],
    ) -> None:
        """Begin without chunks.

        Arguments:
            send: sends marks of one shard; a coroutine function of the marks, the deadline in
                the event loop's time, and the timeout in seconds, that returns their results.
            notify_idle: is called when a shard has no chunks any more.
        """
        self._send = send
        self._notify_idle = notify_idle
        #: The chunks of each shard that has any, the first of which may be in flight.
        self._queues: dict[int, deque[tuple[Chunk, float, float]]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        #: The chunks that are in flight.
        self._in_flight: set[Chunk] = set()

    def __bool__(self) -> bool:
        """Return whether there are chunks."""
        return bool(self._queues)

    def post(self, chunk: Chunk, timeout: float) -> None:
        """Send a chunk whose marks are of one shard; as `GroupCommit.post`."""
        loop = asyncio.get_running_loop()
        shard = next(iter(chunk)).bitmaps.shard
        queue = self._queues.get(shard)
        if queue is None:
            queue = self._queues[shard] = deque()
            self._tasks[shard] = loop.create_task(self._drain(shard, queue))
        queue.append((chunk, loop.time() + timeout, timeout))

    def abandon(self, owner: object, failure: TallymarkError) -> None:
        """End the marks of all chunks of a buffer with an error."""
        for queue in list(self._queues.values()):
            for chunk, _, seconds in queue:
                if chunk.owner is owner and not chunk.done():
                    sent = chunk in self._in_flight
                    error = with_outcome(failure, sent=sent, timeout=seconds)
                    chunk.set_result([error] * len(chunk))

    def cancel(self, failure: TallymarkError) -> None:
        """End the marks of all chunks with an error, and stop."""
        for queue in list(self._queues.values()):
            for chunk, _, _ in queue:
                self.abandon(chunk.owner, failure)
        for task in self._tasks.values():
            task.cancel()

    async def _drain(self, shard: int, queue: deque[tuple[Chunk, float, float]]) -> None:
        """Send the chunks of a shard, as long as there are any."""
        loop = asyncio.get_running_loop()
        try:
            while queue:
                chunk, deadline, seconds = queue[0]
                if not chunk.done() and loop.time() >= deadline:
                    missed = "its turn did not come"
                    error = with_outcome(
                        StoreTimeoutError(), sent=False, timeout=seconds, missed=missed
                    )
                    chunk.set_result([error] * len(chunk))
                elif not chunk.done():
                    await self._send_chunk(chunk, deadline, seconds)
                queue.popleft()
        finally:
            del self._queues[shard], self._tasks[shard]
            self._notify_idle()

    async def _send_chunk(self, chunk: Chunk, deadline: float, seconds: float) -> None:
        self._in_flight.add(chunk)
        chunk.room = 0
        marks = list(chunk)
        try:
            results: list[Result] = await self._send(marks, deadline, seconds)
            while repeated := retriable_indexes(results):
                again = await self._send([marks[index] for index in repeated], deadline, seconds)
                for index, result in zip(repeated, again, strict=True):
                    results[index] = result
            if not chunk.done():
                chunk.set_result(results)
        finally:
            self._in_flight.discard(chunk)
