"""Tallymark and its alternatives in one run: `nox -s bench`, or `nox -s bench -- --quick`.

Contenders take turns, a short round each, so other load of the machine slows all of them.
After each round all bits are checked. Quote the ratios, which are medians over the rounds,
and never an absolute number of one machine alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import redis

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from buffered import buffered
from cluster_contest import counts_on_a_cluster, marks_on_a_cluster
from contenders import ASYNC, BLOCKING
from contest import contest
from cpu import events, lone, pinned
from crowds import crowds, longest_stops
from duck import duck
from file_imports import file_imports
from http_load import generator
from middleware import middleware, without_store
from product_reports import product_reports
from reads import beside_reports, reads
from report import RESULTS, machine, show, write
from rows import rows_benchmark
from slow_link import slow_link
from web import fastapi, flask

from clusters import running_cluster  # pyright: ignore[reportMissingImports]
from servers import running_server  # pyright: ignore[reportMissingImports]
from user_ids import user_ids

#: The baseline: the obvious code without tallymark.
OBVIOUS = "redis.asyncio pipeline"
MARKING = {
    "workload": "{}",
    "callers": "{}",
    "contender": "{}",
    "marks_per_second": "{:,.0f}",
    "ratio": "{:.2f}x",
    "cpu_us": "{:.1f}",
}
CLUSTER = {**MARKING, "ratio": "{:.0f}x", "ratio_to_glide": "{:.1f}x"}
READING = {
    "task": "{}",
    "contender": "{}",
    "ms": "{:,.3f}",
    "ratio": "{:.2f}x",
    "ratio_tidied": "{:.2f}x",
}
BESIDE = {
    "contender": "{}",
    "task": "{}",
    "users": "{:,}",
    "reports": "{}",
    "p50_ms": "{:.2f}",
    "p99_ms": "{:.2f}",
}
LATENCY = {
    "callers": "{}",
    "contender": "{}",
    "cpu_us": "{:.1f}",
    "cpu_ratio": "{:.2f}",
    "p50_us": "{:,.0f}",
    "p50_ratio": "{:.2f}",
    "p99_us": "{:,.0f}",
    "p99_ratio": "{:.2f}",
}
EVENTS = {"callers": "{}", "workload": "{}", "cpu_us": "{:.1f}", "cpu_ratio": "{:.2f}x"}
WEB = {
    "contender": "{}",
    "requests_per_second": "{:,.0f}",
    "ratio": "{:.3f}",
    "p50_ms": "{:.2f}",
    "p99_ms": "{:.2f}",
}
MIDDLEWARE = {**WEB, "slowest_ms": "{:.1f}", "failed": "{}", "cpu_us": "{:.0f}"}
USER_IDS = {
    "task": "{}",
    "ids": "{}",
    "callers": "{}",
    "offsets_per_second": "{:,.0f}",
    "users_per_second": "{:,.0f}",
    "ratio": "{:.2f}x",
    "cpu_us": "{:.1f}",
    "cpu_ratio": "{:.2f}x",
    "server_us": "{:.2f}",
    "server_ratio": "{:.1f}x",
}
ROWS = {
    "contender": "{}",
    "rows": "{:,}",
    "rows_per_second": "{:,.0f}",
    "ratio": "{:.1f}x",
    "cpu_us": "{:.2f}",
    "server_us": "{:.2f}",
}
BUFFERED = {"what": "{}", "marks_per_second": "{:,.0f}", "ratio": "{:.2f}x"}
DUCKDB = {"report": "{}", "contender": "{}", "ms": "{:,.1f}", "ratio": "{:.1f}x"}

IMPORTS = {
    "file": "{}",
    "contender": "{}",
    "rows_per_second": "{:,.0f}",
    "ratio": "{:.1f}x",
    "cpu_us": "{:.2f}",
    "server_us": "{:.2f}",
    "peak_mb": "{:,.0f}",
    "file_mb": "{:,.0f}",
}


def main() -> None:
    """Run all of it, or a part."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="four minutes, with fewer contenders")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(PARTS),
        help="leave out the rest, and write no files",
    )
    parser.add_argument(
        "--update", action="store_true", help="with --only: put these parts into the files"
    )
    arguments = parser.parse_args()
    wanted = arguments.only or list(PARTS)
    begun = time.monotonic()
    with running_server() as url, redis.Redis.from_url(url) as store:
        results: dict[str, Any] = {"machine": machine(store), "quick": arguments.quick}
        print(", ".join(f"{name} {value}" for name, value in results["machine"].items()))
        for part in wanted:
            print(f"\n--- {part}, after {time.monotonic() - begun:.0f} s", flush=True)
            results[part] = PARTS[part](url, arguments.quick)
    if arguments.update:
        results = json.loads((RESULTS / "latest.json").read_text()) | results
    if arguments.update or not arguments.only:
        write(results)
    print(f"took {time.monotonic() - begun:.0f} s")


