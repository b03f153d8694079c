"""The clients of redis-py that the blocking driver makes for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redis import Redis
from redis.sentinel import Sentinel, SentinelConnectionPool

from . import memory
from .blocking_pool import BlockingPool
from .pools import MAX_CONNECTIONS, PoolKinds, make_pool, make_read_pool
from .urls import check_url, store_name

if TYPE_CHECKING:
    from .options import Options

__all__ = ["make_client", "make_read_client"]


class _SentinelPool(SentinelConnectionPool, BlockingPool):
    """Lends connections to a server that Sentinels name; who finds none waits for one."""

    def disconnect_idle(self) -> None:
        """Close the connections that nobody uses, those to Sentinels too."""
        super().disconnect_idle()
        for sentinel in self.sentinel_manager.sentinels:
            sentinel.connection_pool.disconnect(inuse_connections=False)


_KINDS: Final = PoolKinds(BlockingPool, _SentinelPool, Sentinel, any_watched=SentinelConnectionPool)


def make_client(url: str, options: Options) -> Redis:
    """Return a client for a URL. Raises as that of `tallymark.async_clients`."""
    check_url(url)
    name = store_name(url)
    if name is not None:
        fake: Redis = memory.fakeredis().FakeRedis(
            server=memory.store(name),
            connection_pool_class=BlockingPool,
            max_connections=MAX_CONNECTIONS,
        )
        return fake
    seconds = options.seconds
    return Redis.from_pool(make_pool(_KINDS, url, options, timeout=seconds, socket_timeout=seconds))


def make_read_client(client: Redis, options: Options) -> Redis | None:
    """Return the client for reads if they are to have another one, else None."""
    pool = make_read_pool(_KINDS, client.connection_pool, options)
    if pool is not None:
        return Redis.from_pool(pool)
    return make_client(options.read_from, options) if options.reads_elsewhere else None
