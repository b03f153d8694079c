"""The nodes of a cluster for the blocking driver: who has what, and how to reach them."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from . import redis_py
from .blocking_link import BlockingLink, Sent, finished
from .errors import MAY_PASS, RedirectedError, StoreError, StoreTimeoutError, StoreUnavailableError
from .greeting import Greeting
from .requests import Request
from .topology import ASK_SLOTS, Topology

if TYPE_CHECKING:
    from .cluster_clients import ClusterClients
    from .options import Options
    from .topology import Address

__all__ = ["BlockingNodes", "pause_before"]

#: A node that has not told the topology after so many seconds is not waited for.
_PATIENCE: Final = 1.0

#: So many nodes in a row may say that another one has a slot.
_HOPS: Final = 5


class BlockingNodes:
    """A cluster's topology, kept up to date, and the connections. Threads may share it."""

    def __init__(self, clients: ClusterClients, options: Options) -> None:
        """Begin without connections."""
        self._clients = clients
        self._observer = options.observer
        schema = options.schema()
        self.topology = Topology(clients.startup, schema, clients.remap)
        self._greeting = Greeting(schema)
        #: Whether the database was asked how it is sharded, and need not have told.
        self._greeted = False
        self._links: dict[Address, BlockingLink] = {}
        self._refreshed = 0.0
        self.unlock()

    def unlock(self) -> None:
        """Begin with locks that nobody holds, as in a child process."""
        self._making = threading.Lock()
        self._asking = threading.Lock()

    def link(self, address: Address) -> BlockingLink:
        """Return the connections to a node."""
        found = self._links.get(address)
        if found is None:
            with self._making:
                found = self._links.get(address)
                if found is None:
                    client = self._clients.client(address)
                    found = BlockingLink(client, owned=True, observer=self._observer)
                    self._links[address] = found
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
        if not self._greeting.done and (marking or not self._greeted):
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
        left = deadline - came
        if not self._asking.acquire(timeout=-1 if left == math.inf else max(0.0, left)):
            raise StoreTimeoutError("no node of the cluster has told who has what")
        try:
            if self._refreshed <= max(since, came):
                self._ask_nodes(deadline)
        finally:
            self._asking.release()

    def _ask_nodes(self, deadline: float) -> None:
        told: StoreError | None = None
        request = Request([ASK_SLOTS], replies=list)
        for address in self.topology.candidates():
            try:
                replies = self._once(address, request.encode(), request.reply_count(), deadline)
                (slots,) = request.settle(replies)
                self.topology.update(slots, address)
            except StoreError as failure:  # noqa: PERF203 - one or two nodes
                self.topology.failed(address)
                if told is None or isinstance(told, MAY_PASS):
                    told = failure  # one that is not of connections tells more
            else:
                self.topology.worked(address)
                self._refreshed = time.monotonic()
                return
        if told is not None and not isinstance(told, MAY_PASS):
            raise told
        raise StoreUnavailableError(f"no node of the cluster tells who has what: {told}")

    def _greet(self, marking: bool, deadline: float) -> None:
        data, count = self._greeting.commands(marking=marking)
        address = self.topology.owner(self.topology.note_slot)
        if address is None:
            raise StoreUnavailableError("no node of the cluster is known to have its first slot")
        replies: list[Any] = []
        for _ in range(_HOPS):
            replies = self._once(address, data, count, deadline)
            moved = next((each for each in replies if isinstance(each, RedirectedError)), None)
            if moved is None:
                break
            if moved.kind == "MOVED":
                address = self.topology.target(moved, address)
            else:  # its slot is on its way
                raise StoreUnavailableError(str(moved))
        self._greeting.check(replies)
        self._greeted = True

    def _once(self, address: Address, data: bytes, count: int, deadline: float) -> list[Any]:
        """Make one short attempt to have a node answer."""
        until = min(deadline, time.monotonic() + _PATIENCE)
        attempt = self.link(address).attempt(data, count, Sent("read", count), until)
        next(attempt)
        return finished(attempt)


def pause_before(deadline: float, pauses: Any, failure: StoreError) -> Any:
    """Pause before another attempt; return what the next pause depends on.

    Raises:
        StoreError: the failure, since no time is left.
    """
    left = deadline - time.monotonic()
    if left <= redis_py.TOO_SHORT:
        raise failure
    pauses = pauses or redis_py.backoff()
    time.sleep(min(pauses.compute(1), left / 2))
    return pauses
