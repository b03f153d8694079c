"""From the bitmaps of some shards to those of other shards: which bits go where. Pure.

User u is in shard u mod S, at the bit u div S; a plain bitmap is one shard. A window of
users whose length is a multiple of 8 * lcm(S1, S2) is a whole number of bytes in each
shard of both databases. Users whose ids leave the same remainder by gcd(S1, S2) are among
themselves on both sides, so each such class is converted alone: its shards are interleaved,
and every n-th bit is the next one of a shard. Python's slices of binary digits do that in
C, about as fast as numpy does. Where few bits are set, they go one by one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from .._core.bits import Ints

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Change", "Comparison", "resharded"]

#: How many bytes one change has at most, so that the server is not held up for long.
_PIECE: Final = 32 * 1024

#: Bits go one by one if there is at most one in so many bytes.
_SPARSE: Final = 32


_INTS: Final = Ints()


class Change(NamedTuple):
    """What is to be written to a bitmap of a shard.

    Attributes:
        shard: the shard.
        first: the index of the first byte, from the begin of the window.
        bits: the bytes whose 1s are to be written.
        value: the bit to write.
    """

    shard: int
    first: int
    bits: bytes
    value: int


def resharded(parts: Sequence[bytes], shards: int) -> list[bytes]:
    """Return the bytes of each new shard for a window of users; without zeros at the end.

    Arguments:
        parts: the bytes of each old shard from the begin of the window on; what is
            missing at the end is 0.
        shards: how many new shards there are.
    """
    classes = math.gcd(len(parts), shards)
    merged, split = len(parts) // classes, shards // classes
    found = [b""] * shards
    for each in range(classes):
        some = [part.rstrip(b"\0") for part in parts[each::classes]]
        if any(some):
            found[each::classes] = some if merged == split else _dealt(some, split)
    return found


def _dealt(parts: Sequence[bytes], shards: int) -> list[bytes]:
    """Do it for old and new shards whose numbers have no common divisor."""
    size = -(-max(map(len, parts)) // shards) * shards
    ints = [_INTS.load(part, len(part)) for part in parts]
    if sum(map(_INTS.count, ints)) * _SPARSE <= size * len(parts):
        return _dealt_one_by_one(ints, shards, size)
    digits = [f"{int.from_bytes(part.ljust(size, bytes(1)), 'big'):0{8 * size}b}" for part in parts]
    if len(parts) == 1:
        (every,) = digits
    else:
        mixed = bytearray(8 * size * len(parts))
        for index, own in enumerate(digits):
            mixed[index :: len(parts)] = own.encode()
        every = mixed.decode()
    size = size * len(parts) // shards
    return [
        int(every[shard::shards], 2).to_bytes(size, "big").rstrip(b"\0") for shard in range(shards)
    ]


def _dealt_one_by_one(parts: Sequence[int], shards: int, size: int) -> list[bytes]:
    own = len(parts)
    found: dict[int, bytearray] = {}
    for index, part in enumerate(parts):
        for offsets in _INTS.ids(part, size, 0):
            for old in offsets:
                offset, shard = divmod(old * own + index, shards)
                if shard not in found:
                    found[shard] = bytearray(size * own // shards)
                found[shard][offset >> 3] |= 128 >> (offset & 7)
    return [bytes(found.get(shard, b"")).rstrip(b"\0") for shard in range(shards)]


class Comparison:
    """One window of a bitmap in the new shards, compared with what it should be.

    The first look tells all that is missing. Who marks meanwhile marks both databases, so
    later looks need to tell only which bits of those written last are meant otherwise
    by now: an unmark may have come between the look and the write.
    """

    def __init__(self, found: Sequence[bytes], *, clear: bool) -> None:
        """Begin with the bytes that each new shard has.

        Arguments:
            found: the bytes.
            clear: whether bits that should not be there are cleared. Those that an
                earlier look has had set are cleared in any case.
        """
        self._bits = [int.from_bytes(some, "little") for some in found]
        self._clear = clear
        #: Which bits are compared, in each shard; ``None`` for all.
        self._compared: list[int] | None = None

    def changes(self, wanted: Sequence[bytes]) -> list[Change]:
        """Return what is to be written now; nothing, if all is as it should be.

        Arguments:
            wanted: the bytes that each new shard should have.
        """
        told: list[Change] = []
        compared = []
        bits = [int.from_bytes(some, "little") for some in wanted]
        for shard, (want, have) in enumerate(zip(bits, self._bits, strict=True)):
            wrong = want ^ have
            if self._compared is not None:
                wrong &= self._compared[shard]
            elif not self._clear:
                wrong &= want
            compared.append(wrong)
            if wrong:
                for value, some in ((1, wrong & want), (0, wrong & ~want)):
                    told += [Change(shard, *piece, value) for piece in _pieces(some)]
        self._bits, self._compared = bits, compared
        return told


def _pieces(bits: int) -> Iterator[tuple[int, bytes]]:
    """Yield the bytes that are not 0, in pieces, each with the index of its first byte."""
    data = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
    for at in range(0, len(data), _PIECE):
        piece = data[at : at + _PIECE].rstrip(b"\0")
        if piece:
            begin = len(piece) - len(piece.lstrip(b"\0"))
            yield at + begin, piece[begin:]
