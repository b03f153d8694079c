"""Limits of one query: how many bitmaps it may read, checked before they are computed. Pure."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from .._core.arguments import checked_name, iterated
from .._core.events import Bitmap, Combination, Compound
from .._core.unions import DayRange, Union
from ..errors import InvalidValueError
from .requests import Checkpoint, in_steps

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from .._core.context import Context
    from .._core.events import EventSet
    from .requests import Query, QueryEffect

__all__ = ["check_bitmaps", "check_number", "check_uses", "checked_events"]

#: How often a query may use each of ``max_bitmaps`` bitmaps, on average.
_USES_PER_BITMAP: Final = 25

#: Event sets with at most this many bitmaps together are not counted. A range of 35 days, with
#: all bitmaps that a day may have, stays below.
_FEW: Final = 1000

#: How many bitmaps or parts of expressions are processed between two checkpoints.
_STEP: Final = 200

#: How many names are checked in one step, since names may be long.
_NAMES: Final = 10


_ONLY_BITMAPS: Final = frozenset((Bitmap,))


def check_number(context: Context, number: int, what: str) -> None:
    """Raise if a query reads more bitmaps than the option ``max_bitmaps`` allows.

    Arguments:
        context: the database and its options.
        number: how many bitmaps, or event sets, the query reads.
        what: what is counted, in the plural, for the error.

    Raises:
        InvalidValueError: there are too many.
    """
    limit = context.options.max_bitmaps
    if number > limit:
        raise InvalidValueError(
            f"too many {what}: one question may read max_bitmaps={limit} bitmaps"
        )


def checked_events(context: Context, events: str | Iterable[str]) -> Query[list[str]]:
    """Return the names of some events, each once, in their order.

    Arguments:
        context: the database and its options.
        events: the name of an event, or several; takes one more than ``max_bitmaps`` at most,
            since the iterable may be infinite.

    Raises:
        InvalidTypeError, InvalidValueError: these are no names, or too many.
    """
    if isinstance(events, str):
        events = [events]
    iterator = iterated("events must be a name or several", events)
    limited = itertools.islice(iterator, context.options.max_bitmaps + 1)
    checked = yield from in_steps((checked_name("event", name) for name in limited), _NAMES)
    names = list(dict.fromkeys(checked))
    check_number(context, len(names), "events")
    return names


def check_uses(context: Context, number: int, what: str) -> None:
    """Raise if a query uses bitmaps too often: 25 times ``max_bitmaps``, repetitions included.

    Arguments and errors as `check_number`.
    """
    limit = context.options.max_bitmaps
    if number > _USES_PER_BITMAP * limit:
        raise InvalidValueError(
            f"too many {what}: with max_bitmaps={limit}, there may be {_USES_PER_BITMAP * limit}"
        )


def check_bitmaps(context: Context, event_sets: Sequence[EventSet]) -> Iterable[QueryEffect]:
    """Raise if event sets have more different bitmaps than one query may read.

    A lower bound for ranges of days is known by arithmetic, so a range that is too long fails
    before its periods are computed. The periods of the other event sets are computed here,
    with checkpoints, and not in one step later.

    Returns:
        The checkpoints that the query has to yield. The checks run while they are iterated.

    Raises:
        InvalidValueError: there are too many; raised by the iteration.
    """
    if len(event_sets) == 1:
        (event_set,) = event_sets
        if type(event_set) is Bitmap:
            return ()
        if type(event_set) is Combination:  # of a few bitmaps, the common case
            operands = event_set.operands
            few = len(operands) <= _FEW and len(operands) <= context.options.max_bitmaps
            if few and _ONLY_BITMAPS.issuperset(map(type, operands)):
                return ()
    return _check_leaves(context, event_sets)


def _check_leaves(context: Context, event_sets: Sequence[EventSet]) -> Query[None]:
    leaves = yield from _leaves(event_sets)
    check_number(context, _lower_bound(leaves), "bitmaps, in ranges of days alone")
    upper_bound = sum([leaf.max_size() if isinstance(leaf, Union) else 1 for leaf in leaves])
    if upper_bound > min(_FEW, context.options.max_bitmaps):
        yield from _check_periods(context, leaves, upper_bound)


def _leaves(event_sets: Sequence[EventSet]) -> Query[list[Bitmap | Union]]:
    """Return the bitmaps and unions in some expressions, each object once."""
    leaves: list[Bitmap | Union] = []
    # Iterative and with a set of visited parts: expressions may be deep and share parts.
    visited: set[int] = set()
    stack = list(event_sets)
    while stack:
        part = stack.pop()
        if id(part) in visited:
            continue
        visited.add(id(part))
        if isinstance(part, Compound):
            stack += part.operands
        elif isinstance(part, Bitmap | Union):
            leaves.append(part)
        if len(visited) % _STEP == 0:
            yield Checkpoint()
    return leaves


def _lower_bound(leaves: Sequence[Bitmap | Union]) -> int:
    """Return a lower bound of the number of different bitmaps of all ranges of days.

    Each day of a range is in one of the range's bitmaps, and none of these has more days than
    `DayRange.max_days_per_bitmap`.
    """
    bound = 0
    ends: dict[str, datetime] = {}
    ranges = [leaf for leaf in leaves if isinstance(leaf, DayRange)]
    for day_range in sorted(ranges, key=lambda day_range: day_range.first):
        # Only days that no earlier range of the same event has counted.
        first = max(day_range.first, ends.get(day_range.event, day_range.first))
        ends[day_range.event] = max(day_range.after, first)
        bound += max(0, (day_range.after - first).days) // day_range.max_days_per_bitmap
    return bound


def _check_periods(
    context: Context, leaves: Sequence[Bitmap | Union], upper_bound: int
) -> Query[None]:
    """Compute all periods, and check the numbers of different bitmaps and of their uses.

    Arguments:
        context: the database and its options.
        leaves: the bitmaps and unions.
        upper_bound: how many bitmaps they have at most.
    """
    # The set of different bitmaps takes time, and is needed only if the limit can be exceeded.
    counting = upper_bound > context.options.max_bitmaps
    different: set[object] = set()
    uses = 0
    for leaf in leaves:
        periods = leaf.iter_periods() if isinstance(leaf, Union) else (leaf.period,)
        for period in periods:
            uses += 1
            if counting:
                different.add((leaf.event, period))
            if uses % _STEP == 0:
                if counting:
                    check_number(context, len(different), "different bitmaps")
                    check_uses(context, uses, "uses of bitmaps")
                yield Checkpoint()
    check_number(context, len(different), "different bitmaps")
    check_uses(context, uses, "uses of bitmaps")
