"""The clients of redis-py that the async driver makes for itself."""

from __future__ import annotations

from typing import Any

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

from . import memory, redis_py
from .options import REPLICAS, Options
from .urls import check_url, sentinel_address, store_name

__all__ = ["close_client", "make_client", "make_read_client"]


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Lends connections to a server that Sentinels name; who finds none waits for one."""


def make_client(url: str, options: Options) -> Redis:
    """Return a client for a URL.

    Raises:
        InvalidTypeError, InvalidValueError: the URL is not allowed.
        MissingExtraError: it is that of an embedded store, without fakeredis.
    """
    check_url(url)
    name = store_name(url)
    if name is not None:
        fake: Redis = memory.fakeredis().FakeAsyncRedis(
            server=memory.store(name),
            connection_pool_class=BlockingConnectionPool,
            max_connections=redis_py.MAX_CONNECTIONS,
        )
        return fake
    settings: dict[str, Any] = {
        "max_connections": redis_py.MAX_CONNECTIONS,
        # One deadline around the whole call replaces a timer for each reply.
        "timeout": None,
        "socket_timeout": None,
        "socket_connect_timeout": options.seconds,
        "socket_read_size": redis_py.READ_SIZE,
    }
    try:
        pool = _pool(url, settings, options)
        redis_py.check_options(pool)
    except (ValueError, TypeError) as error:
        raise redis_py.refused_url(error) from None
    return Redis.from_pool(pool)


def make_read_client(client: Redis, options: Options) -> Redis | None:
    """Return the client for reads if they are to have another one, else None."""
    if options.read_from == REPLICAS:
        master = redis_py.sentinel_pool(client, SentinelConnectionPool)
        # Sentinel clients of our own, which are ours to close.
        sentinels = Sentinel(**redis_py.same_sentinels(master.sentinel_manager))
        settings = redis_py.same_connections(master)
        return Redis.from_pool(_SentinelPool(master.service_name, sentinels, **settings))
    return make_client(options.read_from, options) if options.reads_elsewhere else None


async def close_client(client: Redis) -> None:
    """Close all that a client of ours has opened."""
    await client.aclose(close_connection_pool=True)
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    for sentinel in () if manager is None else manager.sentinels:
        await sentinel.aclose(close_connection_pool=True)


def _pool(url: str, settings: dict[str, Any], options: Options) -> ConnectionPool:
    address = sentinel_address(url)
    if address is None:
        return BlockingConnectionPool.from_url(url, **settings)
    sentinel_settings, settings = redis_py.sentinel_settings(address, settings, options)
    sentinels = Sentinel(address.sentinels, sentinel_kwargs=sentinel_settings)
    return _SentinelPool(address.service, sentinels, **settings)
