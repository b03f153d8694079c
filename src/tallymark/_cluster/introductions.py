"""What a tally and a cluster say to each other first: generators of what to ask whom. Pure.

A driver asks, and sends the replies in, or throws in the `StoreError` that there was
instead; so both drivers say the same.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final

from .._core.failures import TRANSIENT, RedirectedError
from .._core.urls import Address
from .._reading.requests import Request
from ..errors import StoreError, StoreUnavailableError
from .topology import ASK_SLOTS

if TYPE_CHECKING:
    from .handshake import Greeting
    from .topology import Topology

__all__ = ["PATIENCE", "Introduction", "greeted", "learned"]

#: Yields the node to ask, the commands and how many replies they have.
Introduction = Generator[tuple[Address, bytes, int], list[Any], None]

#: A node that has not answered after so many seconds is not waited for.
PATIENCE: Final = 1.0

#: So many nodes in a row may say that another one has a slot.
_HOPS: Final = 5


def learned(topology: Topology) -> Introduction:
    """Learn which node has what, from the first one that tells.

    Raises:
        StoreError: no node does.
    """
    told: StoreError | None = None
    request = Request([ASK_SLOTS], replies=list)
    for address in topology.candidates():
        try:
            replies = yield address, request.encode(), request.reply_count()
            (slots,) = request.settle(replies)
            topology.update(slots, address)
        except StoreError as failure:  # noqa: PERF203 - one or two nodes
            topology.failed(address)
            if told is None or isinstance(told, TRANSIENT):
                told = failure  # one that is not of connections tells more
        else:
            topology.worked(address)
            return
    if told is not None and not isinstance(told, TRANSIENT):
        raise told
    raise StoreUnavailableError(f"no node of the cluster tells who has what: {told}")


def greeted(topology: Topology, greeting: Greeting, *, marking: bool) -> Introduction:
    """Learn whether the database is sharded as the tally is.

    Raises:
        StoreError: that cannot be learned now, or it is not.
    """
    data, count = greeting.commands(marking=marking)
    address = topology.owner(topology.note_slot)
    if address is None:
        raise StoreUnavailableError("no node of the cluster is known to have its first slot")
    replies: list[Any] = []
    for _ in range(_HOPS):
        replies = yield address, data, count
        moved = next((each for each in replies if isinstance(each, RedirectedError)), None)
        if moved is None:
            break
        if moved.kind != "MOVED":  # its slot is on its way
            raise StoreUnavailableError(str(moved))
        address = topology.target(moved, address)
    greeting.check(replies)
