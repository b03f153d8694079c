"""The connection pool of the blocking driver: redis-py's, with a short way through it.

At each checkout redis-py polls the socket, and keeps statistics, to learn
whether the server has closed the connection meanwhile. A mark learns that from
its own reply, and is sent again; without the detour it takes an eighth less.

Signal handlers run in the middle of anything that the main thread does, may use
the pool there, and may raise. So nothing here holds a lock while it changes
something: a connection goes from the pool to its borrower, and back, in one
call of C, during which Python runs no handler. And no exception that a handler may
have raised is taken for "there is none".
"""

from __future__ import annotations

import _thread
import math
import os
import threading
import time
import weakref
from queue import Empty, Full
from typing import TYPE_CHECKING, Any, Final

from redis import BlockingConnectionPool
from redis.exceptions import TimeoutError as RedisTimeoutError

from .._core.untrusted import let_handlers_pass
from ..errors import ReentrantCallError
from . import memory
from .replies import seconds_until

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BlockingPool", "Stack"]

#: Who waits for a connection looks for one after so many seconds even if nobody has told
#: that there is: whoever was about to may have been interrupted by an exception.
_LOOK_AGAIN: Final = 0.1

_LEFT: Final = "left"

_pop: Final[Callable[[list[Any]], Any]] = list.pop


class Stack:
    """The queue of a pool, last in, first out: what redis-py needs of `queue.LifoQueue`.

    That one has a lock, for which a signal handler would wait for ever if it had
    interrupted its holder.
    """

    def __init__(self, maxsize: int) -> None:
        """Begin empty, with room for so many items."""
        self.maxsize = maxsize
        self.queue: list[Any] = []
        #: The locks for which others wait, the first one first; the values mean nothing.
        self._waiting: dict[Any, bool] = {}

    def put_nowait(self, item: Any) -> None:
        """Put an item on the top.

        Raises:
            queue.Full: there is no room.
        """
        if len(self.queue) >= self.maxsize:
            raise Full
        self.queue.append(item)
        self._wake()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the item on the top.

        Raises:
            queue.Empty: there was none for so many seconds.
        """
        held: list[Any] = []
        ends = math.inf if timeout is None else time.monotonic() + timeout
        while not self.take(held):
            left = ends - time.monotonic()
            if not block or left <= 0:
                raise Empty
            self.wait(min(left, _LOOK_AGAIN))
        return held.pop()

    def get_nowait(self) -> Any:
        """Take the item on the top, if there is one."""
        return self.get(block=False)

    def take(self, held: list[Any]) -> bool:
        """Move the item on the top to the end of a list, in one step; tell if there was one."""
        before = len(held)
        held.extend(map(_pop, filter(None, (self.queue,))))  # as `_move`, without the call
        return len(held) > before

    def put_back(self, held: list[Any]) -> None:
        """Move the last item of a list to the top, in one step; of an empty one, nothing."""
        self.queue.extend(map(_pop, filter(None, (held,))))
        if self._waiting:
            self._wake()

    def wait(self, seconds: float) -> None:
        """Wait until there may be an item, so many seconds at most."""
        waiter = threading.Lock()
        waiter.acquire()
        try:
            self._waiting[waiter] = True
            if not self.queue:  # one may have come before it was known that somebody waits
                waiter.acquire(timeout=seconds)
        finally:
            self._waiting.pop(waiter, None)

    def _wake(self) -> None:
        for waiter in list(self._waiting):
            if self._waiting.pop(waiter, False):  # else another thread was first
                waiter.release()
                return


class BlockingPool(BlockingConnectionPool):
    """Lends connections to a tally; all else, such as the tally's client, uses it as ever.

    Works on the queue of idle connections that redis-py documents as
    ``queue_class``, in which ``None`` stands for one that is yet to be made.
    """

    pool: Any  # a `Stack`

    def __init__(self, *args: Any, **settings: Any) -> None:
        """Make one of the same arguments as redis-py's."""
        settings["queue_class"] = Stack
        super().__init__(*args, **settings)  # type: ignore[no-untyped-call]
        _pools.add(self)

    def __repr__(self) -> str:
        """Name its class alone: redis-py 6 and 7 show all settings, and so passwords."""
        return f"<{type(self).__name__}>"

    def reset(self) -> None:
        """Forget all connections; redis-py calls this when made, and after a fork."""
        super().reset()  # type: ignore[no-untyped-call]
        #: What `borrow` may hand out as it is.
        self._ready: set[Any] = set()
        #: Which thread has borrowed what; known before it has it.
        self._lent: dict[int, tuple[int, list[Any]]] = {}

    def borrow(self, deadline: float, held: list[Any]) -> Any:
        """Return a connected connection, which `give_back` has to get in the end.

        Waits if all are in use.

        Arguments:
            deadline: when to give up, as `time.monotonic` has it.
            held: an empty list, which holds the connection as soon as it is borrowed:
                also if an exception of a signal handler comes before the return.

        Raises:
            redis.exceptions.RedisError, OSError: all stayed in use, or no
                connection can be made.
            ReentrantCallError: the calling thread has all of them in use itself.
        """
        self._checkpid()
        self._lent[id(held)] = threading.get_ident(), held
        while not self.pool.take(held):
            self._wait(deadline)
        connection = held[0]
        if connection not in self._ready:
            connection = self._connected(held, deadline)
        return connection

    def give_back(self, held: list[Any], *, intact: bool) -> None:
        """Take back what was borrowed; a connection that is not intact gets disconnected."""
        for connection in list(held):
            if connection is not None and not intact:
                self._ready.discard(connection)
                connection.disconnect()
        self.pool.put_back(held)
        self._lent.pop(id(held), None)

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close all connections, or those that nobody uses; redis-py's pool for Sentinels does."""
        if not inuse_connections:
            self.disconnect_idle()
            return
        self._ready.clear()
        super().disconnect()

    def disconnect_idle(self) -> None:
        """Close the connections that nobody uses."""
        taken: list[Any] = []
        try:
            try:
                while self.pool.take(taken):
                    pass
                for connection in taken:
                    if connection is not None:
                        self._ready.discard(connection)
                        connection.disconnect()
            finally:
                self._put_all_back(taken)
        finally:
            self._put_all_back(taken)  # if a signal handler has raised in the first one

    def _put_all_back(self, taken: list[Any]) -> None:
        while taken:
            self.pool.put_back(taken)

    def _wait(self, deadline: float) -> None:
        """Wait for a connection, or at least a while."""
        me = threading.get_ident()
        mine = sum(bool(held) for thread, held in list(self._lent.values()) if thread == me)
        if mine >= self.max_connections:
            raise ReentrantCallError(
                "a call in a signal handler has interrupted one that has the only connection; "
                f"raise max_connections in the URL, which is {self.max_connections}"
            )
        try:
            left = seconds_until(deadline)
        except RedisTimeoutError:
            raise RedisTimeoutError("all connections were in use") from None
        self.pool.wait(_LOOK_AGAIN if left is None else min(left, _LOOK_AGAIN))

    def _connected(self, held: list[Any], deadline: float) -> Any:
        """Connect by a deadline: look up the name, ask Sentinels, connect, log in, select.

        Each of these waits has a timeout of its own, or none, as the look-up of
        a name; so a thread does it. If it is not done in time, nobody waits for it
        any more, and it puts the connection's place back into the queue itself.
        """
        attempt = _Attempt(self, held, seconds_until(deadline))
        try:
            try:
                self._lent[id(attempt)] = threading.get_ident(), attempt.place
                attempt.begin()
                attempt.wait()
            finally:
                attempt.leave()
                self._lent.pop(id(attempt), None)
        finally:
            attempt.leave()  # if a signal handler has raised in the first one
            self._lent.pop(id(attempt), None)
        if attempt.abandoned:
            raise RedisTimeoutError("no connection in time")
        if attempt.error is not None:
            seconds_until(deadline)  # if time is up, that is why, whatever it looks like
            raise attempt.error
        connection = held[0]
        self._ready.add(connection)
        return connection


