"""`delete_all` with ids of any type: no id and no bit is left."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from deletions import PREFIX, checked, traces, with_merge_that_crashed
from erasures import BOB, EVE, IDS, LAYOUTS, USERS, Inspector, fill, opened

from facades import ASYNC
from stores import ClusterStore
from tallymark import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable

    from facades import Facade
    from stores import Store

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
        # No number is given again. (Shards of the cluster count by themselves.)
        if not isinstance(store, ClusterStore):
            assert await tally.ids(range(highest + 1)) == [None] * (highest + 1)
        assert await tally.delete_all(PREFIX) == 1
        assert await tally.delete_all(PREFIX) == 0


async def test_an_empty_database(facade: Facade, store: Store) -> None:
    async with opened(facade, store.url, str) as tally:
        assert await tally.delete_all(PREFIX) == 0
    assert store.names() <= {"trackist_schema"}


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
        assert not {"cmdstat_eval", "cmdstat_hscan", "cmdstat_set"} & stats.keys()
        assert raw.get("trackist_ids:stamp") == b"x"


@pytest.mark.parametrize("options", LAYOUTS)
async def test_other_prefixes_keep_their_ids(
    facade: Facade, redis_store: Store, options: Any
) -> None:
    """Also a longer one that ends like a key of a dictionary."""
    prefixes = ["trackist_eu_", "trackist_ids:f:", "other_"]
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


@pytest.mark.parametrize("right", ["eval", "hscan", "hkeys", "hdel", "set", "scan", "unlink"])
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
