"""The async driver: `Tally`, and the module-level coroutines on the default tally."""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import RunVar
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.exceptions import ResponseError

from . import defaults, memory, redis_py
from .batches import Batch
from .errors import ClosedError, WrongEventLoopError
from .marker import Marker
from .options import Options
from .transactions import Transaction, unwrapped
from .urls import check_url, store_name

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from datetime import date
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from .marks import Mark, Result
    from .options import TallyOptions
    from .periods import Granularity

__all__ = ["Tally", "mark_event", "mark_unique", "transaction", "unmark_event", "unmark_unique"]


class Tally:
    """Marks events of users on one Redis database, for asyncio programs.

    A tally is cheap to keep and made to be shared: make one when the program
    starts, use it from all tasks of one event loop, close it at the end. Each
    call checks a connection out of redis-py's pool, writes its transaction in
    one piece, and returns once Redis has acknowledged it.

    A connection that breaks is replaced and the marks are sent again, until
    the timeout; setting or clearing a bit twice does what doing it once does.
    """

    def __init__(self, client: Redis, **options: Unpack[TallyOptions]) -> None:
        """Use a client that the caller owns; closing the tally leaves it open.

        Arguments:
            client: a ``redis.asyncio.Redis``. Its own ``socket_timeout`` holds
                beside the tally's timeout.
            options: see `tallymark.TallyOptions`.

        Raises:
            InvalidTypeError, InvalidValueError: the client or an option is not
                what is described there.
        """
        self._client: Any = redis_py.checked_client(
            client, Redis, "Tally", "for blocking clients there is tallymark.SyncTally"
        )
        self._owns_client = False
        self._options = Options(**options)
        self._marker = Marker(self._options, time.time)
        self._timeout = self._options.seconds
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._closed = False
        self._in_flight = 0
        self._drained: anyio.Event | None = None

    @classmethod
    def from_url(cls, url: str, **options: Unpack[TallyOptions]) -> Self:
        """Make a tally with a client of its own, which `aclose` closes.

        Connects at the first mark. Opens 50 connections at most, or what
        ``max_connections`` in the URL says; calls beyond that wait.

        Arguments:
            url: ``redis://[[user]:password@]host[:port][/database]``,
                ``rediss://`` for TLS, ``unix://`` for a socket, with
                redis-py's options behind ``?``; or ``memory://name``, a store
                inside this process that needs no server (extra ``memory``).
            options: see `tallymark.TallyOptions`.

        Raises:
            InvalidTypeError, InvalidValueError: the URL or an option is not
                allowed. The message never holds the URL.
            MissingExtraError: ``memory://`` without fakeredis.
        """
        tally = cls(_make_client(url, Options(**options)), **options)
        tally._owns_client = True
        return tally

    @property
    def client(self) -> Redis:
        """The redis-py client that the tally uses, for what tallymark does not do."""
        client: Redis = self._client
        return client

    async def mark_event(
        self,
        event: str,
        user_id: int,
        *,
        now: date | None = None,
        track_hourly: bool | None = None,
        track_unique: bool | None = None,
    ) -> Granularity:
        """Record that a user did something: set the bits of the month, week and day.

        Arguments:
            event: a non-empty str without control characters.
            user_id: an int from 0 to the tally's ``max_user_id``.
            now: when it happened; the present by default. An aware datetime is
                converted to the tally's time zone, a naive one is taken to be
                in it, and a date is its midnight.
            track_hourly: also mark the hour. ``None`` leaves it to the tally's
                option, and that to ``tallymark.TRACK_HOURLY``.
            track_unique: also mark the event's dateless bitmap. ``None``
                leaves it to the tally's option, and that to
                ``tallymark.TRACK_UNIQUE``.

        Returns:
            The granularities whose bit this call flipped, falsy when the user
            was marked in all of them before: ``Granularity.DAY in flipped``
            tells the first time today. After a broken connection and a retry
            it may hold less than this call flipped.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed;
                nothing was sent.
            CommandError: Redis refused; the message says what was changed.
            StoreUnavailableError, StoreTimeoutError: no answer within the
                timeout; the message says whether anything was sent. What was
                sent may or may not have been applied, and may be repeated.
            ClosedError, WrongEventLoopError: the tally cannot be used here.

        Cancelled: the mark may or may not have been applied, whole if at all.
        The tally and all other calls go on unharmed.
        """
        return await self._take(
            self._marker.mark_event(event, user_id, now, track_hourly, track_unique)
        )

    async def unmark_event(
        self,
        event: str,
        user_id: int,
        *,
        now: date | None = None,
        track_hourly: bool | None = None,
        track_unique: bool | None = None,
        exact: bool = False,
    ) -> Granularity:
        """Take a mark back: clear the bits that `mark_event` would set.

        By default all of them are set to 0, as bitmapist does it. That takes
        the user out of the whole week and month, also when other days of them
        still have the user; and Redis extends a bitmap that ends before the
        user's bit, or creates it, to write that 0.

        With ``exact=True`` the week, month and year are cleared only where no
        other day of them has the user, no bitmap grows and no key is created.
        A script on the server looks and clears in one atomic step. The day,
        and with the switches the given hour and the dateless bit, are cleared
        in any case; other hours of that day keep their bits.

        Arguments:
            event, user_id, now, track_hourly, track_unique: as in `mark_event`.
            exact: whether to look at the other days first.

        Returns:
            The granularities whose bit this call cleared.

        Raises:
            As `mark_event`, and is as safe to cancel. With ``exact=True`` a
            key of the wrong type leaves all bitmaps as they were.
        """
        return await self._take(
            self._marker.unmark_event(event, user_id, now, track_hourly, track_unique, exact)
        )

    async def mark_unique(self, event: str, user_id: int) -> Granularity:
        """Set a user's flag: the bit in the event's bitmap without a date.

        Arguments, errors and guarantees are those of `mark_event`.

        Returns:
            ``Granularity.UNIQUE`` if the user did not have the flag, else a
            falsy value.
        """
        return await self._take(self._marker.mark_unique(event, user_id))

    async def unmark_unique(self, event: str, user_id: int) -> Granularity:
        """Clear a user's flag: the bit in the event's bitmap without a date.

        Arguments, errors and guarantees are those of `mark_event`.

        Returns:
            ``Granularity.UNIQUE`` if the user had the flag, else a falsy value.
        """
        return await self._take(self._marker.unmark_unique(event, user_id))

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Collect several marks and apply them in one ``MULTI``/``EXEC``.

        ``async with tally.transaction() as tx:`` gives a `Transaction` with
        the same verbs as plain methods. The marks are sent when the block
        ends; if an exception leaves it, nothing is.

        Raises, when the block ends:
            CommandError: Redis refused a mark; each mark's `PendingMark` tells
                its own fate.
            StoreUnavailableError, StoreTimeoutError: as for `mark_event`.
        """
        self._check_usable()
        transaction = Transaction(self._marker, Batch(bitfield=self._options.bitfield))
        with transaction.collecting():
            yield transaction
        if transaction.batch:
            transaction.settle(await self._commit(transaction.batch))

    async def aclose(self) -> None:
        """Wait for the calls in flight, then close the connections the tally made.

        No later call is accepted. The wait is bounded by the calls' timeout;
        if it is cancelled, the connections are closed at once and the calls in
        flight fail. May be called again. A client that was passed in stays open.
        """
        self._closed = True
        try:
            while self._in_flight:
                self._drained = self._drained or anyio.Event()
                await self._drained.wait()
        finally:
            if self._owns_client:
                with anyio.CancelScope(shield=True):
                    await self._client.aclose(close_connection_pool=True)

    async def __aenter__(self) -> Self:
        """Return the tally; leaving the block closes it."""
        self._check_usable()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the tally."""
        await self.aclose()

    async def _take(self, mark: Mark) -> Granularity:
        batch = Batch(bitfield=self._options.bitfield)
        batch.add(mark)
        (result,) = await self._commit(batch)
        return unwrapped(result)

    async def _commit(self, batch: Batch) -> list[Result]:
        """Send a batch, again if its connection breaks, and return its results."""
        self._check_usable()
        data = batch.encode()
        failures: list[Exception] = []

        async def attempt() -> list[Any]:
            return await self._attempt(batch, data)

        async def note(failure: Exception) -> None:
            redis_py.raise_if_final(failure)
            failures.append(failure)

        self._in_flight += 1
        try:
            with anyio.fail_after(self._timeout):
                retry = Retry(redis_py.backoff(), redis_py.RETRY_FOREVER)
                replies = await retry.call_with_retry(attempt, note)
        except Exception as error:  # noqa: BLE001 - redis-py has let AttributeErrors out
            cause = failures[-1] if failures and isinstance(error, TimeoutError) else error
            raise redis_py.translated(cause, batch, self._options.timeout) from cause
        finally:
            self._in_flight -= 1
            if self._drained is not None and not self._in_flight:
                self._drained.set()
        return batch.settle(replies)

    async def _attempt(self, batch: Batch, data: bytes) -> list[Any]:
        """Send a batch over one connection and return the replies to all its commands."""
        pool = self._client.connection_pool
        connection = await pool.get_connection()
        try:
            batch.sent = True
            await connection.send_packed_command(data)
            return [await _read(connection) for _ in range(batch.reply_count())]
        except BaseException:
            # Replies may be left unread: on this connection, every later answer
            # would be taken for that of another command.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)

    def _check_usable(self) -> None:
        if self._closed:
            raise ClosedError("this tally is closed")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = weakref.ref(loop)
        elif self._loop() is not loop:
            raise WrongEventLoopError(
                "this Tally has connections of another event loop; make one for each loop, "
                "or use the module-level functions, which do"
            )


