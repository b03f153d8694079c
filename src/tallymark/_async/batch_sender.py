"""One attempt to commit a batch: connect, send, receive; with back-off after failures."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, cast

import anyio
import anyio.to_thread

from .._core.failures import Backoff
from .._core.observers import Operation, Outage, observe
from .._marking.marks import record_sent
from ..errors import StoreTimeoutError
from .write_queue import count, live

if TYPE_CHECKING:
    from .._core.observers import Observer
    from .._marking.marks import Mark, Result
    from .._marking.stats import Totals
    from ..errors import StoreError
    from .connection import Connection
    from .write_queue import InFlightBatch

__all__ = ["BatchSender"]


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
        store: str,
        observer: Observer | None,
        event_quota: bool,
    ) -> None:
        """Begin without a connection.

        Arguments:
            connection: the connection, which nobody else uses.
            totals: counts the bytes that were sent.
            store, observer, event_quota: as for `GroupCommit`.
        """
        self.connection = connection
        self.is_failing = False
        self.last_failure: StoreError | None = None
        self._totals = totals
        self._store = store
        self._observer = observer
        self._event_quota = event_quota
        self._outage = Outage(store, time.monotonic)
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
            if in_flight.large:
                await anyio.to_thread.run_sync(in_flight.build)
                if next(live(in_flight.writes), None) is None:
                    return None
            if not self.connection.ready:
                await self._connect(in_flight)
            in_flight.sent = True
            if self._event_quota:
                for _, _, mark, marks, _ in in_flight.writes:
                    record_sent(marks or (cast("Mark", mark),))
            in_flight.sent_at = time.perf_counter()
            await self.connection.send(in_flight.data)
            in_flight.on_the_wire = True
            self._totals.bytes_sent += len(in_flight.data)
        await self.connection.receive(in_flight.replies, in_flight.batch.reply_count())
        if in_flight.large:
            return await anyio.to_thread.run_sync(in_flight.batch.parse, in_flight.replies)
        return in_flight.batch.parse(in_flight.replies)

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
        self._outage.is_over()

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
        seconds = time.perf_counter() - in_flight.sent_at if in_flight.sent_at else 0.0
        size, written = count(in_flight.writes), len(in_flight.data) if in_flight.sent else 0
        operation = Operation("write", self._store, size, written, time.time(), seconds, failure)
        observe(self._observer, operation)
