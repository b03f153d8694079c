"""The counting of the cells of a retention table, and the requests for it. Pure.

The bitmaps are fetched in windows: the same range of bytes of all bitmaps, a few bitmaps with
one request, which takes the server about a millisecond. The windows are combined in this
process, so the memory depends neither on the number of users nor on that of earlier periods.
Only without numpy, where this is slow, the server counts the cells of small bitmaps
(``BITOP AND``, ``BITCOUNT``), a few in each transaction.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._core.events import Bitmap, Combination, EventSet
from .._core.failures import SlotMovingError
from .._reading.bits import algebra
from .._reading.expressions import (
    build_request,
    compile_graph,
    compile_graphs,
    fetch_lengths,
    find_candidate,
)
from .._reading.fanout import CONCURRENCY, each_shard
from .._reading.raw_keys import bitcount, getrange_commands
from .._reading.requests import Checkpoint, Compute, Request, in_steps, run_steps, send

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence

    from .._core.context import Context
    from .._reading.graphs import Graph
    from .._reading.requests import Query
    from .retention import Mode

__all__ = ["CellCounts", "count_cells"]

#: Consumes a window of an event set, as a value of the `Algebra`; yields between two steps.
_Consumer = Callable[[Any], "Iterator[None]"]

#: The number of users of some cells, by row and column; column -1 is the size of the cohort.
_Counts = dict[tuple[int, int], int]

#: The bytes of the windows of all cohorts together, and the limits of one window in bytes.
_ALL_WINDOWS: Final = 32 * 1024 * 1024
_MIN_WINDOW: Final = 64 * 1024
_MAX_WINDOW: Final = 1024 * 1024

#: The most bytes that are fetched with one request.
_MAX_FETCH: Final = 4 * 1024 * 1024

#: Up to this number of bitmaps, counted once for each event set, to group them takes no
#: noticeable time.
_SMALL_TABLE: Final = 500

#: The most bytes that the server combines in one transaction, which takes a millisecond.
_MAX_BITOP: Final = 2 * 1024 * 1024


class CellCounts:
    """The cells of a retention table while they are counted, window by window.

    For each window: `begin_window`, `exclude` for each earlier event set, `add_cohort` for
    each row from the first to the last, then `add_active` for each row from the last to the
    first.

    Attributes:
        sizes: how many users of each cohort were counted.
        counts: for each cohort, how many users who returned were counted, by column.
        window_size: how many users of this window are in a cohort, the sum of all cohorts.
        columns: the number of cells in each row.
        cells_are_independent: whether a cell depends on no event sets but those of its
            cohort and of its period.

    Arguments:
        rows: the number of cohorts.
        periods: the number of periods after that of the cohort.
        mode: whether a user returns in exactly a period, or in that or any later one.
        first_time: whether a cohort has only the users who were in no earlier period.
    """

    def __init__(self, rows: int, periods: int, mode: Mode, first_time: bool) -> None:
        self._algebra = algebra()
        self._unbounded = mode == "unbounded"
        self._first_time = first_time
        self.columns = periods + 1
        self.cells_are_independent = not (self._unbounded or first_time)
        self.sizes = [0] * rows
        self.counts = [[0] * self.columns for _ in range(rows)]
        self.begin_window()

    def for_shard(self) -> CellCounts:
        """Return an object that counts into the same cells, with a window state of its own."""
        shard = copy.copy(self)
        shard.begin_window()
        return shard

    def add(self, counts: _Counts) -> None:
        """Add counts of the server to the cells."""
        for (row, column), count in counts.items():
            if column < 0:
                self.sizes[row] += count
            else:
                self.counts[row][column] += count

    def begin_window(self) -> None:
        """Discard the users of the previous window."""
        self.window_size = 0
        self._cohorts: list[Any] = []
        self._earlier: Any = None
        self._later: Any = None

    def exclude(self, users: Any) -> Iterator[None]:
        """Leave users of periods before the first cohort out of all cohorts."""
        self._earlier = users if self._earlier is None else self._earlier | users
        yield

    def add_cohort(self, users: Any) -> Iterator[None]:
        """Count the next cohort of the window."""
        if self._first_time:
            known = users
            if self._earlier is not None:
                users = users & ~self._earlier
                known = known | self._earlier
            self._earlier = known
        size = self._algebra.count(users)
        self.window_size += size
        self.sizes[len(self._cohorts)] += size
        self._cohorts.append(users)
        yield

    def add_active(self, row: int, users: Any) -> Iterator[None]:
        """Count the users of each cohort who returned in the period of a row.

        Arguments:
            row: the index of the row.
            users: the active users of the period.
        """
        if self._unbounded:
            self._later = users = users if self._later is None else self._later | users
        for cohort in range(max(0, row + 1 - self.columns), min(row + 1, len(self._cohorts))):
            returned = self._algebra.count(self._cohorts[cohort] & users)
            self.counts[cohort][row - cohort] += returned
            yield


def count_cells(
    context: Context,
    cohorts: Sequence[EventSet],
    active: Sequence[EventSet],
    earlier: Sequence[EventSet],
    table: CellCounts,
) -> Query[None]:
    """Count all cells of a table, shard by shard.

    Arguments:
        context: the database.
        cohorts: the users of the cohort of each row.
        active: the active users of the period of each row; more event sets are those of the
            periods that follow.
        earlier: the users of periods before the first cohort, for first-time cohorts.
        table: the cells; the counts are added to them.
    """
    # `any_of` would also look for equal event sets, which takes long if these are large.
    union = Combination(context.origin, "|", tuple(cohorts)) if cohorts[1:] else cohorts[0]
    union_graph = yield from compile_graph([union])
    cohort_graphs = yield from compile_graphs(cohorts)
    active_graphs = yield from compile_graphs(active)
    first_graphs = [*(yield from compile_graphs(earlier)), *cohort_graphs]
    concurrent = min(CONCURRENCY, len(context.shards))
    window = min(max(_ALL_WINDOWS // concurrent // len(cohorts), _MIN_WINDOW), _MAX_WINDOW)
    batch = max(1, _MAX_FETCH // concurrent // window)
    large = sum(len(graph.bitmaps) for graph in (*first_graphs, *active_graphs)) > _SMALL_TABLE
    plan = _Plan(
        union_graph,
        cohort_graphs,
        active_graphs,
        (yield from run_steps(_grouped(first_graphs, batch), large=large)),
        (yield from run_steps(_grouped(active_graphs[::-1], batch), large=large)),
        window,
        batch,
    )
    yield from each_shard(context, lambda shard: _count_in_shard(shard, plan, table.for_shard()))


class _Group(NamedTuple):
    """Consecutive event sets whose bitmaps are fetched together.

    Attributes:
        graphs: the graphs of the event sets.
        bitmaps: the bitmaps of all graphs, without duplicates.
        indexes: for each graph the indexes of its bitmaps in ``bitmaps``.
    """

    graphs: list[Graph]
    bitmaps: list[Bitmap]
    indexes: list[list[int]]


class _Plan(NamedTuple):
    """The event sets of a table, and how they are fetched; the same for each shard.

    Attributes:
        union: the union of all cohorts.
        cohorts: the cohort of each row.
        active: the active users of the period of each row.
        cohort_groups: the users of periods before the first cohort, then the cohorts.
        active_groups: the active users, from the last period to the first.
        window: how many bytes of each bitmap are counted together.
        batch: how many bitmaps are fetched with one request.
    """

    union: Graph
    cohorts: Sequence[Graph]
    active: Sequence[Graph]
    cohort_groups: Sequence[_Group]
    active_groups: Sequence[_Group]
    window: int
    batch: int


def _count_in_shard(context: Context, plan: _Plan, table: CellCounts) -> Query[None]:
    """Count the cells of the users of one shard."""
    union = plan.union.with_prefix(context.origin.prefix)
    cohort_sizes = yield from fetch_lengths(union)
    plain = not any(graph.operations for graph in (*plan.cohorts, *plan.active))
    may_write = plain and not context.options.reads_elsewhere
    if may_write and table.cells_are_independent and not algebra().releases_gil:
        # BITOP AND is faster than ints of Python, even if fetching cost nothing.
        cohorts = [bitmap for graph in plan.cohorts for bitmap in graph.bitmaps]
        active = [bitmap for graph in plan.active for bitmap in graph.bitmaps]
        sizes = dict(zip(union.bitmaps, cohort_sizes, strict=True))
        sizes |= yield from _lengths(union, active)
        if max(sizes.values()) * (table.columns + 1) <= _MAX_BITOP:
            try:
                transactions = yield from _count_on_server(
                    context.origin.prefix, cohorts, active, sizes, table.columns
                )
            except SlotMovingError:  # fetching works also while a slot moves
                pass
            else:
                for counts in transactions:
                    table.add(counts)
                    yield Checkpoint()
                return
    yield from _count_windows(union, plan, max(cohort_sizes), table)


def _lengths(graph: Graph, bitmaps: Sequence[Bitmap]) -> Query[dict[Bitmap, int]]:
    """Return the length of each bitmap in bytes; its key is that of the graph's database."""
    keys = yield from in_steps(graph.keys_of(bitmaps))
    replies = yield from send(Request([(b"STRLEN", key) for key in keys]))
    return dict(zip(bitmaps, replies, strict=True))


