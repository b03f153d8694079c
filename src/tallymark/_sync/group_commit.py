"""Group commit for threads: marks of concurrent calls share transactions.

See `tallymark._sync.shared_connection` for how threads share a connection, and
`tallymark._async.group_commit` for the counterpart in the async driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .._marking.batch import SingleMark
from .._marking.id_marks import IdMark, IdMarks
from .._marking.marks import BitMark
from .._marking.number_cache import LONG_WRITE
from .._marking.sizing import MAX_BATCH_MARKS
from .._marking.stats import Totals
from .._redis.clocks import clocks
from .leadership import AGAIN, Call
from .shared_connection import SharedConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._cluster.batches import AnyBatch
    from .._core.observers import Observer, Outage
    from .._marking.marks import Mark, Result
    from .connection import Connection
    from .leadership import Leadership

__all__ = ["GroupCommit"]


class GroupCommit(SharedConnection):
    """Commits marks over one connection, those of several threads in one transaction.

    The payload of a call is a sequence of marks, the outcome the list of their results.
    """

    kind = "write"

    #: The types of marks that share a connection.
    _shared: Final = frozenset((BitMark, IdMark, IdMarks))

    def __init__(
        self,
        connect: Callable[[], Connection],
        store: str,
        outage: Outage,
        observer: Observer | None,
        new_batch: Callable[[], AnyBatch],
        *,
        are_plain: bool,
    ) -> None:
        """Begin without a connection.

        Arguments:
            connect, store, outage, observer: as for `SharedConnection`.
            new_batch: makes an empty batch.
            are_plain: whether the batches are transactions and nothing else: without a
                ``WAIT`` for replicas, and not of several shards.
        """
        super().__init__(connect, store, outage, observer)
        self._new_batch = new_batch
        self._are_plain = are_plain
        #: When the last batch of users with ids of any type was made.
        self._began = 0.0
        #: What Redis has answered. Changed by the leader alone.
        self._totals = Totals()

    def totals(self) -> Totals:
        """Return the counters so far."""
        totals = Totals()
        totals.add(self._totals)
        totals.bytes_sent, totals.retries = self.bytes_sent, self.retries
        return totals

    @staticmethod
    def call(marks: Sequence[Mark], deadline: float, *, repeated: bool) -> Call:
        """Return the call for some marks.

        Arguments:
            marks: the marks.
            deadline, repeated: as for `Call`.
        """
        call = Call(marks, deadline)
        if len(marks) > 1:
            call.size = len(marks)
            call.cost = len(marks) / MAX_BATCH_MARKS
        elif type(marks[0]) is IdMarks:
            call.cost = 1.0
        if repeated:
            call.repeated = True
        return call

    def takes(self, marks: Sequence[Mark]) -> bool:
        """Return whether marks can be sent together with those of other threads.

        Marks of many users have a connection of their own, so that others do not wait for
        them; and so have those of a signal handler that has interrupted a call here.
        """
        if self.is_entered():
            return False
        if len(marks) == 1:
            return type(marks[0]) in self._shared
        return len(marks) <= MAX_BATCH_MARKS and self._shared.issuperset(map(type, marks))

    def _request(self, calls: Sequence[Call]) -> Any:
        if len(calls) == 1 and self._are_plain:
            marks = calls[0].payload
            if len(marks) == 1 and not marks[0].bitmaps.expiry_count:
                return SingleMark(marks[0])
        batch = self._new_batch()
        if batch.late:
            self._began = clocks.monotonic()
        for call in calls:
            if call.size > 1:
                batch.keep_together()
            for mark in call.payload:
                batch.add(mark)
        return batch

    def _receive(self, leadership: Leadership, deadline: float) -> Sequence[Any]:
        totals, request = self._totals, leadership.request
        if type(request) is SingleMark:
            result = leadership.connection.receive_known(request.known_replies(), deadline)
            if result is not None:
                totals.marks += 1
                totals.batches += 1
                return ([result],)
            request = leadership.request = request.batch()
        leadership.connection.receive(leadership.replies, request.reply_count(), deadline)
        results: list[Result] = request.parse(leadership.replies)
        if request.late and clocks.monotonic() - self._began > LONG_WRITE:
            leadership.connection.forget_numbers()
        calls = leadership.calls
        if len(calls) == 1 and not request.retriable:
            totals.record(results, refused=request.refused)
            return (results,)
        outcomes: list[Any] = []
        begin = end = postponed = 0
        for call in calls:
            begin, end = end, end + call.size
            if request.retriable and request.retriable.issuperset(range(begin, end)):
                # Redis applies nothing of a transaction with a mark that it refuses.
                outcomes.append(AGAIN)
                postponed += call.size
            else:
                outcomes.append(results[begin:end])
        totals.record(results, refused=request.refused, postponed=postponed)
        return outcomes
