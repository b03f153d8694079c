"""The blocking driver: `SyncTally`.

No event loop and no thread: the same core as the async driver, on
``redis.Redis``. Calls may come from many threads, and go on after ``fork``.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from redis import Redis, RedisCluster

from . import redis_py
from .blocking_clients import KINDS
from .blocking_link import Sent
from .blocking_stores import BlockingCluster, BlockingServer
from .cluster_clients import ClusterClients, cluster_from_client, opened
from .context import Context
from .errors import ClosedError, StoreTimeoutError, TallymarkError, overloaded
from .marker import Marker
from .offsets import blocks
from .options import Options, checked_timeout
from .stats import Totals
from .sync_reads import SyncReads
from .transactions import Transaction, unwrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import date
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from .many import Many
    from .marks import Mark, Result
    from .options import TallyOptions
    from .periods import Granularity
    from .stats import Stats

__all__ = ["SyncTally"]


class SyncTally(SyncReads):
    """Marks events of users and reads them back, for programs without an event loop.

    The blocking twin of `tallymark.Tally`: same verbs, arguments, results and
    guarantees. Make one and share it between threads. After ``fork``, a child
    process opens connections of its own.

    To connect over a client of the caller's may take as long as that client's
    own timeouts allow; all else ends at the call's deadline.
    """

    def __init__(self, client: Redis | RedisCluster, **options: Unpack[TallyOptions]) -> None:
        """Use a client that the caller owns; closing the tally leaves it open.

        Arguments:
            client: a ``redis.Redis``. Give it a ``socket_connect_timeout`` and,
                as its pool needs, a ``timeout``: waiting for a connection of
                its pool is the one thing that the tally cannot cut short. Or a
                ``redis.RedisCluster``: the tally takes its nodes and its settings,
                and opens connections of its own, which it closes.
            options: see `tallymark.TallyOptions`.

        Raises:
            InvalidTypeError, InvalidValueError: the client or an option is not
                what is described there.
        """
        checked = Options(**options)
        found: Any = client
        if isinstance(client, RedisCluster):
            found = cluster_from_client(KINDS, client, checked)
        self._store: BlockingServer | BlockingCluster
        if isinstance(found, ClusterClients):  # or from `from_url`
            self._store = BlockingCluster(found, checked, self._check_usable)
        else:
            remedy = "for asyncio clients there is tallymark.Tally"
            redis_py.check_client(client, (Redis, RedisCluster), "SyncTally", remedy)
            self._store = BlockingServer(client, checked, self._check_usable)
        self._options = self._store.options
        self._marker = Marker(self._options, time.time)
        self._context = Context.of(self._store.database, self._options, time.time)
        self._reader = self._store.reader
        self._closed = False
        self._counting = threading.Lock()
        self._totals = Totals()
        self._waiting = 0
        _tallies.add(self)

    @classmethod
    def from_url(cls, url: str, **options: Unpack[TallyOptions]) -> Self:
        """Make a tally with a client of its own, which `close` closes.

        Takes the same URLs and raises the same errors as
        `tallymark.Tally.from_url`.
        """
        checked = Options(**options)
        tally = cls(opened(KINDS, url, checked), **options)
        tally._store.own()
        return tally

    @property
    def client(self) -> Redis | RedisCluster:
        """The redis-py client that the tally uses, for what tallymark does not do.

        Of a tally on a cluster this is a cluster client with connections of its own.
        """
        client: Redis | RedisCluster = self._store.client
        return client

    def mark_event(
        self,
        event: str,
        user_id: int,
        *,
        now: date | None = None,
        track_hourly: bool | None = None,
        track_unique: bool | None = None,
        timeout: float | None = None,
    ) -> Granularity:
        """Record that a user did something: set the bits of the month, week and day.

        Same arguments, errors and guarantees as `tallymark.Tally.mark_event`.
        """
        return self._take(
            self._marker.mark_event(event, user_id, now, track_hourly, track_unique), timeout
        )

    def unmark_event(
        self,
        event: str,
        user_id: int,
        *,
        now: date | None = None,
        track_hourly: bool | None = None,
        track_unique: bool | None = None,
        exact: bool = False,
        timeout: float | None = None,
    ) -> Granularity:
        """Take a mark back: clear the bits that `mark_event` would set.

        Same arguments, errors and guarantees as `tallymark.Tally.unmark_event`;
        read there what ``exact`` is for.
        """
        return self._take(
            self._marker.unmark_event(event, user_id, now, track_hourly, track_unique, exact),
            timeout,
        )

    def mark_unique(self, event: str, user_id: int, *, timeout: float | None = None) -> Granularity:
        """Set a user's flag: the bit in the event's bitmap without a date.

        Same arguments, errors and guarantees as `tallymark.Tally.mark_unique`.
        """
        return self._take(self._marker.mark_unique(event, user_id), timeout)

    def unmark_unique(
        self, event: str, user_id: int, *, timeout: float | None = None
    ) -> Granularity:
        """Clear a user's flag: the bit in the event's bitmap without a date.

        Same arguments, errors and guarantees as `tallymark.Tally.unmark_unique`.
        """
        return self._take(self._marker.unmark_unique(event, user_id), timeout)

    def mark_many(
        self,
        event: str,
        user_ids: Iterable[int],
        *,
        now: date | None = None,
        track_hourly: bool | None = None,
        track_unique: bool | None = None,
        timeout: float | None = None,
    ) -> dict[Granularity, int]:
        """Record that many users did something at the same time.

        Same arguments (but for async iterables), results, errors and
        guarantees as `tallymark.Tally.mark_many`.
        """
        many = self._marker.mark_many(event, now, track_hourly, track_unique)
        return self._write_many(many, user_ids, timeout)

    def unmark_many(
        self,
        event: str,
        user_ids: Iterable[int],
        *,
        now: date | None = None,
        track_hourly: bool | None = None,
        track_unique: bool | None = None,
        exact: bool = False,
        timeout: float | None = None,
    ) -> dict[Granularity, int]:
        """Take back what `mark_many` with the same arguments sets.

        Same arguments (but for async iterables), results, errors and
        guarantees as `tallymark.Tally.unmark_many`.
        """
        many = self._marker.unmark_many(event, now, track_hourly, track_unique, exact)
        return self._write_many(many, user_ids, timeout)

    @contextlib.contextmanager
    def transaction(self, *, timeout: float | None = None) -> Iterator[Transaction]:
        """Collect several marks and apply them in one ``MULTI``/``EXEC``.

        ``with tally.transaction() as tx:`` works as the ``async with`` of
        `tallymark.Tally.transaction` does, and raises the same errors.
        """
        self._check_usable()
        transaction = Transaction(self._marker)
        with transaction.collecting():
            yield transaction
        if transaction.marks:
            with transaction.sending():
                results = self._commit(transaction.marks, timeout)
            transaction.settle(results)

    def stats(self) -> Stats:
        """Return what all threads have done with the tally so far, in numbers."""
        return self._totals.stats(self._waiting)

    def close(self) -> None:
        """Accept no later call and close the connections the tally made.

        Calls that other threads have in flight end as they would have, and
        their connections are closed then. May be called again. A client that
        was passed in stays open.
        """
        self._closed = True
        self._store.close()

    def __enter__(self) -> Self:
        """Return the tally; leaving the block closes it."""
        self._check_usable()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the tally."""
        self.close()

    def _take(self, mark: Mark, timeout: float | None) -> Granularity:
        if not mark.bitmaps.on_trial:
            (result,) = self._commit((mark,), timeout)
            return unwrapped(result)
        try:
            (result,) = self._commit((mark,), timeout)
        except BaseException as error:
            self._marker.ended((mark,), error=error)
            raise
        self._marker.ended((mark,), (result,))
        return unwrapped(result)

    def _commit(self, marks: Sequence[Mark], timeout: float | None) -> list[Result]:
        """Send marks in one transaction, again if that may mend it; return their results."""
        self._check_usable()
        seconds = self._options.timeout if timeout is None else checked_timeout(timeout)
        deadline = time.monotonic() + seconds
        with self._counting:
            if self._waiting >= self._options.max_pending:
                raise overloaded(self._waiting, "marks", self._options.max_pending)
            self._waiting += len(marks)
        sent = Sent("write", len(marks))
        results: list[Result] = []
        refused = False
        try:
            results, refused = self._store.write(marks, sent, deadline, seconds)
        finally:
            with self._counting:
                self._waiting -= len(marks)
                self._totals.bytes_sent += sent.bytes
                self._totals.retries += max(0, sent.attempts - 1)
                if results:
                    self._totals.settle(results, refused=refused)
                else:
                    self._totals.errors += len(marks)
        return results

    def _write_many(
        self, many: Many, user_ids: Iterable[int], timeout: float | None
    ) -> dict[Granularity, int]:
        self._check_usable()
        ends = None if timeout is None else time.monotonic() + checked_timeout(timeout)
        found, all_there = blocks(user_ids)
        checked = map(many.checked, found)
        try:
            for offsets in list(checked) if all_there else checked:
                for chunk in many.chunks(offsets):
                    left = None if ends is None else ends - time.monotonic()
                    if left is not None and left <= 0:
                        raise StoreTimeoutError(f"not done within {timeout:g} s")  # noqa: TRY301
                    many.settle(chunk, self._commit(chunk.marks, left))
        except TallymarkError as error:
            self._marker.many_ended(many.event, done=many.done, error=error)
            raise many.told(error) from error.__cause__
        except BaseException as error:
            self._marker.many_ended(many.event, done=many.done, error=error)
            raise
        self._marker.many_ended(many.event, done=many.done)
        return many.counts

    def _check_usable(self) -> None:
        if self._closed:
            raise ClosedError("this tally is closed")


_tallies: weakref.WeakSet[SyncTally] = weakref.WeakSet()


def _unlock_after_fork() -> None:
    """Replace the locks in a child process: threads that do not exist there may hold them."""
    for tally in list(_tallies):
        tally._counting = threading.Lock()  # noqa: SLF001
        tally._store.unlock()  # noqa: SLF001


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_unlock_after_fork)
