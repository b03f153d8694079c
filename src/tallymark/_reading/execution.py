"""How queries and batches are carried out: deadlines and retries, once for both drivers. Pure.

A query says what to ask. An execution decides when to ask again and when to give up.
Both are generators: an execution yields effects, which a driver's ``run`` performs, and
is sent what each of them came to, or has the `StoreError` thrown in.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

from .._core.failures import TRANSIENT, Attempts, with_outcome
from .._core.options import checked_timeout
from .._core.untrusted import let_handlers_pass
from ..errors import StoreError, StoreTimeoutError
from .requests import Checkpoint, Compute, ListNodes, Page, Request, Scatter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .._core.options import Options
    from .._core.urls import Address
    from .requests import Query

__all__ = [
    "Answerable",
    "Computation",
    "Deadline",
    "Exchange",
    "ExchangeAll",
    "Execution",
    "Executions",
    "Refresh",
    "Sendable",
    "Sleep",
    "Traffic",
    "resume",
    "retried",
]

AnswerT = TypeVar("AnswerT")
AnswerT_co = TypeVar("AnswerT_co", covariant=True)


class Sendable(Protocol):
    """What is sent with one write: a `Request`, a `Scatter`, a batch, or single commands."""

    @property
    def share(self) -> int:
        """How many like this one may go together without keeping the server busy for long."""
        ...

    def encode(self) -> bytes:
        """Return the bytes to send."""
        ...

    def reply_count(self) -> int:
        """Return how many replies the server gives."""
        ...


class Answerable(Sendable, Protocol[AnswerT_co]):
    """A `Sendable` that knows what its replies mean."""

    def parse(self, replies: Sequence[Any], /) -> AnswerT_co:
        """Return what the replies say."""
        ...


@dataclass
class Traffic:
    """What the attempts of one call have sent.

    Attributes:
        kind, size: as for `tallymark.Operation`.
        attempts: how many were begun.
        bytes: how many bytes were written, or may have been.
    """

    kind: Literal["write", "read"]
    size: int
    attempts: int = 0
    bytes: int = 0


class Exchange(NamedTuple):
    """One attempt: send a request, receive its replies. The execution is sent the replies.

    Attributes:
        request: what to send.
        deadline: when to give up, as the driver's clock has it.
        address: the node of a cluster; ``None`` for the only server.
        traffic: is kept up to date, also if the attempt fails.
        meanwhile: steps of work to do until the replies are there.
        urgent: whether to send it at once, whatever else is in flight.
        changes: whether it changes bitmaps, which no replica would let it.
    """

    request: Any  # a Sendable; a Protocol in a NamedTuple would cost a check for each
    deadline: float
    address: Address | None = None
    traffic: Traffic | None = None
    meanwhile: Iterator[None] | None = None
    urgent: bool = False
    changes: bool = True


class ExchangeAll(NamedTuple):
    """Several attempts at once; the execution is sent a list: replies, or a `StoreError`, of each.

    Attributes:
        exchanges: the attempts, without a ``meanwhile`` of their own.
        deadline: when to give up on the work.
        meanwhile: steps of work to do until all replies are there.
    """

    exchanges: Sequence[Exchange]
    deadline: float
    meanwhile: Iterator[None] | None = None


class Sleep(NamedTuple):
    """Wait, and let others go on.

    Attributes:
        seconds: how long.
    """

    seconds: float


class Computation(NamedTuple):
    """Work for the processor, in a thread if the driver has an event loop.

    Attributes:
        work: what to do.
        deadline: when to give up, as the driver's clock has it.
    """

    work: Compute
    deadline: float


class Refresh(NamedTuple):
    """Read the topology of the cluster anew; concurrent calls share one discovery.

    Attributes:
        deadline: when to give up, as the driver's clock has it.
        since: nothing is to do if that was done after this time.
    """

    deadline: float
    since: float = 0.0


#: What a driver performs.
Effect = Exchange | ExchangeAll | Sleep | Refresh | Computation | Checkpoint | Page
Execution = Generator[Any, Any, AnswerT]


class Deadline:
    """The deadline of a call that makes several requests.

    Attributes:
        at: when the call has to end, as the driver's clock has it; ``math.inf`` for no limit.
    """

    def __init__(self, timeout: float | None, clock: Callable[[], float]) -> None:
        """Begin the call.

        Arguments:
            timeout: how many seconds the whole call may take; ``None`` for no deadline, where
                each request has the tally's timeout.
            clock: the driver's, in seconds.

        Raises:
            InvalidTypeError, InvalidValueError: the timeout is not allowed.
        """
        self._timeout = timeout if timeout is None else checked_timeout(timeout)
        self._clock = clock
        self.at = math.inf if self._timeout is None else clock() + self._timeout

    @property
    def check(self) -> Callable[[], object] | None:
        """What raises a `StoreTimeoutError` when no time is left; ``None`` without a deadline."""
        return None if self._timeout is None else self.left

    def left(self) -> float | None:
        """Return how many seconds are left; ``None`` if the call has no deadline.

        Raises:
            StoreTimeoutError: none are left.
        """
        if self._timeout is None:
            return None
        if (seconds := self.at - self._clock()) <= 0:
            raise StoreTimeoutError(f"not done within {self._timeout:g} s")
        return seconds


def resume(execution: Execution[Any], outcome: Any) -> Any:
    """Give an execution the outcome of its effect, and return its next effect.

    Arguments:
        execution: the execution.
        outcome: what the effect returned, or the `StoreError` with which it failed.

    Raises:
        StopIteration: the execution has ended; the value is its result.
    """
    if isinstance(outcome, StoreError):
        return execution.throw(outcome)
    return execution.send(outcome)


def retried(
    request: Answerable[AnswerT],
    deadline: float,
    clock: Callable[[], float],
    *,
    traffic: Traffic | None = None,
    meanwhile: Iterator[None] | None = None,
    changes: bool = True,
) -> Execution[AnswerT]:
    """Have a server answer a request, with further attempts after transient failures.

    Arguments:
        request: the request.
        deadline: when to give up.
        clock: the driver's.
        traffic, meanwhile, changes: as for `Exchange`.

    Raises:
        StoreError: there is no answer.
    """
    exchange = Exchange(request, deadline, None, traffic, meanwhile, changes=changes)
    attempts: Attempts | None = None
    while True:
        try:
            replies = yield exchange
            return request.parse(replies)
        except TRANSIENT as failure:
            let_handlers_pass(failure)
            cause = failure
        attempts = attempts or Attempts()
        yield Sleep(attempts.pause(cause, deadline - clock()))


class Executions:
    """Makes executions of queries on one server.

    Attributes:
        options: the tally's; each request may take its timeout, attempts to connect included.
    """

    def __init__(
        self, options: Options, clock: Callable[[], float], check_usable: Callable[[], None]
    ) -> None:
        """Begin.

        Arguments:
            options: the tally's.
            clock: the driver's, in seconds.
            check_usable: raises if the tally is closed, or belongs to another event loop.
        """
        self.options = options
        self._clock = clock
        self.check_usable = check_usable

    def whole(self, query: Query[AnswerT], timeout: float | None = None) -> Execution[AnswerT]:
        """Answer a query.

        Arguments:
            query: the query.
            timeout: how many seconds all of it may take; ``None`` for the tally's
                timeout for each request.

        Raises:
            ClosedError, WrongEventLoopError: the tally is closed, or belongs to another event
                loop.
            InvalidTypeError, InvalidValueError: the query has an argument that
                is not allowed; nothing was sent.
            CommandError: Redis refused.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
        """
        self.check_usable()
        if timeout is None:
            return self._run(query, self.options.timeout, None)
        seconds = checked_timeout(timeout)
        return self._run(query, seconds, self._clock() + seconds)

    def paged(self, query: Query[None], timeout: float | None = None) -> Execution[None]:
        """Answer a query page by page; each request may take the timeout. Raises as `whole`."""
        self.check_usable()
        seconds = self.options.timeout if timeout is None else checked_timeout(timeout)
        return self._run(query, seconds, None, paged=True)

    def _run(
        self,
        query: Query[AnswerT],
        seconds: float,
        deadline: float | None,
        *,
        paged: bool = False,
    ) -> Execution[AnswerT]:
        # Of a stream, each request has so many seconds, with what is computed behind it.
        began = self._clock()
        try:
            effect = next(query)
            while True:
                outcome: Any = None
                if isinstance(effect, Checkpoint):
                    until = began + seconds if paged else deadline
                    if until is not None and self._clock() >= until:
                        raise _not_computed(seconds)
                    yield effect
                elif isinstance(effect, Page):
                    yield effect
                    began = self._clock()
                else:
                    ends = self._clock() + seconds if deadline is None else deadline
                    outcome = yield from self._outcome(effect, seconds, ends)
                    if paged:
                        began = self._clock()
                effect = query.send(outcome)
        except StopIteration as end:
            answer: AnswerT = end.value
            return answer

    def _outcome(
        self, effect: Request | Scatter | ListNodes | Compute, seconds: float, deadline: float
    ) -> Execution[Any]:
        """Carry out an effect of a query.

        Raises:
            StoreError: there is no answer.
        """
        self.check_usable()
        try:
            if isinstance(effect, Compute):
                return (yield Computation(effect, deadline))
            return (yield from self._ask(effect, deadline))
        except StoreError as failure:
            let_handlers_pass(failure)
            if isinstance(effect, Compute) and isinstance(failure, StoreTimeoutError):
                raise _not_computed(seconds) from failure.__cause__
            error = with_outcome(failure, sent=None, timeout=seconds)
            raise error from failure.__cause__

    def _ask(self, effect: Request | Scatter | ListNodes, deadline: float) -> Execution[list[Any]]:
        """Return what the replies to a query's request say.

        Raises:
            StoreError: there is no answer.
        """
        if isinstance(effect, ListNodes):
            return [""]  # all shards are on the one server
        request: Answerable[list[Any]] = effect
        return (
            yield from retried(
                request,
                deadline,
                self._clock,
                meanwhile=effect.meanwhile,
                changes=effect.changes,
            )
        )


def _not_computed(seconds: float) -> StoreTimeoutError:
    missed = "the answer was not worked out"
    return with_outcome(StoreTimeoutError(), sent=None, timeout=seconds, missed=missed)
