"""Executions of queries and batches: deadlines and retries, once for both drivers. Pure.

A query decides which requests to send. An execution decides when to retry a request and when
to fail. Both are generators: an execution yields effects, which a driver's ``run`` performs.
The driver sends it the outcome of each effect, or throws in the `StoreError`.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

from .._core.failures import TRANSIENT, Attempts, with_outcome
from .._core.options import checked_timeout
from .._core.untrusted import reraise_from_handler
from ..errors import StoreError, StoreTimeoutError
from .requests import Checkpoint, Compute, ListNodes, Page, Request, Scatter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .._core.options import Options
    from .._core.urls import Address
    from .requests import Query

__all__ = [
    "Answerable",
    "Commit",
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
    """The payload of one write to a connection: a `Request`, a `Scatter`, a batch, or commands."""

    @property
    def share(self) -> int:
        """How many requests of this cost may be sent together; more block the server for long."""
        ...

    def encode(self) -> bytes:
        """Return the bytes to send."""
        ...

    def reply_count(self) -> int:
        """Return how many replies the server sends."""
        ...


class Answerable(Sendable, Protocol[AnswerT_co]):
    """A `Sendable` that makes a result of its replies."""

    def parse(self, replies: Sequence[Any], /) -> AnswerT_co:
        """Return the result."""
        ...


@dataclass
class Traffic:
    """The attempts of one call, and the bytes that they have sent.

    Attributes:
        kind, size: as for `tallymark.Operation`.
        attempts: how many attempts have begun.
        bytes: how many bytes have been written, or may have been, without those of attempts
            that were sent together with other calls.
        sent: whether a byte has been written, or may have been.
    """

    kind: Literal["write", "read"]
    size: int
    attempts: int = 0
    bytes: int = 0
    sent: bool = False


class Exchange(NamedTuple):
    """One attempt: send a request, receive its replies. The execution is sent the replies.

    Attributes:
        request: the request.
        deadline: when the attempt times out, on the driver's clock.
        address: the node of a cluster; ``None`` for the only server.
        traffic: is updated by the attempt, also if it fails.
        meanwhile: steps of a computation to run until the replies arrive.
        urgent: whether to send the request immediately, even if others are in flight.
        changes: whether the request writes, and so cannot be sent to a replica.
    """

    request: Any  # a Sendable; a Protocol in a NamedTuple would cost a check for each
    deadline: float
    address: Address | None = None
    traffic: Traffic | None = None
    meanwhile: Iterator[None] | None = None
    urgent: bool = False
    changes: bool = True


class ExchangeAll(NamedTuple):
    """Several concurrent attempts.

    The execution is sent a list with the outcome of each: the replies, or the `StoreError`.

    Attributes:
        exchanges: the attempts, without a ``meanwhile`` of their own.
        deadline: when the computation times out, on the driver's clock.
        meanwhile: steps of a computation to run until all replies arrive.
    """

    exchanges: Sequence[Exchange]
    deadline: float
    meanwhile: Iterator[None] | None = None


class Commit(NamedTuple):
    """One attempt to commit marks of one shard of a cluster. The execution is sent the results.

    Attributes:
        marks: the marks.
        deadline: when the attempt times out, on the driver's clock.
        address: the node.
        traffic: is updated by the attempt, also if it fails.
        importing: whether the node is importing the slot, and so needs ``ASKING``.
    """

    marks: Sequence[Any]
    deadline: float
    address: Address
    traffic: Traffic
    importing: bool


class Sleep(NamedTuple):
    """Pause this execution.

    Attributes:
        seconds: how long.
    """

    seconds: float


class Computation(NamedTuple):
    """A long computation, which a driver with an event loop runs in a worker thread.

    Attributes:
        work: the computation.
        deadline: when it times out, on the driver's clock.
    """

    work: Compute
    deadline: float


class Refresh(NamedTuple):
    """Discover the topology of the cluster; concurrent executions share one discovery.

    Attributes:
        deadline: when the discovery times out, on the driver's clock.
        since: skip the discovery if the last one was after this time, on the driver's clock.
    """

    deadline: float
    since: float = 0.0


#: The effects that an execution may yield.
ExecutionEffect = (
    Exchange | ExchangeAll | Commit | Sleep | Refresh | Computation | Checkpoint | Page
)
Execution = Generator[ExecutionEffect, Any, AnswerT]


class Deadline:
    """The deadline of a call that makes several requests.

    Attributes:
        at: when the call has to end, on the driver's clock; ``math.inf`` for no deadline.
    """

    def __init__(self, timeout: float | None, clock: Callable[[], float]) -> None:
        """Set the deadline; the call begins now.

        Arguments:
            timeout: how many seconds the whole call may take; ``None`` for no deadline: then
                each request has the tally's timeout.
            clock: the driver's clock, in seconds.

        Raises:
            InvalidTypeError, InvalidValueError: the timeout is not allowed.
        """
        self._timeout = timeout if timeout is None else checked_timeout(timeout)
        self._clock = clock
        self.at = math.inf if self._timeout is None else clock() + self._timeout

    @property
    def check(self) -> Callable[[], object] | None:
        """A function that raises a `StoreTimeoutError` after the deadline; ``None`` without one."""
        return None if self._timeout is None else self.left

    def left(self) -> float | None:
        """Return how many seconds are left; ``None`` if the call has no deadline.

        Raises:
            StoreTimeoutError: the deadline has passed.
        """
        if self._timeout is None:
            return None
        if (seconds := self.at - self._clock()) <= 0:
            raise StoreTimeoutError(f"not done within {self._timeout:g} s")
        return seconds


def resume(execution: Execution[Any], outcome: Any) -> Any:
    """Resume an execution with the outcome of its effect, and return its next effect.

    Arguments:
        execution: the execution.
        outcome: the result of the effect, or the `StoreError` with which it failed.

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
    """Send a request to a server, again after each transient failure, and return its result.

    Arguments:
        request: the request.
        deadline: when to stop retrying, on the driver's clock.
        clock: the driver's clock, in seconds.
        traffic, meanwhile, changes: as for `Exchange`.

    Raises:
        StoreError: the request has failed, or no attempt has succeeded before the deadline.
    """
    exchange = Exchange(request, deadline, None, traffic, meanwhile, changes=changes)
    attempts: Attempts | None = None
    while True:
        try:
            replies = yield exchange
            return request.parse(replies)
        except TRANSIENT as failure:
            reraise_from_handler(failure)
            cause = failure
        attempts = attempts or Attempts()
        yield Sleep(attempts.pause(cause, deadline - clock()))


