"""FastAPI with and without `MarkMiddleware`, and with it while the store is gone."""

from __future__ import annotations

import functools
import json
import statistics
import sys
from typing import TYPE_CHECKING, Any

import redis
from contest import median_ratio
from http_load import load
from web import TASKS, UVICORN, ask, check, rows_of, served

from servers import RedisProcess, running  # pyright: ignore[reportMissingImports]

if TYPE_CHECKING:
    from collections.abc import Callable

    from http_load import Load

COMMAND = [sys.executable, "-m", *UVICORN]
COMMAND[COMMAND.index("web_app:app")] = "web_app:both"

#: The seconds after which a mark has failed while the store is gone: less than a round takes.
TIMEOUT = 0.5


def middleware(url: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Measure an app with and without marks in turns, and return a row for each.

    Latencies are those of rounds, the ratio and the CPU time those of turns of a tenth of a
    second, in one run of all rounds.

    Raises:
        RuntimeError: a request failed.
    """
    kinds = {"no mark": "bare", "MarkMiddleware": "marking"}
    loads: dict[str, list[Load]] = {name: [] for name in kinds}
    cpu: dict[str, list[float]] = {name: [] for name in kinds}
    with (
        served(COMMAND, {"TALLYMARK_URL": url}, "bare") as port,
        redis.Redis.from_url(url) as store,
    ):
        for kind in kinds.values():
            load(port, kind, min(1, seconds), TASKS)
        for turn in range(rounds):
            store.flushdb()
            for name, kind in list(kinds.items())[:: -1 if turn % 2 else 1]:
                measured, cpu_us = _measured(port, kind, seconds)
                loads[name].append(measured)
                cpu[name].append(cpu_us)
            check(store, ["request"])
        ask(port, "taken", 0)
        load(port, "turns", 2 * rounds * seconds, TASKS)
        taken = json.loads(ask(port, "taken", 0))
    rows = _with_cpu(loads, cpu, "no mark")
    for row, kind in zip(rows, kinds.values(), strict=True):
        row["cpu_us"] = statistics.median(1e6 * cpu / number for number, _, cpu in taken[kind])
    pairs = list(zip(taken["marking"], taken["bare"], strict=False))
    rates = [[number / took for number, took, _ in each] for each in zip(*pairs, strict=True)]
    rows[1]["ratio"] = median_ratio(*rates)
    if any(row["failed"] for row in rows):
        raise RuntimeError(f"requests have failed: {rows}")
    return rows


def without_store(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Measure the app with marks in turns while the store is there and gone; return a row for each.

    "killed" refuses connections; "frozen" accepts them, and never replies. Each round begins
    as the store goes, with marks in flight.
    """
    with running(RedisProcess("--appendonly", "no")) as store:
        states: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
            "there": (_nothing, _nothing),
            "killed": (store.kill, store.start),
            "frozen": (store.freeze, store.thaw),
        }
        loads: dict[str, list[Load]] = {name: [] for name in states}
        cpu: dict[str, list[float]] = {name: [] for name in states}
        environment = {"TALLYMARK_URL": store.url, "BENCHMARK_TIMEOUT": str(TIMEOUT)}
        with served(COMMAND, environment, "bare") as port:
            for _ in range(rounds):
                for name, (end, restore) in states.items():
                    load(port, "marking", min(1, seconds), TASKS)
                    end()
                    try:
                        measured, cpu_us = _measured(port, "marking", seconds)
                    finally:
                        restore()
                    loads[name].append(measured)
                    cpu[name].append(cpu_us)
    return _with_cpu(loads, cpu, "there")


def _nothing() -> None:
    """Leave the store as it is."""


def _measured(port: int, kind: str, seconds: float) -> tuple[Load, float]:
    """Generate load; return it, and the CPU time of the server process for each request."""
    seconds_of = functools.partial(ask, port, "cpu", 0)
    before = float(seconds_of())
    measured = load(port, kind, seconds, TASKS)
    return measured, 1e6 * (float(seconds_of()) - before) / measured.requests


def _with_cpu(
    loads: dict[str, list[Load]], cpu: dict[str, list[float]], baseline: str
) -> list[dict[str, Any]]:
    """Return the rows of loads, with CPU times; the worst round counts for what must not be."""
    rows = rows_of(loads, baseline)
    for row in rows:
        name = row["contender"]
        row["failed"] = sum(each.failed for each in loads[name])
        row["slowest_ms"] = max(each.slowest_ms for each in loads[name])
        row["cpu_us"] = statistics.median(cpu[name])
    return rows
