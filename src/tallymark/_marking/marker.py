"""The write verbs: from their arguments to marks. Pure: the clock is passed in.

This is the one place where switches, time zones and defaults decide which bitmaps a verb
writes to.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import uuid
from typing import TYPE_CHECKING, Any

from .._core.arguments import check_flag, checked_name
from .._core.expiry import Expiry
from .._core.failures import may_be_applied
from .._core.options import switches
from .._core.periods import Granularity, Period
from ..errors import TallymarkError
from .bitmap_cache import BitmapCache
from .bulk import BulkWrite, Target
from .marks import Bitmaps, BitMark, ExactUnmark
from .policies import EventPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import date, datetime

    from .._core.options import Options
    from .marks import Mark, Result
    from .policies import Lock
    from .rows import RowWrite

__all__ = ["Marker", "PresentEvent"]

#: The granularities that an exact unmark clears only if no other day of the period has
#: the user.
_OF_SEVERAL_DAYS = Granularity.WEEK | Granularity.MONTH | Granularity.YEAR


class PresentEvent:
    """Where the marks of an event go, as long as the hour and the global switches stay.

    Attributes:
        begins, ends: the hour, in seconds since 1970.
        hourly, unique: the global switches.
        shards: the bitmaps in each shard; ``None`` if they are not cached.
    """

    __slots__ = ("begins", "ends", "hourly", "shards", "unique")

    def __init__(
        self,
        begins: float,
        ends: float,
        hourly: bool,
        unique: bool,
        shards: Sequence[Bitmaps | None],
    ) -> None:
        self.begins = begins
        self.ends = ends
        self.hourly = hourly
        self.unique = unique
        self.shards = shards


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
            options: the tally's options.
            clock: returns the current time in seconds since 1970.
            lock: a re-entrant lock, if threads share the marker.
        """
        self._clock = clock
        self._options = options
        self._schema = options.schema()
        self._max_user_id = options.max_user_id
        # Servers without BITFIELD have no scripts either.
        self._has_scripts = options.bitfield
        self._policy = EventPolicy(options, lock or contextlib.nullcontext())
        self._expiry = Expiry(options)
        self._cache = BitmapCache(options, clock, self._expiry, self._policy)
        self._hourly = options.track_hourly
        self._unique = options.track_unique

    def mark_event(
        self,
        event: str,
        user_id: Any,
        now: date | None,
        track_hourly: bool | None,
        track_unique: bool | None,
    ) -> BitMark:
        """Return the mark that sets a user's bits of a moment."""
        if now is None is track_hourly is track_unique and type(event) is str:
            # The short way of nearly all marks: the present, and the tally's switches.
            present = self._cache.present
            if present.begins <= self._clock() < present.ends:
                hourly = switches.track_hourly if self._hourly is None else self._hourly
                unique = switches.track_unique if self._unique is None else self._unique
                shards = present.bitmaps[2 * hourly + unique].get(event)
                if (
                    shards is not None
                    and type(user_id) is int
                    and 0 <= user_id <= self._max_user_id
                ):
                    offset, shard = divmod(user_id, len(shards))
                    bitmaps = shards[shard]
                    if bitmaps is not None:
                        return BitMark(bitmaps, offset, 1)
        shard, user = self._place(user_id)
        return self._bit(self.bitmaps(event, now, track_hourly, track_unique, shard), user, 1)

    def present_event(self, event: str, now: float) -> PresentEvent | None:
        """Return where marks of an event and the present go, if it is in the cache.

        Arguments:
            event: the event, unchecked: if it is not allowed, it is not in the cache.
            now: the present, in seconds since 1970.
        """
        present = self._cache.present
        if not present.begins <= now < present.ends:
            return None
        hourly, unique = switches.track_hourly, switches.track_unique
        index = 2 * (hourly if self._hourly is None else self._hourly)
        index += unique if self._unique is None else self._unique
        shards = present.bitmaps[index].get(event)
        if shards is None:
            return None
        return PresentEvent(present.begins, present.ends, hourly, unique, shards)

    def unmark_event(
        self,
        event: str,
        user_id: Any,
        now: date | None,
        track_hourly: bool | None,
        track_unique: bool | None,
        exact: bool,
    ) -> Mark:
        """Return the mark that clears a user's bits of a moment."""
        moment = self._cache.local_time(now)
        shard, user = self._place(user_id)
        check_flag("exact", exact)
        bitmaps = self.bitmaps(event, moment, track_hourly, track_unique, shard)
        if not exact:
            return self._bit(bitmaps, user, 0)
        bitmaps = self._decidable(bitmaps, moment)
        return self._exact_unmark(bitmaps, self._other_days(bitmaps, moment), user)

    def mark_many(
        self,
        event: str,
        now: date | None,
        track_hourly: bool | None,
        track_unique: bool | None,
    ) -> BulkWrite:
        """Return the bulk write that sets many users' bits of a moment."""
        moment = self._cache.local_time(now)  # the same for all shards
        return self._bulk_write(
            lambda shard: self.bitmaps(event, moment, track_hourly, track_unique, shard), 1
        )

    def mark_rows(self, track_hourly: bool | None, track_unique: bool | None) -> RowWrite:
        """Return the bulk write that sets the bits of rows of any events and moments."""
        from .row_writes import RowWrites  # noqa: PLC0415 - few programs need it

        hourly = _switch("track_hourly", track_hourly, self._hourly, switches.track_hourly)
        unique = _switch("track_unique", track_unique, self._unique, switches.track_unique)
        writes = RowWrites(self._options, self._clock, self._policy, self._expiry, self._cache)
        return writes.begin(hourly, unique, self._temp_keys, *self._row_ids())

    def unmark_many(
        self,
        event: str,
        now: date | None,
        track_hourly: bool | None,
        track_unique: bool | None,
        exact: bool,
    ) -> BulkWrite:
        """Return the bulk write that clears many users' bits of a moment."""
        moment = self._cache.local_time(now)
        check_flag("exact", exact)

        def bitmaps(shard: int) -> Bitmaps:
            return self.bitmaps(event, moment, track_hourly, track_unique, shard)

        if not exact:
            return self._bulk_write(bitmaps, 0)

        def target(shard: int) -> Target:
            decidable = self._decidable(bitmaps(shard), moment)
            other_days = self._other_days(decidable, moment)
            exact_unmark = functools.partial(self._exact_unmark, decidable, other_days)
            return Target(decidable, None, exact_unmark)

        return self._bulk_write_to(target, 0)

    def mark_unique(self, event: str, user_id: Any) -> BitMark:
        """Return the mark that sets a user's dateless bit."""
        return self._dateless_mark(event, user_id, 1)

    def unmark_unique(self, event: str, user_id: Any) -> BitMark:
        """Return the mark that clears a user's dateless bit."""
        return self._dateless_mark(event, user_id, 0)

    def mark_unique_many(self, event: str) -> BulkWrite:
        """Return the bulk write that sets many users' dateless bits."""
        return self._dateless_write(event, 1)

    def unmark_unique_many(self, event: str) -> BulkWrite:
        """Return the bulk write that clears many users' dateless bits."""
        return self._dateless_write(event, 0)

    def bitmap_write(
        self, event: str, granularity: Granularity, period: Period | None
    ) -> BulkWrite:
        """Return the bulk write that sets many users' bits of one bitmap.

        Arguments:
            event: the event's name.
            granularity, period: of the bitmap; ``None`` for the dateless one, which is UNIQUE.
        """
        of_shard = functools.partial(self._cache.of_period, event, granularity, period)
        return self._bulk_write(functools.cache(of_shard), 1)

    def bitmaps(
        self,
        event: str,
        now: date | None,
        track_hourly: bool | None,
        track_unique: bool | None,
        shard: int = 0,
    ) -> Bitmaps:
        """Return the bitmaps of an event and a moment in a shard.

        The switches: the argument wins, then the tally's option, then the global switch.
        """
        hourly = _switch("track_hourly", track_hourly, self._hourly, switches.track_hourly)
        unique = _switch("track_unique", track_unique, self._unique, switches.track_unique)
        if type(event) is not str:  # may be unhashable, or of a subclass of str
            event = checked_name("event", event)
        if now is None:
            return self._cache.at_present(event, shard, hourly, unique)
        return self._cache.at(event, shard, now, hourly, unique)

    # --- the quota of events

    def reserve(self, marks: Iterable[Mark]) -> None:
        """Reserve places in ``max_events`` before marks are sent; `release` must follow.

        Raises:
            InvalidValueError: the quota is used up; nothing is reserved.
        """
        if not self._policy.has_quota:
            return
        reserved: list[Mark] = []
        for mark in marks:
            if mark.bitmaps.uncounted:
                try:
                    self._policy.reserve(mark.bitmaps.event)
                except BaseException:
                    for earlier in reserved:
                        self._policy.release(earlier.bitmaps.event, applied=False)
                    raise
                reserved.append(mark)

    def release(
        self,
        marks: Iterable[Mark],
        results: Iterable[Result | None] = (),
        error: BaseException | None = None,
    ) -> None:
        """Release the places of marks; events that were marked count from now on.

        Arguments:
            marks: marks for which `reserve` was called.
            results: the result of each mark, if Redis has replied.
            error: the error of all marks, if not.
        """
        if not self._policy.has_quota:
            return
        for mark, result in itertools.zip_longest(marks, results):
            if mark.bitmaps.uncounted:
                cause = result if isinstance(result, BaseException) else error
                self._policy.release(mark.bitmaps.event, applied=_applied(mark.bitmaps, cause))

    @contextlib.contextmanager
    def reservation(self, write: BulkWrite) -> Iterator[None]:
        """Return a context manager that keeps a place reserved during a bulk write.

        Each of its chunks calls `reserve` and `release`. No other event takes the place
        before the first chunk or between two chunks.

        Raises:
            InvalidValueError: the quota is used up.
        """
        if not write.uncounted:
            yield
            return
        self._policy.reserve(write.event)
        try:
            yield
        finally:
            self._policy.release(write.event, applied=False)

    @contextlib.contextmanager
    def saving(self, event: str) -> Iterator[None]:
        """Return a context manager for a call that saves a flag.

        Raises:
            InvalidTypeError, InvalidValueError: the name of the flag is not allowed, or the quota
                is used up.
        """
        event = checked_name("as_", event)
        self._policy.check(event)
        if not self._policy.is_uncounted(event):
            yield
            return
        self._policy.reserve(event)
        applied = True  # also if the call is cancelled
        try:
            yield
        except TallymarkError as error:
            applied = may_be_applied(error)
            raise
        finally:
            self._policy.release(event, applied=applied)

    def replace_lock(self, lock: Lock) -> None:
        """Replace the lock by one that nobody holds, as in a forked child process."""
        self._policy.lock = lock

    # --- bitmaps

    def _dateless_mark(self, event: str, user_id: Any, value: int) -> BitMark:
        if type(event) is not str:
            event = checked_name("event", event)
        shard, user = self._place(user_id)
        return self._bit(self._cache.dateless(event, shard), user, value)

    def _dateless_write(self, event: str, value: int) -> BulkWrite:
        if type(event) is not str:
            event = checked_name("event", event)
        return self._bulk_write(functools.partial(self._cache.dateless, event), value)

    def _bulk_write(self, bitmaps: Callable[[int], Bitmaps], value: int) -> BulkWrite:
        """Return the bulk write to the bitmaps of each shard."""
        uid = uuid.uuid4().hex
        return self._bulk_write_to(
            lambda shard: Target(bitmaps(shard), self._temp_keys(shard, uid)), value
        )

    # --- users: by offset

    def _place(self, user_id: Any) -> tuple[int, Any]:
        """Return the shard of a user, and what `_bit` and `_exact_unmark` take as the user."""
        return self._schema.place(user_id)

    def _bit(self, bitmaps: Bitmaps, user: Any, value: int) -> BitMark:
        return BitMark(bitmaps, user, value)

    def _exact_unmark(
        self, bitmaps: Bitmaps, other_days: tuple[tuple[bytes, ...], ...], user: Any
    ) -> ExactUnmark:
        return ExactUnmark(bitmaps, user, other_days)

    def _bulk_write_to(self, target: Callable[[int], Target], value: int) -> BulkWrite:
        return BulkWrite(target, self._schema, value=value)

    def _row_ids(self) -> tuple[Any, ...]:
        """Return the dictionary and the cache, if users have ids that are no offsets."""
        return ()

    # --- parts

    def _temp_keys(self, shard: int, uid: str) -> tuple[bytes, bytes] | None:
        """Return two keys that no other call uses and that no schema parses as a bitmap's."""
        if not self._has_scripts:
            return None
        name = f"{self._schema.parts[shard].prefix}tmp:{uid}"
        return f"{name}:1".encode(), f"{name}:2".encode()

    def _decidable(self, bitmaps: Bitmaps, moment: datetime) -> Bitmaps:
        """Return the bitmaps that an exact unmark can decide on.

        Leaves out a week, month or year of which some days have expired already: it is
        unknown whether the user was active on those days, so the bit stays.
        """
        if not self._expiry.days_expire:
            return bitmaps
        now = self._clock()
        granularities, keys = [], []
        for granularity, key in zip(bitmaps.granularities, bitmaps.keys, strict=True):
            if granularity in _OF_SEVERAL_DAYS:
                days = Period.containing(granularity, moment).days()
                if min(map(self._expiry.time, days)) <= now:
                    continue
            granularities.append(granularity)
            keys.append(key)
        decidable = Bitmaps(bitmaps.event, granularities, keys, shard=bitmaps.shard)
        decidable.uncounted = bitmaps.uncounted
        return decidable

    def _other_days(self, bitmaps: Bitmaps, moment: datetime) -> tuple[tuple[bytes, ...], ...]:
        """Return, for each bitmap, the keys of the other days of its period.

        Empty for hours, days and the dateless bitmap.
        """
        schema = self._schema.parts[bitmaps.shard]
        today = Period.containing(Granularity.DAY, moment)
        return tuple(
            tuple(
                schema.key(bitmaps.event, day)
                for day in Period.containing(granularity, moment).days()
                if day != today
            )
            if granularity in _OF_SEVERAL_DAYS
            else ()
            for granularity in bitmaps.granularities
        )


def _applied(bitmaps: Bitmaps, error: BaseException | None) -> bool:
    """Return whether a part of a mark was applied, or may have been."""
    if error is None:
        return bool(bitmaps.keys)  # of expired periods, nothing is sent
    return may_be_applied(error) if isinstance(error, TallymarkError) else bitmaps.sent


def _switch(name: str, argument: bool | None, option: bool | None, default: bool) -> bool:
    if argument is not None:
        check_flag(name, argument)
        return argument
    return default if option is None else option
