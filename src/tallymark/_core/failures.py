"""What failures mean for a call: which are transient, when to try again, what to tell. Pure."""

from __future__ import annotations

import random
from typing import Final, Literal, TypeVar

from ..errors import (
    CommandError,
    OverloadedError,
    StoreError,
    StoreNotReadyError,
    StoreTimeoutError,
    StoreUnavailableError,
    TallymarkError,
)
from .untrusted import shown

__all__ = [
    "MAX_REDIRECTS",
    "TOO_SHORT",
    "TRANSIENT",
    "Attempts",
    "Backoff",
    "RedirectedError",
    "SlotMovingError",
    "copied",
    "may_be_applied",
    "overloaded",
    "unexpected_reply",
    "with_outcome",
]

#: Failures that another attempt, on another connection or a moment later, may not meet.
TRANSIENT: Final = (StoreUnavailableError, StoreTimeoutError)

#: No attempt is made with fewer seconds left.
TOO_SHORT: Final = 0.001

#: How many nodes of a cluster may redirect a command in a row before it pauses.
MAX_REDIRECTS: Final = 3

#: The pauses between attempts, in seconds: the first one and the longest.
_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 1.0

ErrorT = TypeVar("ErrorT", bound=TallymarkError)


class SlotMovingError(StoreNotReadyError):
    """A cluster is moving some keys of a request to another node, so no node has them all."""


class RedirectedError(CommandError):
    """A node of a cluster does not have the keys of a command, or not all of them.

    The drivers follow it; callers of a tally never see it.

    Attributes:
        kind: ``"MOVED"`` for good, ``"ASK"`` for this command only, ``"TRYAGAIN"`` while
            the slot is migrating.
        address: the host, "" for that of the node itself, and the port.
    """

    kind: Literal["MOVED", "ASK", "TRYAGAIN"] = "TRYAGAIN"
    address: tuple[str, int] = ("", 0)

    @classmethod
    def to(
        cls, message: str, kind: Literal["MOVED", "ASK"], host: str, port: int
    ) -> RedirectedError:
        """Make one that names another node."""
        made = cls(message)
        made.kind = kind
        made.address = ("" if host == "?" else host, port)
        return made


class Backoff:
    """The pauses of one series of attempts: exponential back-off with decorrelated jitter.

    10 ms at first, a second at most. Retries of many clients must not come in step; see
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = 0.0

    def next(self) -> float:
        """Return how many seconds to pause after another failure."""
        longest = max(_FIRST_PAUSE, 3 * self._last)
        self._last = min(_LONGEST_PAUSE, random.uniform(_FIRST_PAUSE, longest))  # noqa: S311
        return self._last


class Attempts:
    """The failed attempts of one call: how long to pause, and which failure tells most."""

    __slots__ = ("_backoff", "_cause")

    def __init__(self) -> None:
        self._backoff = Backoff()
        self._cause: StoreError | None = None

    def pause(self, failure: StoreError, left: float) -> float:
        """Return how many seconds to pause before another attempt.

        Arguments:
            failure: why the last one failed.
            left: how many seconds the call has left.

        Raises:
            StoreError: the failure that tells most, since no time is left.
        """
        if not isinstance(failure, StoreTimeoutError):
            self._cause = failure  # which explains more than that the last attempt timed out
        if left <= TOO_SHORT:
            raise self._cause or failure
        # Where the next pause would outlast the deadline, there are some shorter ones.
        return min(self._backoff.next(), left / 2)


def with_outcome(
    failure: ErrorT, *, sent: bool | None, timeout: float, missed: str = "Redis did not answer"
) -> ErrorT:
    """Return the error of a call, which says what became of its marks.

    Arguments:
        failure: what went wrong last.
        sent: whether a byte of the marks was written; ``None`` for a read.
        timeout: how many seconds the call had.
        missed: what did not happen in that time, if no other reason is known.
    """
    if isinstance(failure, CommandError):
        return copied(failure, str(failure))
    message = str(failure)
    if isinstance(failure, StoreTimeoutError):
        message = f"{missed} within {round(timeout, 2):g} s"
    if sent is None:
        return copied(failure, message)
    outcome = "marks may or may not have been applied" if sent else "nothing was sent"
    error = copied(failure, f"{message}; {outcome}")
    error._may_be_applied = sent  # noqa: SLF001
    return error


def may_be_applied(error: TallymarkError) -> bool:
    """Return whether marks that ended with an error may have been applied all the same."""
    return error._may_be_applied  # noqa: SLF001


def overloaded(pending: int, kind: Literal["marks", "reads"], limit: int) -> OverloadedError:
    """Return the error for a call that comes while ``max_pending`` others wait."""
    outcome = "; nothing was sent" if kind == "marks" else ""
    return OverloadedError(
        f"{pending} {kind} are waiting for Redis already (max_pending is {limit}){outcome}"
    )


def unexpected_reply(reply: object) -> StoreError:
    """Return the error for a reply that does not fit its command."""
    return StoreError(f"the server's reply does not fit the commands: {shown(reply)}")


def copied(error: ErrorT, message: str) -> ErrorT:
    """Return an error of the same class and cause with another message.

    Each mark gets an instance of its own: an error that is raised in several tasks
    would collect the tracebacks of all.
    """
    copy = type(error)(message)
    copy.__cause__ = error.__cause__
    copy._may_be_applied = error._may_be_applied  # noqa: SLF001
    return copy
