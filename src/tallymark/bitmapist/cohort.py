"""Cohort tables as in bitmapist: the numbers, an HTML form for their arguments, HTML and CSV.

A row is a cohort: the users of one event in a period. Its cells say how many of them have
another event in that period and in later ones. `tallymark.SyncTally.retention` does the same,
and knows which periods are not over yet.
"""

from __future__ import annotations

import calendar
import functools
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

from .._core.untrusted import shown
from .._reading.queries import is_empty
from .._reports.retention_counts import CellCounts, RetentionSets, count_cells
from .._reports.retention_query import check_table
from ..errors import InvalidValueError
from .cohort_pages import render_csv_data, render_html_data, render_html_form
from .dates import add_month, utc_now
from .period_events import CalendarEvents, DayEvents, MonthEvents, WeekEvents, YearEvents
from .selections import Universe, resolve
from .sets import selection_of
from .systems import System, tally_of, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._core.context import Context
    from .._core.events import EventSet
    from .._reading.requests import Query
    from .._sync.tally import SyncTally
    from .cohort_pages import TimeGroup

__all__ = [
    "CUSTOM_HANDLERS",
    "get_dates_data",
    "render_csv_data",
    "render_html_data",
    "render_html_form",
    "set_custom_handler",
]

#: The functions that `set_custom_handler` has registered, by name.
CUSTOM_HANDLERS: dict[str, Callable[..., Any]] = {}

#: How many rows a table by years has.
_YEAR_ROWS: Final = 3


def set_custom_handler(event_name: str, callback: Callable[..., Any]) -> None:
    """Register a function that makes the events for a name, such as a combination.

    Arguments:
        event_name: the name, as an argument of `get_dates_data`.
        callback: called as ``callback(name, cls, cls_args)``; returns events.
            ``cls(another_name, *cls_args)`` makes those of another name in the same period,
            and the callback may combine several of them. ``cls`` is `DayEvents`,
            `WeekEvents`, `MonthEvents` or `YearEvents`.
    """
    CUSTOM_HANDLERS[event_name] = callback


def get_dates_data(
    select1: str,
    select2: str,
    select1b: str | None = None,
    select2b: str | None = None,
    time_group: TimeGroup = "days",
    system: System = "default",
    as_percent: bool = True,
    num_results: int = 31,
    num_of_rows: int = 12,
    start_date: str | None = None,
) -> list[list[Any]]:
    """Return how many users of one event returned to another one, period by period.

    Arguments:
        select1: the event whose users form a row.
        select2: the event that counts as a return.
        select1b, select2b: an event that the users of ``select1`` or ``select2`` must have
            too, in the same period; none by default.
        time_group: the length of a period: ``"days"``, ``"weeks"``, ``"months"``, ``"years"``.
        system: a name in `SYSTEMS`, or a client.
        as_percent: whether cells are per cent of the row's users, or numbers of users.
        num_results: the number of rows; by years there are always three.
        num_of_rows: the number of periods that each row has after its own.
        start_date: the first row's date, as ``"2026-11-23"``; by default, the last row is
            the present period.

    Returns:
        A list for each row, from the earliest: a moment of its period, the number of its
        users, and the cells: the row's own period, the next one, and so on. A cell is
        ``""`` if the row has no users, or if no user at all returned in that period; it is
        ``0.0`` if users returned, but none of the row.

    Raises:
        InvalidValueError: a time group or date is not valid; or there would be more than
            20,000 rows or columns, or 500,000 cells.
        redis.RedisError: Redis did not answer.
    """
    rows = _YEAR_ROWS if time_group == "years" else int(num_results)
    columns = max(0, int(num_of_rows) + 1)
    if rows < 1:
        return []
    tally = tally_of(system)
    check_table(tally.backend.context, rows, columns)
    moments = _moments(time_group, rows, rows - 1 + columns, start_date)
    with translated():
        select = functools.partial(_select, tally, Universe(tally), time_group, system)
        cohorts = [select(moment, select1, select1b) for moment in moments[:rows]]
        active = [select(moment, select2, select2b) for moment in moments] if columns else []
        query = _count_table(tally.backend.context, cohorts, active, columns)
        table, nonempty = tally.backend.reader.answer(query)
    return [
        [moments[row], size]
        + [
            _cell(table.counts[0][row][column], size, row + column in nonempty, as_percent)
            for column in range(columns)
        ]
        for row, size in enumerate(table.sizes[0])
    ]


