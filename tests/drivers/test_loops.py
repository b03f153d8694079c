"""Event loops that end, and tallies that are closed on another loop than their own."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from test_lifecycle import all_gone, connections, run_script

import tallymark
from tallymark import Granularity, Tally, WrongEventLoopError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from stores import Store

NEW = Granularity.UNIQUE


async def use(user: int) -> None:
    """Mark and read with the default tally."""
    assert await tallymark.mark_unique("a", user) == NEW
    tally = await tallymark.current_tally()
    assert await tally.contains(tally.unique("a"), user)


def on_a_loop_that_is_just_closed(user: int) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(use(user))
    loop.close()  # without `shutdown_asyncgens`


@pytest.mark.parametrize("in_threads", [False, True])
def test_loops_that_are_just_closed_leave_no_connections(
    redis_store: Store, in_threads: bool
) -> None:
    tallymark.configure(redis_store.url)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for user in range(20):
            if in_threads:
                thread = threading.Thread(target=on_a_loop_that_is_just_closed, args=(user,))
                thread.start()
                thread.join()
            else:
                on_a_loop_that_is_just_closed(user)
            assert connections(redis_store) <= 4  # of this loop and, for a moment, the one before
        asyncio.run(use(20))  # closes the remaining connections, and itself
        gc.collect()
    assert all_gone(redis_store)


def test_the_last_loop_that_is_just_closed_ends_with_the_process(redis_store: Store) -> None:
    run_script(
        """
        import asyncio, sys, tallymark
        tallymark.configure(sys.argv[1])
        loop = asyncio.new_event_loop()
        loop.run_until_complete(tallymark.mark_unique("a", 1))
        loop.close()
        """,
        redis_store.url,
    )
    assert all_gone(redis_store)


def test_connections_of_closed_loops_are_closed_before_the_interpreter_ends(
    redis_store: Store,
) -> None:
    """Not by its end: functions for ``atexit`` that were registered before run afterwards."""
    out = run_script(
        """
        import atexit, sys, time
        import redis

        def report():
            ends = time.monotonic() + 5
            while len(raw.client_list()) > before and time.monotonic() < ends:
                pass  # the server has yet to notice
            print(len(raw.client_list()) - before)

        raw = redis.Redis.from_url(sys.argv[1])
        before = len(raw.client_list())
        atexit.register(report)
        import asyncio, tallymark
        tallymark.configure(sys.argv[1])
        loop = asyncio.new_event_loop()
        loop.run_until_complete(tallymark.mark_unique("a", 1))
        loop.close()
        """,
        redis_store.url,
    )
    assert out == "0\n"


def test_no_loop_where_a_thread_has_had_one(redis_store: Store) -> None:
    tallymark.configure(redis_store.url)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(tallymark.mark_unique("a", 1))
    with pytest.raises(WrongEventLoopError, match="no event loop of asyncio is running"):
        tallymark.mark_unique("a", 2).send(None)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    assert all_gone(redis_store)


def test_a_loop_that_is_closed_in_the_middle_of_a_read(redis_store: Store) -> None:
    tallymark.configure(redis_store.url)
    loop = asyncio.new_event_loop()

    async def stop_in_the_middle() -> None:
        tally = await tallymark.current_tally()
        for user in range(3):
            await tally.mark_unique("a", user)
        stream = tally.users(tally.unique("a"))
        assert await anext(stream) == 0
        streams.append(stream)

    streams: list[AsyncIterator[int]] = []
    loop.run_until_complete(stop_in_the_middle())
    loop.close()
    asyncio.run(use(5))
    assert all_gone(redis_store)


def test_closing_on_another_loop_harms_nothing(redis_store: Store) -> None:
    tally = Tally.from_url(redis_store.url)
    own, other = asyncio.new_event_loop(), asyncio.new_event_loop()

    async def enter_and_leave() -> None:
        async with tally:
            pytest.fail("entered")

    async def stream_on() -> None:
        await anext(stream)

    own.run_until_complete(tally.mark_unique("a", 1))
    stream = tally.users(tally.unique("a"))
    with pytest.raises(WrongEventLoopError, match="close it there"):
        other.run_until_complete(tally.aclose())
    with pytest.raises(WrongEventLoopError):
        other.run_until_complete(enter_and_leave())
    with pytest.raises(WrongEventLoopError):
        other.run_until_complete(stream_on())
    assert own.run_until_complete(tally.mark_unique("a", 2)) == NEW
    assert own.run_until_complete(tally.count(tally.unique("a"))) == 2
    own.run_until_complete(tally.aclose())
    other.run_until_complete(tally.aclose())  # it is closed
    for loop in (own, other):
        loop.close()
    assert all_gone(redis_store)


def test_closing_after_the_own_loop_is_closed(redis_store: Store) -> None:
    tally = Tally.from_url(redis_store.url)
    own = asyncio.new_event_loop()
    own.run_until_complete(tally.mark_unique("a", 1))
    own.run_until_complete(tally.count(tally.unique("a")))
    own.close()
    assert connections(redis_store) == 2
    asyncio.run(tally.aclose())
    assert all_gone(redis_store)


def by_hand(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end as trio does: without an event loop of asyncio."""
    with contextlib.suppress(StopIteration):
        coroutine.send(None)
    coroutine.close()


def test_closing_without_an_event_loop(redis_store: Store) -> None:
    async def use(tally: Tally) -> None:
        await tally.mark_unique("a", 1)
        await tally.count(tally.unique("a"))

    async def leave(tally: Tally) -> None:
        await tally.__aexit__(None, None, None)

    async def use_and_close(tally: Tally) -> None:
        await use(tally)
        await tally.aclose()

    for url in (redis_store.url, "memory://"):
        for shards in (None, 3):
            for close in (Tally.aclose, leave):
                tally = Tally.from_url(url, shards=shards, prefix=f"{shards}_")
                with pytest.raises(WrongEventLoopError, match=r"runs on asyncio.*trio"):
                    by_hand(close(tally))
                own = asyncio.new_event_loop()
                own.run_until_complete(use(tally))
                with pytest.raises(WrongEventLoopError, match=r"runs on asyncio.*trio"):
                    by_hand(close(tally))
                own.run_until_complete(use(tally))  # it goes on working
                own.close()
                by_hand(close(tally))  # there is nobody left to wait for
                closed = Tally.from_url(url, shards=shards, prefix=f"{shards}_")
                asyncio.run(use_and_close(closed))
                with pytest.raises(WrongEventLoopError, match=r"runs on asyncio.*trio"):
                    by_hand(close(closed))
    assert all_gone(redis_store)


def test_configuring_while_other_loops_run(redis_store: Store) -> None:
    tallymark.configure(redis_store.url)
    first_marked, configured = threading.Event(), threading.Event()

    async def mark_twice() -> None:
        await use(1)
        first_marked.set()
        await asyncio.to_thread(configured.wait)
        await use(2)

    thread = threading.Thread(target=lambda: asyncio.run(mark_twice()))
    thread.start()
    first_marked.wait()
    tallymark.configure(redis_store.url)
    asyncio.run(use(3))
    configured.set()
    thread.join()
    assert redis_store.bits() == {"trackist_a_u": {1, 2, 3}}
    assert all_gone(redis_store)
