"""Chunks: marks of a buffer on their way through a group commit. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..errors import TallymarkError
from .marks import BitMark

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from .marks import Bitmaps, Mark, Result

__all__ = ["FIELDS", "NO_BIT", "Chunk", "Record", "fields_of", "retriable_indexes"]

#: A mark, the user's id, and the moment: the argument ``now``; if that was ``None``, the time in
#: seconds since 1970; ``None`` for a flag.
Record = tuple["Mark", Any, "date | float | None"]

#: How many items `Chunk.fields` has for each mark.
FIELDS: Final = 5

#: In place of the value of a mark that is no `BitMark` with an offset.
NO_BIT: Final = -1


class Chunk(Sequence["Mark"]):
    """Marks of a buffer that follow one another, and need not share a transaction.

    In the queue of a group commit it is a call with several marks, and takes the place of the
    future of that call as well: `set_result` takes a result for each mark. As long as nothing
    follows it in the queue, the buffer may append marks.

    The marks are one flat list, without an object for each. With a mark and a record for each, a
    web app that has many requests at a time has so many more objects that the garbage
    collector runs some hundred times more often, and that takes as long as the marks: see
    `benchmarks/middleware.py`.

    Attributes:
        fields: of each mark its bitmaps, the offset and value of its bit, the user's id, and the
            moment as in a `Record`. In place of an offset, any mark but a plain `BitMark` is
            there itself, and its value is `NO_BIT`.
        whole: the chunk of which this is a part, or this one.
        number: its place among the chunks of its buffer.
        owner: the buffer.
        has_reserved: whether marks of it hold places in ``max_events``.
        room: how many fields it may have; 0 once another write follows it, or it is sent.
        closes_at: until when the buffer may append marks, on its clock.
    """

    __slots__ = (
        "_is_done",
        "_settle",
        "closes_at",
        "fields",
        "has_reserved",
        "number",
        "owner",
        "room",
        "whole",
    )

    def __init__(
        self,
        owner: object,
        settle: Callable[[Chunk, Sequence[Result]], None],
        fields: list[Any],
        whole: Chunk | None = None,
    ) -> None:
        """Begin with marks.

        Arguments:
            owner: the buffer.
            settle: is called with the chunk and the results of its marks.
            fields: those of one or more marks.
            whole: the chunk of which this is a part; ``None`` for none.
        """
        self.owner = owner
        self.fields = fields
        self.whole: Chunk = whole or self
        self.number = 0
        self.has_reserved = False
        self.room = 0
        self.closes_at = 0.0
        self._settle = settle
        self._is_done = False

    def __len__(self) -> int:
        """Return how many marks the chunk has."""
        return len(self.fields) // FIELDS

    def __getitem__(self, index: Any) -> Any:
        """Return a mark, or some."""
        return list(self)[index]

    def __iter__(self) -> Iterator[Mark]:
        """Iterate over the marks."""
        return (mark for mark, _, _ in self.records())

    def __hash__(self) -> int:
        """Return a hash by identity."""
        return id(self)

    def __eq__(self, other: object) -> bool:
        """Compare by identity."""
        return self is other

    def rows(self) -> Iterator[tuple[Bitmaps, Any, int, Any, Any]]:
        """Iterate over the fields of each mark."""
        return zip(*[iter(self.fields)] * FIELDS, strict=True)

    def records(self) -> Iterator[Record]:
        """Iterate over the marks, each with the user's id and the moment."""
        for bitmaps, offset, value, user_id, now in self.rows():
            mark = offset if value == NO_BIT else BitMark(bitmaps, offset, value)
            yield mark, user_id, now

    def done(self) -> bool:
        """Return whether the marks have results."""
        return self._is_done

    def set_result(self, results: Any) -> None:
        """Give each mark its result, once."""
        self._is_done = True
        self.room = 0
        self._settle(self, results)

    def part(self, indexes: Iterable[int]) -> Chunk:
        """Return a chunk of some of the marks; this one must not be used any more."""
        fields = self.fields
        parts = [fields[FIELDS * index : FIELDS * (index + 1)] for index in indexes]
        return self._of(list(itertools.chain.from_iterable(parts)))

    def split(self, size: int) -> tuple[Chunk, Chunk]:
        """Return a chunk of the first marks, and one of the others.

        This one must not be used any more.
        """
        return self._of(self.fields[: FIELDS * size]), self._of(self.fields[FIELDS * size :])

    def _of(self, fields: list[Any]) -> Chunk:
        return Chunk(self.owner, self._settle, fields, self.whole)


def fields_of(mark: Mark, user_id: Any, now: date | float | None) -> list[Any]:
    """Return the fields of a mark in a chunk."""
    if type(mark) is BitMark:
        return [mark.bitmaps, mark.offset, mark.value, user_id, now]
    return [mark.bitmaps, mark, NO_BIT, user_id, now]


def retriable_indexes(results: Sequence[Result]) -> list[int]:
    """Return the indexes of marks that were refused only because of other marks.

    They may be sent again, without those that were refused themselves.
    """
    return [
        index
        for index, result in enumerate(results)
        if isinstance(result, TallymarkError) and result._is_retriable  # noqa: SLF001
    ]
