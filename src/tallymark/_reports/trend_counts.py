"""The counting of trends: unions over a sliding window of days. Pure."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

from .._reading.bits import algebra
from .._reading.expressions import compile_graphs
from .._reading.requests import run_steps
from .._reading.sweep import Sweep

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from .._core.context import Context
    from .._core.events import Bitmap, EventSet
    from .._reading.bits import Algebra
    from .._reading.graphs import Graph
    from .._reading.requests import Query

__all__ = ["SlidingUnion", "Step", "TrendCounts", "count_steps"]

#: More steps than this are prepared off the event loop.
_FEW: int = 500


class Step(NamedTuple):
    """An event set of a series, and what is done with its users.

    Attributes:
        series: the index of the series.
        event_set: the users of a period, of a day or of both.
        point: the index of the point that counts them; ``None`` for a day only.
        is_day: whether they are added to the sliding window.
        dropped: how many days leave the window before that.
        rolling: the index of the point that counts the users in the window afterwards; ``None``
            for no point.
    """

    series: int
    event_set: EventSet
    point: int | None = None
    is_day: bool = False
    dropped: int = 0
    rolling: int | None = None


class TrendNumbers(NamedTuple):
    """The numbers of a trend.

    Attributes:
        counts: how many users the periods have, by series and point.
        rolling: how many users the windows have, by series and point.
        empty_events: the events that have no user in any of them.
    """

    counts: list[list[int]]
    rolling: list[list[int]]
    empty_events: list[str]


class SlidingUnion:
    """The union of the sets in a queue, such as those of the last 28 days.

    A queue of two stacks: of the older sets it has the union of each one and all that were added
    after it, of the newer ones the sets and their union. So each set takes three unions, however
    long the queue is, and none of them has to be undone.

    Unions are written over those that are not needed any more. For 90 days of 10 million users
    and windows of 28 days, in a worker thread, that takes at most half of 41,000 page faults, and
    three quarters of the CPU time of the whole report.
    """

    def __init__(self, algebra: Algebra) -> None:
        """Make an empty queue.

        Arguments:
            algebra: that of the sets, which are never changed.
        """
        self._algebra = algebra
        #: Unions; the first one is a set of the caller's.
        self._older: list[Any] = []
        self._newer: list[Any] = []
        #: The union of the newer sets; if there is only one, that set of the caller's.
        self._newest: Any = None
        self._unused: list[Any] = []
        self._result: Any = None

    def push(self, users: Any) -> None:
        """Add a set."""
        if len(self._newer) > 1:
            self._newest = self._algebra.union(self._newest, users, self._newest)
        elif self._newer:
            self._newest = self._union(self._newest, users)
        else:
            self._newest = users
        self._newer.append(users)

    def drop(self, count: int) -> Iterator[None]:
        """Remove the sets that were added first. Yields after each union.

        Arguments:
            count: how many sets; at most as many as there are.
        """
        for _ in range(count):
            if not self._older:
                if len(self._newer) > 1:
                    self._unused.append(self._newest)
                union = None
                while self._newer:
                    users = self._newer.pop()
                    union = users if union is None else self._union(users, union)
                    self._older.append(union)
                    yield
            union = self._older.pop()
            if self._older:
                self._unused.append(union)

    def union(self) -> Any:
        """Return the union of all sets; there is at least one. It is valid until the next call."""
        if not self._older:
            return self._newest
        if not self._newer:
            return self._older[-1]
        self._result = self._algebra.union(self._older[-1], self._newest, self._result)
        return self._result

    def _union(self, one: Any, other: Any) -> Any:
        unused = self._unused.pop() if self._unused else None
        return self._algebra.union(one, other, unused)


class _Plan:
    """In which order the bitmaps of some steps are fetched, each once, and when they are needed.

    Attributes:
        bitmaps: the bitmaps in the order of their first use.
        ready: for each step the number of bitmaps that must have been fetched.
        indexes: for each step the indexes of its bitmaps.
        released: for each step the indexes of bitmaps that no later step uses.
        held: the largest number of bitmaps that are held at a time.
    """

    def __init__(self) -> None:
        self.bitmaps: list[Bitmap] = []
        self.ready: list[int] = []
        self.indexes: list[list[int]] = []
        self.released: list[list[int]] = []
        self.held = 0

    @classmethod
    def of(cls, graphs: Sequence[Graph]) -> Generator[None, None, _Plan]:
        """Return the plan for the graphs of the steps; yields after each."""
        plan = cls()
        positions: dict[Bitmap, int] = {}
        last: list[int] = []
        for step, graph in enumerate(graphs):
            indexes = [positions.setdefault(bitmap, len(positions)) for bitmap in graph.bitmaps]
            last += [step] * (len(positions) - len(last))
            for index in indexes:
                last[index] = step
            plan.indexes.append(indexes)
            plan.ready.append(len(positions))
            yield
        plan.bitmaps = list(positions)
        plan.released = [[] for _ in graphs]
        for index, step in enumerate(last):
            plan.released[step].append(index)
        released = 0
        for ready, of_step in zip(plan.ready, plan.released, strict=True):
            plan.held = max(plan.held, ready - released)
            released += len(of_step)
        return plan


class TrendCounts:
    """The numbers of a trend while they are counted: an `Accumulator`.

    It is given single bitmaps, and keeps each one until the last step that uses it, so that each
    is fetched once, also if several series use it.

    Attributes:
        counts: how many users the periods have, by series and point.
        rolling: how many users the windows have, by series and point.
    """

    def __init__(
        self, steps: Sequence[Step], graphs: Sequence[Graph], plan: _Plan, series: int, points: int
    ) -> None:
        """Make numbers that are 0.

        Arguments:
            steps: the steps, in order of time.
            graphs: the graph of the event set of each step.
            plan: the order of the bitmaps of the graphs.
            series, points: how many there are.
        """
        self._steps = steps
        self._graphs = graphs
        self._plan = plan
        self._algebra = algebra()
        self.counts = [[0] * points for _ in range(series)]
        self.rolling = [[0] * points for _ in range(series)]
        self.begin_window()

    def for_shard(self) -> TrendCounts:
        """Return an object that counts into the same numbers, with a window state of its own."""
        shard = copy.copy(self)
        shard.begin_window()
        return shard

    @property
    def is_empty(self) -> bool:
        """Whether no bitmap has a user in this window."""
        return not self._has_users

    def begin_window(self) -> None:
        """Discard the users of the previous window."""
        self._has_users = False
        self._next = 0
        self._bitmaps: dict[int, Any] = {}
        self._unions = [SlidingUnion(self._algebra) for _ in self.counts]

    def add(self, index: int, users: Any) -> Iterator[None]:
        """Add a bitmap, and do all steps whose bitmaps have been added."""
        self._bitmaps[index] = users
        self._has_users = self._has_users or self._algebra.any(users)
        ready = self._plan.ready
        while self._next < len(ready) and ready[self._next] == index + 1:
            yield from self._do(self._next)
            self._next += 1
        yield

    def end_window(self) -> Iterator[None]:
        """Do nothing: all steps have been done."""
        return iter(())

    def _do(self, number: int) -> Iterator[None]:
        """Evaluate the event set of a step, and count its users."""
        graph, step = self._graphs[number], self._steps[number]
        values = graph.values([self._bitmaps[index] for index in self._plan.indexes[number]])
        for index in self._plan.released[number]:
            del self._bitmaps[index]
        yield from graph.evaluation(values)
        users = values[graph.roots[0]]
        if step.point is not None:
            self.counts[step.series][step.point] += self._algebra.count(users)
            yield
        if step.is_day:
            window = self._unions[step.series]
            yield from window.drop(step.dropped)
            window.push(users)
            if step.rolling is not None:
                yield
                self.rolling[step.series][step.rolling] += self._algebra.count(window.union())


def count_steps(
    context: Context, steps: Sequence[Step], *, series: int, points: int, days: int
) -> Query[TrendNumbers]:
    """Count the users of all points, shard by shard.

    Arguments:
        context: the database.
        steps: the steps, in order of time.
        series, points: how many there are.
        days: how many days a window has at most; 0 for no windows.
    """
    graphs = yield from compile_graphs([step.event_set for step in steps])
    plan = yield from run_steps(_Plan.of(graphs), large=len(graphs) > _FEW)
    counts = TrendCounts(steps, graphs, plan, series, points)
    held = plan.held + series * days
    sweep = yield from Sweep.of(context, plan.bitmaps, bounding=len(plan.bitmaps), held=held)
    yield from sweep.run(context, counts)
    return TrendNumbers(counts.counts, counts.rolling, sorted(sweep.empty_events))
