"""The blocking driver's way to ask: queries in, answers out."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any, TypeVar

from .blocking_link import Sent
from .errors import StoreError, with_fate
from .requests import Found, Request, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .blocking_link import BlockingLink
    from .requests import Query

__all__ = ["BlockingReader"]

AnswerT = TypeVar("AnswerT")


class BlockingReader:
    """Runs queries in the calling thread. Raises what `tallymark.reader.Reader` does."""

    def __init__(
        self, link: BlockingLink, *, timeout: float, check_usable: Callable[[], None]
    ) -> None:
        """Begin.

        Arguments:
            link: the connections.
            timeout: how many seconds each request may take.
            check_usable: raises if the tally is closed.
        """
        self._link = link
        self._timeout = timeout
        self._check_usable = check_usable

    def answer(self, query: Query[AnswerT]) -> AnswerT:
        """Return a query's answer."""
        self._check_usable()
        try:
            step = next(query)
            while True:
                step = query.send(self._done(step))
        except StopIteration as end:
            answer: AnswerT = end.value
            return answer

    def stream(self, query: Query[None]) -> Iterator[Any]:
        """Return an iterator over what a query finds, one by one."""
        return itertools.chain.from_iterable(self.parts(query))  # in C

    def parts(self, query: Query[None]) -> Iterator[Any]:
        """Yield what a query finds, part by part."""
        with contextlib.suppress(StopIteration):
            step = next(query)
            while True:
                if isinstance(step, Found):
                    yield step.items
                    step = next(query)
                else:
                    step = query.send(self._done(step))

    def _done(self, step: Request | Work | Found) -> Any:
        if isinstance(step, Request):
            return self._ask(step)
        if isinstance(step, Work):
            for _ in step.steps:
                pass
            return None
        raise TypeError(step)

    def _ask(self, request: Request) -> list[Any]:
        self._check_usable()
        try:
            replies = self._link.exchange(
                request.encode(), request.reply_count(), Sent(), request.meanwhile or ()
            )
        except StoreError as failure:
            raise with_fate(failure, sent=None, timeout=self._timeout) from failure.__cause__
        return request.settle(replies)
