"""The query that deletes what has become old: `delete_before`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from .._core.arguments import check_flag
from .._core.batches import ORDER, granularities_of
from .._core.frozen import FrozenMapping
from .._core.periods import Granularity, Period
from ..errors import InvalidTypeError, InvalidValueError
from .bounds import checked_events
from .key_scan import KeyScan, query_by_shard, scan_of_event
from .raw_keys import unlink_sized, usages
from .requests import Checkpoint, in_steps

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date, datetime

    from .._core.context import Context
    from .._core.periods import By
    from .key_scan import FoundBitmap
    from .requests import Query

__all__ = ["Deleted", "delete_before"]

_NONE: Final[FrozenMapping[Granularity, int]] = FrozenMapping()


@dataclass(frozen=True)
class Deleted:
    """What `Tally.delete_before` has deleted; or, in a dry run, would delete.

    Attributes:
        bitmaps: how many bitmaps, by granularity; one that several shards have counts once.
        bytes: how many bytes they took, by granularity, as ``MEMORY USAGE`` of Redis returns
            them; on a server without that command, their lengths.
        dry_run: whether nothing was deleted.
    """

    bitmaps: Mapping[Granularity, int] = _NONE
    bytes: Mapping[Granularity, int] = _NONE
    dry_run: bool = False

    @property
    def total(self) -> int:
        """How many bitmaps there are, of all granularities."""
        return sum(self.bitmaps.values())

    @property
    def total_bytes(self) -> int:
        """How many bytes they took."""
        return sum(self.bytes.values())

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a dict for each granularity, with values that JSON and CSV can represent."""
        return [
            {"granularity": str(each), "bitmaps": count, "bytes": self.bytes[each]}
            for each, count in self.bitmaps.items()
        ]


def delete_before(
    context: Context,
    moment: date,
    *,
    events: str | Iterable[str] | None,
    granularities: By | Iterable[By] | None,
    dry_run: bool,
) -> Query[Deleted]:
    """Delete the bitmaps whose period has ended at a moment; return what they were.

    Arguments:
        context: the database.
        moment: as in `Context.local`.
        events: the name of an event, or several; ``None`` for all.
        granularities: a dated granularity, or several; ``None`` for all.
        dry_run: whether to delete nothing.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed.
    """
    end = _checked_end(context, moment)
    wanted = _checked_granularities(granularities)
    check_flag("dry_run", dry_run)
    names = None if events is None else set((yield from checked_events(context, events)))
    found = _Found()
    if names is not None and not names:
        return found.result(dry_run)

    def is_old(bitmap: FoundBitmap) -> bool:
        period = bitmap.period
        return (
            period is not None
            and period.granularity in wanted
            and (names is None or bitmap.event in names)
            and _has_ended(period, end)
        )

    def purge(bitmaps: Sequence[FoundBitmap]) -> Query[list[int | None]]:
        keys = [bitmap.key for bitmap in bitmaps]
        sizes = yield from usages(keys, changes=not dry_run)
        if not dry_run:
            found_keys = [key for key, size in zip(keys, sizes, strict=True) if size is not None]
            found_sizes = [size for size in sizes if size is not None]
            yield from unlink_sized(context, found_keys, found_sizes)
        return sizes

    scan = _scan(context, names, changes=not dry_run)
    while scan.has_more:
        page = yield from scan.next()
        old = [
            bitmap
            for bitmap, is_ in zip(page, (yield from in_steps(map(is_old, page))), strict=True)
            if is_ and not (dry_run and found.is_known(bitmap))
        ]
        for bitmaps, sizes in (yield from query_by_shard(context, old, purge)):
            found.add(bitmaps, sizes)
            yield Checkpoint()
    return found.result(dry_run)


def _checked_granularities(granularities: By | Iterable[By] | None) -> set[Granularity]:
    if granularities is None:
        return {*ORDER} - {Granularity.UNIQUE}
    chosen = set(granularities_of(granularities))
    if Granularity.UNIQUE in chosen:
        raise InvalidValueError(
            "granularities must have periods, and flags (unique) have none; delete takes a flag"
        )
    return chosen


def _checked_end(context: Context, moment: date) -> datetime:
    """Return a moment of which no period that has ended by it contains the present."""
    if moment is None:
        raise InvalidTypeError("moment must be a date or datetime, got None")
    end = context.local(moment)
    now = context.local(None)
    # The shortest period that contains the present is its hour. Of an hour that occurs twice,
    # both are the same period, so a moment in the first one is not refused in the second one.
    if end - Period.containing(Granularity.HOUR, now).start >= timedelta(hours=1):
        raise InvalidValueError(
            "moment must be before the end of the present hour, since nothing present is deleted; "
            f"got {end}, and it is {now:%Y-%m-%d %H:%M} in the tally's time zone"
        )
    return end


def _has_ended(period: Period, end: datetime) -> bool:
    if period.start >= end:  # also spares `Period.end` its error after the year 9999
        return False
    return period.end <= end


def _scan(context: Context, names: set[str] | None, *, changes: bool) -> KeyScan:
    """Return a scan that finds the bitmaps of some events, and maybe of others."""
    if names is None:
        return KeyScan(context, changes=changes)
    if len(names) == 1:
        return scan_of_event(context, next(iter(names)), changes=changes)
    # An event's name may look like that of a result of bitmapist.
    return KeyScan(context, with_temporary=True, changes=changes)


class _Found:
    """The number and the size of the bitmaps that were found so far.

    A scan may return a key twice (after a deletion, it does not exist any more), and each shard
    has a key of its own. Names and keys are
    remembered as hashes of 64 bits, which take a tenth of the memory: of a million bitmaps, two
    have the same hash with a probability below 1e-7, and then the number is one too low.
    """

    def __init__(self) -> None:
        self._keys: set[int] = set()
        self._names: dict[Granularity, set[int]] = {}
        self._bytes: dict[Granularity, int] = {}

    def is_known(self, bitmap: FoundBitmap) -> bool:
        """Return whether a bitmap's key was found before; from now on it is known."""
        known = len(self._keys)
        self._keys.add(hash(bitmap.key))
        return len(self._keys) == known

    def add(self, bitmaps: Sequence[FoundBitmap], sizes: Sequence[int | None]) -> None:
        """Add bitmaps of a shard, without those that do not exist any more."""
        for bitmap, size in zip(bitmaps, sizes, strict=True):
            if size is not None:
                granularity = bitmap.granularity
                names = self._names.setdefault(granularity, set())
                names.add(hash((bitmap.event, bitmap.period)))
                self._bytes[granularity] = self._bytes.get(granularity, 0) + size

    def result(self, dry_run: bool) -> Deleted:
        """Return the result, with the granularities in the order of their definition."""
        ascending = sorted(self._names, key=lambda granularity: int(granularity.value))
        return Deleted(
            FrozenMapping({each: len(self._names[each]) for each in ascending}),
            FrozenMapping({each: self._bytes[each] for each in ascending}),
            dry_run,
        )
