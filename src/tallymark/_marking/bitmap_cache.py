"""The bitmaps of an event and a moment: made once, then cached for later marks. Pure.

The clock is passed in.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._core.arguments import check_name
from .._core.keys import bitmap_key
from .._core.periods import Granularity, Period, clock_at, wall_clock
from .marks import Bitmaps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import date

    from .._core.expiry import Expiry
    from .._core.options import Options
    from .policies import EventPolicy

__all__ = ["BitmapCache", "PresentHour"]

#: How many entries (event, shard, hour, granularities) the cache of any moments holds. The
#: keys of an event change at most once an hour, so this serves thousands of events; the
#: bound keeps event names from outside from filling the memory.
_CACHED_BITMAPS: Final = 4096

#: How many events the table of the present hour holds, for each position of the two
#: switches. Their marks need no calendar at all.
_PRESENT_EVENTS: Final = 4096

#: With shards, both bounds and the bytes below are multiplied by that.
_SHARDED_FACTOR: Final = 4

#: About how many bytes of memory either of the two may take, without shards; and how many
#: bytes `Bitmaps` take besides their names and keys.
_MAX_BYTES: Final = 16 * 1024 * 1024
_OVERHEAD: Final = 600

_Hour = tuple[int, int, int, int]


class PresentHour(NamedTuple):
    """The current hour: while it lasts, the keys of an event do not change.

    Attributes:
        begins, ends: the range of times for which this is known to be the current hour,
            in seconds since 1970.
        local: a moment of the hour in the tally's zone, naive.
        bitmaps: the bitmaps that were marked in this hour, by event and shard. One table
            for each position of the switches: ``2 * hourly + unique`` is its index.
    """

    begins: float
    ends: float
    local: datetime
    bitmaps: tuple[dict[str, list[Bitmaps | None]], ...]


class _BoundedCache(dict[Any, Bitmaps]):
    """Cached bitmaps, bounded in number and bytes; cleared when full."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        super().__init__()
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._bytes = 0

    def put(self, key: object, bitmaps: Bitmaps) -> None:
        """Cache bitmaps, unless they take more than a sixteenth of the bytes."""
        size = _memory(bitmaps)
        if size > self._max_bytes // 16:
            return
        self._bytes += size
        if len(self) >= self._max_entries or self._bytes > self._max_bytes:
            self.clear()  # one step, because threads share the cache
            self._bytes = size
        self[key] = bitmaps


