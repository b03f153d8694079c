"""Ten times as many marks as Redis can take: bounded memory, and an outcome of every call."""

from __future__ import annotations

import asyncio
import threading
import time
import tracemalloc
from collections import Counter
from datetime import date
from typing import TYPE_CHECKING

import pytest
from load import TOLERANCE

from facades import internals
from tallymark import OverloadedError, StoreTimeoutError, SyncTally, Tally, TallymarkError
from wires import wired

if TYPE_CHECKING:
    from stores import Store

NOW = date(2026, 11, 23)
KEY = "trackist_active_2026-11-23"

#: What the slow wire takes: about 130 bytes a mark, so about 200 marks a second.
PACE = 26_000
CAPACITY = 200
TIMEOUT = 1.0
MAX_PENDING = 400

ACKNOWLEDGED, UNSENT, UNKNOWN = 1, 2, 3


async def test_ten_times_what_redis_can_take(redis_store: Store) -> None:
    # One byte for each call, made beforehand, so that the test's own memory does not grow.
    outcomes = bytearray(10 * CAPACITY * 10)
    raised: Counter[str] = Counter()
    worst = 0.0

    async def call(tally: Tally, user_id: int) -> None:
        nonlocal worst
        begun = time.monotonic()
        try:
            await tally.mark_event("active", user_id, now=NOW)
            outcomes[user_id] = ACKNOWLEDGED
        except TallymarkError as error:
            raised[type(error).__name__] += 1
            outcomes[user_id] = UNSENT if "nothing was sent" in str(error) else UNKNOWN
        worst = max(worst, time.monotonic() - begun)

    with wired(redis_store.url) as wire:
        async with Tally.from_url(wire.url, timeout=TIMEOUT, max_pending=MAX_PENDING) as tally:
            await call(tally, 0)
            wire.pace = PACE
            calls = []
            sizes = []
            issued = 1
            lag = 0.0  # of a machine that is busy with something else
            begun = time.monotonic()
            tracemalloc.start()
            while (now := time.monotonic()) < begun + 6:
                due = int((now - begun) * 10 * CAPACITY)
                while issued < due:
                    calls.append(asyncio.create_task(call(tally, issued)))
                    issued += 1
                calls = [each for each in calls if not each.done()]
                sizes.append(tracemalloc.get_traced_memory()[0])
                paused = time.monotonic()
                await asyncio.sleep(0.01)
                lag = max(lag, time.monotonic() - paused - 0.01)
            tracemalloc.stop()
            await asyncio.gather(*calls)
            wire.heal()
            await call(tally, issued)
            assert tally.stats().waiting == 0
    acknowledged = {user_id for user_id, outcome in enumerate(outcomes) if outcome == ACKNOWLEDGED}
    unsent = {user_id for user_id, outcome in enumerate(outcomes) if outcome == UNSENT}
    print(len(acknowledged), raised, worst, lag)
    assert len(acknowledged) + sum(raised.values()) == issued + 1
    assert set(raised) <= {"OverloadedError", "StoreTimeoutError"}
    # The timer, the end of the batch and the caller each wait for a turn of the loop.
    assert worst < TIMEOUT + TOLERANCE + 3 * lag
    # Much of what Redis can take is taken and acknowledged, not given up a moment before.
    # A machine that is busy with something else does not get so far.
    assert len(acknowledged) > (2 * CAPACITY if lag < 0.05 else 0)
    # What a mark takes is a matter of its caller and of max_pending, not of time.
    half = len(sizes) // 2
    assert max(sizes[half:]) < max(sizes[len(sizes) // 5 : half]) + 1_000_000
    marked = redis_store.bits()[KEY]
    assert acknowledged <= marked
    assert not unsent & marked


async def test_what_ends_before_it_is_sent_is_not_sent(redis_store: Store) -> None:
    """Also when its batch is sent later, for other callers whose deadlines are later."""
    with wired(redis_store.url) as wire:
        async with Tally.from_url(wire.url) as tally:
            wire.swallow()  # so that the tally cannot connect
            patient = asyncio.create_task(tally.mark_event("active", 1, now=NOW))
            await asyncio.sleep(0)
            with pytest.raises(StoreTimeoutError, match="nothing was sent"):
                await tally.mark_event("active", 2, now=NOW, timeout=0.2)
            wire.heal()
            assert await patient
    assert redis_store.bits()[KEY] == {1}


async def test_a_tally_that_is_full_refuses_at_once(redis_store: Store) -> None:
    with wired(redis_store.url) as wire:
        async with Tally.from_url(wire.url, max_pending=3) as tally:
            await tally.mark_event("active", 0, now=NOW)
            wire.swallow()
            first = asyncio.create_task(tally.mark_event("active", 1, now=NOW))
            await asyncio.sleep(0)  # it is on the wire; three wait behind it
            waiting = [
                asyncio.create_task(tally.mark_event("active", user_id, now=NOW))
                for user_id in (2, 3, 4)
            ]
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError, match=r"3 marks are waiting .*nothing was sent"):
                await tally.mark_event("active", 5, now=NOW)
            wire.heal()
            await asyncio.gather(first, *waiting)
            await tally.mark_event("active", 6, now=NOW)
    assert redis_store.bits()[KEY] == {0, 1, 2, 3, 4, 6}


async def test_reads_are_bounded_too(redis_store: Store) -> None:
    with wired(redis_store.url) as wire:
        async with Tally.from_url(wire.url, max_pending=2) as tally:
            wire.swallow()
            waiting = [asyncio.create_task(tally.count(tally.day("active"))) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError, match="2 reads are waiting"):
                await tally.count(tally.day("active"))
            wire.heal()
            assert await asyncio.gather(*waiting) == [0, 0]


async def test_a_short_timeout_of_a_call_that_waits_for_a_full_queue(redis_store: Store) -> None:
    with wired(redis_store.url) as wire:
        async with Tally.from_url(wire.url, max_pending=2) as tally:
            internals(tally).writer._max_pending = 10
            await tally.mark_event("active", 0, now=NOW)
            wire.swallow()
            waiting = [asyncio.create_task(tally.mark_event("active", 1)) for _ in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(StoreTimeoutError, match=r"no room among 2 .* within 0\.1 s"):
                await tally.mark_event("active", 9, now=NOW, timeout=0.1)
            wire.heal()
            await asyncio.gather(*waiting)
    assert redis_store.bits()[KEY] == {0}


def test_threads_beyond_the_bound_are_refused(redis_store: Store) -> None:
    errors: list[BaseException] = []
    with wired(redis_store.url) as wire, SyncTally.from_url(wire.url, max_pending=2) as tally:
        tally.mark_event("active", 0, now=NOW)
        wire.swallow()
        threads = [
            threading.Thread(target=tally.mark_event, args=("active", user_id))
            for user_id in (1, 2)
        ]
        for thread in threads:
            thread.start()
        while tally.stats().waiting < 2:
            time.sleep(0.001)
        try:
            tally.mark_event("active", 3)
        except OverloadedError as error:
            errors.append(error)
        wire.heal()
        for thread in threads:
            thread.join()
        assert [str(error)[:20] for error in errors] == ["2 marks are waiting "]
        tally.mark_event("active", 4)


async def test_five_thousand_calls_at_once(redis_store: Store) -> None:
    """A default tally takes them all, over the one connection that it has."""
    async with Tally.from_url(redis_store.url) as tally:
        day = tally.day("active", NOW)
        marks = [tally.mark_event("active", user_id, now=NOW) for user_id in range(5000)]
        await asyncio.gather(*marks)
        connections = len(redis_store.raw.client_list())
        assert (
            await asyncio.gather(*(tally.contains(day, user_id) for user_id in range(5000)))
            == [True] * 5000
        )
        assert connections <= 4
        assert len(redis_store.raw.client_list()) <= connections + 8
