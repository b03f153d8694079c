"""How many marks the next batch of a group commit may have. Pure.

Three signals of the last batches decide: how many marks they had, how long their
round trips took, and whether a batch ran into its deadline.
"""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_BATCH_MARKS", "BatchSizer"]

#: Redis does nothing else while it runs a transaction. A thousand marks on three
#: keys take it 1.6 ms, and larger batches save next to nothing.
MAX_BATCH_MARKS: Final = 1000

#: A batch of up to so many marks is never split.
_UNDIVIDED: Final = 16

#: About what one mark costs our own process. Over a link whose round trip takes longer
#: than the marks of a batch do, splitting the queue in two would only make half of it
#: wait for two round trips.
_SECONDS_PER_MARK: Final = 10e-6

#: A batch that took less than this part of the timeout lets the limit grow again.
_SHORT: Final = 0.25


class BatchSizer:
    """Adapts the size of batches to what the last ones took.

    Attributes:
        last_size: how many marks the last batch had.
        fast: whether the last round trip took no longer than its marks cost our
            process. Then Redis works on one half of the marks while we work on the other.
        returning: how many callers of the last batch have had no chance yet to mark again.
    """

    __slots__ = ("_durations", "_limit", "fast", "last_size", "returning")

    def __init__(self) -> None:
        self.last_size = 0
        self.fast = False
        self.returning = 0
        #: Of the last two batches, in seconds.
        self._durations = (0.0, 0.0)
        self._limit = MAX_BATCH_MARKS

    @property
    def expected_duration(self) -> float:
        """How many seconds the next batch may be expected to take.

        The shorter one of the last two, since something that is over now may have
        delayed one of them.
        """
        return min(self._durations)

    def limit(self, waiting: int) -> int:
        """Return how many marks the next batch may have.

        Arguments:
            waiting: how many marks wait.
        """
        if not self.fast:
            return self._limit
        return min(self._limit, max(_UNDIVIDED, (waiting + self.returning) // 2))

    def completed(self, marks: int, seconds: float, timeout: float) -> None:
        """Record a batch whose replies have come.

        Arguments:
            marks: how many it had.
            seconds: how long its round trip took.
            timeout: how many seconds a call usually has.
        """
        self.last_size = self.returning = marks
        self.fast = seconds < marks * _SECONDS_PER_MARK
        self._durations = (self._durations[1], seconds)
        if self._limit < MAX_BATCH_MARKS and seconds < _SHORT * timeout:
            self._limit = min(MAX_BATCH_MARKS, 2 * self._limit)

    def timed_out(self, marks: int, seconds: float) -> None:
        """Record a batch that was sent and not answered in time: smaller ones may be."""
        self._durations = (self._durations[1], seconds)
        self._limit = max(_UNDIVIDED, marks // 2)
