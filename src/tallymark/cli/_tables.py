"""Reports as tables for people: columns of text, wide enough for a terminal."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._charts.formats import grouped, percent
from .._core.untrusted import escaped
from .._reports.retention import Retention
from ._writing import write

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._reports.results import Report

__all__ = ["TextTable", "cell", "console", "print_table", "report_tables"]

#: How many characters a cell has at most.
_CELL: Final = 500

#: The columns with shares, which are shown in per cent.
_SHARES: Final = frozenset(("rate", "stickiness", "ratio", "of_previous", "of_first"))

#: How many blanks `rich` puts between two columns.
_GAP: Final = 2

#: How wide a bar is at most, in characters.
_BAR: Final = 20

#: Without a terminal, lines are as long as they have to be.
_ENDLESS: Final = 100_000


class TextTable(NamedTuple):
    """A table of text.

    Attributes:
        title: a line above the table; may be empty.
        columns: the headings; that of bars is empty.
        rows: the cells of each row.
        names: which columns hold names, and are aligned to the left; the others hold numbers.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: frozenset[int]


def cell(value: object) -> str:
    """Return a value for a table: one line without control characters."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, int | float):
        return grouped(value)
    return escaped(str(value), _CELL)


def console() -> Any:
    """Return the standard output as a `rich.console.Console`, as wide as the terminal."""
    from rich.console import Console  # noqa: PLC0415 - takes 40 ms, and scripts do not need it

    is_terminal = sys.stdout.isatty()
    return Console(
        file=sys.stdout,
        force_terminal=is_terminal and not os.environ.get("NO_COLOR"),
        width=shutil.get_terminal_size().columns if is_terminal else _ENDLESS,
        markup=False,
        emoji=False,
        highlight=False,
    )


def print_table(table: TextTable) -> None:
    """Print a table; on a terminal, in its width.

    Columns that do not fit are left out, from the right, and the last line says so.
    """
    from rich import box  # noqa: PLC0415 - takes 40 ms, and scripts do not need it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    out = console()
    if table.title:
        out.print(Text(table.title, style="bold"))
    fitting = _fitting(table, out.width)
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for index, heading in enumerate(table.columns[:fitting]):
        is_name = index in table.names
        drawn.add_column(
            Text(heading),
            justify="left" if is_name or not heading else "right",
            overflow="fold",
            no_wrap=not is_name,
        )
    for row in table.rows:
        drawn.add_row(*map(Text, row[:fitting]))
    with out.capture() as captured:
        out.print(drawn)
    for line in captured.get().splitlines():
        write(f"{line.rstrip()}\n")
    left_out = sum(1 for heading in table.columns[fitting:] if heading)
    if left_out:
        out.print(Text(f"({left_out} more columns do not fit; --csv and --html have all)"))


def _fitting(table: TextTable, width: int) -> int:
    """Return how many columns fit into a width, at least two; names may be folded."""
    used = 0
    for index, heading in enumerate(table.columns):
        longest = max(map(len, (heading, *(row[index] for row in table.rows))))
        used += min(longest, width // 3) if index in table.names else longest
        if used > width and index >= 2:
            return index
        used += _GAP
    return len(table.columns)


def report_tables(report: Report) -> Iterator[TextTable]:
    """Yield a report as tables; that of retention, and each of its segments, has a row a cohort."""
    if isinstance(report, Retention):
        for table in (report, *report.segments.values()):
            yield _retention(table, "" if table.segment is None else escaped(table.segment))
        return
    rows = report.to_rows()
    if not rows:
        return
    # What is the same in all rows is said once.
    constant = [
        name
        for name, value in rows[0].items()
        if isinstance(value, str) and len(rows) > 1 and all(row[name] == value for row in rows)
    ]
    title = ", ".join(
        f"{_heading(name)}: {_report_cell(report, name, rows[0][name])}" for name in constant
    )
    names = [name for name in rows[0] if name not in constant]
    columns = [_heading(name) for name in names]
    texts = [[_report_cell(report, name, row[name]) for name in names] for row in rows]
    if "count" in names:
        most = max(row["count"] for row in rows)
        columns.append("")
        for row, text in zip(rows, texts, strict=True):
            text.append(_bar(row["count"], most))
    left = {
        index for index, name in enumerate(names) if any(isinstance(row[name], str) for row in rows)
    }
    yield TextTable(title, columns, texts, frozenset(left))


def _retention(table: Retention, title: str) -> TextTable:
    offsets = [str(point.name) for point in table.curve]
    rows = [["All", f"{sum(table.sizes):,}", *map(_rounded, table.averages)]]
    for cohort in table.cohorts:
        cells = [_rounded(each.rate) if each.count is not None else "" for each in cohort.cells]
        rows.append([str(cohort.period), f"{cohort.size:,}", *cells])
    return TextTable(title, ["Cohort", "Users", *offsets], rows, frozenset((0,)))


def _rounded(rate: float | None) -> str:
    """Return a rate in whole per cent, so that 12 columns fit."""
    return percent(None) if rate is None else f"{rate:.0%}"


def _report_cell(report: Report, name: str, value: Any) -> str:
    if name in _SHARES:
        return percent(value)
    if name in {"since", "until"} and isinstance(value, str):
        return value.removesuffix("T00:00:00")
    if name in {"name", "event", "series"} and isinstance(value, str):
        return cell(report.label(value))
    return cell(value)


def _heading(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _bar(number: int, most: int) -> str:
    """Return a bar as long as a number, compared with the largest one."""
    eighths = round(8 * _BAR * number / most) if most else 0
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (" ▏▎▍▌▋▊▉"[rest].strip())
