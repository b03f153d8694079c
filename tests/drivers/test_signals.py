"""Signal handlers that mark, or raise, in the middle of a call."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from interruptions import RAISED, SoftTimeLimit, Stop, TimeLimit

from facades import internals
from tallymark import Granularity, Operation, ReentrantCallError, SyncTally, Tally
from tallymark._cluster.handshake import Handshake
from tallymark._cluster.topology import Topology
from tallymark._core.keys import KeySchema
from wires import wired

if TYPE_CHECKING:
    from collections.abc import Callable

    from facades import Facade
    from stores import Store

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="Windows has no SIGUSR1")

PROGRAM = Path(__file__).with_name("interruptions.py")
SINGLE_SERVER = [
    "mark", "connect", "read", "transaction", "bulk", "client", "drop-in", "one-connection",
    "memory", "stream", "default", "close",
]  # fmt: skip


def run(scenario: str, action: str, url: str) -> None:
    """Run a scenario in a process of its own, which ends also if a call hangs."""
    done = subprocess.run(
        [sys.executable, PROGRAM, scenario, action, url],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "interruptions" in done.stdout


@pytest.mark.exhaustive
@pytest.mark.parametrize("action", ["mark", "soft"])
@pytest.mark.parametrize("scenario", SINGLE_SERVER)
def test_interrupted_at_every_line(redis_store: Store, scenario: str, action: str) -> None:
    run(scenario, action, redis_store.url)


@pytest.mark.parametrize("action", ["mark", "soft"])
def test_interrupted_on_a_cluster(cluster_store: Store, action: str) -> None:
    run("cluster", action, cluster_store.url)


def test_no_exception_costs_the_pool_its_place(redis_store: Store) -> None:
    run("one-connection", "index", redis_store.url)


@pytest.mark.exhaustive
@pytest.mark.parametrize("raised", RAISED)
def test_whatever_a_handler_raises_arrives_as_it_is(redis_store: Store, raised: str) -> None:
    run("mark", raised, redis_store.url)


@pytest.mark.parametrize("raised", [SoftTimeLimit, TimeoutError, Stop, ConnectionResetError])
@pytest.mark.parametrize("verb", ["mark", "read"])
def test_a_time_limit_while_redis_does_not_answer(
    redis_store: Store, raised: type[BaseException], verb: str
) -> None:
    limit = raised("of the program")

    def ring(signum: int, frame: Any) -> None:
        raise limit

    with wired(redis_store.url) as wire, SyncTally.from_url(wire.url, timeout=20) as tally:
        ask: Callable[[], Any] = {
            "mark": lambda: tally.mark_unique("a", 1),
            "read": lambda: tally.contains(tally.unique("a"), 1),
        }[verb]
        tally.mark_unique("a", 1)
        ask()
        before = signal.signal(signal.SIGALRM, ring)
        try:
            wire.swallow()
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            began = time.monotonic()
            with pytest.raises(raised) as caught:
                ask()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert caught.value is limit
        assert time.monotonic() - began < 5
        wire.heal()
        assert tally.contains(tally.unique("a"), 1)
        assert not tally.mark_unique("a", 1)
        assert tally.mark_unique("a", 2) == Granularity.UNIQUE


class OwnLimit(TimeoutError):  # noqa: N818
    """A time limit of the module that raises it."""


def deleting(make: Callable[[], BaseException]) -> Any:
    def handler(signum: int, frame: Any) -> None:
        del signum, frame
        raise make()

    return handler


def moving_on(make: Callable[[], BaseException]) -> Any:
    def handler(signum: int, frame: Any) -> None:
        frame = frame.f_back
        raise make()

    return handler


def a_method(make: Callable[[], BaseException]) -> Any:
    class Limits:
        def __call__(self, *arguments: Any) -> None:
            del arguments
            raise make()

        def ring(self, *arguments: Any) -> None:
            del arguments
            raise make()

    return Limits().ring


def a_callable(make: Callable[[], BaseException]) -> Any:
    return a_method(make).__self__


def a_partial(make: Callable[[], BaseException]) -> Any:
    return functools.partial(a_method(make))


def uninstalling(make: Callable[[], BaseException]) -> Any:
    """Leave nothing but the type of the exception, and the module that raised it."""

    def handler(signum: int, frame: Any) -> None:
        signal.signal(signum, signal.SIG_IGN)
        del signum, frame
        raise make()

    return handler


def interrupt_a_mark(store: Store, handler: Any, limit: BaseException) -> None:
    """Raise while Redis does not answer; look whether that arrives as it is."""
    with wired(store.url) as wire, SyncTally.from_url(wire.url, timeout=2) as tally:
        tally.mark_unique("a", 1)
        before = signal.signal(signal.SIGALRM, handler(lambda: limit))
        try:
            wire.swallow()
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(type(limit)) as caught:
                tally.mark_unique("a", 1)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert caught.value is limit


@pytest.mark.parametrize("handler", [deleting, moving_on, a_method, a_callable, a_partial])
@pytest.mark.parametrize("raised", [OwnLimit, ConnectionResetError, redis.ConnectionError])
def test_handlers_that_let_go_of_the_frame_that_they_have_interrupted(
    redis_store: Store, handler: Any, raised: type[BaseException]
) -> None:
    interrupt_a_mark(redis_store, handler, raised("of the program"))


def test_a_handler_that_is_none_any_more_and_lets_go_of_its_frame(redis_store: Store) -> None:
    """Its exception is no store's if its type is of another module than the one that raised it."""
    interrupt_a_mark(redis_store, uninstalling, TimeLimit("of the program"))


