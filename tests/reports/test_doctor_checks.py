"""The checks of `doctor` on facts that no server of the tests has."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from tallymark import Diagnosis, Finding
from tallymark._core.options import Options
from tallymark._reading.key_scan import FoundBitmap
from tallymark._reports.health.checks import Subject, in_bytes, run
from tallymark._reports.health.database_checks import DATABASE_CHECKS
from tallymark._reports.health.rights import Right
from tallymark._reports.health.samples import Sample, SampledBitmap
from tallymark._reports.health.schema_keys import SchemaKeys
from tallymark._reports.health.server_checks import SERVER_CHECKS
from tallymark._reports.health.servers import ServerFacts, Unknown

BY_NAME = {check.name: check for check in (*SERVER_CHECKS, *DATABASE_CHECKS)}
MIB = 2**20


def judged(name: str, *servers: ServerFacts, **facts: Any) -> Finding:
    """Return the finding of a check about some servers, or a sample."""
    options = facts.pop("options", Options())
    known: dict[str, Any] = {"replica": None, "sample": Sample(), "missing": []}
    known["schema_keys"] = SchemaKeys(None, frozenset())
    subject = Subject(options, options.schema(), list(servers), **{**known, **facts})
    return run(BY_NAME[name], subject)


def server(node: str = "", /, **info: Any) -> ServerFacts:
    return ServerFacts(node=node, info={name: str(value) for name, value in info.items()})


@pytest.mark.parametrize(
    ("facts", "status", "seen"),
    [
        ({"redis_version": "7.4.2"}, "ok", "Redis 7.4.2"),
        ({"redis_version": "6.2.14"}, "ok", "Redis 6.2.14"),
        ({"redis_version": "6.0.16"}, "problem", "older"),
        ({"redis_version": "3.2.0"}, "problem", "older"),
        ({"redis_version": "8.3.240"}, "warning", "a pre-release"),
        ({"redis_version": "255.255.255"}, "warning", "a pre-release"),
        (
            {"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "8.1.1"},
            "ok",
            "Valkey 8.1.1",
        ),
        (
            {"redis_version": "6.3.4", "executable": "/usr/bin/keydb-server"},
            "warning",
            "KeyDB 6.3.4",
        ),
        ({"redis_version": "7.4.0", "dragonfly_version": "df-v1.30"}, "warning", "Dragonfly"),
        ({"redis_version": "7.4.3", "garnet_version": "1.0.60"}, "warning", "Garnet"),
        ({"redis_version": "7.4.3", "server_name": "newfork"}, "warning", "newfork"),
        ({"redis_version": "unknown"}, "warning", "not tested"),
        ({}, "skipped", "does not report redis_version"),
    ],
)
def test_versions(facts: dict[str, str], status: str, seen: str) -> None:
    finding = judged("version", server(**facts))
    assert (finding.status, seen in finding.seen) == (status, True), finding.seen


@pytest.mark.parametrize(
    ("used", "taken", "status"),
    [
        (1000 * MIB, 1100 * MIB, "ok"),
        (1000 * MIB, 1700 * MIB, "warning"),
        (10 * MIB, 50 * MIB, "ok"),  # not worth a word
        (1000 * MIB, 700 * MIB, "warning"),
    ],
)
def test_fragmentation(used: int, taken: int, status: str) -> None:
    finding = judged("fragmentation", server(used_memory=used, used_memory_rss=taken))
    assert finding.status == status
    assert ("swapped" in finding.seen) == (taken == 700 * MIB)


@pytest.mark.parametrize(
    ("used", "limit", "status"),
    [
        (10, 100, "ok"),
        (81, 100, "warning"),
        (96, 100, "problem"),
        (500, 0, "ok"),
        (900, 0, "warning"),
    ],
)
def test_memory(used: int, limit: int, status: str) -> None:
    facts = server(used_memory=used, maxmemory=limit, total_system_memory=1000)
    assert judged("memory", facts).status == status


REPLICA = "ip=10.0.0.2,port=6379,state={},offset=5,lag={}"


@pytest.mark.parametrize(
    ("state", "lag", "options", "status"),
    [
        ("online", 0, {}, "ok"),
        ("online", 30, {}, "warning"),
        ("wait_bgsave", 0, {}, "warning"),
        ("online", 0, {"replicas": 1}, "ok"),
        ("online", 30, {"replicas": 1}, "problem"),
    ],
)
def test_replicas_that_lag(state: str, lag: int, options: dict[str, Any], status: str) -> None:
    facts = server(role="master", slave0=REPLICA.format(state, lag))
    finding = judged("replication", facts, options=Options(**options))
    assert finding.status == status
    assert ("10.0.0.2:6379" in finding.seen) == (lag > 0 or state != "online")


def test_a_replica_that_hears_nothing() -> None:
    primary = server(role="master", master_repl_offset=5000)
    facts: dict[str, Any] = {"role": "slave", "master_link_status": "up", "slave_repl_offset": 1000}
    near = server(**facts, master_last_io_seconds_ago=1)
    far = server(**facts, master_last_io_seconds_ago=60)
    assert "3.91 KiB behind" in judged("read replica", primary, replica=near).seen
    assert judged("read replica", primary, replica=near).status == "ok"
    assert judged("read replica", primary, replica=far).status == "warning"
    assert judged("read replica", primary, replica=Unknown("why")).seen == "why"


NODES = (
    "aaa 10.0.0.1:6379@16379 myself,master - 0 0 1 connected 0-5460\n"
    "bbb 10.0.0.2:6379@16379 slave {} 0 0 1 connected\n"
)


@pytest.mark.parametrize(
    ("state", "slots", "nodes", "status"),
    [
        ("ok", 16384, NODES.format("aaa"), "ok"),
        ("ok", 16384, NODES.format("ccc"), "warning"),
        ("fail", 16384, NODES.format("aaa"), "problem"),
        ("ok", 16000, NODES.format("aaa"), "problem"),
        ("ok", 16384, NODES.format("aaa") + "[93-<-ccc]", "warning"),
    ],
)
def test_clusters(state: str, slots: int, nodes: str, status: str) -> None:
    cluster = {"cluster_state": state, "cluster_slots_ok": str(slots)}
    facts = ServerFacts(node="10.0.0.1:6379", cluster=cluster, nodes=nodes)
    assert judged("cluster", facts).status == status


def test_connections_that_were_rejected() -> None:
    few = server(connected_clients=3, maxclients=100)
    finding = judged("clients", server(connected_clients=3, maxclients=100, rejected_connections=9))
    assert (finding.status, "9 were rejected" in finding.seen) == ("warning", True)
    assert judged("clients", few).status == "ok"


def test_the_worst_node_decides() -> None:
    def node(number: int, policy: str) -> ServerFacts:
        return server(f"10.0.0.{number}:6379", maxmemory_policy=policy, evicted_keys=0)

    assert judged("eviction", node(1, "noeviction"), node(2, "noeviction")).seen == (
        "all 2 nodes: maxmemory-policy noeviction"
    )
    nodes = [node(number, "allkeys-lru") for number in range(5)]
    finding = judged("eviction", *nodes[:1], node(7, "noeviction"))
    assert (finding.status, finding.seen[:14]) == ("problem", "10.0.0.0:6379:")
    assert "10.0.0.7" not in finding.seen
    seen = judged("eviction", *nodes, node(7, "noeviction")).seen
    assert seen.endswith("and 2 more nodes")
    # What is not known of one node does not hide what is known of another.
    silent = ServerFacts(node="10.0.0.9:6379", refused={"INFO": "INFO is denied"})
    assert judged("eviction", silent, node(7, "noeviction")).status == "ok"


def bitmap(kind: str = "string", size: int = 10, users: int = 5) -> SampledBitmap:
    return SampledBitmap(FoundBitmap(b"trackist_a_u", 0, "a", None), kind, size, users, math.inf)


def test_native_bitmaps_of_redis() -> None:
    finding = judged("native bitmaps", sample=Sample(bitmaps=[bitmap("bitmap"), bitmap()]))
    assert (finding.status, finding.seen[:16]) == ("problem", "1 of 2 bitmaps a")
    assert judged("key types", sample=Sample(bitmaps=[bitmap("bitmap")])).status == "ok"
    switched = ServerFacts(config={"bitmap-default-roaring": "yes"})
    assert judged("native bitmaps", switched, sample=Sample(bitmaps=[bitmap()])).status == "problem"


def test_an_estimate_of_what_is_wasted() -> None:
    sample = Sample(
        found=1000, bitmaps=[bitmap(size=4 * MIB, users=1), bitmap(size=MIB, users=MIB)]
    )
    finding = judged("sparse ids", sample=sample)
    assert finding.status == "warning"
    assert "so about 1.95 GiB of 1000" in finding.seen
    dense = Sample(bitmaps=[bitmap(size=MIB, users=MIB)])
    assert judged("sparse ids", sample=dense).status == "ok"
    few = Sample(bitmaps=[bitmap(size=500_000, users=1)])  # not worth a word
    assert judged("sparse ids", sample=few).status == "ok"


def test_commands_that_a_server_does_not_know() -> None:
    missing = [Right("EVAL", "mark_many", False, True), Right("BITFIELD", "marks", True, True)]
    finding = judged("rights", missing=missing)
    assert finding.status == "problem"
    assert finding.seen == "EVAL is unknown (mark_many); BITFIELD is unknown (marks)"
    assert "bitfield=False" in finding.advice
    assert judged("rights", missing=missing[:1]).status == "warning"
    assert judged("rights", missing=Unknown("why")).status == "skipped"


def test_sampled_keys_are_named_as_such() -> None:
    sample = Sample(keys=5000, complete=False)
    assert judged("temporary keys", sample=sample).seen.endswith("(of the first 5000 keys)")
    options = Options(expire={"day": timedelta(days=1)})
    assert "there are no bitmaps" in judged("expiry", sample=sample, options=options).seen


def test_a_diagnosis_is_a_value() -> None:
    finding = Finding(check="a", status="warning", seen="b", why="c", advice="d")
    diagnosis = Diagnosis(findings=(finding,), keys=3)
    assert diagnosis.ok
    assert diagnosis.having("warning") == (finding,)
    assert diagnosis == Diagnosis(findings=(finding,), keys=3)
    assert hash(finding) == hash(
        Finding(check="a", status="warning", seen="b", why="c", advice="d")
    )
    assert not Diagnosis(findings=(Finding(check="a", status="problem", seen="", why=""),)).ok


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1, "1 byte"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (5 * 2**40, "5 TiB")],
)
def test_sizes(size: int, text: str) -> None:
    assert in_bytes(size) == text
