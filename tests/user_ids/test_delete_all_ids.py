"""`delete_all` with ids of any type: no id and no bit is left, and marks go on meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from dictionary_check import read_cluster, read_database
from erasures import (
    ANN,
    BOB,
    EVE,
    IDS,
    LAYOUTS,
    NOBODY,
    USERS,
    Crashed,
    Inspector,
    crashing,
    fill,
    fill_blocking,
    losing_an_answer,
    opened,
    opened_blocking,
    repeating,
    run,
    step_by_step,
)

from facades import ASYNC
from stores import ClusterStore
from tallymark import CommandError, StoreUnavailableError
from tallymark._core.keys import key_slot
from tallymark._reading import id_deletion, key_scan
from tallymark._reading.keyspace import delete_all
from tallymark._reading.user_bits import merge

if TYPE_CHECKING:
    from collections.abc import Callable

    from dictionary_check import Database

    from facades import Facade
    from stores import Store
    from tallymark._reading.requests import Query

PREFIX = "trackist_"


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each request change two keys, and examine about four."""
    monkeypatch.setattr(id_deletion, "_STEP", 2)
    monkeypatch.setattr(id_deletion, "_FIELDS", 1)
    monkeypatch.setattr(key_scan, "_STEP", 4)


def checked(store: Store) -> Database:
    """Return what the database has, without tallymark; check that it agrees with itself."""
    if isinstance(store, ClusterStore):
        return read_cluster(store.raw._cluster)
    return read_database(store.raw)


def deletion(tally: Any) -> Query[int]:
    return delete_all(tally.backend.context, PREFIX)


def traces(inspector: Inspector, users: list[Any]) -> list[bytes]:
    """Return the bytes by which ids would be found; those of the int 0 are everywhere."""
    entries = [inspector.dictionary.entry(inspector.dictionary.ids.key(user)) for user in users]
    return [part for _, *parts in entries for part in parts if part.strip(b"\0")]


def with_merge_that_crashed(url: str, count: int = 5, **options: Any) -> None:
    """Merge the first user into the second one, and crash after the erasure."""
    with opened_blocking(url, **options) as tally, pytest.raises(Crashed):
        run(tally, crashing(merge(tally.backend.context, ANN, BOB), count))


# --- what it does


@pytest.mark.parametrize("kind", IDS)
async def test_no_id_is_left(facade: Facade, store: Store, kind: type) -> None:
    users = IDS[kind]
    inspector = Inspector(store, kind)
    async with (
        opened(facade, store.url, kind) as tally,
        opened(ASYNC, store.url, kind) as other,
    ):
        await fill(tally, users)
        # Both have cached the numbers.
        for each in (tally, other, other):
            await each.mark_unique("active", users[0])
        stamps = inspector.stamps()
        highest = max(number for number in await tally.numbers(users[:3]) if number is not None)
        found = traces(inspector, users[:3])
        assert all(map(inspector.has_bytes, found))
        assert await tally.delete_all(PREFIX) == 4
        assert not any(map(inspector.has_bytes, found))
        assert await tally.numbers(users) == [None] * 4
        assert await tally.ids(range(highest + 1)) == [None] * (highest + 1)
        assert inspector.users(users) == {}
        # The stamps are others, of the same shards.
        assert inspector.stamps().keys() == stamps.keys()
        assert not stamps.items() & inspector.stamps().items()
        for each, user in itertools.product((other, tally), users[:2]):
            await each.mark_unique("active", user)
        assert await tally.count(tally.unique("active")) == 2
        assert {user async for user in other.users(other.unique("active"))} == set(users[:2])
        # Nobody has a number again.
        before = {number for number in range(highest + 1) if (await tally.ids([number]))[0]}
        assert not before or isinstance(store, ClusterStore)
        assert await tally.delete_all(PREFIX) == 1
        assert await tally.delete_all(PREFIX) == 0


async def test_an_empty_database(facade: Facade, store: Store) -> None:
    async with opened(facade, store.url, str) as tally:
        assert await tally.delete_all(PREFIX) == 0
    assert store.names() <= {"trackist_schema"}


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("options", LAYOUTS)
async def test_several_blocks(redis_store: Store, kind: type, options: Any) -> None:
    """The last block of a shard may have numbers that are given later."""
    users: dict[type, Callable[[int], Any]] = {
        uuid.UUID: lambda number: uuid.UUID(int=number + 2**90),
        str: "user {}".format,
        bytes: b"user %d".__mod__,
        int: lambda number: number,
    }
    ids = [users[kind](number) for number in range(9000)]
    inspector = Inspector(redis_store, kind, **options)
    async with opened(ASYNC, redis_store.url, kind, **options) as tally:
        await tally.mark_many("active", ids)
        blocks = [name for name in redis_store.names() if "ids:r:" in name]
        assert len(blocks) >= 3
        assert await tally.delete_all(PREFIX) == 3
        assert checked(redis_store).numbers == {}
        assert not any(map(inspector.has_bytes, traces(inspector, ids[:200:10])))
        # At most the last block of each shard is left, with no id in it.
        left = [name for name in redis_store.names() if "ids:r:" in name or "ids:f:" in name]
        assert len(left) <= (options.get("shards") or 1)
        assert not any(redis_store.raw.get(name).strip(b"\0") for name in left)
        await tally.mark_many("active", ids[:5000])
        assert checked(redis_store).numbers.keys() == set(ids[:5000])
        assert await tally.count(tally.day("active")) == 5000


