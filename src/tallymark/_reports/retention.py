"""Retention tables: of those who came in one period, how many were back in later ones. Pure.

The names are those of product analytics: a cohort is who did something in one
period, a cell is how many of them did something in a period that many periods
later.
"""

from __future__ import annotations

import csv
import enum
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .._core.arguments import immutable
from .._core.untrusted import isolated, shown
from ..errors import InvalidTypeError, MissingExtraError
from .heatmap import HeatCell, HeatMap, HeatRow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from .._core.periods import Granularity, Period

__all__ = [
    "Cell",
    "CellState",
    "Cohort",
    "Mode",
    "Retention",
    "counted_cohort",
    "share",
    "table_cell",
]

#: What counts as being back: in that very period, or in that or any later one.
Mode = Literal["classic", "unbounded"]


class CellState(enum.Enum):
    """Whether a cell's period was over at the time of the report."""

    FINISHED = "finished"
    UNFINISHED = "unfinished"
    FUTURE = "future"


@immutable
@dataclass(frozen=True, slots=True)  # of which there may be half a million
class Cell:
    """How many of a cohort were back in one period.

    Attributes:
        period: the period.
        state: whether it was over.
        count: how many users; ``None`` unless the period was over.
        rate: their share of the cohort, from 0 to 1; ``None`` unless the
            period was over and the cohort has users.
    """

    period: Period
    state: CellState
    count: int | None
    rate: float | None


@dataclass(frozen=True)
class Cohort:
    """A row of the table: the users of one period.

    Attributes:
        period: when they came.
        size: how many there are.
        cells: how many were back, in that period and those after it.
    """

    period: Period
    size: int
    cells: tuple[Cell, ...]

    if not TYPE_CHECKING:  # which would take it for any attribute

        def __getattr__(self, name: str) -> object:
            counted = vars(self).get("_counted")
            if name != "cells" or counted is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            calendar, row, until, counts = counted
            own = calendar[row : row + len(counts) + 1]
            cells = tuple(
                table_cell(period, until, following.start, count, self.size)
                for period, following, count in zip(own, own[1:], counts, strict=False)
            )
            vars(self)["cells"] = cells
            return cells

        def __reduce__(self) -> tuple[object, ...]:
            return Cohort, (self.period, self.size, self.cells)


