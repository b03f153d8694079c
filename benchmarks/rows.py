"""mark_rows, beside a loop of mark_event and one mark_many for each event and day, in turns.

Rows of 50 events, 200,000 users and 90 days in random order, and what differs from that: rows that
are sorted, users with ids, and rows of which each has another event and day.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import redis
from contest import WrongBitsError

from tallymark import SyncTally, Tally

if TYPE_CHECKING:
    from collections.abc import Callable

EVENTS, USERS, DAYS = 50, 200_000, 90
BEGIN = datetime(2026, 1, 1)

#: How many rows a contender gets that takes many times as long.
FEW = 40


class Table:
    """Rows in random order, as columns and as tuples."""

    def __init__(self, rows: int) -> None:
        """Draw rows, the same for the same number."""
        import numpy as np

        chance = np.random.default_rng(1)
        codes = chance.integers(0, EVENTS, rows)
        self.users = chance.integers(0, USERS, rows)
        seconds = chance.integers(0, DAYS * 86_400, rows)
        self.moments = np.datetime64(BEGIN, "s") + seconds
        names = np.array([f"event:{code}" for code in range(EVENTS)])
        self.events = names[codes].tolist()
        order = np.lexsort((seconds // 86_400, codes))
        self.columns = {"event": self.events, "user_id": self.users, "moment": self.moments}
        self.sorted = {
            "event": names[codes[order]].tolist(),
            "user_id": self.users[order],
            "moment": self.moments[order],
        }
        exact = self.moments.astype("datetime64[us]").tolist()
        self.tuples = list(zip(self.events, self.users.tolist(), exact, strict=True))
        self.named = {**self.columns, "user_id": [f"user-{user:07}" for user in self.users]}


def by_event_and_day(tally: SyncTally, rows: list[Any]) -> int:
    """Group rows as a program would, and mark each group."""
    groups: dict[Any, list[int]] = {}
    for event, user, moment in rows:
        groups.setdefault((event, moment.date()), []).append(user)
    return sum(
        sum(tally.mark_many(event, users, now=day).values())
        for (event, day), users in groups.items()
    )


def one_by_one(tally: SyncTally, rows: list[Any]) -> int:
    """Mark each row with a call."""
    for event, user, moment in rows:
        tally.mark_event(event, user, now=moment)
    return 0


def in_rows(tally: SyncTally, rows: Any) -> int:
    """Mark all rows with one call."""
    return sum(tally.mark_rows(rows).values())


async def _in_rows(url: str, rows: Any) -> tuple[float, int]:
    async with Tally.from_url(url) as tally:
        await tally.mark_unique("warm", 1)
        begun = time.perf_counter()
        counts = await tally.mark_rows(rows)
        return time.perf_counter() - begun, sum(counts.values())


def rows_benchmark(url: str, rounds: int, rows: int) -> list[dict[str, Any]]:
    """Return a row for each contender.

    Raises:
        WrongBitsError: contenders have marked the same rows, and flipped another number of bits.
    """
    table = Table(rows)
    few = table.tuples[: rows // FEW]
    apart = {
        "event": [f"event:{number}" for number in range(rows // 10)],
        "user_id": [number % 100 for number in range(rows // 10)],
        "moment": [BEGIN + timedelta(number % 1000) for number in range(rows // 10)],
    }
    ids: dict[str, Any] = {"user_ids": str}
    contenders: dict[str, tuple[Callable[..., Any], Any, int, dict[str, Any]]] = {
        "a loop of mark_event": (one_by_one, few, len(few), {}),
        "mark_many for each event and day": (by_event_and_day, table.tuples, rows, {}),
        "mark_rows, tuples": (in_rows, table.tuples, rows, {}),
        "mark_rows, columns": (in_rows, table.columns, rows, {}),
        "mark_rows, columns, asyncio": (_in_rows, table.columns, rows, {}),
        "mark_rows, columns by event and day": (in_rows, table.sorted, rows, {}),
        "mark_rows, new users with str ids": (in_rows, table.named, rows, ids),
        "mark_rows, their second time, nothing cached": (in_rows, table.named, rows, ids),
        "mark_rows, each another event and day": (in_rows, apart, rows // 10, {}),
    }
    figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in contenders}
    with redis.Redis.from_url(url) as store:
        for _ in range(rounds):
            flips = set()
            for name, (mark, argument, count, options) in contenders.items():
                if "second" not in name:
                    store.flushdb()
                gc.collect()
                ours, server = time.process_time(), _server_time(store)
                if mark is _in_rows:
                    seconds, flipped = asyncio.run(_in_rows(url, argument))
                else:
                    with SyncTally.from_url(url, **options) as tally:
                        warm: Any = "warm" if options else 1
                        tally.mark_unique("warm", warm)
                        begun = time.perf_counter()
                        flipped = mark(tally, argument)
                        seconds = time.perf_counter() - begun
                figures[name].append(
                    (
                        seconds / count,
                        (time.process_time() - ours) / count,
                        (_server_time(store) - server) / count,
                    )
                )
                if count == rows and "second" not in name:
                    flips.add(flipped)
            if len(flips) != 1:
                raise WrongBitsError(f"bits flipped: {flips}")
        store.flushdb()
    slowest = [wall for wall, _, _ in figures["a loop of mark_event"]]
    found = []
    for name, (_, _, count, _) in contenders.items():
        walls, ours_each, server_each = zip(*figures[name], strict=True)
        found.append(
            {
                "contender": name,
                "rows": count,
                "rows_per_second": 1 / statistics.median(walls),
                "ratio": statistics.median(
                    base / wall for base, wall in zip(slowest, walls, strict=True)
                ),
                "cpu_us": statistics.median(ours_each) * 1e6,
                "server_us": statistics.median(server_each) * 1e6,
            }
        )
    return found


def _server_time(store: Any) -> float:
    used = store.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])
