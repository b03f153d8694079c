"""The buffer of a `tallymark.SyncTally`: marks as plain calls that return at once."""

from __future__ import annotations

import atexit
import contextlib
import sys
import threading
import weakref
from collections import deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Generic

from .._core.failures import with_outcome
from .._core.options import checked_timeout
from .._core.user_ids import IdT
from .._marking.buffering import GATHERED, GATHERING, BufferStats, FailureReport, failures
from .._marking.chunks import retriable_indexes
from .._marking.sizing import MAX_BATCH_MARKS
from .._redis.clocks import clocks
from ..errors import ClosedError, ReentrantCallError, StoreTimeoutError, TallymarkError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date
    from types import TracebackType

    from typing_extensions import Self

    from .._marking.buffering import BufferOptions
    from .._marking.chunks import Record
    from .._marking.marks import Mark, Result
    from .backend import SyncBackend

__all__ = ["SyncBuffer"]

#: How many seconds a thread without marks waits before it looks whether its buffer is gone.
_LOOK_INTERVAL: Final = 5.0

#: The buffers that may hold marks, which the end of the process closes.
_used: Final[weakref.WeakSet[SyncBuffer[Any]]] = weakref.WeakSet()


class SyncBuffer(Generic[IdT]):
    """Marks of a `SyncTally` as plain calls, which return at once; made by `SyncTally.buffered`.

    A mark is checked and dated when it is called. A daemon thread, started by the first mark,
    sends it. Any number of threads may mark, and signal handlers too. Marks take effect in the
    order of their calls, among those of this buffer; to have them applied before other calls of
    the tally, call `flush`.

    A child process after ``fork`` begins with an empty buffer and zero counters: the parent sends
    what it has accepted. The end of the process closes the buffer, also after an exception such
    as `SystemExit` or `KeyboardInterrupt`. Marks that wait are lost if the process ends in another
    way: by `os._exit`, by a signal without a handler, such as SIGTERM, or if it is killed.

    ``with tally.buffered() as buffer:`` closes the buffer at the end of the block, also if an
    exception leaves it.
    """

    def __init__(self, backend: SyncBackend, options: BufferOptions) -> None:
        """Begin empty, without a thread.

        Arguments:
            backend: the tally's.
            options: the arguments of `SyncTally.buffered`.
        """
        self._backend = backend
        self._marker = backend.marker
        self._options = options
        self._closed = False
        self._begin_anew()
        backend.buffers.add(self)

    def _begin_anew(self) -> None:
        """Begin empty, without a thread, as in a child process."""
        #: Re-entrant, since signal handlers may mark. Held for few operations, never while waiting.
        self._lock = threading.RLock()
        self._report = FailureReport(self._options.on_error, clocks.monotonic)
        self._sent = self._failed = self._dropped = 0
        #: The marks that wait, each with its deadline, and those that the thread sends.
        self._records: deque[tuple[Record, float]] = deque()
        self._in_flight: list[Record] = []
        self._thread: threading.Thread | None = None
        #: Wakes the thread if it waits for marks. Unlike an event, it may be used by a signal
        #: handler that has interrupted the same function.
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._sleeps = False
        #: What wakes each `flush`.
        self._flushes: list[SimpleQueue[None]] = []

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
            ClosedError: the buffer or the tally is closed.
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
            ClosedError: the buffer or the tally is closed.
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
            ClosedError: the buffer or the tally is closed.
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
            ClosedError: the buffer or the tally is closed.
        """
        self._accept(self._marker.unmark_unique(event, user_id), user_id, None)

    # --- the buffer

    def flush(self, timeout: float | None = None) -> None:
        """Wait until all marks that were accepted before this call are sent or failed.

        Marks are sent without it as well, at most a hundredth of a second later.

        Arguments:
            timeout: how many seconds to wait, more than 0; ``math.inf`` for no limit,
                ``None`` for the buffer's timeout.

        Raises:
            InvalidTypeError, InvalidValueError: the timeout is not allowed.
            StoreTimeoutError: some of the marks still wait; the message says how many. They
                stay in the buffer.
            ReentrantCallError: the call is made by ``on_error``, for which the marks wait.
        """
        seconds = self._options.timeout if timeout is None else checked_timeout(timeout)
        if self._thread is threading.current_thread():
            raise ReentrantCallError("on_error cannot wait for the marks of its own buffer")
        waiting = self._wait(seconds)
        if waiting:
            raise StoreTimeoutError(
                f"{waiting} marks were not sent within {round(seconds, 2):g} s, and still wait"
            )

    def stats(self) -> BufferStats:
        """Return the counters of the buffer: a `BufferStats`."""
        with self._lock:
            waiting = len(self._records) + len(self._in_flight)
            accepted = self._sent + self._failed + waiting
            return BufferStats(accepted, self._sent, self._dropped, self._failed, waiting)

    def close(self, timeout: float | None = None) -> None:
        """Accept no more marks, and wait until all are sent or failed.

        Marks that still wait at the deadline fail with a `ClosedError`. The tally stays open.
        May be called again, and by ``on_error``, for which it does not wait.

        Arguments:
            timeout: how many seconds to wait, more than 0; ``math.inf`` for no limit,
                ``None`` for the buffer's timeout.

        Raises:
            InvalidTypeError, InvalidValueError: the timeout is not allowed; the buffer stays
                open.
        """
        seconds = self._options.timeout if timeout is None else checked_timeout(timeout)
        self._closed = True
        self._backend.buffers.discard(self)
        self._wake.put(None)
        if self._thread is threading.current_thread():
            return
        try:
            self._wait(seconds)
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

    # --- accepting marks

    def _accept(self, mark: Mark, user_id: IdT, now: date | float | None) -> None:
        options = self._options
        if self._closed or mark.bitmaps.uncounted or self._thread is None:
            self._begin(mark)
        record = (mark, user_id, now)
        with self._lock:
            records = self._records
            waiting = len(records) + len(self._in_flight)
            if waiting < options.max_size:
                records.append((record, clocks.monotonic() + options.timeout))
                if self._sleeps or len(records) == GATHERED:
                    self._sleeps = False
                    self._wake.put(None)
                return
            if options.drops:
                self._dropped += 1
        if mark.bitmaps.uncounted:
            self._marker.release((mark,), error=TallymarkError("nothing was sent"))
        if not options.drops:
            raise options.overloaded(waiting)

    def _begin(self, mark: Mark) -> None:
        """Check that the buffer is usable, reserve a place for an event, start the thread."""
        self._check_usable()
        if mark.bitmaps.uncounted:
            self._marker.reserve((mark,))
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=_send_marks,
                    args=(weakref.ref(self), self._wake),
                    name="tallymark-buffer",
                    daemon=True,
                )
                _close_at_end(self)
                self._thread.start()

    def _check_usable(self) -> None:
        if self._closed:
            raise ClosedError("this buffer is closed")
        self._backend.writer.check_usable()

    # --- waiting

    def _wait(self, seconds: float) -> int:
        """Wait until all marks of this moment have ended; return how many have not."""
        deadline = clocks.monotonic() + seconds
        ended: SimpleQueue[None] = SimpleQueue()
        with self._lock:
            target = self._sent + self._failed + len(self._records) + len(self._in_flight)
            self._flushes.append(ended)
        self._wake.put(None)  # if marks gather
        try:
            while self._sent + self._failed < target:
                left = deadline - clocks.monotonic()
                if left <= 0:
                    break
                try:
                    ended.get(timeout=min(left, threading.TIMEOUT_MAX))
                except Empty:
                    break
        finally:
            self._flushes.remove(ended)
        return max(0, target - self._sent - self._failed)

    def _abandon(self) -> None:
        """Fail all marks that wait."""
        with self._lock:
            waiting = [record for record, _ in self._records]
            in_flight, self._in_flight = self._in_flight, []
            self._records.clear()
            self._failed += len(waiting) + len(in_flight)
        for records, sent in ((in_flight, True), (waiting, False)):
            failure = ClosedError("the buffer was closed")
            error = with_outcome(failure, sent=sent, timeout=self._options.timeout)
            self._tell(records, [error] * len(records))

    def _tell(self, records: Sequence[Record], results: Sequence[Result]) -> None:
        if any(mark.bitmaps.uncounted for mark, _, _ in records):
            self._marker.release([mark for mark, _, _ in records], results)
        self._report.tell(failures(records, results))

    # --- the thread

    def _send_some(self) -> bool:
        """Send some of the marks that wait, in the thread; return whether there were any."""
        with self._lock:
            records, deadline = self._take()
            self._in_flight = records
            if not records:
                self._sleeps = True
                return False
        results = self._send([mark for mark, _, _ in records], deadline)
        with self._lock:
            if self._in_flight is not records:  # `close` has failed them
                return True
            failed = sum(isinstance(result, TallymarkError) for result in results)
            self._in_flight = []
            self._failed += failed
            self._sent += len(records) - failed
        self._tell(records, results)
        for ended in list(self._flushes):
            ended.put(None)
        return True

    def _gathering(self) -> float:
        """Return for how many seconds marks should gather now; 0.0 if they should be sent."""
        if self._closed or self._flushes or not 0 < len(self._records) < GATHERED:
            return 0.0
        return min(GATHERING, self._options.timeout / 4)

    def _has_ended(self) -> bool:
        """Return whether the buffer is closed, and has no marks any more."""
        return self._closed and not self._records

    def _take(self) -> tuple[list[Record], float]:
        """Return the records of the next batch, and when to give up on them."""
        records: list[Record] = []
        deadline = 0.0
        while self._records and len(records) < MAX_BATCH_MARKS:
            record, deadline = self._records.popleft()
            records.append(record)
        return records, deadline

    def _send(self, marks: list[Mark], deadline: float) -> Sequence[Result]:
        results: list[Result] = []
        repeated = list(range(len(marks)))
        while repeated:
            some = [marks[index] for index in repeated]
            left = max(0.001, deadline - clocks.monotonic())
            own: list[Result]
            try:
                own = self._backend.writer.submit_together(some, left)
            except TallymarkError as error:
                own = [error] * len(some)
            except Exception as error:  # noqa: BLE001 - the thread has to go on
                failure = TallymarkError(f"the marks may or may not have been applied: {error!r}")
                failure._may_be_applied = True  # noqa: SLF001
                own = [failure] * len(some)
            if not results:
                results = own
            else:
                for index, result in zip(repeated, own, strict=True):
                    results[index] = result
            repeated = retriable_indexes(results)
        return results


def _send_marks(reference: weakref.ref[SyncBuffer[Any]], wake: SimpleQueue[None]) -> None:
    """Send the marks of a buffer, until it is closed, or nobody has it any more."""
    while True:
        buffer = reference()
        if buffer is None:
            return
        if seconds := buffer._gathering():  # noqa: SLF001 - its thread
            with contextlib.suppress(Empty):
                wake.get(timeout=seconds)
        if buffer._send_some():  # noqa: SLF001
            continue
        if buffer._has_ended():  # noqa: SLF001
            return
        del buffer
        try:
            wake.get(timeout=_LOOK_INTERVAL)
        except Empty:
            continue


def _close_at_end(buffer: SyncBuffer[Any]) -> None:
    """Have the end of this process close a buffer."""
    if not _used:
        atexit.register(_close_all)
    _used.add(buffer)
    # A child process of multiprocessing ends without functions of `atexit`.
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(buffer, _close_all, exitpriority=0)


def _close_all() -> None:
    """Close all buffers, within the timeout of each."""
    for buffer in list(_used):
        buffer.close()
