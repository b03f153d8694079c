"""The verbs that count, empty or store event sets: each a generator of what to send. Pure.

`tallymark._reading.requests` says what these yield, and drivers run them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .._core.events import Bitmap, Combination, walk
from .._core.failures import SlotMovingError
from .._core.unions import PeriodUnion
from .._core.untrusted import shown
from ..errors import InvalidTypeError
from .bounds import bounded, check_number
from .expressions import (
    LARGEST_PART,
    LEAST_PART,
    asking,
    asking_shards,
    check_cost,
    compiled,
    compiled_each,
    next_candidate,
    part_of,
    reckoning,
)
from .fanout import each_shard
from .raw_keys import bitcount, unlinked
from .requests import Request, in_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .._core.context import Context
    from .._core.events import EventSet
    from .graphs import Graph
    from .requests import Command, Query

__all__ = ["count", "counts", "delete", "is_empty", "store"]

#: How many counts may go to the server together. One over ten million users takes it about
#: a millisecond.
_COUNTS: Final = 4

#: How many numbers, each of all shards, are added up in one step.
_FEW_SUMS: Final = 200


def count(context: Context, event_set: EventSet) -> Query[int]:
    """Return how many users are in an event set."""
    asked = context.checked(event_set)
    yield from bounded(context, [asked])
    by_shard = yield from _ask(context, [asked], bitcount, _counted_all)
    return sum([number for (number,) in by_shard])


def counts(context: Context, event_sets: Iterable[EventSet]) -> Query[list[int]]:
    """Return how many users are in each of some event sets, all at one moment."""
    found = context.checked_many(event_sets)
    check_number(context, len(found), "event sets")
    yield from bounded(context, found)
    by_shard = yield from _ask(context, found, bitcount, _counted_all)
    return (yield from in_steps(map(sum, zip(*by_shard, strict=True)), _FEW_SUMS))


def is_empty(context: Context, event_set: EventSet) -> Query[bool]:
    """Return whether nobody is in an event set."""
    asked = context.checked(event_set)
    yield from bounded(context, [asked])
    by_shard = yield from _ask(context, [asked], _first_bit, _first_of_all)
    return max(by_shard) == [-1]


def _first_bit(key: bytes) -> Command:
    return (b"BITPOS", key, b"1")


def _counted_all(graphs: Sequence[Graph]) -> Query[list[int]]:
    numbers = [0] * len(graphs)
    for index, graph in enumerate(graphs):
        numbers[index] = yield from _counted(graph)
    return numbers


def _first_of_all(graphs: Sequence[Graph]) -> Query[list[int]]:
    """Return -1 for an expression that has no users, as ``BITPOS`` does; else 0."""
    numbers = [0] * len(graphs)
    for index, graph in enumerate(graphs):
        numbers[index] = 0 if (yield from _counted(graph, enough=1)) else -1
    return numbers


def delete(context: Context, event_set: EventSet) -> Query[int]:
    """Delete the bitmaps of an event set, which has to be a bitmap or a union of some."""
    asked = context.checked(event_set)
    yield from bounded(context, [asked])
    bitmaps = tuple(dict.fromkeys((yield from in_steps(_deletable(asked)))))

    def deleted(part: Context) -> Query[list[int]]:
        keys = yield from in_steps(bitmap.key_below(part.origin.prefix) for bitmap in bitmaps)
        return (yield from unlinked(context, keys))

    # A bitmap counts once, in however many shards it was.
    numbers = yield from each_shard(context, deleted)
    return sum(map(max, zip(*numbers, strict=True)))


def store(context: Context, event_set: EventSet, key: bytes) -> Query[int]:
    """Write the users of an event set, as they are now, to a key; return how many bytes it has."""
    asked = context.checked(event_set)
    yield from bounded(context, [asked])
    graph = yield from compiled([asked])
    yield from check_cost(context, graph)
    request, (reply,) = yield from asking(
        context.origin.prefix, graph, lambda found: (b"BITOP", b"OR", key, found)
    )
    replies = yield request._replace(changes=True)
    return int(replies[reply])


def _ask(
    context: Context,
    event_sets: Sequence[EventSet],
    question: Callable[[bytes], Command],
    otherwise: Callable[[Sequence[Graph]], Query[list[Any]]],
) -> Query[list[list[Any]]]:
    """Ask all shards the same about some event sets; return the answers of each shard.

    The answers of a shard are of one moment, but for those of ``otherwise``.

    Arguments:
        context: the database.
        event_sets: the event sets.
        question: returns the command that asks about the bitmap under a key.
        otherwise: asks a replica, or a shard while its slot is moving, with a graph for
            each event set.
    """
    if not event_sets:
        return []
    if context.options.reads_elsewhere and not {Bitmap}.issuperset(map(type, event_sets)):
        # A replica writes no temporary keys.
        graphs = yield from compiled_each(event_sets)
        return (yield from each_shard(context, lambda part: otherwise(_below(part, graphs))))
    graph = yield from compiled(event_sets)
    if graph.writes > context.sure_writes:
        yield from check_cost(context, graph)
    request_of, asked, at_once = yield from asking_shards(context, graph, question)

    def answers(part: Context) -> Query[list[Any]]:
        try:
            replies = yield request_of(part)
        except SlotMovingError:
            # While the slot is moving, its bitmaps can be read one by one wherever they are.
            graphs = yield from compiled_each(event_sets)
            return (yield from otherwise(_below(part, graphs)))
        return [replies[index] for index in asked]

    return (yield from each_shard(context, answers, at_once))


def _below(part: Context, graphs: Iterable[Graph]) -> list[Graph]:
    return [graph.below(part.origin.prefix) for graph in graphs]


def _counted(graph: Graph, *, enough: int | None = None) -> Query[int]:
    """Return how many users an expression has, or no less than ``enough`` of them.

    Without temporary keys, which a replica would not write: a bitmap is counted
    there, all else on this side, part by part.
    """
    if not graph.operations:
        (number,) = yield Request([(b"BITCOUNT", graph.key_of(graph.bitmaps[0]))], share=_COUNTS)
        return int(number)
    reckon = yield from reckoning()
    size = max(LEAST_PART, LARGEST_PART // len(graph.bitmaps))
    at: int | None = 0
    number = 0
    while at is not None and (enough is None or number < enough):
        value, length = yield from part_of(graph, at, size)
        here = reckon.count(value)
        number += here
        if length < size:
            break
        at = at + size if here else (yield from next_candidate(graph, at + size))
    return number


def _deletable(event_set: EventSet) -> Iterator[Bitmap]:
    """Yield the bitmaps that an event set names, each by itself."""
    for one in walk([event_set]):
        if isinstance(one, Combination) and one.operator == "|":
            continue
        own = one.own if isinstance(one, PeriodUnion) else one
        if not isinstance(own, Bitmap):
            raise InvalidTypeError(
                "what is deleted are bitmaps, one or a union of several, "
                f"which {shown(event_set)} is not"
            )
        yield own
