"""What a `tallymark.Tally` works on: one server, or a cluster. Each opens and closes its own."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import anyio

from .._cluster.handshake import Greeting
from .._marking.batch import Batch
from .._redis.async_clients import KINDS, close_client, discard_client
from .._redis.clients import make_read_client
from .._redis.stores import database, store_label
from .channel import Channel
from .cluster_commit import ClusterCommit
from .cluster_executor import ClusterReader
from .connection import Connection
from .executor import Reader
from .group_commit import GroupCommit
from .nodes import AsyncNodes

if TYPE_CHECKING:
    from collections.abc import Hashable

    from .._core.options import Options
    from .._redis.cluster_clients import ClusterClients

__all__ = ["AsyncCluster", "AsyncServer"]

#: How many pieces of a `Tally.mark_many` are on their way at once to the nodes of a cluster.
_PIECES: Final = 8


class AsyncServer:
    """One server.

    Attributes:
        options: the tally's.
        commits: takes marks.
        reader: answers queries.
        database: what is equal for all tallies on this database.
        pieces: how many pieces of one call may be on their way at once.
    """

    pieces = 1

    def __init__(self, client: Any, options: Options) -> None:
        """Begin without a connection, on a client that is somebody else's."""
        observer = options.observer
        greeting = Greeting(options.schema())
        self.client = client
        self.options = options
        self.database: Hashable = database(client)
        self._owned = False
        self._connection = Connection(client, greeting=greeting, marking=True)
        self.commits = GroupCommit(
            self._connection,
            new_batch=functools.partial(
                Batch, bitfield=options.bitfield, replicas=options.replicas
            ),
            timeout=options.timeout,
            max_pending=options.max_pending,
            store=store_label(client),
            observer=observer,
            trials=options.max_events is not None,
        )
        self._replica = make_read_client(KINDS, client, options)
        self.reader = Reader(
            Channel(client, greeting=greeting, observer=observer),
            self._replica and Channel(self._replica, owned=True, observer=observer),
            timeout=options.timeout,
            max_pending=options.max_pending,
            check_usable=self.commits.check_usable,
        )

    def own(self) -> None:
        """Take over the client."""
        self._owned = self._connection.owned = self.reader.primary.owned = True

    async def close(self) -> None:
        """Wait for what is under way, then close what is ours."""
        try:
            await _close_both(self)
        finally:
            with anyio.CancelScope(shield=True):
                if self._replica is not None:
                    await close_client(self._replica)
                if self._owned:
                    await close_client(self.client)

    def discard(self) -> None:
        """Close what is ours, after the event loop has been closed."""
        self.commits.discard()
        self.reader.discard()
        if self._replica is not None:
            discard_client(self._replica)
        if self._owned:
            discard_client(self.client)


class AsyncCluster:
    """A cluster; attributes as for `AsyncServer`."""

    pieces = _PIECES

    def __init__(self, clients: ClusterClients, options: Options) -> None:
        """Begin without a connection."""
        self.options = options = options.on_a_cluster()
        self.database: Hashable = frozenset(clients.startup)
        self._clients = clients
        nodes = AsyncNodes(clients, options)
        self.commits = ClusterCommit(nodes, options)
        self.reader = ClusterReader(
            nodes,
            timeout=options.timeout,
            max_pending=options.max_pending,
            check_usable=self.commits.check_usable,
        )

    def own(self) -> None:
        """Take over nothing: all connections are ours in any case."""

    @property
    def client(self) -> Any:
        """A cluster client of redis-py: the caller's, or one of our own."""
        return self._clients.cluster_client

    async def close(self) -> None:
        """Wait for what is under way, then close what is ours."""
        try:
            await _close_both(self)
        finally:
            if self._clients.made is not None:
                with anyio.CancelScope(shield=True):
                    await self._clients.made.aclose()

    def discard(self) -> None:
        """Close what is ours, after the event loop has been closed."""
        self.commits.discard()
        self.reader.discard()


async def _close_both(store: AsyncServer | AsyncCluster) -> None:
    try:
        await store.commits.close()
    finally:
        await store.reader.close()
