"""No verb of the async facade keeps its event loop, however large the input.

Not measured in seconds, which say more about the machine: what is counted are the lines
of tallymark that the loop's thread runs between two turns of the loop. A thousand take
about 0.1 ms. `nox -s heartbeat` measures the time.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

import tallymark
from tallymark import Batch, Granularity, Tally, any_of
from tallymark._async import executor as reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from typing_extensions import Self

    from tallymark import EventSet

NOW = datetime(2026, 11, 23, 12)
SOURCE = str(Path(tallymark.__file__).parent)

#: How many lines may run between two turns, which take about 20 ms.
MOST = 250_000


class Turns:
    """Counts the lines of tallymark between the turns of the running loop.

    Attributes:
        most: how many there were at most.
    """

    def __init__(self) -> None:
        self.most = 0
        self._lines = 0

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_soon(self._turn)
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)
        self._handle.cancel()
        self.most = max(self.most, self._lines)

    def _turn(self) -> None:
        self.most = max(self.most, self._lines)
        self._lines = 0
        self._handle = self._loop.call_soon(self._turn)

    def _trace(self, frame: Any, event: str, _: object) -> Any:
        if event == "call" and not frame.f_code.co_filename.startswith(SOURCE):
            return None
        self._lines += 1
        return self._trace


def days(number: int) -> list[datetime]:
    return [NOW - timedelta(days=distance) for distance in range(number)]


def one_by_one(number: int) -> Iterator[int]:
    yield from range(0, 3 * number, 3)


async def streamed(number: int) -> AsyncIterator[int]:
    for user_id in range(number):
        yield user_id


def rows_one_by_one(number: int) -> Iterator[tuple[str, int, datetime]]:
    for index in range(number):
        yield f"r{index % 50}", index * 7_919 % 200_000, NOW - timedelta(index % 90)


async def streamed_rows(number: int) -> AsyncIterator[tuple[str, int, datetime]]:
    for row in rows_one_by_one(number):
        yield row


def rows_far_apart(number: int) -> dict[str, Any]:
    return {
        "event": [f"f{index}" for index in range(number)],
        "user_id": list(range(number)),
        "moment": [NOW - timedelta(index) for index in range(number)],
    }


async def drained(stream: Any) -> int:
    number = 0
    async for _ in stream:
        number += 1
    return number


async def transaction(tally: Tally, number: int) -> None:
    async with tally.transaction() as tx:
        for user_id in range(number):
            tx.mark_event("t", user_id)
            if user_id % 100 == 0:
                await asyncio.sleep(0)
    assert tally.stats().marks >= number


scattered = [(index * 7_919) % 40_000_000 for index in range(100_000)]

columns = {
    "event": [f"c{index % 50}" for index in range(100_000)],
    "user_id": [index * 7_919 % 200_000 for index in range(100_000)],
    "moment": [NOW - timedelta(index % 90) for index in range(100_000)],
}

#: What only reads comes first.
VERBS: dict[str, Callable[[Tally], Any]] = {
    "count, 300 years": lambda tally: tally.count(tally.last("a", 110_000, NOW)),
    "contains, days": lambda tally: tally.contains(any_of(map(tally_days(tally), days(2_000))), 7),
    "contains_many, neighbours": lambda tally: tally.contains_many(
        tally.unique("far"), range(200_000)
    ),
    "contains_many, scattered": lambda tally: tally.contains_many(tally.unique("far"), scattered),
    "users, behind a gap": lambda tally: drained(tally.users(tally.unique("far"))),
    "user_chunks": lambda tally: drained(tally.user_chunks(tally.unique("far"))),
    "history, days": lambda tally: tally.history(7, "a", NOW - timedelta(19_000), NOW),
    "history, hours": lambda tally: tally.history(
        7, "a", NOW - timedelta(hours=19_000), NOW, "hour"
    ),
    "retention": lambda tally: tally.retention(
        "a", "a", by="day", periods=200, cohorts=200, until=NOW
    ),
    "retention, first_time": lambda tally: tally.retention(
        "a", "a", by="day", periods=20, cohorts=20, until=NOW, first_time=True, mode="unbounded"
    ),
    "trend": lambda tally: tally.trend("a", periods=2_000, until=NOW),
    "days_active": lambda tally: tally.days_active("a", days=2_000, until=NOW),
    "lifecycle": lambda tally: tally.lifecycle("a", by="day", periods=2_000, until=NOW),
    "streaks": lambda tally: tally.streaks("a", days=2_000, until=NOW),
    "stickiness": lambda tally: tally.stickiness("a", NOW),
    "funnel": lambda tally: tally.funnel(list("abcdefghij"), moment=NOW),
    "funnel, ordered": lambda tally: tally.funnel(
        ["a", "a", "b"], since=NOW - timedelta(100), until=NOW, window=timedelta(30)
    ),
    "event_names": lambda tally: tally.event_names(),
    "periods": lambda tally: tally.periods("a", "day"),
    "memory": lambda tally: tally.memory("a"),
    "mark_many, a range": lambda tally: tally.mark_many("m", range(200_000)),
    "mark_many, a list": lambda tally: tally.mark_many("m", list(range(200_000))),
    "mark_many, a generator": lambda tally: tally.mark_many("m", one_by_one(200_000)),
    "mark_many, a stream": lambda tally: tally.mark_many("m", streamed(100_000)),
    "mark_many, scattered": lambda tally: tally.mark_many("s", scattered),
    "mark_rows, columns": lambda tally: tally.mark_rows(columns),
    "mark_rows, a generator": lambda tally: tally.mark_rows(rows_one_by_one(30_000)),
    "mark_rows, a stream": lambda tally: tally.mark_rows(streamed_rows(30_000)),
    "mark_rows, far apart": lambda tally: tally.mark_rows(rows_far_apart(5_000)),
    "mark_rows, bad": lambda tally: tally.mark_rows(
        [("", 0, NOW)] * 20_000, on_error=lambda *_: None
    ),
    "unmark_many": lambda tally: tally.unmark_many("m", list(range(200_000))),
    "unmark_many, exact": lambda tally: tally.unmark_many("m", range(2_000), exact=True),
    "transaction": lambda tally: transaction(tally, 50_000),
    "export": lambda tally: drained(tally.export()),
    "restore, a list": lambda tally: tally.restore(
        Batch("r", Granularity.UNIQUE, None, list(range(200_000)))
    ),
    "restore, rows": lambda tally: tally.restore(
        ("r", "unique", None, number) for number in range(100_000)
    ),
    "restore, columns": lambda tally: tally.restore(
        {"event": "r", "granularity": "unique", "period": None, "user_id": list(range(200_000))}
    ),
    "merge": lambda tally: tally.merge(3, 4),
    "forget": lambda tally: tally.forget(4),
    "delete": lambda tally: tally.delete(any_of(map(tally_days(tally), days(2_000)))),
    "delete_all": lambda tally: tally.delete_all("trackist_"),
}


def tally_days(tally: Tally) -> Callable[[datetime], Any]:
    return lambda day: tally.day("a", day)


@pytest.fixture(scope="module")
def large(redis_server: str) -> Iterator[str]:
    """Yield a database with many keys and a bitmap of many users."""
    with redis.Redis.from_url(redis_server) as raw:
        raw.flushdb()
        with raw.pipeline(transaction=False) as pipeline:
            for day in days(3_000):
                pipeline.setbit(f"trackist_a_{day.year}-{day.month}-{day.day}", 7, 1)
                pipeline.setbit(f"trackist_a_{day.year}-{day.month}", 7, 1)
            for number in range(30_000):
                pipeline.setbit(f"trackist_name{number}_u", 3, 1)
            pipeline.execute()
        raw.setrange("trackist_far_u", 51_000_000, b"\xff" * 100_000)
        yield redis_server
        raw.flushdb()


@pytest.mark.exhaustive
@pytest.mark.parametrize("shards", [None, 4])
async def test_no_verb_keeps_the_loop(
    large: str, shards: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "TURN", 0.0)
    kept = {}
    prefix = "trackist_" if shards is None else "sharded_"
    async with Tally.from_url(large, shards=shards, timeout=600, prefix=prefix) as tally:
        if shards:
            await tally.mark_many("far", range(1_632_000_000, 1_632_200_000))
        for name, call in VERBS.items():
            if shards and name == "delete_all":
                continue
            await tally.count(tally.day("a"))
            found = call(tally)
            with Turns() as turns:
                await found
            if turns.most > MOST:
                kept[name] = turns.most
    assert not kept


async def test_numpy_is_imported_in_a_thread(redis_server: str) -> None:
    """That takes as long as many questions, and only who reads much needs it."""
    pytest.importorskip("numpy")
    program = """
