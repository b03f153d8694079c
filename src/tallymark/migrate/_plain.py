"""The movement of bits between databases whose user ids are bit offsets."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Final, cast

from .._marking.marks import SparseMarks
from .._reading.bits import Ints
from ..errors import InvalidValueError, TallymarkError
from ._movement import GROUP_BYTES, TRANSACTION_BYTES, WINDOW_BYTES, Movement, Window
from ._resharding import reshard

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .._marking.marks import Counts, Mark
    from ._databases import Database
    from ._movement import BitmapState
    from ._resharding import Change

__all__ = ["PlainMovement"]

#: How many bitmaps form a group.
_GROUP: Final = 64

#: What the script of one mark counts in a transaction, in bytes.
_SCRIPT_BYTES: Final = 1024

#: How many bits one mark sets one by one, on a server without scripts.
_SPARSE_BITS: Final = 1000


class PlainMovement(Movement):
    """Moves the same range of user ids of some bitmaps at a time, so that memory is bounded."""

    def __init__(self, source: Database, target: Database, tag: str, *, exact: bool) -> None:
        """Begin with nothing written.

        Arguments:
            source, target, tag: as for `Movement`.
            exact: whether to compare what only the target has.
        """
        super().__init__(source, target, tag)
        self._exact = exact
        #: The smallest window, in bytes, that consists of whole bytes in each shard of both.
        self._unit = math.lcm(source.shards, target.shards)

    @property
    def group_size(self) -> int:
        """The highest number of bitmaps in a group."""
        return max(1, min(_GROUP, GROUP_BYTES // self._unit))

    def windows(self, states: Sequence[BitmapState]) -> Iterator[Window]:
        """Yield the windows of the bitmaps of a group."""
        # In bytes of a bitmap without shards.
        step = max(1, min(GROUP_BYTES // len(states), WINDOW_BYTES) // self._unit) * self._unit
        shards = self.target.shards
        sizes = [self._size(state) for state in states]
        for at in range(0, max(sizes), step):
            longer = [state for state, size in zip(states, sizes, strict=True) if size > at]
            yield Window(longer, at // shards, step // shards)

    def _size(self, state: BitmapState) -> int:
        """Return how many bytes there are to compare, counted as in a bitmap without shards."""
        size = state.source_size * self.source.shards
        if self._exact:
            size = max(size, state.target_size * self.target.shards)
        return size

    def wanted_parts(self, window: Window, states: Sequence[BitmapState]) -> list[list[bytes]]:
        """Return what the target should have, by the source."""
        new, old = self.target.shards, self.source.shards
        parts = self.read(self.source, states, window.at * new // old, window.size * new // old)
        wanted = [reshard(part, new) for part in parts]
        for state, bits in zip(states, wanted, strict=True):
            self._check_max_user_id(state, bits, window.at)
        return wanted

    def _check_max_user_id(self, state: BitmapState, wanted: Sequence[bytes], first: int) -> None:
        """Check that the target takes all users of a window.

        Arguments:
            state: the bitmap.
            wanted: the bytes of each shard of the target.
            first: the index of their first byte in the shard.

        Raises:
            InvalidValueError: a user is above the target's ``max_user_id``.
        """
        schema = self.target.schema
        for shard, (part, bits) in enumerate(zip(schema.parts, wanted, strict=True)):
            if bits and 8 * (first + len(bits)) > part.max_user_id + 1:
                last = 8 * (first + len(bits)) - 1
                byte = bits[-1]
                offset = last - ((byte & -byte).bit_length() - 1)
                user = offset * self.target.shards + shard
                if user > schema.max_user_id:
                    key = self.source.schema.key(*state.name).decode()
                    raise InvalidValueError(
                        f"{key!r:.80} has user {user}, and the new tally takes none above its "
                        f"max_user_id={schema.max_user_id}"
                    )

    def write(self, changes: Iterable[tuple[BitmapState, Change]], first: int) -> int:
        """Write changes to the target; return how many bits were flipped."""
        marks = [mark for state, change in changes for mark in self._marks(state, change, first)]
        written = 0
        # On a cluster, each shard has transactions of its own.
        for batch in _batched(sorted(marks, key=lambda mark: mark.bitmaps.shard)):
            for result in self.target.submit(batch, None):
                if isinstance(result, TallymarkError):
                    raise result
                written += sum(cast("Counts", result).values())
        return written

    def _marks(self, state: BitmapState, change: Change, first: int) -> Iterator[Mark]:
        """Yield the marks that make a change; arguments as `write`."""
        if self.target.options.bitfield:
            yield self.dense_marks(state, change, first)
            return
        # A server without scripts.
        bitmaps = self.bitmaps(state, change.shard)
        ints = Ints()
        size = len(change.bits)
        begin = 8 * (first + change.first)
        offsets = list(
            itertools.chain.from_iterable(ints.ids(ints.load(change.bits, size), size, begin))
        )
        for at in range(0, max(1, len(offsets)), _SPARSE_BITS):
            yield SparseMarks(bitmaps, offsets[at : at + _SPARSE_BITS], change.value)


def _batched(marks: Iterable[Mark]) -> Iterator[list[Mark]]:
    """Yield marks in batches that are small enough for one transaction."""
    size = 0
    batch: list[Mark] = []
    for mark in marks:
        mark_size = len(getattr(mark, "bits", b"")) + _SCRIPT_BYTES
        if batch and size + mark_size > TRANSACTION_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(mark)
        size += mark_size
    if batch:
        yield batch
