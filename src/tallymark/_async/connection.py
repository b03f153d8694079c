"""The async driver's connection, and the attempts to commit a batch over it.

`Connection` sends bytes, reads replies and translates redis-py's errors. `BatchSender`
connects, with back-off after failures, and exchanges a batch for its results.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import anyio.to_thread
from redis.exceptions import ResponseError

from .._core.failures import Backoff
from .._core.observers import Operation, Outage, observe
from .._marking.marks import record_sent
from .._marking.number_cache import LONG_WRITE
from .._redis import errors as redis_py
from .._redis.clocks import clocks
from .._redis.replies import Received
from ..errors import StoreTimeoutError, StoreUnavailableError
from .write_queue import count, live

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._cluster.batches import AnyBatch
    from .._cluster.handshake import Handshake
    from .._core.observers import Observer
    from .._marking.marks import Mark, Result
    from .._marking.number_cache import NumberCache
    from .._marking.stats import Totals
    from ..errors import StoreError
    from .write_queue import InFlightBatch

__all__ = ["BatchSender", "Connection"]

#: After this many replies, which take a few milliseconds, other tasks run.
_MAX_REPLIES_PER_TURN: Final = 2_000


class Connection:
    """One connection of a redis-py client, for one exchange at a time.

    With a client that the tally made, the connection is made outside the client's pool and
    kept as long as it works: the pool is for the user of `Tally.client` alone. With a client
    of the caller's, the connection is acquired from its pool by `connect`, and released by
    `release`.

    Raises, from every method but `close` and `release`:
        StoreUnavailableError, StoreTimeoutError: the connection is broken; try
            again after `close`.
        StoreError: trying again would not help. From `connect`, a `WrongSchemaError` if
            the database is not sharded as the tally is.
    """

    def __init__(
        self,
        client: Any,
        *,
        owned: bool = False,
        handshake: Handshake | None = None,
        marking: bool = False,
        numbers: NumberCache | None = None,
    ) -> None:
        """Begin without a connection.

        Arguments:
            client: the client.
            owned: whether the tally made the client.
            handshake: the handshake to make after connecting, unless it is done;
                ``None`` on a cluster, where `ClusterExecutions` makes it.
            marking: whether the connection is for marks.
            numbers: the numbers of users that this connection has fetched: it is cleared when
                the connection ends. Only if the tally made the client.
        """
        self._numbers = numbers
        self._handshake = handshake
        self._marking = marking
        self._pool = client.connection_pool
        self._connection: Any = None
        self._received = Received(None)
        #: Whether the tally made the client.
        self.owned = owned

    @property
    def ready(self) -> bool:
        """Whether it is connected, so that `connect` need not be called."""
        return self._connection is not None and self._connection.is_connected

    async def connect(self) -> None:
        """Connect, and make the handshake unless it is done."""
        try:
            if self._connection is None:
                self._connection = (
                    self._pool.make_connection()
                    if self.owned
                    else await self._pool.get_connection()
                )
            if not self.ready:
                self.forget_numbers()
                await self._connection.connect()
            self._received = Received(self._connection)
            if self._handshake is not None and not self._handshake.done:
                await self._shake_hands(self._handshake)
        except Exception as error:  # noqa: BLE001 - redis-py has let AttributeErrors out
            redis_py.raise_failure(error)

    async def _shake_hands(self, handshake: Handshake) -> None:
        """Make the handshake; if it fails, close the connection."""
        try:
            data, count = handshake.commands(marking=self._marking)
            replies: list[Any] = []
            await self.send(data)
            await self.receive(replies, count)
            handshake.check(replies)
        except BaseException:
            await self.close()
            raise

    async def send(self, data: bytes) -> None:
        """Write commands.

        Cancelled: close the connection, since a part of the commands may have been sent.
        """
        connection = self._connection
        try:
            # The check may connect again. Cached numbers are of this connection alone.
            checked = bool(connection.health_check_interval) and self._numbers is None
            if self._numbers is not None:
                _check_connected(connection)
            if checked:  # the check may have connected again
                self._received = Received(connection)
            self._received.check_empty()  # no reply to earlier commands is unread
            await connection.send_packed_command(data, check_health=checked)
        except Exception as error:  # noqa: BLE001 - redis-py has let AttributeErrors out
            redis_py.raise_failure(error)

    async def receive(self, replies: list[Any], count: int) -> None:
        """Read replies and append them to ``replies``, until that has ``count`` of them.

        Cancelled: the replies that were read are in ``replies``, and another call
        reads the others.
        """
        read = self._connection.read_response
        received = self._received
        next_turn = len(replies) + _MAX_REPLIES_PER_TURN
        try:
            while len(replies) < count:
                try:
                    # Bytes, also from a client that decodes: bitmaps are no text.
                    reply = await read(disable_decoding=True, disconnect_on_error=False)
                    replies.append(redis_py.plain_reply(reply))
                except ResponseError as error:
                    replies.append(redis_py.refused_reply(error))
                replies += received.take(min(count - len(replies), _MAX_REPLIES_PER_TURN))
                if len(replies) >= next_turn:  # received replies are read without waiting
                    next_turn = len(replies) + _MAX_REPLIES_PER_TURN
                    await asyncio.sleep(0)
            received.check_empty()
        except Exception as error:  # noqa: BLE001 - redis-py has let AttributeErrors out
            redis_py.raise_failure(error)

    async def release(self) -> None:
        """Release the connection to the caller's pool; all its replies have to be read."""
        if not self.owned and self._connection is not None:
            connection, self._connection = self._connection, None
            with anyio.CancelScope(shield=True):
                await self._pool.release(connection)

    async def abort(self) -> None:
        """Disconnect while `send` or `receive` runs, so that this call fails."""
        if self._connection is not None:
            await _abort(self._connection)

    def discard(self) -> None:
        """Close the socket, after the event loop has been closed."""
        connection, self._connection = self._connection, None
        self.forget_numbers()
        if connection is not None:
            redis_py.discard_connection(connection)

    async def close(self, *, gently: bool = False) -> None:
        """Disconnect, also if replies are unread; `connect` connects again.

        Arguments:
            gently: wait until the other end has closed the connection too.
        """
        connection, self._connection = self._connection, None
        self.forget_numbers()
        if connection is not None:
            with anyio.CancelScope(shield=True):
                await (connection.disconnect() if gently else _abort(connection))
                if not self.owned:
                    await self._pool.release(connection)

    def forget_numbers(self) -> None:
        """Clear the numbers of users that this connection has fetched."""
        if self._numbers is not None:
            self._numbers.clear()


