"""The tally of an app: opened when the app starts, and found by its requests."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from .._async.tally import Tally
from .._core.options import hide_urls
from .._core.urls import StoreUrl
from .._redis.url_sources import url_of_environment
from ._request_marks import aclose_buffer, buffer_of, failures

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._core.options import TallyOptions

__all__ = ["Lifespan", "lifespan", "tally_of", "tally_opener"]

#: A lifespan of FastAPI or Starlette. It may yield what each request has in its state.
Lifespan: TypeAlias = Callable[
    [Any], "contextlib.AbstractAsyncContextManager[Mapping[str, Any] | None]"
]


def lifespan(
    url: str | None = None,
    *,
    app_lifespan: Lifespan | None = None,
    user_ids: type[Any] | None = None,
    **options: Unpack[TallyOptions],
) -> Callable[[Any], contextlib.AbstractAsyncContextManager[Mapping[str, Any]]]:
    """Return a lifespan that opens a tally for the app: ``FastAPI(lifespan=lifespan(url))``.

    The tally is made when the app starts, and closed when it stops, after the last request. That
    sends the marks that wait, within the tally's timeout. It is ``request.state.tally``, also
    in mounted apps, and ``app.state.tally``.

    Arguments:
        url: as of `tallymark.Tally.from_url`; by default the environment variable
            ``TALLYMARK_URL``, and without that ``redis://localhost:6379/0``.
        app_lifespan: the app's own lifespan. The tally is open before it starts, and until
            it has ended. The app gets the state that it yields too.
        user_ids: the type of the users' ids, as of `tallymark.Tally.from_url`.
        options: those of `tallymark.TallyOptions`.

    Raises, when the app starts:
        InvalidTypeError, InvalidValueError: the URL or an option is not allowed. The message
            never holds the URL.
        MissingExtraError: ``memory://`` without fakeredis.
    """
    opened = tally_opener(url, user_ids, options)
    del url  # error reporters show the locals of frames

    @contextlib.asynccontextmanager
    async def tally_lifespan(app: Any) -> AsyncIterator[Mapping[str, Any]]:
        async with opened() as tally:
            app.state.tally = tally
            if app_lifespan is None:
                yield {"tally": tally}
                return
            async with app_lifespan(app) as state:
                yield {**(state or {}), "tally": tally}

    return tally_lifespan


def tally_opener(
    url: str | None, user_ids: type[Any] | None, options: TallyOptions
) -> Callable[[], contextlib.AbstractAsyncContextManager[Tally[Any]]]:
    """Return a context manager, for each start of an app: an open tally. Raises nothing.

    At the end, the marks of requests are flushed, and the tally is closed.

    Arguments:
        url: the URL; ``None`` for that of the environment when the tally is made.
        user_ids: the type of the users' ids.
        options: those of the tally, in a dict that no other code refers to.
    """
    store = None if url is None else StoreUrl(url)
    del url
    hide_urls(options)

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Tally[Any]]:
        source: Any = store or url_of_environment()  # in place of its text
        async with contextlib.AsyncExitStack() as stack:
            tally = Tally.from_url(source, user_ids=user_ids, **options)
            stack.push_async_callback(aclose_buffer, tally)  # logs all failures, as the last step
            await stack.enter_async_context(tally)
            try:
                yield tally
            finally:
                # If a second signal cancels this, closing the tally still sends the marks.
                with failures:
                    await buffer_of(tally).flush()

    return opened


def tally_of(scope: Mapping[str, Any]) -> Tally[Any]:
    """Return the tally that the app has opened in its lifespan.

    Arguments:
        scope: the scope of the request.

    Raises:
        RuntimeError: there is none, neither in ``scope["state"]["tally"]`` nor
            in ``scope["app"].state.tally``.
    """
    tally = scope.get("state", {}).get("tally")
    if tally is None:
        tally = getattr(getattr(scope.get("app"), "state", None), "tally", None)
    if not isinstance(tally, Tally):
        raise RuntimeError(  # noqa: TRY004 - nobody has passed it
            "the app has no tally; open one in its lifespan: "
            "FastAPI(lifespan=tallymark.integrations.fastapi.lifespan(url))"
        )
    return tally
