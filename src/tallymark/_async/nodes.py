"""The nodes of a cluster for the async driver: who has what, and how to reach them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import anyio

from .._cluster.handshake import Greeting
from .._cluster.introductions import PATIENCE, greeted, learned
from .._cluster.topology import Topology
from .._redis.async_clients import close_client, discard_client
from ..errors import StoreError
from .channel import Channel

if TYPE_CHECKING:
    from .._cluster.introductions import Introduction
    from .._core.observers import Observer
    from .._core.options import Options
    from .._core.urls import Address
    from .._redis.cluster_clients import ClusterClients

__all__ = ["AsyncNodes"]

#: Nobody asks for the topology again within so many seconds.
_RECENT: Final = 0.05


class AsyncNodes:
    """A cluster's topology, kept up to date, and the connections for reads.

    Belongs to one event loop.
    """

    def __init__(self, clients: ClusterClients, options: Options) -> None:
        """Begin without connections."""
        self._clients = clients
        self._observer: Observer | None = options.observer
        schema = options.schema()
        self.topology = Topology(clients.startup, schema, clients.remap)
        self._greeting = Greeting(schema)
        self._made: dict[Address, Any] = {}
        self._channels: dict[Address, Channel] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed = 0.0
        #: How often nodes were asked about themselves.
        self.asked = 0

    @property
    def is_ready(self) -> bool:
        """Whether there is nothing that `ready` would have to do before a read."""
        return self.topology.known and not self._greeting.wanted(marking=False)

    def client(self, address: Address) -> Any:
        """Return the client of a node."""
        if address not in self._made:
            self._made[address] = self._clients.client(address)
        return self._made[address]

    def channel(self, address: Address) -> Channel:
        """Return the connections for reads of a node."""
        if address not in self._channels:
            self._channels[address] = Channel(
                self.client(address), owned=True, observer=self._observer
            )
        return self._channels[address]

    async def ready(self, *, marking: bool) -> None:
        """Know the topology, and that the database is sharded as the tally is.

        Raises:
            StoreError: neither can be learned now, or it is not.
        """
        if not self.topology.known:
            await self.refresh()
        if self._greeting.wanted(marking=marking):
            await self._greet(marking)

    async def refresh(self, *, since: float = 0.0) -> None:
        """Learn the topology anew, for all who want to know it at the moment.

        Cancelled: the others still learn it.

        Arguments:
            since: nothing is to do if that was done after this time, on the event loop's clock.

        Raises:
            StoreError: no node tells.
        """
        loop = asyncio.get_running_loop()
        if self._refreshing is None:
            if self._refreshed and self._refreshed > max(since, loop.time() - _RECENT):
                return
            self._refreshing = loop.create_task(self._ask_nodes())
            self._refreshing.add_done_callback(self._end_refresh)
        await asyncio.shield(self._refreshing)

    async def close(self) -> None:
        """Disconnect."""
        if self._refreshing is not None:
            self._refreshing.cancel()
        for channel in self._channels.values():
            await channel.close()
        with anyio.CancelScope(shield=True):
            for client in self._made.values():
                await close_client(client)

    def discard(self) -> None:
        """Close all at once, after the event loop has been closed."""
        for channel in self._channels.values():
            channel.discard()
        for client in self._made.values():
            discard_client(client)

    def _end_refresh(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        if not task.cancelled():
            task.exception()  # whoever waits for it has it

    async def _ask_nodes(self) -> None:
        await self._introduce(learned(self.topology))
        self._refreshed = asyncio.get_running_loop().time()

    async def _greet(self, marking: bool) -> None:
        await self._introduce(greeted(self.topology, self._greeting, marking=marking))

    async def _introduce(self, introduction: Introduction) -> None:
        """Ask nodes what they are to be asked, each of them for a moment."""
        loop = asyncio.get_running_loop()
        try:
            address, data, count = next(introduction)
            while True:
                self.asked += 1
                try:
                    until = loop.time() + PATIENCE
                    replies = await self.channel(address).exchange(data, count, until)
                except StoreError as failure:
                    address, data, count = introduction.throw(failure)
                else:
                    address, data, count = introduction.send(replies)
        except StopIteration:
            return
