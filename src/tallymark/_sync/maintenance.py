"""The verbs that look after a database: those of `tallymark.Tally`, blocking.

The queries are in the package `tallymark._reading`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.user_ids import IdT
from .._reading import keyspace, queries, user_bits
from .reads import SyncReads

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from .._core.events import EventSet
    from .._core.periods import By, Granularity
    from .._reading.expiring import AppliedExpiry
    from .._reading.purging import Deleted
    from .._reports.health.diagnosis import Diagnosis

__all__ = ["SyncMaintenance"]


class SyncMaintenance(SyncReads[IdT]):
    """The verbs that delete bitmaps, and that change all bits of a user.

    What `SyncReads` says of the ``timeout`` holds for them too. An interrupted call may have
    changed some of the bitmaps: call it again.
    """

    def delete(self, event_set: EventSet, *, timeout: float | None = None) -> int:
        """Delete bitmaps, a hundred or 16 MiB at a time, so that Redis goes on serving others.

        Arguments:
            event_set: one bitmap (`hour`, `day`, `week`, `month`, `unique`, and
                `year` with the option ``track_yearly``) or a union of some.
                Deleting a day does not change its week and month, and deleting a year does
                not change its months, which still have the users. A range of days is
                refused: it is read from weeks and months, and its days have bitmaps of
                their own.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        Returns:
            How many bitmaps existed.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or an event set is
                of another database; nothing was sent.
            CommandError: Redis refused a command, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally is closed.
        """
        return self._answer(queries.delete(self._context, event_set), timeout)

    def delete_all(self, prefix: str, *, timeout: float | None = None) -> int:
        """Delete every bitmap of the tally, of all events and all time, and all ids of users.

        Scans all keys of the database, and deletes a hundred bitmaps or 16 MiB at a time, so that
        Redis goes on serving others.

        With ``user_ids``, no id that the database has when the call begins is in any key or
        value when it ends. A user who is marked meanwhile, by whomever, gets a new number and
        may stay; each of these marks is deleted, or stays with the user's id. No number is
        given again. A flag that is saved meanwhile does not keep a user of before. Without
        ``user_ids`` it may, as a concurrent mark.

        Arguments:
            prefix: the tally's own prefix, as a guard against the wrong database; any other
                value is refused.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        If the prefix of another tally begins with this tally's prefix, as ``tenant10`` does
        with ``tenant1``, its bitmaps are deleted too, but not its ids: a key does not show where
        its prefix ends.

        Returns:
            How many bitmaps were deleted. Keys that are no bitmaps of tallymark (or of
            bitmapist, with its temporary keys) stay.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or an event set is
                of another database; nothing was sent.
            CommandError: Redis refused a command, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally is closed.
        """
        return self._answer(keyspace.delete_all(self._context, prefix), timeout)

    def delete_before(
        self,
        moment: date,
        *,
        events: str | Iterable[str] | None = None,
        granularities: By | Iterable[By] | None = None,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> Deleted:
        """Delete the bitmaps of hours, days, weeks, months and years that ended before a moment.

        A period that ends just at the moment is deleted; one that contains it stays. Flags stay,
        since they have no date, and so do ids of users. What of a longer granularity is left
        still answers: without the days of a month, the month does, and so do ranges that contain
        the whole month; ranges that begin or end within it miss the users of its other days.

        Scans all keys of the database, a thousand at a time, and deletes at most a hundred at a
        time, so that Redis goes on serving others. Each key is deleted that has the name of such
        a bitmap, whatever its type. Marks of old periods that are made meanwhile, or later,
        create bitmaps again: call it again then. So may a `merge` across shards that runs at
        the same time.

        If the prefix of another tally begins with this tally's prefix, as ``tenant1_eu_`` does
        with ``tenant1_``, its bitmaps are events of this tally as well, and are deleted too.

        Arguments:
            moment: a date or datetime before the end of the present hour, so that nothing
                present is deleted. An aware datetime is converted to the tally's time zone, a
                naive one is taken to be in it, and a date stands for its midnight.
            events: the name of an event, or several; all by default.
            granularities: ``"hour"``, ``"day"``, ``"week"``, ``"month"`` or ``"year"``, a
                `Granularity` of these or a combination, or several of them; all five by default.
            dry_run: delete nothing, but return what would be deleted.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        Returns:
            How many bitmaps were deleted, and how many bytes they took, for each granularity. It
            may be too low after a broken connection and a retry.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed; nothing was sent.
            CommandError: Redis refused a command.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally is closed.
        """
        from .._reading import purging  # noqa: PLC0415 - few programs need it

        query = purging.delete_before(
            self._context, moment, events=events, granularities=granularities, dry_run=dry_run
        )
        return self._answer(query, timeout)

    def apply_expiry(self, *, dry_run: bool = False, timeout: float | None = None) -> AppliedExpiry:
        """Set the expiry of all bitmaps that exist, as the option ``expire`` asks for.

        Marks set it, but only on the bitmaps that they change: call this once after you have
        added the option, or changed it. Each bitmap of a granularity that ``expire`` names gets
        the same expiry that a mark would set, whether it had none, an earlier or a later one. A
        bitmap that would have expired already is deleted, so look at the result of a
        ``dry_run`` first. Other granularities, and flags, keep what they have: no expiry is
        removed.

        Scans all keys of the database, a thousand at a time, and changes at most a hundred at a
        time, so that Redis goes on serving others. It is safe to repeat, and marks may go on.

        If the prefix of another tally begins with this tally's prefix, as ``tenant1_eu_`` does
        with ``tenant1_``, its bitmaps are events of this tally as well, and get this expiry too.

        Arguments:
            dry_run: change nothing, but return what would be changed.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        Returns:
            For each granularity, how many bitmaps had another expiry, were deleted, or had this
            expiry already.

        Raises:
            InvalidTypeError: an argument is not allowed; nothing was sent.
            InvalidValueError: the tally has no option ``expire``; nothing was sent.
            CommandError: Redis refused a command.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally is closed.
        """
        from .._reading import expiring  # noqa: PLC0415 - few programs need it

        return self._answer(expiring.apply_expiry(self._context, dry_run=dry_run), timeout)

    def memory(self, event: str, *, timeout: float | None = None) -> dict[Granularity, int]:
        """Return how many bytes the bitmaps of an event take, for each granularity it has.

        Arguments:
            event: the event's name.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        As ``MEMORY USAGE`` of Redis returns them, with key and overhead; on a server without
        that command, the lengths of the bitmaps. Scans all keys, as `event_names` does, and
        counts all bitmaps that it would list under this name.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or an event set is
                of another database; nothing was sent.
            CommandError: Redis refused a command, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally is closed.
        """
        return self._answer(keyspace.memory(self._context, event), timeout)

    def forget(self, user_id: IdT, *, timeout: float | None = None) -> int:
        """Clear a user's bit in every bitmap, such as for a request to be forgotten.

        Extends and creates no bitmap. Scans all keys of the database, a thousand at a time,
        and clears the bits of some hundred bitmaps atomically. Concurrent marks of this user
        may stay, so stop marking first; a second call returns 0 then. If it is interrupted,
        call it again.

        With ``user_ids``, the id is erased too, and its number is not given to another user.

        If the prefix of another tally begins with this tally's prefix, as ``tenant1_eu_`` does
        with ``tenant1_``, its bitmaps are events of this tally as well, and the bit is cleared
        there too.

        Arguments:
            user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of
                that type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        Returns:
            How many bits were set. It may be too low after a broken connection and a retry.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or an event set is
                of another database; nothing was sent.
            CommandError: Redis refused a command, such as for a key that holds no bitmap.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            ClosedError: the tally is closed.
        """
        return self._answer(user_bits.forget(self._context, user_id), timeout)

    def merge(self, source: IdT, target: IdT, *, timeout: float | None = None) -> int:
        """Move all bits of a user to another user, as when an anonymous visitor signs in.

        In every bitmap, of hours, days, weeks, months, years and without a date, in which the
        source is marked, the target is marked afterwards, and the source is in none. The
        expiry of a bitmap stays as it is. Creates and extends no bitmap in which the source is
        not marked. Scans all keys of the database, a thousand at a time.

        Without shards, or if both users are in the same shard, no bit is in two places: some
        hundred bitmaps are changed atomically at a time (with shards, each bitmap by itself).
        If the users are in different shards, the bits of some hundred bitmaps of the target are
        set first, and then those of the source are cleared: counts in between have both users.
        A bitmap that the shard of the target did not have gets the expiry of the source's
        bitmap. With the option ``replicas``, replicas have to acknowledge the target's bits
        before the source's are cleared.

        It is safe to repeat. No bit is lost by a fault: each one is the source's, the target's,
        or both, and the next call moves the rest. Concurrent marks of other users are not
        affected. A concurrent mark of the source is either moved or stays with the source, so
        stop marking the source first, or call `merge` again afterwards. If the source is
        unmarked concurrently, the target may be marked nevertheless.

        If the prefix of another tally begins with this tally's prefix, as ``tenant1_eu_`` does
        with ``tenant1_``, its bitmaps are events of this tally as well, and the bits are moved
        there too.

        Arguments:
            source: the user who has no bit afterwards: an int from 0 to the tally's
                ``max_user_id``; with ``user_ids``, an id of that type (str and bytes: 1 to
                1,024 bytes; int: signed 64 bit).
            target: the user who gets the bits; another one than the source.
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        Returns:
            How many bits of the source were set, one for each bitmap, also where the bit of the
            target was set already. 0 if there is nothing to move. It may be too low after a
            broken connection and a retry.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed, or source and
                target are the same user; nothing was sent.
            WrongKeyTypeError: in the shard of the target, keys of bitmaps hold something else.
                These bits of the source stay, all others were moved. (Where the source's own
                key holds something else, there is no bit to move.)
            CommandError: Redis refused a command.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout. The message
                says if some bits were moved.
            ClosedError: the tally is closed.
        """
        return self._answer(user_bits.merge(self._context, source, target), timeout)

    def doctor(self, *, timeout: float | None = None) -> Diagnosis:
        """Examine the database and its servers for what goes wrong in practice.

        Arguments:
            timeout: how many seconds the whole call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout for each request.

        More than twenty checks: the server's release, the rights of the Redis user, persistence,
        eviction, memory, replication, the cluster, clocks, ids so sparse that bitmaps are mostly
        zeros, keys of other types, left temporary keys, bitmaps without the expiry that the
        option ``expire`` asks for, and others. docs/how-to/doctor.md lists them. A check whose
        command the server refuses is skipped, and says why.

        Changes nothing. Reads at most 100,000 keys of each server, a thousand at a time, and
        looks at 2,000 bitmaps, so what it says of keys is of a sample, if there are more.
        Together that takes Redis up to a tenth of a second, in steps of a millisecond. Of a
        cluster, all masters are examined; with the option ``read_from``, also the replica.

        Returns:
            A finding for each check. ``ok`` is False if there is a problem; warnings do not count.

        Raises:
            InvalidTypeError, InvalidValueError: the timeout is not allowed; nothing was sent.
            PermissionDeniedError: the login is refused.
            CommandError: the server refuses every call, as a node of a cluster does if the
                store's URL is not that of a cluster.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout, or the server
                was not ready.
            ClosedError: the tally is closed.
        """
        from .._reports.health.doctor import doctor  # noqa: PLC0415 - few programs need it

        return self._answer(doctor(self._context), timeout)
