"""Engagement reports: stickiness (DAU/MAU) and funnels. Pure."""

from __future__ import annotations

import itertools
import math
import operator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .._charts.formats import percent
from .._charts.funnels import FunnelBar, FunnelBars, FunnelGroup
from .._charts.tables import Table
from .._core.arguments import checked_name, iterated
from .._core.calendars import calendar
from .._core.periods import Granularity, Period
from .._reading.existence import find_unknown
from .._reading.queries import counts
from ..errors import InvalidValueError
from .results import Report, checked_labels, made
from .retention import rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date

    from .._charts.page import Figure
    from .._core.calendars import Every
    from .._core.context import Context
    from .._core.events import EventSet
    from .._reading.requests import Query

__all__ = ["Funnel", "FunnelStep", "Stickiness", "funnel", "stickiness"]

#: The days of a rolling month: four weeks, so that each weekday counts equally.
ROLLING_DAYS = 28


@dataclass(frozen=True)
class Stickiness(Report):
    """The daily and monthly active users of an event, and their ratio (DAU/MAU).

    Attributes:
        day: the day.
        daily: how many users were active on the day (DAU).
        monthly: how many users were active on the day or the 27 days before it (rolling MAU).
        event: the name of the event.
    """

    day: Period
    daily: int
    monthly: int
    event: str | None = field(default=None, kw_only=True)
    _sets: tuple[EventSet, EventSet] | None = field(
        default=None, kw_only=True, compare=False, repr=False
    )

    @property
    def daily_users(self) -> EventSet:
        """The event set of the users who were active on the day.

        Raises:
            InvalidValueError: no report of a tally has made this value.
        """
        return made(self._sets, self)[0]

    @property
    def monthly_users(self) -> EventSet:
        """The event set of the users who were active on the day or the 27 days before it.

        Raises:
            InvalidValueError: no report of a tally has made this value.
        """
        return made(self._sets, self)[1]

    @property
    def ratio(self) -> float | None:
        """``daily / monthly``, from 0 to 1; ``None`` if no user was active in the month."""
        return rate(self.daily, self.monthly)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a list of one dict, with values that JSON and CSV can represent.

        The keys: ``event``, ``day`` (ISO 8601), ``daily``, ``monthly``, ``ratio``.
        """
        return [
            {
                "event": self.event,
                "day": str(self.day),
                "daily": self.daily,
                "monthly": self.monthly,
                "ratio": self.ratio,
            }
        ]

    def _title(self) -> str:
        return "Stickiness" if self.event is None else f"Stickiness: {self._isolated(self.event)}"

    def _caption(self) -> str:
        return (
            f"The share of the active users of {ROLLING_DAYS} days who were active on the last "
            f"of these days, {self.day}."
        )

    def _figures(self) -> Sequence[Figure]:
        return [
            Table(
                "Stickiness",
                ["Active users", str(self.day)],
                [
                    ["On the day (DAU)", f"{self.daily:,}"],
                    [f"In {ROLLING_DAYS} days (MAU)", f"{self.monthly:,}"],
                    ["DAU/MAU", percent(self.ratio)],
                ],
            )
        ]


@dataclass(frozen=True)
class FunnelStep:
    """One step of a funnel: how many users reached the step, and its conversion rates.

    Attributes:
        name: the name of the event, or the ``repr`` of the event set.
        count: how many users took this step and all previous steps.
        of_previous: ``count`` divided by that of the previous step, from 0 to 1; ``None`` if
            no user reached the previous step. For the first step, 1, or ``None`` if
            its count is 0.
        of_first: ``count`` divided by that of the first step, from 0 to 1; ``None`` if no
            user took the first step.
    """

    name: str
    count: int
    of_previous: float | None
    of_first: float | None
    _users: EventSet | None = field(default=None, compare=False, repr=False)

    @property
    def users(self) -> EventSet:
        """The event set of the users who took this step and all previous steps.

        Raises:
            InvalidValueError: no report of a tally has made this value.
        """
        return made(self._users, self)


@dataclass(frozen=True)
class Funnel(Report):
    """The conversion of users from step to step, whichever order they took the steps in.

    Attributes:
        period: the period of the steps that are names of events.
        steps: the steps, in order.
    """

    period: Period
    steps: tuple[FunnelStep, ...]

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a dict for each step, with values that JSON and CSV can represent.

        The keys: ``period`` (ISO 8601, such as ``2026-W48``), ``step`` (from 1), ``name``,
        ``count``, ``of_previous``, ``of_first``.
        """
        return [
            {
                "period": str(self.period),
                "step": number,
                "name": step.name,
                "count": step.count,
                "of_previous": step.of_previous,
                "of_first": step.of_first,
            }
            for number, step in enumerate(self.steps, 1)
        ]

    def _title(self) -> str:
        return " → ".join(self._isolated(step.name) for step in self.steps)

    def _caption(self) -> str:
        return (
            f"The users who took each step and all steps before it in {self.period}, in any "
            "order. Steps that are no names of events have a time of their own."
        )

    def _figures(self) -> Sequence[Figure]:
        return [
            FunnelBars(
                "Funnel",
                [self.label(step.name) for step in self.steps],
                [
                    FunnelGroup(
                        "",
                        [
                            FunnelBar(step.count, step.of_first, step.of_previous)
                            for step in self.steps
                        ],
                    )
                ],
            )
        ]


