"""Time zones as SQL: the offsets of `zoneinfo`, by which also `mark_event` finds the day.

DuckDB has a database of time zones of its own, which is of another year: for some zones, the two
differ. It also takes thirteen times as long: with 5 million times of 90 days, 0.93 s of CPU time,
and the comparisons here 0.08 s.
"""

from __future__ import annotations

import functools
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from .fields import text

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["UTC", "local_to_utc", "utc_to_local"]

#: The names of the zone whose times need no conversion.
UTC: Final = frozenset(("UTC", "Etc/UTC"))

_EPOCH: Final = datetime(1970, 1, 1)

#: The years whose changes are known, from the first one of all zones on. Later, there are those
#: of DuckDB, if there are any.
_BEGIN: Final = datetime(1844, 1, 1)
_END: Final = datetime(2100, 1, 1)

#: Changes are searched between times with this distance; none of a zone are closer.
_STEP: Final = 3 * 86_400


def utc_to_local(value: str, zone: str) -> str:
    """Return SQL for a time in UTC on the clock of a zone.

    Arguments:
        value: a column with a TIMESTAMP.
        zone: the name of the zone.
    """
    if zone in UTC:
        return value
    first, changes = _changes(zone)
    known = f"{value} + to_seconds({_offset(value, first, changes)})"
    return _limited(value, zone, known, f"timezone({text(zone)}, timezone('UTC', {value}))")


def local_to_utc(value: str, zone: str) -> str:
    """Return SQL for a time on the clock of a zone in UTC: the first one, if there are two.

    Of a time that the clock skips, it is that with the offset before. Arguments as for
    `utc_to_local`.
    """
    if zone in UTC:
        return value
    first, changes = _changes(zone)
    offsets = [first, *(offset for _, offset in changes)]
    # Until then, the clock shows what it shows with the offset before, or skips.
    on_clock = [
        (second + max(before, offset), offset)
        for (second, offset), before in zip(changes, offsets, strict=False)
    ]
    known = f"{value} - to_seconds({_offset(value, first, on_clock)})"
    return _limited(value, zone, known, f"CAST(timezone({text(zone)}, {value}) AS TIMESTAMP)")


def _limited(value: str, zone: str, known: str, later: str) -> str:
    _, changes = _changes(zone)
    last_year = (_END - timedelta(days=366) - _EPOCH).total_seconds()
    if not changes or changes[-1][0] < last_year:  # there are no changes any more
        return known
    return f"CASE WHEN {value} < TIMESTAMP '{_END}' THEN {known} ELSE {later} END"


def _offset(value: str, first: int, changes: Sequence[tuple[int, int]]) -> str:
    """Return SQL for the offset at a time: a tree of comparisons.

    Arguments:
        value: the time.
        first: the offset before all changes.
        changes: the seconds from which on others hold, ascending, and these.
    """
    if not changes:
        return str(first)
    middle = len(changes) // 2
    second, offset = changes[middle]
    return (
        f"CASE WHEN {value} < TIMESTAMP '{_EPOCH + timedelta(seconds=second)}' "
        f"THEN {_offset(value, first, changes[:middle])} "
        f"ELSE {_offset(value, offset, changes[middle + 1 :])} END"
    )


@functools.lru_cache(16)
def _changes(name: str) -> tuple[int, list[tuple[int, int]]]:
    """Return the first offset of a zone, and its changes: second since 1970, and new offset."""
    zone = ZoneInfo(name)
    base = _EPOCH.replace(tzinfo=zone)

    def offset_at(second: int) -> int:
        offset = zone.fromutc(base + timedelta(seconds=second)).utcoffset()
        assert offset is not None  # noqa: S101
        return 86_400 * offset.days + offset.seconds

    begin, end = (int((each - _EPOCH).total_seconds()) for each in (_BEGIN, _END))
    first = before = offset_at(begin)
    changes = []
    for last in range(begin + _STEP, end + _STEP, _STEP):
        after = offset_at(last)
        if after == before:
            continue
        low, high = last - _STEP, last
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if offset_at(middle) == before else (low, middle)
        changes.append((high, after))
        before = after
    return first, changes
