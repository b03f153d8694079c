"""The blocking driver's writer on a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._cluster.shard_transactions import by_shard
from .._marking.stats import Totals
from .._reading.execution import Traffic
from .._redis.errors import let_pass
from ..errors import StoreError, TallymarkError
from .writer import Writer, outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._cluster.execution import ClusterExecutions
    from .._core.options import Options
    from .._marking.marks import Mark, Result
    from .._reading.execution import Execution

__all__ = ["ClusterWriter"]


class ClusterWriter(Writer):
    """Sends marks to the nodes of a cluster, those of each shard in one transaction."""

    def __init__(
        self,
        executions: ClusterExecutions,
        options: Options,
        run: Callable[[Execution[Any]], Any],
        shared: Callable[[], Totals],
    ) -> None:
        """Begin idle.

        Arguments:
            executions: the executions of the cluster.
            options, run: as for `Writer`.
            shared: returns the counters of what the nodes have committed.
        """
        super().__init__(options, run)
        self._executions = executions
        self._shared = shared

    def _send(self, marks: Sequence[Mark], deadline: float, seconds: float) -> list[Result]:
        """Send the marks of one shard after another."""
        shards = by_shard(marks)
        results: list[Any] = [None] * len(marks)
        counted = Totals()
        counted.errors = len(marks)  # until there are results
        try:
            for indexes in shards:
                part = [marks[index] for index in indexes]
                traffic = Traffic("write", len(part))
                try:
                    part_results: Sequence[Result] = self._run(
                        self._executions.commit(part, deadline, traffic)
                    )
                except StoreError as failure:
                    let_pass(failure)
                    error = outcome(failure, traffic.sent, seconds)
                    if len(shards) == 1:
                        raise error from failure.__cause__
                    part_results = [error] * len(part)
                finally:
                    counted.retries += max(0, traffic.attempts - 1)
                    counted.bytes_sent += traffic.bytes
                    counted.batches += traffic.bytes > 0  # sent apart from other calls
                for index, result in zip(indexes, part_results, strict=True):
                    results[index] = result
            counted.errors = sum(isinstance(result, TallymarkError) for result in results)
            counted.marks = len(marks) - counted.errors
        finally:
            self._count(counted)
        return results

    def _add_shared(self, totals: Totals) -> None:
        shared = self._shared()
        # The results of a node are not final: the marks may be sent to another one.
        totals.batches += shared.batches
        totals.bytes_sent += shared.bytes_sent
        totals.retries += shared.retries
