"""Group commit for threads: marks of concurrent calls share transactions.

See `tallymark._sync.shared_connection` for how threads share a connection, and
`tallymark._async.group_commit` for the counterpart in the async driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._marking.marks import BitMark
from .._marking.sizing import MAX_BATCH_MARKS
from .._marking.stats import Totals
from .shared_connection import AGAIN, Call, SharedConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._cluster.shard_transactions import ShardBatches
    from .._core.observers import Observer, Outage
    from .._marking.batch import Batch
    from .._marking.marks import Mark, Result
    from .connection import Connection

__all__ = ["GroupCommit"]


class GroupCommit(SharedConnection):
    """Commits marks over one connection, those of several threads in one transaction.

    The payload of a call is a sequence of marks, the outcome the list of their results.
    """

    kind = "write"

    def __init__(
        self,
        connect: Callable[[], Connection],
        store: str,
        outage: Outage,
        observer: Observer | None,
        new_batch: Callable[[], Batch | ShardBatches],
    ) -> None:
        """Begin without a connection.

        Arguments:
            connect, store, outage, observer: as for `SharedConnection`.
            new_batch: makes an empty batch.
        """
        super().__init__(connect, store, outage, observer)
        self._new_batch = new_batch
        #: What Redis has answered. Changed by the leader alone.
        self._totals = Totals()

    def totals(self) -> Totals:
        """Return the counters so far."""
        totals = Totals()
        totals.add(self._totals)
        totals.bytes_sent, totals.retries = self.bytes_sent, self.retries
        return totals

    def takes(self, marks: Sequence[Mark]) -> bool:
        """Return whether marks can be sent together with those of other threads.

        Marks of many users have a connection of their own, so that others do not wait for
        them; and so have those of a signal handler that has interrupted a call here.
        """
        return (
            len(marks) <= MAX_BATCH_MARKS
            and not self.is_entered()
            and {BitMark}.issuperset(map(type, marks))
        )

    def call(self, marks: Sequence[Mark], deadline: float, *, repeated: bool = False) -> Call:
        """Return the call for some marks.

        Arguments:
            marks: the marks.
            deadline, repeated: as for `Call`.
        """
        size = len(marks)
        return Call(marks, size, size / MAX_BATCH_MARKS, deadline, repeated=repeated)

    def _request(self, payloads: Sequence[Sequence[Mark]]) -> Batch | ShardBatches:
        batch = self._new_batch()
        for marks in payloads:
            for mark in marks:
                batch.add(mark)
        return batch

    def _outcomes(self, calls: Sequence[Call], request: Any, replies: list[Any]) -> Sequence[Any]:
        results: list[Result] = request.parse(replies)
        if len(calls) == 1:
            self._totals.record(results, refused=request.refused)
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
        self._totals.record(results, refused=request.refused, postponed=postponed)
        return outcomes
