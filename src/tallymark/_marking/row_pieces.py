"""Divides rows of one event and month into pieces, and estimates Redis's time for them. Pure.

Which rows are in a piece does not matter for their bitmaps, as long as all bits of a row are in
the same one. Redis's time for the bits of one bitmap depends on their number, and on how far they
lie apart: a script merges them if that takes less time than to set them one by one.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._core.moments import loaded_numpy
from .._core.offsets import WINDOW, Offsets, as_list, is_array

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .row_calendar import Span, Unit

__all__ = ["Part", "Piece", "aligned", "are_dense", "is_full", "pieces", "small_cost", "windows"]

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


class Part(NamedTuple):
    """Rows of one unit, and their offsets in ascending order."""

    number: int
    unit: Unit
    offsets: Any


def is_full(cost: float, rows: int, *, has_ids: bool) -> bool:
    """Return whether a transaction holds up Redis for too long.

    Arguments:
        cost: how long it takes, in microseconds.
        rows: how many rows it has.
        has_ids: whether their users have ids.
    """
    return cost > _LONGEST or (has_ids and rows > _MOST_KNOWN)


def small_cost(part: Part) -> float | None:
    """Return the cost of few rows of one unit; ``None`` for more."""
    rows = len(part.offsets)
    return len(part.unit.spans) * (_COMMAND + _BIT * rows) if rows < _LEAST else None


def are_dense(parts: list[Part], count: int) -> bool:
    """Return whether to merge the bits of some parts, rather than to set them one by one."""
    return count >= _LEAST and _BIT * count > _part_cost(parts)


def pieces(parts: list[Part], *, has_scripts: bool, has_ids: bool) -> Iterator[Piece]:
    """Divide rows of one event and month, so that no piece takes Redis too long.

    Arguments:
        parts: the rows of each day or hour, in order.
        has_scripts: whether the server has scripts.
        has_ids: whether the users have ids.
    """
    part_cost = _part_cost(parts) if has_scripts else _NEVER
    piece = Piece(part_cost)
    for whole in parts:
        for part in _shortened(whole, part_cost):
            cost = piece.cost_with(part)
            full = is_full(cost, piece.rows + len(part.offsets), has_ids=has_ids)
            if piece.parts and full:
                yield piece
                piece = Piece(part_cost)
            piece.add(part)
    yield piece


class Piece:
    """Rows that share a transaction, and how long that takes Redis, about, in microseconds."""

    def __init__(self, part_cost: float) -> None:
        self._part_cost = part_cost
        self.parts: list[Part] = []
        self.rows = 0
        self.cost = 0.0
        #: Of the last unit: how many rows each of its spans has.
        self._counts: list[tuple[Span, int]] = []

    def cost_with(self, part: Part) -> float:
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

    def add(self, part: Part) -> None:
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


def _part_cost(parts: list[Part]) -> float:
    """Return what it takes to merge the bits of all parts."""
    size = max([int(part.offsets[-1]) for part in parts]) - min(
        [int(part.offsets[0]) for part in parts]
    )
    return _PART + _BYTE * (size >> 3) if size < 2 * WINDOW else _NEVER


def _shortened(part: Part, part_cost: float) -> Iterator[Part]:
    """Divide rows of one unit whose bits, set one by one, take too long."""
    spans = len(part.unit.spans)
    most = int(_LONGEST / (_BIT * spans))
    if len(part.offsets) <= most or spans * (part_cost + _COMMAND) <= _LONGEST:
        yield part
        return
    for at in range(0, len(part.offsets), most):
        yield part._replace(offsets=part.offsets[at : at + most])


def windows(parts: list[Part]) -> Iterator[list[Part]]:
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


def aligned(parts: list[Part]) -> Offsets:
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
