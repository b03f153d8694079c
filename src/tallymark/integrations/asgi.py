"""Marks requests of any ASGI app: FastAPI, Starlette, Litestar, Quart, Django, and others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .._async.tally import Tally
from ._lifespan import lifespan, tally_of
from ._request_marks import RequestMarks, aclose_buffer

if TYPE_CHECKING:
    from .._core.user_ids import UserId

__all__ = ["MarkMiddleware", "is_skipped", "lifespan", "skip_mark"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
#: An app of any framework. Some have scopes and messages of types of their own (`TypedDict`),
#: which are no mappings for a type checker.
ASGIApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]

#: The key of a scope whose value, if it has an item, says that the request is not marked. Copies
#: of the scope share it. A bytearray, of which the garbage collector knows nothing: with one
#: object more in each of many scopes, it may run for each group of requests.
_SKIP: Final = "tallymark.skip"

#: The message that starts a response, by the type of the scope.
_STARTS: Final = {"http": "http.response.start", "websocket": "websocket.accept"}


class MarkMiddleware:
    """Marks an event of the user of each answered request, without delaying the response.

    As the response starts, the mark is put into a buffer of the tally, which holds up to 10,000
    and is sent meanwhile. What the store does never changes a response: marks that Redis
    does not take within the tally's timeout, and those that a full buffer drops, are counted and
    logged. Closing the tally flushes the buffer, as does the shutdown of the app, unless ``tally``
    is a function.

    A response is marked once, at its start, also if it streams or its client disconnects
    later. If the app raises before that, nothing is marked.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        tally: Tally[Any] | Callable[[Scope], Tally[Any]] | None = None,
        user: Callable[[Scope], UserId | None],
        event: str | Callable[[Scope], str | None] = "active",
        when: Callable[[Scope, int], bool] | None = None,
        websockets: bool = False,
    ) -> None:
        """Wrap an app.

        The functions are plain functions, called after the handler has started the
        response. So the scope has what the router and other middleware have put into it, such as
        ``scope["user"]``, ``scope["state"]`` and ``scope["route"]``. If one raises,
        that is logged, and the request is not marked.

        Arguments:
            app: the ASGI app.
            tally: the tally, or a function of the scope that returns it. By default that of
                `tallymark.integrations.fastapi.lifespan`: ``scope["state"]["tally"]``,
                else ``scope["app"].state.tally``.
            user: a function of the scope that returns the user's id, or ``None`` for nobody.
            event: the event, or a function of the scope that returns it, or ``None`` for none.
            when: a function of the scope and the response's status code that says whether to
                mark; by default, all below 400 are marked.
            websockets: whether to mark WebSockets too, as they are accepted; their status code
                is 101. Off by default.

        Raises:
            InvalidTypeError, InvalidValueError: the event is no name that can be marked, or a
                function is none, or async.
        """
        self.app = app
        self._tally = tally if isinstance(tally, Tally) else None
        find = (lambda _: tally) if isinstance(tally, Tally) else tally or tally_of
        self._marks = RequestMarks[Scope](user, event, when, find)
        self._starts = _STARTS if websockets else {"http": _STARTS["http"]}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Run the app, and mark the request as its response starts.

        Arguments:
            scope, receive, send: those of ASGI.
        """
        start = self._starts.get(scope["type"])
        if start is None:
            if scope["type"] == "lifespan" and self._tally is not None:
                receive = _flushing(receive, self._tally)
            await self.app(scope, receive, send)
            return
        skips: bytearray = scope.setdefault(_SKIP, bytearray())
        mark = self._marks.mark

        async def send_and_mark(message: Message) -> None:
            await send(message)
            if message["type"] == start and not skips:
                mark(scope, message.get("status", 101))

        await self.app(scope, receive, send_and_mark)


def _flushing(receive: Receive, tally: Tally[Any]) -> Receive:
    """Return a ``receive`` that flushes the tally's buffer before the app shuts down."""

    async def receive_and_flush() -> Message:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            await aclose_buffer(tally)
        return message

    return receive_and_flush


def skip_mark(request: Any) -> None:
    """Leave a request unmarked; call it before the response starts.

    Arguments:
        request: the request of the framework, with an attribute ``scope``, or the scope.
    """
    scope: Scope = getattr(request, "scope", request)
    scope.setdefault(_SKIP, bytearray()).append(1)


def is_skipped(scope: Scope) -> bool:
    """Return whether `skip_mark` was called for the request of a ``scope``."""
    return bool(scope.get(_SKIP))
