"""Bulk writes: `Tally.mark_many` and `Tally.unmark_many`, with several transactions in flight."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

import anyio

from .._core.offsets import BLOCK
from .._reading.execution import Deadline
from ..errors import StoreTimeoutError, TallymarkError
from .loop_bound import running_loop

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable

    from .._core.periods import Granularity
    from .._marking.bulk import BulkCall, Chunk
    from .._marking.marks import Result
    from .backend import AsyncBackend

__all__ = ["closed", "write_many"]


async def write_many(
    backend: AsyncBackend,
    many: BulkCall,
    user_ids: Iterable[Any] | AsyncIterable[Any],
    timeout: float | None,
) -> dict[Granularity, int]:
    """Send the marks of many users; return how many bits were flipped in each granularity.

    Arguments:
        backend: sends the marks.
        many: makes the marks.
        user_ids: the users.
        timeout: how many seconds the whole call may take; ``None`` for the tally's timeout
            for each transaction.
    """
    backend.writer.check_usable()
    deadline = Deadline(timeout, running_loop().time)
    in_flight: deque[tuple[Chunk, asyncio.Task[list[Result]]]] = deque()

    async def await_oldest() -> None:
        chunk, task = in_flight.popleft()
        many.record(chunk, await task)

    try:
        async with contextlib.aclosing(_checked_blocks(many, user_ids, deadline)) as checked:
            async for offsets in checked:
                # While Redis works on a chunk, the next one is put together.
                for chunk in many.chunks(offsets):
                    while len(in_flight) >= backend.pieces:
                        await await_oldest()
                    commit = backend.submit_counted(chunk.marks, deadline.left())
                    in_flight.append((chunk, asyncio.create_task(commit)))
                    await asyncio.sleep(0)
        while in_flight:
            await await_oldest()
    except Exception as error:
        # The chunks before a user id that is not allowed, or before an iterable that failed.
        while in_flight:
            with contextlib.suppress(TallymarkError):
                await await_oldest()
        if isinstance(error, TallymarkError):
            raise many.with_progress(error, timeout) from error.__cause__
        raise
    finally:
        for _, task in in_flight:
            task.cancel()
    return many.counts


async def _checked_blocks(
    many: BulkCall, user_ids: Iterable[Any] | AsyncIterable[Any], deadline: Deadline
) -> AsyncGenerator[Any, None]:
    """Yield the offsets in blocks, and let other tasks run in between.

    Arguments:
        many: checks the ids.
        user_ids: the ids.
        deadline: when all of them have to be there.
    """
    if isinstance(user_ids, AsyncIterable):
        more = True
        async with closed(aiter(user_ids), deadline) as ids:
            while more:
                items, more = await _next_items(ids, many.weight, deadline)
                for block in many.blocks(items)[0]:
                    yield many.checked(block)
        return
    unchecked, all_there = many.blocks(user_ids, deadline.check)
    if all_there:
        # Nothing is sent before all are checked.
        checked = []
        for block in unchecked:
            checked.append(many.checked(block))
            await asyncio.sleep(0)
        for offsets in checked:
            yield offsets
    else:
        for block in unchecked:
            await asyncio.sleep(0)  # the iterable may have taken long
            yield many.checked(block)


async def _next_items(
    ids: AsyncIterator[Any], weight: Callable[[Any], int] | None, deadline: Deadline
) -> tuple[list[Any], bool]:
    """Return the next items of an iterable, and whether there may be more.

    Arguments:
        ids: the iterable.
        weight: as in `BulkCall`.
        deadline: when they have to be there.

    Raises:
        StoreTimeoutError: they did not come in time.
    """
    items: list[Any] = []
    size = 0
    with anyio.CancelScope(deadline=deadline.at) as scope:
        async for item in ids:
            items.append(item)
            size += 1 if weight is None else weight(item)
            if size >= BLOCK:
                return items, True
    if scope.cancelled_caught:
        raise StoreTimeoutError("the iterable of user ids did not give the next one in time")
    return items, False


@contextlib.asynccontextmanager
async def closed(items: AsyncIterator[Any], deadline: Deadline) -> AsyncIterator[Any]:
    """Yield an async iterator, and close it by the deadline if it has an ``aclose``."""
    try:
        yield items
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            with anyio.CancelScope(deadline=deadline.at):
                await close()
