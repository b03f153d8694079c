"""The pool of the blocking driver, by itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from tallymark.blocking_pool import BlockingPool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Store


@pytest.fixture
def pool(redis_store: Store) -> Iterator[BlockingPool]:
    """Yield a pool of two connections."""
    made: BlockingPool = BlockingPool.from_url(redis_store.url, max_connections=2)
    yield made
    made.disconnect()


def borrow(pool: BlockingPool, seconds: float = 5) -> Any:
    return pool.borrow(time.monotonic() + seconds)


def ping(connection: Any) -> str:
    """Ask over a connection; fail if the answer is that of an earlier question."""
    connection.send_command("ECHO", "hello")
    return str(connection.read_response().decode())


def test_a_connection_is_used_again_as_it_is(pool: BlockingPool) -> None:
    first = borrow(pool)
    assert ping(first) == "hello"
    socket = first._sock
    pool.give_back(first, intact=True)
    assert borrow(pool) is first
    assert first._sock is socket


def test_a_connection_that_is_not_intact_is_made_anew(pool: BlockingPool) -> None:
    first = borrow(pool)
    first.send_command("PING")  # whose reply nobody reads
    pool.give_back(first, intact=False)
    assert first._sock is None
    assert ping(borrow(pool)) == "hello"


def test_nobody_gets_a_connection_that_is_lent(pool: BlockingPool) -> None:
    one, two = borrow(pool), borrow(pool)
    assert one is not two
    with pytest.raises(RedisTimeoutError, match="all connections were in use"):
        borrow(pool, 0.01)
    pool.give_back(one, intact=True)
    assert borrow(pool) is one


def test_the_client_and_the_tally_share_the_pool(pool: BlockingPool) -> None:
    client = Redis(connection_pool=pool)
    lent = borrow(pool)
    assert client.echo("hi") == b"hi"
    pool.give_back(lent, intact=True)
    for _ in range(3):
        assert client.echo("hi") == b"hi"
        connection = borrow(pool)
        assert ping(connection) == "hello"
        pool.give_back(connection, intact=True)
    assert len(pool._connections) == 2


def test_closing_the_idle_ones_leaves_the_lent_ones(pool: BlockingPool) -> None:
    lent, idle = borrow(pool), borrow(pool)
    pool.give_back(idle, intact=True)
    pool.disconnect_idle()
    assert idle._sock is None
    assert ping(lent) == "hello"
    pool.give_back(lent, intact=True)
    assert {ping(borrow(pool)), ping(borrow(pool))} == {"hello"}


def test_another_process_makes_its_own(pool: BlockingPool) -> None:
    parents = borrow(pool)
    pool.give_back(parents, intact=True)
    pool.pid = 0  # what os.getpid() says has changed, as in a child after a fork
    childs = borrow(pool)
    assert childs is not parents
    assert ping(childs) == ping(parents) == "hello"
    parents.disconnect()