async def test_a_tally_without_ids_has_no_other_requests(
    facade: Facade, redis_store: Store
) -> None:
    raw = redis_store.raw
    async with facade.open(redis_store.url) as tally:
        await tally.mark_event("active", 7)
        raw.set("trackist_ids:stamp", "x")
        raw.config_resetstat()
        assert await tally.delete_all(PREFIX) == 3
        stats = raw.info("commandstats")
        assert not {"cmdstat_eval", "cmdstat_hgetall", "cmdstat_set"} & stats.keys()
        assert raw.get("trackist_ids:stamp") == b"x"


@pytest.mark.parametrize("options", LAYOUTS)
async def test_other_prefixes_keep_their_ids(
    facade: Facade, redis_store: Store, options: Any
) -> None:
    """Also a longer one that ends like a key of a dictionary."""
    prefixes = ["trackist_eu_", "trackist_ids:f:", "other_", "tracki"]
    async with opened(facade, redis_store.url, str, **options) as tally:
        await tally.mark_unique("a", "ann")
        for prefix in prefixes:
            async with opened(facade, redis_store.url, str, prefix=prefix, **options) as other:
                await other.mark_unique("a", "ann")
        await tally.delete_all(PREFIX)
        assert await tally.numbers(["ann"]) == [None]
        for prefix in prefixes:
            async with opened(facade, redis_store.url, str, prefix=prefix, **options) as other:
                assert (await other.numbers(["ann"]))[0] is not None


@pytest.mark.parametrize("options", LAYOUTS)
async def test_what_a_crashed_merge_has_left(
    facade: Facade, redis_store: Store, options: Any
) -> None:
    """The entry in the journal has the id of the target."""
    inspector = Inspector(redis_store, uuid.UUID, **options)
    async with opened(facade, redis_store.url, uuid.UUID, **options) as tally:
        await fill(tally, USERS)
        with_merge_that_crashed(redis_store.url, **options)
        (entry,) = inspector.journals()
        assert BOB.bytes in entry
        assert await tally.delete_all(PREFIX) == 4
        assert inspector.journals() == []
        assert not inspector.has_bytes(BOB.bytes)
        assert await tally.forget(EVE) == 0
        assert checked(redis_store).numbers == {}


@pytest.mark.parametrize("lost", ["stamp", "next"])
async def test_keys_that_were_evicted(facade: Facade, plain_store: Store, lost: str) -> None:
    """The ids are deleted nevertheless, and the missing key is not made."""
    inspector = Inspector(plain_store, uuid.UUID)
    async with opened(facade, plain_store.url, uuid.UUID) as tally:
        await fill(tally, USERS)
        plain_store.raw.delete(f"trackist_ids:{lost}")
        assert await tally.delete_all(PREFIX) == 4
        assert not any(map(inspector.has_bytes, traces(inspector, USERS)))
        assert f"trackist_ids:{lost}" not in plain_store.names()


async def test_a_full_server(facade: Facade, redis_store: Store) -> None:
    inspector, raw = Inspector(redis_store, uuid.UUID), redis_store.raw
    async with opened(facade, redis_store.url, uuid.UUID) as tally:
        await fill(tally, USERS)
        raw.config_set("maxmemory", 1)
        try:
            assert await tally.delete_all(PREFIX) == 4
        finally:
            raw.config_set("maxmemory", 0)
        assert not any(map(inspector.has_bytes, traces(inspector, USERS)))
        assert checked(redis_store).users == {}


@pytest.mark.parametrize("right", ["eval", "hgetall", "hkeys", "hdel", "set", "scan", "unlink"])
async def test_a_missing_right(facade: Facade, redis_store: Store, right: str) -> None:
    """No number has two ids, and no id two numbers. With all rights, a repetition does the rest."""
    raw = redis_store.raw
    async with opened(facade, redis_store.url, uuid.UUID) as tally:
        await fill(tally, USERS)
        raw.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", f"-{right}")
        try:
            url = redis_store.url.replace("//", "//app:secret@")
            async with opened(facade, url, uuid.UUID) as limited:
                with pytest.raises(CommandError, match=f"(?i){right}|can't run this command"):
                    await limited.delete_all(PREFIX)
        finally:
            raw.execute_command("ACL", "DELUSER", "app")
        await tally.delete_all(PREFIX)
        found = checked(redis_store)
        assert (found.numbers, found.users) == ({}, {})


