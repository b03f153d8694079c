"""The nodes of a cluster for the async driver: their clients, and single-flight discovery."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import anyio

from .._redis.async_clients import close_client, discard_client
from ..errors import StoreTimeoutError
from .pool import ReadPool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._core.observers import Observer
    from .._core.urls import Address
    from .._reading.execution import Exchange, Refresh
    from .._redis.cluster_clients import ClusterClients

__all__ = ["AsyncNodes"]

#: A topology that was read within so many seconds is not read again.
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
