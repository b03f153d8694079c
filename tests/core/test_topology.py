"""Who has which slot, and what a round of requests does about it."""

from __future__ import annotations

from typing import Any

import pytest

from tallymark._cluster.routing import Rounds, patience
from tallymark._cluster.topology import Topology
from tallymark._core.failures import RedirectedError, SlotMovingError
from tallymark._core.keys import KeySchema
from tallymark._reading.requests import Request, Round
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


def test_it_knows_what_it_was_told() -> None:
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
    before = found.version
    found.update(SLOTS, B)
    assert found.version == before


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


# --- rounds

READ = Request([(b"GETBIT", b"x", b"1"), (b"GETBIT", b"y", b"1")], atomic=True)
TOGETHER = [b"OK", b"QUEUED", b"QUEUED", [1, 0]]
PROGRAM = Request([(b"BITOP", b"AND", b"t", b"x", b"y"), (b"BITCOUNT", b"t")], atomic=True)
ABORTED = CommandError("EXECABORT")


def test_all_are_answered_at_once() -> None:
    rounds = Rounds(Round([(0, READ), (3, READ), (1, READ)]), topology())
    one, other = rounds.deliveries()
    assert (one.address, one.indexes, other.address, other.indexes) == (A, [0, 2], B, [1])
    assert one.request.encode() == READ.encode() * 2
    rounds.answered(one, TOGETHER * 2)
    assert rounds.goes_on
    rounds.answered(other, TOGETHER)
    assert not rounds.goes_on
    assert rounds.outcomes == [[1, 0]] * 3


def test_what_fails_is_delivered_again() -> None:
    rounds = Rounds(Round([(0, READ), (3, READ)]), topology())
    one, other = rounds.deliveries()
    rounds.failed(one, StoreUnavailableError("gone"))
    rounds.answered(other, TOGETHER)
    assert str(rounds.failure) == "gone"
    (again,) = rounds.deliveries()
    assert rounds.failure is None
    assert again.indexes == [0]
    with pytest.raises(CommandError):
        rounds.failed(again, CommandError("refused"))


def test_what_has_moved_is_followed() -> None:
    rounds = Rounds(Round([(0, READ)]), topology())
    (delivery,) = rounds.deliveries()
    rounds.answered(delivery, [b"OK", moved("MOVED"), moved("MOVED"), ABORTED])
    (delivery,) = rounds.deliveries()
    assert (delivery.address, rounds.failure) == (B, None)


def test_reads_of_a_slot_that_moves_go_one_by_one() -> None:
    rounds = Rounds(Round([(0, READ)]), topology())
    (delivery,) = rounds.deliveries()
    rounds.answered(delivery, [b"OK", b"QUEUED", moved("ASK"), ABORTED])
    (delivery,) = rounds.deliveries()
    assert delivery.request.encode() == READ._replace(atomic=False).encode()
    rounds.answered(delivery, [1, moved("ASK")])
    (asked,) = rounds.deliveries()
    assert (asked.address, asked.asked) == (B, [(0, 1)])
    assert asked.request.reply_count() == 2
    assert asked.request.encode().startswith(b"*1\r\n$6\r\nASKING\r\n")
    rounds.answered(asked, [b"OK", 1])
    assert rounds.outcomes == [[1, 1]]
    assert not rounds.goes_on


def test_an_asked_node_that_does_not_know_either() -> None:
    rounds = Rounds(Round([(0, READ._replace(atomic=False))]), topology())
    (delivery,) = rounds.deliveries()
    rounds.answered(delivery, [moved("ASK"), moved("ASK", "c", 3)])
    one, other = rounds.deliveries()
    rounds.answered(one, [b"OK", moved("MOVED")])
    rounds.answered(other, [b"OK", 1])  # of a part that is to be asked anew
    assert isinstance(rounds.failure, SlotMovingError)
    (delivery,) = rounds.deliveries()
    rounds.answered(delivery, [moved("ASK"), 1])
    (asked,) = rounds.deliveries()
    rounds.failed(asked, StoreUnavailableError("gone"))
    (delivery,) = rounds.deliveries()
    rounds.answered(delivery, [1, RedirectedError("TRYAGAIN")])
    assert isinstance(rounds.failure, SlotMovingError)
    (delivery,) = rounds.deliveries()
    rounds.answered(delivery, [0, 1])
    assert rounds.outcomes == [[0, 1]]


@pytest.mark.parametrize("request_", [PROGRAM, READ._replace(encoded=b"other keys")])
def test_a_program_is_told_that_its_slot_moves(request_: Request) -> None:
    rounds = Rounds(Round([(0, request_)]), topology())
    (delivery,) = rounds.deliveries()
    rounds.answered(delivery, [b"OK", b"QUEUED", RedirectedError("TRYAGAIN"), ABORTED])
    assert not rounds.goes_on
    assert isinstance(rounds.outcomes[0], SlotMovingError)


def test_a_node_itself_sends_nowhere() -> None:
    rounds = Rounds(Round([("a:1", Request([(b"SCAN", b"0")], replies=list))]), topology())
    (delivery,) = rounds.deliveries()
    with pytest.raises(RedirectedError):
        rounds.answered(delivery, [moved("MOVED")])


def test_half_of_the_time_for_a_node() -> None:
    assert patience(10.0, 14.0) == 12.0
    assert patience(10.0, float("inf")) == float("inf")
