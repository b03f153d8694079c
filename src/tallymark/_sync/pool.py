"""The blocking driver's connections: send bytes, read replies, translate redis-py's errors."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from .._core.failures import MIN_ATTEMPT_TIME, TRANSIENT
from .._core.observers import Operation, Outage, observe
from .._marking.stats import Totals
from .._redis import errors as redis_py
from .._redis.blocking_stream import BlockingStream
from .._redis.clocks import clocks
from .._redis.stores import store_label
from ..errors import ReentrantCallError, StoreTimeoutError
from .connection import Connection, shake_hands
from .group_commit import GroupCommit
from .leadership import Call
from .request_pipeline import RequestPipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from .._cluster.batches import AnyBatch
    from .._cluster.handshake import Handshake
    from .._core.observers import Observer
    from .._marking.number_cache import NumberCache
    from .._reading.execution import Sendable, Traffic
    from ..errors import StoreError
    from .shared_connection import SharedConnection

__all__ = ["Connections", "receive_replies"]

#: The only key of the group commits.
_ONLY: Final = "marks"


class Connections:
    """Sends commands over connections of a redis-py client and reads their replies.

    Threads may share it. Marks, by `group_commit`, share one connection, and small reads another
    one; each other attempt has a connection of the pool to itself.
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
            owned: whether the tally made the client; its pool is a `BlockingPool` then.
            handshake: the handshake to make before the first commands, unless it is done;
                ``None`` on a cluster, where `ClusterExecutions` makes it.
            observer: called after each attempt.
        """
        self._pool = client.connection_pool
        self.owned = owned
        #: fakeredis's server, which would execute a command of a signal handler in the
        #: middle of the command that the handler has interrupted.
        self._embedded = self._pool.connection_kwargs.get("server")
        self._handshake = handshake
        self._closed = False
        self._observer = observer
        self._store = store_label(client)
        self._outage = Outage(self._store, clocks.monotonic)
        #: Sends small requests; and the group commits that were made.
        self._pipeline: RequestPipeline | None = None
        if self._embedded is None:
            self._pipeline = RequestPipeline(
                lambda: Connection(self, handshake, marking=False),
                self._store,
                self._outage,
                observer,
            )
        self._commits: dict[str, GroupCommit] = {}

    def renew_locks(self) -> None:
        """Begin with no calls in progress, as in a child process."""
        for shared in self._shared():
            shared.reset()

    def exchange(self, request: Sendable, traffic: Traffic, deadline: float) -> list[Any]:
        """Make one attempt: send a request, return its replies.

        Small reads of several threads share a round trip. Other requests have a connection
        each.

        Arguments:
            request: the request.
            traffic, deadline: as for `attempt`.

        Raises:
            StoreError: the attempt failed.
        """
        pipeline = self._pipeline
        if pipeline is None or request.share <= 1 or pipeline.is_entered():
            attempt = self.attempt(request.encode(), request.reply_count(), traffic, deadline)
            try:
                next(attempt)
                return receive_replies(attempt)
            finally:
                attempt.close()
        call = Call(request, deadline)
        call.size, call.cost = request.reply_count(), 1 / request.share
        replies: list[Any] = pipeline.exchange(call)
        return replies

    def attempt(
        self, data: bytes, count: int, traffic: Traffic, deadline: float
    ) -> Generator[None, None, list[Any]]:
        """Make one attempt: a generator that sends commands, yields, and returns the replies.

        If the generator is closed at the ``yield``, the connection is closed too.

        Arguments:
            data: the commands.
            count: how many replies they have.
            traffic: is updated, also if the attempt fails.
            deadline: when to give up, by `time.monotonic`.

        Raises:
            StoreError: the attempt failed.
        """
        traffic.attempts += 1
        before = traffic.bytes
        begun = 0.0 if self._observer is None else clocks.perf_counter()
        try:
            replies = yield from self._attempt(data, count, traffic, deadline)
            if self._embedded is not None:
                self._check_late(traffic, deadline)
        except Exception as error:  # noqa: BLE001 - redis-py has let AttributeErrors out
            redis_py.let_pass(error)
            failure = redis_py.failure(error)
            left = deadline - clocks.monotonic()
            final = not isinstance(failure, TRANSIENT) or left <= MIN_ATTEMPT_TIME
            self._outage.failed(failure, final=final)
            if self._observer is not None:
                self._observe(self._observer, traffic, before, begun, failure)
            redis_py.raise_failure(error)
        if self._outage.lasts:
            self._outage.end()
        if self._observer is not None:
            self._observe(self._observer, traffic, before, begun, None)
        return replies

    def group_commit(
        self,
        new_batch: Callable[[], AnyBatch],
        *,
        are_plain: bool,
        numbers: NumberCache | None = None,
    ) -> GroupCommit | None:
        """Return the group commit, on a connection of its own; ``None`` on the embedded store.

        Arguments:
            new_batch, are_plain: as for `GroupCommit`.
            numbers: as for `Connection`.
        """
        if self._embedded is not None:
            return None
        commit = self._commits.get(_ONLY)
        if commit is None:
            # If another thread was first, this object has opened no connection yet.
            commit = self._commits.setdefault(
                _ONLY,
                GroupCommit(
                    lambda: Connection(self, self._handshake, marking=True, numbers=numbers),
                    self._store,
                    self._outage,
                    self._observer,
                    new_batch,
                    are_plain=are_plain,
                ),
            )
        if self._closed:
            commit.close()  # if it was made after that
        return commit

    def totals(self) -> Totals:
        """Return the counters of the group commit."""
        totals = Totals()
        for commit in list(self._commits.values()):
            totals.add(commit.totals())
        return totals

    def close(self) -> None:
        """Close the connections that the tally made; those in use, when they are released."""
        self._closed = True
        for shared in self._shared():
            shared.close()
        if self.owned:
            self._pool.disconnect_idle()

    def _shared(self) -> Iterator[SharedConnection]:
        if self._pipeline is not None:
            yield self._pipeline
        yield from list(self._commits.values())

    def _observe(
        self,
        observer: Observer,
        traffic: Traffic,
        before: int,
        begun: float,
        failure: StoreError | None,
    ) -> None:
        written = traffic.bytes - before
        seconds = clocks.perf_counter() - begun if written else 0.0
        operation = Operation(
            traffic.kind, self._store, traffic.size, written, time.time(), seconds, failure
        )
        observe(observer, operation)

    def _check_late(self, traffic: Traffic, deadline: float) -> None:
        """Raise if the embedded store has answered a read after the deadline.

        It cannot be interrupted. Marks that it has applied are acknowledged all the same.

        Raises:
            StoreTimeoutError: the deadline has passed.
        """
        if traffic.kind == "read" and clocks.monotonic() >= deadline:
            raise StoreTimeoutError

    def _attempt(
        self, data: bytes, count: int, traffic: Traffic, deadline: float
    ) -> Generator[None, None, list[Any]]:
        # A signal handler may raise anywhere, also where a connection is released.
        held: list[Any] = []
        intact = released = False
        entry = None
        if self._embedded is not None:
            entry = id(self._embedded), threading.get_ident()
            if entry in _entered:
                raise ReentrantCallError(
                    "a call in a signal handler has interrupted one of the embedded store, "
                    "which does one thing at a time"
                )
        try:
            try:
                if entry is not None:
                    _entered.add(entry)
                stream = BlockingStream(self._acquire(deadline, held))
                if traffic.kind == "read":
                    # Marks need no check: a reply to other commands is no transaction's reply.
                    stream.check_unused()
                if self._handshake is not None and not self._handshake.done:
                    shake_hands(
                        self._handshake,
                        stream,
                        marking=traffic.kind == "write",
                        deadline=deadline,
                    )
                stream.begin(deadline)
                traffic.sent = True
                traffic.bytes += len(data)
                stream.send(data)
                yield
                replies: list[Any] = []
                stream.receive(replies, count, deadline)
                stream.restore_timeout()
                intact = True
            finally:
                # A connection that is not intact may have unread replies, which the next
                # command would take for its own.
                self._release(held, intact)
                if entry is not None:
                    _entered.discard(entry)
                released = True
        finally:
            if not released:
                self._release(held, intact=False)
                if entry is not None:
                    _entered.discard(entry)
        return replies

    def connect_into(self, held: list[Any], deadline: float) -> None:
        """Connect a connection that threads share, and put it into the list ``held``.

        It is outside the pool of a client that the tally made.

        Arguments:
            held: an empty list.
            deadline: when to give up, by `time.monotonic`.
        """
        if self.owned:
            held.append(self._pool.connect_apart(deadline))
        else:
            self._acquire(deadline, held)

    def release_shared(self, held: list[Any], *, intact: bool) -> None:
        """Release the connection of `connect_into`, if there is one in the list."""
        if not self.owned:
            self._release(held, intact)
        elif held:
            held.pop().disconnect()

    def _acquire(self, deadline: float, held: list[Any]) -> Any:
        """Acquire a connection, put it into the list and return it."""
        if self.owned:
            return self._pool.acquire_into(held, deadline)
        with self._no_reentry():
            held.append(self._pool.get_connection())
        return held[0]

    def _release(self, held: list[Any], intact: bool) -> None:
        """Release the connection in the list, if there is one."""
        if self.owned:
            self._pool.release_from(held, intact=intact)
            if self._closed:  # while this connection was in use
                self._pool.disconnect_idle()
            return
        if held:
            if not intact:
                held[0].disconnect()
            with self._no_reentry():
                # Out of the list first: a connection released twice would serve two threads.
                self._pool.release(held.pop())

    @contextlib.contextmanager
    def _no_reentry(self) -> Iterator[None]:
        """Guard a call of the caller's pool against a signal handler that interrupts the call.

        If the lock of the pool is not re-entrant, the handler would wait for it for ever.

        Raises:
            ReentrantCallError: this thread is in a call of the pool.
        """
        entry = id(self._pool), threading.get_ident()
        if entry in _entered:
            raise ReentrantCallError(
                "a call in a signal handler has interrupted the pool of this client; a tally "
                "from SyncTally.from_url has a pool that can be interrupted"
            )
        try:
            try:
                _entered.add(entry)
                yield
            finally:
                _entered.discard(entry)
        finally:
            _entered.discard(entry)  # if a signal handler has raised in the first `finally`


#: The calls of callers' pools, and of embedded stores, that run now: the ids of the pool or
#: store and of the thread.
_entered: set[tuple[int, int]] = set()

if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_entered.clear)


def receive_replies(attempt: Generator[None, None, list[Any]]) -> list[Any]:
    """Receive the replies of an attempt that was sent, and return them."""
    try:
        next(attempt)
    except StopIteration as end:
        replies: list[Any] = end.value
        return replies
    raise RuntimeError("an attempt yields once")  # pragma: no cover - so this is never reached
