"""Queries that count, test, store or delete event sets. Pure.

Each query is a generator of the effects in `tallymark._reading.requests`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .._core.events import Bitmap, Combination, walk
from .._core.failures import SlotMovingError
from .._core.unions import PeriodUnion
from .._core.untrusted import shown
from ..errors import InvalidTypeError
from .bounds import check_bitmaps, check_number
from .expressions import (
    build_request,
    build_shard_requests,
    check_cost,
    compile_graph,
    compile_graphs,
    fetch_part,
    find_candidate,
    is_short_work,
    load_algebra,
    part_size,
)
from .fanout import each_shard
from .raw_keys import bitcount, unlink
from .requests import Request, in_steps, send

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .._core.context import Context
    from .._core.events import EventSet
    from .graphs import Graph
    from .requests import Command, Query

__all__ = ["count", "counts", "delete", "is_empty", "store"]

#: How many counts may be sent together. Redis counts a bitmap of ten million users in about a
#: millisecond.
_COUNTS: Final = 4

#: How many sums over all shards are computed between two checkpoints.
_SUMS: Final = 200


def count(context: Context, event_set: EventSet) -> Query[int]:
    """Return how many users are in an event set."""
    event_set = context.checked(event_set)
    yield from check_bitmaps(context, [event_set])
    by_shard = yield from _read(context, [event_set], bitcount, _counts_in_client)
    return sum([number for (number,) in by_shard])


def counts(context: Context, event_sets: Iterable[EventSet]) -> Query[list[int]]:
    """Return how many users are in each of some event sets, all at the same moment."""
    checked = context.checked_many(event_sets)
    check_number(context, len(checked), "event sets")
    yield from check_bitmaps(context, checked)
    by_shard = yield from _read(context, checked, bitcount, _counts_in_client)
    return (yield from in_steps(map(sum, zip(*by_shard, strict=True)), _SUMS))


def is_empty(context: Context, event_set: EventSet) -> Query[bool]:
    """Return whether an event set has no users."""
    event_set = context.checked(event_set)
    yield from check_bitmaps(context, [event_set])
    by_shard = yield from _read(context, [event_set], _first_bit, _first_bits_in_client)
    return max(by_shard) == [-1]


def _first_bit(key: bytes) -> Command:
    return (b"BITPOS", key, b"1")


def _counts_in_client(context: Context, graphs: Sequence[Graph]) -> Query[list[int]]:
    numbers = [0] * len(graphs)
    for index, graph in enumerate(graphs):
        numbers[index] = yield from _count_in_client(context, graph)
    return numbers


def _first_bits_in_client(context: Context, graphs: Sequence[Graph]) -> Query[list[int]]:
    """Return for each expression -1 if it has no users, as ``BITPOS`` does; else 0."""
    numbers = [0] * len(graphs)
    for index, graph in enumerate(graphs):
        numbers[index] = 0 if (yield from _count_in_client(context, graph, enough=1)) else -1
    return numbers


def delete(context: Context, event_set: EventSet) -> Query[int]:
    """Delete the bitmaps of a bitmap or of a union of bitmaps; return how many existed."""
    event_set = context.checked(event_set)
    yield from check_bitmaps(context, [event_set])
    bitmaps = tuple(dict.fromkeys((yield from in_steps(_bitmaps_to_delete(event_set)))))

    def unlink_in(shard: Context) -> Query[list[int]]:
        keys = yield from in_steps(
            bitmap.key_with_prefix(shard.origin.prefix) for bitmap in bitmaps
        )
        return (yield from unlink(context, keys))

    # A bitmap counts once, even if several shards have it.
    by_shard = yield from each_shard(context, unlink_in)
    return sum(map(max, zip(*by_shard, strict=True)))


def store(context: Context, event_set: EventSet, key: bytes) -> Query[int]:
    """Write the present users of an event set to a key; return the bitmap's length in bytes."""
    event_set = context.checked(event_set)
    yield from check_bitmaps(context, [event_set])
    graph = yield from compile_graph([event_set])
    yield from check_cost(context, graph)
    request, (reply_index,) = yield from build_request(
        context.origin.prefix, graph, lambda result: (b"BITOP", b"OR", key, result)
    )
    replies = yield request._replace(changes=True)
    return int(replies[reply_index])


