"""How long each verb of the async facade blocks its event loop: `nox -s heartbeat`.

While a verb runs on a large input, a task wakes up every millisecond. The longest time
between two wake-ups is how long the loop was blocked. The CPU time of the thread in that
interval does not depend on other programs of the machine. Then each verb is called in both
facades with a timeout of a fifth of the time that it took; "late" is how much later than
its timeout it returned.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import random
import sys
import time
from array import array
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import redis

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from servers import running_server  # pyright: ignore[reportMissingImports]
from tallymark import SyncTally, Tally, TallymarkError, any_of, at_least

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

NOW = datetime(2026, 11, 23, 12)
#: How long a verb may block the loop, and how much later than its timeout it may return.
MOST_GAP, MOST_LATE = 0.05, 0.1
#: The numbers of shards with which the verbs of `verbs_of_shards` are measured.
SHARDS = (16, 64)


class Beats:
    """The longest delays of a task that wakes up every millisecond, and their CPU time."""

    def __init__(self) -> None:
        self.wall = self.busy = 0.0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._beat())
        await asyncio.sleep(0.01)
        self.wall = self.busy = 0.0
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0.01)
        self._task.cancel()

    async def _beat(self) -> None:
        while True:
            wall, busy = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.001)
            self.wall = max(self.wall, time.perf_counter() - wall - 0.001)
            self.busy = max(self.busy, time.thread_time() - busy)


class Verb(NamedTuple):
    """A verb with a large input.

    Attributes:
        name: the verb.
        what: the input of the verb.
        call: calls the verb on a tally of either facade, with options such as ``timeout``.
        sized: whether the time grows with the input, so that a timeout can end the call.
    """

    name: str
    what: str
    call: Callable[..., Any]
    sized: bool = True


def several(size: int) -> Iterator[int]:
    """Yield ids one by one."""
    yield from range(0, 3 * size, 3)


def verbs(scale: float) -> Iterator[Verb]:
    """Yield all verbs; ``scale`` is the size of the inputs, 1 for the full size."""
    many = int(1_000_000 * scale)
    some = int(200_000 * scale)
    few = int(5_000 * scale)
    scattered = [(index * 7_919) % 40_000_000 for index in range(many)]
    listed = list(range(many))
    yield Verb(
        "mark_many", f"a range of {many:,}", lambda t, **o: t.mark_many("m", range(many), **o)
    )
    yield Verb("mark_many", f"a list of {many:,}", lambda t, **o: t.mark_many("m", listed, **o))
    yield Verb(
        "mark_many", f"a generator of {many:,}", lambda t, **o: t.mark_many("m", several(many), **o)
    )
    yield Verb("mark_many", f"{many:,} scattered", lambda t, **o: t.mark_many("s", scattered, **o))
    yield Verb(
        "mark_many", f"an array of {many:,}", lambda t, **o: t.mark_many("m", numbers(many), **o)
    )
    yield Verb("unmark_many", f"a list of {many:,}", lambda t, **o: t.unmark_many("m", listed, **o))
    yield Verb(
        "unmark_many",
        f"exact, {some // 10:,}",
        lambda t, **o: t.unmark_many("m", range(some // 10), exact=True, **o),
    )
    yield Verb("transaction", f"{some:,} marks", lambda t, **o: transaction(t, some, **o))
    yield Verb(
        "contains_many",
        f"{many:,} neighbours",
        lambda t, **o: t.contains_many(t.month("big", NOW), listed, **o),
    )
    yield Verb(
        "contains_many",
        f"{many:,} scattered",
        lambda t, **o: t.contains_many(t.month("big", NOW), scattered, **o),
    )
    yield Verb(
        "contains_many",
        f"{few:,} ids, 30 years",
        lambda t, **o: t.contains_many(
            t.between("a", NOW - timedelta(11_000), NOW), range(few), **o
        ),
    )
    yield Verb(
        "counts",
        f"{few:,} sets",
        lambda t, **o: t.counts([t.last("a", 28, day) for day in days(few)], **o),
    )
    yield Verb("count", "a union of 19,000 days", lambda t, **o: t.count(union(t, 19_000), **o))
    yield Verb(
        "count",
        "1,600 years",
        lambda t, **o: t.count(t.between("a", datetime(400, 1, 1), NOW), **o),
    )
    for verb in ("count", "is_empty"):
        yield Verb(
            verb,
            "at least 20 of 31 days of 10,000,000",
            lambda t, verb=verb, **o: getattr(t, verb)(regulars(t, 20, 31, "random"), **o),
        )
        yield Verb(
            verb,
            "at least 1,000 of 3,650 days",
            lambda t, verb=verb, **o: getattr(t, verb)(regulars(t, 1_000, 3_650, "a"), **o),
        )
    yield Verb(
        "contains", "a union of 19,000 days", lambda t, **o: t.contains(union(t, 19_000), 7, **o)
    )
    yield Verb(
        "is_empty",
        "1,600 years",
        lambda t, **o: t.is_empty(t.between("no", datetime(400, 1, 1), NOW), **o),
    )
    yield Verb(
        "users", "8,000,000", lambda t, **o: drained(t.users(t.month("big", NOW), **o)), False
    )
    yield Verb(
        "user_chunks",
        "8,000,000",
        lambda t, **o: drained(t.user_chunks(t.month("big", NOW), **o)),
        False,
    )
    yield Verb(
        "users",
        "8,000,000 behind a gap",
        lambda t, **o: drained(t.users(t.unique("far"), **o)),
        False,
    )
    yield Verb(
        "users", "of 19,000 days", lambda t, **o: drained(t.users(union(t, 19_000), **o)), False
    )
    yield Verb(
        "history",
        "19,000 days",
        lambda t, **o: t.history(7, "a", NOW - timedelta(19_000), NOW, **o),
    )
    yield Verb(
        "history",
        "19,000 hours",
        lambda t, **o: t.history(7, "a", NOW - timedelta(hours=19_000), NOW, "hour", **o),
    )
    yield Verb(
        "retention",
        "700 days x 700",
        lambda t, **o: t.retention("a", "a", by="day", periods=700, cohorts=700, until=NOW, **o),
    )
    yield Verb(
        "retention",
        "9,000 days x 30",
        lambda t, **o: t.retention("a", "a", by="day", periods=30, cohorts=9_000, until=NOW, **o),
    )
    yield Verb(
        "retention",
        "400 days, first_time, unbounded",
        lambda t, **o: t.retention(
            "a",
            "a",
            by="day",
            periods=300,
            cohorts=400,
            until=NOW,
            first_time=True,
            mode="unbounded",
            **o,
        ),
    )
    yield Verb(
        "trend",
        "9,000 days",
        lambda t, **o: t.trend("a", periods=9_000, until=NOW, **o),
    )
    yield Verb(
        "trend",
        "1,000 days x 9, rolling 365",
        lambda t, **o: t.trend(list("abcdefghi"), periods=1_000, rolling=365, until=NOW, **o),
    )
    yield Verb(
        "days_active",
        "of 18,000 days",
        lambda t, **o: t.days_active("a", days=18_000, until=NOW, **o),
    )
    yield Verb(
        "lifecycle",
        "9,000 days",
        lambda t, **o: t.lifecycle("a", by="day", periods=9_000, until=NOW, **o),
    )
    yield Verb(
        "streaks",
        "18,000 days",
        lambda t, **o: t.streaks("a", days=18_000, until=NOW, **o),
    )
    yield Verb(
        "funnel",
        "190 steps",
        lambda t, **o: t.funnel([f"e{at}" for at in range(190)], moment=NOW, **o),
    )
    yield Verb(
        "funnel",
        "ordered, 300 days, window of 60",
        lambda t, **o: t.funnel(
            ["a", "a", "a"],
            since=NOW - timedelta(days=300),
            until=NOW,
            window=timedelta(days=60),
            **o,
        ),
    )
    yield Verb(
        "funnel",
        "ordered, 9,000 days, 2 steps",
        lambda t, **o: t.funnel(["a", "a"], since=NOW - timedelta(days=9_000), until=NOW, **o),
    )
    yield Verb("stickiness", "", lambda t, **o: t.stickiness("a", NOW, **o), False)
    yield Verb("event_names", "of 100,000 keys", lambda t, **o: t.event_names(**o))
    yield Verb("periods", "of 100,000 keys", lambda t, **o: t.periods("a", "day", **o))
    yield Verb("memory", "of 100,000 keys", lambda t, **o: t.memory("a", **o))
    yield Verb("merge", "in 100,000 keys", lambda t, **o: t.merge(7, 3, **o))
    yield Verb("forget", "in 100,000 keys", lambda t, **o: t.forget(3, **o))
    yield Verb("delete", "9,000 days", lambda t, **o: t.delete(union(t, 9_000), **o), False)
    yield Verb(
        "delete_all", "of 100,000 keys", lambda t, **o: t.delete_all("trackist_", **o), False
    )


def verbs_of_shards(scale: float, shards: int) -> Iterator[Verb]:
    """Yield verbs that read very many bitmaps in each of so many shards."""
    many = int(18_250 * scale)
    what = f"{many:,} days, {shards} shards"
    yield Verb("count", what, lambda t, **o: t.count(union(t, many), **o))
    yield Verb("contains", what, lambda t, **o: t.contains(union(t, many), 7, **o))
    yield Verb(
        "contains_many", what, lambda t, **o: t.contains_many(union(t, many), range(3_000), **o)
    )
    yield Verb("users", what, lambda t, **o: drained(t.users(union(t, many), **o)), False)
    yield Verb(
        "retention",
        what,
        lambda t, **o: t.retention(
            lambda _: union(t, many), "a", by="day", periods=2, until=NOW, **o
        ),
    )
    yield Verb("delete", what, lambda t, **o: t.delete(union(t, many), **o), False)


def days(number: int) -> list[datetime]:
    """Return so many days, from the last one back."""
    return [NOW - timedelta(days=distance) for distance in range(number)]


_unions: dict[Any, Any] = {}


def union(tally: Any, number: int) -> Any:
    """Return an event set of so many days, built only once: that is not to be measured."""
    key = (tally._context.origin, number)
    if key not in _unions:
        _unions[key] = any_of([tally.day("a", day) for day in days(number)])
    return _unions[key]


def regulars(tally: Any, threshold: int, number: int, event: str) -> Any:
    """Return the event set of who was there on at least so many of so many days."""
    key = (tally._context.origin, threshold, number, event)
    if key not in _unions:
        _unions[key] = at_least(threshold, [tally.day(event, day) for day in days(number)])
    return _unions[key]


def numbers(size: int) -> Any:
    """Return an array of ids."""
    try:
        import numpy
    except ImportError:
        return array("Q", range(size))
    return numpy.arange(size)


async def drained(stream: Any) -> int:
    """Read a stream to its end, and return the number of its items."""
    number = 0
    if hasattr(stream, "__aiter__"):
        async for _ in stream:
            number += 1
    else:
        for _ in stream:
            number += 1
    return number


async def transaction(tally: Any, size: int, **options: Any) -> None:
    """Mark in a transaction, as a program does that lets other tasks run meanwhile."""
    if isinstance(tally, Tally):
        async with tally.transaction(**options) as tx:
            for user in range(size):
                tx.mark_event("t", user)
                if user % 1_000 == 0:
                    await asyncio.sleep(0)
            began.append(time.perf_counter())
    else:
        with tally.transaction(**options) as tx:
            for user in range(size):
                tx.mark_event("t", user)
            began.append(time.perf_counter())


#: When the measured part of a call began; the last item counts.
began: list[float] = []


def fill(url: str, scale: float) -> None:
    """Write the bitmaps that the verbs read."""
    with redis.Redis.from_url(url) as raw:
        raw.flushdb()
        with raw.pipeline(transaction=False) as pipeline:
            for distance in range(int(19_000 * scale)):
                day = NOW - timedelta(days=distance)
                pipeline.set(f"trackist_a_{day.year}-{day.month}-{day.day}", b"\x15" * 32)
                pipeline.setbit(f"trackist_a_{day.year}-{day.month}", 7, 1)
            for number in range(int(80_000 * scale)):
                pipeline.setbit(f"trackist_name{number}_u", 3, 1)
            pipeline.execute()
        chance = random.Random(1)
        for day in days(31):
            key = f"trackist_random_{day.year}-{day.month}-{day.day}"
            raw.set(key, chance.randbytes(int(1_250_000 * scale)))
        raw.set("trackist_big_2026-11", b"\xff" * 1_000_000)
        raw.setbit("trackist_far_u", 400_000_000, 1)
        raw.setrange("trackist_far_u", 51_000_000, b"\xff" * 1_000_000)


def timed() -> None:
    """Start the clock of a call; the garbage collector skips all objects made before."""
    gc.collect()
    gc.freeze()
    began[:] = [time.perf_counter()]


async def measured(verb: Verb, tally: Tally, **options: Any) -> tuple[float, Beats, str]:
    """Return how long a verb took, how long it blocked the loop, and how it ended."""
    made = verb.call(tally, **options)
    timed()
    async with Beats() as beats:
        try:
            await made
            ended = "done"
        except TallymarkError as error:
            ended = type(error).__name__
        took = time.perf_counter() - began[-1]
    return took, beats, ended


async def measure(url: str, scale: float, only: str) -> bool:
    """Print a line for each verb; return whether all stayed within the limits."""
    print("| verb | input | took | longest stop | of it computing | late | late, blocking |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    fine = await measure_all(url, None, verbs(scale), only)
    for shards in SHARDS:
        fine &= await measure_all(url, shards, verbs_of_shards(scale, shards), only)
    return fine


async def measure_all(url: str, shards: int | None, every: Iterator[Verb], only: str) -> bool:
    """Print a line for each of some verbs; return whether all stayed within the limits."""
    fine = True
    async with contextlib.AsyncExitStack() as stack:
        options: dict[str, Any] = {"timeout": 300}
        if shards:
            options |= {"shards": shards, "prefix": f"in{shards}_"}
        tally = await stack.enter_async_context(Tally.from_url(url, **options))
        blocking = stack.enter_context(SyncTally.from_url(url, **options))
        await tally.mark_event("a", 7, now=NOW)
        await tally.count(tally.day("a", NOW))
        for verb in every:
            if only not in verb.name:
                continue
            took, beats, ended = await measured(verb, tally)
            late = [""] * 2
            if verb.sized and ended == "done" and took > 0.02:
                limit = max(took / 5, 0.02)
                own, again, how = await measured(verb, tally, timeout=limit)
                beats.wall, beats.busy = max(beats.wall, again.wall), max(beats.busy, again.busy)
                late[0] = f"{max(0, own - limit) * 1000:.0f} ms"
                fine &= own - limit < MOST_LATE or how == "done"
                timed()
                with contextlib.suppress(TallymarkError):
                    result = verb.call(blocking, timeout=limit)
                    if asyncio.iscoroutine(result):
                        await result
                spent = time.perf_counter() - began[-1]
                late[1] = f"{max(0, spent - limit) * 1000:.0f} ms"
                fine &= spent - limit < MOST_LATE
            fine &= beats.busy < MOST_GAP
            done = "" if ended == "done" else f" ({ended})"
            print(
                f"| {verb.name} | {verb.what} | {took:.2f} s{done} | {beats.wall * 1000:.0f} ms "
                f"| {beats.busy * 1000:.0f} ms | {late[0]} | {late[1]} |",
                flush=True,
            )
    return fine


def main() -> int:
    """Measure; return 1 if a verb blocked the loop for too long, or returned too late."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="the size of the inputs")
    parser.add_argument("--verb", default="", help="measure this one only")
    options = parser.parse_args()
    with running_server() as url:
        fill(url, options.scale)
        return 0 if asyncio.run(measure(url, options.scale, options.verb)) else 1


if __name__ == "__main__":
    sys.exit(main())
