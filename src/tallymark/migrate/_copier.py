"""The copying of bitmaps from one database to another, group by group and window by window.

A group of bitmaps is inspected on both sides with a few round trips, then compared and
written in windows: the same range of user ids of each bitmap, so that memory is bounded.
"""

from __future__ import annotations

import itertools
import math
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from .._core.arguments import check_flag
from .._core.periods import Granularity
from .._marking.marks import Bitmaps, DenseMarks, SparseMarks
from .._reading.bits import Ints
from .._reading.keyspace import all_bitmaps
from .._reading.raw_keys import key_facts, key_parts
from ..errors import InvalidValueError, TallymarkError, WrongKeyTypeError
from ._databases import Database, check_disjoint
from ._resharding import Change, Comparison, reshard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .._marking.marks import Counts, Mark
    from .._sync.tally import SyncTally
    from ._databases import BitmapName

__all__ = ["Copier", "Migration", "Progress"]

#: How many bitmaps form a group, and how many bytes of all of them form a window.
_GROUP: Final = 64
_GROUP_BYTES: Final = 4 * 1024 * 1024

#: How many bytes of one bitmap form a window, at most. Takes some 25 times as much memory.
_WINDOW_BYTES: Final = 1024 * 1024

#: How many bytes one transaction merges, and what each of its scripts counts besides.
_TRANSACTION_BYTES: Final = 128 * 1024
_SCRIPT_BYTES: Final = 1024

#: How many bits one mark sets one by one, on a server without scripts.
_SPARSE_BITS: Final = 1000

#: A window that changes while it is copied is compared again, at most so often.
_MAX_COMPARISONS: Final = 100

#: A bitmap whose counts differ is copied again, at most so often.
_MAX_COPIES: Final = 3


@dataclass(frozen=True)
class Progress:
    """The progress of a migration.

    Attributes:
        bitmaps: how many bitmaps are done.
        total: how many bitmaps the source has.
        users: how many users the bitmaps hold that are done, all added up.
        seconds: the time since the begin of the migration.
    """

    bitmaps: int
    total: int
    users: int
    seconds: float


@dataclass(frozen=True)
class Migration:
    """The result of a migration.

    Keys in it are those of the old database; with shards, without the hash tag.

    Attributes:
        bitmaps: how many bitmaps of the old database have users.
        users: how many users they have, all added up: a user in three bitmaps counts
            three times.
        unchanged: how many of these bitmaps were in the new database already.
        written: how many bits were changed in the new database.
        differing: by key, the bitmaps with another number of users in the new database:
            the number in the old database, and the number in the new one.
        seconds: how long the migration took.
        empty: how many bitmaps of the old database have no user at all. The new one
            need not have them.
        skipped: keys that have the name of a bitmap and hold no string. They are not copied.
        temporary: keys that look like results which bitmapist has left: ``bitop_AND_``,
            or OR, XOR, NOT, and the prefix again. They are not copied, so an event that
            has such a name is not either.
    """

    bitmaps: int
    users: int
    unchanged: int
    written: int
    differing: dict[str, tuple[int, int]]
    seconds: float
    empty: int = 0
    skipped: tuple[str, ...] = ()
    temporary: tuple[str, ...] = ()


class _BitmapState(NamedTuple):
    """A bitmap of the source, compared with that of the target.

    Attributes:
        name: the event and the period.
        size: how many bytes there are to compare, counted as in a bitmap without shards.
        source_users, target_users: the number of users on each side.
        expires_at: when the bitmap expires in each shard of the target, in seconds since
            1970; ``math.inf`` if it does not, or if the migration leaves its expiry alone.
        wrong_expiry: the shards of the target that have it with another expiry.
    """

    name: BitmapName
    size: int
    source_users: int
    target_users: int
    expires_at: list[float]
    wrong_expiry: list[int]


