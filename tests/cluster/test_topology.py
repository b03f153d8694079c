"""Who has which slot, and what a round of requests does about it."""

from __future__ import annotations

from typing import Any

import pytest

from tallymark._cluster.execution import attempt_deadline
from tallymark._cluster.routing import Router
from tallymark._cluster.topology import Topology
from tallymark._core.failures import MAX_REDIRECTS, RedirectedError, SlotMovingError
from tallymark._core.keys import KeySchema
from tallymark._reading.requests import Request, Scatter
from tallymark.errors import CommandError, StoreError, StoreUnavailableError

A, B, C = ("a", 1), ("b", 2), ("c", 3)
SCHEMA = KeySchema(shards=4)  # slots 2048, 6144, 10240, 14336
SLOTS = [[0, 8191, [b"a", 1, b"id"], [b"c", 3, b"id"]], [8192, 16383, [b"b", 2, b"id"]]]


def topology() -> Topology:
    found = Topology([A], SCHEMA)
    found.update(SLOTS, A)
    return found


def moved(kind: Any, host: str = "b", port: int = 2) -> RedirectedError:
    return RedirectedError.to(f"{kind} 1 {host}:{port}", kind, host, port)


def test_a_topology_has_the_slots_of_its_reply() -> None:
    found = Topology([A], SCHEMA)
    assert not found.known
    with pytest.raises(StoreUnavailableError, match="no node of the cluster is known"):
        found.node_of(0)
    found.update(SLOTS, A)
    assert [found.node_of(shard) for shard in range(4)] == [A, A, B, B]
    assert found.masters == [A, B]
    assert found.names() == ["a:1", "b:2"]
    assert found.node_of("::1:6379") == ("::1", 6379)
    assert found.candidates() == [A, B, C]
    found.update(SLOTS, B)
    assert found.masters == [A, B]


def test_slots_that_nobody_has() -> None:
    found = topology()
    found.update([[100, 8191, [b"a", 1, b"id"]]], A)
    assert found.owner(99) is None
    assert found.owner(8192) is None
    assert found.owner(100) == A
    with pytest.raises(StoreUnavailableError):
        found.node_of(3)


def test_a_node_that_has_moved() -> None:
    found = topology()
    found.moved(0, moved("MOVED"), A)
    assert [found.node_of(shard) for shard in range(4)] == [B, A, B, B]
    found.moved(0, moved("MOVED"), A)
    found.moved(1, moved("MOVED", "", 9), A)  # of the node itself
    assert found.node_of(1) == ("a", 9)
    found.update(SLOTS, A)
    assert found.node_of(0) == A


def test_suspects_are_asked_last() -> None:
    found = topology()
    found.failed(A)
    found.failed(B)
    assert found.candidates() == [C, A, B]
    found.failed(A)
    assert found.candidates() == [C, B, A]
    found.worked(B)
    assert found.candidates() == [B, C, A]
    found.failed(("gone", 9))
    assert ("gone", 9) not in found.candidates()


def test_addresses_are_mapped_and_completed() -> None:
    found = Topology([A], SCHEMA, lambda address: ("outside", address[1] + 1000))
    found.update([[0, 16383, [b"", 7, b"id"], [None, 8, b"id"], [b"?", 9, b"id"]]], A)
    assert found.masters == [("outside", 1007)]
    assert ("outside", 1009) in found.candidates()


@pytest.mark.parametrize(
    "reply", [7, [7], [[0, 1]], [[0, 99999, [b"a", 1]]], [[5, 1, [b"a", 1]]], [[0, 1, b"a"]]]
)
def test_what_is_no_topology(reply: Any) -> None:
    with pytest.raises(StoreError):
        topology().update(reply, A)
    with pytest.raises(StoreUnavailableError, match="no slots"):
        topology().update([], A)


# --- routing

READ = Request([(b"GETBIT", b"x", b"1"), (b"GETBIT", b"y", b"1")], atomic=True)
TOGETHER = [b"OK", b"QUEUED", b"QUEUED", [1, 0]]
PROGRAM = Request([(b"BITOP", b"AND", b"t", b"x", b"y"), (b"BITCOUNT", b"t")], atomic=True)
ABORTED = CommandError("EXECABORT")


def test_all_are_answered_at_once() -> None:
    router = Router(Scatter([(0, READ), (3, READ), (1, READ)]), topology())
    one, other = router.node_requests()
    assert (one.address, one.indexes, other.address, other.indexes) == (A, [0, 2], B, [1])
    assert one.request.encode() == READ.encode() * 2
    router.answered(one, TOGETHER * 2)
    assert router.has_more
    router.answered(other, TOGETHER)
    assert not router.has_more
    assert router.outcomes == [[1, 0]] * 3


