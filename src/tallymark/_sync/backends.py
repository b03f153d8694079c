"""What a `tallymark.SyncTally` works on: one server, or a cluster."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .._cluster.handshake import Greeting
from .._cluster.shard_transactions import by_shard
from .._core.failures import with_outcome
from .._marking.batch import MAX_RUN_MARKS, Batch
from .._redis import errors as redis_py
from .._redis.blocking_clients import KINDS
from .._redis.clients import make_read_client
from .._redis.stores import database
from ..errors import StoreError, StoreTimeoutError
from .cluster import BlockingClusterReader, write_to_shard
from .connection import BlockingLink
from .executor import BlockingReader
from .nodes import BlockingNodes

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from .._core.options import Options
    from .._marking.marks import Mark, Result
    from .._redis.cluster_clients import ClusterClients
    from .connection import Sent

__all__ = ["BlockingCluster", "BlockingServer"]


class BlockingServer:
    """One server.

    Attributes:
        options: the tally's.
        client: redis-py's.
        database: what is equal for all tallies on this database.
        reader: answers queries.
    """

    def __init__(self, client: Any, options: Options, check_usable: Callable[[], None]) -> None:
        """Begin, on a client that is somebody else's."""
        self.options = options
        self.client = client
        self.database: Hashable = database(client)
        observer = options.observer
        self._link = BlockingLink(client, greeting=Greeting(options.schema()), observer=observer)
        replica = make_read_client(KINDS, client, options)
        self._replica = (
            None if replica is None else BlockingLink(replica, owned=True, observer=observer)
        )
        self.reader = BlockingReader(
            self._link, self._replica, timeout=options.timeout, check_usable=check_usable
        )

    def own(self) -> None:
        """Take over the client."""
        self._link.owned = True

    def write(
        self, marks: Sequence[Mark], sent: Sent, deadline: float, seconds: float
    ) -> tuple[list[Result], bool]:
        """Send marks in one transaction.

        Arguments:
            marks: the marks.
            sent: is kept up to date, also if it fails.
            deadline: when to give up, as `time.monotonic` has it.
            seconds: how many there were until then.

        Returns:
            Their results, and whether Redis has thrown the transaction away.

        Raises:
            StoreError: there is no answer; it tells what became of the marks.
        """
        options = self.options
        batch = Batch(bitfield=options.bitfield, replicas=options.replicas)
        try:
            if len(marks) <= MAX_RUN_MARKS:
                for mark in marks:
                    batch.add(mark)
                data = batch.encode()
            else:
                data = _put_together(batch, marks, deadline)
            results = self._link.exchange(data, batch.reply_count(), sent, deadline, batch.settle)
        except StoreError as failure:
            redis_py.let_pass(failure)
            raise _fate(failure, sent, seconds) from failure.__cause__
        return results, batch.refused

    def unlock(self) -> None:
        """Begin with locks that nobody holds, as in a child process."""

    def close(self) -> None:
        """Close the connections that are ours; those in use, when they are given back."""
        self._link.close()
        if self._replica is not None:
            self._replica.close()


class BlockingCluster:
    """A cluster; attributes and methods as for `BlockingServer`."""

    def __init__(
        self, clients: ClusterClients, options: Options, check_usable: Callable[[], None]
    ) -> None:
        """Begin without a connection.

        Arguments:
            clients: how to connect.
            options: the tally's.
            check_usable: raises if the tally is closed.
        """
        self.options = options = options.on_a_cluster()
        self.database: Hashable = frozenset(clients.startup)
        self._clients = clients
        self._nodes = BlockingNodes(clients, options)
        self.reader = BlockingClusterReader(
            self._nodes, timeout=options.timeout, check_usable=check_usable
        )

    @property
    def client(self) -> Any:
        """A cluster client of redis-py: the caller's, or one of our own."""
        return self._clients.cluster_client

    def own(self) -> None:
        """Take over nothing: all connections are ours in any case."""

    def write(
        self, marks: Sequence[Mark], sent: Sent, deadline: float, seconds: float
    ) -> tuple[list[Result], bool]:
        """Send marks, those of each shard in one transaction, one after the other."""
        shards = by_shard(marks)
        results: list[Any] = [None] * len(marks)
        for indexes in shards:
            some = [marks[index] for index in indexes]
            before = sent.bytes
            try:
                found: Sequence[Result] = write_to_shard(
                    self._nodes, self.options, some, sent, deadline
                )
            except StoreError as failure:
                redis_py.let_pass(failure)
                error = _fate(failure, sent, seconds, sent.bytes - before)
                if len(shards) == 1:
                    raise error from failure.__cause__
                found = [error] * len(some)
            for index, own in zip(indexes, found, strict=True):
                results[index] = own
        return results, False

    def unlock(self) -> None:
        """Begin with locks that nobody holds, as in a child process."""
        self._nodes.unlock()

    def close(self) -> None:
        """Close the connections that are ours; those in use, when they are given back."""
        self._nodes.close()
        if self._clients.made is not None:
            self._clients.made.close()


def _put_together(batch: Batch, marks: Sequence[Mark], deadline: float) -> bytes:
    """Add very many marks to a batch; return its bytes.

    Raises:
        StoreTimeoutError: time is up.
    """
    for at in range(0, len(marks), MAX_RUN_MARKS):
        _check_time(deadline)
        for mark in marks[at : at + MAX_RUN_MARKS]:
            batch.add(mark)
        batch.seal()
    pieces = []
    for piece in batch.pieces():
        _check_time(deadline)
        pieces.append(piece)
    return b"".join(pieces)


def _check_time(deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise StoreTimeoutError


def _fate(
    failure: StoreError, sent: Sent, seconds: float, written: int | None = None
) -> StoreError:
    """Return the error that tells what became of marks which got no answer.

    Arguments:
        failure: why.
        sent, seconds: as for `BlockingServer.write`.
        written: how many bytes may have been written, if not all that were sent.
    """
    some = (sent.bytes if written is None else written) > 0
    missed = "Redis did not answer" if some else "there was no connection to Redis"
    return with_outcome(failure, sent=some, timeout=seconds, missed=missed)
