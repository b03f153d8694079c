"""How the cells of a retention table are counted, and what is fetched for it. Pure.

The server hands out parts of bitmaps, a few at a time, which holds it up for
about a millisecond. They are combined on this side, window by window of the
ids, so neither the number of users nor that of earlier periods decides how
much memory is needed. Only where that is slow, for want of numpy, the server
counts the plain cells of small bitmaps, a few at a time too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from .._core.bits import algebra
from .._core.events import Bitmap, EventSet, any_of
from .._core.failures import SlotMovingError
from .._reading.expressions import asking, compiled, compiled_each, lengths
from .._reading.fanout import AT_ONCE, in_shards
from .._reading.queries import next_candidate
from .._reading.raw_keys import ranges
from .._reading.requests import Compute, Request

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .._core.context import Context
    from .._core.events import Origin
    from .._core.graphs import Graph
    from .._reading.requests import Command, Query
    from .retention import Mode

__all__ = ["Tallies", "count_cells"]

#: The graph of an event set, and what to do with its bits: a step with each item of what
#: it returns.
_Use = tuple["Graph", Callable[[Any], "Iterator[None]"]]

#: How many bytes all cohorts of one window take, and the limits of what one takes.
_WINDOWS: Final = 32 * 1024 * 1024
_SMALLEST: Final = 64 * 1024
_LARGEST: Final = 1024 * 1024

#: How many bytes are fetched with one request, at most.
_REQUEST: Final = 4 * 1024 * 1024

#: How many bytes the server combines in one transaction, at most: this takes it a millisecond.
_TRANSACTION: Final = 2 * 1024 * 1024


class Tallies:
    """What is counted, window by window.

    Attributes:
        sizes: how many users each cohort has.
        counts: how many of each were back after how many periods; 0 where
            nothing is known yet.
        columns: how many cells a row has.
        cells_are_independent: whether no cell needs more than its own two sets.
    """

    def __init__(self, rows: int, periods: int, mode: Mode, first_time: bool) -> None:
        self._wanted = rows, periods, mode, first_time
        self._reckon = algebra()
        self._unbounded = mode == "unbounded"
        self._first_time = first_time
        self.columns = periods + 1
        self.cells_are_independent = not (self._unbounded or first_time)
        self.sizes = [0] * rows
        self.counts = [[0] * self.columns for _ in range(rows)]
        self.begin_window()

    def blank(self) -> Tallies:
        """Return others of the same table, in which nothing is counted yet."""
        return Tallies(*self._wanted)

    def add(self, other: Tallies) -> None:
        """Add what was counted of other users."""
        self.sizes = [sum(both) for both in zip(self.sizes, other.sizes, strict=True)]
        self.counts = [
            [sum(both) for both in zip(*rows, strict=True)]
            for rows in zip(self.counts, other.counts, strict=True)
        ]

    def begin_window(self) -> None:
        """Forget the bits of the window before."""
        self._cohorts: list[Any] = []
        self._earlier: Any = None
        self._later: Any = None

    def exclude(self, users: Any) -> Iterator[None]:
        """Take note of users who came before the first cohort."""
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
        self.sizes[len(self._cohorts)] += self._reckon.count(users)
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
    tallies: Tallies,
) -> Query[None]:
    """Count all cells; in each shard those of its users, and then together.

    Arguments:
        context: the database.
        cohorts: who is in the cohort of each row.
        active: who was active in the period of each row, and in those that follow on
            the last one, if they are to be counted too.
        earlier: who came before the first cohort, for first-time cohorts.
        tallies: takes the numbers.
    """
    everybody = yield from compiled([any_of(cohorts)])
    rows = yield from compiled_each(cohorts)
    columns = yield from compiled_each(active)
    before = yield from compiled_each(earlier)
    if not context.shards:
        yield from _count_cells(context, everybody, rows, columns, before, tallies)
        return

    def counted(part: Context) -> Query[Tallies]:
        own = tallies.blank()
        mine = [[one.at(part.origin) for one in some] for some in (rows, columns, before)]
        siblings = min(AT_ONCE, len(context.shards))
        everyone = everybody.at(part.origin)
        yield from _count_cells(part, everyone, mine[0], mine[1], mine[2], own, siblings)
        return own

    for own in (yield from in_shards(context, counted)):
        tallies.add(own)


def _count_cells(
    context: Context,
    everybody: Graph,
    cohorts: Sequence[Graph],
    active: Sequence[Graph],
    earlier: Sequence[Graph],
    tallies: Tallies,
    siblings: int = 1,
) -> Query[None]:
    """Count the cells of a database, or of a shard, so many of which are counted at once.

    Arguments:
        everybody: who is in any cohort.
        context, cohorts, active, earlier, tallies: as for `count_cells`.
    """
    sizes = dict(zip(everybody.bitmaps, (yield from lengths(everybody)), strict=True))
    plain = not any(one.operations for one in (*cohorts, *active))
    may_write = plain and not context.options.reads_elsewhere
    if may_write and tallies.cells_are_independent and not algebra().lets_others_run:
        # Redis does a plain AND faster than the standard library, copying not counted.
        rows = [bitmap for one in cohorts for bitmap in one.bitmaps]
        columns = [bitmap for one in active for bitmap in one.bitmaps]
        sizes |= yield from _lengths(columns)
        if max(sizes.values()) * (tallies.columns + 1) <= _TRANSACTION:
            try:
                yield from _on_server(context.origin, rows, columns, sizes, tallies)
            except SlotMovingError:  # bitmaps can be fetched wherever they are
                pass
            else:
                return
    end = max(sizes.values())
    yield from _by_windows(everybody, cohorts, active, earlier, end, tallies, siblings)


def _lengths(bitmaps: Sequence[Bitmap]) -> Query[dict[Bitmap, int]]:
    replies = yield Request([(b"STRLEN", bitmap.key) for bitmap in bitmaps])
    return dict(zip(bitmaps, replies, strict=True))


def _on_server(
    origin: Origin,
    cohorts: Sequence[Bitmap],
    active: Sequence[Bitmap],
    lengths: Mapping[Bitmap, int],
    tallies: Tallies,
) -> Query[None]:
    """Have the server count, each row at one moment: nobody is in a cell but not in its cohort."""
    cells: dict[tuple[int, int], EventSet] = {}
    size = 0
    for row, cohort in enumerate(cohorts):
        columns = active[row : row + tallies.columns] if lengths[cohort] else ()
        cost = sum(max(lengths[cohort], lengths[users]) for users in columns)
        if cells and size + cost > _TRANSACTION:
            yield from _told(origin, cells, tallies)
            cells, size = {}, 0
        size += cost
        cells[row, -1] = cohort
        for column, users in enumerate(columns):
            if lengths[users]:
                cells[row, column] = cohort & users
    yield from _told(origin, cells, tallies)


def _told(
    origin: Origin, cells: Mapping[tuple[int, int], EventSet], tallies: Tallies
) -> Query[None]:
    """Take the server's numbers; column -1 is the cohort itself."""
    graph = yield from compiled(list(cells.values()))
    request, asked = yield from asking(origin, graph, _bitcount)
    replies = yield request
    for (row, column), reply in zip(cells, asked, strict=True):
        if column < 0:
            tallies.sizes[row] = replies[reply]
        else:
            tallies.counts[row][column] = replies[reply]


