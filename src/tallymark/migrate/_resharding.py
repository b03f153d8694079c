"""Conversion of bitmaps from one number of shards to another. Pure.

User u is in shard u mod S, at bit u div S; a bitmap without shards is one shard. A window of
users whose length is a multiple of 8 * lcm(S1, S2) is a whole number of bytes in each
shard of both databases. Users with the same remainder modulo gcd(S1, S2) share their shards
with no other users, on both sides, so each such class is converted alone: its old shards are
interleaved, and every n-th bit of the result belongs to the same new shard. Python's slices
of binary digits do that in C, about as fast as numpy does. Sparse bitmaps are converted bit
by bit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from .._reading.bits import Ints

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Change", "Comparison", "reshard"]

#: How many bytes one change has at most, so that it does not block the server for long.
_CHANGE_BYTES: Final = 32 * 1024

#: A bitmap is sparse if it has at most one bit in this many bytes.
_SPARSE: Final = 32

_INTS: Final = Ints()


class Change(NamedTuple):
    """Bits to write to one shard of a bitmap.

    Attributes:
        shard: the shard.
        first: the index of the first byte, from the begin of the window.
        bits: a mask: the bits to write are its 1s.
        value: the bit to write there.
    """

    shard: int
    first: int
    bits: bytes
    value: int


def reshard(parts: Sequence[bytes], shards: int) -> list[bytes]:
    """Convert a window of users to another number of shards.

    Arguments:
        parts: the bytes of the window in each old shard; zeros at the end may be missing.
        shards: the number of new shards.

    Returns:
        The bytes of the window in each new shard, without zeros at the end.
    """
    classes = math.gcd(len(parts), shards)
    merged, split = len(parts) // classes, shards // classes
    result = [b""] * shards
    for remainder in range(classes):
        class_parts = [part.rstrip(b"\0") for part in parts[remainder::classes]]
        if any(class_parts):
            result[remainder::classes] = (
                class_parts if merged == split else _partition(class_parts, split)
            )
    return result


def _partition(parts: Sequence[bytes], shards: int) -> list[bytes]:
    """Convert a window as `reshard` does, where the numbers of shards have no common divisor.

    Arguments:
        parts: the bytes of the window in each old shard.
        shards: the number of new shards.

    Returns:
        The bytes of the window in each new shard, without zeros at the end.
    """
    size = -(-max(map(len, parts)) // shards) * shards
    ints = [_INTS.load(part, len(part)) for part in parts]
    if sum(map(_INTS.count, ints)) * _SPARSE <= size * len(parts):
        return _partition_sparse(ints, shards, size)
    digits = [f"{int.from_bytes(part.ljust(size, bytes(1)), 'big'):0{8 * size}b}" for part in parts]
    if len(parts) == 1:
        (merged,) = digits
    else:
        interleaved = bytearray(8 * size * len(parts))
        for index, part_digits in enumerate(digits):
            interleaved[index :: len(parts)] = part_digits.encode()
        merged = interleaved.decode()
    size = size * len(parts) // shards
    return [
        int(merged[shard::shards], 2).to_bytes(size, "big").rstrip(b"\0") for shard in range(shards)
    ]


def _partition_sparse(parts: Sequence[int], shards: int, size: int) -> list[bytes]:
    """Convert a window as `_partition` does, bit by bit; fast if few bits are set.

    Arguments:
        parts: the window in each old shard, as an integer of `Ints`.
        shards: the number of new shards.
        size: the number of bytes of the window in an old shard.

    Returns:
        The bytes of the window in each new shard, without zeros at the end.
    """
    old_shards = len(parts)
    result: dict[int, bytearray] = {}
    for index, part in enumerate(parts):
        for offsets in _INTS.ids(part, size, 0):
            for old_offset in offsets:
                offset, shard = divmod(old_offset * old_shards + index, shards)
                if shard not in result:
                    result[shard] = bytearray(size * old_shards // shards)
                result[shard][offset >> 3] |= 128 >> (offset & 7)
    return [bytes(result.get(shard, b"")).rstrip(b"\0") for shard in range(shards)]


class Comparison:
    """A window of a bitmap: the target's bits, compared with the source's.

    The first comparison finds all bits that are missing. Marks that come during the copy
    are written to both databases, so later comparisons look only at the bits that were
    written last: an unmark may have come between the comparison and the write.
    """

    def __init__(self, parts: Sequence[bytes], *, clear: bool) -> None:
        """Begin with the target's bytes of the window.

        Arguments:
            parts: the bytes of each shard of the target.
            clear: whether bits that only the target has are cleared. Those that an
                earlier comparison has had set are cleared in any case.
        """
        self._bits = [int.from_bytes(part, "little") for part in parts]
        self._clear = clear
        #: A mask for each shard: the bits to compare; ``None`` for all.
        self._compared: list[int] | None = None

    def changes(self, wanted: Sequence[bytes]) -> list[Change]:
        """Return the changes to write now; none, if the target has what is wanted.

        Arguments:
            wanted: the bytes that each shard of the target should have.
        """
        changes: list[Change] = []
        compared = []
        bits = [int.from_bytes(part, "little") for part in wanted]
        for shard, (want, have) in enumerate(zip(bits, self._bits, strict=True)):
            wrong = want ^ have
            if self._compared is not None:
                wrong &= self._compared[shard]
            elif not self._clear:
                wrong &= want
            compared.append(wrong)
            if wrong:
                for value, mask in ((1, wrong & want), (0, wrong & ~want)):
                    changes += [Change(shard, *piece, value) for piece in _pieces(mask)]
        self._bits, self._compared = bits, compared
        return changes


def _pieces(mask: int) -> Iterator[tuple[int, bytes]]:
    """Yield the bytes that are not 0, in pieces, each with the index of its first byte."""
    data = mask.to_bytes((mask.bit_length() + 7) // 8, "little")
    for at in range(0, len(data), _CHANGE_BYTES):
        piece = data[at : at + _CHANGE_BYTES].rstrip(b"\0")
        if piece:
            begin = len(piece) - len(piece.lstrip(b"\0"))
            yield at + begin, piece[begin:]