class _Attempt:
    """An attempt to connect, in a thread of its own.

    The connection's place is the thread's from when it has begun, until it has ended
    and its caller is there to get it.
    """

    def __init__(self, pool: BlockingPool, held: list[Any], seconds: float | None) -> None:
        self.seconds = seconds
        self.error: BaseException | None = None
        self._pool = pool
        self._queue = pool.pool  # after a fork, the pool has another one
        self._given = held
        self.place: list[Any] = []
        #: Which of the two was first, decided in one step: its caller has left, or it has ended.
        self._first: dict[str, bool] = {}
        self._ended = threading.Lock()
        self._ended.acquire()

    def begin(self) -> None:
        """Start the thread."""
        try:
            # Not `threading.Thread`: it starts with a lock held, so that no other thread
            # can start in a signal handler that interrupts it. Nobody joins this one.
            _thread.start_new_thread(self._run, ())
        except RuntimeError as error:  # no more threads, as when the interpreter is ending
            let_handlers_pass(error)
            self._run()

    def wait(self) -> None:
        """Wait until it has ended, or time is up."""
        self._ended.acquire(timeout=-1 if self.seconds is None else self.seconds)

    @property
    def abandoned(self) -> bool:
        """Whether its caller has left before it has ended, as far as that is decided."""
        return self._first.get(_LEFT, False)

    def leave(self) -> None:
        """Take the connection; if it is not there yet, the thread is left to itself."""
        if not self._first.setdefault(_LEFT, True) and self.error is None:
            _move(self.place, self._given)

    def _run(self) -> None:
        if not _move(self._given, self.place):
            return  # its caller has gone
        try:
            self._connect()
        except BaseException as error:  # noqa: BLE001 - raised again, where somebody waits
            self.error = error
        if self._first.setdefault(_LEFT, False) or self.error is not None:
            try:
                self.place[0].disconnect()
            except Exception as error:  # noqa: BLE001 - it is not used again as it is
                let_handlers_pass(error)  # without a thread, this may be the main one
            finally:
                self._queue.put_back(self.place)
        self._ended.release()

    def _connect(self) -> None:
        if self.place[0] is None:
            self.place[0] = self._pool.make_connection()  # type: ignore[no-untyped-call]
        connection = self.place[0]
        connection.disconnect()
        timeouts = connection.socket_timeout, connection.socket_connect_timeout
        connection.socket_timeout = connection.socket_connect_timeout = self.seconds
        try:
            connection.connect()
            memory.make_interruptible(connection)
        finally:
            connection.socket_timeout, connection.socket_connect_timeout = timeouts


def _move(source: list[Any], target: list[Any]) -> bool:
    """Move the last item of a list to the end of another one, in one step; tell if there was one.

    Without an IndexError if there is none, which could be one of a signal handler.
    """
    before = len(target)
    target.extend(map(_pop, filter(None, (source,))))
    return len(target) > before


_pools: weakref.WeakSet[BlockingPool] = weakref.WeakSet()


def _forget_after_fork() -> None:
    """Begin anew in a child process, before redis-py does it at the first use, with a lock."""
    for pool in list(_pools):
        pool._lock = threading.RLock()  # noqa: SLF001 - a thread that is not here may hold it
        pool.reset()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forget_after_fork)
