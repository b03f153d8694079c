"""The backends of a `tallymark.Tally`: a server or a cluster, with a writer and a reader."""

from __future__ import annotations

import asyncio
import functools
import time
from typing import TYPE_CHECKING, Any, Final

import anyio

from .._cluster.execution import ClusterExecutions
from .._cluster.handshake import Handshake
from .._core.context import Context
from .._marking.batch import Batch
from .._marking.marker import Marker
from .._reading.execution import Executions
from .._redis.async_clients import KINDS, close_client, discard_client
from .._redis.clients import make_read_client
from .._redis.cluster_clients import ClusterClients
from .._redis.stores import database, store_label
from .cluster_commit import ClusterCommit
from .connection import Connection
from .executor import Executor
from .group_commit import GroupCommit
from .nodes import AsyncNodes
from .pool import ReadPool

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from .._core.options import Options
    from .._marking.marks import Mark, Result
    from .._reading.execution import Exchange

__all__ = ["AsyncBackend", "make_backend"]

#: How many pieces of a `Tally.mark_many` are in flight at once to the nodes of a cluster.
_PIECES: Final = 8


def _now() -> float:
    """Return the event loop's time."""
    return asyncio.get_running_loop().time()


class AsyncBackend:
    """A writer and a reader on one database. Belongs to one event loop.

    Attributes:
        options: the tally's.
        database: equal for all tallies on this database.
        context: the tally's, for queries.
        marker: makes marks.
        writer: sends marks.
        reader: answers queries.
        client: the redis-py client; on a cluster, the cluster client.
        pieces: how many pieces of one `Tally.mark_many` may be in flight at once.
    """

    writer: GroupCommit | ClusterCommit
    reader: Executor
    client: Any
    pieces = 1

    def __init__(self, options: Options, database: Hashable) -> None:
        self.options = options
        self.database = database
        self.context = Context.of(database, options, time.time)
        self.marker = Marker(options, time.time)

    async def submit_counted(self, marks: Sequence[Mark], timeout: float | None) -> list[Result]:
        """Send marks in one transaction, and count their events if ``max_events`` is set."""
        self.marker.reserve(marks)
        try:
            results = await self.writer.submit_together(marks, timeout)
        except BaseException as error:
            self.marker.release(marks, error=error)
            raise
        self.marker.release(marks, results)
        return results

    async def close(self) -> None:
        """Wait for the in-flight calls, then close the connections that the tally made."""
        try:
            await self.writer.close()
        finally:
            try:
                await self.reader.close()
            finally:
                with anyio.CancelScope(shield=True):
                    await self._close_clients()

    def discard(self) -> None:
        """Close the connections that the tally made, after the event loop has been closed."""
        self.writer.discard()

    async def _close_clients(self) -> None:
        raise NotImplementedError

    def _check_usable(self) -> None:
        self.writer.check_usable()


class AsyncServer(AsyncBackend):
    """One server, and the replica for reads if the option ``read_from`` names one."""

    def __init__(self, client: Any, options: Options, *, owned: bool) -> None:
        """Begin without a connection.

        Arguments:
            client: the redis-py client.
            options: the tally's.
            owned: whether the tally made the client, and so closes it.
        """
        super().__init__(options, database(client))
        observer = options.observer
        handshake = Handshake(options.schema())
        self.client = client
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
        executions = Executions(options, _now, self._check_usable)
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


class AsyncCluster(AsyncBackend):
    """A cluster."""

    pieces = _PIECES

    def __init__(self, clients: ClusterClients, options: Options) -> None:
        """Begin without a connection.

        Arguments:
            clients: makes the clients of the nodes.
            options: the tally's.
        """
        options = options.on_a_cluster()
        super().__init__(options, frozenset(clients.startup))
        self._clients = clients
        executions = ClusterExecutions(
            options, _now, self._check_usable, clients.startup, clients.remap
        )
        self._nodes = nodes = AsyncNodes(
            clients, options.observer, lambda: self.reader.run(executions.discover())
        )
        self.reader = Executor(executions, nodes.pool, nodes.close, nodes.refresh)
        self.writer = ClusterCommit(executions, self.reader.run, nodes.client, options)

    @property
    def client(self) -> Any:
        """A cluster client of redis-py: the caller's, or one that the tally makes."""
        return self._clients.cluster_client

    def discard(self) -> None:
        """Close the connections that the tally made, after the event loop has been closed."""
        super().discard()
        self._nodes.discard()

    async def _close_clients(self) -> None:
        if self._clients.made is not None:
            await self._clients.made.aclose()


def make_backend(client: Any, options: Options, *, owned: bool) -> AsyncBackend:
    """Return a backend for a client, or for `ClusterClients`; ``owned`` as for `AsyncServer`."""
    if isinstance(client, ClusterClients):
        return AsyncCluster(client, options)
    return AsyncServer(client, options, owned=owned)
