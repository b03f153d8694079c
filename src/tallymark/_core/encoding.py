"""Encoding of commands in RESP, the protocol of Redis. Pure.

RESP sends a command as an array of bulk strings
(https://redis.io/docs/latest/develop/reference/protocol-spec/). redis-py
encodes commands too, in about 14 us for each command of a pipeline. A mark has
three to five commands that differ in nothing but the key, so the parts that
they share are encoded once: most of the speed of marking comes from that.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ASKING", "EXEC", "MULTI", "bitfield", "bulk", "command", "setbit", "setbit_head"]


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
        heads: the result of `setbit_head` for each key.
        offset: the bit to set.
        value: 0 or 1.
    """
    digits = b"%d" % offset
    tail = b"$%d\r\n%b\r\n$1\r\n%d\r\n" % (len(digits), digits, value)
    return tail.join((*heads, b""))


def bitfield(bulk_keys: tuple[bytes, ...], bits: list[tuple[int, int]]) -> bytes:
    """Encode one ``BITFIELD key SET u1 offset value ...`` for each of several keys.

    Arguments:
        bulk_keys: the result of `bulk` for each key.
        bits: offset and value of each bit, in the order in which they are set.
    """
    # Formatting a str takes half the time of formatting bytes.
    tail = "".join(
        [
            f"$3\r\nSET\r\n$2\r\nu1\r\n${len(digits)}\r\n{digits}\r\n$1\r\n{value}\r\n"
            for digits, value in [(str(offset), value) for offset, value in bits]
        ]
    ).encode()
    head = b"*%d\r\n$8\r\nBITFIELD\r\n" % (2 + 4 * len(bits))
    return b"".join([b"%b%b%b" % (head, key, tail) for key in bulk_keys])


MULTI: Final = command(b"MULTI")
EXEC: Final = command(b"EXEC")
ASKING: Final = command(b"ASKING")
