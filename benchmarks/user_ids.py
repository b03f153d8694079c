"""Users with ids of other types, beside offsets: marks, mark_many and users, in turns.

Both tallies are in one process and use one server. Each round of the one is beside a round of
the other, with the same users, so that the ratios are of the same moment.
"""

from __future__ import annotations

import asyncio
import bisect
import gc
import itertools
import random
import statistics
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import redis
from contenders import in_threads
from contest import WrongBitsError, median_ratio

from tallymark import SyncTally, Tally

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Sequence

#: How many users the marks of known users and of zipf(1) choose from.
POPULATION = 10_000
#: The part of them that the cache holds for zipf(1).
CACHED = 0.1

_DOMAINS = ("example.com", "example.org", "mail.example.net")


def new_uuid(_: int, chance: random.Random) -> uuid.UUID:
    """Return a random UUID."""
    return uuid.UUID(int=chance.getrandbits(128), version=4)


def new_address(number: int, chance: random.Random) -> str:
    """Return an e-mail address of 20 to 40 characters."""
    name = f"{chance.getrandbits(32):08x}.{number}"
    return f"{name}@{chance.choice(_DOMAINS)}"


def new_snowflake(number: int, chance: random.Random) -> int:
    """Return an int with a time in its upper bits, as many services number their users."""
    return (1_700_000_000_000 + 997 * number << 22) + chance.getrandbits(22)


#: The name of a kind of ids: the option ``user_ids``, and what makes the n-th id.
KINDS: dict[str, tuple[type, Any]] = {
    "UUID": (uuid.UUID, new_uuid),
    "e-mail address": (str, new_address),
    "snowflake": (int, new_snowflake),
}


def ids_of(kind: str, count: int, seed: int = 1) -> list[Any]:
    """Return different ids, the same for the same arguments."""
    make, chance = KINDS[kind][1], random.Random(seed)
    return [make(number, chance) for number in range(count)]


@dataclass
class Times:
    """What the rounds of one tally have taken for each user, in seconds.

    Attributes:
        wall: by the clock.
        ours: CPU time of this process.
        server: CPU time of the server.
    """

    wall: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)


class Meter:
    """Measures rounds."""

    def __init__(self, store: redis.Redis) -> None:
        self._store = store

    def _now(self) -> tuple[float, float, float]:
        info: Any = self._store.info("cpu")
        server = info["used_cpu_user"] + info["used_cpu_sys"]
        return time.perf_counter(), time.process_time(), server

    async def add(self, times: Times, count: int, round_: Awaitable[Any]) -> Any:
        """Append what a round has taken for each of some users; return its result."""
        before = self._now()
        result = await round_
        for column, begun, ended in zip(
            (times.wall, times.ours, times.server), before, self._now(), strict=True
        ):
            column.append((ended - begun) / count)
        return result


def row(task: str, kind: str, callers: int | str, ids: Times, offsets: Times) -> dict[str, Any]:
    """Return a row of the results."""
    return {
        "task": task,
        "ids": kind,
        "callers": callers,
        "offsets_per_second": 1 / statistics.median(offsets.wall),
        "users_per_second": 1 / statistics.median(ids.wall),
        "ratio": median_ratio(offsets.wall, ids.wall),
        "cpu_us": 1e6 * statistics.median(ids.ours),
        "cpu_ratio": median_ratio(ids.ours, offsets.ours),
        "server_us": 1e6 * statistics.median(ids.server),
        "server_ratio": median_ratio(ids.server, offsets.server),
    }


# --- marks of one user


def drawn(workload: str) -> Iterator[int]:
    """Yield the number of the user of each mark.

    Arguments:
        workload: ``known``, where a population is marked again and again; ``new``, where each
            mark is of a new user; or ``zipf``, where the k-th user of the population is k
            times as rare as the first.
    """
    if workload == "known":
        return (number * 7919 % POPULATION for number in itertools.count())
    if workload == "new":
        return itertools.count()
    bounds = list(itertools.accumulate(1 / rank for rank in range(1, POPULATION + 1)))
    chance = random.Random(1)
    order = chance.sample(range(POPULATION), POPULATION)
    return (order[bisect.bisect(bounds, chance.random() * bounds[-1])] for _ in itertools.count())


