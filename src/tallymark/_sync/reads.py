"""The read verbs of `tallymark.SyncTally`: those of `tallymark.Tally`, blocking.

What they send is in the packages `tallymark._reading` and `tallymark._reports`; here and in
`tallymark._async.reads` they only get a driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from .._core.event_sets import EventSets
from .._reading import keyspace, queries
from .._reports import engagement as reports
from .._reports import retention_query as retention_tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import date

    from .._core.events import EventSet
    from .._core.periods import By, Granularity, Period
    from .._reading.requests import Query
    from .._reports.engagement import Funnel, Stickiness
    from .._reports.retention import Mode, Retention
    from .._reports.retention_query import Selector
    from .backends import SyncBackend

__all__ = ["SyncReads"]

AnswerT = TypeVar("AnswerT")


class SyncReads(EventSets):
    """Asks about event sets: same arguments, answers, errors and guarantees as `tallymark.Tally`.

    What a verb promises about one moment is meant literally, and none leaves a
    key behind; read there what each of them costs.
    """

    # Set once, so a narrower type does no harm.
    backend: SyncBackend  # pyright: ignore[reportIncompatibleVariableOverride]

    def count(self, event_set: EventSet, *, timeout: float | None = None) -> int:
        """Return how many users are in an event set: one request, one moment.

        An expression is computed by the server on temporary keys that no
        other client ever sees, in the same transaction.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or
                an event set is of another database; nothing was sent. Or Redis would
                have to write more than ``max_temp_bytes``; nothing was computed.
            CommandError: Redis refused, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally cannot be used here.
        """
        return self._answer(queries.count(self._context, event_set), timeout)

    def counts(self, event_sets: Iterable[EventSet], *, timeout: float | None = None) -> list[int]:
        """Return how many users are in each of some event sets: one request, one moment.

        Redis does nothing else meanwhile: an operation on two bitmaps of 10
        million users takes it about 0.5 ms.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or
                an event set is of another database; nothing was sent.
            CommandError: Redis refused, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally cannot be used here.
        """
        return self._answer(queries.counts(self._context, event_sets), timeout)

    def contains(self, event_set: EventSet, user_id: int, *, timeout: float | None = None) -> bool:
        """Return whether a user is in an event set, at one moment.

        Costs one bit's look-up for each bitmap of the expression, however
        many users there are.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or
                an event set is of another database; nothing was sent.
            CommandError: Redis refused, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally cannot be used here.
        """
        return self._answer(queries.contains(self._context, event_set, user_id), timeout)

    def contains_many(
        self, event_set: EventSet, user_ids: Iterable[int], *, timeout: float | None = None
    ) -> list[bool]:
        """Return for each of some users, in their order, whether they are in an event set.

        Arguments:
            event_set: the event set.
            user_ids: ints from 0 to the tally's ``max_user_id``, or a
                one-dimensional numpy array of integers. They are all checked
                before the first is looked up.

        Asks about a thousand users at once, or fetches ranges of the bitmaps
        where users lie close together; each user's answer is of one moment.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or
                an event set is of another database; nothing was sent.
            CommandError: Redis refused, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally cannot be used here.
        """
        return self._answer(queries.contains_many(self._context, event_set, user_ids), timeout)

    def users(
        self,
        event_set: EventSet,
        *,
        start: int = 0,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[int]:
        """Yield the users of an event set in ascending order.

        Arguments:
            event_set: the event set.
            start: the first id of interest, from 0 to 2**32 - 1.
            limit: how many users at most; ``None`` for all. The next page
                begins at the last id plus one.

        The bitmaps are fetched part by part as you go, each part of one
        moment, and neither side ever holds more than that. Nothing is kept
        open in between: you may stop at any time.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or
                an event set is of another database; nothing was sent.
            CommandError: Redis refused, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally cannot be used here.
        """
        return self.backend.reader.stream(
            queries.users(self._context, event_set, start, limit), timeout
        )

    def user_chunks(
        self,
        event_set: EventSet,
        *,
        start: int = 0,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[list[int]]:
        """Yield the users of an event set in ascending order, some thousands at a time.

        Arguments:
            event_set: the event set.
            start: the first id of interest, from 0 to 2**32 - 1.
            limit: how many users at most; ``None`` for all. The next page
                begins at the last id plus one.

        Fetches the bitmaps as `users` does, and is several times as fast where
        each user needs no more than a few machine instructions.

        Yields:
            Lists of 1 to 8,192 ids.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or
                an event set is of another database; nothing was sent.
            CommandError: Redis refused, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally cannot be used here.
        """
        return self.backend.reader.pages(
            queries.users(self._context, event_set, start, limit), timeout
        )

    def is_empty(self, event_set: EventSet, *, timeout: float | None = None) -> bool:
        """Return whether nobody is in an event set, at one moment.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or
                an event set is of another database; nothing was sent.
            CommandError: Redis refused, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally cannot be used here.
        """
        return self._answer(queries.is_empty(self._context, event_set), timeout)

    def delete(self, event_set: EventSet, *, timeout: float | None = None) -> int:
        """Delete bitmaps.

        Arguments:
            event_set: one bitmap (`hour`, `day`, `week`, `month`, `unique`, and
                `year` with the option ``track_yearly``) or a union of some.
                Deleting a day leaves its week and its month as they are, and
                deleting a year its months, which tell who was there still. A
                range of days is refused, since its weeks and months stand for
                days that were marked in bitmaps of their own.

        Returns:
            How many of them there were.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or
                an event set is of another database; nothing was sent.
            CommandError: Redis refused, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally cannot be used here.
        """
        return self._answer(queries.delete(self._context, event_set), timeout)

    def retention(
        self,
        cohort: Selector,
        activity: Selector,
        *,
        by: By = "week",
        periods: int = 12,
        cohorts: int | None = None,
        until: date | None = None,
        mode: Mode = "classic",
        first_time: bool = False,
        timeout: float | None = None,
    ) -> Retention:
        """Return how many of each period's users were back in later periods.

        Arguments:
            cohort: who makes a cohort: an event's name, or a function that
                gets a `Period` and returns an event set (`during` builds
                one), such as for users who signed up on the web or on iOS.
            activity: what counts as being back, given in the same way.
            by: how long a period is: ``"day"``, ``"week"``, ``"month"`` or
                ``"year"``.
            periods: how many periods after a cohort's own to look at, 0 or
                more. The table has one column more, for the cohort's own.
            cohorts: how many rows, 1 or more; as many as ``periods`` by
                default. The last cohort is of the last period that is over.
            until: the moment of the report; the present by default, and at
                most. What is not over then is not counted: those cells are
                ``None``, and their state says why.
            mode: ``"classic"``: active in that very period. ``"unbounded"``:
                active in that period or any later one that is over. For
                definitions see https://amplitude.com/docs/faq/retention-analysis.
            first_time: count in each cohort only users who were in none of
                the periods before, back to the year 1970, also those that the
                table does not show. What was deleted or has expired cannot be
                known.

        The bitmaps are fetched a few at a time and combined here,
        with numpy if it is installed (extra ``numpy``), so other threads and
        other clients of Redis go on meanwhile. It needs about 64 MiB, however
        many users there are, unless cohorts are made of very many bitmaps.
        Marks that are made meanwhile may be in one cell and not in another.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or
                an event set is of another database; nothing was sent.
            CommandError: Redis refused, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally cannot be used here.
        """
        return self._answer(
            retention_tables.retention(
                self._context,
                cohort,
                activity,
                by=by,
                periods=periods,
                cohorts=cohorts,
                until=until,
                mode=mode,
                first_time=first_time,
            ),
            timeout,
        )

    def stickiness(
        self, event: str, day: date | None = None, *, timeout: float | None = None
    ) -> Stickiness:
        """Return how many of a month's users are there on a day: DAU over rolling MAU.

        Arguments:
            event: the event's name.
            day: the day; yesterday by default, the last one that is over. The
                month are the 28 days that end with it, so each day of the
                week counts equally.

        One request, one moment.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or
                an event set is of another database; nothing was sent.
            CommandError: Redis refused, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally cannot be used here.
        """
        return self._answer(reports.stickiness(self._context, event, day), timeout)

    def funnel(
        self,
        steps: Iterable[str | EventSet],
        *,
        by: By = "week",
        moment: date | None = None,
        timeout: float | None = None,
    ) -> Funnel:
        """Return how many users of a period took the first step, the first two, and so on.

        A bitmap knows who did something in a period, not in which order or
        how often. So this tells who did all steps up to one within the same
        period, in any order; a user who buys first and visits later is
        counted, and one who visits on Sunday and buys on Monday is not, in a
        funnel by week.

        Arguments:
            steps: names of events, or event sets, which are taken as they are.
            by: how long the period is; ``"week"`` by default.
            moment: a moment of it; the present by default.

        One request, one moment.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or
                an event set is of another database; nothing was sent.
            CommandError: Redis refused, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally cannot be used here.
        """
        return self._answer(reports.funnel(self._context, steps, by, moment), timeout)

    def event_names(self, prefix: str = "", *, timeout: float | None = None) -> list[str]:
        """Return the names of all events that have a bitmap, sorted.

        Arguments:
            prefix: what the names begin with; every character stands for itself.

        Walks over all keys of the database, a thousand at a time. Events that
        come or go meanwhile may be missing or listed. If the prefix of another
        tally begins with this one's, its events are listed too, under longer names.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or
                an event set is of another database; nothing was sent.
            CommandError: Redis refused, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally cannot be used here.
        """
        return self._answer(keyspace.event_names(self._context, prefix), timeout)

    def periods(self, event: str, granularity: By, *, timeout: float | None = None) -> list[Period]:
        """Return the periods for which an event has a bitmap, in order.

        Arguments:
            event: the event's name.
            granularity: ``"hour"``, ``"day"``, ``"week"``, ``"month"``,
                ``"year"``, or one of `tallymark.Granularity`. Only periods of
                this one are listed: days that are marked have months too.

        Walks over all keys, as `event_names` does. `during` turns a period
        into an event set. A period whose own bitmap has expired is not listed,
        and neither is a year that was marked without ``track_yearly``.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or
                an event set is of another database; nothing was sent.
            CommandError: Redis refused, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally cannot be used here.
        """
        return self._answer(keyspace.periods(self._context, event, granularity), timeout)

    def memory(self, event: str, *, timeout: float | None = None) -> dict[Granularity, int]:
        """Return how many bytes the bitmaps of an event take, for each granularity it has.

        As Redis reckons them (``MEMORY USAGE``, key and overhead included); on
        a server that does not tell, the bare lengths. Walks over all keys, as
        `event_names` does, and counts what it would list under this name.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or
                an event set is of another database; nothing was sent.
            CommandError: Redis refused, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally cannot be used here.
        """
        return self._answer(keyspace.memory(self._context, event), timeout)

    def history(
        self,
        user_id: int,
        events: str | Iterable[str],
        since: date,
        until: date | None = None,
        granularity: By = "day",
        *,
        timeout: float | None = None,
    ) -> dict[str, list[Period]]:
        """Return when a user did what.

        Arguments:
            user_id: an int from 0 to the tally's ``max_user_id``.
            events: one name or several.
            since: the moment from which on.
            until: the moment up to which, not included; now by default. Every
                period that has a moment in between is looked at.
            granularity: as for `periods`. What is looked at is what `during`
                returns: hours are there only if they were marked.

        Returns:
            For each event, in the given order, the periods in which the user
            is marked, in order.

        A thousand bits are looked up in a request, each for itself: marks that
        are made meanwhile may be in the answer or not.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or
                an event set is of another database; nothing was sent.
            CommandError: Redis refused, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally cannot be used here.
        """
        return self._answer(
            keyspace.history(self._context, user_id, events, since, until, granularity), timeout
        )

    def forget(self, user_id: int, *, timeout: float | None = None) -> int:
        """Clear a user's bit in every bitmap, such as for a request to be forgotten.

        Makes no bitmap longer and creates none. Walks over all keys of the
        database, a thousand at a time, each step atomic. Marks of this user
        that are made meanwhile may stay, so stop marking first; then, a second
        call returns 0. If it is interrupted, call it again.

        If the prefix of another tally begins with this one's, as ``tenant1_eu_``
        does with ``tenant1_``, its bitmaps are events of this one as well, and the
        bit is cleared there too.

        Arguments:
            user_id: an int from 0 to the tally's ``max_user_id``.

        Returns:
            How many bits were set. After a broken connection and a
            repetition it may be less than that.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or
                an event set is of another database; nothing was sent.
            CommandError: Redis refused, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally cannot be used here.
        """
        return self._answer(keyspace.forget(self._context, user_id), timeout)

    def delete_all(self, prefix: str, *, timeout: float | None = None) -> int:
        """Delete every bitmap of the tally, of all events and all time.

        Arguments:
            prefix: the tally's own prefix, whole and to the letter, as a guard
                against doing this to the wrong database; anything else is refused.

        If the prefix of another tally begins with this one's, as ``tenant10`` does
        with ``tenant1``, its bitmaps are deleted too: their keys do not tell where
        the prefix ends.

        Returns:
            How many there were. Keys that are no bitmaps of tallymark's (or
            bitmapist's, its temporary keys included) stay.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or
                an event set is of another database; nothing was sent.
            CommandError: Redis refused, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally cannot be used here.
        """
        return self._answer(keyspace.delete_all(self._context, prefix), timeout)

    def _answer(self, query: Query[AnswerT], timeout: float | None) -> AnswerT:
        return self.backend.reader.answer(query, timeout)