def test_a_call_in_a_handler_that_interrupts_a_pool_of_the_callers(redis_store: Store) -> None:
    """Which may have a lock that is held then, as that of `queue.LifoQueue`."""
    refused: list[BaseException] = []

    def handler(signum: int, frame: Any) -> None:
        try:
            tally.mark_unique("a", 2)
        except ReentrantCallError as error:
            refused.append(error)

    class Pool(redis.BlockingConnectionPool):
        def get_connection(self, *arguments: Any, **options: Any) -> Any:
            signal.raise_signal(signal.SIGUSR1)
            return super().get_connection(*arguments, **options)  # type: ignore[no-untyped-call]

        def release(self, connection: Any) -> None:
            signal.raise_signal(signal.SIGUSR1)
            super().release(connection)  # type: ignore[no-untyped-call]

    pool = Pool.from_url(redis_store.url)
    tally = SyncTally(redis.Redis(connection_pool=pool))
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        assert tally.mark_unique("a", 1) == Granularity.UNIQUE
    finally:
        signal.signal(signal.SIGUSR1, before)
        tally.close()
        pool.disconnect()
    assert len(refused) == 2
    assert redis_store.bits() == {"trackist_a_u": {1}}


class Alarming:
    """Values in whose methods a signal arrives."""

    class Zone(tzinfo):
        def utcoffset(self, moment: datetime | None) -> timedelta:
            signal.raise_signal(signal.SIGUSR1)
            return timedelta(0)

        def dst(self, moment: datetime | None) -> timedelta:
            return timedelta(0)

        def tzname(self, moment: datetime | None) -> str:
            return "alarming"

    def __repr__(self) -> str:
        signal.raise_signal(signal.SIGUSR1)
        return ""


class AlarmingBytes(bytes):
    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        signal.raise_signal(signal.SIGUSR1)
        return super().decode(encoding, errors)


def of_a_note() -> None:
    handshake = Handshake(KeySchema(shards=4))
    handshake.check([AlarmingBytes(b"{}")])


def of_a_topology() -> None:
    topology = Topology([("a", 1)], KeySchema(shards=4))
    topology.update([[0, 1, [AlarmingBytes(b"a"), 1]]], ("a", 1))


@pytest.mark.parametrize(
    "call",
    [
        lambda tally: tally.mark_event("a", 1, now=datetime(2026, 1, 1, tzinfo=Alarming.Zone())),
        lambda tally: tally.mark_event(Alarming(), 1),
        lambda _: SyncTally.from_url("memory://", timezone=Alarming.Zone()),
        lambda _: of_a_note(),
        lambda _: of_a_topology(),
    ],
    ids=["now", "repr", "timezone", "note", "topology"],
)
@pytest.mark.parametrize("error", [ValueError("of the handler"), KeyError("of the handler")])
def test_a_handler_that_interrupts_what_looks_at_a_value(call: Any, error: Exception) -> None:
    def fail(signum: int, frame: Any) -> None:
        raise error

    before = signal.signal(signal.SIGUSR1, fail)
    try:
        with SyncTally.from_url("memory://") as tally, pytest.raises(type(error)) as caught:
            call(tally)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert caught.value is error


async def test_exceptions_of_observers_that_nobody_catches(
    facade: Facade, redis_store: Store
) -> None:
    """Such as a KeyboardInterrupt: the tally goes on afterwards.

    Where marks of several tasks share a batch, it is nobody's: asyncio has it.
    """
    asyncio.get_running_loop().set_exception_handler(lambda _, context: None)
    operations: list[Operation] = []

    def stop(operation: Operation) -> None:
        operations.append(operation)
        if len(operations) == 1:
            raise Stop

    async with facade.open(redis_store.url, observer=stop, timeout=3) as tally:
        with contextlib.suppress(Stop):
            await tally.mark_unique("a", 1)
        assert await tally.mark_unique("a", 2) == Granularity.UNIQUE
        assert await tally.contains(tally.unique("a"), 1)


@pytest.mark.parametrize("connected", [False, True])
async def test_an_async_mark_is_interrupted(redis_store: Store, connected: bool) -> None:
    """Whoever is interrupted gets the exception as it is, and nobody else notices."""
    limit = SoftTimeLimit()
    reported: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context.get("exception")))
    async with Tally.from_url(redis_store.url, timeout=3) as tally:
        if connected:
            await tally.mark_unique("a", 0)
        link = internals(tally).writer._connection
        receive, calls = link.receive, []

        async def interrupted(*arguments: object) -> None:
            calls.append(arguments)
            if len(calls) == 1:
                raise limit
            await receive(*arguments)

        link.receive = interrupted
        found = await asyncio.gather(
            *(tally.mark_unique("a", user) for user in range(1, 5)), return_exceptions=True
        )
        assert [each for each in found if isinstance(each, BaseException)] + reported == [limit]
        assert await tally.count(tally.unique("a")) >= 4
        assert not await tally.mark_unique("a", 4)
