"""The movement of bits to a database whose dictionary has the users' ids.

The users have other numbers there, so a bitmap is read and compared as a whole: its size
follows from the number of users.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .._core.keys import users_at
from .._reading.fanout import gather
from .._reading.raw_keys import getrange_commands, key_facts
from .._reading.requests import Request, check_replies
from .._reading.user_ids import find_ids
from ..errors import InvalidValueError, PermissionDeniedError, StoreError
from ._movement import GROUP_BYTES, WINDOW_BYTES, Movement, Window
from ._numbers import TargetNumbers
from ._translation import TargetBits, Translation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .._core.user_ids import Dictionary
    from .._reading.requests import Command, Query
    from ._databases import BitmapName, Database
    from ._movement import BitmapState
    from ._pairs import Pairs
    from ._resharding import Change

__all__ = ["MappedMovement"]

AnyT = TypeVar("AnyT")

#: How many bitmaps form a group.
_GROUP: Final = 64

#: How many bytes whole bitmaps that are compared together have. A set bit takes 4 bytes.
_WHOLE_BYTES: Final = GROUP_BYTES // 4

#: How many users get their numbers together.
_USERS: Final = 4096

#: How many numbers without an id a message names.
_NAMED: Final = 10

_REPLICATION_ID: Final = re.compile(rb"master_replid:(\w+)")


class MappedMovement(Movement):
    """Moves whole bitmaps, bit by bit, to the numbers that the target gives to the users."""

    def __init__(
        self,
        source: Database,
        target: Database,
        dictionary: Dictionary,
        tag: str,
        *,
        pairs: Pairs | None,
        skip_unmapped: bool,
    ) -> None:
        """Begin with no user known.

        Arguments:
            source, target, tag: as for `Movement`.
            dictionary: the target's.
            pairs: the ids of the source's numbers; ``None`` if its own dictionary has them.
            skip_unmapped: whether to leave out numbers that have a bit and no id.
        """
        super().__init__(source, target, tag)
        self._dictionary = dictionary
        self._pairs = pairs
        self._skip_unmapped = skip_unmapped
        self._numbers = TargetNumbers(target, dictionary, tag)
        #: Of each shard of the source.
        self._translations = [Translation() for _ in range(source.shards)]
        #: Offsets in each shard of the source that belong to no user.
        self._nobody: list[set[int]] = [set() for _ in range(source.shards)]
        #: The replication id of the server of each shard of the source, if it has one.
        self._histories: dict[int, bytes] = {}

    @property
    def group_size(self) -> int:
        """The highest number of bitmaps in a group."""
        return _GROUP

    def prepare(self, names: Sequence[BitmapName]) -> None:
        """Give each user of the source a number in the target.

        Raises:
            InvalidValueError: numbers have a bit and no id; nothing was written.
        """
        if self._pairs is not None:
            if not self._skip_unmapped:
                self._check_pairs(names, self._pairs)
            self._numbers.begin()
            self._add_pairs(self._pairs)
            return
        self._numbers.begin()
        dictionary = self._source_dictionary
        for shard in range(self.source.shards):
            next_number = self._answer(shard, _get(dictionary.key(shard, "next")))
            for at in range(0, int(next_number or 0), _USERS):
                self._add_users(shard, range(at, min(at + _USERS, int(next_number))))

    @property
    def _source_dictionary(self) -> Dictionary:
        dictionary = self.source.schema.dictionary
        if dictionary is None:
            raise TypeError(self.source.schema)
        return dictionary

    def _check_pairs(self, names: Sequence[BitmapName], pairs: Pairs) -> None:
        """Check that all numbers with a bit have an id.

        Raises:
            InvalidValueError: some have none.
        """
        shards = self.source.shards
        known = [Translation() for _ in range(shards)]
        for at in range(0, len(pairs), _USERS):
            numbers = pairs.numbers[at : at + _USERS]
            for shard, found in _by_shard(zip(numbers, numbers, strict=True), shards).items():
                known[shard].add(*zip(*found, strict=True))
        count = 0
        named: list[int] = []
        groups = [names[at : at + _GROUP] for at in range(0, len(names), _GROUP)]
        facts = [self.source.answer_by_bitmap(group, key_facts) for group in groups]
        sizes = [shard.size for group in facts for bitmap in group for shard in bitmap]
        step = max(1, WINDOW_BYTES // shards)
        for at in range(0, max(sizes, default=0), step):
            users = [0] * shards
            for group, facts_of_group in zip(groups, facts, strict=True):
                longer = [
                    name
                    for name, by_shard in zip(group, facts_of_group, strict=True)
                    if all(shard.is_bitmap for shard in by_shard)
                    and max(shard.size for shard in by_shard) > at
                ]
                for parts in self._read_source(longer, at, step):
                    for shard, part in enumerate(parts):
                        users[shard] |= int.from_bytes(part, "little")
            for shard, bits in enumerate(users):
                part = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
                _, unknown = known[shard].translate(part, 8 * at)
                count += len(unknown)
                named += users_at(self.source.schema, shard, unknown[:_NAMED])
        if count:
            some = ", ".join(map(str, sorted(named)[:_NAMED]))
            raise InvalidValueError(
                f"{count} numbers of the old database have bits and no id: {some}"
                f"{', ...' if count > _NAMED else ''}; add their ids, or leave them out with "
                "skip_unmapped (--skip-unmapped)"
            )

    def _add_pairs(self, pairs: Pairs) -> None:
        """Give each user of the pairs a number in the target."""
        shards = self.source.shards
        for at in range(0, len(pairs), _USERS):
            old = pairs.numbers[at : at + _USERS]
            new = self._numbers.allocate(pairs.keys(at, at + _USERS))
            for shard, found in _by_shard(zip(old, new, strict=True), shards).items():
                self._learn(shard, found)

    def _add_users(self, shard: int, offsets: Sequence[int]) -> None:
        """Give the users at some offsets in a shard of the source a number in the target."""
        stamp_key = self._source_dictionary.key(shard, "stamp")
        stamp = self._answer(shard, _get(stamp_key))
        ids = self._find_ids(shard, offsets)
        known = {
            offset: each for offset, each in zip(offsets, ids, strict=True) if each is not None
        }
        keys = self._dictionary.ids.keys(list(known.values()))
        self._learn(shard, list(zip(known, self._numbers.allocate(keys), strict=True)))
        if self._answer(shard, _get(stamp_key)) == stamp:
            return
        # A user was forgotten, maybe one of these. The program may have forgotten the user in
        # the target already, before this added the id there.
        for user_id, still in zip(known.values(), self._find_ids(shard, list(known)), strict=True):
            if still is None:
                self.target.tally.forget(user_id)

    def _find_ids(self, shard: int, offsets: Sequence[int]) -> list[Any]:
        """Return the ids of the users at some offsets in a shard of the source."""
        numbers = list(users_at(self.source.schema, shard, offsets))
        self._check_history(shard, self._answer(shard, _history()))
        ids = self.source.answer(find_ids(self.source.context, numbers))
        self._check_history(shard, self._answer(shard, _history()))
        return ids

    def _learn(self, shard: int, pairs: Sequence[tuple[int, int | None]]) -> None:
        """Add offsets in a shard of the source, and the numbers of their users in the target."""
        known = [pair for pair in pairs if pair[1] is not None]
        if known:
            self._translations[shard].add(*zip(*known, strict=True))

    def windows(self, states: Sequence[BitmapState]) -> Iterator[Window]:
        """Yield the windows of the bitmaps of a group: whole bitmaps, as many as fit."""
        highest = max(translation.highest for translation in self._translations)
        least = highest // 8 + 1
        group: list[BitmapState] = []
        size = 0
        for state in states:
            size_of_bitmap = max(
                least,
                state.source_size * self.source.shards,
                state.target_size * self.target.shards,
            )
            if group and size + size_of_bitmap > _WHOLE_BYTES:
                yield _whole(group)
                group, size = [], 0
            group.append(state)
            size += size_of_bitmap
        yield _whole(group)

    def wanted_parts(self, window: Window, states: Sequence[BitmapState]) -> list[list[bytes]]:
        """Return what the target should have, by the source."""
        wanted = [TargetBits(self.target.shards) for _ in states]
        unmapped = [0] * len(states)
        size = max(state.source_size for state in states)
        step = max(1, min(WINDOW_BYTES, GROUP_BYTES // len(states)) // self.source.shards)
        names = [state.name for state in states]
        for at in range(0, size, step):
            for index, parts in enumerate(self._read_source(names, at, step)):
                for shard, part in enumerate(parts):
                    numbers, unknown = self._translations[shard].translate(part, 8 * at)
                    if unknown:
                        found, unknown = self._translate_unknown(shard, unknown)
                        numbers.extend(found)
                    wanted[index].add(numbers)
                    unmapped[index] += len(unknown)
        self.unmapped.update(zip(names, unmapped, strict=True))
        return [bits.parts() for bits in wanted]

    def _translate_unknown(self, shard: int, offsets: Sequence[int]) -> tuple[Any, list[int]]:
        """Return the numbers of users who have come meanwhile, and the offsets of nobody."""
        nobody = self._nobody[shard]
        if self._pairs is None:
            fresh = [offset for offset in offsets if offset not in nobody]
            for at in range(0, len(fresh), _USERS):
                self._add_users(shard, fresh[at : at + _USERS])
        bits = bytearray((offsets[-1] >> 3) + 1)
        for offset in offsets:
            bits[offset >> 3] |= 128 >> (offset & 7)
        first = offsets[0] >> 3
        numbers, unknown = self._translations[shard].translate(bytes(bits[first:]), 8 * first)
        nobody.update(unknown)
        return numbers, unknown

    def write(self, changes: Iterable[tuple[BitmapState, Change]], first: int) -> int:
        """Write changes to the target; return how many bits were flipped."""
        return self._numbers.write(
            self.dense_marks(state, change, first) for state, change in changes
        )

    def finish(self) -> None:
        """Check that all that was written is still valid."""
        self._numbers.check()

    def close(self) -> None:
        """Delete temporary keys."""
        self._numbers.close()

    def _read_source(
        self, names: Sequence[BitmapName], first: int, count: int
    ) -> Iterator[list[bytes]]:
        """Yield some bytes of each shard of some bitmaps, for each bitmap."""
        queries = [
            (shard, _parts([part.key(*name) for name in names], first, count))
            for shard, part in enumerate(self.source.schema.parts)
        ]
        by_shard = []
        answers = self.source.answer(gather(self.source.context, queries))
        for shard, (history, parts) in enumerate(answers):
            self._check_history(shard, history)
            by_shard.append(parts)
        yield from map(list, zip(*by_shard, strict=True))

    def _check_history(self, shard: int, history: bytes) -> None:
        """Check that a shard of the source is still on the same server, if it has a dictionary.

        Another server may lack the last numbers, and may give them to other users.

        Raises:
            StoreError: it is on another one.
        """
        if self._pairs is None and self._histories.setdefault(shard, history) != history:
            raise StoreError(
                "a server of the old database was replaced or restarted, or a slot has moved; "
                "run the migration again"
            )

    def _answer(self, shard: int, query: Query[bytes]) -> bytes:
        """Return the answer of a shard of the source."""
        (answer,) = self.source.answer(gather(self.source.context, [(shard, query)]))
        return answer


def _by_shard(pairs: Iterable[tuple[int, AnyT]], shards: int) -> dict[int, list[tuple[int, AnyT]]]:
    """Return pairs that begin with a number as pairs that begin with an offset, by shard."""
    by_shard: dict[int, list[tuple[int, AnyT]]] = {}
    for number, other in pairs:
        by_shard.setdefault(number % shards, []).append((number // shards, other))
    return by_shard


def _whole(states: Sequence[BitmapState]) -> Window:
    return Window(states, 0, max(1, *(state.target_size for state in states)))


def _get(key: bytes) -> Query[bytes]:
    """Return the value of a key; ``b""`` if there is none."""
    (value,) = yield Request([(b"GET", key)], tolerant=True)
    check_replies([value])
    return value or b""


def _history() -> Query[bytes]:
    history, _ = yield from _parts([], 0, 1)
    return history


def _parts(keys: Sequence[bytes], first: int, count: int) -> Query[tuple[bytes, list[bytes]]]:
    """Return the replication id of a server, and parts of bitmaps that it has.

    A server has another id when it is started, and when it becomes a master.
    """
    info: Command = (b"INFO", b"replication")
    replies = yield Request([info, *getrange_commands(keys, first, count)], tolerant=True)
    check_replies(replies[1:])
    if isinstance(replies[0], PermissionDeniedError):
        check_replies(replies[:1])
    # The embedded store has no INFO.
    found = _REPLICATION_ID.search(replies[0]) if isinstance(replies[0], bytes) else None
    return (found[1] if found else b""), replies[1:]
