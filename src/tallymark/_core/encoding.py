"""Encoding of commands in RESP, the protocol of Redis. Pure.

RESP sends a command as an array of bulk strings
(https://redis.io/docs/latest/develop/reference/protocol-spec/). redis-py
encodes commands too, in about 14 us for each command of a pipeline. A mark has
three to five commands that differ in nothing but the key, so the parts that
they share are encoded once: most of the speed of marking comes from that.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "ASKING",
    "EXEC",
    "MULTI",
    "bitfield",
    "bitfield_head",
    "bulk",
    "command",
    "set_bits",
    "setbit",
    "setbit_head",
    "wait",
]

#: How long ``WAIT`` waits at most. Later requests on the same connection wait behind it.
_WAIT_MILLISECONDS: Final = 1000


def bulk(data: bytes) -> bytes:
    """Encode one argument."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


def command(*arguments: bytes) -> bytes:
    """Encode one command with all its arguments."""
    bulks = [b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments]
    return b"*%d\r\n%b" % (len(bulks), b"".join(bulks))


def setbit_head(key: bytes) -> bytes:
    """Encode the beginning of a ``SETBIT``, up to and including the key."""
    return b"*4\r\n$6\r\nSETBIT\r\n" + bulk(key)


def setbit(heads: tuple[bytes, ...], offset: int, value: int) -> bytes:
    """Encode one ``SETBIT`` for each of several keys.

    Arguments:
        heads: the result of `setbit_head` for each key, and ``b""`` at the end.
        offset: the bit to set.
        value: 0 or 1.
    """
    digits = b"%d" % offset
    return (_SETBIT_OFFSETS[len(digits)] + digits + _SETBIT_VALUES[value]).join(heads)


def bitfield(bulk_keys: tuple[bytes, ...], offsets: Sequence[int], values: Iterable[int]) -> bytes:
    """Encode one ``BITFIELD key SET u1 offset value ...`` for each of several keys.

    Arguments:
        bulk_keys: the result of `bulk` for each key.
        offsets, values: of each bit, in the order in which they are set.
    """
    # Formatting a str takes half the time of formatting bytes, and with the tables of the
    # parts around an offset it takes half of that.
    tail = "".join(
        [
            f"{_SET_OFFSETS[len(digits := str(offset))]}{digits}{_SET_VALUES[value]}"
            for offset, value in zip(offsets, values)  # noqa: B905 - of equal length
        ]
    ).encode()
    head = b"*%d\r\n$8\r\nBITFIELD\r\n" % (2 + 4 * len(offsets))
    return b"".join([b"%b%b%b" % (head, key, tail) for key in bulk_keys])


def set_bits(offsets: list[int]) -> bytes:
    """Encode the operations of a ``BITFIELD`` that set bits: a third of the time of `bitfield`.

    Arguments:
        offsets: the bits, in ascending order; at least one.
    """
    parts = []
    begin = 0
    while begin < len(offsets):
        # Between two offsets with equally many digits, the bytes are always the same.
        digits = len(str(offsets[begin]))
        end = len(offsets)
        if len(str(offsets[-1])) > digits:
            end = bisect_left(offsets, 10**digits, begin)
        head, value = _SET_OFFSETS[digits], _SET_VALUES[1]
        same = offsets if end - begin == len(offsets) else offsets[begin:end]
        parts.append(f"{head}{f'{value}{head}'.join(map(str, same))}{value}")
        begin = end
    return "".join(parts).encode()


def bitfield_head(bits: int, key: bytes) -> bytes:
    """Encode a ``BITFIELD`` up to its operations.

    Arguments:
        bits: how many operations it has.
        key: the key.
    """
    return b"*%d\r\n$8\r\nBITFIELD\r\n$%d\r\n%b\r\n" % (2 + 4 * bits, len(key), key)


def wait(replicas: int) -> tuple[bytes, ...]:
    """Return the ``WAIT`` command for some replicas, not encoded.

    The server replies when this many replicas have acknowledged all earlier writes of the
    connection, or after a second (https://redis.io/docs/latest/commands/wait/).
    """
    return (b"WAIT", b"%d" % replicas, b"%d" % _WAIT_MILLISECONDS)


#: How many digits an offset has at most: those of 2**64.
_MAX_DIGITS: Final = 20

#: What comes before an offset of so many digits, and after one with the value 0 or 1.
_SETBIT_OFFSETS: Final = tuple(b"$%d\r\n" % digits for digits in range(_MAX_DIGITS + 1))
_SETBIT_VALUES: Final = (b"\r\n$1\r\n0\r\n", b"\r\n$1\r\n1\r\n")
_SET_OFFSETS: Final = tuple(
    f"$3\r\nSET\r\n$2\r\nu1\r\n${digits}\r\n" for digits in range(_MAX_DIGITS + 1)
)
_SET_VALUES: Final = tuple(value.decode() for value in _SETBIT_VALUES)

MULTI: Final = command(b"MULTI")
EXEC: Final = command(b"EXEC")
ASKING: Final = command(b"ASKING")