def test_what_fails_is_delivered_again() -> None:
    router = Router(Scatter([(0, READ), (3, READ)]), topology())
    one, other = router.node_requests()
    router.failed(one, StoreUnavailableError("gone"))
    router.answered(other, TOGETHER)
    assert str(router.failure) == "gone"
    (again,) = router.node_requests()
    assert router.failure is None
    assert again.indexes == [0]
    with pytest.raises(CommandError):
        router.failed(again, CommandError("refused"))


def test_what_has_moved_is_followed() -> None:
    router = Router(Scatter([(0, READ)]), topology())
    (node_request,) = router.node_requests()
    router.answered(node_request, [b"OK", moved("MOVED"), moved("MOVED"), ABORTED])
    (node_request,) = router.node_requests()
    assert (node_request.address, router.failure) == (B, None)


def test_reads_of_a_slot_that_moves_go_one_by_one() -> None:
    router = Router(Scatter([(0, READ)]), topology())
    (node_request,) = router.node_requests()
    router.answered(node_request, [b"OK", b"QUEUED", moved("ASK"), ABORTED])
    (node_request,) = router.node_requests()
    assert node_request.request.encode() == READ._replace(atomic=False).encode()
    router.answered(node_request, [1, moved("ASK")])
    (asked,) = router.node_requests()
    assert (asked.address, asked.redirected) == (B, [(0, 1)])
    assert asked.request.reply_count() == 2
    assert asked.request.encode().startswith(b"*1\r\n$6\r\nASKING\r\n")
    router.answered(asked, [b"OK", 1])
    assert router.outcomes == [[1, 1]]
    assert not router.has_more


def test_single_reads_of_a_moving_slot_are_encoded_again() -> None:
    """Else the node would get the encoded transaction, whose replies are no single replies."""
    router = Router(Scatter([(0, READ._replace(cached=READ.encode()))]), topology())
    (node_request,) = router.node_requests()
    router.answered(node_request, [b"OK", b"QUEUED", moved("ASK"), ABORTED])
    (node_request,) = router.node_requests()
    assert node_request.request.encode() == READ._replace(atomic=False).encode()
    assert node_request.request.reply_count() == 2
    router.answered(node_request, [1, 0])
    assert router.outcomes == [[1, 0]]


def test_nodes_that_redirect_to_each_other_are_an_obstacle() -> None:
    router = Router(Scatter([(0, READ)]), topology())
    for number in range(MAX_REDIRECTS + 1):
        assert router.retry_reason is None
        (node_request,) = router.node_requests()
        assert node_request.address == (A, B)[number % 2]
        other = ("b", 2) if node_request.address == A else ("a", 1)
        router.answered(
            node_request, [b"OK", moved("MOVED", *other), moved("MOVED", *other), ABORTED]
        )
    assert router.failure is None
    assert isinstance(router.retry_reason, StoreUnavailableError)
    assert router.has_more


def test_an_asked_node_that_does_not_know_either() -> None:
    router = Router(Scatter([(0, READ._replace(atomic=False))]), topology())
    (node_request,) = router.node_requests()
    router.answered(node_request, [moved("ASK"), moved("ASK", "c", 3)])
    one, other = router.node_requests()
    router.answered(one, [b"OK", moved("MOVED")])
    router.answered(other, [b"OK", 1])  # of a part that is to be asked anew
    assert isinstance(router.failure, SlotMovingError)
    (node_request,) = router.node_requests()
    router.answered(node_request, [moved("ASK"), 1])
    (asked,) = router.node_requests()
    router.failed(asked, StoreUnavailableError("gone"))
    (node_request,) = router.node_requests()
    router.answered(node_request, [1, RedirectedError("TRYAGAIN")])
    assert isinstance(router.failure, SlotMovingError)
    (node_request,) = router.node_requests()
    router.answered(node_request, [0, 1])
    assert router.outcomes == [[0, 1]]


@pytest.mark.parametrize("request_", [PROGRAM, READ._replace(encoded=b"other keys")])
def test_an_exchange_of_a_moving_slot_raises_to_the_query(request_: Request) -> None:
    router = Router(Scatter([(0, request_)]), topology())
    (node_request,) = router.node_requests()
    router.answered(node_request, [b"OK", b"QUEUED", RedirectedError("TRYAGAIN"), ABORTED])
    assert not router.has_more
    assert isinstance(router.outcomes[0], SlotMovingError)


def test_a_node_itself_sends_nowhere() -> None:
    router = Router(Scatter([("a:1", Request([(b"SCAN", b"0")], replies=list))]), topology())
    (node_request,) = router.node_requests()
    with pytest.raises(RedirectedError):
        router.answered(node_request, [moved("MOVED")])


def test_half_of_the_time_for_a_node() -> None:
    assert attempt_deadline(10.0, 14.0) == 12.0
    assert attempt_deadline(10.0, float("inf")) == float("inf")
