"""Many offsets at once: in blocks, in windows, as the bits of a bitmap. Pure.

Works on any iterable, and on numpy arrays without making lists of them. numpy is
not imported here: who passes an array has done that already.
"""

from __future__ import annotations

import functools
import itertools
import sys
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Final, NamedTuple

from ..errors import InvalidTypeError
from .arguments import NUMBER_THEM, is_array
from .untrusted import escaped, kind_of, let_handlers_pass, shown

__all__ = [
    "BLOCK",
    "WINDOW",
    "Numbers",
    "Offsets",
    "as_bits",
    "as_list",
    "blocks",
    "bounded",
    "dealt",
    "is_array",
    "is_array_of_ints",
    "widened",
    "windows",
]

#: Ids or offsets: a list, a range, or a numpy array of integers.
Numbers = Any


class Offsets(NamedTuple):
    """Offsets, of which there is at least one, and the lowest and the highest."""

    values: Numbers
    low: int
    high: int


#: How many ids are looked at in one go. For arrays, whose numbers cost far less,
#: it is more. Neither keeps an event loop for as long as 20 ms.
BLOCK: Final = 32_768
ARRAY_BLOCK: Final = 131_072

#: How many neighbouring bits go into one bitmap: 128 KiB of them.
WINDOW: Final = 2**20

#: The last bit that Redis can address.
_HIGHEST: Final = 2**32 - 1
#: What gives all that it holds without waiting for anything.
_AT_HAND: Final = (list, tuple, set, frozenset, range, array, dict, deque)

#: What to do with an array of floats, as pandas makes one of ints where some are missing.
#: Not int64, which drops fractions without a word.
_WITHOUT_GAPS: Final = (
    "leave out those that are missing and convert the others, as with "
    "series.dropna().astype('Int64')"
)

#: From one bit in so many on, it is faster to write a binary number's digits and to
#: have Python read it.
_CROWDED: Final = 32
_ONE: Final = ord("1")


def blocks(
    user_ids: Iterable[int], check_time: Callable[[], object] | None = None
) -> tuple[Iterator[Numbers], bool]:
    """Return an iterator over blocks of ids, and whether all of them are there already.

    Arguments:
        user_ids: the ids.
        check_time: is called after each id that was waited for; it raises if time is up.

    Raises:
        InvalidTypeError: this is nothing that holds ids.
    """
    if is_array(user_ids) or _has_array(user_ids):
        return _array_blocks(_as_array(user_ids)), True
    if type(user_ids) is range:
        return _range_blocks(user_ids), True
    is_text = isinstance(user_ids, (str, bytes, bytearray, memoryview))
    if is_text or not isinstance(user_ids, Iterable):
        raise InvalidTypeError(
            f"user ids must be an iterable of ints, got a {kind_of(user_ids)}; {NUMBER_THEM}"
        )
    rest = iter(user_ids)
    if check_time is not None and not isinstance(user_ids, _AT_HAND):
        rest = _in_time(rest, check_time)
    return (
        iter(lambda: list(itertools.islice(rest, BLOCK)), []),
        isinstance(user_ids, Collection),
    )


def _has_array(ids: object) -> bool:
    """Tell whether numpy can make an array of this, as of a column of a data frame.

    Such columns would be read number by number else, each as an object of its own.
    """
    return "numpy" in sys.modules and hasattr(type(ids), "__array__")


def _as_array(ids: Any) -> Any:
    """Return a plain numpy array of one that may be of a subclass, or of another library.

    Raises:
        InvalidTypeError: it hides numbers, or cannot be had.
    """
    numpy = sys.modules["numpy"]
    try:
        found = numpy.asanyarray(ids)  # masked still, as a variable of netCDF4 may give it
    except Exception as error:
        let_handlers_pass(error)
        raise InvalidTypeError(
            f"user ids must be an iterable of ints, got a {kind_of(ids)} that is no array: "
            f"{shown(error)}"
        ) from error
    masked = getattr(numpy, "ma", None)
    if masked is not None and isinstance(found, masked.MaskedArray) and masked.is_masked(found):
        raise InvalidTypeError(
            "user ids must not be masked; pass those that are not, with ids.compressed()"
        )
    return numpy.asarray(found)


def _in_time(user_ids: Iterator[int], check_time: Callable[[], object]) -> Iterator[int]:
    for user_id in user_ids:
        check_time()
        yield user_id


