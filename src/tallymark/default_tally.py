"""The default tally of each event loop, and the module-level coroutines on it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from typing import TYPE_CHECKING

from anyio.lowlevel import RunVar

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
        self.loop = weakref.ref(asyncio.get_running_loop())
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
            # A loop's variables outlive it for as long as they refer to it.
            if _default.get() is self:
                _default.set(None)
            if _last.used is self:
                _last.used = None
            await self.tally.aclose()


_default: RunVar[_Default | None] = RunVar("tallymark default tally", None)


class _Last(threading.local):
    """What a thread used last. It is a fifth of a mark's time faster than to ask a `RunVar`."""

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
    current = _default.get()
    if current is None or current.configured is not defaults.configured():
        before, current = current, _Default()
        _default.set(current)  # with no await in between: concurrent calls share it
        await anext(current.closing)
        if before is not None:
            await before.closing.aclose()
    _last.used = current
    return current.tally


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
