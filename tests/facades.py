"""Both facades behind one async interface, so that one suite runs over both."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, cast

import pytest

import tallymark
from tallymark import SyncTally, Tally, Transaction
from tallymark import sync as tm
from tallymark._core.context import EventSets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from tallymark import TallyOptions


#: The methods that build event sets, which are no coroutines in either facade.
BUILDERS = [name for name in vars(EventSets) if not name.startswith("_")]
STREAMS = ["users", "user_chunks"]


async def _streamed(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


class Awaited:
    """Blocking verbs as coroutines: they block the loop, which is all right in a test."""

    def __init__(self, verbs: Any) -> None:
        self._verbs = verbs

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._verbs, name)
        if name in BUILDERS:
            return verb
        if name in STREAMS:
            return lambda *args, **kwargs: _streamed(verb(*args, **kwargs))

        async def call(*args: Any, **kwargs: Any) -> Any:
            return verb(*args, **kwargs)

        return call

    @contextlib.asynccontextmanager
    async def transaction(self, **options: Any) -> AsyncIterator[Transaction]:
        with self._verbs.transaction(**options) as transaction:
            yield transaction


class Facade:
    """One way to use the library: how to open a tally, and the module-level verbs."""

    def __init__(self, name: str, tally: Any, module: Any) -> None:
        self.name = name
        self.tally = tally
        self.module = module

    def verbs(self, source: Any) -> Any:
        """Return the verbs of a tally or module of this facade, as coroutines."""
        return source if self.name == "async" else Awaited(source)

    @contextlib.asynccontextmanager
    async def open(self, url: str, **options: Any) -> AsyncIterator[Tally]:
        """Open a tally; the blocking one looks like an async one."""
        made = self.tally.from_url(url, **cast("TallyOptions", options))
        try:
            yield self.verbs(made)
        finally:
            await self.close(made)

    async def close(self, made: Any) -> None:
        """Close a tally of this facade."""
        if self.name == "async":
            await made.aclose()
        else:
            made.close()


ASYNC = Facade("async", Tally, tallymark)
SYNC = Facade("sync", SyncTally, tm)
FACADES = [ASYNC, SYNC]


def internals(tally: Tally | SyncTally) -> Any:
    """Return what a tally works on, for tests that look behind its public face."""
    return tally.backend


#: Each facade on a real Redis, and each other kind of store with one of them. For tests
#: that take long and are about the core, which knows nothing of either.
ON_SOME_STORES = pytest.mark.parametrize(
    ("facade", "store"),
    [
        pytest.param(facade, store, id=f"{facade.name}-{store}")
        for facade, store in (
            (ASYNC, "redis"),
            (SYNC, "redis"),
            (ASYNC, "cluster"),
            (SYNC, "memory"),
        )
    ],
    indirect=True,
)
