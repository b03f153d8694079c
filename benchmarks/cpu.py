"""CPU time of a process per mark: of a lone caller, beside the floor, and of many events."""

from __future__ import annotations

import contextlib
import os
import statistics
from typing import TYPE_CHECKING, Any

import redis
from contest import Server, contest, median_ratio, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from contest import Contender

#: The floor, tallymark, and what else a program would use.
CALLERS = {
    "blocking": ["socket, hiredis", "SyncTally", "bitmapist", "redis-py pipeline"],
    "asyncio": ["Protocol, hiredis", "tallymark", "redis.asyncio pipeline"],
}


@contextlib.contextmanager
def pinned(url: str) -> Iterator[None]:
    """Pin a server on this machine to one CPU, and this process and those it starts to another.

    Where the system cannot do that, or has one CPU, print so and pin nothing.
    """
    ours = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else set()
    if len(ours) < 2:
        print("  not pinned to CPUs")
        yield
        return
    with redis.Redis.from_url(url) as store:
        server = store.info("server")["process_id"]
    before = os.sched_getaffinity(server)
    try:
        os.sched_setaffinity(server, {min(ours)})
        os.sched_setaffinity(0, {max(ours)})
        yield
    finally:
        os.sched_setaffinity(0, ours)
        os.sched_setaffinity(server, before)


def lone(url: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Measure a lone caller of each facade; return a row for each contender."""
    return [
        {"facade": facade, **row}
        for facade, names in CALLERS.items()
        for row in contest(names, url, "hot", 1, rounds=rounds, seconds=seconds, latencies=True)
    ]


def events(
    url: str, rounds: int, seconds: float, callers: tuple[int, ...] = (50, 200, 1000)
) -> list[dict[str, Any]]:
    """Measure marks of one event and of 200 in turns, in one process; return a row for each."""
    with redis.Redis.from_url(url) as store, running("tallymark", url) as tally:
        assert tally is not None
        return [
            row
            for count in callers
            for row in _events(tally, Server(store), rounds, seconds, count)
        ]


def _events(
    tally: Contender, server: Server, rounds: int, seconds: float, callers: int
) -> list[dict[str, Any]]:
    took: dict[str, list[float]] = {"hot": [], "zipf": []}
    marks = {}
    for workload in took:
        server.flush()
        few = 2 * callers + 500
        warm = tally.ask(workload, few, callers, latencies=False)["seconds"]
        marks[workload] = max(few, int(seconds * few / warm))
    for _ in range(rounds):
        for workload, each in took.items():
            server.flush()
            round_ = tally.ask(workload, marks[workload], callers, latencies=False)
            each.append(round_["cpu"] / marks[workload])
            server.check(tally.name, workload, marks[workload])
    return [
        {
            "callers": callers,
            "workload": workload,
            "cpu_us": 1e6 * statistics.median(each),
            "cpu_ratio": median_ratio(each, took["hot"]),
        }
        for workload, each in took.items()
    ]
