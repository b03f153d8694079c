"""Begins a bulk write of rows, with the options of a tally. Pure."""

from __future__ import annotations

import functools
import uuid
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

from .._core.periods import Granularity
from .bulk import Chunk
from .marks import BitMark
from .row_blocks import RowTarget
from .row_calendar import RowCalendar
from .row_reader import RowReader
from .rows import RowEvents, RowWrite, sends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .._core.expiry import Expiry
    from .._core.options import Options
    from .._core.user_ids import Dictionary
    from .bitmap_cache import BitmapCache
    from .marks import Bitmaps
    from .number_cache import NumberCache
    from .policies import EventPolicy
    from .row_effects import Send
    from .row_sorting import Rows

__all__ = ["RowWrites"]

#: How many rows share a transaction on servers without ``BITFIELD``.
_SINGLE: Final = 1_000


class RowWrites:
    """Begins bulk writes of rows for one tally."""

    def __init__(
        self,
        options: Options,
        clock: Callable[[], float],
        policy: EventPolicy,
        expiry: Expiry,
        cache: BitmapCache,
    ) -> None:
        """Prepare for a tally.

        Arguments:
            options: the tally's.
            clock: returns the current time in seconds since 1970.
            policy: which events may be marked.
            expiry: when bitmaps expire.
            cache: has the bitmaps of single rows.
        """
        self._options = options
        self._schema = options.schema()
        self._clock = clock
        self._policy = policy
        self._expiry = expiry
        self._cache = cache

    def begin(
        self,
        hourly: bool,
        unique: bool,
        temp_keys: Callable[[int, str], tuple[bytes, bytes] | None],
        dictionary: Dictionary | None = None,
        numbers: NumberCache | None = None,
    ) -> RowWrite:
        """Return a new bulk write.

        Arguments:
            hourly, unique: whether to mark the hour, and the bitmap without a date.
            temp_keys: returns two keys for temporary values in a shard, with a name of the call.
            dictionary: the dictionary of the ids; ``None`` if the users have offsets.
            numbers: the numbers that the connection for marks has fetched; ``None`` for none.
        """
        granularities = self._cache.granularities
        if hourly:
            granularities |= Granularity.HOUR
        if unique:
            granularities |= Granularity.UNIQUE
        uid = uuid.uuid4().hex
        target = RowTarget(
            calendar=RowCalendar(self._options, self._expiry, granularities),
            prefixes=tuple(part.prefix.encode() for part in self._schema.parts),
            temp_keys=lambda shard: temp_keys(shard, uid) or (),
            clock=self._clock,
            bitmaps=functools.partial(self._bitmaps, hourly=hourly, unique=unique),
        )
        events = RowEvents(self._policy)
        schema = self._schema
        reader = RowReader(
            self._options.zone,
            hourly=hourly,
            admit=events.admit,
            has_expired=target.has_expired if self._policy.has_quota else None,
            user=schema.offset if dictionary is None else dictionary.ids.key,
            users=_offsets(schema) if dictionary is None else dictionary.ids.keys,
            max_user_id=schema.max_user_id if dictionary is None else None,
        )
        writer: Any = None
        if dictionary is not None:
            from .id_rows import IdRowWriter  # noqa: PLC0415 - few tallies have ids

            writer = IdRowWriter(target, reader, events.is_uncounted, dictionary, numbers)
        elif not self._options.bitfield:
            writer = functools.partial(_one_by_one, target, reader)
        return RowWrite(events, target, reader, writer)

    def _bitmaps(self, event: str, shard: int, unit: int, *, hourly: bool, unique: bool) -> Bitmaps:
        """Return the bitmaps of a row."""
        ordinal, hour = divmod(unit, 24) if hourly else (unit, 0)
        day = date.fromordinal(ordinal)
        moment = datetime(day.year, day.month, day.day, hour)
        return self._cache.at(event, shard, moment, hourly, unique)


def _offsets(schema: Any) -> Callable[[list[Any]], Any]:
    return lambda ids: schema.offsets(ids).values if ids else ids


def _one_by_one(
    target: RowTarget, reader: RowReader, rows: Rows, pause: Callable[[], object]
) -> Iterator[Send]:
    """Yield what to send to a server without ``BITFIELD``: marks of one row each."""
    shards = len(target.prefixes)

    def chunks() -> Iterator[Chunk]:
        marks: list[Any] = []
        for code, user, unit in zip(*rows, strict=True):
            offset, shard = divmod(int(user), shards)
            marks.append(BitMark(target.bitmaps(reader.names[code], shard, int(unit)), offset, 1))
            if len(marks) == _SINGLE:
                yield Chunk(marks, _SINGLE)
                marks = []
        if marks:
            yield Chunk(marks, len(marks))

    return sends(chunks(), pause)
