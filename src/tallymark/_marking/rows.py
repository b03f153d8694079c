"""Rows of events, users and moments: from what a caller passes to transactions. Pure.

`RowWrite.steps` is a generator of effects, which a driver performs: it fetches rows, hands over bad
ones, and sends transactions. It works between two effects, for milliseconds, and calls ``pause``
often; the async driver resumes it in a worker thread.

Rows are gathered in blocks of `BLOCK`, which bounds the memory: the larger a block, the more rows
share the bitmap of a week or a month.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from .._core.arguments import checked_name, iterated
from .._core.failures import copied
from .._core.moments import loaded_numpy
from .._core.offsets import IN_MEMORY, in_time, is_array
from .._core.untrusted import shown
from ..errors import ClosedError, InvalidTypeError
from .bulk import WriteResults
from .row_blocks import BlockWriter
from .row_columns import Columns, is_columns, streamed
from .row_effects import Fetch, Reject, Send
from .row_sorting import Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from .bulk import Chunk
    from .policies import EventPolicy
    from .row_blocks import RowTarget
    from .row_effects import Effect
    from .row_reader import RowReader

__all__ = ["BLOCK", "RowEvents", "RowWrite", "sends"]

#: How many rows a block has. Measured, for 2 million rows of 50 events and 90 days: 262,144 take
#: 1.6 us a row of our CPU time and Redis's together, 524,288 take 1.2, a million 1.0, all at once
#: 0.6; and 9, 23, 52 and 110 MB of memory.
BLOCK: Final = 524_288

#: How many rows are fetched at once; and how many are checked in one step, which takes 1 to 2 ms.
_FETCHED: Final = 8_192
_ROWS: Final = 2_048
_COLUMN_ROWS: Final = 16_384

#: From so many rows on, numpy is imported: for fewer, that takes longer than it saves.
_MANY: Final = 4_096

#: How many transactions are made in one step, about 10 ms.
_CHUNKS: Final = 8

#: After so many events, their names are forgotten at the end of a block.
_EVENTS: Final = 50_000


class RowEvents:
    """The events of one call: each keeps a place in ``max_events`` until the call has ended."""

    def __init__(self, policy: EventPolicy) -> None:
        """Begin without events."""
        self._policy = policy
        self._reserved: set[str] = set()
        self._ended = False
        self.is_uncounted = policy.is_uncounted

    def admit(self, event: Any, *, keeps: bool = True) -> str:
        """Return the name of an event that may be marked.

        Arguments:
            event: the event.
            keeps: whether it keeps its place; not if all bitmaps of its row have expired.

        Raises:
            InvalidTypeError, InvalidValueError: it may not.
        """
        if isinstance(event, str):
            self._policy.check_length(event)
        name = checked_name("event", event)
        self._policy.check(name)
        if name not in self._reserved and self._policy.is_uncounted(name):
            with self._policy.lock:
                if self._ended:  # the thread of a call that was cancelled
                    raise ClosedError("the call has ended")
                self._policy.reserve(name)
                if keeps:
                    self._reserved.add(name)
                else:
                    self._policy.release(name, applied=False)
        return name

    def end(self) -> None:
        """Release the places."""
        with self._policy.lock:
            self._ended = True
            for name in self._reserved:
                self._policy.release(name, applied=False)
            self._reserved.clear()


class RowWrite(WriteResults):
    """One call of ``mark_rows``: its transactions and their results.

    Attributes:
        events: has a place reserved for each event.
        done, counts: as in `WriteResults`.
    """

    _BEFORE = "rows before were marked"

    def __init__(
        self,
        events: RowEvents,
        target: RowTarget,
        reader: RowReader,
        writer: Callable[[Rows, Callable[[], object]], Iterator[Send]] | None,
    ) -> None:
        """Prepare a call.

        Arguments:
            events: has a place reserved for each event.
            target: where the rows are marked.
            reader: checks the rows.
            writer: makes the transactions of a block of rows that need marks of their own,
                since their users have ids; else ``None``.
        """
        super().__init__(target.calendar.granularities)
        self.events = events
        self._target = target
        self._reader = reader
        self._writer = writer

    @staticmethod
    def check_on_error(on_error: object) -> None:
        """Raise an `InvalidTypeError` unless this can be called with a bad row, or is ``None``."""
        if on_error is not None and not callable(on_error):
            raise InvalidTypeError(f"on_error must be a function or None, got {shown(on_error)}")

    def source(
        self, rows: Any, check_time: Callable[[], object] | None, on_error: object
    ) -> tuple[Any, Iterator[Any]]:
        """Return columns, or ``None``; and an iterator over rows that are no columns.

        Arguments:
            rows: what the caller has passed.
            check_time: is called after each row of an iterable that may wait; raises when the
                deadline has passed.
            on_error: takes bad rows; ``None`` to raise the first one.

        Raises:
            InvalidTypeError: these are no rows, or no function.
        """
        self.check_on_error(on_error)
        if is_columns(rows):
            return rows, iter(())
        rows_iterator = iterated(
            "rows must be an iterable of (event, user id, moment), or columns with these", rows
        )
        if check_time is not None and not isinstance(rows, IN_MEMORY):
            rows_iterator = in_time(rows_iterator, check_time)
        return None, rows_iterator

    def steps(
        self, source: Any, pause: Callable[[], object], *, rejects: bool
    ) -> Generator[Effect, Any, None]:
        """Yield the effects of the call.

        Arguments:
            source: the rows, or columns; ``None`` for rows that the driver has.
            pause: is called every few milliseconds; raises if the call has to end.
            rejects: whether bad rows are handed over; if not, the first one is raised.

        Raises:
            InvalidTypeError, InvalidValueError: the columns, or a row, are not allowed.
        """
        blocks: list[Rows] = []
        gathered = 0
        parts = self._of_iterable() if source is None else self._of_columns(source)
        # Not a ``for``: what is sent to the generator is for the inner one.
        effect: Any = next(parts, None)
        while effect is not None:
            pause()
            if isinstance(effect, Fetch):
                try:
                    effect = parts.send((yield effect))
                except StopIteration:
                    break
                continue
            rows, bad = effect
            if bad:
                if not rejects:
                    index, _, error = bad[0]
                    raise copied(error, f"row {index}: {error}") from error.__cause__
                yield Reject(bad)
            if rows is not None:
                blocks.append(rows)
                gathered += len(rows.users)
            if gathered >= BLOCK:
                yield from self._block(blocks, pause)
                blocks, gathered = [], 0
            effect = next(parts, None)
        if blocks:
            yield from self._block(blocks, pause)

    # --- reading

    def _of_iterable(self) -> Generator[Any, Any, None]:
        index = 0
        while True:
            rows = yield Fetch(_FETCHED)
            self._reader.many |= len(rows) >= _MANY
            for begin in range(0, len(rows), _ROWS):
                yield self._reader.of_rows(rows[begin : begin + _ROWS], index + begin)
            index += len(rows)
            if len(rows) < _FETCHED:
                return

    def _of_columns(self, source: Any) -> Generator[Any, Any, None]:
        stream = streamed(source)
        index = 0
        for columns in (Columns.of(source),) if stream is None else stream:
            self._reader.many |= columns.length >= _MANY
            for begin in range(0, columns.length, _COLUMN_ROWS):
                end = min(columns.length, begin + _COLUMN_ROWS)
                yield self._reader.of_columns(columns, begin, end, index)
            index += columns.length

    # --- writing

    def _block(self, parts: list[Rows], pause: Callable[[], object]) -> Generator[Send, Any, None]:
        if not parts:
            return
        rows = Rows(*map(_joined, zip(*parts, strict=True)))
        parts.clear()
        if self._writer is not None:
            yield from self._writer(rows, pause)
        else:
            writer = BlockWriter(self._target, self._reader.names, self.events.is_uncounted)
            yield from sends(writer.chunks(rows), pause)
        if len(self._reader.names) > _EVENTS:
            self._reader.forget_events()


def sends(chunks: Iterator[Chunk], pause: Callable[[], object]) -> Iterator[Send]:
    """Yield chunks, some at a time."""
    while True:
        some = []
        for chunk in itertools.islice(chunks, _CHUNKS):
            some.append(chunk)
            pause()
        if not some:
            return
        yield Send(some)


def _joined(columns: tuple[Any, ...]) -> Any:
    if len(columns) == 1:
        return columns[0]
    if any(map(is_array, columns)):
        numpy: Any = loaded_numpy()
        return numpy.concatenate([numpy.asarray(column, dtype=numpy.int64) for column in columns])
    return list(itertools.chain.from_iterable(columns))
