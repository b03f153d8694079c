"""The buffer of a `tallymark.Tally`: marks as plain calls that return at once."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import weakref
from typing import TYPE_CHECKING, Any, Final, Generic

import anyio

from .._core.options import checked_timeout, switches
from .._core.user_ids import IdT
from .._marking.buffering import BufferStats, FailureReport, failures
from .._marking.chunks import FIELDS, Chunk, fields_of
from .._marking.sizing import MAX_BATCH_MARKS
from .._redis.clocks import clocks
from ..errors import ClosedError, StoreTimeoutError, TallymarkError, WrongEventLoopError
from .loop_bound import running_loop

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date
    from types import TracebackType

    from typing_extensions import Self

    from .._marking.buffering import BufferedMark, BufferOptions
    from .._marking.marker import PresentEvent
    from .._marking.marks import Bitmaps, Result
    from .backend import AsyncBackend

__all__ = ["Buffer"]

_log = logging.getLogger("tallymark")

#: A chunk takes marks of at most so many seconds, since they share a deadline.
_CHUNK_SECONDS: Final = 0.01

#: For how many events, times shards, a buffer remembers where their marks go.
_MOST_BITMAPS: Final = 1_000

#: Returns the running event loop, or ``None``.
_running_loop: Final = asyncio._get_running_loop  # noqa: SLF001 - the public one raises

#: The open chunk of a buffer that has none: it has no room.
_NO_CHUNK: Final = Chunk(None, lambda _chunk, _results: None, [])

#: The buffers that have taken marks, for the end of the interpreter.
_used: Final[weakref.WeakSet[Buffer[Any]]] = weakref.WeakSet()


class _Flush:
    """A call of `Buffer.flush` that waits.

    Attributes:
        last: the number of the last chunk for which it waits.
        waiting: how many marks of these chunks have no result yet.
        ended: is set when all have one.
    """

    __slots__ = ("ended", "last", "waiting")

    def __init__(self, last: int, waiting: int, ended: asyncio.Future[None]) -> None:
        self.last = last
        self.waiting = waiting
        self.ended = ended

    def settled(self, chunk: Chunk) -> None:
        """Count the marks of a chunk, or of a part of one, which have their results now."""
        if chunk.whole.number <= self.last:
            self.waiting -= len(chunk)
            if not self.waiting and not self.ended.done():
                self.ended.set_result(None)


class Buffer(Generic[IdT]):
    """Marks of a `Tally` as plain calls, which return at once; made by `Tally.buffered`.

    A mark is checked and dated when it is called, and sent by the tally's group commit. The
    buffer has no task of its own. All its calls have to be made in the thread of the tally's
    event loop, while that loop runs; others raise a `WrongEventLoopError`. `stats` may be called
    in any thread. A handler of ``signal.signal`` must not mark, since it may interrupt another
    mark; one of ``loop.add_signal_handler`` may.

    Marks take effect in the order of their calls, and in that order also with awaited marks of
    the same tally; not with those that wait for a place, of which 10,000 others are before them.
    On a cluster, marks of the buffer keep their order among themselves only.

    ``async with tally.buffered() as buffer:`` closes the buffer at the end of the block, also
    if an exception leaves it.
    """

    def __init__(self, backend: AsyncBackend, options: BufferOptions) -> None:
        """Begin empty.

        Arguments:
            backend: the tally's.
            options: the arguments of `Tally.buffered`.
        """
        self._marker = backend.marker
        self._max_user_id = backend.options.max_user_id
        #: Where the marks of events go, at present.
        self._events: dict[str, PresentEvent] = {}
        self._writer: Any = backend.writer
        self._options = options
        #: The event loop, from the first mark on.
        self._loop: asyncio.AbstractEventLoop | None = None
        #: The process of the last mark; 0 without one. A fork has a copy of the marks, which
        #: the parent sends.
        self._process = 0
        self._closed = False
        self._report = FailureReport(options.on_error, clocks.monotonic)
        # Each of these only grows.
        self._accepted = self._sent = self._failed = self._dropped = 0
        #: The number of the last chunk.
        self._last = 0
        #: The chunk to which marks may be appended; on a cluster, one for each shard.
        self._chunk = _NO_CHUNK
        self._open: dict[int, Chunk] = {}
        self._by_shard: bool = backend.writer.orders_by_shard
        #: Marks that have failed, of which the program was not told yet.
        self._untold: list[tuple[TallymarkError, list[BufferedMark]]] = []
        self._flushes: list[_Flush] = []

    # --- marks

    def mark_event(
        self,
        event: str,
        user_id: IdT,
        *,
        now: date | None = None,
        track_hourly: bool | None = None,
        track_unique: bool | None = None,
    ) -> None:
        """Record that a user did something: set the bits of the month, week and day.

        Arguments:
            event: a non-empty str without control characters.
            user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of
                that type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).
            now: when it happened; the moment of the call by default, also if the mark is sent
                later. An aware datetime is converted to the tally's time zone, a naive
                datetime is taken as in that zone, and a date is its midnight.
            track_hourly: also mark the hour; ``None`` for the tally's option, or without that
                for ``tallymark.TRACK_HOURLY`` at the moment of the call.
            track_unique: also mark the event's dateless bitmap; ``None`` for the tally's
                option, or without that for ``tallymark.TRACK_UNIQUE`` at the moment of the call.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
            OverloadedError: the buffer is full, unless it drops marks then.
            ClosedError, WrongEventLoopError: the buffer or the tally is closed, or belongs to
                another event loop.
        """
        at: date | float
        if now is None is track_hourly is track_unique and type(event) is str:
            # The short way of nearly all marks: what `_accept` and the marker do, in one step.
            at = clocks.time()
            known = self._events.get(event)
            if (
                known is None
                or not known.begins <= at < known.ends
                or known.hourly is not switches.track_hourly
                or known.unique is not switches.track_unique
            ):
                known = self._look_up(event, at)
            if known is not None and type(user_id) is int and 0 <= user_id <= self._max_user_id:
                shards = known.shards
                if len(shards) == 1:
                    bitmaps, offset = shards[0], user_id
                else:
                    offset, shard = divmod(user_id, len(shards))
                    bitmaps = shards[shard]
                if bitmaps is not None:
                    chunk = self._chunk
                    fields = chunk.fields
                    if (
                        len(fields) < chunk.room
                        and _running_loop() is self._loop
                        and clocks.monotonic() < chunk.closes_at
                    ):
                        fields += (bitmaps, offset, 1, user_id, at)
                        self._accepted += 1
                    else:
                        self._accept(bitmaps, offset, 1, user_id, at)
                    return
        else:
            at = clocks.time() if now is None else now
        mark = self._marker.mark_event(event, user_id, now, track_hourly, track_unique)
        self._accept(*fields_of(mark, user_id, at))

    def unmark_event(
        self,
        event: str,
        user_id: IdT,
        *,
        now: date | None = None,
        track_hourly: bool | None = None,
        track_unique: bool | None = None,
    ) -> None:
        """Take a mark back: clear the bits that `mark_event` would set.

        All of them are cleared, as by `Tally.unmark_event` without ``exact``.

        Arguments:
            event: a non-empty str without control characters.
            user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of
                that type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).
            now: when it happened; the moment of the call by default, also if the mark is sent
                later. An aware datetime is converted to the tally's time zone, a naive
                datetime is taken as in that zone, and a date is its midnight.
            track_hourly: also clear the hour's bit; ``None`` for the tally's option, or
                without that for ``tallymark.TRACK_HOURLY`` at the moment of the call.
            track_unique: also clear the event's dateless bit; ``None`` for the tally's option,
                or without that for ``tallymark.TRACK_UNIQUE`` at the moment of the call.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
            OverloadedError: the buffer is full, unless it drops marks then.
            ClosedError, WrongEventLoopError: the buffer or the tally is closed, or belongs to
                another event loop.
        """
        at = clocks.time() if now is None else now
        mark = self._marker.unmark_event(event, user_id, now, track_hourly, track_unique, False)
        self._accept(*fields_of(mark, user_id, at))

    def mark_unique(self, event: str, user_id: IdT) -> None:
        """Set a user's flag: the bit in the event's bitmap without a date.

        Arguments:
            event: a non-empty str without control characters.
            user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of
                that type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
            OverloadedError: the buffer is full, unless it drops marks then.
            ClosedError, WrongEventLoopError: the buffer or the tally is closed, or belongs to
                another event loop.
        """
        self._accept(*fields_of(self._marker.mark_unique(event, user_id), user_id, None))

    def unmark_unique(self, event: str, user_id: IdT) -> None:
        """Clear a user's flag: the bit in the event's bitmap without a date.

        With ``user_ids``, nothing is written for an id that has never been marked.

        Arguments:
            event: a non-empty str without control characters.
            user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of
                that type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
            OverloadedError: the buffer is full, unless it drops marks then.
            ClosedError, WrongEventLoopError: the buffer or the tally is closed, or belongs to
                another event loop.
        """
        self._accept(*fields_of(self._marker.unmark_unique(event, user_id), user_id, None))

    # --- the buffer

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until all marks that were accepted before this call are sent or failed.

        Marks are sent without it as well, at most a fiftieth of a second later.

        Arguments:
            timeout: how many seconds to wait, more than 0; ``math.inf`` for no limit,
                ``None`` for the buffer's timeout.

        Raises:
            InvalidTypeError, InvalidValueError: the timeout is not allowed.
            StoreTimeoutError: some of the marks still wait; the message says how many. They
                stay in the buffer.
            WrongEventLoopError: the buffer belongs to another event loop.

        Cancelled: no mark is lost.
        """
        seconds = self._options.timeout if timeout is None else checked_timeout(timeout)
        loop = self._checked_loop()
        self._open.clear()
        self._chunk = _NO_CHUNK
        flush = _Flush(self._last, self._waiting(), loop.create_future())
        if flush.waiting:
            self._writer.send_now()
            self._flushes.append(flush)
            try:
                with anyio.move_on_after(seconds):
                    await flush.ended
            finally:
                self._flushes.remove(flush)
        self._tell()
        if flush.waiting:
            raise StoreTimeoutError(
                f"{flush.waiting} marks were not sent within {round(seconds, 2):g} s, and still "
                "wait"
            )

    def stats(self) -> BufferStats:
        """Return the counters of the buffer: a `BufferStats`. May be called in any thread."""
        sent, failed, dropped = self._sent, self._failed, self._dropped
        accepted = self._accepted  # after the others, so that the difference is not negative
        return BufferStats(accepted, sent, dropped, failed, accepted - sent - failed)

    async def aclose(self, timeout: float | None = None) -> None:
        """Accept no more marks, and wait until all are sent or failed.

        Marks that still wait at the deadline fail with a `ClosedError`. The tally stays open.
        May be called again.

        Arguments:
            timeout: how many seconds to wait, more than 0; ``math.inf`` for no limit,
                ``None`` for the buffer's timeout.

        Raises:
            InvalidTypeError, InvalidValueError: the timeout is not allowed; the buffer stays
                open.
            WrongEventLoopError: the buffer belongs to another event loop.

        Cancelled: marks that still wait fail at once.
        """
        seconds = self._options.timeout if timeout is None else checked_timeout(timeout)
        self._checked_loop()
        self._closed = True
        try:
            with contextlib.suppress(StoreTimeoutError):  # the marks fail below
                await self.flush(seconds)
        finally:
            if self._waiting():
                self._writer.abandon(self, ClosedError("the buffer was closed"))
            self._tell()
            self._report.end()

    async def __aenter__(self) -> Self:
        """Return the buffer; leaving the block closes it."""
        self._check_usable()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the buffer, also if the block was cancelled."""
        with anyio.CancelScope(shield=True):
            await self.aclose()

    # --- accepting marks

    def _accept(self, *fields: Any) -> None:
        """Accept a mark.

        Arguments:
            fields: those of the mark in a `Chunk`.
        """
        if not self._by_shard:
            chunk = self._chunk
        elif self._waiting() < self._options.max_size:  # in the chunks of all shards
            chunk = self._open.get(fields[0].shard, _NO_CHUNK)
        else:
            chunk = _NO_CHUNK
        appended_to = chunk.fields
        if (
            len(appended_to) < chunk.room
            and _running_loop() is self._loop
            and clocks.monotonic() < chunk.closes_at
            and not fields[0].uncounted
        ):
            appended_to += fields
            self._accepted += 1
        else:
            self._begin_chunk(fields)

    def _look_up(self, event: str, now: float) -> PresentEvent | None:
        """Return where marks of an event and the present go, if that is known."""
        known = self._marker.present_event(event, now)
        if known is not None:
            if event in self._events or len(self._events) * len(known.shards) >= _MOST_BITMAPS:
                self._events.clear()  # others have ended too, or will be there again soon
            self._events[event] = known
        return known

    def _begin_chunk(self, fields: Sequence[Any]) -> None:
        """Accept a mark as the first one of a chunk.

        Raises:
            OverloadedError: there is no room, and marks are not dropped.
            InvalidValueError: the quota of events is used up.
            ClosedError, WrongEventLoopError: the buffer or the tally cannot be used here.
        """
        loop = running_loop()
        self._check_usable()
        if self._loop is None:
            _used.add(self)
        self._loop = loop
        self._process = os.getpid()
        options = self._options
        waiting = self._waiting()
        if waiting >= options.max_size:
            if not options.drops:
                raise options.overloaded(waiting)
            self._dropped += 1
            self._report.drop(options.max_size)
            return
        chunk = Chunk(self, self._settled, list(fields))
        chunk.room = FIELDS * min(MAX_BATCH_MARKS, options.max_size - waiting)
        chunk.closes_at = clocks.monotonic() + _CHUNK_SECONDS
        bitmaps: Bitmaps = fields[0]
        if bitmaps.uncounted:
            self._marker.reserve(chunk)
            chunk.has_reserved = True
            chunk.room = FIELDS
        self._last = chunk.number = self._last + 1
        self._writer.post(chunk, options.timeout)
        self._accepted += 1
        if self._by_shard:
            self._open[bitmaps.shard] = chunk
        else:
            self._chunk = chunk

    def _check_usable(self) -> None:
        if self._closed:
            raise ClosedError("this buffer is closed")
        self._writer.check_usable()

    def _checked_loop(self) -> asyncio.AbstractEventLoop:
        """Return the running event loop.

        Raises:
            WrongEventLoopError: the marks are sent on another one.
        """
        loop = running_loop()
        if self._loop is not None and self._loop is not loop:
            raise WrongEventLoopError("this buffer sends its marks on another event loop")
        return loop

    def _waiting(self) -> int:
        return self._accepted - self._sent - self._failed

    # --- results

    def _settled(self, chunk: Chunk, results: Sequence[Result]) -> None:
        """Count the results of a chunk, or of a part of one."""
        if chunk.whole.has_reserved:
            self._marker.release(list(chunk), results)
        groups = failures(chunk.records(), results)
        failed = sum(len(marks) for _, marks in groups)
        self._failed += failed
        self._sent += len(chunk) - failed
        if groups:
            # Not here, in the middle of the group commit: the program's function may mark.
            if not self._untold:
                asyncio.get_running_loop().call_soon(self._tell)
            self._untold += groups
        for flush in self._flushes:
            flush.settled(chunk)

    def _tell(self) -> None:
        """Tell the program of marks that have failed."""
        untold, self._untold = self._untold, []
        self._report.tell(untold)

    # --- the end without `aclose`

    def __del__(self) -> None:
        """Log how many marks are lost, since their event loop has ended."""
        self._tell_lost()

    def _tell_lost(self) -> None:
        """Log how many marks nobody will send any more, and count them as failed."""
        if not self._process or os.getpid() != self._process:
            return
        self._report.end()
        waiting = self._waiting()
        if waiting:
            self._failed += waiting
            _log.warning(
                "%d buffered marks are lost: their event loop ended before the buffer or the "
                "tally was closed",
                waiting,
            )


@atexit.register
def _tell_lost() -> None:
    """Log the lost marks of buffers that the interpreter would not collect."""
    for buffer in list(_used):
        buffer._tell_lost()  # noqa: SLF001
        buffer._process = 0  # noqa: SLF001 - `os` may be gone when it is collected