# --- concurrency


def requests(url: str, options: Any) -> int:
    """Return how many requests a deletion has."""
    numbers: list[int] = []
    with opened_blocking(url, **options) as tally:
        fill_blocking(tally, USERS)
        with_merge_that_crashed(url, **options)
        run(tally, step_by_step(deletion(tally), numbers.append))
    return len(numbers)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("options", LAYOUTS)
def test_marks_before_any_step(redis_store: Store, options: Any) -> None:
    """Another tally, with numbers in its cache, marks before one of the requests, or all."""
    count = requests(redis_store.url, options)
    assert count >= 8
    for wanted in [*range(count + 1), None]:
        redis_store.raw.flushdb()
        with (
            opened_blocking(redis_store.url, **options) as tally,
            opened_blocking(redis_store.url, **options) as other,
        ):
            fill_blocking(other, USERS)
            with_merge_that_crashed(redis_store.url, **options)

            def mark(step: int, at: int | None = wanted, marking: Any = other) -> None:
                if at in {step, None}:
                    for user in (EVE, uuid.uuid4()):
                        marking.mark_unique(f"e{step}", user)
                        marking.mark_unique("late", user)

            run(tally, step_by_step(deletion(tally), mark))
            found = checked(redis_store)  # no bit is without an id
            assert not inspector_has(redis_store, options, [ANN, BOB])
            if wanted == 0:
                assert (found.numbers, found.users) == ({}, {})
            for user in (EVE, ANN):
                other.mark_unique("late", user)
            now = checked(redis_store).users["late_u"]
            assert {EVE, ANN} <= now
            assert (
                tally.count(tally.unique("late"))
                == len(now)
                == len(set(tally.users(tally.unique("late"))))
            )
            tally.delete_all(PREFIX)
            found = checked(redis_store)
            assert (found.numbers, found.users) == ({}, {})


def inspector_has(store: Store, options: Any, users: list[Any]) -> bool:
    inspector = Inspector(store, uuid.UUID, **options)
    return any(map(inspector.has_bytes, traces(inspector, users)))


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("options", LAYOUTS)
@pytest.mark.parametrize("verb", ["forget", "merge"])
def test_users_are_forgotten_before_any_step(redis_store: Store, options: Any, verb: str) -> None:
    """Also users who were marked after the deletion has begun: no bit of them is left."""
    count = requests(redis_store.url, options)
    for wanted in range(count):
        redis_store.raw.flushdb()
        with (
            opened_blocking(redis_store.url, **options) as tally,
            opened_blocking(redis_store.url, **options) as other,
        ):
            fill_blocking(other, USERS)
            with_merge_that_crashed(redis_store.url, **options)
            begun = False

            def erase(step: int, at: int = wanted, marking: Any = other) -> None:
                nonlocal begun
                if step == at and not begun:  # it may begin anew
                    begun = True
                    marking.mark_unique("late", NOBODY)
                    arguments = (NOBODY,) if verb == "forget" else (NOBODY, EVE)
                    assert getattr(marking, verb)(*arguments) == 1

            run(tally, step_by_step(deletion(tally), erase))
            found = checked(redis_store)
            assert found.numbers.keys() <= ({BOB, EVE} if verb == "merge" else {BOB})
            assert found.forgetting == 0
            tally.delete_all(PREFIX)
            found = checked(redis_store)
            assert (found.numbers, found.users) == ({}, {})


@pytest.mark.parametrize("kind", [uuid.UUID, str])
async def test_marks_and_deletions_at_once(facade: Facade, store: Store, kind: type) -> None:
    users = IDS[kind]
    async with (
        opened(facade, store.url, kind) as tally,
        opened(ASYNC, store.url, kind) as other,
    ):
        stop = False

        async def mark() -> None:
            while not stop:
                await asyncio.gather(*(other.mark_unique("active", user) for user in users))

        marking = asyncio.create_task(mark())
        for _ in range(20):
            await tally.delete_all(PREFIX)
            await asyncio.sleep(0)
        stop = True
        await marking
        await other.mark_unique("active", users[0])
        found = checked(store)
        assert users[0] in found.numbers
        await asyncio.gather(*(tally.delete_all(PREFIX) for _ in range(4)))
        found = checked(store)
        assert (found.numbers, found.users) == ({}, {})


