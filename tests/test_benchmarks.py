"""What makes the benchmark's figures worth something: no contender gets away with wrong bits."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

if TYPE_CHECKING:
    from stores import Store

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import the benchmark's modules, which find each other as scripts do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("contest", "report", "workloads")
    yield tuple(importlib.import_module(name) for name in names)
    for name in (*names, "reads", "readers"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("workload", ["hot", "zipf"])
def test_wrong_bits_are_found(redis_store: Store, modules: Any, workload: str) -> None:
    contest, _, workloads = modules
    marks = workloads.schedule(workload, 300)
    for event, user in marks:
        for key in workloads.keys(event):
            redis_store.raw.setbit(key, user, 1)
    contest.check(redis_store.raw, workload, 300)
    event, user = marks[-1]
    day = workloads.keys(event)[-1]
    for offset, bit in ((user, 0), (99_999, 1)):
        redis_store.raw.setbit(day, offset, bit)
        with pytest.raises(contest.WrongBitsError):
            contest.check(redis_store.raw, workload, 300)
        redis_store.raw.setbit(day, offset, 1 - bit)
    redis_store.raw.setbit("trackist_other_2026-1", 1, 1)
    with pytest.raises(contest.WrongBitsError, match="other"):
        contest.check(redis_store.raw, workload, 300)


def test_the_chart_shows_every_contender(modules: Any) -> None:
    _, report, _ = modules
    results = json.loads((BENCHMARKS / "results" / "latest.json").read_text(encoding="utf-8"))
    drawn = report.chart(results)
    assert drawn == (BENCHMARKS / "results" / "latest.svg").read_text(encoding="utf-8")
    texts = "".join(ElementTree.fromstring(drawn).itertext())
    for row in results["async"]:
        assert f"{row['contender']}, {row['callers']} callers" in texts


def test_wrong_answers_are_found(modules: Any) -> None:
    reads = importlib.import_module("reads")
    wrong = modules[0].WrongBitsError
    reads.compare("count", {"one": 3, "other": 3})
    with pytest.raises(wrong):
        reads.compare("count", {"one": 3, "other": 4})
    table = {f"day {number}": [9, *range(12)] for number in range(31)}
    half = {day: [*cells[:11], "", None] for day, cells in table.items()}
    reads.compare("retention", {"one": table, "other": half})
    with pytest.raises(wrong, match="day 7"):
        reads.compare("retention", {"one": table, "other": {**half, "day 7": [9] * 13}})
    with pytest.raises(wrong, match="only 13 cells"):
        reads.compare("retention", {"one": table, "other": {"day 7": table["day 7"]}})
