"""Concurrent queries of several shards or nodes; their requests are sent together. Pure."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .._core.failures import SlotMovingError
from .requests import Checkpoint, Compute, Request, Scatter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .._core.context import Context
    from .requests import Query, Route

__all__ = ["CONCURRENCY", "each_shard", "gather"]

#: How many queries run concurrently, if each may fetch megabytes.
CONCURRENCY: Final = 16

#: A query that makes or reads a request of more commands than this may take a millisecond.
_LARGE: Final = 100

AnswerT = TypeVar("AnswerT")


class _Running:
    """A query in progress.

    Attributes:
        index: its index among the results.
        route: the shard or node of its requests.
        query: the generator.
        effect: the effect that it has yielded; ``None`` after its end.
        result: its result, after its end.
    """

    __slots__ = ("effect", "index", "query", "result", "route")

    def __init__(self, index: int, route: Route, query: Query[Any]) -> None:
        """Start a query, up to its first effect."""
        self.index = index
        self.route = route
        self.query = query
        self.effect: Any = None
        self.result: Any = None
        self.resume(None)

    @property
    def is_long(self) -> bool:
        """Whether the last step of the query may have taken a millisecond."""
        if isinstance(self.effect, Request):
            return len(self.effect.commands) > _LARGE
        return isinstance(self.effect, Checkpoint)

    def resume(self, outcome: object) -> None:
        """Resume the query with the outcome of its effect, up to its next effect."""
        try:
            if isinstance(outcome, SlotMovingError):
                self.effect = self.query.throw(outcome)
            else:
                self.effect = self.query.send(outcome)
        except StopIteration as end:
            self.effect, self.result = None, end.value


def gather(
    context: Context,
    queries: Iterable[tuple[Route, Query[AnswerT]]],
    concurrency: int = CONCURRENCY,
) -> Query[list[AnswerT]]:
    """Return the results of several queries, each of one shard or node, in order.

    Arguments:
        context: the database.
        queries: the queries, each with its route.
        concurrency: how many queries run concurrently at most.
    """
    if context.schema.shards is None:
        return _in_turn(query for _, query in queries)
    return _concurrently(queries, concurrency)


def _in_turn(queries: Iterable[Query[AnswerT]]) -> Query[list[AnswerT]]:
    """Run queries without routes, which a plain database does not need.

    A blocking count takes 34 us of CPU time this way, and 46 with a `Scatter`.
    """
    results: list[AnswerT] = []
    for query in queries:
        results.append((yield from query))  # noqa: PERF401 - no comprehension may yield
    return results


def _concurrently(
    queries: Iterable[tuple[Route, Query[AnswerT]]], concurrency: int
) -> Query[list[AnswerT]]:
    results: dict[int, AnswerT] = {}
    waiting = enumerate(queries)
    running: list[_Running] = []
    while True:
        started: list[_Running] = []
        for index, (route, query) in itertools.islice(waiting, concurrency - len(running)):
            started.append(_Running(index, route, query))
            if started[-1].is_long:
                yield Checkpoint()
        active = [*running, *started]
        if not active:
            return [results[index] for index in range(len(results))]
        results.update((item.index, item.result) for item in active if item.effect is None)
        running = [item for item in active if item.effect is not None]
        yield from _step(running)


def _step(running: Sequence[_Running]) -> Query[None]:
    """Perform effects of one kind, and resume their queries: checkpoints, then computations.

    Requests are sent when all queries have yielded one, so that they are sent together.
    """
    checkpoints = [item for item in running if isinstance(item.effect, Checkpoint)]
    computations = [item for item in running if isinstance(item.effect, Compute)]
    if checkpoints:
        for item in checkpoints:
            yield Checkpoint()
            item.resume(None)
    elif computations:
        steps = itertools.chain.from_iterable(item.effect.steps for item in computations)
        yield Compute(steps, any(item.effect.pauses for item in computations))
        for item in computations:
            item.resume(None)
            if item.is_long:
                yield Checkpoint()
    elif running:
        outcomes = yield Scatter([(item.route, item.effect) for item in running])
        for item, outcome in zip(running, outcomes, strict=True):
            if item.is_long:
                yield Checkpoint()
            item.resume(outcome)


def each_shard(
    context: Context,
    query: Callable[[Context], Query[AnswerT]],
    concurrency: int = CONCURRENCY,
) -> Query[list[AnswerT]]:
    """Return the results of the same query of each shard, in order. Arguments as `gather`."""
    if context.schema.shards is None:
        return _in_turn((query(context.shards[0]),))
    return gather(context, enumerate(map(query, context.shards)), concurrency)
