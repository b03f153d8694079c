"""The source and the target of a migration, each through the backend of a blocking tally."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .._core.untrusted import shown
from .._reading.fanout import each_shard
from .._reading.raw_keys import unlink
from .._reading.requests import ListNodes, Request
from .._reading.schema_check import check_schema
from .._sync.tally import SyncTally
from ..errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._core.context import Context
    from .._core.periods import Period
    from .._reading.requests import Query

__all__ = ["BitmapName", "Database", "check_disjoint", "check_user_ids"]

AnswerT = TypeVar("AnswerT")

#: The event and the period of a bitmap; the period of a dateless bitmap is ``None``.
BitmapName = tuple[str, "Period | None"]

#: A probe key that a killed migration has left expires after this many seconds, since the
#: clocks of client and server may differ.
_PROBE_SECONDS: Final = 3600


class Database:
    """The source or the target of a migration.

    Attributes:
        tally: the tally.
        answer: runs a query and returns its result.
        submit: writes marks, in one transaction or in one for each shard.
        context, options, schema: those of the tally.
        shards: the number of shards; a database without shards counts as one.
    """

    def __init__(self, tally: SyncTally[Any]) -> None:
        """Take the backend of a tally.

        Raises:
            InvalidTypeError: it is no `SyncTally`.
            InvalidValueError: the tally has the option ``read_from``.
        """
        if not isinstance(tally, SyncTally):
            raise InvalidTypeError(f"migrate takes two SyncTally, got a {type(tally).__name__}")
        backend = tally.backend
        if backend.options.reads_elsewhere:
            raise InvalidValueError(
                "migrate reads from the primary, as a replica may be late; "
                "pass tallies without read_from"
            )
        self.tally = tally
        self.answer = backend.reader.answer
        self.submit = backend.writer.submit_together
        self.context = backend.context
        self.options = backend.options
        self.schema = self.context.schema
        self.shards = len(self.schema.parts)

    def answer_by_bitmap(
        self,
        names: Sequence[BitmapName],
        query: Callable[[Sequence[bytes]], Query[list[AnswerT]]],
    ) -> list[list[AnswerT]]:
        """Run a query on the keys of some bitmaps, in each shard.

        Arguments:
            names: the bitmaps.
            query: takes the keys of one shard, and returns an answer for each key.

        Returns:
            A list for each bitmap, with the answer of each shard.
        """

        def query_shard(shard: Context) -> Query[list[AnswerT]]:
            return query([shard.schema.key(event, period) for event, period in names])

        by_shard = self.answer(each_shard(self.context, query_shard))
        return [list(answers) for answers in zip(*by_shard, strict=True)]

    def nodes(self) -> list[str]:
        """Return the names of the masters of a cluster; the name of a single server is empty."""
        return self.answer(_list_nodes())

    def check_schema(self) -> None:
        """Check that the number of shards and the user ids are those of the database.

        Raises:
            WrongSchemaError: they are not.
        """
        if self.nodes() == [""]:
            self.answer(_exists(self.schema.schema_key))  # the first command compares the schemas
        self.answer(check_schema(self.context))


def check_user_ids(source: Database, target: Database, *, with_pairs: bool) -> None:
    """Check that users of one database can be users of the other.

    Arguments:
        source, target: the databases.
        with_pairs: whether there are pairs of numbers and ids.

    Raises:
        InvalidValueError: they cannot.
    """
    old, new = source.schema.user_ids, target.schema.user_ids
    if old is not None and new is None:
        raise InvalidValueError(
            "the old tally has user_ids, so the new one needs them too: migrate does not "
            "replace ids by numbers"
        )
    if old is not None and old is not new:
        raise InvalidValueError(
            f"both tallies need user_ids of the same type, got {shown(old)} and {shown(new)}"
        )
    if (old is None and new is not None) != with_pairs:
        raise InvalidValueError(
            "ids are for an old tally without user_ids and a new one with them"
            if with_pairs
            else "the new tally has user_ids and the old one has none, so migrate needs ids: "
            "which number is which id"
        )


def check_disjoint(source: Database, target: Database, tag: str) -> None:
    """Check that no key of one database is an event of the other.

    Arguments:
        source, target: the databases.
        tag: a random part for the name of a temporary key.

    Raises:
        InvalidValueError: both are one database, and one prefix begins with the other.
    """
    old, new = source.schema.prefix, target.schema.prefix
    if (old.startswith(new) or new.startswith(old)) and _are_same(source, target, tag):
        raise InvalidValueError(
            "on one database, neither prefix may begin with the other one, since keys of "
            f"the longer one would be events of the shorter one; got {old!r:.80} and "
            f"{new!r:.80}; copy to a prefix such as 'moved_', or to another database"
        )


def _are_same(source: Database, target: Database, tag: str) -> bool:
    """Return whether both are one database, also under different host names."""
    if source.context.origin.database == target.context.origin.database:
        return True
    source_nodes, target_nodes = source.nodes(), target.nodes()
    if source_nodes != [""] or target_nodes != [""]:
        return not set(source_nodes).isdisjoint(target_nodes)
    # One server may have several names, so write a key on one side and look for it on the
    # other. Its name begins with both prefixes, for users whose ACL allows no other keys.
    longer = max(source.schema.prefix, target.schema.prefix, key=len)
    key = f"{longer}tmp:{tag}:0".encode()
    target.answer(_set_probe(key, time.time() + _PROBE_SECONDS))
    try:
        return source.answer(_exists(key))
    finally:
        target.answer(unlink(target.context, [key]))


def _list_nodes() -> Query[list[str]]:
    nodes: list[str] = yield ListNodes()
    return nodes


def _exists(key: bytes) -> Query[bool]:
    """Return whether a key exists."""
    (count,) = yield Request([(b"EXISTS", key)])
    return bool(count)


def _set_probe(key: bytes, expires_at: float) -> Query[None]:
    """Write a key that expires, at a time in seconds since 1970."""
    commands = [(b"SETBIT", key, b"7", b"1"), (b"EXPIREAT", key, b"%d" % expires_at)]
    yield Request(commands, atomic=True, changes=True)
