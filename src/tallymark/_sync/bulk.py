"""Bulk writes: `SyncTally.mark_many` and its like, one transaction after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core.untrusted import reraise_from_handler
from .._reading.execution import Deadline
from .._redis.clocks import clocks
from ..errors import TallymarkError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._core.periods import Granularity
    from .._marking.bulk import BulkCall
    from .backend import SyncBackend

__all__ = ["write_many"]


def write_many(
    backend: SyncBackend, many: BulkCall, user_ids: Iterable[Any], timeout: float | None
) -> dict[Granularity, int]:
    """Send the marks of many users; return how many bits were flipped in each granularity.

    Arguments:
        backend: sends the marks.
        many: makes the marks.
        user_ids: the users.
        timeout: how many seconds the whole call may take; ``None`` for the tally's timeout
            for each transaction.
    """
    backend.writer.check_usable()
    deadline = Deadline(timeout, clocks.monotonic)
    unchecked, all_there = many.blocks(user_ids, deadline.check)
    checked = map(many.checked, unchecked)
    try:
        for offsets in list(checked) if all_there else checked:
            for chunk in many.chunks(offsets):
                results = backend.submit_counted(chunk.marks, deadline.left())
                many.record(chunk, results)
    except TallymarkError as error:
        reraise_from_handler(error)
        raise many.with_progress(error, timeout) from error.__cause__
    return many.counts