def _read(
    context: Context,
    event_sets: Sequence[EventSet],
    read_command: Callable[[bytes], Command],
    fallback: Callable[[Context, Sequence[Graph]], Query[list[Any]]],
) -> Query[list[list[Any]]]:
    """Compute event sets in all shards, and read each result with one command.

    Arguments:
        context: the database.
        event_sets: the event sets.
        read_command: returns the command that reads the bitmap under a key.
        fallback: reads the results without temporary keys, given the database and a graph in a
            shard for each event set: from a replica, from a shard whose slot is migrating, or
            where thresholds would block the server for long.

    Returns:
        For each shard the list of the replies to ``read_command``. Those of one shard are of
        one moment, except for those of ``fallback``.
    """
    if not event_sets:
        return []
    if len(event_sets) == 1 and type(event_sets[0]) is Bitmap and len(context.shards) == 1:
        # The short way of nearly all counts: there is no expression to plan.
        key = event_sets[0].key_with_prefix(context.shards[0].origin.prefix)
        request = Request([read_command(key)], share=_COUNTS)
        return (yield from each_shard(context, lambda _: send(request)))
    # A replica refuses to write temporary keys.
    in_client = context.options.reads_elsewhere and not {Bitmap}.issuperset(map(type, event_sets))
    graph = None
    if not in_client:
        graph = yield from compile_graph(event_sets)
        if graph.has_thresholds and not (yield from is_short_work(context, graph)):
            graph = None
    if graph is None:
        graphs = yield from compile_graphs(event_sets)
        return (
            yield from each_shard(
                context, lambda shard: fallback(context, _in_shard(shard, graphs))
            )
        )
    yield from check_cost(context, graph)
    request_of, indexes, concurrency = yield from build_shard_requests(context, graph, read_command)

    def read_shard(shard: Context) -> Query[list[Any]]:
        try:
            replies = yield request_of(shard)
        except SlotMovingError:
            # While a slot is migrating, only commands on single keys reach all of its bitmaps.
            graphs = yield from compile_graphs(event_sets)
            return (yield from fallback(context, _in_shard(shard, graphs)))
        return [replies[index] for index in indexes]

    return (yield from each_shard(context, read_shard, concurrency))


def _in_shard(shard: Context, graphs: Iterable[Graph]) -> list[Graph]:
    return [graph.with_prefix(shard.origin.prefix) for graph in graphs]


def _count_in_client(context: Context, graph: Graph, *, enough: int | None = None) -> Query[int]:
    """Return how many users an expression has, or at least ``enough`` if it has that many.

    Uses no temporary keys, which a replica would refuse: the server counts a single bitmap;
    of other expressions, the client fetches and counts one part after the other.
    """
    if not graph.operations:
        (number,) = yield Request([(b"BITCOUNT", graph.key_of(graph.bitmaps[0]))], share=_COUNTS)
        return int(number)
    algebra = yield from load_algebra()
    size = part_size(context, graph)
    at: int | None = 0
    number = 0
    while at is not None and (enough is None or number < enough):
        value, length = yield from fetch_part(graph, at, size)
        users = algebra.count(value)
        number += users
        if length < size:
            break
        at = at + size if users else (yield from find_candidate(graph, at + size))
    return number


def _bitmaps_to_delete(event_set: EventSet) -> Iterator[Bitmap]:
    """Yield the bitmaps of an event set that `delete` accepts; of a period, its own bitmap."""
    for part in walk([event_set]):
        if isinstance(part, Combination) and part.operator == "|":
            continue
        bitmap = part.own_bitmap if isinstance(part, PeriodUnion) else part
        if not isinstance(bitmap, Bitmap):
            raise InvalidTypeError(
                "what is deleted are bitmaps, one or a union of several, "
                f"which {shown(event_set)} is not"
            )
        yield bitmap
