"""The read verbs of `tallymark.SyncTally`: those of `tallymark.Tally`, blocking.

The queries are in the package `tallymark._reading`. This module and `tallymark._async.reads` have a
driver execute them. The verbs that make reports are in `tallymark._sync.reports`, those that
delete and move bits in `tallymark._sync.maintenance`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from .._core.context import EventSets
from .._core.user_ids import IdT
from .._reading import id_streams, keyspace, membership, queries, saving
from .._reading import user_ids as dictionary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import date

    from .._core.events import EventSet
    from .._core.periods import By, Period
    from .._reading.requests import Query
    from .backend import SyncBackend

__all__ = ["SyncReads"]

AnswerT = TypeVar("AnswerT")


class SyncReads(EventSets, Generic[IdT]):
    """The read verbs.

    "One moment" means a snapshot: an answer includes each concurrent mark whole or not at all.
    No verb leaves a temporary key behind. Of these verbs, only `save` changes a bitmap.

    Every verb takes a ``timeout``: how many seconds the whole call may take. By default, each
    of its requests may take the tally's timeout. For `users` and `user_chunks`, ``timeout``
    is for each part.

    A query with more than ``max_bitmaps`` different bitmaps, or for a table with more than 25
    times as many cells, raises an `InvalidValueError` before anything is sent. However long a
    verb computes, other threads run meanwhile.

    A tally that reads from replicas (option ``read_from``) gets answers that may be some
    moments old. There, the tally itself computes a count of several bitmaps, in parts that
    are each of one moment.

    An expression may have any size and depth. Equal parts of it are computed once. The option
    ``max_temp_bytes`` limits what Redis computes for `count`, `counts` and `is_empty`. If an
    expression could exceed the limit for users up to ``max_user_id``, the tally first asks
    for the lengths of its bitmaps.

    An expression with `at_least` takes about five operations for each of its sets. Redis computes
    it if it would write at most 2 MiB for that, by the lengths of the bitmaps, and no more than
    ``max_temp_bytes``. Else the tally computes it, in parts that are each of one moment, and so
    holds up neither Redis nor marks.

    With shards, "one moment" holds for each shard. While a cluster moves a slot, the tally
    counts the bitmaps of that slot in parts as well.
    """

    # Set once, so a narrower type does no harm.
    backend: SyncBackend  # pyright: ignore[reportIncompatibleVariableOverride]

    def count(self, event_set: EventSet, *, timeout: float | None = None) -> int:
        """Return how many users are in an event set, at one moment, in one request.

        Arguments:
            event_set: the event set.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        If ``max_temp_bytes`` is set, and ``max_user_id`` does not show that an expression stays
        below it, a request for the lengths of its bitmaps comes first. The tally caches the
        lengths for a minute.

        The server computes an expression on temporary keys that no other client ever sees,
        in the same transaction. Not so an expression with `at_least` of long bitmaps: the tally
        counts it in several requests, each for the users in a range of ids, at one moment.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or
                an event set is of another database; nothing was sent. Or Redis would
                have to write more than ``max_temp_bytes``; nothing was computed.
            CommandError: Redis refused a command, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally is closed.
        """
        return self._answer(queries.count(self._context, event_set), timeout)

    def counts(self, event_sets: Iterable[EventSet], *, timeout: float | None = None) -> list[int]:
        """Return how many users are in each of some event sets, at one moment, in one request.

        Arguments:
            event_sets: the event sets, in any iterable.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        If ``max_temp_bytes`` is set, and ``max_user_id`` does not show that the expressions
        stay below it, a request for the lengths of their bitmaps comes first. The tally caches
        the lengths for a minute.

        Redis executes nothing else meanwhile: an operation on two bitmaps of 10 million users
        takes about 0.5 ms. If one of the event sets has an `at_least` of long bitmaps, the tally
        counts all of them one after the other, as `count` does, not at one moment.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or an event set is
                of another database; nothing was sent.
            CommandError: Redis refused a command, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally is closed.
        """
        return self._answer(queries.counts(self._context, event_sets), timeout)

    def contains(self, event_set: EventSet, user_id: IdT, *, timeout: float | None = None) -> bool:
        """Return whether a user is in an event set, at one moment.

        Arguments:
            event_set: the event set.
            user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of
                that type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        Redis looks up one bit in each bitmap of the expression, however many users there are.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or an event set is
                of another database; nothing was sent.
            CommandError: Redis refused a command, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally is closed.
        """
        return self._answer(membership.contains(self._context, event_set, user_id), timeout)

    def contains_many(
        self, event_set: EventSet, user_ids: Iterable[IdT], *, timeout: float | None = None
    ) -> list[bool]:
        """Return for each of some users, in their order, whether they are in an event set.

        Arguments:
            event_set: the event set.
            user_ids: ids as `mark_event` takes them, or a one-dimensional numpy array of
                integers. All of them are checked before anything is sent.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        Each request looks up a thousand users, or, where the ids lie close together, fetches
        ranges of the bitmaps. The answer for each user is of one moment.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or an event set is
                of another database; nothing was sent.
            CommandError: Redis refused a command, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally is closed.
        """
        return self._answer(membership.contains_many(self._context, event_set, user_ids), timeout)

    def users(
        self,
        event_set: EventSet,
        *,
        start: IdT | None = None,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[IdT]:
        """Yield the users of an event set in ascending order.

        With ``user_ids``, the order is that of their `numbers`: who was marked first comes first
        (with shards, in each shard).

        Arguments:
            event_set: the event set.
            start: the lowest id to yield, from 0 to 2**32 - 1; with ``user_ids``, the id of
                the user with whom to begin. ``None`` for the first user.
            limit: how many users at most; ``None`` for all. The next page begins at the last
                id plus one; with ``user_ids``, at the last id, which it yields again.
            timeout: how many seconds each part may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout.

        The bitmaps are fetched in parts during the iteration, each part of one moment, and
        neither side holds more than one part in memory. No connection or key is held between
        two parts, so the iteration may stop at any time.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or an event set is
                of another database; nothing was sent.
            CommandError: Redis refused a command, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally is closed.
        """
        return self.backend.reader.stream(
            id_streams.users(self._context, event_set, start, limit), timeout
        )

    def user_chunks(
        self,
        event_set: EventSet,
        *,
        start: IdT | None = None,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[list[IdT]]:
        """Yield the users of an event set in ascending order, some thousands at a time.

        With ``user_ids``, the order is that of their `numbers`: who was marked first comes first
        (with shards, in each shard).

        Arguments:
            event_set: the event set.
            start: the lowest id to yield, from 0 to 2**32 - 1; with ``user_ids``, the id of
                the user with whom to begin. ``None`` for the first user.
            limit: how many users at most; ``None`` for all. The next page begins at the last
                id plus one; with ``user_ids``, at the last id, which it yields again.
            timeout: how many seconds each part may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout.

        Fetches the bitmaps as `users` does. It is several times as fast if the work for each
        user is small.

        Yields:
            Lists of 1 to 8,192 ids.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or an event set is
                of another database; nothing was sent.
            CommandError: Redis refused a command, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally is closed.
        """
        return self.backend.reader.pages(
            id_streams.users(self._context, event_set, start, limit), timeout
        )

    def is_empty(self, event_set: EventSet, *, timeout: float | None = None) -> bool:
        """Return whether an event set has no users, at one moment.

        Arguments:
            event_set: the event set.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        An `at_least` of long bitmaps is searched in parts, each of one moment.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or an event set is
                of another database; nothing was sent.
            CommandError: Redis refused a command, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally is closed.
        """
        return self._answer(queries.is_empty(self._context, event_set), timeout)

    def save(self, event_set: EventSet, *, as_: str, timeout: float | None = None) -> int:
        """Save the users of an event set as a flag, such as ``"power_users"``; return how many.

        The flag is that of `mark_unique`: `unique`, `mark_unique` and `unmark_unique` take its
        name. It gets the present users of the event set, and does not follow later marks.
        If there is such a flag already, these users replace it, and its time to live, if
        it had one; it may be a part of the expression. Without any users, the flag is deleted.

        The users do not leave Redis if it has to write at most 2 MiB to compute them, and no
        more than ``max_temp_bytes``: then the flag is of one moment (in each shard), and
        concurrent marks of it come before or after. Else the tally computes the event set in
        parts, each of one moment, and writes them to a temporary key; so it holds up neither
        Redis nor marks. Marks of the flag in the meantime are lost.

        Each shard gets the whole flag at once: no reader sees a part of it. One shard gets it
        after another, or none if the key holds something else in one of them.
        With the option ``replicas``, replicas have to acknowledge it.

        If the reply to a request is lost, it is sent again. Then Redis may compute the flag
        twice: marks of the flag in between are lost. A flag that is a part of the expression is
        computed once, if the request is sent again within a minute. With ``bitfield=False``, it
        may be computed again from its own result, too; so expressions in which that matters are
        refused there: with the flag behind ``-``, or in a ``^`` or `at_least`. After a failure,
        a temporary key may stay for up to a minute.

        With ``user_ids``, a concurrent `forget` clears the user's bit in the flag too, before it
        returns, and `merge` moves it (a user who is merged into one of another shard may be
        missing in the flag). Without ``user_ids``, the bit may stay in the flag, as with a
        concurrent mark: call `forget` or `merge` again after `save`.

        Arguments:
            event_set: the event set.
            as_: the name of the flag: as for `mark_unique`, one that the options
                ``event_pattern``, ``max_event_bytes`` and ``max_events`` allow.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        Returns:
            How many users the flag has.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or an event set is
                of another database; nothing was sent. Or, with ``bitfield=False``, Redis would
                have to write more than ``max_temp_bytes``, or the expression has the flag itself
                as described above; nothing was computed.
            WrongKeyTypeError: the key of the flag, or of a bitmap, holds something else.
                Nothing was changed.
            CommandError: Redis refused a command.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout. The message
                says if the flag may have been saved.
            StoreNotReadyError: users were forgotten all the time, or a cluster was moving a slot,
                whose flag cannot be written until all its keys have moved: call again.
            ClosedError: the tally is closed.
        """
        with self.backend.marker.saving(as_):
            return self._answer(saving.save(self._context, event_set, as_), timeout)

    def event_names(self, prefix: str = "", *, timeout: float | None = None) -> list[str]:
        """Return the names of all events that have a bitmap, sorted.

        Arguments:
            prefix: the start of the names, without wildcards.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        Scans all keys of the database, a thousand at a time (``SCAN``). Events that are
        created or deleted meanwhile may be missing or listed. If the prefix of another tally
        begins with this tally's prefix, its events are listed too, under longer names.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or an event set is
                of another database; nothing was sent.
            CommandError: Redis refused a command, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally is closed.
        """
        return self._answer(keyspace.event_names(self._context, prefix), timeout)

    def periods(self, event: str, granularity: By, *, timeout: float | None = None) -> list[Period]:
        """Return the periods for which an event has a bitmap, in order.

        Arguments:
            event: the event's name.
            granularity: ``"hour"``, ``"day"``, ``"week"``, ``"month"``,
                ``"year"``, or one of `tallymark.Granularity`. Only bitmaps of this
                granularity are listed.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        Scans all keys, as `event_names` does. `during` returns the event set of a period. A
        period is not listed if its bitmap has expired, or if it is a year that was marked
        without ``track_yearly``.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or an event set is
                of another database; nothing was sent.
            CommandError: Redis refused a command, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally is closed.
        """
        return self._answer(keyspace.periods(self._context, event, granularity), timeout)

    def history(
        self,
        user_id: IdT,
        events: str | Iterable[str],
        since: date,
        until: date | None = None,
        granularity: By = "day",
        *,
        timeout: float | None = None,
    ) -> dict[str, list[Period]]:
        """Return the periods in which a user did some events.

        Arguments:
            user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of
                that type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).
            events: one name or several.
            since: the start of the time span.
            until: its end, not included; now by default. Every period that overlaps the span
                is looked up.
            granularity: as for `periods`. The event sets are those of `during`: hours are
                found only if they were marked.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        Returns:
            For each event, in the given order, the periods in which the user is marked, in
            order.

        Each request looks up a thousand bits, without a common snapshot: concurrent marks may
        be in the answer or not.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or an event set is
                of another database; nothing was sent.
            CommandError: Redis refused a command, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally is closed.
        """
        return self._answer(
            keyspace.history(self._context, user_id, events, since, until, granularity), timeout
        )

    def numbers(self, user_ids: Iterable[IdT], *, timeout: float | None = None) -> list[int | None]:
        """Return the number of each of some users, in their order; ``None`` if one has none.

        A user's number says which bit of the bitmaps is the user's, for programs that read the
        bitmaps themselves: with S shards, it is the bit's offset times S, plus the number of the
        shard. Without ``user_ids``, the ids are the numbers. With ``user_ids``, a user has a
        number from the first mark on, until `forget`. No number is given twice.

        Arguments:
            user_ids: ids as `mark_event` takes them.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed; nothing was sent.
            CommandError: Redis refused a command.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally is closed.
        """
        return self._answer(dictionary.numbers(self._context, user_ids), timeout)

    def ids(self, numbers: Iterable[int], *, timeout: float | None = None) -> list[IdT | None]:
        """Return the id of each of some users, in their order: the inverse of `numbers`.

        Arguments:
            numbers: the users' numbers, ints from 0 to 2**32 - 1.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        Returns:
            The ids; ``None`` for a number that no user has. Without ``user_ids``, the numbers
            themselves.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed; nothing was sent.
            CommandError: Redis refused a command.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally is closed.
        """
        return self._answer(dictionary.ids(self._context, numbers), timeout)

    def _answer(self, query: Query[AnswerT], timeout: float | None) -> AnswerT:
        return self.backend.reader.answer(query, timeout)
