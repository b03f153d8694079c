"""The nodes of a cluster for the blocking driver: who has what, and how to reach them."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Final

from .._cluster.handshake import Greeting
from .._cluster.introductions import PATIENCE, greeted, learned
from .._cluster.topology import Topology
from .._redis import errors as redis_py
from ..errors import StoreError, StoreTimeoutError
from .connection import BlockingLink, Sent, finished

if TYPE_CHECKING:
    from .._cluster.introductions import Introduction
    from .._core.options import Options
    from .._core.urls import Address
    from .._redis.cluster_clients import ClusterClients

__all__ = ["BlockingNodes"]


#: What a thread asks for.
_TOPOLOGY: Final = "topology"


class _Asking:
    """A thread that asks for the topology, and for which others wait."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.ended = threading.Event()


class BlockingNodes:
    """A cluster's topology, kept up to date, and the connections. Threads may share it."""

    def __init__(self, clients: ClusterClients, options: Options) -> None:
        """Begin without connections."""
        self._clients = clients
        self._observer = options.observer
        schema = options.schema()
        self.topology = Topology(clients.startup, schema, clients.remap)
        self._greeting = Greeting(schema)
        self._links: dict[Address, BlockingLink] = {}
        self._refreshed = 0.0
        self.unlock()

    def unlock(self) -> None:
        """Begin with nobody asking, as in a child process."""
        #: Who asks at the moment, by what it asks for.
        self._asking: dict[str, _Asking] = {}

    def link(self, address: Address) -> BlockingLink:
        """Return the connections to a node."""
        found = self._links.get(address)
        if found is None:
            client = self._clients.client(address)
            found = BlockingLink(client, owned=True, observer=self._observer)
            # If another thread was first, this one has no connection yet.
            found = self._links.setdefault(address, found)
        return found

    def close(self) -> None:
        """Close the connections; those in use, when they are given back."""
        for link in list(self._links.values()):
            link.close()

    def ready(self, *, marking: bool, deadline: float) -> None:
        """Know the topology, and that the database is sharded as the tally is.

        Raises:
            StoreError: neither can be learned now, or it is not.
        """
        if not self.topology.known:
            self.refresh(deadline)
        if self._greeting.wanted(marking=marking):
            self._greet(marking, deadline)

    def refresh(self, deadline: float, *, since: float = 0.0) -> None:
        """Learn the topology anew; threads that want to at the same time wait for one of them.

        Arguments:
            deadline: when to give up, as `time.monotonic` has it.
            since: nothing is to do if that was done after this time.

        Raises:
            StoreError: no node tells.
        """
        came = time.monotonic()
        while self._refreshed <= max(since, came):
            mine = _Asking()
            try:
                try:
                    asking = self._asking.setdefault(_TOPOLOGY, mine)  # in one step
                    # A call in a signal handler does not wait for the one it has interrupted.
                    if asking is mine or asking.thread == mine.thread:
                        self._ask_nodes(deadline)
                        return
                finally:
                    self._end(mine)
            finally:
                self._end(mine)  # if a signal handler has raised in the first one
            left = deadline - time.monotonic()
            if left <= 0:
                raise StoreTimeoutError("no node of the cluster has told who has what")
            asking.ended.wait(None if left == math.inf else left)

    def _end(self, asking: _Asking) -> None:
        if self._asking.get(_TOPOLOGY) is asking:
            del self._asking[_TOPOLOGY]
        asking.ended.set()

    def _ask_nodes(self, deadline: float) -> None:
        self._introduce(learned(self.topology), deadline)
        self._refreshed = time.monotonic()

    def _greet(self, marking: bool, deadline: float) -> None:
        self._introduce(greeted(self.topology, self._greeting, marking=marking), deadline)

    def _introduce(self, introduction: Introduction, deadline: float) -> None:
        """Ask nodes what they are to be asked, each of them for a moment."""
        try:
            address, data, count = next(introduction)
            while True:
                until = min(deadline, time.monotonic() + PATIENCE)
                try:
                    attempt = self.link(address).attempt(data, count, Sent("read", count), until)
                    next(attempt)
                    replies = finished(attempt)
                except StoreError as failure:
                    redis_py.let_pass(failure)
                    address, data, count = introduction.throw(failure)
                else:
                    address, data, count = introduction.send(replies)
        except StopIteration:
            return