async def _read(connection: Any) -> Any:
    try:
        return redis_py.plain_reply(await connection.read_response())
    except ResponseError as error:
        return redis_py.refused_reply(error)


def _make_client(url: str, options: Options) -> Redis:
    check_url(url)
    name = store_name(url)
    if name is not None:
        fake: Redis = memory.fakeredis().FakeAsyncRedis(
            server=memory.store(name),
            connection_pool_class=BlockingConnectionPool,
            max_connections=redis_py.MAX_CONNECTIONS,
        )
        return fake
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=redis_py.MAX_CONNECTIONS,
            # One deadline around the whole call replaces a timer for each reply.
            timeout=None,
            socket_timeout=None,
            socket_connect_timeout=options.seconds,
        )
        redis_py.check_options(pool)
    except (ValueError, TypeError) as error:
        raise redis_py.refused_url(error) from None
    return Redis.from_pool(pool)


class _Default:
    """The default tally of one event loop, and what closes it when the loop ends."""

    def __init__(self) -> None:
        self.configured = defaults.configured()
        self.tally = Tally.from_url(defaults.url(self.configured), **self.configured.options)
        self.closing = self._close_with_the_loop()

    async def _close_with_the_loop(self) -> AsyncGenerator[None, None]:
        """Close the tally when this generator is closed, by `default_tally` or by asyncio.

        Before a loop ends, `asyncio.run` and its like close every async
        generator that was begun on it (`loop.shutdown_asyncgens`); that is the
        one hook that asyncio has for this.
        """
        try:
            yield
        finally:
            # A loop's variables outlive it for as long as they refer to it.
            if _default.get() is self:
                _default.set(None)
            await self.tally.aclose()


