"""`doctor`: faults that are really made on servers, and what it says about them."""

from __future__ import annotations

import dataclasses
import time
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import redis
from examined import Server, examined_server, found

from deployments import sentinels
from facades import ON_SOME_STORES
from servers import RedisProcess, free_port, running, running_server, valkey_binary
from stores import SHARDS
from tallymark import (
    StoreTimeoutError,
    StoreUnavailableError,
    SyncTally,
    bitmapist,
)
from tallymark._core.keys import tag_slot, tags
from tallymark._reports.health.doctor import doctor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clusters import Cluster
    from facades import Facade
    from stores import Store

DAY = date(2026, 1, 15)

#: All checks, in their order.
CHECKS = [
    *("version", "rights", "schema", "persistence", "eviction", "memory", "fragmentation"),
    *("replication", "read replica", "cluster", "clients", "clock", "latency", "slow log"),
    *("limits", "scripts", "key types", "native bitmaps", "sparse ids", "big keys"),
    *("temporary keys", "expiry", "hours", "prefixes"),
]


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with examined_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def server(one_server: Server) -> Server:
    one_server.reset()
    return one_server


@ON_SOME_STORES
async def test_all_checks_of_a_database(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await tally.mark_event("a", 1, now=DAY)
        names = store.names()
        diagnosis = await tally.doctor()
        assert store.names() == names
    assert [finding.check for finding in diagnosis.findings] == CHECKS
    for finding in diagnosis.findings:
        assert finding.status in {"ok", "warning", "problem", "skipped"}
        assert finding.seen
        assert finding.why
        assert bool(finding.advice) == (finding.status in {"warning", "problem"}), finding
    well = ["rights", "schema", "clock", "key types", "native bitmaps", "sparse ids", "big keys"]
    for check in (*well, "temporary keys", "hours", "prefixes"):
        assert found(diagnosis, check).status == "ok", check
    assert diagnosis.complete
    assert diagnosis.keys >= 3
    skipped = {finding.check for finding in diagnosis.having("skipped")}
    if store.url.startswith("memory"):
        assert "fakeredis" in found(diagnosis, "version").seen
        assert {"memory", "replication", "clients"} < skipped
        assert diagnosis.ok
    else:
        assert skipped - {"cluster"} == {"read replica", "expiry"}
        # The servers of the tests save nothing.
        problems = [finding.check for finding in diagnosis.having("problem")]
        assert problems in ([], ["persistence"])
        assert diagnosis.ok == (not problems)
        assert ("cluster" in skipped) == ("cluster" not in store.url)


async def test_the_result_is_a_report(facade: Facade, memory_store: Store) -> None:
    async with facade.open(memory_store.url) as tally:
        diagnosis = await tally.doctor()
    rows = diagnosis.to_rows()
    assert [row["check"] for row in rows] == CHECKS
    assert set(rows[0]) == {"check", "status", "seen", "why", "advice"}
    assert diagnosis.to_csv().startswith("check,status,seen,why,advice\r\n")
    page = diagnosis.to_html()
    assert "The health of the database" in page
    assert "fakeredis" in page
    assert diagnosis.summary() == "0 problems and 1 warning in 24 checks; of the keys, all 0"
    assert "1 warning" in page


async def test_deadlines_and_servers_that_are_not_there(facade: Facade, redis_store: Store) -> None:
    async with facade.open(redis_store.url) as tally:
        redis_store.raw.mset({f"key{number}": "x" for number in range(100_000)})
        with pytest.raises(StoreTimeoutError):
            await tally.doctor(timeout=0.02)
    async with facade.open(f"redis://127.0.0.1:{free_port()}/0", timeout=0.2) as tally:
        with pytest.raises(StoreUnavailableError):
            await tally.doctor()


def test_many_keys_are_sampled(server: Server) -> None:
    pipeline = server.raw.pipeline(transaction=False)
    for part in range(13):
        pipeline.mset({f"other{part}-{number}": "x" for number in range(10_000)})
    pipeline.mset({f"trackist_a{number}_2026-1-1": b"\x80" for number in range(2500)})
    pipeline.execute()
    diagnosis = server.examine()
    assert not diagnosis.complete
    assert 100_000 <= diagnosis.keys < 132_500
    assert "of the keys, the first" in diagnosis.summary()
    assert found(diagnosis, "key types").status == "ok"
    looked_at = int(found(diagnosis, "key types").seen.split()[3])
    assert 1500 < looked_at <= 2000
    calls = server.raw.info("commandstats")
    assert calls["cmdstat_scan"]["calls"] == 100
    assert "cmdstat_keys" not in calls


# --- servers


def test_persistence(server: Server, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert server.found("persistence").status == "problem"
    with server.configured(save="3600 1"):
        finding = server.found("persistence")
        assert (finding.status, "snapshots only" in finding.seen) == ("warning", True)
        assert "appendonly yes" in finding.advice
    with server.configured(appendonly="yes"):
        assert server.found("persistence").status == "ok"


def test_a_snapshot_that_fails(tmp_path: Path) -> None:
    with running_server("--dir", str(tmp_path)) as url:
        server = Server(url)
        (tmp_path / "dump.rdb").mkdir()
        server.raw.bgsave()
        while server.raw.info("persistence")["rdb_last_bgsave_status"] == "ok":
            pass
        finding = server.found("persistence")
        assert finding.status == "problem"
        assert "BGSAVE) has failed" in finding.seen


def test_eviction(server: Server) -> None:
    assert server.found("eviction").status == "ok"
    with server.configured(maxmemory_policy="volatile-lru"):
        assert server.found("eviction").status == "ok"
        finding = server.found("eviction", expire={"day": timedelta(days=9)})
        assert (finding.status, "volatile-lru" in finding.seen) == ("warning", True)
    with server.configured(maxmemory_policy="allkeys-lru"):
        finding = server.found("eviction")
        assert finding.status == "problem"
        assert "maxmemory-policy noeviction" in finding.advice
        full = server.raw.info("memory")["used_memory"] + 2_000_000
        with server.configured(maxmemory=full):
            for number in range(40):
                server.raw.set(f"trackist_a{number}_u", bytes(100_000))
            diagnosis = server.examine()
            assert "keys were evicted" in found(diagnosis, "eviction").seen
            assert found(diagnosis, "memory").status in {"warning", "problem"}
            assert "of maxmemory" in found(diagnosis, "memory").seen
    # With the policy set right, the loss is still told.
    assert server.found("eviction").status == "warning"


def test_a_full_server(server: Server) -> None:
    server.raw.set("trackist_a_u", bytes(10**6))
    with server.configured(maxmemory=server.raw.info("memory")["used_memory"] - 500_000):
        diagnosis = server.examine()
        assert found(diagnosis, "memory").status == "problem"
        # Redis refuses commands that need memory, not for want of a right.
        assert found(diagnosis, "rights").status == "ok"


def test_replicas(server: Server) -> None:
    finding = server.found("replication", replicas=1)
    assert (finding.status, "option replicas" in finding.seen) == ("problem", True)
    with server.configured(min_replicas_to_write=1):
        diagnosis = server.examine(timeout=0.5)
        assert "min-replicas-to-write is 1" in found(diagnosis, "replication").seen
        assert not diagnosis.ok
        assert "not ready" in found(diagnosis, "rights").seen
    port = urlsplit(server.url).port
    follower = RedisProcess("--replicaof", "127.0.0.1", str(port))
    with running(follower) as replica, redis.Redis(port=replica.port) as raw:
        while raw.info("replication")["master_link_status"] != "up":
            pass
        while server.raw.info("replication")["slave0"]["state"] != "online":
            pass
        diagnosis = server.examine(read_from=replica.url, replicas=1)
        assert found(diagnosis, "read replica").status == "ok"
        assert found(diagnosis, "replication").seen == "1 replica"
        assert found(diagnosis, "replication").status == "ok"
        # A tally that marks on the replica.
        diagnosis = server.examine(replica.url, timeout=1)
        assert "read-only replica" in found(diagnosis, "replication").seen
        assert found(diagnosis, "rights").status == "skipped"
        assert not diagnosis.ok


def test_a_replica_without_its_primary(server: Server) -> None:
    lost = ("--replicaof", "127.0.0.1", str(free_port()))
    with running(RedisProcess(*lost)) as replica:
        finding = server.found("read replica", read_from=replica.url)
        assert (finding.status, "is down" in finding.seen) == ("problem", True)
    assert server.found("read replica", read_from=server.url).status == "warning"


def test_a_slot_that_moves(redis_cluster: Cluster) -> None:
    source, target = redis_cluster.masters()[:2]
    shards = [tag_slot(tag.encode()) for tag in tags(SHARDS)]
    slot = next(each for each in shards if redis_cluster.owners([each]) == [source])
    identity = redis_cluster.raw(target).execute_command("CLUSTER", "MYID")
    raw = redis_cluster.raw(source)
    with SyncTally.from_url(redis_cluster.url) as tally:
        assert {each.check for each in tally.doctor().having("problem")} <= {"persistence"}
        raw.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", identity)
        try:
            diagnosis = tally.doctor()
        finally:
            raw.execute_command("CLUSTER", "SETSLOT", slot, "STABLE")
    finding = found(diagnosis, "cluster")
    assert (finding.status, "1 slot is moving" in finding.seen) == ("warning", True)
    # The commands that are tried out were not sent to the other node, where they would be executed.
    assert found(diagnosis, "rights").status == "skipped"
    assert "not ready" in found(diagnosis, "rights").seen
    keys = [redis_cluster.raw(node).keys("*") for node in redis_cluster.masters()]
    assert not any(keys)


def test_sentinel() -> None:
    with sentinels() as setup, SyncTally.from_url(setup.url) as tally:
        tally.mark_event("a", 1)
        diagnosis = tally.doctor()
        assert found(diagnosis, "replication").seen == "1 replica"
        assert found(diagnosis, "rights").status == "ok"


def test_limits_of_clients(server: Server) -> None:
    assert server.found("clients").status == "ok"
    clients = [redis.Redis.from_url(server.url) for _ in range(8)]
    for client in clients:
        client.ping()
    with server.configured(maxclients=10):
        assert server.found("clients").status == "warning"
    with server.configured(client_output_buffer_limit="normal 1000000 0 0"):
        assert "client-output-buffer-limit" in server.found("limits").seen
    with server.configured(proto_max_bulk_len=2**20):
        finding = server.found("limits")
        assert (finding.status, "from 8388608 on" in finding.seen) == ("warning", True)
        assert server.found("limits", max_user_id=10**6).status == "ok"
    with server.configured(lua_time_limit=50):
        assert server.found("scripts").status == "warning"
    assert server.found("scripts").status == server.found("limits").status == "ok"


def test_slow_commands(server: Server) -> None:
    server.raw.set("other", 1)
    with server.configured(slowlog_log_slower_than=0):
        server.raw.get("trackist_a_u")
    finding = server.found("slow log")
    assert (finding.status, "GET" in finding.seen) == ("warning", True)
    server.raw.slowlog_reset()
    with server.configured(slowlog_log_slower_than=0):
        server.raw.get("other")
    assert server.found("slow log").status == "ok"


@pytest.mark.parametrize(
    ("ahead", "status"), [(0, "ok"), (-3, "warning"), (3, "warning"), (90, "problem")]
)
def test_clocks(server: Server, ahead: float, status: str) -> None:
    with SyncTally.from_url(server.url) as tally:
        context = dataclasses.replace(tally.backend.context, clock=lambda: time.time() - ahead)
        finding = found(tally.backend.reader.answer(doctor(context)), "clock")
    assert finding.status == status
    if ahead:
        assert ("ahead" if ahead > 0 else "behind") in finding.seen


def test_a_slow_network(server: Server) -> None:
    ticks = iter(range(10**6))
    with SyncTally.from_url(server.url) as tally:
        context = dataclasses.replace(tally.backend.context, clock=lambda: next(ticks) / 20)
        finding = found(tally.backend.reader.answer(doctor(context)), "latency")
    assert (finding.status, finding.seen) == ("warning", "a round trip takes 50 ms (median of 5)")


# --- databases


def test_keys_of_other_types(server: Server) -> None:
    with SyncTally.from_url(server.url) as tally:
        tally.mark_event("a", 1, now=DAY)
    server.raw.rpush("trackist_a_2026-1-16", "x")
    server.raw.hset("trackist_b_u", "x", "y")
    finding = server.found("key types")
    assert finding.status == "problem"
    assert finding.seen.startswith("2 of 5 bitmaps hold something else (hash, list): 'trackist_")


def test_sparse_ids(server: Server) -> None:
    with SyncTally.from_url(server.url) as tally:
        tally.mark_many("dense", range(100_000), now=DAY)
        assert found(tally.doctor(), "sparse ids").status == "ok"
        tally.mark_event("a", 2**27, now=DAY)
        diagnosis = tally.doctor()
    finding = found(diagnosis, "sparse ids")
    assert finding.status == "warning"
    assert finding.seen.startswith("3 of 6 bitmaps are mostly zeros: 48 MiB of 48")
    assert "an id of about 134217735" in finding.seen
    assert "user_ids=int" in finding.advice
    assert found(diagnosis, "big keys").status == "ok"


def test_big_keys(server: Server) -> None:
    server.raw.setbit("trackist_a_u", 8 * 65 * 2**20, 1)
    server.raw.config_resetstat()
    finding = server.found("big keys")
    assert (finding.status, "65 MiB: 'trackist_a_u'" in finding.seen) == ("warning", True)
    # Of a long bitmap, only parts are counted.
    assert server.raw.info("commandstats")["cmdstat_bitcount"]["calls"] == 8
    server.raw.delete("trackist_a_u")


def test_temporary_keys(server: Server) -> None:
    server.raw.set("trackist_tmp:one:0", "x")
    server.raw.set("trackist_tmp:two:0", "x", ex=60)  # of a call that is running
    finding = server.found("temporary keys")
    assert (finding.status, "1 temporary key" in finding.seen) == ("warning", True)
    assert "trackist_tmp:one:0" in finding.seen
    server.raw.flushall()
    bitmapist.SYSTEMS["default"] = server.raw
    for month in (1, 2):
        bitmapist.mark_event("a", 1, now=date(2026, month, 1))
    both = bitmapist.BitOpAnd(
        bitmapist.MonthEvents("a", 2026, 1), bitmapist.MonthEvents("a", 2026, 2)
    )
    assert len(both) == 1
    # tallymark's own drop-in leaves none; bitmapist does.
    server.raw.set("trackist_bitop_AND_trackist_a_2026-1-trackist_a_2026-2", "x")
    finding = server.found("temporary keys")
    assert "1 result of bitmapist" in finding.seen
    assert "delete_temporary_bitop_keys" in finding.advice
    bitmapist.delete_temporary_bitop_keys()
    assert server.found("temporary keys").status == "ok"


def test_bitmaps_without_the_expiry_of_the_option(server: Server) -> None:
    expire: Any = {"day": timedelta(days=10**4)}
    with (
        SyncTally.from_url(server.url) as endless,
        SyncTally.from_url(server.url, expire=expire) as tally,
    ):
        tally.mark_event("a", 1, now=DAY)
        assert found(tally.doctor(), "expiry").status == "ok"
        endless.mark_event("a", 1, now=DAY + timedelta(days=1))
        finding = found(tally.doctor(), "expiry")
        assert (finding.status, "1 of 2 bitmaps never expire" in finding.seen) == ("warning", True)
        assert "apply_expiry" in finding.advice
        tally.apply_expiry()
        assert found(tally.doctor(), "expiry").status == "ok"
        # A clock that is wrong is another finding.
        context = dataclasses.replace(tally.backend.context, clock=lambda: time.time() - 500)
        diagnosis = tally.backend.reader.answer(doctor(context))
        assert found(diagnosis, "clock").status == "problem"
        assert found(diagnosis, "expiry").status == "ok"
        server.raw.expire("trackist_a_2026-1-15", 1000)
        assert "at another time" in found(tally.doctor(), "expiry").seen
        assert found(endless.doctor(), "expiry").status == "skipped"


def test_hours_that_never_expire(server: Server) -> None:
    with SyncTally.from_url(server.url, track_hourly=True) as tally:
        tally.mark_event("a", 1, now=DAY)
        finding = found(tally.doctor(), "hours")
    assert (finding.status, "1 of 4 bitmaps are of hours" in finding.seen) == ("warning", True)
    assert server.found("hours", expire={"hour": timedelta(days=10**5)}).status == "ok"


@pytest.mark.parametrize("shards", [None, 2])
def test_prefixes_that_begin_with_each_other(server: Server, shards: int | None) -> None:
    events = ["active", "login", "order:paid"]
    for prefix in ("tenant1", "tenant2", "app:"):
        with SyncTally.from_url(server.url, prefix=prefix, shards=shards) as tally:
            for event in events:
                tally.mark_event(event, 1, now=DAY)
    for prefix in ("tenant1", "tenant2", "app:"):
        assert server.found("prefixes", prefix=prefix, shards=shards).status == "ok"
    with SyncTally.from_url(server.url, prefix="tenant10", shards=shards) as tally:
        for event in events:
            tally.mark_event(event, 1, now=DAY)
    shorter = server.found("prefixes", prefix="tenant1", shards=shards)
    longer = server.found("prefixes", prefix="tenant10", shards=shards)
    assert (shorter.status, "'tenant10'" in shorter.seen) == ("warning", True)
    assert (longer.status, "'tenant1'" in longer.seen) == ("warning", True)
    assert server.found("prefixes", prefix="tenant2", shards=shards).status == "ok"


def test_names_of_events_that_end_alike_are_no_prefix(server: Server) -> None:
    with SyncTally.from_url(server.url) as tally:
        for event in ("view", "edit", "page:view", "page:edit", "login", "signup", "buy"):
            tally.mark_event(event, 1, now=DAY)
    assert server.found("prefixes").status == "ok"


def test_other_servers_and_protocols(server: Server) -> None:
    diagnosis = server.examine(f"{server.url}?protocol=3")
    assert found(diagnosis, "limits").status == "ok"
    assert found(diagnosis, "version").seen == found(server.examine(), "version").seen
    binary = valkey_binary()
    if binary is not None:
        with running(RedisProcess(binary=binary)) as valkey:
            assert server.found("version", valkey.url).seen.startswith("Valkey ")
            assert server.found("version", valkey.url).status == "ok"
