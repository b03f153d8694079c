"""Several marks in one transaction. Pure: a driver sends what is collected here."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, cast

from .errors import ClosedError, TallymarkError
from .periods import Granularity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from .marker import Marker
    from .marks import Mark, Result

__all__ = ["PendingMark", "Transaction"]


class PendingMark:
    """What a verb of a transaction returns: its result, known once the block has ended.

    Attributes:
        result: the flips or the error; ``None`` as long as neither is known.
    """

    def __init__(self) -> None:
        self.result: Result | None = None

    @property
    def flipped(self) -> Granularity:
        """The granularities whose bit this mark flipped, as the verbs of a tally return them.

        Raises:
            TallymarkError: the block has not ended yet, or ended without Redis
                having confirmed the transaction.
            CommandError: Redis refused this mark.
        """
        if self.result is None:
            raise TallymarkError("not known: the transaction has not been confirmed")
        return unwrapped(self.result)


class Transaction:
    """Collects marks that one ``MULTI``/``EXEC`` applies when the ``with`` block ends.

    Get one from ``transaction()`` of a tally. Its verbs check their arguments
    and take the present moment when they are called, send nothing, and return
    a `PendingMark`. When the block ends, all marks leave together, in call
    order; when an exception leaves the block, none does. Redis runs nothing
    else while it applies a transaction, about 1.6 ms for a thousand marks, so
    split what is larger.

    Not for use from several threads at once.
    """

    def __init__(self, marker: Marker) -> None:
        self._marker = marker
        self._pending: list[PendingMark] = []
        self._ended = False
        #: What was collected, in call order.
        self.marks: list[Mark] = []

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Accept marks inside the block only."""
        try:
            yield
        finally:
            self._ended = True

    def settle(self, results: list[Result]) -> None:
        """Hand out the results.

        Raises:
            CommandError: the first of the marks' errors; each `PendingMark`
                tells its own.
        """
        for pending, result in zip(self._pending, results, strict=True):
            pending.result = result
        for result in results:
            unwrapped(result)

    def mark_event(
        self,
        event: str,
        user_id: int,
        *,
        now: date | None = None,
        track_hourly: bool | None = None,
        track_unique: bool | None = None,
    ) -> PendingMark:
        """Record that a user did something: set the bits of the month, week and day.

        Takes the arguments of `tallymark.Tally.mark_event`.
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
    ) -> PendingMark:
        """Take a mark back: clear the bits that `mark_event` would set.

        Takes the arguments of `tallymark.Tally.unmark_event`;
        read there what ``exact`` is for.
        """
        return self._take(
            self._marker.unmark_event(event, user_id, now, track_hourly, track_unique, exact)
        )

    def mark_unique(self, event: str, user_id: int) -> PendingMark:
        """Set a user's flag: the bit in the event's bitmap without a date.

        Takes the arguments of `tallymark.Tally.mark_unique`.
        """
        return self._take(self._marker.mark_unique(event, user_id))

    def unmark_unique(self, event: str, user_id: int) -> PendingMark:
        """Clear a user's flag: the bit in the event's bitmap without a date.

        Takes the arguments of `tallymark.Tally.unmark_unique`.
        """
        return self._take(self._marker.unmark_unique(event, user_id))

    def _take(self, mark: Mark) -> PendingMark:
        if self._ended:
            raise ClosedError("this transaction has ended; open another one")
        self.marks.append(mark)
        pending = PendingMark()
        self._pending.append(pending)
        return pending


def unwrapped(result: Result) -> Granularity:
    """Return what the mark of one user flipped, or raise its error."""
    if isinstance(result, Granularity):
        return result
    raise cast("TallymarkError", result)
