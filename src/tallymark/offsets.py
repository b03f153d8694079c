"""Many offsets at once: in blocks, in windows, as the bits of a bitmap. Pure.

Works on any iterable, and on numpy arrays without making lists of them. numpy is
not imported here: who passes an array has done that already.
"""

from __future__ import annotations

import itertools
import sys
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final

from .errors import InvalidTypeError

__all__ = ["BLOCK", "WINDOW", "Offsets", "as_bits", "as_list", "blocks", "is_array", "windows"]

#: Ids or offsets: a sequence, or a numpy array of integers.
Offsets = Any

#: How many ids are looked at in one go. For arrays, whose numbers cost far less,
#: it is more. Neither keeps an event loop for as long as 20 ms.
BLOCK: Final = 32_768
ARRAY_BLOCK: Final = 131_072

#: How many neighbouring bits go into one bitmap: 128 KiB of them.
WINDOW: Final = 2**20

#: From one bit in so many on, it is faster to write a binary number's digits and to
#: have Python read it.
_CROWDED: Final = 32
_ONE: Final = ord("1")


def is_array(ids: object) -> bool:
    """Tell whether this is a numpy array."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(ids, numpy.ndarray)


def blocks(user_ids: Iterable[int]) -> tuple[Iterator[Offsets], bool]:
    """Return an iterator over blocks of ids, and whether all of them are there already.

    Raises:
        InvalidTypeError: this is nothing that holds ids.
    """
    if is_array(user_ids):
        return _array_blocks(user_ids), True
    if isinstance(user_ids, (str, bytes, bytearray, memoryview)) or not isinstance(
        user_ids, Iterable
    ):
        raise InvalidTypeError(
            f"user ids must be an iterable of ints, got a {type(user_ids).__name__}"
        )
    rest = iter(user_ids)
    return (
        iter(lambda: list(itertools.islice(rest, BLOCK)), []),
        isinstance(user_ids, Collection),
    )


def _array_blocks(array: Any) -> Iterator[Offsets]:
    if array.ndim != 1:
        raise InvalidTypeError(f"user ids must be a one-dimensional array, got {array.ndim}")
    if array.dtype.kind not in "iu":
        array = array.tolist()  # what is wrong with them will be said of the first
    size = BLOCK if isinstance(array, list) else ARRAY_BLOCK
    return (array[at : at + size] for at in range(0, len(array), size))


def windows(offsets: Offsets) -> Iterator[tuple[int, int, Offsets]]:
    """Cut a block of offsets, in any order, into pieces of neighbours.

    Yields:
        (lowest, highest, offsets) of each piece that has any; at most `WINDOW` bits apart.
    """
    low, high = _bounds(offsets)
    if high - low < WINDOW:
        yield low, high, offsets
        return
    if is_array(offsets):
        ordered = offsets.copy()
        ordered.sort()
        find = ordered.searchsorted
    else:
        ordered = sorted(offsets)

        def find(offset: int) -> int:
            return bisect_left(ordered, offset)

    at = 0
    while at < len(ordered):
        first = int(ordered[at])
        end = int(find(first + WINDOW))
        yield first, int(ordered[end - 1]), ordered[at:end]
        at = end


def _bounds(offsets: Offsets) -> tuple[int, int]:
    if is_array(offsets):
        return int(offsets.min()), int(offsets.max())
    return min(offsets), max(offsets)


def as_bits(offsets: Offsets, low: int, high: int) -> tuple[int, bytes]:
    """Return offsets as a part of a bitmap.

    Arguments:
        offsets: all of them between the other two.
        low, high: the lowest and the highest.

    Returns:
        The index of the first byte, and the bytes. Redis counts the bits of a
        byte from its most significant one.
    """
    first = low >> 3
    size = (high >> 3) - first + 1
    base = first << 3
    if is_array(offsets):
        numpy = sys.modules["numpy"]
        flags = numpy.zeros(8 * size, dtype=numpy.uint8)
        flags[offsets - base] = 1
        return first, numpy.packbits(flags).tobytes()
    if len(offsets) * _CROWDED > 8 * size:
        digits = bytearray(b"0") * (8 * size)
        for offset in offsets:
            digits[offset - base] = _ONE
        return first, int(digits, 2).to_bytes(size, "big")
    bits = bytearray(size)
    for offset in offsets:
        distance = offset - base
        bits[distance >> 3] |= 128 >> (distance & 7)
    return first, bytes(bits)


def as_list(offsets: Offsets) -> list[int]:
    """Return offsets as Python's ints."""
    plain: list[int] = offsets.tolist() if is_array(offsets) else list(offsets)
    return plain
