"""How the cells of a retention table are counted, and what is fetched for it. Pure.

The server hands out parts of bitmaps, a few at a time, which holds it up for
about a millisecond. They are combined on this side, window by window of the
ids, so neither the number of users nor that of earlier periods decides how
much memory is needed. Only where that is slow, for want of numpy, the server
counts the plain cells of small bitmaps, a few at a time too.
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

#: What to do with the bits of an event set: a step with each item of what it returns.
_Use = Callable[[Any], "Iterator[None]"]

#: How many users are in some cells, by row and column; column -1 is the cohort itself.
_Cells = dict[tuple[int, int], int]

#: How many bytes all cohorts of one window take, and the limits of what one takes.
_WINDOWS: Final = 32 * 1024 * 1024
_SMALLEST: Final = 64 * 1024
_LARGEST: Final = 1024 * 1024

#: How many bytes are fetched with one request, at most.
_REQUEST: Final = 4 * 1024 * 1024

#: So many bitmaps of all event sets take no time to speak of.
_FEW_USES: Final = 500

#: How many bytes the server combines in one transaction, at most: this takes it a millisecond.
_TRANSACTION: Final = 2 * 1024 * 1024


class CellCounts:
    """The cells of a table while they are counted, window by window.

    Attributes:
        sizes: how many users each cohort has.
        counts: how many of each were back after how many periods; 0 where
            nothing is known yet.
        window_size: how many users of this window are in any cohort.
        columns: how many cells a row has.
        cells_are_independent: whether no cell needs more than its own two sets.
    """

    def __init__(self, rows: int, periods: int, mode: Mode, first_time: bool) -> None:
        self._reckon = algebra()
        self._unbounded = mode == "unbounded"
        self._first_time = first_time
        self.columns = periods + 1
        self.cells_are_independent = not (self._unbounded or first_time)
        self.sizes = [0] * rows
        self.counts = [[0] * self.columns for _ in range(rows)]
        self.begin_window()

    def of_shard(self) -> CellCounts:
        """Return what counts the users of a shard into the same cells, in windows of its own."""
        shard = copy.copy(self)
        shard.begin_window()
        return shard

    def add(self, cells: _Cells) -> None:
        """Add counts of the server."""
        for (row, column), count in cells.items():
            if column < 0:
                self.sizes[row] += count
            else:
                self.counts[row][column] += count

    def begin_window(self) -> None:
        """Forget the bits of the window before."""
        self.window_size = 0
        self._cohorts: list[Any] = []
        self._earlier: Any = None
        self._later: Any = None

    def exclude(self, users: Any) -> Iterator[None]:
        """Take the users who came before the first cohort."""
        self._earlier = users if self._earlier is None else self._earlier | users
        yield

    def add_cohort(self, users: Any) -> Iterator[None]:
        """Take the next cohort of the window, from the first on, and count it."""
        if self._first_time:
            everybody = users
            if self._earlier is not None:
                users = users & ~self._earlier
                everybody = everybody | self._earlier
            self._earlier = everybody
        size = self._reckon.count(users)
        self.window_size += size
        self.sizes[len(self._cohorts)] += size
        self._cohorts.append(users)
        yield

    def add_active(self, row: int, users: Any) -> Iterator[None]:
        """Count who was back in the period of a row. The rows come from the last one on."""
        if self._unbounded:
            self._later = users = users if self._later is None else self._later | users
        for earlier in range(max(0, row + 1 - self.columns), min(row + 1, len(self._cohorts))):
            back = self._reckon.count(self._cohorts[earlier] & users)
            self.counts[earlier][row - earlier] += back
            yield


def count_cells(
    context: Context,
    cohorts: Sequence[EventSet],
    active: Sequence[EventSet],
    earlier: Sequence[EventSet],
    table: CellCounts,
) -> Query[None]:
    """Count all cells; in each shard those of its users, and then together.

    Arguments:
        context: the database.
        cohorts: who is in the cohort of each row.
        active: who was active in the period of each row, and in those that follow on
            the last one, if they are to be counted too.
        earlier: who came before the first cohort, for first-time cohorts.
        table: takes the numbers.
    """
    # Not `any_of`, which would look for equal ones, and that takes long if they are large.
    anybody = Combination(context.origin, "|", tuple(cohorts)) if cohorts[1:] else cohorts[0]
    everybody = yield from compile_graph([anybody])
    rows = yield from compile_graphs(cohorts)
    columns = yield from compile_graphs(active)
    before = yield from compile_graphs(earlier)
    siblings = min(CONCURRENCY, len(context.shards))
    window = min(max(_WINDOWS // siblings // len(rows), _SMALLEST), _LARGEST)
    most = max(1, _REQUEST // siblings // window)
    uses = sum(len(graph.bitmaps) for graph in (*before, *rows, *columns))
    groups = yield from run_steps(_grouped([*before, *rows], most), large=uses > _FEW_USES)
    later = yield from run_steps(_grouped(columns[::-1], most), large=uses > _FEW_USES)
    plan = _Plan(everybody, rows, columns, groups, later, window, most)
    yield from each_shard(context, lambda part: _count_cells(part, plan, table.of_shard()))


class _Group(NamedTuple):
    """Neighbours among event sets, whose bitmaps are fetched together.

    Attributes:
        graphs: theirs.
        bitmaps: theirs, each once.
        places: for each of the graphs the places of its bitmaps among these.
    """

    graphs: list[Graph]
    bitmaps: list[Bitmap]
    places: list[list[int]]


class _Plan(NamedTuple):
    """How a table is counted, in each shard alike.

    Attributes:
        everybody: who is in any cohort.
        cohorts, active: of each row, who was in it, and who was active in its period.
        arrivals: who came earlier, and then the cohorts.
        returns: who was active, from the last row on.
        window: how many bytes of each bitmap are counted together.
        most: how many bitmaps are fetched together.
    """

    everybody: Graph
    cohorts: Sequence[Graph]
    active: Sequence[Graph]
    arrivals: Sequence[_Group]
    returns: Sequence[_Group]
    window: int
    most: int


def _count_cells(context: Context, plan: _Plan, table: CellCounts) -> Query[None]:
    """Count the cells in a shard."""
    everybody = plan.everybody.with_prefix(context.origin.prefix)
    found = yield from fetch_lengths(everybody)
    plain = not any(one.operations for one in (*plan.cohorts, *plan.active))
    may_write = plain and not context.options.reads_elsewhere
    if may_write and table.cells_are_independent and not algebra().releases_gil:
        # Redis does a plain AND faster than the standard library, copying not counted.
        rows = [bitmap for one in plan.cohorts for bitmap in one.bitmaps]
        columns = [bitmap for one in plan.active for bitmap in one.bitmaps]
        sizes = dict(zip(everybody.bitmaps, found, strict=True))
        sizes |= yield from _lengths(everybody, columns)
        if max(sizes.values()) * (table.columns + 1) <= _TRANSACTION:
            try:
                counts = yield from _on_server(
                    context.origin.prefix, rows, columns, sizes, table.columns
                )
            except SlotMovingError:  # bitmaps can be fetched wherever they are
                pass
            else:
                for cells in counts:
                    table.add(cells)
                    yield Checkpoint()
                return
    yield from _by_windows(everybody, plan, max(found), table)


def _lengths(graph: Graph, bitmaps: Sequence[Bitmap]) -> Query[dict[Bitmap, int]]:
    keys = yield from in_steps(graph.keys_of(bitmaps))
    replies = yield from send(Request([(b"STRLEN", key) for key in keys]))
    return dict(zip(bitmaps, replies, strict=True))


def _on_server(
    prefix: str,
    cohorts: Sequence[Bitmap],
    active: Sequence[Bitmap],
    lengths: Mapping[Bitmap, int],
    width: int,
) -> Query[list[_Cells]]:
    """Have the server count, each row at one moment: nobody is in a cell but not in its cohort.

    Returns:
        The counts of the cells, for `CellCounts.add`, of each transaction.
    """
    counts: list[_Cells] = []
    cells: dict[tuple[int, int], EventSet] = {}
    size = 0
    for row, cohort in enumerate(cohorts):
        columns = active[row : row + width] if lengths[cohort] else ()
        cost = sum(max(lengths[cohort], lengths[users]) for users in columns)
        if cells and size + cost > _TRANSACTION:
            counts.append((yield from _counted(prefix, cells)))
            cells, size = {}, 0
        size += cost
        cells[row, -1] = cohort
        for column, users in enumerate(columns):
            if lengths[users]:
                cells[row, column] = cohort & users
    counts.append((yield from _counted(prefix, cells)))
    return counts


def _counted(prefix: str, cells: Mapping[tuple[int, int], EventSet]) -> Query[_Cells]:
    """Have the server count some cells at one moment."""
    graph = (yield from compile_graph(list(cells.values()))).with_prefix(prefix)
    request, asked = yield from build_request(prefix, graph, bitcount)
    replies = yield request
    return {cell: replies[reply] for cell, reply in zip(cells, asked, strict=True)}


def _by_windows(everybody: Graph, plan: _Plan, end: int, table: CellCounts) -> Query[None]:
    """Count on this side, window by window of the ids.

    Who is in no cohort is in no cell, so nobody beyond the end of the longest is of interest.

    Arguments:
        everybody: who is in any cohort, here.
        plan: what is fetched and counted.
        end: how many bytes the longest bitmap of a cohort has.
        table: takes the numbers.
    """
    earlier = sum(len(group.graphs) for group in plan.arrivals) - len(plan.cohorts)
    arrivals = [table.exclude] * earlier + [table.add_cohort] * len(plan.cohorts)
    returns = [
        functools.partial(table.add_active, row) for row in range(len(plan.active) - 1, -1, -1)
    ]
    at: int | None = 0
    while at is not None and at < end:
        length = min(plan.window, end - at)
        table.begin_window()
        yield from _use(everybody, plan.arrivals, arrivals, at, length, plan.most)
        if table.window_size:
            yield from _use(everybody, plan.returns, returns, at, length, plan.most)
            at += length
        else:
            at = yield from find_candidate(everybody, at + length)


def _use(
    here: Graph, groups: Sequence[_Group], uses: Iterable[_Use], at: int, size: int, most: int
) -> Query[None]:
    """Fetch the same bytes of some event sets, a few bitmaps at a time, and use them in order.

    While one group of them is used, the next one is on its way.

    Arguments:
        here: knows the keys.
        groups: the event sets.
        uses: what to do with each of them.
        at, size: which bytes.
        most: how many bitmaps at a time.
    """
    following = iter(uses)
    work: Iterator[None] = iter(())
    for group in groups:
        parts: list[bytes] = []
        for first in range(0, len(group.bitmaps), most):
            commands = getrange_commands(
                here.keys_of(group.bitmaps[first : first + most]), at, size
            )
            parts += yield Request(commands, meanwhile=work, replies=bytes)
            work = iter(())
        own = list(itertools.islice(following, len(group.graphs)))
        work = _used(group, own, parts, size)
    yield Compute(work)


def _used(group: _Group, uses: Sequence[_Use], data: list[bytes], size: int) -> Iterator[None]:
    """Use some event sets, step by step."""
    reckon = algebra()
    values = []
    for part in data:
        values.append(reckon.load(part, size))
        yield
    for graph, places, use in zip(group.graphs, group.places, uses, strict=True):
        own = graph.values([values[place] for place in places])
        yield from graph.evaluation(own)
        yield from use(own[graph.roots[0]])


def _grouped(graphs: Sequence[Graph], most: int) -> Generator[None, None, list[_Group]]:
    """Return neighbours together, with ``most`` bitmaps unless one event set has more."""
    groups: list[_Group] = []
    group = _Group([], [], [])
    places: dict[Bitmap, int] = {}
    for graph in graphs:
        yield
        fresh = {bitmap: None for bitmap in graph.bitmaps if bitmap not in places}
        if group.graphs and len(places) + len(fresh) > most:
            groups.append(group)
            group, places, fresh = _Group([], [], []), {}, dict.fromkeys(graph.bitmaps)
        places |= zip(fresh, itertools.count(len(places)), strict=False)
        group.graphs.append(graph)
        group.bitmaps.extend(fresh)
        group.places.append([places[bitmap] for bitmap in graph.bitmaps])
    if group.graphs:
        groups.append(group)
    return groups
