"""Marks of several shards that are sent together to one node of a cluster. Pure.

A transaction cannot have keys of two slots, even on one node, so each shard has a transaction
of its own; all of them are sent with one write. If the node does not have a shard, or not all
of its keys, the redirection is the result of that shard's marks only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core import encoding
from .._core.failures import RedirectedError, check_replicated, unexpected_reply
from .._marking.batch import Batch, wait_command
from .._marking.commands import SetBits, encode_all, parse_all
from .._marking.marks import NO_FLIPS, BitMark

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._marking.commands import WriteCommand
    from .._marking.marks import Bitmaps, Mark, Result

__all__ = ["ShardBatches", "by_shard", "redirection"]


class _BitsBatch:
    """The transaction of a shard whose marks are single bits, one write command for each event.

    The common case. Has the methods of `Batch` that `ShardBatches` calls, and takes a third of
    the time.
    """

    __slots__ = ("_command_count", "_commands")

    refused = False
    retriable: frozenset[int] = frozenset()

    def __init__(self, commands: Sequence[WriteCommand], command_count: int) -> None:
        """Begin with all write commands.

        Arguments:
            commands: the write commands.
            command_count: how many Redis commands these are.
        """
        self._commands = commands
        self._command_count = command_count

    def encode(self) -> bytes:
        return b"".join([encoding.MULTI, *encode_all(self._commands), encoding.EXEC])

    def reply_count(self) -> int:
        return 2 + self._command_count

    def parse_into(self, results: list[Result], replies: Sequence[Any]) -> None:
        """Put the result of each mark at its index."""
        executed = replies[-1]
        if type(executed) is not list or len(executed) != len(replies) - 2:
            raise unexpected_reply(executed)
        parse_all(self._commands, results, executed)


class ShardBatches:
    """One transaction for each shard that has marks.

    Attributes:
        size, refused, retriable: as for `Batch`.
    """

    __slots__ = (
        "_asking",
        "_bitfield",
        "_keys",
        "_marks",
        "_mixed",
        "_replicas",
        "_runs",
        "_shards",
        "refused",
        "retriable",
        "size",
    )

    #: As for `Batch`.
    share = 1
    late = False

    def __init__(self, *, bitfield: bool = True, replicas: int = 0, asking: bool = False) -> None:
        """Begin without marks.

        Arguments:
            bitfield, replicas: as for `Batch`.
            asking: whether the node is importing the slots, and so accepts commands on
                them only after ``ASKING``.
        """
        self._bitfield = bitfield
        self._replicas = replicas
        self._asking = asking
        self._marks: list[Any] = []
        #: The indexes of the marks on the same bitmaps; and the shards that need a `Batch`.
        self._runs: dict[Bitmaps, list[int]] = {}
        self._mixed: set[int] = set()
        #: The transaction of each shard, the indexes of its marks, and its number of replies.
        self._shards: dict[int, tuple[_BitsBatch | Batch, list[int], int]] = {}
        #: The keys of the marks of each shard, if asking.
        self._keys: dict[int, dict[bytes, None]] = {}
        self.size = 0
        self.refused = False
        self.retriable: set[int] = set()

    def add(self, mark: Mark) -> int:
        """Append a mark and return its index, at which `parse` puts its result."""
        marks = self._marks
        index = len(marks)
        marks.append(mark)
        bitmaps = mark.bitmaps
        run = self._runs.get(bitmaps)
        if run is None:
            self._runs[bitmaps] = [index]
        else:
            run.append(index)
        if isinstance(mark, BitMark):
            self.size += bitmaps.size
            if bitmaps.expiry_count:
                self._mixed.add(bitmaps.shard)
        else:
            self.size += mark.size
            self._mixed.add(bitmaps.shard)
        return index

    def seal(self) -> None:
        """Do nothing: marks that are spread over shards make no commands that are too long."""

    def keep_together(self) -> None:
        """Have the marks of each shard share one transaction, as they do in any case."""

    def encode(self) -> bytes:
        """Return all transactions, as bytes to send at once."""
        runs: dict[int, list[tuple[Bitmaps, list[int]]]] = {}
        for bitmaps, indexes in self._runs.items():
            runs.setdefault(bitmaps.shard, []).append((bitmaps, indexes))
        pieces: list[bytes] = []
        for shard, shard_runs in runs.items():
            if self._asking:
                pieces += self._preparation(shard, shard_runs)
            part = self._part(shard, shard_runs)
            pieces.append(part.encode())
            if len(shard_runs) == 1:
                ((_, indexes),) = shard_runs
            else:
                indexes = [index for _, run in shard_runs for index in run]
            self._shards[shard] = part, indexes, part.reply_count()
        pieces.append(wait_command(self._replicas))
        return b"".join(pieces)

    def _part(self, shard: int, runs: list[tuple[Bitmaps, list[int]]]) -> _BitsBatch | Batch:
        marks = self._marks
        if shard not in self._mixed and (
            len(runs) == 1 or len({bitmaps.order_key for bitmaps, _ in runs}) == len(runs)
        ):
            commands: list[WriteCommand] = []
            command_count = 0
            for bitmaps, indexes in runs:
                if len(indexes) == 1:
                    commands.append((indexes[0], marks[indexes[0]]))
                    command_count += bitmaps.command_count
                elif self._bitfield:
                    offsets = [marks[index].offset for index in indexes]
                    values = [marks[index].value for index in indexes]
                    commands.append(SetBits(bitmaps, indexes, offsets, values))
                    command_count += bitmaps.command_count
                else:
                    commands += [(index, marks[index]) for index in indexes]
                    command_count += len(indexes) * bitmaps.command_count
            return _BitsBatch(commands, command_count)
        # In call order.
        ordered = sorted(index for _, indexes in runs for index in indexes)
        runs[:] = [(runs[0][0], ordered)]
        batch = Batch(bitfield=self._bitfield)
        for index in ordered:
            batch.add(marks[index])
        return batch

    def _preparation(self, shard: int, runs: list[tuple[Bitmaps, list[int]]]) -> Iterator[bytes]:
        """Yield the commands before a transaction for a node that is importing its keys.

        The source node has none of the keys any more. The importing node answers a
        transaction with ``TRYAGAIN`` as long as it lacks one of the keys, so each missing key
        is created first, by a command of its own.
        """
        keys: dict[bytes, None] = {}
        for bitmaps, indexes in runs:
            keys |= dict.fromkeys(bitmaps.keys)
            for index in indexes:
                keys |= dict.fromkeys(getattr(self._marks[index], "temp_keys", ()))
        self._keys[shard] = keys
        for key in keys:
            yield encoding.ASKING
            yield encoding.command(b"SETNX", key, b"")
        yield encoding.ASKING

    def reply_count(self) -> int:
        """Return how many replies the commands have that `encode` has returned."""
        parts = sum([count for _, _, count in self._shards.values()])
        return parts + self._preparations() + bool(self._replicas)

    def parse(self, replies: Sequence[Any]) -> list[Result]:
        """Return the result of each mark, in call order.

        As `Batch.parse`; or a `RedirectedError` for the marks of a shard that is elsewhere.
        """
        results: list[Result] = [NO_FLIPS] * len(self._marks)
        at = 0
        written = False
        self.refused = True
        for shard, (part, indexes, count) in self._shards.items():
            if self._asking:
                at += 2 * len(self._keys[shard]) + 1
            some = replies[at : at + count]
            at += count
            if type(some[-1]) is list and isinstance(part, _BitsBatch):
                part.parse_into(results, some)
                self.refused = False
                written = True
                continue
            elsewhere = redirection(some)
            if elsewhere is not None:
                for index in indexes:
                    results[index] = elsewhere
                continue
            written = True
            self._parse_batch(part, indexes, some, results)
        if written and self._replicas:
            check_replicated(replies[-1], self._replicas)
        return results

    def _parse_batch(
        self,
        part: _BitsBatch | Batch,
        indexes: list[int],
        replies: Sequence[Any],
        results: list[Result],
    ) -> None:
        """Put the results of a shard with other marks than bits, or with errors."""
        if isinstance(part, _BitsBatch):
            indexes = sorted(indexes)
            part = Batch(bitfield=self._bitfield)
            for index in indexes:
                part.add(self._marks[index])
        for index, result in zip(indexes, part.parse(replies), strict=True):
            results[index] = result
        self.refused &= part.refused
        self.retriable.update(indexes[own] for own in part.retriable)

    def _preparations(self) -> int:
        """Return how many commands precede the transactions."""
        return sum(2 * len(keys) + 1 for keys in self._keys.values())


def by_shard(marks: Sequence[Mark]) -> list[list[int]]:
    """Return the indexes of the marks of each shard that has any, in call order."""
    indexes: dict[int, list[int]] = {}
    for index, mark in enumerate(marks):
        indexes.setdefault(mark.bitmaps.shard, []).append(index)
    return list(indexes.values())


def redirection(replies: Sequence[Any]) -> RedirectedError | None:
    """Return the redirection of a transaction; ``None`` if it was not redirected.

    If the node has some of the keys and not others, no node has them all, and the result is
    a ``TRYAGAIN``.
    """
    _, *queued, executed = replies
    errors = [reply for reply in replies if isinstance(reply, RedirectedError)]
    if not errors:
        return None
    first = errors[0]
    if first.kind == "ASK" and not isinstance(executed, RedirectedError):
        asked = sum(isinstance(reply, RedirectedError) for reply in queued)
        if asked < len(queued):
            return RedirectedError(f"TRYAGAIN {first}")
    return first
