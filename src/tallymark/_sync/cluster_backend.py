"""The backend of a `tallymark.SyncTally` on a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._cluster.execution import ClusterExecutions
from .._redis.clocks import clocks
from .backend import SyncBackend
from .cluster_writer import ClusterWriter
from .executor import SyncExecutor
from .nodes import SyncNodes

if TYPE_CHECKING:
    from .._core.options import Options
    from .._redis.cluster_clients import ClusterClients

__all__ = ["SyncCluster"]


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
            options, clocks.monotonic, self._check_usable, clients.startup, clients.remap
        )
        self._nodes = nodes = SyncNodes(
            clients, options, lambda end: self.reader.run(executions.discover(end))
        )
        self.reader = SyncExecutor(executions, nodes.connections, nodes.refresh, nodes.commit)
        self.writer = ClusterWriter(executions, options, self.reader.run, nodes.totals)

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
