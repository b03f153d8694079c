"""The byte stream of a blocking connection: sends commands and reads replies, by a deadline.

In redis-py, a command has a timeout for each of its reads from the socket, so a server that
sends a byte now and then can delay a reply without end. Here, one deadline is for all replies.
"""

from __future__ import annotations

import math
import select
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from .._core import encoding
from . import errors as redis_py
from .clocks import clocks
from .replies import BLOCKING, UNASKED, hiredis_reader, parsed

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BlockingStream", "seconds_until"]

ResultT = TypeVar("ResultT")

#: A wait may end at most this many seconds after the deadline.
_TOLERANCE: Final = 0.01

_PING: Final = encoding.command(b"PING")

_TIME_IS_UP: Final = "time is up"
_CLOSED: Final = "Connection closed by server."


class BlockingStream:
    """Sends commands over a connected blocking connection of redis-py, and reads replies.

    Raises, from `send` and `receive`:
        redis.exceptions.RedisError, OSError: the connection broke, or time is up.

    Attributes:
        connection: the connection.
    """

    __slots__ = (
        "_buffer",
        "_health_check_interval",
        "_reader",
        "_sock",
        "_timeout",
        "_usual_timeout",
        "connection",
    )

    def __init__(self, connection: Any) -> None:
        """Find the socket and hiredis's reader of a connection.

        Without them, as on the embedded store, redis-py sends and reads.
        """
        self.connection = connection
        sock = getattr(connection, "_sock", None)
        self._sock = sock if isinstance(sock, socket.socket) else None
        #: After how many seconds the URL asks for a ping before the next command; 0 for never.
        self._health_check_interval = connection.health_check_interval
        reader = hiredis_reader(connection, BLOCKING)
        self._reader = None if self._sock is None else reader
        self._buffer: Any = None if reader is None else connection._parser._buffer  # noqa: SLF001
        #: The socket's timeout in seconds, ``math.inf`` for none; and the one at first.
        seconds = None if self._sock is None else self._sock.gettimeout()
        self._timeout = self._usual_timeout = math.inf if seconds is None else seconds

    def send(self, data: bytes) -> None:
        """Send commands, within the timeout that is set."""
        if self._sock is None:
            self.connection.send_packed_command([data])
        else:
            self._sock.sendall(data)

    def receive(self, replies: list[Any], count: int, deadline: float) -> None:
        """Read replies and append them to ``replies``, until that has ``count`` of them.

        After a timeout, ``replies`` has those that were read, and another call reads the others.

        Arguments:
            replies: the replies so far.
            count: how many there have to be.
            deadline: when to give up, by `time.monotonic`.

        Raises:
            StoreNotReadyError: the server cannot serve for now.
        """
        reader, sock = self._reader, self._sock
        if reader is None or sock is None:
            while len(replies) < count:
                replies.append(self._read())
            return
        while True:
            replies += parsed(reader.gets, count - len(replies))
            if len(replies) >= count:
                break
            self.set_timeout(deadline)
            size = sock.recv_into(self._buffer)
            if not size:
                raise RedisConnectionError(_CLOSED)
            reader.feed(self._buffer, 0, size)
        if reader.has_data():
            raise RedisConnectionError(UNASKED)

    def receive_known(self, known: Mapping[bytes, ResultT], deadline: float) -> ResultT | None:
        """Read once; return the result for what was received.

        Arguments:
            known: the result for all bytes of each possible reply.
            deadline: when to give up, by `time.monotonic`.

        Returns:
            The result; ``None`` if the bytes are not among the known ones: then `receive` returns
            them.
        """
        reader, sock, buffer = self._reader, self._sock, self._buffer
        if reader is None or sock is None:
            return None
        self.set_timeout(deadline)
        size = sock.recv_into(buffer)
        result = known.get(bytes(buffer[:size]))
        if result is None:
            if not size:
                raise RedisConnectionError(_CLOSED)
            reader.feed(buffer, 0, size)
        return result

    def check_unused(self) -> None:
        """Raise if data was received, or the connection was closed, since its last use.

        Raises:
            redis.exceptions.ConnectionError: it was.
        """
        sock = self._sock
        if sock is None or isinstance(sock, ssl.SSLSocket) or not hasattr(select, "poll"):
            return  # TLS has messages of its own; and Windows has no poll
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        if poller.poll(0):
            raise RedisConnectionError(UNASKED)

    def restore_timeout(self) -> None:
        """Set the timeout of the socket that it had at first."""
        usual = self._usual_timeout
        if self._sock is not None and self._timeout != usual:
            self._sock.settimeout(None if usual == math.inf else usual)

    def begin(self, deadline: float) -> None:
        """Prepare to send: set the timeout, and ping the server first if its URL asks for that.

        Arguments:
            deadline: when to give up, by `time.monotonic`.
        """
        self.set_timeout(deadline)
        interval = self._health_check_interval
        if interval and self._sock is not None:
            now = clocks.monotonic()
            if now > self.connection.next_health_check:
                # Not by redis-py, which connects again and retries, without a deadline.
                self.send(_PING)
                self.receive([], 1, deadline)
                self.connection.next_health_check = now + interval

    def set_timeout(self, deadline: float) -> None:
        """Set the socket's timeout to a deadline, which may be exceeded by 10 ms.

        Setting it is a system call, at which Python may switch to another thread. Mostly the
        present timeout is within the tolerance, and the call is not needed.

        Raises:
            redis.exceptions.TimeoutError: the deadline has passed.
        """
        left = deadline - clocks.monotonic()
        if 0 < left <= self._timeout <= left + _TOLERANCE:
            return
        if left <= 0:
            raise RedisTimeoutError(_TIME_IS_UP)
        if self._sock is not None:
            self._timeout = left
            self._sock.settimeout(None if left == math.inf else left)
        else:  # an embedded store, which is slow in tests of outages only
            self.connection.socket_timeout = None if left == math.inf else left

    def _read(self) -> Any:
        try:
            # Bytes, also from a client that decodes.
            return redis_py.plain_reply(self.connection.read_response(disable_decoding=True))
        except ResponseError as error:
            redis_py.let_pass(error)
            return redis_py.refused_reply(error)


def seconds_until(deadline: float) -> float | None:
    """Return how many seconds are left; ``None`` without a deadline (``math.inf``).

    Raises:
        redis.exceptions.TimeoutError: none are left.
    """
    if deadline == math.inf:
        return None
    left = deadline - clocks.monotonic()
    if left <= 0:
        raise RedisTimeoutError(_TIME_IS_UP)
    return left
