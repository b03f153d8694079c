"""The write verbs for users whose ids are no numbers: from their arguments to marks. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core.options import switches
from .id_bulk import IdBulkWrite
from .id_marks import IdExactUnmark, IdMark
from .marker import Marker

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date

    from .._core.options import Options
    from .._core.user_ids import Dictionary
    from .bulk import Target
    from .marks import Bitmaps
    from .number_cache import NumberCache
    from .policies import Lock

__all__ = ["IdMarker"]


class IdMarker(Marker):
    """Turns the arguments of a write verb into a mark with the key of an id."""

    def __init__(
        self,
        options: Options,
        clock: Callable[[], float],
        lock: Lock | None = None,
        *,
        dictionary: Dictionary,
        cache: NumberCache | None,
    ) -> None:
        """Prepare for one tally.

        Arguments:
            options, clock, lock: as for `Marker`.
            dictionary: the dictionary of the ids.
            cache: the numbers that the connection for marks has fetched; ``None`` for none.
        """
        super().__init__(options, clock, lock)
        self._dictionary = dictionary
        self._key = dictionary.ids.key
        self._numbers = cache

    def mark_event(
        self,
        event: str,
        user_id: Any,
        now: date | None,
        track_hourly: bool | None,
        track_unique: bool | None,
    ) -> IdMark:
        """Return the mark that sets a user's bits of a moment."""
        key = self._key(user_id)
        if now is None is track_hourly is track_unique and type(event) is str:
            # The short way of nearly all marks, as in `Marker.mark_event`.
            present = self._cache.present
            if present.begins <= self._clock() < present.ends:
                hourly = switches.track_hourly if self._hourly is None else self._hourly
                unique = switches.track_unique if self._unique is None else self._unique
                shards = present.bitmaps[2 * hourly + unique].get(event)
                if shards is not None:
                    shard = 0 if len(shards) == 1 else self._dictionary.shard(key)
                    bitmaps = shards[shard]
                    if bitmaps is not None:
                        return IdMark(bitmaps, key, 1)
        shard = self._dictionary.shard(key)
        return IdMark(self.bitmaps(event, now, track_hourly, track_unique, shard), key, 1)

    def present_event(self, event: str, now: float) -> None:
        """Return ``None``: the offsets of users are not known yet."""

    def _place(self, user_id: Any) -> tuple[int, Any]:
        key = self._key(user_id)
        return self._dictionary.shard(key), key

    def _bit(self, bitmaps: Bitmaps, user: Any, value: int) -> IdMark:
        return IdMark(bitmaps, user, value)

    def _exact_unmark(
        self, bitmaps: Bitmaps, other_days: tuple[tuple[bytes, ...], ...], user: Any
    ) -> IdExactUnmark:
        return IdExactUnmark(bitmaps, -1, other_days, user)

    def _bulk_write_to(self, target: Callable[[int], Target], value: int) -> IdBulkWrite:
        return IdBulkWrite(target, self._schema, self._dictionary, self._numbers, value=value)

    def _row_ids(self) -> tuple[Any, ...]:
        return self._dictionary, self._numbers