# --- faults


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("fault", [crashing, repeating, losing_an_answer])
@pytest.mark.parametrize("options", LAYOUTS)
def test_a_fault_at_any_step(redis_store: Store, options: Any, fault: Any) -> None:
    """Another tally marks behind it with the numbers that it has cached; a repetition does all."""
    for step in range(requests(redis_store.url, options)):
        redis_store.raw.flushdb()
        with (
            opened_blocking(redis_store.url, **options) as tally,
            opened_blocking(redis_store.url, **options) as other,
        ):
            fill_blocking(other, USERS)
            with_merge_that_crashed(redis_store.url, **options)
            if fault is repeating:
                run(tally, fault(deletion(tally), step))
            else:
                with pytest.raises((Crashed, StoreUnavailableError)):
                    run(tally, fault(deletion(tally), step))
                other.mark_unique("late", EVE)
                assert other.contains(other.unique("late"), EVE) in {True, False}
                other.mark_unique("late", EVE)
                tally.delete_all(PREFIX)
            found = checked(redis_store)
            assert (found.numbers, found.users, found.forgetting) == ({}, {}, 0)
            assert not inspector_has(redis_store, options, USERS)
            other.mark_unique("late", EVE)
            assert other.count(other.unique("late")) == 1
            assert checked(redis_store).users["late_u"] == {EVE}


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("options", LAYOUTS)
def test_a_failover_at_any_step(redis_store: Store, options: Any) -> None:
    """The server loses its last writes; no user has a number without an id, or another's bit."""
    raw = redis_store.raw
    for step, lost in itertools.combinations(range(requests(redis_store.url, options)), 2):
        raw.flushdb()
        snapshots: list[dict[bytes, bytes]] = []

        def fail_over(
            number: int, first: int = step, at: int = lost, kept: Any = snapshots
        ) -> None:
            kept.append({key: raw.dump(key) for key in raw.keys("*")})
            if number == at:
                raw.flushdb()
                for key, value in kept[first].items():
                    raw.restore(key, 0, value)

        with opened_blocking(redis_store.url, **options) as tally:
            fill_blocking(tally, USERS)
            run(tally, step_by_step(deletion(tally), fail_over))
            places = Inspector(redis_store, uuid.UUID, **options)
            places.numbers(USERS)  # asserts that each number has its id
            tally.mark_unique("late", EVE)
            assert set(tally.users(tally.unique("late"))) == {EVE}
            tally.delete_all(PREFIX)
            found = checked(redis_store)
            assert (found.numbers, found.users) == ({}, {})


async def test_while_a_slot_moves(facade: Facade, cluster_store: Any) -> None:
    """The call waits until all keys of the slot are at one node."""
    inspector, cluster = Inspector(cluster_store, uuid.UUID), cluster_store.raw._cluster
    shard = inspector.dictionary.shard(inspector.dictionary.ids.key(ANN))
    slot = key_slot(inspector.dictionary.key(shard, "stamp"))
    async with opened(ASYNC, cluster_store.url, uuid.UUID) as tally:
        await fill(tally, USERS)
    source = cluster.owner(slot)
    target = next(node for node in cluster.masters() if node is not source)
    try:
        async with opened(facade, cluster_store.url, uuid.UUID, timeout=0.3) as tally:
            cluster.begin_move(slot, target)
            for _ in range(3):
                cluster.move_keys(slot, source, target, 2)
                with pytest.raises(StoreUnavailableError):
                    await tally.delete_all(PREFIX)
            while cluster.move_keys(slot, source, target, 10):
                pass
            cluster.end_move(slot, target)
        cluster.settle()
        async with opened(facade, cluster_store.url, uuid.UUID) as tally:
            await tally.delete_all(PREFIX)
        found = checked(cluster_store)
        assert (found.numbers, found.users) == ({}, {})
    finally:
        cluster.move(slot, source)
        cluster.settle()


@pytest.mark.usefixtures("small_steps")
def test_a_slot_moves_during_the_scans(cluster_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that come to a node behind its cursor are found nevertheless."""
    monkeypatch.setattr(key_scan, "_STEP", 1)
    inspector, cluster = Inspector(cluster_store, uuid.UUID), cluster_store.raw._cluster
    of_shard = inspector.dictionary.shard
    users = [
        user
        for user in map(uuid.UUID, map("{:032x}".format, range(400)))
        if of_shard(user.int) == 5
    ]
    slot = key_slot(inspector.dictionary.key(5, "stamp"))
    home = cluster.owner(slot)
    other = next(node for node in cluster.masters() if node is not home)
    for step in range(4, 64, 6):
        cluster.flush()
        with opened_blocking(cluster_store.url) as tally:
            for number, user in enumerate(users):
                tally.mark_unique(f"e{number}", user)

            def move(number: int, at: int = step) -> None:
                if number == at:
                    cluster.move(slot, other)  # noqa: B023

            run(tally, step_by_step(deletion(tally), move))
        found = checked(cluster_store)
        assert (found.numbers, found.users) == ({}, {}), step
        home, other = other, home
        cluster.settle()
