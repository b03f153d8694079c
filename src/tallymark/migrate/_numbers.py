"""The numbers that the target's dictionary gives to users, and writes with these numbers.

A number is learned in one exchange and used in another one. In between, a failover may lose
the end of the target's data, and another user may get the number. So each shard has a marker: a
temporary key with a count. It is advanced when ids have got their numbers, and these are looked
up after that, in the same exchange as the marker. A script that writes bits first compares the
marker. A failover loses what was written last, so a marker that is there proves that the
numbers are too.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

from .._core import encoding
from .._core.failures import check_replicated
from .._core.periods import Granularity
from .._marking.id_marks import IdMarks
from .._marking.id_script import MAX_IDS
from .._marking.marks import Bitmaps
from .._marking.unshared import MERGE_DENSE
from .._reading.fanout import gather
from .._reading.raw_keys import unlink
from .._reading.requests import Request, check_replies
from ..errors import StoreError, TallymarkError
from ._movement import TRANSACTION_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .._core.user_ids import Dictionary
    from .._marking.marks import DenseMarks
    from .._reading.requests import Command, Query
    from ._databases import Database

__all__ = ["TargetNumbers"]

#: Temporary keys that a killed migration has left expire after this many seconds.
_SECONDS: Final = 86_400
_EXPIRY: Final = b"%d" % _SECONDS

#: How many look-ups one request has.
_LOOKUPS: Final = 1000

#: Sets the marker, unless it has not the value that it should have. If the reply to the call
#: was lost and it is repeated, the marker has its new value.
_ADVANCE: Final = b"""\
local value = redis.call('GET', KEYS[1])
if (value or '0') ~= ARGV[1] and value ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""

#: Precedes a script: the first key is that of the marker, the first two arguments are its value,
#: and in how many seconds it expires from now on.
_GUARD: Final = b"""\
local marker, value, seconds = table.remove(KEYS, 1), table.remove(ARGV, 1), table.remove(ARGV, 1)
if redis.call('GET', marker) ~= value then return {-1} end
redis.call('SET', marker, value, 'EX', seconds)
"""


