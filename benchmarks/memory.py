"""How much memory of our process tallymark takes: `python benchmarks/memory.py`.

Each part runs in a process of its own, on a Redis of its own, and prints rows of a table.

- "objects" is what Python has allocated, by `tracemalloc`.
- "resident" is the growth of the process (its resident set), which has memory of C libraries
  and of the allocator too. Linux only.

Both are differences, divided by the number of tallies, marks or events. Buffers of the kernel,
such as those of sockets, are in neither.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import subprocess
import sys
import tracemalloc
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.append(str(Path(__file__).parent.parent / "tests"))

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

#: How many tallies, pending marks and events are measured at once.
TALLIES, MARKS, EVENTS = 100, (1_000, 10_000, 50_000), 4_000

IMPORTS = ("pass", "import redis.asyncio, anyio", "import tallymark", "from tallymark import sync")


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Growth:
    """The growth of memory since the object was made: objects, or the resident set."""

    def __init__(self) -> None:
        self._began = self._now()

    def each(self, count: int) -> str:
        """Return the growth for each of ``count`` things, for a table."""
        return f"{(self._now() - self._began) / count / 1024:,.1f} KiB"

    def _now(self) -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else resident()


def row(what: str, grown: str) -> None:
    """Print a row of the table."""
    kind = "objects" if tracemalloc.is_tracing() else "resident"
    print(f"| {what} | {kind} | {grown} |", flush=True)


async def idle(url: str) -> None:
    """Measure tallies that are idle, before and after their first calls."""
    from tallymark import Tally

    async with Tally.from_url(url) as first:  # loads what is loaded once
        await first.mark_event("active", 1)
        await first.count(first.day("active"))
        growth = Growth()
        tallies = [Tally.from_url(url) for _ in range(TALLIES)]
        row("a Tally, not connected", growth.each(TALLIES))
        for tally in tallies:
            await tally.mark_event("active", 1)
        row("a Tally, after a mark", growth.each(TALLIES))
        for tally in tallies:
            await tally.count(tally.day("active"))
        row("a Tally, after a mark and a count", growth.each(TALLIES))
        for tally in tallies:
            await tally.aclose()


async def idle_blocking(url: str) -> None:
    """Measure blocking tallies that are idle, before and after their first calls."""
    from tallymark import SyncTally

    with ExitStack() as stack:
        first = stack.enter_context(SyncTally.from_url(url))
        first.mark_event("active", 1)
        first.count(first.day("active"))
        growth = Growth()
        tallies = [stack.enter_context(SyncTally.from_url(url)) for _ in range(TALLIES)]
        row("a SyncTally, not connected", growth.each(TALLIES))
        for tally in tallies:
            tally.mark_event("active", 1)
        row("a SyncTally, after a mark", growth.each(TALLIES))
        for tally in tallies:
            tally.count(tally.day("active"))
        row("a SyncTally, after a mark and a count", growth.each(TALLIES))


async def pending(url: str) -> None:
    """Measure tasks with marks that wait for a frozen server, and tasks that only wait."""
    from servers import RedisProcess, running  # pyright: ignore[reportMissingImports]
    from tallymark import Tally

    del url
    loop = asyncio.get_running_loop()
    for count in MARKS:
        futures: list[asyncio.Future[None]] = []

        async def wait(_: int, futures: list[asyncio.Future[None]] = futures) -> None:
            future = loop.create_future()
            futures.append(future)
            await future

        growth, tasks = await begin(wait, count)
        row(f"a task that waits for a future, {count:,} of them", growth.each(count))
        for future in futures:
            future.set_result(None)
        await asyncio.gather(*tasks)
        with running(RedisProcess()) as server:
            async with Tally.from_url(server.url, timeout=120) as tally:

                async def mark(user: int, tally: Tally = tally) -> None:
                    await tally.mark_event("active", user)

                await mark(1)
                server.freeze()
                growth, tasks = await begin(mark, count)
                row(f"a task with a pending mark, {count:,} of them", growth.each(count))
                server.thaw()
                await asyncio.gather(*tasks)


async def begin(
    wait: Callable[[int], Coroutine[Any, Any, None]], count: int
) -> tuple[Growth, list[asyncio.Task[None]]]:
    """Return tasks that wait, and the growth of memory since before they were made."""
    growth = Growth()
    tasks = [asyncio.create_task(wait(number)) for number in range(count)]
    for _ in range(5):  # turns of the loop
        await asyncio.sleep(0.01)
    assert not any(task.done() for task in tasks)
    return growth, tasks


async def cached(url: str) -> None:
    """Measure the cached bitmaps of an event, for the present and for another day."""
    from datetime import datetime, timedelta, timezone

    from tallymark import Tally

    events = [f"event-{number:06}" for number in range(EVENTS)]
    async with Tally.from_url(url) as tally:
        await asyncio.gather(*(tally.mark_event("active", user) for user in range(EVENTS)))
        growth = Growth()
        await asyncio.gather(*(tally.mark_event(event, 1) for event in events))
        row("an event that was marked in this hour", growth.each(EVENTS))
        before = datetime.now(timezone.utc) - timedelta(days=3)
        growth = Growth()
        await asyncio.gather(*(tally.mark_event(event, 1, now=before) for event in events))
        row("an event that was marked in an earlier hour", growth.each(EVENTS))


PARTS = {"idle": idle, "idle_blocking": idle_blocking, "pending": pending, "cached": cached}


def measure_part(name: str, *, traced: bool) -> None:
    """Print the rows of a part, in this process."""
    from servers import running_server  # pyright: ignore[reportMissingImports]

    with running_server() as url:
        if traced:
            tracemalloc.start()
        asyncio.run(PARTS[name](url))


def measure_imports() -> None:
    """Print the resident set after some imports, each in a process of its own."""
    program = "{}\nimport resource\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    for imports in IMPORTS:
        arguments = [sys.executable, "-c", program.format(imports)]
        ran = subprocess.run(arguments, capture_output=True, text=True, check=True)
        shown = "Python alone" if imports == "pass" else f"`{imports}`"
        print(f"| {shown} | resident | {int(ran.stdout) / 1024:,.1f} MiB |", flush=True)


def main() -> None:
    """Measure all parts, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, help="measure this one only")
    parser.add_argument("--traced", action="store_true", help="objects, not the resident set")
    options = parser.parse_args()
    if options.part is not None:
        measure_part(options.part, traced=options.traced)
        return
    print("| what | counted | memory |\n| --- | --- | --- |", flush=True)
    measure_imports()
    for name in PARTS:
        subprocess.run([sys.executable, __file__, "--part", name, "--traced"], check=True)
        if name.startswith("idle"):  # marks and events take what the tasks before have left
            subprocess.run([sys.executable, __file__, "--part", name], check=True)


if __name__ == "__main__":
    main()
