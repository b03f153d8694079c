"""The blocking driver on a cluster: marks to the nodes of their shards, queries to all nodes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from .._cluster.routing import Rounds, patience
from .._cluster.shard_transactions import ShardBatches
from .._core.failures import TRANSIENT, Attempts, RedirectedError, SlotMovingError
from .._reading.requests import Request, Round
from .._redis import errors as redis_py
from ..errors import StoreError
from .connection import Sent, finished
from .executor import BaseBlockingReader, bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from .._cluster.routing import Delivery
    from .._core.options import Options
    from .._core.urls import Address
    from .._marking.marks import Mark, Result
    from .nodes import BlockingNodes

__all__ = ["BlockingClusterReader", "write_to_shard"]

#: After so many attempts without an answer, there is a pause also if none has failed.
_HOPS: Final = 3


def write_to_shard(
    nodes: BlockingNodes, options: Options, marks: Sequence[Mark], sent: Sent, deadline: float
) -> list[Result]:
    """Send marks of one shard in one transaction, wherever it is; return their results.

    Raises:
        StoreError: there is no answer.
    """
    shard = marks[0].bitmaps.shard
    attempts = Attempts()
    asked: Address | None = None
    hops = 0
    while True:
        began = time.monotonic()
        failure: StoreError
        try:
            nodes.ready(marking=True, deadline=deadline)
            address = asked or nodes.topology.node_of(shard)
            found = _attempt(nodes, options, marks, address, asked is not None, sent, deadline)
        except TRANSIENT as error:
            redis_py.let_pass(error)
            failure, asked = error, None
        else:
            told = found[0]
            if not isinstance(told, RedirectedError):
                return found
            failure, asked = SlotMovingError(str(told)), None
            hops += 1
            if told.kind == "MOVED":
                nodes.topology.moved(shard, told, address)
            if told.kind == "ASK":
                asked = nodes.topology.target(told, address)
            if told.kind != "TRYAGAIN" and hops <= _HOPS:
                continue
            asked = None
        hops = 0
        _pause(attempts, failure, deadline)
        _refresh(nodes, deadline, began)


def _attempt(
    nodes: BlockingNodes,
    options: Options,
    marks: Sequence[Mark],
    address: Address,
    asking: bool,
    sent: Sent,
    deadline: float,
) -> list[Result]:
    batch = ShardBatches(bitfield=options.bitfield, replicas=options.replicas, asking=asking)
    for mark in marks:
        batch.add(mark)
    until = patience(time.monotonic(), deadline)
    attempt = nodes.link(address).attempt(batch.encode(), batch.reply_count(), sent, until)
    try:
        next(attempt)
        return batch.settle(finished(attempt))
    except TRANSIENT as error:
        redis_py.let_pass(error)
        nodes.topology.failed(address)
        raise
    finally:
        attempt.close()


def _pause(attempts: Attempts, failure: StoreError, deadline: float) -> None:
    time.sleep(attempts.pause(failure, deadline - time.monotonic()))


def _refresh(nodes: BlockingNodes, deadline: float, since: float) -> None:
    """Learn who has what; if nobody tells, the next attempt shows it."""
    try:
        nodes.refresh(deadline, since=since)
    except TRANSIENT as error:
        redis_py.let_pass(error)


class BlockingClusterReader(BaseBlockingReader):
    """Runs queries on the nodes of a cluster: all are asked before any answer is read."""

    def __init__(
        self, nodes: BlockingNodes, *, timeout: float, check_usable: Callable[[], None]
    ) -> None:
        """Begin; ``nodes`` are the cluster's, and the other arguments those of the base."""
        super().__init__(timeout=timeout, check_usable=check_usable)
        self._nodes = nodes

    def _nodes_names(self, deadline: float) -> list[str]:
        self._until_known(deadline)
        return self._nodes.topology.names()

    def _settled(self, request: Request | Round, deadline: float) -> list[Any]:
        if isinstance(request, Request):
            raise TypeError(request)  # on a cluster, all queries are of shards
        self._until_known(deadline)
        rounds = Rounds(request, self._nodes.topology)
        work = bounded(request.meanwhile, deadline)
        attempts = Attempts()
        while rounds.goes_on:
            began = time.monotonic()
            under_way = [(each, self._sent(rounds, each, deadline)) for each in rounds.deliveries()]
            try:
                for _ in work:
                    pass
                for delivery, attempt in under_way:
                    self._finish(rounds, delivery, attempt)
            finally:
                for _, attempt in under_way:
                    if attempt is not None:
                        attempt.close()
            if rounds.goes_on and rounds.obstacle is not None:
                _pause(attempts, rounds.obstacle, deadline)
                _refresh(self._nodes, deadline, began)
        return rounds.outcomes

    def _sent(
        self, rounds: Rounds, delivery: Delivery, deadline: float
    ) -> Generator[None, None, list[Any]] | None:
        """Send a delivery; return the attempt, or None if it has failed."""
        request = delivery.request
        count = request.reply_count()
        link = self._nodes.link(delivery.address)
        until = patience(time.monotonic(), deadline)
        attempt = link.attempt(request.encode(), count, Sent("read", count), until)
        try:
            next(attempt)
        except StoreError as failure:
            redis_py.let_pass(failure)
            self._failed(rounds, delivery, failure)
            return None
        return attempt

    def _finish(
        self,
        rounds: Rounds,
        delivery: Delivery,
        attempt: Generator[None, None, list[Any]] | None,
    ) -> None:
        if attempt is None:
            return
        try:
            replies = finished(attempt)
        except StoreError as failure:
            redis_py.let_pass(failure)
            self._failed(rounds, delivery, failure)
        else:
            rounds.answered(delivery, replies)

    def _failed(self, rounds: Rounds, delivery: Delivery, failure: StoreError) -> None:
        self._nodes.topology.failed(delivery.address)
        rounds.failed(delivery, failure)

    def _until_known(self, deadline: float) -> None:
        attempts = Attempts()
        while True:
            try:
                self._nodes.ready(marking=False, deadline=deadline)
            except TRANSIENT as failure:  # noqa: PERF203 - a few times at most
                redis_py.let_pass(failure)
                _pause(attempts, failure, deadline)
            else:
                return
