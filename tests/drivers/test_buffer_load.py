"""Buffers of a `Tally` under load: short timeouts, several buffers in turn, and other threads."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from servers import free_port
from tallymark import Buffer, ClosedError, StoreTimeoutError, Tally
from tallymark._redis.clocks import clocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from stores import Store


def _nowhere() -> str:
    return f"redis://127.0.0.1:{free_port()}/0"


@pytest.mark.parametrize("away", [True, False])
async def test_no_mark_vanishes_at_a_short_timeout(redis_store: Store, away: bool) -> None:
    """A chunk whose marks have failed takes no more of them."""
    told = 0

    def on_error(_: Exception, marks: Any) -> None:
        nonlocal told
        told += len(marks)

    async with Tally.from_url(_nowhere() if away else redis_store.url) as tally:
        buffer = tally.buffered(timeout=0.004, on_error=on_error)
        for user in range(1_000):
            buffer.mark_unique("flag", user)
            if user % 3 == 0:
                await asyncio.sleep(0.0005)
        await buffer.aclose(10)
        stats = buffer.stats()
        assert stats == (1_000, stats.sent, 0, told, 0)
        assert stats.sent + told == 1_000
        assert told == 1_000 or not away


async def test_a_chunk_with_results_takes_no_marks() -> None:
    async with Tally.from_url(_nowhere(), timeout=5) as tally:
        buffer, other = tally.buffered(), tally.buffered()
        buffer.mark_unique("flag", 1)
        writer: Any = tally.backend.writer
        writer.abandon(buffer, ClosedError("test"))
        assert buffer.stats() == (1, 0, 0, 1, 0)
        buffer.mark_unique("flag", 2)
        other.mark_unique("flag", 3)
        assert buffer.stats() == (2, 0, 0, 1, 1)
        await buffer.aclose(0.01)
        await other.aclose(0.01)
        assert buffer.stats() == (2, 0, 0, 2, 0)
        assert other.stats() == (1, 0, 0, 1, 0)


def _in_turns(first: Buffer, second: Buffer, count: int) -> None:
    """Mark so that each mark is a chunk of its own."""
    for user in range(count):
        first.mark_unique("first", user)
        second.mark_unique("second", user)


def _cpu_seconds(work: Callable[[], None]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


@pytest.mark.timed
async def test_a_mark_costs_the_same_with_many_chunks() -> None:
    async with Tally.from_url(_nowhere()) as tally:
        first, second = tally.buffered(timeout=30), tally.buffered(timeout=30)
        few = min(_cpu_seconds(lambda: _in_turns(first, second, 300)) for _ in range(3))
        _in_turns(first, second, 6_000)
        many = min(_cpu_seconds(lambda: _in_turns(first, second, 300)) for _ in range(3))
        assert first.stats() == (7_800, 0, 0, 0, 7_800)
        assert many < 4 * few
        await first.aclose(0.01)
        await second.aclose(0.01)


async def _seconds_of_results(count: int) -> float:
    """Return the CPU time in which so many chunks, for which flushes wait, get their results."""
    async with Tally.from_url(_nowhere()) as tally:
        first, second = tally.buffered(timeout=30), tally.buffered(timeout=30)
        _in_turns(first, second, count)
        flushes = [asyncio.create_task(first.flush()) for _ in range(3)]
        await asyncio.sleep(0)
        writer: Any = tally.backend.writer
        seconds = _cpu_seconds(lambda: writer.abandon(first, ClosedError("test")))
        await asyncio.gather(*flushes)
        assert first.stats().failed == count
        await second.aclose(0.01)
        return seconds


@pytest.mark.timed
async def test_results_cost_the_same_with_many_chunks() -> None:
    few = min([await _seconds_of_results(800) for _ in range(3)])
    many = min([await _seconds_of_results(6_400) for _ in range(3)])
    assert many < 8 * 4 * few


async def test_a_flush_waits_for_the_marks_before_it_only(redis_store: Store) -> None:
    async with Tally.from_url(redis_store.url) as tally:
        buffer, other = tally.buffered(), tally.buffered()
        for user in range(10):
            buffer.mark_unique("flag", user)
            other.mark_unique("flag", user)
        first = asyncio.create_task(buffer.flush())
        await asyncio.sleep(0)
        with anyio.fail_after(30):
            flushed = 0
            while not first.done():  # more marks with each step of the loop
                buffer.mark_unique("flag", flushed % 10)
                flushed += 1
                await asyncio.sleep(0)
        await first
        await buffer.flush()
        await other.flush()
        assert buffer.stats() == (10 + flushed, 10 + flushed, 0, 0, 0)
        assert other.stats() == (10, 10, 0, 0, 0)


async def test_stats_in_another_thread(redis_store: Store) -> None:
    """As exporters of metrics do."""
    wrong: list[Any] = []
    ended = threading.Event()

    def export() -> None:
        try:
            while not ended.is_set():
                stats = buffer.stats()
                if stats.waiting < 0 or stats.accepted != sum(stats[1:]):
                    wrong.append(stats)
        except RuntimeError as error:
            wrong.append(error)

    async with Tally.from_url(redis_store.url) as tally:
        buffer, other = tally.buffered(), tally.buffered()
        thread = threading.Thread(target=export)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        thread.start()
        try:
            for _ in range(60):
                _in_turns(buffer, other, 50)
                await asyncio.sleep(0)
            await buffer.aclose(20)
            await other.aclose(20)
        finally:
            ended.set()
            thread.join()
            sys.setswitchinterval(interval)
        assert buffer.stats() == (3_000, 3_000, 0, 0, 0)
    assert not wrong


# --- the ways of a chunk


async def test_a_chunk_closes_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its marks share a deadline."""
    now = time.monotonic()
    async with Tally.from_url(_nowhere()) as tally:
        buffer = tally.buffered(timeout=5)
        monkeypatch.setattr(clocks, "monotonic", lambda: now)
        buffer.mark_unique("flag", 1)
        now += 0.009
        buffer.mark_unique("flag", 2)
        now += 0.002
        buffer.mark_unique("flag", 3)
        writer: Any = tally.backend.writer
        assert [len(write[0]) for write in writer._queue] == [2, 1]
        await buffer.aclose(0.01)