def _count_on_server(
    prefix: str,
    cohorts: Sequence[Bitmap],
    active: Sequence[Bitmap],
    sizes: Mapping[Bitmap, int],
    columns: int,
) -> Query[list[_Counts]]:
    """Count the cells by commands of the server.

    Each row is counted in one transaction, so no cell has a user that its cohort has not.

    Arguments:
        prefix: the prefix of the keys.
        cohorts: the bitmap of the cohort of each row.
        active: the bitmap of the active users of the period of each row.
        sizes: the length of each bitmap in bytes.
        columns: the number of cells in each row.

    Returns:
        For each transaction the counts, for `CellCounts.add`.
    """
    transactions: list[_Counts] = []
    cells: dict[tuple[int, int], EventSet] = {}
    cost = 0
    for row, cohort in enumerate(cohorts):
        row_active = active[row : row + columns] if sizes[cohort] else ()
        row_cost = sum(max(sizes[cohort], sizes[users]) for users in row_active)
        if cells and cost + row_cost > _MAX_BITOP:
            transactions.append((yield from _count_transaction(prefix, cells)))
            cells, cost = {}, 0
        cost += row_cost
        cells[row, -1] = cohort
        for column, users in enumerate(row_active):
            if sizes[users]:
                cells[row, column] = cohort & users
    transactions.append((yield from _count_transaction(prefix, cells)))
    return transactions


