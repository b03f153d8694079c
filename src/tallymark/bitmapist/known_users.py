"""Who there is, as far as Redis knows: what complements are taken of."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from .._core.events import Bitmap, any_of
from .._core.keys import KeySchema
from .._core.periods import Granularity, Period
from .._reading.keyspace import periods_of
from ..errors import InvalidValueError

if TYPE_CHECKING:
    from .._core.events import EventSet, Origin
    from .._sync.tally import SyncTally
    from .selections import Selection

__all__ = ["Known", "located", "origin_of"]


def origin_of(tally: SyncTally) -> Origin:
    """Return where a tally's bitmaps are."""
    return tally.backend.context.origin


def located(tally: SyncTally, selection: Selection, known: Known | None = None) -> EventSet:
    """Return the event set, in a tally's database, that a selection comes to.

    Arguments:
        tally: the tally.
        selection: the selection.
        known: what is known of the database already, for who has several selections.
    """
    event_set = selection.event_set.at(origin_of(tally))
    if not selection.inverted:
        return event_set
    return (known or Known(tally)).users_beside(event_set) - event_set


class Known:
    """Who there is, as far as Redis knows."""

    def __init__(self, tally: SyncTally) -> None:
        """Begin without a question."""
        self._tally = tally
        self._bitmaps: dict[str, list[EventSet]] = {}

    def users_beside(self, event_set: EventSet) -> EventSet:
        """Return all users that Redis knows of the events of an event set."""
        schema = KeySchema()
        bitmaps = dict.fromkeys(event_set.bitmaps())
        everybody: list[EventSet] = list(bitmaps)
        names: dict[str, None] = {}
        for bitmap in bitmaps:
            with contextlib.suppress(InvalidValueError):  # a key of the program's own
                names[schema.parse(bitmap.key)[0]] = None
        for name in names:
            if name not in self._bitmaps:
                self._bitmaps[name] = self._bitmaps_of(name)
            everybody += self._bitmaps[name]
        return any_of(everybody)

    def _bitmaps_of(self, name: str) -> list[EventSet]:
        """Return an event's bitmaps that hold all who are in others of it.

        Those are its flag and its months; and of what a tally has marked, with options that
        bitmapist does not have, the years, and whatever is left of months that have expired.
        """
        tally = self._tally
        periods: list[Period] = tally.backend.reader.answer(periods_of(tally.backend.context, name))
        months = {period for period in periods if period.granularity is Granularity.MONTH}
        chosen = [
            period
            for period in periods
            if period in months
            or not months.issuperset(
                Period.containing(Granularity.MONTH, day.start) for day in period.days()
            )
        ]
        return [tally.unique(name), *(Bitmap(origin_of(tally), name, each) for each in chosen)]
