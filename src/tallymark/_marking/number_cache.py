"""The cache of users' numbers, as one connection has fetched them. Pure."""

from __future__ import annotations

import contextlib
import operator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .._core.options import Options

__all__ = ["LONG_WRITE", "NumberCache"]

#: After a write that took longer, in seconds, the numbers are fetched anew. Its commands may have
#: reached the server one by one. If it has become a replica, was resynchronised, and has become a
#: master again between ``EXEC`` and the ``WATCH`` behind it, no ``WATCH`` has noticed that.
LONG_WRITE: Final = 1.0


class NumberCache:
    """Numbers of users, by the keys of their ids. If it is full, one not used lately leaves.

    The numbers are valid on the connection that has fetched them, as long as its ``WATCH`` on
    the stamp has seen no change. So every new connection begins with an empty cache, and a
    change empties it. Threads may read it while one writes.

    Attributes:
        generation: an object that `clear` replaces: numbers that were read before belong to
            the old one.
        young: the numbers that were used last; not all that `get` returns.
        stamp: the dictionary's stamp when the numbers were fetched; ``None`` if it is unknown.
    """

    __slots__ = ("_max_entries", "_old", "generation", "stamp", "young")

    def __init__(self, max_entries: int) -> None:
        """Begin empty.

        Arguments:
            max_entries: how many numbers it holds at most.
        """
        self._max_entries = max_entries
        self.clear()

    @classmethod
    def of(cls, options: Options) -> NumberCache | None:
        """Return the cache of a tally; ``None`` if it caches no numbers.

        With several shards it caches none: ``EXEC`` ends every ``WATCH``, so only the first
        transaction of a write would be guarded.
        """
        if options.user_ids is None or (options.shards or 1) > 1:
            return None
        return cls(options.max_cached_ids)

    def clear(self) -> None:
        """Forget all numbers."""
        self.stamp: bytes | None = None
        #: Entries are used in the young half, and leave from the old one. When that is empty, the
        #: young half takes its place. A look-up takes a third of the time that it would take
        #: with a list in order of use.
        self.young: dict[Any, int] = {}
        self._old: dict[Any, int] = {}
        # Last: who reads numbers reads the generation before them.
        self.generation = object()

    def __len__(self) -> int:
        """Return how many numbers it holds."""
        return len(self.young) + len(self._old)

    def get(self, key: Any) -> int | None:
        """Return the number of the user with a key; ``None`` if it is not here."""
        number = self.young.get(key)
        if number is None:
            number = self._old.pop(key, None)
            if number is not None:
                self.young[key] = number
        return number

    def get_all(self, keys: Sequence[Any]) -> Sequence[int] | None:
        """Return the number of each of some users; ``None`` unless all were used lately."""
        if len(keys) > 1:
            with contextlib.suppress(KeyError):
                # Two thirds of the time of a `get` for each.
                numbers: tuple[int, ...] = operator.itemgetter(*keys)(self.young)
                return numbers
        return None

    def get_many(self, keys: Sequence[Any]) -> list[int | None]:
        """Return the number of each of some users; ``None`` for those that are not here."""
        numbers = list(map(self.young.get, keys))
        if None in numbers:
            for index, number in enumerate(numbers):
                if number is None:
                    numbers[index] = self.get(keys[index])
        return numbers

    def learn(self, keys: Collection[Any], numbers: Collection[int]) -> None:
        """Store numbers; negative ones are none."""
        if len(self) + len(keys) <= self._max_entries and min(numbers, default=-1) >= 0:
            self.young.update(zip(keys, numbers, strict=True))  # a fifth of the time of the loop
            return
        for key, number in zip(keys, numbers, strict=True):
            if number >= 0:
                self._put(key, number)

    def _put(self, key: Any, number: int) -> None:
        if len(self) >= self._max_entries:
            if not self._old:
                self._old, self.young = self.young, {}
            # The last one: users who are active often have entered the half early.
            with contextlib.suppress(KeyError):  # another thread has taken it
                self._old.popitem()
        self.young[key] = number
