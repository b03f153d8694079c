"""Retention tables: how many users of each cohort returned in later periods. Pure.

A cohort is the users who have the cohort event in one period. A user of the cohort returns in
a later period with the activity event. A cell is the number of users of one cohort who
returned in one period.
"""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from .._charts.drawing import Series
from .._charts.heatmap import HeatCell, HeatMap, HeatRow
from .._charts.lines import LineChart
from .._charts.page import isolated
from .._core.arguments import immutable
from .._core.frozen import FrozenMapping
from .results import Report, made

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from .._charts.page import Figure
    from .._core.events import EventSet
    from .._core.periods import Granularity, Period

__all__ = [
    "Cell",
    "CellState",
    "Cohort",
    "CohortSource",
    "CurvePoint",
    "Mode",
    "Retention",
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
        period: the period of the return; of a bracket, the first one.
        state: whether the period was complete; of a bracket, all periods.
        count: how many users returned; ``None`` unless the period was complete.
        rate: the retention rate, ``count`` divided by the size of the cohort, from 0 to 1;
            ``None`` unless the period was complete and the cohort has users.
    """

    period: Period
    state: CellState
    count: int | None
    rate: float | None
    _users: Callable[[], EventSet] | None = field(default=None, compare=False, repr=False)

    @property
    def users(self) -> EventSet | None:
        """The event set of the users who returned; ``None`` if ``count`` is ``None``."""
        return self._users() if self._users else None


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
    _users: Callable[[], EventSet] | None = field(default=None, compare=False, repr=False)

    @property
    def users(self) -> EventSet:
        """The event set of the users of the cohort.

        Raises:
            InvalidValueError: no report of a tally has made this value.
        """
        return made(self._users, self)()

    if not TYPE_CHECKING:  # a type checker would accept every attribute

        def __getattr__(self, name: str) -> object:
            source = vars(self).get("_source")
            if name != "cells" or source is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            cells = tuple(source.cells(self.size))
            vars(self)["cells"] = cells
            return cells

        def __reduce__(self) -> tuple[object, ...]:
            return Cohort, (self.period, self.size, self.cells, self._users)


class CurvePoint(NamedTuple):
    """A point of a retention curve: a column of the table, over all cohorts.

    Attributes:
        name: the offset of the column's periods, such as ``4`` or, for a bracket, ``4-7``.
        size: how many users the cohorts have whose cells in this column are finished.
        rate: the share of them who returned, from 0 to 1; ``None`` if there are no users.
        unweighted: the mean of the rates of these cohorts, each counting equally; ``None`` if
            there are no users.
    """

    name: str
    size: int
    rate: float | None
    unweighted: float | None


_NO_SEGMENTS: FrozenMapping[str, Any] = FrozenMapping()


@dataclass(frozen=True)
class Retention(Report):
    """A retention table: a row for each cohort, a column for its period and each one after it.

    Attributes:
        cohort: the name of the cohort event, or of the function that selects the cohort.
        activity: the name of the activity event, or of the function that selects the active
            users.
        granularity: the length of a period; DAY also for periods of several days, of which
            ``unit`` says the length.
        mode: ``"classic"``: a user returns in exactly that period; ``"unbounded"``: in that
            period or any later one.
        first_time: whether a cohort has only the users who were in no earlier period.
        until: the moment of the report, naive, in the tally's time zone.
        cohorts: the rows, from the earliest period to the latest.
        offsets: for each column its first and its last period, as the number of periods after
            the cohort's own. They differ in brackets.
        unit: the length of a period, such as ``week`` or ``7 days``.
        segment: the name of the segment; ``None`` for the table of all users.
        segments: a table for each segment, by name; none in the table of a segment.
    """

    cohort: str
    activity: str
    granularity: Granularity
    mode: Mode
    first_time: bool
    until: datetime
    cohorts: tuple[Cohort, ...]
    offsets: tuple[tuple[int, int], ...] = field(default=(), kw_only=True)
    unit: str = field(default="", kw_only=True)
    segment: str | None = field(default=None, kw_only=True)
    segments: Mapping[str, Retention] = field(default=_NO_SEGMENTS, kw_only=True, repr=False)

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
        cohorts; ``None`` if these cohorts have no users. See `unweighted_averages`.
        """
        return tuple(
            rate(
                sum(cell.count for _, cell in finished),
                sum(size for size, _ in finished),
            )
            for finished in (self._finished_cells(column) for column in range(self.columns))
        )

    @property
    def unweighted_averages(self) -> tuple[float | None, ...]:
        """The mean of the rates of each column, from 0 to 1: every cohort counts equally.

        Cohorts without users have no rate; ``None`` if no cohort has one.
        """
        columns = (self._finished_cells(column) for column in range(self.columns))
        all_rates = ([cell.rate for size, cell in finished if size] for finished in columns)
        return tuple(sum(rates) / len(rates) if rates else None for rates in all_rates)

    @property
    def curve(self) -> tuple[CurvePoint, ...]:
        """The retention curve: a point for each column."""
        names = (_column_name(first, last) for first, last in self._offsets)
        averages = zip(names, self.averages, self.unweighted_averages, strict=True)
        return tuple(
            CurvePoint(
                name,
                sum(size for size, _ in self._finished_cells(column)),
                average,
                unweighted,
            )
            for column, (name, average, unweighted) in enumerate(averages)
        )

    @property
    def columns(self) -> int:
        """The number of cells in each row."""
        return len(self.cohorts[0].cells) if self.cohorts else 0

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a dict for each cell, with values that JSON and CSV can represent.

        The keys: ``cohort`` and ``period`` (ISO 8601, such as ``2026-W48``), ``size``,
        ``offset`` and ``last_offset`` (the first and the last period of the cell, as the number
        of periods after the cohort's own; they differ in brackets only), ``count``, ``rate``,
        ``state``. With segments, ``segment`` comes first: ``None`` for all users, whose rows
        come before those of the segments. As a data frame, ``table.to_pandas().pivot(
        index="cohort", columns="offset", values="rate")`` is the table with a row for each
        cohort, if there are no segments. Blocks the event loop, as `to_csv` does.
        """
        rows = []
        for table in (self, *self.segments.values()):
            segment = {"segment": table.segment} if self.segments else {}
            for row in table.cohorts:
                for (first, last), cell in zip(self._offsets, row.cells, strict=True):
                    rows.append(
                        {
                            **segment,
                            "cohort": str(row.period),
                            "size": row.size,
                            "offset": first,
                            "last_offset": last,
                            "period": str(cell.period),
                            "count": cell.count,
                            "rate": cell.rate,
                            "state": cell.state.value,
                        }
                    )
        return rows

    def _title(self) -> str:
        return f"{self._isolated(self.cohort)} → {self._isolated(self.activity)}"

    def _caption(self) -> str:
        period, periods = _words(_unit(self))
        first = "their first " if self.first_time else ""
        later = "" if self.mode == "classic" else ", or in any later one"
        return (
            f"Rows: users with {first}“{self._isolated(self.cohort)}” in that {period}. Columns: "
            f"the share of them with “{self._isolated(self.activity)}” so many {periods} "
            f"later{later}. As of {self.until:%Y-%m-%d %H:%M}."
        )

    def _figures(self) -> Sequence[Figure]:
        offsets = self._offsets
        table = _heat_map(self, offsets, "Retention by cohort")
        of_segments = [
            _heat_map(segment, offsets, f"Retention by cohort: {isolated(name)}")
            for name, segment in self.segments.items()
        ]
        if self.columns < 2:
            return [table, *of_segments]
        curve = LineChart(
            title="Retention curve",
            labels=table.columns,
            series=[
                Series(each.segment or "All users", each.averages)
                for each in (self, *self.segments.values())
            ],
            rates=True,
            above="Share of the users of all cohorts",
            below=f"{_words(_unit(self))[1].capitalize()} later",
        )
        return [table, curve, *of_segments]

    @property
    def _offsets(self) -> tuple[tuple[int, int], ...]:
        return self.offsets or tuple((column, column) for column in range(self.columns))

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


def _unit(table: Retention) -> str:
    return table.unit or str(table.granularity)


def _words(unit: str) -> tuple[str, str]:
    """Return the singular and the plural of the unit of a table."""
    if unit.isalpha():
        return unit, f"{unit}s"
    return f"period of {unit}", f"periods of {unit}"


def _heat_map(table: Retention, offsets: Sequence[tuple[int, int]], title: str) -> HeatMap:
    unit = _unit(table)
    average = HeatRow(
        "All", sum(table.sizes), [HeatCell(mean, "of all so far") for mean in table.averages]
    )
    return HeatMap(
        title=title,
        corner=unit.capitalize(),
        columns=[point.name for point in table.curve],
        rows=[average, *(_heat_row(table.mode, offsets, row) for row in table.cohorts)],
        notes=[
            f"… {_words(unit)[0]} is not over yet",
            "empty: in the future",
            f"{_EMPTY_COHORT} no users",
        ],
    )


def _heat_row(mode: Mode, offsets: Sequence[tuple[int, int]], row: Cohort) -> HeatRow:
    cells = [
        _heat_cell(mode, cell, row.size, last - first)
        for (first, last), cell in zip(offsets, row.cells, strict=True)
    ]
    return HeatRow(str(row.period), row.size, cells)


def _heat_cell(mode: Mode, cell: Cell, size: int, more: int) -> HeatCell:
    """Return a cell of the heat map.

    Arguments:
        mode: that of the table.
        cell: the cell.
        size: how many users the cohort has.
        more: how many periods of the cell's bracket follow the first one.
    """
    if cell.state is CellState.FINISHED and cell.rate is None:
        return HeatCell(None, "no users in this cohort", _EMPTY_COHORT)
    periods = f"{cell.period} to {cell.period.shift(more)}" if more else str(cell.period)
    if cell.rate is not None:
        when = periods if mode == "classic" else f"{cell.period} or later"
        return HeatCell(cell.rate, f"{cell.count:,} of {size:,} in {when}")
    text = "…" if cell.state is CellState.UNFINISHED else ""
    return HeatCell(None, f"{periods} is {_REASONS[cell.state]}", text)


def _column_name(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


class CohortSource(NamedTuple):
    """What the cells of a cohort are made of.

    Half a million cells, made at once, would be traversed by several collections of Python's
    garbage collector, which stops all threads. So they are made at the first access.

    Attributes:
        timeline: consecutive periods: those of the rows, then those of the columns of the last
            row, then the period that follows.
        row: the index of the row.
        until: the moment of the report.
        columns: for each column the first and the last offset.
        counts: how many users returned, by column.
        users_of_cell: returns the event set of a row and a column.
    """

    timeline: Sequence[Period]
    row: int
    until: datetime
    columns: Sequence[tuple[int, int]]
    counts: Sequence[int]
    users_of_cell: Callable[[int, int], EventSet]

    def cohort(self, size: int, users: Callable[[], EventSet]) -> Cohort:
        """Return the cohort, with so many users."""
        cohort = object.__new__(Cohort)
        vars(cohort).update(period=self.timeline[self.row], size=size, _users=users, _source=self)
        return cohort

    def cells(self, size: int) -> Iterator[Cell]:
        """Yield the cells of a cohort of so many users."""
        for column, ((first, last), count) in enumerate(
            zip(self.columns, self.counts, strict=True)
        ):
            period = self.timeline[self.row + first]
            if self.timeline[self.row + last + 1].start <= self.until:
                users = functools.partial(self.users_of_cell, self.row, column)
                yield Cell(period, CellState.FINISHED, count, rate(count, size), users)
            else:
                begun = period.start < self.until
                state = CellState.UNFINISHED if begun else CellState.FUTURE
                yield Cell(period, state, None, None)


def rate(count: int, total: int) -> float | None:
    """Return ``count / total``, from 0 to 1; ``None`` if the total is 0."""
    return count / total if total else None
