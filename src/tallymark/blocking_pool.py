"""The connection pool of the blocking driver: redis-py's, with a short way through it.

At each checkout redis-py polls the socket, and keeps statistics, to learn
whether the server has closed the connection meanwhile. A mark learns that from
its own reply, and is sent again; without the detour it takes an eighth less.
"""

from __future__ import annotations

import contextlib
import os
from queue import Empty
from typing import Any

from redis import BlockingConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError

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

    def borrow(self) -> Any:
        """Return a connected connection, which `give_back` has to get in the end.

        Waits for the pool's ``timeout`` if all are in use.

        Raises:
            redis.exceptions.ConnectionError: all stayed in use, or no
                connection can be made.
        """
        while True:
            if self.pid == os.getpid():  # else reset() is due, which get_connection() calls
                try:
                    idle: Any = self.pool.get(timeout=self.timeout)
                except Empty:
                    raise RedisConnectionError("all connections were in use") from None
                if idle in self._ready:
                    return idle
                self.pool.put_nowait(idle)
            # redis-py makes one, or mends it; released at once, so that its
            # statistics count it as idle, which a lent one stays for them.
            made: Any = self.get_connection()  # type: ignore[no-untyped-call]
            self._ready.add(made)
            self.release(made)  # type: ignore[no-untyped-call]

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
