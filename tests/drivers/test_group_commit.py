"""Many tasks, one tally: what they share, and what never passes from one to another.

Async only: `test_shared_connection.py` is about threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import socket
import threading
import time
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import redis.asyncio

from facades import internals
from model import Call, Model
from moments import BERLIN
from proxy import Proxy, proxied
from tallymark import (
    ClosedError,
    CommandError,
    Granularity,
    Stats,
    StoreTimeoutError,
    StoreUnavailableError,
    SyncTally,
    Tally,
    WrongKeyTypeError,
)
from tallymark._async.write_queue import PendingWrite, WriteQueue
from tallymark._marking import sizing
from tallymark._marking.sizing import MAX_BATCH_MARKS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from stores import Store

NEW = Granularity.UNIQUE
NONE = Granularity(0)


@pytest.fixture
def proxy(redis_store: Store) -> Iterator[Proxy]:
    """Yield a proxy in front of the real Redis."""
    with proxied(redis_store.url) as running:
        yield running


@pytest.fixture
async def tally(proxy: Proxy) -> AsyncIterator[Tally]:
    """Yield a tally behind the proxy, connected."""
    async with Tally.from_url(proxy.url) as made:
        await made.mark_unique("first", 0)
        proxy.sent.clear()
        yield made


@pytest.fixture(params=["owned", "borrowed"])
async def any_tally(request: pytest.FixtureRequest, proxy: Proxy) -> AsyncIterator[Tally]:
    """Yield a tally with a connection of its own, and one on a client of the caller's."""
    async with redis.asyncio.Redis.from_url(proxy.url, max_connections=1) as client:
        made = Tally.from_url(proxy.url) if request.param == "owned" else Tally(client)
        async with made:
            await made.mark_unique("first", 0)
            proxy.sent.clear()
            yield made


def connections(store: Store) -> int:
    """Return how many clients the server has, beside the one that asks."""
    return len(store.raw.client_list(_type="normal")) - 1


async def on_the_wire(tally: Tally, proxy: Proxy, event: str = "held") -> asyncio.Task[Any]:
    """Start a mark and wait until its replies are held back by the proxy."""
    proxy.held.clear()
    proxy.passing.clear()
    task = asyncio.create_task(tally.mark_unique(event, 1))
    await asyncio.to_thread(proxy.held.wait)
    return task


async def gathered(tally: Tally, *user_ids: int, event: str = "a") -> list[asyncio.Task[Any]]:
    """Start marks that will share the next transaction."""
    tasks = [asyncio.create_task(tally.mark_unique(event, user_id)) for user_id in user_ids]
    await asyncio.sleep(0)  # each comes as far as it gets
    return tasks


async def next_on_the_wire(proxy: Proxy) -> None:
    """Let what is held pass, and hold the next transaction."""
    proxy.held.clear()
    proxy.passing.set()
    proxy.passing.clear()
    await asyncio.to_thread(proxy.held.wait)


async def in_step(tally: Tally) -> None:
    """Check that answers are those of the question, as on a connection without leftovers."""
    for user_id in range(100, 110):
        assert await tally.mark_unique("step", user_id) == NEW
        assert await tally.mark_unique("step", user_id) == NONE
        assert await tally.unmark_unique("step", user_id) == NEW


# --- what is shared


async def test_an_idle_tally_sends_at_once(tally: Tally, proxy: Proxy) -> None:
    for user_id in range(3):
        await tally.mark_unique("a", user_id)
    assert [data.count(b"SETBIT") for data in proxy.transactions()] == [1, 1, 1]


async def test_marks_that_come_meanwhile_share_the_next_transaction(
    tally: Tally, proxy: Proxy
) -> None:
    first = await on_the_wire(tally, proxy)
    others = await gathered(tally, *range(16))
    assert tally.stats().waiting == 17
    proxy.passing.set()
    assert await asyncio.gather(first, *others) == [NEW] * 17
    transactions = proxy.transactions()
    assert len(transactions) == 2
    assert transactions[1].count(b"MULTI") == transactions[1].count(b"EXEC") == 1
    assert transactions[1].count(b"u1") == 16
    assert tally.stats().waiting == 0


async def test_many_leave_in_halves_so_that_redis_and_we_work_at_once(
    tally: Tally, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizing, "_SECONDS_PER_MARK", 60)  # as if Redis were near
    first = await on_the_wire(tally, proxy)
    others = await gathered(tally, *range(99))
    proxy.passing.set()
    await asyncio.gather(first, *others)
    assert batch_sizes(proxy)[1] == 50