class Executions:
    """Makes executions of queries on one server.

    Attributes:
        options: the tally's options. Their timeout is that of each request, attempts to
            connect included.
    """

    def __init__(
        self, options: Options, clock: Callable[[], float], check_usable: Callable[[], None]
    ) -> None:
        """Make executions for one tally.

        Arguments:
            options: the tally's options.
            clock: the driver's clock, in seconds.
            check_usable: raises if the tally is closed, or belongs to another event loop.
        """
        self.options = options
        self._clock = clock
        self.check_usable = check_usable

    def of(self, query: Query[AnswerT], timeout: float | None = None) -> Execution[AnswerT]:
        """Return the execution of a query, which returns the query's result.

        Arguments:
            query: the query.
            timeout: how many seconds the whole query may take; ``None`` for the tally's
                timeout for each request.

        Raises:
            ClosedError, WrongEventLoopError: the tally is closed, or belongs to another event
                loop.
            InvalidTypeError, InvalidValueError: an argument of the query is not allowed;
                nothing was sent.
            CommandError: Redis refused a command.
            StoreUnavailableError, StoreTimeoutError: no reply within the timeout.
        """
        self.check_usable()
        if timeout is None:
            return self._run(query, self.options.timeout, None)
        seconds = checked_timeout(timeout)
        return self._run(query, seconds, self._clock() + seconds)

    def paged(self, query: Query[None], timeout: float | None = None) -> Execution[None]:
        """Return the execution of a query that yields pages. Raises as `of`.

        Arguments:
            query: the query.
            timeout: how many seconds each request may take, with the computation of its
                page; ``None`` for the tally's timeout.
        """
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
        # In a paged query, the timeout is for each request and the computation after it.
        began = self._clock()
        try:
            effect = next(query)
            while True:
                outcome: Any = None
                try:
                    if isinstance(effect, Checkpoint):
                        limit = began + seconds if paged else deadline
                        if limit is not None and self._clock() >= limit:
                            raise _not_computed(seconds)
                        yield effect
                    elif isinstance(effect, Page):
                        yield effect
                        began = self._clock()
                    else:
                        limit = self._clock() + seconds if deadline is None else deadline
                        outcome = yield from self._perform(effect, seconds, limit)
                        if paged:
                            began = self._clock()
                except StoreError as failure:
                    effect = query.throw(failure)  # which may explain it
                else:
                    effect = query.send(outcome)
        except StopIteration as end:
            result: AnswerT = end.value
            return result

    def _perform(
        self, effect: Request | Scatter | ListNodes | Compute, seconds: float, deadline: float
    ) -> Execution[Any]:
        """Perform an effect of a query, and return its outcome.

        Raises:
            StoreError: the effect has failed.
        """
        self.check_usable()
        try:
            if isinstance(effect, Compute):
                return (yield Computation(effect, deadline))
            return (yield from self._dispatch(effect, deadline))
        except StoreError as failure:
            reraise_from_handler(failure)
            if isinstance(effect, Compute) and isinstance(failure, StoreTimeoutError):
                raise _not_computed(seconds) from failure.__cause__
            error = with_outcome(failure, sent=None, timeout=seconds)
            raise error from failure.__cause__

    def _dispatch(
        self, effect: Request | Scatter | ListNodes, deadline: float
    ) -> Execution[list[Any]]:
        """Return the execution of a query's request, which returns the result.

        Raises:
            StoreError: the request has failed.
        """
        if isinstance(effect, ListNodes):
            return _only_node()
        # Not a generator itself: each one more takes time, for each reply.
        request: Answerable[list[Any]] = effect
        return retried(
            request, deadline, self._clock, meanwhile=effect.meanwhile, changes=effect.changes
        )


def _only_node() -> Execution[list[Any]]:
    """Return the name of the one server, which has all shards."""
    yield from ()
    return [""]


def _not_computed(seconds: float) -> StoreTimeoutError:
    missed = "the result was not computed"
    return with_outcome(StoreTimeoutError(), sent=None, timeout=seconds, missed=missed)
