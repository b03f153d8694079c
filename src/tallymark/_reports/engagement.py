"""Small reports that are counts of a few event sets: stickiness and funnels. Pure."""

from __future__ import annotations

import itertools
import math
import operator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from .._core.arguments import checked_name, iterated
from .._core.events import EventSet
from .._core.periods import Granularity, Period, dated
from .._reading.queries import counts
from ..errors import InvalidValueError
from .retention import share

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from .._core.context import Context
    from .._core.events import EventSet
    from .._core.periods import By
    from .._reading.requests import Query

__all__ = ["Funnel", "FunnelStep", "Stickiness", "funnel", "stickiness"]

#: What a month is for stickiness: four weeks, so that each day of the week counts equally.
ROLLING_DAYS = 28


@dataclass(frozen=True)
class Stickiness:
    """How many of a month's users are there on a given day.

    Attributes:
        day: the day.
        daily: users on that day (DAU).
        monthly: users on that day or the 27 days before it (rolling MAU).
    """

    day: Period
    daily: int
    monthly: int

    @property
    def ratio(self) -> float | None:
        """``daily / monthly``, from 0 to 1; ``None`` if nobody was there all month."""
        return share(self.daily, self.monthly)


@dataclass(frozen=True)
class FunnelStep:
    """One step of a funnel.

    Attributes:
        name: the event's name, or how the event set reads.
        count: how many users took this step and all those before it.
        of_previous: their share of those who took the step before; ``None``
            where those are none. Of the first step, 1.
        of_first: their share of those who took the first step; ``None`` where
            those are none.
    """

    name: str
    count: int
    of_previous: float | None
    of_first: float | None


@dataclass(frozen=True)
class Funnel:
    """How many users of a period took the first step, the first two, and so on.

    Attributes:
        period: the period.
        steps: the steps, in order.
    """

    period: Period
    steps: tuple[FunnelStep, ...]


def stickiness(context: Context, event: str, day: date | None) -> Query[Stickiness]:
    """Count a day's users and those of the 28 days that end with it, at one moment."""
    event = checked_name("event", event)
    period = Period.containing(Granularity.DAY, context.local(day, "day"))
    if day is None:
        period = period.shift(-1)  # today is not over
    try:
        after = period.end
        first = after - timedelta(days=ROLLING_DAYS)
    except OverflowError as error:
        raise InvalidValueError(f"the {ROLLING_DAYS} days before {period} leave year 1") from error
    month = context.days(event, first, after)
    daily, monthly = yield from counts(context, [context.during(event, period), month])
    return Stickiness(period, daily, monthly)


def funnel(
    context: Context, steps: Iterable[str | EventSet], by: By, moment: date | None
) -> Query[Funnel]:
    """Count who is in the first step, in the first two, and so on, all at one moment."""
    each = iterated("steps must be several names or event sets", steps)
    period = Period.containing(dated(by), context.local(moment))
    # Each count reads the bitmaps of all steps before it again, so to speak.
    most = math.isqrt(2 * context.options.max_bitmaps)
    chosen: list[EventSet] = []
    names: list[str] = []
    for step in itertools.islice(each, most + 1):
        if isinstance(step, str):
            names.append(checked_name("event", step))
            chosen.append(context.during(names[-1], period))
        else:
            chosen.append(context.checked(step))
            names.append(repr(step))
    if not names:
        raise InvalidValueError("a funnel has one step or more")
    if len(names) > most:
        raise InvalidValueError(
            f"with max_bitmaps={context.options.max_bitmaps}, a funnel has at most {most} steps"
        )
    numbers = yield from counts(context, list(itertools.accumulate(chosen, operator.and_)))
    return Funnel(
        period,
        tuple(
            FunnelStep(
                name,
                number,
                share(number, numbers[max(0, index - 1)]),
                share(number, numbers[0]),
            )
            for index, (name, number) in enumerate(zip(names, numbers, strict=True))
        ),
    )
