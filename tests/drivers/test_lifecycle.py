"""Opening and closing: tallies, clients, URLs, and the default tallies."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio

import tallymark
from facades import ASYNC, internals
from proxy import proxied
from servers import running_server
from tallymark import (
    ClosedError,
    Granularity,
    InvalidTypeError,
    InvalidValueError,
    MissingExtraError,
    StoreUnavailableError,
    SyncTally,
    Tally,
    WrongEventLoopError,
)
from tallymark import sync as tm
from tallymark._async import default as default_tally
from tallymark._redis import defaults, memory

if TYPE_CHECKING:
    from facades import Facade
    from stores import Store

NEW = Granularity.UNIQUE


def connections(store: Store) -> int:
    """Return how many clients the server has, beside the one that asks."""
    return len(store.raw.client_list(_type="normal")) - 1


def all_gone(store: Store) -> bool:
    """Wait for the server to notice, in its own time, that all clients have closed."""
    patience = time.monotonic() + 5
    while connections(store) and time.monotonic() < patience:
        pass
    return not connections(store)


# --- whose client it is


async def test_a_client_of_ones_own_stays_open(redis_store: Store) -> None:
    async with redis.asyncio.Redis.from_url(redis_store.url) as client:
        async with Tally(client) as tally:
            assert await tally.mark_unique("a", 1) == NEW
        assert await client.getbit("trackist_a_u", 1) == 1
        with pytest.raises(ClosedError):
            await tally.mark_unique("a", 2)
    with redis.Redis.from_url(redis_store.url) as blocking:
        with SyncTally(blocking) as sync_tally:
            assert sync_tally.mark_unique("b", 1) == NEW
        assert blocking.getbit("trackist_b_u", 1) == 1
        assert connections(redis_store) == 1
        with pytest.raises(ClosedError):
            sync_tally.mark_unique("b", 2)


def test_the_wrong_kind_of_client() -> None:
    blocking: Any = redis.Redis()
    awaited: Any = redis.asyncio.Redis()
    with pytest.raises(
        InvalidTypeError, match=r"takes a redis.asyncio.Redis or .*, got a redis.cl"
    ):
        Tally(blocking)
    with pytest.raises(InvalidTypeError, match=r"takes a redis.Redis or .*, .* tallymark.Tally"):
        SyncTally(awaited)


async def test_a_tally_leaves_no_connection_behind(facade: Facade, redis_store: Store) -> None:
    async with facade.open(redis_store.url) as tally:
        await tally.mark_unique("a", 1)
        assert connections(redis_store) == 1
    assert all_gone(redis_store)


async def test_closing_twice_and_using_after(facade: Facade, store: Store) -> None:
    made = facade.tally.from_url(store.url)
    await facade.verbs(made).mark_unique("a", 1)
    await facade.close(made)
    await facade.close(made)
    with pytest.raises(ClosedError, match="this tally is closed"):
        await facade.verbs(made).mark_unique("a", 2)
    with pytest.raises(ClosedError):
        async with facade.verbs(made).transaction():
            pytest.fail("entered")
    assert store.bits() == {"trackist_a_u": {1}}


async def test_a_closed_tally_cannot_be_entered(memory_store: Store) -> None:
    tally, sync_tally = Tally.from_url(memory_store.url), SyncTally.from_url(memory_store.url)
    await tally.aclose()
    sync_tally.close()
    with pytest.raises(ClosedError):
        async with tally:
            pytest.fail("entered")
    with pytest.raises(ClosedError), sync_tally:
        pytest.fail("entered")


async def test_closing_waits_for_the_calls_in_flight(redis_store: Store) -> None:
    with proxied(redis_store.url) as proxy:
        tally = Tally.from_url(proxy.url)
        proxy.passing.clear()
        mark = asyncio.create_task(tally.mark_unique("a", 1))
        await asyncio.to_thread(proxy.held.wait)
        closing = [asyncio.create_task(tally.aclose()) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(ClosedError):
            await tally.mark_unique("a", 2)
        assert not any(task.done() for task in closing)
        proxy.passing.set()
        await asyncio.gather(*closing)
        assert mark.result() == NEW


async def test_a_cancelled_close_closes_at_once(redis_store: Store) -> None:
    with proxied(redis_store.url) as proxy:
        tally = Tally.from_url(proxy.url, timeout=20)
        proxy.passing.clear()
        mark = asyncio.create_task(tally.mark_unique("a", 1))
        await asyncio.to_thread(proxy.held.wait)
        closing = asyncio.create_task(tally.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        mark.cancel()
        await asyncio.gather(mark, return_exceptions=True)
        assert not internals(tally).client.connection_pool._in_use_connections


def test_a_blocking_close_lets_other_threads_finish(redis_store: Store) -> None:
    with proxied(redis_store.url) as proxy:
        tally = SyncTally.from_url(proxy.url)
        tally.mark_unique("a", 0)
        proxy.passing.clear()
        results: list[Granularity] = []
        thread = threading.Thread(target=lambda: results.append(tally.mark_unique("a", 1)))
        thread.start()
        proxy.held.wait()
        tally.close()
        proxy.passing.set()
        thread.join()
    assert results == [NEW]
    connection = internals(tally).writer._commit._free["leadership"].connection
    assert not connection._held


def test_a_tally_belongs_to_one_event_loop(redis_store: Store) -> None:
    tally = Tally.from_url(redis_store.url)

    async def use() -> None:
        await tally.mark_unique("a", 1)
        await internals(tally).writer._connection.close(gently=True)

    asyncio.run(use())
    with pytest.raises(WrongEventLoopError, match="another event loop"):
        asyncio.run(use())


# --- URLs


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        (
            "http://user:secret@host",
            InvalidValueError,
            r"redis://, rediss://, unix://, .*memory://",
        ),
        ("localhost:6379/secret", InvalidValueError, "got none"),
        ("", InvalidValueError, "got none"),
        ("REDIS", InvalidValueError, "got none"),
        ("redis://host/secret", InvalidValueError, "number of a database"),
        ("redis://:with/secret@host/0", InvalidValueError, "urllib.parse.quote"),
        ("redis://host/0/secret?a=b", InvalidValueError, "number of a database"),
        ("redis://:secret@host:port", InvalidValueError, "a port from 1 to 65535"),
        ("redis://host?socket_keepalive_secret=1", InvalidValueError, "no option of redis-py"),
        ("memory://secret/0", InvalidValueError, "memory://name, without"),
        ("memory://secret:1", InvalidValueError, "memory://name, without"),
        ("memory://secret?db=1", InvalidValueError, "memory://name, without"),
        (None, InvalidTypeError, "must be a str"),
        (b"redis://secret", InvalidTypeError, "must be a str, got a bytes"),
    ],
)
async def test_urls_that_are_refused(
    facade: Facade, url: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        async with facade.open(url) as tally:
            pytest.fail(f"opened {tally!r}")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("missing", ["fakeredis", "lupa"])
def test_without_the_extra(facade: Facade, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=r'pip install "tallymark\[memory\]"') as raised:
        facade.tally.from_url("memory://")
    assert missing in str(raised.value)
    assert isinstance(raised.value, ImportError)


def test_importing_tallymark_needs_only_redis_and_anyio() -> None:
    run_script(
        """
        import sys

        class Refusing:
            def find_spec(self, name, path=None, target=None):
                if name in {"fakeredis", "lupa", "typing_extensions", "numpy", "pytest"}:
                    raise ImportError(name)

        sys.meta_path.insert(0, Refusing())
        import tallymark, tallymark.sync
        """
        if sys.version_info >= (3, 13)  # anyio needs typing_extensions before
        else "import tallymark, sys; assert 'fakeredis' not in sys.modules"
    )


async def test_stores_in_memory_are_shared_by_name(memory_store: Store) -> None:
    async with Tally.from_url(memory_store.url) as one, Tally.from_url(memory_store.url) as two:
        with SyncTally.from_url(memory_store.url) as three:
            assert await one.mark_unique("a", 1) == NEW
            assert not await two.mark_unique("a", 1)
            assert not three.mark_unique("a", 1)
        async with Tally.from_url(memory_store.url + "-other") as other:
            assert await other.mark_unique("a", 1) == NEW
    assert memory.store("x") is memory.store("x")


# --- the default tallies


async def test_the_default_is_configured(facade: Facade, store: Store) -> None:
    tallymark.configure(store.url, prefix="mine_", track_hourly=True)
    verbs = facade.verbs(facade.module)
    assert Granularity.HOUR in await verbs.mark_event("active", 1)
    assert Granularity.HOUR in await verbs.unmark_event("active", 1, exact=True)
    assert await verbs.mark_unique("premium", 1) == NEW
    assert await verbs.unmark_unique("premium", 1) == NEW
    async with verbs.transaction() as tx:
        pending = tx.mark_unique("trial", 1)
    assert pending.flipped == NEW
    assert store.bits() == {"mine_trial_u": {1}}


async def test_the_default_comes_from_the_environment(
    facade: Facade, memory_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert defaults.url(defaults.configured()).address.hosts == (("localhost", 6379),)
    monkeypatch.setenv("TALLYMARK_URL", memory_store.url)
    tallymark.configure()
    await facade.verbs(facade.module).mark_unique("a", 1)
    assert memory_store.bits() == {"trackist_a_u": {1}}


async def test_configuring_again_replaces_the_default(facade: Facade) -> None:
    verbs = facade.verbs(facade.module)
    with running_server() as url, redis.Redis.from_url(url) as raw:
        for database in range(3):
            tallymark.configure(url.replace("/0", f"/{database}"))
            assert await verbs.mark_unique("again", 1) == NEW
            assert not await verbs.mark_unique("again", 1)
        open_databases = {client["db"] for client in raw.client_list()}
        assert open_databases == {"0", "2"}  # 0 is the test's own


async def test_replacing_the_default_lets_its_calls_finish(redis_store: Store) -> None:
    with proxied(redis_store.url) as proxy:
        tallymark.configure(proxy.url)
        await tallymark.mark_unique("a", 0)
        proxy.passing.clear()
        before = asyncio.create_task(tallymark.mark_unique("a", 1))
        await asyncio.to_thread(proxy.held.wait)
        tallymark.configure(redis_store.url)
        after = [asyncio.create_task(tallymark.mark_unique("a", user)) for user in (2, 3)]
        while not redis_store.raw.getbit("trackist_a_u", 3):
            await asyncio.sleep(0)
        proxy.passing.set()
        assert await asyncio.gather(before, *after) == [NEW] * 3


@pytest.mark.parametrize(
    ("arguments", "options"),
    [(["ftp://x"], {}), ([], {"timezone": "Nowhere"}), ([], {"unknown": 1})],
)
def test_a_refused_configuration_changes_nothing(
    arguments: list[str], options: dict[str, Any]
) -> None:
    before = defaults.configured()
    with pytest.raises((InvalidValueError, TypeError)):
        tallymark.configure(*arguments, **options)
    assert defaults.configured() is before


def test_one_default_for_each_event_loop(redis_store: Store) -> None:
    tallymark.configure(redis_store.url)
    users = itertools.count()

    async def mark_some() -> Tally:
        assert (
            await asyncio.gather(*(tallymark.mark_unique("a", next(users)) for _ in range(10)))
            == [NEW] * 10
        )
        return await default_tally.current_tally()

    first, second = asyncio.run(mark_some()), asyncio.run(mark_some())
    assert first is not second

    threads = [
        threading.Thread(target=lambda: tallies.append(asyncio.run(mark_some()))) for _ in range(8)
    ]
    tallies: list[Tally] = []
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, tallies))) == 8
    assert redis_store.bits() == {"trackist_a_u": set(range(100))}
    assert all_gone(redis_store)


def test_one_blocking_default_for_all_threads(redis_store: Store) -> None:
    tallymark.configure(redis_store.url)
    barrier = threading.Barrier(16)
    tallies = []

    def mark(user: int) -> None:
        barrier.wait()
        tm.mark_unique("a", user)
        tallies.append(tm.current_tally())

    threads = [threading.Thread(target=mark, args=(user,)) for user in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, tallies))) == 1
    assert redis_store.bits() == {"trackist_a_u": set(range(16))}


async def test_an_unreachable_default_is_an_error_not_a_fallback(facade: Facade) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    tallymark.configure(f"redis://127.0.0.1:{port}", timeout=0.05)
    with pytest.raises(StoreUnavailableError):
        await facade.verbs(facade.module).mark_unique("a", 1)


# --- whole processes: what only an interpreter's end or a fork shows


def run_script(script: str, *arguments: str) -> str:
    """Run a script with every warning an error; fail on anything it says on stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_end_of_the_interpreter_is_silent(store: Store) -> None:
    url = "memory://" if store.url.startswith("memory") else store.url
    out = run_script(
        """
        import asyncio, sys
        import tallymark
        from tallymark import sync as tm

        tallymark.configure(sys.argv[1])
        print(bool(asyncio.run(tallymark.mark_event("active", 1))))
        print(bool(asyncio.run(tallymark.mark_event("active", 2))))
        print(bool(tm.mark_event("active", 3)))
        """,
        url,
    )
    assert out.split() == ["True"] * 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_fork_parent_and_child_have_their_own_connections(redis_store: Store) -> None:
    out = run_script(
        """
        import os, sys, threading
        import tallymark
        from tallymark import SyncTally, sync as tm

        tallymark.configure(sys.argv[1])
        injected = SyncTally.from_url(sys.argv[1], max_events=2)
        tm.mark_unique("a", 0)
        injected.mark_unique("b", 0)
        injected.backend.writer._totals_lock.acquire()  # as if another thread held it at the fork
        other = threading.Thread(target=injected.backend.marker._policy.lock.acquire)
        other.start()
        other.join()
        children = []
        for child in range(1, 5):
            pid = os.fork()
            if not pid:
                for user in range(child * 100, child * 100 + 100):
                    assert tm.mark_unique("a", user)
                    assert injected.mark_unique("b", user)
                injected.mark_unique("c", child)
                tallymark.configure(sys.argv[1])
                tm.mark_unique("a", 0)
                injected.close()
                tm.current_tally().close()
                os._exit(0)
            children.append(pid)
        injected.backend.writer._totals_lock.release()
        for user in range(1, 100):
            assert tm.mark_unique("a", user)
            assert injected.mark_unique("b", user)
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
        injected.close()
        print("done")
        """,
        redis_store.url,
    )
    assert out == "done\n"
    users = set(range(500))
    assert redis_store.bits() == {
        "trackist_a_u": users,
        "trackist_b_u": users,
        "trackist_c_u": {1, 2, 3, 4},
    }


async def test_closing_releases_the_loop(redis_store: Store) -> None:
    """A default tally that outlived its loop would keep all of it in memory."""
    tallymark.configure(redis_store.url)

    def one_loop() -> weakref.ref[asyncio.AbstractEventLoop]:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(tallymark.mark_unique("a", 1))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()
        return weakref.ref(loop)

    gone = await asyncio.to_thread(one_loop)
    gc.collect()
    assert gone() is None


def test_the_async_facade_is_the_package() -> None:
    assert ASYNC.module is tallymark
