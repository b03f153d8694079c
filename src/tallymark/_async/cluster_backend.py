"""The backend of a `tallymark.Tally` on a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .._cluster.execution import ClusterExecutions
from .backend import AsyncBackend, loop_time
from .cluster_commit import ClusterCommit
from .executor import Executor
from .nodes import AsyncNodes

if TYPE_CHECKING:
    from .._core.options import Options
    from .._redis.cluster_clients import ClusterClients

__all__ = ["AsyncCluster"]

#: How many pieces of a `Tally.mark_many` are in flight at once to the nodes of a cluster.
_PIECES: Final = 8


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
            options, loop_time, self._check_usable, clients.startup, clients.remap
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
