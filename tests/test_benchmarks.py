"""The benchmarks: wrong bits and wrong answers are found, and each part runs, small."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from servers import running_server
from tallymark import SyncTally

if TYPE_CHECKING:
    from collections.abc import Callable

    from stores import Store

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import the benchmark's modules, which find each other as scripts do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("contest", "report", "workloads")
    yield tuple(importlib.import_module(name) for name in names)
    for name in (path.stem for path in BENCHMARKS.glob("*.py")):
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


def test_blocking_marks_in_threads(redis_store: Store, modules: Any) -> None:
    names = ["redis-py pipeline", "SyncTally"]
    rows = modules[0].contest(names, redis_store.url, "hot", 4, rounds=1, seconds=0.05)
    assert [row["contender"] for row in rows] == names
    assert all(row["marks_per_second"] > 0 and row["cpu_us"] > 0 for row in rows)
    tables = importlib.import_module("tables")
    assert "| 4 threads |" in tables.blocking({"blocking": rows})
    assert "| SyncTally |" in tables.cpu({"blocking": rows}, "blocking", "by threads")


def test_a_lone_caller_beside_the_floor(redis_store: Store, modules: Any) -> None:
    del modules
    rows = importlib.import_module("cpu").lone(redis_store.url, rounds=1, seconds=0.02)
    tables = importlib.import_module("tables")
    for facade, names in tables.LONE.items():
        by_name = {row["contender"]: row for row in rows if row["facade"] == facade}
        assert by_name.keys() >= {name for name in names if name != "bitmapist"}
        assert by_name[names[0]]["cpu_ratio"] == 1
        assert all(row["p99_us"] >= row["p50_us"] > 0 for row in by_name.values())
    assert len(tables.lone({"lone": rows}).splitlines()) == 4
    assert len(tables.lone_details({"lone": rows}).splitlines()) == 2 + len(rows)


def test_the_floor_sends_as_many_bytes_as_tallymark(redis_store: Store, modules: Any) -> None:
    del modules
    floors = importlib.import_module("floors")

    def received() -> Any:
        return redis_store.raw.info("stats")["total_net_input_bytes"]

    def bytes_of(mark: Callable[[str, int], Any]) -> int:
        mark("active", 10)  # also connects
        before = received()
        asking = received() - before
        mark("active", 4321)
        sent: int = received() - before - 2 * asking
        return sent

    with SyncTally.from_url(redis_store.url) as tally:
        by_tallymark = bytes_of(tally.mark_event), redis_store.bits()
    redis_store.raw.flushdb()
    with floors.connect(redis_store.url) as connection:
        mark = floors.blocking(connection)
        assert (bytes_of(mark), redis_store.bits()) == by_tallymark
        assert mark("active", 4321) == [1, 1, 1]


def test_marks_of_many_events_beside_one(redis_store: Store, modules: Any) -> None:
    del modules
    rows = importlib.import_module("cpu").events(redis_store.url, 1, 0.02, callers=(20, 50))
    kinds = [(row["callers"], row["workload"]) for row in rows]
    assert kinds == [(20, "hot"), (20, "zipf"), (50, "hot"), (50, "zipf")]
    assert [row["cpu_ratio"] for row in rows[::2]] == [1, 1]
    tables = importlib.import_module("tables")
    assert "| 50 callers |" in tables.events({"events": rows})


def test_pinning_ends(modules: Any) -> None:
    del modules
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("a system without affinity, or one CPU")
    before = os.sched_getaffinity(0)
    with running_server() as url:
        with importlib.import_module("cpu").pinned(url):
            assert len(os.sched_getaffinity(0)) == 1
        assert os.sched_getaffinity(0) == before


def test_web_apps_under_load(
    redis_store: Store, modules: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    del modules
    pytest.importorskip("gunicorn")
    web = importlib.import_module("web")
    load = importlib.import_module("http_load")
    monkeypatch.setattr(load.shutil, "which", lambda _: None)  # wrk takes whole seconds
    results = {
        "web": web.fastapi(redis_store.url, rounds=1, seconds=0.3),
        "flask": web.flask(redis_store.url, rounds=1, seconds=0.3),
    }
    assert {"no mark", "SyncTally", "mark_requests"} <= {
        row["contender"] for row in results["flask"]
    }
    for row in (*results["web"], *results["flask"]):
        assert row["requests_per_second"] > 0
        assert row["p99_ms"] >= row["p50_ms"] > 0
    tables = importlib.import_module("tables")
    assert "| gunicorn, 16 threads |" in tables.web(results)
    assert "| Flask | SyncTally |" in tables.web_details(results)


def test_middleware_with_and_without_a_store(
    redis_store: Store, modules: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    del modules
    module = importlib.import_module("middleware")
    monkeypatch.setattr(importlib.import_module("http_load").shutil, "which", lambda _: None)
    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    result = {
        "rows": module.middleware(redis_store.url, rounds=1, seconds=0.3),
        "without_store": module.without_store(rounds=1, seconds=0.3),
    }
    rows = [*result["rows"], *result["without_store"]]
    names = ["no mark", "MarkMiddleware", "there", "killed", "frozen"]
    assert [row["contender"] for row in rows] == names
    for row in rows:
        assert row["slowest_ms"] >= row["p99_ms"] >= row["p50_ms"] > 0
        assert row["cpu_us"] > 0
        assert row["failed"] == 0
    table = importlib.import_module("tables").middleware({"middleware": result})
    assert "| the store is frozen |" in table


def test_the_output_of_wrk_is_read(modules: Any) -> None:
    del modules
    load = importlib.import_module("http_load")
    output = """\
    Latency     8.50ms    3.10ms  40.00ms   90.50%
  Latency Distribution
     50%  850.00us
     75%    2.50ms
     90%   30.99ms
     99%    1.25s
  6050 requests in 2.00s, 1.07MB read
