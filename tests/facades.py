"""Both facades with one async interface, so that one test runs with both."""

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
STREAMS = ["users", "user_chunks", "export"]


async def _streamed(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


class Awaited:
    """Wraps the blocking verbs as coroutines, which block the event loop."""

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
    async def transaction(self, **options: Any) -> AsyncIterator[Transaction[Any]]:
        with self._verbs.transaction(**options) as transaction:
            yield transaction


class Facade:
    """A facade of the library: its class of tallies, and the module with its verbs."""

    def __init__(self, name: str, tally: Any, module: Any) -> None:
        self.name = name
        self.tally = tally
        self.module = module

    def verbs(self, source: Any) -> Any:
        """Return the verbs of a tally or a module of this facade, as coroutines."""
        return source if self.name == "async" else Awaited(source)

    @contextlib.asynccontextmanager
    async def open(self, url: str, **options: Any) -> AsyncIterator[Tally[Any]]:
        """Open a tally; that of the blocking facade is wrapped as coroutines."""
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


def internals(tally: Tally[Any] | SyncTally[Any]) -> Any:
    """Return the backend of a tally, for tests of its internals."""
    return tally.backend


#: Each facade with a real Redis, and each other kind of store with one facade. For slow tests
#: of the core, which depends on neither.
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

#: The same, each with one of the two algebras; both on a real Redis, from either facade.
ON_SOME_STORES_WITH_ALGEBRAS = pytest.mark.parametrize(
    ("facade", "store", "algebra"),
    [
        pytest.param(facade, store, algebra, id=f"{facade.name}-{store}-{algebra}")
        for facade, store, algebra in (
            (ASYNC, "redis", "numpy"),
            (ASYNC, "redis", "ints"),
            (SYNC, "redis", "numpy"),
            (SYNC, "redis", "ints"),
            (ASYNC, "cluster", "numpy"),
            (SYNC, "memory", "ints"),
        )
    ],
    indirect=["facade", "store"],
)
