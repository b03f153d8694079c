"""How reads behave beside marks, beside each other, and when something goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
import sys
import textwrap
from datetime import date
from typing import TYPE_CHECKING

import pytest
import redis.asyncio

from facades import internals
from proxy import proxied
from tallymark import (
    PermissionDeniedError,
    StoreTimeoutError,
    StoreUnavailableError,
    SyncTally,
    Tally,
)
from tallymark._async import pool

if TYPE_CHECKING:
    from facades import Facade
    from stores import Store

MONDAY = date(2026, 11, 23)


async def test_a_count_is_of_one_moment(redis_store: Store) -> None:
    """A user moves from one set to the other and back; each count sees them once."""
    async with Tally.from_url(redis_store.url) as tally:
        here, there = tally.unique("here"), tally.unique("there")
        await tally.mark_unique("here", 7)
        done = False

        async def move() -> None:
            for before, after in itertools.cycle([("here", "there"), ("there", "here")]):
                async with tally.transaction() as tx:
                    tx.unmark_unique(before, 7)
                    tx.mark_unique(after, 7)
                if done:
                    return

        moving = asyncio.create_task(move())
        for _ in range(300):
            assert await tally.counts([here | there, here & there, here ^ there]) == [1, 0, 1]
            assert await tally.contains(here | there, 7)
            assert not await tally.contains(here & there, 7)
            assert not await tally.is_empty(here ^ there)
            assert [user_id async for user_id in tally.users(here | there)] == [7]
            assert await tally.contains_many(here ^ there, [7, 900_000]) == [True, False]
        done = True
        await moving


async def test_cancelling_reads_leaves_no_key_and_harms_nobody(redis_store: Store) -> None:
    async with Tally.from_url(redis_store.url) as tally:
        await tally.mark_many("a", range(100_000), now=MONDAY)
        await tally.mark_many("b", range(50_000, 150_000), now=MONDAY)
        day, other = tally.day("a", MONDAY), tally.day("b", MONDAY)
        before = redis_store.names()

        async def read() -> None:
            while True:
                assert await tally.count((day - other) | (other - day)) == 100_000
                assert await tally.contains(day & other, 60_000)
                table = await tally.retention("a", "b", by="day", periods=3)
                assert len(table.cohorts) == 3
                assert len([0 async for _ in tally.users(day & other)]) == 50_000

        for delay in (0.0, 0.0001, 0.0005, 0.001, 0.003, 0.01, 0.02):
            readers = [asyncio.create_task(read()) for _ in range(20)]
            stays = asyncio.create_task(tally.count(day & other))
            await asyncio.sleep(delay)  # wherever they are by then, they are cancelled there
            for task in readers:
                task.cancel()
            ended = await asyncio.gather(*readers, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ended)
            assert await stays == 50_000
        assert await tally.count(day & other) == 50_000
        assert redis_store.names() == before
    assert redis_store.names() == before


async def test_a_connection_that_breaks_is_replaced(facade: Facade, redis_store: Store) -> None:
    with proxied(redis_store.url) as proxy:
        async with facade.open(proxy.url) as tally:
            await tally.mark_many("a", [1, 2], now=MONDAY)
            both = tally.day("a", MONDAY) & tally.week("a", MONDAY)
            for cuts in (0, 1, 3):
                proxy.cuts = cuts
                assert await tally.count(both) == 2
                assert proxy.cuts == 0
            proxy.cuts = 1
            assert [user_id async for user_id in tally.users(both)] == [1, 2]
            assert await tally.contains(both, 2)


async def test_a_server_that_does_not_answer_is_given_up(
    facade: Facade, redis_store: Store
) -> None:
    with proxied(redis_store.url) as proxy:
        async with facade.open(proxy.url, timeout=0.5) as tally:
            day = tally.day("a", MONDAY)
            both = day & day
            assert await tally.count(both) == 0
            proxy.passing.clear()
            with pytest.raises(StoreTimeoutError, match=r"did not answer within 0\.5 s$"):
                await tally.count(both)
            proxy.passing.set()
            assert await tally.count(both) == 0
    async with facade.open("redis://127.0.0.1:1", timeout=0.5) as tally:
        with pytest.raises(StoreUnavailableError, match="Connect"):
            await tally.count(tally.day("a"))


async def test_a_read_that_waits_for_its_answer_keeps_no_mark_waiting(redis_store: Store) -> None:
    with proxied(redis_store.url) as proxy:
        async with Tally.from_url(proxy.url) as tally:
            day = tally.day("a", MONDAY)
            proxy.passing.clear()  # for transactions; what comes alone passes
            reading = [asyncio.create_task(tally.count(day & day))]
            await asyncio.to_thread(proxy.held.wait)
            marking = asyncio.create_task(tally.mark_event("a", 7, now=MONDAY))
            while not await tally.contains(day, 7):
                assert not marking.done()
            assert not any(task.done() for task in reading)
            proxy.passing.set()
            assert set(await asyncio.gather(*reading)) <= {0, 1}
            await marking


async def test_so_many_requests_are_under_way_and_no_more(redis_store: Store) -> None:
    async with Tally.from_url(redis_store.url) as tally:
        day = tally.day("a", MONDAY)
        counts = await asyncio.gather(*(tally.count(day & day) for _ in range(100)))
        assert counts == [0] * 100
        clients = len(redis_store.raw.client_list(_type="normal")) - 1
        assert clients == 2  # the round trips that they share
        await asyncio.gather(*(tally.event_names() for _ in range(100)))
        clients = len(redis_store.raw.client_list(_type="normal")) - 1
        assert clients == pool.MAX_LONG_REQUESTS


async def test_requests_that_share_a_round_trip_fail_and_come_again_alike(
    redis_store: Store,
) -> None:
    with proxied(redis_store.url) as proxy:
        async with Tally.from_url(proxy.url, timeout=5) as tally:
            await tally.mark_many("a", range(50), now=MONDAY)
            both = tally.day("a", MONDAY) & tally.week("a", MONDAY)
            for cuts in (0, 1, 2, 5):
                proxy.cuts = cuts
                asked = [tally.contains(both, user_id) for user_id in range(100)]
                counted = [tally.count(both) for _ in range(20)]
                assert await asyncio.gather(*asked) == [user_id < 50 for user_id in range(100)]
                assert await asyncio.gather(*counted) == [50] * 20
                assert proxy.cuts == 0
        async with Tally.from_url(proxy.url, timeout=0.5) as tally:
            both = tally.day("a", MONDAY) & tally.week("a", MONDAY)
            proxy.passing.clear()
            asked = [tally.contains(both, user_id) for user_id in range(100)]
            ended = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(end) for end in ended} == {StoreTimeoutError}
            assert len({id(end) for end in ended}) == 100
            proxy.passing.set()
            assert await tally.contains(both, 7)


async def test_each_caller_gets_an_error_of_its_own(redis_store: Store) -> None:
    url = redis_store.url.replace("//", "//nobody:wrong@")
    async with Tally.from_url(url) as tally:
        day = tally.day("a")
        asked = [tally.contains(day, user_id) for user_id in range(50)]
        ended = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(end) for end in ended} == {PermissionDeniedError}
        assert len({id(end) for end in ended}) == 50


async def test_one_that_is_cancelled_takes_nobody_with_it(redis_store: Store) -> None:
    with proxied(redis_store.url) as proxy:
        async with Tally.from_url(proxy.url) as tally:
            await tally.mark_many("a", range(50), now=MONDAY)
            both = tally.day("a", MONDAY) & tally.week("a", MONDAY)
            for gone in range(0, 40, 3):
                proxy.passing.clear()
                asked = [
                    asyncio.create_task(tally.contains(both, user_id)) for user_id in range(40)
                ]
                await asyncio.to_thread(proxy.held.wait)
                asked[gone].cancel()
                proxy.passing.set()
                ended = await asyncio.gather(*asked, return_exceptions=True)
                assert isinstance(ended.pop(gone), asyncio.CancelledError)
                assert ended == [True] * 39
                proxy.held.clear()


async def test_closing_waits_for_reads_under_way(redis_store: Store) -> None:
    with proxied(redis_store.url) as proxy:
        tally = Tally.from_url(proxy.url)
        await tally.mark_event("a", 7, now=MONDAY)
        day = tally.day("a", MONDAY)
        proxy.passing.clear()
        reading = asyncio.create_task(tally.count(day & day))
        await asyncio.to_thread(proxy.held.wait)
        closing = asyncio.create_task(tally.aclose())
        while not closing.done() and not tally.backend.reader._became_idle:
            await asyncio.sleep(0)
        assert not closing.done()
        proxy.passing.set()
        await closing
        assert await reading == 1
        await tally.aclose()


async def test_closing_can_be_cancelled_while_a_read_hangs(redis_store: Store) -> None:
    with proxied(redis_store.url) as proxy:
        tally = Tally.from_url(proxy.url, timeout=float("inf"))
        day = tally.day("a", MONDAY)
        proxy.passing.clear()
        reading = asyncio.create_task(tally.count(day & day))
        await asyncio.to_thread(proxy.held.wait)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(tally.aclose(), 0.05)
        proxy.passing.set()
        assert await reading == 0
        assert not internals(tally)._primary._idle


async def test_a_borrowed_client_lends_a_connection_for_each_request(redis_store: Store) -> None:
    async with redis.asyncio.Redis.from_url(redis_store.url, max_connections=2) as client:
        tally = Tally(client)
        day = tally.day("a", MONDAY)
        assert await asyncio.gather(*(tally.count(day & day) for _ in range(30))) == [0] * 30
        assert await client.ping()
        with proxied(redis_store.url) as proxy:
            other = redis.asyncio.Redis.from_url(proxy.url, max_connections=1)
            through = Tally(other)
            proxy.cuts = 1
            assert await through.count(through.day("a") & through.week("a")) == 0
            await through.aclose()
            await other.aclose()
        await tally.aclose()


async def test_an_abandoned_stream_holds_nothing(redis_store: Store) -> None:
    async with Tally.from_url(redis_store.url) as tally:
        await tally.mark_many("a", range(500_000), now=MONDAY)
        day = tally.day("a", MONDAY)
        async with contextlib.aclosing(tally.users(day)) as users:
            async for user_id in users:
                if user_id == 3:
                    break
        assert await tally.count(day) == 500_000
        clients = len(redis_store.raw.client_list(_type="normal")) - 1
        assert clients == 2  # one for marks, one for reads


def printed_by(program: str, url: str) -> str:
    """Run a program in a process of its own, and return what it printed; any warning fails it."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), url],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_streaming_five_million_users_keeps_memory_flat(redis_store: Store) -> None:
    """In a process of its own, so that nothing else is in its peak."""
    with SyncTally.from_url(redis_store.url) as tally:
        tally.mark_many("a", range(5_000_000), now=MONDAY)
    program = """
        import asyncio, resource, sys
        from datetime import date
        from tallymark import SyncTally, Tally

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

        async def main(url):
            with SyncTally.from_url(url) as tally:
                day = tally.day("a", date(2026, 11, 23)) & tally.week("a", date(2026, 11, 23))
                assert len(list(tally.users(day, limit=200_000))) == 200_000
                before = peak()
                assert sum(1 for _ in tally.users(day)) == 5_000_000
            async with Tally.from_url(url) as tally:
                found = 0
                async for chunk in tally.user_chunks(day):
                    found += len(chunk)
                assert found == 5_000_000
            print(peak() - before)

        asyncio.run(main(sys.argv[1]))
        """
    printed = printed_by(program, redis_store.url)
    assert int(printed) < 20  # MB; the ids alone would be 180


def test_without_numpy_all_is_the_same(redis_store: Store) -> None:
    """Also beside others: the thread that reckons then lets them run now and then."""
    with SyncTally.from_url(redis_store.url) as tally:
        tally.mark_many("a", range(0, 3_000_000, 3), now=MONDAY)
        tally.mark_many("b", range(0, 3_000_000, 7), now=date(2026, 11, 24))
    program = """
        import asyncio, sys
        sys.modules["numpy"] = None
        from datetime import date
        from tallymark import Tally

        async def main(url):
            async with Tally.from_url(url) as tally:
                table = await tally.retention(
                    "a", "b", by="day", periods=1, cohorts=2, until=date(2026, 11, 25)
                )
                print(table.sizes, table.counts)
                both = tally.day("a", date(2026, 11, 23)) & tally.day("b", date(2026, 11, 24))
                print(sum([len(chunk) async for chunk in tally.user_chunks(both)]))

        asyncio.run(main(sys.argv[1]))
        """
    printed = printed_by(program, redis_store.url)
    assert printed.splitlines() == [
        "(1000000, 0) ((0, 142858), (0, None))",
        "142858",
    ]
