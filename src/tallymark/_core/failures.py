"""Failures of requests: which are transient, when to retry, what the final error says. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

from ..errors import (
    CommandError,
    OverloadedError,
    PermissionDeniedError,
    StoreError,
    StoreNotReadyError,
    StoreTimeoutError,
    StoreUnavailableError,
    TallymarkError,
)
from .untrusted import shown

__all__ = [
    "MAX_REDIRECTS",
    "MIN_ATTEMPT_TIME",
    "TRANSIENT",
    "Attempts",
    "Backoff",
    "OnError",
    "RedirectedError",
    "SlotMovingError",
    "check_replicated",
    "copied",
    "is_refused_login",
    "may_be_applied",
    "overloaded",
    "partly_applied",
    "unexpected_reply",
    "with_outcome",
    "with_timeout",
]

#: Failures after which a retry, on another connection or a moment later, may succeed.
TRANSIENT: Final = (StoreUnavailableError, StoreTimeoutError)

#: No attempt is made with this many seconds, or fewer, left until the deadline.
MIN_ATTEMPT_TIME: Final = 0.001

#: After how many redirections in a row a command of a cluster pauses.
MAX_REDIRECTS: Final = 3

#: The pauses between attempts, in seconds: the first one and the longest.
_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 1.0

#: The end of the message of an error whose marks were not sent.
_NOTHING_SENT: Final = "; nothing was sent"

ErrorT = TypeVar("ErrorT", bound=TallymarkError)

#: A function of a caller that takes bad rows: the index of a row, the row, and what is wrong.
OnError = Callable[[int, Any, TallymarkError], object]


class SlotMovingError(StoreNotReadyError):
    """A slot of a cluster is migrating, and neither of its nodes has all keys of a request."""


class RedirectedError(CommandError):
    """A node of a cluster does not have all keys of a command, and has redirected it.

    Drivers follow redirections; callers of a tally never see this error.

    Attributes:
        kind: ``"MOVED"``: the slot has another node; ``"ASK"``: another node has the keys of
            this command; ``"TRYAGAIN"``: the slot is migrating, no other node is named.
        address: host and port of the other node; the host is "" if it is that of the node
            that has answered.
    """

    kind: Literal["MOVED", "ASK", "TRYAGAIN"] = "TRYAGAIN"
    address: tuple[str, int] = ("", 0)

    @classmethod
    def to(
        cls, message: str, kind: Literal["MOVED", "ASK"], host: str, port: int
    ) -> RedirectedError:
        """Return the error of a redirection to another node; the host may be "?" or ""."""
        error = cls(message)
        error.kind = kind
        error.address = ("" if host == "?" else host, port)
        return error


class Backoff:
    """The pauses between the attempts of one call: exponential back-off, decorrelated jitter.

    From 10 ms at first to at most a second. Jitter keeps many clients from retrying at the
    same time; see https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = 0.0

    def next(self) -> float:
        """Return how many seconds to pause after the next failure."""
        longest = max(_FIRST_PAUSE, 3 * self._last)
        self._last = min(_LONGEST_PAUSE, random.uniform(_FIRST_PAUSE, longest))  # noqa: S311
        return self._last


class Attempts:
    """The failed attempts of one call: how long to pause, and which failure to raise."""

    __slots__ = ("_backoff", "_cause")

    def __init__(self) -> None:
        self._backoff = Backoff()
        self._cause: StoreError | None = None

    def pause(self, failure: StoreError, left: float) -> float:
        """Return how many seconds to pause before the next attempt.

        Arguments:
            failure: the failure of the last attempt.
            left: how many seconds are left until the deadline.

        Raises:
            StoreError: no time is left. The last failure that was no timeout, if there was
                one, since it explains more than a timeout does.
        """
        if not isinstance(failure, StoreTimeoutError):
            self._cause = failure
        if left <= MIN_ATTEMPT_TIME:
            raise self._cause or failure
        # Near the deadline, pauses get shorter, so that there are some more attempts.
        return min(self._backoff.next(), left / 2)


