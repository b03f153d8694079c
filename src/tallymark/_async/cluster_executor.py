"""The async driver's way to ask a cluster: each shard where it is, all nodes at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio

from .._cluster.routing import Rounds, patience
from .._core.failures import TRANSIENT, Attempts
from .._reading.requests import Nodes
from ..errors import StoreError, StoreUnavailableError
from .executor import BaseReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._cluster.routing import Delivery
    from .._reading.requests import Step
    from .nodes import AsyncNodes

__all__ = ["ClusterReader"]


class ClusterReader(BaseReader):
    """Runs queries on the nodes of a cluster. Belongs to one event loop."""

    def __init__(
        self,
        nodes: AsyncNodes,
        *,
        timeout: float,
        max_pending: int,
        check_usable: Callable[[], None],
    ) -> None:
        """Begin; ``nodes`` are the cluster's, and the other arguments those of `BaseReader`."""
        super().__init__(timeout=timeout, max_pending=max_pending, check_usable=check_usable)
        self._nodes = nodes

    async def _done(self, step: Step, seconds: float, ends: float | None) -> Any:
        if isinstance(step, Nodes):
            await self._until_known(seconds, ends)
            return self._nodes.topology.names()
        return await super()._done(step, seconds, ends)

    async def _settled(self, request: Any, seconds: float, ends: float | None) -> list[Any]:
        """Return what each part of a round came to."""
        await self._until_known(seconds, ends)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds if ends is None else ends
        rounds = Rounds(request, self._nodes.topology)
        attempts = Attempts()
        while rounds.goes_on:
            began = loop.time()
            deliveries = rounds.deliveries()
            if len(deliveries) == 1:
                await self._deliver(rounds, deliveries[0], deadline)
            elif deliveries:
                await asyncio.gather(
                    *(self._deliver(rounds, each, deadline) for each in deliveries)
                )
            if rounds.goes_on and rounds.obstacle is not None:
                await self._pause(attempts, rounds.obstacle, deadline, seconds)
                await self._refresh(began, deadline)
        return rounds.outcomes

    async def _deliver(self, rounds: Rounds, delivery: Delivery, deadline: float) -> None:
        try:
            channel = self._nodes.channel(delivery.address)
            until = patience(asyncio.get_running_loop().time(), deadline)
            replies = await channel.replies(delivery.request, until)
        except TRANSIENT as failure:
            self._nodes.topology.failed(delivery.address)
            rounds.failed(delivery, failure)
        else:
            rounds.answered(delivery, replies)

    async def _until_known(self, seconds: float, ends: float | None) -> None:
        """Wait until it is known which node has what."""
        if self._nodes.is_ready:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds if ends is None else ends
        attempts = Attempts()
        failure: StoreError = StoreUnavailableError("no node of the cluster has answered")
        while True:
            try:
                with anyio.CancelScope(deadline=deadline):
                    await self._nodes.ready(marking=False)
                    return
            except TRANSIENT as error:
                failure = error
            await self._pause(attempts, failure, deadline, seconds)

    async def _refresh(self, since: float, deadline: float) -> None:
        """Learn who has what; if nobody tells, the next delivery shows it."""
        try:
            with anyio.CancelScope(deadline=deadline):
                await self._nodes.refresh(since=since)
        except TRANSIENT:
            return

    async def _close(self) -> None:
        await self._nodes.close()

    def discard(self) -> None:
        """Close all at once, after the event loop has been closed."""
        self._nodes.discard()