class BatchSender:
    """Sends the batches of a `GroupCommit` over its connection, one at a time.

    Attributes:
        connection: the connection.
        is_failing: whether the last attempt failed.
        last_failure: the failure after which the next attempt waits; ``None`` after a success.
    """

    def __init__(
        self,
        connection: Connection,
        totals: Totals,
        *,
        new_batch: Callable[[], AnyBatch],
        store: str,
        observer: Observer | None,
        event_quota: bool,
    ) -> None:
        """Begin without a connection.

        Arguments:
            connection: the connection, which nobody else uses.
            totals: counts the bytes that were sent.
            new_batch, store, observer, event_quota: as for `GroupCommit`.
        """
        self.connection = connection
        self.is_failing = False
        self.last_failure: StoreError | None = None
        self._totals = totals
        self._new_batch = new_batch
        self._store = store
        self._observer = observer
        self._event_quota = event_quota
        self._outage = Outage(store, clocks.monotonic)
        #: The pauses of this series of failed attempts, and when to make the next attempt,
        #: in the event loop's time.
        self._backoff = Backoff()
        self._retry_at = 0.0
        #: The cancel scope of an attempt to connect.
        self._connecting: anyio.CancelScope | None = None
        self._aborting: asyncio.Task[None] | None = None

    @property
    def is_connecting(self) -> bool:
        """Whether an attempt to connect is in progress, or the pause before it."""
        return self._connecting is not None

    async def exchange(self, in_flight: InFlightBatch) -> list[Result] | None:
        """Send a batch, or read the remaining replies to one that was sent.

        Cancelled: replies that were read are kept in the batch.

        Returns:
            The result of each mark; ``None`` if no caller waits any more.

        Raises:
            StoreError: the attempt failed; the connection must be closed.
        """
        if not in_flight.on_the_wire:
            if in_flight.large or not self.connection.ready:
                await self._prepare(in_flight)
                if not in_flight.writes:
                    return None
            if in_flight.batch.late:
                await self._encode(in_flight)
            in_flight.sent = True
            if self._event_quota:
                for _, _, mark, marks, _ in in_flight.writes:
                    record_sent(marks or (cast("Mark", mark),))
            in_flight.sent_at = clocks.perf_counter()
            await self.connection.send(in_flight.data)
            in_flight.on_the_wire = True
            self._totals.bytes_sent += len(in_flight.data)
        await self.connection.receive(in_flight.replies, in_flight.batch.reply_count())
        if in_flight.large:
            results = await anyio.to_thread.run_sync(in_flight.batch.parse, in_flight.replies)
        else:
            results = in_flight.batch.parse(in_flight.replies)
        if in_flight.batch.late and clocks.perf_counter() - in_flight.sent_at > LONG_WRITE:
            self.connection.forget_numbers()
        return results

    async def _prepare(self, in_flight: InFlightBatch) -> None:
        """Build a large batch and connect; drop the writes of calls that end meanwhile.

        The error of a call whose deadline passes here says that nothing was sent.
        """
        if in_flight.large:
            await anyio.to_thread.run_sync(in_flight.build)
        if not self.connection.ready:
            await self._connect(in_flight)
        if any(write[0].done() for write in in_flight.writes):
            in_flight.rebuild(list(live(in_flight.writes)), self._new_batch())

    async def _encode(self, in_flight: InFlightBatch) -> None:
        """Encode a late batch: the connection is the one that sends it."""
        if in_flight.large:
            in_flight.data = await anyio.to_thread.run_sync(in_flight.batch.encode)
        else:
            in_flight.data = in_flight.batch.encode()

    async def _connect(self, in_flight: InFlightBatch) -> None:
        """Connect within the batch's deadline; after a failure, pause before that."""
        loop = asyncio.get_running_loop()
        seconds = in_flight.deadline - loop.time()
        with anyio.move_on_after(None if seconds == math.inf else seconds) as scope:
            self._connecting = scope
            try:
                # A pause never takes more than half of the remaining time.
                pause = min(self._retry_at - loop.time(), seconds / 2)
                if self.last_failure is not None and pause > 0:
                    await anyio.sleep(pause)
                await self.connection.connect()
            finally:
                self._connecting = None
        if scope.cancelled_caught:
            raise self.last_failure or StoreTimeoutError

    def abort(self) -> None:
        """Make the attempt in progress fail now."""
        if self._connecting is not None:
            self._connecting.cancel()
        else:
            self.disconnect()

    def disconnect(self) -> None:
        """Disconnect in a task, so that a `send` or `receive` in progress fails."""
        self._aborting = asyncio.get_running_loop().create_task(self.connection.abort())

    # --- outcomes

    def succeeded(self) -> None:
        """Record the success after failures: the outage and the back-off end."""
        self.is_failing = False
        self.last_failure = None
        self._backoff = Backoff()
        self._outage.end()

    def failed(self, failure: StoreError, *, final: bool) -> None:
        """Record and log a failure.

        Arguments:
            failure: the failure.
            final: whether no other attempt is made for the batch.
        """
        self.is_failing = True
        self._outage.failed(failure, final=final)

    def back_off(self, failure: StoreError) -> None:
        """Have the next attempt to connect wait, after a failure."""
        self.last_failure = failure
        self._retry_at = asyncio.get_running_loop().time() + self._backoff.next()

    def observe(self, in_flight: InFlightBatch, failure: StoreError | None) -> None:
        """Report an attempt to the observer, if there is one."""
        if self._observer is None:
            return
        seconds = clocks.perf_counter() - in_flight.sent_at if in_flight.sent_at else 0.0
        size, written = count(in_flight.writes), len(in_flight.data) if in_flight.sent else 0
        operation = Operation("write", self._store, size, written, time.time(), seconds, failure)
        observe(self._observer, operation)


def _check_connected(connection: Any) -> None:
    """Raise if the connection is closed: redis-py would connect again, without a ``WATCH``."""
    if not connection.is_connected:
        raise StoreUnavailableError("the connection was closed")


async def _abort(connection: Any) -> None:
    """Disconnect at once, and drop what is unread or unwritten.

    redis-py closes the transport, which first waits until all bytes are written: without
    end, if the other end lives and reads nothing.
    """
    transport = getattr(getattr(connection, "_writer", None), "transport", None)
    abort = getattr(transport, "abort", None)
    if abort is not None:  # the embedded store has no transport, or one without it
        abort()
    await connection.disconnect(nowait=True)
