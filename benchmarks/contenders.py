"""Libraries that mark, each timed in a process of its own.

Started as ``python contenders.py NAME URL``. Each line on standard input requests a round, as
JSON: the workload, the number of marks, the number of callers, and whether to time each mark.
The reply is a line of JSON with the seconds of the round, the CPU time of the process, and
percentiles of the latencies.
The functions import the libraries, since not every contender's Python has every library.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import statistics
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from workloads import keys, schedule

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Blocking = Callable[[str, int], Any]
    Async = Callable[[str, int], Awaitable[Any]]

CONNECTIONS = 50


# --- blocking


def bitmapist(url: str, name: str = "bitmapist") -> Blocking:
    """Return the mark of bitmapist, or of the drop-in replacement, which has the same API."""
    import redis

    library: Any = importlib.import_module(name)
    library.SYSTEMS["default"] = redis.Redis.from_url(url)
    mark: Blocking = library.mark_event
    return mark


def drop_in(url: str) -> Blocking:
    """Return the mark of the drop-in replacement `tallymark.bitmapist`."""
    return bitmapist(url, "tallymark.bitmapist")


def bitmapist4(url: str) -> Blocking:
    """Return the mark of bitmapist4, with options that make the same bitmaps as the others."""
    import bitmapist4 as library  # pyright: ignore[reportMissingImports]
    import redis

    client = redis.Redis.from_url(url)
    mark: Blocking = library.Bitmapist(
        client, track_unique=False, key_prefix="trackist_"
    ).mark_event
    return mark


def redis_py(url: str) -> Blocking:
    """Return a mark as a program writes it with redis-py."""
    import redis

    client = redis.Redis.from_url(url)

    def mark(event: str, user: int) -> None:
        with client.pipeline(transaction=True) as pipeline:
            for key in keys(event):
                pipeline.setbit(key, user, 1)
            pipeline.execute()

    return mark


def sync_tally(url: str) -> Blocking:
    """Return tallymark's blocking mark."""
    from tallymark import SyncTally

    return SyncTally.from_url(url).mark_event


def blocking_floor(url: str) -> Blocking:
    """Return the least that a blocking mark can cost."""
    from floors import blocking, connect

    return blocking(connect(url))


# --- async: opened, used and closed within one task


@contextlib.asynccontextmanager
async def redis_asyncio(url: str) -> AsyncIterator[Async]:
    """Yield a mark as a program writes it with redis.asyncio."""
    from redis.asyncio import BlockingConnectionPool, Redis

    pool = BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS)
    async with Redis.from_pool(pool) as client:

        async def mark(event: str, user: int) -> None:
            async with client.pipeline(transaction=True) as pipeline:
                for key in keys(event):
                    pipeline.setbit(key, user, 1)
                await pipeline.execute()

        yield mark


@contextlib.asynccontextmanager
async def coredis(url: str) -> AsyncIterator[Async]:
    """Yield a mark as a program writes it with coredis."""
    import coredis as library  # pyright: ignore[reportMissingImports]

    async with library.Redis.from_url(url) as client:

        async def mark(event: str, user: int) -> None:
            async with client.pipeline(transaction=True) as pipeline:
                for key in keys(event):
                    pipeline.setbit(key, user, 1)

        yield mark


@contextlib.asynccontextmanager
async def valkey_glide(url: str) -> AsyncIterator[Async]:
    """Yield a mark as a program writes it with valkey-glide: an atomic batch."""
    import glide  # pyright: ignore[reportMissingImports]

    where = urlsplit(url)
    address = glide.NodeAddress(where.hostname, where.port)
    client = await glide.GlideClient.create(glide.GlideClientConfiguration([address]))

    async def mark(event: str, user: int) -> None:
        batch = glide.Batch(is_atomic=True)
        for key in keys(event):
            batch.setbit(key, user, 1)
        await client.exec(batch, raise_on_error=True)

    yield mark
    await client.close()


@contextlib.asynccontextmanager
async def tallymark(url: str) -> AsyncIterator[Async]:
    """Yield tallymark's mark."""
    from tallymark import Tally

    async with Tally.from_url(url) as tally:
        yield tally.mark_event


@contextlib.asynccontextmanager
async def asyncio_floor(url: str) -> AsyncIterator[Async]:
    """Yield the least that a mark can cost on asyncio."""
    from floors import connected

    async with connected(url) as mark:
        yield mark


# --- on a cluster: the keys of a user share a hash tag, as in tallymark's format

SHARDS = 16


def sharded_keys(event: str, user: int) -> list[str]:
    """Return the keys in the shard of a user."""
    return [key.replace("_", f"_{{{user % SHARDS}}}", 1) for key in keys(event)]