@dataclass(frozen=True)
class Retention:
    """A retention table: a row for each cohort, a column for each period after it.

    Attributes:
        cohort: the name of what makes a cohort.
        activity: the name of what counts as being back.
        granularity: how long a period is.
        mode: ``"classic"`` or ``"unbounded"``.
        first_time: whether cohorts are of those only who had never come before.
        until: the moment of the report, naive, in the tally's zone.
        cohorts: the rows, from the earliest on.
    """

    cohort: str
    activity: str
    granularity: Granularity
    mode: Mode
    first_time: bool
    until: datetime
    cohorts: tuple[Cohort, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many users each cohort has."""
        return tuple(row.size for row in self.cohorts)

    @property
    def counts(self) -> tuple[tuple[int | None, ...], ...]:
        """How many users were back, a tuple for each cohort."""
        return tuple(tuple(cell.count for cell in row.cells) for row in self.cohorts)

    @property
    def rates(self) -> tuple[tuple[float | None, ...], ...]:
        """Which share of the users was back, a tuple for each cohort."""
        return tuple(tuple(cell.rate for cell in row.cells) for row in self.cohorts)

    @property
    def averages(self) -> tuple[float | None, ...]:
        """For each column, the share of all users whose cell is finished, whichever their cohort.

        That is the mean of the rates, weighted by the cohorts' sizes. ``None``
        where there are no such users.
        """
        return tuple(
            share(
                sum(cell.count for _, cell in finished),
                sum(size for size, _ in finished),
            )
            for finished in (self._finished(column) for column in range(self.columns))
        )

    @property
    def columns(self) -> int:
        """How many cells each row has."""
        return len(self.cohorts[0].cells) if self.cohorts else 0

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a dict for each cell, with strings and numbers that JSON and CSV have.

        The keys: ``cohort`` and ``period`` (ISO 8601, such as ``2026-W48``),
        ``size``, ``offset`` (how many periods later), ``count``, ``rate``,
        ``state``. Computes without a break, as `to_csv` does.
        """
        return [
            {
                "cohort": str(row.period),
                "size": row.size,
                "offset": offset,
                "period": str(cell.period),
                "count": cell.count,
                "rate": cell.rate,
                "state": cell.state.value,
            }
            for row in self.cohorts
            for offset, cell in enumerate(row.cells)
        ]

    def to_csv(self) -> str:
        """Return the rows of `to_rows` as CSV (RFC 4180) with a header; ``None`` is empty.

        Computes without a break, as all methods of a table do: some tenths of a second
        for 100,000 cells. In an asyncio program, ``await asyncio.to_thread(table.to_csv)``.
        """
        rows = self.to_rows()
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def to_html(self, title: str | None = None) -> str:
        """Return a page of HTML with the table as a heat map.

        It needs nothing else: no script, no font, no other file. It follows
        the reader's choice of light or dark, and a table that is too wide
        scrolls. Computes without a break, some tenths of a second for 100,000
        cells: in an asyncio program, ``await asyncio.to_thread(table.to_html)``.

        Arguments:
            title: the heading; made of the names of cohort and activity by
                default.

        Raises:
            InvalidTypeError: the title is no str.
        """
        if title is not None and not isinstance(title, str):
            raise InvalidTypeError(f"title must be a str or None, got {shown(title)}")
        return self._heat_map(title).page()

    def _repr_html_(self) -> str:
        """Return the table for a notebook."""
        return self._heat_map(None).fragment()

    def to_pandas(self) -> Any:
        """Return the rows of `to_rows` as a ``pandas.DataFrame``.

        ``table.to_pandas().pivot(index="cohort", columns="offset", values="rate")``
        is the table as one sees it. Computes without a break, as `to_csv` does.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas as pd  # noqa: PLC0415 - optional
        except ImportError as error:
            raise MissingExtraError(
                "to_pandas() needs pandas, which is not installed; run: pip install pandas"
            ) from error
        return pd.DataFrame(self.to_rows()).astype({"count": "Int64"})

    def _heat_map(self, title: str | None) -> HeatMap:
        unit = str(self.granularity)
        cohort, activity = isolated(self.cohort), isolated(self.activity)
        first = "their first " if self.first_time else ""
        later = "" if self.mode == "classic" else ", or in any later one"
        average = HeatRow(
            "All", sum(self.sizes), [HeatCell(rate, "of all so far") for rate in self.averages]
        )
        return HeatMap(
            title=f"{cohort} → {activity}" if title is None else title,
            caption=f"Rows: users with {first}“{cohort}” in that {unit}. Columns: "
            f"the share of them with “{activity}” so many {unit}s later{later}. "
            f"As of {self.until:%Y-%m-%d %H:%M}.",
            corner=unit.capitalize(),
            columns=[str(offset) for offset in range(self.columns)],
            rows=[average, *map(_heat_row, self.cohorts)],
            notes=[f"… {unit} is not over yet", "empty: in the future", f"{_NOBODY} no users"],
        )

    def _finished(self, column: int) -> list[tuple[int, Any]]:
        """Return the sizes and the cells of a column that are finished."""
        return [
            (row.size, row.cells[column])
            for row in self.cohorts
            if row.cells[column].state is CellState.FINISHED
        ]


#: What a cell shows whose cohort is empty.
_NOBODY = "\N{EN DASH}"


def _heat_row(row: Cohort) -> HeatRow:
    return HeatRow(str(row.period), row.size, [_heat_cell(cell, row.size) for cell in row.cells])


def _heat_cell(cell: Cell, size: int) -> HeatCell:
    if cell.rate is not None:
        return HeatCell(cell.rate, f"{cell.count:,} of {size:,} in {cell.period}")
    if cell.state is CellState.FINISHED:
        return HeatCell(None, "no users in this cohort", _NOBODY)
    text = "…" if cell.state is CellState.UNFINISHED else ""
    return HeatCell(None, f"{cell.period} is {_WHY[cell.state]}", text)


_WHY = {CellState.UNFINISHED: "not over yet", CellState.FUTURE: "in the future"}


def counted_cohort(
    calendar: Sequence[Period], row: int, until: datetime, size: int, counts: Sequence[int]
) -> Cohort:
    """Return a row whose cells are made when somebody reads them.

    Half a million cells at once would have Python's garbage collector look at them again
    and again, which keeps all threads waiting.

    Arguments:
        calendar: the periods of the table's rows, and those that follow.
        row: the number of the row.
        until: the moment of the report.
        size, counts: what was counted.
    """
    cohort = object.__new__(Cohort)
    vars(cohort).update(period=calendar[row], size=size, _counted=(calendar, row, until, counts))
    return cohort


def table_cell(period: Period, until: datetime, end: datetime, count: int, size: int) -> Cell:
    """Return a cell, whose count is left out unless its period has ended by then."""
    if end <= until:
        return Cell(period, CellState.FINISHED, count, share(count, size))
    state = CellState.UNFINISHED if period.start < until else CellState.FUTURE
    return Cell(period, state, None, None)


def share(part: int, whole: int) -> float | None:
    """Return a part of a whole, from 0 to 1; ``None`` of nothing."""
    return part / whole if whole else None
