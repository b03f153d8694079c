"""The stream of the ids of an event set: fetched part by part, in ascending order. Pure.

With the option ``user_ids``, in the ascending order of the users' numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .._core.arguments import checked_int
from .._core.keys import MAX_USER_ID
from .._core.untrusted import shown
from ..errors import InvalidValueError
from .bits import PIECE_BITS, algebra
from .bounds import check_bitmaps
from .expressions import (
    MAX_PART,
    MIN_PART,
    compile_graph,
    fetch_part,
    find_candidate,
    load_algebra,
)
from .fanout import gather
from .requests import Page
from .user_ids import find_ids, find_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._core.context import Context
    from .._core.events import EventSet
    from .._core.user_ids import Dictionary
    from .graphs import Graph
    from .requests import Query

__all__ = ["users"]

#: The size of the first part in bytes: of each bitmap, in all shards together.
_FIRST_PART: Final = 8 * 1024

#: How many ids a page of a sharded database has at most, or one with a dictionary.
_PAGE: Final = 8192

#: Of how many lists a page of a database with a dictionary has the ids at most: numpy needs
#: 10 us for a list, however short.
_LISTS: Final = 256

#: How many ids are looked up at least, if a limit needs fewer: some users may have no id.
_LEAST: Final = 64

#: After a part with fewer users, parts get larger; after a part with more, smaller.
_FEW: Final = 4_096
_MANY: Final = 65_536


def users(context: Context, event_set: EventSet, start: Any, limit: int | None) -> Query[None]:
    """Return a query that yields the ids of an event set, in ascending order, as pages.

    Arguments:
        context: the database.
        event_set: the event set.
        start: the least id to yield; with a dictionary, the id of the user with the least
            number to yield. ``None`` for the beginning.
        limit: how many ids to yield at most; ``None`` for all.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed. The query itself raises
            an InvalidValueError if a dictionary does not have the id ``start``.
    """
    event_set = context.checked(event_set)
    dictionary = context.schema.dictionary
    if start is not None and dictionary is not None:
        dictionary.ids.key(start)  # checks it
    elif start is not None:
        start = checked_int("start", start)
        if not 0 <= start <= MAX_USER_ID:
            raise InvalidValueError(f"start must be in [0, {MAX_USER_ID}], got {shown(start)}")
    limit = None if limit is None else checked_int("limit", limit)
    if limit is not None and limit < 0:
        raise InvalidValueError(
            f"limit must be 0 or more, or None for no limit, got {shown(limit)}"
        )
    return _users(context, event_set, start, limit)


class _Parts:
    """Reads an event set part by part: the same range of bytes of all shards at a time.

    Attributes:
        smallest, largest: the least and the greatest size of a part, in bytes of each bitmap of
            a shard.
        step: the difference between the ids of two neighbouring bits: the number of shards.
    """

    def __init__(self, context: Context, graph: Graph) -> None:
        self._context = context
        self._graphs = [graph.with_prefix(shard.origin.prefix) for shard in context.shards]
        self.step = len(self._graphs)
        largest = MAX_PART // (len(graph.bitmaps) * self.step)
        self.smallest = max(MIN_PART, min(_FIRST_PART // self.step, largest))
        self.largest = max(self.smallest, largest)

    def ids(self, at: int, size: int) -> Query[tuple[Iterator[list[int]], int]]:
        """Return the ids in a part.

        Arguments:
            at: the index of the part's first byte in each bitmap.
            size: the size of the part, in bytes of each bitmap.

        Returns:
            An iterator over lists of ids, in ascending order; and how many bytes of the part
            the longest bitmap has.
        """
        parts = yield from gather(
            self._context,
            ((shard, fetch_part(graph, at, size)) for shard, graph in enumerate(self._graphs)),
        )
        by_shard = [algebra().ids(value, length, 8 * at) for value, length in parts]
        lists = self._merge(by_shard, 8 * at) if self.step > 1 else by_shard[0]
        return lists, max(length for _, length in parts)

    def _merge(self, by_shard: Sequence[Iterator[list[int]]], first: int) -> Iterator[list[int]]:
        """Yield the ids of all shards in ascending order.

        Arguments:
            by_shard: the set bits of each shard, in lists of those in a piece of `PIECE_BITS`
                bits; pieces without set bits are left out.
            first: the offset of the first bit of the first piece.
        """
        waiting = [next(lists, None) for lists in by_shard]
        while firsts := [bits[0] for bits in waiting if bits is not None]:
            end = first + ((min(firsts) - first) // PIECE_BITS + 1) * PIECE_BITS
            ids: list[int] = []
            for shard, bits in enumerate(waiting):
                if bits is not None and bits[0] < end:
                    ids += [bit * self.step + shard for bit in bits]
                    waiting[shard] = next(by_shard[shard], None)
            ids.sort()  # fast: timsort merges the ascending runs
            yield from (ids[begin : begin + _PAGE] for begin in range(0, len(ids), _PAGE))

    def find_candidate(self, at: int) -> Query[int | None]:
        """Return the index of the next byte that may have a user in any shard.

        Arguments:
            at: the index of the byte to begin with.

        Returns:
            The index, or None if there is no such byte.
        """
        by_shard = yield from gather(
            self._context,
            ((shard, find_candidate(graph, at)) for shard, graph in enumerate(self._graphs)),
        )
        return min((index for index in by_shard if index is not None), default=None)


def _users(context: Context, event_set: EventSet, start: Any, limit: int | None) -> Query[None]:
    yield from check_bitmaps(context, [event_set])
    dictionary = context.schema.dictionary
    first: int = start or 0
    if dictionary is not None and start is not None:
        first = yield from _number(context, dictionary, start)
    graph = yield from compile_graph([event_set])
    yield from load_algebra()
    parts = _Parts(context, graph)
    remaining = MAX_USER_ID + 1 if limit is None else limit
    at: int | None = (first // parts.step) >> 3
    size = parts.smallest
    while remaining and at is not None:
        lists, length = yield from parts.ids(at, size)
        number = 0
        for numbers in lists if dictionary is None else _joined(lists):
            page = numbers if numbers[0] >= first else [each for each in numbers if each >= first]
            number += len(page)
            if dictionary is not None:
                page = yield from _known(context, page, remaining)
            page = page[:remaining]
            if page:
                remaining -= len(page)
                yield Page(page)
            if not remaining:
                return
        if length < size:
            return
        at += size
        if not number:
            at = yield from parts.find_candidate(at)
        if number < _FEW:
            size = min(2 * size, parts.largest)
        elif number > _MANY:
            size = max(size // 2, parts.smallest)


def _number(context: Context, dictionary: Dictionary, start: Any) -> Query[int]:
    """Return the number of the user with an id.

    Raises:
        InvalidValueError: there is no such user.
    """
    (number,) = yield from find_numbers(context, dictionary.ids.keys([start]))
    if number is None:
        raise InvalidValueError(f"start must be the id of a known user, got {shown(start)}")
    return number


def _joined(lists: Iterator[list[int]]) -> Iterator[list[int]]:
    """Yield the numbers of some lists in longer ones, which take fewer requests to look up."""
    joined: list[int] = []
    for count, numbers in enumerate(lists):
        if joined and (len(joined) + len(numbers) > _PAGE or count % _LISTS == 0):
            yield joined
            joined = []
        joined += numbers
    if joined:
        yield joined


def _known(context: Context, numbers: Sequence[int], most: int) -> Query[list[Any]]:
    """Return the ids of users with some numbers, without those users who have no id.

    Arguments:
        context: the database.
        numbers: the numbers, in ascending order.
        most: how many ids are needed; looks up further numbers only until it has so many.
    """
    ids: list[Any] = []
    at = 0
    while at < len(numbers) and len(ids) < most:
        end = at + max(most - len(ids), _LEAST)
        found = yield from find_ids(context, numbers[at:end])
        ids += [user_id for user_id in found if user_id is not None]
        at = end
    return ids
