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
    from .._core.periods import Period
    from .requests import Query

__all__ = ["EPOCH", "bitmaps_exist", "find_unknown", "marked_periods"]

#: The first moment from which on bitmaps are looked for.
EPOCH: Final = datetime(1970, 1, 1)

#: How many commands one request has.
_STEP: Final = 1000

#: How many periods are computed in one step, at seven microseconds each.
_PERIODS: Final = 150


def bitmaps_exist(context: Context, event: str, suffixes: Iterable[str]) -> Query[list[int]]:
    """Return for each suffix 1 if the event has a bitmap with it in a shard, else 0."""
    replies: list[int] = []
    remaining = iter(suffixes)
    while chunk := list(itertools.islice(remaining, _STEP)):
        yield Checkpoint()
        keys = (suffixed_key(context.origin.prefix, event, suffix) for suffix in chunk)
        replies += yield Request([(b"EXISTS", key) for key in keys])
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


def find_unknown(context: Context, events: Iterable[str]) -> Query[tuple[str, ...]]:
    """Return those of some events that have no bitmap at all, each once: misspelt names.

    Looks for the flag and the months of an event, from 1970 to the end of next year, in one
    request. If months may expire, it scans all keys, once for each event.

    Arguments:
        context: the database.
        events: the names of the events, which have been checked.
    """
    names = list(dict.fromkeys(events))
    if not names:
        return ()
    if Granularity.MONTH in context.coverage.permanent:
        end = datetime(min(context.local(None).year + 2, MAXYEAR), 1, 1)
        months = periods_between(Granularity.MONTH, EPOCH, end)
        suffixes = yield from in_steps(period.suffix for period in months)
        suffixes.append(UNIQUE_SUFFIX)
    else:
        suffixes = []
    unknown: list[str] = []
    for event in names:
        if suffixes:
            exist = functools.partial(bitmaps_exist, event=event, suffixes=suffixes)
            known = any(map(any, (yield from each_shard(context, exist))))
        else:
            known = yield from _is_found(context, event)
        if not known:
            unknown.append(event)
    return tuple(unknown)


def _is_found(context: Context, event: str) -> Query[bool]:
    """Return whether a scan of all keys finds a bitmap of an event."""
    scan = KeyScan(context, event + "_", with_temporary=True)
    while scan.has_more:
        if any(bitmap.event == event for bitmap in (yield from scan.next())):
            return True
    return False