def with_outcome(
    failure: ErrorT, *, sent: bool | None, timeout: float, missed: str = "Redis did not answer"
) -> ErrorT:
    """Return the final error of a call, which says whether its marks may have been applied.

    Arguments:
        failure: the last failure.
        sent: whether a byte of the marks was written; ``None`` for a read.
        timeout: the timeout of the call, in seconds.
        missed: what did not happen within the timeout: the message, if ``failure`` is a
            `StoreTimeoutError`.
    """
    if isinstance(failure, CommandError):
        return copied(failure, str(failure))
    message = str(failure)
    timed_out = isinstance(failure, StoreTimeoutError)
    if timed_out:
        message = f"{missed} within {round(timeout, 2):g} s"
    if sent is not None:
        message += "; marks may or may not have been applied" if sent else _NOTHING_SENT
    error = copied(failure, message)
    if sent is not None:
        error._may_be_applied = sent  # noqa: SLF001
    if timed_out:
        error._missed = missed  # noqa: SLF001
    return error


def with_timeout(error: ErrorT, timeout: float) -> ErrorT:
    """Return the error of one transaction as the error of a call with several transactions.

    Arguments:
        error: the error. The timeout in its message is the time that the call had left.
        timeout: the timeout of the whole call, in seconds.
    """
    missed = error._missed  # noqa: SLF001
    if not missed:
        return error
    return with_outcome(error, sent=may_be_applied(error), timeout=timeout, missed=missed)


def may_be_applied(error: TallymarkError) -> bool:
    """Return whether the marks that this error is about may have been applied."""
    return error._may_be_applied  # noqa: SLF001


def partly_applied(error: ErrorT) -> ErrorT:
    """Return the error of a transaction of which other marks were applied, or may have been."""
    message = str(error).removesuffix(_NOTHING_SENT)
    copy = copied(
        error, f"{message}; other marks of the transaction were applied, or may have been"
    )
    copy._may_be_applied = True  # noqa: SLF001
    return copy


def overloaded(pending: int, kind: Literal["marks", "reads"], limit: int) -> OverloadedError:
    """Return the error of a call that is refused since ``max_pending`` others are waiting."""
    outcome = _NOTHING_SENT if kind == "marks" else ""
    return OverloadedError(
        f"{pending} {kind} are waiting for Redis already (max_pending is {limit}){outcome}"
    )


def unexpected_reply(reply: object) -> StoreError:
    """Return the error about a reply of the wrong type or length for its command."""
    return StoreError(f"the server's reply does not fit the commands: {shown(reply)}")


def copied(error: ErrorT, message: str) -> ErrorT:
    """Return an error of the same class and cause with another message.

    Each mark gets an instance of its own, since an instance that is raised in several tasks
    collects the tracebacks of all of them.
    """
    copy = type(error)(message)
    copy.__cause__ = error.__cause__
    copy._may_be_applied = error._may_be_applied  # noqa: SLF001
    copy._missed = error._missed  # noqa: SLF001
    if isinstance(copy, PermissionDeniedError):
        copy._is_login = is_refused_login(error)  # noqa: SLF001
    return copy


def is_refused_login(error: BaseException) -> bool:
    """Return whether an error says that a server refuses the login, and so every command."""
    return isinstance(error, PermissionDeniedError) and error._is_login  # noqa: SLF001


def check_replicated(reply: Any, replicas: int) -> None:
    """Check the reply to ``WAIT``.

    Arguments:
        reply: the reply.
        replicas: how many replicas must have acknowledged the marks.

    Raises:
        StoreUnavailableError: fewer have; another attempt may succeed.
        StoreError: the reply does not fit the command.
    """
    if isinstance(reply, CommandError):  # such as UNBLOCKED: no longer a master
        raise StoreUnavailableError(str(reply)) from reply.__cause__
    if not isinstance(reply, int):
        raise unexpected_reply(reply)
    if reply < replicas:
        raise StoreUnavailableError(
            f"{reply} of the {replicas} replicas that this tally wants have confirmed the marks"
        )
