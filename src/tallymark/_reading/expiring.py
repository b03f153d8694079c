"""The query that gives bitmaps that are there the expiry of the option: `apply_expiry`. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from .._core.arguments import check_flag
from .._core.expiry import Expiry
from .._core.frozen import FrozenMapping
from ..errors import InvalidValueError
from .key_scan import KeyScan, query_by_shard
from .raw_keys import expiry_times
from .requests import Checkpoint, Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._core.context import Context
    from .._core.periods import Granularity
    from .key_scan import FoundBitmap
    from .requests import Query

__all__ = ["AppliedExpiry", "apply_expiry"]

#: How many bitmaps one request looks up, and how many it changes: an ``EXPIREAT`` in the past
#: deletes, as slowly as an ``UNLINK`` of a string.
_LOOK_UPS: Final = 1000
_CHANGES: Final = 100

#: The timestamp for a bitmap that has expired before any timestamp.
_PAST: Final = 1


_NONE: Final[FrozenMapping[Granularity, int]] = FrozenMapping()


@dataclass(frozen=True)
class AppliedExpiry:
    """What `Tally.apply_expiry` has changed; or, in a dry run, would change.

    How many bitmaps, by granularity, for each that the option ``expire`` names and that has
    bitmaps. One that several shards have counts once.

    Attributes:
        changed: those that had another expiry, or none.
        deleted: those that would have expired already, and so are deleted.
        unchanged: those that had this expiry.
        dry_run: whether nothing was changed.
    """

    changed: Mapping[Granularity, int] = _NONE
    deleted: Mapping[Granularity, int] = _NONE
    unchanged: Mapping[Granularity, int] = _NONE
    dry_run: bool = False

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a dict for each granularity, with values that JSON and CSV can represent."""
        return [
            {
                "granularity": str(each),
                "changed": self.changed[each],
                "deleted": self.deleted[each],
                "unchanged": count,
            }
            for each, count in self.unchanged.items()
        ]


def apply_expiry(context: Context, *, dry_run: bool) -> Query[AppliedExpiry]:
    """Set the expiry of all bitmaps as marks would set it; return how many had another one.

    Arguments:
        context: the database.
        dry_run: whether to change nothing.

    Raises:
        InvalidTypeError: ``dry_run`` is no bool.
        InvalidValueError: the tally has no option ``expire``.
    """
    check_flag("dry_run", dry_run)
    options = context.options
    if not options.lifetimes:
        raise InvalidValueError(
            "this tally has no option expire, so there is no expiry to set; make it with "
            "expire={'day': timedelta(days=400)} or the like"
        )
    expiry = Expiry(options)
    outcome = _Outcome()

    def apply(bitmaps: Sequence[FoundBitmap]) -> Query[None]:
        for at in range(0, len(bitmaps), _LOOK_UPS):
            part = bitmaps[at : at + _LOOK_UPS]
            ends = {bitmap.key: expiry.time(bitmap.period) for bitmap in part}
            now, present = yield from expiry_times(list(ends))
            outcome.add([bitmap for bitmap in part if bitmap.key in present], ends, present, now)
            yield Checkpoint()
            if not dry_run:
                yield from _set(ends, present)

    scan = KeyScan(context, changes=True)
    while scan.has_more:
        found = yield from scan.next()
        expiring = [bitmap for bitmap in found if bitmap.granularity in options.lifetimes]
        yield from query_by_shard(context, expiring, apply)
    return outcome.result(dry_run)


def _set(ends: Mapping[bytes, float], present: Mapping[bytes, int | None]) -> Query[None]:
    """Set the expiry of the bitmaps of a shard whose expiry is another one."""
    different = [key for key, time in present.items() if _is_other(ends[key], time)]
    for at in range(0, len(different), _CHANGES):
        commands = [
            (b"EXPIREAT", key, b"%d" % max(_PAST, ends[key]))
            for key in different[at : at + _CHANGES]
        ]
        yield Request(commands, changes=True)


def _is_other(end: float, present: int | None) -> bool:
    """Return whether a bitmap has another expiry than it should have; never for `math.inf`."""
    return end not in (math.inf, present)


class _Outcome:
    """What the bitmaps so far need.

    The bitmaps are remembered as hashes of their names, as by `tallymark._reading.purging`.
    """

    def __init__(self) -> None:
        self._all: dict[Granularity, set[int]] = {}
        self._changed: dict[Granularity, set[int]] = {}
        self._deleted: dict[Granularity, set[int]] = {}

    def add(
        self,
        bitmaps: Sequence[FoundBitmap],
        ends: Mapping[bytes, float],
        present: Mapping[bytes, int | None],
        now: float,
    ) -> None:
        """Add bitmaps of a shard.

        Arguments:
            bitmaps: the bitmaps.
            ends: when each should expire, by key.
            present: when each expires so far, by key.
            now: the present.
        """
        for bitmap in bitmaps:
            granularity = bitmap.granularity
            end = ends[bitmap.key]
            kinds = [self._all]
            if end <= now:
                kinds.append(self._deleted)
            elif _is_other(end, present[bitmap.key]):
                kinds.append(self._changed)
            for names in kinds:
                names.setdefault(granularity, set()).add(hash((bitmap.event, bitmap.period)))

    def result(self, dry_run: bool) -> AppliedExpiry:
        """Return the result, with the granularities in the order of their definition."""
        ascending = sorted(self._all, key=lambda granularity: int(granularity.value))

        def count(names: dict[Granularity, set[int]]) -> FrozenMapping[Granularity, int]:
            return FrozenMapping({each: len(names.get(each, ())) for each in ascending})

        changed, deleted, every = map(count, (self._changed, self._deleted, self._all))
        unchanged = {each: every[each] - changed[each] - deleted[each] for each in ascending}
        return AppliedExpiry(changed, deleted, FrozenMapping(unchanged), dry_run)