class Users:
    """Users by number: as offsets, and as ids, of which it makes what it needs."""

    def __init__(self, kind: str) -> None:
        self._make, self._chance = KINDS[kind][1], random.Random(1)
        self._ids: list[Any] = []

    def ids(self, numbers: Sequence[int]) -> list[Any]:
        """Return the ids of users."""
        for number in range(len(self._ids), max(numbers) + 1):
            self._ids.append(self._make(number, self._chance))
        return [self._ids[number] for number in numbers]


async def mark_in_tasks(mark: Any, users: Sequence[Any], callers: int) -> None:
    """Mark users in concurrent tasks."""
    waiting = iter(users)

    async def call() -> None:
        for user in waiting:
            await mark("active", user)

    await asyncio.gather(*(call() for _ in range(callers)))


async def mark_in_threads(mark: Any, users: Sequence[Any], callers: int) -> None:
    """Mark users in concurrent threads; blocks the event loop, on which nothing else runs."""
    in_threads(mark, [("active", user) for user in users], callers)


@dataclass(frozen=True)
class Marks:
    """Measures marks of one user.

    Attributes:
        url: the store, which is emptied.
        rounds: how many rounds each tally has.
        seconds: about how long a round of ids takes.
    """

    url: str
    rounds: int
    seconds: float

    async def in_tasks(self, kind: str, workload: str, callers: int) -> dict[str, Any]:
        """Measure concurrent tasks; return a row."""
        async with (
            Tally.from_url(self.url, prefix="offsets_") as offsets,
            Tally.from_url(self.url, prefix="ids_", **_options(kind, workload)) as mapped,
        ):
            ways = offsets.mark_event, mapped.mark_event
            return await self._measure(kind, workload, callers, mark_in_tasks, ways)

    async def in_threads(self, kind: str, workload: str, callers: int) -> dict[str, Any]:
        """Measure threads of the blocking facade; return a row."""
        with (
            SyncTally.from_url(self.url, prefix="offsets_") as offsets,
            SyncTally.from_url(self.url, prefix="ids_", **_options(kind, workload)) as mapped,
        ):
            ways = offsets.mark_event, mapped.mark_event
            found = await self._measure(kind, workload, callers, mark_in_threads, ways)
            return {**found, "callers": f"{callers} threads"}

    async def _measure(
        self, kind: str, workload: str, callers: int, run: Any, ways: tuple[Any, Any]
    ) -> dict[str, Any]:
        mark_offset, mark_id = ways
        numbers, users = drawn(workload), Users(kind)
        seen: set[int] = set()
        with redis.Redis.from_url(self.url) as store:
            store.flushdb()

            def next_users(count: int) -> tuple[list[int], list[Any]]:
                wanted = list(itertools.islice(numbers, count))
                seen.update(wanted)
                return wanted, users.ids(wanted)

            # Also fills the cache.
            warm = POPULATION if workload != "new" else 2 * callers + 500
            begun = time.perf_counter()
            for mark, some in zip(ways, next_users(warm), strict=True):
                begun = time.perf_counter()
                await run(mark, some, callers)
            count = max(2 * callers, int(self.seconds * warm / (time.perf_counter() - begun)))
            meter, for_offsets, for_ids = Meter(store), Times(), Times()
            for _ in range(self.rounds):
                plain, mapped = next_users(count)
                await meter.add(for_offsets, count, run(mark_offset, plain, callers))
                await meter.add(for_ids, count, run(mark_id, mapped, callers))
            for prefix in ("offsets_", "ids_"):
                check_counts(store, prefix, "active", len(seen))
        return row(workload, kind, callers, for_ids, for_offsets)


def _options(kind: str, workload: str) -> dict[str, Any]:
    options: dict[str, Any] = {"user_ids": KINDS[kind][0]}
    if workload == "zipf":
        options["max_cached_ids"] = int(CACHED * POPULATION)
    return options


def check_counts(store: redis.Redis, prefix: str, event: str, users: int) -> None:
    """Raise unless each bitmap of an event has so many users.

    At midnight a new bitmap begins, so those of one granularity are united.
    """
    united: dict[int, int] = defaultdict(int)
    for key in store.scan_iter(match=f"{prefix}{event}_*", count=10_000):
        value: Any = store.get(key)
        kind = 9 if b"_W" in key else key.count(b"-")
        united[kind] |= int.from_bytes(value.ljust(2**18, b"\0"), "big")
    if sorted(bits.bit_count() for bits in united.values()) != [users] * 3:
        raise WrongBitsError(f"{prefix}{event}: not {users:,} users")


