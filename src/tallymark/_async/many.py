"""The verbs of `tallymark.Tally` that mark many users: their signatures and their documentation.

`tallymark._async.bulk` sends the marks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.periods import Granularity
from .._core.user_ids import IdT
from .bulk import write_many
from .reads import AsyncReads

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable
    from datetime import date

    from .._core.failures import OnError
    from .._marking.buffering import OnFailure, OnFull
    from .._marking.row_columns import Row, Rows
    from .buffer import Buffer

__all__ = ["AsyncMany"]


class AsyncMany(AsyncReads[IdT]):
    """The verbs that mark many users with one call, and the buffer."""

    async def mark_many(
        self,
        event: str,
        user_ids: Iterable[IdT] | AsyncIterable[IdT],
        *,
        now: date | None = None,
        track_hourly: bool | None = None,
        track_unique: bool | None = None,
        timeout: float | None = None,
    ) -> dict[Granularity, int]:
        """Record that many users did something at the same time.

        The ids are sent in pieces, each a transaction of its own; marks of other tasks are sent
        in between. Where the ids lie close together (from about one in 4,000), a piece is sent
        as a bitmap and merged on the server, some 20 times as fast as bit by bit. The expiry
        of a bitmap is kept.

        Arguments:
            event: a non-empty str without control characters.
            user_ids: ids as `mark_event` takes them, in any order, repetitions allowed: an
                iterable, an async iterable, or a one-dimensional array of integers, of numpy
                or that numpy can read, such as a column of a data frame, which is not copied
                to a list. Arrays with masked or missing values are refused. Other iterables
                than collections are read in blocks of 32,768 ids; each block is sent as soon
                as it is complete.
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
        many = self.backend.marker.mark_many(event, now, track_hourly, track_unique)
        with self.backend.marker.reservation(many):
            return await write_many(self.backend, many, user_ids, timeout)

    async def mark_rows(
        self,
        rows: Rows[IdT] | AsyncIterable[Row[IdT]],
        *,
        track_hourly: bool | None = None,
        track_unique: bool | None = None,
        on_error: OnError | None = None,
        timeout: float | None = None,
    ) -> dict[Granularity, int]:
        """Record many events: each row is an event, a user and a moment.

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
        from .row_bulk import write_rows  # noqa: PLC0415 - few programs need it

        write = self.backend.marker.mark_rows(track_hourly, track_unique)
        return await write_rows(self.backend, write, rows, on_error, timeout)

    async def unmark_many(
        self,
        event: str,
        user_ids: Iterable[IdT] | AsyncIterable[IdT],
        *,
        now: date | None = None,
        track_hourly: bool | None = None,
        track_unique: bool | None = None,
        exact: bool = False,
        timeout: float | None = None,
    ) -> dict[Granularity, int]:
        """Take back what `mark_many` with the same arguments sets.

        Like `unmark_event` for each of the users. With ``exact=True``, it executes a script for
        each user, which takes as long as `unmark_event`. Without, the users are no longer in
        the week and the month, and a bitmap may be extended to hold a 0.

        With ``user_ids``, nothing is written for an id that has never been marked.

        Arguments:
            event: a non-empty str without control characters.
            user_ids: ids as `mark_event` takes them, in any order, repetitions allowed: an
                iterable, an async iterable, or a one-dimensional array of integers, of numpy
                or that numpy can read, such as a column of a data frame, which is not copied
                to a list. Arrays with masked or missing values are refused. Other iterables
                than collections are read in blocks of 32,768 ids; each block is sent as soon
                as it is complete.
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
        many = self.backend.marker.unmark_many(event, now, track_hourly, track_unique, exact)
        with self.backend.marker.reservation(many):
            return await write_many(self.backend, many, user_ids, timeout)

    async def mark_unique_many(
        self,
        event: str,
        user_ids: Iterable[IdT] | AsyncIterable[IdT],
        *,
        timeout: float | None = None,
    ) -> int:
        """Set the flag of many users: their bits in the event's bitmap without a date.

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
        many = self.backend.marker.mark_unique_many(event)
        with self.backend.marker.reservation(many):
            counts = await write_many(self.backend, many, user_ids, timeout)
        return counts[Granularity.UNIQUE]

    async def unmark_unique_many(
        self,
        event: str,
        user_ids: Iterable[IdT] | AsyncIterable[IdT],
        *,
        timeout: float | None = None,
    ) -> int:
        """Take the flag from many users: clear their bits in the event's bitmap without a date.

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
        many = self.backend.marker.unmark_unique_many(event)
        with self.backend.marker.reservation(many):
            counts = await write_many(self.backend, many, user_ids, timeout)
        return counts[Granularity.UNIQUE]

    def buffered(
        self,
        *,
        max_size: int = 10_000,
        on_full: OnFull = "raise",
        on_error: OnFailure | None = None,
        timeout: float | None = None,
    ) -> Buffer[IdT]:
        """Return a buffer, whose marks are plain calls that return at once.

        For marks on which nothing waits, such as those of web requests: the caller gets neither
        the result nor the error of the store. What the process holds in the buffer is lost if
        it is killed. Nothing else is lost silently: the buffer counts what it has accepted,
        sent, dropped and failed.

        Arguments:
            max_size: how many marks may wait in the buffer, from 1 on. Each takes about 250 bytes.
                Beside it, ``max_pending`` bounds the other marks of the tally.
            on_full: what happens to a mark beyond that: ``"raise"`` an `OverloadedError` at its
                call, or ``"drop"`` and count it.
            on_error: is called with an error and a list of `BufferedMark` when marks have
                failed; on the event loop. It may use the buffer, also close it. Its
                exceptions are logged. Without it, failed marks are counted in a warning of the
                logger ``tallymark``, at most every ten seconds.
            timeout: how many seconds after its call a mark fails that Redis has not answered by
                then, more than 0. The seconds in which it waits for its turn count, so what
                ``max_size`` allows has to be sent within them. ``math.inf`` for never, ``None``
                for the tally's timeout.

        Returns:
            A `Buffer`. It can be used at once; close it with ``await buffer.aclose()``, or use
            it in an ``async with`` block.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
        """
        from .._marking.buffering import BufferOptions  # noqa: PLC0415 - few programs need it
        from .buffer import Buffer  # noqa: PLC0415

        default = self.backend.options.timeout
        return Buffer(self.backend, BufferOptions(max_size, on_full, on_error, timeout, default))
