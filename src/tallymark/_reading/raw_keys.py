"""Queries about bitmaps by their keys, in one place. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from ..errors import CommandError, WrongKeyTypeError
from .requests import Request, answered

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .._core.context import Context
    from .requests import Command, Query

__all__ = ["KeyFacts", "bitcount", "in_commands", "key_facts", "key_parts", "ranges", "unlinked"]


class KeyFacts(NamedTuple):
    """What there is under a key.

    Attributes:
        size: how many bytes the bitmap has; 0 if there is none.
        users: how many bits are set.
        life: how many seconds it still lives, ``math.inf`` if it stays; ``None`` if
            there is no such key.
        is_bitmap: whether it holds a string or nothing, and not another type.
    """

    size: int
    users: int
    life: float | None
    is_bitmap: bool = True


def key_facts(keys: Sequence[bytes]) -> Query[list[KeyFacts]]:
    """Return what there is under some keys."""
    sizes = yield Request([(b"STRLEN", key) for key in keys], tolerant=True)
    for size in sizes:
        if isinstance(size, CommandError) and not isinstance(size, WrongKeyTypeError):
            raise size
    strings = [key for key, size in zip(keys, sizes, strict=True) if isinstance(size, int)]
    counts = iter((yield Request([(b"BITCOUNT", key) for key in strings])) if strings else ())
    lives = iter((yield Request([(b"PTTL", key) for key in strings])) if strings else ())
    return [
        KeyFacts(size, next(counts), _seconds(next(lives)))
        if isinstance(size, int)
        else KeyFacts(0, 0, None, is_bitmap=False)
        for size in sizes
    ]


def _seconds(pttl: int) -> float | None:
    """Return what an answer to ``PTTL`` means."""
    if pttl >= 0:
        return pttl / 1000
    return math.inf if pttl == -1 else None


def key_parts(keys: Sequence[bytes], at: int, size: int) -> Query[list[bytes]]:
    """Return the same bytes of some bitmaps."""
    parts: list[bytes] = yield Request(ranges(keys, at, size), replies=bytes)
    return parts


def ranges(keys: Iterable[bytes], at: int, size: int) -> list[Command]:
    """Return the commands that fetch the same bytes of some bitmaps."""
    begin, end = b"%d" % at, b"%d" % (at + size - 1)
    return [(b"GETRANGE", key, begin, end) for key in keys]


def bitcount(key: bytes) -> Command:
    """Return the command that counts the users of a bitmap."""
    return (b"BITCOUNT", key)


def in_commands(context: Context, keys: Sequence[bytes]) -> list[Sequence[bytes]]:
    """Return the keys of each command that changes some bitmaps.

    That is one command for all of them, or with shards one for each, since a cluster may
    be moving some of them.
    """
    return [keys] if context.schema.shards is None else [[key] for key in keys]


def unlinked(context: Context, keys: Sequence[bytes]) -> Query[list[int]]:
    """Delete some keys of a shard; return how many there were, of each `in_commands`."""
    commands = [(b"UNLINK", *some) for some in in_commands(context, keys)]
    return (yield from answered(Request(commands, changes=True)))
