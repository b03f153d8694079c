"""How bits get from the source to the target: what all ways have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from .._core.periods import Granularity
from .._marking.marks import Bitmaps, DenseMarks
from .._reading.raw_keys import key_parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ._databases import BitmapName, Database
    from ._resharding import Change

__all__ = ["GROUP_BYTES", "TRANSACTION_BYTES", "WINDOW_BYTES", "BitmapState", "Movement", "Window"]

#: How many bytes of all bitmaps of a group form a window.
GROUP_BYTES: Final = 4 * 1024 * 1024

#: How many bytes of one bitmap form a window, at most. Takes some 25 times as much memory.
WINDOW_BYTES: Final = 1024 * 1024

#: How many bytes one transaction merges.
TRANSACTION_BYTES: Final = 128 * 1024


class BitmapState(NamedTuple):
    """A bitmap of the source, compared with that of the target.

    Attributes:
        name: the event and the period.
        source_size, target_size: the length in bytes of the longest shard on each side.
        source_users, target_users: the number of users on each side.
        expires_at: when the bitmap expires in each shard of the target, in seconds since
            1970; ``math.inf`` if it does not, or if the migration leaves its expiry alone.
        wrong_expiry: the shards of the target that have it with another expiry.
    """

    name: BitmapName
    source_size: int
    target_size: int
    source_users: int
    target_users: int
    expires_at: list[float]
    wrong_expiry: list[int]


class Window(NamedTuple):
    """A part of some bitmaps that is compared and written together.

    Attributes:
        states: the bitmaps.
        at, size: the index of the first byte and the number of bytes in each shard of the target.
    """

    states: Sequence[BitmapState]
    at: int
    size: int


class Movement:
    """One way of the bits from the source to the target."""

    def __init__(self, source: Database, target: Database, tag: str) -> None:
        """Begin with nothing written.

        Arguments:
            source, target: the databases.
            tag: a random part for the names of temporary keys.
        """
        self.source = source
        self.target = target
        self._tag = tag
        #: By bitmap, how many bits of the source belong to no user of the target.
        self.unmapped: dict[BitmapName, int] = {}

    @property
    def group_size(self) -> int:
        """The highest number of bitmaps in a group."""
        raise NotImplementedError

    def prepare(self, names: Sequence[BitmapName]) -> None:
        """Prepare to move the bitmaps with some names."""

    def windows(self, states: Sequence[BitmapState]) -> Iterator[Window]:
        """Yield the windows of the bitmaps of a group."""
        raise NotImplementedError

    def wanted_parts(self, window: Window, states: Sequence[BitmapState]) -> list[list[bytes]]:
        """Return what the target should have, by the source.

        Arguments:
            window: the window.
            states: those of the window's bitmaps that are wanted.

        Returns:
            For each bitmap, the bytes of each shard of the target.
        """
        raise NotImplementedError

    def target_parts(self, window: Window) -> list[list[bytes]]:
        """Return the window of each bitmap as the target has it: the bytes of each shard."""
        return self.read(self.target, window.states, window.at, window.size)

    def write(self, changes: Iterable[tuple[BitmapState, Change]], first: int) -> int:
        """Write changes to the target; return how many bits were flipped.

        Arguments:
            changes: the changes, each with its bitmap.
            first: the index of the window's first byte in the shards of the target.

        Raises:
            TallymarkError: the target has refused a change.
        """
        raise NotImplementedError

    def finish(self) -> None:
        """Check that all that was written is still valid."""

    def close(self) -> None:
        """Delete temporary keys."""

    @staticmethod
    def read(
        database: Database, states: Sequence[BitmapState], first: int, count: int
    ) -> list[list[bytes]]:
        """Return some bytes of each shard of some bitmaps, for each bitmap.

        Arguments:
            database: the database.
            states: the bitmaps.
            first, count: the first byte and the number of bytes.
        """
        names = [state.name for state in states]
        return database.answer_by_bitmap(names, lambda keys: key_parts(keys, first, count))

    def bitmaps(self, state: BitmapState, shard: int) -> Bitmaps:
        """Return a bitmap of the target in a shard, for marks."""
        event, period = state.name
        return Bitmaps(
            event,
            [Granularity.UNIQUE if period is None else period.granularity],
            [self.target.schema.parts[shard].key(event, period)],
            [state.expires_at[shard]],
            shard,
        )

    def dense_marks(self, state: BitmapState, change: Change, first: int) -> DenseMarks:
        """Return a change as marks; arguments as `write`."""
        temp = f"{self.target.schema.parts[change.shard].prefix}tmp:{self._tag}"
        temp_keys = (f"{temp}:1".encode(), f"{temp}:2".encode())
        bitmaps = self.bitmaps(state, change.shard)
        return DenseMarks(bitmaps, first + change.first, change.bits, change.value, temp_keys)
