"""Cohort tables as bitmapist makes them: the numbers, an HTML form to choose them, HTML and CSV.

A row is who did one thing in a period; its cells tell how many of them did another thing in
that period and in those after it. `tallymark.SyncTally.retention` does the same, and knows
periods that are not over.
"""

from __future__ import annotations

import calendar
import functools
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

from .._core.excerpts import shown
from .._reading.queries import is_empty
from .._reports.retention_counts import Tallies, count_cells
from .._reports.retention_query import check_table
from ..errors import InvalidValueError
from .cohort_pages import render_csv_data, render_html_data, render_html_form
from .dates import add_month, utc_now
from .known_users import Known, located
from .period_events import CalendarEvents, DayEvents, MonthEvents, WeekEvents, YearEvents
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

#: Functions that make events of names, by name; `set_custom_handler` puts them here.
CUSTOM_HANDLERS: dict[str, Callable[..., Any]] = {}

#: How many rows a table by years has.
_YEARS: Final = 3


def set_custom_handler(event_name: str, callback: Callable[..., Any]) -> None:
    """Let a function say which users a name stands for, such as a combination of events.

    Arguments:
        event_name: the name, for `get_dates_data` to meet.
        callback: is called as ``callback(name, cls, cls_args)`` and returns events: with
            ``cls(another_name, *cls_args)`` it gets those of the period in question, and
            may combine several of them. ``cls`` is `DayEvents`, `WeekEvents`, `MonthEvents`
            or `YearEvents`.
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
    """Return how many users of one event came back to another one, period by period.

    Arguments:
        select1: the event that makes a row.
        select2: the event that counts as coming back.
        select1b, select2b: an event that the users of the first or the second have to be
            in too, in the same period; none by default.
        time_group: how long a period is: ``"days"``, ``"weeks"``, ``"months"``, ``"years"``.
        system: where: a name of `SYSTEMS`, or a client.
        as_percent: whether cells are per cent of the row's users, or numbers of users.
        num_results: how many rows; by years there are always three.
        num_of_rows: how many periods after its own each row has.
        start_date: the first row's date, as ``"2026-11-23"``; by default, the last row is
            of the present period.

    Returns:
        A list for each row, from the earliest: a moment of its period, the number of its
        users, and the cells: the row's own period, the next one, and so on. A cell is
        ``""`` if the row has no users, or nobody did the second thing in that period; it
        is ``0.0`` if all who did are not of the row.

    Raises:
        InvalidValueError: a time group or date is none; or there would be more than 20,000
            rows or columns, or 500,000 cells.
        redis.RedisError: Redis did not answer.
    """
    rows = _YEARS if time_group == "years" else int(num_results)
    columns = max(0, int(num_of_rows) + 1)
    if rows < 1:
        return []
    tally = tally_of(system)
    check_table(tally.backend.context, rows, columns)
    moments = _moments(time_group, rows, rows - 1 + columns, start_date)
    with translated():
        known = Known(tally)
        chosen = functools.partial(_chosen, tally, known, time_group, system)
        cohorts = [chosen(moment, select1, select1b) for moment in moments[:rows]]
        active = [chosen(moment, select2, select2b) for moment in moments] if columns else []
        query = _counted(tally.backend.context, cohorts, active, columns)
        tallies, somebody = tally.backend.reader.answer(query)
    return [
        [moments[row], size]
        + [
            _cell(tallies.counts[row][column], size, row + column in somebody, as_percent)
            for column in range(columns)
        ]
        for row, size in enumerate(tallies.sizes)
    ]


def _moments(
    time_group: TimeGroup, rows: int, count: int, start_date: str | None
) -> list[datetime]:
    """Return a moment of the period of each row, and of those columns that go beyond."""
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
    """Return the events that a name stands for, in the period of a moment."""
    cls = _CLASSES[time_group]
    arguments = (*cls.numbers(moment), system)
    if name in CUSTOM_HANDLERS:
        return CUSTOM_HANDLERS[name](name, cls, arguments)
    make: Any = cls
    return make(name, *arguments)


def _chosen(
    tally: SyncTally,
    known: Known,
    time_group: TimeGroup,
    system: System,
    moment: datetime,
    select: str,
    also: str | None,
) -> EventSet:
    """Return the users of an event, and maybe of another one too, in the period of a moment."""
    selection = selection_of(_events(select, time_group, moment, system))
    if also:
        selection &= selection_of(_events(also, time_group, moment, system))
    return located(tally, selection, known)


def _counted(
    context: Context, cohorts: Sequence[EventSet], active: Sequence[EventSet], columns: int
) -> Query[tuple[Tallies, set[int]]]:
    """Count all cells; return them, and which of the periods have anybody who was active."""
    tallies = Tallies(len(cohorts), columns - 1, "classic", first_time=False)
    yield from count_cells(context, cohorts, active, (), tallies)
    asked: set[int] = set()
    somebody: set[int] = set()
    for row, size in enumerate(tallies.sizes):
        if size:
            asked.update(range(row, row + columns))
            somebody.update(row + at for at, count in enumerate(tallies.counts[row]) if count)
    for period in sorted(asked - somebody):
        if not (yield from is_empty(context, active[period])):
            somebody.add(period)
    return tallies, somebody


def _cell(count: int, size: int, somebody: bool, as_percent: bool) -> Any:
    if not size or not somebody:
        return ""
    if not count:
        return 0.0
    return count / size * 100 if as_percent else count
