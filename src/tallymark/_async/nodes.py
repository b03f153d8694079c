"""The nodes of a cluster for the async driver: their clients, and single-flight refreshes."""

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
