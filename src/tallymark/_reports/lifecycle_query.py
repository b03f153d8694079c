"""The query of a lifecycle report: who was active, who before, and who ever before. Pure."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any, Final

from .._core.arguments import checked_int
from .._core.calendars import calendar
from .._core.events import any_of
from .._core.untrusted import shown
from .._reading.bits import algebra
from .._reading.bounds import check_bitmaps, check_number
from .._reading.existence import find_unknown
from .._reading.expressions import load_algebra
from .._reading.requests import in_steps
from .._reading.sweep import Sweep
from ..errors import InvalidValueError
from .bars import Bar
from .lifecycle import Lifecycle, LifecycleRow
from .results import checked_labels
from .retention import rate
from .retention_query import earlier_sets, moment_of, select, selector_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import date

    from .._core.calendars import Every
    from .._core.context import Context
    from .._core.events import EventSet
    from .._core.periods import Period
    from .._reading.requests import Query
    from .retention_query import Selector

__all__ = ["lifecycle"]


class _LifecycleSets:
    """The event sets of a lifecycle report.

    Attributes:
        active: the active users of the period before the first, and of each period.
        earlier: the users of still earlier periods.
    """

    def __init__(self, active: Sequence[EventSet], earlier: Sequence[EventSet]) -> None:
        self.active = active
        self.earlier = earlier

    def new(self, row: int) -> EventSet:
        """Return the new users of a period, counted from 0."""
        return self.active[row + 1] - self._ever_before(row)

    def returning(self, row: int) -> EventSet:
        """Return the returning users of a period."""
        return self.active[row + 1] & self.active[row]

    def resurrected(self, row: int) -> EventSet:
        """Return the resurrected users of a period."""
        return (self.active[row + 1] & self._ever_before(row)) - self.active[row]

    def dormant(self, row: int) -> EventSet:
        """Return the dormant users of a period."""
        return self.active[row] - self.active[row + 1]

    def _ever_before(self, row: int) -> EventSet:
        """Return the users of all periods before a period."""
        return any_of([*self.earlier, *self.active[: row + 1]])

    def rows(self, periods: Iterable[Period], counts: LifecycleCounts) -> Iterator[LifecycleRow]:
        """Yield the numbers of each period."""
        # Bound once, since the garbage collector traverses all parts of many rows.
        of_new, of_returning = self.new, self.returning
        of_resurrected, of_dormant = self.resurrected, self.dormant
        for row, period in enumerate(periods):
            before, active = counts.active[row : row + 2]
            new, returning = counts.new[row], counts.returning[row]
            resurrected = active - new - returning
            yield LifecycleRow(
                period=period,
                new=_bar(new, active, of_new, row),
                returning=_bar(returning, active, of_returning, row),
                resurrected=_bar(resurrected, active, of_resurrected, row),
                dormant=_bar(before - returning, before, of_dormant, row),
            )


def _bar(count: int, total: int, users: Callable[[int], EventSet], row: int) -> Bar:
    return Bar(count=count, rate=rate(count, total), _users=functools.partial(users, row))


class LifecycleCounts:
    """The numbers of a lifecycle report while they are counted: an `Accumulator`.

    Attributes:
        active: how many users were active in the period before the first, and in each period.
        returning: how many of the users of each period were active in the one before.
        new: how many of the users of each period were active in no earlier one.
    """

    def __init__(self, periods: int) -> None:
        """Make counts of no users in so many periods."""
        self._algebra = algebra()
        self.active = [0] * (periods + 1)
        self.returning = [0] * periods
        self.new = [0] * periods
        self._has_candidates: bool | None = None
        self.begin_window()

    @property
    def is_empty(self) -> bool:
        """Whether no user of this window can be new any more; the other numbers are counted."""
        if self._has_candidates is None:
            self._has_candidates = self._algebra.any(self._candidates)
        return not self._has_candidates

    def for_shard(self) -> LifecycleCounts:
        """Return an object that adds to the same numbers, with a window state of its own."""
        return copy.copy(self)  # `begin_window` makes the state

    def begin_window(self) -> None:
        """Discard the users of the previous window."""
        self._has_candidates = None
        #: The users of the first period, of the previous period, and of all periods so far.
        self._first: Any = None
        self._before: Any = None
        self._ever: Any = None
        #: For each period but the first its users who were active in no earlier one of these; and
        #: the union of these users, without those who are in an earlier set.
        self._first_seen: list[Any] = []
        self._candidates: Any = None

    def add(self, index: int, users: Any) -> Iterator[None]:
        """Add the users of a period, in order, or then earlier users."""
        if index >= len(self.active):
            self._candidates = self._candidates & ~users
            self._has_candidates = None
            yield
            return
        self.active[index] += self._algebra.count(users)
        yield
        if index:
            self.returning[index - 1] += self._algebra.count(users & self._before)
            yield
            self._first_seen.append(users & ~self._ever)
            yield
            self._ever = self._ever | users
            yield
        else:
            self._first = self._ever = users
        self._before = users
        if index == len(self.active) - 1:
            self._candidates = self._ever & ~self._first
            yield

    def end_window(self) -> Iterator[None]:
        """Count the new users of each period."""
        for row, users in enumerate(self._first_seen):
            self.new[row] += self._algebra.count(users & self._candidates)
            yield


#: How many rows are made in one step, in less than a millisecond.
_ROWS: Final = 50

#: How many windows are held besides one for each period.
_RESULTS: Final = 5

#: With so many, windows are 256 KiB long, and stay in the cache of a processor: 12 weeks of 10
#: million users take 39 ms of CPU time; in windows of 1 MiB, 51 ms.
_MIN_HELD: Final = 128


def lifecycle(
    context: Context,
    activity: Selector,
    *,
    by: Every,
    anchor: date | None,
    periods: int,
    until: date | None,
    labels: Mapping[str, str] | None,
) -> Query[Lifecycle]:
    """Count the new, returning, resurrected and dormant users of the last complete periods.

    Arguments:
        context: the database.
        activity: selects the active users of each period.
        by: the length of the periods.
        anchor: if that is a timedelta, the first day of one of the periods.
        periods: how many periods, 1 or more.
        until: the moment of the report; None for now.
        labels: the readable names of events.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed.
    """
    spans = calendar(by, None if anchor is None else context.local(anchor, "anchor"))
    periods = checked_int("periods", periods)
    if periods < 1:
        raise InvalidValueError(f"periods must be 1 or more, got {shown(periods)}")
    check_number(context, periods + 1, "periods")
    names = checked_labels(labels)
    moment = moment_of(context, until)
    last = spans.containing(moment).shift(-1)  # the last complete period
    timeline = yield from in_steps(map(last.shift, range(-periods, 1)))
    active = yield from in_steps(select(context, activity, period) for period in timeline)
    yield from check_bitmaps(context, active)
    earlier = yield from earlier_sets(context, spans, activity, timeline[0])
    yield from load_algebra()
    sets = _LifecycleSets(active, earlier)
    counts, empty = yield from _count(context, sets)
    return Lifecycle(
        activity=selector_name(activity),
        unit=spans.unit,
        until=moment,
        rows=tuple((yield from in_steps(sets.rows(timeline[1:], counts), _ROWS))),
        labels=names,
        unknown_events=(yield from find_unknown(context, sorted(empty))),
    )


def _count(context: Context, sets: _LifecycleSets) -> Query[tuple[LifecycleCounts, set[str]]]:
    """Return the numbers of a report, and the events that have no user in what was fetched."""
    periods = len(sets.active) - 1
    counts = LifecycleCounts(periods)
    # The latest of the earlier sets first: they have most of the users who are not new.
    sweep = yield from Sweep.of(
        context,
        [*sets.active, *sets.earlier[::-1]],
        bounding=len(sets.active),
        held=max(_MIN_HELD, periods + _RESULTS),
    )
    yield from sweep.run(context, counts)
    return counts, sweep.empty_events
