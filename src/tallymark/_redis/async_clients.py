"""The classes of redis-py for the async driver, and how its clients are closed."""

from __future__ import annotations

from typing import Any, Final

from redis.asyncio import (
    BlockingConnectionPool,
    Connection,
    Redis,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

from . import errors as redis_py
from .clients import ClientKinds

__all__ = ["KINDS", "close_client", "discard_client"]


class _Pool(BlockingConnectionPool):
    """A pool for one server; a call waits while all connections are in use."""

    def __repr__(self) -> str:
        """Return the class's name only: redis-py 6 and 7 show all settings, also passwords."""
        return f"<{type(self).__name__}>"


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """A pool for a server that Sentinels name; a call waits while all connections are in use."""


KINDS: Final = ClientKinds(
    facade="Tally",
    remedy="for blocking clients there is tallymark.SyncTally",
    client=Redis,
    fake="FakeAsyncRedis",
    tcp=Connection,
    tls=SSLConnection,
    socket=UnixDomainSocketConnection,
    plain=_Pool,
    watched=_SentinelPool,
    sentinel=Sentinel,
    any_watched=SentinelConnectionPool,
    cluster=RedisCluster,
    cluster_node=ClusterNode,
    each_wait_is_bounded=False,
)


async def close_client(client: Redis) -> None:
    """Close all connections of a client that the tally made."""
    await client.aclose(close_connection_pool=True)
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    for sentinel in () if manager is None else manager.sentinels:
        await sentinel.aclose(close_connection_pool=True)


def discard_client(client: Redis) -> None:
    """Close all connections of a client that the tally made, after its loop has been closed."""
    pool: Any = client.connection_pool
    for connection in (
        *getattr(pool, "_available_connections", ()),
        *getattr(pool, "_in_use_connections", ()),
    ):
        redis_py.discard_connection(connection)
    manager = getattr(pool, "sentinel_manager", None)
    for sentinel in () if manager is None else manager.sentinels:
        discard_client(sentinel)
