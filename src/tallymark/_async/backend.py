"""What the backends of a `tallymark.Tally` have in common: a writer and a reader."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio

from .._cluster.batches import make_marker
from .._core.context import Context
from .._marking.number_cache import NumberCache
from .._redis.clocks import clocks

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from .._core.options import Options
    from .._marking.marks import Mark, Result
    from .cluster_commit import ClusterCommit
    from .executor import Executor
    from .group_commit import GroupCommit

__all__ = ["AsyncBackend", "loop_time"]


def loop_time() -> float:
    """Return the event loop's time."""
    return asyncio.get_running_loop().time()


class AsyncBackend:
    """A writer and a reader on one database. Belongs to one event loop.

    Attributes:
        options: the tally's.
        database: equal for all tallies on this database.
        context: the tally's, for queries.
        marker: makes marks.
        writer: sends marks.
        reader: answers queries.
        numbers: the numbers of users that the connection for marks has fetched; ``None`` if
            none are cached.
        client: the redis-py client; on a cluster, the cluster client.
        pieces: how many pieces of one `Tally.mark_many` may be in flight at once.
    """

    writer: GroupCommit | ClusterCommit
    reader: Executor
    client: Any
    pieces = 1

    def __init__(
        self, options: Options, database: Hashable, *, caches_numbers: bool = False
    ) -> None:
        """Prepare for a database.

        Arguments:
            options: the tally's.
            database: equal for all tallies on the database.
            caches_numbers: whether the connection for marks may cache numbers of users.
        """
        self.numbers = NumberCache.of(options) if caches_numbers else None
        self.options = options
        self.database = database
        self.context = Context.of(database, options, clocks.time)
        self.marker = make_marker(options, clocks.time, cache=self.numbers)

    async def submit_counted(self, marks: Sequence[Mark], timeout: float | None) -> list[Result]:
        """Send marks in one transaction, and count their events if ``max_events`` is set."""
        self.marker.reserve(marks)
        try:
            results = await self.writer.submit_together(marks, timeout)
        except BaseException as error:
            self.marker.release(marks, error=error)
            raise
        self.marker.release(marks, results)
        return results

    async def close(self) -> None:
        """Wait for the in-flight calls, then close the connections that the tally made."""
        try:
            await self.writer.close()
        finally:
            try:
                await self.reader.close()
            finally:
                with anyio.CancelScope(shield=True):
                    await self._close_clients()

    def discard(self) -> None:
        """Close the connections that the tally made, after the event loop has been closed."""
        self.writer.discard()

    async def _close_clients(self) -> None:
        raise NotImplementedError

    def _check_usable(self) -> None:
        self.writer.check_usable()
