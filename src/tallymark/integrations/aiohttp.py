"""A tally in an aiohttp app: the context that opens it, and marks of its responses.

::

    app = web.Application()
    app.cleanup_ctx.append(tally_context("redis://localhost:6379/0"))
    app.on_response_prepare.append(mark_responses(user=lambda request: request.get(USER_ID)))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from .._async.tally import Tally
from ._lifespan import tally_opener
from ._request_marks import RequestMarks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from typing_extensions import Unpack

    from .._core.options import TallyOptions
    from .._core.user_ids import UserId

__all__ = ["TALLY", "mark_responses", "skip_mark", "tally_context"]

#: The app's tally: ``request.app[TALLY]``. For users with ids of another type, make a key:
#: ``web.AppKey("tally", Tally[UUID])``.
TALLY: Final[web.AppKey[Tally[int]]] = web.AppKey("tallymark.tally", Tally[int])

#: Where a request says that it is not marked. Releases without keys of requests take strings.
_SKIP: Final[Any] = (
    web.RequestKey("tallymark.skip", bool) if hasattr(web, "RequestKey") else "tallymark.skip"
)


def tally_context(
    url: str | None = None,
    *,
    key: web.AppKey[Tally[Any]] = TALLY,
    user_ids: type[Any] | None = None,
    **options: Unpack[TallyOptions],
) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return a context that opens a tally for the app, for ``app.cleanup_ctx``.

    The tally is made when the app starts, and closed when it stops, after the last request. That
    sends the marks that wait, within the tally's timeout.

    Arguments:
        url: as of `tallymark.Tally.from_url`; by default the environment variable
            ``TALLYMARK_URL``, and without that ``redis://localhost:6379/0``.
        key: the key of the app whose value is the tally.
        user_ids: the type of the users' ids, as of `tallymark.Tally.from_url`.
        options: those of `tallymark.TallyOptions`.

    Raises, when the app starts:
        InvalidTypeError, InvalidValueError: the URL or an option is not allowed. The message
            never holds the URL.
        MissingExtraError: ``memory://`` without fakeredis.
    """
    opened = tally_opener(url, user_ids, options)
    del url  # error reporters show the locals of frames

    async def context(app: web.Application) -> AsyncIterator[None]:
        async with opened() as tally:
            app[key] = tally
            yield

    return context


def mark_responses(
    *,
    user: Callable[[web.Request], UserId | None],
    event: str | Callable[[web.Request], str | None] = "active",
    when: Callable[[web.Request, int], bool] | None = None,
    websockets: bool = False,
    key: web.AppKey[Tally[Any]] = TALLY,
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Return a function that marks an event of the user of each answered request.

    For ``app.on_response_prepare``, which runs once for a response, as its headers are sent: also
    for one that streams, and for an `aiohttp.web.HTTPException`. (A middleware runs again only when
    a stream has ended.) The mark is put into a buffer of the tally, which holds up to 10,000
    and is sent meanwhile. What the store does never changes a response: marks that Redis does
    not take within the tally's timeout, and those that a full buffer drops, are counted
    and logged.

    The functions are plain functions, called when the handler has made the response. If one
    raises, that is logged, and the request is not marked.

    Arguments:
        user: a function of the request that returns the user's id, or ``None`` for nobody.
        event: the event, or a function of the request that returns it, or ``None`` for none.
        when: a function of the request and the response's status code that says whether to mark;
            by default, all below 400 are marked.
        websockets: whether to mark WebSockets too, as they are accepted; their status code is
            101. Off by default.
        key: the key of the app whose value is the tally, also of an app above this one.

    Raises:
        InvalidTypeError, InvalidValueError: the event is no name that can be marked, or a
            function is none, or async.
    """
    marks = RequestMarks[web.Request](user, event, when, lambda request: request.config_dict[key])

    async def mark(request: web.Request, response: web.StreamResponse) -> None:
        status = response.status
        if (status != 101 or websockets) and not request.get(_SKIP):
            marks.mark(request, status)

    return mark


def skip_mark(request: web.Request) -> None:
    """Leave a request unmarked; call it before the response starts.

    Arguments:
        request: the request.
    """
    request[_SKIP] = True
