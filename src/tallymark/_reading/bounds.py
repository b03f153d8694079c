"""How much one question may cost, reckoned before anything is built. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .._core.events import Bitmap, Combination
from .._core.unions import DayRange, Union
from ..errors import InvalidValueError
from .requests import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from .._core.context import Context
    from .._core.events import EventSet
    from .requests import Effect, Query

__all__ = ["bounded", "check_number", "check_uses"]

#: How often a question may use each of the bitmaps that it may read, on average.
_USES: Final = 25

#: Event sets that can have so many bitmaps together are not looked into here. Of days, this
#: is 35, with all that a day may need.
_FEW: Final = 1000

#: And larger ones, or large expressions, with one after so many bitmaps, or parts.
_BREAK: Final = 200


_ONLY_BITMAPS: Final = frozenset((Bitmap,))


def check_number(context: Context, number: int, what: str) -> None:
    """Raise if a question is of more bitmaps than it may read.

    Arguments:
        context: the database, whose options say how many it may read.
        number: how many there are of it.
        what: what there are so many of, for the error.

    Raises:
        InvalidValueError: there are too many.
    """
    most = context.options.max_bitmaps
    if number > most:
        raise InvalidValueError(
            f"too many {what}: one question may read max_bitmaps={most} bitmaps"
        )


def check_uses(context: Context, number: int, what: str) -> None:
    """Raise if a question uses bitmaps more often than it may. Arguments as `check_number`."""
    most = context.options.max_bitmaps
    if number > _USES * most:
        raise InvalidValueError(
            f"too many {what}: with max_bitmaps={most}, there may be {_USES * most}"
        )


def bounded(context: Context, event_sets: Sequence[EventSet]) -> Iterable[Effect]:
    """Raise if event sets have more different bitmaps than one question may read.

    Whatever a range of days costs at least is known by arithmetic, so nothing is built
    of one that is too long. The others are looked into bit by bit, here, so that it is
    not done later in one go.

    Returns:
        Where the query has to yield; raises when it is iterated.

    Raises:
        InvalidValueError: there are too many.
    """
    if len(event_sets) == 1:
        (one,) = event_sets
        if type(one) is Bitmap:
            return ()
        if type(one) is Combination:  # or of a few bitmaps, as most questions are
            parts = one.operands
            few = len(parts) <= _FEW and len(parts) <= context.options.max_bitmaps
            if few and _ONLY_BITMAPS.issuperset(map(type, parts)):
                return ()
    return _bounded(context, event_sets)


def _bounded(context: Context, event_sets: Sequence[EventSet]) -> Query[None]:
    leaves = yield from _leaves(event_sets)
    check_number(context, _least(leaves), "bitmaps, in ranges of days alone")
    largest = sum([leaf.most() if isinstance(leaf, Union) else 1 for leaf in leaves])
    if largest > min(_FEW, context.options.max_bitmaps):
        yield from _look_into(context, leaves, largest)


def _leaves(event_sets: Sequence[EventSet]) -> Query[list[Bitmap | Union]]:
    """Return the parts of event sets that are no combinations, each object once."""
    found: list[Bitmap | Union] = []
    # Neither deep nor shared expressions are followed more than once, or by recursion.
    seen: set[int] = set()
    todo = list(event_sets)
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, Combination):
            todo += one.operands
        elif isinstance(one, Bitmap | Union):
            found.append(one)
        if len(seen) % _BREAK == 0:
            yield Checkpoint()
    return found


def _least(leaves: Sequence[Bitmap | Union]) -> int:
    """Return how many bitmaps there are at least in ranges of days, by arithmetic.

    No bitmap is of more than so many days, and each day of a range is in one of them.
    """
    least = 0
    ends: dict[str, datetime] = {}
    ranges = [leaf for leaf in leaves if isinstance(leaf, DayRange)]
    for one in sorted(ranges, key=lambda one: one.first):
        # Only what no earlier range of the event has had.
        first = max(one.first, ends.get(one.event, one.first))
        ends[one.event] = max(one.after, first)
        least += max(0, (one.after - first).days) // one.widest
    return least


def _look_into(context: Context, leaves: Sequence[Bitmap | Union], largest: int) -> Query[None]:
    """Count the bitmaps, each once, up to the limit; so many there are at most."""
    # Only if it can matter, since that takes a second look at each of them.
    counting = largest > context.options.max_bitmaps
    found: set[object] = set()
    uses = 0
    for leaf in leaves:
        periods = leaf.unfolded() if isinstance(leaf, Union) else (leaf.period,)
        for period in periods:
            uses += 1
            if counting:
                found.add((leaf.event, period))
            if uses % _BREAK == 0:
                if counting:
                    check_number(context, len(found), "different bitmaps")
                    check_uses(context, uses, "uses of bitmaps")
                yield Checkpoint()
    check_number(context, len(found), "different bitmaps")
    check_uses(context, uses, "uses of bitmaps")
