"""What Redis refuses, as distinct errors at once; and what it refuses for a while, again."""

from __future__ import annotations

import re
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis import exceptions

from servers import RedisProcess, free_port, running
from tallymark import (
    CommandError,
    NotPersistingError,
    PermissionDeniedError,
    StoreFullError,
    StoreNotReadyError,
    UnknownCommandError,
    WrongKeyTypeError,
)
from tallymark._core.failures import RedirectedError
from tallymark._redis.errors import refused_reply

if TYPE_CHECKING:
    from pathlib import Path

    from facades import Facade


async def test_a_full_store(facade: Facade) -> None:
    with running(RedisProcess("--maxmemory", "1")) as server:
        async with facade.open(server.url, timeout=60) as tally:
            begun = time.monotonic()
            with pytest.raises(StoreFullError, match=r"OOM.*maxmemory"):
                await tally.mark_event("a", 1)
            with pytest.raises(StoreFullError):
                await tally.mark_many("a", range(5000))
            assert time.monotonic() - begun < 10  # no second attempt
            assert await tally.count(tally.day("a")) == 0


async def test_a_store_that_cannot_save(facade: Facade, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    settings = ("--dir", str(folder), "--save", "3600", "1")
    with running(RedisProcess(*settings)) as server, redis.Redis(port=server.port) as raw:
        shutil.rmtree(folder)
        raw.bgsave()
        while raw.info("persistence")["rdb_last_bgsave_status"] == "ok":
            time.sleep(0.01)
        async with facade.open(server.url, timeout=60) as tally:
            with pytest.raises(NotPersistingError, match=r"MISCONF.*disk"):
                await tally.mark_event("a", 1)
            assert await tally.count(tally.day("a")) == 0
        server.kill()  # it would not end without having saved


async def test_a_missing_login(facade: Facade) -> None:
    with running(RedisProcess("--requirepass", "secret")) as server:
        for url in (server.url, server.url.replace("//", "//:wrong@")):
            async with facade.open(url, timeout=60) as tally:
                for call in (tally.mark_event("a", 1), tally.count(tally.day("a"))):
                    with pytest.raises(PermissionDeniedError, match=r"store's URL"):
                        await call


async def test_a_command_that_the_server_lacks(facade: Facade) -> None:
    with running(RedisProcess("--rename-command", "BITFIELD", "")) as server:
        async with facade.open(server.url, timeout=60) as tally:
            with pytest.raises(UnknownCommandError, match="bitfield=False"):
                async with tally.transaction() as tx:
                    for user_id in range(3):
                        tx.mark_event("a", user_id)
        async with facade.open(server.url, bitfield=False) as tally:
            async with tally.transaction() as tx:
                for user_id in range(3):
                    tx.mark_event("a", user_id)
            assert await tally.count(tally.day("a")) == 3


async def test_an_event_whose_key_holds_something_else(facade: Facade) -> None:
    """Only its own marks fail, whoever they share a transaction with."""
    with running(RedisProcess()) as server, redis.Redis(port=server.port) as raw:
        raw.rpush("trackist_a_u", "no bitmap")
        async with facade.open(server.url) as tally:
            marks: list[Any] = []
            with pytest.raises(WrongKeyTypeError, match="trackist_a_u was not changed"):
                async with tally.transaction() as tx:
                    marks += [tx.mark_unique(event, 1) for event in "bac"]
            assert marks[0].flipped
            with pytest.raises(WrongKeyTypeError):
                assert marks[1].flipped
            assert marks[2].flipped


async def test_a_server_that_is_loading(facade: Facade, tmp_path: Path) -> None:
    # It takes a second to load, and listens meanwhile.
    slow = ("--key-load-delay", "2000", "--rdbcompression", "no")
    server = RedisProcess("--dir", str(tmp_path), *slow)
    with running(server), redis.Redis(port=server.port) as raw:
        raw.mset({f"key{number}": "x" * 100_000 for number in range(600)})
        raw.save()
        server.kill()
        server.start(until="Loading RDB")
        async with facade.open(server.url, timeout=30) as tally:
            with pytest.raises(StoreNotReadyError, match="LOADING"):
                await tally.mark_event("a", 1, timeout=0.5)
            assert await tally.mark_event("a", 2)  # as soon as it is ready


async def test_a_cluster_that_is_down(facade: Facade, tmp_path: Path) -> None:
    port = next(port for port in iter(free_port, None) if port < 55_000)  # and 10,000 more
    settings = ("--cluster-enabled", "yes", "--dir", str(tmp_path))
    with running(RedisProcess(*settings, port=port)) as server:
        async with facade.open(server.url, timeout=30) as tally:
            with pytest.raises(StoreNotReadyError, match="CLUSTERDOWN"):
                await tally.mark_unique("a", 1, timeout=0.5)
            with pytest.raises(StoreNotReadyError, match="CLUSTERDOWN"):
                await tally.count(tally.unique("a"), timeout=0.5)
            with redis.Redis(port=server.port) as raw:
                raw.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
            assert await tally.mark_unique("a", 2)


async def test_a_replica_without_its_master(facade: Facade) -> None:
    lost = ("--replicaof", "127.0.0.1", "1", "--replica-serve-stale-data", "no")
    with running(RedisProcess(*lost)) as server, redis.Redis(port=server.port) as raw:
        async with facade.open(server.url, timeout=30) as tally:
            with pytest.raises(StoreNotReadyError, match="MASTERDOWN"):
                await tally.count(tally.day("a"), timeout=0.5)
            raw.config_set("replica-serve-stale-data", "yes")
            with pytest.raises(StoreNotReadyError, match="READONLY"):
                await tally.mark_event("a", 1, timeout=0.5)
            raw.execute_command("REPLICAOF", "NO", "ONE")
            assert await tally.mark_event("a", 2)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (exceptions.ResponseError("UNBLOCKED force unblock from blocking operation"), "UNBLOCKED"),
        (exceptions.ResponseError("BUSY Redis is busy running a script."), "BUSY"),
        (exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."), "NOREPLICAS"),
        (
            exceptions.ExecAbortError(
                "Transaction discarded because of: READONLY You can't write against a replica."
            ),
            "READONLY",
        ),
    ],
)
def test_what_passes_by_itself_is_tried_again(reply: Exception, kind: str) -> None:
    with pytest.raises(StoreNotReadyError, match=re.escape(kind)):
        refused_reply(reply)


@pytest.mark.parametrize(
    ("reply", "kind", "address"),
    [
        (exceptions.TryAgainError("Multiple keys request during rehashing"), "TRYAGAIN", ("", 0)),
        (exceptions.MovedError("3999 127.0.0.1:6381"), "MOVED", ("127.0.0.1", 6381)),
        (exceptions.AskError("3999 ?:6381"), "ASK", ("", 6381)),
        (exceptions.ResponseError("ASK 3999 ::1:6381"), "ASK", ("::1", 6381)),
    ],
)
def test_where_else_to_go(reply: Exception, kind: str, address: tuple[str, int]) -> None:
    found = refused_reply(reply)
    assert isinstance(found, RedirectedError)
    assert (found.kind, found.address) == (kind, address)


def test_what_nobody_knows_is_an_error_of_the_command() -> None:
    refused = refused_reply(exceptions.ResponseError("ERR value is not an integer"))
    assert type(refused) is CommandError
    assert str(refused) == "ERR value is not an integer"
