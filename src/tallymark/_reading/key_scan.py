"""Scans of the keyspace: all bitmaps of a tally, or its dictionary, as ``SCAN`` finds them. Pure.

Redis has no index of keys, so a scan examines all keys of the database, a thousand at a time,
which does not block the server as ``KEYS`` would. It finds every bitmap that exists from its
start to its end. A bitmap that is created or deleted in between may or may not be found.

A cursor is valid on one server, until that restarts. So if another process answers for a node at
the end than at the beginning, after a restart or a failover, the scan begins again. It also does
so if slots of a cluster have got another node meanwhile: then its configuration has another epoch.

A key does not say where its prefix ends: ``tenant1_eu_active_u`` is the flag ``active`` with
the prefix ``tenant1_eu_``, and the flag ``eu_active`` with the prefix ``tenant1_``. So if one
prefix begins with another one, a scan with the shorter one finds the bitmaps of both.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from .._core.keys import results_of_bitmapist, scan_pattern
from .._core.periods import Granularity
from ..errors import InvalidValueError
from .fanout import gather
from .requests import Checkpoint, ListNodes, Request, in_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .._core.context import Context
    from .._core.periods import Period
    from .._core.user_ids import Dictionary
    from .requests import Command, Query

__all__ = [
    "DictionaryScan",
    "FoundBitmap",
    "FoundPart",
    "KeyScan",
    "query_by_shard",
    "scan_of_event",
]

#: The id of a process in the reply to ``INFO``.
_RUN_ID: Final = re.compile(rb"^run_id:(\w+)", re.MULTILINE)

#: The epoch in the reply to ``CLUSTER INFO``.
_EPOCH: Final = re.compile(rb"^cluster_current_epoch:(\d+)", re.MULTILINE)

#: How many keys one ``SCAN`` examines.
_STEP: Final = 1000


AnswerT = TypeVar("AnswerT")


class FoundBitmap(NamedTuple):
    """A bitmap that a scan has found.

    Attributes:
        key: its key.
        shard: the number of its shard.
        event, period: its event and period; the period of a flag is ``None``.
    """

    key: bytes
    shard: int
    event: str
    period: Period | None

    @property
    def granularity(self) -> Granularity:
        """The granularity of the period; UNIQUE for a flag."""
        return Granularity.UNIQUE if self.period is None else self.period.granularity


class FoundPart(NamedTuple):
    """A part of a dictionary of user ids that a scan has found.

    Attributes:
        key: its key.
        shard: the number of its shard.
        kind: ``"f"`` for a forward bucket, ``"r"`` for a reverse block.
        number: the number of the bucket or block.
    """

    key: bytes
    shard: int
    kind: str
    number: int


class _Scan:
    """A scan of all keys of the database.

    Attributes:
        has_more: whether the scan is incomplete.
    """

    def __init__(self, context: Context, pattern: bytes, *, changes: bool) -> None:
        """Start a scan.

        Arguments:
            context: the database.
            pattern: the pattern of the keys.
            changes: whether the keys will be changed, and so are not looked up on a replica,
                which may not have the newest ones yet.
        """
        self._context = context
        self._pattern = pattern
        self._changes = changes
        #: The cursor on each node; ``None`` until the nodes are known.
        self._cursors: dict[str, Any] | None = None
        #: Replicas may answer in turn, so their identities say nothing.
        self._checks_identity = changes or not context.options.reads_elsewhere
        #: Which process answers for each node.
        self._identities: dict[str, Any] = {}
        self.has_more = True

    def _next_keys(self) -> Query[Iterable[bytes]]:
        """Send one ``SCAN`` to every node; return the keys."""
        keys: list[bytes] = []
        if self._cursors is None:
            self._identities = yield from self._identify()
            self._cursors = dict.fromkeys(self._identities, b"0")
        nodes = list(self._cursors)
        scans = ((node, self._scan(self._cursors[node])) for node in nodes)
        replies = yield from gather(self._context, scans)
        for node, (cursor, keys_of_node) in zip(nodes, replies, strict=True):
            keys += keys_of_node
            if cursor in {b"0", 0}:
                del self._cursors[node]
            else:
                self._cursors[node] = cursor
        if not self._cursors:
            if (yield from self._identify()) == self._identities:
                self.has_more = False
            else:
                self._cursors = None
        # Without repetitions: while a slot is migrating, two nodes may return the same key.
        return dict.fromkeys(keys)

    def _identify(self) -> Query[dict[str, Any]]:
        """Return each node, with the id of the process that answers for it, if that is known."""
        nodes: list[str] = yield ListNodes()
        if not self._checks_identity:
            return dict.fromkeys(nodes)
        queries = [(node, _identity(self._changes, is_node=node != "")) for node in nodes]
        return dict(zip(nodes, (yield from gather(self._context, queries)), strict=True))

    def _scan(self, cursor: Any) -> Query[tuple[Any, list[bytes]]]:
        scan = (b"SCAN", cursor, b"MATCH", self._pattern, b"COUNT", b"%d" % _STEP)
        ((next_cursor, keys),) = yield Request([scan], replies=list, changes=self._changes)
        return next_cursor, keys


class KeyScan(_Scan):
    """A scan of all keys of the database for the tally's bitmaps."""

    def __init__(
        self,
        context: Context,
        event_prefix: str = "",
        *,
        shard: int | None = None,
        with_temporary: bool = False,
        changes: bool = False,
    ) -> None:
        """Start a scan.

        Arguments:
            context: the database.
            event_prefix: the first characters of the events' names.
            shard: the number of the shard to scan; ``None`` for all shards.
            with_temporary: whether to include the results that bitmapist computes and leaves.
            changes: whether the bitmaps will be changed, and so are not looked up on a
                replica, which may not have the newest ones yet.
        """
        super().__init__(
            context, scan_pattern(context.schema, event_prefix, shard), changes=changes
        )
        self._schema = context.schema
        self._temporary = results_of_bitmapist(context.origin.prefix)
        self._with_temporary = with_temporary

    def next(self) -> Query[list[FoundBitmap]]:
        """Send one ``SCAN`` to every node; return the bitmaps among the keys."""
        keys = yield from self._next_keys()
        parsed = yield from in_steps(map(self._parse, keys))
        return [bitmap for bitmap in parsed if bitmap is not None]

    def is_temporary(self, key: bytes) -> bool:
        """Return whether a key looks like that of a result of bitmapist."""
        return self._temporary.match(key) is not None

    def _parse(self, key: bytes) -> FoundBitmap | None:
        """Return the bitmap of a key; ``None`` for other keys."""
        if not self._with_temporary and self.is_temporary(key):
            return None
        try:
            shard, event, period = self._schema.located(key)
        except InvalidValueError:
            return None
        return FoundBitmap(key, shard, event, period)


