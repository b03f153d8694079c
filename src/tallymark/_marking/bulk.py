"""Bulk writes: from the ids of many users to transactions, and to counts. Pure.

A block of ids is cut into windows of neighbouring offsets. The bits of a dense window are
put together here, and a script on the server merges them into the bitmaps. The bits of
all other windows are set one by one, a thousand per transaction.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from .._core.failures import copied, with_timeout
from .._core.offsets import as_bits, as_list, blocks, windows
from ..errors import TallymarkError
from .marks import DenseMarks, SparseMarks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .._core.keys import KeySchema
    from .._core.offsets import Offsets
    from .._core.periods import Granularity
    from .marks import Bitmaps, Mark, Result

__all__ = ["BulkCall", "BulkWrite", "Chunk", "Target", "WriteResults", "prepared_marks"]

#: How many bits one transaction sets one by one: on three keys, 1.6 ms of Redis's time.
_SPARSE_MARKS: Final = 1000

#: How many exact unmarks share a transaction: each is a script that reads all days.
_EXACT_UNMARKS: Final = 32

#: A window is dense if at least one bit in this many is used, and at least `_DENSE_MIN` bits
#: are. Measured: from here on, the script takes less of our time and of Redis's.
_DENSE_SPACING: Final = 4000
_DENSE_MIN: Final = 64


@dataclass(frozen=True)
class Target:
    """Where the users of one shard are marked.

    Attributes:
        bitmaps: the bitmaps to write to.
        temp_keys: keys for temporary values of the script; ``None`` if the server has
            no scripts.
        exact_unmark: makes the mark of the user at a given offset, or with the key of an id,
            if each user needs a mark of its own; else ``None``.
    """

    bitmaps: Bitmaps
    temp_keys: tuple[bytes, bytes] | None
    exact_unmark: Callable[[Any], Mark] | None = None


@dataclass(frozen=True)
class Chunk:
    """The marks of one transaction.

    Attributes:
        marks: the marks, all of one shard.
        ids: how many ids they cover, repetitions included.
    """

    marks: Sequence[Mark]
    ids: int


class WriteResults:
    """The results of a call that writes in several transactions.

    Attributes:
        done: how many ids or rows have been written.
        counts: how many bits were flipped, by granularity.
    """

    #: What a message says of those that were written before an error.
    _BEFORE: ClassVar[str] = "ids before were written"

    def __init__(self, granularities: Iterable[Granularity] = ()) -> None:
        """Begin.

        Arguments:
            granularities: of the bitmaps to write to, if they are the same in the whole call.
        """
        self.done = 0
        self.counts: dict[Granularity, int] = dict.fromkeys(granularities, 0)

    def record(self, chunk: Chunk, results: Sequence[Result]) -> None:
        """Add the results of a chunk to the counts.

        Raises:
            CommandError: Redis refused the chunk.
        """
        for result in results:
            if isinstance(result, TallymarkError):
                raise result
            counts = result if isinstance(result, dict) else dict.fromkeys(result, 1)
            for granularity, count in counts.items():
                self.counts[granularity] += count
        self.done += chunk.ids

    def with_progress(self, error: TallymarkError, timeout: float | None) -> TallymarkError:
        """Return the error of the call: its message also says how much has been written.

        Arguments:
            error: the error of a chunk, or of an id or a row.
            timeout: the timeout of the whole call, in seconds; ``None`` if the tally's timeout
                limits each transaction.
        """
        if timeout is not None:
            error = with_timeout(error, timeout)
        if not self.done:
            return error
        return copied(error, f"{error}; {self.done} {self._BEFORE}")


class BulkCall(WriteResults, abc.ABC):
    """One call that writes in several transactions: these, and their results.

    Attributes:
        done: how many ids have been written.
        counts: how many bits were flipped, by granularity.
    """

    #: Returns how many ids an item of the call's iterable has; ``None`` if the items are ids.
    weight: Callable[[Any], int] | None = None

    @abc.abstractmethod
    def blocks(
        self, items: Iterable[Any], check_time: Callable[[], object] | None = None, /
    ) -> tuple[Iterator[Any], bool]:
        """Return an iterator over blocks, and whether all are checked before any is sent.

        Arguments:
            items: the argument of the call.
            check_time: is called after each item of an iterable that may wait; raises when the
                deadline has passed.

        Raises:
            InvalidTypeError: this is no such argument.
        """

    @abc.abstractmethod
    def checked(self, block: Any, /) -> Any:
        """Return a block, checked.

        Raises:
            InvalidTypeError, InvalidValueError: an item is not allowed.
        """

    @abc.abstractmethod
    def chunks(self, block: Any, /) -> Iterator[Chunk]:
        """Yield the transactions for what `checked` has returned."""


class BulkWrite(BulkCall):
    """One call of ``mark_many`` or ``unmark_many``: its transactions and their results.

    Attributes:
        event: the event's name.
        uncounted: whether the event does not count towards ``max_events`` yet.
        done, counts: as in `BulkCall`.
    """

    def __init__(
        self,
        target: Callable[[int], Target],
        schema: KeySchema,
        *,
        value: int,
    ) -> None:
        """Prepare a bulk write.

        Arguments:
            target: returns the target of a shard.
            schema: checks the ids and assigns them to shards.
            value: the bit to write.
        """
        bitmaps = target(0).bitmaps
        super().__init__(bitmaps.granularities)  # the same in all shards
        self._target = target
        self._schema = schema
        self._value = value
        self.event = bitmaps.event
        self.uncounted = bitmaps.uncounted

    def blocks(
        self, user_ids: Iterable[Any], check_time: Callable[[], object] | None = None
    ) -> tuple[Iterator[Any], bool]:
        """Return an iterator over blocks of ids, and whether ``user_ids`` is a collection.

        Raises and takes the arguments as `tallymark._core.offsets.blocks`.
        """
        return blocks(user_ids, check_time)

    def checked(self, block: Any) -> Any:
        """Return a block of ids with its bounds.

        Raises:
            InvalidTypeError, InvalidValueError: an id is not allowed.
        """
        return self._schema.offsets(block)

    def chunks(self, user_ids: Any) -> Iterator[Chunk]:
        """Yield the transactions for what `checked` has returned."""
        for shard, offsets in self._schema.partition(user_ids):
            target = self._target(shard)
            if target.exact_unmark is not None:
                yield from self._exact_chunks(target.exact_unmark, as_list(offsets.values))
            else:
                for mark, count in prepared_marks(target, offsets, self._value):
                    yield Chunk((mark,), count)

    @staticmethod
    def _exact_chunks(exact_unmark: Callable[[Any], Mark], users: Sequence[Any]) -> Iterator[Chunk]:
        for begin in range(0, len(users), _EXACT_UNMARKS):
            marks = [exact_unmark(user) for user in users[begin : begin + _EXACT_UNMARKS]]
            yield Chunk(marks, len(marks))


def prepared_marks(
    target: Target, offsets: Offsets, value: int
) -> Iterator[tuple[SparseMarks | DenseMarks, int]]:
    """Yield the marks of each transaction, and how many ids they cover.

    Arguments:
        target: where to write.
        offsets: the users' offsets, in any order.
        value: the bit to write.
    """
    sparse: list[int] = []
    for window in windows(offsets):
        count = len(window.values)
        is_dense = count >= _DENSE_MIN and count * _DENSE_SPACING > window.high - window.low
        if is_dense and target.temp_keys is not None:
            first, bits = as_bits(window)
            yield DenseMarks(target.bitmaps, first, bits, value, target.temp_keys), count
        else:
            sparse += as_list(window.values)
    # The highest offsets first: each bitmap grows only once.
    for end in range(len(sparse), 0, -_SPARSE_MARKS):
        part = sparse[max(0, end - _SPARSE_MARKS) : end]
        yield SparseMarks(target.bitmaps, part, value), len(part)
