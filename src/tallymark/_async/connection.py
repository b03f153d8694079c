"""The async driver's connection: bytes out, replies in, redis-py's errors translated."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import anyio
from redis.exceptions import ResponseError

from .._redis import errors as redis_py
from .._redis.replies import Received

if TYPE_CHECKING:
    from .._cluster.handshake import Handshake

__all__ = ["Connection"]

#: After so many replies, which take a few milliseconds, other tasks have their turn.
_AT_ONCE: Final = 2_000


class Connection:
    """Moves batches over one connection of a redis-py client, one at a time.

    The connection of a client that the tally made itself is kept for as long
    as it works, outside the pool, which is then the caller's alone. One from a
    client of the caller's is borrowed from its pool while there are marks to
    send, and given back when there are none.

    Raises, from every method but `close` and `release`:
        StoreUnavailableError, StoreTimeoutError: the connection is broken; try
            again after `close`.
        StoreError: trying again would not help. From `connect`, a `WrongSchemaError` if
            the database is not sharded as the tally is.
    """

    def __init__(
        self,
        client: Any,
        *,
        owned: bool = False,
        handshake: Handshake | None = None,
        marking: bool = False,
    ) -> None:
        """Begin without a connection.

        Arguments:
            client: the client.
            owned: whether the tally made it.
            handshake: what to say first; nothing, if somebody else does.
            marking: whether it is for marks.
        """
        self._greeting = handshake
        self._marking = marking
        self._pool = client.connection_pool
        self._connection: Any = None
        self._received = Received(None)
        #: Whether the tally made the client.
        self.owned = owned

    @property
    def ready(self) -> bool:
        """Whether there is nothing that `connect` would have to do."""
        return self._connection is not None and self._connection.is_connected

    async def connect(self) -> None:
        """Have a connection that is ready to send."""
        try:
            if self._connection is None:
                self._connection = (
                    self._pool.make_connection()
                    if self.owned
                    else await self._pool.get_connection()
                )
            if not self.ready:
                await self._connection.connect()
            if self._greeting is not None and not self._greeting.done:
                await self._greet(self._greeting)
        except Exception as error:  # noqa: BLE001 - redis-py has let AttributeErrors out
            redis_py.raise_failure(error)

    async def _greet(self, handshake: Handshake) -> None:
        """Learn whether this is a database for the tally; if not, keep no connection to it."""
        told = False
        try:
            data, count = handshake.commands(marking=self._marking)
            replies: list[Any] = []
            await self.send(data)
            await self.receive(replies, count)
            handshake.check(replies)
            told = True
        finally:
            if not told:
                await self.close()

    async def send(self, data: bytes) -> None:
        """Write commands. If it is cancelled, the connection is of no use any more."""
        try:
            self._received = Received(self._connection)
            self._received.check_nothing_is_left()  # of whatever was before
            await self._connection.send_packed_command(data)
        except Exception as error:  # noqa: BLE001 - redis-py has let AttributeErrors out
            redis_py.raise_failure(error)

    async def receive(self, replies: list[Any], count: int) -> None:
        """Read until there are ``count`` replies.

        Cancelled: what was read so far is in ``replies``, and another call
        reads the rest.
        """
        read = self._connection.read_response
        received = self._received
        turn = len(replies) + _AT_ONCE
        try:
            while len(replies) < count:
                try:
                    # Bytes, also from a client that decodes: bitmaps are no text.
                    reply = await read(disable_decoding=True, disconnect_on_error=False)
                    replies.append(redis_py.plain_reply(reply))
                except ResponseError as error:
                    replies.append(redis_py.refused_reply(error))
                replies += received.take(min(count - len(replies), _AT_ONCE))
                if len(replies) >= turn:  # there may be ever more of them already
                    turn = len(replies) + _AT_ONCE
                    await asyncio.sleep(0)
            received.check_nothing_is_left()
        except Exception as error:  # noqa: BLE001 - redis-py has let AttributeErrors out
            redis_py.raise_failure(error)

    async def release(self) -> None:
        """Give a borrowed connection back, with no reply left unread."""
        if not self.owned and self._connection is not None:
            connection, self._connection = self._connection, None
            with anyio.CancelScope(shield=True):
                await self._pool.release(connection)

    async def abort(self) -> None:
        """Disconnect under a call of `send` or `receive`, which fails then."""
        if self._connection is not None:
            await _break(self._connection)

    def discard(self) -> None:
        """Close the socket, after the event loop has been closed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            redis_py.discard_connection(connection)

    async def close(self, *, gently: bool = False) -> None:
        """Disconnect, whatever is left unread; `connect` begins anew.

        Arguments:
            gently: wait until it is closed, for its other end too.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            with anyio.CancelScope(shield=True):
                await (connection.disconnect() if gently else _break(connection))
                if not self.owned:
                    await self._pool.release(connection)


async def _break(connection: Any) -> None:
    """Disconnect at once, whatever is unread or unwritten.

    redis-py would leave it to the transport to get rid of what is unwritten, for
    which it waits as long as the other end lives, and takes nothing in.
    """
    transport = getattr(getattr(connection, "_writer", None), "transport", None)
    if transport is not None:
        transport.abort()
    await connection.disconnect(nowait=True)