async def test_a_flush_closes_the_chunk() -> None:
    """Or it would wait for marks after it."""
    async with Tally.from_url(_nowhere()) as tally:
        buffer = tally.buffered(timeout=5)
        buffer.mark_unique("flag", 1)
        flush = asyncio.create_task(buffer.flush(0.05))
        await asyncio.sleep(0)
        buffer.mark_unique("flag", 2)
        writer: Any = tally.backend.writer
        assert [len(write[0]) for write in writer._queue] == [1, 1]
        with pytest.raises(StoreTimeoutError, match="1 marks were not sent"):
            await flush
        await buffer.aclose(0.01)


async def test_a_short_timeout_behind_a_long_one_passes_in_time() -> None:
    async with Tally.from_url(_nowhere()) as tally:
        long, short = tally.buffered(timeout=5), tally.buffered(timeout=0.05)
        long.mark_unique("flag", 1)
        await asyncio.sleep(0)
        short.mark_unique("flag", 2)
        await short.flush(20)
        assert short.stats() == (1, 0, 0, 1, 0)
        assert long.stats() == (1, 0, 0, 0, 1)
        await long.aclose(0.01)


async def test_the_last_failures_are_logged_when_the_buffer_closes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Tally.from_url(_nowhere()) as tally:
        buffer = tally.buffered(timeout=0.02)
        for user in range(2):
            buffer.mark_unique("flag", user)
            await buffer.flush(20)
        await buffer.aclose()
    failed = [record.message for record in caplog.records if "buffered" in record.message]
    assert len(failed) == 2
    assert failed[1] == "1 more buffered marks have failed"


async def test_failures_are_told_once_in_a_step_of_the_loop() -> None:
    told: list[int] = []
    async with Tally.from_url(_nowhere()) as tally:
        buffer = tally.buffered(on_error=lambda _, marks: told.append(len(marks)))
        other = tally.buffered()
        _in_turns(buffer, other, 3)
        loop: Any = asyncio.get_running_loop()
        writer: Any = tally.backend.writer
        ready = len(loop._ready)
        writer.abandon(buffer, ClosedError("test"))
        assert len(loop._ready) == ready + 1
        await buffer.flush()
        await other.aclose(0.01)
    assert told == [1, 1, 1]


@pytest.mark.parametrize("shards", [1, 4])
async def test_marks_that_wait_are_no_objects_of_the_garbage_collector(shards: int) -> None:
    """With an object for each, it runs in a web app for every group of requests."""
    async with Tally.from_url(_nowhere(), shards=shards) as tally:
        buffer = tally.buffered()
        events = ("read", "write")
        for event in events:
            for user in range(shards):
                buffer.mark_event(event, user)
        gc.collect()
        gc.disable()
        try:
            before = len(gc.get_objects())
            for user in range(500):
                for event in events:
                    buffer.mark_event(event, user)
            added = len(gc.get_objects()) - before
        finally:
            gc.enable()
        assert buffer.stats().waiting == 1_000 + 2 * shards
        assert added < 50  # chunks, and their places in the queue
        await buffer.aclose(0.01)
