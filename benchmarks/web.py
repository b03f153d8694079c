"""Requests per second of a FastAPI app with and without marks.

The load comes from `wrk` if it is on PATH (Debian: ``apt-get install wrk``),
else from the generator below, in a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
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
from typing import TYPE_CHECKING, Any

import redis
from contest import WrongBitsError, median_ratio
from workloads import keys

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
CONNECTIONS = 64
USERS = 100_000

#: The script of wrk: the users in turn, over all threads and connections.
SCRIPT = """
local user = 0
request = function()
  user = (user + 1) %% %d
  return wrk.format("POST", "/%s/" .. user .. "/login")
end
"""


@contextlib.contextmanager
def served(url: str) -> Iterator[int]:
    """Run the app under uvicorn, and yield its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "web_app:app", "--app-dir", str(HERE)]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--no-access-log", "--log-level", "warning"],
        env={**os.environ, "TALLYMARK_URL": url},
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


def load(port: int, kind: str, seconds: float) -> float:
    """Send requests on all connections for so many seconds; return requests per second."""
    wrk = shutil.which("wrk")
    if wrk is None:
        command = [sys.executable, __file__, str(port), kind, str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(done.stdout)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % (USERS, kind))
        script.flush()
        target = f"http://127.0.0.1:{port}"
        command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{round(seconds)}s", "-s", script.name]
        done = subprocess.run([*command, target], capture_output=True, text=True, check=True)
    if "Non-2xx" in done.stdout:
        raise RuntimeError(done.stdout)
    match = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert match is not None, done.stdout
    return float(match[1])


def web(url: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Measure the three endpoints in turns, and return a row for each."""
    kinds = {"no mark": "nothing", "redis.asyncio pipeline": "obvious", "tallymark": "users"}
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    with served(url) as port, redis.Redis.from_url(url) as store:
        for kind in kinds.values():
            load(port, kind, 1)
        for _ in range(rounds):
            store.flushdb()
            for name, kind in kinds.items():
                rates[name].append(load(port, kind, seconds))
            for event in ("login", "obvious"):
                # In one transaction: the last requests, each atomic, may still be running.
                with store.pipeline(transaction=True) as counting:
                    for key in keys(event):
                        counting.bitcount(key)
                    counts = set(counting.execute())
                if len(counts) != 1 or not counts.pop():
                    raise WrongBitsError(f"{event}: months, weeks and days differ")
    return [
        {
            "contender": name,
            "requests_per_second": statistics.median(measured),
            "ratio": median_ratio(measured, rates["no mark"]),
        }
        for name, measured in rates.items()
    ]


class _Asking(asyncio.Protocol):
    """One connection, which sends the next request as soon as a response is complete."""

    count = 0

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        _Asking.count += 1
        self._transport.write(
            b"POST /%s/%d/login HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
            % (self._kind.encode(), _Asking.count % USERS)
        )

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        if len(body) >= length:
            self._received = b""
            self._send()


async def _generate(port: int, kind: str, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: _Asking(kind), "127.0.0.1", port)
    begun, before = time.perf_counter(), _Asking.count
    await asyncio.sleep(seconds)
    print((_Asking.count - before) / (time.perf_counter() - begun))


if __name__ == "__main__":
    asyncio.run(_generate(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