def run_async(url: str, quick: bool) -> list[dict[str, Any]]:
    """Measure concurrent marks of the tasks of one event loop."""
    names = [OBVIOUS, "tallymark"] if quick else list(ASYNC)
    rows = []
    for workload in ("hot", "zipf"):
        for callers in (1, 10, 50, 200, 1000):
            rows += contest(
                names,
                url,
                workload,
                callers,
                rounds=5 if quick else 9,
                # With many callers longer, so that the start of their tasks does not count.
                seconds=(0.06 if callers < 50 else 0.2) if quick else 0.4,
            )
    show("Concurrent callers on one event loop", rows, MARKING)
    return rows


def run_latency(url: str, quick: bool) -> list[dict[str, Any]]:
    """Measure the latency of a mark."""
    rows = []
    for callers in (1, 50):
        rows += contest(
            [OBVIOUS, "tallymark"],
            url,
            "hot",
            callers,
            rounds=5 if quick else 9,
            seconds=0.12 if quick else 0.5,
            latencies=True,
        )
    show("Latency of a mark, beside the obvious code's", rows, LATENCY)
    return rows


def run_blocking(url: str, quick: bool) -> list[dict[str, Any]]:
    """Measure blocking marks, in a loop and in threads."""
    rows = []
    for callers in (1, 4, 16, 64):
        rows += contest(
            list(BLOCKING),
            url,
            "hot",
            callers,
            rounds=5 if quick else 11,
            seconds=0.06 if quick else 0.3,
        )
    show("Blocking calls in a loop, and in threads", rows, MARKING)
    return rows


def run_lone(url: str, quick: bool) -> list[dict[str, Any]]:
    """Measure a lone caller, beside what a mark costs without a library."""
    with pinned(url):
        rows = lone(url, 5 if quick else 15, 0.1 if quick else 0.4)
    show("A lone caller, beside the floor", rows, {"facade": "{}", **LATENCY})
    return rows


def run_events(url: str, quick: bool) -> list[dict[str, Any]]:
    """Measure the CPU time of a mark among 200 events, beside one of a hot event."""
    with pinned(url):
        rows = events(url, 5 if quick else 11, 0.1 if quick else 0.4)
    show("CPU time of a mark of one event, and of 200 events", rows, EVENTS)
    return rows


def run_links(url: str, quick: bool) -> list[dict[str, Any]]:
    """Measure marks over links with a round trip of 1 ms and of 5 ms."""
    rows = []
    for milliseconds in (1, 5):
        with slow_link(url, milliseconds) as slow_url:
            for callers in (50,) if quick else (50, 1000):
                contest_rows = contest(
                    [OBVIOUS, "tallymark"],
                    slow_url,
                    "hot",
                    callers,
                    rounds=3 if quick else 7,
                    seconds=0.06 if quick else 0.4,
                )
                rows += [{"round_trip_ms": milliseconds, **row} for row in contest_rows]
    show("Over a slow link", rows, {"round_trip_ms": "{}", **MARKING})
    return rows


def run_crowds(url: str, quick: bool) -> dict[str, Any]:
    """Measure mark_many, and how long 200,000 concurrent marks delay other tasks."""
    rows = asyncio.run(crowds(url, 3 if quick else 7))
    columns = {"ids": "{}", "contender": "{}", "marks_per_second": "{:,.0f}", "ratio": "{:.1f}x"}
    show("Many users at once", rows, columns)
    memory = rows[-1]
    print(
        f"  1 in 50,000 of 2**28: Redis grew by {memory.get('memory_mb', 0):.1f} MB,"
        f" the bitmaps need {memory.get('bitmaps_mb', 0):.1f} MB"
    )
    stops = asyncio.run(longest_stops(url))
    print(
        "  other tasks beside {marks:,} waiting marks stood still for {longest_ms:.1f} ms at most"
        " (p99 {p99_ms:.1f} ms, median {median_ms:.1f} ms)".format(**stops)
    )
    return {"rows": rows, "stops": stops}


def run_rows(url: str, quick: bool) -> list[dict[str, Any]]:
    """Measure mark_rows, beside loops of the verbs for one user and for many users."""
    with pinned(url):
        rows = rows_benchmark(url, 3, 400_000 if quick else 2_000_000)
    show("Rows of 50 events over 90 days", rows, ROWS)
    return rows


def run_web(url: str, quick: bool) -> list[dict[str, Any]]:
    """Put the FastAPI example under load."""
    rows = fastapi(url, 3 if quick else 7, 1 if quick else 3)
    show(f"The FastAPI example under uvicorn, load from {generator()}", rows, WEB)
    return rows


