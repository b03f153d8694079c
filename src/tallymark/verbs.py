"""The write verbs as methods, for all that takes a mark without awaiting.

`SyncTally` sends the mark at once and `Transaction` collects it; both get the
verbs' signatures and documentation from here. `tallymark.aio.Tally` spells the
signatures out again, since its verbs have to be coroutine functions: a framework
that asks ``iscoroutinefunction`` (Starlette's background tasks do) would call
anything else in a thread and drop the coroutine it returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from datetime import date

    from .marker import Marker
    from .marks import Mark

__all__ = ["MarkVerbs"]

ResultT = TypeVar("ResultT")


class MarkVerbs(Generic[ResultT]):
    """The four write verbs; a subclass says in `_take` what becomes of a mark."""

    _marker: Marker

    def mark_event(
        self,
        event: str,
        user_id: int,
        *,
        now: date | None = None,
        track_hourly: bool | None = None,
        track_unique: bool | None = None,
    ) -> ResultT:
        """Record that a user did something: set the bits of the month, week and day.

        Same arguments, errors and guarantees as `tallymark.Tally.mark_event`.
        """
        return self._take(self._marker.mark_event(event, user_id, now, track_hourly, track_unique))

    def unmark_event(
        self,
        event: str,
        user_id: int,
        *,
        now: date | None = None,
        track_hourly: bool | None = None,
        track_unique: bool | None = None,
        exact: bool = False,
    ) -> ResultT:
        """Take a mark back: clear the bits that `mark_event` would set.

        Same arguments, errors and guarantees as `tallymark.Tally.unmark_event`;
        read there what ``exact`` is for.
        """
        return self._take(
            self._marker.unmark_event(event, user_id, now, track_hourly, track_unique, exact)
        )

    def mark_unique(self, event: str, user_id: int) -> ResultT:
        """Set a user's flag: the bit in the event's bitmap without a date.

        Same arguments, errors and guarantees as `tallymark.Tally.mark_unique`.
        """
        return self._take(self._marker.mark_unique(event, user_id))

    def unmark_unique(self, event: str, user_id: int) -> ResultT:
        """Clear a user's flag: the bit in the event's bitmap without a date.

        Same arguments, errors and guarantees as `tallymark.Tally.unmark_unique`.
        """
        return self._take(self._marker.unmark_unique(event, user_id))

    def _take(self, mark: Mark) -> ResultT:
        raise NotImplementedError
