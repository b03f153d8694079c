"""A batch of marks of users whose ids are no numbers: one write, and the results. Pure.

Marks of users whose number the connection has cached are a transaction, as those of a `Batch`.
Marks of other users are calls of a script, `ScriptCall`, which looks up or allocates the numbers:
so an unknown id costs no round trip of its own. All marks of a user act in call order, since
the calls come behind the transaction, and a user who is unknown there stays so in this batch.
All marks of one call of the tally are in the same part, except those of `IdMarks`.

The transaction is guarded by a ``WATCH`` on the dictionary's stamp, which the last write on the
connection has sent. If a user was forgotten since then, or the server has become a replica, was
resynchronised or flushed, ``EXEC`` applies nothing and replies with nil. Then the cache is
cleared, and the marks are sent again, as calls of the script. Behind the transaction and the
calls, ``WATCH`` and ``GET`` of the stamp prepare the next write. Numbers from a call are cached
only if the stamp has not changed between the call and the ``WATCH``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core.failures import check_replicated, unexpected_reply
from ..errors import CommandError, StoreNotReadyError, TallymarkError
from .batch import Batch, wait_command
from .id_marks import IdExactUnmark, IdMark, IdMarks
from .id_script import MAX_IDS, ScriptCall
from .marks import NO_FLIPS, BitMark

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._core.periods import Granularity
    from .id_script import IdScript
    from .marks import Mark, Result
    from .number_cache import NumberCache

__all__ = ["IdBatch"]


#: As ``super().add``, which takes twice the time.
_add = Batch.add


class IdBatch(Batch):
    """Marks that share one write: a transaction of those with a cached number, and calls."""

    __slots__ = (
        "_cache",
        "_calls",
        "_generation",
        "_keeps_together",
        "_marks",
        "_open_calls",
        "_script",
        "_unknown",
        "_unknown_ids",
        "_waits_for",
    )

    late = True

    def __init__(
        self, script: IdScript, *, replicas: int = 0, cache: NumberCache | None = None
    ) -> None:
        """Begin an empty batch.

        Arguments:
            script: makes the calls.
            replicas: as for `Batch`.
            cache: the numbers that the connection has fetched; ``None`` if it caches none.
        """
        super().__init__()
        self._script = script
        self._waits_for = replicas
        self._cache = cache
        self._generation = None if cache is None else cache.generation
        self._marks: list[Any] = []
        #: The indexes of the marks that are not in the transaction.
        self._unknown: list[int] = []
        #: The keys of their ids: another thread may cache the number of one meanwhile.
        self._unknown_ids: set[Any] = set()
        self._keeps_together = False
        self._calls: list[ScriptCall] = []
        #: The call of each shard that the next mark may join.
        self._open_calls: dict[int, ScriptCall] = {}

    def add(self, mark: Mark) -> int:
        """Append a mark and return its index in the results of `parse`."""
        self._marks.append(mark)
        cache = self._cache
        if cache is not None:
            if type(mark) is IdMark:
                number = cache.young.get(mark.id)
                if number is None:
                    number = cache.get(mark.id)
                if number is not None and mark.id not in self._unknown_ids:
                    mark.offset = number
                    return _add(self, mark)
            else:
                with_number = self._with_number(cache, mark)
                if with_number is not None:
                    if isinstance(mark, IdMarks):
                        self.size += mark.size
                    return _add(self, with_number)
            self._unknown_ids.update(_ids(mark))
        index = self._count
        self._count = index + 1
        self._unknown.append(index)
        self.size += mark.bitmaps.size if isinstance(mark, BitMark) else mark.size
        return index

    def _with_number(self, cache: NumberCache, mark: Any) -> Mark | None:
        """Return a mark that is no `IdMark` with numbers from the cache; ``None`` without."""
        if isinstance(mark, IdMarks):
            return mark.prepared if mark.are_known(cache.generation, self._unknown_ids) else None
        number = None if mark.id in self._unknown_ids else cache.get(mark.id)
        return None if number is None else mark.at(number)

    def keep_together(self) -> None:
        """Have all marks of a shard share one transaction or script."""
        self._keeps_together = True

    def encode(self) -> bytes:
        """Return the bytes to send at once."""
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes of `encode`."""
        # A request that is sent again on a connection without a cache is encoded again.
        self._calls, self._open_calls = [], {}
        cache = self._cache
        if cache is not None and cache.generation is not self._generation:
            # The connection is another one than when the marks were added.
            self._begin_again(cache)
        if self._unknown and self._keeps_together:
            self._begin_again(None)
        for index in self._unknown:
            self._add_to_call(index, self._marks[index])
        if self._commands:
            yield super().encode()
        for call in self._calls:
            yield call.encode()
        if cache is not None:
            yield self._script.watch
        if self._waits_for:
            yield wait_command(self._waits_for)

    def reply_count(self) -> int:
        """Return how many replies the server gives to the bytes of `encode`."""
        known = super().reply_count() if self._commands else 0
        return known + len(self._calls) + 2 * (self._cache is not None) + bool(self._waits_for)

    def parse(self, replies: Sequence[Any]) -> list[Result]:
        """Return the result of each mark, in call order. As `Batch.parse`."""
        results: list[Any]
        at = 0
        is_aborted = False
        if self._commands:
            at = super().reply_count()
            is_aborted = replies[at - 1] is None
            results = self._aborted() if is_aborted else super().parse(replies[:at])
        else:
            results = [NO_FLIPS] * self._count
        if self._calls:
            self.refused = False
            for index in self._unknown:
                results[index] = {} if isinstance(self._marks[index], IdMarks) else NO_FLIPS
            for call, reply in zip(self._calls, replies[at:], strict=False):
                for index, result in zip(call.indexes, call.parse(reply), strict=True):
                    results[index] = _sum(results[index], result)
            at += len(self._calls)
        if self._cache is not None:
            self._learn(self._cache, replies[at : at + 2], is_aborted=is_aborted)
        if self._waits_for:
            check_replicated(replies[-1], self._waits_for)
        return results

    # --- encoding

    def _begin_again(self, cache: NumberCache | None) -> None:
        """Add all marks anew, with the numbers in a cache, or with none."""
        marks, keeps_together, own = self._marks, self._keeps_together, self._cache
        IdBatch.__init__(self, self._script, replicas=self._waits_for, cache=cache)
        for mark in marks:
            self.add(mark)
        self._keeps_together, self._cache = keeps_together, own
        self._generation = None if own is None else own.generation

    def _add_to_call(self, index: int, mark: Any) -> None:
        shard = mark.bitmaps.shard
        if isinstance(mark, IdMarks) and mark.numbers_only:
            self._new_call(shard).add_ids(index, mark.keys(), mark.bitmaps.keys)
            return
        if not mark.bitmaps.keys:  # all have expired
            return
        if isinstance(mark, IdMarks):
            self._open_calls.pop(shard, None)  # later marks of its users must not overtake it
            for bitmaps, keys in mark.parts():
                for at in range(0, len(keys), MAX_IDS):
                    call = self._new_call(shard)
                    call.add_many(index, bitmaps, keys[at : at + MAX_IDS], mark.value)
            return
        call = self._open_calls.get(shard) or self._new_call(shard)
        if len(call.keys) >= MAX_IDS and not self._keeps_together:
            call = self._new_call(shard)
        self._open_calls[shard] = call
        if isinstance(mark, IdExactUnmark):
            call.add_exact(index, mark)
        else:
            call.add(index, mark)

    def _new_call(self, shard: int) -> ScriptCall:
        call = ScriptCall(self._script, shard)
        self._calls.append(call)
        return call

    # --- replies

    def _aborted(self) -> list[Any]:
        """Return the results if the ``WATCH`` has aborted the transaction."""
        self.retriable.update(range(self._count))
        self.retriable.difference_update(self._unknown)
        return [StoreNotReadyError("the numbers of users have changed") for _ in range(self._count)]

    def _learn(self, cache: NumberCache, replies: Sequence[Any], *, is_aborted: bool) -> None:
        """Cache the numbers from the calls, as far as the ``WATCH`` guards them.

        Arguments:
            cache: the cache.
            replies: those to ``WATCH`` and ``GET``.
            is_aborted: whether the ``WATCH`` before has aborted the transaction.
        """
        watched, stamp = replies
        if watched == b"OK" and stamp == cache.stamp and not (is_aborted or self._calls):
            return
        for reply in replies:
            if isinstance(reply, CommandError):  # an ACL denies it: nothing may be cached
                cache.clear()
                return
        if watched != b"OK" or not (stamp is None or isinstance(stamp, bytes)):
            raise unexpected_reply(replies)
        if is_aborted or stamp != cache.stamp:
            cache.clear()
            cache.stamp = stamp
        for call in self._calls:
            if call.stamp is not None and call.stamp == stamp:
                cache.learn(call.keys, call.numbers)


def _ids(mark: Any) -> Sequence[Any]:
    """Return the keys of the ids of a mark's users."""
    return mark.keys() if isinstance(mark, IdMarks) else (mark.id,)


def _sum(first: Any, second: Any) -> Any:
    """Return the result of a mark from those of two of its calls."""
    if not isinstance(second, dict) or not first:
        return second
    if isinstance(first, TallymarkError):
        return first
    # The first one has all granularities, unless it is of a day that has expired.
    counts: dict[Granularity, int] = dict(first)
    for granularity, count in second.items():
        counts[granularity] = counts.get(granularity, 0) + count
    return counts