def run_flask(url: str, quick: bool) -> list[dict[str, Any]]:
    """Put a Flask app in 16 threads under load."""
    rows = flask(url, 3 if quick else 7, 1 if quick else 3)
    show(f"Flask under gunicorn, 16 threads, load from {generator()}", rows, WEB)
    return rows


def run_middleware(url: str, quick: bool) -> dict[str, Any]:
    """Put an app under load with and without `MarkMiddleware`, and while the store is gone."""
    rounds, seconds = (3, 1) if quick else (7, 3)
    result = {
        "rows": middleware(url, rounds, seconds),
        "without_store": without_store(rounds, seconds),
    }
    show(f"FastAPI under uvicorn, load from {generator()}", result["rows"], MIDDLEWARE)
    show("MarkMiddleware while the store is gone", result["without_store"], MIDDLEWARE)
    return result


def run_reads(url: str, quick: bool) -> dict[str, Any]:
    """Measure the reads that bitmapist has too, and marks while reports run."""
    rows = reads(url, 3 if quick else 9)
    show("Reads of one million users, beside bitmapist", rows, READING)
    print("  tidied: bitmapist as it is and when it deletes the key that it leaves")
    beside = beside_reports(url, 2_000_000 if quick else 10_000_000)
    show("Marks, while retention of millions of users is reported", beside, BESIDE)
    return {"rows": rows, "beside": beside}


def run_duckdb(url: str, quick: bool) -> dict[str, Any]:
    """Measure reports of tallymark and of DuckDB on the same marks."""
    result = duck(url, 3 if quick else 9)
    show(f"Reports on {result['marks']:,} marks of a million users", result["rows"], DUCKDB)
    sizes = ", ".join(f"{name} {each / 1e6:.1f} MB" for name, each in result["bytes"].items())
    print(f"  bytes of the data: {sizes}")
    return result


def run_product_reports(url: str, quick: bool) -> dict[str, Any]:
    """Measure the reports of product analytics, of tallymark and of DuckDB."""
    result = product_reports(url, 1 if quick else 3, 1_000_000 if quick else 10_000_000)
    title = f"Reports on {result['marks']:,} marks of {result['users']:,} users"
    show(title, result["rows"], DUCKDB)
    return result


def run_cluster(url: str, quick: bool) -> dict[str, Any]:
    """Measure a cluster of three masters, without replicas: the machine has two CPUs."""
    with running_cluster(replicas=False) as cluster:
        rows = marks_on_a_cluster(cluster, quick)
        show("Concurrent callers, on three masters", rows, CLUSTER)
        counts = counts_on_a_cluster(cluster, url, 3 if quick else 9)
        columns = {"store": "{}", "ms": "{:.3f}", "ratio": "{:.2f}x"}
        show("count(a & b) of 10 million users", counts["rows"], columns)
        node_times = ", ".join(f"{each:.0f} ms" for each in counts["node_ms"])
        print(f"  with 16 shards, the three masters have worked for {node_times}")
    return {"rows": rows, "counts": counts}


def run_user_ids(url: str, quick: bool) -> list[dict[str, Any]]:
    """Measure users with ids of other types, beside offsets."""
    if quick:
        rows = user_ids(url, rounds=3, seconds=0.1, users=100_000)
    else:
        rows = user_ids(url, rounds=9, seconds=0.4)
    show("Users with ids of other types, beside offsets", rows, USER_IDS)
    return rows


def run_imports(url: str, quick: bool) -> list[dict[str, Any]]:
    """Measure imports of files, beside a loop of marks."""
    rows = 500_000 if quick else 5_000_000
    measured = file_imports(url, rows, sample=10_000 if quick else 50_000, rounds=1)
    show(f"Imports of {rows:,} rows", measured, IMPORTS)
    return measured


def run_buffered(url: str, quick: bool) -> list[dict[str, Any]]:
    """Measure buffered marks, beside awaited ones."""
    with pinned(url):
        rows = buffered(url, 3 if quick else 9, 50_000 if quick else 200_000)
    show("Buffered marks, and those of 1,000 awaiting callers", rows, BUFFERED)
    return rows


PARTS = {
    "async": run_async,
    "latency": run_latency,
    "blocking": run_blocking,
    "lone": run_lone,
    "events": run_events,
    "links": run_links,
    "crowds": run_crowds,
    "rows": run_rows,
    "buffered": run_buffered,
    "web": run_web,
    "flask": run_flask,
    "middleware": run_middleware,
    "reads": run_reads,
    "duckdb": run_duckdb,
    "product_reports": run_product_reports,
    "cluster": run_cluster,
    "user_ids": run_user_ids,
    "imports": run_imports,
}

if __name__ == "__main__":
    main()
