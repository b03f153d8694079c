"""The nodes of a cluster for the blocking driver: connections, and single-flight refreshes."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Final

from ..errors import StoreTimeoutError
from .connection import Connections

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core.observers import Observer
    from .._core.urls import Address
    from .._reading.execution import Exchange, Refresh
    from .._redis.cluster_clients import ClusterClients

__all__ = ["SyncNodes"]


#: The only key of the discoveries.
_TOPOLOGY: Final = "topology"


class _Discovery:
    """A thread that reads the topology, and for which others wait."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.ended = threading.Event()


class SyncNodes:
    """The connections to a cluster's nodes. Threads may share it."""

    def __init__(
        self,
        clients: ClusterClients,
        observer: Observer | None,
        discover: Callable[[float], None],
    ) -> None:
        """Begin without connections.

        Arguments:
            clients: makes the clients.
            observer: called after each attempt.
            discover: reads the topology from the first node that answers, by a deadline.
        """
        self._clients = clients
        self._observer = observer
        self._discover = discover
        self._made: dict[Address, Connections] = {}
        self._refreshed_at = 0.0
        self.renew_locks()

    def renew_locks(self) -> None:
        """Begin with no discovery under way, as in a child process."""
        #: The discovery that is under way.
        self._discoveries: dict[str, _Discovery] = {}

    def connections(self, effect: Exchange) -> Connections:
        """Return the connections to the node of an attempt."""
        address = effect.address
        if address is None:
            raise TypeError(effect)
        found = self._made.get(address)
        if found is None:
            client = self._clients.client(address)
            found = Connections(client, owned=True, observer=self._observer)
            # If another thread was first, this one has no connection yet.
            found = self._made.setdefault(address, found)
        return found

    def close(self) -> None:
        """Close the connections; those in use, when they are released."""
        for connections in list(self._made.values()):
            connections.close()

    def refresh(self, effect: Refresh) -> None:
        """Read the topology anew; threads that want to at the same time wait for one of them.

        Raises:
            StoreError: no node answers.
        """
        came = time.monotonic()
        while self._refreshed_at <= max(effect.since, came):
            mine = _Discovery()
            try:
                try:
                    running = self._discoveries.setdefault(_TOPOLOGY, mine)  # in one step
                    # A call in a signal handler does not wait for the one it has interrupted.
                    if running is mine or running.thread == mine.thread:
                        self._discover(effect.deadline)
                        self._refreshed_at = time.monotonic()
                        return
                finally:
                    self._end(mine)
            finally:
                self._end(mine)  # if a signal handler has raised in the first one
            left = effect.deadline - time.monotonic()
            if left <= 0:
                raise StoreTimeoutError("no node of the cluster has told its slots")
            running.ended.wait(None if left == math.inf else left)

    def _end(self, discovery: _Discovery) -> None:
        if self._discoveries.get(_TOPOLOGY) is discovery:
            del self._discoveries[_TOPOLOGY]
        discovery.ended.set()
