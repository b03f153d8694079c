"""The default tally of each event loop, and the module-level verbs that use it."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
import weakref
from typing import TYPE_CHECKING

from .._redis import defaults
from .loop_bound import no_loop, running_loop
from .tally import Tally

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
    from datetime import date
    from typing import Any

    from .._core.failures import OnError
    from .._core.periods import Granularity
    from .._core.user_ids import UserId
    from .._marking.row_columns import Row, Rows
    from .._marking.transaction import Transaction

__all__ = [
    "current_tally",
    "mark_event",
    "mark_many",
    "mark_rows",
    "mark_unique",
    "mark_unique_many",
    "transaction",
    "unmark_event",
    "unmark_many",
    "unmark_unique",
    "unmark_unique_many",
]


class _Default:
    """The default tally of one event loop, and the generator that closes it with the loop."""

    def __init__(self) -> None:
        self.configured = defaults.configured()
        self.tally: Tally[Any] = Tally.from_url(
            defaults.url(self.configured),
            user_ids=self.configured.user_ids,
            **self.configured.options,
        )
        loop = asyncio.get_running_loop()
        self.loop = weakref.ref(loop)
        self.key = id(loop)
        self.closing = self._close_with_the_loop()

    async def _close_with_the_loop(self) -> AsyncGenerator[None, None]:
        """Close the tally when this generator is closed, by `current_tally` or by asyncio.

        Before a loop ends, `asyncio.run` and the like close every async generator that was
        started on it (`loop.shutdown_asyncgens`). asyncio has no other hook for this.
        """
        try:
            yield
        finally:
            # An entry would keep the tally, and so the loop, in memory.
            if _defaults.get(self.key) is self:
                del _defaults[self.key]
            if _last.used is self:
                _last.used = None
            await self.tally.aclose()


#: The default tallies, by the ids of their loops. Several threads may have loops; each
#: operation on the dictionary is atomic.
_defaults: dict[int, _Default] = {}


class _Last(threading.local):
    """The default tally that a thread used last: a look-up that is faster than in `_defaults`."""

    used: _Default | None = None


_last = _Last()


def _usual_tally() -> Tally[Any] | None:
    """Return the running loop's default tally, if this thread used it last and it is current."""
    used = _last.used
    try:
        if (
            used is not None
            and used.loop() is asyncio.get_running_loop()
            and used.configured is defaults.configured()
        ):
            return used.tally
    except RuntimeError:
        raise no_loop() from None
    return None


async def current_tally() -> Tally[Any]:
    """Return the running event loop's default tally, which the functions of this module use.

    For its other methods, such as those that read. The tally has the configuration of the
    last call of `configure`, and is closed when the loop ends or `configure` is called again,
    so call this function each time instead of keeping the tally.

    Returns:
        The tally.

    Raises:
        WrongEventLoopError: no event loop of asyncio is running.
        InvalidValueError: the environment variable ``TALLYMARK_URL`` holds no URL of a store.
        MissingExtraError: ``memory://`` without fakeredis.
    """
    loop = running_loop()
    current = _defaults.get(id(loop))
    if current is not None and current.loop() is not loop:
        current = None  # the tally of an earlier loop, which had the same id
    if current is None or current.configured is not defaults.configured():
        _discard_after_closed_loops()
        previous, current = current, _Default()
        _defaults[current.key] = current  # before the first await: concurrent calls share it
        await anext(current.closing)
        if previous is not None:
            await previous.closing.aclose()
    _last.used = current
    return current.tally


def _discard_after_closed_loops() -> None:
    """Close the default tallies whose loops were closed without `shutdown_asyncgens`."""
    for default in list(_defaults.values()):
        loop = default.loop()
        closed = loop is None or loop.is_closed()
        if closed and _defaults.pop(default.key, None) is default:
            default.tally.backend.discard()


atexit.register(_discard_after_closed_loops)