def _bitcount(key: bytes) -> Command:
    return (b"BITCOUNT", key)


def _by_windows(
    everybody: Graph,
    cohorts: Sequence[Graph],
    active: Sequence[Graph],
    earlier: Sequence[Graph],
    end: int,
    tallies: Tallies,
    siblings: int,
) -> Query[None]:
    """Count on this side, window by window of the ids.

    Who is in no cohort is in no cell, so nobody beyond the end of the longest is of interest.
    """
    size = min(max(_WINDOWS // siblings // len(cohorts), _SMALLEST), _LARGEST)
    most = max(1, _REQUEST // siblings // size)
    arrivals = [
        *((graph, tallies.exclude) for graph in earlier),
        *((graph, tallies.add_cohort) for graph in cohorts),
    ]
    returns = [
        (active[row], functools.partial(tallies.add_active, row))
        for row in range(len(active) - 1, -1, -1)
    ]
    at: int | None = 0
    while at is not None and at < end:
        before = sum(tallies.sizes)
        length = min(size, end - at)
        tallies.begin_window()
        yield from _use(arrivals, at, length, most)
        if sum(tallies.sizes) > before:
            yield from _use(returns, at, length, most)
            at += length
        else:
            at = yield from next_candidate(everybody, at + length)


def _use(uses: Sequence[_Use], at: int, size: int, most: int) -> Query[None]:
    """Fetch the same bytes of some event sets, a few bitmaps at a time, and use them in order.

    While one group of them is used, the next one is on its way.
    """
    work: Iterator[None] = iter(())
    for some, bitmaps in _grouped(uses, most):
        parts: list[bytes] = []
        for first in range(0, len(bitmaps), most):
            keys = [bitmap.key for bitmap in bitmaps[first : first + most]]
            commands = ranges(keys, at, size)
            parts += yield Request(commands, meanwhile=work, replies=bytes)
            work = iter(())
        work = _used(some, dict(zip(bitmaps, parts, strict=True)), size)
    yield Compute(work)


def _used(some: Sequence[_Use], data: dict[Bitmap, bytes], size: int) -> Iterator[None]:
    """Use some event sets, step by step."""
    reckon = algebra()
    values = {}
    for bitmap, part in data.items():
        values[bitmap] = reckon.load(part, size)
        yield
    for graph, use in some:
        own = graph.values([values[bitmap] for bitmap in graph.bitmaps])
        yield from graph.evaluation(own)
        yield from use(own[graph.roots[0]])


def _grouped(uses: Sequence[_Use], most: int) -> Iterator[tuple[list[_Use], list[Bitmap]]]:
    """Yield neighbours with their bitmaps, ``most`` of these unless one event set has more."""
    group: list[_Use] = []
    bitmaps: dict[Bitmap, None] = {}
    for graph, use in uses:
        own = dict.fromkeys(graph.bitmaps)
        if group and len(bitmaps) + len(own.keys() - bitmaps.keys()) > most:
            yield group, list(bitmaps)
            group, bitmaps = [], {}
        group.append((graph, use))
        bitmaps |= own
    if group:
        yield group, list(bitmaps)
