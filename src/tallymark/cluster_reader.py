"""The async driver's way to ask a cluster: each shard where it is, all nodes at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import anyio

from . import redis_py
from .errors import MAY_PASS, StoreError, StoreUnavailableError, with_fate
from .reader import BaseReader
from .requests import Nodes
from .rounds import Rounds, patience

if TYPE_CHECKING:
    from collections.abc import Callable

    from .async_nodes import AsyncNodes
    from .requests import Step
    from .rounds import Delivery

__all__ = ["ClusterReader"]

#: After so many deliveries without an answer, there is a pause also if none has failed.
_HOPS: Final = 3


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
        pauses = None
        hops = 0
        while rounds.goes_on:
            began = loop.time()
            try:
                deliveries = rounds.deliveries()
            except StoreUnavailableError as failure:
                rounds.failure = failure
                deliveries = []
            if len(deliveries) == 1:
                await self._deliver(rounds, deliveries[0], deadline)
            elif deliveries:
                await asyncio.gather(
                    *(self._deliver(rounds, each, deadline) for each in deliveries)
                )
            hops += 1
            if rounds.goes_on and (rounds.failure is not None or hops > _HOPS):
                left = deadline - loop.time()
                if left <= redis_py.TOO_SHORT:
                    why = rounds.failure or StoreUnavailableError("nodes send each other's way")
                    raise with_fate(why, sent=None, timeout=seconds)
                pauses = pauses or redis_py.backoff()
                await anyio.sleep(min(pauses.compute(1), left / 2))
                await self._refresh(began, deadline)
        return rounds.outcomes

    async def _deliver(self, rounds: Rounds, delivery: Delivery, deadline: float) -> None:
        try:
            channel = self._nodes.channel(delivery.address)
            until = patience(asyncio.get_running_loop().time(), deadline)
            replies = await channel.replies(delivery.request, until)
        except MAY_PASS as failure:
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
        pauses = redis_py.backoff()
        failure: StoreError | None = None
        while True:
            try:
                with anyio.CancelScope(deadline=deadline):
                    await self._nodes.ready(marking=False)
                    return
            except MAY_PASS as error:
                failure = error
            left = deadline - loop.time()
            if left <= redis_py.TOO_SHORT:
                why = failure or StoreUnavailableError("no node of the cluster has answered")
                raise with_fate(why, sent=None, timeout=seconds)
            await anyio.sleep(min(pauses.compute(1), left / 2))

    async def _refresh(self, since: float, deadline: float) -> None:
        """Learn who has what; if nobody tells, the next delivery shows it."""
        try:
            with anyio.CancelScope(deadline=deadline):
                await self._nodes.refresh(since=since)
        except MAY_PASS:
            return

    async def _close(self) -> None:
        await self._nodes.close()
