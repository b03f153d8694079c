"""Users by the number of days on which they were active: the power-user curve. Pure."""

from __future__ import annotations

import bisect
import copy
import functools
import itertools
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from .._core.arguments import checked_int
from .._core.periods import Granularity, Period
from .._core.thresholds import at_least
from .._core.untrusted import shown
from .._reading.bounds import check_bitmaps, check_number
from .._reading.existence import find_unknown
from .._reading.expressions import load_algebra
from .._reading.requests import in_steps
from .._reading.sweep import Sweep
from ..errors import InvalidValueError
from .bars import DaysReport, days_bars
from .bit_counter import BitCounter
from .results import checked_labels
from .retention_query import moment_of, select, selector_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import date

    from .._core.context import Context
    from .._reading.requests import Query
    from .retention_query import Selector

__all__ = ["DaysActive", "days_active"]


@dataclass(frozen=True, kw_only=True)
class DaysActive(DaysReport):
    """Users by on how many of some days they were active: the power-user curve.

    Attributes:
        activity: the name of the event, or of the function that selects the active users.
        until: the moment of the report, naive, in the tally's time zone.
        bars: a bar for each number of days, from 1 day to all days. The rate is the share of
            all users who were active on any of the days.
    """

    activity: str

    @property
    def mean(self) -> float | None:
        """The mean number of days of the users; ``None`` if there are none."""
        days = sum(bar.days * bar.count for bar in self.bars)
        return days / self.total if self.total else None

    @property
    def median(self) -> float | None:
        """The median number of days of the users; ``None`` if there are none."""
        if not self.total:
            return None
        reached = list(itertools.accumulate(self.counts))
        middle = (self.total - 1) // 2, self.total // 2
        return sum(1 + bisect.bisect_right(reached, user) for user in middle) / 2

    def _title(self) -> str:
        return f"Days active: {self._isolated(self.activity)}"

    def _caption(self) -> str:
        return (
            f"Users by the number of days with “{self._isolated(self.activity)}”, of the "
            f"{self.days} days before {self.until:%Y-%m-%d}."
        )


class _DayCounts:
    """How many users were active on how many days: an `Accumulator`.

    Attributes:
        totals: how many users were active on 1, 2, ... days, in the windows so far.
    """

    def __init__(self, days: int) -> None:
        """Make counts of no users."""
        self.totals = [0] * days
        self._counter = BitCounter()

    @property
    def is_empty(self) -> bool:
        """Whether no user was active on any day."""
        return self._counter.is_empty

    def for_shard(self) -> _DayCounts:
        """Return an object that adds to the same totals, with a window state of its own."""
        return copy.copy(self)  # `begin_window` makes the state

    def begin_window(self) -> None:
        """Discard the users of the previous window."""
        self._counter = BitCounter()

    def add(self, index: int, users: Any) -> Iterator[None]:
        """Add the users of a day."""
        yield from self._counter.add(users)

    def end_window(self) -> Iterator[None]:
        """Count the users with each number of days."""
        totals = yield from self._counter.totals(len(self.totals))
        self.totals[:] = map(operator.add, self.totals, totals)


#: A counter holds fewer windows. So many make them 256 KiB long, and they stay in the cache of a
#: processor: 28 days of 10 million users take 45 ms of CPU time; in windows of 1 MiB, 58 ms.
_HELD: Final = 128


def days_active(
    context: Context,
    activity: Selector,
    *,
    days: int,
    until: date | None,
    labels: Mapping[str, str] | None,
) -> Query[DaysActive]:
    """Count the users by on how many of the last complete days they were active.

    Arguments:
        context: the database.
        activity: selects the active users of each day.
        days: how many days, 1 or more.
        until: the moment of the report; None for now.
        labels: the readable names of events.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed.
    """
    days = checked_int("days", days)
    if days < 1:
        raise InvalidValueError(f"days must be 1 or more, got {shown(days)}")
    check_number(context, days, "days")
    names = checked_labels(labels)
    moment = moment_of(context, until)
    last = Period.containing(Granularity.DAY, moment).shift(-1)  # the last complete day
    periods = yield from in_steps(map(last.shift, range(1 - days, 1)))
    event_sets = yield from in_steps(select(context, activity, period) for period in periods)
    yield from check_bitmaps(context, event_sets)
    yield from load_algebra()
    counts = _DayCounts(days)
    sweep = yield from Sweep.of(context, event_sets, bounding=days, held=_HELD)
    yield from sweep.run(context, counts)
    users_of = functools.partial(at_least, event_sets=tuple(event_sets))
    return DaysActive(
        activity=selector_name(activity),
        until=moment,
        bars=(yield from days_bars(counts.totals, users_of)),
        labels=names,
        unknown_events=(yield from find_unknown(context, sorted(sweep.empty_events))),
        _at_least=users_of,
    )
