"""Bulk user ids and offsets: in blocks, by shard, in windows, as bits of a bitmap. Pure.

Takes any iterable, and numpy arrays without converting them to lists. Does not import
numpy: a caller who passes an array has imported numpy already.
"""

from __future__ import annotations

import functools
import itertools
import sys
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from numbers import Number
from typing import Any, Final, NamedTuple

from ..errors import InvalidTypeError
from .arguments import USE_USER_IDS, is_array
from .untrusted import escaped, kind_of, reraise_from_handler, shown

__all__ = [
    "BLOCK",
    "IN_MEMORY",
    "WINDOW",
    "Numbers",
    "Offsets",
    "as_bits",
    "as_list",
    "as_objects",
    "blocks",
    "bounded",
    "id_blocks",
    "in_time",
    "is_array",
    "is_array_of_ints",
    "partition",
    "widened",
    "windows",
]

#: Ids or offsets: a list, a range, or a numpy array of integers.
Numbers = Any


class Offsets(NamedTuple):
    """One or more offsets, and the lowest and the highest of them."""

    values: Numbers
    low: int
    high: int


#: How many ids a block has; more in arrays, which take far less time for each. Neither
#: block occupies an event loop for 20 ms.
BLOCK: Final = 32_768
ARRAY_BLOCK: Final = 131_072

#: How many bits a window has: 128 KiB.
WINDOW: Final = 2**20

#: The last bit that Redis can address.
_HIGHEST: Final = 2**32 - 1
#: Collections whose iterators never wait.
IN_MEMORY: Final = (list, tuple, set, frozenset, range, array, dict, deque)

#: Advice about an array of floats, such as pandas makes of ints of which some are missing.
#: Not int64, which drops fractions silently.
_WITHOUT_GAPS: Final = (
    "leave out those that are missing and convert the others, as with "
    "series.dropna().astype('Int64')"
)

#: If at least one bit in this many is set, a bitmap is built faster as a binary number in
#: digits, which Python parses.
_DENSE: Final = 32
_ONE: Final = ord("1")


def blocks(
    user_ids: Iterable[int], check_time: Callable[[], object] | None = None
) -> tuple[Iterator[Numbers], bool]:
    """Return an iterator over blocks of ids, and whether ``user_ids`` is a collection.

    The ids of a collection are all available; those of other iterables may come one by one.

    Arguments:
        user_ids: the ids: an iterable, or a one-dimensional array.
        check_time: is called after each id of an iterable that may wait; raises when the
            deadline has passed.

    Raises:
        InvalidTypeError: this is no iterable, a text, or an array that has no ints.
    """
    if is_array(user_ids) or _has_array(user_ids):
        return _array_blocks(_as_array(user_ids)), True
    if type(user_ids) is range:
        return _range_blocks(user_ids), True
    if not _is_iterable(user_ids):
        no_ids = user_ids is None or isinstance(user_ids, Number)
        advice = "" if no_ids else f"; {USE_USER_IDS}"
        raise InvalidTypeError(
            f"user ids must be an iterable of ints, got a {kind_of(user_ids)}{advice}"
        )
    return _list_blocks(user_ids, check_time)


def id_blocks(
    user_ids: Iterable[Any], check_time: Callable[[], object] | None = None
) -> tuple[Iterator[list[Any]], bool]:
    """Return an iterator over blocks of ids of another type; as `blocks`.

    Raises:
        InvalidTypeError: this is no iterable, a text, or an array of several dimensions.
    """
    if is_array(user_ids) or _has_array(user_ids):
        array = _as_array(user_ids)
        if array.ndim != 1:
            raise InvalidTypeError(
                f"user ids must be a one-dimensional array, got one of {array.ndim} dimensions"
            )
        user_ids = as_objects(array)
    if not _is_iterable(user_ids):
        raise InvalidTypeError(f"user ids must be an iterable of ids, got a {kind_of(user_ids)}")
    return _list_blocks(user_ids, check_time)


def _is_iterable(user_ids: object) -> bool:
    is_text = isinstance(user_ids, (str, bytes, bytearray, memoryview))
    return not is_text and isinstance(user_ids, Iterable)


def _list_blocks(
    user_ids: Iterable[Any], check_time: Callable[[], object] | None
) -> tuple[Iterator[list[Any]], bool]:
    iterator = iter(user_ids)
    if check_time is not None and not isinstance(user_ids, IN_MEMORY):
        iterator = in_time(iterator, check_time)
    return (
        iter(lambda: list(itertools.islice(iterator, BLOCK)), []),
        isinstance(user_ids, Collection),
    )


def _has_array(ids: object) -> bool:
    """Return whether numpy can make an array of this, such as of a column of a data frame.

    Iterating such a column would make a Python object of each number.
    """
    is_imported = hasattr(sys.modules.get("numpy"), "asanyarray")  # not by another thread just now
    return is_imported and hasattr(type(ids), "__array__")