def stickiness(
    context: Context, event: str, day: date | None, labels: Mapping[str, str] | None
) -> Query[Stickiness]:
    """Count the users of a day and of the 28 days that end with the day, at one moment.

    Arguments:
        context: the database.
        event: the event that active users are marked for.
        day: the day; None for yesterday.
        labels: readable names of events.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed.
    """
    event = checked_name("event", event)
    readable = checked_labels(labels)
    period = Period.containing(Granularity.DAY, context.local(day, "day"))
    if day is None:
        period = period.shift(-1)  # the last complete day
    try:
        end = period.end
        start = end - timedelta(days=ROLLING_DAYS)
    except OverflowError as error:
        raise InvalidValueError(f"the {ROLLING_DAYS} days before {period} leave year 1") from error
    month = context.days(event, start, end)
    sets = context.during(event, period), month
    daily, monthly = yield from counts(context, sets)
    unknown = yield from find_unknown(context, [] if monthly else [event])
    return Stickiness(
        period,
        daily,
        monthly,
        event=event,
        labels=readable,
        unknown_events=unknown,
        _sets=sets,
    )


def funnel(
    context: Context,
    steps: Iterable[str | EventSet],
    by: Every,
    anchor: date | None,
    moment: date | None,
    labels: Mapping[str, str] | None,
) -> Query[Funnel]:
    """Count the users who reached each step, all at one moment.

    Arguments:
        context: the database.
        steps: the names of events, which are counted in the period, or event sets.
        by: the length of the period.
        anchor: if that is a timedelta, the first day of one of the periods.
        moment: a moment in the period; None for now.
        labels: readable names of events.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed.
    """
    remaining = iterated("steps must be several names or event sets", steps)
    readable = checked_labels(labels)
    spans = calendar(by, None if anchor is None else context.local(anchor, "anchor"))
    period = spans.containing(context.local(moment))
    # The count of the n-th step combines n event sets: about n**2 / 2 for all n steps.
    max_steps = math.isqrt(2 * context.options.max_bitmaps)
    event_sets: list[EventSet] = []
    names: list[str] = []
    events: set[int] = set()
    for step in itertools.islice(remaining, max_steps + 1):
        if isinstance(step, str):
            events.add(len(names))
            names.append(checked_name("event", step))
            event_sets.append(context.during(names[-1], period))
        else:
            event_sets.append(context.checked(step))
            names.append(repr(step))
    if not names:
        raise InvalidValueError("a funnel has one step or more")
    if len(names) > max_steps:
        raise InvalidValueError(
            f"with max_bitmaps={context.options.max_bitmaps}, a funnel has at most "
            f"{max_steps} steps"
        )
    reached = list(itertools.accumulate(event_sets, operator.and_))
    users = yield from counts(context, reached)
    unknown = yield from find_unknown(
        context, [names[index] for index in sorted(events) if not users[index]]
    )
    return Funnel(
        period,
        tuple(
            FunnelStep(
                name,
                count,
                rate(count, users[max(0, index - 1)]),
                rate(count, users[0]),
                reached[index],
            )
            for index, (name, count) in enumerate(zip(names, users, strict=True))
        ),
        labels=readable,
        unknown_events=unknown,
    )
