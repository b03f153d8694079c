"""mark_many against a pipeline of SETBITs; and how long 200,000 marks delay other tasks."""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
from typing import TYPE_CHECKING, Any

import redis.asyncio
from contest import WrongBitsError
from workloads import keys

from tallymark import SyncTally, Tally

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DENSE = 1_000_000
SPARSE_RANGE = 2**28
ONE_IN = 50_000


async def obvious_many(client: Any, ids: list[int]) -> None:
    """Mark as a program writes it with redis-py: pipelines of a thousand users."""
    wanted = keys("many")
    for at in range(0, len(ids), 1000):
        async with client.pipeline(transaction=False) as pipeline:
            for user in ids[at : at + 1000]:
                for key in wanted:
                    pipeline.setbit(key, user, 1)
            await pipeline.execute()


async def crowds(url: str, rounds: int) -> list[dict[str, Any]]:
    """Time mark_many, and return a row for each kind of ids."""
    chance = random.Random(2)
    dense = list(range(DENSE))
    shuffled = chance.sample(dense, DENSE)
    sparse = chance.sample(range(SPARSE_RANGE), SPARSE_RANGE // ONE_IN)
    kinds: dict[str, tuple[Any, bool]] = {
        "1 million neighbours": (dense, False),
        "1 million neighbours, shuffled": (shuffled, False),
        "1 in 50,000 of 2**28, into bitmaps that are there": (sparse, True),
        "1 in 50,000 of 2**28, into no bitmaps": (sparse, False),
    }
    try:
        import numpy as np
    except ImportError:
        print("  without numpy")
    else:
        kinds["1 million neighbours, numpy array"] = (np.array(dense), False)
    rows = []
    async with redis.asyncio.Redis.from_url(url) as client, Tally.from_url(url) as tally:
        for kind, (ids, there) in kinds.items():
            users = [int(user) for user in ids]
            some = users if there or len(users) < DENSE else users[:5_000]
            ways: dict[str, tuple[int, Callable[[], Awaitable[Any]]]] = {
                "pipeline": (len(some), lambda some=some: obvious_many(client, some)),  # type: ignore[misc]
                "mark_many": (len(users), lambda ids=ids: tally.mark_many("many", ids)),  # type: ignore[misc]
                "sync.mark_many": (len(users), lambda ids=ids: blocking_many(url, ids)),  # type: ignore[misc]
            }
            took: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(rounds):
                for name, (count, way) in ways.items():
                    await client.flushdb()
                    if there:
                        await tally.mark_event("many", SPARSE_RANGE - 1)
                    begun = time.perf_counter()
                    await way()
                    took[name].append((time.perf_counter() - begun) / count)
                    wanted = count + (there and SPARSE_RANGE - 1 not in users)
                    for key in keys("many"):
                        if await client.bitcount(key) != wanted:
                            raise WrongBitsError(f"{name}, {kind}")
            for name, times in took.items():
                ratio = statistics.median(
                    a / b for a, b in zip(took["pipeline"], times, strict=True)
                )
                rows.append(
                    {
                        "ids": kind,
                        "contender": name,
                        "marks_per_second": 1 / statistics.median(times),
                        "ratio": ratio,
                    }
                )
        rows[-1] |= await memory_of(client, tally, sparse)
        await client.flushdb()
    return rows


async def blocking_many(url: str, ids: Any) -> None:
    """Mark with the blocking facade."""
    with SyncTally.from_url(url) as tally:
        tally.mark_many("many", ids)


async def memory_of(client: Any, tally: Tally, ids: list[int]) -> dict[str, float]:
    """Return how much memory Redis takes for sparse users, and the size of their bitmaps."""
    await client.flushdb()
    before = (await client.info("memory"))["used_memory"]
    await tally.mark_many("many", ids)
    grown = (await client.info("memory"))["used_memory"] - before
    return {"memory_mb": grown / 1e6, "bitmaps_mb": 3 * (max(ids) // 8 + 1) / 1e6}


async def longest_stops(url: str, marks: int = 200_000) -> dict[str, Any]:
    """Return the longest delay of other tasks while so many marks are pending."""
    async with Tally.from_url(url, timeout=300, max_pending=2 * marks) as tally:
        await tally.mark_event("many", 0)
        gc.collect()
        gc.freeze()
        gc.disable()  # its pauses are not to be measured
        try:
            tasks = [asyncio.create_task(tally.mark_event("many", user)) for user in range(marks)]
            await asyncio.sleep(0)  # in this step, each task makes its call
            stops = []
            before = time.perf_counter()
            while not tasks[-1].done():
                await asyncio.sleep(0)
                now = time.perf_counter()
                stops.append(now - before)
                before = now
        finally:
            gc.enable()
            gc.unfreeze()
        await asyncio.gather(*tasks)
        stops.sort()
        return {
            "marks": marks,
            "longest_ms": 1e3 * stops[-1],
            "p99_ms": 1e3 * stops[int(0.99 * len(stops))],
            "median_ms": 1e3 * statistics.median(stops),
        }
