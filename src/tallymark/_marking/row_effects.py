"""What a driver does for a bulk write of rows: see `tallymark._marking.rows`. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..errors import TallymarkError
    from .bulk import Chunk

__all__ = ["BadRow", "Effect", "Fetch", "Reject", "Send"]


class BadRow(NamedTuple):
    """A row that cannot be marked.

    Attributes:
        position: that among all rows of the call, from 0 on.
        row: the row.
        error: what is wrong.
    """

    position: int
    row: Any
    error: TallymarkError


class Fetch(NamedTuple):
    """Fetch the next rows; the generator is sent a list, which is shorter at the end only.

    Attributes:
        most: how many.
    """

    most: int


class Send(NamedTuple):
    """Send transactions.

    Attributes:
        chunks: the transactions.
        settle: whether to continue only after all results are recorded.
    """

    chunks: Sequence[Chunk]
    settle: bool = False


class Reject(NamedTuple):
    """Hand over bad rows to the caller's function.

    Attributes:
        rows: the rows.
    """

    rows: Sequence[BadRow]


Effect = Fetch | Send | Reject
