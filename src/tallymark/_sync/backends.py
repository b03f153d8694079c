"""The backends of a `tallymark.SyncTally`: a server or a cluster, with a writer and a reader."""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from .._cluster.execution import ClusterExecutions
from .._cluster.handshake import Handshake
from .._core.context import Context
from .._marking.batch import Batch
from .._marking.marker import Marker
from .._reading.execution import Executions
from .._redis.blocking_clients import KINDS
from .._redis.clients import make_read_client
from .._redis.cluster_clients import ClusterClients
from .._redis.stores import database
from .executor import SyncExecutor
from .nodes import SyncNodes
from .pool import Connections
from .writer import ClusterWriter, SyncWriter, Writer

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from .._core.options import Options
    from .._marking.marks import Mark, Result
    from .._reading.execution import Exchange

__all__ = ["SyncBackend", "make_backend"]


class SyncBackend:
    """A writer and a reader on one database. Threads may share it.

    Attributes:
        options: the tally's.
        database: equal for all tallies on this database.
        context: the tally's, for queries.
        marker: makes marks.
        writer: sends marks.
        reader: answers queries.
        client: the redis-py client; on a cluster, the cluster client.
    """

    writer: Writer
    reader: SyncExecutor
    client: Any

    def __init__(self, options: Options, database: Hashable) -> None:
        self.options = options
        self.database = database
        self.context = Context.of(database, options, time.time)
        self.marker = Marker(options, time.time, threading.RLock())

    def submit_counted(self, marks: Sequence[Mark], timeout: float | None) -> list[Result]:
        """Send marks in one transaction, and count their events if ``max_events`` is set."""
        self.marker.reserve(marks)
        try:
            results = self.writer.submit_together(marks, timeout)
        except BaseException as error:
            self.marker.release(marks, error=error)
            raise
        self.marker.release(marks, results)
        return results

    def renew_locks(self) -> None:
        """Begin with no calls in progress and free locks, as in a child process."""
        self.writer.renew_locks()
        self.marker.replace_lock(threading.RLock())

    def close(self) -> None:
        """Accept nothing more, and `disconnect`."""
        self.writer.close()
        self.disconnect()

    def disconnect(self) -> None:
        """Close the connections that the tally made; those in use, when they are released."""
        raise NotImplementedError

    def _check_usable(self) -> None:
        self.writer.check_usable()


class SyncServer(SyncBackend):
    """One server, and the replica for reads if the option ``read_from`` names one."""

    def __init__(self, client: Any, options: Options, *, owned: bool) -> None:
        """Begin without a connection.

        Arguments:
            client: the redis-py client.
            options: the tally's.
            owned: whether the tally made the client, and so closes its connections.
        """
        super().__init__(options, database(client))
        observer = options.observer
        self.client = client
        self._primary = Connections(
            client, owned=owned, handshake=Handshake(options.schema()), observer=observer
        )
        replica = make_read_client(KINDS, client, options)
        self._replica = (
            None if replica is None else Connections(replica, owned=True, observer=observer)
        )
        executions = Executions(options, time.monotonic, self._check_usable)
        self.reader = SyncExecutor(executions, self._connections)
        self.writer = SyncWriter(
            options,
            self.reader.run,
            self._primary.group_commit(self._new_batch, are_plain=not options.replicas),
        )
        _backends.add(self)

    def renew_locks(self) -> None:
        """Begin with no calls in progress, as in a child process."""
        super().renew_locks()
        self._primary.renew_locks()
        if self._replica is not None:
            self._replica.renew_locks()

    def disconnect(self) -> None:
        """Close the connections that the tally made; those in use, when they are released."""
        self._primary.close()
        if self._replica is not None:
            self._replica.close()

    def _new_batch(self) -> Batch:
        return Batch(bitfield=self.options.bitfield, replicas=self.options.replicas)

    def _connections(self, effect: Exchange) -> Connections:
        if effect.changes or self._replica is None:
            return self._primary
        return self._replica


class SyncCluster(SyncBackend):
    """A cluster."""

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
            options, time.monotonic, self._check_usable, clients.startup, clients.remap
        )
        self._nodes = nodes = SyncNodes(
            clients, options, lambda end: self.reader.run(executions.discover(end))
        )
        self.reader = SyncExecutor(executions, nodes.connections, nodes.refresh, nodes.commit)
        self.writer = ClusterWriter(executions, options, self.reader.run, nodes.totals)
        _backends.add(self)

    @property
    def client(self) -> Any:
        """A cluster client of redis-py: the caller's, or one that the tally makes."""
        return self._clients.cluster_client

    def renew_locks(self) -> None:
        """Begin with no calls in progress, as in a child process."""
        super().renew_locks()
        self._nodes.renew_locks()

    def disconnect(self) -> None:
        """Close the connections that the tally made; those in use, when they are released."""
        self._nodes.close()
        if self._clients.made is not None:
            self._clients.made.close()


def make_backend(client: Any, options: Options, *, owned: bool) -> SyncBackend:
    """Return a backend for a client, or for `ClusterClients`; ``owned`` as for `SyncServer`."""
    if isinstance(client, ClusterClients):
        return SyncCluster(client, options)
    return SyncServer(client, options, owned=owned)


_backends: weakref.WeakSet[SyncBackend] = weakref.WeakSet()


def _renew_locks() -> None:
    """Replace the locks in a child process: threads that do not exist there may hold them."""
    for backend in list(_backends):
        backend.renew_locks()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_renew_locks)