import asyncio, sys, threading
import tallymark

threads = []
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            threads.append(threading.current_thread() is threading.main_thread())
sys.meta_path.insert(0, Watch())

async def main(verb, url):
    async with tallymark.Tally.from_url(url, prefix="np_") as tally:
        await tally.mark_event("a", 1)
        assert await tally.count(tally.day("a") & tally.week("a")) == 1
        assert not threads
        if verb == "users":
            async for _ in tally.users(tally.day("a")):
                pass
        else:
            await tally.retention("a", "a", periods=1)
    assert threads == [False], threads

asyncio.run(main(*sys.argv[1:]))
"""
    for verb in ("users", "retention"):
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", program, verb, redis_server],
            capture_output=True,
            text=True,
            check=False,
        )
        assert not done.returncode, done.stderr


#: Fifty years of days, on each of which somebody may have been.
LIFETIME = 18_250

OF_MANY_DAYS: dict[str, Callable[[Tally, EventSet], Any]] = {
    "count": lambda tally, long: tally.count(long),
    "counts": lambda tally, long: tally.counts([long, tally.unique("far")]),
    "contains": lambda tally, long: tally.contains(long, 7),
    "contains_many": lambda tally, long: tally.contains_many(long, range(32)),
    "users": lambda tally, long: drained(tally.users(long)),
    "retention": lambda tally, long: tally.retention(
        lambda _: long, "a", by="day", periods=2, until=NOW
    ),
    "delete": lambda tally, long: tally.delete(long),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("verb", OF_MANY_DAYS)
@pytest.mark.parametrize("shards", [None, 16])
async def test_no_number_of_shards_keeps_the_loop(
    redis_server: str, shards: int | None, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done for each shard is done in steps, and so the deadline is kept too."""
    monkeypatch.setattr(reader, "TURN", 0.0)
    options: Any = {"shards": shards, "prefix": "life_", "timeout": 600}
    async with Tally.from_url(redis_server, **options) as tally:
        await tally.mark_event("a", 7, now=NOW)
        # A table fetches them one by one, and in each shard.
        number = LIFETIME // 10 if verb == "retention" else LIFETIME
        long = any_of(map(tally_days(tally), days(number)))
        with Turns() as turns:
            await OF_MANY_DAYS[verb](tally, long)
        assert turns.most <= MOST
