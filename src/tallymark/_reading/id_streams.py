"""The stream of the ids of an event set: fetched part by part, in ascending order. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .._core.keys import MAX_USER_ID, checked_int
from .._core.untrusted import shown
from ..errors import InvalidValueError
from .bits import PIECE_BITS, algebra
from .bounds import bounded
from .expressions import (
    LARGEST_PART,
    LEAST_PART,
    compiled,
    next_candidate,
    part_of,
    reckoning,
)
from .fanout import gather
from .requests import Page

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._core.context import Context
    from .._core.events import EventSet
    from .graphs import Graph
    from .requests import Query

__all__ = ["users"]

#: How many bytes a stream begins with, of each bitmap and all shards together.
_SMALLEST: Final = 8 * 1024

#: How many users of a sharded database are handed on together, at most.
_PIECE: Final = 8192

#: A part with fewer users is followed by a larger part, one with more by a smaller one.
_FEW: Final = 4_096
_MANY: Final = 65_536


def users(context: Context, event_set: EventSet, start: int, limit: int | None) -> Query[None]:
    """Find the users of an event set from an id on, in ascending order, part by part."""
    asked = context.checked(event_set)
    start = checked_int("start", start)
    if not 0 <= start <= MAX_USER_ID:
        raise InvalidValueError(f"start must be in [0, {MAX_USER_ID}], got {shown(start)}")
    limit = None if limit is None else checked_int("limit", limit)
    if limit is not None and limit < 0:
        raise InvalidValueError(
            f"limit must be 0 or more, or None for no limit, got {shown(limit)}"
        )
    return _users(context, asked, start, limit)


class _Parts:
    """An event set that is read part by part: the same part of all shards at a time.

    Attributes:
        smallest, largest: how many bytes of each bitmap of a shard a part may have.
        step: the distance of the users of two neighbouring bits: the number of shards.
    """

    def __init__(self, context: Context, graph: Graph) -> None:
        self._context = context
        self._graphs = [graph.below(part.origin.prefix) for part in context.shards]
        self.step = len(self._graphs)
        largest = LARGEST_PART // (len(graph.bitmaps) * self.step)
        self.smallest = max(LEAST_PART, min(_SMALLEST // self.step, largest))
        self.largest = max(self.smallest, largest)

    def ids(self, at: int, size: int) -> Query[tuple[Iterator[list[int]], int]]:
        """Return the users of a part, piece by piece, and how many bytes there are of it."""
        parts = yield from gather(
            self._context,
            ((shard, part_of(graph, at, size)) for shard, graph in enumerate(self._graphs)),
        )
        shards = [algebra().ids(value, length, 8 * at) for value, length in parts]
        pieces = self._merged(shards, 8 * at) if self.step > 1 else shards[0]
        return pieces, max(length for _, length in parts)

    def _merged(self, shards: Sequence[Iterator[list[int]]], first: int) -> Iterator[list[int]]:
        """Put together the users of the same piece of all shards, one piece after the other.

        Arguments:
            shards: the bits of each, in pieces of one length; some have none of a piece.
            first: the first bit of the first piece.
        """
        waiting = [next(own, None) for own in shards]
        while some := [bits[0] for bits in waiting if bits is not None]:
            end = first + ((min(some) - first) // PIECE_BITS + 1) * PIECE_BITS
            found: list[int] = []
            for shard, bits in enumerate(waiting):
                if bits is not None and bits[0] < end:
                    found += [bit * self.step + shard for bit in bits]
                    waiting[shard] = next(shards[shard], None)
            found.sort()  # which merges what is in order already
            yield from (found[begin : begin + _PIECE] for begin in range(0, len(found), _PIECE))

    def candidate(self, at: int) -> Query[int | None]:
        """Return the first byte from one on that may have a user; None if none has."""
        found = yield from gather(
            self._context,
            ((shard, next_candidate(graph, at)) for shard, graph in enumerate(self._graphs)),
        )
        return min((byte for byte in found if byte is not None), default=None)


def _users(context: Context, event_set: EventSet, start: int, limit: int | None) -> Query[None]:
    yield from bounded(context, [event_set])
    graph = yield from compiled([event_set])
    yield from reckoning()
    parts = _Parts(context, graph)
    left = MAX_USER_ID + 1 if limit is None else limit
    at: int | None = (start // parts.step) >> 3
    size = parts.smallest
    while left and at is not None:
        pieces, length = yield from parts.ids(at, size)
        number = 0
        for ids in pieces:
            some = ids if ids[0] >= start else [user_id for user_id in ids if user_id >= start]
            some = some[:left]
            number += len(some)
            left -= len(some)
            yield Page(some)
            if not left:
                return
        if length < size:
            return
        at += size
        if not number:
            at = yield from parts.candidate(at)
        if number < _FEW:
            size = min(2 * size, parts.largest)
        elif number > _MANY:
            size = max(size // 2, parts.smallest)
