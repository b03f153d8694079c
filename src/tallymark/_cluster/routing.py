"""Routing: which node gets which requests, and where redirected commands go. Pure.

A `Router` sends one `Scatter` to the nodes of a cluster. It makes `NodeRequest`s and takes
their replies, until each part has an outcome. Commands that a node redirects go to the node
that the redirection names. A transaction on keys of a migrating slot, some of which have
moved, is sent again as single commands if it only reads; else its outcome is a
`SlotMovingError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._core import encoding
from .._core.failures import MAX_REDIRECTS, TRANSIENT, RedirectedError, SlotMovingError
from .._reading.requests import Scatter
from ..errors import StoreError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._core.urls import Address
    from .._reading.execution import Sendable
    from .._reading.requests import Command, Request
    from .topology import Topology

__all__ = ["NodeRequest", "Router"]

#: Commands that read one key.
_READS: Final = frozenset(
    # BITFIELD, since queries use its GET only.
    (b"GETBIT", b"GETRANGE", b"BITCOUNT", b"BITPOS", b"STRLEN", b"BITFIELD", b"BITFIELD_RO")
)


class NodeRequest(NamedTuple):
    """A request for one node.

    Attributes:
        address: the node.
        request: what to send.
        indexes: the indexes of the parts of the `Scatter` in it.
        redirected: if it has single commands that another node has redirected: the index of
            the part of each, and the index of the command in the part.
    """

    address: Address
    request: Sendable
    indexes: Sequence[int]
    redirected: Sequence[tuple[int, int]] = ()


class _AskingCommands(NamedTuple):
    """Single commands for a node that is importing their slot, each after an ``ASKING``."""

    commands: Sequence[Command]
    share: int = 1

    def encode(self) -> bytes:
        return b"".join([encoding.ASKING + encoding.command(*command) for command in self.commands])

    def reply_count(self) -> int:
        return 2 * len(self.commands)


class Router:
    """Routes one `Scatter`, until all of its parts have an outcome.

    Attributes:
        outcomes: the outcome of each part, in order: parsed replies, or a `SlotMovingError`.
        failure: why some of the last requests have to be repeated; ``None`` if none has to,
            or only for redirections.
    """

    def __init__(self, scatter: Scatter, topology: Topology) -> None:
        self._parts = list(scatter.parts)
        self._topology = topology
        #: The indexes of the parts to send, in order.
        self._unsent = dict.fromkeys(range(len(self._parts)))
        #: The replies to parts that have other commands redirected, by index.
        self._replies: dict[int, list[Any]] = {}
        #: Redirected commands, by the node that is importing their slot: the indexes of the
        #: part, and of the command in it.
        self._importing: dict[Address, list[tuple[int, int]]] = {}
        self.outcomes: list[Any] = [None] * len(self._parts)
        self.failure: StoreError | None = None
        self._redirects = 0

    @property
    def retry_reason(self) -> StoreError | None:
        """The reason to pause and refresh the topology before the next requests, if any."""
        if self.failure is None and self._redirects > MAX_REDIRECTS:
            return StoreUnavailableError("the nodes redirect to each other")
        return self.failure

    @property
    def has_more(self) -> bool:
        """Whether there is more to send."""
        return bool(self._unsent or self._importing)

    def node_requests(self) -> list[NodeRequest]:
        """Return the next requests; none, if no node is known to have one of the shards."""
        self.failure = None
        self._redirects += 1
        by_node: dict[Address, list[int]] = {}
        try:
            for index in self._unsent:
                by_node.setdefault(self._topology.node_of(self._parts[index][0]), []).append(index)
        except StoreUnavailableError as failure:
            self.failure = failure
            return []
        requests = [
            NodeRequest(address, Scatter([self._parts[index] for index in indexes]), indexes)
            for address, indexes in by_node.items()
        ]
        for address, redirected in self._importing.items():
            commands = [self._parts[part][1].commands[at] for part, at in redirected]
            indexes = list(dict.fromkeys(part for part, _ in redirected))
            requests.append(NodeRequest(address, _AskingCommands(commands), indexes, redirected))
        self._importing = {}
        return requests

    def failed(self, request: NodeRequest, failure: StoreError) -> None:
        """Have the parts of a request sent again.

        Raises:
            StoreError: the failure, if it is not transient.
        """
        if not isinstance(failure, TRANSIENT):
            raise failure
        self.failure = failure
        self._repeat(request.indexes)

    def answered(self, request: NodeRequest, replies: Sequence[Any]) -> None:
        """Take the replies to a request, and the redirections among them.

        Raises:
            StoreError: a node has refused a command.
        """
        if request.redirected:
            self._take_redirected(request, replies)
            return
        at = 0
        for index in request.indexes:
            part = self._parts[index][1]
            count = part.reply_count()
            self._take(request.address, index, part, replies[at : at + count])
            at += count

    def _take(self, address: Address, index: int, part: Request, replies: Sequence[Any]) -> None:
        redirected = [reply for reply in replies if isinstance(reply, RedirectedError)]
        route = self._parts[index][0]
        if not redirected:
            self._finish(index, part.parse(replies))
        elif isinstance(route, str):
            raise redirected[0]
        elif any(error.kind == "MOVED" for error in redirected):
            (moved, *_) = [error for error in redirected if error.kind == "MOVED"]
            self._topology.moved(route, moved, address)
        elif part.atomic or part.encoded is not None:
            if part.encoded is None and _READS.issuperset(command[0] for command in part.commands):
                # For a single command, one of the two nodes has the key.
                self._parts[index] = route, part._replace(atomic=False, cached=None)
            else:
                self._finish(index, SlotMovingError(str(redirected[0])))
        elif any(error.kind == "TRYAGAIN" for error in redirected):
            self.failure = SlotMovingError(str(redirected[0]))
        else:
            self._unsent.pop(index, None)
            self._replies[index] = list(replies)
            for number, reply in enumerate(replies):
                if isinstance(reply, RedirectedError):
                    target = self._topology.target(reply, address)
                    self._importing.setdefault(target, []).append((index, number))

    def _take_redirected(self, request: NodeRequest, replies: Sequence[Any]) -> None:
        for (index, number), reply in zip(request.redirected, replies[1::2], strict=True):
            if index not in self._replies:
                continue
            if isinstance(reply, RedirectedError):
                self.failure = SlotMovingError(str(reply))
                self._repeat([index])
            else:
                self._replies[index][number] = reply
        for index in request.indexes:
            part = self._replies.get(index)
            if part is not None and not any(isinstance(reply, RedirectedError) for reply in part):
                del self._replies[index]
                self._finish(index, self._parts[index][1].parse(part))

    def _finish(self, index: int, outcome: object) -> None:
        self.outcomes[index] = outcome
        self._unsent.pop(index, None)

    def _repeat(self, indexes: Sequence[int]) -> None:
        """Have whole parts sent again."""
        for index in indexes:
            self._replies.pop(index, None)
            self._unsent[index] = None
