"""The blocking driver's connections: bytes out, replies in, redis-py's errors translated."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .._core.failures import TOO_SHORT, TRANSIENT, Attempts
from .._core.observers import Operation, Outage, observe
from .._redis import errors as redis_py
from .._redis.replies import bound, check_nothing_came, its_socket, received_replies
from .._redis.stores import store_label
from ..errors import ReentrantCallError, StoreTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from .._cluster.handshake import Greeting
    from .._core.observers import Observer
    from ..errors import StoreError

__all__ = ["BlockingLink", "Sent", "finished"]

AnswerT = TypeVar("AnswerT")


@dataclass
class Sent:
    """What an exchange is about, and what it has written so far.

    Attributes:
        kind, size: as for `tallymark.Operation`.
        attempts: how often it was begun.
        bytes: how many bytes were written, or may have been.
    """

    kind: Literal["write", "read"]
    size: int
    attempts: int = 0
    bytes: int = 0


class BlockingLink:
    """Sends commands over connections of a redis-py client and reads their replies.

    Threads may share it: each exchange has a connection to itself.
    """

    def __init__(
        self,
        client: Any,
        *,
        owned: bool = False,
        greeting: Greeting | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Begin.

        Arguments:
            client: the client.
            owned: whether the tally made it; its pool is a `BlockingPool` then.
            greeting: what to say first; nothing, if somebody else does.
            observer: is told of each attempt.
        """
        self._pool = client.connection_pool
        self.owned = owned
        #: fakeredis's server, which would do the commands of a signal handler in the middle
        #: of the one that it has interrupted.
        self._embedded = self._pool.connection_kwargs.get("server")
        self._greeting = greeting
        self._closed = False
        self._observer = observer
        self._store = store_label(client)
        self._outage = Outage(self._store, time.monotonic)

    def exchange(
        self,
        data: bytes,
        count: int,
        sent: Sent,
        deadline: float,
        settle: Callable[[list[Any]], AnswerT],
        meanwhile: Iterable[object] = (),
    ) -> AnswerT:
        """Send commands and return what came of them; again, if that may mend it.

        Arguments:
            data: the commands.
            count: how many replies they have.
            sent: is kept up to date, also if it fails.
            deadline: when to give up, as `time.monotonic` has it.
            settle: makes the answer out of the replies.
            meanwhile: is iterated over once they are sent, while the server works.

        Raises:
            StoreError: there is no answer, with redis-py's error as its cause.
        """
        attempts = Attempts()
        while True:
            attempt = self.attempt(data, count, sent, deadline)
            try:
                next(attempt)
                for _ in meanwhile:
                    pass
                return settle(finished(attempt))
            except TRANSIENT as error:
                redis_py.let_pass(error)
                failure = error
            finally:
                attempt.close()
            time.sleep(attempts.pause(failure, deadline - time.monotonic()))

    def attempt(
        self, data: bytes, count: int, sent: Sent, deadline: float
    ) -> Generator[None, None, list[Any]]:
        """Make one attempt: yields when the commands are sent, and returns the replies.

        Arguments as for `exchange`. If it is closed in between, the connection is too.

        Raises:
            StoreError: what kept it from being answered.
        """
        sent.attempts += 1
        before = sent.bytes
        begun = 0.0 if self._observer is None else time.perf_counter()
        try:
            replies = yield from self._attempt(data, count, sent, deadline)
            self._check_late(sent, deadline)
        except Exception as error:  # noqa: BLE001 - redis-py has let AttributeErrors out
            redis_py.let_pass(error)
            failure = redis_py.failure(error)
            left = deadline - time.monotonic()
            final = not isinstance(failure, TRANSIENT) or left <= TOO_SHORT
            self._outage.failed(failure, final=final)
            if self._observer is not None:
                self._observe(self._observer, sent, before, begun, failure)
            redis_py.raise_failure(error)
        if self._outage.lasts:
            self._outage.is_over()
        if self._observer is not None:
            self._observe(self._observer, sent, before, begun, None)
        return replies

    def close(self) -> None:
        """Close the connections that the tally made; those in use, when they are given back."""
        self._closed = True
        if self.owned:
            self._pool.disconnect_idle()

    def _observe(
        self,
        observer: Observer,
        sent: Sent,
        before: int,
        begun: float,
        failure: StoreError | None,
    ) -> None:
        written = sent.bytes - before
        seconds = time.perf_counter() - begun if written else 0.0
        told = (self._store, sent.size, written, time.time(), seconds, failure)
        observe(observer, Operation(sent.kind, *told))

    def _check_late(self, sent: Sent, deadline: float) -> None:
        """Raise if the embedded store, which cannot be interrupted, has answered too late.

        Marks that it has applied stay acknowledged.
        """
        if self._embedded is not None and sent.kind == "read" and time.monotonic() >= deadline:
            raise StoreTimeoutError

    def _attempt(
        self, data: bytes, count: int, sent: Sent, deadline: float
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
                if self._greeting is not None and not self._greeting.done:
                    self._greet(self._greeting, connection, sent.kind == "write", deadline)
                # One deadline for all that is to come, however little of it comes at a time.
                found = its_socket(connection)
                if sent.kind == "read":
                    # Marks notice replies that are not theirs, by the form of a transaction's.
                    check_nothing_came(connection)
                if found is not None:
                    bound(found, deadline)
                sent.bytes += len(data)
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
    def _greet(greeting: Greeting, connection: Any, marking: bool, deadline: float) -> None:
        """Learn whether this is a database for the tally."""
        found = its_socket(connection)
        check_nothing_came(connection)
        if found is not None:
            bound(found, deadline)
        data, count = greeting.commands(marking=marking)
        connection.send_packed_command([data])
        greeting.check(received_replies(connection, count, deadline))

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
