"""From plain bitmaps to those of shards: which bits go where. Pure.

A part of a plain bitmap that begins at a multiple of S bytes and is so long, holds a
whole number of bytes of each of S shards: every S-th bit is the next one of a shard.
Python's strings of binary digits do that in C.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Change", "changes", "dealt_bits"]


class Change(NamedTuple):
    """What is to be written to a bitmap of a shard.

    Attributes:
        shard: the shard.
        bits: the bytes whose 1s are to be written.
        value: the bit to write.
    """

    shard: int
    bits: bytes
    value: int


def dealt_bits(part: bytes, shards: int) -> list[bytes]:
    """Return the bytes of each shard for a part of a plain bitmap; without zeros at the end."""
    part += bytes(-len(part) % shards)
    if not part:
        return [b""] * shards
    digits = f"{int.from_bytes(part, 'big'):0{8 * len(part)}b}"
    size = len(part) // shards
    return [
        int(digits[shard::shards], 2).to_bytes(size, "big").rstrip(b"\0") for shard in range(shards)
    ]


def changes(wanted: Sequence[bytes], found: Sequence[bytes], *, clear: bool) -> list[Change]:
    """Return what turns the bits that are found in some shards into those that are wanted.

    Arguments:
        wanted, found: the bytes of each shard.
        clear: whether bits that are not wanted are cleared.
    """
    told = []
    for shard, (want, have) in enumerate(zip(wanted, found, strict=True)):
        size = max(len(want), len(have))
        one = int.from_bytes(want.ljust(size, b"\0"), "big")
        other = int.from_bytes(have.ljust(size, b"\0"), "big")
        missing, extra = one & ~other, other & ~one
        if missing:
            told.append(Change(shard, missing.to_bytes(size, "big").rstrip(b"\0"), 1))
        if extra and clear:
            told.append(Change(shard, extra.to_bytes(size, "big").rstrip(b"\0"), 0))
    return told
