"""Shards: how the users of one database spread over a Redis Cluster. Pure.

A cluster puts each key into one of 16,384 slots by the part of the key between
braces, its hash tag, and each slot on one of its nodes. All bitmaps of a user have
the tag of the user's shard, so a mark stays one transaction and set operations
stay within a shard. Nodes hold ranges of slots, as a rule of equal length, so tags in
slots of equal distance give them as many shards each, give or take one.

Slots: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
"""

from __future__ import annotations

import binascii
import functools
import itertools
import string
from typing import Final

from ..errors import InvalidValueError
from .excerpts import shown

__all__ = ["MAX_SHARDS", "SLOTS", "check_shards", "key_slot", "tag_slot", "tags"]

SLOTS: Final = 16384

#: As many as a cluster may have nodes; what asks all shards gets slower with each.
MAX_SHARDS: Final = 1024


def check_shards(shards: int) -> None:
    """Raise unless a database may have so many shards."""
    if not 1 <= shards <= MAX_SHARDS:
        raise InvalidValueError(f"shards must be in [1, {MAX_SHARDS}], got {shown(shards, 40)}")


def tag_slot(tag: bytes) -> int:
    """Return the slot of all keys with this hash tag: its CRC16 (XMODEM), modulo 16,384."""
    return binascii.crc_hqx(tag, 0) % SLOTS


def key_slot(key: bytes) -> int:
    """Return the slot of a key."""
    _, brace, rest = key.partition(b"{")
    tag, end, _ = rest.partition(b"}")
    return tag_slot(tag if brace and end and tag else key)


@functools.cache
def tags(shards: int) -> tuple[str, ...]:
    """Return the hash tag of each shard: the first word in the middle of its share of the slots.

    Words are those of lower-case letters, shorter ones first, then in the order
    of the alphabet. This is a part of the key format: it must never change.
    """
    wanted = {(2 * shard + 1) * SLOTS // (2 * shards): shard for shard in range(shards)}
    found = [""] * shards
    words = (
        "".join(letters)
        for length in itertools.count(1)
        for letters in itertools.product(string.ascii_lowercase, repeat=length)
    )
    while wanted:
        word = next(words)
        shard = wanted.pop(tag_slot(word.encode()), None)
        if shard is not None:
            found[shard] = word
    return tuple(found)