Requests/sec:   3025.44
"""
    assert load.parse(output) == (3025.44, 0.85, 1250, 40, 6050, 0)
    output += "  Socket errors: connect 1, read 0, write 0, timeout 4\n"
    assert load.parse(output + "  Non-2xx or 3xx responses: 3\n").failed == 8


def test_reports_beside_duckdb(redis_store: Store, modules: Any) -> None:
    wrong = modules[0].WrongBitsError
    pytest.importorskip("duckdb")
    duck = importlib.import_module("duck")
    result = duck.duck(redis_store.url, rounds=1, users=20_000)
    assert result["marks"] == 20_000 + 44 * 2_000
    assert len(result["rows"]) == 6
    assert all(row["ms"] > 0 for row in result["rows"])
    assert result["bytes"].keys() == {"DuckDB", "DuckDB, sorted", "SyncTally"}
    assert "| retention, 31 x 13 days |" in importlib.import_module("tables").duckdb(
        {"duckdb": result}
    )
    with pytest.raises(wrong, match="differ in 2 numbers"):
        duck.compare("daily", {"one": {1: 5, 2: 6, 3: 7}, "other": {1: 5, 2: 7}})


def test_product_reports_beside_duckdb(redis_store: Store, modules: Any) -> None:
    pytest.importorskip("duckdb")
    module = importlib.import_module("product_reports")
    result = module.product_reports(redis_store.url, rounds=1, users=5_000)
    assert len(result["rows"]) == 2 * len(module.QUERIES)
    assert all(row["ms"] > 0 for row in result["rows"])
    table = importlib.import_module("tables").product_reports({"product_reports": result})
    assert "| lifecycle, 12 weeks |" in table


def test_buffered(modules: Any, redis_store: Store) -> None:
    del modules
    rows = importlib.import_module("buffered").buffered(redis_store.url, 1, 2_000)
    assert [row["what"] for row in rows] == ["awaited", "accepted", "sent"]
    assert all(row["marks_per_second"] > 0 for row in rows)


def test_rows(modules: Any, redis_store: Store) -> None:
    pytest.importorskip("numpy")
    rows = importlib.import_module("rows").rows_benchmark(redis_store.url, 1, 4_000)
    assert len(rows) == 9
    assert all(row["rows_per_second"] > 0 for row in rows)


def test_ids_of_other_types_beside_offsets(redis_store: Store, modules: Any) -> None:
    wrong = modules[0].WrongBitsError
    module = importlib.import_module("user_ids")
    for kind in module.KINDS:
        assert len(set(module.ids_of(kind, 1_000))) == 1_000
    rows = module.user_ids(redis_store.url, rounds=1, seconds=0.01, users=2_000, callers=(20, 50))
    assert len(rows) == 6 + 1 + 4 + 12
    assert all(row["users_per_second"] > 0 and row["offsets_per_second"] > 0 for row in rows)
    table = importlib.import_module("tables").user_ids({"user_ids": rows})
    assert "| known, 16 threads | UUID |" in table
    assert "| mark_many, cold cache | snowflake |" in table
    for key in modules[2].keys("active"):
        redis_store.raw.setbit(key, 7, 1)
    module.check_counts(redis_store.raw, "trackist_", "active", 1)
    redis_store.raw.setbit(modules[2].keys("active")[0], 8, 1)
    with pytest.raises(wrong, match="not 1 users"):
        module.check_counts(redis_store.raw, "trackist_", "active", 1)


def test_the_memory_of_ids(redis_store: Store, modules: Any) -> None:
    del modules
    module = importlib.import_module("id_memory")
    rows = module.measured(redis_store.raw, redis_store.url, (1_000, 5_000))
    assert [row["count"] for row in rows] == 3 * [1_000, 5_000]
    for row in rows:
        assert row["each"] > row["reverse"] > 0
        assert row["forward"] > row["length"]
    assert "| UUID | 16 | 5,000 |" in "\n".join(module.lines(rows))


def test_imports_beside_a_loop(redis_store: Store, modules: Any) -> None:
    del modules
    imports = importlib.import_module("file_imports")
    rows = imports.file_imports(redis_store.url, rows=2_000, sample=50, rounds=1)
    kinds = [(row["file"], "peak_mb" in row) for row in rows]
    assert kinds == [("NDJSON.gz", False), ("NDJSON.gz", True), ("Parquet", True), ("NDJSON", True)]
    table = importlib.import_module("tables").imports({"imports": rows})
    assert "| Parquet | tallymark import |" in table
