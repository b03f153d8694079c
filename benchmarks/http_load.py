"""Puts a web app under load: requests per second, and their latency.

The load comes from `wrk` if it is on PATH (Debian: ``apt-get install wrk``), else from the
generator below, in a process of its own. Standard library only, so that this starts fast.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, ClassVar, NamedTuple

USERS = 100_000
#: Our own generator takes longer than requested until it has as many responses.
LEAST = 100

#: The script of wrk: the users in turn, over all threads and connections.
SCRIPT = """
local user = 0
request = function()
  user = (user + 1) %% %d
  return wrk.format("POST", "/%s/" .. user .. "/login")
end
"""


class Load(NamedTuple):
    """What a generator of load measured; `failed` are responses other than 200, and errors."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    slowest_ms: float
    requests: int
    failed: int


def generator() -> str:
    """Return the name of the load generator."""
    return "wrk" if shutil.which("wrk") else "our own generator"


def load(port: int, kind: str, seconds: float, connections: int) -> Load:
    """Send requests on all connections for so many seconds.

    Raises:
        subprocess.SubprocessError: the generator failed, or the app hardly responds.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        command = [sys.executable, __file__, str(port), kind, str(seconds), str(connections)]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, timeout=60 + seconds
        )
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
    """Return what wrk measured."""
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    requests = re.search(r"(\d+) requests in ", output)
    slowest = re.search(r"Latency\s+\S+\s+\S+\s+(\S+)", output)
    times = dict(re.findall(r"(50|99)%\s+([\d.]+[mu]?s)$", output, re.MULTILINE))
    assert rate is not None, output
    assert requests is not None, output
    assert slowest is not None, output
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    broken = re.search(r"Socket errors: .*", output)
    counts = re.findall(r"\d+", (errors[0].partition(":")[2] if errors else ""))
    counts += re.findall(r"\d+", broken[0] if broken else "")
    return Load(
        float(rate[1]),
        _milliseconds(times["50"]),
        _milliseconds(times["99"]),
        _milliseconds(slowest[1]),
        int(requests[1]),
        sum(map(int, counts)),
    )


def _milliseconds(time_: str) -> float:
    """Return a time of wrk, such as 850.00us, in milliseconds."""
    number = float(time_.rstrip("mus"))
    return number * (1e-3 if time_.endswith("us") else 1 if time_.endswith("ms") else 1e3)


class _Asking(asyncio.Protocol):
    """One connection, which sends the next request as soon as a response is complete."""

    sent = failed = 0
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
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        if len(body) >= length:
            _Asking.took.append(time.perf_counter() - self._begun)
            _Asking.failed += not head.startswith(b"HTTP/1.1 200")
            self._received = b""
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        _Asking.failed += 1


async def _generate(port: int, kind: str, seconds: float, connections: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(lambda: _Asking(kind), "127.0.0.1", port)
    _Asking.took.clear()
    begun = time.perf_counter()
    while True:
        await asyncio.sleep(seconds)
        if len(_Asking.took) >= LEAST:
            break
    rate = len(_Asking.took) / (time.perf_counter() - begun)
    percentiles = [1e3 * each for each in statistics.quantiles(_Asking.took, n=100)]
    counts = len(_Asking.took), _Asking.failed
    print(json.dumps([rate, percentiles[49], percentiles[98], 1e3 * max(_Asking.took), *counts]))


if __name__ == "__main__":
    asyncio.run(_generate(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))
