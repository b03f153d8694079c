"""Which node of a cluster has which slots, as far as a tally knows. Pure.

What it knows comes from ``CLUSTER SLOTS`` of any node, and from the nodes that say
where else to go (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/).
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any, Final

from .._core.failures import unexpected_reply
from .._core.keys import SLOTS, key_slot, tag_slot, tags
from .._core.untrusted import let_handlers_pass
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
    """Where the shards of a database are.

    Attributes:
        slots: the slot of each shard.
    """

    def __init__(
        self,
        startup: Iterable[Address],
        schema: KeySchema,
        remap: Callable[[Address], Address] | None = None,
    ) -> None:
        """Begin without knowing more than the names of some nodes.

        Arguments:
            startup: the nodes to ask first.
            schema: that of the database, with shards.
            remap: turns an address that nodes tell into one that can be reached.
        """
        self._startup = list(startup)
        self._remap = remap
        #: Which nodes have which slots, in order, and where each range begins: one
        #: value, since threads look it up while another one changes it.
        self._table: tuple[list[int], list[tuple[int, int, Address]]] = [], []
        self._moved: dict[int, Address] = {}
        #: ListNodes that failed since they last worked, the latest one last.
        self._suspects: dict[Address, None] = {}
        self._known: list[Address] = []
        self.slots = [tag_slot(tag.encode()) for tag in tags(schema.shards or 1)]
        self.schema_slot = key_slot(schema.schema_key)

    @property
    def known(self) -> bool:
        """Whether anything is known yet."""
        return bool(self._table[0])

    @property
    def masters(self) -> list[Address]:
        """The nodes that have slots."""
        return list(dict.fromkeys(address for _, _, address in self._table[1]))

    def candidates(self) -> list[Address]:
        """Return whom to ask: every node that was ever heard of, suspects last."""
        every = dict.fromkeys([*self.masters, *self._known, *self._startup])
        suspects = [one for one in list(self._suspects) if one in every]  # threads add some
        return [one for one in every if one not in suspects] + suspects

    def owner(self, slot: int) -> Address | None:
        """Return the node that has a slot; ``None`` if nobody does, or it is not known."""
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

    def node_of(self, place: Route) -> Address:
        """Return the node of a shard, or that which goes by a name.

        Raises:
            StoreUnavailableError: nobody has the shard, as far as is known.
        """
        if isinstance(place, str):
            host, _, port = place.rpartition(":")
            return host, int(port)
        address = self.owner(self.slots[place])
        if address is None:
            raise StoreUnavailableError(
                f"no node of the cluster is known to have slot {self.slots[place]}"
            )
        return address

    def names(self) -> list[str]:
        """Return what the masters are called as a place."""
        return [f"{host}:{port}" for host, port in self.masters]

    def update(self, reply: Any, asked: Address) -> None:
        """Take what a node has answered to `CLUSTER_SLOTS`.

        Raises:
            StoreError: that is no answer to it.
        """
        try:
            ranges, others = [], []
            for first, last, master, *replicas in reply:
                if not 0 <= first <= last < SLOTS:
                    raise unexpected_reply(reply)
                ranges.append((int(first), int(last), self._address(master, asked)))
                others += [self._address(each, asked) for each in replicas]
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            let_handlers_pass(error)
            raise unexpected_reply(reply) from error
        if not ranges:
            raise StoreUnavailableError("the node knows of no slots; is it a part of a cluster?")
        self._known = list(dict.fromkeys([*(one for _, _, one in ranges), *others]))
        ranges.sort()
        if ranges != self._table[1] or self._moved:
            self._table = [first for first, _, _ in ranges], ranges
            self._moved = {}

    def moved(self, shard: int, redirected: RedirectedError, asked: Address) -> None:
        """Take note of where a shard is now."""
        address = self.target(redirected, asked)
        if self.owner(self.slots[shard]) != address:
            self._moved[self.slots[shard]] = address

    def target(self, redirected: RedirectedError, asked: Address) -> Address:
        """Return the node that another one has named."""
        host, port = redirected.address
        return self._mapped((host or asked[0], port))

    def failed(self, address: Address) -> None:
        """Take note that a node does not work; others know better who has its slots."""
        self._suspects.pop(address, None)
        self._suspects[address] = None

    def worked(self, address: Address) -> None:
        """Take note that a node works."""
        self._suspects.pop(address, None)

    def _address(self, node: Any, asked: Address) -> Address:
        host = (node[0] or b"").decode()
        return self._mapped((asked[0] if host in {"", "?"} else host, int(node[1])))

    def _mapped(self, address: Address) -> Address:
        return address if self._remap is None else self._remap(address)
