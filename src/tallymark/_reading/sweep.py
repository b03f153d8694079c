"""Sweeps: many event sets, fetched and combined window by window. Pure.

Reports combine hundreds of event sets of millions of users. A sweep fetches them in windows: the
same range of bytes of all bitmaps, a few bitmaps with one request, which takes the server about
a millisecond. The windows are combined in this process, so the memory depends neither on the
number of users nor on that of the event sets that are only passed on.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from .._core.events import Combination
from .bits import algebra
from .expressions import compile_graph, compile_graphs, fetch_lengths, find_candidate
from .fanout import CONCURRENCY, each_shard
from .raw_keys import getrange_commands
from .requests import Compute, Request, run_steps

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from .._core.context import Context
    from .._core.events import Bitmap, EventSet
    from .graphs import Graph
    from .requests import Query

__all__ = ["Accumulator", "Sweep"]

#: The bytes of all windows that an accumulator holds, and the limits of one window in bytes.
_ALL_WINDOWS: Final = 32 * 1024 * 1024
_MIN_WINDOW: Final = 16 * 1024
_MAX_WINDOW: Final = 1024 * 1024

_PAGE: Final = 4096

#: The most bytes that are fetched with one request, and the most commands that it has: their
#: encoding takes less than a millisecond.
_MAX_FETCH: Final = 4 * 1024 * 1024
_MAX_COMMANDS: Final = 256

#: Up to this number of bitmaps, counted once for each event set, to group them takes no
#: noticeable time.
_SMALL: Final = 500


class Accumulator(Protocol):
    """The numbers of a report while they are counted, window by window.

    For each window: `begin_window`, `add` for each event set in order, `end_window`.
    """

    @property
    def is_empty(self) -> bool:
        """Whether no user of this window can be in any number any more.

        It is asked after the bounding event sets of the `Sweep`, and between later ones. The rest
        of an empty window is left out.
        """
        ...

    def for_shard(self) -> Accumulator:
        """Return an object that adds to the same numbers, with a window state of its own."""
        ...

    def begin_window(self) -> None:
        """Discard the users of the previous window."""
        ...

    def add(self, index: int, users: Any) -> Iterator[None]:
        """Add the next event set of the window; yields after each millisecond of work at least.

        Arguments:
            index: the index of the event set in the list of the `Sweep`.
            users: its users in the window, as a value of the `Algebra`. It must not be changed.
        """
        ...

    def end_window(self) -> Iterator[None]:
        """Count what can be counted only when all event sets were added. Yields as `add`."""
        ...


class _Group(NamedTuple):
    """Consecutive event sets whose bitmaps are fetched together.

    Attributes:
        first: the index of the first event set.
        graphs: the graphs of the event sets.
        bitmaps: the bitmaps of all graphs, without duplicates.
        indexes: for each graph the indexes of its bitmaps in ``bitmaps``.
    """

    first: int
    graphs: list[Graph]
    bitmaps: list[Bitmap]
    indexes: list[list[int]]


class Sweep:
    """Event sets and how they are fetched; the same for each shard.

    Attributes:
        graphs: the graph of each event set.
        bounds: the union of the bounding event sets.
        empty_events: the events that have no user in what was fetched.
        concurrency: how many shards are swept at the same time.
    """

    def __init__(self, graphs: Sequence[Graph], bounds: Graph) -> None:
        """Use `of`, which plans a sweep step by step."""
        self.graphs = graphs
        self.bounds = bounds
        self.empty_events: set[str] = set()
        self._phases: list[list[_Group]] = []
        self.concurrency = 1
        self._window = _MIN_WINDOW
        self._batch = 1

    @classmethod
    def of(
        cls,
        context: Context,
        event_sets: Sequence[EventSet],
        *,
        bounding: int,
        held: int,
        sizes: tuple[int, int] | None = None,
    ) -> Query[Sweep]:
        """Plan a sweep.

        Arguments:
            context: the database.
            event_sets: the event sets, in the order in which they are added to the accumulator.
            bounding: how many of them, from the first one on, bound the report: every user in any
                of its numbers is in one of these. Windows end with the longest of them.
            held: how many windows the accumulator holds at a time.
            sizes: the least and the most size of a window in bytes, however many are held; None
                for 16 KiB and 1 MiB.
        """
        first = tuple(event_sets[:bounding])
        # `any_of` would also look for equal event sets, which takes long if these are large.
        union = Combination(context.origin, "|", first) if first[1:] else first[0]
        sweep = cls((yield from compile_graphs(event_sets)), (yield from compile_graph([union])))
        least, most = (_MIN_WINDOW, _MAX_WINDOW) if sizes is None else sizes
        fitting = max(1, _ALL_WINDOWS // (held * least))
        concurrent = sweep.concurrency = min(CONCURRENCY, len(context.shards), fitting)
        # In whole pages of memory: parts of whole words are loaded without a copy.
        window = _ALL_WINDOWS // concurrent // held // _PAGE * _PAGE
        sweep._window = min(max(window, least), most, _MAX_WINDOW)
        sweep._batch = min(max(1, _MAX_FETCH // concurrent // sweep._window), _MAX_COMMANDS)
        yield from run_steps(sweep._group(bounding), large=len(sweep.graphs) > _SMALL)
        return sweep

    def _group(self, bounding: int) -> Generator[None, None, None]:
        for begin, end in ((0, bounding), (bounding, len(self.graphs))):
            self._phases.append((yield from _grouped(self.graphs[:end], begin, self._batch)))
        for group in itertools.chain.from_iterable(self._phases):
            self.empty_events.update(bitmap.event for bitmap in group.bitmaps)
            yield

    def run(self, context: Context, accumulator: Accumulator) -> Query[None]:
        """Fetch all windows of all shards, and add them to an accumulator."""
        yield from each_shard(
            context,
            lambda shard: self.run_in_shard(shard, accumulator.for_shard()),
            self.concurrency,
        )

    def run_in_shard(self, shard: Context, accumulator: Accumulator) -> Query[None]:
        """Fetch all windows of one shard, and add them to an accumulator."""
        bounds = self.bounds.with_prefix(shard.origin.prefix)
        end = max((yield from fetch_lengths(bounds)))
        start: int | None = 0
        while start is not None and start < end:
            size = min(self._window, end - start)
            accumulator.begin_window()
            for groups in self._phases:
                yield from self._add(bounds, groups, accumulator, start, size)
                if accumulator.is_empty:
                    start = yield from find_candidate(bounds, start + size)
                    break
            else:
                yield Compute(accumulator.end_window())
                start += size

    def _add(
        self,
        bounds: Graph,
        groups: Sequence[_Group],
        accumulator: Accumulator,
        start: int,
        size: int,
    ) -> Query[None]:
        """Fetch one window of some event sets, and add them, in order.

        The next group is fetched while one group is evaluated.

        Arguments:
            bounds: a graph of the shard, which makes the keys.
            groups: the event sets.
            accumulator: is given the users of the event sets.
            start, size: the window, in bytes.
        """
        work: Iterator[None] = iter(())
        is_bounding = groups is self._phases[0]
        for group in groups:
            if not is_bounding and accumulator.is_empty:
                break
            data: list[bytes] = []
            for first in range(0, len(group.bitmaps), self._batch):
                commands = getrange_commands(
                    bounds.keys_of(group.bitmaps[first : first + self._batch]), start, size
                )
                data += yield Request(commands, meanwhile=work, replies=bytes)
                work = iter(())
            if self.empty_events:
                self.empty_events.difference_update(
                    bitmap.event for bitmap, part in zip(group.bitmaps, data, strict=True) if part
                )
            work = _add_group(group, accumulator, data, size)
        yield Compute(work)


def _add_group(
    group: _Group, accumulator: Accumulator, data: Sequence[bytes], size: int
) -> Iterator[None]:
    """Evaluate the event sets of a group, and add each to an accumulator, step by step."""
    load = algebra().load
    bitmaps = []
    for part in data:
        bitmaps.append(load(part, size))
        yield
    for index, (graph, indexes) in enumerate(
        zip(group.graphs, group.indexes, strict=True), group.first
    ):
        values = graph.values([bitmaps[at] for at in indexes])
        yield from graph.evaluation(values)
        yield from accumulator.add(index, values[graph.roots[0]])


def _grouped(
    graphs: Sequence[Graph], begin: int, batch: int
) -> Generator[None, None, list[_Group]]:
    """Group consecutive event sets: up to ``batch`` bitmaps, or one event set that has more.

    Arguments:
        graphs: the graphs of the event sets.
        begin: the index of the first event set to group.
        batch: how many bitmaps are fetched with one request.
    """
    groups: list[_Group] = []
    group = _Group(begin, [], [], [])
    positions: dict[Bitmap, int] = {}
    for index, graph in enumerate(graphs[begin:], begin):
        yield
        new = {bitmap: None for bitmap in graph.bitmaps if bitmap not in positions}
        if group.graphs and len(positions) + len(new) > batch:
            groups.append(group)
            group, positions, new = _Group(index, [], [], []), {}, dict.fromkeys(graph.bitmaps)
        positions |= zip(new, itertools.count(len(positions)), strict=False)
        group.graphs.append(graph)
        group.bitmaps.extend(new)
        group.indexes.append([positions[bitmap] for bitmap in graph.bitmaps])
    if group.graphs:
        groups.append(group)
    return groups
