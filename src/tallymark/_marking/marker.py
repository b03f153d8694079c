"""The write verbs: from what a caller says to the mark that says it.

Pure: the clock is passed in. This is the one place where switches, time zones
and defaults decide which bitmaps a verb touches.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from .._core.arguments import check_flag, check_name, checked_name
from .._core.failures import may_be_applied
from .._core.keys import bitmap_key
from .._core.options import switches
from .._core.periods import Granularity, Period, clock_at, wall_clock
from ..errors import TallymarkError
from .bulk import Many, Target
from .lifetimes import Lifetimes
from .limits import EventLimits
from .marks import Bitmaps, BitMark, ExactUnmark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import date

    from .._core.options import Options
    from .limits import Lock
    from .marks import Mark, Result

__all__ = ["Marker"]

#: How many (event, hour) keep their keys ready. The keys of an event change at
#: most once an hour, so this serves thousands of events; the bound keeps names
#: that come from strangers from filling the memory.
_CACHED_BITMAPS = 4096

#: Events that are marked in the present find their keys without a look at the
#: calendar; this bounds how many of them, as above.
_PRESENT_BITMAPS = 4096

#: So many times as many may be kept where there are shards.
_SHARDED = 4

#: About how many bytes of memory either of them may take, without shards; and how many
#: bitmaps of one mark take, beside their names.
_CACHED_BYTES = 16 * 1024 * 1024
_AROUND = 600

#: What an exact unmark clears only where no other day of the period has the user.
_KEPT_BY_OTHER_DAYS = Granularity.WEEK | Granularity.MONTH | Granularity.YEAR

_Hour = tuple[int, int, int, int]


class _Present(NamedTuple):
    """The hour that it is: while it lasts, an event's keys do not change.

    Attributes:
        begins, ends: the times, in seconds since 1970, between which that is known.
        local: a moment of that hour as the wall clock shows it.
        bitmaps: what was marked in it, by event and shard; one table for each of the
            four positions of the two switches.
    """

    begins: float
    ends: float
    local: datetime
    bitmaps: tuple[dict[str, list[Bitmaps | None]], ...]


class _Kept(dict[Any, Bitmaps]):
    """Bitmaps that are kept, up to a bound; one that is too many takes the place of all."""

    def __init__(self, most: int, most_bytes: int) -> None:
        """Begin empty; ``most`` of them, and so many bytes, are kept."""
        super().__init__()
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0

    def keep(self, key: object, bitmaps: Bitmaps) -> None:
        """Keep bitmaps, unless they alone would take a good part of the memory."""
        weight = _weight(bitmaps)
        if weight > self._most_bytes // 16:
            return
        self._bytes += weight
        if len(self) >= self._most or self._bytes > self._most_bytes:
            self.clear()  # in one step: threads share a marker
            self._bytes = weight
        self[key] = bitmaps


class Marker:
    """Turns the arguments of a write verb into a mark.

    Raises, from every verb and before anything is sent:
        InvalidTypeError, InvalidValueError: an argument is not allowed.
    """

    def __init__(
        self, options: Options, clock: Callable[[], float], lock: Lock | None = None
    ) -> None:
        """Prepare for one tally.

        Arguments:
            options: the tally's.
            clock: returns the present moment in seconds since 1970.
            lock: a re-entrant one, if threads share the marker.
        """
        self._clock = clock
        self._zone = options.zone
        self._schema = options.schema()
        self._highest = options.max_user_id
        # Servers that lack BITFIELD lack more.
        self._scripts = options.bitfield
        self._limits = EventLimits(options, lock or contextlib.nullcontext())
        #: Whether marks on trial have to be told: see `begun`.
        self.counts_events = self._limits.counts
        self._lifetimes = Lifetimes(options)
        self._hourly = options.track_hourly
        self._unique = options.track_unique
        self._always = Granularity.MONTH | Granularity.WEEK | Granularity.DAY
        if options.track_yearly:
            self._always |= Granularity.YEAR
        # Each shard has bitmaps of its own, so there are more.
        shards = len(self._schema.parts)
        room = _SHARDED if shards > 1 else 1
        self._most_events = max(1, _PRESENT_BITMAPS * room // shards)
        self._most_bytes = _CACHED_BYTES * room
        self._present_bytes = 0
        self._kept = _Kept(_CACHED_BITMAPS * room, self._most_bytes)
        self._present = _Present(0.0, 0.0, datetime.min, ())  # is over

    def mark_event(
        self,
        event: str,
        user_id: int,
        now: date | None,
        track_hourly: bool | None,
        track_unique: bool | None,
    ) -> BitMark:
        """Return the mark that sets a user's bits of a moment."""
        if now is None is track_hourly is track_unique and type(event) is str:
            # What nearly all marks are: of the present, as the tally has it.
            present = self._present
            if present.begins <= self._clock() < present.ends:
                hourly = switches.track_hourly if self._hourly is None else self._hourly
                unique = switches.track_unique if self._unique is None else self._unique
                shards = present.bitmaps[2 * hourly + unique].get(event)
                if shards is not None and type(user_id) is int and 0 <= user_id <= self._highest:
                    offset, shard = divmod(user_id, len(shards))
                    known = shards[shard]
                    if known is not None:
                        return BitMark(known, offset, 1)
        shard, offset = self._schema.place(user_id)
        return BitMark(self.bitmaps(event, now, track_hourly, track_unique, shard), offset, 1)

    def unmark_event(
        self,
        event: str,
        user_id: int,
        now: date | None,
        track_hourly: bool | None,
        track_unique: bool | None,
        exact: bool,
    ) -> Mark:
        """Return the mark that clears a user's bits of a moment."""
        moment = self._local(now)
        shard, offset = self._schema.place(user_id)
        check_flag("exact", exact)
        bitmaps = self.bitmaps(event, moment, track_hourly, track_unique, shard)
        if not exact:
            return BitMark(bitmaps, offset, 0)
        bitmaps = self._with_witnesses(bitmaps, moment)
        return ExactUnmark(bitmaps, offset, self._witnesses(bitmaps, moment))

    def mark_many(
        self,
        event: str,
        now: date | None,
        track_hourly: bool | None,
        track_unique: bool | None,
    ) -> Many:
        """Return what sets many users' bits of a moment."""
        moment = self._local(now)  # one for all shards
        uid = uuid.uuid4().hex

        def target(shard: int) -> Target:
            bitmaps = self.bitmaps(event, moment, track_hourly, track_unique, shard)
            return Target(bitmaps, self._scratch(shard, uid))

        return Many(target, self._schema, value=1)

    def unmark_many(
        self,
        event: str,
        now: date | None,
        track_hourly: bool | None,
        track_unique: bool | None,
        exact: bool,
    ) -> Many:
        """Return what clears many users' bits of a moment."""
        moment = self._local(now)
        check_flag("exact", exact)
        uid = uuid.uuid4().hex

        def target(shard: int) -> Target:
            bitmaps = self.bitmaps(event, moment, track_hourly, track_unique, shard)
            if not exact:
                return Target(bitmaps, self._scratch(shard, uid))
            bitmaps = self._with_witnesses(bitmaps, moment)
            witnesses = self._witnesses(bitmaps, moment)
            return Target(bitmaps, None, functools.partial(_exact_unmark, bitmaps, witnesses))

        return Many(target, self._schema, value=0)

    def mark_unique(self, event: str, user_id: int) -> BitMark:
        """Return the mark that sets a user's dateless bit."""
        return self._flag(event, user_id, 1)

    def unmark_unique(self, event: str, user_id: int) -> BitMark:
        """Return the mark that clears a user's dateless bit."""
        return self._flag(event, user_id, 0)

    def begun(self, marks: Iterable[Mark]) -> None:
        """Take note of marks that are to be sent, before they are; `ended` has to follow.

        Raises:
            InvalidValueError: one of them is of an event that is one too many; none has begun.
        """
        if not self.counts_events:
            return
        before: list[Mark] = []
        for mark in marks:
            if mark.bitmaps.on_trial:
                try:
                    self._limits.begin(mark.bitmaps.event)
                except BaseException:
                    for each in before:
                        self._limits.end(each.bitmaps.event, applied=False)
                    raise
                before.append(mark)

    def unlock(self, lock: Lock) -> None:
        """Take a lock that nobody holds, as in a child process."""
        self._limits.lock = lock

    def ended(
        self,
        marks: Iterable[Mark],
        results: Iterable[Result | None] = (),
        error: BaseException | None = None,
    ) -> None:
        """Take note of what became of marks, some of which may be of events on trial.

        Arguments:
            marks: marks that have `begun`.
            results: what each came to, if there was an answer.
            error: why there was none.
        """
        if not self.counts_events:
            return
        for mark, result in itertools.zip_longest(marks, results):
            if mark.bitmaps.on_trial:
                why = result if isinstance(result, BaseException) else error
                self._limits.end(mark.bitmaps.event, applied=_applied(mark.bitmaps, why))

    @contextlib.contextmanager
    def many(self, many: Many) -> Iterator[None]:
        """Return a context manager for marks of many users, the pieces of which begin and end.

        No other event takes the place of theirs before the first piece, or between two.

        Raises:
            InvalidValueError: their event is one too many.
        """
        if not many.on_trial:
            yield
            return
        self._limits.begin(many.event)
        try:
            yield
        finally:
            self._limits.end(many.event, applied=False)

    def bitmaps(
        self,
        event: str,
        now: date | None,
        track_hourly: bool | None,
        track_unique: bool | None,
        shard: int = 0,
    ) -> Bitmaps:
        """Return the bitmaps of an event and a moment, in a shard.

        The switches: the call wins, then the tally, then the global.
        """
        hourly = _decided("track_hourly", track_hourly, self._hourly, switches.track_hourly)
        unique = _decided("track_unique", track_unique, self._unique, switches.track_unique)
        if type(event) is not str:  # may have no hash to look it up by
            event = checked_name("event", event)
        if now is not None:
            return self._bitmaps_of(event, shard, self._local(now), hourly, unique)
        present = self._present_hour()
        known = present.bitmaps[2 * hourly + unique]
        shards = known.get(event)
        bitmaps = None if shards is None else shards[shard]
        if bitmaps is None:
            bitmaps = self._bitmaps_of(event, shard, present.local, hourly, unique)
            weight = _weight(bitmaps)
            if bitmaps.on_trial or weight > self._most_bytes // 16:
                return bitmaps
            self._present_bytes += weight
            if self._present_bytes > self._most_bytes:
                self._present_bytes = weight
                known.clear()
                shards = None
            if shards is None:
                if len(known) >= self._most_events:
                    known.clear()
                shards = known[event] = [None] * len(self._schema.parts)
            shards[shard] = bitmaps
        return bitmaps

    def _bitmaps_of(
        self, event: str, shard: int, moment: datetime, hourly: bool, unique: bool
    ) -> Bitmaps:
        granularities = self._always
        if hourly:
            granularities |= Granularity.HOUR
        if unique:
            granularities |= Granularity.UNIQUE
        # All hours of a day share the bitmaps that have no hour, and so a command.
        hour = (moment.year, moment.month, moment.day, moment.hour if hourly else 0)
        found = self._cached_bitmaps(event, shard, hour, granularities)
        if found.expiring and found.over <= self._clock():  # since it was put into the cache
            return self._make_bitmaps(event, shard, hour, granularities)
        return found

    def _cached_bitmaps(
        self, event: str, shard: int, hour: _Hour | None, granularities: Granularity
    ) -> Bitmaps:
        key = (event, shard, hour, granularities)
        found = self._kept.get(key)
        if found is None:
            found = self._make_bitmaps(event, shard, hour, granularities)
            if not found.on_trial:
                self._kept.keep(key, found)
        return found

    def _flag(self, event: str, user_id: int, value: int) -> BitMark:
        if type(event) is not str:
            event = checked_name("event", event)
        shard, offset = self._schema.place(user_id)
        bitmaps = self._cached_bitmaps(event, shard, None, Granularity.UNIQUE)
        return BitMark(bitmaps, offset, value)

    def _make_bitmaps(
        self, event: str, shard: int, hour: _Hour | None, granularities: Granularity
    ) -> Bitmaps:
        self._limits.check_length(event)
        check_name("event", event)
        self._limits.check(event)
        moment = hour and datetime(*hour)
        prefix = self._schema.parts[shard].prefix
        found = []
        for granularity in granularities:
            period = (
                # A unique bitmap has no period, also beside those that have one.
                None
                if moment is None or granularity is Granularity.UNIQUE
                else Period.containing(granularity, moment)
            )
            end = self._lifetimes.end(period)
            if end == math.inf or end > self._clock():  # else Redis would delete what is there
                found.append((granularity, bitmap_key(prefix, event, period), end))
        chosen, keys, ends = zip(*found, strict=True) if found else ((), (), ())
        made = Bitmaps(event, chosen, keys, ends, shard)
        made.on_trial = self._limits.is_on_trial(event)
        return made

    def _scratch(self, shard: int, uid: str) -> tuple[bytes, bytes] | None:
        """Return the names of two keys that nobody else uses, and that no schema can parse."""
        if not self._scripts:
            return None
        name = f"{self._schema.parts[shard].prefix}tmp:{uid}"
        return f"{name}:1".encode(), f"{name}:2".encode()

    def _with_witnesses(self, bitmaps: Bitmaps, moment: datetime) -> Bitmaps:
        """Return those bitmaps of which it can be told whether another day keeps a user there.

        If some of the days are over already, nobody knows any more, and their
        week keeps what it has.
        """
        if not self._lifetimes.days_end:
            return bitmaps
        now = self._clock()
        kept = []
        for granularity, key in zip(bitmaps.granularities, bitmaps.keys, strict=True):
            if granularity in _KEPT_BY_OTHER_DAYS:
                days = Period.containing(granularity, moment).days()
                if min(map(self._lifetimes.end, days)) <= now:
                    continue
            kept.append((granularity, key))
        chosen, keys = [each for each, _ in kept], [key for _, key in kept]
        made = Bitmaps(bitmaps.event, chosen, keys, shard=bitmaps.shard)
        made.on_trial = bitmaps.on_trial
        return made

    def _witnesses(self, bitmaps: Bitmaps, moment: datetime) -> tuple[tuple[bytes, ...], ...]:
        """Return for each bitmap the keys of the other days that keep a user in it."""
        return tuple(
            self._other_days(bitmaps, Period.containing(granularity, moment), moment)
            if granularity in _KEPT_BY_OTHER_DAYS
            else ()
            for granularity in bitmaps.granularities
        )

    def _other_days(self, bitmaps: Bitmaps, period: Period, moment: datetime) -> tuple[bytes, ...]:
        today = Period.containing(Granularity.DAY, moment)
        schema = self._schema.parts[bitmaps.shard]
        return tuple(schema.key(bitmaps.event, day) for day in period.days() if day != today)

    def _present_hour(self) -> _Present:
        now = self._clock()
        present = self._present
        if not present.begins <= now < present.ends:
            # Assigned in one step: threads share a marker.
            self._present = present = self._hour_at(now)
        return present

    def _hour_at(self, now: float) -> _Present:
        local, offset = clock_at(now, self._zone)
        ends = math.floor(now) + 3600 - 60 * local.minute - local.second
        _, later = clock_at(ends - 0.001, self._zone)
        self._present_bytes = 0
        # Where the zone's offset changes before the hour is over, or has fractions
        # of a second, the hour's end is not where it seems: know this moment only.
        if later != offset or (offset is not None and offset.microseconds):
            ends = math.floor(now)
        return _Present(now, ends, local, ({}, {}, {}, {}))

    def _local(self, now: date | None) -> datetime:
        """Return a moment as the wall clock of the tally's zone shows it, naive."""
        return self._present_hour().local if now is None else wall_clock(now, self._zone)


def _applied(bitmaps: Bitmaps, error: BaseException | None) -> bool:
    """Return whether something of a mark was applied, or may have been."""
    if error is None:
        return bool(bitmaps.keys)  # of periods that are over, nothing is sent
    return may_be_applied(error) if isinstance(error, TallymarkError) else bitmaps.sent


def _weight(bitmaps: Bitmaps) -> int:
    """Return about how many bytes of memory bitmaps take: they have each key three times."""
    return 3 * bitmaps.size + _AROUND


def _exact_unmark(
    bitmaps: Bitmaps, witnesses: tuple[tuple[bytes, ...], ...], offset: int
) -> ExactUnmark:
    return ExactUnmark(bitmaps, offset, witnesses)


def _decided(name: str, call: bool | None, tally: bool | None, everywhere: bool) -> bool:
    if call is not None:
        check_flag(name, call)
        return call
    return everywhere if tally is None else tally
