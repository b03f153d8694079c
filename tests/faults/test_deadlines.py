"""Every call ends by its deadline, whatever the server and the network do."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
from load import TOLERANCE

from servers import RedisProcess, running
from tallymark import StoreTimeoutError, StoreUnavailableError, Tally
from wires import wired

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from facades import Facade
    from wires import Wire

#: What a call may take, and what the tally would let it take by itself.
TIMEOUT, USUAL = 0.1, 60.0

MONDAY = date(2026, 11, 23)


def refuse(wire: Wire, _: RedisProcess) -> None:
    wire.refusing = True
    wire.cut_all()


def swallow(wire: Wire, _: RedisProcess) -> None:
    wire.swallow()


def half_a_reply(wire: Wire, _: RedisProcess) -> None:
    wire.hold_after("reply", 3)


def trickle(wire: Wire, _: RedisProcess) -> None:
    wire.pace = 12


def freeze(_: Wire, server: RedisProcess) -> None:
    server.freeze()


async def transaction(tally: Any) -> None:
    async with tally.transaction(timeout=TIMEOUT) as tx:
        tx.mark_event("active", 1)


async def users(tally: Any) -> None:
    async for _ in tally.users(tally.day("active"), timeout=TIMEOUT):
        pass


CALLS: dict[str, Callable[[Any], Awaitable[object]]] = {
    "mark_event": lambda tally: tally.mark_event("active", 1, timeout=TIMEOUT),
    "transaction": transaction,
    "mark_many": lambda tally: tally.mark_many("active", range(5000), timeout=TIMEOUT),
    "count": lambda tally: tally.count(tally.day("active") & tally.week("active"), timeout=TIMEOUT),
    "users": users,
    "event_names": lambda tally: tally.event_names(timeout=TIMEOUT),
}


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "not connected"])
@pytest.mark.parametrize("fault", [refuse, swallow, half_a_reply, trickle, freeze])
async def test_calls_end_in_time(facade: Facade, fault: Any, connected: bool) -> None:
    with running(RedisProcess()) as server, wired(server.url) as wire:
        async with facade.open(wire.url, timeout=USUAL) as tally:
            if connected:
                await tally.mark_event("active", 1, now=MONDAY)
                await tally.count(tally.day("active"))
            for name, call in CALLS.items():
                fault(wire, server)
                begun = time.monotonic()
                with pytest.raises((StoreTimeoutError, StoreUnavailableError)) as raised:
                    await call(tally)
                took = time.monotonic() - begun
                assert took < TIMEOUT + TOLERANCE, name
                message = str(raised.value)
                assert "within 0." in message or "Error" in message or "closed" in message, name
                if "mark" in name or name == "transaction":
                    assert "nothing was sent" in message or "may or may not" in message
            server.thaw()
            wire.heal()
            assert await tally.mark_event("active", 7, now=MONDAY)
            assert await tally.contains(tally.day("active", MONDAY), 7)


@pytest.mark.parametrize("longer", [30.0, math.inf])
async def test_a_call_behind_one_with_a_longer_timeout(longer: float) -> None:
    """The timer of the leader is too late for a call that waits behind it."""
    with running(RedisProcess()) as server, wired(server.url) as wire:
        async with Tally.from_url(wire.url, timeout=0.5) as tally:
            await tally.mark_event("active", 1, timeout=math.inf)  # no timer is left
            wire.swallow()
            leader = asyncio.create_task(tally.mark_event("active", 2, timeout=longer))
            await asyncio.sleep(0)
            begun = time.monotonic()
            with pytest.raises(StoreTimeoutError, match="nothing was sent"):
                await asyncio.wait_for(tally.mark_event("active", 3), 10)
            assert time.monotonic() - begun < 0.5 + TOLERANCE
            wire.heal()
            assert await leader


async def test_a_longer_time_than_the_tallys(facade: Facade) -> None:
    with running(RedisProcess()) as server, wired(server.url) as wire:
        async with facade.open(wire.url, timeout=0.1) as tally:
            await tally.mark_event("active", 1)
            wire.delay = 0.25  # for each direction
            with pytest.raises(StoreTimeoutError, match=r"within 0\.1 s; marks may"):
                await tally.mark_event("active", 2)
            wire.delay = 0.1
            assert await tally.mark_event("active", 3, timeout=30)
            assert await tally.count(tally.day("active"), timeout=30)


async def test_the_first_call_after_a_long_outage_finds_the_server(facade: Facade) -> None:
    """However long the pauses between attempts have become, each call makes one."""
    with running(RedisProcess()) as server, wired(server.url) as wire:
        async with facade.open(wire.url, timeout=0.2) as tally:
            await tally.mark_event("active", 1)
            for _ in range(8):
                refuse(wire, server)
                with pytest.raises(StoreUnavailableError):
                    await tally.mark_event("active", 2)
            wire.heal()
            assert await tally.mark_event("active", 3)


async def test_timeouts_that_are_refused(facade: Facade) -> None:
    async with facade.open("memory://") as tally:
        timeouts: list[Any] = [0, -1, float("nan"), "1", True]
        for timeout in timeouts:
            for call in (
                tally.mark_event("active", 1, timeout=timeout),
                tally.mark_many("active", [1], timeout=timeout),
                tally.count(tally.day("active"), timeout=timeout),
            ):
                with pytest.raises((TypeError, ValueError), match="timeout must be"):
                    await call
