"""Users by the length of their current streak. Pure."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from .._core.arguments import checked_int, checked_name
from .._core.events import all_of
from .._core.periods import Granularity, Period
from .._core.untrusted import shown
from .._reading.bits import algebra
from .._reading.bounds import check_bitmaps, check_number
from .._reading.existence import find_unknown
from .._reading.expressions import load_algebra
from .._reading.requests import in_steps
from .._reading.sweep import Sweep
from ..errors import InvalidValueError
from .bars import DaysReport, days_bars
from .results import checked_labels
from .streaks import last_days

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import date

    from .._core.context import Context
    from .._core.events import EventSet
    from .._reading.requests import Query

__all__ = ["Streaks", "streaks"]


@dataclass(frozen=True, kw_only=True)
class Streaks(DaysReport):
    """Users by the length of their current run of days.

    Attributes:
        event: the event's name.
        until: the moment of the report, naive, in the tally's time zone.
        bars: a bar for each length in days, from 1 on; the last one also has the users whose runs
            are longer. The rate is the share of all users with a current run.
    """

    event: str

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a dict for each bar, with values that JSON and CSV can represent.

        The keys: ``days``, ``or_more`` (true in the last row), ``count``, ``rate``.
        """
        return [
            {"days": row.pop("days"), "or_more": bar.days == self.days, **row}
            for bar, row in zip(self.bars, super().to_rows(), strict=True)
        ]

    def _title(self) -> str:
        return f"Streaks: {self._isolated(self.event)}"

    def _caption(self) -> str:
        return (
            f"Users by how many days in a row they had “{self._isolated(self.event)}”. As of "
            f"{self.until:%Y-%m-%d %H:%M}: a day that is not over counts, and breaks no run."
        )

    def _bar_name(self, days: int) -> str:
        return f"{days}+" if days == self.days else str(days)


class _Runs:
    """The event sets of the users with a current run.

    Attributes:
        begun: the users of the day that is not over; None if the moment is a midnight.
        days: the users of the days before the moment that are over, the latest first.
    """

    def __init__(self, begun: EventSet | None, days: Sequence[EventSet]) -> None:
        self.begun = begun
        self.days = days

    def at_least(self, length: int) -> EventSet:
        """Return the users whose current run has so many days or more."""
        *later, first = self.days[:length]
        return all_of([*later, first if self.begun is None else self.begun | first])


class _RunCounts:
    """How many users have a current run of so many days or more: an `Accumulator`.

    Attributes:
        totals: how many users have a run of 1, 2, ... days or more, in the windows so far.
    """

    def __init__(self, days: int, *, has_begun: bool) -> None:
        """Make counts of no users.

        Arguments:
            days: the largest length to count.
            has_begun: whether the first set to add is that of the day that is not over.
        """
        self._algebra = algebra()
        self.totals = [0] * days
        self._has_begun = has_begun
        self._goes_on: bool | None = None
        self.begin_window()

    @property
    def is_empty(self) -> bool:
        """Whether no run of this window goes on."""
        if self._goes_on is None:
            self._goes_on = self._running is None or self._algebra.any(self._running)
        return not self._goes_on

    def for_shard(self) -> _RunCounts:
        """Return an object that adds to the same totals, with a window state of its own."""
        return copy.copy(self)  # `begin_window` makes the state

    def begin_window(self) -> None:
        """Discard the users of the previous window."""
        #: The users of the day that is not over; those of all days that are over so far.
        self._begun: Any = None
        self._running: Any = None
        self._goes_on = None

    def add(self, index: int, users: Any) -> Iterator[None]:
        """Add the users of a day: the one that is not over, then the others, the latest first."""
        index -= self._has_begun
        if index < 0:
            self._begun = users
            return
        # Whoever was there on all later days that are over: with the day that is not over, one
        # day in a row is enough of this day and that.
        reached = users if self._begun is None else users | self._begun
        if self._running is None:
            self._running = users
        else:
            reached = reached & self._running
            yield
            self._running = self._running & users
        self._goes_on = None
        yield
        self.totals[index] += self._algebra.count(reached)
        yield

    def end_window(self) -> Iterator[None]:
        """Count nothing: all is counted."""
        return iter(())


#: How many values of a window are held: the users of two days, and a few results.
_HELD: Final = 6


def streaks(
    context: Context,
    event: str,
    *,
    days: int,
    until: date | None,
    labels: Mapping[str, str] | None,
) -> Query[Streaks]:
    """Count the users by the length of their current run of days.

    Arguments:
        context: the database.
        event: the event's name.
        days: the length from which on runs are counted together, 1 or more.
        until: the moment of the report; None for now.
        labels: the readable names of events.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed.
    """
    event = checked_name("event", event)
    days = checked_int("days", days)
    if days < 1:
        raise InvalidValueError(f"days must be 1 or more, got {shown(days)}")
    check_number(context, days + 1, "days")
    names = checked_labels(labels)
    moment, _, is_over = last_days(context, until)
    today = Period.containing(Granularity.DAY, moment)
    periods = yield from in_steps(map(today.shift, range(-1, -1 - days, -1)))
    over = yield from in_steps(context.during(event, period) for period in periods)
    begun = None if is_over else context.during(event, today)
    event_sets = over if begun is None else [begun, *over]
    yield from check_bitmaps(context, event_sets)
    yield from load_algebra()
    counts = _RunCounts(days, has_begun=begun is not None)
    bounding = 1 if begun is None else 2
    sweep = yield from Sweep.of(context, event_sets, bounding=bounding, held=_HELD)
    yield from sweep.run(context, counts)
    reached = [*counts.totals, 0]
    exact = [here - longer for here, longer in itertools.pairwise(reached)]
    at_least = _Runs(begun, over).at_least
    return Streaks(
        event=event,
        until=moment,
        bars=(yield from days_bars(exact, at_least)),
        labels=names,
        unknown_events=(yield from find_unknown(context, sorted(sweep.empty_events))),
        _at_least=at_least,
    )
