"""What a tally has done so far, in numbers. Pure."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Stats"]


@dataclass(frozen=True)
class Stats:
    """What a tally has done since it was made; a snapshot, cheap enough to take at any time.

    Attributes:
        marks: marks and unmarks that Redis has confirmed.
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
