"""What the backends of a `tallymark.SyncTally` have in common: a writer and a reader."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

from .._cluster.batches import make_marker
from .._core.context import Context
from .._marking.number_cache import NumberCache
from .._redis.clocks import clocks

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from .._core.options import Options
    from .._marking.marks import Mark, Result
    from .executor import SyncExecutor
    from .writer import Writer

__all__ = ["SyncBackend"]


class SyncBackend:
    """A writer and a reader on one database. Threads may share it.

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
    """

    writer: Writer
    reader: SyncExecutor
    client: Any

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
        self.marker = make_marker(options, clocks.time, threading.RLock(), self.numbers)
        #: The buffers of the tally.
        self.buffers: weakref.WeakSet[Any] = weakref.WeakSet()
        _backends.add(self)

    def submit_counted(self, marks: Sequence[Mark], timeout: float | None) -> list[Result]:
        """Send marks in one transaction, and count their events if ``max_events`` is set."""
        self.marker.reserve(marks)
        try:
            results = self.writer.submit_together(marks, timeout)
        except BaseException as error:
            self.marker.release(marks, error=error)
            raise
        self.marker.release(marks, results)
        return results

    def renew_locks(self) -> None:
        """Begin with no calls in progress and free locks, as in a child process."""
        self.writer.renew_locks()
        self.marker.replace_lock(threading.RLock())
        for buffer in list(self.buffers):
            buffer._begin_anew()  # noqa: SLF001 - not for users

    def close(self) -> None:
        """Close the buffers, accept nothing more, and `disconnect`."""
        for buffer in list(self.buffers):
            buffer.close()
        self.writer.close()
        self.disconnect()

    def disconnect(self) -> None:
        """Close the connections that the tally made; those in use, when they are released."""
        raise NotImplementedError

    def _check_usable(self) -> None:
        self.writer.check_usable()


_backends: weakref.WeakSet[SyncBackend] = weakref.WeakSet()


def _renew_locks() -> None:
    """Replace the locks in a child process: threads that do not exist there may hold them."""
    for backend in list(_backends):
        backend.renew_locks()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_renew_locks)
