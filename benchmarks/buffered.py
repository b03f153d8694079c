"""Buffered marks beside awaited ones, on one event loop: `python benchmarks/buffered.py URL`.

Rounds of awaited marks of 1,000 callers and of buffered ones take turns, with the same users.
"accepted" is how many calls a second the buffer takes, without sending; "sent" is from the first
call until all marks are acknowledged. Seconds are those of CPU time of this process, which is the
bottleneck, so that other processes of the machine change little.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from typing import Any

from tallymark import Tally

CALLERS = 1_000


async def _awaited(tally: Tally, marks: int) -> float:
    async def caller(first: int) -> None:
        for user in range(first, marks, CALLERS):
            await tally.mark_event("awaited", user)

    began = time.process_time()
    await asyncio.gather(*(caller(first) for first in range(CALLERS)))
    return time.process_time() - began


async def _buffered(tally: Tally, marks: int) -> tuple[float, float]:
    buffer = tally.buffered(max_size=10 * CALLERS)
    accepting = 0.0
    began = time.process_time()
    for first in range(0, marks, CALLERS):
        if buffer.stats().waiting > 8 * CALLERS:
            await buffer.flush()
        start = time.process_time()
        for user in range(first, min(marks, first + CALLERS)):
            buffer.mark_event("buffered", user)
        accepting += time.process_time() - start
        await asyncio.sleep(0)
    await buffer.aclose()
    seconds = time.process_time() - began
    if buffer.stats().sent != marks:
        raise RuntimeError(f"{buffer.stats()}")
    return accepting, seconds


async def _measure(url: str, rounds: int, marks: int) -> list[dict[str, Any]]:
    times: dict[str, list[float]] = {"awaited": [], "accepted": [], "sent": []}
    async with Tally.from_url(url) as tally:
        await tally.mark_event("awaited", 0)
        for _ in range(rounds):
            times["awaited"].append(await _awaited(tally, marks))
            accepting, seconds = await _buffered(tally, marks)
            times["accepted"].append(accepting)
            times["sent"].append(seconds)
        for event in ("awaited", "buffered"):
            count = await tally.count(tally.day(event))
            if count != marks:
                raise RuntimeError(f"{event}: {count} of {marks} bits")
    base = times["awaited"]
    return [
        {
            "what": what,
            "marks_per_second": marks / statistics.median(seconds),
            "ratio": statistics.median([one / own for one, own in zip(base, seconds, strict=True)]),
        }
        for what, seconds in times.items()
    ]


def buffered(url: str, rounds: int, marks: int) -> list[dict[str, Any]]:
    """Measure awaited and buffered marks in turns; return a row for each."""
    return asyncio.run(_measure(url, rounds, marks))


if __name__ == "__main__":
    for row in buffered(sys.argv[1], 7, 200_000):
        print(f"{row['what']:10} {row['marks_per_second']:10,.0f} marks/s {row['ratio']:6.2f}x")
