"""Marks of answered requests: what the integrations have in common."""

from __future__ import annotations

import inspect
from asyncio import CancelledError
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, overload

from .._core.arguments import checked_name, described
from .._core.untrusted import kind_of
from ..errors import InvalidTypeError
from ._failures import LoggedFailures, log_the_rest

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._async.buffer import Buffer
    from .._async.tally import Tally
    from .._core.user_ids import UserId
    from .._sync.buffer import SyncBuffer
    from .._sync.tally import SyncTally

__all__ = [
    "RequestMarks",
    "aclose_buffer",
    "buffer_of",
    "checked_event",
    "close_buffer",
    "failures",
]

RequestT = TypeVar("RequestT")
FunctionT = TypeVar("FunctionT", bound="Callable[..., object]")

failures = LoggedFailures("a request was not marked")

#: The attribute of a tally that has its buffer, from its first mark of a request on. A web app
#: looks it up for each request.
_BUFFER: Final = "_tallymark_request_buffer"


@overload
def buffer_of(tally: Tally[Any]) -> Buffer[Any]: ...


@overload
def buffer_of(tally: SyncTally[Any]) -> SyncBuffer[Any]: ...


def buffer_of(tally: Tally[Any] | SyncTally[Any]) -> Any:
    """Return the buffer of a tally for marks of requests; closing the tally flushes it."""
    buffer = getattr(tally, _BUFFER, None)
    if buffer is None:
        if isinstance(tally, type) or not hasattr(tally, "buffered"):
            # Not the value, which may be a URL with a password.
            raise InvalidTypeError(f"tally must return a tally, got a {kind_of(tally)}")
        # Of two threads that make one, both get the first one's.
        buffer = vars(tally).setdefault(_BUFFER, tally.buffered(on_full="drop"))
    return buffer


def close_buffer(tally: SyncTally[Any]) -> None:
    """Send what waits in the buffer of a tally, within its timeout, and log what was not logged.

    A later mark begins a new buffer.
    """
    buffer = vars(tally).pop(_BUFFER, None)
    if buffer is not None:
        buffer.close()
    log_the_rest()


async def aclose_buffer(tally: Tally[Any]) -> None:
    """As `close_buffer`, for asyncio. Errors are logged."""
    buffer = vars(tally).pop(_BUFFER, None)
    if buffer is not None:
        with failures:
            await buffer.flush()  # a cancellation leaves the marks to the tally
        with failures:
            await buffer.aclose()
    log_the_rest()


class RequestMarks(Generic[RequestT]):
    """Which event of which user the answer to a request marks."""

    def __init__(
        self,
        user: Callable[[RequestT], UserId | None],
        event: str | Callable[[RequestT], str | None],
        when: Callable[[RequestT, int], bool] | None,
        tally: Callable[[RequestT], Tally[Any] | SyncTally[Any]],
    ) -> None:
        """Check the functions.

        Raises:
            InvalidTypeError, InvalidValueError: the event is no name that can be marked, or a
                function is none, or async.
        """
        self._user = _checked("user", user)
        self._event = checked_event(event)
        self._when = None if when is None else _checked("when", when)
        self._tally = _checked("tally", tally)

    def mark(self, request: RequestT, status: int) -> None:
        """Put the mark of a request into the buffer of its tally, if it is to be marked.

        Does not wait, and raises nothing: errors are logged.

        Arguments:
            request: the request, or its scope.
            status: the status code of the response.
        """
        try:
            when = self._when
            if not (status < 400 if when is None else when(request, status)):
                return
            user_id = self._user(request)
            if user_id is None:
                return
            event = self._event
            name = event if isinstance(event, str) else event(request)
            if name is not None:
                tally = self._tally(request)
                buffer: Any = getattr(tally, _BUFFER, None) or buffer_of(tally)
                buffer.mark_event(name, user_id)
        except (Exception, CancelledError) as error:  # noqa: BLE001 - of the program's functions
            failures.caught(error)


def checked_event(
    event: str | Callable[[RequestT], str | None],
) -> str | Callable[[RequestT], str | None]:
    """Return an event, or a function that returns it.

    Raises:
        InvalidTypeError, InvalidValueError: it is no name that can be marked, or async.
    """
    return _checked("event", event) if callable(event) else checked_name("event", event)


def _checked(name: str, function: FunctionT) -> FunctionT:
    """Return a function that can be called without awaiting it.

    Raises:
        InvalidTypeError: it is no function, or async.
    """
    call = getattr(function, "__call__", None)  # noqa: B004 - of an object, the method
    if call is None or inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call):
        # A tally may be a URL with a password by mistake.
        got = f"a {kind_of(function)}" if name == "tally" else described(function)
        raise InvalidTypeError(
            f"{name} must be a plain function, not async, got {got}: it is called "
            "as the response starts, and finds in the request what the app has awaited before"
        )
    return function
