"""The blocking driver: `SyncTally`.

It has no event loop and no thread of its own: the same queries and batches as in the async
driver, on ``redis.Redis``. Threads may share it, and then share its round trips.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .._core.options import Options, hide_urls
from .._core.urls import StoreUrl
from .._core.user_ids import IdT, OtherIdT
from .._marking.transaction import Transaction, unwrapped
from .._redis.blocking_clients import KINDS
from .._redis.cluster_clients import from_client, from_url
from .backends import make_backend
from .maintenance import SyncMaintenance
from .many import SyncMany
from .reports import SyncReports
from .transfer import SyncTransfer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date
    from types import TracebackType

    from redis import Redis, RedisCluster
    from typing_extensions import Self, Unpack

    from .._core.options import TallyOptions
    from .._core.periods import Granularity
    from .._marking.marks import Mark
    from .._marking.stats import Stats
    from .backend import SyncBackend

__all__ = ["SyncTally", "make_owning_tally"]


class SyncTally(SyncMany[IdT], SyncMaintenance[IdT], SyncTransfer[IdT], SyncReports[IdT]):
    """Marks events of users and reads them back, for programs without an event loop.

    The blocking version of `tallymark.Tally`: same verbs, arguments, results and guarantees.
    Make one tally and share it between threads: marks that are made while another one is in
    flight share a transaction. After ``fork``, a child process opens connections of its own.

    Connecting with a client of the caller's may take as long as the timeouts of that client
    allow; everything else ends at the call's deadline.

    For type checkers, it is generic in the type of the users' ids: ``SyncTally[uuid.UUID]``
    with ``user_ids=uuid.UUID``. ``SyncTally`` alone means ``SyncTally[int]``.

    Attributes:
        backend: the writer and the reader of the tally, for extensions of tallymark; they may
            change in any release.
    """

    backend: SyncBackend

    @overload
    def __init__(
        self: SyncTally[int],
        client: Redis | RedisCluster,
        *,
        user_ids: None = None,
        **options: Unpack[TallyOptions],
    ) -> None: ...

    @overload
    def __init__(
        self,
        client: Redis | RedisCluster,
        *,
        user_ids: type[IdT],
        **options: Unpack[TallyOptions],
    ) -> None: ...

    def __init__(
        self,
        client: Redis | RedisCluster,
        *,
        user_ids: type[IdT] | None = None,
        **options: Unpack[TallyOptions],
    ) -> None:
        """Use a client that the caller owns; closing the tally leaves it open.

        Arguments:
            client: a ``redis.Redis``. Give it a ``socket_connect_timeout`` and, if its pool
                blocks, a ``timeout``: the tally cannot interrupt a wait for a connection of
                the pool. Or a ``redis.RedisCluster``: the tally copies its nodes and
                settings, and opens connections of its own, which it closes.
            user_ids: the type of the users' ids: `str`, `bytes`, `uuid.UUID` or `int` (signed
                64 bit). The database gives each user a number, the offset of the user's bit.
                With ``None`` (the default), the ids are the offsets: ints from 0 to
                ``max_user_id``. The type is stored in the database and cannot be changed: the
                calls of a tally with another type raise a `WrongSchemaError`.
            options: those of `tallymark.TallyOptions`.

        Raises:
            InvalidTypeError, InvalidValueError: the client or an option is not allowed.
        """
        hide_urls(options)
        checked = Options(user_ids=user_ids, **options)
        self.backend = make_backend(from_client(KINDS, client, checked), checked, owned=False)

    @overload
    @classmethod
    def from_url(
        cls, url: str, *, user_ids: None = None, **options: Unpack[TallyOptions]
    ) -> Self: ...

    @overload
    @classmethod
    def from_url(
        cls, url: str, *, user_ids: type[IdT], **options: Unpack[TallyOptions]
    ) -> Self: ...

    @overload  # for pyright, to which `SyncTally` is `SyncTally[int]` here
    @classmethod
    def from_url(
        cls, url: str, *, user_ids: type[OtherIdT], **options: Unpack[TallyOptions]
    ) -> SyncTally[OtherIdT]: ...

    @classmethod
    def from_url(
        cls, url: str, *, user_ids: type[Any] | None = None, **options: Unpack[TallyOptions]
    ) -> SyncTally[Any]:
        """Make a tally with a client of its own, which `close` closes.

        Connects at the first call. The tally keeps one connection for the marks of all threads,
        and one for their small reads. For other calls it opens up to 50, or as many as
        ``max_connections`` in the URL says. On a cluster, that is for each node.

        Arguments:
            url: ``redis://[[user]:password@]host[:port][/database]``,
                ``rediss://`` for TLS, ``unix://`` for a socket, or
                ``redis+sentinel://[[user]:password@]host[:port][,host[:port]]/service[/db]``
                for the master that Sentinels name (``rediss+sentinel://`` for
                TLS), or ``redis+cluster://[[user]:password@]host[:port][,host[:port]]``
                for a Redis Cluster, of which it names some nodes
                (``rediss+cluster://`` for TLS), with redis-py's options behind ``?``; or
                ``memory://``, a store inside this process that needs no
                server (extra ``memory``): this tally's alone, and gone with
                it; ``memory://name`` is one store for all tallies of the
                process with that name. The options ``sentinel_username`` and
                ``sentinel_password`` are for Sentinels with a login of their own.
                User, password and path are encoded as by
                ``urllib.parse.quote(text, safe="")``. With TLS, names in certificates are
                checked, unless ``ssl_check_hostname=false``.
            user_ids: the type of the users' ids: `str`, `bytes`, `uuid.UUID` or `int` (signed
                64 bit). The database gives each user a number, the offset of the user's bit.
                With ``None`` (the default), the ids are the offsets: ints from 0 to
                ``max_user_id``. The type is stored in the database and cannot be changed: the
                calls of a tally with another type raise a `WrongSchemaError`.
            options: those of `tallymark.TallyOptions`.

        Returns:
            The tally.

        Raises:
            InvalidTypeError, InvalidValueError: the URL or an option is not
                allowed. The message never holds the URL.
            MissingExtraError: ``memory://`` without fakeredis.
        """
        store = StoreUrl(url)
        del url  # error reporters show the locals of frames
        hide_urls(options)
        checked = Options(user_ids=user_ids, **options)
        return make_owning_tally(cls, from_url(KINDS, store, checked), checked)

    @property
    def client(self) -> Redis | RedisCluster:
        """The redis-py client that the tally uses, for commands beside tallymark's.

        On a cluster, it is a cluster client with connections of its own.
        """
        client: Redis | RedisCluster = self.backend.client
        return client

    def mark_event(
        self,
        event: str,
        user_id: IdT,
        *,
        now: date | None = None,
        track_hourly: bool | None = None,
        track_unique: bool | None = None,
        timeout: float | None = None,
    ) -> Granularity:
        """Record that a user did something: set the bits of the month, week and day.

        Arguments:
            event: a non-empty str without control characters.
            user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of
                that type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).
            now: when it happened; the present by default. An aware datetime is converted to
                the tally's time zone, a naive datetime is taken as in that zone, and a date
                is its midnight.
            track_hourly: also mark the hour; ``None`` for the tally's option, or without that
                for ``tallymark.TRACK_HOURLY``.
            track_unique: also mark the event's dateless bitmap; ``None`` for the tally's
                option, or without that for ``tallymark.TRACK_UNIQUE``.
            timeout: how many seconds the call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout.

        Returns:
            The granularities whose bit this call flipped; falsy if the user was marked in all
            of them before. ``Granularity.DAY in flipped`` is true for the first time today.
            Some may be missing after a broken connection and a retry.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed; nothing was sent.
            CommandError: Redis refused the mark; the message says what was changed.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout; the
                message says whether anything was sent. If so, the mark may or may not have
                been applied. The call may be repeated.
            OverloadedError: ``max_pending`` marks were waiting; nothing was sent.
            ClosedError: the tally is closed.
        """
        return self._submit(
            self.backend.marker.mark_event(event, user_id, now, track_hourly, track_unique), timeout
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
        timeout: float | None = None,
    ) -> Granularity:
        """Take a mark back: clear the bits that `mark_event` would set.

        By default all of them are cleared, as by bitmapist: the user is no longer in the week
        and the month, even if other days of them have the user. Redis extends a bitmap that
        is too short for the user's bit, or creates it, to write the 0.

        With ``exact=True``, the week, month and year are cleared only if no other day of them
        has the user, and no bitmap is extended or created. A script on the server does this
        atomically. The day, and with the switches the given hour and the dateless bit, are
        cleared in any case; other hours of that day keep their bits.

        With ``user_ids``, nothing is written for an id that has never been marked.

        Arguments:
            event: a non-empty str without control characters.
            user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of
                that type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).
            now: when it happened; the present by default. An aware datetime is converted to
                the tally's time zone, a naive datetime is taken as in that zone, and a date
                is its midnight.
            track_hourly: also clear the hour's bit; ``None`` for the tally's option, or
                without that for ``tallymark.TRACK_HOURLY``.
            track_unique: also clear the event's dateless bit; ``None`` for the tally's option,
                or without that for ``tallymark.TRACK_UNIQUE``.
            exact: whether to look at the other days first.
            timeout: how many seconds the call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout.

        Returns:
            The granularities whose bit this call cleared. Some may be missing after a broken
            connection and a retry.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed; nothing was sent.
            CommandError: Redis refused; the message says what was changed. With
                ``exact=True``, nothing is changed if a key has the wrong type.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout; the
                message says whether anything was sent. If so, the mark may or may not have
                been applied. The call may be repeated.
            OverloadedError: ``max_pending`` marks were waiting; nothing was sent.
            ClosedError: the tally is closed.
        """
        return self._submit(
            self.backend.marker.unmark_event(
                event, user_id, now, track_hourly, track_unique, exact
            ),
            timeout,
        )

    def mark_unique(self, event: str, user_id: IdT, *, timeout: float | None = None) -> Granularity:
        """Set a user's flag: the bit in the event's bitmap without a date.

        Arguments:
            event: a non-empty str without control characters.
            user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of
                that type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).
            timeout: how many seconds the call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout.

        Returns:
            ``Granularity.UNIQUE`` if the user did not have the flag, else a falsy value.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed; nothing was sent.
            CommandError: Redis refused the mark; the message says what was changed.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout; the
                message says whether anything was sent. If so, the mark may or may not have
                been applied. The call may be repeated.
            OverloadedError: ``max_pending`` marks were waiting; nothing was sent.
            ClosedError: the tally is closed.
        """
        return self._submit(self.backend.marker.mark_unique(event, user_id), timeout)

    def unmark_unique(
        self, event: str, user_id: IdT, *, timeout: float | None = None
    ) -> Granularity:
        """Clear a user's flag: the bit in the event's bitmap without a date.

        With ``user_ids``, nothing is written for an id that has never been marked.

        Arguments:
            event: a non-empty str without control characters.
            user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of
                that type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).
            timeout: how many seconds the call may take, more than 0; ``math.inf`` for no
                limit, ``None`` for the tally's timeout.

        Returns:
            ``Granularity.UNIQUE`` if the user had the flag, else a falsy value.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed; nothing was sent.
            CommandError: Redis refused the mark; the message says what was changed.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout; the
                message says whether anything was sent. If so, the mark may or may not have
                been applied. The call may be repeated.
            OverloadedError: ``max_pending`` marks were waiting; nothing was sent.
            ClosedError: the tally is closed.
        """
        return self._submit(self.backend.marker.unmark_unique(event, user_id), timeout)

    @contextlib.contextmanager
    def transaction(self, *, timeout: float | None = None) -> Iterator[Transaction[IdT]]:
        """Collect several marks and apply them in one ``MULTI``/``EXEC``.

        ``with tally.transaction() as tx:`` gives a `Transaction` with the same verbs as
        plain methods. The marks are sent at the end of the block, unless an exception leaves
        it.

        On a cluster there is one ``MULTI``/``EXEC`` for each shard: the marks of a shard are
        applied all or none, and an error concerns the marks of one shard only.

        Arguments:
            timeout: how many seconds the end of the block may take, more than 0; ``math.inf``
                for no limit, ``None`` for the tally's timeout.

        Returns:
            A context manager that gives a `Transaction`.

        Raises:
            ClosedError: at the start of the block: the tally is closed.
            InvalidTypeError, InvalidValueError: the timeout is not allowed; nothing was sent.
            CommandError: at the end of the block, like all further errors: Redis refused a
                mark; the `PendingMark` of each mark has its result.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout; the
                message says whether anything was sent. If so, the marks may or may not have
                been applied. They may be sent again.
            OverloadedError: ``max_pending`` marks were waiting; nothing was sent.
        """
        self.backend.writer.check_usable()
        transaction: Transaction[IdT] = Transaction(self.backend.marker)
        with transaction.collecting():
            yield transaction
        if transaction.marks:
            with transaction.sending():
                results = self.backend.writer.submit_together(transaction.marks, timeout)
            transaction.resolve(results)

    def stats(self) -> Stats:
        """Return the counters of the tally: a `Stats`."""
        return self.backend.writer.stats()

    def close(self) -> None:
        """Refuse later calls, and close the connections that the tally made.

        Calls of other threads that are in flight go on; their connections are closed when they
        end. May be called again. A client that was passed in stays open.
        """
        self.backend.close()

    def __enter__(self) -> Self:
        """Return the tally; leaving the block closes it."""
        self.backend.writer.check_usable()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the tally."""
        self.close()

    def _submit(self, mark: Mark, timeout: float | None) -> Granularity:
        if not mark.bitmaps.uncounted:
            return unwrapped(self.backend.writer.submit(mark, timeout))
        (result,) = self.backend.submit_counted((mark,), timeout)
        return unwrapped(result)


TallyT = TypeVar("TallyT", bound=SyncTally[Any])


def make_owning_tally(kind: type[TallyT], client: Any, options: Options) -> TallyT:
    """Return a tally that owns ``client``: a redis-py client, or `ClusterClients`."""
    tally = kind.__new__(kind)
    tally.backend = make_backend(client, options, owned=True)
    return tally
