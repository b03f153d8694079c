"""The nodes of a cluster for the blocking driver: connections, and single-flight discovery."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from .._cluster.batches import shard_batches
from .._marking.stats import Totals
from .._redis.blocking_pool import POLL_INTERVAL
from .._redis.clocks import clocks
from ..errors import StoreTimeoutError
from .leadership import AGAIN
from .pool import Connections

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core.options import Options
    from .._core.urls import Address
    from .._marking.marks import Result
    from .._reading.execution import Commit, Exchange, Refresh
    from .._redis.cluster_clients import ClusterClients

__all__ = ["SyncNodes"]

#: The only key of the discoveries.
_TOPOLOGY: Final = "topology"


class _Discovery:
    """A discovery of the calling thread, for the end of which other threads can wait.

    Not with a `threading.Event`: a signal handler that raises in it can leave its lock held.

    Attributes:
        thread: the id of the thread.
    """

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self._has_ended = False
        #: Held until the end; whoever removes the only item of the dictionary releases it.
        self._latch = threading.Lock()
        self._latch.acquire()
        self._is_held = {_TOPOLOGY: True}

    def end(self) -> None:
        """Let all threads go on that wait; may be called again."""
        self._has_ended = True
        if self._is_held.pop(_TOPOLOGY, False):
            self._latch.release()

    def wait(self, seconds: float) -> None:
        """Wait until the end, ``seconds`` at most."""
        deadline = clocks.monotonic() + seconds
        while not self._has_ended and (left := deadline - clocks.monotonic()) > 0:
            if self._latch.acquire(timeout=min(left, POLL_INTERVAL)):
                self._latch.release()


class SyncNodes:
    """The connections to a cluster's nodes. Threads may share it."""

    def __init__(
        self,
        clients: ClusterClients,
        options: Options,
        discover: Callable[[float], None],
    ) -> None:
        """Begin without connections.

        Arguments:
            clients: makes the clients.
            options: the tally's options.
            discover: reads the topology from the first node that answers, by a deadline.
        """
        self._clients = clients
        self._options = options
        self._new_batch = shard_batches(options)
        self._discover = discover
        self._nodes: dict[Address, Connections] = {}
        self._discovered_at = 0.0
        self.renew_locks()

    def renew_locks(self) -> None:
        """Forget discoveries of other threads, as in a child process."""
        #: The running discovery.
        self._discoveries: dict[str, _Discovery] = {}
        for connections in list(self._nodes.values()):
            connections.renew_locks()

    def commit(self, effect: Commit) -> list[Result]:
        """Make one attempt to commit marks, together with those of other threads if possible.

        Raises:
            StoreError: the attempt failed.
        """
        connections = self.connections(effect)
        commit = connections.group_commit(self._new_batch, are_plain=False)
        traffic = effect.traffic
        if commit is None or effect.importing or not commit.takes(effect.marks):
            return self._commit_alone(connections, effect)
        call = commit.call(effect.marks, effect.deadline, repeated=traffic.sent)
        try:
            results: list[Result] = commit.exchange(call)
        finally:
            traffic.sent |= call.sent
        if results is AGAIN:
            # Not together with others, whose marks may be refused again and again.
            return self._commit_alone(connections, effect)
        return results

    def _commit_alone(self, connections: Connections, effect: Commit) -> list[Result]:
        """Make one attempt to commit marks, on a connection that no other thread uses then."""
        batch = self._new_batch(asking=effect.importing)
        if len(effect.marks) > 1:
            batch.keep_together()
        for mark in effect.marks:
            batch.add(mark)
        return batch.parse(connections.exchange(batch, effect.traffic, effect.deadline))

    def totals(self) -> Totals:
        """Return the sums of the counters of all nodes' group commits."""
        totals = Totals()
        for connections in list(self._nodes.values()):
            totals.add(connections.totals())
        return totals

    def connections(self, effect: Exchange | Commit) -> Connections:
        """Return the connections to the node that an exchange is for."""
        address = effect.address
        if address is None:
            raise TypeError(effect)
        node = self._nodes.get(address)
        if node is None:
            client = self._clients.client(address)
            # If another thread was first, this object has opened no connection yet.
            node = self._nodes.setdefault(
                address, Connections(client, owned=True, observer=self._options.observer)
            )
        return node

    def close(self) -> None:
        """Close the connections; those in use, when they are released."""
        for connections in list(self._nodes.values()):
            connections.close()

    def refresh(self, effect: Refresh) -> None:
        """Read the topology anew; concurrent calls wait for one discovery.

        Raises:
            StoreError: no node answers.
        """
        called_at = clocks.monotonic()
        while self._discovered_at <= max(effect.since, called_at):
            own = _Discovery()
            try:
                try:
                    running = self._discoveries.setdefault(_TOPOLOGY, own)  # atomic
                    # A call in a signal handler must not wait for the discovery that it has
                    # interrupted.
                    if running is own or running.thread == own.thread:
                        self._discover(effect.deadline)
                        self._discovered_at = clocks.monotonic()
                        return
                finally:
                    self._end(own)
            finally:
                self._end(own)  # if a signal handler has raised in the first `finally`
            left = effect.deadline - clocks.monotonic()
            if left <= 0:
                raise StoreTimeoutError("no node of the cluster has answered in time")
            running.wait(left)

    def _end(self, discovery: _Discovery) -> None:
        if self._discoveries.get(_TOPOLOGY) is discovery:
            del self._discoveries[_TOPOLOGY]
        discovery.end()
