"""The blocking driver's connections: bytes out, replies in, redis-py's errors translated."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError
from redis.retry import Retry

from . import redis_py

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["BlockingLink", "Sent"]


@dataclass
class Sent:
    """What an exchange has written so far.

    Attributes:
        attempts: how often it was begun.
        bytes: how many bytes were written, or may have been.
    """

    attempts: int = 0
    bytes: int = 0


class BlockingLink:
    """Sends commands over connections of a redis-py client and reads their replies.

    Threads may share it: each exchange has a connection to itself.
    """

    def __init__(self, client: Any, *, timeout: float) -> None:
        """Begin.

        Arguments:
            client: the client.
            timeout: for how many seconds an exchange is tried again.
        """
        self._pool = client.connection_pool
        self._timeout = timeout
        #: Whether the tally made the client, whose pool is a `BlockingPool` then.
        self.owned = False
        self._closed = False

    def exchange(
        self, data: bytes, count: int, sent: Sent, meanwhile: Iterable[object] = ()
    ) -> list[Any]:
        """Send commands and return their replies; again, if the connection breaks.

        Arguments:
            data: the commands.
            count: how many replies they have.
            sent: is kept up to date, also if it fails.
            meanwhile: is iterated over once they are sent, while the server works.

        Raises:
            StoreError: there is no answer, with redis-py's error as its cause.
        """
        deadline = time.monotonic() + self._timeout

        def attempt() -> list[Any]:
            sent.attempts += 1
            return self._attempt(data, count, sent, meanwhile)

        def note(failure: Exception) -> None:
            redis_py.raise_if_final(failure)
            if time.monotonic() >= deadline:
                raise failure

        try:
            return Retry(redis_py.backoff(), redis_py.RETRY_FOREVER).call_with_retry(attempt, note)
        except Exception as error:  # redis-py has let AttributeErrors out
            raise redis_py.failure(error) from error

    def close(self) -> None:
        """Close the connections that the tally made; those in use, when they are given back."""
        self._closed = True
        if self.owned:
            self._pool.disconnect_idle()

    def _attempt(
        self, data: bytes, count: int, sent: Sent, meanwhile: Iterable[object]
    ) -> list[Any]:
        connection = self._borrow()
        intact = False
        try:
            sent.bytes += len(data)
            connection.send_packed_command([data])
            for _ in meanwhile:
                pass
            replies = [_read(connection) for _ in range(count)]
            intact = True
        finally:
            # If not intact, replies may be left unread: on this connection, every
            # later answer would be taken for that of another command.
            self._give_back(connection, intact)
        return replies

    def _borrow(self) -> Any:
        return self._pool.borrow() if self.owned else self._pool.get_connection()

    def _give_back(self, connection: Any, intact: bool) -> None:
        if self.owned:
            self._pool.give_back(connection, intact=intact)
            if self._closed:  # close() saw this connection in use
                self._pool.disconnect_idle()
            return
        if not intact:
            connection.disconnect()
        self._pool.release(connection)


def _read(connection: Any) -> Any:
    try:
        # Bytes, also from a client that decodes: bitmaps are no text.
        return redis_py.plain_reply(connection.read_response(disable_decoding=True))
    except ResponseError as error:
        return redis_py.refused_reply(error)
