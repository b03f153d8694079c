"""Large expressions over a million users: how long they take, and how long they delay others.

Run: python benchmarks/expressions.py redis://localhost:6379/9 (the database is emptied).
Each answer is compared with that of numpy. "loop" is the longest time that the event loop
did not run; "mark" is the longest time that a concurrent mark took.
"""

from __future__ import annotations

import asyncio
import itertools
import operator
import sys
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import redis

from tallymark import StoreTimeoutError, Tally

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

USERS = 1_000_000
FIRST = datetime(2026, 10, 1)
DAYS = 31


def at_least(number: int, sets: Sequence[Any]) -> Any:
    """Return the users of at least so many of some sets."""
    reached = list(itertools.accumulate(sets, operator.or_))
    for level in range(1, number):
        again = [users & before for users, before in zip(sets[level:], reached, strict=False)]
        reached = list(itertools.accumulate(again, operator.or_))
    return reached[-1]


def chain(levels: int, sets: Sequence[Any], minus: Any) -> Any:
    """Return ``(... ((a - b) | c) - d) | ...``."""
    users = sets[0]
    for level in range(levels):
        users = minus(users, sets[level % len(sets)]) | sets[(7 * level + 1) % len(sets)]
    return users


class Delays:
    """The longest delays of the event loop and of marks."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.loop = self.mark = 0.0

    async def beat(self) -> None:
        """Record the longest time that the loop does not run."""
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            self.loop, last = max(self.loop, now - last - 0.001), now

    async def marks(self) -> None:
        """Mark in a loop, and record the longest time of a mark."""
        for user in itertools.count():
            began = time.perf_counter()
            await self.tally.mark_event("beside", user % 1000, timeout=60)
            self.mark = max(self.mark, time.perf_counter() - began)
            await asyncio.sleep(0.001)

    async def during(self, name: str, question: Awaitable[Any], expected: Any) -> None:
        """Print how long a question takes, and the longest delays meanwhile."""
        tasks = [asyncio.create_task(self.beat()), asyncio.create_task(self.marks())]
        await asyncio.sleep(0.05)
        self.loop = self.mark = 0.0
        began = time.perf_counter()
        try:
            answer = await question
        except StoreTimeoutError:
            answer = "timeout"
        seconds = time.perf_counter() - began
        for task in tasks:
            task.cancel()
        assert answer == expected, (answer, expected)
        print(f"| {name} | {seconds * 1e3:.0f} | {self.loop * 1e3:.1f} | {self.mark * 1e3:.1f} |")


async def main(url: str) -> None:
    """Ask the same questions of a tally that counts in Redis, and of one that counts here."""
    store = redis.Redis.from_url(url)
    store.flushdb()
    chance = np.random.default_rng(1)
    data = [chance.random(USERS) < 0.3 for _ in range(DAYS)]
    days = [FIRST + timedelta(days=count) for count in range(DAYS)]
    for day, bits in zip(days, data, strict=True):
        key = f"trackist_active_{day.year}-{day.month}-{day.day}"
        store.set(key, np.packbits(bits).tobytes())
    print("| question | ms | loop | mark |\n| --- | --- | --- | --- |")
    async with Tally.from_url(url) as tally, Tally.from_url(url, read_from=url) as elsewhere:
        delays = Delays(tally)
        for one, way in ((tally, ""), (elsewhere, ", combined here")):
            sets = [one.day("active", day) for day in days]
            for number in (6, 8, 10):
                often = at_least(number, sets)
                expected = int(np.count_nonzero(sum(map(np.int16, data)) >= number))
                name = f"count, at least {number} of 31{way}"
                await delays.during(name, one.count(often, timeout=2), expected)
            user = int(np.flatnonzero(data[0])[0])
            expected = sum(int(bits[user]) for bits in data) >= 10
            await delays.during(f"contains{way}", one.contains(often, user, timeout=2), expected)
            deep = chain(5_000, sets, operator.sub)
            numpy_chain = chain(5_000, data, lambda a, b: a & ~b)
            expected = int(np.count_nonzero(numpy_chain))
            await delays.during(f"count, 5,000 levels{way}", one.count(deep, timeout=9), expected)
        hostile = chain(200_000, sets, operator.sub)
        for verb in ("count", "is_empty"):
            question = getattr(tally, verb)(hostile, timeout=0.3)
            await delays.during(f"{verb}, 200,000 levels, timeout 0.3 s", question, "timeout")
        question = tally.contains(hostile, user, timeout=0.3)
        await delays.during("contains, 200,000 levels, timeout 0.3 s", question, "timeout")
    store.flushdb()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
