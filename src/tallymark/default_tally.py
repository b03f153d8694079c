"""The default tally of each event loop, and the module-level coroutines on it."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
import weakref
from typing import TYPE_CHECKING

from . import defaults
from .aio import Tally

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
    from datetime import date

    from .periods import Granularity
    from .transactions import Transaction

__all__ = [
    "current_tally",
    "mark_event",
    "mark_many",
    "mark_unique",
    "transaction",
    "unmark_event",
    "unmark_many",
    "unmark_unique",
]


class _Default:
    """The default tally of one event loop, and what closes it when the loop ends."""

    def __init__(self) -> None:
        self.configured = defaults.configured()
        self.tally = Tally.from_url(defaults.url(self.configured), **self.configured.options)
        loop = asyncio.get_running_loop()
        self.loop = weakref.ref(loop)
        self.key = id(loop)
        self.closing = self._close_with_the_loop()

    async def _close_with_the_loop(self) -> AsyncGenerator[None, None]:
        """Close the tally when this generator is closed, by `current_tally` or by asyncio.

        Before a loop ends, `asyncio.run` and its like close every async
        generator that was begun on it (`loop.shutdown_asyncgens`); that is the
        one hook that asyncio has for this.
        """
        try:
            yield
        finally:
            # It would keep the loop in memory.
            if _defaults.get(self.key) is self:
                del _defaults[self.key]
            if _last.used is self:
                _last.used = None
            await self.tally.aclose()


#: By the identity of their loops. A plain dictionary, each use of which is one step:
#: many threads may have loops.
_defaults: dict[int, _Default] = {}


class _Last(threading.local):
    """What a thread used last. It is faster than to look among those of all loops."""

    used: _Default | None = None


_last = _Last()


def _usual_tally() -> Tally | None:
    """Return the running loop's default tally if this thread used it last, and may still."""
    used = _last.used
    if (
        used is not None
        and used.loop() is asyncio.get_running_loop()
        and used.configured is defaults.configured()
    ):
        return used.tally
    return None


async def current_tally() -> Tally:
    """Return the running event loop's default tally, which the functions of this module use.

    For what they do not do, such as reading. It is made of what `configure`
    said last, and closed when the loop ends or `configure` is called again, so
    ask for it anew instead of keeping it.
    """
    loop = asyncio.get_running_loop()
    current = _defaults.get(id(loop))
    if current is not None and current.loop() is not loop:
        current = None  # of a loop that is gone, which had the same identity
    if current is None or current.configured is not defaults.configured():
        _close_those_of_closed_loops()
        before, current = current, _Default()
        _defaults[current.key] = current  # with no await in between: concurrent calls share it
        await anext(current.closing)
        if before is not None:
            await before.closing.aclose()
    _last.used = current
    return current.tally


def _close_those_of_closed_loops() -> None:
    """Close the default tallies whose loops were closed without `shutdown_asyncgens`."""
    for each in list(_defaults.values()):
        loop = each.loop()
        over = loop is None or loop.is_closed()
        if over and _defaults.pop(each.key, None) is each:
            each.tally._discard()  # noqa: SLF001


atexit.register(_close_those_of_closed_loops)


async def mark_event(
    event: str,
    user_id: int,
    *,
    now: date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    timeout: float | None = None,
) -> Granularity:
    """Call `Tally.mark_event` of the running event loop's default tally."""
    tally = _usual_tally() or await current_tally()
    return await tally.mark_event(
        event,
        user_id,
        now=now,
        track_hourly=track_hourly,
        track_unique=track_unique,
        timeout=timeout,
    )


async def unmark_event(
    event: str,
    user_id: int,
    *,
    now: date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    exact: bool = False,
    timeout: float | None = None,
) -> Granularity:
    """Call `Tally.unmark_event` of the running event loop's default tally."""
    tally = _usual_tally() or await current_tally()
    return await tally.unmark_event(
        event,
        user_id,
        now=now,
        track_hourly=track_hourly,
        track_unique=track_unique,
        exact=exact,
        timeout=timeout,
    )


async def mark_many(
    event: str,
    user_ids: Iterable[int] | AsyncIterable[int],
    *,
    now: date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    timeout: float | None = None,
) -> dict[Granularity, int]:
    """Call `Tally.mark_many` of the running event loop's default tally."""
    tally = _usual_tally() or await current_tally()
    return await tally.mark_many(
        event,
        user_ids,
        now=now,
        track_hourly=track_hourly,
        track_unique=track_unique,
        timeout=timeout,
    )


async def unmark_many(
    event: str,
    user_ids: Iterable[int] | AsyncIterable[int],
    *,
    now: date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    exact: bool = False,
    timeout: float | None = None,
) -> dict[Granularity, int]:
    """Call `Tally.unmark_many` of the running event loop's default tally."""
    tally = _usual_tally() or await current_tally()
    return await tally.unmark_many(
        event,
        user_ids,
        now=now,
        track_hourly=track_hourly,
        track_unique=track_unique,
        exact=exact,
        timeout=timeout,
    )


async def mark_unique(event: str, user_id: int, *, timeout: float | None = None) -> Granularity:
    """Call `Tally.mark_unique` of the running event loop's default tally."""
    return await (_usual_tally() or await current_tally()).mark_unique(
        event, user_id, timeout=timeout
    )


async def unmark_unique(event: str, user_id: int, *, timeout: float | None = None) -> Granularity:
    """Call `Tally.unmark_unique` of the running event loop's default tally."""
    return await (_usual_tally() or await current_tally()).unmark_unique(
        event, user_id, timeout=timeout
    )


@contextlib.asynccontextmanager
async def transaction(*, timeout: float | None = None) -> AsyncIterator[Transaction]:
    """Call `Tally.transaction` of the running event loop's default tally."""
    async with (await current_tally()).transaction(timeout=timeout) as collected:
        yield collected
