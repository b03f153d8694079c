"""The blocking driver's way to ask: queries in, answers out."""

from __future__ import annotations

import contextlib
import itertools
import time
from typing import TYPE_CHECKING, Any, TypeVar

from .._core.failures import with_outcome
from .._core.options import checked_timeout
from .._reading.requests import Checkpoint, Found, Nodes, Request, Round, Work
from .._redis import errors as redis_py
from ..errors import StoreError, StoreTimeoutError
from .connection import Sent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .._reading.requests import Query, Step
    from .connection import BlockingLink

__all__ = ["BaseBlockingReader", "BlockingReader", "bounded"]

AnswerT = TypeVar("AnswerT")


class BaseBlockingReader:
    """Runs queries in the calling thread. Raises what the async one does."""

    def __init__(self, *, timeout: float, check_usable: Callable[[], None]) -> None:
        """Begin.

        Arguments:
            timeout: how many seconds each request may take.
            check_usable: raises if the tally is closed.
        """
        self._timeout = timeout
        self._check_usable = check_usable

    def answer(self, query: Query[AnswerT], timeout: float | None = None) -> AnswerT:
        """Return a query's answer.

        Arguments:
            query: the query.
            timeout: how many seconds all of it may take; ``None`` for the
                usual ones, which each of its requests has.
        """
        self._check_usable()
        seconds, ends = self._timeout, None
        if timeout is not None:
            seconds = checked_timeout(timeout)
            ends = time.monotonic() + seconds
        try:
            step = next(query)
            while True:
                if isinstance(step, Checkpoint):
                    _check_time(seconds, ends)
                    step = next(query)
                else:
                    step = query.send(self._done(step, seconds, ends))
        except StopIteration as end:
            answer: AnswerT = end.value
            return answer

    def stream(self, query: Query[None], timeout: float | None = None) -> Iterator[Any]:
        """Return an iterator over what a query finds, one by one."""
        return itertools.chain.from_iterable(self.parts(query, timeout))  # in C

    def parts(self, query: Query[None], timeout: float | None = None) -> Iterator[Any]:
        """Yield what a query finds, part by part; each request has so many seconds."""
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        began = time.monotonic()
        with contextlib.suppress(StopIteration):
            step = next(query)
            while True:
                if isinstance(step, Found):
                    yield step.items
                    began = time.monotonic()
                    step = next(query)
                elif isinstance(step, Checkpoint):
                    _check_time(seconds, began + seconds)
                    step = next(query)
                else:
                    outcome = self._done(step, seconds, None)
                    began = time.monotonic()
                    step = query.send(outcome)

    def _done(self, step: Step, seconds: float, ends: float | None) -> Any:
        deadline = time.monotonic() + seconds if ends is None else ends
        self._check_usable()
        try:
            if isinstance(step, Request | Round):
                return self._settled(step, deadline)
            if isinstance(step, Nodes):
                return self._nodes_names(deadline)
            if isinstance(step, Work):
                for _ in bounded(step.steps, deadline):
                    pass
                return None
        except StoreError as failure:
            redis_py.let_pass(failure)
            raise with_outcome(failure, sent=None, timeout=seconds) from failure.__cause__
        raise TypeError(step)

    def _settled(self, request: Request | Round, deadline: float) -> list[Any]:
        """Have a request answered and settled; it is repeated if that may mend it."""
        raise NotImplementedError

    def _nodes_names(self, deadline: float) -> list[str]:
        """Return what the servers are called that hold the shards."""
        raise NotImplementedError


class BlockingReader(BaseBlockingReader):
    """Runs queries on one server."""

    def __init__(
        self,
        link: BlockingLink,
        replica: BlockingLink | None = None,
        *,
        timeout: float,
        check_usable: Callable[[], None],
    ) -> None:
        """Begin.

        Arguments:
            link: the connections.
            replica: those for what changes nothing, if they are others.
            timeout, check_usable: as for `BaseBlockingReader`.
        """
        super().__init__(timeout=timeout, check_usable=check_usable)
        self._link = link
        self._replica = replica or link

    def _settled(self, request: Request | Round, deadline: float) -> list[Any]:
        count = request.reply_count()
        link = self._link if request.changes else self._replica
        return link.exchange(
            request.encode(),
            count,
            Sent("read", count),
            deadline,
            request.settle,
            bounded(request.meanwhile, deadline),
        )

    def _nodes_names(self, deadline: float) -> list[str]:
        return [""]  # all shards are on the one server


def bounded(steps: Iterator[None] | None, deadline: float) -> Iterator[None]:
    """Take steps until a deadline, as `time.monotonic` has it.

    Raises:
        StoreTimeoutError: it is over before they are done.
    """
    for _ in steps or ():
        if time.monotonic() >= deadline:
            raise StoreTimeoutError
        yield


def _check_time(seconds: float, ends: float | None) -> None:
    """Raise if a call that has so many seconds should have ended, if that is known."""
    if ends is not None and time.monotonic() >= ends:
        missed = "the answer was not worked out"
        raise with_outcome(StoreTimeoutError(), sent=None, timeout=seconds, missed=missed)
