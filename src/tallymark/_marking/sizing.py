"""The adaptive size of the batches of a group commit. Pure.

The size depends on three properties of the last batches: how many marks they had, how
long their round trips took, and whether a batch timed out.
"""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_BATCH_MARKS", "BatchSizer"]

#: Redis runs nothing else during a transaction. A thousand marks on three keys take
#: 1.6 ms, and larger batches save next to nothing.
MAX_BATCH_MARKS: Final = 1000

#: A batch of up to this many marks is never split.
_MIN_LIMIT: Final = 16

#: About how much CPU time one mark costs our process. If the round trip takes longer than
#: that for all marks of a batch, splitting the queue in two would only make one half wait
#: for two round trips.
_SECONDS_PER_MARK: Final = 10e-6

#: A batch that took less than this fraction of the timeout lets the limit grow again.
_GROWTH_FRACTION: Final = 0.25


class BatchSizer:
    """Adapts the size of batches to the duration of the last ones.

    Attributes:
        last_size: how many marks the last batch had.
        fast: whether the last round trip took less time than its marks cost our process.
            Then Redis works on one half of the waiting marks while we work on the other.
        returning: how many callers of the last batch have not run again yet, and may
            submit their next mark.
    """

    __slots__ = ("_durations", "_limit", "fast", "last_size", "returning")

    def __init__(self) -> None:
        self.last_size = 0
        self.fast = False
        self.returning = 0
        #: The durations of the last two batches, in seconds.
        self._durations = (0.0, 0.0)
        self._limit = MAX_BATCH_MARKS

    @property
    def expected_duration(self) -> float:
        """The expected duration of the next batch, in seconds.

        The shorter of the last two durations: one of them may have been an outlier.
        """
        return min(self._durations)

    def limit(self, waiting: int) -> int:
        """Return how many marks the next batch may have.

        Arguments:
            waiting: how many marks are in the queue.
        """
        if not self.fast:
            return self._limit
        return min(self._limit, max(_MIN_LIMIT, (waiting + self.returning) // 2))

    def completed(self, marks: int, seconds: float, timeout: float) -> None:
        """Record a batch whose replies have arrived.

        Arguments:
            marks: how many marks it had.
            seconds: the duration of its round trip.
            timeout: the default timeout of a call, in seconds.
        """
        self.last_size = self.returning = marks
        self.fast = seconds < marks * _SECONDS_PER_MARK
        self._durations = (self._durations[1], seconds)
        if self._limit < MAX_BATCH_MARKS and seconds < _GROWTH_FRACTION * timeout:
            self._limit = min(MAX_BATCH_MARKS, 2 * self._limit)

    def timed_out(self, marks: int, seconds: float) -> None:
        """Record a batch that was sent and not answered in time; the next one is smaller.

        Arguments:
            marks: how many marks it had.
            seconds: how long it has been in flight.
        """
        self._durations = (self._durations[1], seconds)
        self._limit = max(_MIN_LIMIT, marks // 2)
