"""The async driver: `Tally`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, overload

from .._core.options import Options, hide_urls
from .._core.urls import StoreUrl
from .._core.user_ids import IdT, OtherIdT
from .._marking.transaction import Transaction, unwrapped
from .._redis.async_clients import KINDS
from .._redis.cluster_clients import from_client, from_url
from .backends import make_backend
from .maintenance import AsyncMaintenance
from .many import AsyncMany
from .reports import AsyncReports
from .transfer import AsyncTransfer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import date
    from types import TracebackType

    from redis.asyncio import Redis, RedisCluster
    from typing_extensions import Self, Unpack

    from .._core.options import TallyOptions
    from .._core.periods import Granularity
    from .._marking.marks import Mark
    from .._marking.stats import Stats
    from .backend import AsyncBackend

__all__ = ["Tally"]


class Tally(AsyncMany[IdT], AsyncMaintenance[IdT], AsyncTransfer[IdT], AsyncReports[IdT]):
    """Marks events of users on one Redis database and reads them back, for asyncio programs.

    Make one tally when the program starts, use it from all tasks of one event loop, and close
    it at the end. It keeps one connection for marks, and others for reads. A call is sent at
    once if a connection is idle. Calls made while others are in flight are sent together when
    the replies to those have come: throughput grows with the number of concurrent tasks.

    A broken connection is replaced and the marks are sent again, until the timeout. That is
    safe: setting or clearing a bit is idempotent.

    For type checkers, it is generic in the type of the users' ids: ``Tally[uuid.UUID]``
    with ``user_ids=uuid.UUID``. ``Tally`` alone means ``Tally[int]``.

    Attributes:
        backend: the writer and the reader of the tally, for extensions of tallymark; they may
            change in any release.
    """

    backend: AsyncBackend

    @overload
    def __init__(
        self: Tally[int],
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
            client: a ``redis.asyncio.Redis``. The tally acquires a connection from its pool
                while it has marks to send, and one for each request of a read, up to eight at
                a time. The client's ``socket_timeout`` applies beside the tally's timeout. Or
                a ``redis.asyncio.RedisCluster``: the tally copies its nodes and settings, and
                opens connections of its own, which it closes.
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

    @overload  # for pyright, to which `Tally` is `Tally[int]` here
    @classmethod
    def from_url(
        cls, url: str, *, user_ids: type[OtherIdT], **options: Unpack[TallyOptions]
    ) -> Tally[OtherIdT]: ...

    @classmethod
    def from_url(
        cls, url: str, *, user_ids: type[Any] | None = None, **options: Unpack[TallyOptions]
    ) -> Tally[Any]:
        """Make a tally with a client of its own, which `aclose` closes.

        Connects at the first call. The tally keeps a connection for marks, and up to eight for
        reads; on a cluster, to each node. Its `client` has up to 50 further connections, or as
        many as ``max_connections`` in the URL says.

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
        tally = cls.__new__(cls)
        tally.backend = make_backend(from_url(KINDS, store, checked), checked, owned=True)
        return tally

    @property
    def client(self) -> Redis | RedisCluster:
        """The redis-py client that the tally uses, for commands beside tallymark's.

        On a cluster, it is a cluster client with connections of its own.
        """
        client: Redis | RedisCluster = self.backend.client
        return client

    async def mark_event(
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
            ClosedError, WrongEventLoopError: the tally is closed, or belongs to another event
                loop.

        Cancelled: the mark may or may not have been applied, whole if at all. Other calls are
        not affected.
        """
        mark = self.backend.marker.mark_event(event, user_id, now, track_hourly, track_unique)
        if mark.bitmaps.uncounted:
            return await self._submit(mark, timeout)
        return unwrapped(await self.backend.writer.submit(mark, timeout))

    async def unmark_event(
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
            ClosedError, WrongEventLoopError: the tally is closed, or belongs to another event
                loop.

        Cancelled: the mark may or may not have been applied, whole if at all. Other calls are
        not affected.
        """
        mark = self.backend.marker.unmark_event(
            event, user_id, now, track_hourly, track_unique, exact
        )
        return await self._submit(mark, timeout)

    async def mark_unique(
        self, event: str, user_id: IdT, *, timeout: float | None = None
    ) -> Granularity:
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
            ClosedError, WrongEventLoopError: the tally is closed, or belongs to another event
                loop.

        Cancelled: the mark may or may not have been applied, whole if at all. Other calls are
        not affected.
        """
        return await self._submit(self.backend.marker.mark_unique(event, user_id), timeout)

    async def unmark_unique(
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
            ClosedError, WrongEventLoopError: the tally is closed, or belongs to another event
                loop.

        Cancelled: the mark may or may not have been applied, whole if at all. Other calls are
        not affected.
        """
        return await self._submit(self.backend.marker.unmark_unique(event, user_id), timeout)

    @contextlib.asynccontextmanager
    async def transaction(self, *, timeout: float | None = None) -> AsyncIterator[Transaction[IdT]]:
        """Collect several marks and apply them in one ``MULTI``/``EXEC``.

        ``async with tally.transaction() as tx:`` gives a `Transaction` with the same verbs as
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
            ClosedError, WrongEventLoopError: at the start of the block: the tally is closed,
                or belongs to another event loop.
            InvalidTypeError, InvalidValueError: the timeout is not allowed; nothing was sent.
            CommandError: at the end of the block, like all further errors: Redis refused a
                mark; the `PendingMark` of each mark has its result.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout; the
                message says whether anything was sent. If so, the marks may or may not have
                been applied. They may be sent again.
            OverloadedError: ``max_pending`` marks were waiting; nothing was sent.

        Cancelled: the marks may or may not have been applied, all or none; on a cluster, all or
        none of each shard.
        """
        self.backend.writer.check_usable()
        transaction: Transaction[IdT] = Transaction(self.backend.marker)
        with transaction.collecting():
            yield transaction
        if transaction.marks:
            with transaction.sending():
                results = await self.backend.writer.submit_together(transaction.marks, timeout)
            transaction.resolve(results)

    def stats(self) -> Stats:
        """Return the counters of the tally: a `Stats`."""
        return self.backend.writer.stats()

    async def aclose(self) -> None:
        """Wait for the in-flight calls, then close the connections that the tally made.

        Later calls are refused; waiting calls are sent. The wait is bounded by their timeout.
        If the wait is cancelled, they fail with a `ClosedError`, and the connections are closed
        at once. May be called again. A client that was passed in stays open.

        After the tally's event loop has been closed, it may be called on any other loop, or
        without one, and closes the connections at once.

        Raises:
            WrongEventLoopError: the tally belongs to another event loop, which is open; the
                tally stays usable there. Or no event loop of asyncio is running.
        """
        if self.backend.writer.outlived_its_loop():
            self.backend.discard()
        else:
            await self.backend.close()

    async def __aenter__(self) -> Self:
        """Return the tally; leaving the block closes it."""
        self.backend.writer.check_usable()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the tally."""
        await self.aclose()

    async def _submit(self, mark: Mark, timeout: float | None) -> Granularity:
        if not mark.bitmaps.uncounted:
            return unwrapped(await self.backend.writer.submit(mark, timeout))
        (result,) = await self.backend.submit_counted((mark,), timeout)
        return unwrapped(result)