_default: RunVar[_Default | None] = RunVar("tallymark default tally", None)


async def default_tally() -> Tally:
    """Return the running loop's default tally, made of what `configure` said last."""
    current = _default.get()
    if current is None or current.configured is not defaults.configured():
        before, current = current, _Default()
        _default.set(current)  # with no await in between: concurrent calls share it
        await anext(current.closing)
        if before is not None:
            await before.closing.aclose()
    return current.tally


async def mark_event(
    event: str,
    user_id: int,
    *,
    now: date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
) -> Granularity:
    """Call `Tally.mark_event` of the running event loop's default tally."""
    tally = await default_tally()
    return await tally.mark_event(
        event, user_id, now=now, track_hourly=track_hourly, track_unique=track_unique
    )


async def unmark_event(
    event: str,
    user_id: int,
    *,
    now: date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    exact: bool = False,
) -> Granularity:
    """Call `Tally.unmark_event` of the running event loop's default tally."""
    tally = await default_tally()
    return await tally.unmark_event(
        event, user_id, now=now, track_hourly=track_hourly, track_unique=track_unique, exact=exact
    )


async def mark_unique(event: str, user_id: int) -> Granularity:
    """Call `Tally.mark_unique` of the running event loop's default tally."""
    return await (await default_tally()).mark_unique(event, user_id)


async def unmark_unique(event: str, user_id: int) -> Granularity:
    """Call `Tally.unmark_unique` of the running event loop's default tally."""
    return await (await default_tally()).unmark_unique(event, user_id)


@contextlib.asynccontextmanager
async def transaction() -> AsyncIterator[Transaction]:
    """Call `Tally.transaction` of the running event loop's default tally."""
    async with (await default_tally()).transaction() as collected:
        yield collected
