"""The query of a retention table: the event sets of its cohorts and activity. Pure."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Final, cast, get_args

from .._core.arguments import check_flag, checked_int, checked_name, iterated, plain_str
from .._core.calendars import calendar
from .._core.events import Bitmap, EventSet
from .._core.frozen import FrozenMapping
from .._core.periods import Granularity, Period, periods_between
from .._core.untrusted import shown
from .._reading.bounds import check_bitmaps, check_number, check_uses
from .._reading.existence import EPOCH, existing_sets, find_unknown, marked_periods
from .._reading.expressions import load_algebra
from .._reading.requests import Checkpoint, in_steps
from ..errors import InvalidTypeError, InvalidValueError
from .results import checked_labels
from .retention import CohortSource, Mode, Retention
from .retention_counts import RetentionSets, count_cells

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date, datetime

    from .._core.calendars import Calendar, Every
    from .._core.context import Context
    from .._reading.requests import Query

__all__ = [
    "Segment",
    "Segments",
    "Selector",
    "check_table",
    "checked_segments",
    "earlier_sets",
    "moment_of",
    "retention",
    "select",
    "select_segment",
    "selector_name",
]

#: Selects the users of a period: the name of an event, or a function from a period to an
#: event set.
Selector = str | Callable[[Period], EventSet]

#: How much later than the period that a function is called for are those that it may read.
_MARGIN: Final = timedelta(days=400)

#: The users of a segment: an event set, or a function from the period of a cohort to one.
Segment = EventSet | Callable[[Period], EventSet]

#: Segments by their names.
Segments = Mapping[str, Segment]


def retention(
    context: Context,
    cohort: Selector,
    activity: Selector,
    *,
    by: Every,
    anchor: date | None,
    periods: int | None,
    cohorts: int | None,
    until: date | None,
    mode: Mode,
    first_time: bool,
    segments: Segments | None,
    brackets: Iterable[int] | None,
    labels: Mapping[str, str] | None,
) -> Query[Retention]:
    """Count the cells of a retention table, and of one for each segment.

    Arguments:
        context: the database.
        cohort: selects the users of each cohort.
        activity: selects the active users of each period.
        by: the length of the periods.
        anchor: if that is a timedelta, the first day of one of the periods.
        periods: the number of periods after that of the cohort, 0 or more; None for 12.
        cohorts: the number of cohorts, 1 or more; None for as many as ``periods``.
        until: the moment of the report; None for now.
        mode: whether a user returns in exactly a period, or in that or any later one.
        first_time: whether a cohort has only the users who were in no earlier period.
        segments: for each segment an event set, or a function from the period of a cohort to one.
        brackets: the last offset of each bracket, in ascending order; None for one column for
            each period.
        labels: readable names of events.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed.
    """
    readable = checked_labels(labels)
    spans = calendar(by, None if anchor is None else context.local(anchor, "anchor"))
    columns = yield from _columns(context, periods, brackets)
    periods = columns[-1][1]
    rows = max(1, periods) if cohorts is None else checked_int("cohorts", cohorts)
    if rows < 1:
        raise InvalidValueError(f"cohorts must be 1 or more, got {shown(rows)}")
    names, selectors = checked_segments(context, segments)
    check_table(context, rows, periods + 1, 1 + len(names))
    if isinstance(mode, str):
        mode = cast("Mode", str.__str__(mode))  # an exact str, also of a subclass
    if type(mode) is not str or mode not in get_args(Mode):
        raise InvalidValueError(f"mode is 'classic' or 'unbounded', got {shown(mode)}{_hint(mode)}")
    check_flag("first_time", first_time)
    moment = moment_of(context, until)
    last = spans.containing(moment).shift(-1)  # the last complete period
    # The periods of the rows, of the last row's other columns, and the one after these.
    timeline = yield from in_steps(map(last.shift, range(1 - rows, periods + 2)))
    complete = timeline[:rows]
    cohort_sets = yield from in_steps(select(context, cohort, period) for period in complete)
    active_sets = yield from in_steps(select(context, activity, period) for period in complete)
    segment_sets = []
    for segment in selectors:
        of_rows = complete if callable(segment) else complete[:1]
        segment_sets.append(
            (yield from in_steps(select_segment(context, segment, period) for period in of_rows))
        )
    in_segments = itertools.chain.from_iterable(segment_sets)
    yield from check_bitmaps(context, (*cohort_sets, *active_sets, *in_segments))
    earlier: list[EventSet] = []
    if first_time:
        earlier = yield from earlier_sets(context, spans, cohort, complete[0])
    yield from load_algebra()
    sets = RetentionSets(cohort_sets, active_sets, earlier, segment_sets, columns, mode, first_time)
    cells, sweep = yield from count_cells(context, sets)
    unknown = yield from find_unknown(context, sorted(sweep.empty_events))

    def table(index: int, segments: Mapping[str, Retention]) -> Retention:
        segment = index - 1 if index else None
        rows_of_table = zip(cells.sizes[index], cells.counts[index], strict=True)
        return Retention(
            cohort=selector_name(cohort),
            activity=selector_name(activity),
            granularity=last.granularity,
            mode=mode,
            first_time=first_time,
            until=moment,
            cohorts=tuple(
                CohortSource(
                    timeline,
                    row,
                    moment,
                    columns,
                    counts,
                    functools.partial(sets.users_of_cell, segment),
                ).cohort(size, functools.partial(sets.users_of_cohort, segment, row))
                for row, (size, counts) in enumerate(rows_of_table)
            ),
            offsets=tuple(columns),
            unit=spans.unit,
            segment=names[segment] if segment is not None else None,
            segments=FrozenMapping(segments),
            labels=readable,
            unknown_events=() if index else unknown,
        )

    return table(0, {name: table(index, {}) for index, name in enumerate(names, 1)})


def _columns(
    context: Context, periods: int | None, brackets: Iterable[int] | None
) -> Query[list[tuple[int, int]]]:
    """Return for each column of a table the first and the last offset of its bracket."""
    if brackets is None:
        periods = 12 if periods is None else checked_int("periods", periods)
        if periods < 0:
            raise InvalidValueError(f"periods must be 0 or more, got {shown(periods)}")
        check_number(context, periods + 1, "periods")
        offsets = yield from in_steps(range(periods + 1))
        return list(zip(offsets, offsets, strict=True))
    if periods is not None:
        raise InvalidValueError("brackets say how many periods there are: leave out periods")
    limit = context.options.max_bitmaps
    lasts = [
        checked_int("a bracket", last)
        for last in itertools.islice(iterated("brackets must be several ints", brackets), limit)
    ]
    if not lasts or lasts[0] < 1 or any(map(operator.ge, lasts, lasts[1:])):
        raise InvalidValueError(
            f"brackets are the last offset of each, ascending from 1 or more, got {shown(lasts)}"
        )
    check_number(context, lasts[-1] + 1, "periods")
    firsts = [1, *(last + 1 for last in lasts[:-1])]
    return [(0, 0), *zip(firsts, lasts, strict=True)]


def check_table(context: Context, rows: int, columns: int, tables: int = 1) -> None:
    """Raise if tables have more cells than one query may count.

    Arguments:
        context: the database and its options.
        rows, columns: of one table.
        tables: how many tables there are: one for each segment, and that of all users.

    Raises:
        InvalidValueError: too many rows, columns or cells for ``max_bitmaps``.
    """
    check_number(context, rows, "cohorts")
    check_number(context, columns, "periods")
    check_uses(context, rows * columns * tables, "cells (cohorts times periods times tables)")


def moment_of(context: Context, until: date | None) -> datetime:
    """Return the moment of a report, naive: that of ``until``, and at most the present.

    Raises:
        InvalidTypeError, InvalidValueError: this is no moment.
    """
    present = context.local(None)
    return present if until is None else min(present, context.local(until, "until"))


def select(context: Context, selector: Selector, period: Period) -> EventSet:
    """Return the event set of the users that a selector selects for a period."""
    if isinstance(selector, str):
        return context.during(checked_name("event", selector), period)
    if not callable(selector):
        raise InvalidTypeError(
            f"a cohort or activity is an event's name, or a function from a Period to an "
            f"event set, got {shown(selector)}"
        )
    return context.checked(selector(period))


def select_segment(context: Context, segment: Segment, period: Period) -> EventSet:
    """Return the event set of a segment for a period."""
    return context.checked(segment(period) if callable(segment) else segment)


def checked_segments(
    context: Context, segments: Segments | None
) -> tuple[list[str], list[Segment]]:
    """Return the names and the event sets or functions of segments.

    Raises:
        InvalidTypeError, InvalidValueError: these are no segments, or of another database.
    """
    if segments is None:
        return [], []
    if not isinstance(segments, Mapping):
        raise InvalidTypeError(
            f"segments must be a dict from names to event sets or functions, got {shown(segments)}"
        )
    items = list(itertools.islice(segments.items(), context.options.max_bitmaps + 1))
    check_number(context, len(items), "segments")
    for _, segment in items:
        if not callable(segment):
            context.checked(segment)
    return (
        [checked_name("a segment's name", name) for name, _ in items],
        [segment for _, segment in items],
    )


def selector_name(selector: Selector) -> str:
    if isinstance(selector, str):
        return plain_str(selector)
    name = getattr(selector, "__name__", None)
    return name if isinstance(name, str) else "…"


def _hint(mode: object) -> str:
    is_first_time = isinstance(mode, str) and mode == "first_time"
    return "; first_time=True goes with either" if is_first_time else ""


def earlier_sets(
    context: Context, spans: Calendar, selector: Selector, first: Period
) -> Query[list[EventSet]]:
    """Return event sets whose union is all users of periods before the first one of a report.

    A function is called for one period of each month since 1970, to learn which events it reads,
    and then for all periods from the first bitmap of these events on. Sets without any bitmap are
    left out.

    Arguments:
        context: the database.
        spans: the calendar of the report.
        selector: selects the users of a period.
        first: the first period.
    """
    if first.start <= EPOCH:
        return []
    midnight = Period.containing(Granularity.DAY, first.start).start
    if isinstance(selector, str):
        selector = plain_str(selector)
        marked = yield from marked_periods(context, [selector], midnight)
        # For a period of one hour: the earlier hours of the same day.
        marked += periods_between(Granularity.HOUR, midnight, first.start)
        return [Bitmap(context.origin, selector, period) for period in marked]
    months = periods_between(Granularity.MONTH, EPOCH, first.start)
    samples = yield from in_steps(
        select(context, selector, spans.containing(month.start)) for month in months
    )
    yield from check_bitmaps(context, samples)
    events: dict[str, None] = {}
    with_flags: dict[EventSet, None] = {}
    for event_set in samples:
        for bitmap in event_set.bitmaps():
            if bitmap.period is not None:
                events[bitmap.event] = None
            else:
                with_flags[event_set] = None  # flags have no date, so there is no first one
        yield Checkpoint()
    last = Period.containing(Granularity.MONTH, first.start - timedelta.resolution)
    marked = yield from marked_periods(context, list(events), last.end)
    if not marked:
        return list(with_flags)
    # A function may read later periods than that which it is called for.
    begin = max(EPOCH, marked[0].start - _MARGIN)
    earlier = yield from in_steps(
        period for period in spans.between(begin, first.start) if period.start < first.start
    )
    check_number(context, len(earlier), "periods before the first one")
    event_sets = yield from in_steps(select(context, selector, period) for period in earlier)
    yield from check_bitmaps(context, event_sets)
    return (yield from existing_sets(context, list(dict.fromkeys([*with_flags, *event_sets]))))
