"""What a `tallymark.Tally` works on: a server or a cluster, with a writer and a reader."""

from __future__ import annotations

import asyncio
import functools
import time
from typing import TYPE_CHECKING, Any, Final

import anyio

from .._cluster.execution import ClusterExecutions, discover
from .._cluster.handshake import Handshake
from .._cluster.topology import Topology
from .._core.context import Context
from .._marking.batch import Batch
from .._marking.marker import Marker
from .._reading.execution import Executions
from .._redis.async_clients import KINDS, close_client, discard_client
from .._redis.clients import make_read_client
from .._redis.stores import database, store_label
from .cluster_commit import ClusterCommit
from .connection import Connection
from .executor import Executor
from .group_commit import GroupCommit
from .nodes import AsyncNodes
from .pool import ReadPool

if TYPE_CHECKING:
    from collections.abc import Hashable

    from .._core.options import Options
    from .._reading.execution import Exchange
    from .._redis.cluster_clients import ClusterClients

__all__ = ["AsyncCluster", "AsyncServer"]

#: How many pieces of a `Tally.mark_many` are in flight at once to the nodes of a cluster.
_PIECES: Final = 8


def _now() -> float:
    """Return the event loop's time."""
    return asyncio.get_running_loop().time()


class AsyncServer:
    """One server.

    Attributes:
        options: the tally's.
        client: redis-py's.
        writer: takes marks.
        reader: answers queries.
        database: equal for all tallies on this database.
        context: the tally's, for queries.
        marker: makes marks.
        pieces: how many pieces of one call may be in flight at once.
    """

    pieces = 1

    def __init__(self, client: Any, options: Options, *, owned: bool) -> None:
        """Begin without a connection.

        Arguments:
            client: redis-py's.
            options: the tally's.
            owned: whether the tally made the client, and so closes it.
        """
        observer = options.observer
        handshake = Handshake(options.schema())
        self.client = client
        self.options = options
        self.database: Hashable = database(client)
        self.context = Context.of(self.database, options, time.time)
        self.marker = Marker(options, time.time)
        self._owned = owned
        self.writer = GroupCommit(
            Connection(client, owned=owned, handshake=handshake, marking=True),
            new_batch=functools.partial(
                Batch, bitfield=options.bitfield, replicas=options.replicas
            ),
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
        executions = Executions(
            timeout=options.timeout, clock=_now, check_usable=self.writer.check_usable
        )
        self.reader = Executor(
            executions, self._pool, self._close_pools, max_pending=options.max_pending
        )

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

    async def close(self) -> None:
        """Wait for what is in flight, then close what the tally made."""
        try:
            await _close_both(self)
        finally:
            with anyio.CancelScope(shield=True):
                if self._replica_client is not None:
                    await close_client(self._replica_client)
                if self._owned:
                    await close_client(self.client)

    def discard(self) -> None:
        """Close what the tally made, after the event loop has been closed."""
        self.writer.discard()
        self._primary.discard()
        if self._replica is not None:
            self._replica.discard()
            discard_client(self._replica_client)
        if self._owned:
            discard_client(self.client)


class AsyncCluster:
    """A cluster; attributes as for `AsyncServer`."""

    pieces = _PIECES

    def __init__(self, clients: ClusterClients, options: Options) -> None:
        """Begin without a connection."""
        self.options = options = options.on_a_cluster()
        self.database: Hashable = frozenset(clients.startup)
        self.context = Context.of(self.database, options, time.time)
        self.marker = Marker(options, time.time)
        self._clients = clients
        schema = options.schema()
        topology = Topology(clients.startup, schema, clients.remap)
        self._nodes = nodes = AsyncNodes(
            clients, options.observer, lambda: self.reader.run(discover(topology, _now))
        )
        executions = ClusterExecutions(
            topology,
            Handshake(schema),
            timeout=options.timeout,
            clock=_now,
            check_usable=self._check_usable,
        )
        self.reader = Executor(
            executions,
            nodes.pool,
            nodes.close,
            max_pending=options.max_pending,
            refresh=nodes.refresh,
        )
        self.writer = ClusterCommit(executions, self.reader.run, nodes.client, options)

    def _check_usable(self) -> None:
        self.writer.check_usable()

    @property
    def client(self) -> Any:
        """A cluster client of redis-py: the caller's, or one of our own."""
        return self._clients.cluster_client

    async def close(self) -> None:
        """Wait for what is in flight, then close what the tally made."""
        try:
            await _close_both(self)
        finally:
            if self._clients.made is not None:
                with anyio.CancelScope(shield=True):
                    await self._clients.made.aclose()

    def discard(self) -> None:
        """Close what the tally made, after the event loop has been closed."""
        self.writer.discard()
        self._nodes.discard()


async def _close_both(backend: AsyncServer | AsyncCluster) -> None:
    try:
        await backend.writer.close()
    finally:
        await backend.reader.close()
