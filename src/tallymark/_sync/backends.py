"""The backends of a `tallymark.SyncTally`: a server or a cluster, with a writer and a reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._cluster.batches import batches
from .._cluster.handshake import Handshake
from .._reading.execution import Executions
from .._redis.blocking_clients import KINDS
from .._redis.clients import make_read_client
from .._redis.clocks import clocks
from .._redis.cluster_clients import ClusterClients
from .._redis.stores import database
from .backend import SyncBackend
from .executor import SyncExecutor
from .pool import Connections
from .writer import SyncWriter

if TYPE_CHECKING:
    from .._core.options import Options
    from .._reading.execution import Exchange

__all__ = ["SyncServer", "make_backend"]


class SyncServer(SyncBackend):
    """One server, and the replica for reads if the option ``read_from`` names one."""

    def __init__(self, client: Any, options: Options, *, owned: bool) -> None:
        """Begin without a connection.

        Arguments:
            client: the redis-py client.
            options: the tally's.
            owned: whether the tally made the client, and so closes its connections.
        """
        super().__init__(options, database(client), caches_numbers=owned)
        observer = options.observer
        self.client = client
        self._primary = Connections(
            client, owned=owned, handshake=Handshake(options.schema()), observer=observer
        )
        replica = make_read_client(KINDS, client, options)
        self._replica = (
            None if replica is None else Connections(replica, owned=True, observer=observer)
        )
        executions = Executions(options, clocks.monotonic, self._check_usable)
        self.reader = SyncExecutor(executions, self._connections)
        commit = self._primary.group_commit(
            batches(options, self.numbers),
            are_plain=not options.replicas and options.user_ids is None,
            numbers=self.numbers,
        )
        self.writer = SyncWriter(options, self.reader.run, commit)

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

    def _connections(self, effect: Exchange) -> Connections:
        if effect.changes or self._replica is None:
            return self._primary
        return self._replica


def make_backend(client: Any, options: Options, *, owned: bool) -> SyncBackend:
    """Return a backend for a client, or for `ClusterClients`; ``owned`` as for `SyncServer`."""
    if isinstance(client, ClusterClients):
        from .cluster_backend import SyncCluster  # noqa: PLC0415 - for clusters only

        return SyncCluster(client, options)
    return SyncServer(client, options, owned=owned)