async def mark_event(
    event: str,
    user_id: UserId,
    *,
    now: date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    timeout: float | None = None,
) -> Granularity:
    """Record that a user did something: set the bits of the month, week and day.

    On the running event loop's default tally, which `configure` describes.

    Arguments:
        event: a non-empty str without control characters.
        user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of that
            type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).
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
    tally = _usual_tally() or await current_tally()
    return await tally.mark_event(
        event,
        user_id,
        now=now,
        track_hourly=track_hourly,
        track_unique=track_unique,
        timeout=timeout,
    )


async def unmark_event(
    event: str,
    user_id: UserId,
    *,
    now: date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    exact: bool = False,
    timeout: float | None = None,
) -> Granularity:
    """Take a mark back: clear the bits that `mark_event` would set.

    On the running event loop's default tally, which `configure` describes.

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
        user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of that
            type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).
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
    tally = _usual_tally() or await current_tally()
    return await tally.unmark_event(
        event,
        user_id,
        now=now,
        track_hourly=track_hourly,
        track_unique=track_unique,
        exact=exact,
        timeout=timeout,
    )


async def mark_many(
    event: str,
    user_ids: Iterable[UserId] | AsyncIterable[UserId],
    *,
    now: date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    timeout: float | None = None,
) -> dict[Granularity, int]:
    """Record that many users did something at the same time.

    On the running event loop's default tally, which `configure` describes.

    The ids are sent in pieces, each a transaction of its own; marks of other tasks are sent
    in between. Where the ids lie close together (from about one in 4,000), a piece is sent
    as a bitmap and merged on the server, some 20 times as fast as bit by bit. The expiry
    of a bitmap is kept.

    Arguments:
        event: a non-empty str without control characters.
        user_ids: ids as `mark_event` takes them, in any order, repetitions allowed: an
            iterable, an async iterable, or a one-dimensional array of integers, of numpy or
            that numpy can read, such as a column of a data frame, which is not copied to a
            list. Arrays with masked or missing values are refused. Other iterables than
            collections are read in blocks of 32,768 ids; each block is sent as soon as it is
            complete.
        now: when it happened; the present by default. An aware datetime is converted to
            the tally's time zone, a naive datetime is taken as in that zone, and a date
            is its midnight.
        track_hourly: also mark the hour; ``None`` for the tally's option, or without that
            for ``tallymark.TRACK_HOURLY``.
        track_unique: also mark the event's dateless bitmap; ``None`` for the tally's
            option, or without that for ``tallymark.TRACK_UNIQUE``.
        timeout: how many seconds the whole call may take, with the time that the iterable
            takes; ``None`` for the tally's timeout for each piece. An async iterable is
            cancelled at the deadline; if it catches that, the call ends when it does. An
            iterable that does not give its next id cannot be interrupted, and keeps the
            event loop from running: the call ends as soon as it does.

    Returns:
        For each granularity, how many bits this call flipped. The number may be too low
        after a broken connection and a retry.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed. If the ids are a
            collection (a list, a set, an array), nothing was sent; else the message says
            how many ids were marked before.
        CommandError, StoreUnavailableError, StoreTimeoutError, OverloadedError: Redis
            refused a piece, or did not answer in time, or ``max_pending`` marks were
            waiting; the message says how many ids were marked before. A
            `StoreTimeoutError` also if the iterable did not give its ids in time.
        ClosedError, WrongEventLoopError: the tally is closed, or belongs to another event
            loop.

    An async iterable with an ``aclose``, as of async generators, is closed in any case, unless
    the call is refused before it is read.

    Cancelled: a prefix of the pieces is applied, each piece whole.
    """
    tally = _usual_tally() or await current_tally()
    return await tally.mark_many(
        event,
        user_ids,
        now=now,
        track_hourly=track_hourly,
        track_unique=track_unique,
        timeout=timeout,
    )


