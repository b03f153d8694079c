"""Calls of the script that looks up and allocates users' numbers, and executes their marks. Pure.

`tallymark._marking.id_lua` has the script, and its arguments and reply.
"""

from __future__ import annotations

import json
import sys
from array import array
from typing import TYPE_CHECKING, Any, Final

from .._core import encoding
from .._core.failures import RedirectedError, unexpected_reply
from .._core.user_ids import random_token
from ..errors import CommandError, InvalidValueError, TallymarkError, WrongSchemaError
from .batch import Batch
from .commands import SetBits, WithExpiry, parse_all
from .id_lua import SCRIPT, USED_UP
from .id_marks import IdMarks
from .marks import NO_FLIPS
from .results import explained
from .unshared import ExactClear, SetSparse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._core.keys import KeySchema
    from .commands import WriteCommand
    from .id_marks import IdExactUnmark, IdMark
    from .marks import Bitmaps, Mark, Result

__all__ = ["MAX_IDS", "IdScript", "ScriptCall"]

#: How many ids one call has at most, if they are not of one transaction.
MAX_IDS: Final = 500


class IdScript:
    """Makes the calls of the script for one database."""

    def __init__(self, schema: KeySchema, *, on_cluster: bool = False) -> None:
        """Prepare for a database.

        Arguments:
            schema: its key schema, with a dictionary.
            on_cluster: whether it is on a cluster.
        """
        dictionary = schema.dictionary
        if dictionary is None:
            raise TypeError(schema)
        self.dictionary = dictionary
        self.on_cluster = on_cluster
        stamp = dictionary.key(0, "stamp")
        #: What guards the next write on a connection that caches numbers; it has one shard.
        self.watch = encoding.command(b"WATCH", stamp) + encoding.command(b"GET", stamp)
        self.schema = schema.schema_key, json.dumps(schema.stored).encode()
        self._highest = [part.max_user_id for part in schema.parts]
        #: The arguments that all calls for a shard have in common, encoded.
        self._heads: dict[int, bytes] = {}

    def head(self, shard: int) -> bytes:
        """Return the arguments that all calls for a shard have in common, encoded."""
        head = self._heads.get(shard)
        if head is None:
            dictionary = self.dictionary
            arguments = (
                b"EVAL",
                SCRIPT,
                b"1",
                dictionary.key(shard, "stamp"),
                dictionary.key(shard, ""),
                b"%d" % dictionary.ids.width,
                b"%d" % dictionary.block,
                b"%d" % self._highest[shard],
                b"1" if self.on_cluster else b"0",
            )
            head = self._heads[shard] = b"".join(map(encoding.bulk, arguments))
        return head


#: How many arguments `IdScript.head` has.
_HEAD: Final = 9


class ScriptCall:
    """One call of the script: marks of users of one shard.

    Attributes:
        shard: the shard.
        indexes: the index of each mark in its batch.
        keys: the keys of the ids.
        numbers: after `parse`, the number of each id; negative for none.
        stamp: after `parse`, the dictionary's stamp; ``None`` if there is none.
    """

    def __init__(self, script: IdScript, shard: int) -> None:
        """Begin without marks."""
        self._script = script
        self.shard = shard
        self.indexes: list[int] = []
        self.keys: dict[Any, int] = {}
        self.numbers: Sequence[int] = ()
        self.stamp: bytes | None = None
        #: The positions of the ids that get a number if they have none.
        self._wanted: set[int] = set()
        #: The positions of the ids of each mark.
        self._positions: list[Sequence[int]] = []
        #: Keys of bitmaps that no mark writes to.
        self._unmarked: Sequence[bytes] = ()
        #: Groups the marks; their offsets are positions of ids.
        self._batch = Batch()

    def add(self, index: int, mark: IdMark) -> None:
        """Append a mark of one bit."""
        mark.offset = self._position(mark.id, mark.value)
        self._add(index, mark, (mark.offset,))

    def add_exact(self, index: int, mark: IdExactUnmark) -> None:
        """Append an exact unmark."""
        position = self._position(mark.id, 0)
        self._add(index, mark.at(position), (position,))

    def add_many(self, index: int, bitmaps: Bitmaps, keys: Sequence[Any], value: int) -> None:
        """Append marks of several users."""
        known = self.keys
        for key in keys:
            if key not in known:
                known[key] = len(known)
        positions = [known[key] for key in keys]
        if value:
            self._wanted.update(positions)
        # Without the commands of `SparseMarks`, which would take a third of the time of `encode`.
        marks = IdMarks(bitmaps, value)
        marks.offsets = positions
        self._add(index, marks, positions)

    def add_ids(self, index: int, keys: Sequence[Any], bitmaps: Sequence[bytes]) -> None:
        """Append users who get numbers, and no bit; no mark may follow.

        Arguments:
            index: the index of the mark.
            keys: the keys of the ids.
            bitmaps: keys of bitmaps: without a stamp, none of them may exist.
        """
        self.keys = dict(zip(keys, range(len(keys)), strict=True))
        self._wanted.update(range(len(keys)))
        self._unmarked = bitmaps
        self.indexes.append(index)
        self._positions.append(range(len(keys)))

    def _add(self, index: int, mark: Mark, positions: Sequence[int]) -> None:
        self.indexes.append(index)
        self._positions.append(positions)
        self._batch.add(mark)

    def _position(self, key: Any, value: int) -> int:
        position = self.keys.setdefault(key, len(self.keys))
        if value:
            self._wanted.add(position)
        return position

    def encode(self) -> bytes:
        """Return the bytes to send."""
        dictionary = self._script.dictionary
        entries = [dictionary.entry(key) for key in self.keys]
        buckets = [2 * bucket for bucket, _, _ in entries]
        for position in self._wanted:
            buckets[position] += 1
        arguments = [
            random_token(),
            *self._script.schema,
            _packed(buckets),
            b"".join([field for _, field, _ in entries]),
        ]
        if not dictionary.ids.width:
            ids = [b"" if field is encoded else encoded for _, field, encoded in entries]
            arguments += (
                _packed([len(field) for _, field, _ in entries]),
                b"".join(ids),
                _packed(list(map(len, ids))),
            )
        operations = _Operations(self._unmarked)
        for command in self._batch.commands:
            operations.add(command)
        arguments.append(b"%d" % len(operations.keys))
        arguments += operations.keys
        arguments += operations.arguments
        head = self._script.head(self.shard)
        count = _HEAD + len(arguments)
        return b"*%d\r\n%b%b" % (count, head, b"".join(map(encoding.bulk, arguments)))

    def parse(self, reply: Any) -> list[Result]:
        """Return the result of each mark, in the order in which they were added.

        Raises:
            StoreError: the reply does not fit.
        """
        count = len(self.indexes)
        if isinstance(reply, CommandError):
            return self._refused(reply, count)
        if type(reply) is not list:
            raise unexpected_reply(reply)
        if reply == [b"lost"]:
            return [_lost() for _ in range(count)]
        begin = 1 + len(self.keys)
        stamp, numbers = reply[0], reply[1:begin]
        commands = self._batch.commands
        if type(stamp) is not bytes or len(reply) != begin + self._batch.command_count:
            raise unexpected_reply(reply)
        self.stamp = stamp or None
        self.numbers = numbers
        results: list[Result] = [NO_FLIPS] * count
        parse_all(commands, results, reply[begin:])
        if USED_UP in numbers:
            self._find_used_up(results)
        return results

    def _refused(self, reply: CommandError, count: int) -> list[Result]:
        if self._script.on_cluster:
            message = str(reply)
            if isinstance(reply, RedirectedError):
                # The node that imports a slot does not know which ids the other one has.
                if reply.kind == "ASK":
                    reply = RedirectedError(f"TRYAGAIN {message}")
                return [reply] * count
            if "non local key" in message:
                return [RedirectedError(f"TRYAGAIN {message}")] * count
        return [explained(reply, "nothing was applied: refused") for _ in range(count)]

    def _find_used_up(self, results: list[Result]) -> None:
        """Replace the results of marks of users for whom no number is left."""
        used_up = {at for at, number in enumerate(self.numbers) if number == USED_UP}
        for index, positions in enumerate(self._positions):
            if not used_up.isdisjoint(positions):
                results[index] = _no_number_left()


