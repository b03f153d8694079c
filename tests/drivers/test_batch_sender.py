"""A group commit on a connection without a server: back-off, aborted attempts, backpressure."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import anyio
import pytest

from tallymark import Granularity, StoreTimeoutError, StoreUnavailableError
from tallymark._async.connection import BatchSender
from tallymark._async.group_commit import GroupCommit
from tallymark._async.write_queue import InFlightBatch, batch_of
from tallymark._marking.batch import Batch
from tallymark._marking.marks import Bitmaps, BitMark
from tallymark._marking.stats import Totals

MARK = BitMark(Bitmaps("a", Granularity.DAY, [b"a"]), 7, 1)


class Connection:
    """A connection that cannot connect.

    Attributes:
        hangs: whether attempts to connect take forever; else they fail.
    """

    ready = False
    owned = True

    def __init__(self, *, hangs: bool = False) -> None:
        self.hangs = hangs
        self.connecting = asyncio.Event()

    async def connect(self) -> None:
        self.connecting.set()
        if self.hangs:
            await asyncio.Event().wait()
        raise StoreUnavailableError("refused")

    async def abort(self) -> None:
        """There is nothing to disconnect."""

    async def close(self, *, gently: bool = False) -> None:
        """There is nothing to close."""


def sender_of(connection: Any) -> BatchSender:
    return BatchSender(
        connection, Totals(), new_batch=Batch, store="Redis", observer=None, event_quota=False
    )


def batch(seconds: float) -> InFlightBatch:
    """Return a batch of one mark with so many seconds to its deadline."""
    loop = asyncio.get_running_loop()
    write = (loop.create_future(), loop.time() + seconds, MARK, (), seconds)
    return batch_of([write], Batch())


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the list of all pauses, which take no time; they are as long as they can be."""
    made: list[float] = []

    async def sleep(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr(anyio, "sleep", sleep)
    monkeypatch.setattr(random, "uniform", lambda _, longest: longest)
    return made


async def failed_attempt(sender: BatchSender, seconds: float = 100.0) -> None:
    """Make an attempt that fails, and have the next one wait."""
    with pytest.raises(StoreUnavailableError) as raised:
        await sender.exchange(batch(seconds))
    sender.failed(raised.value, final=False)
    sender.back_off(raised.value)


async def test_a_pause_takes_at_most_half_of_the_time_that_is_left(pauses: list[float]) -> None:
    sender = sender_of(Connection())
    for _ in range(8):
        await failed_attempt(sender)
    assert 0.5 < pauses[-1] <= 1.0
    await failed_attempt(sender, seconds=0.5)
    assert 0.0 < pauses[-1] <= 0.25


async def test_a_success_ends_the_back_off(pauses: list[float]) -> None:
    sender = sender_of(Connection())
    for _ in range(8):
        await failed_attempt(sender)
    assert pauses[-1] > 0.5
    sender.succeeded()
    pauses.clear()
    await failed_attempt(sender)
    assert not pauses
    await failed_attempt(sender)
    assert len(pauses) == 1
    assert pauses[0] < 0.1


async def test_an_abort_ends_an_attempt_to_connect() -> None:
    connection = Connection(hangs=True)
    sender = sender_of(connection)
    attempt = asyncio.create_task(sender.exchange(batch(100.0)))
    await connection.connecting.wait()
    assert sender.is_connecting
    sender.abort()
    done, _ = await asyncio.wait([attempt], timeout=10)
    attempt.cancel()
    assert done
    with pytest.raises(StoreTimeoutError):
        attempt.result()
    assert not sender.is_connecting


async def test_a_mark_with_a_deadline_needs_a_place_in_the_queue() -> None:
    connection: Any = Connection(hangs=True)
    commit = GroupCommit(connection, new_batch=Batch, timeout=100.0, max_pending=3)
    loop = asyncio.get_running_loop()

    def submit() -> Any:
        return commit.submit_until(MARK, (), loop.time() + 100.0, 100.0, loop)

    calls = [asyncio.ensure_future(submit()) for _ in range(3)]
    assert commit._queue.is_full
    calls += [asyncio.ensure_future(submit()) for _ in range(2)]
    await asyncio.sleep(0)
    assert commit._queue.waiting == 2  # not refused: their call was admitted already
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    commit.fail_all()
    await commit.close()
