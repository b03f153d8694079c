"""What a tally has done so far, in numbers. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import TallymarkError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .marks import Result

__all__ = ["Stats", "Totals"]


@dataclass(frozen=True)
class Stats:
    """What a tally has done since it was made; a snapshot, cheap enough to take at any time.

    Attributes:
        marks: marks and unmarks that Redis has confirmed. Of a ``mark_many``, each
            piece that is a transaction counts as one.
        batches: transactions that Redis has confirmed.
        bytes_sent: how many bytes of commands were written, repetitions included.
        retries: how often a batch was sent again after its connection broke.
        errors: marks that ended in an error, other than for their arguments.
        waiting: marks that are neither confirmed nor failed at this moment.
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
    """The numbers behind `Stats`, as they grow."""

    __slots__ = ("batches", "bytes_sent", "errors", "marks", "retries")

    def __init__(self) -> None:
        self.marks = self.batches = self.bytes_sent = self.retries = self.errors = 0

    def settle(self, results: Sequence[Result], *, refused: bool, postponed: int = 0) -> None:
        """Count what came of a batch.

        Arguments:
            results: of all its marks.
            refused: whether Redis has thrown the transaction away.
            postponed: how many of the errors are not final.
        """
        errors = -postponed
        # Mostly there are none, which is seen faster so.
        if any(issubclass(kind, TallymarkError) for kind in set(map(type, results))):
            errors += sum(isinstance(result, TallymarkError) for result in results)
        self.errors += errors
        self.marks += len(results) - postponed - errors
        self.batches += not refused

    def add(self, others: Totals) -> None:
        """Add other numbers to these."""
        self.marks += others.marks
        self.batches += others.batches
        self.bytes_sent += others.bytes_sent
        self.retries += others.retries
        self.errors += others.errors

    def stats(self, waiting: int) -> Stats:
        """Return a snapshot."""
        return Stats(self.marks, self.batches, self.bytes_sent, self.retries, self.errors, waiting)
