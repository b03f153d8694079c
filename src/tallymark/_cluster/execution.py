"""Executions on a cluster: discovery, handshake, routing, redirects, retries. Pure.

The counterpart of `tallymark._reading.execution` for a cluster: generators of effects,
which the drivers perform.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._core.failures import MAX_REDIRECTS, TRANSIENT, Attempts, RedirectedError, SlotMovingError
from .._core.untrusted import reraise_from_handler
from .._reading.execution import Commit, Exchange, ExchangeAll, Executions, Refresh, Sleep
from .._reading.requests import ListNodes, Request, Scatter
from ..errors import StoreError, StoreUnavailableError
from .handshake import Handshake
from .routing import Router
from .topology import CLUSTER_SLOTS, Topology

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .._core.options import Options
    from .._core.urls import Address
    from .._marking.marks import Mark, Result
    from .._reading.execution import Execution, Traffic

__all__ = ["ClusterExecutions", "attempt_deadline"]

#: How many seconds a node has to answer `CLUSTER_SLOTS`, or the handshake.
_NODE_TIMEOUT: Final = 1.0


def attempt_deadline(now: float, deadline: float) -> float:
    """Return when to give up on one attempt: after half of the time that is left.

    The node may be down or partitioned. The other half of the time is for a refresh of the
    topology and an attempt on the node that has taken over.
    """
    return deadline if deadline == math.inf else now + (deadline - now) / 2


class _Commands(NamedTuple):
    """Encoded commands, as a request."""

    data: bytes
    replies: int
    share: int = 1

    def encode(self) -> bytes:
        return self.data

    def reply_count(self) -> int:
        return self.replies


class ClusterExecutions(Executions):
    """Makes executions of queries and batches on a cluster.

    Attributes:
        topology: the cluster's.
    """

    def __init__(
        self,
        options: Options,
        clock: Callable[[], float],
        check_usable: Callable[[], None],
        startup: Iterable[Address],
        remap: Callable[[Address], Address] | None,
    ) -> None:
        """Begin without a topology.

        Arguments:
            options, clock, check_usable: as for `Executions`.
            startup, remap: as for `Topology`.
        """
        super().__init__(options, clock, check_usable)
        schema = options.schema()
        self.topology = Topology(startup, schema, remap)
        self._handshake = Handshake(schema)

    def discover(self, deadline: float = math.inf) -> Execution[None]:
        """Read the topology from the first node that answers.

        Arguments:
            deadline: when to give up, on the driver's clock.

        Raises:
            StoreError: no node answers.
        """
        cause: StoreError | None = None
        request = Request([CLUSTER_SLOTS], replies=list)
        for address in self.topology.candidates():
            try:
                until = min(deadline, self._clock() + _NODE_TIMEOUT)
                replies = yield Exchange(request, until, address, urgent=True)
                (slots,) = request.parse(replies)
                self.topology.update(slots, address)
            except StoreError as failure:  # noqa: PERF203 - one or two nodes
                reraise_from_handler(failure)
                self.topology.failed(address)
                if cause is None or isinstance(cause, TRANSIENT):
                    cause = failure  # a failure that is not about connections says more
            else:
                self.topology.worked(address)
                return
        if cause is not None and not isinstance(cause, TRANSIENT):
            raise cause
        raise StoreUnavailableError(f"CLUSTER SLOTS failed on every node: {cause}")

    def _shake_hands(self, deadline: float, *, marking: bool) -> Execution[None]:
        """Check with the handshake that the database is sharded as the tally is.

        Arguments:
            deadline: when to give up, on the driver's clock.
            marking: whether a mark follows.

        Raises:
            WrongSchemaError: the database is sharded in another way.
            StoreError: there is no answer.
        """
        topology = self.topology
        request = _Commands(*self._handshake.commands(marking=marking))
        address = topology.owner(topology.schema_slot)
        if address is None:
            raise StoreUnavailableError("no node of the cluster is known to have its first slot")
        replies: list[Any] = []
        for _ in range(MAX_REDIRECTS):
            until = min(deadline, self._clock() + _NODE_TIMEOUT)
            replies = yield Exchange(request, until, address, urgent=True)
            redirected = next(
                (reply for reply in replies if isinstance(reply, RedirectedError)), None
            )
            if redirected is None:
                break
            if redirected.kind != "MOVED":  # the slot is migrating
                raise StoreUnavailableError(str(redirected))
            address = topology.target(redirected, address)
        self._handshake.check(replies)

    def ready(self, deadline: float, *, marking: bool) -> Execution[None]:
        """Read the topology and make the handshake, unless that is done.

        Arguments:
            deadline: when to give up, on the driver's clock.
            marking: whether a mark follows.

        Raises:
            WrongSchemaError: the database is sharded in another way than the tally.
            StoreError: there is no answer.
        """
        if not self.topology.known:
            yield Refresh(deadline)
        if self._handshake.wanted(marking=marking):
            yield from self._shake_hands(deadline, marking=marking)

    def commit(
        self,
        marks: Sequence[Mark],
        deadline: float,
        traffic: Traffic,
    ) -> Execution[list[Result]]:
        """Send marks of one shard in one transaction, and follow redirects; return their results.

        Arguments:
            marks: the marks.
            deadline: when to give up, on the driver's clock.
            traffic: is updated, also if the execution fails.

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
                until = attempt_deadline(self._clock(), deadline)
                results: list[Result] = yield from self._commit(
                    Commit(marks, until, address, traffic, importing is not None)
                )
            except TRANSIENT as error:
                reraise_from_handler(error)
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
            yield from self._pause(attempts, failure, deadline, began)

    def _commit(self, commit: Commit) -> Execution[list[Result]]:
        try:
            results: list[Result] = yield commit
        except TRANSIENT as error:
            reraise_from_handler(error)
            self.topology.failed(commit.address)
            raise
        return results

    def _dispatch(
        self, effect: Request | Scatter | ListNodes, deadline: float
    ) -> Execution[list[Any]]:
        if isinstance(effect, Request):
            raise TypeError(effect)  # on a cluster, all queries are of shards
        router = Router(effect if isinstance(effect, Scatter) else Scatter(()), self.topology)
        attempts = Attempts()
        while True:
            began = self._clock()
            failure: StoreError | None
            try:
                yield from self.ready(deadline, marking=False)
            except TRANSIENT as error:
                reraise_from_handler(error)
                failure = error
            else:
                if isinstance(effect, ListNodes):
                    return self.topology.names()
                yield from self._send(router, began, deadline, effect.meanwhile)
                if not router.has_more:
                    return router.outcomes
                failure = router.retry_reason
            if failure is not None:
                yield from self._pause(attempts, failure, deadline, began)

    def _send(
        self, router: Router, now: float, deadline: float, meanwhile: Iterator[None] | None
    ) -> Execution[None]:
        """Send a router's next node requests concurrently, and give it the replies."""
        requests = router.node_requests()
        if not requests:
            return
        until = attempt_deadline(now, deadline)
        exchanges = [Exchange(node.request, until, node.address) for node in requests]
        outcomes = yield ExchangeAll(exchanges, deadline, meanwhile)
        for request, outcome in zip(requests, outcomes, strict=True):
            if isinstance(outcome, StoreError):
                self.topology.failed(request.address)
                router.failed(request, outcome)
            else:
                router.answered(request, outcome)

    def _pause(
        self, attempts: Attempts, failure: StoreError, deadline: float, since: float
    ) -> Execution[None]:
        """Pause before another attempt, then read the topology if no other call has since then.

        Raises:
            StoreError: no time is left for another attempt.
        """
        yield Sleep(attempts.pause(failure, deadline - self._clock()))
        try:
            yield Refresh(deadline, since)
        except TRANSIENT as error:  # if no node answers, the next attempt fails with it
            reraise_from_handler(error)
