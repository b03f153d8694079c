"""The query of funnels: the arguments and the event sets of an ordered funnel. Pure."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, cast, get_args

from .._core.arguments import checked_name, iterated, plain_str
from .._core.events import EventSet
from .._core.frozen import FrozenMapping
from .._core.periods import Granularity, Period
from .._core.untrusted import shown
from .._reading.bounds import check_bitmaps, check_number, check_uses
from .._reading.existence import find_unknown
from .._reading.expressions import load_algebra
from .._reading.requests import in_steps
from .._reading.sweep import Sweep
from ..errors import InvalidTypeError, InvalidValueError
from . import engagement
from .ordered_funnel import OrderedFunnel, OrderedStep, Resolution
from .ordered_funnel_counts import FunnelCounts
from .ordered_funnel_sets import FunnelPlan, FunnelSets
from .results import checked_labels
from .retention import rate
from .retention_query import checked_segments, select_segment, selector_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date

    from .._core.calendars import Every
    from .._core.context import Context
    from .._reading.requests import Query
    from .engagement import Funnel
    from .retention_query import Segments

__all__ = ["Step", "funnel"]

#: A step: the name of an event, an event set, or a function from a period to one.
Step = str | EventSet | Callable[[Period], EventSet]

_WINDOW: Final = timedelta(days=7)

#: The length of a period.
_LENGTHS: Final = {"day": timedelta(days=1), "hour": timedelta(hours=1)}

#: The sizes of windows of bytes: one page of memory, if very many are held; and at most so long
#: that operations on two of them stay in a cache of the processor. With 1 MiB, a funnel of 30 days
#: and 10 million users takes 290 ms of CPU time, and 240 this way.
_WINDOWS: Final = (4 * 1024, 256 * 1024)


class _Span(NamedTuple):
    """The periods of an ordered funnel.

    Attributes:
        first: the first period.
        entries: in how many periods users enter.
        read: how many periods are read: those, and later ones, but none in the future.
        first_open: the number of the first entry whose window is not over.
    """

    first: Period
    entries: int
    read: int
    first_open: int


def funnel(
    context: Context,
    steps: Iterable[Step],
    *,
    by: Every | None,
    anchor: date | None,
    moment: date | None,
    since: date | None,
    until: date | None,
    window: timedelta | None,
    resolution: Resolution | None,
    segments: Segments | None,
    labels: Mapping[str, str] | None,
) -> Query[Funnel | OrderedFunnel]:
    """Count the users who reached each step: in one period, or in order since a moment.

    Arguments:
        context: the database.
        steps: the steps.
        by, anchor, moment: the length of the period, and a moment of it; None for this week.
        since: from when on users enter; None for a funnel of one period.
        until: until when users enter; None for now.
        window: how long they have for all steps, of whole days or hours; None for 7 days.
        resolution: of which length the periods are in which steps are ordered; None for days.
        segments: for each segment an event set, or a function from the period of an entry to one.
        labels: the readable names of events.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed.
    """
    if isinstance(steps, AbstractSet):
        raise InvalidTypeError(f"steps have an order: give a list of them, got {shown(steps)}")
    if since is None:
        ordered = {"until": until, "window": window, "resolution": resolution, "segments": segments}
        given = [name for name, value in ordered.items() if value is not None]
        if given:
            raise InvalidValueError(
                f"{' and '.join(given)} without since: a funnel of one period, in any order, has "
                f"by, anchor and moment only; since=... makes it one of ordered steps"
            )
        names_or_sets = cast("Iterable[str | EventSet]", steps)  # others are refused
        return (
            yield from engagement.funnel(
                context, names_or_sets, "week" if by is None else by, anchor, moment, labels
            )
        )
    if by is not None or anchor is not None or moment is not None:
        raise InvalidValueError(
            "since goes without by, anchor and moment: these are of a funnel of one period, in any "
            "order"
        )
    return (
        yield from _ordered_funnel(
            context,
            steps,
            since,
            until,
            _WINDOW if window is None else window,
            "day" if resolution is None else resolution,
            segments,
            checked_labels(labels),
        )
    )


def _ordered_funnel(
    context: Context,
    steps: Iterable[Step],
    since: date,
    until: date | None,
    window: timedelta,
    resolution: Resolution,
    segments: Segments | None,
    labels: Mapping[str, str],
) -> Query[OrderedFunnel]:
    """Count the users of an ordered funnel. Arguments and errors as `funnel`."""
    resolution = plain_str(resolution)
    if type(resolution) is not str or resolution not in get_args(Resolution):
        raise InvalidValueError(f"resolution is 'day' or 'hour', got {shown(resolution)}")
    length = _LENGTHS[resolution]
    periods = _checked_window(window, resolution)
    selectors = _checked_steps(context, steps)
    names, segment_selectors = checked_segments(context, segments)
    first, entries, read, first_open = _span(context, since, until, resolution, periods)
    steps_of_tables = len(selectors) * (1 + len(names))
    varying = 1 + sum(map(callable, segment_selectors))
    check_number(context, periods * steps_of_tables, f"{resolution}s of the window times steps")
    check_number(context, read * len(selectors), f"{resolution}s times steps")
    uses = entries * min(periods, read) * len(selectors) * varying
    check_uses(context, uses, f"entries times {resolution}s of the window times steps")

    timeline = yield from in_steps(map(first.shift, range(read)))
    by_step = []
    for number, step in enumerate(selectors):
        of_step = timeline[: entries if number == 0 else read]
        if isinstance(step, EventSet):
            of_step = of_step[:1]
        by_step.append((yield from in_steps(_select(context, step, period) for period in of_step)))
    if isinstance(selectors[0], EventSet):
        by_step[0] *= entries
    by_segment = []
    for segment in segment_selectors:
        of_segment = timeline[: entries if callable(segment) else 1]
        by_segment.append(
            (yield from in_steps(select_segment(context, segment, period) for period in of_segment))
        )
    yield from check_bitmaps(context, [*itertools.chain(*by_step, *by_segment)])
    yield from load_algebra()
    sets = FunnelSets(by_step[0], by_step[1:], by_segment, read, periods, first_open)
    plan = yield from FunnelPlan.of(sets)
    counts = FunnelCounts(sets, plan)
    sweep = yield from Sweep.of(
        context,
        plan.event_sets,
        bounding=plan.bounding,
        held=counts.held(),
        sizes=_WINDOWS,
    )
    yield from sweep.run(context, counts)
    unknown = yield from find_unknown(context, sorted(sweep.empty_events))
    step_names = [
        repr(step) if isinstance(step, EventSet) else selector_name(step) for step in selectors
    ]

    def result(table: int, segments: Mapping[str, OrderedFunnel]) -> OrderedFunnel:
        segment = table - 1 if table else None
        entered = counts.entered[table]
        of_first = [entered, *itertools.repeat(0, periods - 1)]
        times = [of_first, *map(_differences, counts.reached[table])]
        return OrderedFunnel(
            since=first.start,
            until=first.start + entries * length,
            window=periods * length,
            resolution=resolution,
            steps=tuple(
                _step(sets, segment, number, step_names[number], times)
                for number in range(len(times))
            ),
            complete_until=first.start + first_open * length,
            unfinished=counts.unfinished[table],
            segment=None if segment is None else names[segment],
            segments=FrozenMapping(segments),
            labels=labels,
            unknown_events=unknown,
            _unfinished_users=functools.partial(sets.unfinished_users, segment),
        )

    return result(0, {name: result(table, {}) for table, name in enumerate(names, 1)})


def _span(
    context: Context, since: date, until: date | None, resolution: Resolution, window: int
) -> _Span:
    """Return in which periods users enter, and which are read. Arguments as `funnel`.

    Arguments:
        window: the length of the window in periods.
    """
    length = _LENGTHS[resolution]
    granularity = Granularity.DAY if resolution == "day" else Granularity.HOUR
    begin = context.local(since, "since")
    first = Period.containing(granularity, begin)
    current = (Period.containing(granularity, context.local(None)).start - first.start) // length
    entries = current + 1
    if until is not None:
        end = context.local(until, "until")
        if begin >= end:
            raise InvalidValueError(f"since must be before until, got {begin} and {end}")
        entries = min(entries, -((first.start - end) // length))
    if current < 0:
        raise InvalidValueError(f"since lies in the future: {begin}")
    read = min(entries - 1 + window, current + 1)
    return _Span(first, entries, read, min(max(0, current + 1 - window), entries))


def _step(
    sets: FunnelSets,
    segment: int | None,
    number: int,
    name: str,
    times: Sequence[Sequence[int]],
) -> OrderedStep:
    """Return the result of a step.

    Arguments:
        sets: the event sets of the funnel.
        segment: the number of the segment; None for all users.
        number: that of the step, from 0 on.
        name: its name.
        times: for each step, how many users reached it in so many periods.
    """
    count = sum(times[number])
    within = itertools.accumulate(times[number])
    median = next((time for time, reached in enumerate(within) if 2 * reached >= count), None)
    return OrderedStep(
        name,
        count,
        rate(count, sum(times[max(0, number - 1)])),
        rate(count, sum(times[0])),
        median if count else None,
        tuple(times[number]),
        functools.partial(sets.users_of_step, segment, number),
    )


def _differences(reached: Sequence[int]) -> list[int]:
    """Return how many users reached a step in exactly so many periods."""
    return [count - before for before, count in zip([0, *reached], reached, strict=False)]


def _checked_window(window: timedelta, resolution: Resolution) -> int:
    """Return the length of a window in periods."""
    if not isinstance(window, timedelta):
        raise InvalidTypeError(f"window must be a timedelta, got {shown(window)}")
    periods, rest = divmod(window, _LENGTHS[resolution])
    if rest or periods < 1:
        hint = "; resolution='hour' has windows of hours" if resolution == "day" else ""
        raise InvalidValueError(
            f"window must be one or more whole {resolution}s, got {shown(window)}{hint}"
        )
    return periods


def _checked_steps(context: Context, steps: Iterable[Step]) -> list[Step]:
    remaining = iterated("steps must be several names, event sets or functions", steps)
    selectors: list[Step] = []
    for step in itertools.islice(remaining, context.options.max_bitmaps + 1):
        if isinstance(step, str):
            selectors.append(checked_name("event", step))
        elif isinstance(step, EventSet):
            selectors.append(context.checked(step))
        elif callable(step):
            selectors.append(step)
        else:
            raise InvalidTypeError(
                "a step is an event's name, an event set, or a function from a Period to an event "
                f"set, got {shown(step)}"
            )
    if not selectors:
        raise InvalidValueError("a funnel has one step or more")
    check_number(context, len(selectors), "steps")
    return selectors


def _select(context: Context, step: Step, period: Period) -> EventSet:
    """Return the users who took a step in a period."""
    if isinstance(step, str):
        return context.during(step, period)
    return step if isinstance(step, EventSet) else context.checked(step(period))
