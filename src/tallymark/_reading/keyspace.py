"""Queries that find bitmaps in the keyspace: by event, by period, by user. Pure.

Most of them scan all keys of the database, as `KeyScan` does.
"""

from __future__ import annotations

import heapq
import itertools
import operator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .._core.arguments import checked_name
from .._core.keys import bitmap_key
from .._core.periods import Granularity, Period, count_between, dated, periods_between
from .._core.untrusted import kind_of, shown
from ..errors import InvalidTypeError, InvalidValueError
from .bounds import check_number, checked_events
from .fanout import gather
from .id_deletion import delete_with_ids
from .key_scan import KeyScan, query_by_shard, scan_of_event
from .raw_keys import unlink, usages
from .requests import Checkpoint, Request, in_steps
from .user_ids import find_place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import date

    from .._core.context import Context
    from .._core.periods import By
    from .key_scan import FoundBitmap
    from .requests import Query

__all__ = [
    "all_bitmaps",
    "delete_all",
    "event_names",
    "history",
    "memory",
    "periods",
    "periods_of",
    "sort",
]

AnswerT = TypeVar("AnswerT")

#: The event and the period of a bitmap; the period of a flag is ``None``.
_BitmapName = tuple[str, "Period | None"]

#: How many items are sorted in one step.
_SORTED: Final = 10_000

#: How many commands one request has.
_STEP: Final = 1000

#: The name of any event, where only the number of bitmaps of a period matters.
_ANY: Final = "any"


def event_names(context: Context, prefix: str) -> Query[list[str]]:
    """Return the names of all events that have a bitmap, sorted.

    Arguments:
        context: the database.
        prefix: the first characters of the names; may be empty.
    """
    if type(prefix) is not str or prefix:  # the empty str is allowed, and is no name
        prefix = checked_name("prefix", prefix)
    names: set[str] = set()
    scan = KeyScan(context, prefix)
    while scan.has_more:
        names.update(bitmap.event for bitmap in (yield from scan.next()))
    return (yield from sort(names))


def all_bitmaps(context: Context) -> Query[tuple[list[_BitmapName], list[_BitmapName]]]:
    """Return the events and periods of all bitmaps; and those of bitmapist's temporary keys."""
    bitmaps: dict[_BitmapName, None] = {}
    temporary: dict[_BitmapName, None] = {}
    scan = KeyScan(context, with_temporary=True)
    while scan.has_more:
        for bitmap in (yield from scan.next()):
            names = temporary if scan.is_temporary(bitmap.key) else bitmaps
            names[bitmap.event, bitmap.period] = None
    return list(bitmaps), list(temporary)


def periods(context: Context, event: str, granularity: By) -> Query[list[Period]]:
    """Return the periods of a granularity for which an event has a bitmap, in order."""
    checked_granularity = dated(granularity)
    event = checked_name("event", event)
    all_periods = yield from periods_of(context, event)
    return [period for period in all_periods if period.granularity is checked_granularity]


def periods_of(context: Context, event: str) -> Query[list[Period]]:
    """Return the periods of all granularities for which an event has a bitmap, in order."""
    unsorted: set[Period] = set()
    scan = scan_of_event(context, event)
    while scan.has_more:
        unsorted.update(
            bitmap.period
            for bitmap in (yield from scan.next())
            if bitmap.event == event and bitmap.period is not None
        )
    return (yield from sort(unsorted, operator.attrgetter("start")))


def memory(context: Context, event: str) -> Query[dict[Granularity, int]]:
    """Return how many bytes an event's bitmaps take, for each granularity that has bitmaps."""
    event = checked_name("event", event)
    by_key: dict[bytes, FoundBitmap] = {}
    scan = scan_of_event(context, event)
    while scan.has_more:
        by_key |= {
            bitmap.key: bitmap for bitmap in (yield from scan.next()) if bitmap.event == event
        }
    granularities = set((yield from in_steps(bitmap.granularity for bitmap in by_key.values())))
    ascending = sorted(granularities, key=lambda granularity: int(granularity.value))
    sizes: dict[Granularity, int] = dict.fromkeys(ascending, 0)
    for bitmaps, found in (yield from query_by_shard(context, by_key.values(), _usages)):
        for at in range(0, len(bitmaps), _STEP):
            end = at + _STEP
            for bitmap, usage in zip(bitmaps[at:end], found[at:end], strict=True):
                sizes[bitmap.granularity] += usage or 0  # None: deleted since the scan
            yield Checkpoint()
    return sizes


def _usages(bitmaps: Sequence[FoundBitmap]) -> Query[list[int | None]]:
    return usages([bitmap.key for bitmap in bitmaps])


