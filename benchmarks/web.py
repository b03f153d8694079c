"""Requests per second of web apps with and without marks: FastAPI, and Flask in threads."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from contest import WrongBitsError, median_ratio, python_of
from http_load import Load, load
from workloads import keys

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
#: The connections of the load: as many tasks of FastAPI, and two for each thread of Flask.
TASKS, THREADS = 64, 16

UVICORN = ["uvicorn", "web_app:app", "--app-dir", str(HERE), "--port", "{port}"]
UVICORN += ["--no-access-log", "--log-level", "warning"]
GUNICORN = ["gunicorn", "threads_app:app", "--chdir", str(HERE), "--bind", "127.0.0.1:{port}"]
GUNICORN += ["--worker-class", "gthread", "--threads", str(THREADS), "--log-level", "warning"]


@contextlib.contextmanager
def served(command: list[str], environment: dict[str, str], kind: str = "nothing") -> Iterator[int]:
    """Run an app under a server, and yield its port when it responds to requests of a kind."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [part.format(port=port) for part in command], env={**os.environ, **environment}
    )
    try:
        for _ in range(200):
            with contextlib.suppress(urllib.error.URLError):
                ask(port, kind, 1)
                break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def ask(port: int, kind: str, user: int) -> bytes:
    """Send one request."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{kind}/{user}/login", method="POST")
    with urllib.request.urlopen(request) as answer:
        body: bytes = answer.read()
    return body


def check(store: Any, events: list[str]) -> None:
    """Raise unless months, weeks and days have as many users of each event, and some."""
    for event in events:
        # In one transaction: the last requests, each atomic, may still be running.
        with store.pipeline(transaction=True) as counting:
            for key in keys(event):
                counting.bitcount(key)
            counts = set(counting.execute())
        if len(counts) != 1 or not counts.pop():
            raise WrongBitsError(f"{event}: months, weeks and days differ")


def fastapi(url: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Measure three endpoints of one app in turns, and return a row for each."""
    kinds = {"no mark": "nothing", "redis.asyncio pipeline": "obvious", "tallymark": "users"}
    command = [sys.executable, "-m", *UVICORN]
    with served(command, {"TALLYMARK_URL": url}) as port, redis.Redis.from_url(url) as store:
        loads = {
            name: functools.partial(load, port, kind, connections=TASKS)
            for name, kind in kinds.items()
        }
        return in_turns(loads, store, ["login", "obvious"], rounds, seconds)


def flask(url: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Measure an app in 16 threads with each library in turns, and return a row for each."""
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(redis.Redis.from_url(url))
        loads = {}
        for name in ("no mark", "bitmapist", "SyncTally", "mark_requests"):
            python = python_of(name)
            if python is not None:
                environment = {"TALLYMARK_URL": url, "BENCHMARK_CONTENDER": name}
                port = stack.enter_context(served([python, "-m", *GUNICORN], environment))
                event = name.replace(" ", "-")
                loads[name] = functools.partial(load, port, event, connections=2 * THREADS)
        marked = [name for name in loads if name != "no mark"]
        return in_turns(loads, store, marked, rounds, seconds)


def in_turns(
    loads: dict[str, functools.partial[Load]],
    store: Any,
    events: list[str],
    rounds: int,
    seconds: float,
) -> list[dict[str, Any]]:
    """Generate each load in turns, after one second to warm up; return a row for each.

    Raises:
        RuntimeError: a request failed.
    """
    measured: dict[str, list[Load]] = {name: [] for name in loads}
    for generate in loads.values():
        generate(seconds=min(1, seconds))
    for _ in range(rounds):
        store.flushdb()
        for name, generate in loads.items():
            measured[name].append(generate(seconds=seconds))
        check(store, events)
    if any(each.failed for each in itertools.chain(*measured.values())):
        raise RuntimeError(f"requests have failed: {measured}")
    return rows_of(measured, "no mark")


def rows_of(measured: dict[str, list[Load]], baseline: str) -> list[dict[str, Any]]:
    """Return a row for each contender: the medians of its rounds, and its ratio to another."""
    rates = {name: [load.requests_per_second for load in loads] for name, loads in measured.items()}
    return [
        {
            "contender": name,
            **{
                field: statistics.median(getattr(load, field) for load in loads)
                for field in Load._fields
            },
            "ratio": median_ratio(rates[name], rates[baseline]),
        }
        for name, loads in measured.items()
    ]
