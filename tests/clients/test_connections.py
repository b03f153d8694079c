"""Every way to a Redis that people have: each with a server of its own."""

from __future__ import annotations

import uuid
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel

from deployments import WAYS, Sentinels, sentinels
from servers import RedisProcess, running
from tallymark import (
    Granularity,
    InvalidTypeError,
    InvalidValueError,
    PermissionDeniedError,
    SyncTally,
    Tally,
    at_least,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from facades import Facade

MONDAY = date(2026, 11, 23)
SUNDAY, TUESDAY = MONDAY - timedelta(days=1), MONDAY + timedelta(days=1)


async def mark(tally: Any) -> None:
    """Write in every way there is."""
    await tally.mark_event("active", 1, now=MONDAY, track_hourly=True, track_unique=True)
    await tally.mark_event("active", 2, now=SUNDAY)
    await tally.mark_event("active", 4, now=SUNDAY)
    await tally.unmark_event("active", 4, now=SUNDAY)
    assert await tally.mark_many("active", range(100, 5000), now=MONDAY)
    assert await tally.mark_many("sparse", range(100, 2**24, 2**16), now=MONDAY)
    assert await tally.unmark_many("active", range(4000, 5000), now=MONDAY)
    assert await tally.unmark_event("active", 100, now=MONDAY, exact=True)
    assert await tally.mark_unique("premium", 1) == Granularity.UNIQUE
    assert await tally.mark_unique("premium", 2) == Granularity.UNIQUE
    assert await tally.unmark_unique("premium", 2) == Granularity.UNIQUE
    assert await tally.mark_unique_many("premium", range(10, 3000)) == 2990
    assert await tally.unmark_unique_many("premium", range(10, 3001)) == 2990
    async with tally.transaction() as tx:
        tx.mark_event("signup", 7, now=MONDAY)


async def ask(tally: Any) -> None:
    """Read in every way there is."""
    monday, sunday = tally.day("active", MONDAY), tally.day("active", SUNDAY)
    premium = tally.unique("premium")
    assert await tally.count(monday) == 3900
    assert await tally.count(monday & premium) == 1
    assert await tally.counts([monday | sunday, premium ^ sunday, monday - premium]) == [
        3901,
        2,
        3899,
    ]
    assert await tally.contains(monday - premium, 101)
    assert await tally.contains_many(monday | sunday, [1, 2, 3, 101, 2**31]) == [
        True,
        True,
        False,
        True,
        False,
    ]
    far = [100 + index * 2**16 for index in range(20)]
    assert await tally.contains_many(tally.day("sparse", MONDAY) - premium, far) == [True] * 20
    assert not await tally.is_empty(monday & premium)
    assert await tally.is_empty(monday & sunday)
    assert [user async for user in tally.users(monday | sunday, limit=3)] == [1, 2, 101]
    assert await tally.event_names() == ["active", "premium", "signup", "sparse"]
    assert len(await tally.periods("active", Granularity.DAY)) == 2
    assert (await tally.memory("active"))[Granularity.DAY] > 0
    history = await tally.history(1, ["active"], SUNDAY, TUESDAY, Granularity.DAY)
    assert len(history["active"]) == 1
    table = await tally.retention("active", "active", by="day", periods=2, until=MONDAY)
    assert table.to_rows()
    assert await tally.stickiness("active", MONDAY)
    assert await tally.funnel([tally.day("signup", MONDAY), monday])
    ordered = await tally.funnel(["active", "active"], since=SUNDAY, until=TUESDAY)
    assert ordered.steps[0].count == 3901
    report = await tally.days_active("active", days=2, until=TUESDAY)
    assert report.counts == (3901, 0)
    assert (await tally.lifecycle("active", by="day", until=TUESDAY)).rows[-1].new.count == 3900
    assert (await tally.trend("active", periods=2, until=TUESDAY)).points[-1].rolling == 3901
    assert (await tally.streak("active", 1, until=TUESDAY)).current == 1
    assert (await tally.streaks("active", until=TUESDAY)).total == 3900
    assert (await tally.streak("nobody", 1)).unknown_events == ("nobody",)
    assert await tally.count(at_least(2, [monday, premium, sunday])) == 1
    assert await tally.count(tally.last_hours("active", 24, MONDAY)) == 1


async def save(tally: Any) -> None:
    """Save flags in both ways there are."""
    monday, sparse = tally.day("active", MONDAY), tally.day("sparse", MONDAY)
    assert await tally.save(monday - tally.unique("premium"), as_="saved") == 3899  # in Redis
    assert await tally.save(sparse | tally.unique("saved"), as_="saved") == 3899 + 256  # in parts
    assert await tally.save(tally.unique("nobody"), as_="saved") == 0
    assert await tally.is_empty(tally.unique("saved"))


async def remove(tally: Any) -> None:
    assert await tally.merge(2, 1) == 3
    assert await tally.merge(1, 100_000) > 0
    assert await tally.forget(100_000) > 0
    assert await tally.forget(1) == 0
    assert await tally.delete(tally.day("sparse", MONDAY)) == 1
    assert await tally.delete_all("trackist_") > 0
    assert await tally.event_names() == []


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__, scope="module")
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with request.param() as found:
        yield found


