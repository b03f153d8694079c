"""Counters of what a tally has written. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .._core.periods import Granularity
from ..errors import TallymarkError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .marks import Result

__all__ = ["Stats", "Totals"]

#: The types of results that are no errors.
_NO_ERRORS: Final = frozenset((Granularity, dict))


@dataclass(frozen=True)
class Stats:
    """A snapshot of a tally's counters since it was made; cheap enough to take at any time.

    Attributes:
        marks: marks and unmarks that Redis has acknowledged. Each transaction of a
            ``mark_many`` counts as one mark.
        batches: transactions that Redis has acknowledged.
        bytes_sent: bytes of commands that were written, retries included.
        retries: how often a batch was sent again after its connection broke.
        errors: marks that ended in an error, except errors in their arguments.
        waiting: marks that are neither acknowledged nor failed at this moment.
    """

    marks: int = 0
    batches: int = 0
    bytes_sent: int = 0
    retries: int = 0
    errors: int = 0
    waiting: int = 0

    @property
    def marks_per_batch(self) -> float:
        """How many marks shared a transaction, on average; 0.0 before the first one."""
        return self.marks / self.batches if self.batches else 0.0


class Totals:
    """The counters behind `Stats`."""

    __slots__ = ("batches", "bytes_sent", "errors", "marks", "retries")

    def __init__(self) -> None:
        self.marks = self.batches = self.bytes_sent = self.retries = self.errors = 0

    def record(self, results: Sequence[Result], *, refused: bool, postponed: int = 0) -> None:
        """Count the results of a batch.

        Arguments:
            results: the results of all marks.
            refused: whether Redis discarded the transaction.
            postponed: how many of the errors are not final, because the marks are sent again.
        """
        errors = -postponed
        # Most batches have no errors, and the types of the results are checked faster.
        if not _NO_ERRORS.issuperset(map(type, results)):
            errors += sum(isinstance(result, TallymarkError) for result in results)
        self.errors += errors
        self.marks += len(results) - postponed - errors
        self.batches += not refused

    def add(self, others: Totals) -> None:
        """Add other counters to these."""
        self.marks += others.marks
        self.batches += others.batches
        self.bytes_sent += others.bytes_sent
        self.retries += others.retries
        self.errors += others.errors

    def stats(self, waiting: int) -> Stats:
        """Return a snapshot."""
        return Stats(self.marks, self.batches, self.bytes_sent, self.retries, self.errors, waiting)
