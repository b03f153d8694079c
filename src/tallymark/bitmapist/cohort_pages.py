"""The pages of cohort tables: a form, HTML and CSV. Markup of our own, bitmapist's fields."""

from __future__ import annotations

import csv
import functools
import io
from typing import TYPE_CHECKING, Any, Final, Literal

from .._charts.heatmap import HeatCell, HeatMap, HeatRow
from .._charts.page import Page, isolated
from ..errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = ["TimeGroup", "render_csv_data", "render_html_data", "render_html_form"]

TimeGroup = Literal["days", "weeks", "months", "years"]


def render_html_form(
    action_url: str,
    selections1: Sequence[Any],
    selections1b: Sequence[Any] | None = None,
    selections2: Sequence[Any] | None = None,
    selections2b: Sequence[Any] | None = None,
    time_group: TimeGroup = "days",
    select1: str | None = None,
    select1b: str | None = None,
    select2: str | None = None,
    select2b: str | None = None,
    as_percent: bool = True,
    num_results: int = 31,
    num_of_rows: int = 12,
    start_date: str | None = None,
) -> str:
    """Return an HTML form for the arguments of `get_dates_data`.

    The form is submitted with GET; its fields have the names of that function's arguments.
    The second button adds ``export_csv=1``.

    Arguments:
        action_url: the URL that the form is submitted to.
        selections1: the options of the field ``select1``: pairs of a label and an event's
            name, and ``"---"`` for a separator.
        selections1b, selections2, selections2b: the options of the other fields. By default
            ``selections1b`` and ``selections2`` are ``selections1``, and ``selections2b`` is
            ``selections2``.
        time_group, select1, select1b, select2, select2b, as_percent, num_results,
        num_of_rows, start_date: the present values of the fields.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    selections2 = list(selections2 or selections1)
    none: list[Any] = [("—", "")]
    return str(
        _form().render(
            action_url=action_url,
            events=[
                ("select1", "People who", selections1, select1 or ""),
                ("select1b", "and also", none + list(selections1b or selections1), select1b or ""),
                ("select2", "and came back to", selections2, select2 or ""),
                ("select2b", "and also", none + list(selections2b or selections2), select2b or ""),
            ],
            shape=[
                (
                    "time_group",
                    "Group by",
                    [(group.capitalize(), group) for group in _UNITS],
                    time_group,
                ),
                ("as_percent", "Cells", [("Per cent", 1), ("Users", 0)], int(bool(as_percent))),
                ("num_results", "Rows", *_numbers(_RESULTS, int(num_results))),
                ("num_of_rows", "Periods after each", *_numbers(_LENGTHS, int(num_of_rows))),
            ],
            start_date=start_date or "",
        )
    )


def render_html_data(
    dates_data: Sequence[Sequence[Any]],
    as_percent: bool = True,
    time_group: TimeGroup = "days",
    num_results: int = 31,
    num_of_rows: int = 12,
    start_date: str | None = None,
) -> str:
    """Return a table as an HTML fragment, coloured by the share of users who returned.

    Arguments:
        dates_data: the result of `get_dates_data`.
        as_percent, time_group, num_of_rows: the same as there.
        num_results, start_date: not used; ``dates_data`` has them.
    """
    columns = int(num_of_rows) + 1
    unit = _unit(time_group)
    shares = "the share of them" if as_percent else "how many of them"
    body = [_heat_row(row, columns, time_group, as_percent) for row in dates_data]
    title = f"Who came back, by {unit}"
    caption = (
        f"Rows: users of that {unit}. Columns: {shares} who came back so many "
        f"{unit}s later. The first row is the mean of the others."
    )
    table = HeatMap(
        title=title,
        corner=unit.capitalize(),
        columns=[str(column) for column in range(columns)],
        rows=[_mean(dates_data, columns, as_percent), *body],
        notes=["empty: nobody came back, or there was nobody"],
    )
    return (
        f'<div class="cohort_table">\n{Page(title, caption, [table]).fragment()}{_EXPORT}</div>\n'
    )


def render_csv_data(
    dates_data: Sequence[Sequence[Any]],
    as_percent: bool = True,
    time_group: TimeGroup = "days",
    num_results: int = 31,
    num_of_rows: int = 12,
    start_date: str | None = None,
) -> str:
    """Return a table as CSV: the date, the number of users, and a column for each cell.

    Arguments:
        dates_data: the result of `get_dates_data`.
        as_percent, time_group, num_of_rows: the same as there.
        num_results, start_date: not used; ``dates_data`` has them.
    """
    columns = int(num_of_rows) + 1
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["Date", "Total", *range(columns)])
    for row in dates_data:
        cells = [_number(cell, as_percent) for cell in row[2 : 2 + columns]]
        writer.writerow([_date(row[0], time_group), row[1], *cells])
    return text.getvalue()


#: The name of a period of each group.
_UNITS: Final = {"days": "day", "weeks": "week", "months": "month", "years": "year"}

#: The numbers of rows, and of periods after each row, that the form offers.
_RESULTS: Final = (3, 4, 7, 12, 24, 28, 31, 52, 104)
_LENGTHS: Final = (3, 6, 12, 24, 48)

#: A link to the same page as CSV. Without JavaScript it leads to the page with its defaults.
_EXPORT: Final = (
    '<p><a class="cohort_export" href="?export_csv=1" target="_blank" onclick="'
    "this.href = location.pathname + (location.search ? location.search + '&amp;' : '?')"
    " + 'export_csv=1'\">Export as CSV</a></p>\n"
)


def _unit(time_group: TimeGroup) -> str:
    return _UNITS.get(time_group, "period")


def _date(moment: datetime, time_group: TimeGroup) -> str:
    if time_group == "years":
        return moment.strftime("%Y")
    day = moment.strftime("%d %b %Y")
    return f"Week {moment.isocalendar()[1]:02} {day}" if time_group == "weeks" else day


def _number(cell: Any, as_percent: bool) -> str:
    if cell == "":
        return ""
    return str(round(cell, 2)) if as_percent else str(int(cell))


def _heat_cell(cell: Any, size: float, as_percent: bool) -> HeatCell:
    if cell == "":
        return HeatCell(None, "nobody")
    if as_percent:
        return HeatCell(cell / 100, f"of {size:,.0f} users")
    return HeatCell(cell / size if size else 0.0, f"of {size:,.0f} users", f"{int(cell):,}")


def _heat_row(row: Sequence[Any], columns: int, time_group: TimeGroup, as_percent: bool) -> HeatRow:
    cells = [_heat_cell(cell, row[1], as_percent) for cell in row[2 : 2 + columns]]
    return HeatRow(_date(row[0], time_group), row[1], cells)


def _mean(dates_data: Sequence[Sequence[Any]], columns: int, as_percent: bool) -> HeatRow:
    """Return a row with the mean of each column."""
    size = _average([row[1] for row in dates_data])
    cells = []
    for column in range(2, 2 + columns):
        numbers = [row[column] for row in dates_data if row[column] != ""]
        cells.append(_heat_cell(_average(numbers) if numbers else "", size, as_percent))
    return HeatRow("Mean", round(size), cells)


def _average(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0


def _numbers(offered: Sequence[int], chosen: int) -> tuple[list[tuple[int, int]], int]:
    """Return the options of a field of numbers, with the chosen one among them, and that one."""
    return [(number, number) for number in sorted({*offered, chosen})], chosen


@functools.cache
def _form() -> Any:
    """Load the form's template."""
    try:
        import jinja2  # noqa: PLC0415 - optional
    except ImportError as error:
        raise MissingExtraError(
            "the form needs jinja2, which is not installed; run: pip install 'tallymark[bitmapist]'"
        ) from error
    loader = jinja2.PackageLoader("tallymark.bitmapist")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["isolated"] = lambda label: isolated(str(label))
    return environment.get_template("cohort_form.html")
