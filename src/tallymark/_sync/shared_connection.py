"""Calls of several threads share the round trips of one connection: leader and followers.

One thread at a time is the leader, and has the connection. It sends its own call together with
all calls that have gathered meanwhile, reads the replies, and wakes the other threads, the
followers, with theirs. Then the first follower whose call was not sent yet becomes the leader.
There is no thread besides those of the callers, and a lone thread waits for nobody. The pattern
is that of the write groups of storage engines, and of flat combining
(Hendler, Incze, Shavit, Tzafrir: Flat combining and the synchronization-parallelism tradeoff,
2010).

`tallymark._sync.leadership` says how the state changes although a signal handler can interrupt
and raise anywhere.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Literal

from .._core.failures import MIN_ATTEMPT_TIME, TRANSIENT, copied
from .._core.observers import Operation, observe
from .._core.untrusted import reraise_from_handler
from .._redis import errors as redis_py
from .._redis.blocking_pool import POLL_INTERVAL, move
from .._redis.clocks import clocks
from ..errors import StoreError, StoreTimeoutError, StoreUnavailableError
from .leadership import LEFT, Leadership, entered_threads, give_back, take

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._core.observers import Observer, Outage
    from .._reading.execution import Sendable
    from .connection import Connection
    from .leadership import Call

__all__ = ["SharedConnection"]

_popleft: Final[Callable[[deque[Call]], Call]] = deque.popleft


class SharedConnection:
    """A connection on which calls of several threads share round trips.

    Attributes:
        last_failure: the last failure, until the next success.
        bytes_sent, retries: as for `tallymark.Stats`. Changed by the leader alone.
    """

    kind: Literal["write", "read"]

    def __init__(
        self,
        connect: Callable[[], Connection],
        store: str,
        outage: Outage,
        observer: Observer | None,
    ) -> None:
        """Begin without a connection.

        Arguments:
            connect: makes the connection, which is not connected yet.
            store: the server's name for observers.
            outage: the outages of the server.
            observer: called after each attempt.
        """
        self._new_connection = connect
        self._store = store
        self._outage = outage
        self._observer = observer
        self.last_failure: StoreError | None = None
        self.bytes_sent = self.retries = 0
        self.reset()

    def reset(self) -> None:
        """Begin anew without a connection, as in a forked child process."""
        self._queue: deque[Call] = deque()
        #: Has the leadership, unless a thread has it.
        self._free: dict[str, Leadership] = {}
        connection = self._new_connection()
        self._keeps_connection = connection.owned
        give_back([Leadership(connection)], self._free)
        #: The waiters of threads that may be asleep.
        self._asleep: dict[Any, bool] = {}
        self._closed = False

    def close(self) -> None:
        """Close the connection; if a thread uses it, when that thread has ended its call."""
        self._closed = True
        self._close_if_free()

    def _close_if_free(self) -> None:
        held: list[Leadership] = []
        free = self._free
        try:
            try:
                if take(free, held) and not held[0].calls:
                    held[0].connection.close()
            finally:
                give_back(held, free)
        finally:
            give_back(held, free)  # if a signal handler has raised in the first `finally`
        if self._queue and free:
            self._wake_first()

    @staticmethod
    def is_entered() -> bool:
        """Return whether this thread is in `exchange`, of this or of another shared connection.

        So it is in a signal handler, a finalizer or an observer. It must not wait for a
        connection that threads share: the thread that has it may wait for this one.
        """
        return bool(entered_threads) and threading.get_ident() in entered_threads

    def exchange(self, call: Call) -> Any:
        """Have a call sent; return its outcome: results or replies, or `AGAIN`.

        Raises:
            StoreError: the attempt failed; `StoreTimeoutError` at the deadline. `Call.sent`
                says whether a byte of the call may have been written.
        """
        free = self._free
        held: list[Leadership] = []
        left = False
        thread = threading.get_ident()
        try:
            try:
                entered_threads[thread] = True
                if not self._queue and take(free, held) and not held[0].calls:
                    held[0].calls.append(call)
                else:
                    self._follow(call, free, held)
                if held:
                    self._lead(call, free, held)
            finally:
                self._leave(call, free, held)
                entered_threads.pop(thread, None)
                left = True
        finally:
            if not left:  # if a signal handler has raised in the first `finally`
                self._leave(call, free, held)
                entered_threads.pop(thread, None)
        outcome = call.outcome
        if isinstance(outcome, StoreError):
            raise outcome
        return outcome

    # --- what differs between marks and reads

    def _request(self, calls: Sequence[Call]) -> Sendable:
        """Return one request for some calls."""
        raise NotImplementedError

    def _receive(self, leadership: Leadership, deadline: float) -> Sequence[Any]:
        """Read the replies to the calls of a leadership; return the outcome of each call.

        Arguments:
            leadership: the leadership; its connection owes the replies.
            deadline: when to give up, by `time.monotonic`.

        Raises:
            redis.exceptions.RedisError, OSError: the connection broke, or time is up.
            StoreError: the replies do not fit the request.
        """
        raise NotImplementedError

    # --- followers

    def _follow(self, call: Call, free: dict[str, Leadership], held: list[Leadership]) -> None:
        """Put a call into the queue; wait until it has an outcome, or until this thread leads.

        Raises:
            StoreTimeoutError: the deadline has passed.
        """
        waiter = call.follow()
        self._queue.append(call)
        asleep = self._asleep
        try:
            while True:
                asleep[waiter] = True  # from now on, the thread may be woken
                move(call.mailbox, held)
                if call.outcome is not None or held or take(free, held):
                    return
                left = call.deadline - clocks.monotonic()
                if left <= 0:
                    failure = self.last_failure or StoreTimeoutError()
                    raise copied(failure, str(failure))
                waiter.acquire(timeout=min(left, POLL_INTERVAL))
        finally:
            asleep.pop(waiter, None)

    def _wake(self, call: Call) -> None:
        # Whoever removes the waiter releases it, so it is released once.
        if self._asleep.pop(call.waiter, False):
            try:
                call.waiter.release()
            except RuntimeError as error:  # released after two times of being removed
                reraise_from_handler(error)

    def _leave(self, call: Call, free: dict[str, Leadership], held: list[Leadership]) -> None:
        """End a call; pass the leadership on, if the thread has it."""
        if call.outcome is None:
            call.outcome = LEFT
            if call.waiter is not None:
                try:
                    self._queue.remove(call)
                except ValueError as error:
                    reraise_from_handler(error)
                    call.sent = True  # a leader has it, and may be sending it
        if call.waiter is not None:
            call.has_left = True
            move(call.mailbox, held)
        if held:
            self._hand_over(free, held)

    def _hand_over(self, free: dict[str, Leadership], held: list[Leadership]) -> None:
        """Pass the leadership on, in a state in which another thread can use it."""
        in_flight: list[Call] = []
        try:
            leadership = held[0]
            if (
                leadership.calls
                or not leadership.intact
                or self._closed
                or not self._keeps_connection
            ):
                in_flight = self._settle(leadership)
        finally:
            self._pass_on(in_flight, free, held)

    def _settle(self, leadership: Leadership) -> list[Call]:
        """Prepare a leadership for the next leader; return the calls that are in flight."""
        if leadership.on_the_wire:
            return list(leadership.calls)
        if leadership.calls or not leadership.intact:
            self._interrupted(leadership)
        if self._closed:
            leadership.connection.close()
        else:
            leadership.connection.release()
        return []

    def _pass_on(
        self, in_flight: Sequence[Call], free: dict[str, Leadership], held: list[Leadership]
    ) -> None:
        """Pass the leadership on: to a call in flight, or the first in the queue, if there is one.

        Its thread has to be woken in any case. If other threads could be faster, it would wake
        in vain: 16 threads make 1.13 times as many marks this way.
        """
        if in_flight or self._queue:
            for call in itertools.chain(in_flight, self._queue.copy()):
                if call.outcome is None and self._offer(call, held):
                    return
        give_back(held, free)
        if self._queue:  # of a call that came meanwhile
            self._wake_first()
        if self._closed:  # meanwhile
            self._close_if_free()

    def _offer(self, call: Call, held: list[Leadership]) -> bool:
        """Pass the leadership on to the thread of a call; return False if that has left."""
        try:
            move(held, call.mailbox)
            self._wake(call)
        finally:
            # The thread may leave at any moment. Whichever of both is first has the leadership.
            if call.has_left:
                move(call.mailbox, held)
        return not held

    def _wake_first(self) -> None:
        """Wake the thread of the first call in the queue."""
        for call in self._queue.copy():
            self._wake(call)
            return

    # --- the leader

    def _lead(self, own: Call, free: dict[str, Leadership], held: list[Leadership]) -> None:
        """Serve calls, until the leader's own call has an outcome; pass the leadership on then.

        Raises:
            StoreError: the attempt of the own call failed, or its deadline has passed.
        """
        leadership = held[0]
        while own.outcome is None:
            receiving = leadership.on_the_wire
            # A signal handler may interrupt what follows.
            leadership.on_the_wire = leadership.intact = False
            operation = None
            try:
                if not receiving:
                    self._send(leadership, own)
                    receiving = True
                elif all(call.outcome is not None for call in leadership.calls):
                    self._fail(leadership, StoreTimeoutError(), own)  # the server does not answer
                    continue
                outcomes = self._receive(leadership, own.deadline)
            except Exception as error:  # noqa: BLE001 - redis-py has let AttributeErrors out
                redis_py.let_pass(error)
                failure = redis_py.failure(error)
                if receiving and self._others_wait(leadership, own, failure):
                    leadership.on_the_wire = True
                else:
                    operation = self._fail(leadership, failure, own)
                self._hand_over(free, held)
                self._observe(operation)
                redis_py.raise_failure(error)
            if self._outage.lasts:
                self._outage.end()
            self.last_failure = None
            if self._observer is not None:
                operation = self._operation(leadership, None)
            calls = leadership.calls
            for call, outcome in zip(calls, outcomes, strict=True):
                call.outcome = outcome
            leadership.clear()
            if own.outcome is not None:
                # First the next leader, then the others: the server has nothing to do until then.
                self._hand_over(free, held)
            for call in calls:
                if call is not own:
                    self._wake(call)
            self._observe(operation)

    def _send(self, leadership: Leadership, own: Call) -> None:
        """Send the own call, or those in the queue."""
        if leadership.calls and leadership.calls[0] is not own:
            self._interrupted(leadership)  # a leader that could not end its calls
            leadership.intact = False  # a signal handler may interrupt what follows
        connection = leadership.connection
        connection.prepare(own.deadline)
        if not leadership.calls:
            self._take_calls(leadership)
        calls = leadership.calls
        request = leadership.request = self._request(calls)
        data = request.encode()
        repeated = False
        for call in calls:
            call.sent = True
            repeated |= call.repeated
        if repeated:
            self.retries += 1
        leadership.written = written = len(data)
        self.bytes_sent += written
        if self._observer is not None:
            leadership.began = clocks.perf_counter()
        connection.send(data)

    def _take_calls(self, leadership: Leadership) -> None:
        """Take as many calls from the queue as may share a round trip."""
        calls, queue = leadership.calls, self._queue
        free = 1.0
        for call in queue.copy():
            if free < call.cost and calls:
                break
            free -= call.cost
            # Another call, if this one has left meanwhile; none, if all have.
            try:
                calls.extend(map(_popleft, (queue,)))
            except IndexError as error:
                reraise_from_handler(error)
                break
        leadership.calls = [call for call in calls if call.outcome is None]

    def _others_wait(self, leadership: Leadership, own: Call, failure: StoreError) -> bool:
        """Return whether only the own deadline has passed, and other calls wait for replies."""
        return (
            isinstance(failure, StoreTimeoutError)
            and own.deadline - clocks.monotonic() <= MIN_ATTEMPT_TIME
            and any(call.outcome is None and call is not own for call in leadership.calls)
        )

    # --- outcomes

    def _fail(self, leadership: Leadership, failure: StoreError, own: Call) -> Operation | None:
        """End the calls of a leadership with an error, and close the connection.

        Arguments:
            leadership: the leadership; without calls if there was no connection to send them.
            failure: the error.
            own: the leader's call.

        Returns:
            The operation for the observer, if there is one.
        """
        leadership.calls = leadership.calls or [own]
        expired = clocks.monotonic() + MIN_ATTEMPT_TIME
        calls = leadership.calls
        final = not isinstance(failure, TRANSIENT) or all(
            call.deadline <= expired for call in calls
        )
        self._outage.failed(failure, final=final)
        self.last_failure = failure
        operation = None if self._observer is None else self._operation(leadership, failure)
        self._end(leadership, failure)
        return operation

    def _interrupted(self, leadership: Leadership) -> None:
        """End calls whose leader a signal handler has interrupted; they will be sent again."""
        self._end(
            leadership, StoreUnavailableError("the thread that sent the call was interrupted")
        )

    def _end(self, leadership: Leadership, failure: StoreError) -> None:
        try:
            leadership.connection.close()
        finally:
            for call in leadership.calls:
                if call.outcome is None:
                    call.outcome = copied(failure, str(failure))
                    if call.waiter is not None:
                        self._wake(call)
            leadership.clear()

    def _operation(self, leadership: Leadership, failure: StoreError | None) -> Operation:
        """Return an attempt for the observer."""
        seconds = clocks.perf_counter() - leadership.began if leadership.written else 0.0
        size = sum([call.size for call in leadership.calls])
        return Operation(
            self.kind, self._store, size, leadership.written, time.time(), seconds, failure
        )

    def _observe(self, operation: Operation | None) -> None:
        """Call the observer, when other threads can lead: it may mark and read."""
        if operation is not None and self._observer is not None:
            observe(self._observer, operation)
