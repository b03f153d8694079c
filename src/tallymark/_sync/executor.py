"""The executor of the blocking driver: performs the effects of executions."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any, TypeVar

from .._reading.execution import (
    Commit,
    Computation,
    Exchange,
    ExchangeAll,
    Refresh,
    Sleep,
    Traffic,
    resume,
)
from .._reading.requests import Checkpoint, Page
from .._redis.clocks import clocks
from .._redis.errors import let_pass
from ..errors import StoreError, StoreTimeoutError
from .pool import receive_replies

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from .._marking.marks import Result
    from .._reading.execution import Execution, Executions
    from .._reading.requests import Query
    from .pool import Connections

__all__ = ["SyncExecutor"]

AnswerT = TypeVar("AnswerT")
StepT = TypeVar("StepT")


class SyncExecutor:
    """Answers queries of one tally, in the calling thread. Raises as the async `Executor`."""

    def __init__(
        self,
        executions: Executions,
        connections: Callable[[Exchange], Connections],
        refresh: Callable[[Refresh], None] | None = None,
        commit: Callable[[Commit], list[Result]] | None = None,
    ) -> None:
        """Begin.

        Arguments:
            executions: makes executions of queries.
            connections: returns the connections for an exchange.
            refresh, commit: perform a `Refresh` and a `Commit`; ``None`` without a cluster.
        """
        self._executions = executions
        self._connections = connections
        #: What performs the effects of each type.
        self._performers: dict[type, Callable[[Any], Any]] = {
            Exchange: self._exchange,
            ExchangeAll: self._exchange_all,
            Sleep: lambda effect: time.sleep(effect.seconds),
            Computation: lambda effect: _compute(effect.work.steps, effect.deadline),
            Checkpoint: lambda effect: None,  # there are no other tasks
        }
        if refresh is not None:
            self._performers[Refresh] = refresh
        if commit is not None:
            self._performers[Commit] = commit

    def answer(self, query: Query[AnswerT], timeout: float | None = None) -> AnswerT:
        """Return a query's answer.

        Arguments:
            query: the query.
            timeout: how many seconds the whole query may take; ``None`` for the tally's
                timeout for each request.
        """
        return self.run(self._executions.of(query, timeout))

    def stream(self, query: Query[None], timeout: float | None = None) -> Iterator[Any]:
        """Return an iterator over the items of a query's pages."""
        return itertools.chain.from_iterable(self.pages(query, timeout))  # in C

    def pages(self, query: Query[None], timeout: float | None = None) -> Generator[Any, None, None]:
        """Yield a query's pages; each request may take the timeout."""
        execution = self._executions.paged(query, timeout)
        try:
            effect = next(execution)
            while True:
                outcome = None
                if isinstance(effect, Page):
                    yield effect.items
                else:
                    outcome = _outcome(self._perform, effect)
                effect = resume(execution, outcome)
        except StopIteration:
            return

    def run(self, execution: Execution[AnswerT]) -> AnswerT:
        """Perform the effects of an execution; return its result."""
        try:
            effect = next(execution)
            while True:
                effect = resume(execution, _outcome(self._perform, effect))
        except StopIteration as end:
            answer: AnswerT = end.value
            return answer

    def _perform(self, effect: Any) -> Any:
        performer = self._performers.get(type(effect))
        if performer is None:
            raise TypeError(effect)
        return performer(effect)

    def _exchange(self, effect: Exchange) -> list[Any]:
        if effect.meanwhile is None and not effect.urgent:
            traffic = effect.traffic or Traffic("read", effect.request.reply_count())
            connections = self._connections(effect)
            return connections.exchange(effect.request, traffic, effect.deadline)
        attempt = self._attempt(effect)
        try:
            next(attempt)
            _compute(effect.meanwhile or (), effect.deadline)
            return receive_replies(attempt)
        finally:
            attempt.close()

    def _exchange_all(self, effect: ExchangeAll) -> list[list[Any] | StoreError]:
        """Send all requests before any reply is read."""
        if len(effect.exchanges) == 1 and effect.meanwhile is None:
            return [_outcome(self._perform, effect.exchanges[0])]
        attempts = [self._attempt(exchange) for exchange in effect.exchanges]
        outcomes: list[list[Any] | StoreError] = []
        try:
            failures = [_outcome(next, attempt) for attempt in attempts]
            _compute(effect.meanwhile or (), effect.deadline)
            for attempt, failure in zip(attempts, failures, strict=True):
                outcomes.append(failure or _outcome(receive_replies, attempt))
        finally:
            for attempt in attempts:
                attempt.close()
        return outcomes

    def _attempt(self, effect: Exchange) -> Generator[None, None, list[Any]]:
        data = effect.request.encode()
        count = effect.request.reply_count()
        traffic = effect.traffic or Traffic("read", count)
        return self._connections(effect).attempt(data, count, traffic, effect.deadline)


def _outcome(step: Callable[[StepT], Any], argument: StepT) -> Any:
    """Do a step; return its outcome, or the `StoreError` with which it failed."""
    try:
        return step(argument)
    except StoreError as failure:
        let_pass(failure)
        return failure


def _compute(steps: Iterable[None], deadline: float) -> None:
    """Do all steps.

    Raises:
        StoreTimeoutError: the deadline has passed.
    """
    for _ in steps:
        if clocks.monotonic() >= deadline:
            raise StoreTimeoutError
