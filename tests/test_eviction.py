"""What docs/how-to/memory-limits.md says of Redis's eviction policies, on a server that is full."""

from __future__ import annotations

import contextlib
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import redis

from servers import running_server
from tallymark import StoreFullError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from facades import Facade

MONDAY = date(2026, 11, 23)


@contextlib.contextmanager
def full(policy: str) -> Iterator[tuple[str, Any]]:
    """Run a server that has 8 MB more than it needs to begin with."""
    with running_server("--maxmemory-policy", policy) as url, redis.Redis.from_url(url) as raw:
        raw.config_set("maxmemory", raw.info("memory")["used_memory"] + 8_000_000)
        assert raw.config_get("maxmemory-policy") == {"maxmemory-policy": policy}
        yield url, raw


async def fill(tally: Any) -> int:
    """Mark a megabyte for each of some days; return how many fit."""
    done = 0
    with contextlib.suppress(StoreFullError):
        while done < 40:
            await tally.mark_unique(f"event{done}", 8_000_000)
            done += 1
    return done


async def test_noeviction_keeps_all_and_says_so(facade: Facade) -> None:
    with full("noeviction") as (url, raw):
        async with facade.open(url) as tally:
            held = await fill(tally)
            assert 1 < held < 40
            assert raw.info("stats")["evicted_keys"] == 0
            first, second = tally.unique("event0"), tally.unique("event1")
            for number in range(held):
                assert await tally.count(tally.unique(f"event{number}")) == 1
                assert await tally.contains(tally.unique(f"event{number}"), 8_000_000)
            for asked in (tally.count(first & second), tally.contains(first & second, 1)):
                with pytest.raises(StoreFullError):
                    await asked


async def test_allkeys_drops_bitmaps_without_an_error(facade: Facade) -> None:
    with full("allkeys-lru") as (url, raw):
        async with facade.open(url) as tally:
            assert await fill(tally) == 40
            assert raw.info("stats")["evicted_keys"] > 0
            kept = [await tally.count(tally.unique(f"event{number}")) for number in range(40)]
            assert 0 < sum(kept) < 40


async def test_volatile_drops_those_that_expire(facade: Facade) -> None:
    with full("volatile-ttl") as (url, raw):
        async with facade.open(url, expire={"day": timedelta(days=3650)}) as tally:
            await tally.mark_event("active", 8_000_000, now=MONDAY)  # a day, a week and a month
            held = await fill(tally)
            assert held < 40
            assert raw.info("stats")["evicted_keys"] == 1
            assert await tally.count(tally.day("active", MONDAY)) == 0
            for kind in (tally.week, tally.month):
                assert await tally.count(kind("active", MONDAY)) == 1