class DictionaryScan(_Scan):
    """A scan of all keys of the database for the buckets and blocks of its dictionary."""

    def __init__(self, context: Context, dictionary: Dictionary) -> None:
        """Start a scan."""
        super().__init__(context, scan_pattern(context.schema, "ids:", None), changes=True)
        self._dictionary = dictionary

    def next(self) -> Query[list[FoundPart]]:
        """Send one ``SCAN`` to every node; return the buckets and blocks among the keys."""
        keys = yield from self._next_keys()
        located = yield from in_steps(map(self._located, keys))
        return [part for part in located if part is not None]

    def _located(self, key: bytes) -> FoundPart | None:
        part = self._dictionary.part(key)
        return None if part is None else FoundPart(key, *part)


def scan_of_event(context: Context, event: str, *, changes: bool = False) -> KeyScan:
    """Return a scan that finds the bitmaps of an event, and of some others.

    "a" has the keys "a_u" and "a_2026", and "a_b_u" is a key of "a_b". Temporary keys are
    included, since the event's name may look like that of a result of bitmapist.
    """
    return KeyScan(context, event + "_", with_temporary=True, changes=changes)


def query_by_shard(
    context: Context,
    bitmaps: Iterable[FoundBitmap],
    query: Callable[[Sequence[FoundBitmap]], Query[AnswerT]],
) -> Query[list[tuple[Sequence[FoundBitmap], AnswerT]]]:
    """Run a query on the bitmaps of each shard; return these bitmaps and the result for each."""
    by_shard: dict[int, list[FoundBitmap]] = {}
    iterator = iter(bitmaps)
    while chunk := list(itertools.islice(iterator, _STEP)):
        for bitmap in chunk:
            by_shard.setdefault(bitmap.shard, []).append(bitmap)
        yield Checkpoint()
    queries = ((shard, query(in_shard)) for shard, in_shard in by_shard.items())
    results = yield from gather(context, queries)
    return list(zip(by_shard.values(), results, strict=True))


def _identity(changes: bool, *, is_node: bool) -> Query[list[Any]]:
    """Return what identifies the process of a server; ``None`` for what is unknown, or denied.

    That is its random id, and the epoch of the configuration of its cluster.

    Arguments:
        changes: as for `Request`.
        is_node: whether it is a node of a cluster.
    """
    commands: list[Command] = [(b"INFO", b"server")]
    if is_node:
        commands.append((b"CLUSTER", b"INFO"))
    replies = yield Request(commands, tolerant=True, changes=changes)
    found = [
        pattern.search(reply) if isinstance(reply, bytes) else None
        for pattern, reply in zip((_RUN_ID, _EPOCH), replies, strict=False)
    ]
    return [match and match[1] for match in found]