async def test_over_a_long_way_all_leave_together(tally: Tally, proxy: Proxy) -> None:
    """To wait for two round trips instead of one costs more than any overlap can save."""
    first = await on_the_wire(tally, proxy)
    others = await gathered(tally, *range(99))
    await asyncio.sleep(0.01)
    proxy.passing.set()
    await asyncio.gather(first, *others)
    assert batch_sizes(proxy)[1] == 99


async def test_a_burst_after_a_burst_leaves_in_one_piece(tally: Tally, proxy: Proxy) -> None:
    for _ in range(3):
        await asyncio.gather(*(tally.mark_unique("a", user) for user in range(10)))
    assert batch_sizes(proxy) == [0, 9, 10, 10]  # the very first one could not know


async def test_a_batch_is_capped_in_marks_and_in_bytes(proxy: Proxy) -> None:
    async with Tally.from_url(proxy.url, max_event_bytes=None) as tally:
        await _check_batches(tally, proxy)


async def _check_batches(tally: Tally, proxy: Proxy) -> None:
    first = await on_the_wire(tally, proxy)
    tasks = await gathered(tally, *range(2500))
    long_name = "x" * 20_000
    tasks += await gathered(tally, *range(30), event=long_name)
    batches = tally.stats().batches
    proxy.passing.set()
    await asyncio.gather(first, *tasks)
    sizes = [size for size in batch_sizes(proxy) if size > 1]
    assert sizes[:2] == [1000, 1000]
    assert max(sizes) == 1000
    # Behind the one that was held and these two: 500 and 11 of the long ones, 13, and 6.
    assert tally.stats().batches - batches == 1 + 2 + 3


def batch_sizes(proxy: Proxy) -> list[int]:
    stream = b"".join(proxy.sent)
    return [part.count(b"u1") for part in stream.split(b"EXEC")[:-1]]


async def test_a_thousand_tasks_agree_with_the_model(any_tally: Tally, redis_store: Store) -> None:
    """Results and bits are those of the same calls made one after another, in call order."""
    redis_store.raw.flushdb()
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    model = Model(BERLIN)
    days: list[date] = [datetime(2026, 12, 28) + timedelta(hours=13 * step) for step in range(12)]

    async def caller() -> None:
        for _ in range(chance.randrange(1, 6)):
            verb = chance.choice(["mark_event", "mark_event", "unmark_event", "mark_unique"])
            options: dict[str, Any] = {}
            if verb.endswith("event"):
                options["now"] = chance.choice(days)
                options["track_hourly"] = chance.random() < 0.3
            if verb == "unmark_event" and chance.random() < 0.3:
                options["exact"] = True
            call = Call(
                verb, chance.choice("abc"), chance.choice([1, 2, 3, 900]), tuple(options.items())
            )
            expected = model.run(call)  # in the moment of the call
            flipped = await getattr(any_tally, verb)(call.event, call.user_id, **options)
            assert flipped == expected, (seed, call)

    with anyio.fail_after(60):
        await asyncio.gather(*(caller() for _ in range(1000)))
    assert redis_store.bits() == model.filled(), seed
    assert any_tally.stats().marks_per_batch > 10
    assert connections(redis_store) <= 1


async def test_transactions_stay_whole_in_a_shared_batch(
    tally: Tally, proxy: Proxy, redis_store: Store
) -> None:
    first = await on_the_wire(tally, proxy)
    seen: list[list[Granularity]] = []

    async def transact(user_id: int) -> None:
        async with tally.transaction() as tx:
            marks = [tx.mark_unique("both", user_id)]
            await asyncio.sleep(0)  # the others' blocks are open at the same time
            marks += [tx.mark_unique("both", 99), tx.unmark_unique("both", 99)]
        seen.append([mark.flipped for mark in marks])

    tasks = [asyncio.create_task(transact(user_id)) for user_id in range(20)]
    singles = await gathered(tally, 1, 2, 3)
    await asyncio.sleep(0)
    proxy.passing.set()
    await asyncio.gather(first, *tasks, *singles)
    assert seen == [[NEW, NEW, NEW]] * 20
    assert redis_store.bits()["trackist_both_u"] == set(range(20))
    assert len(proxy.transactions()) <= 4


# --- errors stay with whom they concern


