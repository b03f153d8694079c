"""Buffered marks through ``kill -9`` of Redis: each is sent or failed, and takes effect in order.

Marks and unmarks of the same users alternate. In Redis, a user is as the last mark has left it
that was sent, or as a later one that has failed and may have been applied.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import redis

from servers import RedisProcess, running
from stores import Store
from tallymark import BufferStats, SyncTally, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MARKS = 20_000
USERS = 800
#: The first mark is at this moment, and each further one a microsecond later: its number.
BEGIN = datetime(2026, 5, 5, 12, tzinfo=timezone.utc)
STEP = timedelta(microseconds=1)


class _Program:
    """Random marks and unmarks, and those of them that have failed."""

    def __init__(self) -> None:
        chance = random.Random(23)
        self.marks = [(chance.random() < 0.5, chance.randrange(USERS)) for _ in range(MARKS)]
        #: For each mark that has failed, by its number, whether it may have been applied.
        self.failed: dict[int, bool] = {}
        self.told = 0

    def on_error(self, error: Any, marks: Any) -> None:
        self.told += len(marks)
        for mark in marks:
            self.failed[(mark.options["now"] - BEGIN) // STEP] = error._may_be_applied

    def call(self, buffer: Any, number: int) -> None:
        sets, user = self.marks[number]
        verb = buffer.mark_event if sets else buffer.unmark_event
        verb("active", user, now=BEGIN + number * STEP)

    def check(self, server: RedisProcess, stats: BufferStats) -> None:
        """Check the counters, and the bit of each user."""
        assert stats == (MARKS, stats.sent, 0, stats.failed, 0)
        assert stats.failed == self.told == len(self.failed) > 0  # none twice
        assert stats.sent > 0
        possible: dict[int, set[bool]] = {}
        for number, (sets, user) in enumerate(self.marks):
            bits = possible.setdefault(user, {False})
            if number not in self.failed:
                bits.clear()
            if self.failed.get(number, True):
                bits.add(sets)
        with redis.Redis.from_url(server.url) as raw:
            marked = Store(server.url, raw).bits()["trackist_active_2026-5-5"]
        assert not [user for user, bits in possible.items() if (user in marked) not in bits]


@contextlib.contextmanager
def _durable() -> Iterator[RedisProcess]:
    with tempfile.TemporaryDirectory() as folder:
        durable = ("--appendonly", "yes", "--appendfsync", "always", "--dir", folder)
        with running(RedisProcess(*durable)) as server:
            yield server


def _faults(server: RedisProcess) -> dict[int, Callable[[], object]]:
    """Return what happens to the server before which mark: it is killed twice."""
    eighth = MARKS // 8
    return {
        eighth: server.kill,
        3 * eighth: server.start,
        5 * eighth: server.kill,
        7 * eighth: server.start,
    }


async def test_every_mark_of_a_tally_is_sent_or_failed() -> None:
    program = _Program()
    with _durable() as server:
        faults = _faults(server)
        async with Tally.from_url(server.url, timeout=0.4) as tally:
            buffer = tally.buffered(max_size=MARKS, on_error=program.on_error)
            for number in range(MARKS):
                if number in faults:
                    if faults[number] == server.start:
                        await buffer.flush(10)  # these fail
                    await asyncio.to_thread(faults[number])
                program.call(buffer, number)
                if number % 50 == 0:
                    await asyncio.sleep(0.0005)
            await buffer.aclose(10)
        program.check(server, buffer.stats())


def test_every_mark_of_a_sync_tally_is_sent_or_failed() -> None:
    program = _Program()
    with _durable() as server:
        faults = _faults(server)
        with SyncTally.from_url(server.url, timeout=0.4) as tally:
            buffer = tally.buffered(max_size=MARKS, on_error=program.on_error)
            for number in range(MARKS):
                if number in faults:
                    if faults[number] == server.start:
                        buffer.flush(10)  # these fail
                    faults[number]()
                program.call(buffer, number)
            buffer.close(10)
        program.check(server, buffer.stats())
