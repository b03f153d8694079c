"""A batch of marks of users whose ids are no numbers: one write, and the results. Pure.

Marks of users whose number the connection has cached are a transaction, `Batch`. Marks of other
users are calls of a script, `ScriptCall`, which looks up or allocates the numbers: so an unknown
id costs no round trip of its own. All marks of a user are in the same part, so they act in call
order. All marks of one call are in the same part, except those of `IdMarks`.

The transaction is guarded by a ``WATCH`` on the dictionary's stamp, which the last write on the
connection has sent. If a user was forgotten since then, or the server has become a replica, was
resynchronised or flushed, ``EXEC`` applies nothing and replies with nil. Then the cache is
cleared, and the marks are sent again, as calls of the script. Behind the transaction and the
calls, ``WATCH`` and ``GET`` of the stamp prepare the next write. Numbers from a call are cached
only if the stamp has not changed between the call and the ``WATCH``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core import encoding
from .._core.failures import check_replicated, unexpected_reply
from ..errors import CommandError, StoreNotReadyError, TallymarkError
from .batch import MAX_COMMAND_MARKS, Batch, wait_command
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


class IdBatch:
    """Marks that share one write.

    Attributes:
        size, refused, retriable: as for `Batch`.
    """

    __slots__ = (
        "_cache",
        "_calls",
        "_keeps_together",
        "_known",
        "_known_indexes",
        "_marks",
        "_open",
        "_replaced",
        "_replicas",
        "_script",
        "refused",
        "retriable",
        "size",
    )

    share = 1
    late = True

    def __init__(
        self, script: IdScript, *, replicas: int = 0, cache: NumberCache | None = None
    ) -> None:
        """Begin an empty batch.

        Arguments:
            script: makes the calls.
            replicas: as for `Batch`.
            cache: the numbers that the connection has fetched; ``None`` if it caches none.
                Only in a database with one shard: ``EXEC`` ends every ``WATCH``, so a second
                transaction of the same write would be without one.
        """
        self._script = script
        self._replicas = replicas
        self._cache = cache
        self._marks: list[Any] = []
        self._keeps_together = False
        self._known = Batch()
        #: The marks of the transaction that replace others, by their index.
        self._replaced: dict[int, Mark] = {}
        #: The indexes of the marks in the transaction.
        self._known_indexes: list[int] = []
        self._calls: list[ScriptCall] = []
        #: The call of each shard that the next mark may join.
        self._open: dict[int, ScriptCall] = {}
        self.size = 0
        self.refused = False
        self.retriable: set[int] = set()

    def add(self, mark: Mark) -> int:
        """Append a mark and return its index in the results of `parse`."""
        index = len(self._marks)
        self._marks.append(mark)
        self.size += mark.bitmaps.size if isinstance(mark, BitMark) else mark.size
        return index

    def seal(self) -> None:
        """Do nothing: no command gets too long."""

    def keep_together(self) -> None:
        """Have all marks of a shard share one transaction or script."""
        self._keeps_together = True

    def encode(self) -> bytes:
        """Return the bytes to send at once."""
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes of `encode`."""
        self._divide()
        if self._known_indexes:
            yield self._known.encode()
        for call in self._calls:
            yield call.encode()
        if self._cache is not None:
            stamp = self._script.dictionary.key(0, "stamp")
            yield encoding.command(b"WATCH", stamp) + encoding.command(b"GET", stamp)
        if self._replicas:
            yield wait_command(self._replicas)

    def reply_count(self) -> int:
        """Return how many replies the server gives to the bytes of `encode`."""
        known = self._known.reply_count() if self._known_indexes else 0
        return known + len(self._calls) + 2 * (self._cache is not None) + bool(self._replicas)

    def parse(self, replies: Sequence[Any]) -> list[Result]:
        """Return the result of each mark, in call order. As `Batch.parse`."""
        results: list[Any] = [None] * len(self._marks)
        at = 0
        is_current = True
        if self._known_indexes:
            at = self._known.reply_count()
            is_current = self._parse_known(replies[:at], results)
        self.refused = bool(self._known_indexes) and not self._calls and self._known.refused
        for call, reply in zip(self._calls, replies[at:], strict=False):
            for index, result in zip(call.indexes, call.parse(reply), strict=True):
                results[index] = _sum(results[index], result)
        at += len(self._calls)
        if self._cache is not None:
            self._learn(self._cache, replies[at : at + 2], is_current=is_current)
        if self._replicas:
            check_replicated(replies[-1], self._replicas)
        for index, result in enumerate(results):
            if result is None:  # all of its bitmaps have expired
                results[index] = {} if isinstance(self._marks[index], IdMarks) else NO_FLIPS
        return results

    # --- encoding

    def _divide(self) -> None:
        """Add each mark to the transaction or to a call."""
        cache = self._cache
        unknown: set[Any] = set()
        if cache is not None and cache.stamp is not None:
            for index, mark in enumerate(self._marks):
                if type(mark) is IdMark:
                    number = cache.get(mark.id)
                    if number is None:
                        unknown.add(mark.id)
                    else:
                        mark.offset = number
                else:
                    unknown.update(self._unknown(cache, index, mark))
            if not unknown:
                self._add_known(range(len(self._marks)))
                return
            if not self._keeps_together:
                self._add_divided(unknown)
                return
        for index in range(len(self._marks)):
            self._add_to_call(index)

    def _unknown(self, cache: NumberCache, index: int, mark: Any) -> Sequence[Any]:
        """Return the users without a cached number, of a mark that is no `IdMark`."""
        if isinstance(mark, IdMarks):
            if mark.prepared is None or not mark.are_known(cache.generation):
                return mark.keys()
            self._replaced[index] = mark.prepared
            return ()
        number = cache.get(mark.id)
        if number is None:
            return (mark.id,)
        self._replaced[index] = mark.at(number)
        return ()

    def _add_divided(self, unknown: set[Any]) -> None:
        """Add marks of unknown users to calls, and all others to the transaction."""
        known: list[int] = []
        for index, mark in enumerate(self._marks):
            if isinstance(mark, IdMarks):
                is_known = index in self._replaced
            else:
                is_known = mark.id not in unknown
            if is_known:
                known.append(index)
            else:
                self._add_to_call(index)
        self._add_known(known)

    def _add_known(self, indexes: Sequence[int]) -> None:
        """Add marks whose numbers are cached to the transaction."""
        self._known_indexes = list(indexes)
        known = self._known
        for position, index in enumerate(indexes):
            if position and position % MAX_COMMAND_MARKS == 0:
                known.seal()
            known.add(self._replaced.get(index) or self._marks[index])

    def _add_to_call(self, index: int) -> None:
        mark = self._marks[index]
        if not mark.bitmaps.keys:
            return
        shard = mark.bitmaps.shard
        if isinstance(mark, IdMarks):
            self._open.pop(shard, None)  # later marks of its users must not overtake it
            keys = mark.keys()
            for at in range(0, len(keys), MAX_IDS):
                call = self._new_call(shard)
                call.add_many(index, mark.bitmaps, keys[at : at + MAX_IDS], mark.value)
            return
        open_call = self._open.get(shard)
        if open_call is None or (len(open_call.keys) >= MAX_IDS and not self._keeps_together):
            open_call = self._open[shard] = self._new_call(shard)
        if isinstance(mark, IdExactUnmark):
            open_call.add_exact(index, mark)
        else:
            open_call.add(index, mark)

    def _new_call(self, shard: int) -> ScriptCall:
        call = ScriptCall(self._script, shard)
        self._calls.append(call)
        return call

    # --- replies

    def _parse_known(self, replies: Sequence[Any], results: list[Any]) -> bool:
        """Put the results of the transaction; return False if the ``WATCH`` has aborted it."""
        if replies[-1] is None:
            for index in self._known_indexes:
                results[index] = StoreNotReadyError("the numbers of users have changed")
            self.retriable.update(self._known_indexes)
            return False
        parsed = self._known.parse(replies)
        for index, result in zip(self._known_indexes, parsed, strict=True):
            results[index] = result
        self.retriable.update(self._known_indexes[own] for own in self._known.retriable)
        return True

    def _learn(self, cache: NumberCache, replies: Sequence[Any], *, is_current: bool) -> None:
        """Cache the numbers from the calls, as far as the ``WATCH`` guards them.

        Arguments:
            cache: the cache.
            replies: those to ``WATCH`` and ``GET``.
            is_current: whether the transaction was applied, if there was one.
        """
        watched, stamp = replies
        for reply in replies:
            if isinstance(reply, CommandError):  # an ACL denies it: nothing may be cached
                cache.clear()
                return
        if watched != b"OK" or not (stamp is None or isinstance(stamp, bytes)):
            raise unexpected_reply(replies)
        if not is_current or stamp != cache.stamp:
            cache.clear()
            cache.stamp = stamp
        for call in self._calls:
            if call.stamp is not None and call.stamp == stamp:
                cache.learn(call.keys, call.numbers)


def _sum(first: Any, second: Any) -> Any:
    """Return the result of a mark of many users from the results of two of its calls."""
    if first is None or isinstance(second, TallymarkError):
        return second
    if isinstance(first, TallymarkError):
        return first
    counts: dict[Granularity, int] = {key: first[key] + second[key] for key in first}
    return counts
