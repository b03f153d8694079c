"""Runs contenders in processes of their own, in turns, and checks the bits that they set."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import redis
from workloads import expected, schedule

from tallymark import KeySchema

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
#: Contenders that need another Python than ours: the variable that names its executable.
PYTHONS = {
    "bitmapist": "TALLYMARK_BITMAPIST_PYTHON",
    "bitmapist4": "TALLYMARK_BITMAPIST4_PYTHON",
    "coredis": "TALLYMARK_RIVALS_PYTHON",
    "valkey-glide": "TALLYMARK_RIVALS_PYTHON",
    "valkey-glide, cluster": "TALLYMARK_RIVALS_PYTHON",
}


class WrongBitsError(Exception):
    """A contender did not set exactly the expected bits, or gave a wrong answer."""


@dataclass
class Contender:
    """A process that marks, and the times of its rounds."""

    name: str
    requests: IO[str]
    answers: IO[str]
    #: Seconds per mark of each round.
    rounds: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    #: CPU seconds of the process per mark of each round.
    cpu: list[float] = field(default_factory=list)
    #: The number of marks in a round.
    marks: int = 0

    def ask(self, workload: str, marks: int, callers: int, *, latencies: bool) -> dict[str, float]:
        """Run one round and return what it measured."""
        order = {
            "workload": workload,
            "marks": marks,
            "callers": callers,
            "latencies": latencies,
        }
        self.requests.write(json.dumps(order) + "\n")
        self.requests.flush()
        result: dict[str, float] = json.loads(self.answers.readline())
        return result


def python_of(name: str) -> str | None:
    """Return the Python that has a contender; without one, print that, and return None."""
    variable = PYTHONS.get(name)
    if variable is None:
        return sys.executable
    python = os.environ.get(variable)
    if not python:
        print(f"  without {name}: {variable} names no Python that has it")
        return None
    return python


@contextlib.contextmanager
def running(name: str, url: str, script: str = "contenders.py") -> Iterator[Contender | None]:
    """Start a contender, and end it; yield None if this machine does not have its Python."""
    python = python_of(name)
    if python is None:
        yield None
        return
    command = [python, str(HERE / script), name, url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Contender(name, process.stdin, process.stdout)
        process.stdin.close()


def check(store: redis.Redis, workload: str, marks: int) -> None:
    """Raise unless exactly the bits of a round are set, in months, weeks and days."""
    wanted = {}
    for event, users in expected(schedule(workload, marks)).items():
        bits = bytearray(max(users) // 8 + 1)
        for user in users:
            bits[user >> 3] |= 128 >> (user & 7)
        wanted[event] = int.from_bytes(bits.ljust(2**14, b"\0"), "big")
    bitmaps: dict[tuple[str, str], int] = {}
    schema = KeySchema()
    for key in store.scan_iter(count=10_000):  # a round over midnight marks two days
        event, period = schema.parse(key)
        value: Any = store.get(key)
        kind = (event, str(period.granularity) if period else "")
        bitmaps[kind] = bitmaps.get(kind, 0) | int.from_bytes(value.ljust(2**14, b"\0"), "big")
    for event, number in wanted.items():
        for granularity in ("month", "week", "day"):
            if bitmaps.pop((event, granularity), 0) != number:
                raise WrongBitsError(f"{event}, {granularity}")
    if bitmaps:
        raise WrongBitsError(f"{sorted(bitmaps)} should not be there")


class Server:
    """Empties and checks one server between the rounds."""

    def __init__(self, store: redis.Redis) -> None:
        self._store = store

    def flush(self) -> None:
        """Delete everything."""
        self._store.flushdb()

    def check(self, _: str, workload: str, marks: int) -> None:
        """Raise unless exactly the bits of a round are set."""
        check(self._store, workload, marks)


def contest(
    names: list[str],
    url: str,
    workload: str,
    callers: int,
    *,
    rounds: int,
    seconds: float,
    latencies: bool = False,
    checked: bool = True,
    arena: Any = None,
) -> list[dict[str, Any]]:
    """Measure contenders in turns, on one workload; return a row for each.

    Arguments:
        names: the contenders; the first one is the baseline.
        url: the store, which is emptied before each round.
        workload: see `workloads.schedule`.
        callers: how many tasks or threads mark at the same time.
        rounds: how many rounds each contender has, after those to warm up.
        seconds: about how long a round takes.
        latencies: also time each mark.
        checked: whether to compare all bits after each round.
        arena: empties and checks the store, if it is not one server.
    """
    with contextlib.ExitStack() as stack:
        between = arena or Server(stack.enter_context(redis.Redis.from_url(url)))
        started = [stack.enter_context(running(name, url)) for name in names]
        contenders = [contender for contender in started if contender is not None]
        for each in contenders:
            # On a cluster, redis-py takes three seconds for a thousand marks.
            least = 2 * callers if arena is None else callers
            count = max(500, least) if arena is None else least
            between.flush()  # also the schema key of the previous contender
            took = each.ask(workload, count, callers, latencies=latencies)["seconds"]
            took = each.ask(workload, count, callers, latencies=latencies)["seconds"]
            each.marks = max(least, int(seconds * count / took))
        for _ in range(rounds):
            for each in contenders:
                between.flush()
                round_ = each.ask(workload, each.marks, callers, latencies=latencies)
                each.rounds.append(round_["seconds"] / each.marks)
                each.cpu.append(round_["cpu"] / each.marks)
                if latencies:
                    each.p50.append(round_["p50"])
                    each.p99.append(round_["p99"])
                if checked:
                    between.check(each.name, workload, each.marks)
        return [_row(each, contenders[0], workload, callers) for each in contenders]


def _row(each: Contender, first: Contender, workload: str, callers: int) -> dict[str, Any]:
    row = {
        "workload": workload,
        "callers": callers,
        "contender": each.name,
        "marks_per_second": 1 / statistics.median(each.rounds),
        "ratio": median_ratio(first.rounds, each.rounds),
        "cpu_us": 1e6 * statistics.median(each.cpu),
        "cpu_ratio": median_ratio(each.cpu, first.cpu),
    }
    if each.p99:
        row |= {
            "p50_us": 1e6 * statistics.median(each.p50),
            "p99_us": 1e6 * statistics.median(each.p99),
            "p50_ratio": median_ratio(each.p50, first.p50),
            "p99_ratio": median_ratio(each.p99, first.p99),
        }
    return row


def median_ratio(over: list[float], under: list[float]) -> float:
    """Return the median of the ratios of each round: the speed of the machine drifts."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))
