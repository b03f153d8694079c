"""Bulk writes for users whose ids are no numbers. Pure.

Users whose number is cached are written as by `tallymark._marking.bulk`, where their numbers lie
close together as a bitmap. All others are calls of the script, with few ids each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .._core.offsets import bounded, id_blocks
from .bulk import BulkWrite, Chunk, prepared_marks
from .id_marks import IdMarks, KnownNumbers
from .id_script import MAX_IDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .._core.keys import KeySchema
    from .._core.user_ids import Dictionary
    from .bulk import Target
    from .number_cache import NumberCache

__all__ = ["IdBulkWrite"]

#: How many users with cached numbers share a transaction. If that is aborted, they are calls of
#: the script, which take Redis some 50 ms.
_KNOWN: Final = 8_192


class IdBulkWrite(BulkWrite):
    """One call of ``mark_many`` or ``unmark_many``."""

    def __init__(
        self,
        target: Callable[[int], Target],
        schema: KeySchema,
        dictionary: Dictionary,
        cache: NumberCache | None,
        *,
        value: int,
    ) -> None:
        """Prepare a bulk write.

        Arguments:
            target, schema, value: as for `BulkWrite`.
            dictionary: the dictionary of the ids.
            cache: the numbers that the connection for marks has fetched; ``None`` for none.
        """
        super().__init__(target, schema, value=value)
        self._dictionary = dictionary
        self._cache = cache

    def blocks(
        self, user_ids: Iterable[Any], check_time: Callable[[], object] | None = None
    ) -> tuple[Iterator[Any], bool]:
        """Return an iterator over blocks of ids; as `BulkWrite.blocks`."""
        blocks, is_collection = id_blocks(user_ids, check_time)
        if type(user_ids) is range and user_ids:
            # It may be long: its ends are checked here, and the ids between them block by block.
            self.checked([user_ids[0], user_ids[-1]])
            is_collection = False
        return blocks, is_collection

    def checked(self, block: Iterable[Any]) -> list[Any]:
        """Return the keys of a block of ids. Raises as `BulkWrite.checked`."""
        return self._dictionary.ids.keys(block)

    def chunks(self, user_ids: Sequence[Any]) -> Iterator[Chunk]:
        """Yield the transactions for a block of keys."""
        for shard, keys in self._dictionary.by_shard(user_ids).items():
            target = self._target(shard)
            if target.exact_unmark is not None:
                yield from self._exact_chunks(target.exact_unmark, keys)
                continue
            unknown = keys
            if self._cache is not None and target.bitmaps.keys:
                unknown = []
                for at in range(0, len(keys), _KNOWN):
                    known, others = _divided(self._cache, keys[at : at + _KNOWN])
                    unknown += others
                    if known.keys:
                        yield from self._known_chunks(target, known)
            for at in range(0, len(unknown), MAX_IDS):
                part = unknown[at : at + MAX_IDS]
                yield Chunk((IdMarks(target.bitmaps, self._value, part),), len(part))

    def _known_chunks(self, target: Target, known: KnownNumbers) -> Iterator[Chunk]:
        for prepared, count in prepared_marks(target, bounded(known.numbers), self._value):
            marks = IdMarks(target.bitmaps, self._value, prepared=prepared, known=known)
            yield Chunk((marks,), count)


def _divided(cache: NumberCache, keys: Sequence[Any]) -> tuple[KnownNumbers, Sequence[Any]]:
    """Return the users whose number is cached, and the others."""
    generation = cache.generation  # before the numbers: another thread may clear the cache
    found = cache.get_all(keys)
    if found is not None:
        return KnownNumbers(keys, found, generation), ()
    numbers = cache.get_many(keys)
    known = [number for number in numbers if number is not None]
    known_keys = [key for key, number in zip(keys, numbers, strict=True) if number is not None]
    unknown = [key for key, number in zip(keys, numbers, strict=True) if number is None]
    return KnownNumbers(known_keys, known, generation), unknown
