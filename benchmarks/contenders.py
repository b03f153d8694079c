"""One way of marking each, to be timed in a process of its own.

Run by `marking.py` as ``python contenders.py NAME URL CALLERS``: for each
number on standard input it marks that many times, and answers with the seconds
it took. Imports are inside the functions since not every contender's Python
has every library.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

EVENT = "active"
USERS = 100_000
CONNECTIONS = 50


def keys() -> tuple[str, str, str]:
    """Return the month's, week's and day's key, as handwritten code makes them."""
    now = datetime.now(timezone.utc)
    iso_year, iso_week, _ = now.isocalendar()
    return (
        f"trackist_{EVENT}_{now.year}-{now.month}",
        f"trackist_{EVENT}_W{iso_year}-{iso_week}",
        f"trackist_{EVENT}_{now.year}-{now.month}-{now.day}",
    )


def bitmapist_marks(url: str) -> Callable[[int], Any]:
    """Return bitmapist's mark."""
    import bitmapist  # pyright: ignore[reportMissingImports]
    import redis

    bitmapist.SYSTEMS["default"] = redis.Redis.from_url(url)
    return lambda user: bitmapist.mark_event(EVENT, user)


def redis_py_marks(url: str) -> Callable[[int], Any]:
    """Return a mark as one writes it with redis-py."""
    import redis

    client = redis.Redis.from_url(url)

    def mark(user: int) -> None:
        with client.pipeline(transaction=True) as pipeline:
            for key in keys():
                pipeline.setbit(key, user, 1)
            pipeline.execute()

    return mark


def tallymark_sync_marks(url: str) -> Callable[[int], Any]:
    """Return tallymark's blocking mark."""
    import tallymark
    from tallymark import sync

    tallymark.configure(url)
    return lambda user: sync.mark_event(EVENT, user)


def redis_asyncio_marks(url: str) -> Callable[[int], Awaitable[Any]]:
    """Return a mark as one writes it with redis.asyncio."""
    from redis.asyncio import BlockingConnectionPool, Redis

    pool = BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS)
    client = Redis.from_pool(pool)

    async def mark(user: int) -> None:
        async with client.pipeline(transaction=True) as pipeline:
            for key in keys():
                pipeline.setbit(key, user, 1)
            await pipeline.execute()

    return mark


def tallymark_marks(url: str) -> Callable[[int], Awaitable[Any]]:
    """Return tallymark's mark."""
    import tallymark

    tallymark.configure(url)
    return lambda user: tallymark.mark_event(EVENT, user)


BLOCKING = {
    "bitmapist": bitmapist_marks,
    "redis-py": redis_py_marks,
    "tallymark.sync": tallymark_sync_marks,
}
ASYNC = {"redis.asyncio": redis_asyncio_marks, "tallymark": tallymark_marks}


def time_blocking(mark: Callable[[int], Any]) -> None:
    """Answer each number with the seconds that a plain loop took."""
    for line in sys.stdin:
        users = itertools.islice(itertools.cycle(range(USERS)), int(line))
        begun = time.perf_counter()
        for user in users:
            mark(user)
        print(time.perf_counter() - begun, flush=True)


async def time_async(make: Callable[[str], Callable[[int], Any]], url: str, callers: int) -> None:
    """Answer each number with the seconds that so many callers took together."""
    mark = make(url)
    while line := await asyncio.to_thread(sys.stdin.readline):
        users = itertools.islice(itertools.cycle(range(USERS)), int(line))

        async def call() -> None:
            # All callers draw from the one iterator.
            for user in users:  # noqa: B023 - awaited within the round
                await mark(user)

        begun = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(callers)))
        print(time.perf_counter() - begun, flush=True)


if __name__ == "__main__":
    name, store_url, caller_count = sys.argv[1:]
    if name in BLOCKING:
        time_blocking(BLOCKING[name](store_url))
    else:
        asyncio.run(time_async(ASYNC[name], store_url, int(caller_count)))