class Copier:
    """Copies the bitmaps of a source database to a target database, and compares them."""

    def __init__(self, source: SyncTally, target: SyncTally, exact: bool) -> None:
        """Check the arguments; see `tallymark.migrate.migrate`."""
        self._source = Database(source)
        self._target = Database(target)
        check_flag("exact", exact)
        self._exact = exact
        #: The smallest window, in bytes, that consists of whole bytes in each shard of both.
        self._unit = math.lcm(self._source.shards, self._target.shards)
        #: In the names of temporary keys.
        self._tag = uuid.uuid4().hex
        self._written = 0
        #: The bitmaps of the present group that were changed in the target.
        self._changed: set[BitmapName] = set()
        self._skipped: list[str] = []

    def run(self, progress: Callable[[Progress], object] | None) -> Migration:
        """Copy all bitmaps; see `tallymark.migrate.migrate`."""
        began = time.monotonic()
        check_disjoint(self._source, self._target, self._tag)
        self._source.check_shards()
        self._target.check_shards()
        unordered, temporary = self._source.answer(all_bitmaps(self._source.context))
        names = sorted(unordered, key=lambda name: (name[0], str(name[1])))
        bitmaps = unchanged = users = empty = done = 0
        differing: dict[str, tuple[int, int]] = {}
        group_size = max(1, min(_GROUP, _GROUP_BYTES // self._unit))
        for at in range(0, len(names), group_size):
            group = names[at : at + group_size]
            self._changed = set()
            states, states_after = self._copy_group(group)
            differing |= {
                self._key(state.name): (state.source_users, state.target_users)
                for state in states_after
            }
            nonempty = [state for state in states if state.source_users]
            empty += len(states) - len(nonempty)
            bitmaps += len(nonempty)
            unchanged += sum(state.name not in self._changed for state in nonempty)
            users += sum(state.source_users for state in nonempty)
            done += len(group)
            if progress is not None:
                progress(Progress(done, len(names), users, time.monotonic() - began))
        return Migration(
            bitmaps,
            users,
            unchanged,
            self._written,
            differing,
            time.monotonic() - began,
            empty,
            tuple(self._skipped),
            tuple(sorted(map(self._key, temporary))),
        )

    def _copy_group(
        self, names: Sequence[BitmapName]
    ) -> tuple[list[_BitmapState], list[_BitmapState]]:
        """Copy some bitmaps.

        Returns:
            All of them as they were before; and those whose counts still differ.
        """
        remaining = before = self._inspect(names)
        for _ in range(_MAX_COPIES):
            self._copy(remaining)
            after = self._inspect([state.name for state in remaining])
            remaining = [state for state in after if state.source_users != state.target_users]
            if not remaining:
                break
        return before, remaining

    def _key(self, name: BitmapName) -> str:
        """Return the key of a bitmap in the source; with shards, without the hash tag."""
        return self._source.schema.key(*name).decode()

    def _inspect(self, names: Sequence[BitmapName]) -> list[_BitmapState]:
        """Return the state of some bitmaps; skip keys of the source that hold no string.

        Raises:
            WrongKeyTypeError: a key of the target holds no string.
        """
        source_facts = self._source.answer_by_bitmap(names, key_facts)
        target_facts = self._target.answer_by_bitmap(names, key_facts)
        now = time.time()
        states = []
        for name, source, target in zip(names, source_facts, target_facts, strict=True):
            if not all(shard.is_bitmap for shard in source):
                self._skipped.append(self._key(name))
                continue
            for schema, shard in zip(self._target.schema.parts, target, strict=True):
                if not shard.is_bitmap:
                    raise WrongKeyTypeError(
                        f"{schema.key(*name).decode()!r:.80} of the new database is no string"
                    )
            size = max(shard.size for shard in source) * self._source.shards
            if self._exact:
                size = max(size, max(shard.size for shard in target) * self._target.shards)
            ttl = max((shard.ttl for shard in source if shard.ttl is not None), default=math.inf)
            wrong = [
                shard.ttl is not None and self._is_wrong_ttl(shard.ttl, ttl) for shard in target
            ]
            states.append(
                _BitmapState(
                    name,
                    size,
                    sum(shard.users for shard in source),
                    sum(shard.users for shard in target),
                    [
                        now + (ttl if shard.ttl is None or is_wrong else shard.ttl)
                        for shard, is_wrong in zip(target, wrong, strict=True)
                    ],
                    [shard for shard, is_wrong in enumerate(wrong) if is_wrong],
                )
            )
        return states

    def _is_wrong_ttl(self, target: float, source: float) -> bool:
        """Return whether a bitmap of the target has to get the expiry of the source."""
        if math.inf in (target, source):
            return source < target  # an expiry that only the target has stays
        return source > target + 1 or (self._exact and target > source + 1)

    def _copy(self, states: Sequence[_BitmapState]) -> None:
        """Copy some bitmaps, window by window."""
        if not states:
            return
        # An empty change writes nothing but the expiry.
        empty = Change(0, 0, b"\0", 1)
        self._write(
            [
                mark
                for state in states
                for shard in state.wrong_expiry
                for mark in self._marks(state, empty._replace(shard=shard), 0)
            ]
        )
        step = max(1, min(_GROUP_BYTES // len(states), _WINDOW_BYTES) // self._unit) * self._unit
        for at in range(0, max(state.size for state in states), step):
            self._copy_window([state for state in states if state.size > at], at, step)

    def _copy_window(self, states: Sequence[_BitmapState], at: int, size: int) -> None:
        # The target is read first, since marks are written to the source first.
        windows = self._read(self._target, states, at, size)
        first = at // self._target.shards
        remaining = [
            (state, Comparison(window, clear=self._exact))
            for state, window in zip(states, windows, strict=True)
        ]
        for _ in range(_MAX_COMPARISONS):
            windows = self._read(self._source, [state for state, _ in remaining], at, size)
            marks: list[Mark] = []
            changed = []
            for (state, comparison), window in zip(remaining, windows, strict=True):
                wanted = reshard(window, self._target.shards)
                self._check_max_user_id(state, wanted, first)
                changes = comparison.changes(wanted)
                for change in changes:
                    marks += self._marks(state, change, first)
                if changes:
                    self._changed.add(state.name)
                    changed.append((state, comparison))
            if not changed:
                return
            self._write(marks)
            remaining = changed

    def _read(
        self, database: Database, states: Sequence[_BitmapState], at: int, size: int
    ) -> list[list[bytes]]:
        """Return a window of some bitmaps: for each bitmap, the bytes of each shard.

        Arguments:
            database: the database.
            states: the bitmaps.
            at, size: the first byte of the window and the number of bytes, counted as in a
                bitmap without shards.
        """
        first, count = at // database.shards, size // database.shards
        names = [state.name for state in states]
        return database.answer_by_bitmap(names, lambda keys: key_parts(keys, first, count))

    def _check_max_user_id(self, state: _BitmapState, wanted: Sequence[bytes], first: int) -> None:
        """Check that the target takes all users of a window.

        Arguments:
            state: the bitmap.
            wanted: the bytes of each shard of the target.
            first: the index of their first byte in the shard.

        Raises:
            InvalidValueError: a user is above the target's ``max_user_id``.
        """
        for shard, (part, bits) in enumerate(zip(self._target.schema.parts, wanted, strict=True)):
            if bits and 8 * (first + len(bits)) > part.max_user_id + 1:
                last = 8 * (first + len(bits)) - 1
                byte = bits[-1]
                offset = last - ((byte & -byte).bit_length() - 1)
                user = offset * self._target.shards + shard
                if user > self._target.schema.max_user_id:
                    raise InvalidValueError(
                        f"{self._key(state.name)!r:.80} has user {user}, and the new tally "
                        f"takes none above its max_user_id={self._target.schema.max_user_id}"
                    )

    def _write(self, marks: Sequence[Mark]) -> None:
        """Write marks to the target; raise the first error."""
        # On a cluster, each shard has transactions of its own.
        for batch in _batched(sorted(marks, key=lambda mark: mark.bitmaps.shard)):
            for result in self._target.submit(batch, None):
                if isinstance(result, TallymarkError):
                    raise result
                self._written += sum(cast("Counts", result).values())

    def _marks(self, state: _BitmapState, change: Change, first: int) -> Iterator[Mark]:
        """Yield the marks that make a change.

        Arguments:
            state: the bitmap.
            change: the change of a window.
            first: the index of the window's first byte in the shard.
        """
        event, period = state.name
        part = self._target.schema.parts[change.shard]
        bitmaps = Bitmaps(
            event,
            [Granularity.UNIQUE if period is None else period.granularity],
            [part.key(event, period)],
            [state.expires_at[change.shard]],
            change.shard,
        )
        first += change.first
        if self._target.options.bitfield:
            temp = f"{part.prefix}tmp:{self._tag}"
            temp_keys = (f"{temp}:1".encode(), f"{temp}:2".encode())
            yield DenseMarks(bitmaps, first, change.bits, change.value, temp_keys)
            return
        # A server without scripts.
        ints = Ints()
        size = len(change.bits)
        offsets = list(
            itertools.chain.from_iterable(ints.ids(ints.load(change.bits, size), size, 8 * first))
        )
        for at in range(0, max(1, len(offsets)), _SPARSE_BITS):
            yield SparseMarks(bitmaps, offsets[at : at + _SPARSE_BITS], change.value)


def _batched(marks: Iterable[Mark]) -> Iterator[list[Mark]]:
    """Yield marks in batches that are small enough for one transaction."""
    size = 0
    batch: list[Mark] = []
    for mark in marks:
        mark_size = len(getattr(mark, "bits", b"")) + _SCRIPT_BYTES
        if batch and size + mark_size > _TRANSACTION_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(mark)
        size += mark_size
    if batch:
        yield batch
