"""Reading many replies at once, by a deadline, where redis-py reads them one by one.

redis-py's `read_response` costs three coroutines for each reply, or five calls in the
blocking client. Each of its reads from the socket may take the whole timeout, so a server
that sends a byte now and then can delay a reply without end. If a connection has a parser of
hiredis that this module knows, the module takes the replies out of that parser; else it
calls `read_response`.
"""

from __future__ import annotations

import math
import select
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from . import errors as redis_py

try:
    from redis._parsers import hiredis as _parsers
except ImportError:  # a redis-py that this module does not know
    _parsers = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Received",
    "check_unused",
    "read_replies",
    "seconds_until",
    "set_timeout",
    "socket_of",
]

#: The types of the replies to our commands, apart from errors.
_PLAIN: Final = frozenset((bytes, str, int, list, bool, type(None)))

#: A wait may end at most this many seconds after the deadline.
_TOLERANCE: Final = 0.01

#: The names of the known parsers.
_ASYNC, _BLOCKING = "_AsyncHiredisParser", "_HiredisParser"

_UNASKED: Final = "the connection has more than the replies to what was sent, or was closed"

_NOT_ENOUGH_DATA: Final = getattr(_parsers, "NOT_ENOUGH_DATA", None)


class Received:
    """The data that an async connection has received, until it is disconnected."""

    __slots__ = ("_reader", "_stream")

    def __init__(self, connection: Any) -> None:
        """Find hiredis's reader; a connection with another parser has no data for `take`."""
        self._reader = _hiredis_reader(connection, _ASYNC)
        self._stream = getattr(connection, "_reader", None)  # asyncio's

    def take(self, most: int) -> list[Any]:
        """Return the replies that are received, ``most`` of them at the most."""
        return [] if self._reader is None else _parsed(self._reader.gets, most)

    def check_empty(self) -> None:
        """Raise if there is data beyond the replies that were read.

        The replies are out of step with the commands then.

        Raises:
            redis.exceptions.ConnectionError: there is more.
        """
        reader = self._reader
        if reader is not None and (reader.has_data() or getattr(self._stream, "_buffer", None)):
            raise RedisConnectionError(_UNASKED)


def read_replies(connection: Any, count: int, deadline: float) -> list[Any]:
    """Read the next replies of a blocking connection.

    Arguments:
        connection: the connection, on which commands with ``count`` replies were sent.
        count: how many replies to read.
        deadline: when to give up, by `time.monotonic`.

    Raises:
        redis.exceptions.RedisError, OSError: the connection broke, or time is up.
        StoreNotReadyError: the server cannot serve for now.
    """
    reader = _hiredis_reader(connection, _BLOCKING)
    sock = socket_of(connection)
    if reader is None or sock is None:
        return [_read(connection) for _ in range(count)]
    buffer = connection._parser._buffer  # noqa: SLF001
    take = reader.gets
    replies = _parsed(take, count)
    while len(replies) < count:
        set_timeout(sock, deadline)
        size = sock.recv_into(buffer)
        if not size:
            raise RedisConnectionError("Connection closed by server.")
        reader.feed(buffer, 0, size)
        replies += _parsed(take, count - len(replies))
    if reader.has_data():
        raise RedisConnectionError(_UNASKED)
    return replies


def check_unused(connection: Any) -> None:
    """Raise if a blocking connection has received data, or was closed, since its last use.

    Raises:
        redis.exceptions.ConnectionError: it has.
    """
    sock = socket_of(connection)
    if sock is None or isinstance(sock, ssl.SSLSocket) or not hasattr(select, "poll"):
        return  # TLS has messages of its own; and Windows has no poll
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    if poller.poll(0):
        raise RedisConnectionError(_UNASKED)


def socket_of(connection: Any) -> socket.socket | None:
    """Return the socket of a blocking connection; ``None`` for the embedded store."""
    sock = getattr(connection, "_sock", None)
    return sock if isinstance(sock, socket.socket) else None


def set_timeout(sock: socket.socket, deadline: float) -> None:
    """Set a socket's timeout to a deadline, which may be exceeded by 10 ms.

    Setting it is a system call, at which Python may switch to another thread. Mostly the
    present timeout is within the tolerance, and the call is not needed.

    Raises:
        redis.exceptions.TimeoutError: the deadline has passed.
    """
    left, current = seconds_until(deadline), sock.gettimeout()
    if left is None:
        if current is not None:
            sock.settimeout(None)
    elif current is None or not left <= current <= left + _TOLERANCE:
        sock.settimeout(left)


def seconds_until(deadline: float) -> float | None:
    """Return how many seconds are left; ``None`` without a deadline (``math.inf``).

    Raises:
        redis.exceptions.TimeoutError: none are left.
    """
    if deadline == math.inf:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise RedisTimeoutError("time is up")
    return left


def _hiredis_reader(connection: Any, name: str) -> Any:
    """Return the hiredis reader of a connection; ``None`` if its parser is not the known one."""
    parser = getattr(connection, "_parser", None)
    if type(parser) is not getattr(_parsers, name, None):
        return None
    # Parsers of older releases of redis-py may have read the next reply in advance.
    if getattr(parser, "_next_response", _NOT_ENOUGH_DATA) is not _NOT_ENOUGH_DATA:
        return None
    return getattr(parser, "_reader", None)


def _parsed(take: Callable[[bool], Any], most: int) -> list[Any]:
    """Return the replies that a reader has received, ``most`` of them at the most."""
    replies: list[Any] = []
    while len(replies) < most:
        reply = take(False)  # not decoded: bitmaps are no text
        kind = type(reply)
        if kind is bytes or kind is int:  # nearly all replies: QUEUED, and bits
            replies.append(reply)
        elif reply is _NOT_ENOUGH_DATA:
            break
        elif isinstance(reply, ResponseError):
            replies.append(redis_py.refused_reply(reply))
        elif isinstance(reply, Exception):
            raise reply
        elif kind in _PLAIN:
            replies.append(redis_py.plain_reply(reply))
        # Other types, such as push messages, are no replies.
    return replies


def _read(connection: Any) -> Any:
    try:
        # Bytes, also from a client that decodes.
        return redis_py.plain_reply(connection.read_response(disable_decoding=True))
    except ResponseError as error:
        redis_py.let_pass(error)
        return redis_py.refused_reply(error)
