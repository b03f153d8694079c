"""Queries about bitmaps by their keys, of one place or of all shards. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

from .requests import Request
from .together import together

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .requests import Query

__all__ = ["in_all_shards", "key_counts", "key_lives", "key_parts"]

AnswerT = TypeVar("AnswerT")


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
    begin, end = b"%d" % at, b"%d" % (at + size - 1)
    parts: list[bytes] = yield Request(
        [(b"GETRANGE", key, begin, end) for key in keys], replies=bytes
    )
    return parts


def in_all_shards(
    query: Callable[[Sequence[bytes]], Query[AnswerT]], keys: Sequence[Sequence[bytes]]
) -> Query[list[AnswerT]]:
    """Ask each shard about keys of its own."""
    return together((shard, query(own)) for shard, own in enumerate(keys))
