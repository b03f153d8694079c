"""The translation of users' numbers from one database to another. Pure.

With numpy if it is installed, else with Python's ints, at about a tenth of the speed. A number
takes four bytes on each side.
"""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final

from .._reading.bits import Arrays, Ints, algebra

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["TargetBits", "Translation", "argsort", "has_repetitions"]

#: How many bytes of a bitmap are converted together. Their bits take 16 times as much.
_PIECE: Final = 64 * 1024

_INTS: Final = Ints()


def _numpy() -> Any:
    """Return numpy if it is installed, else ``None``."""
    found = algebra()
    return found.numpy if isinstance(found, Arrays) else None


def argsort(numbers: array[int]) -> Sequence[int]:
    """Return the indexes of numbers in ascending order of the numbers."""
    numpy = _numpy()
    if numpy is None:
        return sorted(range(len(numbers)), key=numbers.__getitem__)
    order = numpy.argsort(numpy.asarray(numbers), kind="stable").astype(numpy.uint32)
    return array("I", order.tobytes())


def has_repetitions(numbers: array[int]) -> bool:
    """Return whether two of the numbers are equal."""
    numpy = _numpy()
    if numpy is None:
        return any(one == other for one, other in itertools.pairwise(sorted(numbers)))
    in_order = numpy.sort(numpy.asarray(numbers))
    return bool((in_order[1:] == in_order[:-1]).any())


class Translation:
    """Which offset in the bitmaps of a shard of the source is which number of the target.

    Attributes:
        highest: the highest number in the target; 0 if there is none.
    """

    def __init__(self) -> None:
        """Begin without numbers."""
        self._old = array("I")  # ascending
        self._new = array("I")
        self.highest = 0

    def add(self, old: Iterable[int], new: Iterable[int]) -> None:
        """Add offsets in the source, in ascending order, and their numbers in the target."""
        before = len(self._old)
        self._old.extend(old)
        self._new.extend(new)
        self.highest = max(self.highest, max(self._new[before:], default=0))
        if 0 < before < len(self._old) and self._old[before] <= self._old[before - 1]:
            order = argsort(self._old)
            self._old, self._new = (
                array("I", [numbers[index] for index in order])
                for numbers in (self._old, self._new)
            )

    def translate(self, bits: bytes, first: int) -> tuple[array[int], list[int]]:
        """Return the numbers of the set bits in the target, and the offsets that have none.

        Arguments:
            bits: a part of a bitmap.
            first: the offset of its first bit.
        """
        numbers, unknown = array("I"), list[int]()
        numpy = _numpy()
        translate = self._by_ints if numpy is None else self._by_numpy
        for at in range(0, len(bits), _PIECE):
            piece = bits[at : at + _PIECE]
            if piece.count(0) < len(piece):
                translate(numpy, piece, first + 8 * at, numbers, unknown)
        return numbers, unknown

    def _by_numpy(
        self, numpy: Any, bits: bytes, first: int, numbers: array[int], unknown: list[int]
    ) -> None:
        offsets = numpy.flatnonzero(numpy.unpackbits(numpy.frombuffer(bits, numpy.uint8)))
        offsets = (offsets + first).astype(numpy.uint32)
        old, new = numpy.asarray(self._old), numpy.asarray(self._new)
        indexes = numpy.searchsorted(old, offsets)
        known = indexes < len(old)
        known[known] = old[indexes[known]] == offsets[known]
        numbers.frombytes(new[indexes[known]].tobytes())
        unknown += offsets[~known].tolist()

    def _by_ints(
        self, _: None, bits: bytes, first: int, numbers: array[int], unknown: list[int]
    ) -> None:
        old, new = self._old, self._new
        at, size = 0, len(old)
        for offsets in _INTS.ids(_INTS.load(bits, len(bits)), len(bits), first):
            for offset in offsets:
                if at >= size or old[at] != offset:
                    at = bisect_left(old, offset, at)
                if at < size and old[at] == offset:
                    numbers.append(new[at])
                    at += 1
                else:
                    unknown.append(offset)


class TargetBits:
    """The bits that a bitmap of the target should have, by the numbers of users."""

    def __init__(self, shards: int) -> None:
        """Begin without bits.

        Arguments:
            shards: the number of shards of the target.
        """
        self._shards = shards
        self._numbers = array("I")

    def add(self, numbers: array[int]) -> None:
        """Add the bits of users with some numbers."""
        self._numbers.extend(numbers)

    def parts(self) -> list[bytes]:
        """Return the bytes of each shard, without zeros at the end."""
        numpy = _numpy()
        if numpy is None:
            return self._by_ints()
        numbers = numpy.asarray(self._numbers)
        parts = []
        for shard in range(self._shards):
            offsets = numbers
            if self._shards > 1:
                offsets = numbers[numbers % self._shards == shard] // self._shards
            bits = numpy.zeros(int(offsets.max()) + 1 if len(offsets) else 0, numpy.bool_)
            bits[offsets] = True
            parts.append(numpy.packbits(bits).tobytes())
        return parts

    def _by_ints(self) -> list[bytes]:
        size = (max(self._numbers, default=0) // self._shards >> 3) + 1
        parts = [bytearray(size) for _ in range(self._shards)]
        for number in self._numbers:
            offset, shard = divmod(number, self._shards)
            parts[shard][offset >> 3] |= 128 >> (offset & 7)
        return [bytes(part).rstrip(b"\0") for part in parts]
