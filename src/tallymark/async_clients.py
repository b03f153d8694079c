"""The clients of redis-py that the async driver makes for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

from . import memory
from .pools import MAX_CONNECTIONS, PoolKinds, make_pool, make_read_pool
from .urls import check_url, store_name

if TYPE_CHECKING:
    from .options import Options

__all__ = ["close_client", "make_client", "make_read_client"]


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Lends connections to a server that Sentinels name; who finds none waits for one."""


_KINDS: Final = PoolKinds(
    BlockingConnectionPool, _SentinelPool, Sentinel, any_watched=SentinelConnectionPool
)


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
            max_connections=MAX_CONNECTIONS,
        )
        return fake
    # One deadline around the whole call replaces a timer for each reply.
    return Redis.from_pool(make_pool(_KINDS, url, options, timeout=None, socket_timeout=None))


def make_read_client(client: Redis, options: Options) -> Redis | None:
    """Return the client for reads if they are to have another one, else None."""
    pool = make_read_pool(_KINDS, client.connection_pool, options)
    if pool is not None:
        return Redis.from_pool(pool)
    return make_client(options.read_from, options) if options.reads_elsewhere else None


async def close_client(client: Redis) -> None:
    """Close all that a client of ours has opened."""
    await client.aclose(close_connection_pool=True)
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    for sentinel in () if manager is None else manager.sentinels:
        await sentinel.aclose(close_connection_pool=True)