class BitmapCache:
    """Makes the `Bitmaps` of events and moments, and caches them. Threads may share it.

    Attributes:
        granularities: of the bitmaps of a mark, without those of the switches.
        present: the current hour, or an earlier one. Replaced in one step, since threads
            share it.
    """

    def __init__(
        self, options: Options, clock: Callable[[], float], expiry: Expiry, policy: EventPolicy
    ) -> None:
        """Begin empty.

        Arguments:
            options: the tally's options.
            clock: returns the current time in seconds since 1970.
            expiry: when bitmaps expire.
            policy: which events may be marked.
        """
        self._clock = clock
        self._zone = options.zone
        self._parts = options.schema().parts
        self._expiry = expiry
        self._policy = policy
        self.granularities = Granularity.MONTH | Granularity.WEEK | Granularity.DAY
        if options.track_yearly:
            self.granularities |= Granularity.YEAR
        # Each shard has bitmaps of its own, so there are more.
        shards = len(self._parts)
        factor = _SHARDED_FACTOR if shards > 1 else 1
        self._max_present_events = max(1, _PRESENT_EVENTS * factor // shards)
        self._max_bytes = _MAX_BYTES * factor
        self._present_bytes = 0
        self._cache = _BoundedCache(_CACHED_BITMAPS * factor, self._max_bytes)
        self.present = PresentHour(0.0, 0.0, datetime.min, ())  # has ended

    def local_time(self, now: date | None) -> datetime:
        """Return a moment, or the present, as the local time of the tally's zone, naive."""
        return self._present_hour().local if now is None else wall_clock(now, self._zone)

    def at(self, event: str, shard: int, moment: date, hourly: bool, unique: bool) -> Bitmaps:
        """Return the bitmaps of an event and a moment in a shard.

        Raises:
            InvalidTypeError, InvalidValueError: the event or the moment is not allowed.
        """
        return self._at_local(event, shard, self.local_time(moment), hourly, unique)

    def at_present(self, event: str, shard: int, hourly: bool, unique: bool) -> Bitmaps:
        """Return the bitmaps of an event and the present in a shard.

        Raises:
            InvalidTypeError, InvalidValueError: the event is not allowed.
        """
        present = self._present_hour()
        table = present.bitmaps[2 * hourly + unique]
        shards = table.get(event)
        bitmaps = None if shards is None else shards[shard]
        if bitmaps is None:
            bitmaps = self._at_local(event, shard, present.local, hourly, unique)
            size = _memory(bitmaps)
            if bitmaps.uncounted or size > self._max_bytes // 16:
                return bitmaps
            self._present_bytes += size
            if self._present_bytes > self._max_bytes:
                self._present_bytes = size
                table.clear()
                shards = None
            if shards is None:
                if len(table) >= self._max_present_events:
                    table.clear()
                shards = table[event] = [None] * len(self._parts)
            shards[shard] = bitmaps
        return bitmaps

    def dateless(self, event: str, shard: int) -> Bitmaps:
        """Return the dateless bitmap of an event in a shard.

        Raises:
            InvalidTypeError, InvalidValueError: the event is not allowed.
        """
        return self._cached(event, shard, None, Granularity.UNIQUE)

    def _at_local(
        self, event: str, shard: int, moment: datetime, hourly: bool, unique: bool
    ) -> Bitmaps:
        granularities = self.granularities
        if hourly:
            granularities |= Granularity.HOUR
        if unique:
            granularities |= Granularity.UNIQUE
        # Without an hour's bitmap, all hours of a day share the bitmaps, and so a command.
        hour = (moment.year, moment.month, moment.day, moment.hour if hourly else 0)
        bitmaps = self._cached(event, shard, hour, granularities)
        if bitmaps.expiry_count and bitmaps.expires_at <= self._clock():  # since it was cached
            return self._make(event, shard, hour, granularities)
        return bitmaps

    def _cached(
        self, event: str, shard: int, hour: _Hour | None, granularities: Granularity
    ) -> Bitmaps:
        key = (event, shard, hour, granularities)
        bitmaps = self._cache.get(key)
        if bitmaps is None:
            bitmaps = self._make(event, shard, hour, granularities)
            if not bitmaps.uncounted:
                self._cache.put(key, bitmaps)
        return bitmaps

    def _make(
        self, event: str, shard: int, hour: _Hour | None, granularities: Granularity
    ) -> Bitmaps:
        moment = hour and datetime(*hour)
        return self._of_periods(
            event,
            shard,
            (
                # The unique bitmap has no period, also beside bitmaps that have one.
                (granularity, None)
                if moment is None or granularity is Granularity.UNIQUE
                else (granularity, Period.containing(granularity, moment))
                for granularity in granularities
            ),
        )

    def of_period(
        self, event: str, granularity: Granularity, period: Period | None, shard: int
    ) -> Bitmaps:
        """Return one bitmap of an event in a shard; it is not cached.

        Arguments:
            event: the event's name.
            granularity, period: of the bitmap; ``None`` for the dateless one, which is UNIQUE.
            shard: the number of the shard.

        Raises:
            InvalidTypeError, InvalidValueError: the event is not allowed.
        """
        return self._of_periods(event, shard, ((granularity, period),))

    def _of_periods(
        self, event: str, shard: int, periods: Iterable[tuple[Granularity, Period | None]]
    ) -> Bitmaps:
        self._policy.check_length(event)
        check_name("event", event)
        self._policy.check(event)
        prefix = self._parts[shard].prefix
        entries = []
        for granularity, period in periods:
            expires_at = self._expiry.time(period)
            # An EXPIREAT in the past would delete the key.
            if expires_at == math.inf or expires_at > self._clock():
                entries.append((granularity, bitmap_key(prefix, event, period), expires_at))
        unexpired, keys, times = zip(*entries, strict=True) if entries else ((), (), ())
        bitmaps = Bitmaps(event, unexpired, keys, times, shard)
        bitmaps.uncounted = self._policy.is_uncounted(event)
        return bitmaps

    def _present_hour(self) -> PresentHour:
        now = self._clock()
        present = self.present
        if not present.begins <= now < present.ends:
            self.present = present = self._hour_at(now)
        return present

    def _hour_at(self, now: float) -> PresentHour:
        local, offset = clock_at(now, self._zone)
        ends = math.floor(now) + 3600 - 60 * local.minute - local.second
        _, later = clock_at(ends - 0.001, self._zone)
        self._present_bytes = 0
        # If the zone's offset changes within the hour, or has fractions of a second, the
        # end of the hour is unknown: the entry is valid for this moment only.
        if later != offset or (offset is not None and offset.microseconds):
            ends = math.floor(now)
        return PresentHour(now, ends, local, ({}, {}, {}, {}))


def _memory(bitmaps: Bitmaps) -> int:
    """Return about how many bytes of memory bitmaps take: they hold each key three times."""
    return 3 * bitmaps.size + _OVERHEAD
