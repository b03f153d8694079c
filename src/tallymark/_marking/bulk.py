"""Marks of many users at once: from their ids to transactions, and to counts. Pure.

A block of ids is cut into windows of neighbours. Where many users of a window
are marked, its bits are put together here and merged by a script on the server;
the others are set one by one, a thousand in a transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .._core.failures import copied
from .._core.offsets import as_bits, as_list, windows
from ..errors import TallymarkError
from .marks import DenseMarks, SparseMarks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .._core.keys import KeySchema
    from .._core.offsets import Numbers, Offsets
    from .._core.periods import Granularity
    from .marks import Bitmaps, Mark, Result

__all__ = ["Chunk", "Many", "Target"]

#: How many bits one transaction sets one by one: on three keys, 1.6 ms of Redis's time.
_SPARSE: Final = 1000

#: How many exact unmarks share a transaction: each is a script that looks at all days.
_EXACT: Final = 32

#: A window is sent as a bitmap if it has a bit in so many, and enough of them to
#: pay for a script. Measured: from here on it takes less time, for us and for Redis.
_DENSE: Final = 4000
_DENSE_FROM: Final = 64


@dataclass(frozen=True)
class Target:
    """Where the users of one shard are marked.

    Attributes:
        bitmaps: the bitmaps.
        scratch: keys that the script may use; None where there are no scripts.
        exact: makes the mark of one user, where each needs one of its own.
    """

    bitmaps: Bitmaps
    scratch: tuple[bytes, bytes] | None
    exact: Callable[[int], Mark] | None = None


@dataclass(frozen=True)
class Chunk:
    """What one transaction marks.

    Attributes:
        marks: the marks, all of one shard.
        ids: how many ids they are of, repetitions included.
    """

    marks: Sequence[Mark]
    ids: int


class Many:
    """One call of ``mark_many`` or ``unmark_many``: what it sends, and what came of it.

    Attributes:
        event: the event's name.
        on_trial: whether it is not known yet if it counts as one that was marked.
        done: how many ids are marked.
        counts: in how many of them that changed something, for each granularity.
    """

    def __init__(
        self,
        target: Callable[[int], Target],
        schema: KeySchema,
        *,
        value: int,
    ) -> None:
        """Prepare.

        Arguments:
            target: tells where the users of a shard are marked.
            schema: checks the ids, and knows their shards.
            value: the bit to write.
        """
        self._target = target
        self._schema = schema
        self._value = value
        self.done = 0
        bitmaps = target(0).bitmaps
        self.event = bitmaps.event
        self.on_trial = bitmaps.on_trial
        granularities = bitmaps.granularities  # the same in all shards
        self.counts: dict[Granularity, int] = dict.fromkeys(granularities, 0)

    def checked(self, block: Numbers) -> Offsets:
        """Return a block of ids with its bounds.

        Raises:
            InvalidTypeError, InvalidValueError: an id is not allowed.
        """
        return self._schema.offsets(block)

    def chunks(self, user_ids: Offsets) -> Iterator[Chunk]:
        """Yield what to send for a block of ids."""
        for shard, offsets in self._schema.partition(user_ids):
            yield from self._chunks(self._target(shard), offsets)

    def _chunks(self, target: Target, offsets: Offsets) -> Iterator[Chunk]:
        bitmaps = target.bitmaps
        singles: list[int] = []
        for some in windows(offsets) if target.exact is None else ():
            count = len(some.values)
            crowded = count >= _DENSE_FROM and count * _DENSE > some.high - some.low
            if crowded and target.scratch is not None:
                dense = DenseMarks(bitmaps, *as_bits(some), self._value, target.scratch)
                yield Chunk((dense,), count)
            else:
                singles += as_list(some.values)
        # From the highest on: each bitmap has to grow only once.
        for end in range(len(singles), 0, -_SPARSE):
            few = singles[max(0, end - _SPARSE) : end]
            yield Chunk((SparseMarks(bitmaps, few, self._value),), len(few))
        if target.exact is not None:
            each = as_list(offsets.values)
            for at in range(0, len(each), _EXACT):
                marks = [target.exact(offset) for offset in each[at : at + _EXACT]]
                yield Chunk(marks, len(marks))

    def settle(self, chunk: Chunk, results: Sequence[Result]) -> None:
        """Add up what came of a chunk.

        Raises:
            CommandError: Redis refused it.
        """
        for result in results:
            if isinstance(result, TallymarkError):
                raise result
            counts = result if isinstance(result, dict) else dict.fromkeys(result, 1)
            for granularity, count in counts.items():
                self.counts[granularity] += count
        self.done += chunk.ids

    def told(self, error: TallymarkError) -> TallymarkError:
        """Return an error that also says how far it got."""
        if not self.done:
            return error
        return copied(error, f"{error}; {self.done} ids before were written")