async def test_all_verbs(facade: Facade, url: str) -> None:
    async with facade.open(url) as tally:
        await mark(tally)
        await ask(tally)
        await save(tally)
        await remove(tally)
        # What is built from one URL belongs together, whichever tally it is of.
        async with facade.open(url) as other:
            assert await other.count(tally.day("active") | other.day("signup")) == 0


@pytest.mark.parametrize("kind", [str, uuid.UUID])
async def test_all_verbs_with_user_ids(
    facade: Facade, url: str, kind: type[str | uuid.UUID]
) -> None:
    ids: list[Any] = [uuid.UUID(int=number << 64) for number in range(1, 300)]
    if kind is str:
        ids = [str(user_id) for user_id in ids]
    first, second, *_ = ids
    prefix = f"trackist_{facade.name}_{kind.__name__}_"
    async with facade.open(url, prefix=prefix, user_ids=kind) as tally:
        today = tally.day("active")
        for _ in range(2):  # the second time, the number is cached
            await tally.mark_event("active", first)
        await tally.mark_many("active", ids)
        assert await tally.unmark_event("active", second, exact=True)
        assert await tally.unmark_many("active", ids[2:4])
        async with tally.transaction() as tx:
            tx.mark_event("signup", first)
        assert await tally.contains(today, first)
        assert await tally.contains_many(today, ids[:5]) == [True, False, False, False, True]
        assert await tally.count(today & tally.day("signup")) == 1
        assert [user async for user in tally.users(today)] == [first, *ids[4:]]
        assert [user async for user in tally.users(today, start=ids[8], limit=1)] == [ids[8]]
        numbers: Any = await tally.numbers([second, ids[7]])
        assert await tally.ids(numbers) == [second, ids[7]]
        assert await tally.ids([3, 999]) == [ids[3], None]
        history = await tally.history(first, ["signup"], MONDAY)
        assert len(history["signup"]) == 1
        assert await tally.merge(first, second) == 6
        assert await tally.forget(second) == 6
        assert await tally.numbers([first, second]) == [None, None]
        assert await tally.delete_all(prefix) > 0


@pytest.fixture(scope="module")
def setup() -> Iterator[Sentinels]:
    with sentinels() as found:
        yield found


def _commands(port: int) -> dict[str, int]:
    with redis.Redis(port=port) as raw:
        statistics = raw.info("commandstats")
    return {name.removeprefix("cmdstat_"): command["calls"] for name, command in statistics.items()}


def _wait_for_replica(port: int) -> None:
    """Wait until what was written here has arrived at the replica."""
    with redis.Redis(port=port) as raw:
        assert raw.set("trackist_waiting", "") is True
        assert raw.wait(1, 10_000) == 1
        raw.delete("trackist_waiting")
        assert raw.wait(1, 10_000) == 1