# --- many users at once


async def crowd(url: str, kind: str, rounds: int, users: int) -> list[dict[str, Any]]:
    """Measure mark_many and users; return a row for each task.

    Arguments:
        url: the store, which is emptied.
        kind: the kind of ids.
        rounds: how many rounds each tally has.
        users: how many users there are.
    """
    ids = ids_of(kind, users)
    order = random.Random(2).sample(range(users), users)
    shuffled = [ids[number] for number in order]
    tasks = ("new", "known", "cold cache", "users()")
    for_ids = {task: Times() for task in tasks}
    for_offsets = {task: Times() for task in tasks}
    gc.collect()
    gc.freeze()  # the garbage collector is not to be measured with our millions of ids
    with redis.Redis.from_url(url) as store:
        meter = Meter(store)
        for _ in range(rounds):
            store.flushdb()
            async with Tally.from_url(url, prefix="offsets_", timeout=300) as tally:
                for task in tasks[:3]:
                    some = range(users) if task == "new" else order
                    many = tally.mark_many(task, list(some))
                    await meter.add(for_offsets[task], users, many)
                await meter.add(for_offsets["users()"], users, read_through(tally, "new"))
                if await listed(tally, "new") != list(range(users)):
                    raise WrongBitsError("users of offsets")
            # So large that it holds them all in any order: see `NumberCache`.
            options: Any = {"user_ids": KINDS[kind][0], "max_cached_ids": 2 * users}
            async with Tally.from_url(url, prefix="ids_", timeout=300, **options) as tally:
                await meter.add(for_ids["new"], users, tally.mark_many("new", ids))
                await meter.add(for_ids["known"], users, tally.mark_many("known", shuffled))
            async with Tally.from_url(url, prefix="ids_", timeout=300, **options) as tally:
                many = tally.mark_many("cold cache", shuffled)
                await meter.add(for_ids["cold cache"], users, many)
                await meter.add(for_ids["users()"], users, read_through(tally, "new"))
                found = await listed(tally, "new")
                if set(found) != set(ids) or len(found) != users:
                    raise WrongBitsError(f"users of {kind}")
            for task, prefix in itertools.product(tasks[:3], ("offsets_", "ids_")):
                check_counts(store, prefix, task, users)
        store.flushdb()
    gc.unfreeze()
    return [
        row(task if task == "users()" else f"mark_many, {task}", kind, "", mine, its)
        for (task, mine), its in zip(for_ids.items(), for_offsets.values(), strict=True)
    ]


async def read_through(tally: Tally[Any], event: str) -> None:
    """Read the users of an event on this day, and keep none of them."""
    async for _ in tally.users(tally.day(event)):
        pass


async def listed(tally: Tally[Any], event: str) -> list[Any]:
    """Return the users of an event on this day."""
    return [user async for user in tally.users(tally.day(event))]


def user_ids(
    url: str,
    *,
    rounds: int,
    seconds: float,
    users: int = 1_000_000,
    callers: tuple[int, ...] = (50, 200, 1000),
) -> list[dict[str, Any]]:
    """Measure all of it; return a row for each task, kind of ids and number of callers.

    Arguments:
        url: the store, which is emptied.
        rounds: how many rounds of marks each tally has; those of many users are a third.
        seconds: about how long a round of marks takes.
        users: how many users are marked at once.
        callers: how many tasks mark at the same time.
    """
    marks = Marks(url, rounds, seconds)

    async def measured() -> list[dict[str, Any]]:
        rows = [
            await marks.in_tasks("UUID", workload, count)
            for workload in ("known", "new", "zipf")
            for count in callers
        ]
        rows.append(await marks.in_threads("UUID", "known", 16))
        for kind in list(KINDS)[1:]:
            rows += [await marks.in_tasks(kind, each, callers[1]) for each in ("known", "new")]
        for kind in KINDS:
            rows += await crowd(url, kind, -(-rounds // 3), users)
        return rows

    return asyncio.run(measured())
