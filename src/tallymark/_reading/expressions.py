"""Expressions of any size: their graphs, requests, costs and values. Pure.

The long computations of large expressions are `Compute` effects: an async driver runs them in a
worker thread, and both drivers end them at the call's deadline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .._core.context import MIN_WRITE_COST, TAIL_FACTOR
from ..errors import InvalidValueError
from .bitop import BitopPlan, plan_operation
from .bits import algebra, is_loaded
from .fanout import each_shard
from .graphs import Graph
from .raw_keys import getrange_commands
from .requests import MANY_COMMANDS, Compute, Request, encode_request, in_steps, run_steps, send

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from .._core.context import Context
    from .._core.events import EventSet
    from .bits import Algebra
    from .requests import Command, Query, QueryEffect

__all__ = [
    "MAX_PART",
    "MIN_PART",
    "build_request",
    "build_shard_requests",
    "check_cost",
    "compile_graph",
    "compile_graphs",
    "evaluate",
    "fetch_lengths",
    "fetch_part",
    "find_candidate",
    "is_short_work",
    "list_keys",
    "load_algebra",
    "part_size",
]

#: How many keys are computed in much less than a millisecond.
_FEW_KEYS: Final = 500

#: Up to this size, the search for equal parts of an expression takes longer than it saves.
_TREE: Final = 32

#: Up to this size, the graph of an expression is built in less than a millisecond.
_SMALL: Final = 128

#: Up to this many operations, one pass over a graph takes much less than a millisecond.
_FEW_OPERATIONS: Final = 512

#: How many counts, or requests for values of expressions, may be sent together.
_COUNTS: Final = 4

#: How many bytes are combined in less than a millisecond.
_FAST_BYTES: Final = 8 * 1024 * 1024

#: The fixed cost of an operation: as much time as combining this many bytes takes.
_OVERHEAD: Final = 8192

#: How many bitmaps are loaded in one step.
_STEP: Final = 64

#: The size of a part, in bytes: of all bitmaps together at most, of each bitmap at least.
MAX_PART: Final = 2 * 1024 * 1024
MIN_PART: Final = 256

#: An expression is computed from parts of at least this size, if those of all bitmaps together
#: are no longer than `_MAX_PARTS`. At least 170 of 365 bitmaps of 10 million users: 1.0 s, and
#: 2.1 s with `MAX_PART`, since each operation has a fixed cost. The p99 of marks beside it is
#: 4 ms with both.
_EFFICIENT_PART: Final = 16 * 1024
_MAX_PARTS: Final = 8 * 1024 * 1024

#: How many bytes Redis may write to compute an expression that can be computed in the client as
#: well, which takes it about a millisecond.
_SHORT_WORK: Final = 2 * 1024 * 1024

#: How many bytes one request searches for set bits: of all bitmaps together, which takes Redis
#: about a millisecond; but of each bitmap at least `_MIN_LOOKAHEAD`.
_LOOKAHEAD: Final = 8 * 1024 * 1024
_MIN_LOOKAHEAD: Final = 8 * 1024

#: How many bytes of commands are encoded at the same time, for all shards together.
_MAX_ENCODED: Final = 8 * 1024 * 1024


def load_algebra() -> Query[Algebra]:
    """Return the algebra; loaded off the event loop, since the import of numpy is slow."""
    if not is_loaded():
        yield Compute(_loading())
    return algebra()


def _loading() -> Iterator[None]:
    algebra()
    yield


def compile_graph(event_sets: Sequence[EventSet]) -> Query[Graph]:
    """Return one graph of some expressions."""
    if len(event_sets) == 1 and event_sets[0].size <= _TREE:
        return Graph.of_tree(event_sets[0])
    large = sum([event_set.size for event_set in event_sets]) > _SMALL
    return (yield from run_steps(Graph.steps(event_sets), large=large))


def compile_graphs(event_sets: Sequence[EventSet]) -> Query[list[Graph]]:
    """Return a graph of each of some expressions."""

    def steps() -> Generator[None, None, list[Graph]]:
        graphs: list[Graph] = []
        for event_set in event_sets:
            if event_set.size <= _TREE:
                graphs.append(Graph.of_tree(event_set))
            else:
                graphs.append((yield from Graph.steps([event_set])))
            yield
        return graphs

    large = sum([event_set.size for event_set in event_sets]) > _SMALL
    return (yield from run_steps(steps(), large=large))


def build_request(
    prefix: str, graph: Graph, read_command: Callable[[bytes], Command]
) -> Query[tuple[Request, list[int]]]:
    """Return a request that computes expressions and reads each result with one command.

    Arguments:
        prefix: the first characters of temporary keys.
        graph: the expressions.
        read_command: returns the command that reads the bitmap under a key.

    Returns:
        The request, and for each expression the index of its reply.
    """
    if not graph.operations and len(graph.roots) == 1:
        return Request([read_command(graph.key_of(graph.bitmaps[0]))], share=_COUNTS), [0]
    if graph.writes == 1 and len(graph.roots) == 1:
        ((operator, operands, _),) = graph.operations
        keys = list(graph.keys_of([graph.bitmaps[~number] for number in operands]))
        commands = plan_operation(prefix, operator, keys, read_command)
        return Request(commands, atomic=True, share=_COUNTS), [1]
    size = len(graph.operations) + len(graph.roots)
    plan = BitopPlan(prefix)
    large = size > _SMALL or len(graph.bitmaps) > _FEW_KEYS
    yield from run_steps(plan.add(graph, read_command), large=large)
    commands = plan.commands
    share = 1 if size > _COUNTS else _COUNTS
    request = Request(commands, atomic=len(commands) > 1, share=share)
    if len(commands) > MANY_COMMANDS:
        request = yield from encode_request(request)
    return request, plan.reply_indexes


def build_shard_requests(
    context: Context, graph: Graph, read_command: Callable[[bytes], Command]
) -> Query[tuple[Callable[[Context], Request], list[int], int]]:
    """Return the requests that compute expressions in all shards. Arguments as `build_request`.

    Returns:
        A function from a shard to its request; for each expression the index of its reply;
        and how many shards to query concurrently.
    """
    prefix = context.origin.prefix
    if len(context.shards) == 1:
        prefix = context.shards[0].origin.prefix
        graph = graph.with_prefix(prefix)
        request, reply_indexes = yield from build_request(prefix, graph, read_command)
        return lambda _: request, reply_indexes, 1
    # The commands of two shards differ only in the shard's tag. So they are encoded once for
    # each length of tags, with a placeholder of NULs, which no prefix and no event's name may
    # contain. With 16 shards, building the requests takes 178 us this way, and 271 without.
    by_length: dict[int, tuple[Request, bytes, bytes]] = {}
    reply_indexes = []
    for length in dict.fromkeys(len(shard.origin.prefix) - len(prefix) for shard in context.shards):
        placeholder = f"{{{chr(0) * (length - 2)}}}"
        request, reply_indexes = yield from build_request(
            prefix + placeholder, graph.with_prefix(prefix + placeholder), read_command
        )
        by_length[length] = request, request.encode(), placeholder.encode()

    def request_of(shard: Context) -> Request:
        tag = shard.origin.prefix[len(prefix) :]
        request, data, placeholder = by_length[len(tag)]
        return request._replace(encoded=data.replace(placeholder, tag.encode()), cached=None)

    # All shards concurrently, unless their requests would take too much memory.
    longest = max(len(data) for _, data, _ in by_length.values())
    return request_of, reply_indexes, min(len(context.shards), max(1, _MAX_ENCODED // longest))


def evaluate(
    graph: Graph,
    data: Sequence[Any],
    size: int,
    load: Callable[[Any, int], Any],
) -> Query[Any]:
    """Return the value of a graph's first expression, computed in the client.

    Arguments:
        graph: the expression.
        data: a part of each bitmap, in the order of the graph's bitmaps.
        size: the length of a part in bytes, zeros at the end included.
        load: returns the value of a part; called with the part and ``size``.
    """
    large = (len(data) + len(graph.operations)) * (size + _OVERHEAD) > _FAST_BYTES
    steps = _evaluation(graph, data, size, load)
    # With short values, most of the time is spent outside of numpy's functions, with the GIL.
    return (yield from run_steps(steps, large=large, pauses=size < _OVERHEAD))


def _evaluation(
    graph: Graph, data: Sequence[Any], size: int, load: Callable[[Any, int], Any]
) -> Generator[None, None, Any]:
    loaded: list[Any] = []
    for part in data:
        loaded.append(load(part, size))
        if len(loaded) % _STEP == 0:
            yield
    values = graph.values(loaded)
    del loaded
    yield from graph.evaluation(values)
    return values[graph.roots[0]]


def _candidate(graph: Graph, nexts: Sequence[int | None]) -> Query[int | None]:
    """Return the index of the first byte that may have a user; see `Graph.candidate`."""
    large = len(graph.operations) > _FEW_OPERATIONS
    return (yield from run_steps(graph.candidate(nexts), large=large))


def check_cost(context: Context, graph: Graph) -> Iterable[QueryEffect]:
    """Raise if the server would write more for some expressions than ``max_temp_bytes`` allows.

    Sends no request if even the longest bitmaps that the tally's user ids allow would stay
    below the limit, or if by the cached lengths of the bitmaps the cost is at most half of
    it. Else fetches the lengths of the bitmaps.

    Returns:
        The effects that the query has to yield. The check runs while they are iterated.

    Raises:
        InvalidValueError: the cost exceeds the option ``max_temp_bytes``; raised by the
            iteration.
    """
    limit = context.options.max_temp_bytes
    if limit is None or graph.writes <= context.safe_writes:
        return ()
    writes = len(context.shards) * graph.writes
    few = len(graph.bitmaps) <= _FEW_KEYS
    longest = context.lengths.longest(graph.bitmaps) if few else None
    if longest is not None and writes * max(TAIL_FACTOR * longest, MIN_WRITE_COST) <= limit // 2:
        return ()
    return _check_lengths(context, graph, limit)


def _check_lengths(context: Context, graph: Graph, limit: int) -> Query[None]:
    """Fetch the lengths of the bitmaps, and check the cost."""
    _check(len(context.shards) * graph.writes * MIN_WRITE_COST, limit)
    _check((yield from _fetch_cost(context, graph)), limit)


def _fetch_cost(context: Context, graph: Graph, copies: int = 0) -> Query[int]:
    """Fetch the lengths of the bitmaps; return about how many bytes the server would write.

    Arguments as `is_short_work`.
    """
    few = len(graph.bitmaps) <= _FEW_KEYS
    large = len(graph.operations) > _FEW_OPERATIONS or not few
    by_shard = yield from each_shard(
        context, lambda shard: fetch_lengths(graph.with_prefix(shard.origin.prefix))
    )
    cost = 0
    for lengths in by_shard:
        cost += yield from run_steps(graph.cost(lengths), large=large)
        cost += copies * max(lengths)
    if few:
        context.lengths.learn(graph.bitmaps, map(max, zip(*by_shard, strict=True)))
    return cost


def is_short_work(context: Context, graph: Graph, copies: int = 0) -> Query[bool]:
    """Return whether a server computes some expressions in about a millisecond.

    And without exceeding ``max_temp_bytes``. Fetches the lengths of the bitmaps, unless the
    cached ones show it.

    Arguments:
        context: the database.
        graph: the expressions.
        copies: how many times the server copies the result of one of them.
    """
    limit = context.options.max_temp_bytes
    limit = _SHORT_WORK if limit is None else min(limit, _SHORT_WORK)
    writes = len(context.shards) * (graph.writes + copies)
    if writes * MIN_WRITE_COST > limit:
        return False
    longest = context.lengths.longest(graph.bitmaps)
    if longest is not None and writes * max(TAIL_FACTOR * longest, MIN_WRITE_COST) <= limit // 2:
        return True
    return (yield from _fetch_cost(context, graph, copies)) <= limit


def _check(cost: int, limit: int) -> None:
    if cost > limit:
        raise InvalidValueError(
            f"Redis would write about {cost} bytes of intermediate results for this, which is "
            f"more than the tally's max_temp_bytes={limit}; nothing was computed"
        )


def list_keys(graph: Graph) -> Query[list[bytes]]:
    """Return the keys of the bitmaps of some expressions, with checkpoints if there are many."""
    if len(graph.bitmaps) < _FEW_KEYS:
        return list(graph.keys())
    return (yield from in_steps(graph.keys()))


def fetch_lengths(graph: Graph) -> Query[list[int]]:
    """Return the length of each bitmap of some expressions, in bytes."""
    commands = [(b"STRLEN", key) for key in (yield from list_keys(graph))]
    share = 1 if len(commands) > _COUNTS else _COUNTS
    return (yield from send(Request(commands, share=share)))


def part_size(context: Context, graph: Graph) -> int:
    """Return how many bytes of each bitmap to fetch, to compute an expression in the client.

    Parts of all shards are fetched at the same time.
    """
    number = len(graph.bitmaps) * len(context.shards)
    return max(MIN_PART, MAX_PART // number, min(_EFFICIENT_PART, _MAX_PARTS // number))


def fetch_part(
    graph: Graph, at: int, size: int, *, changes: bool = False
) -> Query[tuple[Any, int]]:
    """Return the value of an expression in a range of bytes.

    Arguments:
        graph: the expression.
        at: the index of the first byte.
        size: how many bytes to fetch of each bitmap.
        changes: whether the value will be written, and so is not read from a replica, which may
            not have the newest bits yet.

    Returns:
        The value, and how many bytes of the range the longest bitmap has.
    """
    commands = getrange_commands((yield from list_keys(graph)), at, size)
    request = Request(commands, atomic=len(commands) > 1, replies=bytes, changes=changes)
    data = yield from send(request)
    length = max(map(len, data))
    return (yield from evaluate(graph, data, length, algebra().load)), length


def find_candidate(graph: Graph, at: int, *, changes: bool = False) -> Query[int | None]:
    """Return the index of the next byte that may have a user of an expression.

    The server searches each bitmap for the next set bit, which is much faster than to fetch
    long runs of zeros.

    Arguments:
        graph: the expression.
        at: the index of the byte to begin with.
        changes: as for `fetch_part`.

    Returns:
        The index, or None if there is no such byte.
    """
    while True:
        end = at + max(_LOOKAHEAD // len(graph.bitmaps), _MIN_LOOKAHEAD)
        first, last = b"%d" % at, b"%d" % (end - 1)
        commands = yield from in_steps(_searches(graph, first, last))
        replies = yield from send(Request(commands, changes=changes))
        nexts = [
            position >> 3 if position >= 0 else end if end < length else None
            for position, length in zip(replies[::2], replies[1::2], strict=True)
        ]
        candidate = yield from _candidate(graph, nexts)
        if candidate is None or candidate < end:
            return candidate
        at = end


def _searches(graph: Graph, first: bytes, last: bytes) -> Iterator[Command]:
    """Yield commands that find the first set bit of each bitmap in a range, and its length."""
    for key in graph.keys():  # noqa: SIM118 - no dict
        yield b"BITPOS", key, b"1", first, last
        yield b"STRLEN", key
