"""The tables of the documents, made from results/latest.json.

`python benchmarks/tables.py docs/explanation/benchmarks.md` writes them between the markers of the
document: those of `measured`, and those of `details`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results") / "latest.json"
OBVIOUS = "redis.asyncio pipeline"

_MARKED = re.compile(r"(<!-- (measured|details) -->\n).*?(?=<!-- /\2 -->)", re.DOTALL)


def rate(number: float) -> str:
    """Format a number of marks per second."""
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number / 1e3:.{number < 1e5:d}f}k"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def marking(results: dict[str, Any], workload: str, title: str) -> str:
    """Return the table of concurrent callers."""
    rows = [row for row in results["async"] if row["workload"] == workload]
    callers = list(dict.fromkeys(row["callers"] for row in rows))
    lines = []
    for name in dict.fromkeys(row["contender"] for row in rows):
        shown = {OBVIOUS: "obvious", "tallymark": "**tallymark**"}.get(name, name)
        cells = [
            rate(row["marks_per_second"]) + ("" if name == OBVIOUS else f" ({row['ratio']:.1f}x)")
            for row in rows
            if row["contender"] == name
        ]
        lines.append([shown, *cells])
    heads = [f"{count} caller{'s' * (count > 1)}" for count in callers]
    return table([f"marks/s, {title}", *heads], lines)


def latency(results: dict[str, Any]) -> str:
    """Return the table of the latency of a mark."""
    lines = []
    rows = results["latency"]
    for obvious, ours in zip(rows[::2], rows[1::2], strict=True):
        lines.append(
            [
                f"{obvious['callers']} caller{'s' * (obvious['callers'] > 1)}",
                f"{obvious['p50_us']:,.0f} us",
                f"{obvious['p99_us']:,.0f} us",
                f"{ours['p50_us']:,.0f} us ({ours['p50_ratio']:.2f}x)",
                f"{ours['p99_us']:,.0f} us ({ours['p99_ratio']:.2f}x)",
            ]
        )
    return table(["latency of a mark", "obvious, p50", "p99", "tallymark, p50", "p99"], lines)


def blocking(results: dict[str, Any]) -> str:
    """Return the table of blocking marks, in a loop and in threads."""
    rows = results["blocking"]
    names = list(dict.fromkeys(row["contender"] for row in rows))
    lines = []
    for callers in dict.fromkeys(row["callers"] for row in rows):
        cells = [
            f"{rate(row['marks_per_second'])} ({row['ratio']:.2f}x)"
            for row in rows
            if row["callers"] == callers
        ]
        lines.append(["plain loop" if callers == 1 else f"{callers} threads", *cells])
    return table(["blocking, marks/s", *names], lines)


#: The floor of each facade, tallymark, and what else a program would use.
LONE = {
    "blocking": ("socket, hiredis", "SyncTally", "redis-py pipeline", "bitmapist"),
    "asyncio": ("Protocol, hiredis", "tallymark", OBVIOUS),
}


def lone(results: dict[str, Any]) -> str:
    """Return the table of the CPU time of a lone caller."""
    by_name = {row["contender"]: row for row in results["lone"]}
    lines = []
    for facade, names in LONE.items():
        rows = [by_name.get(name) for name in names]
        cells = ["" if row is None else _us(row, "cpu", names[0]) for row in rows]
        lines.append([facade, *cells, *[""] * (4 - len(cells))])
    head = ["a lone caller, CPU time of a mark", "floor", "tallymark", "redis-py", "bitmapist"]
    return table(head, lines)


def lone_details(results: dict[str, Any]) -> str:
    """Return the table of all times of a lone caller."""
    floors = {facade: names[0] for facade, names in LONE.items()}
    lines = [
        [
            row["facade"],
            row["contender"],
            *(_us(row, column, floors[row["facade"]]) for column in ("cpu", "p50", "p99")),
        ]
        for row in results["lone"]
    ]
    return table(["a lone caller", "", "CPU time", "p50", "p99"], lines)


def _us(row: dict[str, Any], column: str, baseline: str) -> str:
    """Return a time in microseconds, with its ratio to that of the baseline."""
    text = f"{row[f'{column}_us']:.0f} us"
    return text if row["contender"] == baseline else f"{text} ({row[f'{column}_ratio']:.2f}x)"


def events(results: dict[str, Any]) -> str:
    """Return the table of the CPU time of marks of one event and of many."""
    rows = results["events"]
    lines = [
        [
            f"{hot['callers']} callers",
            f"{hot['cpu_us']:.1f} us",
            f"{zipf['cpu_us']:.1f} us ({zipf['cpu_ratio']:.2f}x)",
        ]
        for hot, zipf in zip(rows[::2], rows[1::2], strict=True)
    ]
    return table(["CPU time of a mark", "one hot event", "200 events, zipf(1.1)"], lines)


def cpu(results: dict[str, Any], part: str, title: str) -> str:
    """Return the table of the CPU time of a mark of each contender, for one hot event."""
    rows = [row for row in results[part] if row["workload"] == "hot"]
    callers = list(dict.fromkeys(row["callers"] for row in rows))
    lines = [
        [name, *(f"{row['cpu_us']:.1f} us" for row in rows if row["contender"] == name)]
        for name in dict.fromkeys(row["contender"] for row in rows)
    ]
    return table([title, *map(str, callers)], lines)


def crowds(results: dict[str, Any]) -> str:
    """Return the table of `mark_many`."""
    lines = []
    rows = results["crowds"]["rows"]
    for kind in dict.fromkeys(row["ids"] for row in rows):
        pipeline, ours, sync = (row for row in rows if row["ids"] == kind)
        lines.append(
            [
                kind,
                rate(pipeline["marks_per_second"]),
                f"{rate(ours['marks_per_second'])} ({ours['ratio']:,.0f}x)",
                rate(sync["marks_per_second"]),
            ]
        )
    return table(["`mark_many`, users/s", "pipeline of SETBITs", "tallymark", "blocking"], lines)


def web(results: dict[str, Any]) -> str:
    """Return the tables of the web apps."""
    return (
        table(
            ["FastAPI example, requests/s", "no mark", "obvious", "tallymark"],
            [["uvicorn, 64 connections", *map(_requests, results["web"])]],
        )
        + "\n"
        + table(
            ["Flask, requests/s", *(row["contender"] for row in results["flask"])],
            [["gunicorn, 16 threads", *map(_requests, results["flask"])]],
        )
    )


def _requests(row: dict[str, Any]) -> str:
    difference = "" if row["ratio"] == 1 else f" ({row['ratio'] - 1:+.0%})"
    return f"{row['requests_per_second']:,.0f}{difference}"


def web_details(results: dict[str, Any]) -> str:
    """Return the table of the latency of requests."""
    lines = []
    for app, part in (("FastAPI", "web"), ("Flask", "flask")):
        for row in results[part]:
            times = [f"{row[column]:.1f} ms" for column in ("p50_ms", "p99_ms")]
            lines.append([app, row["contender"], _requests(row), *times])
    return table(["web app", "", "requests/s", "p50", "p99"], lines)


def middleware(results: dict[str, Any]) -> str:
    """Return the table of an app with and without marks, and without a store."""
    lines = [
        [
            name,
            _requests(row),
            f"{row['cpu_us']:.0f} us",
            f"{row['p50_ms']:.1f} ms",
            f"{row['p99_ms']:.1f} ms",
            f"{row['slowest_ms']:.0f} ms",
            f"{row['failed']}",
        ]
        for part, title in (("rows", "{}"), ("without_store", "the store is {}"))
        for row in results["middleware"][part]
        for name in [title.format(row["contender"])]
    ]
    head = ["FastAPI, 64 connections", "requests/s", "CPU time", "p50", "p99", "slowest", "failed"]
    return table(head, lines)


#: The contenders that are compared with bitmapist, in the order of the columns.
OURS = ("tallymark.bitmapist", "tallymark.sync", "tallymark")


def reads(results: dict[str, Any]) -> str:
    """Return the table of all reads."""
    rows = results["reads"]["rows"]
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        by_name = {row["contender"]: row for row in rows if row["task"] == task}
        for suffix in ("", ", no numpy"):
            ours = [by_name.get(f"{name}{suffix}") for name in OURS]
            first = next(iter(by_name.values()))
            tidy = next((row for name, row in by_name.items() if "no key left" in name), None)
            also = "" if tidy is None else f"; {tidy['ms']:.2f} ms if it tidies up"
            if any(ours) and (not suffix or task in {"iterate", "retention"}):
                cells = ["" if row is None else _beside(row) for row in ours]
                name = f"{task}, without numpy" if suffix else task
                lines.append([name, f"{first['ms']:.2f} ms{also}", *cells])
    return table(["a million users", "bitmapist", "drop-in", "blocking", "async"], lines)


def _beside(row: dict[str, Any]) -> str:
    tidied = f"; {row['ratio_tidied']:.1f}x" if "ratio_tidied" in row else ""
    return f"{row['ms']:.2f} ms ({row['ratio']:.1f}x{tidied})"


REPORTS = {"retention": "retention, 31 x 13 days", "daily": "users of each of 44 days"}


def duckdb(results: dict[str, Any]) -> str:
    """Return the table of the reports beside DuckDB's."""
    found = results["duckdb"]
    names = list(dict.fromkeys(row["contender"] for row in found["rows"]))
    lines = []
    for report, title in REPORTS.items():
        cells = [
            f"{row['ms']:.1f} ms" + ("" if row["ratio"] == 1 else f" ({row['ratio']:.0f}x)")
            for row in found["rows"]
            if row["report"] == report
        ]
        lines.append([title, *cells])
    sizes = {name: f"{each / 1e6:.1f} MB" for name, each in found["bytes"].items()}
    in_duckdb = f"{sizes['DuckDB']}; {sizes['DuckDB, sorted']} if sorted by user"
    lines.append(["bytes", sizes["SyncTally"], in_duckdb, ""])
    return table([f"{found['marks'] / 1e6:.1f} M marks of a million users", *names], lines)


