"""The query of a retention table: the event sets of its cohorts and activity. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, cast, get_args

from .._core.arguments import check_flag, checked_int, checked_name
from .._core.events import Bitmap, EventSet
from .._core.periods import Granularity, Period, dated, periods_between
from .._core.untrusted import shown
from .._reading.bounds import check_bitmaps, check_number, check_uses
from .._reading.existence import EPOCH, marked_periods
from .._reading.expressions import load_algebra
from .._reading.requests import in_steps
from ..errors import InvalidTypeError, InvalidValueError
from .retention import Mode, Retention, lazy_cohort
from .retention_counts import CellCounts, count_cells

if TYPE_CHECKING:
    from datetime import date

    from .._core.context import Context
    from .._core.periods import By
    from .._reading.requests import Query

__all__ = ["Selector", "check_table", "retention"]

#: Selects the users of a period: the name of an event, or a function from a period to an
#: event set.
Selector = str | Callable[[Period], EventSet]


def retention(
    context: Context,
    cohort: Selector,
    activity: Selector,
    *,
    by: By,
    periods: int,
    cohorts: int | None,
    until: date | None,
    mode: Mode,
    first_time: bool,
) -> Query[Retention]:
    """Count the cells of a retention table.

    Arguments:
        context: the database.
        cohort: selects the users of each cohort.
        activity: selects the active users of each period.
        by: the granularity of the periods.
        periods: the number of periods after that of the cohort, 0 or more.
        cohorts: the number of cohorts, 1 or more; None for as many as ``periods``.
        until: the moment of the report; None for now.
        mode: whether a user returns in exactly a period, or in that or any later one.
        first_time: whether a cohort has only the users who were in no earlier period.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed.
    """
    granularity = dated(by)
    periods = checked_int("periods", periods)
    if periods < 0:
        raise InvalidValueError(f"periods must be 0 or more, got {shown(periods)}")
    rows = max(1, periods) if cohorts is None else checked_int("cohorts", cohorts)
    if rows < 1:
        raise InvalidValueError(f"cohorts must be 1 or more, got {shown(rows)}")
    check_table(context, rows, periods + 1)
    if isinstance(mode, str):
        mode = cast("Mode", str.__str__(mode))  # an exact str, also of a subclass
    if type(mode) is not str or mode not in get_args(Mode):
        raise InvalidValueError(f"mode is 'classic' or 'unbounded', got {shown(mode)}{_hint(mode)}")
    check_flag("first_time", first_time)
    moment = context.local(None)
    if until is not None:
        moment = min(moment, context.local(until, "until"))
    last = Period.containing(granularity, moment).shift(-1)  # the last complete period
    # The periods of the rows, of the last row's other columns, and the one after these.
    calendar = yield from in_steps(map(last.shift, range(1 - rows, periods + 2)))
    complete = calendar[:rows]
    cohort_sets = yield from in_steps(_select(context, cohort, period) for period in complete)
    active_sets = yield from in_steps(_select(context, activity, period) for period in complete)
    yield from check_bitmaps(context, (*cohort_sets, *active_sets))
    earlier_sets: list[EventSet] = []
    if first_time:
        earlier_sets = yield from _earlier_sets(context, cohort, complete[0], cohort_sets[0])
    yield from load_algebra()
    cells = CellCounts(rows, periods, mode, first_time)
    yield from count_cells(context, cohort_sets, active_sets, earlier_sets, cells)
    return Retention(
        cohort=_selector_name(cohort),
        activity=_selector_name(activity),
        granularity=granularity,
        mode=mode,
        first_time=first_time,
        until=moment,
        cohorts=tuple(
            lazy_cohort(calendar, row, moment, size, counts)
            for row, (size, counts) in enumerate(zip(cells.sizes, cells.counts, strict=True))
        ),
    )


def check_table(context: Context, rows: int, columns: int) -> None:
    """Raise if a table has more cells than one query may count.

    Raises:
        InvalidValueError: too many rows, columns or cells for ``max_bitmaps``.
    """
    check_number(context, rows, "cohorts")
    check_number(context, columns, "periods")
    check_uses(context, rows * columns, "cells (cohorts times periods)")


def _select(context: Context, selector: Selector, period: Period) -> EventSet:
    """Return the event set of the users that a selector selects for a period."""
    if isinstance(selector, str):
        return context.during(checked_name("event", selector), period)
    if not callable(selector):
        raise InvalidTypeError(
            f"a cohort or activity is an event's name, or a function from a Period to an "
            f"event set, got {shown(selector)}"
        )
    return context.checked(selector(period))


def _selector_name(selector: Selector) -> str:
    if isinstance(selector, str):
        return selector
    name = getattr(selector, "__name__", None)
    return name if isinstance(name, str) else "…"


def _hint(mode: object) -> str:
    is_first_time = isinstance(mode, str) and mode == "first_time"
    return "; first_time=True goes with either" if is_first_time else ""


def _earlier_sets(
    context: Context, cohort: Selector, first: Period, first_set: EventSet
) -> Query[list[EventSet]]:
    """Return event sets whose union is all users of periods before the first cohort.

    Arguments:
        context: the database.
        cohort: selects the users of a cohort.
        first: the period of the first cohort.
        first_set: the event set of the first cohort. If the selector is a function, the
            earlier periods are those for which an event of this set has bitmaps.
    """
    if first.start <= EPOCH:
        return []
    if isinstance(cohort, str):
        midnight = Period.containing(Granularity.DAY, first.start).start
        marked = yield from marked_periods(context, [cohort], midnight)
        # For a cohort of one hour: the earlier hours of the same day.
        marked += periods_between(Granularity.HOUR, midnight, first.start)
        return [Bitmap(context.origin, cohort, period) for period in marked]
    events = dict.fromkeys(
        bitmap.event for bitmap in first_set.bitmaps() if bitmap.period is not None
    )
    # The end of a month: bitmaps of months cover the range, without bitmaps of single days.
    month = Period.containing(Granularity.MONTH, first.start - timedelta.resolution)
    marked = yield from marked_periods(context, list(events), month.end)
    overlapping = yield from in_steps(
        period
        for span in marked
        for period in periods_between(first.granularity, span.start, min(span.end, first.start))
        if period.start < first.start
    )
    earlier = dict.fromkeys(overlapping)  # a period may overlap two marked periods
    check_number(context, len(earlier), "periods before the first cohort")
    event_sets = yield from in_steps(_select(context, cohort, period) for period in earlier)
    yield from check_bitmaps(context, event_sets)
    return event_sets
