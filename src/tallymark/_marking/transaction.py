"""Several marks in one transaction. Pure: a driver sends the collected marks."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Generic, cast

from .._core.failures import may_be_applied, partly_applied
from .._core.periods import Granularity
from .._core.user_ids import IdT
from ..errors import ClosedError, TallymarkError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date

    from .marker import Marker
    from .marks import Mark, Result

__all__ = ["PendingMark", "Transaction"]


class PendingMark:
    """The pending result of a mark of a `Transaction`, known once the block has ended."""

    __slots__ = ("_index", "_results")

    def __init__(self, results: Sequence[Result], index: int) -> None:
        self._results = results
        self._index = index

    @property
    def result(self) -> Result | None:
        """The flipped granularities or the error; ``None`` until the result is known."""
        return self._results[self._index] if self._index < len(self._results) else None

    @property
    def flipped(self) -> Granularity:
        """The granularities whose bit this mark flipped, as the verbs of a tally return them.

        Raises:
            TallymarkError: the block has not ended yet, or Redis has not acknowledged
                the transaction.
            CommandError: Redis refused this mark.
        """
        if self.result is None:
            raise TallymarkError("not known: the transaction has not been confirmed")
        return unwrapped(self.result)


class Transaction(Generic[IdT]):
    """Collects marks that one ``MULTI``/``EXEC`` applies when the ``with`` block ends.

    Get one from ``transaction()`` of a tally. Its verbs check their arguments
    and read the clock when they are called, send nothing, and return a
    `PendingMark`. When the block ends, all marks are sent together, in call
    order; when an exception leaves the block, none is sent. Redis runs nothing
    else while it applies a transaction, about 1.6 ms for a thousand marks, so
    split larger ones.

    Not thread-safe.
    """

    def __init__(self, marker: Marker) -> None:
        self._marker = marker
        #: One list for all `PendingMark` objects, empty until the results are known.
        self._results: list[Result] = []
        self._ended = False
        #: The collected marks, in call order.
        self.marks: list[Mark] = []

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Return a context manager: marks are accepted only inside its block."""
        try:
            yield
        except BaseException:
            self._marker.release(self.marks, error=TallymarkError("nothing was sent"))
            raise
        finally:
            self._ended = True

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """Return a context manager for sending the marks; records a failure."""
        try:
            yield
        except BaseException as error:
            self._marker.release(self.marks, error=error)
            raise

    def resolve(self, results: list[Result]) -> None:
        """Give each `PendingMark` its result, from ``results`` in the order of the calls.

        Raises:
            TallymarkError: the first error of a mark; each `PendingMark` has its own.
        """
        self._results.extend(results)
        self._marker.release(self.marks, results)
        # Most transactions have no errors, and the set of their types is checked fastest.
        if not {Granularity}.issuperset(map(type, results)):
            error = next(result for result in results if isinstance(result, TallymarkError))
            if any(map(_may_be_applied, results)) and not may_be_applied(error):
                error = partly_applied(error)
            raise error

    def mark_event(
        self,
        event: str,
        user_id: IdT,
        *,
        now: date | None = None,
        track_hourly: bool | None = None,
        track_unique: bool | None = None,
    ) -> PendingMark:
        """Record that a user did something: set the bits of the month, week and day.

        Arguments:
            event: a non-empty str without control characters.
            user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of
                that type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).
            now: when it happened; the present by default. An aware datetime is
                converted to the tally's time zone, a naive one is taken to be
                in it, and a date is its midnight.
            track_hourly: also mark the hour. ``None`` leaves it to the tally's
                option, and that to ``tallymark.TRACK_HOURLY``.
            track_unique: also mark the event's dateless bitmap. ``None``
                leaves it to the tally's option, and that to
                ``tallymark.TRACK_UNIQUE``.

        Returns:
            A `PendingMark`, which has the result once the block has ended.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed; the
                transaction goes on without this mark.
            ClosedError: the block has ended.
        """
        return self._collect(
            self._marker.mark_event(event, user_id, now, track_hourly, track_unique)
        )

    def unmark_event(
        self,
        event: str,
        user_id: IdT,
        *,
        now: date | None = None,
        track_hourly: bool | None = None,
        track_unique: bool | None = None,
        exact: bool = False,
    ) -> PendingMark:
        """Clear the bits that `mark_event` with the same arguments would set.

        By default all of these bits are set to 0, as in bitmapist. The user
        then counts no longer in the whole week and month, even if marked on
        other days of them; and Redis extends a bitmap that ends before the
        user's bit, or creates it, to write the 0.

        With ``exact=True`` the bits of the week, month and year are cleared
        only if the user is marked on no other day of that period; no bitmap
        grows and no key is created. A script on the server reads and clears
        in one atomic step. The bits of the day and, with the switches, of the
        given hour and the dateless bitmap are always cleared; other hours of
        that day keep their bits.

        With ``user_ids``, nothing is written for an id that has never been marked.

        Arguments:
            event: a non-empty str without control characters.
            user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of
                that type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).
            now: when it happened; the present by default. An aware datetime is
                converted to the tally's time zone, a naive one is taken to be
                in it, and a date is its midnight.
            track_hourly: also clear the hour's bit. ``None`` leaves it to the
                tally's option, and that to ``tallymark.TRACK_HOURLY``.
            track_unique: also clear the event's dateless bit. ``None`` leaves
                it to the tally's option, and that to ``tallymark.TRACK_UNIQUE``.
            exact: whether to keep the bits of periods with other marked days.

        Returns:
            A `PendingMark`, which has the result once the block has ended.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed; the
                transaction goes on without this mark.
            ClosedError: the block has ended.
        """
        return self._collect(
            self._marker.unmark_event(event, user_id, now, track_hourly, track_unique, exact)
        )

    def mark_unique(self, event: str, user_id: IdT) -> PendingMark:
        """Set a user's flag: the bit in the event's bitmap without a date.

        Arguments:
            event: a non-empty str without control characters.
            user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of
                that type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).

        Returns:
            A `PendingMark`, which has the result once the block has ended.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed; the
                transaction goes on without this mark.
            ClosedError: the block has ended.
        """
        return self._collect(self._marker.mark_unique(event, user_id))

    def unmark_unique(self, event: str, user_id: IdT) -> PendingMark:
        """Clear a user's flag: the bit in the event's bitmap without a date.

        With ``user_ids``, nothing is written for an id that has never been marked.

        Arguments:
            event: a non-empty str without control characters.
            user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of
                that type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).

        Returns:
            A `PendingMark`, which has the result once the block has ended.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed; the
                transaction goes on without this mark.
            ClosedError: the block has ended.
        """
        return self._collect(self._marker.unmark_unique(event, user_id))

    def _collect(self, mark: Mark) -> PendingMark:
        if self._ended:
            raise ClosedError("this transaction has ended; open another one")
        if mark.bitmaps.uncounted:
            self._marker.reserve((mark,))
        pending = PendingMark(self._results, len(self.marks))
        self.marks.append(mark)
        return pending


def _may_be_applied(result: Result) -> bool:
    return not isinstance(result, TallymarkError) or may_be_applied(result)


def unwrapped(result: Result) -> Granularity:
    """Return the flipped granularities of a user's mark, or raise its error."""
    if isinstance(result, Granularity):
        return result
    raise cast("TallymarkError", result)
