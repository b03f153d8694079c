"""The connection pool of the blocking driver: redis-py's, with a short way through it.

At each checkout redis-py polls the socket, and keeps statistics, to learn
whether the server has closed the connection meanwhile. A mark learns that from
its own reply, and is sent again; without the detour it takes an eighth less.
"""

from __future__ import annotations

import contextlib
import threading
from queue import Empty
from typing import Any

from redis import BlockingConnectionPool
from redis.exceptions import TimeoutError as RedisTimeoutError

from .replies import seconds_until

__all__ = ["BlockingPool"]


class BlockingPool(BlockingConnectionPool):
    """Lends connections to a tally; all else, such as the tally's client, uses it as ever.

    Works on the queue of idle connections that redis-py documents as
    ``queue_class``, in which ``None`` stands for one that is yet to be made.
    """

    def __repr__(self) -> str:
        """Name its class alone: redis-py 6 and 7 show all settings, and so passwords."""
        return f"<{type(self).__name__}>"

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
        return self._connected(connection, deadline)

    def give_back(self, connection: Any, *, intact: bool) -> None:
        """Take a connection back; one that is not intact gets disconnected."""
        if not intact:
            self._ready.discard(connection)
            connection.disconnect()
        self.pool.put_nowait(connection)

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close all connections, or those that nobody uses; redis-py's pool for Sentinels does."""
        if not inuse_connections:
            self.disconnect_idle()
            return
        self._ready.clear()
        super().disconnect()

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

    def _connected(self, connection: Any, deadline: float) -> Any:
        """Connect by a deadline: look up the name, ask Sentinels, connect, log in, select.

        Each of these waits has a timeout of its own, or none, as the look-up of
        a name; so a thread does it. If it is not done in time, nobody waits for it
        any more, and it puts the connection's place back into the queue itself.
        """
        try:
            attempt = _Attempt(self, connection, seconds_until(deadline))
        except BaseException:
            self.pool.put_nowait(connection)
            raise
        try:
            attempt.ended.wait(attempt.seconds)
        except BaseException:  # such as a KeyboardInterrupt
            if attempt.taken() and attempt.error is None:
                self.pool.put_nowait(attempt.connection)
            raise
        if not attempt.taken():
            raise RedisTimeoutError("no connection in time")
        if attempt.error is not None:
            seconds_until(deadline)  # if time is up, that is why, whatever it looks like
            raise attempt.error
        self._ready.add(attempt.connection)
        return attempt.connection


class _Attempt:
    """An attempt to connect, in a thread of its own."""

    def __init__(self, pool: BlockingPool, connection: Any, seconds: float | None) -> None:
        self.connection = connection
        self.seconds = seconds
        self.error: Exception | None = None
        self._pool = pool
        self._queue = pool.pool  # after a fork, the pool has another one
        self._ending = threading.Lock()
        self._abandoned = False
        self.ended = threading.Event()
        thread = threading.Thread(target=self._run, name="tallymark connects", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads, as when the interpreter is ending
            self._run()

    def taken(self) -> bool:
        """Return whether it has ended; if not, it is left to itself."""
        with self._ending:
            self._abandoned = not self.ended.is_set()
            return not self._abandoned

    def _run(self) -> None:
        try:
            self._connect()
        except Exception as error:  # noqa: BLE001 - redis-py has let AttributeErrors out
            self.error = error
        with self._ending:
            self.ended.set()
            if self.error is not None or self._abandoned:
                with contextlib.suppress(Exception):
                    self.connection.disconnect()
                self._queue.put_nowait(self.connection)

    def _connect(self) -> None:
        if self.connection is None:
            self.connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        connection = self.connection
        connection.disconnect()
        timeouts = connection.socket_timeout, connection.socket_connect_timeout
        connection.socket_timeout = connection.socket_connect_timeout = self.seconds
        try:
            connection.connect()
        finally:
            connection.socket_timeout, connection.socket_connect_timeout = timeouts
