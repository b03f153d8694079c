"""Failovers and restarts that lose the numbers of users, while a tally has them in its cache."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import redis
from dictionary_check import read_database
from marking_program import user

from clusters import Cluster
from facades import ASYNC, Facade
from servers import RedisProcess, running
from wires import wired

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BASE = [user(index) for index in range(10)]
LOST = [user(index) for index in range(10, 50)]
NEW = [user(index) for index in range(50, 130)]

OPTIONS: Any = {"user_ids": uuid.UUID, "timeout": 30.0}

#: A replica is in sync at once.
REPLICATION = ("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")


async def mark(tally: Any, event: str, users: list[uuid.UUID]) -> None:
    """Mark users one by one, so that later marks use numbers from the cache of the first."""
    for each in users:
        await tally.mark_unique(event, each)


def check(raw: Any, **events: list[uuid.UUID]) -> None:
    """Check which users have which events."""
    expected = {f"{event}_u": set(users) for event, users in events.items()}
    assert read_database(raw).users == expected


@contextlib.contextmanager
def pair() -> Iterator[tuple[RedisProcess, Any, RedisProcess, Any]]:
    """Run a master and its replica, in sync, and a client of each."""
    with (
        running(RedisProcess(*REPLICATION)) as master,
        running(RedisProcess(*REPLICATION)) as replica,
        redis.Redis(port=master.port) as raw_master,
        redis.Redis(port=replica.port) as raw_replica,
    ):
        follow(raw_replica, master)
        yield master, raw_master, replica, raw_replica


def follow(raw: Any, master: RedisProcess) -> None:
    """Make a server the replica of another one, and wait until it has all of its data."""
    raw.replicaof("127.0.0.1", master.port)
    Cluster.until(lambda: raw.info("replication")["master_link_status"] == "up", "replica")


def promote(raw: Any) -> None:
    """Make a replica a master, which gets no further writes of its old one."""
    raw.replicaof("NO", "ONE")


def connections(raw: Any) -> set[str]:
    """Return the ids of the present connections of clients."""
    return {each["id"] for each in raw.client_list(_type="normal")}


async def test_a_restart_from_an_older_dump(facade: Facade, tmp_path: Path) -> None:
    with running(RedisProcess("--dir", str(tmp_path))) as server:
        with redis.Redis(port=server.port) as raw:
            async with facade.open(server.url, **OPTIONS) as tally:
                await mark(tally, "base", BASE)
                raw.save()
                await mark(tally, "lost", [*LOST, *LOST])
                shutil.copy(tmp_path / "dump.rdb", tmp_path / "older")
                server.kill()
                (tmp_path / "older").replace(tmp_path / "dump.rdb")
                server.start()
                async with facade.open(server.url, **OPTIONS) as other:
                    await mark(other, "new", NEW)
                await mark(tally, "again", LOST)
            check(raw, base=BASE, new=NEW, again=LOST)


async def test_a_replica_is_promoted_without_the_last_writes(facade: Facade) -> None:
    with pair() as (master, raw_master, replica, raw_replica), wired(master.url) as wire:
        async with facade.open(wire.url, **OPTIONS) as tally:
            await mark(tally, "base", BASE)
            raw_master.wait(1, 10_000)
            promote(raw_replica)
            await mark(tally, "lost", [*LOST, *LOST])
            master.kill()
            wire._target = ("127.0.0.1", replica.port)
            async with facade.open(replica.url, **OPTIONS) as other:
                await mark(other, "new", NEW)
            await mark(tally, "again", LOST)
        check(raw_replica, base=BASE, new=NEW, again=LOST)


async def test_a_master_is_demoted_and_promoted_again(facade: Facade) -> None:
    with pair() as (master, raw_master, replica, raw_replica):
        async with facade.open(master.url, **OPTIONS) as tally:
            await mark(tally, "base", BASE)
            raw_master.wait(1, 10_000)
            promote(raw_replica)
            await mark(tally, "lost", [*LOST, *LOST])
            async with facade.open(replica.url, **OPTIONS) as other:
                await mark(other, "new", NEW)
            present = connections(raw_master)
            follow(raw_master, replica)
            promote(raw_master)
            await mark(tally, "again", LOST)
            assert present <= connections(raw_master)  # none has broken
        check(raw_master, base=BASE, new=NEW, again=LOST)


async def test_marks_wait_while_the_master_is_a_replica() -> None:
    with pair() as (master, raw_master, replica, raw_replica):
        async with ASYNC.open(master.url, **OPTIONS) as tally:
            await mark(tally, "base", BASE)
            raw_master.wait(1, 10_000)
            promote(raw_replica)
            await mark(tally, "lost", [*LOST, *LOST])
            async with ASYNC.open(replica.url, **OPTIONS) as other:
                await mark(other, "new", NEW)
            follow(raw_master, replica)
            refused = [asyncio.create_task(tally.mark_unique("again", each)) for each in LOST]
            while not tally.stats().retries:
                await asyncio.sleep(0)
            promote(raw_master)
            await asyncio.gather(*refused)
        check(raw_master, base=BASE, new=NEW, again=LOST)


@pytest.mark.parametrize("how", ["FLUSHDB", "DEL"])
async def test_all_keys_are_deleted(facade: Facade, redis_store: Any, how: str) -> None:
    raw = redis_store.raw
    async with facade.open(redis_store.url, **OPTIONS) as tally:
        await mark(tally, "lost", [*LOST, *LOST])
        keys = raw.keys("*") if how == "DEL" else []
        raw.execute_command(how, *keys)
        async with facade.open(redis_store.url, **OPTIONS) as other:
            await mark(other, "new", NEW)
        await mark(tally, "again", [*LOST, *NEW])
    check(raw, new=NEW, again=[*LOST, *NEW])


async def test_a_reply_is_lost_with_the_numbers(facade: Facade) -> None:
    # The write with cached numbers is sent again, to a server on which they are others'.
    with pair() as (master, raw_master, replica, raw_replica), wired(master.url) as wire:
        async with facade.open(wire.url, **OPTIONS) as tally:
            await mark(tally, "base", BASE)
            raw_master.wait(1, 10_000)
            promote(raw_replica)
            await mark(tally, "lost", [*LOST, *LOST])
            async with facade.open(replica.url, **OPTIONS) as other:
                await mark(other, "new", NEW)
            wire.cut_after("reply", 3)
            wire._target = ("127.0.0.1", replica.port)
            await mark(tally, "again", LOST)
            assert connections(raw_master)  # it lives, only the connection has broken
        check(raw_replica, base=BASE, new=NEW, again=LOST)


async def test_two_masters_at_once(facade: Facade) -> None:
    # What the old master gets is lost, but nobody else is ever marked.
    with pair() as (master, raw_master, replica, raw_replica), wired(master.url) as wire:
        async with facade.open(wire.url, **OPTIONS) as tally:
            await mark(tally, "base", BASE)
            raw_master.wait(1, 10_000)
            promote(raw_replica)
            async with facade.open(replica.url, **OPTIONS) as other:
                for lost, new in zip(LOST, NEW, strict=False):
                    await mark(tally, "lost", [lost, lost])
                    await mark(other, "new", [new])
            check(raw_master, base=BASE, lost=LOST)
            wire._target = ("127.0.0.1", replica.port)
            wire.cut_all()
            await mark(tally, "again", [*LOST, *NEW])
        check(raw_replica, base=BASE, new=NEW[: len(LOST)], again=[*LOST, *NEW])


async def test_the_database_is_flushed_and_restored(facade: Facade) -> None:
    # The stamp is the same as before, and exists whenever the tally looks: only WATCH knows.
    with pair() as (master, raw_master, replica, raw_replica):
        async with facade.open(master.url, **OPTIONS) as tally:
            await mark(tally, "base", BASE)
            raw_master.wait(1, 10_000)
            stamp = raw_master.get("trackist_ids:stamp")
            promote(raw_replica)
            await mark(tally, "lost", [*LOST, *LOST])
            async with facade.open(replica.url, **OPTIONS) as other:
                await mark(other, "new", NEW)
            dump = {key: raw_replica.dump(key) for key in raw_replica.keys("*")}
            raw_master.flushdb()
            for key, value in dump.items():
                raw_master.restore(key, 0, value)
            assert raw_master.get("trackist_ids:stamp") == stamp
            await mark(tally, "again", LOST)
        check(raw_master, base=BASE, new=NEW, again=LOST)
