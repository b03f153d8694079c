"""Copy a database in bitmapist's format into a sharded one, while marks go on.

As a program: ``python -m tallymark.migrate redis://old:6379/0 redis+cluster://new:6379``.
In a program: `migrate`. docs/scale.md tells how to move house without losing a mark.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

from .errors import InvalidTypeError, InvalidValueError, TallymarkError
from .excerpts import escaped, kind_of
from .keyspace import every_bitmap
from .marks import Bitmaps, DenseMarks
from .periods import Granularity
from .raw_keys import key_counts, key_lives, key_parts
from .resharding import changes, dealt_bits
from .sync_tally import SyncTally
from .together import in_shards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .context import Context
    from .marks import Counts, Mark
    from .periods import Period
    from .requests import Query
    from .resharding import Change

__all__ = ["Migration", "Progress", "main", "migrate"]

AnswerT = TypeVar("AnswerT")

#: How many bitmaps are looked at together, and how many bytes of all of them.
_GROUP: Final = 64
_GROUP_BYTES: Final = 4 * 1024 * 1024

#: How many bytes one transaction merges.
_TRANSACTION: Final = 128 * 1024

#: A part that changes while it is copied is looked at again, so often.
_LOOKS: Final = 100

#: And a bitmap whose counts differ, so often.
_PASSES: Final = 3


class _Source(NamedTuple):
    """A bitmap of the old database.

    Attributes:
        event, period: what it is of.
        key: its key.
        size: how many bytes it has.
        users: how many users it has.
        end: when it goes, in seconds since 1970; ``math.inf`` if it stays.
    """

    event: str
    period: Period | None
    key: bytes
    size: int
    users: int
    end: float


@dataclass(frozen=True)
class Progress:
    """How far a migration has come.

    Attributes:
        bitmaps: how many bitmaps are done.
        total: how many there are.
        users: how many users the bitmaps hold that are done, all added up.
        seconds: since it has begun.
    """

    bitmaps: int
    total: int
    users: int
    seconds: float


@dataclass(frozen=True)
class Migration:
    """What came of a migration.

    Attributes:
        bitmaps: how many bitmaps were looked at.
        users: how many users they hold, all added up.
        unchanged: how many of them were in the new database already.
        written: how many bits were changed in the new database.
        differing: the bitmaps that have another number of users in the new database,
            by their old key: how many users there, and how many here.
        seconds: how long it took.
    """

    bitmaps: int
    users: int
    unchanged: int
    written: int
    differing: dict[str, tuple[int, int]]
    seconds: float


def migrate(
    source: SyncTally,
    target: SyncTally,
    *,
    exact: bool = False,
    progress: Callable[[Progress], object] | None = None,
) -> Migration:
    """Copy all bitmaps of one database into another one, which has shards.

    Marks may go on meanwhile if they are written to both databases, first to the
    old one and then to the new one: each part is looked at again after it was
    copied, until it has not changed, so that neither a mark nor an unmark gets
    lost. Only bits that differ are written, so one that was interrupted is just
    begun again. An end (TTL) is copied. At last the users of each bitmap are
    counted on both sides.

    Arguments:
        source: a tally on the old database, without shards.
        target: a tally on the new one, with shards, of the same prefix or another.
        exact: also clear what the new database has and the old one has not. By
            default nothing is cleared but what this call has set itself, so
            that a database that is in use by itself loses nothing.
        progress: is called with a `Progress` after each group of bitmaps.

    Returns:
        A `Migration`; its ``differing`` is empty if all counts agree.

    Raises:
        InvalidTypeError, InvalidValueError: these are not such tallies.
        StoreError: one of the databases has failed; begin again.

    Interrupted: what was copied stays.
    """
    for tally in (source, target):
        if not isinstance(tally, SyncTally):
            raise InvalidTypeError(f"migrate takes two SyncTally, got a {kind_of(tally)}")
    return _Mover(source, target, exact).run(progress)


class _Mover:
    """One migration. Works on the inner parts of two blocking tallies."""

    def __init__(self, source: SyncTally, target: SyncTally, exact: bool) -> None:
        self._ask = source._reader.answer  # noqa: SLF001
        self._source = source._context  # noqa: SLF001
        self._ask_target = target._reader.answer  # noqa: SLF001
        self._write = target._commit  # noqa: SLF001
        self._target = target._context  # noqa: SLF001
        self._exact = exact
        self._schema = self._target.schema
        if self._source.shards or not self._target.shards:
            raise InvalidValueError("migrate copies from a database without shards to one with")
        self._shards = len(self._target.shards)
        self._scratch = uuid.uuid4().hex
        self._written = 0
        #: The keys of the bitmaps of a group that were not yet there as they should be.
        self._changed: set[bytes] = set()

    def run(self, progress: Callable[[Progress], object] | None) -> Migration:
        """Copy all."""
        began = time.monotonic()
        found = sorted(
            self._ask(every_bitmap(self._source)), key=lambda each: (each[0], str(each[1]))
        )
        unchanged = users = done = 0
        differing: dict[str, tuple[int, int]] = {}
        for group in _grouped(found, _GROUP):
            sources = self._described(group)
            self._changed = set()
            todo: Sequence[_Source] = sources
            here: list[tuple[_Source, int]] = []
            for _ in range(_PASSES):
                self._copy(todo)
                again = self._described([(one.event, one.period) for one in todo])
                counts = self._counts(again)
                here = [
                    (one, count)
                    for one, count in zip(again, counts, strict=True)
                    if one.users != count
                ]
                todo = [one for one, _ in here]
                if not todo:
                    break
            unchanged += len(sources) - len(self._changed)
            differing |= {one.key.decode(): (one.users, count) for one, count in here}
            users += sum(one.users for one in sources)
            done += len(sources)
            if progress is not None:
                progress(Progress(done, len(found), users, time.monotonic() - began))
        seconds = time.monotonic() - began
        return Migration(len(found), users, unchanged, self._written, differing, seconds)

    def _described(self, bitmaps: Sequence[tuple[str, Period | None]]) -> list[_Source]:
        keys = [self._source.schema.key(event, period) for event, period in bitmaps]
        sizes, counts = self._ask(key_counts(keys))
        ends = self._ask(key_lives(keys))
        now = time.time()
        return [
            _Source(*bitmap, key, size, count, now + seconds)
            for bitmap, key, size, count, seconds in zip(
                bitmaps, keys, sizes, counts, ends, strict=True
            )
        ]

    def _ask_shards(
        self, sources: Sequence[_Source], query: Callable[[Sequence[bytes]], Query[AnswerT]]
    ) -> list[AnswerT]:
        """Ask each shard of the new database about its keys of some bitmaps."""

        def asked(shard: Context) -> Query[AnswerT]:
            return query([shard.schema.key(one.event, one.period) for one in sources])

        return self._ask_target(in_shards(self._target, asked))

    def _counts(self, sources: Sequence[_Source]) -> list[int]:
        every = self._ask_shards(sources, key_counts)
        return [sum(counts) for counts in zip(*(counts for _, counts in every), strict=True)]

    def _copy(self, sources: Sequence[_Source]) -> None:
        """Copy some bitmaps, part by part of all of them."""
        step = max(1, _GROUP_BYTES // len(sources) // self._shards) * self._shards
        for at in range(0, max(one.size for one in sources), step):
            here = [one for one in sources if one.size > at]
            self._copy_part(here, at, step)

    def _copy_part(self, sources: Sequence[_Source], at: int, size: int) -> None:
        keys = [one.key for one in sources]
        first = at // self._shards
        found = self._found(sources, first, size // self._shards)
        clear = self._exact
        for _ in range(_LOOKS):
            # In this order: who marks, marks the old database first.
            parts = self._ask(key_parts(keys, at, size))
            wanted = [dealt_bits(part, self._shards) for part in parts]
            marks: list[Mark] = []
            for one, want, have in zip(sources, wanted, found, strict=True):
                told = changes(want, have, clear=clear)
                if told:
                    self._changed.add(one.key)
                marks += [self._mark(one, change, first) for change in told]
            if not marks:
                return
            for some in _in_transactions(marks):
                for result in self._write(some, None):
                    if isinstance(result, TallymarkError):
                        raise result
                    self._written += sum(cast("Counts", result).values())
            # From now on this is what we have written, which we may also take back.
            found, clear = wanted, True

    def _found(self, sources: Sequence[_Source], first: int, size: int) -> list[list[bytes]]:
        """Return, for each bitmap, the bytes that each shard has of a part."""
        every = self._ask_shards(sources, lambda own: key_parts(own, first, size))
        return [list(of_shards) for of_shards in zip(*every, strict=True)]

    def _mark(self, source: _Source, change: Change, first: int) -> DenseMarks:
        part = self._schema.parts[change.shard]
        granularity = Granularity.UNIQUE if source.period is None else source.period.granularity
        bitmaps = Bitmaps(
            source.event,
            [granularity],
            [part.key(source.event, source.period)],
            [source.end],
            change.shard,
        )
        name = f"{part.prefix}tmp:{self._scratch}"
        scratch = (f"{name}:1".encode(), f"{name}:2".encode())
        return DenseMarks(bitmaps, first, change.bits, change.value, scratch)


def _grouped(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _in_transactions(marks: Iterable[Mark]) -> Iterator[list[Mark]]:
    """Yield marks in groups, each with no more of one shard than a transaction should have."""
    sizes: dict[int, int] = {}
    group: list[Mark] = []
    for mark in marks:
        size = len(getattr(mark, "bits", b""))
        shard = mark.bitmaps.shard
        if group and sizes.get(shard, 0) + size > _TRANSACTION:
            yield group
            group, sizes = [], {}
        group.append(mark)
        sizes[shard] = sizes.get(shard, 0) + size
    if group:
        yield group


def main(arguments: Sequence[str] | None = None) -> int:
    """Migrate as a program; return 0 if all counts agree."""
    parser = argparse.ArgumentParser(
        prog="python -m tallymark.migrate",
        description="Copy a database in bitmapist's format into a sharded one.",
    )
    parser.add_argument("source", help="the URL of the old database")
    parser.add_argument("target", help="the URL of the new one, such as redis+cluster://host")
    parser.add_argument("--shards", type=int, default=16, help="of the new one (default: 16)")
    parser.add_argument("--prefix", default="trackist_", help="what the keys begin with")
    parser.add_argument(
        "--exact", action="store_true", help="also clear what the old database has not"
    )
    parser.add_argument("--quiet", action="store_true", help="tell the result only")
    options = parser.parse_args(arguments)
    prefix = options.prefix

    def tell(now: Progress) -> None:
        rate = now.users / now.seconds if now.seconds else 0.0
        print(  # noqa: T201 - this is a program
            f"{now.bitmaps:,} of {now.total:,} bitmaps, {now.users:,} users, {rate:,.0f} a second",
            file=sys.stderr,
        )

    try:
        with (
            SyncTally.from_url(options.source, prefix=prefix, timeout=60) as source,
            SyncTally.from_url(
                options.target, prefix=prefix, shards=options.shards, timeout=60
            ) as target,
        ):
            told = migrate(
                source, target, exact=options.exact, progress=None if options.quiet else tell
            )
    except TallymarkError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        return 2
    print(  # noqa: T201
        f"{told.bitmaps:,} bitmaps, {told.users:,} users, in {told.seconds:.1f} s: "
        f"{told.unchanged:,} were there already, {told.written:,} bits written, "
        f"{len(told.differing):,} differ"
    )
    for key, (there, here) in itertools.islice(told.differing.items(), 20):
        print(f"  {escaped(key)}: {there:,} users in the old database, {here:,} in the new one")  # noqa: T201
    return 1 if told.differing else 0


if __name__ == "__main__":
    sys.exit(main())
