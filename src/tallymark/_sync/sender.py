"""What a buffer of a `tallymark.SyncTally` does: accepts marks, sends them in a thread, waits.

A signal handler can interrupt the main thread anywhere, also while it holds the lock of a buffer,
and may mark, flush and close there. So `Sender._wait` lets go of the lock, and whoever holds
it takes steps that are right if something else happens between any two of them.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import weakref
from collections import deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from .._core.failures import with_outcome
from .._marking.buffering import GATHERED, GATHERING, FailureReport, failures
from .._marking.chunks import retriable_indexes
from .._marking.sizing import MAX_BATCH_MARKS
from .._redis.clocks import clocks
from ..errors import ClosedError, ReentrantCallError, StoreTimeoutError, TallymarkError
from .leadership import entered_threads

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date

    from .._marking.buffering import BufferOptions
    from .._marking.chunks import Record
    from .._marking.marks import Mark, Result
    from .backend import SyncBackend

__all__ = ["Sender"]

#: How many seconds a thread without marks waits before it looks whether its buffer is gone.
_LOOK_INTERVAL: Final = 5.0

#: Marks that have less time left are not sent: a batch that times out costs a connection, and
#: so the next batches their time as well. In seconds, and as a part of the timeout.
_MIN_TIME: Final = 0.25
_MIN_SHARE: Final = 1 / 20

#: The buffers of this process, which its end closes.
_buffers: Final[weakref.WeakSet[Sender]] = weakref.WeakSet()


class Sender:
    """Accepts marks, and sends them in a daemon thread, which the first mark starts."""

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
        _buffers.add(self)

    def _begin_anew(self) -> None:
        """Begin empty, without a thread, as in a child process."""
        #: Re-entrant, since signal handlers may mark. Held for few operations, and while a thread
        #: starts; never while waiting for marks.
        self._lock = threading.RLock()
        #: Held by the mark that starts the thread. No call waits for it.
        self._starting = threading.Lock()
        self._report = FailureReport(self._options.on_error, clocks.monotonic)
        self._sent = self._failed = self._dropped = 0
        #: The marks that wait, each with its deadline, and those that the thread sends.
        self._records: deque[tuple[Record, float]] = deque()
        self._in_flight: list[Record] = []
        #: Whether the thread is about to call `on_error`, or calls it.
        self._tells = False
        #: ``None`` if there is no thread that sends.
        self._thread: threading.Thread | None = None
        #: Wakes the thread if it waits for marks, and holds the buffer until then. Unlike an
        #: event, it may be used by a signal handler that has interrupted the same function.
        self._wake: SimpleQueue[Sender] = SimpleQueue()
        self._sleeps = False
        #: What wakes each call that waits for marks.
        self._waiters: list[SimpleQueue[None]] = []

    # --- accepting marks

    def _accept(self, mark: Mark, user_id: Any, now: date | float | None) -> None:
        options = self._options
        has_begun = True
        if self._closed or mark.bitmaps.uncounted or self._thread is None:
            has_begun = self._begin(mark)
        item = ((mark, user_id, now), clocks.monotonic() + options.timeout)
        with self._lock:
            waiting = len(self._records) + len(self._in_flight)
            is_accepted = waiting < options.max_size and not self._closed
            if is_accepted:
                self._records.append(item)
                is_accepted = not self._closed or not self._take_back(item)
            if is_accepted and (self._sleeps or len(self._records) == GATHERED):
                self._sleeps = False
                self._wake.put(self)
            is_closed = self._closed
            if options.drops and not (is_accepted or is_closed):
                self._dropped += 1
        if is_accepted:
            if not has_begun and self._thread is None:  # the other call may have failed
                with contextlib.suppress(TallymarkError):  # `on_error` has been told of it
                    self._start_alone()
            return
        if mark.bitmaps.uncounted:
            self._marker.release((mark,), error=TallymarkError("nothing was sent"))
        if is_closed:
            self._check_usable()
        if not options.drops:
            raise options.overloaded(waiting)
        self._report.drop(options.max_size)

    def _take_back(self, item: tuple[Record, float]) -> bool:
        """Remove the last mark, before which a signal handler has closed the buffer.

        Return ``False`` if the mark was there in time: the thread or `_abandon` has taken it.
        """
        if not self._records or self._records[-1] is not item:
            return False
        self._records.pop()
        return True

    def _begin(self, mark: Mark) -> bool:
        """Check that the buffer is usable, reserve a place for an event, start the thread.

        Return ``False`` if another call is starting the thread.
        """
        self._check_usable()
        if mark.bitmaps.uncounted:
            self._marker.reserve((mark,))
        try:
            return self._start_alone()
        except BaseException as error:
            if mark.bitmaps.uncounted:
                self._marker.release((mark,), error=error)
            raise

    def _start_alone(self) -> bool:
        """Start the thread, unless there is one; return ``False`` if another call is starting it.

        Starting a thread takes long. A signal handler that interrupts it may mark too, but not
        start another thread: handlers that come often would interrupt each other without end.

        Raises:
            TallymarkError: the system has no thread; the marks that wait for it have failed.
        """
        if not self._starting.acquire(blocking=False):
            return False
        try:
            try:
                self._start()
            finally:
                self._starting.release()
        except TallymarkError as error:
            self._fail_waiting(error)
            raise
        return True

    def _check_usable(self) -> None:
        if self._closed:
            raise ClosedError("this buffer is closed")
        if _end.has_come:
            raise ClosedError("the process ends, and nothing would send the mark")
        self._backend.writer.check_usable()

    def _start(self) -> None:
        """Start the thread, unless there is one.

        Raises:
            TallymarkError: the system has no thread for it; the next mark tries again.
        """
        if self._thread is not None:
            return
        _end.prepare()
        wake: SimpleQueue[Sender] = SimpleQueue()
        wake.put(self)
        thread = threading.Thread(
            target=_send_marks, args=(wake,), name="tallymark-buffer", daemon=True
        )
        with self._lock:
            if self._thread is None:  # nor started by a signal handler
                self._wake = wake
                self._sleeps = False
            if self._wake is not wake:
                return
            try:
                thread.start()
            except RuntimeError as error:
                raise TallymarkError(f"the buffer cannot start its thread: {error}") from error
            if self._wake is wake:
                self._thread = thread

    # --- waiting

    def _check_may_wait(self) -> None:
        """Raise a `ReentrantCallError` if marks wait, perhaps for this very thread.

        A signal handler or an observer may have interrupted the call of this thread that has
        the connection which threads share.
        """
        with self._lock:
            waiting = self._counters()[2]
        if waiting and threading.get_ident() in entered_threads:
            raise ReentrantCallError(
                f"{waiting} marks of the buffer may wait for the call of the tally that is "
                "interrupted here; leave the handler first, as by sys.exit()"
            )

    def _wait(self, seconds: float, *, until_told: bool = False) -> int:
        """Wait until all marks of this moment have ended; return how many have not.

        Arguments:
            seconds: how long.
            until_told: whether to wait for ``on_error`` as well.
        """
        deadline = clocks.monotonic() + seconds
        ended: SimpleQueue[None] = SimpleQueue()
        with self._without_lock():
            with self._lock:
                target = sum(self._counters())
                self._waiters.append(ended)
            try:
                if self._records:
                    self._start()
                self._wake.put(self)  # if marks gather
                while self._sent + self._failed < target or (until_told and self._tells):
                    left = deadline - clocks.monotonic()
                    if left <= 0:
                        break
                    with contextlib.suppress(Empty):
                        ended.get(timeout=min(left, threading.TIMEOUT_MAX))
            finally:
                self._waiters.remove(ended)
        return max(0, target - self._sent - self._failed)

    @contextlib.contextmanager
    def _without_lock(self) -> Iterator[None]:
        """Let go of the lock, which this thread may hold if a signal handler is running."""
        depth = 0
        try:
            with contextlib.suppress(RuntimeError):  # this thread does not hold it any more
                while True:
                    self._lock.release()
                    depth += 1
            yield
        finally:
            for _ in range(depth):
                self._lock.acquire()

    def _counters(self) -> tuple[int, int, int]:
        """Return how many marks were sent, have failed, and wait; the lock must be held."""
        counters = (-1, -1, -1)
        while True:
            last = counters
            waiting = len(self._records) + len(self._in_flight)
            counters = (self._sent, self._failed, waiting)
            if counters == last:  # no signal handler has waited meanwhile
                return counters

    def _abandon(self) -> None:
        """Fail all marks, since the buffer was closed."""
        with self._lock:
            in_flight, self._in_flight = self._in_flight, []
            self._failed += len(in_flight)
        failure = ClosedError("the buffer was closed")
        error = with_outcome(failure, sent=True, timeout=self._options.timeout)
        self._tell(in_flight, [error] * len(in_flight), Exception)
        self._fail_waiting(failure)

    def _fail_waiting(self, failure: TallymarkError) -> None:
        """Fail the marks of which nothing was sent."""
        none: deque[tuple[Record, float]] = deque()
        with self._lock:
            waiting, self._records = self._records, none
            self._failed += len(waiting)
        error = with_outcome(failure, sent=False, timeout=self._options.timeout)
        self._tell([record for record, _ in waiting], [error] * len(waiting), Exception)

    def _tell(
        self,
        records: Sequence[Record],
        results: Sequence[Result],
        logged: type[BaseException],
    ) -> None:
        if any(mark.bitmaps.uncounted for mark, _, _ in records):
            self._marker.release([mark for mark, _, _ in records], results)
        self._report.tell(failures(records, results), logged)

    # --- the thread

    def _takes_over(self, wake: SimpleQueue[Sender]) -> bool:
        """Make the current thread that of the buffer, unless a later one was started."""
        with self._lock:
            if self._wake is not wake:
                return False
            self._thread = threading.current_thread()
            return True

    def _retire(self, wake: SimpleQueue[Sender]) -> None:
        """Have the next mark start another thread; the current one ends."""
        with self._lock:
            if self._wake is wake:
                self._thread = None

    def _send_some(self) -> bool:
        """Send some of the marks that wait, in the thread; return whether there were any."""
        with self._lock:
            records, late, deadline = self._take()
            self._in_flight = records
            if not records:
                self._sleeps = True
                return False
        results = self._send([mark for mark, _, _ in records[late:]], deadline)
        if late:
            error = with_outcome(
                StoreTimeoutError(),
                sent=False,
                timeout=self._options.timeout,
                missed="its turn did not come",
            )
            results = [*[error] * late, *results]
        with self._lock:
            if self._in_flight is not records:  # `close` has failed them
                return True
            failed = sum(isinstance(result, TallymarkError) for result in results)
            self._tells = bool(failed)
            self._in_flight = []
            self._failed += failed
            self._sent += len(records) - failed
        self._notify()
        try:
            self._tell(records, results, BaseException)
        finally:
            if failed:
                self._tells = False
                self._notify()
        return True

    def _notify(self) -> None:
        """Wake the calls that wait for marks."""
        for ended in list(self._waiters):
            ended.put(None)

    def _gathering(self) -> float:
        """Return for how many seconds marks should gather now; 0.0 if they should be sent."""
        if self._closed or self._waiters or not 0 < len(self._records) < GATHERED:
            return 0.0
        return min(GATHERING, self._options.timeout / 4)

    def _has_ended(self) -> bool:
        """Return whether the buffer is closed, and has no marks any more."""
        return self._closed and not self._records

    def _min_time(self) -> float:
        """Return how many seconds a mark must have left to be sent."""
        return min(_MIN_TIME, self._options.timeout * _MIN_SHARE)

    def _take(self) -> tuple[list[Record], int, float]:
        """Return the records of the next batch, how many are too late, when to give up on it."""
        records: list[Record] = []
        late = 0
        deadline = 0.0
        earliest = clocks.monotonic() + self._min_time()
        while self._records and len(records) < MAX_BATCH_MARKS:
            record, deadline = self._records.popleft()
            records.append(record)
            if deadline <= earliest:
                late = len(records)
        return records, late, deadline

    def _send(self, marks: list[Mark], deadline: float) -> Sequence[Result]:
        results: list[Result] = []
        repeated = list(range(len(marks)))
        while repeated:
            some = [marks[index] for index in repeated]
            until = max(deadline, clocks.monotonic() + self._min_time())
            own: list[Result]
            try:
                own = self._backend.writer.submit_buffered(some, until, self._options.timeout)
            except TallymarkError as error:
                own = [error] * len(some)
            except BaseException as error:  # noqa: BLE001 - the thread has to go on
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


def _send_marks(wake: SimpleQueue[Sender]) -> None:
    """Send the marks of a buffer, until it is closed, or nobody has it any more.

    Holds the buffer while it has marks, so that they are sent if nobody else does.
    """
    first = wake.get()
    if not first._takes_over(wake):  # noqa: SLF001 - its thread
        return
    buffer: Sender | None = first
    del first
    try:
        while buffer is not None:
            if seconds := buffer._gathering():  # noqa: SLF001
                with contextlib.suppress(Empty):
                    wake.get(timeout=seconds)
            if buffer._send_some():  # noqa: SLF001
                continue
            if buffer._has_ended():  # noqa: SLF001
                return
            reference = weakref.ref(buffer)
            buffer = None
            try:
                buffer = wake.get(timeout=_LOOK_INTERVAL)
            except Empty:
                buffer = reference()
    finally:
        if buffer is not None:
            buffer._retire(wake)  # noqa: SLF001


class _End:
    """The end of this process, which closes its buffers."""

    def __init__(self) -> None:
        self.has_come = False
        self._finalizer_of: int | None = None
        # Before the functions that the program registers once it has a buffer: those run first.
        atexit.register(self._close_all)

    def prepare(self) -> None:
        """Have a child process of multiprocessing close its buffers: it runs no `atexit`."""
        util = sys.modules.get("multiprocessing.util")
        if util is not None and self._finalizer_of != os.getpid():
            self._finalizer_of = os.getpid()
            util.Finalize(None, self._close_all, exitpriority=0)

    def _close_all(self) -> None:
        """Close all buffers, within the timeout of each; none can be used any more."""
        self.has_come = True
        for buffer in list(_buffers):
            close: Any = getattr(buffer, "close")  # noqa: B009
            close()


_end: Final = _End()
