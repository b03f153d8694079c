"""Blocks of rows: sorted, and divided into marks and transactions. Pure.

A block is sorted by shard, event, day or hour, and user. So the users of each bitmap of a day, a
week or a month are neighbours. The rows of one event and month are a `RowMarks`, or several where
one would hold up Redis for too long: all bits of a row are always in the same one.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from .._core import encoding
from .._core.offsets import as_bits, as_list
from .bulk import Chunk
from .row_marks import Dense, RowBitmaps, RowMarks, merge
from .row_pieces import Part, aligned, are_dense, is_full, pieces, small_cost, windows
from .row_sorting import sorted_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .id_marks import KnownNumbers
    from .marks import Bitmaps, Mark
    from .row_calendar import RowCalendar, Span
    from .row_sorting import Rows

__all__ = ["BlockWriter", "RowTarget"]


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

    def has_expired(self, number: int) -> bool:
        """Return whether all bitmaps of a day or hour have expired; so have earlier ones."""
        return self.calendar.has_expired(number, self.clock())


class _Event(NamedTuple):
    """An event in a shard."""

    name: str
    shard: int
    head: bytes
    uncounted: bool


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
        parts: list[Part] = []
        event: _Event | None = None
        last = -1
        for code, number, offsets in sorted_rows(rows, len(target.prefixes), len(names)):
            part = Part(number, target.calendar.unit(number), offsets)
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

    def _of_month(self, event: Any, parts: list[Part]) -> Iterator[Chunk]:
        """Add rows of one event and month to a transaction; yield it whenever it is full."""
        cost = small_cost(parts[0]) if len(parts) == 1 else None
        if cost is not None:
            # What is done below takes as long for a single row.
            rows = len(parts[0].offsets)
            if not self._fits(event, rows, cost):
                yield self._taken()
            self._transaction.begin_group(event, parts, rows, cost)
            self._transaction.add_bits(event, parts[0])
            return
        has_scripts, has_ids = bool(self._target.temp_keys(0)), self._known is not None
        for window in windows(parts):
            for piece in pieces(window, has_scripts=has_scripts, has_ids=has_ids):
                if not self._fits(event, piece.rows, piece.cost):
                    yield self._taken()
                self._transaction.begin_group(event, piece.parts, piece.rows, piece.cost)
                self._transaction.add(event, piece.parts)

    def _fits(self, event: _Event, rows: int, cost: float) -> bool:
        transaction = self._transaction
        first = transaction.event
        return first is None or (
            event.shard == first.shard
            # With a quota, an event that is refused must not concern another one.
            and not ((event.uncounted or first.uncounted) and event.name != first.name)
            and not is_full(
                transaction.cost + cost, transaction.rows + rows, has_ids=self._known is not None
            )
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
        self._groups: list[tuple[_Event, list[Part]]] = []
        self._data: list[bytes] = []
        self._kinds: list[int | tuple[int, ...]] = []
        self._counts: list[int] = []
        self._names: list[bytes] = []
        self._keys: list[bytes] = []
        self._expiring: list[tuple[bytes, float]] = []
        self._temp_keys: tuple[bytes, ...] = ()
        #: An ``EXPIREAT`` in the past would delete the key, so what has expired is left out.
        self._now = 0.0

    def begin_group(self, event: _Event, parts: list[Part], rows: int, cost: float) -> None:
        """Count rows of one event and month that `add` or `add_bits` will append."""
        if self.event is None:
            self.event = event
            self._now = self._target.clock()
        self.cost += cost
        self.rows += rows
        if self._has_ids:
            self._groups.append((event, parts))

    def add_bits(self, event: _Event, part: Part) -> None:
        """Append few rows of one unit."""
        offsets = as_list(part.offsets)
        count, tail = len(offsets), encoding.set_bits(offsets)
        for span in part.unit.spans:
            if span.expires_at > self._now:
                self._add_bits(event.head + span.suffix, span, count, tail)

    def add(self, event: _Event, parts: list[Part]) -> None:
        """Append rows of one event and month."""
        temp_keys = self._target.temp_keys(event.shard)
        encoded = _Encoded()
        dense: list[Dense] = []
        for span, members in _by_span(parts):
            if span.expires_at <= self._now:
                continue
            key = event.head + span.suffix
            count = sum([len(part.offsets) for part in members])
            if not (temp_keys and are_dense(members, count)):
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
        if span.expires_at < math.inf:
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
    target: RowTarget, groups: list[tuple[_Event, list[Part]]], known: Any
) -> Iterator[tuple[Bitmaps, Sequence[Any]]]:
    """Yield the bitmaps of each day or hour, and the keys of its users' ids."""
    for event, parts in groups:
        for part in parts:
            bitmaps = target.bitmaps(event.name, event.shard, part.number)
            yield bitmaps, known.keys_of(as_list(part.offsets))


def _by_span(parts: list[Part]) -> list[tuple[Span, list[Part]]]:
    """Return each span that has some of the parts, and these."""
    spans: dict[int, tuple[Span, list[Part]]] = {}
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

    def tail(self, parts: list[Part]) -> bytes:
        """Return the operations of a ``BITFIELD``."""
        if len(parts) == 1:
            return self._tail(parts[0])
        same = tuple(map(id, parts))
        joined = self._joined.get(same)
        if joined is None:
            joined = self._joined[same] = b"".join(map(self._tail, parts))
        return joined

    def bits(self, parts: list[Part]) -> tuple[int, bytes]:
        """Return a part of a bitmap, as `as_bits`."""
        same = tuple(map(id, parts))
        bits = self._bits.get(same)
        if bits is None:
            bits = self._bits[same] = as_bits(aligned(parts))
        return bits

    def _tail(self, part: Part) -> bytes:
        tail = self._tails.get(id(part))
        if tail is None:
            tail = self._tails[id(part)] = encoding.set_bits(as_list(part.offsets))
        return tail
