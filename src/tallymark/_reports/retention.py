"""Retention tables: how many users of each cohort returned in later periods. Pure.

A cohort is the users who have the cohort event in one period. A user of the cohort returns in
a later period with the activity event. A cell is the number of users of one cohort who
returned in one period.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from .._charts.heatmap import HeatCell, HeatMap, HeatRow
from .._core.arguments import immutable
from .results import Report

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from .._charts.page import Figure
    from .._core.periods import Granularity, Period

__all__ = [
    "Cell",
    "CellState",
    "Cohort",
    "Mode",
    "Retention",
    "lazy_cohort",
    "rate",
]

#: Classic: a user returns in exactly that period. Unbounded: in that or any later period.
Mode = Literal["classic", "unbounded"]


class CellState(enum.Enum):
    """Whether the period of a cell was complete at the moment of the report.

    Attributes:
        FINISHED: the period had ended.
        UNFINISHED: the period had begun, and not ended.
        FUTURE: the period had not begun.
    """

    FINISHED = "finished"
    UNFINISHED = "unfinished"
    FUTURE = "future"


@immutable
@dataclass(frozen=True, slots=True)  # a table may have half a million cells
class Cell:
    """How many users of a cohort returned in one period.

    Attributes:
        period: the period of the return.
        state: whether the period was complete.
        count: how many users returned; ``None`` unless the period was complete.
        rate: the retention rate, ``count`` divided by the size of the cohort, from 0 to 1;
            ``None`` unless the period was complete and the cohort has users.
    """

    period: Period
    state: CellState
    count: int | None
    rate: float | None


@dataclass(frozen=True)
class Cohort:
    """A row of a retention table: the users of one period.

    Attributes:
        period: the period of the cohort.
        size: how many users the cohort has.
        cells: how many users returned, in the period of the cohort and in each one after it.
    """

    period: Period
    size: int
    cells: tuple[Cell, ...]

    if not TYPE_CHECKING:  # a type checker would accept every attribute

        def __getattr__(self, name: str) -> object:
            arguments = vars(self).get("_cell_arguments")
            if name != "cells" or arguments is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            calendar, row, until, counts = arguments
            periods = calendar[row : row + len(counts) + 1]
            cells = tuple(
                _cell(period, until, following.start, count, self.size)
                for period, following, count in zip(periods, periods[1:], counts, strict=False)
            )
            vars(self)["cells"] = cells
            return cells

        def __reduce__(self) -> tuple[object, ...]:
            return Cohort, (self.period, self.size, self.cells)


@dataclass(frozen=True)
class Retention(Report):
    """A retention table: a row for each cohort, a column for its period and each one after it.

    Attributes:
        cohort: the name of the cohort event, or of the function that selects the cohort.
        activity: the name of the activity event, or of the function that selects the active
            users.
        granularity: the length of a period.
        mode: ``"classic"``: a user returns in exactly that period; ``"unbounded"``: in that
            period or any later one.
        first_time: whether a cohort has only the users who were in no earlier period.
        until: the moment of the report, naive, in the tally's time zone.
        cohorts: the rows, from the earliest period to the latest.
    """

    cohort: str
    activity: str
    granularity: Granularity
    mode: Mode
    first_time: bool
    until: datetime
    cohorts: tuple[Cohort, ...]

    _integers: ClassVar[tuple[str, ...]] = ("count",)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of users of each cohort."""
        return tuple(row.size for row in self.cohorts)

    @property
    def counts(self) -> tuple[tuple[int | None, ...], ...]:
        """How many users returned: a tuple for each cohort, with ``Cell.count`` of each cell."""
        return tuple(tuple(cell.count for cell in row.cells) for row in self.cohorts)

    @property
    def rates(self) -> tuple[tuple[float | None, ...], ...]:
        """The retention rates: a tuple for each cohort, with ``Cell.rate`` of each cell."""
        return tuple(tuple(cell.rate for cell in row.cells) for row in self.cohorts)

    @property
    def averages(self) -> tuple[float | None, ...]:
        """The retention rate of each column, from 0 to 1, over all cohorts.

        That is the mean of the rates of the finished cells, weighted by the sizes of their
        cohorts; ``None`` if these cohorts have no users.
        """
        return tuple(
            rate(
                sum(cell.count for _, cell in finished),
                sum(size for size, _ in finished),
            )
            for finished in (self._finished_cells(column) for column in range(self.columns))
        )

    @property
    def columns(self) -> int:
        """The number of cells in each row."""
        return len(self.cohorts[0].cells) if self.cohorts else 0

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a dict for each cell, with values that JSON and CSV can represent.

        The keys: ``cohort`` and ``period`` (ISO 8601, such as ``2026-W48``), ``size``,
        ``offset`` (the number of periods after the cohort's own), ``count``, ``rate``,
        ``state``. As a data frame, ``table.to_pandas().pivot(index="cohort",
        columns="offset", values="rate")`` is the table with a row for each cohort.
        Blocks the event loop, as `to_csv` does.
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

    def _title(self) -> str:
        return f"{self._isolated(self.cohort)} → {self._isolated(self.activity)}"

    def _caption(self) -> str:
        unit = str(self.granularity)
        first = "their first " if self.first_time else ""
        later = "" if self.mode == "classic" else ", or in any later one"
        return (
            f"Rows: users with {first}“{self._isolated(self.cohort)}” in that {unit}. Columns: "
            f"the share of them with “{self._isolated(self.activity)}” so many {unit}s "
            f"later{later}. As of {self.until:%Y-%m-%d %H:%M}."
        )

    def _figures(self) -> Sequence[Figure]:
        unit = str(self.granularity)
        average = HeatRow(
            "All", sum(self.sizes), [HeatCell(mean, "of all so far") for mean in self.averages]
        )
        return [
            HeatMap(
                title="Retention by cohort",
                corner=unit.capitalize(),
                columns=[str(offset) for offset in range(self.columns)],
                rows=[average, *map(_heat_row, self.cohorts)],
                notes=[
                    f"… {unit} is not over yet",
                    "empty: in the future",
                    f"{_EMPTY_COHORT} no users",
                ],
            )
        ]

    def _finished_cells(self, column: int) -> list[tuple[int, Any]]:
        """Return the finished cells of a column, each with the size of its cohort."""
        return [
            (row.size, row.cells[column])
            for row in self.cohorts
            if row.cells[column].state is CellState.FINISHED
        ]


#: The text of a finished cell whose cohort has no users.
_EMPTY_COHORT = "\N{EN DASH}"

#: In the tooltip of a cell that has no count: what its period is.
_REASONS = {CellState.UNFINISHED: "not over yet", CellState.FUTURE: "in the future"}


def _heat_row(row: Cohort) -> HeatRow:
    return HeatRow(str(row.period), row.size, [_heat_cell(cell, row.size) for cell in row.cells])


def _heat_cell(cell: Cell, size: int) -> HeatCell:
    if cell.rate is not None:
        return HeatCell(cell.rate, f"{cell.count:,} of {size:,} in {cell.period}")
    if cell.state is CellState.FINISHED:
        return HeatCell(None, "no users in this cohort", _EMPTY_COHORT)
    text = "…" if cell.state is CellState.UNFINISHED else ""
    return HeatCell(None, f"{cell.period} is {_REASONS[cell.state]}", text)


def lazy_cohort(
    calendar: Sequence[Period], row: int, until: datetime, size: int, counts: Sequence[int]
) -> Cohort:
    """Return a cohort whose cells are made at the first access to its ``cells``.

    Half a million cells, made at once, would be traversed by several collections of Python's
    garbage collector, which stops all threads.

    Arguments:
        calendar: consecutive periods: those of the rows, then those of the columns of the
            last row, then the period that follows.
        row: the index of the row.
        until: the moment of the report.
        size: how many users the cohort has.
        counts: how many users returned, for each cell.
    """
    cohort = object.__new__(Cohort)
    vars(cohort).update(
        period=calendar[row], size=size, _cell_arguments=(calendar, row, until, counts)
    )
    return cohort


def _cell(period: Period, until: datetime, end: datetime, count: int, size: int) -> Cell:
    """Return a cell; without the count if its period ends after the moment of the report."""
    if end <= until:
        return Cell(period, CellState.FINISHED, count, rate(count, size))
    state = CellState.UNFINISHED if period.start < until else CellState.FUTURE
    return Cell(period, state, None, None)


def rate(count: int, total: int) -> float | None:
    """Return ``count / total``, from 0 to 1; ``None`` if the total is 0."""
    return count / total if total else None
