"""Queries about bitmaps by their keys, in one place. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .requests import Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .requests import Command, Query

__all__ = ["key_counts", "key_lives", "key_parts", "ranges", "unlinked"]


def key_counts(keys: Sequence[bytes]) -> Query[tuple[list[int], list[int]]]:
    """Return how many bytes, and how many users, some bitmaps have."""
    sizes = yield Request([(b"STRLEN", key) for key in keys])
    counts = yield Request([(b"BITCOUNT", key) for key in keys])
    return sizes, counts


def key_lives(keys: Sequence[bytes]) -> Query[list[float]]:
    """Return how many seconds some bitmaps still live; ``math.inf`` for those that stay."""
    replies = yield Request([(b"PTTL", key) for key in keys])
    return [reply / 1000 if reply >= 0 else math.inf for reply in replies]


def key_parts(keys: Sequence[bytes], at: int, size: int) -> Query[list[bytes]]:
    """Return the same bytes of some bitmaps."""
    parts: list[bytes] = yield Request(ranges(keys, at, size), replies=bytes)
    return parts


def ranges(keys: Iterable[bytes], at: int, size: int) -> list[Command]:
    """Return the commands that fetch the same bytes of some bitmaps."""
    begin, end = b"%d" % at, b"%d" % (at + size - 1)
    return [(b"GETRANGE", key, begin, end) for key in keys]


def unlinked(keys: Iterable[bytes]) -> Query[list[int]]:
    """Delete keys, one by one, since a cluster may be moving some of them."""
    numbers: list[int] = yield Request([(b"UNLINK", key) for key in keys], changes=True)
    return numbers
