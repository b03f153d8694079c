"""Numbers in the cache of one tally, while another one forgets the user, or keys are lost."""

from __future__ import annotations

import asyncio
import binascii
import itertools
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from dictionary_check import read_database
from marking_program import user

from clusters import Cluster
from facades import ASYNC, SYNC, Facade
from proxy import proxied
from tallymark import Tally, WrongSchemaError
from wires import wired

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stores import Store

OPTIONS: Any = {"user_ids": uuid.UUID, "timeout": 30.0}

STAMP = "trackist_ids:stamp"


def command(*words: str) -> bytes:
    """Return the bytes of a command."""
    parts = [f"${len(word)}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(parts)}".encode()


#: The end of each write of a tally that caches numbers.
WATCH, GET = command("WATCH", STAMP), command("GET", STAMP)


def users_of_equal_size() -> Iterator[uuid.UUID]:
    """Yield users whose buckets have five digits, so that their marks have equally many bytes."""
    for index in itertools.count():
        if binascii.crc32(user(index).bytes) % 2**16 >= 10_000:
            yield user(index)


@pytest.mark.parametrize("other_facade", [ASYNC, SYNC], ids=lambda other: str(other.name))
async def test_a_user_is_forgotten_that_another_tally_has_cached(
    facade: Facade, other_facade: Facade, redis_store: Store
) -> None:
    ann, bob = user(1), user(2)
    async with (
        facade.open(redis_store.url, **OPTIONS) as tally,
        other_facade.open(redis_store.url, **OPTIONS) as other,
    ):
        for event in ("first", "second"):
            await tally.mark_unique(event, ann)
            await other.mark_unique(event, bob)
        assert await other.forget(ann) == 2
        assert await tally.mark_unique("second", ann)
        assert not await tally.mark_unique("second", bob)
        for each in (tally, other):
            assert await each.count(each.unique("first")) == 1
            assert await each.count(each.unique("second")) == 2
            listed = [found async for found in each.users(each.unique("second"))]
            assert sorted(listed, key=str) == sorted((ann, bob), key=str)
    database = read_database(redis_store.raw)
    assert database.users == {"first_u": {bob}, "second_u": {ann, bob}}
    assert database.numbers == {ann: 2, bob: 1}
    assert not database.forgetting


async def size_of_writes(url: str, *marks: tuple[str, uuid.UUID]) -> list[int]:
    """Make marks over a new connection; return how many bytes were sent until each is done."""
    with proxied(url) as proxy:
        async with Tally.from_url(proxy.url, **OPTIONS) as tally:
            sizes = []
            for event, user_id in marks:
                await tally.mark_unique(event, user_id)
                sizes.append(len(b"".join(proxy.sent)))
            return sizes


@pytest.mark.parametrize("is_known", [False, True], ids=["new", "known"])
@pytest.mark.parametrize("behind", ["marks", "first-command"])
async def test_a_user_is_forgotten_in_the_middle_of_a_write(
    is_known: bool, behind: str, redis_store: Store
) -> None:
    raw = redis_store.raw
    users = users_of_equal_size()
    ann, bob, eve = next(users), next(users), next(users)
    end = len(GET) if behind == "first-command" else len(WATCH) + len(GET)
    async with Tally.from_url(redis_store.url, **OPTIONS) as other:
        for each in (eve, bob):
            await other.mark_unique("active", each)
        first, second = await size_of_writes(redis_store.url, ("active", bob), ("opened", bob))
        with wired(redis_store.url) as wire:
            async with Tally.from_url(wire.url, **OPTIONS) as tally:
                if is_known:
                    await tally.mark_unique("active", ann)
                    event, size = "opened", second - first
                else:
                    # No write before has sent a WATCH: it would abort the next transaction.
                    event, size = "active", first
                wire.hold_after("request", size - end)
                marking = asyncio.create_task(tally.mark_unique(event, ann))
                try:
                    await asyncio.to_thread(
                        Cluster.until, lambda: raw.getbit(f"trackist_{event}_u", 2), "mark of Ann"
                    )
                    assert not marking.done()
                    await other.forget(ann)
                finally:
                    wire.heal()
                await marking
                assert await tally.mark_unique("active", ann)
                assert await other.count(other.unique("active")) == 3
    assert read_database(raw).users == {"active_u": {ann, bob, eve}, "opened_u": {bob}}


def contents(store: Store) -> dict[str, Any]:
    """Return all keys of a store, with their values."""
    located = getattr(store.raw, "located", None)
    if located is None:
        return {key.decode(): store.raw.dump(key) for key in store.raw.keys("*")}
    return {key: node.dump(key) for key, node in located().items()}


@pytest.mark.parametrize("kind", ["redis", "cluster"])
async def test_the_stamp_is_lost(kind: str, facade: Facade, request: pytest.FixtureRequest) -> None:
    store: Store = request.getfixturevalue(f"{kind}_store")
    # As many old users that each shard has some.
    old, new = [user(index) for index in range(500)], [user(index) for index in range(500, 520)]
    async with facade.open(store.url, **OPTIONS) as tally:
        await tally.mark_many("active", old)
        for each in [*old[:40], *old[:40]]:
            await tally.mark_unique("active", each)
        if kind == "redis":
            store.raw.delete(STAMP)
        else:
            for key, node in store.raw.located().items():
                if key.endswith("ids:stamp"):
                    node.delete(key)
        before = contents(store)
        for each in new:
            with pytest.raises(WrongSchemaError, match="stamp"):
                await tally.mark_unique("active", each)
        with pytest.raises(WrongSchemaError, match="stamp"):
            await tally.mark_many("active", [*old, *new])
        async with facade.open(store.url, **OPTIONS) as other:
            with pytest.raises(WrongSchemaError, match="stamp"):
                await other.mark_unique("other", new[0])
        assert contents(store) == before
