"""The connection pool of the blocking driver: redis-py's, with a short way through it.

At each checkout redis-py polls the socket, and keeps statistics, to learn
whether the server has closed the connection meanwhile. A mark learns that from
its own reply, and is sent again; without the detour it takes an eighth less.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from queue import Empty
from typing import Any

from redis import BlockingConnectionPool
from redis.exceptions import TimeoutError as RedisTimeoutError

from .replies import its_socket, seconds_until

__all__ = ["BlockingPool"]


class BlockingPool(BlockingConnectionPool):
    """Lends connections to a tally; all else, such as the tally's client, uses it as ever.

    Works on the queue of idle connections that redis-py documents as
    ``queue_class``, in which ``None`` stands for one that is yet to be made.
    """

    def reset(self) -> None:
        """Forget all connections; redis-py calls this when made, and after a fork."""
        super().reset()  # type: ignore[no-untyped-call]
        #: What `borrow` may hand out as it is.
        self._ready: set[Any] = set()

    def borrow(self, deadline: float) -> Any:
        """Return a connected connection, which `give_back` has to get in the end.

        Waits if all are in use.

        Arguments:
            deadline: when to give up, as `time.monotonic` has it.

        Raises:
            redis.exceptions.RedisError, OSError: all stayed in use, or no
                connection can be made.
        """
        self._checkpid()
        try:
            connection: Any = self.pool.get(timeout=seconds_until(deadline))
        except Empty:
            raise RedisTimeoutError("all connections were in use") from None
        if connection in self._ready:
            return connection
        try:
            if connection is None:
                connection = self.make_connection()  # type: ignore[no-untyped-call]
            _connect(connection, deadline)
        except BaseException:
            self.pool.put_nowait(connection)
            raise
        self._ready.add(connection)
        return connection

    def give_back(self, connection: Any, *, intact: bool) -> None:
        """Take a connection back; one that is not intact gets disconnected."""
        if not intact:
            self._ready.discard(connection)
            connection.disconnect()
        self.pool.put_nowait(connection)

    def disconnect_idle(self) -> None:
        """Close the connections that nobody uses."""
        taken = []
        with contextlib.suppress(Empty):
            while True:
                taken.append(self.pool.get_nowait())
        for connection in taken:
            if connection is not None:
                self._ready.discard(connection)
                connection.disconnect()
            self.pool.put_nowait(connection)


def _connect(connection: Any, deadline: float) -> None:
    """Connect anew, log in and choose the database, all by a deadline."""
    connection.disconnect()
    left = seconds_until(deadline)
    timeouts = connection.socket_timeout, connection.socket_connect_timeout
    # Each single wait is bounded by these, and all of them by the thread.
    connection.socket_timeout = connection.socket_connect_timeout = left
    watch = None
    if left is not None:
        watch = threading.Timer(left, _hang_up, (connection,))
        watch.daemon = True
        watch.start()
    try:
        connection.connect()
    except Exception:
        seconds_until(deadline)  # if time is up, that is why, whatever it looks like
        raise
    finally:
        connection.socket_timeout, connection.socket_connect_timeout = timeouts
        if watch is not None:
            watch.cancel()


def _hang_up(connection: Any) -> None:
    """Break a connection under the thread that uses it, which gets an error."""
    found = its_socket(connection)
    if found is not None:
        with contextlib.suppress(OSError):
            found.shutdown(socket.SHUT_RDWR)
