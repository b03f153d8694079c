"""Marks of several shards that leave together for one node of a cluster. Pure.

Two slots cannot share a transaction, even on one node, so each shard has a `Batch` of
its own; all of them are one piece of bytes. What the node says of a shard that it does
not have, or not wholly, is the result of that shard's marks, and of no others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import wire
from .batches import Batch
from .errors import RedirectedError
from .periods import Granularity
from .replication import check_replicated, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .marks import Mark, Result

__all__ = ["ShardBatches", "redirection"]

_ASKING = wire.command(b"ASKING")


class ShardBatches:
    """One transaction for each shard that has marks.

    Attributes:
        size, refused, blameless: as for `Batch`.
    """

    __slots__ = (
        "_asking",
        "_bitfield",
        "_count",
        "_keys",
        "_replicas",
        "_shards",
        "blameless",
        "refused",
        "size",
    )

    def __init__(self, *, bitfield: bool = True, replicas: int = 0, asking: bool = False) -> None:
        """Begin without marks.

        Arguments:
            bitfield, replicas: as for `Batch`.
            asking: whether the node is about to get the shards from another one, and
                takes commands on them only from who says that it knows.
        """
        self._bitfield = bitfield
        self._replicas = replicas
        self._asking = asking
        #: Of each shard, its batch and where the results of its marks go.
        self._shards: dict[int, tuple[Batch, list[int]]] = {}
        #: The keys that marks touch, if asking.
        self._keys: dict[int, dict[bytes, None]] = {}
        self._count = 0
        self.size = 0
        self.refused = False
        self.blameless: set[int] = set()

    def add(self, mark: Mark) -> int:
        """Append a mark and return its index, at which `settle` puts its result."""
        index = self._count
        self._count = index + 1
        bitmaps = mark.bitmaps
        found = self._shards.get(bitmaps.shard)
        if found is None:
            found = self._shards[bitmaps.shard] = Batch(bitfield=self._bitfield), []
        batch, indexes = found
        before = batch.size
        batch.add(mark)
        self.size += batch.size - before
        indexes.append(index)
        if self._asking:
            keys = self._keys.setdefault(bitmaps.shard, {})
            keys |= dict.fromkeys(bitmaps.keys + getattr(mark, "scratch", ()))
        return index

    def encode(self) -> bytes:
        """Return all transactions, as bytes to send at once."""
        pieces = []
        for shard, (batch, _) in self._shards.items():
            if self._asking:
                # The old node has none of these keys any more. Those that the new one
                # has not either are made first, each by itself: it would decline a
                # transaction as long as one is missing.
                for key in self._keys[shard]:
                    pieces += [_ASKING, wire.command(b"SETNX", key, b"")]
                pieces.append(_ASKING)
            pieces.append(batch.encode())
        pieces.append(wait_for(self._replicas))
        return b"".join(pieces)

    def reply_count(self) -> int:
        """Return how many replies the node gives."""
        batches = sum([batch.reply_count() for batch, _ in self._shards.values()])
        return batches + self._preparations() + bool(self._replicas)

    def settle(self, replies: Sequence[Any]) -> list[Result]:
        """Return the result of each mark, in call order.

        As `Batch.settle`; or a `RedirectedError` for the marks of a shard that is elsewhere.
        """
        results: list[Result] = [Granularity(0)] * self._count
        at = 0
        written = False
        self.refused = True
        for shard, (batch, indexes) in self._shards.items():
            if self._asking:
                at += 2 * len(self._keys[shard]) + 1
            count = batch.reply_count()
            some = replies[at : at + count]
            at += count
            elsewhere = redirection(some)
            if elsewhere is not None:
                for index in indexes:
                    results[index] = elsewhere
                continue
            written = True
            for index, result in zip(indexes, batch.settle(some), strict=True):
                results[index] = result
            self.refused &= batch.refused
            self.blameless.update(indexes[own] for own in batch.blameless)
        if written and self._replicas:
            check_replicated(replies[-1], self._replicas)
        return results

    def _preparations(self) -> int:
        """Return how many commands come before the transactions."""
        return sum(2 * len(keys) + 1 for keys in self._keys.values())


def redirection(replies: Iterable[Any]) -> RedirectedError | None:
    """Return where the commands of a transaction should go instead; ``None`` if nowhere.

    Where a node has some of the keys and not others, none has them all: it is on its way.
    """
    multi, *queued, executed = replies
    found = [each for each in (multi, *queued, executed) if isinstance(each, RedirectedError)]
    if not found:
        return None
    (first, *_) = found
    if first.kind == "ASK" and not isinstance(executed, RedirectedError):
        asked = sum(isinstance(each, RedirectedError) for each in queued)
        if asked < len(queued):
            return RedirectedError(f"TRYAGAIN {first}")
    return first
