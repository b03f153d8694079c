"""Chunks: marks of a buffer on their way through a group commit. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import TallymarkError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from .marks import Mark, Result

__all__ = ["Chunk", "Record", "retriable_indexes"]

#: A mark, the user's id, and the moment: the argument ``now``; if that was ``None``, the time in
#: seconds since 1970; ``None`` for a flag. A plain tuple: there is one for each mark.
Record = tuple["Mark", Any, "date | float | None"]


class Chunk(Sequence["Mark"]):
    """Marks of a buffer that follow one another, and need not share a transaction.

    In the queue of a group commit it is a call with several marks, and takes the place of the
    future of that call as well: `set_result` takes a result for each mark. As long as nothing
    follows it in the queue, the buffer may append records.

    Attributes:
        records: the marks.
        whole: the chunk of which this is a part, or this one.
        number: its place among the chunks of its buffer.
        owner: the buffer.
        has_reserved: whether marks of it hold places in ``max_events``.
        room: how many records it may have; 0 once its marks have results.
        closes_at: until when the buffer may append records, on its clock.
    """

    __slots__ = (
        "_is_done",
        "_settle",
        "closes_at",
        "has_reserved",
        "number",
        "owner",
        "records",
        "room",
        "whole",
    )

    def __init__(
        self,
        owner: object,
        settle: Callable[[Chunk, Sequence[Result]], None],
        records: list[Record],
        whole: Chunk | None = None,
    ) -> None:
        """Begin with records.

        Arguments:
            owner: the buffer.
            settle: is called with the chunk and the results of its marks.
            records: one or more.
            whole: the chunk of which this is a part; ``None`` for none.
        """
        self.owner = owner
        self.records = records
        self.whole: Chunk = whole or self
        self.number = 0
        self.has_reserved = False
        self.room = 0
        self.closes_at = 0.0
        self._settle = settle
        self._is_done = False

    def __len__(self) -> int:
        """Return how many marks the chunk has."""
        return len(self.records)

    def __getitem__(self, index: Any) -> Any:
        """Return a mark, or some."""
        return [mark for mark, _, _ in self.records][index]

    def __iter__(self) -> Iterator[Mark]:
        """Iterate over the marks."""
        return (mark for mark, _, _ in self.records)

    def __hash__(self) -> int:
        """Return a hash by identity."""
        return id(self)

    def __eq__(self, other: object) -> bool:
        """Compare by identity."""
        return self is other

    def done(self) -> bool:
        """Return whether the marks have results."""
        return self._is_done

    def set_result(self, results: Any) -> None:
        """Give each mark its result, once."""
        self._is_done = True
        self.room = 0
        self._settle(self, results)

    def part(self, records: list[Record]) -> Chunk:
        """Return a chunk of some of the marks; this one must not be used any more."""
        return Chunk(self.owner, self._settle, records, self.whole)


def retriable_indexes(results: Sequence[Result]) -> list[int]:
    """Return the indexes of marks that were refused only because of other marks.

    They may be sent again, without those that were refused themselves.
    """
    return [
        index
        for index, result in enumerate(results)
        if isinstance(result, TallymarkError) and result._is_retriable  # noqa: SLF001
    ]
