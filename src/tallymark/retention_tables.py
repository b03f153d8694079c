"""The query of a retention table: which bitmaps it fetches, and how it counts. Pure.

The server only hands out parts of bitmaps, a few at a time, which holds it up
for about a millisecond. They are combined on this side, window by window of
the ids, so neither the number of users nor that of earlier periods decides how
much memory is needed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, get_args

from .bits import algebra
from .errors import InvalidTypeError, InvalidValueError
from .events import EventSet, any_of, evaluate
from .keys import bitmap_key, check_flag, checked_int
from .periods import Granularity, Period, dated, periods_between
from .queries import next_candidate, ranges
from .requests import Request, Work
from .retention import Cohort, Mode, Retention, table_cell

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date

    from .context import Context
    from .events import Bitmap
    from .periods import By
    from .requests import Query

__all__ = ["Selector", "retention"]

#: What selects the users of a period: an event's name, or a function of the period.
Selector = str | Callable[[Period], EventSet]

#: An event set, and what to do with its bits: a step with each item of what it returns.
_Use = tuple[EventSet, Callable[[Any], "Iterator[None]"]]

#: How many bytes all cohorts of one window take, and the limits of what one takes.
_WINDOWS: Final = 32 * 1024 * 1024
_SMALLEST: Final = 64 * 1024
_LARGEST: Final = 1024 * 1024

#: How many bytes are fetched with one request, at most.
_REQUEST: Final = 2 * 1024 * 1024

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
        raise InvalidValueError(f"periods must be 0 or more, got {periods}")
    number = max(1, periods) if cohorts is None else checked_int("cohorts", cohorts)
    if number < 1:
        raise InvalidValueError(f"cohorts must be 1 or more, got {number}")
    if mode not in get_args(Mode):
        raise InvalidValueError(f"mode is 'classic' or 'unbounded', got {mode!r:.80}{_hint(mode)}")
    check_flag("first_time", first_time)
    moment = context.local(None)
    if until is not None:
        moment = min(moment, context.local(until, "until"))
    last = Period.containing(granularity, moment).shift(-1)  # the last that is over
    # The rows' periods, the columns' beyond them, and one more, where the last of these ends.
    calendar = [last.shift(count) for count in range(1 - number, periods + 2)]
    rows = calendar[:number]
    chosen = [_selected(context, cohort, period) for period in rows]
    active = [_selected(context, activity, period) for period in rows]
    earlier = (yield from _earlier(context, cohort, rows[0], chosen[0])) if first_time else []
    tallies = _Tallies(number, periods, mode, first_time)
    yield from _count(chosen, active, earlier, tallies)
    return Retention(
        cohort=_name(cohort),
        activity=_name(activity),
        granularity=granularity,
        mode=mode,
        first_time=first_time,
        until=moment,
        cohorts=tuple(
            _row(calendar[row:], moment, tallies.sizes[row], tallies.counts[row])
            for row in range(number)
        ),
    )


def _row(calendar: Sequence[Period], moment: datetime, size: int, counts: Sequence[int]) -> Cohort:
    """Return a row, from its period and those that follow."""
    cells = [
        table_cell(period, moment, following.start, count, size)
        for period, following, count in zip(calendar, calendar[1:], counts, strict=False)
    ]
    return Cohort(calendar[0], size, tuple(cells))


class _Tallies:
    """What is counted, window by window.

    Attributes:
        sizes: how many users each cohort has.
        counts: how many of each were back after how many periods; 0 where
            nothing is known yet.
    """

    def __init__(self, rows: int, periods: int, mode: Mode, first_time: bool) -> None:
        self._reckon = algebra()
        self._unbounded = mode == "unbounded"
        self._first_time = first_time
        self.sizes = [0] * rows
        self.counts = [[0] * (periods + 1) for _ in range(rows)]
        self.begin_window()

    def begin_window(self) -> None:
        """Forget the bits of the window before."""
        self._cohorts: list[Any] = []
        self._earlier: Any = None
        self._later: Any = None

    def exclude(self, users: Any) -> Iterator[None]:
        """Take note of users who came before the first cohort."""
        self._earlier = users if self._earlier is None else self._earlier | users
        yield

    def add_cohort(self, users: Any) -> Iterator[None]:
        """Take the next cohort of the window, from the first on, and count it."""
        if self._first_time:
            everybody = users
            if self._earlier is not None:
                users = users & ~self._earlier
                everybody = everybody | self._earlier
            self._earlier = everybody
        self.sizes[len(self._cohorts)] += self._reckon.count(users)
        self._cohorts.append(users)
        yield

    def add_active(self, row: int, users: Any) -> Iterator[None]:
        """Count who was back in the period of a row. The rows come from the last one on."""
        if self._unbounded:
            self._later = users = users if self._later is None else self._later | users
        for earlier in range(max(0, row + 1 - len(self.counts[0])), row + 1):
            back = self._reckon.count(self._cohorts[earlier] & users)
            self.counts[earlier][row - earlier] += back
            yield


def _count(
    cohorts: list[EventSet], active: list[EventSet], earlier: list[EventSet], tallies: _Tallies
) -> Query[None]:
    """Count all cells, window by window of the ids."""
    everybody = any_of(cohorts)
    bitmaps = tuple(dict.fromkeys(everybody.bitmaps()))
    size = min(max(_WINDOWS // len(cohorts), _SMALLEST), _LARGEST)
    arrivals = [
        *((event_set, tallies.exclude) for event_set in earlier),
        *((event_set, tallies.add_cohort) for event_set in cohorts),
    ]
    returns = [
        (active[row], functools.partial(tallies.add_active, row))
        for row in range(len(active) - 1, -1, -1)
    ]
    # Who is in no cohort is in no cell, so nobody beyond the longest is of interest.
    end = max((yield Request([(b"STRLEN", bitmap.key) for bitmap in bitmaps])))
    at: int | None = 0
    while at is not None and at < end:
        before = sum(tallies.sizes)
        length = min(size, end - at)
        tallies.begin_window()
        yield from _use(arrivals, at, length)
        if sum(tallies.sizes) > before:
            yield from _use(returns, at, length)
            at += length
        else:
            at = yield from next_candidate(everybody, bitmaps, at + length)


def _use(uses: Sequence[_Use], at: int, size: int) -> Query[None]:
    """Fetch the same bytes of some event sets, a few bitmaps at a time, and use them in order.

    While one group of them is used, the next one is on its way.
    """
    work: Iterator[None] = iter(())
    most = max(1, _REQUEST // size)
    for some, bitmaps in _grouped(uses, most):
        parts: list[bytes] = []
        for first in range(0, len(bitmaps), most):
            commands = ranges(bitmaps[first : first + most], at, size)
            parts += yield Request(commands, meanwhile=work)
            work = iter(())
        work = _used(some, dict(zip(bitmaps, parts, strict=True)), size)
    yield Work(work)


def _used(some: Sequence[_Use], data: dict[Bitmap, bytes], size: int) -> Iterator[None]:
    """Use some event sets, step by step."""
    reckon = algebra()
    values = {}
    for bitmap, part in data.items():
        values[bitmap] = reckon.load(part, size)
        yield
    for event_set, use in some:
        yield from use(evaluate(event_set, values))


def _grouped(uses: Sequence[_Use], most: int) -> Iterator[tuple[list[_Use], list[Bitmap]]]:
    """Yield neighbours with their bitmaps, ``most`` of these unless one event set has more."""
    group: list[_Use] = []
    bitmaps: dict[Bitmap, None] = {}
    for event_set, use in uses:
        own = dict.fromkeys(event_set.bitmaps())
        if group and len(bitmaps) + len(own.keys() - bitmaps.keys()) > most:
            yield group, list(bitmaps)
            group, bitmaps = [], {}
        group.append((event_set, use))
        bitmaps |= own
    if group:
        yield group, list(bitmaps)


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
        before = dict.fromkeys(
            period
            for month in months
            for period in periods_between(
                first.granularity, month.start, min(month.end, first.start)
            )
            if period.start < first.start
        )
        return [_selected(context, cohort, period) for period in before]
    midnight = Period.containing(Granularity.DAY, first.start).start
    past: list[EventSet] = []
    for month in months:
        if month.start < midnight:
            past += context.days(cohort, month.start, min(month.end, midnight)).bitmaps()
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
    months = list(periods_between(Granularity.MONTH, _BEGIN, end))
    found: set[Period] = set()
    for event in events:
        keys = [bitmap_key(context.origin.prefix, event, month) for month in months]
        replies = yield Request([(b"EXISTS", key) for key in keys])
        found.update(month for month, exists in zip(months, replies, strict=True) if exists)
    return sorted(found, key=lambda month: month.start)
