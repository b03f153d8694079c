"""The nodes of a cluster for the async driver: clients, read pools and group commits of each.

Discovery is single-flight.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, Final

import anyio

from .._cluster.batches import shard_batches
from .._marking.stats import Totals
from .._redis.async_clients import close_client, discard_client
from .._redis.stores import store_label
from ..errors import StoreTimeoutError
from .connection import Connection
from .group_commit import GroupCommit
from .pool import ReadPool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .._core.observers import Observer
    from .._core.options import Options
    from .._core.urls import Address
    from .._reading.execution import Exchange, Refresh
    from .._redis.cluster_clients import ClusterClients

__all__ = ["AsyncNodes", "NodeCommits"]

#: A topology that was read less than this many seconds ago is not read again.
_RECENT: Final = 0.05


class AsyncNodes:
    """The clients and read pools of a cluster's nodes. Belongs to one event loop."""

    def __init__(
        self,
        clients: ClusterClients,
        observer: Observer | None,
        discover: Callable[[], Awaitable[None]],
    ) -> None:
        """Begin without connections.

        Arguments:
            clients: makes the clients.
            observer: called after each attempt.
            discover: reads the topology from the first node that answers.
        """
        self._clients = clients
        self._observer = observer
        self._discover = discover
        self._nodes: dict[Address, tuple[Any, ReadPool]] = {}
        self._discovery: asyncio.Task[None] | None = None
        self._discovered_at = 0.0

    def client(self, address: Address) -> Any:
        """Return the client of a node."""
        return self._node(address)[0]

    def pool(self, effect: Exchange) -> ReadPool:
        """Return the read pool of the node that an exchange is for."""
        if effect.address is None:
            raise TypeError(effect)
        return self._node(effect.address)[1]

    async def refresh(self, effect: Refresh) -> None:
        """Read the topology anew; concurrent calls share one discovery.

        Cancelled: the discovery goes on for the other calls.

        Raises:
            StoreError: no node answers.
        """
        if self._discovery is None:
            loop = asyncio.get_running_loop()
            recent = max(effect.since, loop.time() - _RECENT)
            if self._discovered_at and self._discovered_at > recent:
                return
            self._discovery = loop.create_task(self._run_discovery())
            self._discovery.add_done_callback(self._end_discovery)
        with anyio.CancelScope(deadline=effect.deadline):
            await asyncio.shield(self._discovery)
            return
        raise StoreTimeoutError("no node of the cluster has answered in time")

    async def close(self) -> None:
        """Disconnect."""
        if self._discovery is not None:
            self._discovery.cancel()
        for _, pool in self._nodes.values():
            await pool.close()
        with anyio.CancelScope(shield=True):
            for client, _ in self._nodes.values():
                await close_client(client)

    def discard(self) -> None:
        """Close all connections, after the event loop has been closed."""
        for client, pool in self._nodes.values():
            pool.discard()
            discard_client(client)

    def _node(self, address: Address) -> tuple[Any, ReadPool]:
        node = self._nodes.get(address)
        if node is None:
            client = self._clients.client(address)
            node = client, ReadPool(client, owned=True, observer=self._observer)
            self._nodes[address] = node
        return node

    async def _run_discovery(self) -> None:
        await self._discover()
        self._discovered_at = asyncio.get_running_loop().time()

    def _end_discovery(self, task: asyncio.Task[None]) -> None:
        self._discovery = None
        if not task.cancelled():
            task.exception()  # the calls that wait for the task raise it


class NodeCommits:
    """The group commits of a cluster's nodes. Belongs to one event loop.

    A node has one for the slots that it owns, and one for slots that it is importing, whose
    commands follow an ``ASKING``.
    """

    def __init__(self, client: Callable[[Address], Any], options: Options) -> None:
        """Begin without any.

        Arguments:
            client: returns the client of a node.
            options: the tally's options.
        """
        self._client = client
        self._options = options
        self._new_batch = shard_batches(options)
        self._commits: dict[tuple[Address, bool], GroupCommit] = {}

    def commit(self, address: Address, *, importing: bool = False) -> GroupCommit:
        """Return the group commit of a node.

        Arguments:
            address: the node.
            importing: whether it is for slots that the node is importing.
        """
        commit = self._commits.get((address, importing))
        if commit is None:
            client = self._client(address)
            options = self._options
            commit = self._commits[address, importing] = GroupCommit(
                Connection(client, owned=True),
                new_batch=functools.partial(self._new_batch, asking=importing),
                timeout=options.timeout,
                max_pending=options.max_pending,
                store=store_label(client),
                observer=options.observer,
                retry=False,
                event_quota=options.max_events is not None,
            )
        return commit

    def node_of(self, commit: GroupCommit | None) -> tuple[Address, bool]:
        """Return the node of a group commit, and whether it is for slots being imported."""
        return next(node for node, known in self._commits.items() if known is commit)

    def stuck(self, seconds: float) -> Sequence[GroupCommit]:
        """Return the group commits whose batch was sent more than ``seconds`` ago."""
        return [commit for commit in self._commits.values() if commit.is_stuck(seconds)]

    def totals(self) -> Totals:
        """Return the sums of the counters of all nodes."""
        sums = Totals()
        for commit in self._commits.values():
            sums.add(commit.totals)
        return sums

    def fail_all(self) -> None:
        """End all calls with an error now."""
        for commit in self._commits.values():
            commit.fail_all()

    async def close(self) -> None:
        """Close the group commits, which waits until no call is in progress."""
        for commit in self._commits.values():
            await commit.close()

    def discard(self) -> None:
        """Close all connections at once, after the event loop has been closed."""
        for commit in self._commits.values():
            commit.discard()
