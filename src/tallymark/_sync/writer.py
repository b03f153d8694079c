"""The blocking driver's writers: the marks of a call, in one transaction or one per shard."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from .._cluster.shard_transactions import ShardBatches, by_shard
from .._core.failures import TRANSIENT, Attempts, overloaded, with_outcome
from .._core.options import checked_timeout
from .._core.untrusted import reraise_from_handler
from .._marking.batch import MAX_COMMAND_MARKS, Batch
from .._marking.marks import BitMark, record_sent
from .._marking.sizing import MAX_BATCH_MARKS
from .._marking.stats import Totals
from .._reading.execution import Traffic, retried
from .._redis.errors import let_pass
from ..errors import ClosedError, StoreError, StoreTimeoutError
from .shared_connection import AGAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._cluster.execution import ClusterExecutions
    from .._core.options import Options
    from .._marking.marks import Mark, Result
    from .._marking.stats import Stats
    from .._reading.execution import Answerable, Execution
    from .group_commit import GroupCommit

__all__ = ["ClusterWriter", "SyncWriter"]


class SyncWriter:
    """Sends marks to one server. Threads may share it, and then share its transactions."""

    def __init__(
        self,
        options: Options,
        run: Callable[[Execution[Any]], Any],
        group: GroupCommit | None,
    ) -> None:
        """Begin idle.

        Arguments:
            options: the tally's options.
            run: performs an execution, on a connection that no other thread uses meanwhile.
            group: sends marks together with those of other threads; ``None`` on the embedded
                store, and on a cluster.
        """
        self._options = options
        self._run = run
        self._group = group
        self._closed = False
        self._totals = Totals()
        self.renew_locks()

    def renew_locks(self) -> None:
        """Begin with an unheld lock and no calls in progress, as in a forked child process."""
        self._totals_lock = threading.RLock()
        #: How many marks each call in progress has, by its thread, and for a call in a signal
        #: handler by another key. Each call has an entry of its own: a sum could be left wrong
        #: if a signal handler raises.
        self._pending: dict[int | object, int] = {}

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
        self.check_usable()
        seconds = self._options.timeout if timeout is None else checked_timeout(timeout)
        deadline = time.monotonic() + seconds
        pending = self._pending
        waiting = sum(list(pending.values())) if pending else 0
        if waiting >= self._options.max_pending:
            raise overloaded(waiting, "marks", self._options.max_pending)
        key: int | object = threading.get_ident()
        # A call in a signal handler cannot wait for the call that it has interrupted.
        interrupts = key in pending
        if interrupts:
            key = object()
        try:
            try:
                pending[key] = len(marks)
                if self._options.max_events is not None:
                    # Before the first byte: a signal handler may raise at any moment after it.
                    record_sent(marks)
                if self._group is not None and not interrupts and _is_small(marks):
                    return self._commit(self._group, marks, deadline, seconds)
                return self._write_apart(marks, deadline, seconds)
            finally:
                pending.pop(key, None)
        finally:
            pending.pop(key, None)  # if a signal handler raised in the inner one

    def stats(self) -> Stats:
        """Return the counters so far."""
        totals = Totals()
        totals.add(self._totals)
        for group in self._groups():
            totals.add(group.totals)
            totals.bytes_sent += group.bytes_sent
            totals.retries += group.retries
        return totals.stats(sum(list(self._pending.values())))

    def close(self) -> None:
        """Accept no more marks; calls of other threads go on."""
        self._closed = True

    def _groups(self) -> Sequence[GroupCommit]:
        return () if self._group is None else (self._group,)

    def _commit(
        self, group: GroupCommit, marks: Sequence[Mark], deadline: float, seconds: float
    ) -> list[Result]:
        """Send marks together with those of other threads; arguments and errors as for `_write`."""
        sent = False
        attempts: Attempts | None = None
        while True:
            call = group.call(marks, deadline, repeated=sent)
            try:
                outcome = group.exchange(call)
            except StoreError as error:
                let_pass(error)
                sent |= call.sent
                try:
                    if not isinstance(error, TRANSIENT):
                        raise
                    attempts = attempts or Attempts()
                    pause = attempts.pause(error, deadline - time.monotonic())
                except StoreError as failure:
                    reraise_from_handler(failure)
                    self._count_errors(len(marks))
                    raise _outcome(failure, sent, seconds) from failure.__cause__
                time.sleep(pause)
            else:
                if outcome is not AGAIN:
                    results: list[Result] = outcome
                    return results

    def _write_apart(self, marks: Sequence[Mark], deadline: float, seconds: float) -> list[Result]:
        """Send marks apart from those of other threads; arguments and errors as for `_write`."""
        traffic = Traffic("write", len(marks))
        results: list[Result] = []
        refused = False
        try:
            results, refused = self._write(marks, traffic, deadline, seconds)
        finally:
            # Only additions while the lock is held, so that no signal handler runs then.
            counted = Totals()
            counted.bytes_sent = traffic.bytes
            counted.retries = max(0, traffic.attempts - 1)
            if results:
                counted.record(results, refused=refused)
            else:
                counted.errors = traffic.size
            with self._totals_lock:
                self._totals.add(counted)
        return results

    def _count_errors(self, errors: int) -> None:
        with self._totals_lock:
            self._totals.errors += errors

    def _write(
        self, marks: Sequence[Mark], traffic: Traffic, deadline: float, seconds: float
    ) -> tuple[list[Result], bool]:
        """Send marks in one transaction.

        Arguments:
            marks: the marks.
            traffic: counts what is sent, also if the call fails.
            deadline: when to give up, by `time.monotonic`.
            seconds: the timeout from which the deadline was computed, for error messages.

        Returns:
            The results of the marks, and whether Redis discarded the transaction.

        Raises:
            StoreError: there is no reply; the message says whether the marks may have been
                applied.
        """
        options = self._options
        batch = Batch(bitfield=options.bitfield, replicas=options.replicas)
        request: Answerable[list[Result]] = batch
        try:
            if len(marks) <= MAX_COMMAND_MARKS:
                for mark in marks:
                    batch.add(mark)
            else:
                request = _LargeBatch(batch, marks, deadline)
            results = self._run(retried(request, deadline, time.monotonic, traffic=traffic))
        except StoreError as failure:
            let_pass(failure)
            raise _outcome(failure, traffic.bytes > 0, seconds) from failure.__cause__
        return results, batch.refused


class _LargeBatch:
    """A batch of very many marks, which is built in steps that check a deadline."""

    share = 1

    def __init__(self, batch: Batch, marks: Sequence[Mark], deadline: float) -> None:
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
    if time.monotonic() >= deadline:
        raise StoreTimeoutError


class ClusterWriter(SyncWriter):
    """Sends marks to the nodes of a cluster, those of each shard in one transaction."""

    def __init__(
        self,
        executions: ClusterExecutions,
        options: Options,
        run: Callable[[Execution[Any]], Any],
    ) -> None:
        """Begin idle.

        Arguments:
            executions: the executions of the cluster.
            options, run: as for `SyncWriter`.
        """
        super().__init__(options, run, None)
        self._executions = executions

    def _write(
        self, marks: Sequence[Mark], traffic: Traffic, deadline: float, seconds: float
    ) -> tuple[list[Result], bool]:
        """Send the marks of one shard after another; otherwise as `SyncWriter`."""
        shards = by_shard(marks)
        results: list[Any] = [None] * len(marks)
        for indexes in shards:
            part = [marks[index] for index in indexes]
            before = traffic.bytes
            try:
                part_results: Sequence[Result] = self._run(
                    self._executions.commit(part, deadline, traffic, self._new_batch)
                )
            except StoreError as failure:
                let_pass(failure)
                error = _outcome(failure, traffic.bytes > before, seconds)
                if len(shards) == 1:
                    raise error from failure.__cause__
                part_results = [error] * len(part)
            for index, result in zip(indexes, part_results, strict=True):
                results[index] = result
        return results, False

    def _new_batch(self, importing: bool) -> ShardBatches:
        options = self._options
        return ShardBatches(bitfield=options.bitfield, replicas=options.replicas, asking=importing)


def _is_small(marks: Sequence[Mark]) -> bool:
    """Return whether marks may share a transaction with those of other threads."""
    return len(marks) <= MAX_BATCH_MARKS and all(type(mark) is BitMark for mark in marks)


def _outcome(failure: StoreError, sent: bool, seconds: float) -> StoreError:
    """Return the error of marks without a reply.

    Arguments:
        failure: the failure.
        sent: whether a byte of the marks may have been written.
        seconds: the timeout of the call.
    """
    missed = "Redis did not answer" if sent else "there was no connection to Redis"
    return with_outcome(failure, sent=sent, timeout=seconds, missed=missed)
