"""The copying of bitmaps from one database to another, group by group and window by window.

A group of bitmaps is inspected on both sides with a few round trips, then compared and
written in windows: the same range of user ids of each bitmap, so that memory is bounded.
"""

from __future__ import annotations

import math
import time
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from .._core.arguments import check_flag
from .._reading.keyspace import all_bitmaps
from .._reading.raw_keys import key_facts
from ..errors import WrongKeyTypeError
from ._databases import Database, check_disjoint, check_user_ids
from ._mapped import MappedMovement
from ._movement import BitmapState
from ._pairs import read_pairs
from ._plain import PlainMovement
from ._resharding import Change, Comparison

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._sync.tally import SyncTally
    from ._databases import BitmapName
    from ._movement import Movement, Window
    from ._pairs import IdSource

__all__ = ["Copier", "Migration", "Progress"]

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
        unmapped: how many bits of the old database were not copied, since the new one has no
            id for their number, all added up.
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
    unmapped: int = 0


class Copier:
    """Copies the bitmaps of a source database to a target database, and compares them."""

    def __init__(
        self,
        source: SyncTally[Any],
        target: SyncTally[Any],
        *,
        ids: IdSource | None = None,
        skip_unmapped: bool = False,
        exact: bool = False,
    ) -> None:
        """Check the arguments; see `tallymark.migrate.migrate`."""
        self._source = Database(source)
        self._target = Database(target)
        check_flag("exact", exact)
        check_flag("skip_unmapped", skip_unmapped)
        self._exact = exact
        #: In the names of temporary keys.
        self._tag = uuid.uuid4().hex
        check_user_ids(self._source, self._target, with_pairs=ids is not None)
        self._ids = ids
        self._skip_unmapped = skip_unmapped
        self._movement: Movement
        self._written = 0
        #: The bitmaps of the present group that were changed in the target.
        self._changed: set[BitmapName] = set()
        self._skipped: list[str] = []

    def run(self, progress: Callable[[Progress], object] | None) -> Migration:
        """Copy all bitmaps; see `tallymark.migrate.migrate`."""
        began = time.monotonic()
        self._movement = self._new_movement()
        check_disjoint(self._source, self._target, self._tag)
        self._source.check_schema()
        self._target.check_schema()
        unordered, temporary = self._source.answer(all_bitmaps(self._source.context))
        names = sorted(unordered, key=lambda name: (name[0], str(name[1])))
        try:
            migration = self._run(names, progress, began)
        finally:
            self._movement.close()
        return replace(migration, temporary=tuple(sorted(map(self._key, temporary))))

    def _new_movement(self) -> Movement:
        source, target = self._source, self._target
        dictionary = target.schema.dictionary
        if dictionary is None:
            return PlainMovement(source, target, self._tag, exact=self._exact)
        pairs = None
        if self._ids is not None:
            pairs = read_pairs(self._ids, source.schema, dictionary.ids)
        skip = self._skip_unmapped
        return MappedMovement(
            source, target, dictionary, self._tag, pairs=pairs, skip_unmapped=skip
        )

    def _run(
        self,
        names: Sequence[BitmapName],
        progress: Callable[[Progress], object] | None,
        began: float,
    ) -> Migration:
        bitmaps = unchanged = users = empty = done = 0
        differing: dict[str, tuple[int, int]] = {}
        movement = self._movement
        movement.prepare(names)
        for at in range(0, len(names), movement.group_size):
            group = names[at : at + movement.group_size]
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
        movement.finish()
        return Migration(
            bitmaps,
            users,
            unchanged,
            self._written,
            differing,
            time.monotonic() - began,
            empty,
            tuple(self._skipped),
            unmapped=sum(movement.unmapped.values()),
        )

    def _copy_group(
        self, names: Sequence[BitmapName]
    ) -> tuple[list[BitmapState], list[BitmapState]]:
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

    def _inspect(self, names: Sequence[BitmapName]) -> list[BitmapState]:
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
            ttl = max((shard.ttl for shard in source if shard.ttl is not None), default=math.inf)
            wrong = [
                shard.ttl is not None and self._is_wrong_ttl(shard.ttl, ttl) for shard in target
            ]
            states.append(
                BitmapState(
                    name,
                    max(shard.size for shard in source),
                    max(shard.size for shard in target),
                    sum(shard.users for shard in source) - self._movement.unmapped.get(name, 0),
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

    def _copy(self, states: Sequence[BitmapState]) -> None:
        """Copy some bitmaps, window by window."""
        if not states:
            return
        # An empty change writes nothing but the expiry.
        expiries = [
            (state, Change(shard, 0, b"\0", 1)) for state in states for shard in state.wrong_expiry
        ]
        self._written += self._movement.write(expiries, 0)
        for window in self._movement.windows(states):
            self._copy_window(window)

    def _copy_window(self, window: Window) -> None:
        # The target is read first, since marks are written to the source first.
        parts = self._movement.target_parts(window)
        remaining = [
            (state, Comparison(part, clear=self._exact))
            for state, part in zip(window.states, parts, strict=True)
        ]
        for _ in range(_MAX_COMPARISONS):
            wanted = self._movement.wanted_parts(window, [state for state, _ in remaining])
            changes: list[tuple[BitmapState, Change]] = []
            changed = []
            for (state, comparison), bits in zip(remaining, wanted, strict=True):
                if changes_of_bitmap := comparison.changes(bits):
                    changes += [(state, change) for change in changes_of_bitmap]
                    self._changed.add(state.name)
                    changed.append((state, comparison))
            if not changed:
                return
            self._written += self._movement.write(changes, window.at)
            remaining = changed
