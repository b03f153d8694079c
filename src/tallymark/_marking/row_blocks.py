"""Blocks of rows: sorted, and divided into marks and transactions. Pure.

A block is sorted by shard, event, day or hour, and user. So the users of each bitmap of a day, a
week or a month are neighbours. The rows of one event and month are a `RowMarks`, or several where
one would hold up Redis for too long: all bits of a row are always in the same one.
"""

from __future__ import annotations

import functools
import itertools
import math
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._core import encoding
from .._core.moments import loaded_numpy
from .._core.offsets import WINDOW, Offsets, as_bits, as_list, is_array
from .bulk import Chunk
from .row_marks import Dense, RowBitmaps, RowMarks, merge

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

_NEVER: Final = math.inf

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
        self._transaction = _Transaction(target, has_ids=known is not None)

    def chunks(self, rows: Rows) -> Iterator[Chunk]:
        """Yield the transactions of a block; those of the same shard follow each other."""
        target, names = self._target, self._names
        parts: list[_Part] = []
        event: _Event | None = None
        last = -1
        for code, number, offsets in _sorted(rows, len(target.prefixes), len(names)):
            part = _Part(number, target.calendar.unit(number), offsets)
            if parts and (code != last or part.unit.group != parts[0].unit.group):
                yield from self._of_month(event, parts)
                parts = []
            if code != last:
                shard, index = divmod(code, len(names))
                name = names[index]
                head = target.prefixes[shard] + name.encode()
                event, last = _Event(name, shard, head, self._is_uncounted(name)), code
            parts.append(part)
        if parts:
            yield from self._of_month(event, parts)
        if self._transaction.rows:
            yield self._taken()

    def _of_month(self, event: Any, parts: list[_Part]) -> Iterator[Chunk]:
        """Add rows of one event and month to a transaction; yield it whenever it is full."""
        if len(parts) == 1 and len(parts[0].offsets) < _LEAST:
            # What is done below takes as long for a single row.
            rows = len(parts[0].offsets)
            cost = len(parts[0].unit.spans) * (_COMMAND + _BIT * rows)
            if not self._fits(event, rows, cost):
                yield self._taken()
            self._transaction.begin_group(event, parts, rows, cost)
            self._transaction.add_bits(event, parts[0])
            return
        for window in _windows(parts):
            for piece in self._pieces(window):
                if not self._fits(event, piece.rows, piece.cost):
                    yield self._taken()
                self._transaction.begin_group(event, piece.parts, piece.rows, piece.cost)
                self._transaction.add(event, piece.parts)

    def _fits(self, event: _Event, rows: int, cost: float) -> bool:
        transaction = self._transaction
        first = transaction.event
        return first is None or (
            transaction.cost + cost <= _LONGEST
            and event.shard == first.shard
            # With a quota, an event that is refused must not concern another one.
            and not ((event.uncounted or first.uncounted) and event.name != first.name)
            and not (self._known is not None and transaction.rows + rows > _MOST_KNOWN)
        )

    def _taken(self) -> Chunk:
        """Return the transaction, and begin another one."""
        transaction, self._transaction = (
            self._transaction,
            _Transaction(self._target, has_ids=self._known is not None),
        )
        marks = transaction.marks()
        mark: Mark = marks
        if self._known is not None:
            from .id_marks import IdMarks  # noqa: PLC0415 - only tallies with ids have it

            mark = IdMarks(marks.bitmaps, 1, prepared=marks, known=self._known)
        return Chunk((mark,), transaction.rows)

    def _pieces(self, parts: list[_Part]) -> Iterator[_Piece]:
        """Divide rows of one event and month so that no piece takes too long."""
        part_cost = _part_cost(parts) if self._target.temp_keys(0) else _NEVER
        piece = _Piece(part_cost)
        for whole in parts:
            for part in _shortened(whole, part_cost):
                cost = piece.cost_with(part)
                full = cost > _LONGEST or (
                    self._known is not None and piece.rows + len(part.offsets) > _MOST_KNOWN
                )
                if piece.parts and full:
                    yield piece
                    piece = _Piece(part_cost)
                piece.add(part)
        yield piece


