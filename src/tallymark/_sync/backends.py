"""What a `tallymark.SyncTally` works on: a server or a cluster, with a writer and a reader."""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from .._cluster.execution import ClusterExecutions, discover
from .._cluster.handshake import Handshake
from .._cluster.topology import Topology
from .._core.context import Context
from .._marking.marker import Marker
from .._reading.execution import Executions
from .._redis.blocking_clients import KINDS
from .._redis.clients import make_read_client
from .._redis.stores import database
from .connection import Connections
from .executor import SyncExecutor
from .nodes import SyncNodes
from .writer import ClusterWriter, SyncWriter

if TYPE_CHECKING:
    from collections.abc import Hashable

    from .._core.options import Options
    from .._reading.execution import Exchange
    from .._redis.cluster_clients import ClusterClients

__all__ = ["SyncCluster", "SyncServer"]


class SyncServer:
    """One server.

    Attributes:
        options: the tally's.
        client: redis-py's.
        writer: takes marks.
        reader: answers queries.
        database: equal for all tallies on this database.
        context: the tally's, for queries.
        marker: makes marks.
    """

    def __init__(self, client: Any, options: Options, *, owned: bool) -> None:
        """Begin without a connection.

        Arguments:
            client: redis-py's.
            options: the tally's.
            owned: whether the tally made the client, and so closes its connections.
        """
        observer = options.observer
        self.options = options
        self.client = client
        self.database: Hashable = database(client)
        self.context = Context.of(self.database, options, time.time)
        self.marker = Marker(options, time.time, threading.RLock())
        self._primary = Connections(
            client, owned=owned, handshake=Handshake(options.schema()), observer=observer
        )
        replica = make_read_client(KINDS, client, options)
        self._replica = (
            None if replica is None else Connections(replica, owned=True, observer=observer)
        )
        executions = Executions(
            timeout=options.timeout,
            clock=time.monotonic,
            check_usable=self._check_usable,
        )
        self.reader = SyncExecutor(executions, self._connections)
        self.writer = SyncWriter(options, self.reader.run)
        _backends.add(self)

    def _connections(self, effect: Exchange) -> Connections:
        if effect.changes or self._replica is None:
            return self._primary
        return self._replica

    def _check_usable(self) -> None:
        self.writer.check_usable()

    def renew_locks(self) -> None:
        """Begin with locks that nobody holds, as in a child process."""
        self.writer.renew_locks()
        self.marker.replace_lock(threading.RLock())

    def close(self) -> None:
        """Accept nothing more, and `disconnect`."""
        self.writer.close()
        self.disconnect()

    def disconnect(self) -> None:
        """Close the connections that the tally made; those in use, when they are released."""
        self._primary.close()
        if self._replica is not None:
            self._replica.close()


class SyncCluster:
    """A cluster; attributes and methods as for `SyncServer`."""

    def __init__(self, clients: ClusterClients, options: Options) -> None:
        """Begin without a connection.

        Arguments:
            clients: how to connect.
            options: the tally's.
        """
        self.options = options = options.on_a_cluster()
        self.database: Hashable = frozenset(clients.startup)
        self.context = Context.of(self.database, options, time.time)
        self.marker = Marker(options, time.time, threading.RLock())
        self._clients = clients
        schema = options.schema()
        topology = Topology(clients.startup, schema, clients.remap)
        self._nodes = SyncNodes(
            clients,
            options.observer,
            lambda deadline: self.reader.run(discover(topology, time.monotonic, deadline)),
        )
        executions = ClusterExecutions(
            topology,
            Handshake(schema),
            timeout=options.timeout,
            clock=time.monotonic,
            check_usable=self._check_usable,
        )
        self.reader = SyncExecutor(executions, self._nodes.connections, refresh=self._nodes.refresh)
        self.writer: SyncWriter = ClusterWriter(executions, options, self.reader.run)
        _backends.add(self)

    @property
    def client(self) -> Any:
        """A cluster client of redis-py: the caller's, or one of our own."""
        return self._clients.cluster_client

    def _check_usable(self) -> None:
        self.writer.check_usable()

    def renew_locks(self) -> None:
        """Begin with locks that nobody holds, as in a child process."""
        self.writer.renew_locks()
        self.marker.replace_lock(threading.RLock())
        self._nodes.renew_locks()

    def close(self) -> None:
        """Accept nothing more, and `disconnect`."""
        self.writer.close()
        self.disconnect()

    def disconnect(self) -> None:
        """Close the connections that the tally made; those in use, when they are released."""
        self._nodes.close()
        if self._clients.made is not None:
            self._clients.made.close()


_backends: weakref.WeakSet[SyncServer | SyncCluster] = weakref.WeakSet()


def _renew_locks() -> None:
    """Replace the locks in a child process: threads that do not exist there may hold them."""
    for backend in list(_backends):
        backend.renew_locks()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_renew_locks)