class _Operations:
    """The operations of a call, as arguments of the script.

    Attributes:
        keys: the keys of the bitmaps, with their positions, from 1 on.
        arguments: the arguments.
    """

    def __init__(self, unmarked: Sequence[bytes]) -> None:
        self.keys = {key: position for position, key in enumerate(unmarked, 1)}
        self.arguments: list[bytes] = []

    def add(self, command: WriteCommand) -> None:
        """Append the operation of a write command."""
        if isinstance(command, tuple):
            _, mark = command
            self._bit(mark.bitmaps, mark.offset, mark.value)
            return
        inner = command.command if isinstance(command, WithExpiry) else command
        if isinstance(inner, SetBits) and len(inner.offsets) == 1:
            self._bit(inner.bitmaps, inner.offsets[0], inner.values[0])
            return
        if isinstance(inner, ExactClear):
            self._exact(inner)
            return
        self._bitmaps(b"B", inner.bitmaps.keys)
        if isinstance(inner, SetBits):
            bits = [
                2 * offset + value
                for offset, value in zip(inner.offsets, inner.values, strict=True)
            ]
        elif isinstance(inner, SetSparse):
            bits = [2 * offset + inner.mark.value for offset in inner.mark.offsets]
        else:
            raise TypeError(inner)
        self.arguments.append(_packed(bits))
        self._expiries(inner.bitmaps)

    def _bit(self, bitmaps: Bitmaps, offset: int, value: int) -> None:
        self._bitmaps(b"S", bitmaps.keys)
        self.arguments.append(_packed([2 * offset + value]))
        self._expiries(bitmaps)

    def _exact(self, command: ExactClear) -> None:
        mark = command.mark
        self.arguments += (b"X", _packed([mark.offset, len(mark.bitmaps.keys)]))
        for key, other_days in zip(mark.bitmaps.keys, mark.other_days, strict=True):
            self.arguments.append(_packed([self._key(name) for name in (key, *other_days)]))

    def _bitmaps(self, operation: bytes, keys: Sequence[bytes]) -> None:
        self.arguments += (operation, _packed([self._key(key) for key in keys]))

    def _expiries(self, bitmaps: Bitmaps) -> None:
        self.arguments.append(_packed([self._key(key) for key, _ in bitmaps.expiring]))
        self.arguments += [b"%d" % time for _, time in bitmaps.expiring]

    def _key(self, key: bytes) -> int:
        return self.keys.setdefault(key, len(self.keys) + 1)


def _packed(numbers: Sequence[int]) -> bytes:
    """Return numbers below 2**32 with four bytes each, the least significant one first."""
    packed = array("I", numbers)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _lost() -> TallymarkError:
    return WrongSchemaError(
        "nothing was applied: the database has bitmaps, or numbers of users, and no stamp of "
        "ids: either the marks before were made without user_ids, or keys of the ids were "
        "deleted or evicted"
    )


def _no_number_left() -> TallymarkError:
    return InvalidValueError(
        "nothing was marked: this is a new user, and all numbers up to max_user_id are given"
    )
