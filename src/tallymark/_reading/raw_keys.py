"""Commands and queries on bitmaps that are given by their keys, all in one shard. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from ..errors import CommandError, WrongKeyTypeError
from .requests import Checkpoint, Request, check_replies, send

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .._core.context import Context
    from .requests import Command, Query

__all__ = [
    "KeyFacts",
    "bitcount",
    "command_groups",
    "deletion_steps",
    "expiry_times",
    "getrange_commands",
    "key_facts",
    "key_parts",
    "unlink",
    "unlink_sized",
    "usages",
]


#: How many keys one request is about.
_STEP: Final = 1000

#: How many bytes of bitmaps, and how many of them, one request deletes. Redis frees strings in its
#: main thread, also for ``UNLINK``: 400 of 1.25 MB take 60 ms in one command, and 1 to 3 ms in each
#: of 34.
_DELETED_BYTES: Final = 16 * 1024**2
_DELETED_KEYS: Final = 100


class KeyFacts(NamedTuple):
    """The type, size and time to live of a key.

    Attributes:
        size: the length of the bitmap in bytes; 0 if there is none.
        users: how many bits are set.
        ttl: the time to live in seconds, ``math.inf`` if the key never expires; ``None`` if
            there is no such key.
        is_bitmap: False if the key holds another type than a string.
    """

    size: int
    users: int
    ttl: float | None
    is_bitmap: bool = True


def key_facts(keys: Sequence[bytes]) -> Query[list[KeyFacts]]:
    """Return the type, size and time to live of some keys."""
    sizes = yield Request([(b"STRLEN", key) for key in keys], tolerant=True)
    check_replies(sizes, (WrongKeyTypeError,))
    strings = [key for key, size in zip(keys, sizes, strict=True) if isinstance(size, int)]
    counts = iter((yield Request([(b"BITCOUNT", key) for key in strings])) if strings else ())
    ttls = iter((yield Request([(b"PTTL", key) for key in strings])) if strings else ())
    return [
        KeyFacts(size, next(counts), _seconds(next(ttls)))
        if isinstance(size, int)
        else KeyFacts(0, 0, None, is_bitmap=False)
        for size in sizes
    ]


def _seconds(pttl: int) -> float | None:
    """Return a reply to ``PTTL`` as a `KeyFacts.ttl`."""
    if pttl >= 0:
        return pttl / 1000
    return math.inf if pttl == -1 else None


def expiry_times(keys: Sequence[bytes]) -> Query[tuple[float, dict[bytes, int | None]]]:
    """Return the present, and when each key expires, in seconds since 1970; ``None`` for never.

    Keys that do not exist any more are left out. Both by the clock of the server, which is that
    of ``PTTL``. An expiry is rounded, since the server takes some time between two commands: one
    in whole seconds, as tallymark sets it, is exact.
    """
    commands: list[Command] = [(b"TIME",), *((b"PTTL", key) for key in keys)]
    replies = yield Request(commands, tolerant=True, changes=True)
    check_replies(replies)
    (seconds, microseconds), *ttls = replies
    now = int(seconds) + int(microseconds) / 1e6
    times = {
        key: None if ttl == -1 else round(now + ttl / 1000)
        for key, ttl in zip(keys, ttls, strict=True)
        if ttl != -2  # the key has expired, or was deleted
    }
    return now, times


def usages(keys: Sequence[bytes], *, changes: bool = False) -> Query[list[int | None]]:
    """Return how many bytes each key takes; ``None`` if it does not exist any more.

    Arguments:
        keys: the keys.
        changes: whether the keys will be changed, and so are not looked up on a replica.
    """
    found: list[int | None] = []
    for at in range(0, len(keys), _STEP):
        part = keys[at : at + _STEP]
        commands: list[Command] = [(b"MEMORY", b"USAGE", key) for key in part]
        replies = yield Request(commands, tolerant=True, changes=changes)
        if any(isinstance(reply, CommandError) for reply in replies):
            # The server has no MEMORY USAGE, such as the embedded store: without overhead, and
            # only for strings.
            commands = [(b"STRLEN", key) for key in part]
            sizes = yield Request(commands, tolerant=True, changes=changes)
            check_replies(sizes, (WrongKeyTypeError,))
            replies = [0 if isinstance(size, CommandError) else size or None for size in sizes]
        found += replies
    return found


def key_parts(keys: Sequence[bytes], at: int, size: int) -> Query[list[bytes]]:
    """Return the same range of bytes of some bitmaps.

    Arguments:
        keys: the keys of the bitmaps.
        at: the index of the first byte.
        size: the length in bytes; the result is shorter at the end of a bitmap.
    """
    parts: list[bytes] = yield Request(getrange_commands(keys, at, size), replies=bytes)
    return parts


def getrange_commands(keys: Iterable[bytes], at: int, size: int) -> list[Command]:
    """Return the commands that fetch the same bytes of some bitmaps. Arguments as `key_parts`."""
    begin, end = b"%d" % at, b"%d" % (at + size - 1)
    return [(b"GETRANGE", key, begin, end) for key in keys]


def bitcount(key: bytes) -> Command:
    """Return the command that counts the users of a bitmap."""
    return (b"BITCOUNT", key)


def command_groups(context: Context, keys: Sequence[bytes]) -> list[Sequence[bytes]]:
    """Return keys in groups that one command may change together.

    That is one group for a plain database. With shards, each key is a group of its own,
    since a cluster may be migrating a slot, and then the keys of a slot are on two nodes.
    """
    return [keys] if context.schema.shards is None else [[key] for key in keys]


def unlink(context: Context, keys: Sequence[bytes]) -> Query[list[int]]:
    """Delete keys of a shard, in steps that do not hold up Redis.

    Returns:
        How many keys existed, in numbers for some consecutive keys each; with shards, a number
        for each key.
    """
    sizes = (yield from usages(keys, changes=True)) if len(keys) > 1 else [0]
    # A key that does not exist yet may exist in a moment.
    return (yield from unlink_sized(context, keys, [size or 0 for size in sizes]))


def unlink_sized(context: Context, keys: Sequence[bytes], sizes: Sequence[int]) -> Query[list[int]]:
    """Delete keys as `unlink`, of which the numbers of bytes are known."""
    existed: list[int] = []
    for step in deletion_steps(keys, sizes):
        commands = [(b"UNLINK", *group) for group in command_groups(context, step)]
        existed += yield from send(Request(commands, changes=True))
        yield Checkpoint()
    return existed


def deletion_steps(keys: Sequence[bytes], sizes: Sequence[int]) -> Iterable[list[bytes]]:
    """Yield keys in groups that Redis deletes without a long pause."""
    step: list[bytes] = []
    size = 0
    for key, of_key in zip(keys, sizes, strict=True):
        if step and (len(step) == _DELETED_KEYS or size + of_key > _DELETED_BYTES):
            yield step
            step, size = [], 0
        step.append(key)
        size += of_key
    if step:
        yield step
