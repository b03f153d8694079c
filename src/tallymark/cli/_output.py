"""What commands print: a table for people, JSON and CSV for programs, an HTML page.

Rows are dicts with the same keys, whose values JSON can represent. ``--json`` prints an array of
objects and ``--csv`` a header and lines, with the same rows and columns, in the order of the
first row. Rows may come from an iterator: JSON and CSV are printed as they come.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from .._core.untrusted import escaped
from ._errors import UsageError, warn
from ._lines import line_of
from ._pages import save_page
from ._writing import write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from .._reports.results import Report

__all__ = ["Output", "Row"]

Row = dict[str, Any]

#: How many rows are printed together.
_BLOCK: Final = 1000


@dataclass(frozen=True)
class Output:
    """How to print.

    Attributes:
        form: a table, JSON or CSV.
        html: the file for an HTML page beside that; ``None`` for none.
    """

    form: Literal["table", "json", "csv"] = "table"
    html: Path | None = None

    def answer(self, rows: Row | list[Row], text: str, columns: Sequence[str] = ()) -> None:
        """Print an answer: for people, a line of text.

        Arguments:
            rows: what programs get, one row or several.
            text: what people get.
            columns: the keys of the rows, if there may be none.
        """
        rows = [rows] if isinstance(rows, dict) else rows
        if self.form == "table":
            self._page(text, rows)
            write(f"{text}\n")
        else:
            self.table(rows, text, columns)

    def table(self, rows: Iterable[Row], title: str, columns: Sequence[str] = ()) -> None:
        """Print rows.

        Arguments:
            rows: dicts with the same keys.
            title: the heading of the HTML page.
            columns: the keys of the rows, if there may be none.
        """
        if self.html is not None:
            rows = list(rows)
            self._page(title, rows)
        if self.form != "table":
            self._print_data(rows, columns)
            return
        rows = list(rows)
        if rows:
            from ._tables import TextTable, cell, print_table  # noqa: PLC0415 - for people only

            names = {
                index
                for index, name in enumerate(rows[0])
                if not all(isinstance(row[name], int | float | type(None)) for row in rows)
            }
            texts = [[cell(value) for value in row.values()] for row in rows]
            print_table(TextTable("", list(rows[0]), texts, frozenset(names)))

    def lines(self, name: str, values: Iterable[Any]) -> None:
        """Print values, each on a line of its own.

        A text with line breaks is written as in JSON, as is one that could be taken for that.
        On a terminal, other control characters are escaped too.

        Arguments:
            name: the name of the only column.
            values: str or int, possibly very many.
        """
        if self.form != "table" or self.html is not None:
            self.table(({name: value} for value in values), name, [name])
            return
        shown = _on_terminal if sys.stdout.isatty() else line_of
        for block in _blocks(values):
            write("".join(f"{shown(value)}\n" for value in block))

    def report(self, report: Report, show: Callable[[], None] | None = None) -> None:
        """Print a report, and warn about events for which nobody was ever marked.

        Arguments:
            report: the report.
            show: prints it for people; ``None`` for tables.
        """
        for name in report.unknown_events:
            warn(f"nobody was ever marked for {escaped(name)}: is the name spelt correctly?")
        if self.html is not None:
            save_page(self.html, report.to_html())
        if self.form != "table":
            self._print_data(report.to_rows())
            return
        if show is not None:
            show()
            return
        from ._tables import print_table, report_tables  # noqa: PLC0415 - for people only

        for number, table in enumerate(report_tables(report)):
            write("\n" if number else "")
            print_table(table)

    def reports(self, reports: Mapping[str, Report]) -> None:
        """Print several reports under headings; as JSON, an object with the rows of each.

        Raises:
            UsageError: CSV is asked for, which has one table.
        """
        if self.form == "csv":
            raise UsageError("these are several tables, and CSV has one; there is --json")
        if self.html is not None:
            from .._charts.page import document  # noqa: PLC0415 - few commands need it

            fragments = [report.to_html(title, fragment=True) for title, report in reports.items()]
            save_page(self.html, document(next(iter(reports)), fragments))
        if self.form == "json":
            _print_json(
                {"report": title, "rows": report.to_rows()} for title, report in reports.items()
            )
            return
        from ._tables import print_table, report_tables  # noqa: PLC0415 - for people only

        for title, report in reports.items():
            write(f"\n{title}\n\n")
            for table in report_tables(report):
                print_table(table)

    def _print_data(self, rows: Iterable[Row], columns: Sequence[str] = ()) -> None:
        if self.form == "json":
            _print_json(rows)
        else:
            _print_csv(rows, columns)

    def _page(self, title: str, rows: list[Row]) -> None:
        if self.html is None:
            return
        from .._charts.page import Page  # noqa: PLC0415 - few commands need it
        from .._charts.tables import Table  # noqa: PLC0415
        from ._tables import cell  # noqa: PLC0415

        columns = list(rows[0]) if rows else []
        cells = [[cell(value) for value in row.values()] for row in rows]
        figures = [Table(title, columns, cells)] if rows else []
        save_page(self.html, Page(title, "", figures).page())


def _on_terminal(value: Any) -> str:
    line = line_of(value)
    return escaped(line, 10 * len(line))


def _print_json(rows: Iterable[Row]) -> None:
    beginning = "[\n"
    for block in _blocks(rows):
        objects = (json.dumps(row, ensure_ascii=False, default=str) for row in block)
        write(beginning + ",\n".join(objects))
        beginning = ",\n"
    write("[]\n" if beginning == "[\n" else "\n]\n")


def _print_csv(rows: Iterable[Row], columns: Sequence[str]) -> None:
    header = True
    for block in _blocks(rows):
        lines = io.StringIO(newline="")
        writer = csv.DictWriter(lines, list(block[0]), lineterminator="\n")
        if header:
            writer.writeheader()
            header = False
        writer.writerows(block)
        write(lines.getvalue())
    if header and columns:
        write(f"{','.join(columns)}\n")


def _blocks(values: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield values in lists of up to `_BLOCK`: one write for each takes half the time."""
    iterator = iter(values)
    while block := list(itertools.islice(iterator, _BLOCK)):
        yield block