#: The reports of product analytics.
PRODUCT_REPORTS = {
    "retention": "retention, 31 x 13 days",
    "segments": "the same, by 5 segments",
    "days_active": "days active, of 28",
    "at_least": "active on 20 of 31 days or more",
    "lifecycle": "lifecycle, 12 weeks",
    "funnel": "ordered funnel, 3 steps, 30 days, window 7 days",
}


def product_reports(results: dict[str, Any]) -> str:
    """Return the table of the reports of product analytics beside DuckDB's."""
    found = results["product_reports"]
    by_report = {(row["report"], row["contender"]): row for row in found["rows"]}
    lines = []
    for report, title in PRODUCT_REPORTS.items():
        ours, theirs = by_report[report, "SyncTally"], by_report[report, "DuckDB"]
        times = f"{theirs['ms']:,.0f} ms ({theirs['ratio']:.0f}x)"
        lines.append([title, f"{ours['ms']:.0f} ms", times])
    head = f"{found['marks'] / 1e6:.0f} M marks of {found['users'] / 1e6:.0f} million users"
    return table([head, "SyncTally", "DuckDB"], lines)


def cluster(results: dict[str, Any]) -> str:
    """Return the table of marks on a cluster, and the sentences about counts."""
    lines = []
    rows = results["cluster"]["rows"]
    names = list(dict.fromkeys(row["contender"] for row in rows))
    kinds = list(dict.fromkeys((row["workload"], row["callers"]) for row in rows))
    for name in names:
        cells = []
        for workload, callers in kinds:
            matching = [
                row
                for row in rows
                if (row["workload"], row["callers"], row["contender"]) == (workload, callers, name)
            ]
            cell = ""
            for row in matching:
                times = [f"{row['ratio']:.0f}x"] if "ratio" in row else []
                if name.startswith("tallymark"):
                    times.append(f"{row['ratio_to_glide']:.1f}x of glide's")
                cell = rate(row["marks_per_second"]) + (f" ({', '.join(times)})" if times else "")
            cells.append(cell)
        lines.append([name, *cells])
    heads = [
        f"{'one event' if workload == 'hot' else '200 events'}, {callers} callers"
        for workload, callers in kinds
    ]
    counts = results["cluster"]["counts"]
    spent = ", ".join(f"{row['store']} {row['ms']:.2f} ms" for row in counts["rows"])
    work = ", ".join(f"{each:.0f} ms" for each in counts["node_ms"])
    return (
        table(["marks/s, three masters", *heads], lines)
        + f"\n`count(a & b)` of ten million users: {spent}. With 16 shards, the three masters\n"
        f"have worked for {work}.\n"
    )


