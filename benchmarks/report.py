"""The results of a run, as tables on standard output, as JSON and as an SVG chart."""

from __future__ import annotations

import html
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")

Rows = list[dict[str, Any]]


def machine(store: Any) -> dict[str, Any]:
    """Describe the machine and the versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(": ")[2] if names else model
    return {
        "python": platform.python_version(),
        "redis": store.info("server")["redis_version"],
        "redis-py": version("redis"),
        "cpus": os.cpu_count(),
        "cpu": model,
        "system": platform.system(),
    }


def show(title: str, rows: Rows, columns: dict[str, str]) -> None:
    """Print rows as a table; ``columns`` maps the keys of a row to their formats."""
    print(f"\n{title}")
    cells = [list(columns)] + [
        [form.format(row[name]) if name in row else "" for name, form in columns.items()]
        for row in rows
    ]
    widths = [max(len(line[at]) for line in cells) for at in range(len(columns))]
    for line in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


def write(results: dict[str, Any]) -> None:
    """Write the JSON and the chart."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.json").write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / "latest.svg").write_text(chart(results))
    print(f"\nwritten: {RESULTS.name}/latest.json, {RESULTS.name}/latest.svg")


COLOURS = ["#9aa5b1", "#c9a227", "#6a994e", "#1d70b8", "#7b2d8b"]


def chart(results: dict[str, Any]) -> str:
    """Return an SVG: marks per second by callers, a group of bars for each number of callers."""
    panels = [
        (title, [row for row in results["async"] if row["workload"] == workload])
        for workload, title in (("hot", "one hot event"), ("zipf", "200 events, zipf(1.1)"))
    ]
    names = list(dict.fromkeys(row["contender"] for row in results["async"]))
    top = max(row["marks_per_second"] for row in results["async"])
    width, height, left, floor = 900, 300, 60, 230
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
        ' font-family="sans-serif" font-size="11" fill="#333">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        '<text x="12" y="18" font-size="13">',
        "Marks per second by concurrent callers (more is better)</text>",
    ]
    for line in range(5):
        y = floor - line * 180 / 4
        parts.append(f'<line x1="{left}" x2="{width - 10}" y1="{y}" y2="{y}" stroke="#e3e6e8"/>')
        parts.append(
            f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{line * top / 4e3:.0f}k</text>'
        )
    span = (width - left - 10) / len(panels)
    for panel, (title, rows) in enumerate(panels):
        start = left + panel * span
        callers = list(dict.fromkeys(row["callers"] for row in rows))
        parts.append(
            f'<text x="{start + span / 2}" y="40" text-anchor="middle">{html.escape(title)}</text>'
        )
        for group, count in enumerate(callers):
            place = start + (group + 0.08) * span / len(callers)
            bar = span / len(callers) * 0.84 / len(names)
            for row in (row for row in rows if row["callers"] == count):
                at = names.index(row["contender"])
                tall = 180 * row["marks_per_second"] / top
                label = f"{row['contender']}, {count} callers: {row['marks_per_second']:,.0f}/s"
                parts.append(
                    f'<rect x="{place + at * bar:.1f}" y="{floor - tall:.1f}" width="{bar:.1f}" '
                    f'height="{tall:.1f}" fill="{COLOURS[at % len(COLOURS)]}">'
                    f"<title>{html.escape(label)}</title></rect>"
                )
            middle = start + (group + 0.5) * span / len(callers)
            parts.append(f'<text x="{middle}" y="{floor + 15}" text-anchor="middle">{count}</text>')
    for at, name in enumerate(names):
        x = left + at * 165
        parts.append(
            f'<rect x="{x}" y="262" width="10" height="10" fill="{COLOURS[at % len(COLOURS)]}"/>'
            f'<text x="{x + 15}" y="271">{html.escape(name)}</text>'
        )
    host = results["machine"]
    parts.append(
        f'<text x="12" y="292" fill="#666">Python {host["python"]}, redis-py {host["redis-py"]}, '
        f"Redis {host['redis']} on the same machine, {host['cpus']} CPUs "
        f"({html.escape(host['cpu'])})</text></svg>\n"
    )
    return "\n".join(parts)
