"""The blocking driver's connections: bytes out, replies in, redis-py's errors translated."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from .._core.failures import TOO_SHORT, TRANSIENT
from .._core.observers import Operation, Outage, observe
from .._redis import errors as redis_py
from .._redis.replies import bound, check_nothing_came, its_socket, received_replies
from .._redis.stores import store_label
from ..errors import ReentrantCallError, StoreTimeoutError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from .._cluster.handshake import Handshake
    from .._core.observers import Observer
    from .._reading.execution import Traffic
    from ..errors import StoreError

__all__ = ["Connections", "finished"]


class Connections:
    """Sends commands over connections of a redis-py client and reads their replies.

    Threads may share it: each exchange has a connection to itself.
    """

    def __init__(
        self,
        client: Any,
        *,
        owned: bool = False,
        handshake: Handshake | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Begin.

        Arguments:
            client: the client.
            owned: whether the tally made it; its pool is a `BlockingPool` then.
            handshake: what to say first; nothing, if somebody else does.
            observer: is told of each attempt.
        """
        self._pool = client.connection_pool
        self.owned = owned
        #: fakeredis's server, which would do the commands of a signal handler in the middle
        #: of the one that it has interrupted.
        self._embedded = self._pool.connection_kwargs.get("server")
        self._handshake = handshake
        self._closed = False
        self._observer = observer
        self._store = store_label(client)
        self._outage = Outage(self._store, time.monotonic)

    def attempt(
        self, data: bytes, count: int, traffic: Traffic, deadline: float
    ) -> Generator[None, None, list[Any]]:
        """Make one attempt: yields when the commands are sent, and returns the replies.

        If it is closed in between, the connection is closed too.

        Arguments:
            data: the commands.
            count: how many replies they have.
            traffic: is kept up to date, also if the attempt fails.
            deadline: when to give up, as `time.monotonic` has it.

        Raises:
            StoreError: why there is no answer.
        """
        traffic.attempts += 1
        before = traffic.bytes
        begun = 0.0 if self._observer is None else time.perf_counter()
        try:
            replies = yield from self._attempt(data, count, traffic, deadline)
            self._check_late(traffic, deadline)
        except Exception as error:  # noqa: BLE001 - redis-py has let AttributeErrors out
            redis_py.let_pass(error)
            failure = redis_py.failure(error)
            left = deadline - time.monotonic()
            final = not isinstance(failure, TRANSIENT) or left <= TOO_SHORT
            self._outage.failed(failure, final=final)
            if self._observer is not None:
                self._observe(self._observer, traffic, before, begun, failure)
            redis_py.raise_failure(error)
        if self._outage.lasts:
            self._outage.is_over()
        if self._observer is not None:
            self._observe(self._observer, traffic, before, begun, None)
        return replies

    def close(self) -> None:
        """Close the connections that the tally made; those in use, when they are given back."""
        self._closed = True
        if self.owned:
            self._pool.disconnect_idle()

    def _observe(
        self,
        observer: Observer,
        traffic: Traffic,
        before: int,
        begun: float,
        failure: StoreError | None,
    ) -> None:
        written = traffic.bytes - before
        seconds = time.perf_counter() - begun if written else 0.0
        told = (self._store, traffic.size, written, time.time(), seconds, failure)
        observe(observer, Operation(traffic.kind, *told))

    def _check_late(self, traffic: Traffic, deadline: float) -> None:
        """Raise if the embedded store, which cannot be interrupted, has answered too late.

        Marks that it has applied stay acknowledged.
        """
        if self._embedded is not None and traffic.kind == "read" and time.monotonic() >= deadline:
            raise StoreTimeoutError

    def _attempt(
        self, data: bytes, count: int, traffic: Traffic, deadline: float
    ) -> Generator[None, None, list[Any]]:
        # A signal handler may raise anywhere, also where a connection is given back.
        held: list[Any] = []
        intact = given_back = False
        alone = None
        if self._embedded is not None:
            alone = id(self._embedded), threading.get_ident()
            if alone in _inside:
                raise ReentrantCallError(
                    "a call in a signal handler has interrupted one of the embedded store, "
                    "which does one thing at a time"
                )
        try:
            try:
                if alone is not None:
                    _inside.add(alone)
                connection = self._borrow(deadline, held)
                if self._handshake is not None and not self._handshake.done:
                    self._shake_hands(
                        self._handshake, connection, traffic.kind == "write", deadline
                    )
                # One deadline for all that is to come, however little of it comes at a time.
                found = its_socket(connection)
                if traffic.kind == "read":
                    # Marks notice replies that are not theirs, by the form of a transaction's.
                    check_nothing_came(connection)
                if found is not None:
                    bound(found, deadline)
                traffic.bytes += len(data)
                connection.send_packed_command([data])
                yield
                replies = received_replies(connection, count, deadline)
                if found is not None and found.gettimeout() != connection.socket_timeout:
                    found.settimeout(connection.socket_timeout)
                intact = True
            finally:
                # If not intact, replies may be left unread: on this connection, every
                # later answer would be taken for that of another command.
                self._give_back(held, intact)
                if alone is not None:
                    _inside.discard(alone)
                given_back = True
        finally:
            if not given_back:
                self._give_back(held, intact=False)
                if alone is not None:
                    _inside.discard(alone)
        return replies

    @staticmethod
    def _shake_hands(handshake: Handshake, connection: Any, marking: bool, deadline: float) -> None:
        """Learn whether the database is sharded as the tally is."""
        found = its_socket(connection)
        check_nothing_came(connection)
        if found is not None:
            bound(found, deadline)
        data, count = handshake.commands(marking=marking)
        connection.send_packed_command([data])
        handshake.check(received_replies(connection, count, deadline))

    def _borrow(self, deadline: float, held: list[Any]) -> Any:
        """Return a connection, which is in the list then."""
        if self.owned:
            return self._pool.borrow(deadline, held)
        with self._alone_in_the_pool():
            held.append(self._pool.get_connection())
        return held[0]

    def _give_back(self, held: list[Any], intact: bool) -> None:
        if self.owned:
            self._pool.give_back(held, intact=intact)
            if self._closed:  # close() saw this connection in use
                self._pool.disconnect_idle()
            return
        if held:
            if not intact:
                held[0].disconnect()
            with self._alone_in_the_pool():
                # Given back twice, it would be lent to two at the same time.
                self._pool.release(held.pop())

    @contextlib.contextmanager
    def _alone_in_the_pool(self) -> Iterator[None]:
        """Keep a signal handler out of a pool of the caller's that it has interrupted.

        It would wait for ever for a lock that the pool holds, where that is not re-entrant.
        """
        me = id(self._pool), threading.get_ident()
        if me in _inside:
            raise ReentrantCallError(
                "a call in a signal handler has interrupted the pool of this client; a tally "
                "from SyncTally.from_url has a pool that can be interrupted"
            )
        try:
            try:
                _inside.add(me)
                yield
            finally:
                _inside.discard(me)
        finally:
            _inside.discard(me)  # if a signal handler has raised in the first one


#: Which threads are in which pools of callers, and embedded stores, at the moment.
_inside: set[tuple[int, int]] = set()

if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_inside.clear)


def finished(attempt: Generator[None, None, list[Any]]) -> list[Any]:
    """Return the replies of an attempt that was sent."""
    try:
        next(attempt)
    except StopIteration as end:
        replies: list[Any] = end.value
        return replies
    raise RuntimeError("an attempt is sent once")  # pragma: no cover - it yields once
