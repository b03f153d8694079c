"""Rows of users whose ids are no numbers: the transactions of one block. Pure.

All users of a block who have no cached number get one first, in the order of their first rows. Then
their rows are marked as by `tallymark._marking.row_blocks`. Where no numbers are cached, as with
shards, each row is a mark of its own.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from .._core.moments import loaded_numpy
from .._core.offsets import as_list, is_array
from .bulk import Chunk
from .id_marks import IdMark, IdMarks, KnownNumbers
from .id_script import MAX_IDS
from .row_blocks import BlockWriter
from .row_effects import Send
from .row_sorting import Rows, lowest
from .rows import sends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .._core.user_ids import Dictionary
    from .number_cache import NumberCache
    from .row_blocks import RowTarget
    from .row_reader import RowReader

__all__ = ["IdRowWriter"]

#: How many transactions of new users are made in one step. Without a cache, more may be in flight.
_STEP: Final = 4

#: How many users are looked up in one step.
_LOOK_UP: Final = 8_192


class RowNumbers(KnownNumbers):
    """The numbers of the users of a block: ``keys`` is a dict from keys to numbers."""

    def has_any(self, keys: set[Any]) -> bool:
        """Return whether some of the users have one of these keys."""
        return any(key in self.keys for key in keys)

    def keys_of(self, numbers: Sequence[int]) -> list[Any]:
        """Return the keys of the users with some numbers."""
        return list(map(self._by_number.__getitem__, numbers))

    @functools.cached_property
    def _by_number(self) -> dict[int, Any]:
        return dict(zip(self.numbers, self.keys, strict=True))


class IdRowWriter:
    """Makes the transactions of a block of rows whose users are keys of ids."""

    def __init__(
        self,
        target: RowTarget,
        reader: RowReader,
        is_uncounted: Callable[[str], bool],
        dictionary: Dictionary,
        cache: NumberCache | None,
    ) -> None:
        """Prepare for one call.

        Arguments:
            target, is_uncounted: as for `BlockWriter`.
            reader: has the names of the events.
            dictionary: the dictionary of the ids.
            cache: the numbers that the connection for marks has fetched; ``None`` for none.
        """
        self._target = target
        self._reader = reader
        self._is_uncounted = is_uncounted
        self._dictionary = dictionary
        self._cache = cache

    def __call__(self, rows: Rows, pause: Callable[[], object]) -> Iterator[Send]:
        """Yield what to send of a block."""
        rows = self._unexpired(rows)
        cache = self._cache
        keys = rows.users
        if cache is None:
            yield from sends(self._single(rows, range(len(keys))), pause)
            return
        generation = cache.generation  # before the numbers: it may change meanwhile
        # The first row of each user: later ones are the first to enter.
        first = dict(zip(reversed(keys), range(len(keys) - 1, -1, -1), strict=True))
        users = sorted(first, key=first.__getitem__)
        numbers: dict[Any, int] = {}
        unknown = _look_up(cache, users, numbers, pause)
        begin = 0
        while begin < len(unknown):
            new = unknown[begin : begin + _STEP * MAX_IDS]
            pause()
            yield Send(list(self._numbered(rows, new, first)), settle=True)
            begin += len(new)
            if cache.generation is not generation:
                generation = cache.generation
                numbers.clear()
            # At once: a cache that is too small soon has them no more.
            _look_up(cache, new, numbers, pause)
        if len(numbers) < len(users):
            _look_up(cache, [key for key in users if key not in numbers], numbers, pause)
        known, others = self._divided(rows, numbers)
        if len(known.codes):
            writer = BlockWriter(
                self._target,
                self._reader.names,
                self._is_uncounted,
                RowNumbers(numbers, numbers.values(), generation),
            )
            yield from sends(writer.chunks(known), pause)
        if others:
            yield from sends(self._single(rows, others), pause)

    def _unexpired(self, rows: Rows) -> Rows:
        """Return the rows with a bitmap that is left: as by a mark, others give no number."""
        codes, keys, units = rows
        has_expired = self._target.has_expired
        if not has_expired(lowest(units)):
            return rows
        listed = as_list(units)
        expired = set(filter(has_expired, set(listed)))
        kept = [at for at, unit in enumerate(listed) if unit not in expired]
        if is_array(codes):
            codes, units = codes[kept], units[kept]
        else:
            codes, units = ([column[at] for at in kept] for column in (codes, units))
        return Rows(codes, [keys[at] for at in kept], units)

    def _divided(self, rows: Rows, numbers: dict[Any, int]) -> tuple[Rows, list[int]]:
        """Return the rows of users with a number, and the positions of the others."""
        users: list[Any] = list(map(numbers.get, rows.users))
        others = [at for at, user in enumerate(users) if user is None] if None in users else []
        if is_array(rows.codes):
            numpy: Any = loaded_numpy()
            for position in others:
                users[position] = -1
            array = numpy.array(users, dtype=numpy.int64)
            kept = array >= 0 if others else slice(None)
            return Rows(rows.codes[kept], array[kept], rows.units[kept]), others
        kept_rows = [
            row for row in zip(rows.codes, users, rows.units, strict=True) if row[1] is not None
        ]
        columns = map(list, zip(*kept_rows, strict=True)) if kept_rows else ([], [], [])
        return Rows(*columns), others

    def _numbered(self, rows: Rows, users: Sequence[Any], first: dict[Any, int]) -> Iterator[Chunk]:
        """Yield transactions that give users numbers, in order.

        Arguments:
            rows: the rows.
            users: the keys of the users' ids.
            first: the position of each user's first row.
        """
        for at in range(0, len(users), MAX_IDS):
            keys = users[at : at + MAX_IDS]
            row = first[keys[0]]
            # The script looks whether these bitmaps and its dictionary belong together.
            bitmaps = self._target.bitmaps(
                self._reader.names[rows.codes[row]], 0, int(rows.units[row])
            )
            yield Chunk((IdMarks(bitmaps, 1, keys, numbers_only=True),), 0)

    def _single(self, rows: Rows, positions: Sequence[int]) -> Iterator[Chunk]:
        """Yield transactions with a mark for each of some rows, in order."""
        codes, keys, units = rows
        names, bitmaps = self._reader.names, self._target.bitmaps
        shard_of = self._dictionary.shard
        shards: dict[int, list[Any]] = {}
        for at in positions:
            key = keys[at]
            shard = shard_of(key)
            marks = shards.setdefault(shard, [])
            marks.append(IdMark(bitmaps(names[codes[at]], shard, int(units[at])), key, 1))
            if len(marks) == MAX_IDS:
                yield Chunk(marks, len(marks))
                shards[shard] = []
        for marks in shards.values():
            if marks:
                yield Chunk(marks, len(marks))


def _look_up(
    cache: NumberCache, keys: Sequence[Any], numbers: dict[Any, int], pause: Callable[[], object]
) -> list[Any]:
    """Add the cached numbers of some users to ``numbers``; return the others."""
    unknown = []
    for begin in range(0, len(keys), _LOOK_UP):
        pause()
        part = keys[begin : begin + _LOOK_UP]
        for key, number in zip(part, cache.get_many(part), strict=True):
            if number is None:
                unknown.append(key)
            else:
                numbers[key] = number
    return unknown
