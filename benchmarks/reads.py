"""Reads of tallymark and bitmapist on the same data, in turns, with equal answers."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import statistics
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import redis
from contest import WrongBitsError, median_ratio, running
from readers import ROWS, days

if TYPE_CHECKING:
    from contest import Contender

#: The drop-in replacement for bitmapist.
DROP_IN = "tallymark.bitmapist"
CONTENDERS = (
    "bitmapist",
    DROP_IN,
    "tallymark.sync",
    "tallymark",
    f"{DROP_IN}, no numpy",
    "tallymark.sync, no numpy",
    "tallymark, no numpy",
)

#: The tasks: the repetitions in a round, and the tasks of bitmapist with the same answer.
TASKS = {
    "count": (300, ("count", "count, no key left")),
    "contains": (300, ("contains", "contains, no key left")),
    "count, concurrently": (800, ("count, concurrently",)),
    "contains, concurrently": (800, ("contains, concurrently",)),
    "iterate": (1, ("iterate",)),
    "iterate, chunks": (1, ("iterate",)),
    "retention": (5, ("retention",)),
}


def fill(store: Any, users: int) -> None:
    """Write the bitmaps of 31 days: 5 % sign up each day, and 30 % are active."""
    chance = random.Random(4)
    store.flushdb()
    today = datetime.now(timezone.utc)
    size = users // 8
    for distance in range(ROWS + 1):
        day = today - timedelta(days=distance)
        suffix = f"{day.year}-{day.month}-{day.day}"
        # AND and OR of random bits give about the wanted rates.
        words = [int.from_bytes(chance.randbytes(size), "little") for _ in range(4)]
        active = words[0] & (words[1] | (words[2] & words[3]))  # 0.5 * (0.5 + 0.125)
        rare = [int.from_bytes(chance.randbytes(size), "little") for _ in range(4)]
        signup = rare[0] & rare[1] & rare[2] & rare[3]
        store.set(f"trackist_active_{suffix}", active.to_bytes(size, "little"))
        store.set(f"trackist_signup_{suffix}", signup.to_bytes(size, "little"))
    day = days()[0]
    store.set(f"trackist_everybody_{day.year}-{day.month}-{day.day}", b"\xff" * size)


def reads(url: str, rounds: int, users: int = 1_000_000) -> list[dict[str, Any]]:
    """Time each task of each contender; return a row for each."""
    rows = []
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(redis.Redis.from_url(url))
        fill(store, users)
        started = [
            stack.enter_context(running(name, url, script="readers.py")) for name in CONTENDERS
        ]
        contenders = {each.name: each for each in started if each is not None}
        for task, (times, theirs) in TASKS.items():
            took: dict[str, list[float]] = {}
            answers: dict[str, Any] = {}
            ways = [
                (name, contender, asked)
                for name, contender in contenders.items()
                for asked in (theirs if name == "bitmapist" else (task,))
            ]
            for turn, (name, contender, asked) in itertools.product(range(rounds + 1), ways):
                round_ = order(contender, asked, times)
                if round_ is not None:
                    label = name if asked == task else f"{name}: {asked}"
                    answers[label] = round_["answer"]
                    if turn:  # the first is to warm up
                        took.setdefault(label, []).append(round_["seconds"])
            compare(task, answers)
            rows += [_row(task, label, took, theirs) for label in took]
    return rows


def _row(
    task: str, label: str, took: dict[str, list[float]], theirs: tuple[str, ...]
) -> dict[str, Any]:
    """Return a row, with the ratios to the tasks of bitmapist that have the same answer."""
    row = {"task": task, "contender": label, "ms": 1e3 * statistics.median(took[label])}
    for column, asked in zip(("ratio", "ratio_tidied"), theirs, strict=False):
        rival = "bitmapist" if asked == task else f"bitmapist: {asked}"
        if rival in took:
            row[column] = median_ratio(took[rival], took[label])
    return row


def order(contender: Contender, task: str, times: int) -> Any:
    """Have a contender run a task so many times; return its reply."""
    contender.requests.write(json.dumps({"task": task, "times": times}) + "\n")
    contender.requests.flush()
    return json.loads(contender.answers.readline())


def compare(task: str, answers: dict[str, Any]) -> None:
    """Raise unless all answers are equal; of tables, the cells that all contenders count."""
    for name, answer in answers.items():
        if name.startswith(DROP_IN) and answer != answers.get("bitmapist", answer):
            raise WrongBitsError(f"{task}: {name} answers otherwise than bitmapist")
    first, *rest = answers.values()
    for answer in rest:
        if task != "retention":
            if answer != first:
                raise WrongBitsError(f"{task}: {answers}")
            continue
        cells = 0
        for cohort in first.keys() & answer.keys():
            for one, other in zip(first[cohort], answer[cohort], strict=True):
                # bitmapist has "" where nothing was marked, and tallymark None where
                # the period is not over.
                if "" not in {one, other} and None not in {one, other}:
                    cells += 1
                    if one != other:
                        raise WrongBitsError(f"{task}, {cohort}: {one} and {other}")
        if cells < 300:
            raise WrongBitsError(f"{task}: only {cells} cells could be compared")


def beside_reports(url: str, users: int) -> list[dict[str, Any]]:
    """Return the latency of marks while reports over many users run, and without reports."""
    rows = []
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(redis.Redis.from_url(url))
        fill(store, users)
        for name in ("tallymark", "tallymark, no numpy"):
            contender = stack.enter_context(running(name, url, script="readers.py"))
            assert contender is not None
            for task in ("marks alone", "marks beside reports"):
                order(contender, task, 1)
                rows.append(
                    {"contender": name, "task": task, **order(contender, task, 1)["answer"]}
                )
        store.flushdb()
    return rows