async def mark_rows(
    rows: Rows[UserId] | AsyncIterable[Row[UserId]],
    *,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    on_error: OnError | None = None,
    timeout: float | None = None,
) -> dict[Granularity, int]:
    """Record many events: each row is an event, a user and a moment.

    On the running event loop's default tally, which `configure` describes.

    Like `mark_event` for each row, some 50 times as fast: rows are gathered in blocks of
    524,288 and sorted by event and day, so that each bitmap is written with few commands, as
    bits or as a bitmap, whichever takes less of Redis's time. A transaction has rows of one
    event and month, or of several; it takes about 1.5 ms of Redis's time, and marks of other
    tasks are sent in between. All bits of a row are set by the same transaction.

    Arguments:
        rows: one of

            * an iterable, or an async iterable, of rows: tuples or lists of an event, a user
              id and a moment;
            * columns: a mapping, or a data frame of pandas, polars or pyarrow, with the
              columns ``event``, ``user_id`` and ``moment``, of lists, arrays or columns of
              such a frame. In a mapping, ``event`` may be a str and ``moment`` a date for all
              rows. A mapping has no other columns; those of a frame are ignored.
            * a stream of record batches of pyarrow.

            Events and user ids are as `mark_event` takes them. The moment is a date or a
            datetime as ``now`` of `mark_event`; a ``datetime64`` of numpy is naive.
        track_hourly: also mark the hour; ``None`` for the tally's option, or without that
            for ``tallymark.TRACK_HOURLY``.
        track_unique: also mark the event's dateless bitmap; ``None`` for the tally's
            option, or without that for ``tallymark.TRACK_UNIQUE``.
        on_error: is called with each row that cannot be marked: its index from 0 on, the row
            as it was given (of columns, a tuple), and the error. All other rows are marked. By
            default the first one is raised.
        timeout: how many seconds the whole call may take, with the time that the iterable
            takes; ``None`` for the tally's timeout for each transaction. An async
            iterable is cancelled at the deadline. An iterable that does not give its next row
            cannot be interrupted, and keeps the event loop from running.

    Returns:
        For each granularity, how many bits this call flipped. The number may be too low
        after a broken connection and a retry.

    Raises:
        InvalidTypeError, InvalidValueError: a row cannot be marked: the message begins with
            its index, as in ``row 17: ...``, and no row of its block was sent. Or the
            columns, or another argument, are not allowed. The message says how many rows were
            marked before.
        CommandError, StoreUnavailableError, StoreTimeoutError, OverloadedError: Redis
            refused a transaction, or did not answer in time, or ``max_pending`` marks
            were waiting; the message says how many rows were marked before: all of the
            blocks before, and of the last block some transactions. A `StoreTimeoutError` also
            if the iterable did not give its rows in time, or the rows were not prepared.
        ClosedError, WrongEventLoopError: the tally is closed, or belongs to another event
            loop.

    With ``user_ids``, new users get their numbers in the order of the rows. A row all of whose
    bitmaps have expired gives none.

    Rows are checked and sorted in a worker thread; an iterable is read, and ``on_error``
    called, in the event loop's.

    An async iterable with an ``aclose``, as of async generators, is closed in any case, unless
    the call is refused before it is read.

    Cancelled: all rows of the blocks before are applied, and of the last block some
    transactions, each row whole.
    """
    tally = _usual_tally() or await current_tally()
    return await tally.mark_rows(
        rows,
        track_hourly=track_hourly,
        track_unique=track_unique,
        on_error=on_error,
        timeout=timeout,
    )


async def unmark_many(
    event: str,
    user_ids: Iterable[UserId] | AsyncIterable[UserId],
    *,
    now: date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    exact: bool = False,
    timeout: float | None = None,
) -> dict[Granularity, int]:
    """Take back what `mark_many` with the same arguments sets.

    On the running event loop's default tally, which `configure` describes.

    Like `unmark_event` for each of the users. With ``exact=True``, it executes a script for
    each user, which takes as long as `unmark_event`. Without, the users are no longer in
    the week and the month, and a bitmap may be extended to hold a 0.

    With ``user_ids``, nothing is written for an id that has never been marked.

    Arguments:
        event: a non-empty str without control characters.
        user_ids: ids as `mark_event` takes them, in any order, repetitions allowed: an
            iterable, an async iterable, or a one-dimensional array of integers, of numpy or
            that numpy can read, such as a column of a data frame, which is not copied to a
            list. Arrays with masked or missing values are refused. Other iterables than
            collections are read in blocks of 32,768 ids; each block is sent as soon as it is
            complete.
        now: when it happened; the present by default. An aware datetime is converted to
            the tally's time zone, a naive datetime is taken as in that zone, and a date
            is its midnight.
        track_hourly: also clear the hour's bits; ``None`` for the tally's option, or
            without that for ``tallymark.TRACK_HOURLY``.
        track_unique: also clear the event's dateless bits; ``None`` for the tally's
            option, or without that for ``tallymark.TRACK_UNIQUE``.
        exact: whether to look at the other days first.
        timeout: as for `mark_many`.

    Returns:
        For each granularity, how many bits this call cleared. The number may be too low
        after a broken connection and a retry.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed. If the ids are a
            collection (a list, a set, an array), nothing was sent; else the message says
            how many ids were unmarked before.
        CommandError, StoreUnavailableError, StoreTimeoutError, OverloadedError: Redis
            refused a piece, or did not answer in time, or ``max_pending`` marks were
            waiting; the message says how many ids were unmarked before.
        ClosedError, WrongEventLoopError: the tally is closed, or belongs to another event
            loop.

    Cancelled: a prefix of the pieces is applied, each piece whole.
    """
    tally = _usual_tally() or await current_tally()
    return await tally.unmark_many(
        event,
        user_ids,
        now=now,
        track_hourly=track_hourly,
        track_unique=track_unique,
        exact=exact,
        timeout=timeout,
    )