@contextlib.asynccontextmanager
async def redis_cluster(url: str) -> AsyncIterator[Async]:
    """Yield a mark as a program writes it with the cluster client of redis-py."""
    from redis.asyncio import RedisCluster

    async with RedisCluster.from_url(url.replace("+cluster", "")) as client:

        async def mark(event: str, user: int) -> None:
            async with client.pipeline(transaction=True) as pipeline:
                for key in sharded_keys(event, user):
                    pipeline.setbit(key, user // SHARDS, 1)
                await pipeline.execute()

        yield mark


@contextlib.asynccontextmanager
async def glide_cluster(url: str) -> AsyncIterator[Async]:
    """Yield a mark as a program writes it with the cluster client of valkey-glide."""
    import glide  # pyright: ignore[reportMissingImports]

    where = urlsplit(url)
    address = glide.NodeAddress(where.hostname, where.port)
    settings = glide.GlideClusterClientConfiguration([address])
    client = await glide.GlideClusterClient.create(settings)

    async def mark(event: str, user: int) -> None:
        batch = glide.ClusterBatch(is_atomic=True)
        for key in sharded_keys(event, user):
            batch.setbit(key, user // SHARDS, 1)
        await client.exec(batch, raise_on_error=True)

    yield mark
    await client.close()


@contextlib.asynccontextmanager
async def tallymark_256(url: str) -> AsyncIterator[Async]:
    """Yield tallymark's mark, with many shards."""
    from tallymark import Tally

    async with Tally.from_url(url, shards=256) as tally:
        yield tally.mark_event


BLOCKING = {
    "bitmapist": bitmapist,
    "bitmapist4": bitmapist4,
    "redis-py pipeline": redis_py,
    "tallymark.bitmapist": drop_in,
    "SyncTally": sync_tally,
}
ASYNC = {
    "redis.asyncio pipeline": redis_asyncio,
    "coredis": coredis,
    "valkey-glide": valkey_glide,
    "tallymark": tallymark,
    "tallymark, uvloop": tallymark,
}
#: What a mark costs without a library.
BLOCKING_FLOOR = {"socket, hiredis": blocking_floor}
ASYNC_FLOOR = {"Protocol, hiredis": asyncio_floor}
CLUSTER = {
    "RedisCluster pipeline": redis_cluster,
    "valkey-glide, cluster": glide_cluster,
    "tallymark, 16 shards": tallymark,
    "tallymark, 256 shards": tallymark_256,
}


class Clock:
    """Measures a round: wall time, and the CPU time of all threads of this process."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def elapsed(self) -> dict[str, float]:
        """Return the seconds since the clock was made."""
        return {
            "seconds": time.perf_counter() - self._wall,
            "cpu": time.process_time() - self._cpu,
        }


def answer(result: dict[str, float], latencies: list[float]) -> str:
    """Return the result of a round as a line of JSON."""
    if len(latencies) > 1:
        percentiles = statistics.quantiles(latencies, n=100)
        result |= {"p50": percentiles[49], "p99": percentiles[98]}
    return json.dumps(result)


def serve_blocking(mark: Blocking) -> None:
    """Run rounds: one caller in a plain loop, several callers in threads."""
    for line in sys.stdin:
        order = json.loads(line)
        marks = schedule(order["workload"], order["marks"])
        latencies: list[float] = []
        if order["callers"] == 1:
            measured = in_a_loop(mark, marks, latencies if order["latencies"] else None)
        else:
            measured = in_threads(mark, marks, order["callers"])
        print(answer(measured, latencies), flush=True)


def in_a_loop(
    mark: Blocking, marks: list[tuple[str, int]], latencies: list[float] | None
) -> dict[str, float]:
    """Mark one after the other; append the time of each mark to ``latencies``, if given."""
    clock = Clock()
    if latencies is None:
        for event, user in marks:
            mark(event, user)
    else:
        for event, user in marks:
            begun = time.perf_counter()
            mark(event, user)
            latencies.append(time.perf_counter() - begun)
    return clock.elapsed()


def in_threads(mark: Blocking, marks: list[tuple[str, int]], callers: int) -> dict[str, float]:
    """Mark in threads, which take their marks from one queue."""
    queue = deque(marks)

    def work() -> None:
        with contextlib.suppress(IndexError):  # the queue is empty
            while True:
                mark(*queue.popleft())

    threads = [threading.Thread(target=work) for _ in range(callers)]
    clock = Clock()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return clock.elapsed()


async def serve_async(
    opened: Callable[[str], contextlib.AbstractAsyncContextManager[Async]], url: str
) -> None:
    """Run rounds."""
    async with opened(url) as mark:
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(await run_round(mark, json.loads(line)), flush=True)


async def run_round(mark: Async, order: dict[str, Any]) -> str:
    """Run a round, in which all callers take their marks from one schedule."""
    marks = iter(schedule(order["workload"], order["marks"]))
    latencies: list[float] = []

    async def call() -> None:
        for event, user in marks:
            await mark(event, user)

    async def timed() -> None:
        for event, user in marks:
            begun = time.perf_counter()
            await mark(event, user)
            latencies.append(time.perf_counter() - begun)

    run = timed if order["latencies"] else call
    clock = Clock()
    await asyncio.gather(*(run() for _ in range(order["callers"])))
    return answer(clock.elapsed(), latencies)


if __name__ == "__main__":
    name, store_url = sys.argv[1:]
    if name in BLOCKING | BLOCKING_FLOOR:
        serve_blocking((BLOCKING | BLOCKING_FLOOR)[name](store_url))
    elif name.endswith("uvloop"):
        import uvloop

        uvloop.run(serve_async(ASYNC[name], store_url))
    else:
        asyncio.run(serve_async((ASYNC | ASYNC_FLOOR | CLUSTER)[name], store_url))
