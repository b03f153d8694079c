"""The classes of redis-py for the blocking driver."""

from __future__ import annotations

from typing import Final

from redis import Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.cluster import ClusterNode, RedisCluster
from redis.sentinel import Sentinel, SentinelConnectionPool

from .blocking_pool import BlockingPool
from .clients import ClientKinds

__all__ = ["KINDS"]


class _SentinelPool(SentinelConnectionPool, BlockingPool):
    """A pool for a server that Sentinels name; a call waits while all connections are in use."""

    def disconnect_idle(self) -> None:
        """Close the connections that are not in use, those to Sentinels too."""
        super().disconnect_idle()
        for sentinel in self.sentinel_manager.sentinels:
            sentinel.connection_pool.disconnect(inuse_connections=False)


KINDS: Final = ClientKinds(
    facade="SyncTally",
    remedy="for asyncio clients there is tallymark.Tally",
    client=Redis,
    fake="FakeRedis",
    tcp=Connection,
    tls=SSLConnection,
    socket=UnixDomainSocketConnection,
    plain=BlockingPool,
    watched=_SentinelPool,
    sentinel=Sentinel,
    any_watched=SentinelConnectionPool,
    cluster=RedisCluster,
    cluster_node=ClusterNode,
    each_wait_is_bounded=True,
)