async def mark_unique_many(
    event: str,
    user_ids: Iterable[UserId] | AsyncIterable[UserId],
    *,
    timeout: float | None = None,
) -> int:
    """Set the flag of many users: their bits in the event's bitmap without a date.

    On the running event loop's default tally, which `configure` describes.

    Like `mark_unique` for each of the users, in pieces as `mark_many` sends them: each
    piece is a transaction, and a bitmap where the ids lie close together.

    Arguments:
        event: a non-empty str without control characters.
        user_ids, timeout: as for `mark_many`.

    Returns:
        How many of the users did not have the flag. The number may be too low after a broken
        connection and a retry.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed. If the ids are a
            collection (a list, a set, an array), nothing was sent; else the message says
            how many ids were marked before.
        CommandError, StoreUnavailableError, StoreTimeoutError, OverloadedError: Redis
            refused a piece, or did not answer in time, or ``max_pending`` marks were
            waiting; the message says how many ids were marked before.
        ClosedError, WrongEventLoopError: the tally is closed, or belongs to another event
            loop.

    Cancelled: a prefix of the pieces is applied, each piece whole.
    """
    tally = _usual_tally() or await current_tally()
    return await tally.mark_unique_many(event, user_ids, timeout=timeout)


async def unmark_unique_many(
    event: str,
    user_ids: Iterable[UserId] | AsyncIterable[UserId],
    *,
    timeout: float | None = None,
) -> int:
    """Take the flag from many users: clear their bits in the event's bitmap without a date.

    On the running event loop's default tally, which `configure` describes.

    Like `unmark_unique` for each of the users, in pieces as `mark_many` sends them. A
    bitmap may be extended to hold a 0.

    With ``user_ids``, nothing is written for an id that has never been marked.

    Arguments:
        event: a non-empty str without control characters.
        user_ids, timeout: as for `mark_many`.

    Returns:
        How many of the users had the flag. The number may be too low after a broken connection
        and a retry.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed. If the ids are a
            collection (a list, a set, an array), nothing was sent; else the message says
            how many ids were unmarked before.
        CommandError, StoreUnavailableError, StoreTimeoutError, OverloadedError: Redis
            refused a piece, or did not answer in time, or ``max_pending`` marks were
            waiting; the message says how many ids were unmarked before.
        ClosedError, WrongEventLoopError: the tally is closed, or belongs to another event
            loop.

    Cancelled: a prefix of the pieces is applied, each piece whole.
    """
    tally = _usual_tally() or await current_tally()
    return await tally.unmark_unique_many(event, user_ids, timeout=timeout)


async def mark_unique(event: str, user_id: UserId, *, timeout: float | None = None) -> Granularity:
    """Set a user's flag: the bit in the event's bitmap without a date.

    On the running event loop's default tally, which `configure` describes.

    Arguments:
        event: a non-empty str without control characters.
        user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of that
            type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).
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
    return await (_usual_tally() or await current_tally()).mark_unique(
        event, user_id, timeout=timeout
    )


async def unmark_unique(
    event: str, user_id: UserId, *, timeout: float | None = None
) -> Granularity:
    """Clear a user's flag: the bit in the event's bitmap without a date.

    On the running event loop's default tally, which `configure` describes.

    With ``user_ids``, nothing is written for an id that has never been marked.

    Arguments:
        event: a non-empty str without control characters.
        user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of that
            type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).
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
    return await (_usual_tally() or await current_tally()).unmark_unique(
        event, user_id, timeout=timeout
    )


@contextlib.asynccontextmanager
async def transaction(*, timeout: float | None = None) -> AsyncIterator[Transaction[Any]]:
    """Collect several marks and apply them in one ``MULTI``/``EXEC``.

    On the running event loop's default tally, which `configure` describes.

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
    async with (await current_tally()).transaction(timeout=timeout) as collected:
        yield collected
