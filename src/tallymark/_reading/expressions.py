"""How queries deal with expressions of any size. Pure.

What takes long, which is so for large ones only, is `Compute`: an async driver does it in a
thread, and drivers see to it that the call's deadline is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .._core.context import LEAST_WRITTEN, SLOWER
from ..errors import InvalidValueError
from .bitop import Program, short_program
from .bits import algebra, is_loaded
from .fanout import each_shard
from .graphs import Graph
from .raw_keys import ranges
from .requests import MANY_COMMANDS, Compute, Request, answered, encoded, in_steps, worked

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from .._core.context import Context
    from .._core.events import EventSet
    from .bits import Algebra
    from .requests import Command, Query

__all__ = [
    "LARGEST_PART",
    "LEAST_PART",
    "asking",
    "asking_shards",
    "check_cost",
    "compiled",
    "compiled_each",
    "evaluated",
    "keys_of",
    "lengths",
    "next_candidate",
    "part_of",
    "reckoning",
]

#: So many keys take no time to speak of.
_FEW_KEYS: Final = 500

#: Up to this size, shared parts of an expression are not worth the search for them.
#: Up to the next, it is looked at in less than a millisecond; and up to so many operations
#: are gone through.
_TREE: Final = 32
_SMALL: Final = 128
_FEW: Final = 512

#: How many counts, or how many look-ups of an expression's values, may go together.
_COUNTS: Final = 4

#: How many bytes are combined in less than a millisecond, and how many more it would be
#: in the time that an operation takes apart from that.
_SOON: Final = 8 * 1024 * 1024
_OVERHEAD: Final = 8192

#: How many bitmaps are loaded in one step.
_STEP: Final = 64

#: How many bytes of all bitmaps together are fetched at most, but of each at least so many.
LARGEST_PART: Final = 2 * 1024 * 1024
LEAST_PART: Final = 256

#: How many bytes of all bitmaps together are searched at once, which takes Redis about a
#: millisecond; but of each at least so many.
_LOOKAHEAD: Final = 8 * 1024 * 1024
_LEAST_LOOKAHEAD: Final = 8 * 1024

#: How many bytes of commands leave for all shards together, at most.
_ROUND_BYTES: Final = 8 * 1024 * 1024


def reckoning() -> Query[Algebra]:
    """Return what there is to reckon with, loaded off the event loop: it may be numpy."""
    if not is_loaded():
        yield Compute(_loading())
    return algebra()


def _loading() -> Iterator[None]:
    algebra()
    yield


def compiled(event_sets: Sequence[EventSet]) -> Query[Graph]:
    """Return the graph of some expressions."""
    if len(event_sets) == 1 and event_sets[0].size <= _TREE:
        return Graph.of_tree(event_sets[0])
    large = sum([one.size for one in event_sets]) > _SMALL
    return (yield from worked(Graph.steps(event_sets), large=large))


def compiled_each(event_sets: Sequence[EventSet]) -> Query[list[Graph]]:
    """Return the graph of each of some expressions."""

    def graphs() -> Generator[None, None, list[Graph]]:
        found: list[Graph] = []
        for one in event_sets:
            small = one.size <= _TREE
            found.append(Graph.of_tree(one) if small else (yield from Graph.steps([one])))
            yield
        return found

    large = sum([one.size for one in event_sets]) > _SMALL
    return (yield from worked(graphs(), large=large))


def asking(
    prefix: str, graph: Graph, question: Callable[[bytes], Command]
) -> Query[tuple[Request, list[int]]]:
    """Return what asks the same about each expression, and which of the replies count.

    Arguments:
        prefix: what temporary keys begin with.
        graph: the expressions.
        question: returns the command that asks about the bitmap under a key.
    """
    if not graph.operations and len(graph.roots) == 1:
        return Request([question(graph.key_of(graph.bitmaps[0]))], share=_COUNTS), [0]
    if graph.writes == 1 and len(graph.roots) == 1:
        ((operator, operands, _),) = graph.operations
        keys = list(graph.keys_of([graph.bitmaps[~number] for number in operands]))
        commands = short_program(prefix, operator, keys, question)
        return Request(commands, atomic=True, share=_COUNTS), [1]
    size = len(graph.operations) + len(graph.roots)
    program = Program(prefix)
    large = size > _SMALL or len(graph.bitmaps) > _FEW_KEYS
    yield from worked(program.write(graph, question), large=large)
    commands = program.commands
    share = 1 if size > _COUNTS else _COUNTS
    request = Request(commands, atomic=len(commands) > 1, share=share)
    if len(commands) > MANY_COMMANDS:
        request = yield from encoded(request)
    return request, program.asked


def asking_shards(
    context: Context, graph: Graph, question: Callable[[bytes], Command]
) -> Query[tuple[Callable[[Context], Request], list[int], int]]:
    """Return what asks all shards the same, as `asking` does one.

    Returns:
        A function from a shard to its request; which of the replies count; and how many
        shards are to be asked at once.
    """
    prefix = context.origin.prefix
    if len(context.shards) == 1:
        prefix = context.shards[0].origin.prefix
        request, asked = yield from asking(prefix, graph.below(prefix), question)
        return lambda _: request, asked, 1
    # The commands of two shards differ in the tag alone. So those of a tag that no shard
    # has, since it cannot be typed, are encoded once for each length of tags: at 16 shards,
    # a question takes 178 us so, and 271 without.
    made: dict[int, tuple[Request, bytes, bytes]] = {}
    asked = []
    for length in dict.fromkeys(len(part.origin.prefix) - len(prefix) for part in context.shards):
        placeholder = f"{{{chr(0) * (length - 2)}}}"
        request, asked = yield from asking(
            prefix + placeholder, graph.below(prefix + placeholder), question
        )
        made[length] = request, request.encode(), placeholder.encode()

    def request_of(part: Context) -> Request:
        tag = part.origin.prefix[len(prefix) :]
        request, data, placeholder = made[len(tag)]
        return request._replace(encoded=data.replace(placeholder, tag.encode()), ready=None)

    # All at once, unless that would be too much to hold.
    most = max(len(data) for _, data, _ in made.values())
    return request_of, asked, min(len(context.shards), max(1, _ROUND_BYTES // most))


def evaluated(
    graph: Graph,
    data: Sequence[Any],
    size: int,
    load: Callable[[Any, int], Any],
) -> Query[Any]:
    """Return the value of a graph's first expression over parts of its bitmaps.

    Arguments:
        graph: the expression.
        data: the part of each bitmap.
        size: for how many bytes each stands.
        load: makes a value of a part and the size.
    """
    large = (len(data) + len(graph.operations)) * (size + _OVERHEAD) > _SOON
    steps = _evaluation(graph, data, size, load)
    # Of short values, most of the time goes by between numpy's functions.
    return (yield from worked(steps, large=large, pauses=size < _OVERHEAD))


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
    """Return the first byte that may have a user; see `Graph.candidate`."""
    large = len(graph.operations) > _FEW
    return (yield from worked(graph.candidate(nexts), large=large))


def check_cost(context: Context, graph: Graph) -> Query[None]:
    """Raise if the server would write too much for some expressions.

    If no ids that the tally accepts could make bitmaps of such a length, nothing is asked,
    nor if those of the same events were far shorter a moment ago; else how long they are.

    Raises:
        InvalidValueError: it would be more than the option ``max_temp_bytes``.
    """
    limit = context.options.max_temp_bytes
    if limit is None or graph.writes <= context.sure_writes:
        return
    writes = len(context.shards) * graph.writes
    _check(writes * LEAST_WRITTEN, limit)
    few = len(graph.bitmaps) <= _FEW_KEYS
    longest = context.lengths.longest(graph.bitmaps) if few else None
    if longest is not None and writes * max(SLOWER * longest, LEAST_WRITTEN) <= limit // 2:
        return
    large = len(graph.operations) > _FEW or not few
    every = yield from each_shard(context, lambda part: lengths(graph.below(part.origin.prefix)))
    cost = 0
    for each in every:
        cost += yield from worked(graph.cost(each), large=large)
    if few:
        context.lengths.learn(graph.bitmaps, map(max, zip(*every, strict=True)))
    _check(cost, limit)


def _check(cost: int, limit: int) -> None:
    if cost > limit:
        raise InvalidValueError(
            f"Redis would write about {cost} bytes of intermediate results for this, which is "
            f"more than the tally's max_temp_bytes={limit}; nothing was computed"
        )


def keys_of(graph: Graph) -> Query[list[bytes]]:
    """Return the keys of the bitmaps of some expressions."""
    if len(graph.bitmaps) < _FEW_KEYS:
        return list(graph.keys())
    return (yield from in_steps(graph.keys()))


def lengths(graph: Graph) -> Query[list[int]]:
    """Return how many bytes each bitmap has."""
    commands = [(b"STRLEN", key) for key in (yield from keys_of(graph))]
    share = 1 if len(commands) > _COUNTS else _COUNTS
    return (yield from answered(Request(commands, share=share)))


def part_of(graph: Graph, at: int, size: int) -> Query[tuple[Any, int]]:
    """Return the value of the same bytes of all bitmaps, and how many the longest has of them."""
    commands = ranges((yield from keys_of(graph)), at, size)
    data = yield from answered(Request(commands, atomic=len(commands) > 1, replies=bytes))
    length = max(map(len, data))
    return (yield from evaluated(graph, data, length, algebra().load)), length


def next_candidate(graph: Graph, at: int) -> Query[int | None]:
    """Return the first byte from one on that may have a user; None if none has.

    The server looks for the next bit of each bitmap, which is much faster than
    to fetch the nothing in between.

    Arguments:
        graph: of one expression.
        at: the first byte of interest.
    """
    while True:
        end = at + max(_LOOKAHEAD // len(graph.bitmaps), _LEAST_LOOKAHEAD)
        commands: list[Command] = []
        for key in (yield from keys_of(graph)):
            commands.append((b"BITPOS", key, b"1", b"%d" % at, b"%d" % (end - 1)))
            commands.append((b"STRLEN", key))
        replies = yield from answered(Request(commands))
        nexts = [
            position >> 3 if position >= 0 else end if end < length else None
            for position, length in zip(replies[::2], replies[1::2], strict=True)
        ]
        found = yield from _candidate(graph, nexts)
        if found is None or found < end:
            return found
        at = end
