"""The clients of redis-py that the blocking driver makes for itself."""

from __future__ import annotations

from typing import Any

from redis import Redis
from redis.sentinel import Sentinel, SentinelConnectionPool

from . import memory, redis_py
from .blocking_pool import BlockingPool
from .options import REPLICAS, Options
from .urls import check_url, sentinel_address, store_name

__all__ = ["make_client", "make_read_client"]


class _SentinelPool(SentinelConnectionPool, BlockingPool):
    """Lends connections to a server that Sentinels name; who finds none waits for one."""

    def disconnect_idle(self) -> None:
        """Close the connections that nobody uses, those to Sentinels too."""
        super().disconnect_idle()
        for sentinel in self.sentinel_manager.sentinels:
            sentinel.connection_pool.disconnect(inuse_connections=False)


def make_client(url: str, options: Options) -> Redis:
    """Return a client for a URL. Raises as that of `tallymark.async_clients`."""
    check_url(url)
    name = store_name(url)
    if name is not None:
        fake: Redis = memory.fakeredis().FakeRedis(
            server=memory.store(name),
            connection_pool_class=BlockingPool,
            max_connections=redis_py.MAX_CONNECTIONS,
        )
        return fake
    settings: dict[str, Any] = {
        "max_connections": redis_py.MAX_CONNECTIONS,
        "timeout": options.seconds,
        "socket_timeout": options.seconds,
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


def _pool(url: str, settings: dict[str, Any], options: Options) -> BlockingPool:
    address = sentinel_address(url)
    if address is None:
        return BlockingPool.from_url(url, **settings)
    sentinel_settings, settings = redis_py.sentinel_settings(address, settings, options)
    sentinels = Sentinel(address.sentinels, sentinel_kwargs=sentinel_settings)
    return _SentinelPool(address.service, sentinels, **settings)
