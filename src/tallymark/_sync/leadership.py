"""Who uses a connection that threads share: calls, the leadership, and how it is passed on.

A signal handler can interrupt the main thread anywhere, and can raise. So no lock is held while
the state changes: the leadership moves from one list to another in one call of a C function,
during which Python runs no handler. Each of these moves is atomic with and without the global
interpreter lock: `take`, `give_back`, and `tallymark._redis.blocking_pool.move`.
"""

from __future__ import annotations

import _thread
import os
from typing import TYPE_CHECKING, Any, Final

from .._marking.sizing import MAX_BATCH_MARKS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .connection import Connection

__all__ = ["AGAIN", "LEFT", "Call", "Leadership", "entered_threads", "give_back", "take"]

#: The outcome of a call that has to be made again: it was not applied only because the server
#: refused another call of its transaction.
AGAIN: Final[Any] = object()

#: The outcome of a call whose thread waits no more.
LEFT: Final = object()

#: The only key of the dictionary that has the leadership while no thread has it.
_LEADERSHIP: Final = ("leadership",)
_NOBODY: Final = (None,)

_pop: Final[Callable[[list[Any]], Any]] = list.pop


#: The threads that are in a call on a connection that threads share, by their ids.
entered_threads: Final[dict[int, bool]] = {}

if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=entered_threads.clear)


class Call:
    """What one thread wants to be sent.

    Attributes:
        payload: the marks, or the request.
        size: how many marks, or commands, it has.
        cost: which part of a round trip it takes: calls of 1.0 in all may share one.
        deadline: when the thread gives up, by `time.monotonic`.
        repeated: whether an earlier attempt was sent.
        sent: whether a byte of the call may have been written in this attempt.
        outcome: the results or replies, `AGAIN`, or the error; ``None`` before.
        waiter: the lock on which the thread waits, held; ``None`` if it leads at once.
        mailbox: the list into which the leadership is moved for the thread.
        has_left: whether the thread looks into the mailbox no more.
    """

    # Defaults of the class, as for a lone mark: so most calls set two attributes, not eight.
    size = 1
    cost = 1 / MAX_BATCH_MARKS
    repeated = False
    sent = False
    outcome: Any = None
    waiter: Any = None
    has_left = False

    def __init__(self, payload: Any, deadline: float) -> None:
        self.payload = payload
        self.deadline = deadline

    def follow(self) -> Any:
        """Prepare to wait; return the lock on which the thread waits, held."""
        self.mailbox: list[Leadership] = []
        self.waiter = _thread.allocate_lock()
        self.waiter.acquire()
        return self.waiter


class Leadership:
    """The right to use a connection, and the calls that are in flight on it.

    Attributes:
        connection: the connection.
        calls: the calls that are in flight, or about to be sent.
        request: all of these calls, as one write.
        replies: the replies so far.
        on_the_wire: whether the request was written whole, and another thread may read the
            rest of the replies.
        intact: whether the connection owes no replies.
        written: how many bytes were written, or may have been.
        began: when the request was sent, by `time.perf_counter`, for the observer.
    """

    __slots__ = (
        "began",
        "calls",
        "connection",
        "intact",
        "on_the_wire",
        "replies",
        "request",
        "written",
    )

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.calls: list[Call] = []
        self.intact = True
        self.on_the_wire = False
        self.request: Any = None
        self.replies: list[Any] = []
        self.written = 0
        self.began = 0.0

    def clear(self) -> None:
        """Forget the calls, which have outcomes; the connection is intact, or closed."""
        self.intact = True
        self.on_the_wire = False
        self.calls = []
        if self.replies:
            self.replies = []
        self.written = 0


def take(free: dict[str, Leadership], held: list[Leadership]) -> bool:
    """Move the leadership to a list, atomically; return whether it was free."""
    held.extend(filter(None, map(free.pop, _LEADERSHIP, _NOBODY)))
    return bool(held)


def give_back(held: list[Leadership], free: dict[str, Leadership]) -> None:
    """Move the leadership back from a list, if it is there, atomically."""
    free.update(zip(_LEADERSHIP, map(_pop, filter(None, (held,))), strict=False))
