"""What clients are made of for the async driver, and how they are closed."""

from __future__ import annotations

from typing import Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

from .clients import ClientKinds

__all__ = ["KINDS", "close_client"]


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Lends connections to a server that Sentinels name; who finds none waits for one."""


KINDS: Final = ClientKinds(
    client=Redis,
    fake="FakeAsyncRedis",
    plain=BlockingConnectionPool,
    watched=_SentinelPool,
    sentinel=Sentinel,
    any_watched=SentinelConnectionPool,
    cluster=RedisCluster,
    cluster_node=ClusterNode,
    each_wait_is_bounded=False,
)


async def close_client(client: Redis) -> None:
    """Close all that a client of ours has opened."""
    await client.aclose(close_connection_pool=True)
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    for sentinel in () if manager is None else manager.sentinels:
        await sentinel.aclose(close_connection_pool=True)
