"""How queries deal with expressions of any size. Pure.

What takes long, which is so for large ones only, is `Compute`: an async driver does it in a
thread, and drivers see to it that the call's deadline is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from .._core.context import LEAST_WRITTEN, SLOWER
from ..errors import InvalidValueError
from .bitop import Program, short_program
from .bits import algebra, is_loaded
from .fanout import in_shards
from .graphs import Graph
from .requests import Compute, Request, in_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from .._core.context import Context
    from .._core.events import EventSet
    from .bits import Algebra
    from .requests import Command, Query

__all__ = [
    "answered",
    "asking",
    "candidate",
    "check_cost",
    "compiled",
    "compiled_each",
    "evaluated",
    "keys_of",
    "lengths",
    "reckoning",
    "worked",
]

#: So many keys take no time to speak of.
_FEW_KEYS: Final = 500

#: Up to this size, shared parts of an expression are not worth the search for them.
#: Up to the next, it is looked at, and up to so many commands are encoded, in less than a
#: millisecond.
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

T = TypeVar("T")


def worked(steps: Generator[None, None, T], *, large: bool, pauses: bool = True) -> Query[T]:
    """Take some steps, off the event loop if they are many; return what they come to.

    Arguments:
        steps: what to do.
        large: whether they are many.
        pauses: as in `Compute`.
    """
    if not large:
        try:
            while True:
                next(steps)
        except StopIteration as end:
            answer: T = end.value
            return answer
    found: list[T] = []

    def kept() -> Iterator[None]:
        found.append((yield from steps))

    yield Compute(kept(), pauses)
    return found[0]


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
        return Request([question(next(graph.keys()))], share=_COUNTS), [0]
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
    if len(commands) > _FEW:
        request = yield from _encoded(request)
    return request, program.asked


def answered(request: Request) -> Query[list[Any]]:
    """Send commands, which may be many, and return their replies."""
    if len(request.commands) > _FEW:
        request = yield from _encoded(request)
    replies: list[Any] = yield request
    return replies


def _encoded(request: Request) -> Query[Request]:
    data = yield from worked(request.encoding(), large=True)
    return request._replace(ready=data)


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


def candidate(graph: Graph, nexts: Sequence[int | None]) -> Query[int | None]:
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
    writes = (context.schema.shards or 1) * graph.writes
    _check(writes * LEAST_WRITTEN, limit)
    few = len(graph.bitmaps) <= _FEW_KEYS
    longest = context.lengths.longest(graph.bitmaps) if few else None
    if longest is not None and writes * max(SLOWER * longest, LEAST_WRITTEN) <= limit // 2:
        return
    large = len(graph.operations) > _FEW or not few
    if context.shards:
        every = yield from in_shards(context, lambda part: lengths(graph.below(part.origin.prefix)))
    else:
        every = [(yield from lengths(graph))]
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
