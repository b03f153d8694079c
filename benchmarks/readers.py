"""Libraries that read, each timed in a process of its own.

Started as ``python readers.py NAME URL``. Each line on standard input requests a task, as
JSON: its name and the number of repetitions. The reply is a line of JSON with the seconds of
one repetition, and the answer, which is compared with those of the other libraries.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import random
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Tasks = dict[str, "Callable[[int], Any]"]

ROWS, PERIODS = 31, 12
THREADS, CALLERS = 16, 50
SOMEBODY = 500_000


def days() -> tuple[datetime, datetime]:
    """Return yesterday and the day before, two complete days."""
    today = datetime.now(timezone.utc).replace(tzinfo=None)
    return today - timedelta(days=1), today - timedelta(days=2)


def repeated(do: Callable[[], Any]) -> Callable[[int], Any]:
    """Return a function that calls ``do`` so many times, one after the other."""

    def run(times: int) -> Any:
        for _ in range(times - 1):
            do()
        return do()

    return run


def in_threads(do: Callable[[], Any]) -> Callable[[int], Any]:
    """Return a function that calls ``do`` so many times, in threads."""

    def run(times: int) -> Any:
        workers = [
            threading.Thread(target=repeated(do), args=(times // THREADS,)) for _ in range(THREADS)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return do()

    return run


def bitmapist(url: str, name: str = "bitmapist") -> Tasks:
    """Return the tasks of bitmapist, or of the drop-in replacement, which has the same API."""
    import redis

    library: Any = importlib.import_module(name)
    get_dates_data = importlib.import_module(f"{name}.cohort").get_dates_data
    library.SYSTEMS["default"] = redis.Redis.from_url(url)
    one, other = days()

    def both() -> Any:
        return library.DayEvents.from_date("active", one) & library.DayEvents.from_date(
            "active", other
        )

    def count_tidily() -> int:
        users = both()
        number = len(users)
        users.delete()
        return number

    def contains_tidily() -> bool:
        users = both()
        contained = SOMEBODY in users
        users.delete()
        return contained

    def iterate() -> int:
        number = 0
        for _ in library.DayEvents.from_date("everybody", one):
            number += 1
        return number

    def retention() -> dict[str, Any]:
        rows = get_dates_data(
            "signup", "active", as_percent=False, num_results=ROWS, num_of_rows=PERIODS
        )
        return {str(row[0].date()): row[1:] for row in rows}

    return {
        "count": repeated(lambda: len(both())),
        "count, no key left": repeated(count_tidily),
        "count, concurrently": in_threads(lambda: len(both())),
        "contains": repeated(lambda: SOMEBODY in both()),
        "contains, no key left": repeated(contains_tidily),
        "contains, concurrently": in_threads(lambda: SOMEBODY in both()),
        "iterate": repeated(iterate),
        "retention": repeated(retention),
    }


def drop_in(url: str) -> Tasks:
    """Return the tasks of the drop-in replacement `tallymark.bitmapist`."""
    return bitmapist(url, "tallymark.bitmapist")


def blocking(url: str) -> Tasks:
    """Return the tasks of the blocking facade."""
    from tallymark import SyncTally

    tally = SyncTally.from_url(url)
    one, other = days()

    def both() -> Any:
        return tally.day("active", one) & tally.day("active", other)

    def iterate() -> int:
        number = 0
        for _ in tally.users(tally.day("everybody", one)):
            number += 1
        return number

    def retention() -> dict[str, Any]:
        return table_rows(
            tally.retention("signup", "active", by="day", periods=PERIODS, cohorts=ROWS)
        )

    return {
        "count": repeated(lambda: tally.count(both())),
        "contains": repeated(lambda: tally.contains(both(), SOMEBODY)),
        "iterate": repeated(iterate),
        "retention": repeated(retention),
    }


def table_rows(table: Any) -> dict[str, Any]:
    """Return a retention table in the format of bitmapist."""
    return {
        str(row.period): [row.size, *(cell.count for cell in row.cells)] for row in table.cohorts
    }


def asynchronous(url: str) -> Tasks:
    """Return the tasks of the async facade."""
    from tallymark import Tally

    loop = asyncio.new_event_loop()
    tally = Tally.from_url(url)
    one, other = days()

    def both() -> Any:
        return tally.day("active", one) & tally.day("active", other)

    def runs(ask: Callable[[], Any], callers: int = 1) -> Callable[[int], Any]:
        async def one_caller(times: int) -> Any:
            for _ in range(times - 1):
                await ask()
            return await ask()

        async def all_callers(times: int) -> Any:
            each = max(1, times // callers)
            return (await asyncio.gather(*(one_caller(each) for _ in range(callers))))[0]

        return lambda times: loop.run_until_complete(all_callers(times))

    async def iterate() -> int:
        number = 0
        async for _ in tally.users(tally.day("everybody", one)):
            number += 1
        return number

    async def iterate_chunks() -> int:
        number = 0
        async for chunk in tally.user_chunks(tally.day("everybody", one)):
            for _ in chunk:
                number += 1
        return number

    async def retention() -> dict[str, Any]:
        return table_rows(
            await tally.retention("signup", "active", by="day", periods=PERIODS, cohorts=ROWS)
        )

    async def marks_beside(with_reports: bool) -> dict[str, float]:
        """Mark from ten tasks for two seconds, and return the latency of the marks."""
        took: list[float] = []
        end = time.perf_counter() + 2
        reports = 0

        async def mark() -> None:
            while time.perf_counter() < end:
                begun = time.perf_counter()
                await tally.mark_event("beside", random.randrange(1_000_000))
                took.append(time.perf_counter() - begun)
                await asyncio.sleep(0.001)

        async def report() -> None:
            nonlocal reports
            while time.perf_counter() < end:
                await retention()
                reports += 1

        await asyncio.gather(*(mark() for _ in range(10)), *([report()] if with_reports else []))
        took.sort()
        return {
            "marks": len(took),
            "reports": reports,
            "p50_ms": 1e3 * took[len(took) // 2],
            "p99_ms": 1e3 * took[int(0.99 * len(took))],
        }

    return {
        "count": runs(lambda: tally.count(both())),
        "count, concurrently": runs(lambda: tally.count(both()), CALLERS),
        "contains": runs(lambda: tally.contains(both(), SOMEBODY)),
        "contains, concurrently": runs(lambda: tally.contains(both(), SOMEBODY), CALLERS),
        "iterate": runs(iterate),
        "iterate, chunks": runs(iterate_chunks),
        "retention": runs(retention),
        "marks alone": runs(lambda: marks_beside(False)),
        "marks beside reports": runs(lambda: marks_beside(True)),
    }


def main(name: str, url: str) -> None:
    """Run the tasks that standard input requests."""
    if name.endswith(", no numpy"):
        absent: Any = None
        sys.modules["numpy"] = absent  # which makes importing it fail
    readers = {
        "bitmapist": bitmapist,
        "tallymark.bitmapist": drop_in,
        "tallymark.sync": blocking,
        "tallymark": asynchronous,
    }
    tasks = readers[name.partition(",")[0]](url)
    for line in sys.stdin:
        order = json.loads(line)
        do = tasks.get(order["task"])
        if do is None:
            print("null", flush=True)
            continue
        begun = time.perf_counter()
        answer = do(order["times"])
        seconds = (time.perf_counter() - begun) / order["times"]
        print(json.dumps({"seconds": seconds, "answer": answer}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
