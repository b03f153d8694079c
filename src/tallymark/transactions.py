"""Several marks in one transaction. Pure: a driver sends what is collected here."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, cast

from .errors import ClosedError, TallymarkError
from .periods import Granularity
from .verbs import MarkVerbs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .marker import Marker
    from .marks import Mark, Result

__all__ = ["PendingMark", "Transaction"]


class PendingMark:
    """What a verb of a transaction returns: its result, known once the block has ended.

    Attributes:
        result: the flips or the error; ``None`` as long as neither is known.
    """

    def __init__(self) -> None:
        self.result: Result | None = None

    @property
    def flipped(self) -> Granularity:
        """The granularities whose bit this mark flipped, as the verbs of a tally return them.

        Raises:
            TallymarkError: the block has not ended yet, or ended without Redis
                having confirmed the transaction.
            CommandError: Redis refused this mark.
        """
        if self.result is None:
            raise TallymarkError("not known: the transaction has not been confirmed")
        return unwrapped(self.result)


class Transaction(MarkVerbs[PendingMark]):
    """Collects marks that one ``MULTI``/``EXEC`` applies when the ``with`` block ends.

    Get one from ``transaction()`` of a tally. Its verbs check their arguments
    and take the present moment when they are called, send nothing, and return
    a `PendingMark`. When the block ends, all marks leave together, in call
    order; when an exception leaves the block, none does. Redis runs nothing
    else while it applies a transaction, about 1.6 ms for a thousand marks, so
    split what is larger.

    Not for use from several threads at once.
    """

    def __init__(self, marker: Marker) -> None:
        self._marker = marker
        self._pending: list[PendingMark] = []
        self._ended = False
        #: What was collected, in call order.
        self.marks: list[Mark] = []

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Accept marks inside the block only."""
        try:
            yield
        finally:
            self._ended = True

    def settle(self, results: list[Result]) -> None:
        """Hand out the results.

        Raises:
            CommandError: the first of the marks' errors; each `PendingMark`
                tells its own.
        """
        for pending, result in zip(self._pending, results, strict=True):
            pending.result = result
        for result in results:
            unwrapped(result)

    def _take(self, mark: Mark) -> PendingMark:
        if self._ended:
            raise ClosedError("this transaction has ended; open another one")
        self.marks.append(mark)
        pending = PendingMark()
        self._pending.append(pending)
        return pending


def unwrapped(result: Result) -> Granularity:
    """Return what the mark of one user flipped, or raise its error."""
    if isinstance(result, Granularity):
        return result
    raise cast("TallymarkError", result)
