"""The verbs of `tallymark.Tally` that bring data out and in again: backup and restore.

The queries are in the package `tallymark._reading`, the writes in `tallymark._marking`. Their
modules are imported by the first verb that needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.user_ids import IdT
from .bulk import write_many
from .reads import AsyncReads

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
    from datetime import date
    from typing import Any

    from .._core.batches import Batch
    from .._core.periods import Granularity

__all__ = ["AsyncTransfer"]


class AsyncTransfer(AsyncReads[IdT]):
    """The verbs that export bitmaps and restore them.

    What `AsyncReads` says of the ``timeout`` holds for them too.
    """

    def export(
        self,
        events: str | Iterable[str] | None = None,
        *,
        granularities: Granularity | str | Iterable[Granularity | str] | None = None,
        since: date | None = None,
        until: date | None = None,
        on_skip: Callable[[str, str], object] | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[Batch[IdT], None]:
        """Yield the users of every bitmap, in batches, such as for a backup.

        The batches are in the order of event, granularity (hour, day, week, month, year, unique),
        period and user. Every bitmap is exported by itself, so `restore` brings back weeks and
        months whose days are gone. The times to live of the bitmaps are not exported, nor the
        numbers of users that have no bit.

        The bitmaps are fetched in parts during the iteration, each part of one moment (with
        shards, in each shard), and neither side holds more than some parts in memory, however
        long the bitmaps are. Every bit is exported once that is set from the beginning of the
        iteration to its end. A mark made meanwhile may be exported in some of its bitmaps, in all
        or in none. For a consistent backup, stop marking, or mark the last days again afterwards.
        No connection or key is held between two batches, so the iteration may stop at any time.

        First scans all keys of the database, a thousand at a time (``SCAN``), and keeps the names
        of the bitmaps to export. If the prefix of another tally begins with this tally's prefix,
        its bitmaps are exported too, under longer names.

        Arguments:
            events: one name or several, at most ``max_bitmaps``; ``None`` for all events.
            granularities: a `Granularity`, which may be a combination, such as ``Granularity.DAY |
                Granularity.UNIQUE``; or a name or several, such as ``["day", "unique"]``;
                ``None`` for all.
            since, until: only periods that overlap the time from ``since`` up to, not including,
                ``until``; as ``moment`` of `day`. ``None`` for no limit. With one of the two,
                flags, which have no time, are exported only if ``granularities`` has UNIQUE.
            on_skip: is called with the key and the reason for each key that has the name of a
                bitmap and is not exported, or not whole: one that holds another type; the result
                of an operation that bitmapist has left, unless its event is named in ``events``;
                and, with ``user_ids``, a bitmap of which some users have no id, as after their
                number is lost, or while they are forgotten. By default, all this is skipped
                silently.
            timeout: how many seconds each part may take; ``None`` for the tally's timeout.

        Yields:
            `tallymark.Batch`, each with 1 to 65,536 users of one bitmap. The ids are in a numpy
            array of int64 if numpy is installed and the tally has no ``user_ids``, else in a
            list.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed; nothing was sent.
            WrongSchemaError: the database has other ``shards`` or ``user_ids``; also if no mark
                has stored any, and there are bitmaps that were made without them.
            CommandError: Redis refused a command.
            StoreUnavailableError, StoreTimeoutError: no answer within the timeout.
            OverloadedError: ``max_pending`` reads were waiting.
            ClosedError, WrongEventLoopError: the tally is closed, or belongs to another event
                loop.

        Cancelled: other calls are not affected, and no temporary key is left.
        """
        from .._reading import exporting  # noqa: PLC0415 - see above

        query = exporting.export(self._context, events, granularities, since, until, on_skip)
        return self.backend.reader.pages(query, timeout)

    async def restore(
        self,
        batches: Iterable[Any] | AsyncIterable[Any] | Batch[Any],
        *,
        timeout: float | None = None,
    ) -> dict[Granularity, int]:
        r"""Set the bits that `export` has yielded, in this or in another database.

        Sets exactly the bits of the given bitmaps, and no others: not those of the day's week
        and month. The database may have another prefix, another number of shards, or ids of
        another type: a text becomes the int, the UUID or the bytes that it writes (bytes as
        ``\x`` and hexadecimal digits), and an int, a UUID or bytes become such a text. All other
        ids have to be of the tally's type.

        Bits that are set already stay, so it is safe to repeat, and an interrupted restore is
        completed by another one. The options of this tally apply as to marks: the restored
        bitmaps expire as ``expire`` says, and what would have expired by now is left out;
        ``event_pattern`` and ``max_events`` hold. So restore a whole backup with a tally without
        ``expire``.

        The users are sent in pieces, each a transaction of its own, with those of one bitmap whole
        or of several small ones; marks of other tasks are sent in between. Where the ids lie
        close together (from about one in 4,000), a piece is sent as a bitmap and merged on the
        server.

        Arguments:
            batches: what `export` of any tally yields: an iterable, an async iterable, or a single
                `tallymark.Batch`. The items may also be rows, tuples of event, granularity,
                period and user id as of `Batch.to_rows`; or mappings, data frames and Arrow
                tables with the columns ``event``, ``granularity``, ``period`` and ``user_id``,
                such as the batches of a Parquet file. One mapping or data frame is allowed too.
                A granularity is a `Granularity` or a name; a period is a `Period` or a text such
                as ``2026-01-05``, ``2026-W02`` or ``2026-01-05T13``, and ``None`` or an empty
                text for a flag. The order does not matter, but that of `export` is the fastest.
            timeout: how many seconds the whole call may take, with the time that the iterable
                takes; ``None`` for the tally's timeout for each piece.

        Returns:
            For each granularity of the batches, how many bits this call set that were not set. The
            number may be too low after a broken connection and a retry.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed. The message has the
                index of the row among all rows, and how many ids were written before; nothing of
                the block of up to some 65,000 rows that has the row was sent.
            CommandError, StoreUnavailableError, StoreTimeoutError, OverloadedError: Redis
                refused a piece, or did not answer in time, or ``max_pending`` marks were
                waiting; the message says how many ids were written before. A
                `StoreTimeoutError` also if the iterable did not give its items in time.
            ClosedError, WrongEventLoopError: the tally is closed, or belongs to another event
                loop.

        An async iterable with an ``aclose``, as of async generators, is closed in any case, unless
        the call is refused before it is read.

        Cancelled: a prefix of the pieces is applied, each piece whole.
        """
        from .._marking.restoring import RestoreWrite  # noqa: PLC0415 - see above

        items: Any = batches  # a single batch is one of those that `RestoreWrite` takes
        write = RestoreWrite(self.backend.marker.bitmap_write, self._context.schema)
        return await write_many(self.backend, write, items, timeout)
