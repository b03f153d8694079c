"""The query of a retention table: which event sets its rows and columns are. Pure."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final, get_args

from .bounds import bounded, check_number, check_uses
from .errors import InvalidTypeError, InvalidValueError
from .events import EventSet
from .keys import bitmap_key, check_flag, checked_int
from .periods import Granularity, Period, dated, periods_between
from .requests import Checkpoint, Request, in_steps
from .retention import Cohort, Mode, Retention, table_cell
from .retention_counts import Tallies, count_cells
from .together import in_shards

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from .context import Context
    from .periods import By
    from .requests import Query

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
    if checked_int("periods", periods) < 0:
        raise InvalidValueError("periods must be 0 or more")
    number = max(1, periods) if cohorts is None else checked_int("cohorts", cohorts)
    if number < 1:
        raise InvalidValueError("cohorts must be 1 or more")
    check_table(context, number, periods + 1)
    if mode not in get_args(Mode):
        raise InvalidValueError(f"mode is 'classic' or 'unbounded', got {mode!r:.80}{_hint(mode)}")
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
    yield from bounded(context, (*chosen, *active))
    earlier = (yield from _earlier(context, cohort, rows[0], chosen[0])) if first_time else []
    tallies = Tallies(number, periods, mode, first_time)
    yield from count_cells(context, chosen, active, earlier, tallies)
    table = []
    for row in range(number):
        counts = tallies.counts[row]
        table.append((yield from _row(calendar, row, moment, tallies.sizes[row], counts)))
        yield Checkpoint()
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


def _row(
    calendar: Sequence[Period], row: int, moment: datetime, size: int, counts: Sequence[int]
) -> Query[Cohort]:
    """Return a row, from its period and those that follow."""
    own = calendar[row : row + len(counts) + 1]
    cells = yield from in_steps(
        table_cell(period, moment, following.start, count, size)
        for period, following, count in zip(own, own[1:], counts, strict=False)
    )
    return Cohort(calendar[row], size, tuple(cells))


def _selected(context: Context, selector: Selector, period: Period) -> EventSet:
    """Return the event set that a selector names for a period."""
    if isinstance(selector, str):
        return context.during(selector, period)
    if not callable(selector):
        raise InvalidTypeError(
            f"a cohort or activity is an event's name, or a function from a Period to an "
            f"event set, got {selector!r:.80}"
        )
    return context.checked(selector(period))


def _name(selector: Selector) -> str:
    return selector if isinstance(selector, str) else getattr(selector, "__name__", "…")


def _hint(mode: object) -> str:
    return "; first_time=True goes with either" if mode == "first_time" else ""


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
    events = dict.fromkeys(bitmap.event for bitmap in chosen.bitmaps() if bitmap.period is not None)
    months = yield from _marked_months(context, list(events), first.start)
    if not isinstance(cohort, str):
        # A period that touches two months comes twice, but is asked about once.
        every = yield from in_steps(
            period
            for month in months
            for period in periods_between(
                first.granularity, month.start, min(month.end, first.start)
            )
            if period.start < first.start
        )
        before = dict.fromkeys(every)
        check_number(context, len(before), "periods before the first cohort")
        chosen_before = yield from in_steps(_selected(context, cohort, period) for period in before)
        yield from bounded(context, chosen_before)
        return chosen_before
    midnight = Period.containing(Granularity.DAY, first.start).start
    past: list[EventSet] = []
    for month in months:
        if month.start < midnight:
            past += context.days(cohort, month.start, min(month.end, midnight)).bitmaps()
            yield Checkpoint()
    # Of a cohort of an hour, the hours before it on the same day.
    past += [
        context.during(cohort, hour)
        for hour in periods_between(Granularity.HOUR, midnight, first.start)
    ]
    return past


def _marked_months(context: Context, events: Sequence[str], end: datetime) -> Query[list[Period]]:
    """Return the months that begin before a moment and have a bitmap of any of some events.

    Whatever is marked has a month, so these tell when there is anything to
    see. To try them all is faster than to walk over all keys of a database.
    """
    months = yield from in_steps(periods_between(Granularity.MONTH, _BEGIN, end))
    found: set[Period] = set()
    for event in events:
        if context.shards:
            every = yield from in_shards(
                context, functools.partial(_exist, event=event, months=months)
            )
        else:
            every = [(yield from _exist(context, event, months))]
        found.update(month for replies in every for month in itertools.compress(months, replies))
    return sorted(found, key=lambda month: month.start)


def _exist(context: Context, event: str, months: Sequence[Period]) -> Query[list[int]]:
    """Return for each of some months whether an event has a bitmap of it."""
    keys = yield from in_steps(bitmap_key(context.origin.prefix, event, month) for month in months)
    replies: list[int] = yield Request([(b"EXISTS", key) for key in keys])
    return replies
