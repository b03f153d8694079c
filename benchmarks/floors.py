"""The least that a mark can cost: its bytes, a connection, and hiredis to read the replies.

There are no checks, deadlines or retries, and the keys are those of the moment of the first mark.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import hiredis
from workloads import keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

#: MULTI, three SETBITs and EXEC.
REPLIES = 5


@functools.cache
def _template(event: str) -> bytes:
    """Return the bytes of a mark, to be formatted with three lengths and ids."""
    commands = [
        b"*4\r\n$6\r\nSETBIT\r\n$%d\r\n%b\r\n$%%d\r\n%%d\r\n$1\r\n1\r\n" % (len(key), key.encode())
        for key in keys(event)
    ]
    return b"".join([b"*1\r\n$5\r\nMULTI\r\n", *commands, b"*1\r\n$4\r\nEXEC\r\n"])


def encoded(event: str, user: int) -> bytes:
    """Return the bytes of a mark, which are those that tallymark sends."""
    length = len(str(user))
    return _template(event) % (length, user, length, user, length, user)


def _address(url: str) -> tuple[str, int, bytes]:
    """Return the host and the port of a URL, and the command that selects its database."""
    where = urlsplit(url)
    database = where.path.strip("/").encode() or b"0"
    select = b"*2\r\n$6\r\nSELECT\r\n$%d\r\n%b\r\n" % (len(database), database)
    return str(where.hostname), where.port or 6379, select


def connect(url: str) -> socket.socket:
    """Return a connection to the database of a URL."""
    host, port, select = _address(url)
    connection = socket.create_connection((host, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(select)
    connection.recv(65536)
    return connection


def blocking(connection: socket.socket) -> Callable[[str, int], Any]:
    """Return a mark that sends, and receives until all replies are there."""
    reader = hiredis.Reader()

    def mark(event: str, user: int) -> Any:
        connection.sendall(encoded(event, user))
        replies: list[Any] = []
        while len(replies) < REPLIES:
            reader.feed(connection.recv(65536))
            while (reply := reader.gets()) is not False:
                replies.append(reply)
        return replies[-1]

    return mark


class _Connection(asyncio.Protocol):
    """Resolves a future for each mark, in the order of the marks."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._missing = REPLIES

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._missing -= 1
            if not self._missing:  # reply is that of EXEC
                self._missing = REPLIES
                self._waiting.popleft().set_result(reply)

    def mark(self, event: str, user: int) -> asyncio.Future[Any]:
        """Send a mark, and return the future of its result."""
        self._transport.write(encoded(event, user))
        future = self._loop.create_future()
        self._waiting.append(future)
        return future

    async def select(self, command: bytes) -> None:
        """Select the database."""
        self._missing = 1
        self._transport.write(command)
        self._waiting.append(self._loop.create_future())
        await self._waiting[0]

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Callable[[str, int], asyncio.Future[Any]]]:
    """Yield a mark that writes to a transport and returns a future."""
    host, port, select = _address(url)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(_Connection, host, port)
    await connection.select(select)
    yield connection.mark
    connection.close()