async def test_reads_go_to_the_replicas_of_a_sentinel(facade: Facade, setup: Sentinels) -> None:
    master = setup.master
    (replica,) = (each for each in setup.servers if each is not master)
    async with facade.open(setup.url, read_from="replicas") as tally:
        await mark(tally)
        _wait_for_replica(master.port)
        before = _commands(master.port)
        await ask(tally)
        after = _commands(master.port)
        reads = {"bitcount", "bitop", "getrange", "getbit", "bitpos", "strlen", "scan", "bitfield"}
        assert {name: after.get(name) for name in reads} == {
            name: before.get(name) for name in reads
        }
        assert _commands(replica.port)["bitfield_ro"] > 0
        assert await tally.delete(tally.day("sparse", MONDAY)) == 1
        assert await tally.forget(1) > 0
        _wait_for_replica(master.port)
        assert await tally.delete_all("trackist_") > 0
        _wait_for_replica(master.port)
        assert await tally.event_names() == []


async def test_reads_go_to_a_replica_with_a_url(facade: Facade, setup: Sentinels) -> None:
    master = setup.master
    (replica,) = (each for each in setup.servers if each is not master)
    async with facade.open(master.url, read_from=replica.url) as tally:
        await tally.mark_event("active", 1)
        _wait_for_replica(master.port)
        before = _commands(replica.port)["bitcount"]
        assert await tally.count(tally.day("active")) == 1
        assert _commands(replica.port)["bitcount"] == before + 1
        assert await tally.delete_all("trackist_") > 0
        _wait_for_replica(master.port)


async def test_an_injected_client_of_a_sentinel(setup: Sentinels) -> None:
    """The tally closes what it has opened to read from replicas, and nothing of the caller's."""
    address = [("127.0.0.1", setup.sentinel.port)]
    manager = redis.asyncio.sentinel.Sentinel(address)
    async with manager.master_for("main") as client:
        async with Tally(client, read_from="replicas") as tally:
            await tally.mark_event("active", 1)
            _wait_for_replica(setup.master.port)
            assert await tally.count(tally.day("active")) == 1
        assert await client.ping()
        assert manager.sentinels[0].connection_pool._available_connections
    await manager.sentinels[0].aclose()
    blocking = redis.sentinel.Sentinel(address)
    with blocking.master_for("main") as sync_client:
        with SyncTally(sync_client, read_from="replicas") as sync_tally:
            assert sync_tally.count(sync_tally.day("active")) == 1
            assert sync_tally.delete_all("trackist_") > 0
        assert sync_client.ping()
    blocking.sentinels[0].close()


async def test_read_from_that_is_refused(facade: Facade) -> None:
    for wrong, error, message in (
        ("replica", InvalidValueError, "'primary', 'replicas' or a URL"),
        ("http://user:secret@host", InvalidValueError, "'primary', 'replicas' or a URL"),
        (7, InvalidTypeError, "'primary', 'replicas' or a URL"),
        ("replicas", InvalidValueError, r"redis\+sentinel://"),
    ):
        with pytest.raises(error, match=message) as raised:
            async with facade.open("redis://localhost", read_from=wrong):
                pass
        assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "wrong",
    [
        "redis+sentinel://host:26379",
        "redis+sentinel://host:26379/",
        "redis+sentinel:///service",
        "redis+sentinel://host:port/service",
        "redis+sentinel://host:99999/service",
        "redis+sentinel://host,,other/service",
        "redis+sentinel://host/service/one",
        "redis+sentinel://:sec/ret@host/service",
        "redis+sentinel://:secret@host/service?socket_timeout=soon",
        "redis+sentinel://:secret@host/service?no_such_option=1",
    ],
)
async def test_urls_of_sentinels_that_are_refused(facade: Facade, wrong: str) -> None:
    with pytest.raises(InvalidValueError) as raised:
        async with facade.open(wrong):
            pass
    assert "sec" not in str(raised.value).replace("seconds", "")


async def test_a_user_with_too_few_rights(facade: Facade) -> None:
    few = ("--user", "app", "on", ">secret", "~trackist_*", "+@connection", "+multi", "+exec")
    with running(RedisProcess(*few)) as server:
        url = server.url.replace("//", "//app:secret@")
        async with facade.open(url, timeout=60) as tally:
            with pytest.raises(PermissionDeniedError, match=r"NOPERM.*ACL SETUSER"):
                await tally.mark_event("active", 1)
            with pytest.raises(PermissionDeniedError, match=r"NOPERM.*ACL SETUSER"):
                await tally.count(tally.day("active"))
            with pytest.raises(PermissionDeniedError, match="NOPERM"):
                await tally.event_names()
