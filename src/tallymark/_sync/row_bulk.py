"""Bulk writes of rows: `SyncTally.mark_rows`, one transaction after the other."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from .._core.untrusted import reraise_from_handler
from .._marking.row_effects import Fetch, Reject
from .._reading.execution import Deadline
from .._redis.clocks import clocks
from ..errors import TallymarkError

if TYPE_CHECKING:
    from .._core.failures import OnError
    from .._core.periods import Granularity
    from .._marking.rows import RowWrite
    from .backend import SyncBackend

__all__ = ["write_rows"]


def write_rows(
    backend: SyncBackend,
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
    backend.writer.check_usable()
    deadline = Deadline(timeout, clocks.monotonic)
    try:
        source, iterator = write.source(rows, deadline.check, on_error)
        steps = write.steps(source, deadline.left, rejects=on_error is not None)
        effect: Any = next(steps, None)
        while effect is not None:
            outcome = None
            if isinstance(effect, Fetch):
                outcome = list(itertools.islice(iterator, effect.most))
            elif isinstance(effect, Reject):
                for bad in effect.rows:
                    if on_error is not None:
                        on_error(*bad)
                    deadline.left()
            else:
                for chunk in effect.chunks:
                    results = backend.submit_counted(chunk.marks, deadline.left())
                    write.record(chunk, results)
            try:
                effect = steps.send(outcome)
            except StopIteration:
                break
    except TallymarkError as error:
        reraise_from_handler(error)
        raise write.with_progress(error, timeout) from error.__cause__
    finally:
        write.events.end()
    return write.counts
