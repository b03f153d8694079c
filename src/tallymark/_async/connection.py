"""The async driver's connection: sends bytes, reads replies, translates redis-py's errors."""

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

#: After so many replies, which take a few milliseconds, other tasks run.
_MAX_REPLIES_PER_TURN: Final = 2_000


class Connection:
    """One connection of a redis-py client, for one exchange at a time.

    With a client that the tally made, the connection is made outside the client's pool and
    kept as long as it works: the pool is for the user of `Tally.client` alone. With a client
    of the caller's, the connection is acquired from its pool by `connect`, and released by
    `release`.

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
            owned: whether the tally made the client.
            handshake: the handshake to make after connecting, unless it is done;
                ``None`` on a cluster, where `ClusterExecutions` makes it.
            marking: whether the connection is for marks.
        """
        self._handshake = handshake
        self._marking = marking
        self._pool = client.connection_pool
        self._connection: Any = None
        self._received = Received(None)
        #: Whether the tally made the client.
        self.owned = owned

    @property
    def ready(self) -> bool:
        """Whether it is connected, so that `connect` need not be called."""
        return self._connection is not None and self._connection.is_connected

    async def connect(self) -> None:
        """Connect, and make the handshake unless it is done."""
        try:
            if self._connection is None:
                self._connection = (
                    self._pool.make_connection()
                    if self.owned
                    else await self._pool.get_connection()
                )
            if not self.ready:
                await self._connection.connect()
            if self._handshake is not None and not self._handshake.done:
                await self._shake_hands(self._handshake)
        except Exception as error:  # noqa: BLE001 - redis-py has let AttributeErrors out
            redis_py.raise_failure(error)

    async def _shake_hands(self, handshake: Handshake) -> None:
        """Make the handshake; if it fails, close the connection."""
        try:
            data, count = handshake.commands(marking=self._marking)
            replies: list[Any] = []
            await self.send(data)
            await self.receive(replies, count)
            handshake.check(replies)
        except BaseException:
            await self.close()
            raise

    async def send(self, data: bytes) -> None:
        """Write commands.

        Cancelled: close the connection, since a part of the commands may have been sent.
        """
        try:
            self._received = Received(self._connection)
            self._received.check_empty()  # no reply to earlier commands is unread
            await self._connection.send_packed_command(data)
        except Exception as error:  # noqa: BLE001 - redis-py has let AttributeErrors out
            redis_py.raise_failure(error)

    async def receive(self, replies: list[Any], count: int) -> None:
        """Read replies and append them to ``replies``, until that has ``count`` of them.

        Cancelled: the replies that were read are in ``replies``, and another call
        reads the others.
        """
        read = self._connection.read_response
        received = self._received
        next_turn = len(replies) + _MAX_REPLIES_PER_TURN
        try:
            while len(replies) < count:
                try:
                    # Bytes, also from a client that decodes: bitmaps are no text.
                    reply = await read(disable_decoding=True, disconnect_on_error=False)
                    replies.append(redis_py.plain_reply(reply))
                except ResponseError as error:
                    replies.append(redis_py.refused_reply(error))
                replies += received.take(min(count - len(replies), _MAX_REPLIES_PER_TURN))
                if len(replies) >= next_turn:  # received replies are read without waiting
                    next_turn = len(replies) + _MAX_REPLIES_PER_TURN
                    await asyncio.sleep(0)
            received.check_empty()
        except Exception as error:  # noqa: BLE001 - redis-py has let AttributeErrors out
            redis_py.raise_failure(error)

    async def release(self) -> None:
        """Release the connection to the caller's pool; all its replies have to be read."""
        if not self.owned and self._connection is not None:
            connection, self._connection = self._connection, None
            with anyio.CancelScope(shield=True):
                await self._pool.release(connection)

    async def abort(self) -> None:
        """Disconnect while `send` or `receive` runs, so that this call fails."""
        if self._connection is not None:
            await _abort(self._connection)

    def discard(self) -> None:
        """Close the socket, after the event loop has been closed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            redis_py.discard_connection(connection)

    async def close(self, *, gently: bool = False) -> None:
        """Disconnect, also if replies are unread; `connect` connects again.

        Arguments:
            gently: wait until the other end has closed the connection too.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            with anyio.CancelScope(shield=True):
                await (connection.disconnect() if gently else _abort(connection))
                if not self.owned:
                    await self._pool.release(connection)


async def _abort(connection: Any) -> None:
    """Disconnect at once, and drop what is unread or unwritten.

    redis-py closes the transport, which first waits until all bytes are written: without
    end, if the other end lives and reads nothing.
    """
    transport = getattr(getattr(connection, "_writer", None), "transport", None)
    if transport is not None:
        transport.abort()
    await connection.disconnect(nowait=True)
