"""Marks of users whose number is not known yet: they hold the key of an id. Pure.

`tallymark._marking.id_batch` replaces them by marks with an offset, or has a script do so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .marks import BitMark, DenseMarks, ExactUnmark, PreparedMarks, SparseMarks

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from .marks import Bitmaps

__all__ = ["IdExactUnmark", "IdMark", "IdMarks", "KnownNumbers"]

#: About how many bytes an id takes on the wire, with its bucket and its bit.
_ID_BYTES = 60


class IdMark(BitMark):
    """Set or clear one user's bit.

    Attributes:
        id: the key of the user's id.
        offset: while a batch has the mark, the user's number; or in a script, the position
            of the id among the script's arguments.
    """

    __slots__ = ("id",)

    def __init__(self, bitmaps: Bitmaps, user_key: Any, value: int) -> None:
        self.bitmaps = bitmaps
        self.id = user_key
        self.value = value
        self.offset = -1


@dataclass(frozen=True)
class IdExactUnmark(ExactUnmark):
    """An exact unmark of a user.

    Attributes:
        id: the key of the user's id.
    """

    id: Any

    def at(self, offset: int) -> ExactUnmark:
        """Return the mark of the user at an offset."""
        return ExactUnmark(self.bitmaps, offset, self.other_days)


@dataclass(frozen=True)
class KnownNumbers:
    """The numbers of some users, from a cache.

    Attributes:
        keys: the keys of the ids.
        numbers: the number of each.
        generation: that of the cache when the numbers were read.
    """

    keys: Collection[Any]
    numbers: Collection[int]
    generation: object

    def has_any(self, keys: set[Any]) -> bool:
        """Return whether some of the users have one of these keys."""
        return not keys.isdisjoint(self.keys)


class IdMarks(SparseMarks):
    """Set or clear the bits of many users of one shard.

    Attributes:
        prepared: the same marks with numbers, if all of them were cached; else ``None``.
        numbers_only: whether the users get numbers, and no bit is written.
    """

    __slots__ = ("_keys", "_known", "numbers_only", "prepared")

    def __init__(
        self,
        bitmaps: Bitmaps,
        value: int,
        keys: Sequence[Any] = (),
        *,
        prepared: SparseMarks | DenseMarks | PreparedMarks | None = None,
        known: KnownNumbers | None = None,
        numbers_only: bool = False,
    ) -> None:
        """Begin with users.

        Arguments:
            bitmaps, value: as for `SparseMarks`.
            prepared, numbers_only: as the attributes.
            keys: the keys of the users' ids, unless they are ``known``.
            known: users, among them those of the prepared marks.
        """
        self.bitmaps = bitmaps
        self.value = value
        self.offsets, self.commands = [], b""
        self.prepared = prepared
        self.numbers_only = numbers_only
        self._keys = keys
        self._known = known
        #: Also of prepared marks by the number of users: if the cache is cleared, they are calls of
        #: the script, too many of which would hold up other marks.
        users: Collection[Any] = keys if known is None else known.keys
        if isinstance(prepared, SparseMarks):
            users = prepared.offsets
        self.size = _ID_BYTES * (
            prepared.rows if isinstance(prepared, PreparedMarks) else len(users)
        )

    def are_known(self, generation: object, unknown: set[Any]) -> bool:
        """Return whether the prepared marks are valid.

        Arguments:
            generation: the generation of the cache.
            unknown: keys of users who count as unknown.
        """
        known = self._known
        return (
            known is not None
            and known.generation is generation
            and not (unknown and known.has_any(unknown))
        )

    def parts(self) -> Iterable[tuple[Bitmaps, Sequence[Any]]]:
        """Return bitmaps, and for each of them the keys of the users to mark there."""
        if isinstance(self.prepared, PreparedMarks) and self._known is not None:
            return self.prepared.parts(self._known)
        return ((self.bitmaps, self.keys()),)

    def keys(self) -> Sequence[Any]:
        """Return the keys of the users' ids."""
        known, prepared = self._known, self.prepared
        if known is None or prepared is None:
            return self._keys
        if isinstance(prepared, PreparedMarks):
            return [key for _, keys in prepared.parts(known) for key in keys]
        if isinstance(prepared, SparseMarks):
            wanted = set(prepared.offsets)
            return [key for key, at in zip(known.keys, known.numbers, strict=True) if at in wanted]
        first = 8 * prepared.first
        end = first + 8 * len(prepared.bits)
        return [key for key, at in zip(known.keys, known.numbers, strict=True) if first <= at < end]
