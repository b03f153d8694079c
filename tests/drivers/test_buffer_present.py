"""Buffered marks of the present take a short way: they do what awaited marks do."""

from __future__ import annotations

import asyncio
import itertools
import random
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

import tallymark
from servers import free_port
from tallymark import ClosedError, InvalidValueError, Tally
from tallymark._marking import batch
from tallymark._redis.clocks import clocks

if TYPE_CHECKING:
    from stores import Store

BEGIN = 1_700_002_000.0  # some minutes before the end of an hour


MARKS = 600


class Clock:
    """The present, as tests set it."""

    now = BEGIN


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return what tallies that are made from now on take for the present."""
    clock = Clock()
    monkeypatch.setattr(clocks, "time", lambda: clock.now)
    return clock


def dump(store: Store, prefix: str) -> dict[str, Any]:
    """Return the bitmaps under a prefix, by their keys behind that."""
    names = list(store.raw.scan_iter(f"{prefix}*"))
    bitmaps = [name for name in names if store.raw.type(name) == b"string"]
    return {name.decode().removeprefix(prefix): store.raw.get(name) for name in bitmaps}


OPTIONS: list[dict[str, Any]] = [
    {},
    {"track_hourly": True},
    {"track_hourly": False, "track_unique": True},
    {"timezone": "Asia/Kathmandu", "track_yearly": True},
]


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("options", OPTIONS)
async def test_bits_are_those_of_awaited_marks(
    redis_store: Store,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    shards: int,
) -> None:
    """Also if the hour changes, the clock is set back, and the global switches change."""
    rng = random.Random(shards)
    async with (
        Tally.from_url(redis_store.url, prefix="awaited:", shards=shards, **options) as awaited,
        Tally.from_url(redis_store.url, prefix="buffered:", shards=shards, **options) as tally,
        tally.buffered() as buffer,
    ):
        for _ in range(MARKS):
            clock.now += rng.choice([0, 0, 0, 0, 0, 1, 700, 3_600, -3_600, 86_400])
            if rng.random() < 0.3:
                name = rng.choice(["TRACK_HOURLY", "TRACK_UNIQUE"])
                monkeypatch.setattr(tallymark, name, rng.random() < 0.5)
            verb = "mark_event" if rng.random() < 0.8 else "unmark_event"
            arguments = rng.choice(["read", "write", "buy"]), rng.randrange(40)
            own: dict[str, Any] = {}
            if rng.random() < 0.2:
                own[rng.choice(["track_hourly", "track_unique"])] = rng.random() < 0.5
            getattr(buffer, verb)(*arguments, **own)
            await getattr(awaited, verb)(*arguments, **own)
        await buffer.flush()
        assert buffer.stats() == (MARKS, MARKS, 0, 0, 0)
    expected = dump(redis_store, "awaited:")
    assert len(expected) > 10
    assert dump(redis_store, "buffered:") == expected


class Number(int):
    """A subclass of int."""


class Name(str):
    """A subclass of str."""

    __slots__ = ()


USERS: list[Any] = [0, -1, 2**32, 10**30, True, 1.5, "1", None, b"1", Number(3), Number(-3), [1]]
EVENTS: list[Any] = ["read", Name("read"), "", "\n", 5, None, b"read", ["read"]]


async def test_arguments_are_refused_as_by_awaited_marks(memory_store: Store) -> None:
    async def outcome(marks: Any, event: Any, user: Any) -> Any:
        try:
            result = marks.mark_event(event, user)
            if asyncio.iscoroutine(result) or asyncio.isfuture(result):
                await result
        except Exception as error:  # noqa: BLE001 - is compared
            return type(error), str(error)
        return "accepted"

    async with Tally.from_url(memory_store.url) as tally, tally.buffered() as buffer:
        for _ in range(2):  # the second time, the short way knows the event
            buffer.mark_event("read", 1)
        for event, user in itertools.product(EVENTS, USERS):
            expected = await outcome(tally, event, user)
            assert await outcome(buffer, event, user) == expected, (event, user)


@pytest.mark.parametrize("shards", [1, 3])
async def test_reports_name_each_mark(clock: Clock, shards: int) -> None:
    told: list[Any] = []
    url = f"redis://127.0.0.1:{free_port()}/0"
    async with Tally.from_url(url, shards=shards) as tally:
        async with tally.buffered(
            timeout=0.1, on_error=lambda _, marks: told.extend(marks)
        ) as buffer:
            for user in range(20):
                clock.now += 600
                buffer.mark_event("read", user)
                if user % 3 == 0:  # the next one begins a chunk
                    buffer._chunk.room = 0
            await buffer.flush(10)
    now = BEGIN
    for user, mark in enumerate(sorted(told, key=lambda mark: mark.user_id)):
        now += 600
        options = {
            "now": datetime.fromtimestamp(now, timezone.utc),
            "track_hourly": False,
            "track_unique": False,
        }
        assert mark == ("mark_event", "read", user, options)
    assert len(told) == 20


async def test_chunks_that_are_sent_take_no_marks(redis_store: Store) -> None:
    """Marks come while the batches before them are in flight."""
    async with Tally.from_url(redis_store.url) as tally, tally.buffered() as buffer:
        for user in range(3_000):
            buffer.mark_unique("flag", user)
            if user % 50 == 0:
                await tally.mark_unique("other", user)  # takes the chunk along
            elif user % 3 == 0:
                await asyncio.sleep(0)
        await buffer.flush()
        assert buffer.stats() == (3_000, 3_000, 0, 0, 0)
    assert redis_store.bits()["trackist_flag_u"] == set(range(3_000))


async def test_parts_of_chunks_end_the_flush(redis_store: Store) -> None:
    async with Tally.from_url(redis_store.url, max_events=5) as tally:
        async with tally.buffered() as buffer:
            writer: Any = tally.backend.writer
            buffer.mark_unique("flag", 0)
            await buffer.flush()
            writer._sizer._limit = 7
            for user in range(1, 100):
                buffer.mark_unique("flag", user)
            await buffer.flush()
            assert buffer.stats() == (100, 100, 0, 0, 0)
            assert tally.stats().batches > 3  # the limit grows
    assert redis_store.bits() == {"trackist_flag_u": set(range(100))}


async def test_a_batch_has_a_limited_size(
    redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MAX_BATCH_SIZE", 10_000)
    async with Tally.from_url(redis_store.url) as tally, tally.buffered() as buffer:
        for user in range(1_000):
            buffer.mark_unique("flag", user)
        await buffer.flush()
        assert tally.stats().batches > 5
        assert tally.stats().bytes_sent < 100_000
    assert redis_store.bits() == {"trackist_flag_u": set(range(1_000))}


async def test_known_ids_of_another_type(redis_store: Store) -> None:
    ids = [f"user {number}" for number in range(50)]
    async with Tally.from_url(redis_store.url, user_ids=str, max_cached_ids=100) as tally:
        buffer = tally.buffered()
        for event in ("read", "write", "read"):
            for user in ids:
                buffer.mark_event(event, user)
            await buffer.flush()
        assert buffer.stats() == (150, 150, 0, 0, 0)
        assert await tally.count(tally.day("write")) == 50


async def test_the_quota_of_events(redis_store: Store) -> None:
    async with Tally.from_url(redis_store.url, max_events=2) as tally:
        async with tally.buffered() as buffer:
            for _ in range(3):
                buffer.mark_event("read", 1)
                buffer.mark_event("write", 2)
                with pytest.raises(InvalidValueError, match="max_events"):
                    buffer.mark_event("buy", 3)
                await buffer.flush()
            assert buffer.stats() == (6, 6, 0, 0, 0)


async def test_an_awaited_mark_keeps_its_place(redis_store: Store) -> None:
    async with Tally.from_url(redis_store.url) as tally, tally.buffered() as buffer:
        buffer.mark_unique("flag", 1)
        unmark = asyncio.create_task(tally.unmark_unique("flag", 2))
        await asyncio.sleep(0)  # it is in the queue, behind the chunk
        buffer.mark_unique("flag", 2)
        await unmark
        await buffer.flush()
    assert redis_store.bits() == {"trackist_flag_u": {1, 2}}


async def test_marks_while_the_tally_is_being_closed(redis_store: Store) -> None:
    tally = Tally.from_url(redis_store.url)
    buffer = tally.buffered()
    buffer.mark_unique("flag", 1)
    closing = asyncio.create_task(tally.aclose())
    buffer.mark_unique("flag", 2)  # the task has not begun yet
    await asyncio.sleep(0)
    with pytest.raises(ClosedError):
        buffer.mark_unique("flag", 3)
    await closing
    assert buffer.stats() == (2, 2, 0, 0, 0)
    assert redis_store.bits() == {"trackist_flag_u": {1, 2}}


@pytest.mark.parametrize("shards", [1, 64])
async def test_a_buffer_remembers_a_bounded_number_of_bitmaps(
    memory_store: Store, shards: int
) -> None:
    async with Tally.from_url(memory_store.url, shards=shards) as tally:
        buffer = tally.buffered(max_size=100_000)
        for number in range(1_200):
            for user in (0, 0, 1, 1):
                buffer.mark_event(f"event {number}", user)
            assert len(buffer._events) * shards < 1_000 + shards
        assert buffer._events
        await buffer.aclose(30)
