"""Requests per second of web apps with and without marks: FastAPI, and Flask in threads.

The load comes from `wrk` if it is on PATH (Debian: ``apt-get install wrk``),
else from the generator below, in a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import redis
from contest import WrongBitsError, median_ratio, python_of
from workloads import keys

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
USERS = 100_000
#: The connections of the load: as many tasks of FastAPI, and two for each thread of Flask.
TASKS, THREADS = 64, 16

UVICORN = ["uvicorn", "web_app:app", "--app-dir", str(HERE), "--port", "{port}"]
UVICORN += ["--no-access-log", "--log-level", "warning"]
GUNICORN = ["gunicorn", "flask_app:app", "--chdir", str(HERE), "--bind", "127.0.0.1:{port}"]
GUNICORN += ["--worker-class", "gthread", "--threads", str(THREADS), "--log-level", "warning"]

#: The script of wrk: the users in turn, over all threads and connections.
SCRIPT = """
local user = 0
request = function()
  user = (user + 1) %% %d
  return wrk.format("POST", "/%s/" .. user .. "/login")
end
"""


class Load(NamedTuple):
    """What a generator of load measured."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float


@contextlib.contextmanager
def served(command: list[str], environment: dict[str, str]) -> Iterator[int]:
    """Run an app under a server, and yield its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [part.format(port=port) for part in command], env={**os.environ, **environment}
    )
    try:
        for _ in range(200):
            with contextlib.suppress(urllib.error.URLError):
                ask(port, "nothing", 1)
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


def generator() -> str:
    """Return the name of the load generator."""
    return "wrk" if shutil.which("wrk") else "our own generator"


def load(port: int, kind: str, seconds: float, connections: int) -> Load:
    """Send requests on all connections for so many seconds."""
    wrk = shutil.which("wrk")
    if wrk is None:
        command = [sys.executable, __file__, str(port), kind, str(seconds), str(connections)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return Load(*json.loads(done.stdout))
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % (USERS, kind))
        script.flush()
        target = f"http://127.0.0.1:{port}"
        command = [wrk, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency"]
        command += ["-s", script.name, target]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return parse(done.stdout)


def parse(output: str) -> Load:
    """Return what wrk measured; raise if a request failed."""
    if "Non-2xx" in output:
        raise RuntimeError(output)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    times = dict(re.findall(r"(50|99)%\s+([\d.]+[mu]?s)$", output, re.MULTILINE))
    assert rate is not None, output
    return Load(float(rate[1]), _milliseconds(times["50"]), _milliseconds(times["99"]))


def _milliseconds(time_: str) -> float:
    """Return a time of wrk, such as 850.00us, in milliseconds."""
    number = float(time_.rstrip("mus"))
    return number * (1e-3 if time_.endswith("us") else 1 if time_.endswith("ms") else 1e3)


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
        return _in_turns(loads, store, ["login", "obvious"], rounds, seconds)


def flask(url: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Measure an app in 16 threads with each library in turns, and return a row for each."""
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(redis.Redis.from_url(url))
        loads = {}
        for name in ("no mark", "bitmapist", "SyncTally"):
            python = python_of(name)
            if python is not None:
                environment = {"TALLYMARK_URL": url, "BENCHMARK_CONTENDER": name}
                port = stack.enter_context(served([python, "-m", *GUNICORN], environment))
                event = name.replace(" ", "-")
                loads[name] = functools.partial(load, port, event, connections=2 * THREADS)
        marked = [name for name in loads if name != "no mark"]
        return _in_turns(loads, store, marked, rounds, seconds)


def _in_turns(
    loads: dict[str, functools.partial[Load]],
    store: Any,
    events: list[str],
    rounds: int,
    seconds: float,
) -> list[dict[str, Any]]:
    """Generate each load in turns, after one second to warm up; return a row for each."""
    measured: dict[str, list[Load]] = {name: [] for name in loads}
    for generate in loads.values():
        generate(seconds=min(1, seconds))
    for _ in range(rounds):
        store.flushdb()
        for name, generate in loads.items():
            measured[name].append(generate(seconds=seconds))
        check(store, events)
    rates = {name: [each.requests_per_second for each in measured[name]] for name in loads}
    return [
        {
            "contender": name,
            **{
                field: statistics.median(getattr(each, field) for each in measured[name])
                for field in Load._fields
            },
            "ratio": median_ratio(rates[name], rates["no mark"]),
        }
        for name in loads
    ]


class _Asking(asyncio.Protocol):
    """One connection, which sends the next request as soon as a response is complete."""

    sent = 0
    took: ClassVar[list[float]] = []

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        _Asking.sent += 1
        self._begun = time.perf_counter()
        self._transport.write(
            b"POST /%s/%d/login HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
            % (self._kind.encode(), _Asking.sent % USERS)
        )

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        if len(body) >= length:
            _Asking.took.append(time.perf_counter() - self._begun)
            self._received = b""
            self._send()


async def _generate(port: int, kind: str, seconds: float, connections: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(lambda: _Asking(kind), "127.0.0.1", port)
    _Asking.took.clear()
    begun = time.perf_counter()
    await asyncio.sleep(seconds)
    rate = len(_Asking.took) / (time.perf_counter() - begun)
    percentiles = statistics.quantiles(_Asking.took, n=100)
    print(json.dumps([rate, 1e3 * percentiles[49], 1e3 * percentiles[98]]))


if __name__ == "__main__":
    asyncio.run(_generate(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))