def _moments(
    time_group: TimeGroup, rows: int, count: int, start_date: str | None
) -> list[datetime]:
    """Return a moment of each period: of the rows, and of the columns after the last row."""
    later = _LATER.get(time_group)
    if later is None:
        raise InvalidValueError(
            f"time_group is one of {', '.join(map(repr, _LATER))}, got {shown(time_group)}"
        )
    try:
        if start_date:
            start = datetime.strptime(start_date, "%Y-%m-%d").replace(tzinfo=timezone.utc)
            first = later(start, 0)
        else:
            first = later(utc_now(), 1 - rows)
        return [later(first, number) for number in range(max(rows, count))]
    except (ValueError, OverflowError) as error:
        raise InvalidValueError(
            "start_date is a date such as 2026-11-23, and all periods are in the years 1 to "
            f"9999: {error}"
        ) from error


def _months_later(moment: datetime, count: int) -> datetime:
    year, month = add_month(moment.year, moment.month, count)
    return moment.replace(year=year, month=month, day=1)


def _years_later(moment: datetime, count: int) -> datetime:
    year = moment.year + count
    no_such_day = (moment.month, moment.day) == (2, 29) and not calendar.isleap(year)
    return moment.replace(year=year, day=28 if no_such_day else moment.day)


_LATER: Final[dict[str, Callable[[datetime, int], datetime]]] = {
    "days": lambda moment, count: moment + timedelta(days=count),
    "weeks": lambda moment, count: moment + timedelta(weeks=count),
    "months": _months_later,
    "years": _years_later,
}


_CLASSES: Final[dict[str, type[CalendarEvents]]] = {
    "days": DayEvents,
    "weeks": WeekEvents,
    "months": MonthEvents,
    "years": YearEvents,
}


def _events(name: str, time_group: TimeGroup, moment: date, system: System) -> Any:
    """Return the events of a name, or those of its custom handler, in the period of a moment."""
    cls = _CLASSES[time_group]
    arguments = (*cls.numbers(moment), system)
    if name in CUSTOM_HANDLERS:
        return CUSTOM_HANDLERS[name](name, cls, arguments)
    make: Any = cls
    return make(name, *arguments)


def _select(
    tally: SyncTally,
    universe: Universe,
    time_group: TimeGroup,
    system: System,
    moment: datetime,
    select: str,
    also: str | None,
) -> EventSet:
    """Return the users of an event, or those of two events, in the period of a moment."""
    selection = selection_of(_events(select, time_group, moment, system))
    if also:
        selection &= selection_of(_events(also, time_group, moment, system))
    return resolve(tally, selection, universe)


def _count_table(
    context: Context, cohorts: Sequence[EventSet], active: Sequence[EventSet], columns: int
) -> Query[tuple[CellCounts, set[int]]]:
    """Count all cells.

    Returns:
        The counts, and the indexes in ``active`` of the event sets that have users.
    """
    offsets = [(column, column) for column in range(columns)]
    sets = RetentionSets(cohorts, active, (), (), offsets, "classic", first_time=False)
    table, _ = yield from count_cells(context, sets)
    shown_periods: set[int] = set()
    nonempty: set[int] = set()
    for row, size in enumerate(table.sizes[0]):
        if size:
            shown_periods.update(range(row, row + columns))
            nonempty.update(row + at for at, count in enumerate(table.counts[0][row]) if count)
    for period in sorted(shown_periods - nonempty):
        if not (yield from is_empty(context, active[period])):
            nonempty.add(period)
    return table, nonempty


def _cell(count: int, size: int, period_has_users: bool, as_percent: bool) -> Any:
    if not size or not period_has_users:
        return ""
    if not count:
        return 0.0
    return count / size * 100 if as_percent else count
