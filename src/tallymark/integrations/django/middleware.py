"""The middleware of Django, which marks requests, and what leaves a request unmarked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.core import asgi

from .._request_marks import close_buffer
from .project import get_tally, project

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

__all__ = ["MarkMiddleware", "get_asgi_application", "mark_login", "skip_mark", "unmarked"]

ViewT = TypeVar("ViewT", bound="Callable[..., Any]")

#: The attribute of a request, or of a view, that is not marked.
_SKIP: Final = "_tallymark_skip"


class MarkMiddleware:
    """Marks an event of the user of each answered request, without delaying the response.

    The settings are in ``TALLYMARK``. Under WSGI and ASGI the mark is put into a buffer, which a
    thread sends; that takes some microseconds, and waits for nothing. It runs after the
    view, so its place among other middleware does not matter, as long as these pass it the request.
    """

    sync_capable = True
    async_capable = True

    def __init__(
        self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]
    ) -> None:
        """Read the setting.

        Arguments:
            get_response: the next middleware, or the view, as Django passes it.

        Raises:
            ImproperlyConfigured: a value in ``TALLYMARK`` is not allowed.
        """
        project()
        self._get_response: Any = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer a ``request``, and mark it."""
        if self._is_async:
            return self._answer(request)
        response: HttpResponseBase = self._get_response(request)
        _mark(request, response)
        return response

    async def _answer(self, request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase = await self._get_response(request)
        _mark(request, response)
        return response


def _mark(request: HttpRequest, response: HttpResponseBase) -> None:
    marks = project().requests
    view = getattr(request.resolver_match, "func", None)
    if marks is not None and not hasattr(request, _SKIP) and not hasattr(view, _SKIP):
        marks.mark(request, response.status_code)


def mark_login(*, request: HttpRequest, user: Any, **_: object) -> None:
    """Mark a login: the receiver of ``user_logged_in``."""
    marks = project().logins
    if marks is not None and not hasattr(request, _SKIP):
        marks.mark((request, user), 200)


def skip_mark(request: HttpRequest) -> None:
    """Leave a ``request`` unmarked, also its login: for views, middleware and signal handlers."""
    # The requests of Django REST framework wrap Django's.
    setattr(getattr(request, "_request", request), _SKIP, True)


def unmarked(view: ViewT) -> ViewT:
    """Decorate a ``view``, sync or async, whose requests `MarkMiddleware` leaves out.

    For a class of views: ``@method_decorator(unmarked, name="dispatch")``.
    """
    setattr(view, _SKIP, True)
    return view


def get_asgi_application() -> Callable[..., Awaitable[None]]:
    """Return Django's ASGI application, with a lifespan that sends the waiting marks at its end.

    Servers such as uvicorn end themselves with the signal that stopped them, and run no exit
    hooks, but they wait for the end of the lifespan. Django's own application has none.
    """
    application: Any = asgi.get_asgi_application()

    async def with_lifespan(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await application(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await sync_to_async(close_buffer, thread_sensitive=False)(get_tally())
        await send({"type": "lifespan.shutdown.complete"})

    return with_lifespan
