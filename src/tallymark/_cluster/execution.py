"""How requests are carried out on a cluster: discovery, handshake, routing, redirects. Pure.

The counterpart of `tallymark._reading.execution` for a cluster. All of it is written
as executions: generators of effects, which the drivers perform.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from .._core.failures import MAX_REDIRECTS, TRANSIENT, Attempts, RedirectedError, SlotMovingError
from .._core.untrusted import let_handlers_pass
from .._reading.execution import Exchange, ExchangeAll, Executions, Refresh, Sleep
from .._reading.requests import ListNodes, Request
from ..errors import StoreError, StoreUnavailableError
from .routing import Router
from .topology import CLUSTER_SLOTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._core.urls import Address
    from .._marking.marks import Mark, Result
    from .._reading.execution import Execution, Traffic
    from .._reading.requests import Scatter
    from .handshake import Handshake
    from .shard_transactions import ShardBatches
    from .topology import Topology

__all__ = ["ClusterExecutions", "Commands", "attempt_deadline", "discover", "shake_hands"]

#: How many seconds a node has to answer a question about the cluster.
_QUESTION: Final = 1.0


def attempt_deadline(now: float, deadline: float) -> float:
    """Return when to give up on a node that may be cut off from the rest of the cluster.

    Some time has to be left to find its successor, and to ask that.
    """
    return deadline if deadline == math.inf else now + (deadline - now) / 2


class Commands:
    """Encoded commands, as a request."""

    __slots__ = ("_count", "_data")

    share = 1

    def __init__(self, data: bytes, count: int) -> None:
        """Hold some bytes, and how many replies they have."""
        self._data = data
        self._count = count

    def encode(self) -> bytes:
        """Return the bytes."""
        return self._data

    def reply_count(self) -> int:
        """Return how many replies they have."""
        return self._count


def discover(
    topology: Topology, clock: Callable[[], float], deadline: float = math.inf
) -> Execution[None]:
    """Read the topology from the first node that answers.

    Arguments:
        topology: is updated.
        clock: the driver's.
        deadline: when to give up.

    Raises:
        StoreError: no node answers.
    """
    cause: StoreError | None = None
    request = Request([CLUSTER_SLOTS], replies=list)
    for address in topology.candidates():
        try:
            until = min(deadline, clock() + _QUESTION)
            replies = yield Exchange(request, until, address, urgent=True)
            (slots,) = request.settle(replies)
            topology.update(slots, address)
        except StoreError as failure:  # noqa: PERF203 - one or two nodes
            let_handlers_pass(failure)
            topology.failed(address)
            if cause is None or isinstance(cause, TRANSIENT):
                cause = failure  # one that is not about connections tells more
        else:
            topology.worked(address)
            return
    if cause is not None and not isinstance(cause, TRANSIENT):
        raise cause
    raise StoreUnavailableError(f"no node of the cluster tells its slots: {cause}")


def shake_hands(
    topology: Topology,
    handshake: Handshake,
    clock: Callable[[], float],
    *,
    marking: bool,
    deadline: float = math.inf,
) -> Execution[None]:
    """Learn whether the database is sharded as the tally is.

    Arguments:
        topology: where the schema key is.
        handshake: keeps the result.
        clock, deadline: as for `discover`.
        marking: whether a mark is to follow.

    Raises:
        StoreError: that cannot be learned now, or it is not.
    """
    request = Commands(*handshake.commands(marking=marking))
    address = topology.owner(topology.schema_slot)
    if address is None:
        raise StoreUnavailableError("no node of the cluster is known to have its first slot")
    replies: list[Any] = []
    for _ in range(MAX_REDIRECTS):
        until = min(deadline, clock() + _QUESTION)
        replies = yield Exchange(request, until, address, urgent=True)
        redirected = next((each for each in replies if isinstance(each, RedirectedError)), None)
        if redirected is None:
            break
        if redirected.kind != "MOVED":  # the slot is migrating
            raise StoreUnavailableError(str(redirected))
        address = topology.target(redirected, address)
    handshake.check(replies)


class ClusterExecutions(Executions):
    """Makes executions of queries and batches on a cluster.

    Attributes:
        topology: the cluster's.
        handshake: whether the database is known to be sharded as the tally is.
    """

    def __init__(
        self,
        topology: Topology,
        handshake: Handshake,
        *,
        timeout: float,
        clock: Callable[[], float],
        check_usable: Callable[[], None],
    ) -> None:
        """Begin; ``timeout``, ``clock`` and ``check_usable`` as for `Executions`."""
        super().__init__(timeout=timeout, clock=clock, check_usable=check_usable)
        self.topology = topology
        self.handshake = handshake

    def ready(self, deadline: float, *, marking: bool) -> Execution[None]:
        """Know the topology, and that the database is sharded as the tally is.

        Raises:
            StoreError: either cannot be learned now, or it is not.
        """
        if not self.topology.known:
            yield Refresh(deadline)
        if self.handshake.wanted(marking=marking):
            yield from shake_hands(
                self.topology, self.handshake, self._clock, marking=marking, deadline=deadline
            )

    def commit(
        self,
        marks: Sequence[Mark],
        deadline: float,
        traffic: Traffic,
        new_batch: Callable[[bool], ShardBatches],
    ) -> Execution[list[Result]]:
        """Send marks of one shard in one transaction, wherever it is; return their results.

        Arguments:
            marks: the marks.
            deadline: when to give up.
            traffic: is kept up to date, also if it fails.
            new_batch: makes an empty batch; the argument is whether the shard is asked
                from the node that is importing it.

        Raises:
            StoreError: there is no answer.
        """
        shard = marks[0].bitmaps.shard
        attempts = Attempts()
        importing: Address | None = None
        redirects = 0
        while True:
            began = self._clock()
            failure: StoreError
            try:
                yield from self.ready(deadline, marking=True)
                address = importing or self.topology.node_of(shard)
                batch = new_batch(importing is not None)
                for mark in marks:
                    batch.add(mark)
                results: list[Result] = batch.settle(
                    (yield from self._exchange(batch, address, deadline, traffic))
                )
            except TRANSIENT as error:
                let_handlers_pass(error)
                failure, importing = error, None
            else:
                redirected = results[0]
                if not isinstance(redirected, RedirectedError):
                    return results
                failure, importing = SlotMovingError(str(redirected)), None
                redirects += 1
                if redirected.kind == "MOVED":
                    self.topology.moved(shard, redirected, address)
                if redirected.kind == "ASK":
                    importing = self.topology.target(redirected, address)
                if redirected.kind != "TRYAGAIN" and redirects <= MAX_REDIRECTS:
                    continue
                importing = None
            redirects = 0
            yield Sleep(attempts.pause(failure, deadline - self._clock()))
            yield from self._refresh(deadline, began)

    def _exchange(
        self, batch: ShardBatches, address: Address, deadline: float, traffic: Traffic
    ) -> Execution[list[Any]]:
        until = attempt_deadline(self._clock(), deadline)
        try:
            replies: list[Any] = yield Exchange(batch, until, address, traffic)
        except TRANSIENT as error:
            let_handlers_pass(error)
            self.topology.failed(address)
            raise
        return replies

    def _ask(self, effect: Request | Scatter | ListNodes, deadline: float) -> Execution[list[Any]]:
        if isinstance(effect, Request):
            raise TypeError(effect)  # on a cluster, all queries are of shards
        attempts = Attempts()
        while True:
            try:
                yield from self.ready(deadline, marking=False)
                break
            except TRANSIENT as error:
                let_handlers_pass(error)
                failure: StoreError = error
            yield Sleep(attempts.pause(failure, deadline - self._clock()))
        if isinstance(effect, ListNodes):
            return self.topology.names()
        return (yield from self._scatter(effect, deadline))

    def _scatter(self, scatter: Scatter, deadline: float) -> Execution[list[Any]]:
        """Return what the replies to each part of a `Scatter` say."""
        router = Router(scatter, self.topology)
        attempts = Attempts()
        meanwhile = scatter.meanwhile
        while router.goes_on:
            began = self._clock()
            requests = router.node_requests()
            if requests:
                until = attempt_deadline(began, deadline)
                exchanges = [Exchange(each.request, until, each.address) for each in requests]
                outcomes = yield ExchangeAll(exchanges, deadline, meanwhile)
                for each, outcome in zip(requests, outcomes, strict=True):
                    if isinstance(outcome, StoreError):
                        self.topology.failed(each.address)
                        router.failed(each, outcome)
                    else:
                        router.answered(each, outcome)
            if router.goes_on and router.obstacle is not None:
                yield Sleep(attempts.pause(router.obstacle, deadline - self._clock()))
                yield from self._refresh(deadline, began)
        return router.outcomes

    @staticmethod
    def _refresh(deadline: float, since: float) -> Execution[None]:
        """Read the topology anew; if no node answers, the next attempt shows it."""
        try:
            yield Refresh(deadline, since)
        except TRANSIENT as error:
            let_handlers_pass(error)
