"""Buffered marks: the async buffer, on servers, clusters and the embedded store."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import uuid
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import tallymark
from servers import free_port
from tallymark import (
    BufferedMark,
    ClosedError,
    InvalidTypeError,
    InvalidValueError,
    OverloadedError,
    StoreTimeoutError,
    StoreUnavailableError,
    Tally,
    WrongEventLoopError,
    WrongKeyTypeError,
)

if TYPE_CHECKING:
    from stores import Store

MONDAY = datetime(2024, 12, 30, tzinfo=timezone.utc)


async def test_marks_are_sent_and_counted(store: Store) -> None:
    async with Tally.from_url(store.url) as tally:
        async with tally.buffered() as buffer:
            for user in range(2_500):
                buffer.mark_event("active", user, now=MONDAY)
            buffer.unmark_event("active", 3, now=MONDAY)
            buffer.mark_unique("premium", 5)
            buffer.mark_unique("premium", 6)
            buffer.unmark_unique("premium", 6)
            assert buffer.stats() == (2_504, 0, 0, 0, 2_504)
            await buffer.flush()
            assert buffer.stats() == (2_504, 2_504, 0, 0, 0)
    users = set(range(2_500)) - {3}
    assert store.bits() == {
        "trackist_active_2024-12": users,
        "trackist_active_W2025-1": users,
        "trackist_active_2024-12-30": users,
        "trackist_premium_u": {5},
    }


async def test_ids_of_other_types(store: Store) -> None:
    ids = [uuid.uuid4() for _ in range(1_500)]
    async with Tally.from_url(store.url, user_ids=uuid.UUID) as tally, tally.buffered() as buffer:
        for user in ids:
            buffer.mark_event("active", user, now=MONDAY)
        for user in ids[:10]:
            buffer.unmark_event("active", user, now=MONDAY)
        await buffer.flush()
        day = tally.day("active", MONDAY)
        assert {user async for user in tally.users(day)} == set(ids[10:])


async def test_random_programs_as_awaited_marks_in_order(store: Store) -> None:
    chance = random.Random(7)
    async with Tally.from_url(store.url) as tally, tally.buffered() as buffer:
        expected: set[int] = set()
        for _ in range(3_000):
            user = chance.randrange(20)
            if chance.random() < 0.5:
                buffer.mark_unique("flag", user)
                expected.add(user)
            else:
                buffer.unmark_unique("flag", user)
                expected.discard(user)
            if chance.random() < 0.02:
                await asyncio.sleep(0)
        await buffer.flush()
        assert store.bits() == ({"trackist_flag_u": expected} if expected else {})


async def test_order_with_awaited_marks(redis_store: Store) -> None:
    chance = random.Random(8)
    async with Tally.from_url(redis_store.url) as tally, tally.buffered() as buffer:
        expected: set[int] = set()
        tasks = []
        for _ in range(2_000):
            user = chance.randrange(10)
            sets = chance.random() < 0.5
            verb = "mark_unique" if sets else "unmark_unique"
            (expected.add if sets else expected.discard)(user)
            if chance.random() < 0.5:
                getattr(buffer, verb)("flag", user)
            else:
                tasks.append(asyncio.create_task(getattr(tally, verb)("flag", user)))
                await asyncio.sleep(0)  # the call is made now
        await asyncio.gather(*tasks)
        await buffer.flush()
        assert redis_store.bits() == ({"trackist_flag_u": expected} if expected else {})


async def test_bad_arguments_raise_at_once(memory_store: Store) -> None:
    async with Tally.from_url(memory_store.url) as tally:
        bad: Any
        for bad in ({"max_size": 0}, {"on_full": "wait"}, {"timeout": 0}):
            with pytest.raises(InvalidValueError):
                tally.buffered(**bad)

        async def coroutine(*_: Any) -> None: ...

        wrong: Any
        for wrong in ({"max_size": 1.5}, {"on_full": 1}, {"on_error": coroutine}, {"on_error": 1}):
            with pytest.raises(InvalidTypeError):
                tally.buffered(**wrong)
        buffer = tally.buffered()
        with pytest.raises(InvalidValueError, match="user id"):
            buffer.mark_event("active", -1)
        bad_switch: Any = {"track_hourly": 1}
        with pytest.raises(InvalidTypeError):
            buffer.mark_event("active", 1, **bad_switch)
        assert buffer.stats().accepted == 0


async def test_a_full_buffer(memory_store: Store) -> None:
    async with Tally.from_url(memory_store.url) as tally:
        raising, dropping = tally.buffered(max_size=3), tally.buffered(max_size=3, on_full="drop")
        for user in range(3):
            raising.mark_event("a", user)
        with pytest.raises(OverloadedError, match="3 marks are waiting in the buffer"):
            raising.mark_event("a", 3)
        for user in range(5):
            dropping.mark_event("b", user)
        assert dropping.stats() == (3, 0, 2, 0, 3)
        await raising.flush()
        raising.mark_event("a", 3)
        await raising.flush()
        await dropping.flush()
        assert raising.stats() == (4, 4, 0, 0, 0)
        assert dropping.stats() == (3, 3, 2, 0, 0)


async def test_switches_are_read_at_the_call(
    memory_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Tally.from_url(memory_store.url) as tally, tally.buffered() as buffer:
        monkeypatch.setattr(tallymark, "TRACK_UNIQUE", True)
        buffer.mark_event("active", 1)
        monkeypatch.setattr(tallymark, "TRACK_UNIQUE", False)
        buffer.mark_event("active", 2)
        await buffer.flush()
        assert memory_store.bits()["trackist_active_u"] == {1}


async def test_an_error_fails_its_own_marks(store: Store) -> None:
    told: list[Any] = []
    store.raw.lpush("trackist_bad_2024-12-30", 1)
    async with Tally.from_url(store.url) as tally:
        async with tally.buffered(on_error=lambda *failed: told.append(failed)) as buffer:
            buffer.mark_event("good", 1, now=MONDAY)
            buffer.mark_event("bad", 1, now=MONDAY, track_hourly=True)
            buffer.mark_event("other", 1)
            await buffer.flush()
            assert buffer.stats() == (3, 2, 0, 1, 0)
    ((error, marks),) = told
    assert isinstance(error, WrongKeyTypeError)
    options = {"now": MONDAY, "track_hourly": True, "track_unique": False}
    assert marks == [BufferedMark("mark_event", "bad", 1, options)]


async def test_refused_marks_and_their_neighbours(redis_store: Store) -> None:
    async with Tally.from_url(redis_store.url) as tally:
        redis_store.raw.acl_setuser(
            "halves", enabled=True, nopass=True, keys=["trackist_ok*"], commands=["+@all"]
        )
        try:
            url = redis_store.url.replace("redis://", "redis://halves:x@", 1)
            async with Tally.from_url(url) as half:
                failed: list[Any] = []
                async with half.buffered(on_error=lambda _, marks: failed.extend(marks)) as buffer:
                    for user in range(500):
                        buffer.mark_unique("ok" if user % 2 else "denied", user)
                    await buffer.flush()
                    assert buffer.stats() == (500, 250, 0, 250, 0)
                writer: Any = half.backend.writer
                assert writer._queue.size == 0
            assert {mark.user_id for mark in failed} == set(range(0, 500, 2))
            assert await tally.count(tally.unique("ok")) == 250
        finally:
            redis_store.raw.acl_deluser("halves")


async def test_a_mark_fails_at_its_timeout() -> None:
    async with Tally.from_url(f"redis://127.0.0.1:{free_port()}/0", timeout=0.2) as tally:
        told: list[Any] = []
        buffer = tally.buffered(on_error=lambda error, marks: told.append((error, len(marks))))
        for user in range(1_200):
            buffer.mark_event("active", user)
        with pytest.raises(StoreTimeoutError, match=r"1200 marks were not sent within 0\.01 s"):
            await buffer.flush(0.01)
        await buffer.flush(5)
        assert buffer.stats() == (1_200, 0, 0, 1_200, 0)
        assert sum(marks for _, marks in told) == 1_200
        assert all(isinstance(error, StoreUnavailableError) for error, _ in told)


async def test_close_fails_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    async with Tally.from_url(f"redis://127.0.0.1:{free_port()}/0") as tally:
        buffer = tally.buffered(timeout=60)
        buffer.mark_event("active", 1)
        with caplog.at_level(logging.WARNING, "tallymark"):
            await buffer.aclose(0.05)
        assert "1 buffered marks have failed: the buffer was closed; nothing" in caplog.text
        assert buffer.stats() == (1, 0, 0, 1, 0)
        with pytest.raises(ClosedError, match="this buffer is closed"):
            buffer.mark_event("active", 2)
        await buffer.aclose()


async def test_on_error_that_raises_and_marks_and_closes(
    redis_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    redis_store.raw.lpush("trackist_bad_u", 1)
    closing: list[asyncio.Task[None]] = []

    def on_error(_: Exception, marks: Any) -> None:
        if marks[0].user_id < 3:
            buffer.mark_unique("bad", marks[0].user_id + 1)
        else:
            closing.append(asyncio.create_task(buffer.aclose()))
        raise ValueError("mine")

    async with Tally.from_url(redis_store.url) as tally:
        buffer = tally.buffered(on_error=on_error)
        buffer.mark_unique("bad", 0)
        while not closing:
            await asyncio.sleep(0)
        await closing[0]
        assert buffer.stats() == (4, 0, 0, 4, 0)
    assert caplog.text.count("ValueError: mine") == 4


async def test_closing_the_tally_first_sends_the_marks(store: Store) -> None:
    tally = Tally.from_url(store.url)
    buffer = tally.buffered()
    for user in range(100):
        buffer.mark_unique("flag", user)
    await tally.aclose()
    assert buffer.stats() == (100, 100, 0, 0, 0)
    with pytest.raises(ClosedError, match="this tally is closed"):
        buffer.mark_unique("flag", 1)
    await buffer.aclose()
    assert store.bits() == {"trackist_flag_u": set(range(100))}


async def test_a_cancelled_block_is_flushed(redis_store: Store) -> None:
    async with Tally.from_url(redis_store.url) as tally:

        async def block() -> None:
            async with tally.buffered() as buffer:
                buffer.mark_unique("flag", 1)
                await asyncio.Event().wait()

        task = asyncio.create_task(block())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert redis_store.bits() == {"trackist_flag_u": {1}}


async def test_other_threads_and_loops_are_refused(memory_store: Store) -> None:
    errors: list[BaseException] = []

    def foreign() -> None:
        try:
            buffer.mark_event("active", 2)
        except WrongEventLoopError as error:
            errors.append(error)

        async def on_another_loop() -> None:
            buffer.mark_event("active", 3)

        try:
            asyncio.run(on_another_loop())
        except WrongEventLoopError as error:
            errors.append(error)

    async with Tally.from_url(memory_store.url) as tally, tally.buffered() as buffer:
        buffer.mark_event("active", 1)
        thread = threading.Thread(target=foreign)
        thread.start()
        thread.join()
        assert len(errors) == 2
        await buffer.flush()
        assert buffer.stats().accepted == 1


async def test_the_quota_of_events(memory_store: Store) -> None:
    async with Tally.from_url(memory_store.url, max_events=1) as tally:
        async with tally.buffered() as buffer:
            buffer.mark_event("first", 1)
            with pytest.raises(InvalidValueError, match="max_events"):
                buffer.mark_event("second", 1)
            await buffer.flush()
            buffer.mark_event("first", 2)
        assert buffer.stats() == (2, 2, 0, 0, 0)


# --- gathering


async def test_marks_of_several_steps_of_the_loop_share_a_transaction(redis_store: Store) -> None:
    """They gather for a moment, and leave without a `flush`."""
    async with Tally.from_url(redis_store.url) as tally, tally.buffered() as buffer:
        await tally.mark_unique("flag", 0)  # connected
        batches = tally.stats().batches
        for user in range(1, 50):
            buffer.mark_unique("flag", user)
            await asyncio.sleep(0)
        assert buffer.stats().sent == 0
        with anyio.fail_after(30):
            while buffer.stats().waiting:
                await asyncio.sleep(0)
        assert tally.stats().batches == batches + 1
        assert redis_store.bits() == {"trackist_flag_u": set(range(50))}


async def test_an_awaited_mark_does_not_overtake_marks_that_gather(redis_store: Store) -> None:
    """It takes them along, in one transaction, and waits for nothing."""
    async with Tally.from_url(redis_store.url) as tally, tally.buffered() as buffer:
        await tally.mark_unique("flag", 0)
        batches = tally.stats().batches
        buffer.mark_unique("flag", 1)
        assert not await tally.mark_unique("flag", 1)  # it is not the first one
        assert tally.stats().batches == batches + 1
        assert buffer.stats().waiting == 0


async def test_many_marks_do_not_gather(redis_store: Store) -> None:
    async with Tally.from_url(redis_store.url) as tally, tally.buffered() as buffer:
        await tally.mark_unique("flag", 0)
        for user in range(1, 2_002):  # of which the last one begins a chunk
            buffer.mark_unique("flag", user)
        writer: Any = tally.backend.writer
        assert writer._gathering is None
        await buffer.flush()
        assert redis_store.raw.bitcount("trackist_flag_u") == 2_002


async def test_a_short_timeout_is_not_spent_with_gathering(redis_store: Store) -> None:
    async with Tally.from_url(redis_store.url, timeout=5) as tally:
        await tally.mark_unique("flag", 0)
        async with tally.buffered(timeout=0.004) as buffer:
            buffer.mark_unique("flag", 1)
            writer: Any = tally.backend.writer
            assert writer._gathering.when() - asyncio.get_running_loop().time() <= 0.001


async def test_closing_the_tally_while_marks_gather(store: Store) -> None:
    async with Tally.from_url(store.url) as tally:
        buffer = tally.buffered()
        buffer.mark_unique("flag", 1)
    assert store.bits() == {"trackist_flag_u": {1}}
    assert buffer.stats() == (1, 1, 0, 0, 0)


async def test_a_server_that_goes_away_while_marks_gather(redis_store: Store) -> None:
    async with Tally.from_url(redis_store.url) as tally, tally.buffered() as buffer:
        await tally.mark_unique("flag", 0)
        buffer.mark_unique("flag", 1)
        redis_store.raw.client_kill_filter(_type="normal", skipme=True)
        await buffer.flush()
        assert buffer.stats().sent == 1
    assert redis_store.bits() == {"trackist_flag_u": {0, 1}}


async def test_dropped_marks_are_logged(
    memory_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, and the number of the others when the buffer is closed."""
    async with Tally.from_url(memory_store.url) as tally:
        async with tally.buffered(max_size=2, on_full="drop") as buffer:
            for user in range(7):
                buffer.mark_unique("flag", user)
        assert buffer.stats().dropped == 5
    assert [record.getMessage() for record in caplog.records] == [
        "1 marks were dropped: the buffer is full, of max_size=2",
        "4 more marks were dropped",
    ]