async def test_a_key_of_the_wrong_type_fails_its_own_callers_only(
    tally: Tally, proxy: Proxy, redis_store: Store
) -> None:
    redis_store.raw.lpush("trackist_bad_u", "not a bitmap")
    first = await on_the_wire(tally, proxy)
    good = await gathered(tally, 1, 2, 3)
    bad = await gathered(tally, 1, 2, event="bad")
    more = await gathered(tally, 4, 5)
    proxy.passing.set()
    results: list[Any] = await asyncio.gather(first, *good, *bad, *more, return_exceptions=True)
    assert len(proxy.transactions()) == 2
    assert results[:4] + results[6:] == [NEW] * 6
    errors = results[4:6]
    assert all(isinstance(error, WrongKeyTypeError) for error in errors)
    assert errors[0] is not errors[1]
    assert tally.stats().errors == 2


async def test_a_refused_mark_fails_alone(proxy: Proxy, redis_store: Store) -> None:
    """Redis throws away a whole transaction if it refuses a command: the others go again."""
    redis_store.raw.acl_setuser(
        "limited",
        enabled=True,
        nopass=True,
        keys=["trackist_a_*", "trackist_held_*"],
        commands=["+@all"],
        reset=True,
    )
    try:
        async with Tally.from_url(proxy.url.replace("//", "//limited@")) as tally:
            first = await on_the_wire(tally, proxy)
            good = await gathered(tally, 1, 2)
            denied = await gathered(tally, 1, event="denied")

            async def mixed() -> None:
                async with tally.transaction() as tx:
                    tx.mark_unique("a", 50)
                    tx.mark_unique("denied", 50)

            transaction = asyncio.create_task(mixed())
            more = await gathered(tally, 3, 1)
            proxy.passing.set()
            results = await asyncio.gather(
                first, *good, *more, *denied, transaction, return_exceptions=True
            )
            stats = tally.stats()
    finally:
        redis_store.raw.acl_deluser("limited")
    assert results[:5] == [NEW, NEW, NEW, NEW, NONE]
    assert all(isinstance(error, CommandError) for error in results[5:])
    assert redis_store.bits()["trackist_a_u"] == {1, 2, 3}
    assert (stats.marks, stats.errors, stats.waiting) == (5, 3, 0)


# --- cancellation


async def test_cancelled_before_it_is_sent(
    any_tally: Tally, proxy: Proxy, redis_store: Store
) -> None:
    first = await on_the_wire(any_tally, proxy)
    tasks = await gathered(any_tally, *range(40))
    for task in tasks[::2]:
        task.cancel()
    proxy.passing.set()
    results = await asyncio.gather(first, *tasks, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results[1::2]] == [True] * 20
    assert results[0::2] == [NEW] * 21
    assert redis_store.bits()["trackist_a_u"] == set(range(1, 40, 2))  # never sent
    await in_step(any_tally)


async def test_cancelled_on_the_wire(any_tally: Tally, proxy: Proxy, redis_store: Store) -> None:
    first = await on_the_wire(any_tally, proxy)
    tasks = await gathered(any_tally, *range(16))
    await next_on_the_wire(proxy)
    assert await first == NEW
    for task in tasks[::2]:
        task.cancel()
    await asyncio.sleep(0)
    assert all(task.cancelled() for task in tasks[::2])  # at once
    proxy.passing.set()
    assert await asyncio.gather(*tasks[1::2]) == [NEW] * 8
    assert redis_store.bits()["trackist_a_u"] == set(range(16))  # was sent
    assert any_tally.stats().retries == 0
    await in_step(any_tally)


async def test_the_leader_is_cancelled(any_tally: Tally, proxy: Proxy, redis_store: Store) -> None:
    leader = await on_the_wire(any_tally, proxy)
    others = await gathered(any_tally, *range(10))
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    proxy.passing.set()
    assert await asyncio.gather(*others) == [NEW] * 10
    assert redis_store.bits()["trackist_held_u"] == {1}
    await in_step(any_tally)


async def test_a_lone_leader_is_cancelled_and_the_next_caller_reads_its_replies(
    tally: Tally, proxy: Proxy, redis_store: Store
) -> None:
    """The order of marks is kept even against a mark that nobody waits for any more."""
    leader = await on_the_wire(tally, proxy)
    leader.cancel()
    await asyncio.gather(leader, return_exceptions=True)
    before = redis_store.raw.client_list(_type="normal")
    proxy.passing.set()
    assert await tally.unmark_unique("held", 1) == NEW
    after = redis_store.raw.client_list(_type="normal")
    assert {client["id"] for client in after} == {client["id"] for client in before}
    await in_step(tally)


