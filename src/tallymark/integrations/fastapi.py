"""A tally in a FastAPI app: lifespan, dependencies, and the responses to errors.

::

    app = FastAPI(lifespan=lifespan("redis://localhost:6379/0"))
    add_error_handlers(app)


    @app.get("/articles/{article}", dependencies=[marks("article:read", user=current_user)])
    async def read(article: str, tally: TallyDep) -> int:
        return await tally.count(tally.day("article:read"))
"""

from __future__ import annotations

# FastAPI looks up the annotations of dependencies when the program runs.
from collections.abc import AsyncIterator, Callable  # noqa: TC003
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

from fastapi import Depends, Request
from fastapi.requests import HTTPConnection  # noqa: TC002
from fastapi.responses import JSONResponse

from .._async.tally import Tally
from ..errors import InvalidTypeError, InvalidValueError, StoreError
from ._failures import LoggedFailures
from ._lifespan import lifespan, tally_of
from ._request_marks import buffer_of, checked_event, failures
from .asgi import MarkMiddleware, is_skipped, skip_mark

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = [
    "MarkMiddleware",
    "TallyDep",
    "add_error_handlers",
    "get_tally",
    "lifespan",
    "marks",
    "skip_mark",
]

#: The seconds after which a client may try again.
RETRY_AFTER: Final = 5


async def get_tally(connection: HTTPConnection) -> Tally[Any]:
    """Return the app's tally, as a dependency of a handler.

    `TallyDep` uses it. For users with ids of another type:
    ``Annotated[Tally[UUID], Depends(get_tally)]``. Tests may replace
    it: ``app.dependency_overrides[get_tally] = lambda: tally``.

    Arguments:
        connection: the request or WebSocket.

    Raises:
        RuntimeError: the app has no tally; see `lifespan`.
    """
    return tally_of(connection.scope)


#: The app's tally as a parameter of a handler or dependency: ``tally: TallyDep``.
TallyDep: TypeAlias = Annotated[Tally[int], Depends(get_tally)]


def marks(event: str | Callable[[Request], str | None], user: Callable[..., Any]) -> Any:
    """Return a dependency that marks an event of the user whom another dependency returns.

    For one route, a router or an app: ``dependencies=[marks("login", user=current_user_id)]``.
    The event is marked when the handler has returned, as the response is about to be sent; not if
    the handler or a dependency raises, as with an `fastapi.HTTPException`. It is put into the
    buffer of the tally, so the store neither delays the response nor changes it: what fails
    is logged. FastAPI itself calls ``user``, and what that raises is the response. Requires
    FastAPI 0.121 or newer, for its dependencies with a scope.

    WebSocket routes of the router or app are not marked, but FastAPI calls ``user`` there too: then
    it takes a `fastapi.requests.HTTPConnection` in place of a request.

    Arguments:
        event: the event, or a plain function of the request that returns it, or ``None`` for none.
        user: a dependency, plain or async, that returns the user's id, or ``None`` for nobody.

    Returns:
        The object of `fastapi.Depends`.

    Raises:
        InvalidTypeError, InvalidValueError: the event is no name that can be marked, or async.
    """
    checked = checked_event(event)

    async def mark(
        connection: HTTPConnection,  # a parameter of the type Request would break WebSockets
        tally: Tally[Any] = Depends(get_tally),  # noqa: B008 - FastAPI's way
        user_id: Any = Depends(user),  # noqa: B008
    ) -> AsyncIterator[None]:
        yield
        if user_id is None or not isinstance(connection, Request) or is_skipped(connection.scope):
            return
        with failures:
            name = checked if isinstance(checked, str) else checked(connection)
            if name is not None:
                buffer_of(tally).mark_event(name, user_id)

    return Depends(mark, scope="function")


def add_error_handlers(app: Starlette) -> None:
    """Respond to the errors of tallymark that handlers do not catch.

    An argument that tallymark refuses (`InvalidValueError`, `InvalidTypeError`) is answered with
    422 and its message, which shows the argument. An error of the store (`StoreError`) is
    answered with 503 and a ``Retry-After`` of 5 seconds, and logged; its message, which
    may name hosts and keys, is not in the response.

    Arguments:
        app: the app of FastAPI, or of Starlette.
    """
    store_failures = LoggedFailures("a request was answered with 503")

    async def refuse(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    async def unavailable(_: Request, error: Exception) -> JSONResponse:
        store_failures.log(error)
        detail = "events are not available at the moment"
        return JSONResponse({"detail": detail}, 503, headers={"Retry-After": str(RETRY_AFTER)})

    app.add_exception_handler(InvalidValueError, refuse)
    app.add_exception_handler(InvalidTypeError, refuse)
    app.add_exception_handler(StoreError, unavailable)