def _as_array(ids: Any) -> Any:
    """Return an exact numpy array of an array of a subclass or of another library.

    Raises:
        InvalidTypeError: the array has masked values, or numpy cannot convert it.
    """
    numpy = sys.modules["numpy"]
    try:
        converted = numpy.asanyarray(ids)  # keeps the mask, such as of a variable of netCDF4
    except Exception as error:
        reraise_from_handler(error)
        raise InvalidTypeError(
            f"user ids must be an iterable of ints, got a {kind_of(ids)} that is no array: "
            f"{shown(error)}"
        ) from error
    ma = getattr(numpy, "ma", None)
    if ma is not None and isinstance(converted, ma.MaskedArray) and ma.is_masked(converted):
        raise InvalidTypeError(
            "user ids must not be masked; pass those that are not, with ids.compressed()"
        )
    return numpy.asarray(converted)


def in_time(items: Iterator[Any], check_time: Callable[[], object]) -> Iterator[Any]:
    """Yield items, and call a function after each of them."""
    for item in items:
        check_time()
        yield item


def _array_blocks(array: Any) -> Iterator[Numbers]:
    if array.ndim != 1:
        raise InvalidTypeError(
            f"user ids must be a one-dimensional array, got one of {array.ndim} dimensions"
        )
    if array.dtype.kind not in "iu" and len(array):
        # tolist() makes ints of some others, such as of datetimes in nanoseconds.
        if array.dtype.kind != "O":
            raise InvalidTypeError(
                f"user ids must be an array of ints, got one of {escaped(array.dtype.name)}; "
                f"{_WITHOUT_GAPS if array.dtype.kind == 'f' else USE_USER_IDS}"
            )
        array = array.tolist()  # objects; `KeySchema.offsets` checks each
    size = BLOCK if isinstance(array, list) else ARRAY_BLOCK
    return (array[at : at + size] for at in range(0, len(array), size))


def _range_blocks(ids: range) -> Iterator[Numbers]:
    """Return an iterator over blocks that are ranges, so that a long range takes no memory."""
    if not ids:
        return iter(())
    for end in (ids[0], ids[-1]):
        if not 0 <= end <= _HIGHEST:  # `len` raises for a range that is too long
            return iter(([end],))
    return (ids[at : at + BLOCK] for at in range(0, len(ids), BLOCK))


def bounded(values: Numbers) -> Offsets:
    """Return offsets with the lowest and the highest of them."""
    if is_array(values):
        return Offsets(values, int(values.min()), int(values.max()))
    return Offsets(values, min(values), max(values))


def is_array_of_ints(ids: object) -> bool:
    """Return whether this is a one-dimensional numpy array of integers, and not a masked one."""
    if not is_array(ids):
        return False
    array: Any = ids
    ma = getattr(sys.modules["numpy"], "ma", None)
    if ma is not None and isinstance(array, ma.MaskedArray):
        return False
    return array.ndim == 1 and array.dtype.kind in "iu"


def widened(offsets: Offsets) -> Offsets:
    """Return offsets as 64-bit integers, with which arithmetic cannot overflow."""
    values, low, high = offsets
    if is_array(values):
        values = values.astype(sys.modules["numpy"].int64, copy=False)
    return Offsets(values, low, high)


def partition(offsets: Offsets, parts: int) -> Iterator[tuple[int, Offsets]]:
    """Divide offsets by the number of parts, and group the quotients by remainder.

    Yields:
        Each remainder that occurs, in ascending order, with its quotients.
    """
    values = offsets.values
    if is_array(values):
        numpy = sys.modules["numpy"]
        remainders = (values % parts).astype(numpy.uint16)
        order = numpy.argsort(remainders, kind="stable")  # a radix sort, for 16 bits
        bounds = numpy.searchsorted(remainders[order], numpy.arange(parts + 1))
        quotients = values[order] // parts
        for remainder in range(parts):
            begin, end = bounds[remainder], bounds[remainder + 1]
            if begin < end:
                yield remainder, bounded(quotients[begin:end])
        return
    groups: list[list[int]] = [[] for _ in range(parts)]
    for value in values:
        groups[value % parts].append(value // parts)
    for remainder, group in enumerate(groups):
        if group:
            yield remainder, bounded(group)


def windows(offsets: Offsets, width: int = WINDOW) -> Iterator[Offsets]:
    """Cut a block of offsets, in any order, into windows of neighbouring offsets.

    Yields:
        The offsets of each window that has some; a window is at most ``width`` bits wide.
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
    """Return offsets as a part of a bitmap, in which their bits are set.

    Returns:
        The index of the first byte, and the bytes. In a byte, the bit with the lowest
        offset is the most significant one, as in Redis.
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
    if len(values) * _DENSE > 8 * size:
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
    """Return numbers as a list of Python's ints."""
    ints: list[int] = values.tolist() if is_array(values) else list(values)
    return ints


def as_objects(array: Any) -> list[Any]:
    """Return a numpy array of any type as a list."""
    # Of moments and durations in nanoseconds, tolist() makes ints, which would be ids.
    return list(array) if array.dtype.kind in "mM" else array.tolist()
