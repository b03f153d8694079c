"""Executions of batches on a cluster as generators: their effects, without a node."""

from __future__ import annotations

from typing import Any

import pytest

from tallymark import Granularity
from tallymark._cluster.execution import ClusterExecutions
from tallymark._core.failures import MAX_REDIRECTS, RedirectedError
from tallymark._core.options import Options
from tallymark._marking.marks import Bitmaps, BitMark
from tallymark._reading.execution import Commit, Exchange, Refresh, Sleep, Traffic
from tallymark.errors import StoreUnavailableError

A, B = ("a", 1), ("b", 2)
SLOTS = [[0, 8191, [b"a", 1, b"id"]], [8192, 16383, [b"b", 2, b"id"]]]
SCHEMA = b'{"version": 1, "shards": 4}'
D = Granularity.DAY
MARK = BitMark(Bitmaps("a", D, [b"{0}a"]), 7, 1)


class Clock:
    time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def executions(clock: Clock) -> ClusterExecutions:
    """Return executions with a topology."""
    made = ClusterExecutions(Options(shards=4), clock, lambda: None, [A], None)
    made.topology.update(SLOTS, A)
    return made


def commit(executions: ClusterExecutions) -> tuple[Any, Any]:
    """Return the execution of a mark of the first shard after the handshake, and its commit."""
    execution = executions.commit([MARK], 110.0, Traffic("write", 1))
    handshake = next(execution)
    assert isinstance(handshake, Exchange)
    assert handshake.urgent
    return execution, execution.send([None, SCHEMA])


def redirection(kind: Any, address: tuple[str, int]) -> list[Any]:
    host, port = address
    return [RedirectedError.to(f"{kind} 1 {host}:{port}", kind, host, port)]


def test_after_a_pause_redirects_are_counted_anew(executions: ClusterExecutions) -> None:
    execution, effect = commit(executions)
    for _ in range(2):
        for number in range(MAX_REDIRECTS + 1):
            assert isinstance(effect, Commit), number
            effect = execution.send(redirection("MOVED", A if effect.address == B else B))
        assert isinstance(effect, Sleep)
        assert isinstance(execution.send(None), Refresh)
        effect = execution.send(None)
    with pytest.raises(StopIteration) as end:
        execution.send([D])
    assert end.value.value == [D]


def test_a_node_without_a_reply_is_the_last_to_be_asked_for_slots(
    executions: ClusterExecutions,
) -> None:
    execution, effect = commit(executions)
    assert effect.address == A
    assert executions.topology.candidates() == [A, B]
    assert isinstance(execution.throw(StoreUnavailableError("gone")), Sleep)
    assert executions.topology.candidates() == [B, A]


def test_a_discovery_since_the_failed_attempt_is_enough(
    executions: ClusterExecutions, clock: Clock
) -> None:
    execution, _ = commit(executions)
    clock.time = 101.0
    execution.throw(StoreUnavailableError("gone"))
    clock.time = 101.5
    assert execution.send(None) == Refresh(110.0, since=100.0)
    assert execution.send(None).address == A
    execution.throw(StoreUnavailableError("gone"))
    assert execution.send(None) == Refresh(110.0, since=101.5)
