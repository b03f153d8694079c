"""Copy a database into another one, with or without shards, while marks go on.

As a program: ``python -m tallymark.migrate redis://old:6379/0 redis+cluster://new:6379``.
In a program: `migrate`. docs/scale.md tells how to change over without losing a mark.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import sys
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

from .._core.bits import Ints
from .._core.excerpts import escaped, kind_of, shown
from .._core.keys import KeySchema, check_flag
from .._core.periods import Granularity
from .._core.urls import StoreUrl
from .._marking.marks import Bitmaps, DenseMarks, SparseMarks
from .._reading.fanout import in_shards
from .._reading.keyspace import every_bitmap
from .._reading.raw_keys import key_facts, key_parts, unlinked
from .._reading.requests import ListNodes, Request
from .._sync.tally import SyncTally
from ..errors import (
    InvalidTypeError,
    InvalidValueError,
    TallymarkError,
    WrongKeyTypeError,
    WrongSchemaError,
)
from ._resharding import Change, Comparison, resharded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .._core.context import Context
    from .._core.periods import Period
    from .._marking.marks import Counts, Mark
    from .._reading.requests import Query

__all__ = ["Migration", "Progress", "main", "migrate"]

AnswerT = TypeVar("AnswerT")

#: How many bitmaps are looked at together, and how many bytes of all of them.
_GROUP: Final = 64
_GROUP_BYTES: Final = 4 * 1024 * 1024

#: How many bytes of one bitmap are looked at together. Takes some 25 times as much memory.
_WINDOW: Final = 1024 * 1024

#: How many bytes one transaction merges, and what each of its scripts counts besides.
_TRANSACTION: Final = 128 * 1024
_AROUND_BITS: Final = 1024

#: How many bits one transaction sets one by one, on a server without scripts.
_SPARSE: Final = 1000

#: After so many seconds a key goes that a migration was killed over. Clocks may differ.
_PROBE_SECONDS: Final = 3600

#: A part that changes while it is copied is looked at again, so often.
_LOOKS: Final = 100

#: And a bitmap whose counts differ, so often.
_PASSES: Final = 3


#: What a bitmap is of: an event, and a period or ``None``.
_Named = tuple[str, "Period | None"]


class _Bitmap(NamedTuple):
    """A bitmap of the old database, and what the new one has of it.

    Attributes:
        named: what it is of.
        size: how many bytes there are to look at, as in a bitmap without shards.
        users, here: how many users it has in the old database, and in the new one.
        ends: when it is to go in each shard of the new database, in seconds since
            1970; ``math.inf`` if it stays, or if its end there is not to be set.
        late: the shards of the new database that have it with another end.
    """

    named: _Named
    size: int
    users: int
    here: int
    ends: list[float]
    late: list[int]


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
        bitmaps: how many bitmaps of the old database have users.
        users: how many users they have, all added up: someone who is in three of
            them counts three times.
        unchanged: how many of them were in the new database already.
        written: how many bits were changed in the new database.
        differing: the bitmaps that have another number of users in the new database:
            how many users there, and how many here. They are called by the key in
            the old database, without the tag of a shard.
        seconds: how long it took.
        empty: how many bitmaps of the old database have no user at all. The new one
            need not have them.
        skipped: keys, called likewise, that have the name of a bitmap and hold no string.
            They are not copied.
        temporary: keys, called likewise, that look like results which bitmapist has left:
            ``bitop_AND_``, or OR, XOR, NOT, and the prefix again. They are not copied, so an
            event that has such a name is not either.
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


def migrate(
    source: SyncTally,
    target: SyncTally,
    *,
    exact: bool = False,
    progress: Callable[[Progress], object] | None = None,
) -> Migration:
    """Copy all bitmaps of one database into another one.

    Both may have shards or none, as many as the other one or not, any prefix, and
    be on a server or a cluster. Two prefixes of one database will do as well, unless
    one begins with the other.

    Marks may go on meanwhile if they are written to both databases, first to the
    old one and then to the new one: what was written is compared with the old one
    again until it agrees, so that neither a mark nor an unmark gets lost. Only bits
    that differ are written, so after an interruption, however hard, it is just begun
    again. At last the users of each bitmap are counted on both sides.

    The end (TTL) of a bitmap is repeated, unless the new one has a later one. Results that
    bitmapist has left are not copied: see ``temporary``. In a database where one prefix
    begins with another one, all keys of the longer prefix are events of the shorter one,
    and so are copied with it.

    Arguments:
        source: a tally on the old database. Nothing is written there.
        target: a tally on the new one.
        exact: also clear what the new database has and the old one has not, in the
            bitmaps that the old one has, and copy earlier ends too. By default
            nothing is cleared but what this call has set itself, so that a database
            that is in use by itself loses nothing.
        progress: is called with a `Progress` after each group of bitmaps.

    Returns:
        A `Migration`; its ``differing`` is empty if all counts agree.

    Raises:
        InvalidTypeError, InvalidValueError: these are not two blocking tallies, one of
            them has the option ``read_from``, or one would take keys of the other one
            for its own: nothing was written. Or a user is above the ``max_user_id``
            of the target.
        WrongSchemaError: a tally has another number of shards than its database;
            nothing was written.
        WrongKeyTypeError: a key of the new database holds no string.
        StoreError: one of the databases has failed; begin again.

    Interrupted: what was copied stays.
    """
    if progress is not None and not callable(progress):
        raise InvalidTypeError(f"progress must be callable, got a {kind_of(progress)}")
    return _Mover(source, target, exact).run(progress)


class _Side:
    """One of the two databases. Works on the inner parts of a blocking tally."""

    def __init__(self, tally: SyncTally) -> None:
        self.ask = tally.backend.reader.answer
        self.write = tally.backend.writer.submit_together
        self.context = tally.backend.context
        self.options = tally.backend.options
        self.schema = self.context.schema
        #: In how many parts a bitmap is.
        self.parts = len(self.schema.parts)

    def each(
        self,
        bitmaps: Sequence[_Named],
        query: Callable[[Sequence[bytes]], Query[list[AnswerT]]],
    ) -> list[list[AnswerT]]:
        """Ask each shard about its keys of some bitmaps; return the answers of each bitmap."""

        def asked(shard: Context) -> Query[list[AnswerT]]:
            return query([shard.schema.key(event, period) for event, period in bitmaps])

        if self.context.shards:
            every = self.ask(in_shards(self.context, asked))
        else:
            every = [self.ask(asked(self.context))]
        return [list(of_shards) for of_shards in zip(*every, strict=True)]

    def nodes(self) -> list[str]:
        """Return what the masters of a cluster are called; a single server has no name."""
        return self.ask(_nodes())

    def check_shards(self) -> None:
        """Raise if the tally has other shards than the database, or one of both has none."""
        if self.nodes() != [""]:  # a cluster, where all have shards
            return
        # A database with shards says so; one without, such as bitmapist's, says nothing.
        if self.ask(_has(self.schema.schema_key)) or self.schema.shards is None:
            return
        prefix = self.schema.prefix
        plain = replace(self.context, schema=KeySchema(prefix))
        bitmaps, _ = self.ask(every_bitmap(plain))
        if any(not event.startswith("{") for event, _ in bitmaps):
            raise WrongSchemaError(
                f"the database has bitmaps without shards for the prefix {prefix!r:.80}, and "
                f"this tally has shards={self.schema.shards}; pass shards=None, or another prefix"
            )


class _Mover:
    """One migration."""

    def __init__(self, source: SyncTally, target: SyncTally, exact: bool) -> None:
        for tally in (source, target):
            if not isinstance(tally, SyncTally):
                raise InvalidTypeError(f"migrate takes two SyncTally, got a {type(tally).__name__}")
            if tally.backend.options.reads_elsewhere:
                raise InvalidValueError(
                    "migrate reads from the primary, as a replica may be late; "
                    "pass tallies without read_from"
                )
        check_flag("exact", exact)
        self._source = _Side(source)
        self._target = _Side(target)
        self._exact = exact
        #: So many bytes of users are whole bytes in all shards of both.
        self._unit = math.lcm(self._source.parts, self._target.parts)
        self._scratch = uuid.uuid4().hex
        self._written = 0
        #: Bitmaps of a group that were not yet there as they should be.
        self._changed: set[_Named] = set()
        self._skipped: list[str] = []

    def run(self, progress: Callable[[Progress], object] | None) -> Migration:
        """Copy all."""
        began = time.monotonic()
        self._check_apart()
        self._source.check_shards()
        self._target.check_shards()
        named, temporary = self._source.ask(every_bitmap(self._source.context))
        found = sorted(named, key=lambda each: (each[0], str(each[1])))
        bitmaps = unchanged = users = empty = done = 0
        differing: dict[str, tuple[int, int]] = {}
        for group in _grouped(found, max(1, min(_GROUP, _GROUP_BYTES // self._unit))):
            self._changed = set()
            todo = first = self._described(group)
            for _ in range(_PASSES):
                self._copy(todo)
                again = self._described([one.named for one in todo])
                todo = [one for one in again if one.users != one.here]
                if not todo:
                    break
            differing |= {self._name(one.named): (one.users, one.here) for one in todo}
            full = [one for one in first if one.users]
            empty += len(first) - len(full)
            bitmaps += len(full)
            unchanged += sum(one.named not in self._changed for one in full)
            users += sum(one.users for one in full)
            done += len(group)
            if progress is not None:
                progress(Progress(done, len(found), users, time.monotonic() - began))
        return Migration(
            bitmaps,
            users,
            unchanged,
            self._written,
            differing,
            time.monotonic() - began,
            empty,
            tuple(self._skipped),
            tuple(sorted(map(self._name, temporary))),
        )

    def _check_apart(self) -> None:
        """Raise if one of the two would take keys of the other one for its own."""
        old, new = self._source.schema.prefix, self._target.schema.prefix
        if (old.startswith(new) or new.startswith(old)) and self._on_one_database():
            raise InvalidValueError(
                "on one database, neither prefix may begin with the other one, since keys of "
                f"the longer one would be events of the shorter one; got {old!r:.80} and "
                f"{new!r:.80}; copy to a prefix such as 'moved_', or to another database"
            )

    def _on_one_database(self) -> bool:
        """Tell whether both are on one database, whatever they call it."""
        source, target = self._source, self._target
        if source.context.origin.database == target.context.origin.database:
            return True
        old, new = source.nodes(), target.nodes()
        if old != [""] or new != [""]:
            return not set(old).isdisjoint(new)
        # One server may have several names: a key that one side makes shows it. It lies
        # below both prefixes, for users who may touch nothing else.
        longer = max(source.schema.prefix, target.schema.prefix, key=len)
        key = f"{longer}tmp:{self._scratch}:0".encode()
        target.ask(_put(key, time.time() + _PROBE_SECONDS))
        try:
            return source.ask(_has(key))
        finally:
            target.ask(unlinked([key]))

    def _name(self, named: _Named) -> str:
        """Return the key of a bitmap; with shards, without their tags."""
        return self._source.schema.key(*named).decode()

    def _described(self, group: Sequence[_Named]) -> list[_Bitmap]:
        """Look at some bitmaps on both sides, and leave out what are none in the old one.

        Raises:
            WrongKeyTypeError: the new one has keys of another type.
        """
        there = self._source.each(group, key_facts)
        here = self._target.each(group, key_facts)
        now = time.time()
        found = []
        for named, old, new in zip(group, there, here, strict=True):
            if not all(part.is_bitmap for part in old):
                self._skipped.append(self._name(named))
                continue
            for schema, part in zip(self._target.schema.parts, new, strict=True):
                if not part.is_bitmap:
                    raise WrongKeyTypeError(
                        f"{schema.key(*named).decode()!r:.80} of the new database is no string"
                    )
            size = max(part.size for part in old) * self._source.parts
            if self._exact:
                size = max(size, max(part.size for part in new) * self._target.parts)
            life = max((part.life for part in old if part.life is not None), default=math.inf)
            late = [part.life is not None and self._is_late(part.life, life) for part in new]
            found.append(
                _Bitmap(
                    named,
                    size,
                    sum(part.users for part in old),
                    sum(part.users for part in new),
                    [
                        now + (life if part.life is None or wrong else part.life)
                        for part, wrong in zip(new, late, strict=True)
                    ],
                    [shard for shard, wrong in enumerate(late) if wrong],
                )
            )
        return found

    def _is_late(self, here: float, there: float) -> bool:
        """Tell whether a bitmap of the new database is to get the end of the old one."""
        if math.inf in (here, there):
            return there < here  # an end that only the new one has is its own affair
        return there > here + 1 or (self._exact and here > there + 1)

    def _copy(self, bitmaps: Sequence[_Bitmap]) -> None:
        """Copy some bitmaps, part by part of all of them."""
        if not bitmaps:
            return
        # Writes nothing but the end of what is there.
        touch = Change(0, 0, b"\0", 1)
        self._write(
            [
                mark
                for one in bitmaps
                for shard in one.late
                for mark in self._marks(one, touch._replace(shard=shard), 0)
            ]
        )
        step = max(1, min(_GROUP_BYTES // len(bitmaps), _WINDOW) // self._unit) * self._unit
        for at in range(0, max(one.size for one in bitmaps), step):
            self._copy_part([one for one in bitmaps if one.size > at], at, step)

    def _copy_part(self, bitmaps: Sequence[_Bitmap], at: int, size: int) -> None:
        # In this order: who marks, marks the old database first.
        found = self._read(self._target, bitmaps, at, size)
        first = at // self._target.parts
        todo = [
            (one, Comparison(have, clear=self._exact))
            for one, have in zip(bitmaps, found, strict=True)
        ]
        for _ in range(_LOOKS):
            parts = self._read(self._source, [one for one, _ in todo], at, size)
            marks: list[Mark] = []
            changed = []
            for (one, comparison), old in zip(todo, parts, strict=True):
                wanted = resharded(old, self._target.parts)
                self._check_users(one, wanted, first)
                told = comparison.changes(wanted)
                for change in told:
                    marks += self._marks(one, change, first)
                if told:
                    self._changed.add(one.named)
                    changed.append((one, comparison))
            if not changed:
                return
            self._write(marks)
            todo = changed

    def _read(
        self, side: _Side, bitmaps: Sequence[_Bitmap], at: int, size: int
    ) -> list[list[bytes]]:
        """Return the bytes that each shard has of a part of some bitmaps."""
        first, count = at // side.parts, size // side.parts
        named = [one.named for one in bitmaps]
        return side.each(named, lambda keys: key_parts(keys, first, count))

    def _check_users(self, bitmap: _Bitmap, wanted: Sequence[bytes], first: int) -> None:
        """Raise if there is a user whom the new tally would not take."""
        for shard, (part, bits) in enumerate(zip(self._target.schema.parts, wanted, strict=True)):
            if bits and 8 * (first + len(bits)) > part.max_user_id + 1:
                last = 8 * (first + len(bits)) - 1
                byte = bits[-1]
                offset = last - ((byte & -byte).bit_length() - 1)
                user = offset * self._target.parts + shard
                if user > self._target.schema.max_user_id:
                    raise InvalidValueError(
                        f"{self._name(bitmap.named)!r:.80} has user {user}, and the new tally "
                        f"takes none above its max_user_id={self._target.schema.max_user_id}"
                    )

    def _write(self, marks: Sequence[Mark]) -> None:
        # On a cluster, each shard has transactions of its own.
        for some in _in_transactions(sorted(marks, key=lambda mark: mark.bitmaps.shard)):
            for result in self._target.write(some, None):
                if isinstance(result, TallymarkError):
                    raise result
                self._written += sum(cast("Counts", result).values())

    def _marks(self, bitmap: _Bitmap, change: Change, first: int) -> Iterator[Mark]:
        """Yield the marks that make a change of a part, whose first byte is given."""
        event, period = bitmap.named
        part = self._target.schema.parts[change.shard]
        bitmaps = Bitmaps(
            event,
            [Granularity.UNIQUE if period is None else period.granularity],
            [part.key(event, period)],
            [bitmap.ends[change.shard]],
            change.shard,
        )
        first += change.first
        if self._target.options.bitfield:
            name = f"{part.prefix}tmp:{self._scratch}"
            scratch = (f"{name}:1".encode(), f"{name}:2".encode())
            yield DenseMarks(bitmaps, first, change.bits, change.value, scratch)
            return
        # A server without scripts.
        ints = Ints()
        size = len(change.bits)
        offsets = list(
            itertools.chain.from_iterable(ints.ids(ints.load(change.bits, size), size, 8 * first))
        )
        for at in range(0, max(1, len(offsets)), _SPARSE):
            yield SparseMarks(bitmaps, offsets[at : at + _SPARSE], change.value)


def _nodes() -> Query[list[str]]:
    found: list[str] = yield ListNodes()
    return found


def _has(key: bytes) -> Query[bool]:
    """Tell whether there is a key."""
    (count,) = yield Request([(b"EXISTS", key)])
    return bool(count)


def _put(key: bytes, end: float) -> Query[None]:
    """Make a key that soon goes by itself."""
    commands = [(b"SETBIT", key, b"7", b"1"), (b"EXPIREAT", key, b"%d" % end)]
    yield Request(commands, atomic=True, changes=True)


def _grouped(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _in_transactions(marks: Iterable[Mark]) -> Iterator[list[Mark]]:
    """Yield marks in groups that are no more than a transaction should have."""
    size = 0
    group: list[Mark] = []
    for mark in marks:
        own = len(getattr(mark, "bits", b"")) + _AROUND_BITS
        if group and size + own > _TRANSACTION:
            yield group
            group, size = [], 0
        group.append(mark)
        size += own
    if group:
        yield group


#: `ps` shows the arguments of all processes to everybody on the machine.
_WHERE: Final = "or env:NAME or file:PATH, if a variable or a file has it, since ps shows arguments"


def _store(argument: str) -> StoreUrl:
    """Return the URL that an argument is, or that the variable or file has which it names."""
    kind, _, name = argument.partition(":")
    if kind == "env":
        found = os.environ.get(name)
        if found is None:
            raise argparse.ArgumentTypeError("there is no such environment variable")
        return StoreUrl(found)
    if kind == "file":
        try:
            return StoreUrl(Path(name).read_text("utf-8-sig").strip())
        except (OSError, ValueError) as error:
            problem = type(error).__name__
        raise argparse.ArgumentTypeError(f"the file cannot be read ({problem})")
    return StoreUrl(argument)


def _shards(text: str) -> int | None:
    """Return a number of shards as the command line has it."""
    try:
        return None if text == "none" else int(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError("a number or 'none'")


def _prefix(text: str) -> str:
    """Return a prefix as the command line has it; messages may show it."""
    if "://" in text:
        raise argparse.ArgumentTypeError("what keys begin with, not a URL")
    return text


def _parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what the arguments say, or exit.

    argparse's own messages repeat what is in the wrong place, which may be a URL with a
    password.
    """
    try:
        found, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        problem = "source and target are needed"
        if error.argument_name is not None:
            ours = isinstance(error.__context__, argparse.ArgumentTypeError)
            why = error.__context__ if ours else "no value, or one that it does not take"
            problem = f"argument {error.argument_name}: {why}"
        parser.error(problem)
    if rest:
        parser.error("there are too many arguments, or unknown ones")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Migrate as a program; return 0 if all was copied and all counts agree."""
    parser = argparse.ArgumentParser(
        prog="python -m tallymark.migrate",
        description="Copy a database into another one, with or without shards.",
        exit_on_error=False,
        allow_abbrev=False,  # argparse would show what it takes for an ambiguous one
    )
    parser.add_argument("source", type=_store, help="the URL of the old database; " + _WHERE)
    parser.add_argument(
        "target", type=_store, help="that of the new one, such as redis+cluster://host; " + _WHERE
    )
    parser.add_argument(
        "--source-shards",
        type=_shards,
        metavar="N",
        help="of the old one, or none (default: none, and 16 on a cluster)",
    )
    parser.add_argument(
        "--shards",
        type=_shards,
        default=16,
        metavar="N",
        help="of the new one, or none (default: 16)",
    )
    parser.add_argument(
        "--prefix", type=_prefix, default="trackist_", help="what the keys begin with"
    )
    parser.add_argument(
        "--target-prefix", type=_prefix, help="the same for the new one, if it is another"
    )
    parser.add_argument(
        "--exact", action="store_true", help="also clear what the old database has not"
    )
    parser.add_argument("--quiet", action="store_true", help="tell the result only")
    options = _parsed(parser, arguments)
    del arguments  # error reporters show the locals of frames
    prefix = options.prefix
    target_prefix = prefix if options.target_prefix is None else options.target_prefix

    def tell(now: Progress) -> None:
        rate = now.users / now.seconds if now.seconds else 0.0
        print(  # noqa: T201 - this is a program
            f"{now.bitmaps:,} of {now.total:,} bitmaps, {now.users:,} users, {rate:,.0f} a second",
            file=sys.stderr,
        )

    try:
        with (
            SyncTally.from_url(
                options.source, prefix=prefix, shards=options.source_shards, timeout=60
            ) as source,
            SyncTally.from_url(
                options.target, prefix=target_prefix, shards=options.shards, timeout=60
            ) as target,
        ):
            if options.shards is None and target.backend.context.shards:
                raise InvalidValueError("a cluster cannot do without shards")
            told = migrate(
                source, target, exact=options.exact, progress=None if options.quiet else tell
            )
    except WrongSchemaError as error:
        print(  # noqa: T201
            f"{type(error).__name__}: {error} (--source-shards N or none, --shards N or none)",
            file=sys.stderr,
        )
        return 2
    except TallymarkError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        return 2
    _tell_result(told)
    return 1 if told.differing or told.skipped else 0


def _tell_result(told: Migration) -> None:
    print(  # noqa: T201
        f"{told.bitmaps:,} bitmaps, {told.users:,} users, in {told.seconds:.1f} s: "
        f"{told.unchanged:,} were there already, {told.written:,} bits written, "
        f"{told.empty:,} others without users, {len(told.differing):,} differ"
    )
    for key, (there, here) in itertools.islice(told.differing.items(), 20):
        print(f"  {escaped(key)}: {there:,} users in the old database, {here:,} in the new one")  # noqa: T201
    for key in told.skipped[:20]:
        print(f"  {escaped(key)}: holds no bitmap, not copied")  # noqa: T201
    if told.temporary:
        print(  # noqa: T201
            f"  {len(told.temporary):,} keys look like results of bitmapist, such as "
            f"{shown(told.temporary[0])}: not copied"
        )


if __name__ == "__main__":
    sys.exit(main())
