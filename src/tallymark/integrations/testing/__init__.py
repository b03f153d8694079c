"""What the fixtures for pytest, in the module `pytest_tallymark`, are made of."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from ..._core.options import TallyOptions, checked_timeout
from ..._redis import defaults, memory
from ..._redis.clocks import clocks
from ..._redis.faults import EmbeddedFaults, Fault
from ...errors import InvalidValueError
from .proxy import Proxy
from .servers import Database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..._async.tally import Tally
    from ..._redis.faults import FaultKind

__all__ = ["Outage", "close", "database", "default_tallies", "embedded", "on_server", "real_clocks"]

_KINDS = ("unavailable", "slow", "full")
_numbers = itertools.count(1)


class Outage:
    """The fixture ``tallymark_outage``: makes the store of a test fail for a block."""

    def __init__(self, faults: EmbeddedFaults | Proxy) -> None:
        """Begin without a fault, in ``faults``."""
        self._faults = faults
        self._present: Fault | None = None

    @contextlib.contextmanager
    def __call__(
        self, kind: FaultKind = "unavailable", *, seconds: float | None = None
    ) -> Iterator[None]:
        """Make the store of this test fail until the end of the block.

        For all tallies on ``tally_url``, also those that the program under test has made, in all
        threads and event loops. Blocks may be nested: the innermost one counts.

        Arguments:
            kind: ``"unavailable"``: the connections break, and new ones are refused; ``"slow"``:
                requests reach the store late; ``"full"``: the store refuses marks, as Redis does
                when ``maxmemory`` is reached.
            seconds: how late, for ``"slow"``, more than 0; by default not before the end of the
                block, so that calls end at their timeout.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
        """
        if kind not in _KINDS:
            raise InvalidValueError(f"the kind of an outage is one of {_KINDS}, got {kind!r:.50}")
        if seconds is not None and kind != "slow":
            raise InvalidValueError("seconds is for the outage 'slow'")
        fault = Fault(kind, math.inf if seconds is None else checked_timeout(seconds))
        before, self._present = self._present, fault
        try:
            self._faults.inject(fault)
            yield
        finally:
            self._present = before
            self._faults.inject(before)
            fault.over.set()


@contextlib.contextmanager
def embedded() -> Iterator[tuple[str, EmbeddedFaults]]:
    """Yield the URL of a new embedded store, and its faults."""
    name = f"pytest-{os.getpid()}-{next(_numbers)}"
    try:
        yield f"memory://{name}", EmbeddedFaults(name)
    finally:
        memory.drop(name)


@contextlib.contextmanager
def database(url: str) -> Iterator[Database]:
    """Claim a database of the server at ``url`` for the tests of this process."""
    claimed = Database(url)
    try:
        yield claimed
    finally:
        claimed.release()


@contextlib.contextmanager
def on_server(claimed: Database, *, failing: bool) -> Iterator[tuple[str, Proxy | None]]:
    """Yield the URL of an empty database, and, if it has to fail, the proxy before it.

    Arguments:
        claimed: the database.
        failing: whether a test makes it fail.
    """
    claimed.flush()
    with contextlib.ExitStack() as stack:
        stack.callback(claimed.flush)
        if not failing:
            yield claimed.url, None
            return
        proxy = Proxy(claimed.connect)
        stack.callback(proxy.close)
        yield claimed.url_through(proxy.port), proxy


@contextlib.contextmanager
def default_tallies(url: str, options: dict[str, Any]) -> Iterator[None]:
    """Have the functions of `tallymark` and `tallymark.sync` use a store.

    Arguments:
        url: the URL of the store.
        options: those of `TallyOptions`, and ``user_ids``.

    Raises:
        InvalidValueError: there is no option of this name.
    """
    unknown = sorted(options.keys() - {"user_ids"} - TallyOptions.__annotations__.keys())
    if unknown:
        raise InvalidValueError(
            "the marker tallymark and the fixture tally_options take user_ids and the options of "
            f"tallymark.TallyOptions, not {', '.join(unknown):.200}"
        )
    before = defaults.configured()
    defaults.configure(url, **options)
    try:
        yield
    finally:
        defaults.restore(before)
        sync = sys.modules.get("tallymark.sync")
        if sync is not None:
            sync._close_default()  # noqa: SLF001


@contextlib.contextmanager
def real_clocks() -> Iterator[None]:
    """Let freezegun freeze what marks are dated with, and no timeout.

    It replaces ``time.time`` by another function, so tallies have to look it up at each mark.
    It also stops the clock of asyncio's event loops, so that no timer fires. The test may import
    it later.
    """
    before = clocks.time
    loops: Any = asyncio.BaseEventLoop
    loop_time = loops.time
    clocks.time = lambda: time.time()  # noqa: PLW0108 - see above
    loops.time = lambda _: clocks.monotonic()
    try:
        yield
    finally:
        clocks.time = before
        loops.time = loop_time


def close(tally: Tally[Any]) -> None:
    """Close a ``tally`` after its test: in its loop, if that is open, or at once."""
    loop = tally.backend.writer.loop
    if loop is None or loop.is_closed():
        tally.backend.discard()
    elif not loop.is_running():
        loop.run_until_complete(tally.aclose())
    else:  # in another thread
        asyncio.run_coroutine_threadsafe(tally.aclose(), loop).result(timeout=30)
