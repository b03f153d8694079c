"""The event sets of ordered funnels, and the order in which they are fetched. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from .._core.events import any_of
from .._core.thresholds import Threshold
from .._reading.requests import in_steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._core.events import EventSet
    from .._reading.requests import Query

__all__ = ["FunnelPlan", "FunnelSets"]

#: Up to this size, an expression has few operations, and Redis may compute it.
_LARGE: Final = 32

#: How many periods are planned in less than a millisecond.
_STEP: Final = 100


class FunnelSets:
    """The event sets of an ordered funnel.

    Attributes:
        entries: the users of step 1 in each period in which users may enter.
        later: for each later step the users in each period that is read, from that of the first
            entry on; or one event set, if it is the same in all periods.
        segments: for each segment one event set, or one for each entry.
        periods: how many periods are read.
        window: how many periods a user has, that of the entry included.
        first_open: the number of the first entry whose window is not over.
    """

    def __init__(
        self,
        entries: Sequence[EventSet],
        later: Sequence[Sequence[EventSet]],
        segments: Sequence[Sequence[EventSet]],
        periods: int,
        window: int,
        first_open: int,
    ) -> None:
        self.entries = entries
        self.later = later
        self.segments = segments
        self.periods = periods
        self.window = window
        self.first_open = first_open

    def users_of_step(self, segment: int | None, step: int) -> EventSet:
        """Return the users who reached a step, the first one is 0; of one segment, or of all."""
        entered = [self._entered(segment, entry) for entry in range(len(self.entries))]
        if not step:
            return _as_threshold(any_of(entered))
        return _as_threshold(
            any_of([users & self._done(entry, step) for entry, users in enumerate(entered)])
        )

    def unfinished_users(self, segment: int | None) -> EventSet:
        """Return the users who may still reach the last step; of one segment, or of all.

        There is no such user if no window is open.
        """
        entries = range(self.first_open, len(self.entries))
        entered = [self._entered(segment, entry) for entry in entries]
        reached = self.users_of_step(segment, len(self.later))
        return _as_threshold((any_of(entered) if entered else reached) - reached)

    def _entered(self, segment: int | None, entry: int) -> EventSet:
        users = self.entries[entry]
        return users if segment is None else users & _at_period(self.segments[segment], entry)

    def _done(self, entry: int, step: int) -> EventSet:
        """Return the users who did the later steps up to one in order, in the window of an entry.

        The recurrence of `tallymark._reports.ordered_funnel_counts`, without the users of the
        entry, of whom all its sets are parts.
        """
        done: list[EventSet] = []
        for period in range(entry, min(entry + self.window, self.periods)):
            previous: EventSet | None = None
            for number, by_period in enumerate(self.later[:step]):
                users = _at_period(by_period, period)
                if previous is not None:
                    users = users & previous
                if number < len(done):
                    done[number] = done[number] | users
                else:
                    done.append(users)
                previous = done[number]
        return done[-1]


def _as_threshold(event_set: EventSet) -> EventSet:
    """Return the same users as a threshold, in one of one event set, if it is large.

    Verbs do not let Redis compute thresholds of long bitmaps, but the tally, as it is best for
    these expressions too: they have hundreds of operations.
    """
    if event_set.size <= _LARGE:
        return event_set
    return Threshold(event_set.origin, 1, (event_set,))


def _at_period(by_period: Sequence[EventSet], number: int) -> EventSet:
    """Return the event set of a period; the only one, if it is the same in all periods."""
    return by_period[number if by_period[1:] else 0]


class FunnelPlan(NamedTuple):
    """The event sets of a funnel in the order in which they are fetched, each once.

    Those of a period that another one has, or the entries, are not fetched again.

    Attributes:
        event_sets: the event sets: the entries, those that are the same in all periods, and then
            period by period the others.
        bounding: how many different event sets the entries are.
        held: how many, from the first one on, are held until the end of a window.
        entries: the index of the event set of each entry.
        fixed_segments: by number, the indexes of segments that are one event set.
        segments: by period, the indexes of the other segments, by number.
        steps: by period, the indexes of the later steps.
        complete: by period, with which event set all sets of the period are there.
    """

    event_sets: list[EventSet]
    bounding: int
    held: int
    entries: list[int]
    fixed_segments: dict[int, int]
    segments: list[dict[int, int]]
    steps: list[list[int]]
    complete: list[int]

    @classmethod
    def of(cls, sets: FunnelSets) -> Query[FunnelPlan]:
        """Return the plan of a funnel."""
        numbers: dict[EventSet, int] = {}

        def number(event_set: EventSet) -> int:
            return numbers.setdefault(event_set, len(numbers))

        entries = yield from in_steps(map(number, sets.entries), _STEP)
        bounding = len(numbers)
        # What is the same in all periods is read once, and held.
        for by_period in sets.later:
            if not by_period[1:]:
                number(by_period[0])
        fixed = {
            segment: number(by_period[0])
            for segment, by_period in enumerate(sets.segments)
            if not by_period[1:]
        }
        event_sets = list(numbers)
        plan = cls(event_sets, bounding, len(numbers), entries, fixed, [], [], [])
        yield from in_steps(
            (plan._add(sets, numbers, period) for period in range(sets.periods)), _STEP
        )
        return plan

    def _add(self, sets: FunnelSets, held: dict[EventSet, int], period: int) -> None:
        own: dict[EventSet, int] = {}

        def number(event_set: EventSet) -> int:
            if event_set in held:
                return held[event_set]
            if event_set not in own:
                own[event_set] = len(self.event_sets)
                self.event_sets.append(event_set)
            return own[event_set]

        self.segments.append(
            {
                segment: number(by_period[period])
                for segment, by_period in enumerate(sets.segments)
                if by_period[1:] and period < len(sets.entries)
            }
        )
        self.steps.append([number(_at_period(by_period, period)) for by_period in sets.later])
        self.complete.append(len(self.event_sets) - 1)
