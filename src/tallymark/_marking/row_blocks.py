"""Blocks of rows: sorted, and divided into marks and transactions. Pure.

A block is sorted by shard, event, day or hour, and user. So the users of each bitmap of a day, a
week or a month are neighbours. The rows of one event and month are a `RowMarks`, or several where
one would hold up Redis for too long: all bits of a row are always in the same one.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._core import encoding
from .._core.moments import loaded_numpy
from .._core.offsets import WINDOW, Offsets, as_bits, as_list, is_array
from .bulk import Chunk
from .row_marks import Dense, RowBitmaps, RowMarks, Sparse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .id_marks import KnownNumbers
    from .marks import Bitmaps, Mark
    from .row_calendar import RowCalendar, Span, Unit

__all__ = ["BlockWriter", "RowTarget", "Rows"]

#: What sets a bit takes of Redis's time, in microseconds: as an operation of a ``BITFIELD``; and
#: of a part of a bitmap, as a script, and for each byte of the part. Measured on Redis 7.0.
_BIT: Final = 0.35
_PART: Final = 10.0
_BYTE: Final = 1 / 350

#: What each further command takes.
_COMMAND: Final = 1.0

#: How long a transaction holds up Redis, about, in microseconds; and how many rows it has at most
#: if their users have ids: when the numbers have changed, all are calls of the script.
_LONGEST: Final = 1_500.0
_MOST_KNOWN: Final = 8_192

#: A part of a bitmap has at least so many bits set.
_LEAST: Final = 32


class Rows(NamedTuple):
    """Rows of one block, as columns of equal length: lists, or arrays of 64-bit integers.

    Attributes:
        codes: the event of each row, as a number from 0 on.
        users: the user's id, or with a dictionary the user's number.
        units: the day or the hour.
    """

    codes: Any
    users: Any
    units: Any


class RowTarget(NamedTuple):
    """Where the rows of a call are marked.

    Attributes:
        calendar: has the periods of the rows.
        prefixes: the first characters of the keys of each shard, encoded.
        temp_keys: returns two keys for temporary values in a shard.
        clock: returns the current time in seconds since 1970.
        bitmaps: returns the bitmaps of a row: of an event, a shard, and a day or hour.
    """

    calendar: RowCalendar
    prefixes: Sequence[bytes]
    temp_keys: Callable[[int], tuple[bytes, ...]]
    clock: Callable[[], float]
    bitmaps: Callable[[str, int, int], Bitmaps]


class _Event(NamedTuple):
    """An event in a shard."""

    name: str
    shard: int
    head: bytes
    uncounted: bool


class _Part(NamedTuple):
    """Rows of one unit, and their offsets in ascending order."""

    number: int
    unit: Unit
    offsets: Any


class BlockWriter:
    """Makes the transactions of one block."""

    def __init__(
        self,
        target: RowTarget,
        names: Sequence[str],
        is_uncounted: Callable[[str], bool],
        known: KnownNumbers | None = None,
    ) -> None:
        """Prepare for a block.

        Arguments:
            target: where the rows are marked.
            names: the name of each event.
            is_uncounted: whether an event does not count towards ``max_events`` yet.
            known: the numbers of the users, if these have ids.
        """
        self._target = target
        self._names = names
        self._is_uncounted = is_uncounted
        self._known = known

    def chunks(self, rows: Rows) -> Iterator[Chunk]:
        """Yield the transactions of a block; those of the same shard follow each other."""
        marks: list[Mark] = []
        count, cost, shard = 0, 0.0, 0
        for mark, mark_cost in self._marks(rows):
            if marks and (
                cost + mark_cost > _LONGEST
                or mark.bitmaps.shard != shard
                or (self._known is not None and count + mark.rows > _MOST_KNOWN)
            ):
                yield Chunk(marks, count)
                marks, count, cost = [], 0, 0.0
            shard = mark.bitmaps.shard
            marks.append(self._with_ids(mark))
            count += mark.rows
            cost += mark_cost
        if marks:
            yield Chunk(marks, count)

    def _with_ids(self, mark: RowMarks) -> Mark:
        if self._known is None:
            return mark
        from .id_marks import IdMarks  # noqa: PLC0415 - only tallies with ids have it

        return IdMarks(mark.bitmaps, 1, prepared=mark, known=self._known)

    def _marks(self, rows: Rows) -> Iterator[tuple[RowMarks, float]]:
        shards, calendar = len(self._target.prefixes), self._target.calendar
        for event, groups in itertools.groupby(
            _sorted(rows, shards, len(self._names)), key=lambda group: group[0]
        ):
            shard, code = divmod(event, len(self._names))
            name = self._names[code]
            head = self._target.prefixes[shard] + name.encode()
            of_event = _Event(name, shard, head, self._is_uncounted(name))
            parts = (_Part(number, calendar.unit(number), offsets) for _, number, offsets in groups)
            for _, of_month in itertools.groupby(parts, key=lambda part: part.unit.group):
                for window in _windows(list(of_month)):
                    for piece, cost in self._pieces(window):
                        yield self._mark(of_event, piece), cost

    def _pieces(self, parts: list[_Part]) -> Iterator[tuple[list[_Part], float]]:
        """Divide rows of one event and month so that no piece takes too long."""
        part_cost = _part_cost(parts) if self._target.temp_keys(0) else float("inf")
        piece = _Piece(part_cost)
        for whole in parts:
            for part in _shortened(whole, part_cost):
                cost = piece.cost_with(part)
                full = cost > _LONGEST or (
                    self._known is not None and piece.rows + len(part.offsets) > _MOST_KNOWN
                )
                if piece.parts and full:
                    yield piece.parts, piece.cost
                    piece = _Piece(part_cost)
                piece.add(part)
        yield piece.parts, piece.cost

    def _mark(self, event: _Event, parts: list[_Part]) -> RowMarks:
        spans: dict[int, tuple[Span, list[_Part]]] = {}
        now = self._target.clock()
        for part in parts:
            unit = part.unit
            for span in (*unit.wide, *unit.narrow):
                # An EXPIREAT in the past would delete the key.
                if span.expires_at > now:
                    entry = spans.get(id(span))
                    if entry is None:
                        spans[id(span)] = span, [part]
                    else:
                        entry[1].append(part)
        temp_keys = self._target.temp_keys(event.shard)
        tails: dict[int, bytes] = {}
        merged: dict[tuple[int, ...], tuple[int, bytes]] = {}
        dense: list[Dense] = []
        sparse: list[Sparse] = []
        expiring = []
        for span, members in spans.values():
            key = event.head + span.suffix
            if span.expires_at < _NEVER:
                expiring.append((key, span.expires_at))
            count = sum([len(part.offsets) for part in members])
            if temp_keys and count >= _LEAST and _BIT * count > _part_cost(members):
                same = tuple(map(id, members))
                bits = merged.get(same)
                if bits is None:
                    bits = merged[same] = as_bits(_aligned(members))
                dense.append(Dense(span.granularity, key, *bits))
                continue
            for part in members:
                if id(part) not in tails:
                    tails[id(part)] = encoding.set_bits(as_list(part.offsets))
            tail = b"".join([tails[id(part)] for part in members])
            sparse.append(Sparse(span.granularity, key, tail, count))
        bitmaps = RowBitmaps(
            event.name,
            event.shard,
            [part.key for part in dense] + [part.key for part in sparse],
            [part.granularity for part in dense] + [part.granularity for part in sparse],
            expiring,
            uncounted=event.uncounted,
        )
        return RowMarks(
            bitmaps,
            dense,
            sparse,
            temp_keys=temp_keys,
            rows=sum([len(part.offsets) for part in parts]),
            users=lambda known: self._users(event, parts, known),
        )

    def _users(
        self, event: _Event, parts: list[_Part], known: Any
    ) -> Iterator[tuple[Bitmaps, Sequence[Any]]]:
        for part in parts:
            bitmaps = self._target.bitmaps(event.name, event.shard, part.number)
            yield bitmaps, known.keys_of(as_list(part.offsets))


_NEVER: Final = float("inf")


class _Piece:
    """Rows that share a transaction, and how long that takes Redis, about, in microseconds."""

    def __init__(self, part_cost: float) -> None:
        self._part_cost = part_cost
        self.parts: list[_Part] = []
        self.rows = 0
        self.cost = 0.0
        #: Of the last unit: how many rows each of its spans has.
        self._counts: list[tuple[Span, int]] = []

    def cost_with(self, part: _Part) -> float:
        """Return the cost of the piece if it had a part more."""
        rows = len(part.offsets)
        cost = self.cost
        wide = len(part.unit.wide)
        cost += wide * (self._of(self.rows + rows) - self._of(self.rows))
        before = self._counts
        for index, span in enumerate(part.unit.narrow):
            count = before[index][1] if before and before[index][0] is span else 0
            cost += self._of(count + rows) - self._of(count)
        return cost

    def add(self, part: _Part) -> None:
        """Append a part."""
        self.cost = self.cost_with(part)
        rows = len(part.offsets)
        before = self._counts
        self._counts = [
            (span, (before[index][1] if before and before[index][0] is span else 0) + rows)
            for index, span in enumerate(part.unit.narrow)
        ]
        self.parts.append(part)
        self.rows += rows

    def _of(self, count: int) -> float:
        if not count:
            return 0.0
        return _COMMAND + (min(_BIT * count, self._part_cost) if count >= _LEAST else _BIT * count)


def _part_cost(parts: list[_Part]) -> float:
    """Return what it takes to merge the bits of all parts."""
    size = max([int(part.offsets[-1]) for part in parts]) - min(
        [int(part.offsets[0]) for part in parts]
    )
    return _PART + _BYTE * (size >> 3) if size < 2 * WINDOW else _NEVER


def _shortened(part: _Part, part_cost: float) -> Iterator[_Part]:
    """Divide rows of one unit whose bits, set one by one, take too long."""
    spans = len(part.unit.wide) + len(part.unit.narrow)
    most = int(_LONGEST / (_BIT * spans))
    if len(part.offsets) <= most or spans * (part_cost + _COMMAND) <= _LONGEST:
        yield part
        return
    for at in range(0, len(part.offsets), most):
        yield part._replace(offsets=part.offsets[at : at + most])


def _windows(parts: list[_Part]) -> Iterator[list[_Part]]:
    """Cut rows of one event and month into windows of neighbouring offsets.

    A window of its own has enough rows for a part of a bitmap; all others stay together.
    """
    if _part_cost(parts) < _NEVER:
        yield parts
        return
    least = (_PART + _BYTE * WINDOW / 8) / _BIT
    if sum([len(part.offsets) for part in parts]) < least:
        yield parts
        return
    counts: Counter[int] = Counter()
    for part in parts:
        windows = (
            part.offsets // WINDOW
            if is_array(part.offsets)
            else (offset // WINDOW for offset in part.offsets)
        )
        counts.update(as_list(windows))
    wanted = sorted(window for window, count in counts.items() if count > least)
    rest = parts
    for window in wanted:
        inside, outside = [], []
        for part in rest:
            begin = bisect_left(part.offsets, window * WINDOW)
            end = bisect_left(part.offsets, (window + 1) * WINDOW, begin)
            if begin < end:
                inside.append(part._replace(offsets=part.offsets[begin:end]))
            # Windows are in ascending order, so what follows may be cut again.
            outside += [
                part._replace(offsets=left)
                for left in (part.offsets[:begin], part.offsets[end:])
                if len(left)
            ]
        yield inside
        rest = outside
    if rest:
        yield rest


def _aligned(parts: list[_Part]) -> Offsets:
    """Return the offsets of some parts, from 0 on if that takes few bytes more."""
    low = min([int(part.offsets[0]) for part in parts])
    high = max([int(part.offsets[-1]) for part in parts])
    first = parts[0].offsets
    if len(parts) == 1:
        values = first
    elif is_array(first):
        numpy: Any = loaded_numpy()
        values = numpy.concatenate([part.offsets for part in parts])
    else:
        values = list(itertools.chain.from_iterable(part.offsets for part in parts))
    return Offsets(values, 0 if 2 * low <= high else low, high)


def _sorted(rows: Rows, shards: int, events: int) -> Iterator[tuple[int, int, Any]]:
    """Yield the rows of each shard, event and unit, in order.

    Yields:
        The shard times the number of events, plus the event; the unit; and the offsets of the
        users, in ascending order.
    """
    if not is_array(rows.users):
        yield from _sorted_lists(rows, shards, events)
        return
    numpy: Any = loaded_numpy()
    codes, users, units = rows
    first = int(units.min())
    length = int(units.max()) - first + 1
    groups = codes * length + (units - first)
    offsets = users
    if shards > 1:
        groups += users % shards * (events * length)
        offsets = users // shards
    bits = int(offsets.max()).bit_length()
    names = None
    if int(groups.max()) >> (63 - bits):
        names, groups = numpy.unique(groups, return_inverse=True)
    # One sort of 64-bit integers takes a fifth of the time that it takes to sort indexes.
    packed = (groups << bits) | offsets
    packed.sort()
    heads = packed >> bits
    bounds = numpy.flatnonzero(heads[1:] != heads[:-1]) + 1
    begins = numpy.concatenate(([0], bounds))
    offsets = packed & ((1 << bits) - 1)
    of_groups = heads[begins]
    if names is not None:
        of_groups = names[of_groups]
    begins = begins.tolist()
    ends = [*begins[1:], len(packed)]
    for group, begin, end in zip(of_groups.tolist(), begins, ends, strict=True):
        event, unit = divmod(group, length)
        yield event, unit + first, offsets[begin:end]


def _sorted_lists(rows: Rows, shards: int, events: int) -> Iterator[tuple[int, int, list[int]]]:
    groups: dict[tuple[int, int], list[int]] = {}
    if shards > 1:
        for code, user, unit in zip(*rows, strict=True):
            event = user % shards * events + code
            groups.setdefault((event, unit), []).append(user // shards)
    else:
        for code, user, unit in zip(*rows, strict=True):
            groups.setdefault((code, unit), []).append(user)
    for event, unit in sorted(groups):
        offsets = groups[event, unit]
        offsets.sort()
        yield event, unit, offsets
