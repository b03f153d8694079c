"""Many replies at once, where redis-py reads them one by one.

`read_response` costs three coroutines a reply, or five calls in the blocking
client, and each of its reads from the socket may take the whole timeout, so a
server that sends a byte now and then is waited for without end. If a connection
has hiredis's parser as we know it, its replies can be had at once, and by a
deadline; else redis-py brings them one by one.
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
except ImportError:  # another redis-py than those that we know
    _parsers = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Received",
    "bound",
    "check_nothing_came",
    "its_socket",
    "received_replies",
    "seconds_until",
]

#: What Redis answers to our commands, apart from errors.
_PLAIN: Final = frozenset((bytes, str, int, list, bool, type(None)))

#: A wait may take so many seconds longer than the deadline says.
_MOMENT: Final = 0.01

#: The parsers that we know.
_ASYNC, _BLOCKING = "_AsyncHiredisParser", "_HiredisParser"

_UNASKED: Final = "the connection has more than the replies to what was sent, or was closed"

_NOT_ENOUGH_DATA: Final = getattr(_parsers, "NOT_ENOUGH_DATA", None)


class Received:
    """What an async connection has received already, as long as it stays connected."""

    __slots__ = ("_reader", "_stream")

    def __init__(self, connection: Any) -> None:
        """Look for it; where the connection does not work as we know it, there is nothing."""
        self._reader = _known_reader(connection, _ASYNC)
        self._stream = getattr(connection, "_reader", None)  # asyncio's

    def take(self, most: int) -> list[Any]:
        """Return replies, as many as there are, ``most`` of them."""
        return [] if self._reader is None else _taken(self._reader.gets, most)

    def check_nothing_is_left(self) -> None:
        """Raise if there is more than was asked for.

        Which of the replies was the answer cannot be told, and later ones would be
        taken for those of other commands.
        """
        reader = self._reader
        if reader is not None and (reader.has_data() or getattr(self._stream, "_buffer", None)):
            raise RedisConnectionError(_UNASKED)


def received_replies(connection: Any, count: int, deadline: float) -> list[Any]:
    """Return the next replies of a blocking connection.

    Arguments:
        connection: it owes at least so many.
        count: how many.
        deadline: when to give up, as `time.monotonic` has it.

    Raises:
        redis.exceptions.RedisError, OSError: the connection broke, or time is up.
        StoreNotReadyError: the server cannot serve for now.
    """
    reader = _known_reader(connection, _BLOCKING)
    found = its_socket(connection)
    if reader is None or found is None:
        return [_read(connection) for _ in range(count)]
    buffer = connection._parser._buffer  # noqa: SLF001
    take = reader.gets
    replies = _taken(take, count)
    while len(replies) < count:
        bound(found, deadline)
        size = found.recv_into(buffer)
        if not size:
            raise RedisConnectionError("Connection closed by server.")
        reader.feed(buffer, 0, size)
        replies += _taken(take, count - len(replies))
    if reader.has_data():
        raise RedisConnectionError(_UNASKED)
    return replies


def check_nothing_came(connection: Any) -> None:
    """Raise if a blocking connection has received something, or was closed, since its last use."""
    found = its_socket(connection)
    if found is None or isinstance(found, ssl.SSLSocket) or not hasattr(select, "poll"):
        return  # TLS has messages of its own; and Windows has no poll
    watched = select.poll()
    watched.register(found, select.POLLIN)
    if watched.poll(0):
        raise RedisConnectionError(_UNASKED)


def its_socket(connection: Any) -> socket.socket | None:
    """Return the socket of a blocking connection; None if it has no real one."""
    found = getattr(connection, "_sock", None)
    return found if isinstance(found, socket.socket) else None


def bound(found: socket.socket, deadline: float) -> None:
    """See to it that a socket waits until a deadline, or a moment longer.

    To set a timeout is a call of the system, during which other threads take the
    interpreter; mostly the one that is set will do.
    """
    left, current = seconds_until(deadline), found.gettimeout()
    if left is None:
        if current is not None:
            found.settimeout(None)
    elif current is None or not left <= current <= left + _MOMENT:
        found.settimeout(left)


def seconds_until(deadline: float) -> float | None:
    """Return how many seconds are left, ``None`` if without end.

    Raises:
        redis.exceptions.TimeoutError: none are.
    """
    if deadline == math.inf:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise RedisTimeoutError("time is up")
    return left


def _known_reader(connection: Any, parser: str) -> Any:
    """Return hiredis's reader of a connection whose parser works as we know it, else None."""
    found = getattr(connection, "_parser", None)
    if type(found) is not getattr(_parsers, parser, None):
        return None
    # Older ones look at a reply before it is asked for, and keep it.
    if getattr(found, "_next_response", _NOT_ENOUGH_DATA) is not _NOT_ENOUGH_DATA:
        return None
    return getattr(found, "_reader", None)


def _taken(take: Callable[[bool], Any], most: int) -> list[Any]:
    """Take replies out of a reader, as many as it has, ``most`` of them."""
    found: list[Any] = []
    while len(found) < most:
        reply = take(False)  # not decoded: bitmaps are no text
        kind = type(reply)
        if kind is bytes or kind is int:  # as nearly all are: QUEUED, and bits
            found.append(reply)
        elif reply is _NOT_ENOUGH_DATA:
            break
        elif isinstance(reply, ResponseError):
            found.append(redis_py.refused_reply(reply))
        elif isinstance(reply, Exception):
            raise reply
        elif kind in _PLAIN:
            found.append(redis_py.plain_reply(reply))
        # What else there is, such as a push message, is not an answer.
    return found


def _read(connection: Any) -> Any:
    try:
        # Bytes, also from a client that decodes.
        return redis_py.plain_reply(connection.read_response(disable_decoding=True))
    except ResponseError as error:
        redis_py.let_pass(error)
        return redis_py.refused_reply(error)
