"""The counting of the cells of retention tables. Pure.

The event sets are fetched and combined by a `Sweep`. Only without numpy, where this is slow, the
server counts the cells of small bitmaps (``BITOP AND``, ``BITCOUNT``), a few in each transaction.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

from .._core.events import any_of
from .._core.failures import SlotMovingError
from .._reading.bits import algebra
from .._reading.expressions import build_request, compile_graph, fetch_lengths
from .._reading.fanout import each_shard
from .._reading.raw_keys import bitcount
from .._reading.requests import Checkpoint, Request, in_steps, send
from .._reading.sweep import Sweep

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .._core.context import Context
    from .._core.events import Bitmap, EventSet
    from .._reading.graphs import Graph
    from .._reading.requests import Query
    from .retention import Mode

__all__ = ["CellCounts", "RetentionSets", "count_cells"]

#: The number of users of some cells, by row and column; column -1 is the size of the cohort.
_Counts = dict[tuple[int, int], int]

#: The most bytes that the server combines in one transaction, which takes a millisecond.
_MAX_BITOP: Final = 2 * 1024 * 1024


class RetentionSets:
    """The event sets of a retention table.

    Attributes:
        cohorts: the users of the cohort of each row.
        active: the active users of the period of each row.
        earlier: the users of periods before the first cohort, for first-time cohorts.
        segments: for each segment one event set, or one for each row.
        columns: for each column the first and the last offset of its bracket: the number of
            periods after the cohort's own.
        mode: whether a user returns in exactly a column's periods, or in those or any later one.
        first_time: whether a cohort has only the users who were in no earlier period.
    """

    def __init__(
        self,
        cohorts: Sequence[EventSet],
        active: Sequence[EventSet],
        earlier: Sequence[EventSet],
        segments: Sequence[Sequence[EventSet]],
        columns: Sequence[tuple[int, int]],
        mode: Mode,
        first_time: bool,
    ) -> None:
        self.cohorts = cohorts
        self.active = active
        self.earlier = earlier
        self.segments = segments
        self.columns = columns
        self.mode = mode
        self.first_time = first_time

    def users_of_cohort(self, segment: int | None, row: int) -> EventSet:
        """Return the users of a cohort; of one segment, or of all."""
        users = self.cohorts[row]
        if self.first_time and (earlier := [*self.earlier, *self.cohorts[:row]]):
            users = users - any_of(earlier)
        if segment is not None:
            by_row = self.segments[segment]
            users = users & by_row[row if by_row[1:] else 0]
        return users

    def users_of_cell(self, segment: int | None, row: int, column: int) -> EventSet:
        """Return the users of a cell, whose periods have to be over; of one segment, or of all."""
        first, last = self.columns[column]
        end = None if self.mode == "unbounded" else row + last + 1
        return self.users_of_cohort(segment, row) & any_of(self.active[row + first : end])


class CellCounts:
    """The cells of retention tables while they are counted: an `Accumulator`.

    Attributes:
        sizes: how many users of each cohort were counted: of all, then of each segment.
        counts: for each cohort, how many users who returned were counted, by column: of all, then
            of each segment.
    """

    def __init__(self, sets: RetentionSets) -> None:
        """Make cells with no users.

        Arguments:
            sets: the event sets.
        """
        self._sets = sets
        self._algebra = algebra()
        self._unbounded = sets.mode == "unbounded"
        rows = len(sets.cohorts)
        tables = 1 + len(sets.segments)
        self.sizes = [[0] * rows for _ in range(tables)]
        self.counts = [[[0] * len(sets.columns) for _ in range(rows)] for _ in range(tables)]
        # The sets of one cohort together: they often share bitmaps, which are fetched once then.
        self._segment_order = sorted(
            (
                (segment, row)
                for segment, by_row in enumerate(sets.segments)
                for row in range(len(by_row))
            ),
            key=lambda place: place[1],
        )
        self._segment_indexes = {place: at for at, place in enumerate(self._segment_order)}
        #: The column of each offset that is the first of a bracket.
        self._firsts = {first: column for column, (first, _) in enumerate(sets.columns)}
        self._has_users: bool | None = None
        self.begin_window()

    def event_sets(self) -> tuple[list[EventSet], int]:
        """Return the event sets in the order in which they are added, and how many are bounding."""
        sets = self._sets
        segments = [sets.segments[segment][row] for segment, row in self._segment_order]
        # The active users from the last period to the first, as unbounded retention needs them.
        return [*sets.cohorts, *sets.earlier, *segments, *sets.active[::-1]], len(sets.cohorts)

    def held(self) -> int:
        """Return how many windows are held at a time."""
        rows = len(self._sets.cohorts)
        wide = any(first < last for first, last in self._sets.columns)
        return 1 + rows * (2 if wide else 1) + len(self._segment_order)

    def for_shard(self) -> CellCounts:
        """Return an object that counts into the same cells, with a window state of its own."""
        shard = copy.copy(self)
        shard.begin_window()
        return shard

    def add_counts(self, counts: _Counts) -> None:
        """Add counts of the server to the cells."""
        for (row, column), count in counts.items():
            if column < 0:
                self.sizes[0][row] += count
            else:
                self.counts[0][row][column] += count

    @property
    def is_empty(self) -> bool:
        """Whether no cohort has a user in this window."""
        if self._has_users is None:
            self._has_users = any(map(self._algebra.any, self._cohorts))
        return not self._has_users

    def begin_window(self) -> None:
        """Discard the users of the previous window."""
        self._has_users = None
        self._cohorts: list[Any] = []
        self._extents: list[slice] = []
        self._segments: list[Any] = []
        self._earlier: Any = None
        self._later: Any = None
        #: By row, who was active in a part of the bracket that is being counted.
        self._returned: dict[int, Any] = {}

    def add(self, index: int, users: Any) -> Iterator[None]:
        """Add a cohort, earlier users, a segment or the active users of a period, in this order."""
        rows = len(self._sets.cohorts)
        if index < rows:
            self._cohorts.append(users)
            yield
            return
        index -= rows
        if index < len(self._sets.earlier):
            self._earlier = users if self._earlier is None else self._earlier | users
            yield
            return
        index -= len(self._sets.earlier)
        segments = len(self._segment_order)
        if index < segments:
            self._segments.append(users)
            return
        if index == segments:
            yield from self._complete_cohorts()
        yield from self._add_active(len(self._sets.active) - 1 - (index - segments), users)

    def end_window(self) -> Iterator[None]:
        """Count the cohorts of a table without columns; else everything is counted."""
        if not self._sets.active:
            yield from self._complete_cohorts()

    def _complete_cohorts(self) -> Iterator[None]:
        """Leave earlier users out of the cohorts, if asked for, and count the cohorts."""
        for row, cohort in enumerate(self._cohorts):
            users = cohort
            if self._sets.first_time:
                known = users
                if self._earlier is not None:
                    users = users & ~self._earlier
                    known = known | self._earlier
                self._earlier = known
            extent = self._algebra.extent(users)
            # Counts, and later combines, only the part where the cohort has users.
            self._cohorts[row] = users = self._algebra.part(users, extent)
            self._extents.append(extent)
            self._count(users, row, self.sizes)
            yield

    def _add_active(self, row: int, users: Any) -> Iterator[None]:
        """Count the users of each cohort who returned in the period of a row.

        Arguments:
            row: the index of the row.
            users: the active users of the period.
        """
        if self._unbounded:
            self._later = users = users if self._later is None else self._later | users
        longest = self._sets.columns[-1][1]
        for cohort in range(max(0, row - longest), min(row + 1, len(self._cohorts))):
            offset = row - cohort
            column = self._firsts.get(offset)
            if column is None and self._unbounded:
                continue
            active = self._algebra.part(users, self._extents[cohort])
            if cohort in self._returned:
                active = active | self._returned.pop(cohort)
            if column is None:
                self._returned[cohort] = active
                yield
                continue
            returned = self._cohorts[cohort] & active
            self._count(returned, cohort, [table[cohort] for table in self.counts], column)
            yield

    def _count(
        self, users: Any, row: int, totals: Sequence[list[int]], index: int | None = None
    ) -> None:
        """Count users of a cohort, of all and of each segment.

        Arguments:
            users: the users, in the extent of the cohort.
            row: the index of the cohort.
            totals: a list of numbers for all, and for each segment; the counts are added.
            index: the index in each of these lists; the row by default.
        """
        index = row if index is None else index
        extent = self._extents[row]
        parts = [self._algebra.part(segment, extent) for segment in self._segments_of(row)]
        counts = self._algebra.counts_within(users, parts)
        for total, count in zip(totals, counts, strict=True):
            total[index] += count

    def _segments_of(self, row: int) -> Iterator[Any]:
        """Yield the users of each segment of a cohort."""
        for segment, by_row in enumerate(self._sets.segments):
            place = segment, (row if by_row[1:] else 0)
            yield self._segments[self._segment_indexes[place]]


def count_cells(context: Context, sets: RetentionSets) -> Query[tuple[CellCounts, Sweep]]:
    """Count all cells of a table, shard by shard.

    Arguments:
        context: the database.
        sets: the event sets.
    """
    cells = CellCounts(sets)
    event_sets, bounding = cells.event_sets()
    sweep = yield from Sweep.of(context, event_sets, bounding=bounding, held=cells.held())
    yield from each_shard(
        context,
        lambda shard: _count_in_shard(shard, sets, sweep, cells.for_shard()),
        sweep.concurrency,
    )
    return cells, sweep


def _count_in_shard(
    shard: Context, sets: RetentionSets, sweep: Sweep, cells: CellCounts
) -> Query[None]:
    """Count the cells of the users of one shard."""
    if not (algebra().releases_gil or shard.options.reads_elsewhere) and _is_plain(sets, sweep):
        # BITOP AND is faster than ints of Python, even if fetching cost nothing.
        counts = yield from _try_on_server(shard, sets, sweep)
        if counts is not None:
            for transaction in counts:
                cells.add_counts(transaction)
                yield Checkpoint()
            return
    yield from sweep.run_in_shard(shard, cells)


def _is_plain(sets: RetentionSets, sweep: Sweep) -> bool:
    """Return whether each cell is the intersection of two bitmaps."""
    return (
        sets.mode == "classic"
        and not sets.first_time
        and not sets.segments
        and all(first == last for first, last in sets.columns)
        and not any(graph.operations for graph in sweep.graphs)
    )


def _try_on_server(
    shard: Context, sets: RetentionSets, sweep: Sweep
) -> Query[list[_Counts] | None]:
    """Count the cells by commands of the server, if that takes it little time.

    Returns:
        For each transaction the counts, for `CellCounts.add_counts`; None if the bitmaps are too
        long, or the slot of the shard is moving.
    """
    bounds = sweep.bounds.with_prefix(shard.origin.prefix)
    lengths = yield from fetch_lengths(bounds)
    rows = len(sets.cohorts)
    cohorts = [graph.bitmaps[0] for graph in sweep.graphs[:rows]]
    active = [graph.bitmaps[0] for graph in sweep.graphs[: rows - 1 : -1]]
    sizes = dict(zip(bounds.bitmaps, lengths, strict=True))
    sizes |= yield from _lengths(bounds, active)
    if max(sizes.values()) * len(sets.columns) > _MAX_BITOP:
        return None
    sweep.empty_events.difference_update(bitmap.event for bitmap, size in sizes.items() if size)
    try:
        return (
            yield from _count_on_server(
                shard.origin.prefix, cohorts, active, sizes, len(sets.columns)
            )
        )
    except SlotMovingError:  # fetching works also while a slot moves
        return None


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
