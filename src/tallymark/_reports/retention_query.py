"""The query of a retention table: which event sets its rows and columns are. Pure."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, cast, get_args

from .._core.arguments import check_flag, checked_int, checked_name
from .._core.events import Bitmap, EventSet
from .._core.keys import bitmap_key
from .._core.periods import Granularity, Period, dated, periods_between
from .._core.unions import cover
from .._core.untrusted import shown
from .._reading.bounds import check_bitmaps, check_number, check_uses
from .._reading.expressions import load_algebra
from .._reading.fanout import each_shard
from .._reading.keyspace import periods_of
from .._reading.requests import Request, in_steps
from ..errors import InvalidTypeError, InvalidValueError
from .retention import Mode, Retention, counted_cohort
from .retention_counts import CellCounts, count_cells

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from .._core.context import Context
    from .._core.periods import By
    from .._reading.requests import Query

__all__ = ["Selector", "check_table", "retention"]

#: What selects the users of a period: an event's name, or a function of the period.
Selector = str | Callable[[Period], EventSet]

#: Nobody is taken to have done anything before.
_BEGIN: Final = datetime(1970, 1, 1)


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
    """Return a retention table."""
    granularity = dated(by)
    periods = checked_int("periods", periods)
    if periods < 0:
        raise InvalidValueError(f"periods must be 0 or more, got {shown(periods)}")
    number = max(1, periods) if cohorts is None else checked_int("cohorts", cohorts)
    if number < 1:
        raise InvalidValueError(f"cohorts must be 1 or more, got {shown(number)}")
    check_table(context, number, periods + 1)
    if isinstance(mode, str):
        mode = cast("Mode", str.__str__(mode))  # of a subclass, too
    if type(mode) is not str or mode not in get_args(Mode):
        raise InvalidValueError(f"mode is 'classic' or 'unbounded', got {shown(mode)}{_hint(mode)}")
    check_flag("first_time", first_time)
    moment = context.local(None)
    if until is not None:
        moment = min(moment, context.local(until, "until"))
    last = Period.containing(granularity, moment).shift(-1)  # the last that is over
    # The rows' periods, the columns' beyond them, and one more, where the last of these ends.
    calendar = yield from in_steps(map(last.shift, range(1 - number, periods + 2)))
    rows = calendar[:number]
    chosen = yield from in_steps(_selected(context, cohort, period) for period in rows)
    active = yield from in_steps(_selected(context, activity, period) for period in rows)
    yield from check_bitmaps(context, (*chosen, *active))
    earlier = (yield from _earlier(context, cohort, rows[0], chosen[0])) if first_time else []
    yield from load_algebra()
    cells = CellCounts(number, periods, mode, first_time)
    yield from count_cells(context, chosen, active, earlier, cells)
    table = []
    for row in range(number):
        size, counts = cells.sizes[row], cells.counts[row]
        table.append(counted_cohort(calendar, row, moment, size, counts))
    return Retention(
        cohort=_name(cohort),
        activity=_name(activity),
        granularity=granularity,
        mode=mode,
        first_time=first_time,
        until=moment,
        cohorts=tuple(table),
    )


def check_table(context: Context, rows: int, columns: int) -> None:
    """Raise if a table is larger than one question may be."""
    check_number(context, rows, "cohorts")
    check_number(context, columns, "periods")
    check_uses(context, rows * columns, "cells (cohorts times periods)")


def _selected(context: Context, selector: Selector, period: Period) -> EventSet:
    """Return the event set that a selector names for a period."""
    if isinstance(selector, str):
        return context.during(checked_name("event", selector), period)
    if not callable(selector):
        raise InvalidTypeError(
            f"a cohort or activity is an event's name, or a function from a Period to an "
            f"event set, got {shown(selector)}"
        )
    return context.checked(selector(period))


def _name(selector: Selector) -> str:
    if isinstance(selector, str):
        return selector
    name = getattr(selector, "__name__", None)
    return name if isinstance(name, str) else "…"


def _hint(mode: object) -> str:
    known = isinstance(mode, str) and mode == "first_time"
    return "; first_time=True goes with either" if known else ""


def _earlier(
    context: Context, cohort: Selector, first: Period, chosen: EventSet
) -> Query[list[EventSet]]:
    """Return event sets whose union is everybody who came before the first cohort.

    Arguments:
        context: the database.
        cohort: what makes a cohort.
        first: the first cohort's period.
        chosen: its event set, whose events are those to look for.
    """
    if first.start <= _BEGIN:
        return []
    if isinstance(cohort, str):
        midnight = Period.containing(Granularity.DAY, first.start).start
        past = yield from _marked(context, [cohort], midnight)
        # Of a cohort of an hour, the hours before it on the same day.
        past += periods_between(Granularity.HOUR, midnight, first.start)
        return [Bitmap(context.origin, cohort, period) for period in past]
    events = dict.fromkeys(bitmap.event for bitmap in chosen.bitmaps() if bitmap.period is not None)
    # To the end of a month, so that there are no days to look at one by one.
    month = Period.containing(Granularity.MONTH, first.start - timedelta.resolution)
    marked = yield from _marked(context, list(events), month.end)
    # A period that touches two of those comes twice, but is asked about once.
    every = yield from in_steps(
        period
        for each in marked
        for period in periods_between(first.granularity, each.start, min(each.end, first.start))
        if period.start < first.start
    )
    before = dict.fromkeys(every)
    check_number(context, len(before), "periods before the first cohort")
    chosen_before = yield from in_steps(_selected(context, cohort, period) for period in before)
    yield from check_bitmaps(context, chosen_before)
    return chosen_before


def _marked(context: Context, events: Sequence[str], midnight: datetime) -> Query[list[Period]]:
    """Return the periods before a midnight whose bitmaps tell who was marked until then."""
    end = midnight.toordinal()
    if midnight <= _BEGIN:
        return []
    found: dict[Period, None] = {}
    if Granularity.MONTH in context.coverage.permanent:
        # Few enough to try them all, which is faster than to walk over all keys.
        periods = yield from in_steps(cover(_BEGIN.toordinal(), end, context.coverage))
        for event in events:
            exist = functools.partial(_exist, event=event, periods=periods)
            for replies in (yield from each_shard(context, exist)):
                found |= dict.fromkeys(itertools.compress(periods, replies))
    else:
        for event in events:
            there = [
                each for each in (yield from periods_of(context, event)) if each.start < midnight
            ]
            begin = max(_BEGIN, min((each.start for each in there), default=midnight))
            asked = set((yield from in_steps(cover(begin.toordinal(), end, context.coverage))))
            found |= dict.fromkeys(each for each in there if each in asked)
    return sorted(found, key=lambda period: period.start)


def _exist(context: Context, event: str, periods: Sequence[Period]) -> Query[list[int]]:
    """Return for each of some periods whether an event has a bitmap of it."""
    keys = yield from in_steps(
        bitmap_key(context.origin.prefix, event, period) for period in periods
    )
    replies: list[int] = yield Request([(b"EXISTS", key) for key in keys])
    return replies
