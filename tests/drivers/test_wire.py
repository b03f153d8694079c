"""What crosses the network, and what happens when it does not."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import redis
import redis.asyncio

from proxy import Proxy, proxied
from servers import running_server
from tallymark import (
    CommandError,
    Granularity,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    SyncTally,
    Tally,
)
from tallymark._redis import blocking_stream, replies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from facades import Facade
    from stores import Store


@pytest.fixture
def proxy(redis_store: Store) -> Iterator[Proxy]:
    """Yield a proxy in front of the real Redis."""
    with proxied(redis_store.url) as running:
        yield running


async def test_a_mark_is_one_write_of_one_transaction(facade: Facade, proxy: Proxy) -> None:
    async with facade.open(proxy.url) as tally:
        await tally.mark_event("active", 123, track_hourly=True, track_unique=True)
        await tally.unmark_event("active", 123, exact=True)
        async with tally.transaction() as tx:
            for user_id in range(100):
                tx.mark_event("active", user_id)
    writes = proxy.transactions()
    assert len(writes) == 3
    for write in writes:
        assert write.startswith(b"*1\r\n$5\r\nMULTI\r\n")
        assert write.endswith(b"*1\r\n$4\r\nEXEC\r\n")
        assert write.count(b"MULTI") == write.count(b"EXEC") == 1
    assert writes[0].count(b"SETBIT") == 5
    assert writes[2].count(b"BITFIELD") == 3


async def test_an_empty_transaction_sends_nothing(facade: Facade, proxy: Proxy) -> None:
    async with facade.open(proxy.url) as tally, tally.transaction():
        pass
    assert proxy.sent == []


async def test_a_broken_connection_is_retried(
    facade: Facade, proxy: Proxy, redis_store: Store
) -> None:
    async with facade.open(proxy.url) as tally:
        await tally.mark_unique("a", 1)
        proxy.cuts = 2
        await tally.mark_unique("a", 2)
        assert proxy.cuts == 0
        assert await tally.mark_unique("a", 3) == Granularity.UNIQUE
        assert not await tally.mark_unique("a", 2)
    assert redis_store.bits() == {"trackist_a_u": {1, 2, 3}}


async def test_a_broken_connection_of_a_client_of_ones_own_is_retried(proxy: Proxy) -> None:
    async with redis.asyncio.Redis.from_url(proxy.url) as client, Tally(client) as tally:
        await tally.mark_unique("a", 1)
        proxy.cuts = 2
        await tally.mark_unique("a", 2)
        assert await tally.mark_unique("a", 3) == Granularity.UNIQUE
    with redis.Redis.from_url(proxy.url) as blocking, SyncTally(blocking) as sync_tally:
        sync_tally.mark_unique("b", 1)
        proxy.cuts = 2
        sync_tally.mark_unique("b", 2)
        assert sync_tally.mark_unique("b", 3) == Granularity.UNIQUE
    assert proxy.cuts == 0


async def test_a_health_check_of_redis_py_precedes_a_mark_when_it_is_due(proxy: Proxy) -> None:
    client: Any = redis.asyncio.Redis.from_url(proxy.url, health_check_interval=3600)
    async with client, Tally(client) as tally:
        await tally.mark_unique("a", 1)
        connection = await client.connection_pool.get_connection()
        connection.next_health_check = 0.0
        await client.connection_pool.release(connection)
        proxy.sent.clear()
        assert await tally.mark_unique("a", 2) == Granularity.UNIQUE
        assert await tally.mark_unique("a", 3) == Granularity.UNIQUE
    sent = b"".join(proxy.sent)
    assert sent.count(b"PING") == 1
    assert sent.index(b"PING") < sent.index(b"MULTI")


async def test_a_connection_closed_by_the_server_while_idle(
    facade: Facade, redis_store: Store
) -> None:
    async with facade.open(redis_store.url) as tally:
        await tally.mark_unique("a", 1)
        redis_store.raw.client_kill_filter(skipme=True)
        assert await tally.mark_unique("a", 2) == Granularity.UNIQUE


async def test_a_silent_server_ends_in_a_timeout(facade: Facade, proxy: Proxy) -> None:
    async with facade.open(proxy.url, timeout=0.5) as tally:
        await tally.mark_unique("a", 1)
        proxy.passing.clear()
        with pytest.raises(StoreTimeoutError, match="may or may not have been applied") as raised:
            await tally.mark_unique("a", 2)
        proxy.passing.set()
        assert isinstance(raised.value, TimeoutError)
        assert await tally.mark_unique("a", 3) == Granularity.UNIQUE


async def test_nobody_listens(facade: Facade) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with facade.open(f"redis://:secret@127.0.0.1:{port}", timeout=0.5) as tally:
        with pytest.raises(StoreUnavailableError, match="nothing was sent") as raised:
            await tally.mark_unique("a", 1)
    assert isinstance(raised.value, ConnectionError)
    assert type(raised.value.__cause__).__module__ == "redis.exceptions"
    assert "secret" not in str(raised.value)


async def test_a_server_that_accepts_and_says_nothing(facade: Facade) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        async with facade.open(url, timeout=0.5) as tally:
            with pytest.raises(StoreTimeoutError, match="nothing was sent"):
                await tally.mark_unique("a", 1)


async def test_a_wrong_password_raises_at_once(facade: Facade) -> None:
    with running_server("--requirepass", "right") as url:
        wrong = url.replace("//", "//:wrong@")
        async with facade.open(wrong, timeout=60) as tally:
            with anyio.fail_after(20), pytest.raises(CommandError) as raised:
                await tally.mark_unique("a", 1)
        assert "wrong@" not in str(raised.value)
        async with facade.open(url, timeout=60) as tally:
            with anyio.fail_after(20), pytest.raises(CommandError, match="uthenticat"):
                await tally.mark_unique("a", 1)
        async with facade.open(url.replace("//", "//:right@")) as tally:
            assert await tally.mark_unique("a", 1)


async def test_commands_that_the_user_may_not_run(facade: Facade, redis_store: Store) -> None:
    redis_store.raw.acl_setuser(
        "limited",
        enabled=True,
        nopass=True,
        keys=["trackist_ok*"],
        commands=["+@all", "-info"],
        reset=True,
    )
    try:
        async with facade.open(redis_store.url.replace("//", "//limited@")) as tally:
            assert await tally.mark_unique("ok", 1)
            with pytest.raises(CommandError, match="nothing was applied: refused"):
                await tally.mark_unique("denied", 1)
            with pytest.raises(CommandError, match="another mark"):
                async with tally.transaction() as tx:
                    tx.mark_unique("ok", 2)
                    tx.mark_unique("denied", 2)
    finally:
        redis_store.raw.acl_deluser("limited")
    assert redis_store.bits() == {"trackist_ok_u": {1}}


async def test_a_user_without_multi(facade: Facade, redis_store: Store) -> None:
    redis_store.raw.acl_setuser(
        "limited", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-multi"], reset=True
    )
    try:
        async with facade.open(redis_store.url.replace("//", "//limited@")) as tally:
            with pytest.raises(CommandError, match="MULTI was refused"):
                await tally.mark_unique("a", 1)
    finally:
        redis_store.raw.acl_deluser("limited")


@pytest.mark.parametrize(
    "garbage",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b":1\r\n" * 20, b"\x00" * 100],
    ids=["http", "numbers", "zeros"],
)
async def test_something_else_than_redis_answers(facade: Facade, garbage: bytes) -> None:
    def answer(listener: socket.socket) -> None:
        try:
            while True:
                with listener.accept()[0] as client:
                    client.recv(1000)
                    client.sendall(garbage)
        except OSError:
            pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        try:
            url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
            async with facade.open(url, timeout=0.3) as tally:
                with pytest.raises(StoreError):
                    await tally.mark_unique("a", 1)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("query", ["?protocol=2", "?protocol=3", "?decode_responses=yes"])
async def test_protocols(facade: Facade, redis_store: Store, query: str) -> None:
    async with facade.open(redis_store.url + query) as tally, tally.transaction() as tx:
        marks = [tx.mark_event("active", user_id) for user_id in (1, 2, 1)]
        exact = tx.unmark_event("active", 1, exact=True)
    assert [bool(mark.flipped) for mark in marks] == [True, True, False]
    assert exact.flipped == Granularity.DAY | Granularity.WEEK | Granularity.MONTH


async def test_unix_sockets(facade: Facade, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("s") / "redis.sock"
    with running_server("--unixsocket", str(path)):
        async with facade.open(f"unix://{path}?db=3") as tally:
            assert await tally.mark_unique("a", 1) == Granularity.UNIQUE


async def test_interrupted_between_two_replies(
    facade: Facade, redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends the reading early, nobody gets the replies that are left."""
    taken = replies.parsed

    def interrupted(take: Any, most: int) -> list[Any]:
        found = taken(take, min(1, most))
        if found and most > 1:
            raise KeyboardInterrupt
        return found

    async with facade.open(redis_store.url) as tally:
        await tally.mark_unique("a", 0)
        with monkeypatch.context() as patch:
            for module in (replies, blocking_stream):
                patch.setattr(module, "parsed", interrupted)
            # The reply to a single mark of a blocking tally is read without a parser.
            with pytest.raises(KeyboardInterrupt):
                async with tally.transaction() as tx:
                    tx.mark_unique("a", 1)
                    tx.mark_unique("b", 1)
        assert await tally.mark_unique("a", 2) == Granularity.UNIQUE
        assert not await tally.mark_unique("a", 1)


def test_many_threads_share_a_tally(store: Store) -> None:
    with SyncTally.from_url(store.url) as tally:

        def mark(first: int) -> None:
            results.extend(tally.mark_unique("a", user) for user in range(first, first + 50))

        results: list[Granularity] = []
        threads = [threading.Thread(target=mark, args=(50 * index,)) for index in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [Granularity.UNIQUE] * 3200
    assert store.bits()["trackist_a_u"] == set(range(3200))
