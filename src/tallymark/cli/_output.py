"""What commands print: a table for people, JSON and CSV for programs, an HTML page.

Rows are dicts with the same keys, whose values JSON can represent. ``--json`` prints an array of
objects and ``--csv`` a header and lines, with the same rows and columns, in the order of the
first row. Rows may come from an iterator: JSON and CSV are printed as they come.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from .._core.untrusted import escaped
from ._errors import warn

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from .._reports.results import Report

__all__ = ["Output", "Row", "grouped", "write"]

Row = dict[str, Any]

#: How many characters a cell of a table has at most.
_CELL: Final = 2000


def write(text: str) -> None:
    """Print a text on the standard output; what its encoding does not have is escaped."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))


@dataclass(frozen=True)
class Output:
    """How to print.

    Attributes:
        form: a table, JSON or CSV.
        html: the file for an HTML page beside that; ``None`` for none.
    """

    form: Literal["table", "json", "csv"] = "table"
    html: Path | None = None

    @property
    def for_people(self) -> bool:
        """Whether people read the output."""
        return self.form == "table"

    def answer(self, row: Row, text: str) -> None:
        """Print an answer of one row; for people, a text."""
        if self.for_people:
            write(f"{text}\n")
            self._page(row_title(row), [row])
        else:
            self.table([row], "")

    def table(self, rows: Iterable[Row], title: str) -> None:
        """Print rows.

        Arguments:
            rows: dicts with the same keys.
            title: the heading of the HTML page.
        """
        if self.html is not None:
            rows = list(rows)
            self._page(title, rows)
        if self.form == "json":
            _print_json(rows)
        elif self.form == "csv":
            _print_csv(rows)
        else:
            _print_table(list(rows))

    def report(self, report: Report) -> None:
        """Print a report, and warn about events for which nobody was ever marked."""
        for name in report.unknown_events:
            warn(f"nobody was ever marked for {escaped(name)}: is the name spelt correctly?")
        if self.html is not None:
            _save(self.html, report.to_html())
        if self.form == "json":
            _print_json(report.to_rows())
        elif self.form == "csv":
            _print_csv(report.to_rows())
        else:
            _print_table(report.to_rows())

    def _page(self, title: str, rows: list[Row]) -> None:
        if self.html is None:
            return
        from .._charts.page import Page  # noqa: PLC0415 - few commands need it
        from .._charts.tables import Table  # noqa: PLC0415

        columns = list(rows[0]) if rows else []
        cells = [[_cell(value) for value in row.values()] for row in rows]
        _save(self.html, Page(title, "", [Table(title, columns, cells)]).page())


def row_title(row: Row) -> str:
    """Return a heading for one row."""
    return ", ".join(row)


def grouped(number: int) -> str:
    """Return a number for people: with commas on a terminal, without them for scripts."""
    return f"{number:,}" if sys.stdout.isatty() else str(number)


def _cell(value: object) -> str:
    """Return a value for a table: one line without control characters."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, int):
        return f"{value:,}"
    return escaped(str(value), _CELL)


def _print_json(rows: Iterable[Row]) -> None:
    beginning = "[\n"
    for row in rows:
        write(beginning + json.dumps(row, ensure_ascii=False, default=str))
        beginning = ",\n"
    write("[]\n" if beginning == "[\n" else "\n]\n")


def _print_csv(rows: Iterable[Row]) -> None:
    iterator = iter(rows)
    first = next(iterator, None)
    if first is not None:
        writer = csv.DictWriter(_Lines(), list(first))
        writer.writeheader()
        writer.writerows(itertools.chain([first], iterator))


class _Lines:
    """A file for `csv` on the standard output."""

    def write(self, line: str) -> None:
        write(line.replace("\r\n", "\n"))


def _print_table(rows: list[Row]) -> None:
    from rich import box  # noqa: PLC0415 - takes 40 ms, and scripts do not need it
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    if not rows:
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for name, value in rows[0].items():
        table.add_column(Text(name), justify="right" if isinstance(value, int | float) else "left")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    # Without a terminal, lines are as long as they have to be.
    width = None if sys.stdout.isatty() else 10_000
    Console(file=sys.stdout, width=width, emoji=False, markup=False).print(table)


def _save(path: Path, text: str) -> None:
    """Write a file, all of it or nothing."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, "utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
