"""Bulk writes of rows: `Tally.mark_rows`. Rows are checked and sorted in a worker thread."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any, Final

import anyio

from .._marking.row_effects import Fetch, Reject
from .._reading.execution import Deadline
from .._redis.clocks import clocks
from ..errors import StoreTimeoutError, TallymarkError
from .bulk import closed
from .executor import PAUSE, PAUSE_INTERVAL
from .loop_bound import running_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

    from .._core.failures import OnError
    from .._core.periods import Granularity
    from .._marking.bulk import Chunk
    from .._marking.marks import Result
    from .._marking.row_effects import Effect
    from .._marking.rows import RowWrite
    from .backend import AsyncBackend

__all__ = ["write_rows"]

#: After so many rows of an iterable, other tasks run; and after so many seconds of ``on_error``.
_TURN: Final = 1_024
_TURN_TIME: Final = 0.002


async def write_rows(
    backend: AsyncBackend,
    write: RowWrite,
    rows: Any,
    on_error: OnError | None,
    timeout: float | None,
) -> dict[Granularity, int]:
    """Send the marks of rows; return how many bits were flipped in each granularity.

    Arguments:
        backend: sends the marks.
        write: makes the marks.
        rows: the rows, or columns.
        on_error: takes bad rows; ``None`` to raise the first one.
        timeout: how many seconds the whole call may take; ``None`` for the tally's timeout for
            each transaction.
    """
    call = _Call(backend, write, on_error, Deadline(timeout, running_loop().time))
    try:
        backend.writer.check_usable()
        if isinstance(rows, AsyncIterable):
            write.check_on_error(on_error)
            async with closed(aiter(rows), call.deadline) as items:
                await call.run(None, items)
        else:
            columns, iterator = write.source(rows, call.deadline.check, on_error)
            await call.run(columns, iterator)
    except Exception as error:
        # The chunks before a bad row, or before an iterable that failed.
        await call.settle()
        if isinstance(error, TallymarkError):
            raise write.with_progress(error, timeout) from error.__cause__
        raise
    finally:
        call.end()
    return write.counts


class _Call:
    """One call: performs the effects of a `RowWrite`."""

    def __init__(
        self,
        backend: AsyncBackend,
        write: RowWrite,
        on_error: OnError | None,
        deadline: Deadline,
    ) -> None:
        self._backend = backend
        self._write = write
        self._on_error = on_error
        self.deadline = deadline
        self._in_flight: deque[tuple[Chunk, asyncio.Task[list[Result]]]] = deque()
        self._next: asyncio.Task[Effect | None] | None = None
        self._thread = _Thread()

    async def run(self, columns: Any, rows: Iterator[Any] | AsyncIterator[Any]) -> None:
        """Perform all effects.

        Arguments:
            columns: the columns; ``None`` if there are rows.
            rows: the rows.
        """
        pause = self._thread.pause
        steps = self._write.steps(columns, pause, rejects=self._on_error is not None)
        effect = await self._resume(steps, None)
        while effect is not None:
            outcome = None
            if isinstance(effect, Fetch):
                outcome = await self._fetched(rows, effect.most)
            elif isinstance(effect, Reject):
                await self._reject(effect.rows)
            else:
                if not effect.settle:
                    # While these are sent, the next ones are made.
                    self._next = asyncio.create_task(self._resume(steps, None))
                    self._next.add_done_callback(_retrieved)
                for chunk in effect.chunks:
                    await self._send(chunk)
                if self._next is not None:
                    effect, self._next = await self._next, None
                    continue
                await self._finish()
            effect = await self._resume(steps, outcome)
        await self._finish()

    async def settle(self) -> None:
        """Wait for the transactions in flight, and ignore their errors."""
        while self._in_flight:
            with contextlib.suppress(TallymarkError):
                await self._await_oldest()

    def end(self) -> None:
        """Cancel what is still in progress, and release the places of events."""
        self._thread.stop()
        for _, task in self._in_flight:
            task.cancel()
        if self._next is not None:
            self._next.cancel()
        self._write.events.end()

    async def _resume(self, steps: Generator[Effect, Any, None], outcome: Any) -> Effect | None:
        """Resume the steps in a thread; return the next effect, or ``None`` at the end.

        Raises:
            StoreTimeoutError: the deadline has passed.
        """
        with anyio.CancelScope(deadline=self.deadline.at):
            return await anyio.to_thread.run_sync(
                self._thread.resume, steps, outcome, abandon_on_cancel=True
            )
        self._thread.stop()
        self.deadline.left()
        raise StoreTimeoutError

    async def _fetched(self, rows: Iterator[Any] | AsyncIterator[Any], count: int) -> list[Any]:
        """Return the next rows, fewer than ``count`` if these are the last ones."""
        fetched: list[Any] = []
        if isinstance(rows, AsyncIterable):
            with anyio.CancelScope(deadline=self.deadline.at) as scope:
                async for row in rows:
                    fetched.append(row)
                    if len(fetched) == count:
                        break
            if scope.cancelled_caught:
                raise StoreTimeoutError("the iterable of rows did not give the next one in time")
            return fetched
        while len(fetched) < count:
            some = list(itertools.islice(rows, min(_TURN, count - len(fetched))))
            if not some:
                break
            fetched += some
            await asyncio.sleep(0)
        return fetched

    async def _reject(self, rows: Any) -> None:
        began = clocks.perf_counter()
        for bad in rows:
            if self._on_error is not None:
                self._on_error(*bad)
            self.deadline.left()
            if clocks.perf_counter() - began >= _TURN_TIME:
                await asyncio.sleep(0)
                began = clocks.perf_counter()

    async def _send(self, chunk: Chunk) -> None:
        while len(self._in_flight) >= self._backend.pieces:
            await self._await_oldest()
        commit = self._backend.submit_counted(chunk.marks, self.deadline.left())
        self._in_flight.append((chunk, asyncio.create_task(commit)))
        await asyncio.sleep(0)

    async def _finish(self) -> None:
        while self._in_flight:
            await self._await_oldest()

    async def _await_oldest(self) -> None:
        chunk, task = self._in_flight.popleft()
        self._write.record(chunk, await task)


class _Thread:
    """The work in worker threads, one step after the other."""

    def __init__(self) -> None:
        self._stopped = False
        self._paused = 0.0

    def stop(self) -> None:
        """End the work at its next pause."""
        self._stopped = True

    def pause(self) -> None:
        """Let other threads run. Called in the thread.

        Raises:
            TallymarkError: the call has ended.
        """
        if self._stopped:
            raise TallymarkError("the call has ended")
        now = clocks.perf_counter()
        if now - self._paused >= PAUSE_INTERVAL:
            time.sleep(PAUSE)
            self._paused = clocks.perf_counter()

    @staticmethod
    def resume(steps: Generator[Effect, Any, None], outcome: Any) -> Effect | None:
        """Return the next effect of the steps; ``None`` at the end."""
        try:
            return steps.send(outcome)
        except StopIteration:
            return None


def _retrieved(task: asyncio.Task[Any]) -> None:
    """Retrieve the exception of a task, of which nobody may ask."""
    if not task.cancelled():
        task.exception()
