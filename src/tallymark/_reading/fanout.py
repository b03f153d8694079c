"""Queries of several shards or nodes at once: their requests leave in rounds. Pure."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .._core.failures import SlotMovingError
from .requests import Checkpoint, Compute, Request, Scatter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .._core.context import Context
    from .requests import Query, Route

__all__ = ["AT_ONCE", "each_shard", "gather"]

#: How many queries are in progress at once, where each may fetch megabytes.
AT_ONCE: Final = 16

#: What begins or goes on with a request of so many commands may take a millisecond.
_LARGE: Final = 100

AnswerT = TypeVar("AnswerT")


class _Running:
    """A query that is under way.

    Attributes:
        step: what it wants next; ``None`` once it has its answer.
    """

    __slots__ = ("answer", "index", "query", "route", "step")

    def __init__(self, index: int, route: Route, query: Query[Any]) -> None:
        self.index = index
        self.route = route
        self.query = query
        self.step: Any = None
        self.answer: Any = None
        self.go_on(None)

    @property
    def takes_long(self) -> bool:
        """Whether it has taken some time to get here."""
        if isinstance(self.step, Request):
            return len(self.step.commands) > _LARGE
        return isinstance(self.step, Checkpoint)

    def go_on(self, outcome: object) -> None:
        """Tell it what its last step came to."""
        try:
            if isinstance(outcome, SlotMovingError):
                self.step = self.query.throw(outcome)
            else:
                self.step = self.query.send(outcome)
        except StopIteration as end:
            self.step, self.answer = None, end.value


def gather(
    context: Context,
    queries: Iterable[tuple[Route, Query[AnswerT]]],
    at_once: int = AT_ONCE,
) -> Query[list[AnswerT]]:
    """Return the answers of some queries, each of which asks one shard or node.

    Arguments:
        context: the database.
        queries: the queries, with the route of each.
        at_once: how many of them are in progress at the same time.
    """
    if context.schema.shards is None:
        # All ask the one server, which needs no routes: a blocking count takes the processor
        # 34 us so, and 46 with them.
        return _in_turn(queries)
    return _concurrently(queries, at_once)


def _in_turn(queries: Iterable[tuple[Route, Query[AnswerT]]]) -> Query[list[AnswerT]]:
    answers: list[AnswerT] = []
    for _, query in queries:
        answers.append((yield from query))
    return answers


def _concurrently(
    queries: Iterable[tuple[Route, Query[AnswerT]]], at_once: int
) -> Query[list[AnswerT]]:
    answers: dict[int, AnswerT] = {}
    waiting = enumerate(queries)
    running: list[_Running] = []
    while True:
        fresh: list[_Running] = []
        for index, (route, query) in itertools.islice(waiting, at_once - len(running)):
            fresh.append(_Running(index, route, query))
            if fresh[-1].takes_long:
                yield Checkpoint()
        for each in (*running, *fresh):
            if each.step is None:
                answers[each.index] = each.answer
        if not running and not fresh:
            return [answers[index] for index in range(len(answers))]
        running = [each for each in (*running, *fresh) if each.step is not None]
        yield from _step(running)


def _step(running: Sequence[_Running]) -> Query[None]:
    """Have some queries, each of which wants something, go one step."""
    resting = [each for each in running if isinstance(each.step, Checkpoint)]
    working = [each for each in running if isinstance(each.step, Compute)]
    if resting:
        for each in resting:
            yield Checkpoint()
            each.go_on(None)
    elif working:
        steps = itertools.chain.from_iterable(each.step.steps for each in working)
        yield Compute(steps, any(each.step.pauses for each in working))
        for each in working:
            each.go_on(None)
            if each.takes_long:
                yield Checkpoint()
    elif running:
        outcomes = yield Scatter([(each.route, each.step) for each in running])
        for each, outcome in zip(running, outcomes, strict=True):
            if each.takes_long:
                yield Checkpoint()
            each.go_on(outcome)


def each_shard(
    context: Context, query: Callable[[Context], Query[AnswerT]], at_once: int = AT_ONCE
) -> Query[list[AnswerT]]:
    """Return the answers of all shards to the same query, in order. Arguments as `gather`."""
    return gather(context, enumerate(map(query, context.shards)), at_once)
