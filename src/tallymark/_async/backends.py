"""The backends of a `tallymark.Tally`: a server or a cluster, with a writer and a reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._cluster.batches import batches
from .._cluster.handshake import Handshake
from .._reading.execution import Executions
from .._redis.async_clients import KINDS, close_client, discard_client
from .._redis.clients import make_read_client
from .._redis.cluster_clients import ClusterClients
from .._redis.stores import database, store_label
from .backend import AsyncBackend, loop_time
from .connection import Connection
from .executor import Executor
from .group_commit import GroupCommit
from .pool import ReadPool

if TYPE_CHECKING:
    from .._core.options import Options
    from .._reading.execution import Exchange

__all__ = ["AsyncServer", "make_backend"]


class AsyncServer(AsyncBackend):
    """One server, and the replica for reads if the option ``read_from`` names one."""

    def __init__(self, client: Any, options: Options, *, owned: bool) -> None:
        """Begin without a connection.

        Arguments:
            client: the redis-py client.
            options: the tally's.
            owned: whether the tally made the client, and so closes it.
        """
        super().__init__(options, database(client), caches_numbers=owned)
        observer = options.observer
        handshake = Handshake(options.schema())
        self.client = client
        self._owned = owned
        self.writer = GroupCommit(
            Connection(
                client, owned=owned, handshake=handshake, marking=True, numbers=self.numbers
            ),
            new_batch=batches(options, self.numbers),
            timeout=options.timeout,
            max_pending=options.max_pending,
            store=store_label(client),
            observer=observer,
            event_quota=options.max_events is not None,
        )
        self._primary = ReadPool(client, owned=owned, handshake=handshake, observer=observer)
        self._replica_client = make_read_client(KINDS, client, options)
        self._replica = (
            None
            if self._replica_client is None
            else ReadPool(self._replica_client, owned=True, observer=observer)
        )
        executions = Executions(options, loop_time, self._check_usable)
        self.reader = Executor(executions, self._pool, self._close_pools)

    def discard(self) -> None:
        """Close the connections that the tally made, after the event loop has been closed."""
        super().discard()
        self._primary.discard()
        if self._replica is not None:
            self._replica.discard()
            discard_client(self._replica_client)
        if self._owned:
            discard_client(self.client)

    def _pool(self, effect: Exchange) -> ReadPool:
        if effect.changes or self._replica is None:
            return self._primary
        return self._replica

    async def _close_pools(self) -> None:
        try:
            await self._primary.close()
        finally:
            if self._replica is not None:
                await self._replica.close()

    async def _close_clients(self) -> None:
        if self._replica_client is not None:
            await close_client(self._replica_client)
        if self._owned:
            await close_client(self.client)


def make_backend(client: Any, options: Options, *, owned: bool) -> AsyncBackend:
    """Return a backend for a client, or for `ClusterClients`; ``owned`` as for `AsyncServer`."""
    if isinstance(client, ClusterClients):
        from .cluster_backend import AsyncCluster  # noqa: PLC0415 - for clusters only

        return AsyncCluster(client, options)
    return AsyncServer(client, options, owned=owned)