def history(
    context: Context,
    user_id: Any,
    events: str | Iterable[str],
    since: date,
    until: date | None,
    granularity: By,
) -> Query[dict[str, list[Period]]]:
    """Return for each event the periods in which its bitmaps have a user, in order.

    An unknown user has none.

    Arguments:
        context: the database.
        user_id: the user's id.
        events: the name of an event, or several.
        since, until: moments, as in `Context.local`: the periods are those that overlap the
            time from ``since`` up to, not including, ``until``; ``None`` for the present, whose
            period is included.
        granularity: the granularity of the periods.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed, or there are more
            bitmaps than one query may read.
    """
    dictionary = context.schema.dictionary
    # The id is checked before the other arguments.
    place: tuple[int, int] | None = None
    key = None
    if dictionary is None:
        place = context.schema.place(user_id)
    else:
        key = dictionary.ids.key(user_id)
    checked_granularity = dated(granularity)
    names = yield from checked_events(context, events)
    if since is None:
        raise InvalidTypeError("since must be a date or datetime, got None")
    begin = context.local(since, "since")
    end = context.local(until, "until")
    if until is None:
        end += timedelta.resolution  # so that a period that begins just now is included
    if begin >= end:
        raise InvalidValueError(f"since must be before until, got {begin} and {end}")
    # A period may be the union of several bitmaps, as a year is.
    union = context.during(_ANY, Period.containing(checked_granularity, begin))
    per_period = len(names) * sum(1 for _ in union.bitmaps())
    what = f"{checked_granularity}s between since and until, of all events together"
    count = count_between(checked_granularity, begin, end)
    check_number(context, per_period * (count - 2), what)
    all_periods = yield from in_steps(periods_between(checked_granularity, begin, end))
    check_number(context, per_period * len(all_periods), what)
    if dictionary is not None:
        place = yield from find_place(context, dictionary, key)
    if place is None:
        return {name: [] for name in names}
    shard, offset = place
    query = _history(context.shards[shard], offset, names, all_periods)
    (by_event,) = yield from gather(context, [(shard, query)])
    return by_event


def _history(
    context: Context, offset: int, names: Sequence[str], all_periods: Sequence[Period]
) -> Query[dict[str, list[Period]]]:
    by_event: dict[str, list[Period]] = {name: [] for name in names}
    digits = b"%d" % offset
    # The names have been checked, and may be long: a check for each period would take long. So
    # the bitmaps of a period are made for another, short name.
    prefix = context.origin.prefix
    cells = (
        (name, period, bitmap_key(prefix, name, bitmap.period))
        for name in names
        for period in all_periods
        for bitmap in context.during(_ANY, period).bitmaps()
    )
    while chunk := list(itertools.islice(cells, _STEP)):
        yield Checkpoint()
        bits = yield Request([(b"GETBIT", key, digits) for _, _, key in chunk])
        for (name, period, _), bit in zip(chunk, bits, strict=True):
            # Several bitmaps of one period, such as the months of a year, are consecutive.
            if bit and period not in by_event[name][-1:]:
                by_event[name].append(period)
    return by_event


def delete_all(context: Context, prefix: str) -> Query[int]:
    """Delete all bitmaps of the tally, and all ids of users; return how many bitmaps there were.

    Arguments:
        context: the database.
        prefix: the tally's prefix, as a confirmation.

    Raises:
        InvalidTypeError, InvalidValueError: this is not the tally's prefix.
    """
    if not isinstance(prefix, str):  # instances of other types may be equal to anything
        raise InvalidTypeError(f"prefix must be a str, got a {kind_of(prefix)}")
    if str.__str__(prefix) != context.origin.prefix:
        raise InvalidValueError(
            f"this tally's keys begin with {shown(context.origin.prefix)}; to delete them all, "
            f"pass just that, not {shown(prefix)}"
        )
    names: set[_BitmapName] = set()
    dictionary = context.schema.dictionary

    def unlink_bitmaps(bitmaps: Sequence[FoundBitmap]) -> Query[list[int]]:
        return unlink(context, [bitmap.key for bitmap in bitmaps])

    def delete_bitmaps() -> Query[None]:
        scan = KeyScan(context, with_temporary=True, changes=dictionary is not None)
        while scan.has_more:
            bitmaps = yield from scan.next()
            yield from query_by_shard(context, bitmaps, unlink_bitmaps)
            names.update((bitmap.event, bitmap.period) for bitmap in bitmaps)

    if dictionary is None:
        yield from delete_bitmaps()
    else:
        yield from delete_with_ids(context, dictionary, delete_bitmaps)
    return len(names)


def sort(
    items: Iterable[AnswerT], key: Callable[[AnswerT], Any] | None = None
) -> Query[list[AnswerT]]:
    """Return items in order, as `sorted` does, with checkpoints: by a merge sort."""
    sort: Any = sorted
    unsorted = list(items)
    runs: list[list[AnswerT]] = []
    for at in range(0, len(unsorted), _SORTED):
        runs.append(sort(unsorted[at : at + _SORTED], key=key))
        yield Checkpoint()
    if len(runs) == 1:
        return runs[0]
    merge: Any = heapq.merge
    return (yield from in_steps(merge(*runs, key=key)))