@pytest.mark.parametrize("pause", [0.0, 0.35])
async def test_an_in_flight_batch_without_a_caller_does_not_delay_the_next_call(
    proxy: Proxy, redis_store: Store, pause: float
) -> None:
    """Its caller was cancelled, and no reply comes on its connection."""
    async with Tally.from_url(proxy.url, timeout=0.3) as tally:
        await tally.mark_unique("first", 0)
        proxy.lose_replies()
        with anyio.move_on_after(0.1):
            await tally.mark_unique("a", 1)
        await asyncio.sleep(pause)
        assert await tally.mark_unique("a", 2) == NEW
        await in_step(tally)
    assert redis_store.bits()["trackist_a_u"] == {1, 2}


async def test_the_task_that_sends_is_cancelled(any_tally: Tally, proxy: Proxy) -> None:
    """An application that cancels all tasks but its own may go on to use the tally."""
    first = await on_the_wire(any_tally, proxy)
    tasks = await gathered(any_tally, *range(10))
    await next_on_the_wire(proxy)
    assert await first == NEW
    sender = internals(any_tally).writer._task
    assert sender is not None
    sender.cancel()
    await asyncio.sleep(0)
    proxy.passing.set()
    results = [await task for task in tasks]
    # On a borrowed connection they are sent again, and find what they did.
    assert set(results) <= ({NEW} if internals(any_tally).writer._connection.owned else {NEW, NONE})
    await in_step(any_tally)


