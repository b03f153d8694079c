"""The blocking driver's writer: admits calls, counts their marks, and sends them."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from .._cluster.batches import batches
from .._core.failures import TRANSIENT, Attempts, overloaded, with_outcome
from .._core.options import checked_timeout
from .._marking.batch import MAX_COMMAND_MARKS
from .._marking.marks import record_sent
from .._marking.stats import Totals
from .._reading.execution import Traffic, retried
from .._redis.clocks import clocks
from .._redis.errors import let_pass
from ..errors import ClosedError, StoreError, StoreTimeoutError
from .leadership import AGAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._core.options import Options
    from .._marking.marks import Mark, Result
    from .._marking.stats import Stats
    from .._reading.execution import Answerable, Execution
    from .group_commit import GroupCommit

__all__ = ["SyncWriter", "Writer", "outcome"]


class Writer:
    """Admits calls with marks, and counts them. Threads may share it."""

    def __init__(self, options: Options, run: Callable[[Execution[Any]], Any]) -> None:
        """Begin idle.

        Arguments:
            options: the tally's options.
            run: performs an execution.
        """
        self._options = options
        self._timeout = options.timeout
        self._max_pending = options.max_pending
        self._has_quota = options.max_events is not None
        self._run = run
        self._closed = False
        self._totals = Totals()
        self.renew_locks()

    def renew_locks(self) -> None:
        """Begin with an unheld lock and no calls in progress, as in a forked child process."""
        self._totals_lock = threading.RLock()
        #: How many marks each call in progress has. Each call has an entry of its own: a
        #: sum could be left wrong if a signal handler raises.
        self._pending: dict[object, int] = {}

    def check_usable(self) -> None:
        """Raise a `ClosedError` after `close`."""
        if self._closed:
            raise ClosedError("this tally is closed")

    def submit(self, mark: Mark, timeout: float | None = None) -> Result:
        """Send a mark; return its result.

        Arguments:
            mark: the mark.
            timeout: the timeout in seconds; ``None`` for the tally's.

        Raises:
            ClosedError: the tally is closed.
            OverloadedError: too many marks are waiting.
            InvalidTypeError, InvalidValueError: the timeout is not allowed.
            StoreError: there is no reply; the message says whether the mark may have been
                applied.
        """
        (result,) = self.submit_together((mark,), timeout)
        return result

    def submit_together(self, marks: Sequence[Mark], timeout: float | None = None) -> list[Result]:
        """Send one or more marks in one transaction; return their results. Raises as `submit`."""
        if self._closed:
            self.check_usable()
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        deadline = clocks.monotonic() + seconds
        pending = self._pending
        if pending and (waiting := self._waiting()) >= self._max_pending:
            raise overloaded(waiting, "marks", self._max_pending)
        key = object()
        try:
            try:
                pending[key] = len(marks)
                if self._has_quota:
                    # Before the first byte: a signal handler may raise at any moment after it.
                    record_sent(marks)
                return self._send(marks, deadline, seconds)
            finally:
                pending.pop(key, None)
        finally:
            pending.pop(key, None)  # if a signal handler raised in the inner one

    def submit_buffered(
        self, marks: Sequence[Mark], deadline: float, seconds: float
    ) -> list[Result]:
        """Send marks of a buffer, which take none of the places of ``max_pending``.

        Arguments:
            marks, deadline, seconds: as for `_send`.

        Raises:
            ClosedError, StoreError: as `submit`.
        """
        self.check_usable()
        if self._has_quota:
            record_sent(marks)
        return self._send(marks, deadline, seconds)

    def stats(self) -> Stats:
        """Return the counters so far."""
        totals = Totals()
        totals.add(self._totals)
        self._add_shared(totals)
        return totals.stats(self._waiting())

    def close(self) -> None:
        """Accept no more marks; calls of other threads go on."""
        self._closed = True

    def _waiting(self) -> int:
        """Return how many marks the calls in progress have."""
        return sum(list(self._pending.values()))

    def _send(self, marks: Sequence[Mark], deadline: float, seconds: float) -> list[Result]:
        """Send marks.

        Arguments:
            marks: the marks.
            deadline: when to give up, by `time.monotonic`.
            seconds: the timeout from which the deadline was computed, for error messages.

        Raises:
            StoreError: there is no reply; the message says whether the marks may have been
                applied.
        """
        raise NotImplementedError

    def _add_shared(self, totals: Totals) -> None:
        """Add the counters of what was sent together with marks of other threads."""
        raise NotImplementedError

    def _count(self, counted: Totals) -> None:
        # Only additions while the lock is held, so that no signal handler runs then.
        with self._totals_lock:
            self._totals.add(counted)


class SyncWriter(Writer):
    """Sends marks to one server."""

    def __init__(
        self, options: Options, run: Callable[[Execution[Any]], Any], commit: GroupCommit | None
    ) -> None:
        """Begin idle.

        Arguments:
            options, run: as for `Writer`.
            commit: sends marks together with those of other threads; ``None`` on the embedded
                store.
        """
        super().__init__(options, run)
        self._commit = commit
        #: Makes a batch for a connection that caches no numbers of users.
        self._new_batch = batches(options)

    def _send(self, marks: Sequence[Mark], deadline: float, seconds: float) -> list[Result]:
        commit = self._commit
        if commit is None or not commit.takes(marks):
            return self._send_alone(marks, deadline, seconds)
        sent = done = False
        attempts: Attempts | None = None
        results: list[Result] = []
        try:
            while not done:
                call = commit.call(marks, deadline, repeated=sent)
                try:
                    results = commit.exchange(call)
                    done = True
                except TRANSIENT as error:
                    let_pass(error)
                    attempts = attempts or Attempts()
                    time.sleep(attempts.pause(error, deadline - clocks.monotonic()))
                finally:
                    sent |= call.sent
        except StoreError as error:
            let_pass(error)
            raise outcome(error, sent, seconds) from error.__cause__
        finally:
            if not done:
                counted = Totals()
                counted.errors = len(marks)
                self._count(counted)
        if results is AGAIN:
            # Not together with others, whose marks may be refused again and again.
            return self._send_alone(marks, deadline, seconds)
        return results

    def _send_alone(self, marks: Sequence[Mark], deadline: float, seconds: float) -> list[Result]:
        """Send marks on a connection that no other thread uses meanwhile; as `_send`."""
        traffic = Traffic("write", len(marks))
        batch: Any = self._new_batch()
        if len(marks) > 1:
            batch.keep_together()
        request: Answerable[list[Result]] = batch
        results: list[Result] = []
        try:
            if len(marks) <= MAX_COMMAND_MARKS:
                for mark in marks:
                    batch.add(mark)
            else:
                request = _LargeBatch(batch, marks, deadline)
            results = self._run(retried(request, deadline, clocks.monotonic, traffic=traffic))
        except StoreError as failure:
            let_pass(failure)
            raise outcome(failure, traffic.sent, seconds) from failure.__cause__
        finally:
            counted = Totals()
            counted.bytes_sent = traffic.bytes
            counted.retries = max(0, traffic.attempts - 1)
            if results:
                counted.record(results, refused=batch.refused)
            else:
                counted.errors = len(marks)
            self._count(counted)
        return results

    def _add_shared(self, totals: Totals) -> None:
        if self._commit is not None:
            totals.add(self._commit.totals())


class _LargeBatch:
    """A batch of very many marks, which is built in steps that check a deadline."""

    share = 1

    def __init__(self, batch: Any, marks: Sequence[Mark], deadline: float) -> None:
        """Build the batch.

        Raises:
            StoreTimeoutError: the deadline has passed.
        """
        self.parse = batch.parse
        self.reply_count = batch.reply_count
        for at in range(0, len(marks), MAX_COMMAND_MARKS):
            _check_deadline(deadline)
            for mark in marks[at : at + MAX_COMMAND_MARKS]:
                batch.add(mark)
            batch.seal()
        pieces = []
        for piece in batch.pieces():
            _check_deadline(deadline)
            pieces.append(piece)
        self._data = b"".join(pieces)

    def encode(self) -> bytes:
        """Return the bytes to send."""
        return self._data


def _check_deadline(deadline: float) -> None:
    if clocks.monotonic() >= deadline:
        raise StoreTimeoutError


def outcome(failure: StoreError, sent: bool, seconds: float) -> StoreError:
    """Return the error of marks without a reply.

    Arguments:
        failure: the failure.
        sent: whether a byte of the marks may have been written.
        seconds: the timeout of the call.
    """
    missed = "Redis did not answer" if sent else "there was no connection to Redis"
    return with_outcome(failure, sent=sent, timeout=seconds, missed=missed)
