"""The connection pool of the blocking driver: redis-py's, with a faster checkout.

At each checkout, redis-py polls the socket for a close by the server, and keeps statistics.
A mark needs no poll: if the connection is closed, the mark fails and is sent again. Without
the poll, a mark takes an eighth less time.

A signal handler can interrupt the main thread anywhere, can use the pool, and can raise. So
no state is changed under a lock: a connection moves from the pool to a caller's list, and
back, in one call of a C function, during which Python runs no handler. And no exception that
a handler may have raised is taken for an empty pool.
"""

from __future__ import annotations

import _thread
import math
import os
import threading
import weakref
from queue import Empty, Full
from typing import TYPE_CHECKING, Any, Final

from redis import BlockingConnectionPool
from redis.exceptions import TimeoutError as RedisTimeoutError

from .._core.untrusted import reraise_from_handler
from ..errors import ReentrantCallError
from . import memory
from .blocking_stream import seconds_until
from .clocks import clocks

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["POLL_INTERVAL", "BlockingPool", "Stack", "move"]

#: A waiting thread looks at this interval, in seconds, whether it can go on: the thread that
#: should have woken it may have been interrupted by an exception.
POLL_INTERVAL: Final = 0.1

#: How many bytes a connection outside the pool reads at once; its replies are small.
_SMALL_READS: Final = 16 * 1024

#: The only key of `_Attempt._first`.
_CALLER: Final = "caller"

_pop: Final[Callable[[list[Any]], Any]] = list.pop