class _Transaction:
    """The marks of one transaction, all of one shard.

    Attributes:
        event: the first event; ``None`` if there is none.
        rows: how many rows there are.
        cost: how long it takes Redis, about, in microseconds.
    """

    def __init__(self, target: RowTarget, *, has_ids: bool) -> None:
        self._target = target
        self._has_ids = has_ids
        self.event: _Event | None = None
        self.rows = 0
        self.cost = 0.0
        self._groups: list[tuple[_Event, list[_Part]]] = []
        self._data: list[bytes] = []
        self._kinds: list[int | tuple[int, ...]] = []
        self._counts: list[int] = []
        self._names: list[bytes] = []
        self._keys: list[bytes] = []
        self._expiring: list[tuple[bytes, float]] = []
        self._temp_keys: tuple[bytes, ...] = ()
        #: An ``EXPIREAT`` in the past would delete the key, so what has expired is left out.
        self._now = 0.0

    def begin_group(self, event: _Event, parts: list[_Part], rows: int, cost: float) -> None:
        """Count rows of one event and month that `add` or `add_bits` will append."""
        if self.event is None:
            self.event = event
            self._now = self._target.clock()
        self.cost += cost
        self.rows += rows
        if self._has_ids:
            self._groups.append((event, parts))

    def add_bits(self, event: _Event, part: _Part) -> None:
        """Append few rows of one unit."""
        offsets = as_list(part.offsets)
        count, tail = len(offsets), encoding.set_bits(offsets)
        for span in part.unit.spans:
            if span.expires_at > self._now:
                self._add_bits(event.head + span.suffix, span, count, tail)

    def add(self, event: _Event, parts: list[_Part]) -> None:
        """Append rows of one event and month."""
        temp_keys = self._target.temp_keys(event.shard)
        encoded = _Encoded()
        dense: list[Dense] = []
        for span, members in _by_span(parts):
            if span.expires_at <= self._now:
                continue
            key = event.head + span.suffix
            count = sum([len(part.offsets) for part in members])
            if count < _LEAST or not temp_keys or _BIT * count <= _part_cost(members):
                self._add_bits(key, span, count, encoded.tail(members))
                continue
            dense.append(Dense(span.granularity, key, *encoded.bits(members)))
            self._add_key(key, span)
        if dense:
            self._data.append(merge(dense, temp_keys))
            self._kinds.append(tuple([part.granularity for part in dense]))
            self._counts.append(0)
            self._names.append(event.name.encode())
            self._temp_keys = temp_keys

    def _add_bits(self, key: bytes, span: Span, count: int, tail: bytes) -> None:
        self._data += (encoding.bitfield_head(count, key), tail)
        self._kinds.append(span.granularity)
        self._counts.append(count)
        self._names.append(key)
        self._add_key(key, span)

    def _add_key(self, key: bytes, span: Span) -> None:
        self._keys.append(key)
        if span.expires_at < _NEVER:
            self._expiring.append((key, span.expires_at))

    def marks(self) -> RowMarks:
        """Return all of it as marks."""
        event = self.event
        if event is None:
            raise TypeError
        bitmaps = RowBitmaps(
            event.name, event.shard, self._keys, self._expiring, uncounted=event.uncounted
        )
        return RowMarks(
            bitmaps,
            b"".join(self._data),
            self._kinds,
            self._counts,
            self._names,
            temp_keys=self._temp_keys,
            rows=self.rows,
            users=functools.partial(_users, self._target, self._groups),
        )


def _users(
    target: RowTarget, groups: list[tuple[_Event, list[_Part]]], known: Any
) -> Iterator[tuple[Bitmaps, Sequence[Any]]]:
    """Yield the bitmaps of each day or hour, and the keys of its users' ids."""
    for event, parts in groups:
        for part in parts:
            bitmaps = target.bitmaps(event.name, event.shard, part.number)
            yield bitmaps, known.keys_of(as_list(part.offsets))


def _by_span(parts: list[_Part]) -> list[tuple[Span, list[_Part]]]:
    """Return each span that has some of the parts, and these."""
    spans: dict[int, tuple[Span, list[_Part]]] = {}
    for part in parts:
        for span in part.unit.spans:
            entry = spans.get(id(span))
            if entry is None:
                spans[id(span)] = span, [part]
            else:
                entry[1].append(part)
    return list(spans.values())


class _Encoded:
    """The bits of one mark, encoded: several bitmaps have the same ones, or share some."""

    def __init__(self) -> None:
        self._tails: dict[int, bytes] = {}
        self._joined: dict[tuple[int, ...], bytes] = {}
        self._bits: dict[tuple[int, ...], tuple[int, bytes]] = {}

    def tail(self, parts: list[_Part]) -> bytes:
        """Return the operations of a ``BITFIELD``."""
        if len(parts) == 1:
            return self._tail(parts[0])
        same = tuple(map(id, parts))
        joined = self._joined.get(same)
        if joined is None:
            joined = self._joined[same] = b"".join(map(self._tail, parts))
        return joined

    def bits(self, parts: list[_Part]) -> tuple[int, bytes]:
        """Return a part of a bitmap, as `as_bits`."""
        same = tuple(map(id, parts))
        bits = self._bits.get(same)
        if bits is None:
            bits = self._bits[same] = as_bits(_aligned(parts))
        return bits

    def _tail(self, part: _Part) -> bytes:
        tail = self._tails.get(id(part))
        if tail is None:
            tail = self._tails[id(part)] = encoding.set_bits(as_list(part.offsets))
        return tail


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
    spans = len(part.unit.spans)
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
