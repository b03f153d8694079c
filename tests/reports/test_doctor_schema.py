"""`doctor`: whether the shards and the user ids of the tally are those of the database."""

from __future__ import annotations

import itertools
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
from examined import Server, examined_server, found

from tallymark import SyncTally
from tallymark._core.keys import key_slot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusters import Cluster
    from facades import Facade
    from stores import Store

DAY = date(2026, 1, 15)

SCHEMAS: list[dict[str, Any]] = [
    {},
    {"shards": 4},
    {"shards": 8},
    {"user_ids": str},
    {"user_ids": str, "shards": 4},
]


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with examined_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def server(one_server: Server) -> Server:
    one_server.reset()
    return one_server


def mark(url: str, options: dict[str, Any]) -> None:
    with SyncTally.from_url(url, **options) as tally:
        for number in range(16):  # some in each shard
            user: Any = f"u{number}" if "user_ids" in options else number
            tally.mark_event("a", user, now=DAY)


def test_the_schema(server: Server) -> None:
    with SyncTally.from_url(server.url, shards=4) as tally:
        tally.mark_event("a", 1, now=DAY)
    diagnosis = server.examine(shards=8)
    assert "shards=4" in found(diagnosis, "schema").seen
    assert found(diagnosis, "schema").status == "problem"
    assert {finding.status for finding in diagnosis.findings} == {"problem", "skipped"}
    assert server.found("schema", shards=4).status == "ok"
    server.raw.delete("trackist_schema")  # as after an eviction
    finding = server.found("schema")
    assert (finding.status, "3 bitmaps" in finding.seen) == ("warning", True)


@pytest.mark.parametrize("has_key", [True, False])
@pytest.mark.parametrize(("made", "opened"), list(itertools.product(SCHEMAS, SCHEMAS)))
def test_marks_of_another_schema(
    server: Server, made: dict[str, Any], opened: dict[str, Any], has_key: bool
) -> None:
    mark(server.url, made)
    if not has_key:
        server.raw.delete("trackist_schema")  # as after an eviction
    finding = server.found("schema", **opened)
    if made == opened:
        assert finding.status == ("ok" if has_key or not made else "warning")
        assert ("trackist_schema" in finding.seen) == (finding.status == "warning")
    elif not opened and not has_key and "shards" in made:
        # These may be events whose names begin with a brace.
        assert (finding.status, "tag of other shards" in finding.seen) == ("warning", True)
    else:
        assert finding.status == "problem"
    assert bool(finding.advice) == (finding.status != "ok")


@pytest.mark.parametrize("options", SCHEMAS)
def test_a_database_without_marks(server: Server, options: dict[str, Any]) -> None:
    server.raw.set("trackist_", "no bitmap")
    server.raw.set("trackist_x_2026-13", "no bitmap")
    finding = server.found("schema", **options)
    assert (finding.status, "no bitmap yet" in finding.seen) == ("ok", bool(options))


async def test_a_schema_that_is_written_after_the_handshake(
    facade: Facade, redis_store: Store
) -> None:
    async with facade.open(redis_store.url) as tally:
        await tally.mark_event("a", 1, now=DAY)
        assert found(await tally.doctor(), "schema").status == "ok"
        mark(redis_store.url, {"shards": 4})
        finding = found(await tally.doctor(), "schema")
        assert (finding.status, "trackist_schema" in finding.seen) == ("problem", True)
        # The tally with shards is right, and does not see some marks.
        async with facade.open(redis_store.url, shards=4) as other:
            finding = found(await other.doctor(), "schema")
    assert (finding.status, "3 bitmaps of the sample without" in finding.seen) == ("warning", True)


async def test_a_dictionary_that_was_evicted(facade: Facade, redis_store: Store) -> None:
    async with facade.open(redis_store.url, user_ids=str, shards=2) as tally:
        for number in range(16):
            await tally.mark_event("a", f"u{number}", now=DAY)
        assert found(await tally.doctor(), "schema").status == "ok"
        (stamp, _) = sorted(name for name in redis_store.names() if name.endswith("ids:stamp"))
        redis_store.raw.delete(stamp)
        finding = found(await tally.doctor(), "schema")
    assert (finding.status, "no dictionary" in finding.seen) == ("problem", True)


async def test_on_a_cluster(facade: Facade, redis_cluster: Cluster) -> None:
    redis_cluster.flush()
    (owner,) = redis_cluster.owners([key_slot(b"trackist_schema")])
    async with facade.open(redis_cluster.url, shards=4) as tally:
        assert "no bitmap yet" in found(await tally.doctor(), "schema").seen
        for user in range(4):
            await tally.mark_event("a", user, now=DAY)
        assert found(await tally.doctor(), "schema").seen.startswith("as in the database")
        redis_cluster.raw(owner).delete("trackist_schema")
        assert found(await tally.doctor(), "schema").status == "warning"
    async with facade.open(redis_cluster.url, shards=8) as tally:
        assert found(await tally.doctor(), "schema").status == "problem"
    redis_cluster.flush()