class Stack:
    """The queue of a pool, last in, first out: what redis-py needs of `queue.LifoQueue`.

    `queue.LifoQueue` has a lock. A signal handler that interrupts the thread that holds the
    lock would wait for it for ever.
    """

    def __init__(self, maxsize: int) -> None:
        """Begin empty, with room for ``maxsize`` items."""
        self.maxsize = maxsize
        self.queue: list[Any] = []
        #: A held lock for each waiting thread, in the order in which they came; the values
        #: mean nothing.
        self._waiting: dict[Any, bool] = {}

    def put_nowait(self, item: Any) -> None:
        """Put an item on the top of the stack.

        Raises:
            queue.Full: there is no room.
        """
        if len(self.queue) >= self.maxsize:
            raise Full
        self.queue.append(item)
        self._wake()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the item on the top of the stack.

        Raises:
            queue.Empty: there was none within ``timeout`` seconds.
        """
        held: list[Any] = []
        deadline = math.inf if timeout is None else clocks.monotonic() + timeout
        while not self.pop_into(held):
            left = deadline - clocks.monotonic()
            if not block or left <= 0:
                raise Empty
            self.wait(min(left, POLL_INTERVAL))
        return held.pop()

    def get_nowait(self) -> Any:
        """Take the item on the top of the stack.

        Raises:
            queue.Empty: there is none.
        """
        return self.get(block=False)

    def pop_into(self, held: list[Any]) -> bool:
        """Move the top item to the end of a list, atomically; return whether there was an item."""
        before = len(held)
        held.extend(map(_pop, filter(None, (self.queue,))))  # as `move`, without a call
        return len(held) > before

    def push_from(self, held: list[Any]) -> None:
        """Move the last item of a list, if any, to the top of the stack, atomically."""
        self.queue.extend(map(_pop, filter(None, (held,))))
        if self._waiting:
            self._wake()

    def wait(self, seconds: float) -> None:
        """Wait until an item may be there, at most ``seconds``."""
        waiter = threading.Lock()
        waiter.acquire()
        try:
            self._waiting[waiter] = True
            if not self.queue:  # an item put before this thread was registered woke nobody
                waiter.acquire(timeout=seconds)
        finally:
            self._waiting.pop(waiter, None)

    def _wake(self) -> None:
        for waiter in list(self._waiting):
            if self._waiting.pop(waiter, False):  # else another thread was first
                waiter.release()
                return


class BlockingPool(BlockingConnectionPool):
    """A pool for a tally, and, by redis-py's own methods, for the tally's client.

    Works on the queue of idle connections that redis-py documents as ``queue_class``, in
    which ``None`` stands for a connection that is not made yet.
    """

    pool: Any  # a `Stack`

    def __init__(self, *args: Any, **settings: Any) -> None:
        """Make a pool; the arguments are those of redis-py's class."""
        settings["queue_class"] = Stack
        super().__init__(*args, **settings)  # type: ignore[no-untyped-call]
        _pools.add(self)

    def __repr__(self) -> str:
        """Return the class's name only: redis-py 6 and 7 show all settings, also passwords."""
        return f"<{type(self).__name__}>"

    def reset(self) -> None:
        """Forget all connections; redis-py calls this in the constructor, and after a fork."""
        super().reset()  # type: ignore[no-untyped-call]
        #: The connections that are connected.
        self._ready: set[Any] = set()
        #: The lists of `acquire_into` by their ids, each with the id of its thread; entered
        #: before the list has a connection.
        self._acquired: dict[int, tuple[int, list[Any]]] = {}

    def acquire_into(self, held: list[Any], deadline: float) -> Any:
        """Acquire a connection, connect it, and return it; `release_from` has to follow.

        Waits while all connections are in use.

        Arguments:
            held: an empty list, into which the connection is moved: `release_from` finds it
                there also if a signal handler raises before the return.
            deadline: when to give up, by `time.monotonic`.

        Raises:
            redis.exceptions.RedisError, OSError: all connections stayed in use, or none can
                be made.
            ReentrantCallError: the calling thread itself has all connections in use.
        """
        self._checkpid()
        self._acquired[id(held)] = threading.get_ident(), held
        while not self.pool.pop_into(held):
            self._wait(deadline)
        connection = held[0]
        if connection not in self._ready:
            connection = self._connected(held, deadline)
        return connection

    def connect_apart(self, deadline: float) -> Any:
        """Return a new connected connection, which does not belong to the pool.

        Arguments:
            deadline: when to give up, by `time.monotonic`.

        Raises:
            redis.exceptions.RedisError, OSError: none can be made.
        """
        # Not by `make_connection`, which keeps every connection that it ever made in a list.
        # Without a variable for the settings: a traceback with variables would show the password.
        held: list[Any] = [
            self.connection_class(**{**self.connection_kwargs, "socket_read_size": _SMALL_READS})
        ]
        attempt = _Attempt(self, held, seconds_until(deadline), Stack(1))
        try:
            attempt.begin()
            attempt.wait()
        finally:
            attempt.leave()
        attempt.check(deadline)
        return held[0]

    def release_from(self, held: list[Any], *, intact: bool) -> None:
        """Release the connection in a list, if it has one.

        Arguments:
            held: the list of `acquire_into`, which is empty then.
            intact: whether to keep the connection connected.
        """
        for connection in list(held):
            if connection is not None and not intact:
                self._ready.discard(connection)
                connection.disconnect()
        self.pool.push_from(held)
        self._acquired.pop(id(held), None)

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close all connections, or the idle ones: redis-py's Sentinel pool calls it with False."""
        if not inuse_connections:
            self.disconnect_idle()
            return
        self._ready.clear()
        super().disconnect()

    def disconnect_idle(self) -> None:
        """Close the connections that are not in use."""
        taken: list[Any] = []
        try:
            try:
                while self.pool.pop_into(taken):
                    pass
                for connection in taken:
                    if connection is not None:
                        self._ready.discard(connection)
                        connection.disconnect()
            finally:
                self._put_all_back(taken)
        finally:
            self._put_all_back(taken)  # if a signal handler has raised in the first `finally`

    def _put_all_back(self, taken: list[Any]) -> None:
        while taken:
            self.pool.push_from(taken)

    def _wait(self, deadline: float) -> None:
        """Wait until a connection may be idle, `POLL_INTERVAL` at most."""
        me = threading.get_ident()
        own = sum(bool(held) for thread, held in list(self._acquired.values()) if thread == me)
        if own >= self.max_connections:
            raise ReentrantCallError(
                "a call in a signal handler has interrupted one that has the only connection; "
                f"raise max_connections in the URL, which is {self.max_connections}"
            )
        try:
            left = seconds_until(deadline)
        except RedisTimeoutError:
            raise RedisTimeoutError("all connections were in use") from None
        self.pool.wait(POLL_INTERVAL if left is None else min(left, POLL_INTERVAL))

    def _connected(self, held: list[Any], deadline: float) -> Any:
        """Connect by a deadline: look up the name, ask Sentinels, connect, log in, select.

        Each of these steps has a timeout of its own, or none, as the look-up of a name. So a
        thread does them. If the thread is not done by the deadline, it is abandoned, and
        later puts the connection back into the queue itself.
        """
        # After a fork, the pool has another queue.
        attempt = _Attempt(self, held, seconds_until(deadline), self.pool)
        try:
            try:
                self._acquired[id(attempt)] = threading.get_ident(), attempt.held
                attempt.begin()
                attempt.wait()
            finally:
                attempt.leave()
                self._acquired.pop(id(attempt), None)
        finally:
            attempt.leave()  # if a signal handler has raised in the first `finally`
            self._acquired.pop(id(attempt), None)
        attempt.check(deadline)
        connection = held[0]
        self._ready.add(connection)
        return connection