async def test_all_are_cancelled_at_once(any_tally: Tally, proxy: Proxy) -> None:
    first = await on_the_wire(any_tally, proxy)
    tasks = await gathered(any_tally, *range(100))
    for task in [first, *tasks]:
        task.cancel()
    results = await asyncio.gather(first, *tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    assert any_tally.stats().waiting == 0
    proxy.passing.set()
    await in_step(any_tally)


async def test_a_deadline_of_the_callers(any_tally: Tally, proxy: Proxy) -> None:
    first = await on_the_wire(any_tally, proxy)
    neighbour = (await gathered(any_tally, 1))[0]
    with pytest.raises(TimeoutError):
        with anyio.fail_after(0.05):
            await any_tally.mark_unique("a", 2)
    with anyio.move_on_after(0.05) as scope:
        async with any_tally.transaction() as tx:
            tx.mark_unique("a", 3)
    assert scope.cancelled_caught
    proxy.passing.set()
    assert await first == await neighbour == NEW
    await in_step(any_tally)


@pytest.mark.parametrize("steps", range(14))
async def test_cancelled_after_any_number_of_steps(redis_store: Store, steps: int) -> None:
    async with Tally.from_url(redis_store.url) as tally:  # not yet connected: that, too
        task = asyncio.create_task(tally.mark_event("a", 1))
        neighbours = await gathered(tally, 1, 2, event="b")
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await asyncio.gather(*neighbours) == [NEW] * 2
        await in_step(tally)
        assert connections(redis_store) == 1
    counts = {
        redis_store.raw.getbit(key, 1)
        for key in redis_store.names()
        if key.startswith("trackist_a_")
    }
    assert len(counts) <= 1  # whole or not at all


async def test_a_storm_of_cancellations_leaves_one_connection(
    any_tally: Tally, redis_store: Store
) -> None:
    chance = random.Random(4)
    for _ in range(30):
        tasks = await gathered(any_tally, *range(50))
        for _ in range(chance.randrange(8)):
            await asyncio.sleep(0)
        for task in chance.sample(tasks, 25):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await in_step(any_tally)
    assert any_tally.stats().waiting == 0
    patience = time.monotonic() + 5  # the server notices in its own time
    while connections(redis_store) > 1 and time.monotonic() < patience:
        await asyncio.sleep(0)
    assert connections(redis_store) == 1


# --- time


@pytest.mark.timed
async def test_each_call_has_a_deadline_of_its_own(proxy: Proxy) -> None:
    async with Tally.from_url(proxy.url, timeout=0.3) as tally:
        await tally.mark_unique("first", 0)
        began = time.monotonic()
        first = await on_the_wire(tally, proxy)
        await asyncio.sleep(0.15)
        second = (await gathered(tally, 1))[0]
        with pytest.raises(StoreTimeoutError, match="may or may not have been applied"):
            await first
        assert time.monotonic() - began < 0.42
        assert not second.done()
        with pytest.raises(StoreTimeoutError, match=r"Redis did not answer within 0\.3 s"):
            await second
        assert 0.44 < time.monotonic() - began < 0.6
        proxy.passing.set()
        await in_step(tally)


async def test_what_was_not_sent_in_time_says_so(proxy: Proxy, redis_store: Store) -> None:
    async with Tally.from_url(proxy.url, timeout=0.5) as tally:
        await tally.mark_unique("first", 0)
        first = await on_the_wire(tally, proxy)
        late = await gathered(tally, *range(10))
        results = await asyncio.gather(first, *late, return_exceptions=True)
        assert all(isinstance(result, StoreTimeoutError) for result in results)
        assert tally.stats().errors == 11
        proxy.passing.set()
        await in_step(tally)
    assert "trackist_a_u" not in redis_store.bits()


async def test_a_server_that_takes_nothing_in(proxy: Proxy) -> None:
    """Not even the writing ends, since what is written is more than the network holds."""
    async with Tally.from_url(proxy.url, timeout=4) as tally:
        await tally.mark_unique("first", 0)
        proxy.reading.clear()
        transaction = tally.transaction()
        tx = await transaction.__aenter__()
        for user_id in range(400_000):
            tx.mark_unique("a", user_id)
        # What has a bound is giving up, not how long so many marks take to be made.
        with anyio.fail_after(20):
            with pytest.raises(StoreTimeoutError, match="may or may not have been applied"):
                await transaction.__aexit__(None, None, None)
        proxy.reading.set()
        await in_step(tally)


async def test_a_broken_connection_is_retried_for_all(
    any_tally: Tally, proxy: Proxy, redis_store: Store
) -> None:
    first = await on_the_wire(any_tally, proxy)
    tasks = await gathered(any_tally, *range(100))
    proxy.cuts = 3
    tasks[0].cancel()
    proxy.passing.set()
    assert await first in {NEW, NONE}
    results = await asyncio.gather(*tasks[1:])
    assert set(results) <= {NEW, NONE}
    assert any_tally.stats().retries >= 1
    assert redis_store.bits()["trackist_a_u"] == set(range(1, 100))
    await in_step(any_tally)
    assert connections(redis_store) == 1


async def test_what_nobody_waits_for_is_not_sent_again(
    tally: Tally, proxy: Proxy, redis_store: Store
) -> None:
    first = await on_the_wire(tally, proxy)
    tasks = await gathered(tally, *range(10))
    await next_on_the_wire(proxy)
    await first
    for task in tasks[::2]:
        task.cancel()
    await asyncio.sleep(0)
    redis_store.raw.delete("trackist_a_u")
    proxy.cuts = 1
    proxy.passing.set()
    assert await asyncio.gather(*tasks[1::2]) == [NEW] * 5
    assert redis_store.bits()["trackist_a_u"] == {1, 3, 5, 7, 9}


async def test_a_dead_server_fails_every_caller(redis_store: Store) -> None:
    with proxied(redis_store.url) as proxy:
        tally = Tally.from_url(proxy.url, timeout=0.3)
        await tally.mark_unique("first", 0)
    tasks = await gathered(tally, *range(20))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, StoreUnavailableError) for result in results)
    assert len({id(result) for result in results}) == 20
    assert all(isinstance(result.__cause__, redis.ConnectionError) for result in results)
    await tally.aclose()


async def test_attempts_pause_longer_and_longer() -> None:
    accepted = 0

    def hang_up(listener: socket.socket) -> None:
        nonlocal accepted
        with contextlib.suppress(OSError):
            while True:
                listener.accept()[0].close()
                accepted += 1

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=hang_up, args=(listener,))
        thread.start()
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        async with Tally.from_url(url, timeout=0.5) as tally:
            with pytest.raises(StoreUnavailableError):
                await tally.mark_unique("a", 1)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert 2 <= accepted < 60  # without a pause, it is hundreds


# --- the write queue


def write_of(marks: int) -> PendingWrite:
    never: Any = None
    return asyncio.get_running_loop().create_future(), math.inf, None, [never] * marks, 1.0


