"""The query of trends: the periods, and the event sets of each. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from .._core.arguments import checked_int, checked_name, iterated
from .._core.calendars import calendar
from .._core.events import any_of
from .._core.frozen import FrozenMapping
from .._core.periods import Granularity, Period
from .._core.untrusted import shown
from .._reading.bounds import check_bitmaps, check_number
from .._reading.existence import find_unknown
from .._reading.expressions import load_algebra
from .._reading.requests import in_steps
from ..errors import InvalidValueError
from .results import checked_labels
from .retention import rate
from .retention_query import moment_of, select, selector_name
from .trend import Trend, TrendPoint
from .trend_counts import Step, count_steps

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import date

    from .._core.calendars import Every
    from .._core.context import Context
    from .._core.events import EventSet
    from .._reading.requests import Query
    from .retention_query import Selector
    from .trend_counts import TrendNumbers

__all__ = ["trend"]

#: How many event sets or points, at up to 20 us each, are made between two checkpoints.
_STEP: Final = 100


def trend(
    context: Context,
    what: Selector | Iterable[Selector] | Mapping[str, Selector],
    *,
    by: Every,
    anchor: date | None,
    periods: int,
    rolling: int | None,
    until: date | None,
    labels: Mapping[str, str] | None,
) -> Query[Trend]:
    """Count the users of consecutive periods, and of the days that end with each.

    Arguments:
        context: the database.
        what: one selector or several, or a mapping from names to selectors.
        by: the length of the periods.
        anchor: if that is a timedelta, the first day of one of the periods.
        periods: how many periods, 1 or more.
        rolling: how many days the windows of rolling actives have, 1 or more; None for none.
        until: the moment of the report; None for now.
        labels: readable names of series.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed.
    """
    spans = calendar(by, None if anchor is None else context.local(anchor, "anchor"))
    readable = checked_labels(labels)
    names, selectors = _checked_series(context, what)
    number = checked_int("periods", periods)
    if number < 1:
        raise InvalidValueError(f"periods must be 1 or more, got {shown(number)}")
    check_number(context, len(names) * number, "points (periods times series)")
    moment = moment_of(context, until)
    last = spans.containing(moment).shift(-1)  # the last complete period
    timeline = yield from in_steps(map(last.shift, range(1 - number, 1)))
    windows: list[_Window] = []
    if rolling is not None:
        rolling = _checked_rolling(context, rolling, timeline[0])
        windows = yield from in_steps(_windows(timeline, rolling), _STEP)
        days = sum(len(window.new_days) for window in windows)
        check_number(context, len(names) * days, "days of rolling actives (times series)")
    all_sets = []
    for selector in selectors:
        sets = TrendSets(timeline, windows)
        yield from in_steps(sets.select(context, selector), _STEP)
        all_sets.append(sets)
    yield from check_bitmaps(
        context, [part for sets in all_sets for part in sets.by_period.values()]
    )
    yield from load_algebra()
    numbers = yield from count_steps(
        context,
        (yield from in_steps(_steps(all_sets, timeline, windows), _STEP)),
        series=len(names),
        points=number,
        days=rolling or 0,
    )
    series = {}
    for index, (name, sets) in enumerate(zip(names, all_sets, strict=True)):
        points = yield from in_steps(_points(numbers, index, sets, rolling), _STEP)
        series[name] = tuple(points)
    unknown = yield from find_unknown(context, numbers.empty_events)
    return Trend(
        series=FrozenMapping(series),
        unit=spans.unit,
        rolling=rolling,
        until=moment,
        labels=readable,
        unknown_events=unknown,
    )


class _Window(NamedTuple):
    """The days whose active users are the rolling actives of a point, as ordinals of dates.

    Attributes:
        days: the days.
        new_days: those that are not in the window before.
        dropped: how many days of the window before are not in this one.
    """

    days: range
    new_days: range
    dropped: int


class TrendSets:
    """The event sets of a series.

    Attributes:
        timeline: the periods of the points.
        windows: the window of each point; none if there are no rolling actives.
        by_period: the event sets, by period and day.
    """

    def __init__(self, timeline: Sequence[Period], windows: Sequence[_Window]) -> None:
        """Make an object without event sets."""
        self.timeline = timeline
        self.windows = windows
        self.by_period: dict[Period, EventSet] = {}

    def select(self, context: Context, selector: Selector) -> Iterator[None]:
        """Compute the event sets: once for each period, and for each day of a window."""
        days = (_day(day) for window in self.windows for day in window.new_days)
        for period in itertools.chain(self.timeline, days):
            if period not in self.by_period:
                self.by_period[period] = select(context, selector, period)
            yield

    def users(self, point: int) -> EventSet:
        """Return the users of the period of a point."""
        return self.by_period[self.timeline[point]]

    def rolling_users(self, point: int) -> EventSet:
        """Return the users of the window of a point."""
        return any_of([self.by_period[_day(day)] for day in self.windows[point].days])


def _day(ordinal: int) -> Period:
    return Period(Granularity.DAY, datetime.fromordinal(ordinal))


def _checked_series(
    context: Context, what: Selector | Iterable[Selector] | Mapping[str, Selector]
) -> tuple[list[str], list[Selector]]:
    """Return the names and the selectors of the series.

    Raises:
        InvalidTypeError, InvalidValueError: these are no selectors, or no names, or not unique.
    """
    if isinstance(what, str) or callable(what):
        return [_name(what)], [what]
    most = context.options.max_bitmaps + 1
    if isinstance(what, Mapping):
        named = cast("Mapping[str, Selector]", what)
        items = list(itertools.islice(named.items(), most))
        names = [checked_name("a series' name", name) for name, _ in items]
        selectors = [selector for _, selector in items]
    else:
        several = iterated("what must be a selector, or several", what)
        selectors = list(itertools.islice(several, most))
        names = [_name(selector) for selector in selectors]
    check_number(context, len(names), "series")
    if not names:
        raise InvalidValueError("a trend has one series or more")
    if len(set(names)) < len(names):
        raise InvalidValueError(
            f"series must have different names, got {shown(names)}; pass a mapping from names "
            "to selectors"
        )
    return names, selectors


def _name(selector: Selector) -> str:
    """Return the name of a series: that of an event, checked, or of a function."""
    if isinstance(selector, str):
        return checked_name("event", selector)
    return selector_name(selector)


def _checked_rolling(context: Context, rolling: int, first: Period) -> int:
    """Return the number of days of windows.

    Arguments:
        context: the database and its options.
        rolling: the argument of the caller's.
        first: the first period.

    Raises:
        InvalidTypeError, InvalidValueError: it is not allowed.
    """
    days = checked_int("rolling", rolling)
    if days < 1:
        raise InvalidValueError(f"rolling must be 1 or more, got {shown(days)}")
    check_number(context, days, "days of rolling actives")
    if first.granularity is Granularity.HOUR:
        raise InvalidValueError("rolling actives are of whole days: by hour, pass rolling=None")
    if first.end.toordinal() <= days:
        raise InvalidValueError(f"the {days} days that end with {first} leave year 1")
    return days


def _windows(timeline: Iterable[Period], rolling: int) -> Iterator[_Window]:
    """Yield the window of each period."""
    held = range(0)
    for period in timeline:
        end = period.end.toordinal()
        days = range(end - rolling, end)
        begin = max(days.start, held.stop)
        yield _Window(days, range(begin, end), min(days.start, held.stop) - held.start)
        held = days


def _steps(
    all_sets: Sequence[TrendSets], timeline: Sequence[Period], windows: Sequence[_Window]
) -> Iterator[Step]:
    """Yield the steps that count all points, in order of time: so windows move one way."""
    for point, period in enumerate(timeline):
        is_counted = False
        for day in windows[point].new_days if windows else ():
            window, of_day = windows[point], _day(day)
            is_last = day == window.days[-1]
            is_counted = of_day == period
            for index, sets in enumerate(all_sets):
                yield Step(
                    index,
                    sets.by_period[of_day],
                    point if is_counted else None,
                    is_day=True,
                    dropped=window.dropped if day == window.new_days[0] else 0,
                    rolling=point if is_last else None,
                )
        if not is_counted:
            for index, sets in enumerate(all_sets):
                yield Step(index, sets.by_period[period], point)


def _points(
    numbers: TrendNumbers, series: int, sets: TrendSets, rolling: int | None
) -> Iterator[TrendPoint]:
    """Yield the points of a series."""
    for point, (period, count) in enumerate(
        zip(sets.timeline, numbers.counts[series], strict=True)
    ):
        in_window = None if rolling is None else numbers.rolling[series][point]
        stickiness = None
        if rolling is not None and in_window is not None:
            is_inside = period.end - period.start <= timedelta(days=rolling)
            stickiness = rate(count, in_window) if is_inside else None
        yield TrendPoint(period, count, in_window, stickiness, sets, point)
