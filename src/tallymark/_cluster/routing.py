"""A round of requests on its way through a cluster: what goes where, and what came of it. Pure.

A driver asks for `Delivery`s, brings each to its node and hands back the replies, until
there are none. Commands that a node sends elsewhere go there next; a transaction that is
split by a moving slot is asked for command by command, if it only reads, or is told so.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from .._core import resp as wire
from .._core.failures import TRANSIENT, RedirectedError, SlotMovingError
from .._reading.requests import Round
from ..errors import StoreError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._core.urls import Address
    from .._reading.requests import Command, Request
    from .topology import Topology

__all__ = ["Deliverable", "Delivery", "Rounds", "patience"]

#: After so many deliveries without an answer, there is a pause also if none has failed.
_HOPS: Final = 3

#: Commands that change nothing, and ask about one key.
_READS: Final = frozenset(
    # Of BITFIELD, queries use nothing but GET.
    (b"GETBIT", b"GETRANGE", b"BITCOUNT", b"BITPOS", b"STRLEN", b"BITFIELD", b"BITFIELD_RO")
)


def patience(now: float, deadline: float) -> float:
    """Return until when to wait for a node that may be cut off.

    Some time has to be left to learn who has taken its place, and to go there.
    """
    return deadline if deadline == math.inf else now + (deadline - now) / 2


class Deliverable(Protocol):
    """Something that a node can be asked: a `Request`, a `Round`, or single commands."""

    @property
    def share(self) -> int:
        """How many like this one may go together."""
        ...

    def encode(self) -> bytes:
        """Return the bytes to send."""
        ...

    def reply_count(self) -> int:
        """Return how many replies there are."""
        ...


class Delivery(NamedTuple):
    """What goes to a node with one write.

    Attributes:
        address: the node.
        request: what it is asked.
        indexes: which parts of the round these are.
        asked: if they are single commands that another node has sent here: which.
    """

    address: Address
    request: Deliverable
    indexes: Sequence[int]
    asked: Sequence[tuple[int, int]] = ()


class _Asked(NamedTuple):
    """Single commands on keys that a node is about to get, and takes only from who knows."""

    commands: Sequence[Command]
    share: int = 1

    def encode(self) -> bytes:
        return b"".join([wire.ASKING + wire.command(*command) for command in self.commands])

    def reply_count(self) -> int:
        return 2 * len(self.commands)


class Rounds:
    """One round, until all of its parts have an outcome.

    Attributes:
        outcomes: what each part came to, in order.
        failure: why the last deliveries have to be repeated; ``None`` if a node has only
            said where else to go.
    """

    def __init__(self, asked: Round, topology: Topology) -> None:
        self._parts = list(asked.parts)
        self._topology = topology
        self._todo = dict.fromkeys(range(len(self._parts)))
        #: Of parts that are answered in part: the replies so far.
        self._replies: dict[int, list[Any]] = {}
        #: Commands that were sent elsewhere, by their new node.
        self._asked: dict[Address, list[tuple[int, int]]] = {}
        self.outcomes: list[Any] = [None] * len(self._parts)
        self.failure: StoreError | None = None
        self._hops = 0

    @property
    def obstacle(self) -> StoreError | None:
        """Why to pause, and to learn the topology anew, before the next deliveries."""
        if self.failure is None and self._hops > _HOPS:
            return StoreUnavailableError("nodes send each other's way")
        return self.failure

    @property
    def goes_on(self) -> bool:
        """Whether there is more to deliver."""
        return bool(self._todo or self._asked)

    def deliveries(self) -> list[Delivery]:
        """Return what to deliver next; nothing, if nobody is known to have one of the places."""
        self.failure = None
        self._hops += 1
        by_node: dict[Address, list[int]] = {}
        try:
            for index in self._todo:
                by_node.setdefault(self._topology.node_of(self._parts[index][0]), []).append(index)
        except StoreUnavailableError as failure:
            self.failure = failure
            return []
        found = [
            Delivery(address, Round([self._parts[index] for index in indexes]), indexes)
            for address, indexes in by_node.items()
        ]
        for address, asked in self._asked.items():
            commands = [self._parts[part][1].commands[at] for part, at in asked]
            indexes = list(dict.fromkeys(part for part, _ in asked))
            found.append(Delivery(address, _Asked(commands), indexes, asked))
        self._asked = {}
        return found

    def failed(self, delivery: Delivery, failure: StoreError) -> None:
        """Take note that a delivery has no answer.

        Raises:
            StoreError: it never will.
        """
        if not isinstance(failure, TRANSIENT):
            raise failure
        self.failure = failure
        self._again(delivery.indexes)

    def answered(self, delivery: Delivery, replies: Sequence[Any]) -> None:
        """Take the replies to a delivery.

        Raises:
            StoreError: a node has refused something.
        """
        if delivery.asked:
            self._take_asked(delivery, replies)
            return
        at = 0
        for index in delivery.indexes:
            request = self._parts[index][1]
            count = request.reply_count()
            self._take(delivery.address, index, request, replies[at : at + count])
            at += count

    def _take(self, address: Address, index: int, request: Request, replies: Sequence[Any]) -> None:
        redirected = [each for each in replies if isinstance(each, RedirectedError)]
        place = self._parts[index][0]
        if not redirected:
            self._settle(index, request.settle(replies))
        elif isinstance(place, str):
            raise redirected[0]
        elif any(each.kind == "MOVED" for each in redirected):
            (moved, *_) = [each for each in redirected if each.kind == "MOVED"]
            self._topology.moved(place, moved, address)
        elif request.atomic or request.encoded is not None:
            if request.encoded is None and _READS.issuperset(
                command[0] for command in request.commands
            ):
                # One by one, they can be read wherever they are.
                self._parts[index] = place, request._replace(atomic=False, ready=None)
            else:
                self._settle(index, SlotMovingError(str(redirected[0])))
        elif any(each.kind == "TRYAGAIN" for each in redirected):
            self.failure = SlotMovingError(str(redirected[0]))
        else:
            self._todo.pop(index, None)
            self._replies[index] = list(replies)
            for number, reply in enumerate(replies):
                if isinstance(reply, RedirectedError):
                    target = self._topology.target(reply, address)
                    self._asked.setdefault(target, []).append((index, number))

    def _take_asked(self, delivery: Delivery, replies: Sequence[Any]) -> None:
        for (index, number), reply in zip(delivery.asked, replies[1::2], strict=True):
            if index not in self._replies:
                continue
            if isinstance(reply, RedirectedError):
                self.failure = SlotMovingError(str(reply))
                self._again([index])
            else:
                self._replies[index][number] = reply
        for index in delivery.indexes:
            found = self._replies.get(index)
            if found is not None and not any(isinstance(each, RedirectedError) for each in found):
                del self._replies[index]
                self._settle(index, self._parts[index][1].settle(found))

    def _settle(self, index: int, outcome: object) -> None:
        self.outcomes[index] = outcome
        self._todo.pop(index, None)

    def _again(self, indexes: Sequence[int]) -> None:
        """Have parts delivered anew."""
        for index in indexes:
            self._replies.pop(index, None)
            self._todo[index] = None
        for address, asked in list(self._asked.items()):
            self._asked[address] = [each for each in asked if each[0] not in self._todo]
            if not self._asked[address]:
                del self._asked[address]
