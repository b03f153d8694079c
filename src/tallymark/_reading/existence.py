"""Queries that find which bitmaps of known events exist, without a scan where possible. Pure."""

from __future__ import annotations

import functools
import itertools
from datetime import MAXYEAR, datetime
from typing import TYPE_CHECKING, Final

from .._core.keys import suffixed_key
from .._core.periods import UNIQUE_SUFFIX, Granularity, periods_between
from .._core.unions import cover
from .fanout import each_shard
from .key_scan import KeyScan
from .keyspace import periods_of
from .requests import Checkpoint, Request, in_steps

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .._core.context import Context
    from .._core.events import Bitmap, EventSet
    from .._core.periods import Period
    from .requests import Query

__all__ = ["EPOCH", "bitmaps_exist", "existing_sets", "find_unknown", "marked_periods"]

#: The first moment from which on bitmaps are looked for.
EPOCH: Final = datetime(1970, 1, 1)

#: How many commands one request has.
_STEP: Final = 1000

#: The bitmaps of how many event sets are computed in one step.
_SETS: Final = 50

#: An event is looked for in so many years before this one first, and in so many from this one on.
_RECENT: Final = 1
_COMING: Final = 3

#: How many periods are computed in one step, at seven microseconds each.
_PERIODS: Final = 150


def bitmaps_exist(context: Context, event: str, suffixes: Iterable[str]) -> Query[list[int]]:
    """Return for each suffix 1 if the event has a bitmap with it in a shard, else 0."""
    return _exist(suffixed_key(context.origin.prefix, event, suffix) for suffix in suffixes)


def _exist(keys: Iterable[bytes]) -> Query[list[int]]:
    """Return for each key of a shard 1 if it exists, else 0."""
    replies: list[int] = []
    remaining = iter(keys)
    while chunk := list(itertools.islice(remaining, _STEP)):
        yield Checkpoint()
        replies += yield Request([(b"EXISTS", key) for key in chunk])
    return replies


def marked_periods(
    context: Context, events: Sequence[str], midnight: datetime
) -> Query[list[Period]]:
    """Return the periods whose bitmaps have all users who were marked before a midnight.

    The periods are those of existing bitmaps, from 1970 on, in order.
    """
    end = midnight.toordinal()
    if midnight <= EPOCH:
        return []
    marked: dict[Period, None] = {}
    if Granularity.MONTH in context.coverage.permanent:
        # EXISTS of the few possible keys is faster than a SCAN of all keys.
        covering_all = cover(EPOCH.toordinal(), end, context.coverage)
        periods = yield from in_steps(covering_all, _PERIODS)
        suffixes = yield from in_steps(period.suffix for period in periods)
        for event in events:
            exist = functools.partial(bitmaps_exist, event=event, suffixes=suffixes)
            for replies in (yield from each_shard(context, exist)):
                marked |= dict.fromkeys(itertools.compress(periods, replies))
    else:
        for event in events:
            scanned = yield from periods_of(context, event)
            existing = [period for period in scanned if period.start < midnight]
            begin = max(EPOCH, min((period.start for period in existing), default=midnight))
            covering = set((yield from in_steps(cover(begin.toordinal(), end, context.coverage))))
            marked |= dict.fromkeys(period for period in existing if period in covering)
    return sorted(marked, key=lambda period: period.start)


def existing_sets(context: Context, event_sets: Sequence[EventSet]) -> Query[list[EventSet]]:
    """Return those of some event sets of which any bitmap exists, in any shard."""
    of_sets = yield from in_steps((list(each.bitmaps()) for each in event_sets), _SETS)
    different = dict.fromkeys(itertools.chain.from_iterable(of_sets))

    def in_shard(shard: Context) -> Query[list[int]]:
        return _exist(bitmap.key_with_prefix(shard.origin.prefix) for bitmap in different)

    existing: set[Bitmap] = set()
    for replies in (yield from each_shard(context, in_shard)):
        existing.update(itertools.compress(different, replies))
    return [
        event_set
        for event_set, bitmaps in zip(event_sets, of_sets, strict=True)
        if not existing.isdisjoint(bitmaps)
    ]


def find_unknown(context: Context, events: Iterable[str]) -> Query[tuple[str, ...]]:
    """Return those of some events that have no bitmap at all, each once: misspelt names.

    Looks for the flag of an event and its months: first for those of the last years, where nearly
    all events have one, then for all from 1970 to the end of the year after the next. If months
    may expire, it scans all keys, once for each event.

    Arguments:
        context: the database.
        events: the names of the events, which have been checked.
    """
    unknown = list(dict.fromkeys(events))
    if not unknown:
        return ()
    if Granularity.MONTH not in context.coverage.permanent:
        found: dict[str, bool] = {}
        for event in unknown:
            found[event] = yield from _is_found(context, event)
        return tuple(event for event in unknown if not found[event])
    year = context.local(None).year
    recent = datetime(max(year - _RECENT, EPOCH.year), 1, 1)
    end = datetime(min(year + _COMING, MAXYEAR), 1, 1)
    for begin, until in ((recent, end), (EPOCH, recent)):
        months = periods_between(Granularity.MONTH, begin, until)
        suffixes = yield from in_steps(period.suffix for period in months)
        suffixes.append(UNIQUE_SUFFIX)
        still: list[str] = []
        for event in unknown:
            exist = functools.partial(bitmaps_exist, event=event, suffixes=suffixes)
            if not any(map(any, (yield from each_shard(context, exist)))):
                still.append(event)
        unknown = still
    return tuple(unknown)


def _is_found(context: Context, event: str) -> Query[bool]:
    """Return whether a scan of all keys finds a bitmap of an event."""
    scan = KeyScan(context, event + "_", with_temporary=True)
    while scan.has_more:
        if any(bitmap.event == event for bitmap in (yield from scan.next())):
            return True
    return False