class TargetNumbers:
    """Gives numbers to users of the target, and writes bits at them."""

    def __init__(self, target: Database, dictionary: Dictionary, tag: str) -> None:
        """Begin with no number known.

        Arguments:
            target: the database.
            dictionary: its dictionary.
            tag: a random part for the names of the markers.
        """
        self._target = target
        self._dictionary = dictionary
        self._markers = [f"{prefix}tmp:{tag}:ids".encode() for prefix in dictionary.prefixes]
        #: Of each shard, a temporary bitmap of all users: only marks allocate numbers.
        self._everybody = [
            Bitmaps(
                "tmp",
                [Granularity.UNIQUE],
                [f"{prefix}tmp:{tag}:all".encode()],
                [time.time() + _SECONDS],
                shard,
            )
            for shard, prefix in enumerate(dictionary.prefixes)
        ]
        #: The value of each marker; 0 before `begin`.
        self._values = [0] * target.shards

    def begin(self) -> None:
        """Set the markers of all shards, before bits of the target are read.

        Raises:
            StoreError: a marker is lost.
        """
        self._advance(range(len(self._values)))

    def allocate(self, keys: Sequence[Any]) -> list[int | None]:
        """Return the number of each user, in order; users who have none get one.

        Arguments:
            keys: the keys of the users' ids.

        Returns:
            Numbers that `write` may use. ``None`` for a user who was forgotten meanwhile.
        """
        if not keys:
            return []
        by_shard = self._dictionary.by_shard(keys)
        marks = [
            IdMarks(self._everybody[shard], 1, in_shard[at : at + MAX_IDS])
            for shard, in_shard in by_shard.items()
            for at in range(0, len(in_shard), MAX_IDS)
        ]
        for result in self._target.submit(marks, None):
            if isinstance(result, TallymarkError):
                raise result
        self._advance(by_shard)
        queries = ((shard, self._look_up(shard, keys)) for shard, keys in by_shard.items())
        found = self._target.answer(gather(self._target.context, queries))
        numbers: dict[Any, int | None] = {}
        shards = self._target.shards
        for (shard, in_shard), offsets in zip(by_shard.items(), found, strict=True):
            for key, offset in zip(in_shard, offsets, strict=True):
                numbers[key] = None if offset is None else int(offset) * shards + shard
        return [numbers[key] for key in keys]

    def write(self, marks: Iterable[DenseMarks]) -> int:
        """Set or clear bits at numbers that `allocate` has returned; return how many flipped."""
        by_shard: dict[int, list[DenseMarks]] = {}
        for mark in marks:
            by_shard.setdefault(mark.bitmaps.shard, []).append(mark)

        queries = ((shard, self._write(shard, marks)) for shard, marks in by_shard.items())
        return sum(self._target.answer(gather(self._target.context, queries)))

    def check(self) -> None:
        """Check that the numbers that `allocate` has returned are still those of the users."""
        self.begin()

    def close(self) -> None:
        """Delete the temporary keys."""
        queries = [
            (shard, unlink(self._target.context, [marker, *self._everybody[shard].keys]))
            for shard, marker in enumerate(self._markers)
            if self._values[shard]
        ]
        with contextlib.suppress(StoreError):  # they expire
            self._target.answer(gather(self._target.context, queries))

    def _advance(self, shards: Iterable[int]) -> None:
        """Advance the markers of some shards.

        Raises:
            StoreError: a marker is lost.
        """
        shards = list(shards)
        queries = []
        for shard in shards:
            arguments = (b"%d" % self._values[shard], b"%d" % (self._values[shard] + 1), _EXPIRY)
            command = (b"EVAL", _ADVANCE, b"1", self._markers[shard], *arguments)
            queries.append((shard, _run(command)))

        if not all(self._target.answer(gather(self._target.context, queries))):
            raise _lost()
        for shard in shards:
            self._values[shard] += 1

    def _look_up(self, shard: int, keys: Sequence[Any]) -> Query[list[bytes | None]]:
        """Return the offsets of users of a shard, in decimal digits."""
        dictionary = self._dictionary
        offsets: list[bytes | None] = []
        for at in range(0, len(keys), _LOOKUPS):
            commands: list[Command] = [(b"GET", self._markers[shard])]
            for key in keys[at : at + _LOOKUPS]:
                bucket, field, _ = dictionary.entry(key)
                commands.append((b"HGET", dictionary.forward(shard, bucket), field))
            replies = yield Request(commands, tolerant=True, changes=True)
            check_replies(replies)
            if replies[0] != b"%d" % self._values[shard]:
                raise _lost()
            offsets += replies[1:]
        return offsets

    def _write(self, shard: int, marks: Sequence[DenseMarks]) -> Query[int]:
        marker, value = self._markers[shard], b"%d" % self._values[shard]
        written = 0
        commands: list[Command] = []
        size = 0
        for index, mark in enumerate(marks):
            keys = (marker, *mark.bitmaps.keys, *mark.temp_keys)
            arguments = (value, _EXPIRY, b"%d" % mark.first, mark.bits, b"%d" % mark.value)
            script = _GUARD + MERGE_DENSE
            commands.append((b"EVAL", script, b"%d" % len(keys), *keys, *arguments))
            commands += [
                (b"EXPIREAT", key, b"%d" % moment) for key, moment in mark.bitmaps.expiring
            ]
            size += len(mark.bits)
            if size > TRANSACTION_BYTES or index == len(marks) - 1:
                replicas = self._target.options.replicas
                if replicas:
                    commands.append(encoding.wait(replicas))
                replies = yield Request(commands, tolerant=True, changes=True)
                check_replies(replies)
                if replicas:
                    check_replicated(replies[-1], replicas)
                flipped = [reply[0] for reply in replies if isinstance(reply, list)]
                if -1 in flipped:
                    raise _lost()
                written += sum(flipped)
                commands, size = [], 0
        return written


def _run(command: Command) -> Query[int]:
    (reply,) = yield Request([command], changes=True)
    number: int = reply
    return number


def _lost() -> StoreError:
    return StoreError(
        "the new database has lost what was written last, as in a failover; run the migration again"
    )
