"""A sample of the keys of a database, and what its bitmaps are like. Pure.

Redis returns keys in the order of their hashes, so the first ones are a sample of all. It is
bounded: on each server, `_SCANS` commands that examine a thousand keys each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..._core.keys import KeySchema, results_of_bitmapist
from ..._reading.fanout import gather
from ..._reading.key_scan import FoundBitmap, query_by_shard
from ..._reading.requests import Checkpoint, ListNodes, Request, in_steps
from ...errors import CommandError, InvalidValueError, WrongKeyTypeError
from .servers import Unknown, refusal_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..._core.context import Context
    from ..._reading.requests import Command, Query

__all__ = ["Sample", "SampledBitmap", "take_sample"]

#: How many ``SCAN`` one server gets at most, and how many keys each examines.
_SCANS: Final = 100
_STEP: Final = 1000

#: How many bitmaps are looked at.
_BITMAPS: Final = 2000

#: How many names of events are compared, to find other prefixes.
_EVENTS: Final = 500

#: How many keys are examined between two checkpoints.
_KEYS: Final = 500

#: How many keys one request is about.
_LOOK_UPS: Final = 200

#: Bits are counted in as many parts of a bitmap, of as many bytes; in all of a shorter one.
_WINDOWS: Final = 8
_WINDOW: Final = 8192

#: The ends of keys that show where a prefix ends: see `KeySchema` and `Dictionary`.
_MARKERS: Final = (b"schema", b"ids:stamp")


class SampledBitmap(NamedTuple):
    """A bitmap of the sample.

    Attributes:
        found: its key, event and period.
        kind: the type of the key, such as ``"string"``; empty if the server does not tell.
        size: its length in bytes; 0 if it is no string.
        users: how many bits are set; estimated for a long one.
        expires: when it expires, in seconds since 1970, by our clock; ``math.inf`` for never,
            ``None`` if it is not known.
    """

    found: FoundBitmap
    kind: str
    size: int = 0
    users: int = 0
    expires: float | None = None


@dataclass
class Sample:
    """What was found among the keys that were examined.

    Attributes:
        keys: how many keys were examined, also those of other programs.
        complete: whether these were all keys.
        found: how many bitmaps of the tally were among them.
        bitmaps: some of these.
        events: the names of their events, not more than `_EVENTS`.
        results: how many results of bitmapist there are.
        temporary: temporary keys of tallymark.
        endless: those of them that do not expire.
        markers: prefixes of other tallies, from keys that only a tally writes.
        shorter: by the beginnings of the tally's prefix, the events of the tally that also
            have a bitmap with this beginning as the prefix.
        shards: the shards of the bitmaps.
        unsharded: how many bitmaps have no tag of a shard, if those of the tally have.
        tagged: how many bitmaps have the tag of a shard that the tally does not have.
        refused: why something is not known, by the name of the command.
    """

    keys: int = 0
    complete: bool = False
    found: int = 0
    bitmaps: list[SampledBitmap] = field(default_factory=list)
    events: set[str] = field(default_factory=set)
    results: int = 0
    temporary: list[bytes] = field(default_factory=list)
    endless: list[bytes] = field(default_factory=list)
    markers: set[str] = field(default_factory=set)
    shorter: dict[str, set[str]] = field(default_factory=dict)
    shards: set[int] = field(default_factory=set)
    unsharded: int = 0
    tagged: int = 0
    refused: dict[str, CommandError] = field(default_factory=dict)


def take_sample(context: Context) -> Query[Sample]:
    """Return a sample of the keys.

    Raises:
        Unknown: the server refuses ``SCAN``.
    """
    reader = _Reader(context)
    nodes: list[str] = yield ListNodes()
    cursors: dict[str, Any] = dict.fromkeys(nodes, b"0")
    for _ in range(_SCANS):
        scans = [(node, _scan(cursor)) for node, cursor in cursors.items()]
        pages = yield from gather(context, scans)
        for node, (cursor, keys) in zip(list(cursors), pages, strict=True):
            yield from in_steps(map(reader.read, keys), _KEYS)
            cursors[node] = cursor
            if cursor in {b"0", 0}:
                del cursors[node]
        if not cursors:
            reader.sample.complete = True
            break
    sample = reader.sample
    yield from in_steps(map(reader.compare, reader.others), _KEYS)
    yield from query_by_shard(
        context, reader.bitmaps, lambda found: _look_up(context, sample, found)
    )
    yield from _find_endless(context, sample)
    return sample


def _scan(cursor: Any) -> Query[tuple[Any, list[bytes]]]:
    scan = (b"SCAN", cursor, b"COUNT", b"%d" % _STEP)
    (reply,) = yield Request([scan], tolerant=True, changes=True)
    if isinstance(reply, CommandError):
        raise Unknown(refusal_text("SCAN", reply))
    next_cursor, keys = reply
    return next_cursor, keys


class _Reader:
    """Sorts keys.

    Attributes:
        sample: what was found.
        bitmaps: the bitmaps to look at.
        others: keys without the prefix that begin as it does.
    """

    def __init__(self, context: Context) -> None:
        self.sample = Sample()
        self.bitmaps: list[FoundBitmap] = []
        self.others: list[str] = []
        self._schema = context.schema
        self._prefix = context.schema.prefix.encode()
        #: The schema of bitmaps without shards.
        self._plain = KeySchema(context.schema.prefix)
        self._own = {part.prefix.encode() + b"tmp:" for part in context.schema.parts}
        self._results = results_of_bitmapist(context.schema.prefix)

    def read(self, key: bytes) -> None:
        """Add a key to the sample."""
        sample = self.sample
        sample.keys += 1
        self._find_marker(key)
        if not key.startswith(self._prefix):
            if key[:1] == self._prefix[:1] and len(self.others) < _BITMAPS * 10:
                self.others.append(key.decode(errors="replace"))
            return
        if self._results.match(key):
            sample.results += 1
            return
        if any(map(key.startswith, self._own)):
            sample.temporary.append(key)
            return
        try:
            shard, event, period = self._schema.located(key)
        except InvalidValueError:
            if self._schema.shards is not None:
                self._read_other(key)
            return
        sample.found += 1
        sample.shards.add(shard)
        if self._schema.shards is None and event.startswith("{"):
            sample.tagged += 1
        if len(sample.events) < _EVENTS:
            sample.events.add(event)
        if len(self.bitmaps) < _BITMAPS:
            self.bitmaps.append(FoundBitmap(key, shard, event, period))

    def _read_other(self, key: bytes) -> None:
        """Add a key to the sample that is of no shard of the tally."""
        try:
            event, _ = self._plain.parse(key)
        except InvalidValueError:
            return
        if event.startswith("{"):
            self.sample.tagged += 1
        else:
            self.sample.unsharded += 1

    def _find_marker(self, key: bytes) -> None:
        for marker in _MARKERS:
            if key.endswith(marker):
                other = key[: -len(marker)].partition(b"{")[0].decode(errors="replace")
                if other not in {"", self._schema.prefix} and len(self.sample.markers) < _BITMAPS:
                    self.sample.markers.add(other)

    def compare(self, key: str) -> None:
        """Find out if a key without the prefix is that of an event with a shorter prefix."""
        prefix = self._schema.prefix
        name, _, suffix = key.rpartition("_")
        for length in range(1, len(prefix)):
            if not name.startswith(prefix[:length]):
                return
            if suffix and name[length:] in self.sample.events:
                self.sample.shorter.setdefault(prefix[:length], set()).add(name[length:])


def _look_up(context: Context, sample: Sample, bitmaps: Sequence[FoundBitmap]) -> Query[None]:
    """Look at the bitmaps of a shard."""
    for at in range(0, len(bitmaps), _LOOK_UPS):
        part = bitmaps[at : at + _LOOK_UPS]
        keys = [bitmap.key for bitmap in part]
        kinds = yield from _ask(sample, [(b"TYPE", key) for key in keys])
        sizes = yield from _ask(sample, [(b"STRLEN", key) for key in keys])
        pttls = yield from _ask(sample, [(b"PTTL", key) for key in keys])
        now = context.clock()
        counts = {key: size for key, size in zip(keys, sizes, strict=True) if isinstance(size, int)}
        users = yield from _count(sample, counts)
        for bitmap, kind, size, pttl in zip(part, kinds, sizes, pttls, strict=True):
            if size == 0 or pttl == -2:
                continue
            name = kind.decode() if isinstance(kind, bytes) else ""
            if not name and isinstance(size, WrongKeyTypeError):
                name = "other"
            sample.bitmaps.append(
                SampledBitmap(
                    bitmap,
                    name,
                    size if isinstance(size, int) else 0,
                    users.get(bitmap.key, 0),
                    _expires(pttl, now),
                )
            )
        yield Checkpoint()


def _expires(pttl: Any, now: float) -> float | None:
    """Return a reply to ``PTTL`` as a `SampledBitmap.expires`."""
    if not isinstance(pttl, int):
        return None
    return math.inf if pttl == -1 else now + pttl / 1000


def _count(sample: Sample, sizes: Mapping[bytes, int]) -> Query[dict[bytes, int]]:
    """Return how many bits bitmaps have, by key."""
    commands: list[Command] = []
    owners: list[tuple[bytes, int]] = []
    for key, size in sizes.items():
        if size <= _WINDOWS * _WINDOW:
            commands.append((b"BITCOUNT", key))
            owners.append((key, size))
            continue
        for window in range(_WINDOWS):
            begin = (size - _WINDOW) * window // (_WINDOWS - 1)
            commands.append((b"BITCOUNT", key, b"%d" % begin, b"%d" % (begin + _WINDOW - 1)))
            owners.append((key, _WINDOW))
    bits: dict[bytes, int] = dict.fromkeys(sizes, 0)
    counted: dict[bytes, int] = dict.fromkeys(sizes, 0)
    for at in range(0, len(commands), _LOOK_UPS):
        replies = yield from _ask(sample, commands[at : at + _LOOK_UPS])
        for (key, size), reply in zip(owners[at:], replies, strict=False):
            if isinstance(reply, int):
                bits[key] += reply
                counted[key] += size
    return {key: bits[key] * size // counted[key] for key, size in sizes.items() if counted[key]}


def _find_endless(context: Context, sample: Sample) -> Query[None]:
    """Find the temporary keys of tallymark that do not expire; those in use do."""
    by_shard: dict[int, list[bytes]] = {}
    prefixes = [part.prefix.encode() for part in context.schema.parts]
    for key in sample.temporary[:_BITMAPS]:
        shard = next(at for at, prefix in enumerate(prefixes) if key.startswith(prefix))
        by_shard.setdefault(shard, []).append(key)

    def find(keys: Sequence[bytes]) -> Query[None]:
        pttls = yield from _ask(sample, [(b"PTTL", key) for key in keys])
        sample.endless += [key for key, pttl in zip(keys, pttls, strict=True) if pttl == -1]

    yield from gather(context, ((shard, find(keys)) for shard, keys in by_shard.items()))


def _ask(sample: Sample, commands: Iterable[Command]) -> Query[list[Any]]:
    """Send commands that read; return the replies, and note why one was refused."""
    sent = list(commands)
    if not sent:
        return []
    replies: list[Any] = yield Request(sent, tolerant=True, changes=True)
    for command, reply in zip(sent, replies, strict=True):
        if isinstance(reply, CommandError) and not isinstance(reply, WrongKeyTypeError):
            sample.refused.setdefault(command[0].decode(), reply)
    return replies
