"""The topology of a cluster: which node has which slots. Pure.

It is read by ``CLUSTER SLOTS`` from any node, and corrected by redirections
(https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/).
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any, Final

from .._core.failures import unexpected_reply
from .._core.keys import SLOTS, key_slot, tag_slot, tags
from .._core.untrusted import reraise_from_handler
from ..errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .._core.failures import RedirectedError
    from .._core.keys import KeySchema
    from .._core.urls import Address
    from .._reading.requests import Command, Route

__all__ = ["CLUSTER_SLOTS", "Topology"]

#: The command that reads the topology.
CLUSTER_SLOTS: Final[Command] = (b"CLUSTER", b"SLOTS")


class Topology:
    """The slots of the nodes, and the nodes that do not answer.

    Attributes:
        slots: the slot of each shard.
        schema_slot: the slot of the schema key.
    """

    def __init__(
        self,
        startup: Iterable[Address],
        schema: KeySchema,
        remap: Callable[[Address], Address] | None = None,
    ) -> None:
        """Begin with the addresses of some nodes, and no slots.

        Arguments:
            startup: the nodes to read the topology from at first.
            schema: the key schema of the database, with shards.
            remap: returns the reachable address for one that a node has announced.
        """
        self._startup = list(startup)
        self._remap = remap
        #: The first slots of all ranges, in order, and the ranges. One value, so that threads
        #: can read it while another thread replaces it.
        self._table: tuple[list[int], list[tuple[int, int, Address]]] = [], []
        self._moved: dict[int, Address] = {}
        #: The nodes whose last exchange failed, the latest one last.
        self._suspects: dict[Address, None] = {}
        self._known: list[Address] = []
        self.slots = [tag_slot(tag.encode()) for tag in tags(schema.shards or 1)]
        self.schema_slot = key_slot(schema.schema_key)

    @property
    def known(self) -> bool:
        """Whether the topology has been read."""
        return bool(self._table[0])

    @property
    def masters(self) -> list[Address]:
        """The nodes with slots."""
        return list(dict.fromkeys(address for _, _, address in self._table[1]))

    def candidates(self) -> list[Address]:
        """Return the nodes to read the topology from: all known ones, suspects last."""
        nodes = dict.fromkeys([*self.masters, *self._known, *self._startup])
        suspects = [node for node in list(self._suspects) if node in nodes]  # threads add some
        return [node for node in nodes if node not in suspects] + suspects

    def owner(self, slot: int) -> Address | None:
        """Return the node that has a slot; ``None`` if none is known."""
        moved = self._moved.get(slot)
        if moved is not None:
            return moved
        firsts, ranges = self._table
        at = bisect.bisect_right(firsts, slot) - 1
        if at >= 0:
            first, last, address = ranges[at]
            if first <= slot <= last:
                return address
        return None

    def node_of(self, route: Route) -> Address:
        """Return the node of a route: of a shard, or of one of `names`.

        Raises:
            StoreUnavailableError: no node is known to have the shard.
        """
        if isinstance(route, str):
            host, _, port = route.rpartition(":")
            return host, int(port)
        address = self.owner(self.slots[route])
        if address is None:
            raise StoreUnavailableError(
                f"no node of the cluster is known to have slot {self.slots[route]}"
            )
        return address

    def names(self) -> list[str]:
        """Return the masters as routes: ``host:port``."""
        return [f"{host}:{port}" for host, port in self.masters]

    def update(self, reply: Any, asked: Address) -> None:
        """Replace the slots by a reply to `CLUSTER_SLOTS`.

        Arguments:
            reply: the reply.
            asked: the node that gave the reply; it may leave out its own host.

        Raises:
            StoreError: the reply has another form, or no slots.
        """
        try:
            ranges, others = [], []
            for first, last, master, *replicas in reply:
                if not 0 <= first <= last < SLOTS:
                    raise unexpected_reply(reply)
                ranges.append((int(first), int(last), self._address(master, asked)))
                others += [self._address(replica, asked) for replica in replicas]
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            reraise_from_handler(error)
            raise unexpected_reply(reply) from error
        if not ranges:
            raise StoreUnavailableError("the node knows of no slots; is it a part of a cluster?")
        self._known = list(dict.fromkeys([*(master for _, _, master in ranges), *others]))
        ranges.sort()
        if ranges != self._table[1] or self._moved:
            self._table = [first for first, _, _ in ranges], ranges
            self._moved = {}

    def moved(self, shard: int, redirected: RedirectedError, asked: Address) -> None:
        """Record the node that has a shard, after a ``MOVED`` from the node ``asked``."""
        address = self.target(redirected, asked)
        if self.owner(self.slots[shard]) != address:
            self._moved[self.slots[shard]] = address

    def target(self, redirected: RedirectedError, asked: Address) -> Address:
        """Return the node that a redirection from the node ``asked`` names."""
        host, port = redirected.address
        return self._mapped((host or asked[0], port))

    def failed(self, address: Address) -> None:
        """Record that a node does not answer: other nodes may know which one has taken over."""
        self._suspects.pop(address, None)
        self._suspects[address] = None

    def worked(self, address: Address) -> None:
        """Record that a node answers."""
        self._suspects.pop(address, None)

    def _address(self, node: Any, asked: Address) -> Address:
        host = (node[0] or b"").decode()
        return self._mapped((asked[0] if host in {"", "?"} else host, int(node[1])))

    def _mapped(self, address: Address) -> Address:
        return address if self._remap is None else self._remap(address)
