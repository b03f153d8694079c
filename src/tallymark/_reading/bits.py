"""Bits as values: bytes of bitmaps in, set operations, counts and ids out. Pure.

With numpy where it is installed, else with Python's long ints, which do the
same operations at about a fifth of the speed. Redis counts the bits of a byte
from its most significant one, and what is beyond a bitmap's end is 0, so
values of different lengths are lined up by their first byte.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PIECE_BITS", "Algebra", "Ints", "algebra", "is_loaded"]

#: About how many bytes are turned into ids at once: 8,192 ids at most.
_PIECE: Final = 1024
PIECE_BITS: Final = 8 * _PIECE


class Algebra(Protocol):
    """Turns a part of a bitmap into a value that has ``& | ^ ~``, and back.

    Attributes:
        lets_others_run: whether other threads go on while it reckons.
    """

    lets_others_run: bool

    def load(self, data: bytes, size: int) -> Any:
        """Return the value of some bytes that stand for ``size`` bytes."""
        ...

    def count(self, value: Any) -> int:
        """Return how many bits are set."""
        ...

    def ids(self, value: Any, size: int, first: int) -> Iterator[list[int]]:
        """Yield the set bits in ascending order, in pieces, the first bit being ``first``."""
        ...


class Ints:
    """Python's ints, of which byte 0 is the least significant."""

    lets_others_run = False

    def load(self, data: bytes, size: int) -> int:
        """Return the value of some bytes."""
        return int.from_bytes(data, "little")

    def count(self, value: int) -> int:
        """Return how many bits are set."""
        return value.bit_count()

    def ids(self, value: int, size: int, first: int) -> Iterator[list[int]]:
        """Yield the set bits in ascending order."""
        data = value.to_bytes(size, "little")
        for at in range(0, size, _PIECE):
            piece = data[at : at + _PIECE]
            if piece.count(0) < len(piece):
                begin = first + 8 * at
                yield [
                    base + bit
                    for base, byte in zip(range(begin, begin + 8 * _PIECE, 8), piece, strict=False)
                    if byte
                    for bit in _SET_BITS[byte]
                ]


#: The places of the bits that are set in each byte.
_SET_BITS: Final = [tuple(bit for bit in range(8) if byte & (128 >> bit)) for byte in range(256)]


class Arrays:
    """numpy's arrays of 64-bit words."""

    lets_others_run = True

    def __init__(self, numpy: Any) -> None:
        self._numpy = numpy
        self._count = getattr(numpy, "bitwise_count", None)  # from numpy 2.0 on

    def load(self, data: bytes, size: int) -> Any:
        """Return the value of some bytes, padded to whole words."""
        numpy = self._numpy
        words = -(-size // 8)
        if len(data) == 8 * words:
            return numpy.frombuffer(data, dtype=numpy.uint64)
        padded = numpy.zeros(8 * words, dtype=numpy.uint8)
        padded[: len(data)] = numpy.frombuffer(data, dtype=numpy.uint8)
        return padded.view(numpy.uint64)

    def count(self, value: Any) -> int:
        """Return how many bits are set."""
        if self._count is not None:
            # Added in 32 bits, which no part of a bitmap exceeds: twice as fast as in 64.
            return int(self._count(value).sum(dtype=self._numpy.uint32))
        return int.from_bytes(value.tobytes(), "little").bit_count()

    def ids(self, value: Any, size: int, first: int) -> Iterator[list[int]]:
        """Yield the set bits in ascending order."""
        numpy = self._numpy
        data = value.view(numpy.uint8)
        for at in range(0, size, _PIECE):
            found = numpy.flatnonzero(numpy.unpackbits(data[at : at + _PIECE]))
            if len(found):
                yield (found + (first + 8 * at)).tolist()


@functools.cache
def algebra() -> Algebra:
    """Return what there is to reckon with: numpy if it is installed."""
    try:
        import numpy  # noqa: PLC0415 - optional, and slow to import
    except ImportError:
        return Ints()
    return Arrays(numpy)


_known = algebra.cache_info


def is_loaded() -> bool:
    """Tell whether `algebra` returns at once; the first call may import numpy."""
    return _known().currsize > 0