class _Attempt:
    """An attempt to connect, in a thread of its own.

    When the thread begins, it moves the connection out of the caller's list into its own one,
    `held`. When it has ended, the caller moves the connection back. If the caller has left, or
    the attempt has failed, the thread puts the connection, disconnected, into a queue.
    """

    def __init__(
        self, pool: BlockingPool, held: list[Any], seconds: float | None, queue: Stack
    ) -> None:
        self.seconds = seconds
        self.error: BaseException | None = None
        self._pool = pool
        self._queue = queue
        self._callers = held
        self.held: list[Any] = []
        #: Whether the caller left before the thread ended: set once, by whichever is first.
        self._first: dict[str, bool] = {}
        self._ended = threading.Lock()
        self._ended.acquire()

    def begin(self) -> None:
        """Start the thread."""
        try:
            # Not `threading.Thread`, which holds a lock while it starts: a signal handler
            # that interrupted it there could start no thread. This thread is never joined.
            _thread.start_new_thread(self._run, ())
        except RuntimeError as error:  # no more threads, as when the interpreter is ending
            reraise_from_handler(error)
            self._run()

    def wait(self) -> None:
        """Wait until the thread has ended, `seconds` at most."""
        self._ended.acquire(timeout=-1 if self.seconds is None else self.seconds)

    def check(self, deadline: float) -> None:
        """Raise the error of the attempt, if it has failed or was abandoned.

        Raises:
            redis.exceptions.RedisError, OSError: it has.
        """
        if self._first.get(_CALLER, False):
            raise RedisTimeoutError("no connection in time")
        if self.error is not None:
            seconds_until(deadline)  # the attempt had the same deadline, which may be the cause
            raise self.error

    def leave(self) -> None:
        """Move the connection to the caller's list, or abandon the thread if it still runs."""
        if not self._first.setdefault(_CALLER, True) and self.error is None:
            move(self.held, self._callers)

    def _run(self) -> None:
        if not move(self._callers, self.held):
            return  # the caller has left
        try:
            self._connect()
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self.error = error
        if self._first.setdefault(_CALLER, False) or self.error is not None:
            try:
                self.held[0].disconnect()
            except Exception as error:  # noqa: BLE001 - the next user connects anew
                reraise_from_handler(error)  # without a thread, this may be the main one
            finally:
                self._queue.push_from(self.held)
        self._ended.release()

    def _connect(self) -> None:
        if self.held[0] is None:
            self.held[0] = self._pool.make_connection()  # type: ignore[no-untyped-call]
        connection = self.held[0]
        connection.disconnect()
        timeouts = connection.socket_timeout, connection.socket_connect_timeout
        connection.socket_timeout = connection.socket_connect_timeout = self.seconds
        try:
            connection.connect()
            memory.make_interruptible(connection)
        finally:
            connection.socket_timeout, connection.socket_connect_timeout = timeouts


def move(source: list[Any], target: list[Any]) -> bool:
    """Move the last item of a list to the end of another, atomically.

    Uses no ``except IndexError``, since a signal handler may raise an IndexError of its own.

    Returns:
        Whether there was an item.
    """
    before = len(target)
    target.extend(map(_pop, filter(None, (source,))))
    return len(target) > before


_pools: weakref.WeakSet[BlockingPool] = weakref.WeakSet()


def _forget_after_fork() -> None:
    """Reset all pools in a child process: redis-py does so at the first use, with a lock."""
    for pool in list(_pools):
        pool._lock = threading.RLock()  # noqa: SLF001 - a thread of the parent may hold the old one
        pool.reset()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forget_after_fork)
