"""Marks of users with ids of any type while a slot of a cluster is being migrated.

The dictionary of a shard is in one slot. A node that has a part of it must neither give a user a
second number, nor a number to a second user.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from clusters import running_cluster
from stores import ClusterStore
from tallymark import Granularity, StoreNotReadyError, StoreTimeoutError
from tallymark._core.keys import KeySchema, tag_slot, tags

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusters import Cluster
    from facades import Facade

SHARDS, SHARD = 16, 5
SLOT = tag_slot(tags(SHARDS)[SHARD].encode())
DICTIONARY = KeySchema(shards=SHARDS, user_ids=str).dictionary
assert DICTIONARY is not None
USERS = [user for user in map("user-{}".format, range(1500)) if DICTIONARY.shard(user) == SHARD]
MONDAY = date(2026, 11, 23)
NEW = Granularity.MONTH | Granularity.WEEK | Granularity.DAY


@pytest.fixture(scope="module")
def moving() -> Iterator[Cluster]:
    with running_cluster(replicas=False) as cluster:
        yield cluster


def numbers(raw: Any) -> tuple[dict[str, int], dict[int, str]]:
    """Return the number of each id of the shard, and the id of each number, without tallymark."""
    forward: dict[str, int] = {}
    reverse: dict[int, str] = {}
    for key in raw.scan_iter(match=f"trackist_{{{tags(SHARDS)[SHARD]}}}ids:*", count=1000):
        name = key.decode().rpartition("}ids:")[2]
        if name.startswith("f:"):
            for field, number in raw.hgetall(key).items():
                assert field.decode() not in forward
                forward[field.decode()] = int(number)
        elif name.startswith("r:"):
            for position, encoded in raw.hgetall(key).items():
                reverse[256 * int(name[2:]) + int(position)] = encoded.decode()
    return forward, reverse


async def test_no_user_gets_two_numbers(facade: Facade, moving: Cluster) -> None:
    moving.flush()
    source = moving.owner(SLOT)
    target = next(node for node in moving.masters() if node is not source)
    marked: set[str] = set()
    waited = 0
    users = iter(USERS)
    async with facade.open(ClusterStore(moving).url, user_ids=str) as made:
        tally: Any = made

        async def try_to_mark(user: str, **options: Any) -> None:
            nonlocal waited
            try:
                await tally.mark_event("a", user, timeout=0.1, **options)
            except (StoreNotReadyError, StoreTimeoutError):
                waited += 1
            else:
                marked.add(user)

        known = [next(users) for _ in range(4)]
        for user in known:
            assert await tally.mark_event("a", user, now=MONDAY) == NEW
            marked.add(user)
        await asyncio.to_thread(moving.begin_move, SLOT, target)
        day = 0
        while True:
            await try_to_mark(next(users), now=MONDAY)
            await try_to_mark(known[day % 4], now=MONDAY)
            day += 1
            await try_to_mark(known[day % 4], now=MONDAY + timedelta(days=7 * day))
            if not moving.move_keys(SLOT, source, target, 1):
                break
        assert waited
        with pytest.raises(StoreNotReadyError):
            await tally.mark_many("a", [next(users), known[0]], now=MONDAY, timeout=0.5)
        waiting = asyncio.create_task(
            tally.mark_event("b", known[0], now=MONDAY, timeout=20)
            if facade.name == "async"
            else asyncio.to_thread(
                tally._verbs.mark_event,
                *("b", known[0]),
                now=MONDAY,
                timeout=20,
            )
        )
        done, _ = await asyncio.wait([waiting], timeout=0.05)
        assert not done
        moving.end_move(SLOT, target)
        assert await waiting == NEW
        for _ in range(5):
            user = next(users)
            assert await tally.mark_event("a", user, now=MONDAY) == NEW
            marked.add(user)
        forward, reverse = numbers(moving.raw(target))
        assert set(Counter(forward.values()).values()) == {1}
        assert {number: user for user, number in forward.items()} == reverse
        assert set(forward) >= marked
        year = tally.between("a", MONDAY, MONDAY + timedelta(days=3650))
        assert {user async for user in tally.users(year)} == marked
