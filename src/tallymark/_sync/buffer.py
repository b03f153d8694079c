"""The buffer of a `tallymark.SyncTally`: marks as plain calls that return at once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic

from .._core.options import checked_timeout
from .._core.user_ids import IdT
from .._marking.buffering import BufferStats
from .._redis.clocks import clocks
from ..errors import ReentrantCallError, StoreTimeoutError
from .sender import Sender

if TYPE_CHECKING:
    from datetime import date
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["SyncBuffer"]


class SyncBuffer(Sender, Generic[IdT]):
    """Marks of a `SyncTally` as plain calls, which return at once; made by `SyncTally.buffered`.

    A mark is checked and dated when it is called. A daemon thread, started by the first mark,
    sends it, also if the program does not hold the buffer any more. Any number of threads may
    mark, and signal handlers too, which may also call `flush` and `close` unless they have
    interrupted another call of a tally. Marks take effect in the order of their calls, among
    those of this buffer; to have them applied before other calls of the tally, call `flush`.

    A child process after ``fork`` begins with an empty buffer and zero counters: the parent sends
    what it has accepted. The end of the process closes the buffer, also after an exception such
    as `SystemExit` or `KeyboardInterrupt`; a mark after that raises a `ClosedError`. Marks that
    wait are lost if the process ends in another way: by `os._exit`, by a signal without a handler,
    such as SIGTERM, or if it is killed.

    ``with tally.buffered() as buffer:`` closes the buffer at the end of the block, also if an
    exception leaves it.
    """

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
            ClosedError: the buffer or the tally is closed, or the process ends.
            TallymarkError: the system has no thread to send the mark, which is not accepted.
        """
        at = clocks.time() if now is None else now
        mark = self._marker.mark_event(event, user_id, now, track_hourly, track_unique)
        self._accept(mark, user_id, at)

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

        All of them are cleared, as by `SyncTally.unmark_event` without ``exact``.

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
            ClosedError: the buffer or the tally is closed, or the process ends.
            TallymarkError: the system has no thread to send the mark, which is not accepted.
        """
        at = clocks.time() if now is None else now
        mark = self._marker.unmark_event(event, user_id, now, track_hourly, track_unique, False)
        self._accept(mark, user_id, at)

    def mark_unique(self, event: str, user_id: IdT) -> None:
        """Set a user's flag: the bit in the event's bitmap without a date.

        Arguments:
            event: a non-empty str without control characters.
            user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of
                that type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
            OverloadedError: the buffer is full, unless it drops marks then.
            ClosedError: the buffer or the tally is closed, or the process ends.
            TallymarkError: the system has no thread to send the mark, which is not accepted.
        """
        self._accept(self._marker.mark_unique(event, user_id), user_id, None)

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
            ClosedError: the buffer or the tally is closed, or the process ends.
            TallymarkError: the system has no thread to send the mark, which is not accepted.
        """
        self._accept(self._marker.unmark_unique(event, user_id), user_id, None)

    # --- the buffer

    def flush(self, timeout: float | None = None) -> None:
        """Wait until all marks that were accepted before this call are sent or failed.

        Marks are sent without it as well, at most a fiftieth of a second later.

        Arguments:
            timeout: how many seconds to wait, more than 0; ``math.inf`` for no limit,
                ``None`` for the buffer's timeout.

        Raises:
            InvalidTypeError, InvalidValueError: the timeout is not allowed.
            StoreTimeoutError: some of the marks still wait; the message says how many. They
                stay in the buffer.
            ReentrantCallError: the call is made by ``on_error``, for which the marks wait; or by
                a signal handler that has interrupted another call of a tally.
            TallymarkError: the system has no thread to send the marks, which still wait.
        """
        seconds = self._options.timeout if timeout is None else checked_timeout(timeout)
        if self._thread is threading.current_thread():
            raise ReentrantCallError("on_error cannot wait for the marks of its own buffer")
        self._check_may_wait()
        waiting = self._wait(seconds)
        if waiting:
            raise StoreTimeoutError(
                f"{waiting} marks were not sent within {round(seconds, 2):g} s, and still wait"
            )

    def stats(self) -> BufferStats:
        """Return the counters of the buffer: a `BufferStats`."""
        with self._lock:
            sent, failed, waiting = self._counters()
        return BufferStats(sent + failed + waiting, sent, self._dropped, failed, waiting)

    def close(self, timeout: float | None = None) -> None:
        """Accept no more marks, and wait until all are sent or failed, and ``on_error`` told.

        Marks that still wait at the deadline fail with a `ClosedError`, of which ``on_error`` is
        told in the thread of this call. The tally stays open. May be called again, by a signal
        handler, and by ``on_error``, for which it does not wait.

        Arguments:
            timeout: how many seconds to wait, more than 0; ``math.inf`` for no limit,
                ``None`` for the buffer's timeout.

        Raises:
            InvalidTypeError, InvalidValueError: the timeout is not allowed; the buffer stays
                open.
            ReentrantCallError: marks wait, and the call is made by a signal handler that has
                interrupted another call of a tally, for which they may wait; the buffer stays
                open.
            TallymarkError: the system had no thread to send the marks, which have failed.
        """
        seconds = self._options.timeout if timeout is None else checked_timeout(timeout)
        is_own_thread = self._thread is threading.current_thread()
        if not is_own_thread:
            self._check_may_wait()
        with self._lock:
            self._closed = True
        self._wake.put(self)
        if is_own_thread:
            return
        try:
            self._wait(seconds, until_told=True)
        finally:
            self._abandon()
            self._report.end()

    def __enter__(self) -> Self:
        """Return the buffer; leaving the block closes it."""
        self._check_usable()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the buffer."""
        self.close()