def user_ids(results: dict[str, Any]) -> str:
    """Return the table of users with ids of other types."""
    lines = []
    for row in results["user_ids"]:
        callers = f", {row['callers']} callers" if isinstance(row["callers"], int) else ""
        threads = f", {row['callers']}" if row["callers"] and not callers else ""
        lines.append(
            [
                f"{row['task']}{callers}{threads}",
                row["ids"],
                rate(row["offsets_per_second"]),
                f"{rate(row['users_per_second'])} ({row['ratio']:.2f}x)",
                f"{row['cpu_us']:.1f} us ({row['cpu_ratio']:.2f}x)",
                f"{row['server_us']:.1f} us ({row['server_ratio']:.1f}x)",
            ]
        )
    head = ["users/s", "ids", "offsets", "ids of this type", "CPU time", "of the server"]
    return table(head, lines)


def imports(results: dict[str, Any]) -> str:
    """Return the table of imports of files."""
    lines = [
        [
            row["file"],
            row["contender"],
            f"{rate(row['rows_per_second'])} ({row['ratio']:.0f}x)",
            f"{row['cpu_us']:.1f} us",
            f"{row['server_us']:.1f} us",
            f"{row['peak_mb']:,.0f} MB" if "peak_mb" in row else "",
            f"{row['file_mb']:,.0f} MB",
        ]
        for row in results.get("imports", ())
    ]
    head = ["file", "", "rows/s", "CPU time of a row", "of the server", "memory", "file"]
    return table(head, lines)


