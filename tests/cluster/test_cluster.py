"""Tallies on a Redis Cluster: where users are, and what happens while that changes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import date
from typing import TYPE_CHECKING, Any, cast

import pytest
import redis
import redis.asyncio
from test_connections import ask, mark, remove, save

from clusters import Cluster, running_cluster
from deployments import RIGHTS
from facades import ASYNC, Facade, internals
from servers import running_server
from stores import ClusterStore, Store
from tallymark import (
    ClosedError,
    Granularity,
    InvalidValueError,
    Operation,
    OverloadedError,
    PendingMark,
    PermissionDeniedError,
    StoreNotReadyError,
    StoreTimeoutError,
    StoreUnavailableError,
    SyncTally,
    Tally,
    TallymarkError,
    WrongSchemaError,
)
from tallymark._core.keys import KeySchema, key_slot, tag_slot, tags
from tallymark._reading.execution import Exchange

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tallymark import TallyOptions

MONDAY = date(2026, 11, 23)
NEW = Granularity.MONTH | Granularity.WEEK | Granularity.DAY
NONE = Granularity(0)


async def test_all_verbs_on_a_cluster(facade: Facade, cluster_store: Store) -> None:
    async with facade.open(cluster_store.url) as tally:
        await mark(tally)
        await ask(tally)
        await save(tally)
        await remove(tally)


@pytest.mark.exhaustive
@pytest.mark.parametrize("shards", [1, 3, 32])
async def test_all_verbs_with_shards_on_one_server(
    facade: Facade, plain_store: Store, shards: int
) -> None:
    async with facade.open(plain_store.url, shards=shards) as tally:
        await mark(tally)
        await ask(tally)
        await save(tally)
        await remove(tally)
    assert plain_store.names() == {"trackist_schema"}


async def test_clients_of_the_callers(redis_cluster: Cluster, cluster_store: Store) -> None:
    node: Any = {"host": "127.0.0.1", "port": redis_cluster.nodes[0].port}
    async with redis.asyncio.RedisCluster(**node) as client:
        async with Tally(client) as tally:
            assert tally.client is client
            await mark(tally)
            await ask(tally)
        assert await client.dbsize(target_nodes="primaries")  # is still open
    with redis.RedisCluster(**node) as blocking:
        with SyncTally(blocking) as sync_tally:
            assert sync_tally.client is blocking
            assert sync_tally.count(sync_tally.day("active", MONDAY)) == 3900
        assert blocking.dbsize(target_nodes="primaries")
    assert cluster_store.names()


async def test_a_client_for_what_tallymark_does_not_do(cluster_store: Store) -> None:
    async with Tally.from_url(cluster_store.url.rpartition(",")[2].join(("redis+cluster://", ""))):
        pass
    port = cluster_store.url.rpartition(":")[2]
    async with Tally.from_url(f"redis+cluster://127.0.0.1:{port}?socket_keepalive=yes") as tally:
        await tally.mark_unique("a", 1)
        assert isinstance(tally.client, redis.asyncio.RedisCluster)
        assert await tally.client.dbsize(target_nodes="primaries") == 2
    with SyncTally.from_url(f"redis+cluster://127.0.0.1:{port}") as sync_tally:
        assert isinstance(sync_tally.client, redis.RedisCluster)
        assert sync_tally.client.dbsize(target_nodes="primaries") == 2


async def test_how_many_connections_to_a_node(redis_cluster: Cluster) -> None:
    for given, most in (("", 50), ("?max_connections=3", 3)):
        url = redis_cluster.url + given
        async with Tally.from_url(url) as tally:
            client: Any = internals(tally).writer._nodes._client(("127.0.0.1", 1))
            assert client.connection_pool.max_connections == most
        with SyncTally.from_url(url) as sync_tally:
            attempt = Exchange(None, 0.0, ("127.0.0.1", 1))
            pool: Any = internals(sync_tally)._nodes.connections(attempt)._pool
            assert pool.max_connections == most


# --- which shards


def test_the_format_is_written_in_stone() -> None:
    schema = KeySchema(shards=16)
    assert [part.prefix for part in schema.parts[:3]] == [
        "trackist_{agbr}",
        "trackist_{mws}",
        "trackist_{akgg}",
    ]
    assert schema.place(1234) == (2, 77)
    assert KeySchema(max_user_id=20, shards=16).parts[5].max_user_id == 0
    assert schema.located(b"trackist_{mws}active_2026-1-5")[:2] == (1, "active")
    for key in (b"trackist_active_2026-1-5", b"trackist_{no}active_2026-1-5", b"x{mws}a_u", b"{"):
        with pytest.raises(InvalidValueError):
            schema.located(key)


@pytest.mark.parametrize("shards", [1, 2, 16, 100, 256, 1024])
def test_shards_spread_evenly_over_any_number_of_masters(shards: int) -> None:
    slots = [tag_slot(tag.encode()) for tag in tags(shards)]
    assert slots == sorted(set(slots))
    for masters in range(1, min(shards, 30) + 1):
        counts = [0] * masters
        for slot in slots:
            counts[slot * masters // 16384] += 1
        assert max(counts) - min(counts) <= 1


def test_a_slot_is_that_of_the_tag() -> None:
    # From the specification of Redis Cluster.
    assert key_slot(b"123456789") == 0x31C3 % 16384
    assert key_slot(b"{user1000}.following") == key_slot(b"{user1000}.followers")
    assert key_slot(b"foo{}{bar}") == tag_slot(b"foo{}{bar}")
    assert key_slot(b"foo{{bar}}zap") == tag_slot(b"{bar")
    assert key_slot(b"foo{bar}{zap}") == tag_slot(b"bar")


@pytest.fixture(params=["redis_store", "cluster_store"])
def any_store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(request.param)
    return found


async def test_another_number_of_shards_is_refused(facade: Facade, any_store: Store) -> None:
    async with facade.open(any_store.url, shards=16) as tally:
        assert await tally.count(tally.day("a")) == 0  # a read writes nothing
        assert any_store.names() == set()
        await tally.mark_unique("a", 1)
    before = any_store.bits()
    async with facade.open(any_store.url, shards=8) as other:
        for verb in (
            other.mark_unique("a", 2),
            other.mark_many("a", [2, 3]),
            other.count(other.unique("a")),
            other.event_names(),
        ):
            with pytest.raises(WrongSchemaError, match=r"has shards=16 .* this tally 8; pass"):
                await verb
    assert any_store.bits() == before
    async with facade.open(any_store.url, shards=8, prefix="other_") as other:
        assert await other.mark_unique("a", 2) == Granularity.UNIQUE


async def test_no_shards_are_refused_too(facade: Facade, redis_store: Store) -> None:
    async with facade.open(redis_store.url, shards=16) as tally:
        await tally.mark_unique("a", 1)
    async with facade.open(redis_store.url) as plain:
        with pytest.raises(WrongSchemaError, match=r"this tally none; pass shards=16"):
            await plain.mark_unique("a", 2)
        with pytest.raises(WrongSchemaError):
            await plain.count(plain.unique("a"))
    redis_store.raw.set("trackist_schema", '{"version": 2}')
    async with facade.open(redis_store.url, shards=16) as tally:
        with pytest.raises(WrongSchemaError, match="this release of tallymark does not know"):
            await tally.mark_unique("a", 2)


async def test_two_that_begin_at_once_agree(redis_store: Store) -> None:
    async def begin(shards: int) -> Any:
        async with Tally.from_url(redis_store.url, shards=shards) as tally:
            return await tally.mark_unique("a", shards)

    found = await asyncio.gather(*map(begin, range(2, 12)), return_exceptions=True)
    assert sum(each == Granularity.UNIQUE for each in found) == 1
    assert sum(isinstance(each, WrongSchemaError) for each in found) == 9


async def test_a_node_of_a_cluster_is_no_server(
    facade: Facade, redis_cluster: Cluster, cluster_store: Store
) -> None:
    errors = []
    for node in redis_cluster.nodes[:3]:
        async with facade.open(node.url) as tally:
            with contextlib.suppress(Exception):
                try:
                    await tally.mark_event("a", 1)
                except Exception as error:
                    errors.append(str(error))
                    raise
    assert any("use a redis+cluster:// URL" in error for error in errors), errors


def test_what_does_not_go_with_shards() -> None:
    for options in ({"shards": 0}, {"shards": 1025}, {"shards": 16, "prefix": "{app}_"}):
        with pytest.raises(InvalidValueError):
            Tally.from_url("redis://x", **cast("TallyOptions", options))
    with pytest.raises(InvalidValueError, match="replicas"):
        Tally.from_url("redis://x", replicas=-1)
    for url in ("redis+cluster://", "redis+cluster://a/1", "redis+cluster://a:x"):
        with pytest.raises(InvalidValueError):
            SyncTally.from_url(url)
    with pytest.raises(InvalidValueError, match="socket_timeout has no such value"):
        SyncTally.from_url("redis+cluster://a?socket_timeout=soon")
    with pytest.raises(InvalidValueError, match="not for clusters"):
        Tally.from_url("redis+cluster://a", read_from="redis://b")


async def test_the_documented_rights_are_enough(
    facade: Facade, moving: Cluster, moving_store: Store
) -> None:
    for node in moving.nodes:
        rules = f"user app on >secret ~trackist_* {RIGHTS}".split()
        moving.raw(node).execute_command("ACL", "SETUSER", *rules[1:])
    url = moving_store.url.replace("//", "//app:secret@")
    async with facade.open(url) as tally:
        await mark(tally)
        async with half_moved(moving, keys=2):
            await ask(tally)
        await save(tally)
        await remove(tally)
    async with facade.open(moving_store.url.replace("//", "//app:wrong@")) as tally:
        with pytest.raises(PermissionDeniedError):
            await tally.mark_event("a", 1)
        with pytest.raises(PermissionDeniedError):
            await tally.count(tally.day("a"))


# --- while slots move


@pytest.fixture(scope="module")
def moving() -> Iterator[Cluster]:
    """Yield a cluster whose slots tests may move."""
    with running_cluster(replicas=False) as cluster:
        yield cluster


#: A user, the shard that the user is in, and its slot.
USER = 5 + 16 * 7
SLOT = tag_slot(tags(16)[5].encode())


@contextlib.asynccontextmanager
async def half_moved(cluster: Cluster, *, keys: int | None) -> AsyncIterator[None]:
    """Have a slot on its way, with so many keys at its new node (all if None), then arrived."""
    source = cluster.owner(SLOT)
    target = next(node for node in cluster.masters() if node is not source)
    await asyncio.to_thread(cluster.begin_move, SLOT, target)
    left = keys
    while left is None or left > 0:
        if not cluster.move_keys(SLOT, source, target, 1):
            break
        left = None if left is None else left - 1
    try:
        yield
    finally:
        while cluster.move_keys(SLOT, source, target, 10):
            pass
        cluster.end_move(SLOT, target)


@pytest.fixture
def moving_store(moving: Cluster) -> Store:
    moving.flush()
    return ClusterStore(moving)


@pytest.mark.parametrize("keys", [0, None], ids=["none yet", "all"])
async def test_the_first_mark_of_a_day_while_its_slot_moves(
    facade: Facade, moving: Cluster, moving_store: Store, keys: int | None
) -> None:
    """Some of its keys exist on one of two nodes, others on none."""
    async with facade.open(moving_store.url) as tally:
        await tally.mark_event("active", USER, now=date(2026, 11, 22))
        async with half_moved(moving, keys=keys):
            if keys is None:
                flipped = await tally.mark_event("active", USER, now=MONDAY)
                assert flipped == Granularity.WEEK | Granularity.DAY
                assert await tally.mark_event("new", USER, now=MONDAY) == NEW
                assert await tally.mark_event("new", USER, now=MONDAY) == NONE
                # Enough to go as a bitmap, by a script.
                dense = range(5, 16 * 5000, 16)
                assert (await tally.mark_many("dense", dense))[Granularity.DAY] == 5000
                async with tally.transaction() as tx:
                    pending = [tx.mark_unique("flag", user) for user in (USER, USER + 1)]
                assert [each.flipped for each in pending] == [Granularity.UNIQUE] * 2
            else:
                # The month is still there, and the new day would have to be elsewhere.
                with pytest.raises(StoreNotReadyError, match="TRYAGAIN"):
                    await tally.mark_event("active", USER, now=MONDAY, timeout=0.2)
                assert await tally.mark_event("new", USER, now=MONDAY) == NEW  # all elsewhere
                assert await tally.mark_event("active", USER, now=date(2026, 11, 22)) == NONE
                assert await tally.mark_event("active", USER + 1, now=MONDAY) == NEW
        after = await tally.mark_event("active", USER, now=MONDAY)
        assert after == (NONE if keys is None else Granularity.WEEK | Granularity.DAY)
        assert await tally.contains(tally.day("new", MONDAY), USER)
        assert await tally.contains(tally.day("active", MONDAY), USER)


async def test_a_mark_waits_until_its_slot_has_moved(
    facade: Facade, moving: Cluster, moving_store: Store
) -> None:
    async with facade.open(moving_store.url) as tally:
        await tally.mark_event("active", USER, now=date(2026, 11, 22))
        async with half_moved(moving, keys=0):
            verb = tally.mark_event("active", USER, now=MONDAY, timeout=10)
            if facade is ASYNC:
                waiting = asyncio.create_task(verb)
            else:  # which would block this very thread
                made: Any = tally
                waiting = asyncio.create_task(
                    asyncio.to_thread(
                        made._verbs.mark_event, "active", USER, now=MONDAY, timeout=10
                    )
                )
                verb.close()
            done, _ = await asyncio.wait([waiting], timeout=0.1)
            assert not done
        assert await waiting == Granularity.WEEK | Granularity.DAY


async def test_a_node_that_stands_still(facade: Facade) -> None:
    """Of a transaction of several shards, those of the other nodes are applied."""
    with running_cluster(replicas=False) as cluster:
        async with facade.open(ClusterStore(cluster).url) as tally:
            for user in range(40):
                await tally.mark_event("active", user, now=MONDAY)  # all nodes are connected
            stuck = cluster.masters()[0]
            pending: list[PendingMark] = []
            stuck.freeze()
            try:
                with pytest.raises(StoreTimeoutError) as raised:
                    async with tally.transaction(timeout=1) as tx:
                        pending = [tx.mark_unique("flag", user) for user in range(40)]
            finally:
                stuck.thaw()
            errors = [each for each in pending if isinstance(each.result, TallymarkError)]
            assert errors
            assert facade is not ASYNC or len(errors) < 40  # the blocking one sends one by one
            message = str(raised.value)
            assert "nothing was sent" not in message
            assert "or may have been" in message or "may or may not" in message
            # Two calls of one node: the deadline of the second is its own.
            if facade is ASYNC:
                stuck.freeze()
                try:
                    first = [tally.mark_unique("flag", user, timeout=20) for user in range(40)]
                    tasks = [asyncio.create_task(call) for call in first]
                    await asyncio.sleep(0)
                    begun = time.monotonic()
                    with pytest.raises(StoreTimeoutError):
                        async with tally.transaction(timeout=0.5) as tx:
                            for user in range(40):
                                tx.mark_unique("flag", user)
                    assert time.monotonic() - begun < 1
                finally:
                    stuck.thaw()
                await asyncio.gather(*tasks)


async def test_a_transaction_with_more_marks_than_max_pending(
    facade: Facade, cluster_store: Store
) -> None:
    async with facade.open(cluster_store.url, max_pending=50) as tally:
        async with tally.transaction() as tx:
            pending = [tx.mark_unique("flag", user) for user in range(300)]
        assert [each.flipped for each in pending] == [Granularity.UNIQUE] * 300
        if facade is ASYNC:

            async def transaction() -> None:
                async with tally.transaction() as again:
                    for user in range(300):
                        again.mark_event("active", user, now=MONDAY)

            await asyncio.gather(tally.mark_unique("flag", 0), transaction())
            assert await tally.count(tally.day("active", MONDAY)) == 300


@pytest.mark.parametrize("keys", [0, 2, None], ids=["none yet", "some", "all"])
async def test_exports_while_a_slot_moves(
    facade: Facade, moving: Cluster, moving_store: Store, keys: int | None
) -> None:
    users = [*range(300), USER, USER + 16 * 100_000]  # the last two in the shard that moves
    async with facade.open(moving_store.url) as tally:
        for number in range(40):
            await tally.mark_unique_many(f"e{number}", users)
        async with half_moved(moving, keys=keys):
            batches = [batch async for batch in tally.export()]
        assert len(batches) == 40
        assert {tuple(batch.ids()) for batch in batches} == {tuple(sorted(set(users)))}


@pytest.mark.parametrize("keys", [0, 2, None], ids=["none yet", "some", "all"])
async def test_reads_while_a_slot_moves(
    facade: Facade, moving: Cluster, moving_store: Store, keys: int | None
) -> None:
    async with facade.open(moving_store.url) as tally:
        await mark(tally)
        async with half_moved(moving, keys=keys):
            await ask(tally)
        await ask(tally)
        await save(tally)
        async with half_moved(moving, keys=keys):
            await remove(tally)
    assert moving_store.names() == set()


# --- nodes


async def test_a_node_that_hangs_holds_up_only_its_own_marks(redis_cluster: Cluster) -> None:
    redis_cluster.flush()
    frozen = redis_cluster.owner(SLOT)
    elsewhere = next(
        shard
        for shard, tag in enumerate(tags(16))
        if redis_cluster.owner(tag_slot(tag.encode())) is not frozen
    )
    async with Tally.from_url(redis_cluster.url, timeout=20) as tally:
        await tally.mark_event("a", USER)
        frozen.freeze()
        try:
            stuck = asyncio.create_task(tally.mark_event("a", USER + 16))
            for user in range(elsewhere, 16 * 100, 16):
                assert await tally.mark_event("a", user, timeout=2)
            assert not stuck.done()
        finally:
            frozen.thaw()
        assert await stuck == NEW
    redis_cluster.settle()


async def test_a_master_that_is_cut_off_is_not_waited_for(
    facade: Facade, redis_cluster: Cluster
) -> None:
    """It closes no connection; its replica takes its place, and so do the marks and reads."""
    redis_cluster.flush()
    async with facade.open(redis_cluster.url, timeout=10) as tally:
        await tally.mark_event("a", USER)
        assert await tally.count(tally.day("a")) == 1
        await asyncio.to_thread(redis_cluster.wait_for_replicas)
        frozen = redis_cluster.owner(SLOT)
        frozen.freeze()
        try:
            assert await tally.mark_event("a", USER + 16) == NEW
            assert await tally.count(tally.day("a")) == 2
        finally:
            frozen.thaw()
    await asyncio.to_thread(redis_cluster.settle)


async def test_an_outage_is_looked_into_once_for_all(moving: Cluster, moving_store: Store) -> None:
    """Two hundred callers, a node that is gone: few questions where its slots are."""
    lost = moving.owner(SLOT)
    asked = 0

    def count_discoveries(operation: Operation) -> None:
        nonlocal asked
        asked += operation.kind == "read" and operation.size == 1  # counts ask several shards

    async with Tally.from_url(moving.url, timeout=30, observer=count_discoveries) as tally:
        await asyncio.gather(*(tally.mark_event("a", user) for user in range(200)))
        before = asked
        lost.kill()
        waiting = [asyncio.create_task(tally.mark_event("b", user)) for user in range(200)]
        asking = [asyncio.create_task(tally.count(tally.day("a"))) for _ in range(100)]
        while asked < before + 8:
            await asyncio.sleep(0.01)
        refreshes, began = asked, asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < began + 1:
            await asyncio.sleep(0.01)
        assert asked - refreshes < 80
        await asyncio.to_thread(lost.start)
        found = await asyncio.gather(*waiting)
        await asyncio.gather(*asking)
    assert set(found) == {NEW}
    await asyncio.to_thread(moving.settle)


async def test_nobody_is_there(facade: Facade) -> None:
    url = "redis+cluster://127.0.0.1:1,127.0.0.1:2"
    async with facade.open(url, timeout=0.3) as tally:
        with pytest.raises(StoreUnavailableError, match="nothing was sent"):
            await tally.mark_event("a", 1)
        with pytest.raises(StoreUnavailableError, match="CLUSTER SLOTS failed on every node"):
            await tally.count(tally.day("a"))
        with pytest.raises(StoreUnavailableError):
            await tally.event_names()


async def test_a_server_that_is_no_cluster(facade: Facade) -> None:
    with running_server() as server:
        url = server.replace("redis://", "redis+cluster://")
        async with facade.open(url, timeout=0.3) as tally:
            with pytest.raises(Exception, match="cluster support disabled"):
                await tally.mark_event("a", 1)


async def test_replicas_have_to_confirm(facade: Facade, redis_store: Store) -> None:
    async with facade.open(redis_store.url, replicas=1, timeout=0.3) as tally:
        with pytest.raises(StoreTimeoutError, match="may or may not"):
            await tally.mark_event("a", 1)
    assert redis_store.names()  # as the message says


async def test_replicas_of_a_cluster_confirm(facade: Facade, cluster_store: Store) -> None:
    async with facade.open(cluster_store.url, replicas=1) as tally:
        assert await tally.mark_event("a", 1) == NEW
        async with tally.transaction() as tx:
            pending = [tx.mark_unique("flag", user) for user in range(50)]
        assert {each.flipped for each in pending} == {Granularity.UNIQUE}
        assert sum((await tally.mark_many("b", range(10_000))).values()) == 30_000
    async with facade.open(cluster_store.url, replicas=2, timeout=0.5) as tally:
        with pytest.raises((StoreTimeoutError, StoreUnavailableError), match="may or may not"):
            await tally.mark_event("a", 2)


# --- the life of an async tally


async def test_bounds_and_the_end(cluster_store: Store) -> None:
    tally = Tally.from_url(cluster_store.url, max_pending=100)
    tasks = [asyncio.create_task(tally.mark_event("a", user)) for user in range(150)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(tally.aclose())
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert found[:100] == [NEW] * 100
    assert all(isinstance(error, OverloadedError) for error in found[100:])
    await closing
    with pytest.raises(ClosedError):
        await tally.mark_event("a", 1)
    with pytest.raises(ClosedError):
        await tally.count(tally.day("a"))


async def test_a_close_that_is_cancelled_fails_what_waits(redis_cluster: Cluster) -> None:
    redis_cluster.flush()
    frozen = redis_cluster.owner(SLOT)
    tally = Tally.from_url(redis_cluster.url, timeout=30)
    await tally.mark_event("a", USER)
    frozen.freeze()
    try:
        stuck = asyncio.create_task(tally.mark_event("a", USER + 16))
        await asyncio.sleep(0)
        closing = asyncio.create_task(tally.aclose())
        await asyncio.sleep(0.05)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(ClosedError, match="closed"):
            await stuck
    finally:
        frozen.thaw()
    redis_cluster.settle()


async def test_callers_that_go_away(cluster_store: Store) -> None:
    async with Tally.from_url(cluster_store.url) as tally:
        tasks = [asyncio.create_task(tally.mark_event("a", user)) for user in range(300)]
        await asyncio.sleep(0.001)
        for task in tasks[::3]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(each == NEW for index, each in enumerate(found) if index % 3)
        assert tally.stats().waiting == 0
        assert await tally.count(tally.day("a")) >= 200


async def test_concurrent_calls_share_transactions(cluster_store: Store) -> None:
    async with Tally.from_url(cluster_store.url) as tally:
        await tally.mark_event("a", 0)
        await asyncio.gather(*(tally.mark_event("a", user) for user in range(1000)))
        stats = tally.stats()
        assert (stats.marks, stats.errors, stats.retries) == (1001, 0, 0)
        assert stats.marks_per_batch > 20


def test_threads_share_a_blocking_tally(cluster_store: Store) -> None:
    import threading

    with SyncTally.from_url(cluster_store.url) as tally:

        def work(number: int) -> None:
            for user in range(number, 800, 8):
                assert tally.mark_event("a", user) == NEW

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert tally.count(tally.day("a")) == 800
