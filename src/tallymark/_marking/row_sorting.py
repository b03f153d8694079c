"""Sorts the rows of a block by shard, event, day or hour, and user. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .._core.moments import loaded_numpy
from .._core.offsets import is_array

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Rows", "lowest", "sorted_rows"]


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


def lowest(units: Any) -> int:
    """Return the first one of some units, at least one."""
    return int(units.min()) if is_array(units) else min(units)


def sorted_rows(rows: Rows, shards: int, events: int) -> Iterator[tuple[int, int, Any]]:
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