async def test_later_callers_do_not_overtake_admitted_ones() -> None:
    queue = WriteQueue(3)
    queue.put(write_of(3), 3)
    waiting = asyncio.create_task(queue.wait(1))
    await asyncio.sleep(0)
    queue.clear()  # places for a later caller too, but the admitted one has not resumed yet
    assert queue.is_full
    await waiting
    queue.resumed(1)
    assert not queue.is_full


async def test_a_place_is_passed_on_by_a_caller_that_is_cancelled_at_its_turn() -> None:
    queue = WriteQueue(1)
    queue.put(write_of(1), 1)
    first, second = [asyncio.create_task(queue.wait(1)) for _ in range(2)]
    await asyncio.sleep(0)
    assert (queue.is_full, queue.waiting) == (True, 2)
    queue.clear()
    first.cancel()  # its turn has come, but it does not know yet
    await asyncio.gather(first, return_exceptions=True)
    with anyio.fail_after(5):
        await second
    queue.resumed(1)
    assert (queue.is_full, queue.waiting, queue.size) == (False, 0, 0)


async def test_callers_of_a_full_queue_are_admitted_in_order(
    tally: Tally, proxy: Proxy, redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(internals(tally).writer, "_queue", WriteQueue(100))
    first = await on_the_wire(tally, proxy)
    # Alternately set and clear one bit: any caller that overtakes shows in the results.
    tasks = [
        asyncio.create_task(
            tally.unmark_unique("a", 1) if number % 2 else tally.mark_unique("a", 1)
        )
        for number in range(1001)
    ]
    await asyncio.sleep(0)
    assert internals(tally).writer._queue.size == 100
    assert tally.stats().waiting == 1002
    for number in (150, 151, 700, 701):  # not admitted yet
        tasks[number].cancel()
    proxy.passing.set()
    while not tasks[999].done():
        await asyncio.sleep(0)
        if len(tasks) < 1200:  # calls that begin while others are being admitted
            number = len(tasks)
            tasks += [
                asyncio.create_task(
                    tally.unmark_unique("a", 1) if odd % 2 else tally.mark_unique("a", 1)
                )
                for odd in range(number, number + 3)
            ]
    results = await asyncio.gather(first, *tasks, return_exceptions=True)
    served = [r for r in results if not isinstance(r, asyncio.CancelledError)]
    assert served == [NEW] * (len(tasks) + 1 - 4)
    assert tally.stats().waiting == 0
    assert not internals(tally).writer._queue.is_full
    await in_step(tally)


async def test_a_call_that_waits_for_a_full_queue_times_out(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Tally.from_url(proxy.url, timeout=1) as tally:
        await tally.mark_unique("first", 0)
        monkeypatch.setattr(internals(tally).writer, "_queue", WriteQueue(10))
        first = await on_the_wire(tally, proxy)
        tasks = await gathered(tally, *range(30))
        results = await asyncio.gather(first, *tasks, return_exceptions=True)
        assert all(isinstance(result, StoreTimeoutError) for result in results)
        assert "nothing was sent" in str(results[-1])
        proxy.passing.set()
        await in_step(tally)
        assert not internals(tally).writer._queue.is_full


async def test_other_tasks_keep_running_beside_many_marks(redis_store: Store) -> None:
    """Between two turns of any other task, no more is done than a batch. (See benchmarks/.)"""
    async with Tally.from_url(redis_store.url, timeout=60) as tally:
        tasks = [asyncio.create_task(tally.mark_unique("a", user)) for user in range(30_000)]
        before, most = 0, 0
        while not tasks[-1].done():
            await asyncio.sleep(0)
            marks = internals(tally).writer.totals.marks
            before, most = marks, max(most, marks - before)
        await asyncio.gather(*tasks)
    assert most == MAX_BATCH_MARKS
    assert redis_store.raw.bitcount("trackist_a_u") == 30_000


# --- closing


async def test_closing_sends_what_waits(tally: Tally, proxy: Proxy, redis_store: Store) -> None:
    first = await on_the_wire(tally, proxy)
    tasks = await gathered(tally, *range(50))
    closing = asyncio.create_task(tally.aclose())
    await asyncio.sleep(0)
    with pytest.raises(ClosedError):
        await tally.mark_unique("a", 99)
    assert not closing.done()
    proxy.passing.set()
    await closing
    assert await asyncio.gather(first, *tasks) == [NEW] * 51
    assert redis_store.bits()["trackist_a_u"] == set(range(50))


async def test_closing_a_tally_with_a_full_queue_sends_all_marks(
    tally: Tally, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(internals(tally).writer, "_queue", WriteQueue(10))
    first = await on_the_wire(tally, proxy)
    tasks = await gathered(tally, *range(50))
    closing = asyncio.create_task(tally.aclose())
    proxy.passing.set()
    assert await asyncio.gather(first, *tasks) == [NEW] * 51
    await closing


@pytest.mark.parametrize("capacity", [10_000, 10])
async def test_a_cancelled_close_fails_what_waits(
    tally: Tally, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, capacity: int
) -> None:
    monkeypatch.setattr(internals(tally).writer, "_queue", WriteQueue(capacity))
    first = await on_the_wire(tally, proxy)
    tasks = await gathered(tally, *range(50))
    with anyio.move_on_after(0.05):
        await tally.aclose()
    with anyio.fail_after(5):
        results = await asyncio.gather(first, *tasks, return_exceptions=True)
    assert all(isinstance(result, ClosedError) for result in results)
    assert "may or may not have been applied" in str(results[0])
    assert "nothing was sent" in str(results[-1])


async def test_closing_with_the_server_gone_does_not_hang(redis_store: Store) -> None:
    with proxied(redis_store.url) as proxy:
        tally = Tally.from_url(proxy.url, timeout=0.2)
        first = await on_the_wire(tally, proxy)
        tasks = await gathered(tally, *range(10))
        proxy.cuts = 1000
        with anyio.fail_after(5):
            await tally.aclose()
        results = await asyncio.gather(first, *tasks, return_exceptions=True)
        assert all(isinstance(result, StoreTimeoutError) for result in results)


# --- numbers


def test_stats_of_many_threads(redis_store: Store) -> None:
    redis_store.raw.lpush("trackist_bad_u", "not a bitmap")
    with proxied(redis_store.url) as proxy, SyncTally.from_url(proxy.url) as tally:

        def work() -> None:
            for user_id in range(50):
                tally.mark_unique("a", user_id)
            with tally.transaction() as tx:
                tx.mark_unique("a", 1)
                tx.mark_unique("a", 2)
            with pytest.raises(WrongKeyTypeError):
                tally.mark_unique("bad", 1)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = tally.stats()
        sent = sum(map(len, proxy.transactions()))
        assert stats == Stats(8 * 52, stats.batches, sent, retries=0, errors=8, waiting=0)
        assert 52 <= stats.batches <= len(proxy.transactions())
        proxy.cuts = 2
        tally.mark_unique("a", 1)
        assert tally.stats().retries == 2
    with pytest.raises(ClosedError):
        tally.mark_unique("a", 1)
    assert tally.stats().errors == 8  # that call was refused, not lost


async def test_stats_count(tally: Tally, proxy: Proxy, redis_store: Store) -> None:
    before = tally.stats()
    assert (before.marks, before.batches, before.marks_per_batch) == (1, 1, 1.0)
    first = await on_the_wire(tally, proxy)
    tasks = await gathered(tally, *range(9))
    proxy.passing.set()
    await asyncio.gather(first, *tasks)
    after = tally.stats()
    assert (after.marks, after.batches, after.retries, after.errors) == (11, 3, 0, 0)
    assert after.marks_per_batch == pytest.approx(11 / 3)
    assert after.bytes_sent - before.bytes_sent == sum(map(len, proxy.transactions()))
    proxy.cuts = 1
    await tally.mark_unique("a", 1)
    assert tally.stats().retries == 1


async def test_refused_marks_hold_up_nobody(redis_store: Store) -> None:
    """A mark beside those that Redis refuses is not sent with the next of these again."""
    raw = redis_store.raw
    try:
        raw.execute_command("ACL", "SETUSER", "default", "resetkeys", "~trackist_a*")
        async with Tally.from_url(redis_store.url, timeout=20) as tally:
            stopped = False

            async def refused() -> None:
                while not stopped:
                    with contextlib.suppress(CommandError):
                        await tally.mark_unique("secret", 1)

            tasks = [asyncio.create_task(refused()) for _ in range(8)]
            begun = time.monotonic()
            assert [await tally.mark_unique("a", user) for user in range(50)] == [NEW] * 50
            assert time.monotonic() - begun < 10
            stopped = True
            await asyncio.gather(*tasks)
    finally:
        raw.execute_command("ACL", "SETUSER", "default", "allkeys")
