"""The pool of the blocking driver, by itself."""

from __future__ import annotations

import _thread
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from tallymark import ReentrantCallError
from tallymark._redis import blocking_pool
from tallymark._redis.blocking_pool import BlockingPool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stores import Store


@pytest.fixture
def pool(redis_store: Store) -> Iterator[BlockingPool]:
    """Yield a pool of two connections."""
    made: BlockingPool = BlockingPool.from_url(redis_store.url, max_connections=2)
    yield made
    made.disconnect()


def acquire(pool: BlockingPool, seconds: float = 5) -> Any:
    held: list[Any] = []
    try:
        return pool.acquire_into(held, time.monotonic() + seconds)
    except BaseException:
        pool.release_from(held, intact=False)
        raise


def ping(connection: Any) -> str:
    """Ask over a connection; fail if the answer is that of an earlier question."""
    connection.send_command("ECHO", "hello")
    return str(connection.read_response().decode())


def test_a_connection_is_used_again_as_it_is(pool: BlockingPool) -> None:
    first = acquire(pool)
    assert ping(first) == "hello"
    its_socket = first._sock
    pool.release_from([first], intact=True)
    assert acquire(pool) is first
    assert first._sock is its_socket


def test_a_connection_that_is_not_intact_is_made_anew(pool: BlockingPool) -> None:
    first = acquire(pool)
    first.send_command("PING")  # whose reply nobody reads
    pool.release_from([first], intact=False)
    assert first._sock is None
    assert ping(acquire(pool)) == "hello"


def test_nobody_gets_a_connection_that_is_lent(pool: BlockingPool) -> None:
    one, two = acquire(pool), acquire(pool)
    assert one is not two
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(acquire, pool, 0.01)
        with pytest.raises(RedisTimeoutError, match="all connections were in use"):
            waiting.result()
    with pytest.raises(ReentrantCallError):  # of this thread, which would wait for itself
        acquire(pool)
    pool.release_from([one], intact=True)
    assert acquire(pool) is one


def test_the_client_and_the_tally_share_the_pool(pool: BlockingPool) -> None:
    client = Redis(connection_pool=pool)
    lent = acquire(pool)
    assert client.echo("hi") == b"hi"
    pool.release_from([lent], intact=True)
    for _ in range(3):
        assert client.echo("hi") == b"hi"
        connection = acquire(pool)
        assert ping(connection) == "hello"
        pool.release_from([connection], intact=True)
    assert len(pool._connections) == 2


def test_closing_the_idle_ones_leaves_the_lent_ones(pool: BlockingPool) -> None:
    lent, idle = acquire(pool), acquire(pool)
    pool.release_from([idle], intact=True)
    pool.disconnect_idle()
    assert idle._sock is None
    assert ping(lent) == "hello"
    pool.release_from([lent], intact=True)
    assert {ping(acquire(pool)), ping(acquire(pool))} == {"hello"}


def test_another_process_makes_its_own(pool: BlockingPool) -> None:
    parents = acquire(pool)
    pool.release_from([parents], intact=True)
    pool.pid = 0  # what os.getpid() says has changed, as in a child after a fork
    childs = acquire(pool)
    assert childs is not parents
    assert ping(childs) == ping(parents) == "hello"
    parents.disconnect()


@pytest.fixture
def held_lookups(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let no look-up of a name end before this is set: redis-py has no timeout for them."""
    ending = threading.Event()
    look_up = socket.getaddrinfo

    def held(*arguments: Any, **options: Any) -> Any:
        ending.wait(60)
        return look_up(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", held)
    return ending


def test_connecting_ends_in_time_whatever_it_waits_for(
    pool: BlockingPool, held_lookups: threading.Event
) -> None:
    begun = time.monotonic()
    for message in ("no connection in time", "no connection in time", "all connections were in"):
        # Each attempt keeps its place in the pool: there are never more of them than places.
        with pytest.raises(RedisTimeoutError, match=message):
            acquire(pool, 0.05)
    assert time.monotonic() - begun < 5
    held_lookups.set()
    one, two = acquire(pool), acquire(pool)
    assert ping(one) == ping(two) == "hello"
    assert len(pool._connections) == 2
    for each in (one, two):
        pool.release_from([each], intact=True)


def test_an_interrupted_attempt_loses_no_place(
    pool: BlockingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(blocking_pool._Attempt, "wait", interrupted)
            patch.setattr(_thread, "start_new_thread", lambda run, _: run())  # in this thread
            with pytest.raises(KeyboardInterrupt):
                acquire(pool)
    assert ping(acquire(pool)) == ping(acquire(pool)) == "hello"


def test_where_no_thread_can_be_started_it_connects_all_the_same(
    pool: BlockingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an ``atexit`` function of some Pythons."""

    def refused(*_: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(_thread, "start_new_thread", refused)
    assert ping(acquire(pool)) == "hello"
