"""The nodes of a cluster for the async driver: clients, read pools and group commits of each.

Refreshes of the topology are single-flight.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, Final

import anyio

from .._cluster.shard_transactions import ShardBatches
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

#: A topology that was read so many seconds ago is not read again.
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
        self._make = clients.client
        self._observer = observer
        self._discover = discover
        self._clients: dict[Address, Any] = {}
        self._pools: dict[Address, ReadPool] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_at = 0.0

    def client(self, address: Address) -> Any:
        """Return the client of a node."""
        if address not in self._clients:
            self._clients[address] = self._make(address)
        return self._clients[address]

    def pool(self, effect: Exchange) -> ReadPool:
        """Return the connections to the node of an attempt."""
        address = effect.address
        if address is None:
            raise TypeError(effect)
        if address not in self._pools:
            client = self.client(address)
            self._pools[address] = ReadPool(client, owned=True, observer=self._observer)
        return self._pools[address]

    async def refresh(self, effect: Refresh) -> None:
        """Read the topology anew; all tasks that want to at the same time share one discovery.

        Cancelled: the others still get it.

        Raises:
            StoreError: no node answers.
        """
        loop = asyncio.get_running_loop()
        if self._refreshing is None:
            if self._refreshed_at and self._refreshed_at > max(effect.since, loop.time() - _RECENT):
                return
            self._refreshing = loop.create_task(self._read_topology())
            self._refreshing.add_done_callback(self._end_refresh)
        with anyio.CancelScope(deadline=effect.deadline):
            await asyncio.shield(self._refreshing)
            return
        raise StoreTimeoutError("no node of the cluster has told its slots")

    async def close(self) -> None:
        """Disconnect."""
        if self._refreshing is not None:
            self._refreshing.cancel()
        for pool in self._pools.values():
            await pool.close()
        with anyio.CancelScope(shield=True):
            for client in self._clients.values():
                await close_client(client)

    def discard(self) -> None:
        """Close all at once, after the event loop has been closed."""
        for pool in self._pools.values():
            pool.discard()
        for client in self._clients.values():
            discard_client(client)

    def _end_refresh(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        if not task.cancelled():
            task.exception()  # whoever waits for it has it

    async def _read_topology(self) -> None:
        await self._discover()
        self._refreshed_at = asyncio.get_running_loop().time()


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
                new_batch=functools.partial(
                    ShardBatches,
                    bitfield=options.bitfield,
                    replicas=options.replicas,
                    asking=importing,
                ),
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
        """Return the group commits whose batch was sent more than so many seconds ago."""
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