def _array_blocks(array: Any) -> Iterator[Numbers]:
    if array.ndim != 1:
        raise InvalidTypeError(
            f"user ids must be a one-dimensional array, got one of {array.ndim} dimensions"
        )
    if array.dtype.kind not in "iu" and len(array):
        # Of any others, a list might hold ints: of nanoseconds since 1970, say.
        if array.dtype.kind != "O":
            raise InvalidTypeError(
                f"user ids must be an array of ints, got one of {escaped(array.dtype.name)}; "
                f"{_WITHOUT_GAPS if array.dtype.kind == 'f' else NUMBER_THEM}"
            )
        array = array.tolist()  # what is wrong with them will be said of the first
    size = BLOCK if isinstance(array, list) else ARRAY_BLOCK
    return (array[at : at + size] for at in range(0, len(array), size))


def _range_blocks(ids: range) -> Iterator[Numbers]:
    """Return blocks that are ranges too, so that a long one takes no memory."""
    if not ids:
        return iter(())
    for end in (ids[0], ids[-1]):
        if not 0 <= end <= _HIGHEST:  # also because a range without bounds has no length
            return iter(([end],))
    return (ids[at : at + BLOCK] for at in range(0, len(ids), BLOCK))


def bounded(values: Numbers) -> Offsets:
    """Return offsets with the lowest and the highest of them."""
    if is_array(values):
        return Offsets(values, int(values.min()), int(values.max()))
    return Offsets(values, min(values), max(values))


def is_array_of_ints(ids: object) -> bool:
    """Tell whether this is a one-dimensional numpy array of integers, and nothing hides in it."""
    return is_array(ids) and _plain(ids)


def _plain(array: Any) -> bool:
    masked = getattr(sys.modules["numpy"], "ma", None)
    if masked is not None and isinstance(array, masked.MaskedArray):
        return False
    return array.ndim == 1 and array.dtype.kind in "iu"


def widened(offsets: Offsets) -> Offsets:
    """Return offsets in 64 bits, where arithmetic with them cannot overflow."""
    values, low, high = offsets
    if is_array(values):
        values = values.astype(sys.modules["numpy"].int64, copy=False)
    return Offsets(values, low, high)


def dealt(offsets: Offsets, hands: int) -> Iterator[tuple[int, Offsets]]:
    """Deal offsets out: each goes to its remainder, and there becomes its quotient.

    Yields:
        The remainders of a division by ``hands`` that occur, with the quotients.
    """
    values = offsets.values
    if is_array(values):
        numpy = sys.modules["numpy"]
        hand = (values % hands).astype(numpy.uint16)
        order = numpy.argsort(hand, kind="stable")  # of 16 bits, so it is a radix sort
        bounds = numpy.searchsorted(hand[order], numpy.arange(hands + 1))
        quotients = values[order] // hands
        for number in range(hands):
            begin, end = bounds[number], bounds[number + 1]
            if begin < end:
                yield number, bounded(quotients[begin:end])
        return
    found: list[list[int]] = [[] for _ in range(hands)]
    for value in values:
        found[value % hands].append(value // hands)
    for number, own in enumerate(found):
        if own:
            yield number, bounded(own)


def windows(offsets: Offsets, width: int = WINDOW) -> Iterator[Offsets]:
    """Cut a block of offsets, in any order, into pieces of neighbours.

    Yields:
        Pieces that are at most so many bits wide.
    """
    values, low, high = offsets
    if high - low < width:
        yield offsets
        return
    if is_array(values):
        ordered = values.copy()
        ordered.sort()
        find = ordered.searchsorted
    else:
        ordered = sorted(values)
        find = functools.partial(bisect_left, ordered)
    at = 0
    while at < len(ordered):
        first = int(ordered[at])
        end = int(find(first + width))
        yield Offsets(ordered[at:end], first, int(ordered[end - 1]))
        at = end


def as_bits(offsets: Offsets) -> tuple[int, bytes]:
    """Return offsets as a part of a bitmap.

    Returns:
        The index of the first byte, and the bytes. Redis counts the bits of a
        byte from its most significant one.
    """
    values, low, high = offsets
    first = low >> 3
    size = (high >> 3) - first + 1
    base = first << 3
    if is_array(values):
        numpy = sys.modules["numpy"]
        flags = numpy.zeros(8 * size, dtype=numpy.uint8)
        flags[values - base] = 1
        return first, numpy.packbits(flags).tobytes()
    if len(values) * _CROWDED > 8 * size:
        digits = bytearray(b"0") * (8 * size)
        for offset in values:
            digits[offset - base] = _ONE
        return first, int(digits, 2).to_bytes(size, "big")
    bits = bytearray(size)
    for offset in values:
        distance = offset - base
        bits[distance >> 3] |= 128 >> (distance & 7)
    return first, bytes(bits)


def as_list(values: Numbers) -> list[int]:
    """Return numbers as Python's ints."""
    plain: list[int] = values.tolist() if is_array(values) else list(values)
    return plain