def _count_transaction(prefix: str, cells: Mapping[tuple[int, int], EventSet]) -> Query[_Counts]:
    """Count some cells by one transaction of the server."""
    graph = (yield from compile_graph(list(cells.values()))).with_prefix(prefix)
    request, indexes = yield from build_request(prefix, graph, bitcount)
    replies = yield request
    return {cell: replies[index] for cell, index in zip(cells, indexes, strict=True)}


def _count_windows(union: Graph, plan: _Plan, end: int, table: CellCounts) -> Query[None]:
    """Count the cells in this process, window by window.

    A user without a cohort is in no cell, so the windows end with the longest cohort.

    Arguments:
        union: the union of all cohorts, in this shard.
        plan: the event sets, and how they are fetched.
        end: the length of the longest bitmap of a cohort, in bytes.
        table: the cells; the counts are added to them.
    """
    earlier = sum(len(group.graphs) for group in plan.cohort_groups) - len(plan.cohorts)
    add_cohorts = [table.exclude] * earlier + [table.add_cohort] * len(plan.cohorts)
    add_active = [
        functools.partial(table.add_active, row) for row in range(len(plan.active) - 1, -1, -1)
    ]
    start: int | None = 0
    while start is not None and start < end:
        size = min(plan.window, end - start)
        table.begin_window()
        yield from _consume(union, plan.cohort_groups, add_cohorts, start, size, plan.batch)
        if table.window_size:
            yield from _consume(union, plan.active_groups, add_active, start, size, plan.batch)
            start += size
        else:
            start = yield from find_candidate(union, start + size)


def _consume(
    graph: Graph,
    groups: Sequence[_Group],
    consumers: Iterable[_Consumer],
    start: int,
    size: int,
    batch: int,
) -> Query[None]:
    """Fetch one window of some event sets, and pass each event set to its consumer, in order.

    The next group is fetched while one group is evaluated.

    Arguments:
        graph: a graph of the shard, which makes the keys.
        groups: the event sets.
        consumers: the consumer of each event set.
        start, size: the window, in bytes.
        batch: how many bitmaps are fetched with one request.
    """
    remaining = iter(consumers)
    work: Iterator[None] = iter(())
    for group in groups:
        data: list[bytes] = []
        for first in range(0, len(group.bitmaps), batch):
            commands = getrange_commands(
                graph.keys_of(group.bitmaps[first : first + batch]), start, size
            )
            data += yield Request(commands, meanwhile=work, replies=bytes)
            work = iter(())
        group_consumers = list(itertools.islice(remaining, len(group.graphs)))
        work = _consume_group(group, group_consumers, data, size)
    yield Compute(work)


def _consume_group(
    group: _Group, consumers: Sequence[_Consumer], data: list[bytes], size: int
) -> Iterator[None]:
    """Evaluate the event sets of a group, and pass each to its consumer, step by step."""
    load = algebra().load
    bitmaps = []
    for part in data:
        bitmaps.append(load(part, size))
        yield
    for graph, indexes, consumer in zip(group.graphs, group.indexes, consumers, strict=True):
        values = graph.values([bitmaps[index] for index in indexes])
        yield from graph.evaluation(values)
        yield from consumer(values[graph.roots[0]])


def _grouped(graphs: Sequence[Graph], batch: int) -> Generator[None, None, list[_Group]]:
    """Group consecutive event sets: up to ``batch`` bitmaps, or one event set that has more."""
    groups: list[_Group] = []
    group = _Group([], [], [])
    indexes: dict[Bitmap, int] = {}
    for graph in graphs:
        yield
        new = {bitmap: None for bitmap in graph.bitmaps if bitmap not in indexes}
        if group.graphs and len(indexes) + len(new) > batch:
            groups.append(group)
            group, indexes, new = _Group([], [], []), {}, dict.fromkeys(graph.bitmaps)
        indexes |= zip(new, itertools.count(len(indexes)), strict=False)
        group.graphs.append(graph)
        group.bitmaps.extend(new)
        group.indexes.append([indexes[bitmap] for bitmap in graph.bitmaps])
    if group.graphs:
        groups.append(group)
    return groups
