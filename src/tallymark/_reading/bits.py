"""Set operations on the bytes of bitmaps in the client: combined, counted, read as ids. Pure.

With numpy if it is installed, else with Python's ints, at about a fifth of the speed. In
Redis, the bit with the lowest offset in a byte is the most significant one, and bits
beyond the end of a bitmap are 0, so values of different lengths are aligned at their first
byte.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PIECE_BITS", "Algebra", "Ints", "algebra", "is_loaded"]

#: How many bytes are converted to ids at once, to 8,192 ids at most.
_PIECE: Final = 1024
PIECE_BITS: Final = 8 * _PIECE


class Algebra(Protocol):
    """Converts a part of a bitmap to a value with the operators ``& | ^ ~``, and back.

    Attributes:
        lets_others_run: whether operations on its values release the GIL.
    """

    lets_others_run: bool

    def load(self, data: bytes, size: int) -> Any:
        """Return the value of a part of a bitmap.

        Arguments:
            data: the bytes of the part; shorter than ``size`` at the end of the bitmap.
            size: the length of the part in bytes, zeros included.
        """
        ...

    def count(self, value: Any) -> int:
        """Return how many bits are set."""
        ...

    def ids(self, value: Any, size: int, first: int) -> Iterator[list[int]]:
        """Yield the ids of the set bits in ascending order, in pieces of up to 8,192.

        Arguments:
            value: the value of a part of a bitmap.
            size: the length of the part in bytes.
            first: the id of the part's first bit.
        """
        ...


class Ints:
    """Values that are ints; the first byte of the bitmap is the least significant one."""

    lets_others_run = False

    def load(self, data: bytes, size: int) -> int:
        """Return the value of a part of a bitmap."""
        return int.from_bytes(data, "little")

    def count(self, value: int) -> int:
        """Return how many bits are set."""
        return value.bit_count()

    def ids(self, value: int, size: int, first: int) -> Iterator[list[int]]:
        """Yield the ids of the set bits in ascending order."""
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


#: The positions of the set bits in each of the 256 bytes.
_SET_BITS: Final = [tuple(bit for bit in range(8) if byte & (128 >> bit)) for byte in range(256)]


class Arrays:
    """Values that are numpy arrays of 64-bit words."""

    lets_others_run = True

    def __init__(self, numpy: Any) -> None:
        self._numpy = numpy
        self._count = getattr(numpy, "bitwise_count", None)  # from numpy 2.0 on

    def load(self, data: bytes, size: int) -> Any:
        """Return the value of a part of a bitmap, padded to whole words."""
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
            # The sum of a part fits into 32 bits, which take half the time of 64.
            return int(self._count(value).sum(dtype=self._numpy.uint32))
        return int.from_bytes(value.tobytes(), "little").bit_count()

    def ids(self, value: Any, size: int, first: int) -> Iterator[list[int]]:
        """Yield the ids of the set bits in ascending order."""
        numpy = self._numpy
        data = value.view(numpy.uint8)
        for at in range(0, size, _PIECE):
            positions = numpy.flatnonzero(numpy.unpackbits(data[at : at + _PIECE]))
            if len(positions):
                yield (positions + (first + 8 * at)).tolist()


@functools.cache
def algebra() -> Algebra:
    """Return the algebra of this process: of numpy if it is installed. Imports numpy once."""
    try:
        import numpy  # noqa: PLC0415 - optional, and slow to import
    except ImportError:
        return Ints()
    return Arrays(numpy)


_known = algebra.cache_info


def is_loaded() -> bool:
    """Return whether `algebra` returns at once; the first call may import numpy."""
    return _known().currsize > 0
