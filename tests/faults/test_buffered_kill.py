"""Buffered marks through ``kill -9`` of Redis: each is sent or failed, and counted as such."""

from __future__ import annotations

import asyncio
import tempfile
from typing import Any

import redis

from servers import RedisProcess, running
from stores import Store
from tallymark import Tally

MARKS = 20_000


async def test_every_mark_is_sent_or_failed() -> None:
    with tempfile.TemporaryDirectory() as folder:
        durable = ("--appendonly", "yes", "--appendfsync", "always", "--dir", folder)
        with running(RedisProcess(*durable)) as server:
            failed: list[Any] = []
            async with Tally.from_url(server.url, timeout=0.5) as tally:
                buffer = tally.buffered(
                    max_size=MARKS, on_error=lambda _, marks: failed.extend(marks)
                )
                for user in range(MARKS):
                    if user == MARKS // 4:
                        server.kill()
                    if user == MARKS // 2:
                        await buffer.flush(10)  # these fail
                        await asyncio.to_thread(server.start)
                    buffer.mark_unique("flag", user)
                    if user % 100 == 0:
                        await asyncio.sleep(0)
                await buffer.aclose(10)
                stats = buffer.stats()
            assert stats.accepted == MARKS == stats.sent + stats.failed
            assert stats.failed == len(failed) > 0
            assert stats.sent > 0
            with redis.Redis.from_url(server.url) as raw:
                bits = Store(server.url, raw).bits()["trackist_flag_u"]
            sent = set(range(MARKS)) - {mark.user_id for mark in failed}
            assert sent <= bits  # a failed one may have been applied
