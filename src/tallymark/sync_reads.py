"""The read verbs of `tallymark.SyncTally`: those of `tallymark.Tally`, blocking.

What they send is in `tallymark.queries`, `tallymark.keyspace`, `tallymark.reports`
and `tallymark.retention_tables`; here and in `tallymark.async_reads` they only get a
driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from . import keyspace, queries, reports, retention_tables
from .event_sets import EventSets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import date

    from .blocking_reader import BaseBlockingReader
    from .events import EventSet
    from .periods import By, Granularity, Period
    from .reports import Funnel, Stickiness
    from .requests import Query
    from .retention import Mode, Retention
    from .retention_tables import Selector

__all__ = ["SyncReads"]

AnswerT = TypeVar("AnswerT")


class SyncReads(EventSets):
    """Asks about event sets: same arguments, answers, errors and guarantees as `tallymark.Tally`.

    What a verb promises about one moment is meant literally, and none leaves a
    key behind; read there what each of them costs.
    """

    _reader: BaseBlockingReader

    def count(self, event_set: EventSet, *, timeout: float | None = None) -> int:
        """Return how many users are in an event set: one request, one moment.

        See `tallymark.Tally.count`.
        """
        return self._answer(queries.count(self._context, event_set), timeout)

    def counts(self, event_sets: Iterable[EventSet], *, timeout: float | None = None) -> list[int]:
        """Return how many users are in each of some event sets: one request, one moment.

        See `tallymark.Tally.counts`.
        """
        return self._answer(queries.counts(self._context, event_sets), timeout)

    def contains(self, event_set: EventSet, user_id: int, *, timeout: float | None = None) -> bool:
        """Return whether a user is in an event set, at one moment.

        See `tallymark.Tally.contains`.
        """
        return self._answer(queries.contains(self._context, event_set, user_id), timeout)

    def contains_many(
        self, event_set: EventSet, user_ids: Iterable[int], *, timeout: float | None = None
    ) -> list[bool]:
        """Return for each of some users, in their order, whether they are in an event set.

        See `tallymark.Tally.contains_many`.
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

        See `tallymark.Tally.users`.
        """
        return self._reader.stream(queries.users(self._context, event_set, start, limit), timeout)

    def user_chunks(
        self,
        event_set: EventSet,
        *,
        start: int = 0,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[list[int]]:
        """Yield the users of an event set in ascending order, some thousands at a time.

        See `tallymark.Tally.user_chunks`.
        """
        return self._reader.parts(queries.users(self._context, event_set, start, limit), timeout)

    def is_empty(self, event_set: EventSet, *, timeout: float | None = None) -> bool:
        """Return whether nobody is in an event set, at one moment.

        See `tallymark.Tally.is_empty`.
        """
        return self._answer(queries.is_empty(self._context, event_set), timeout)

    def delete(self, event_set: EventSet, *, timeout: float | None = None) -> int:
        """Delete bitmaps.

        See `tallymark.Tally.delete`.
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

        See `tallymark.Tally.retention`.
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

        See `tallymark.Tally.stickiness`.
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

        See `tallymark.Tally.funnel`.
        """
        return self._answer(reports.funnel(self._context, steps, by, moment), timeout)

    def event_names(self, prefix: str = "", *, timeout: float | None = None) -> list[str]:
        """Return the names of all events that have a bitmap, sorted.

        If the prefix of another tally begins with this one's, its events are listed
        too, under longer names. See `tallymark.Tally.event_names`.
        """
        return self._answer(keyspace.event_names(self._context, prefix), timeout)

    def periods(self, event: str, granularity: By, *, timeout: float | None = None) -> list[Period]:
        """Return the periods for which an event has a bitmap, in order.

        See `tallymark.Tally.periods`.
        """
        return self._answer(keyspace.periods(self._context, event, granularity), timeout)

    def memory(self, event: str, *, timeout: float | None = None) -> dict[Granularity, int]:
        """Return how many bytes the bitmaps of an event take, for each granularity it has.

        See `tallymark.Tally.memory`.
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

        See `tallymark.Tally.history`.
        """
        return self._answer(
            keyspace.history(self._context, user_id, events, since, until, granularity), timeout
        )

    def forget(self, user_id: int, *, timeout: float | None = None) -> int:
        """Clear a user's bit in every bitmap, such as for a request to be forgotten.

        If the prefix of another tally begins with this one's, also in its bitmaps.
        See `tallymark.Tally.forget`.
        """
        return self._answer(keyspace.forget(self._context, user_id), timeout)

    def delete_all(self, prefix: str, *, timeout: float | None = None) -> int:
        """Delete every bitmap of the tally, of all events and all time.

        Takes the tally's own prefix, whole and to the letter, and nothing else. If the
        prefix of another tally begins with it, the bitmaps of that one are deleted
        too. See `tallymark.Tally.delete_all`.
        """
        return self._answer(keyspace.delete_all(self._context, prefix), timeout)

    def _answer(self, query: Query[AnswerT], timeout: float | None) -> AnswerT:
        return self._reader.answer(query, timeout)
