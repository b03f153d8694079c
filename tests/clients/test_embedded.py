"""The embedded store: private without a name, shared with one."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
from datetime import datetime
from typing import TYPE_CHECKING

import pytest
import redis

import tallymark
from tallymark import (
    InvalidTypeError,
    InvalidValueError,
    StoreTimeoutError,
    SyncTally,
    Tally,
    configure,
)
from tallymark import sync as tm
from tallymark._redis import defaults

if TYPE_CHECKING:
    from facades import Facade

NOON = datetime(2026, 11, 23, 12)


async def test_a_store_without_a_name_is_its_tallys_alone(facade: Facade) -> None:
    async with facade.open("memory://") as one, facade.open("memory://") as two:
        assert await one.mark_unique("a", 1)
        assert await one.count(one.unique("a")) == 1
        assert await two.count(two.unique("a")) == 0
        with pytest.raises(InvalidValueError, match="of another database"):
            await one.count(two.unique("a"))
    async with facade.open("memory://") as three:
        assert await three.is_empty(three.unique("a"))


@pytest.mark.parametrize("way", ["configure", "environment"])
def test_the_default_tallies_of_a_process_share_one(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "configure":
        configure("memory://")
    else:
        monkeypatch.setenv(defaults.URL_VARIABLE, "memory://")
        configure()

    async def mark(user_id: int) -> list[int]:
        await tallymark.mark_unique("a", user_id)
        tally = await tallymark.current_tally()
        return [user async for user in tally.users(tally.unique("a"))]

    try:
        assert asyncio.run(mark(1)) == [1]
        assert asyncio.run(mark(2)) == [1, 2]  # of another loop
        assert tm.mark_unique("a", 3)
        blocking = tm.current_tally()
        assert list(blocking.users(blocking.unique("a"))) == [1, 2, 3]
        with SyncTally.from_url("memory://default") as named:
            assert named.count(named.unique("a")) == 3
        with SyncTally.from_url("memory://") as alone:
            assert alone.is_empty(alone.unique("a"))
    finally:
        blocking = tm.current_tally()
        blocking.delete(blocking.unique("a"))


def test_reads_do_not_go_to_a_store_that_nobody_marks_in(facade: Facade) -> None:
    with pytest.raises(InvalidValueError, match="give it a name"):
        facade.tally.from_url("memory://", read_from="memory://")


async def test_reads_go_to_a_store_with_a_name(facade: Facade) -> None:
    url = "memory://test-read-from"
    async with facade.open(url, read_from=url) as tally:
        await tally.mark_unique("a", 1)
        assert await tally.count(tally.unique("a")) == 1
        await tally.delete(tally.unique("a"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_child_process_goes_on_with_a_copy() -> None:
    with SyncTally.from_url("memory://") as tally:
        tally.mark_unique("a", 1)
        child = os.fork()
        if not child:
            code = 1
            try:
                tally.mark_unique("a", 2)
                code = 0 if list(tally.users(tally.unique("a"))) == [1, 2] else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert list(tally.users(tally.unique("a"))) == [1]


async def test_event_sets_of_a_store_with_a_name_can_be_pickled(facade: Facade) -> None:
    async with facade.open("memory://test-pickle") as tally:
        await tally.mark_event("a", 1, now=NOON)
        for asked in (tally.day("a", NOON), tally.last("a", moment=NOON) | tally.unique("a")):
            again = pickle.loads(pickle.dumps(asked))
            assert again == asked
            assert hash(again) == hash(asked)
            assert await tally.count(again) == 1
            async with facade.open("memory://test-pickle-2") as other:
                with pytest.raises(InvalidValueError, match="of another database"):
                    await other.count(again)
        await tally.delete(tally.day("a", NOON))


async def test_event_sets_of_one_without_cannot(facade: Facade) -> None:
    async with facade.open("memory://") as tally:
        for asked in (tally.day("a", NOON), tally.last("a", moment=NOON) | tally.unique("a")):
            with pytest.raises(InvalidTypeError, match="cannot be pickled"):
                pickle.dumps(asked)
            assert copy.deepcopy(asked) == asked


def test_event_sets_of_a_pool_of_another_kind_cannot_be_pickled_either() -> None:
    class Pool(redis.ConnectionPool):
        """Finds its server in a way of its own."""

    client = redis.Redis(connection_pool=Pool())
    one, two = SyncTally(client), SyncTally(client)
    assert one.day("a", NOON) == two.day("a", NOON)
    with pytest.raises(InvalidTypeError, match="cannot be pickled"):
        pickle.dumps(one.day("a"))


async def test_a_late_answer_is_none(facade: Facade) -> None:
    """The store cannot be interrupted, so the call ends late, but as it does on Redis."""
    async with facade.open("memory://") as tally:
        for event in ("a", "b"):
            await tally.mark_unique(event, 2**25)
        both = tally.unique("a") & tally.unique("b")  # which takes it half a second
        with pytest.raises(StoreTimeoutError, match=r"within 0\.1 s"):
            await tally.count(both, timeout=0.1)
        assert await tally.count(both, timeout=60) == 1


async def test_both_facades_keep_theirs_apart() -> None:
    async with Tally.from_url("memory://") as one:
        await one.mark_unique("a", 1)
        with SyncTally.from_url("memory://") as two:
            assert two.is_empty(two.unique("a"))