def host(results: dict[str, Any]) -> str:
    """Return a sentence about the machine."""
    found = results["machine"]
    return (
        f"Python {found['python']}, redis-py {found['redis-py']} (bitmapist and bitmapist4 with "
        f"their own), Redis {found['redis']} on\nthe same machine with {found['cpus']} CPUs, "
        f"{found['cpu']}.\n"
    )


def measured(results: dict[str, Any]) -> str:
    """Return the tables of all contenders."""
    parts = [
        host(results),
        marking(results, "hot", "one hot event"),
        marking(results, "zipf", "200 events, zipf(1.1)"),
        latency(results),
        blocking(results),
        lone(results),
        crowds(results),
        web(results),
        reads(results),
        duckdb(results),
        product_reports(results),
        cluster(results),
    ]
    return "\n" + "\n".join(parts) + "\n"


def details(results: dict[str, Any]) -> str:
    """Return the tables of CPU times and percentiles."""
    parts = [
        host(results),
        cpu(results, "blocking", "CPU time of a blocking mark, by threads"),
        cpu(results, "async", "CPU time of a mark, by tasks"),
        lone_details(results),
        events(results),
        web_details(results),
        *([middleware(results)] if "middleware" in results else []),
        user_ids(results),
        imports(results),
    ]
    return "\n" + "\n".join(parts) + "\n"


def main(names: list[str]) -> None:
    """Write the tables into documents."""
    results = json.loads(RESULTS.read_text())
    texts = {"measured": measured(results), "details": details(results)}
    print(*texts.values())
    for name in names:
        path = Path(name)
        path.write_text(_MARKED.sub(lambda found: found[1] + texts[found[2]], path.read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])
