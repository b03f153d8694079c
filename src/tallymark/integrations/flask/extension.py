"""The extension of Flask."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, cast

from flask import current_app, request

from .._request_marks import RequestMarks, buffer_of
from .._settings import tally_of_settings
from .login import connect_flask_login, loaded_user
from .requests import MARKS, is_unmarked, mark_request, tally_of_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask, Request, Response
    from typing_extensions import Unpack

    from ..._core.options import TallyOptions
    from ..._core.user_ids import UserId
    from ..._sync.buffer import SyncBuffer
    from ..._sync.tally import SyncTally
    from .requests import ViewT

__all__ = ["Tallymark"]


class Tallymark:
    """The extension: one for any number of apps, each of which has a tally of its own.

    ``app.extensions["tallymark"]`` is the app's tally. After a fork, each process connects anew.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        url: str | None = None,
        user_ids: type[UserId] | None = None,
        **options: Unpack[TallyOptions],
    ) -> None:
        """Prepare for apps. What an app's configuration says goes first.

        Arguments:
            app: an app for `init_app`.
            url: as of `SyncTally.from_url`, or ``TALLYMARK_URL`` in the configuration or, without
                that, in the environment; by default ``redis://localhost:6379/0``.
            user_ids, options: as of `SyncTally.from_url`, or ``TALLYMARK_USER_IDS`` (there also a
                name, such as ``"uuid"``), ``TALLYMARK_PREFIX`` and so on in the configuration.
        """
        self._settings: dict[str, Any] = {"url": url, "user_ids": user_ids, **options}
        self._of_requests: list[RequestMarks[Request]] = []
        self._of_logins: list[RequestMarks[Request]] = []
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Make the tally of an ``app`` from its configuration. Nothing is sent yet.

        Raises:
            InvalidTypeError, InvalidValueError: the URL or an option is not allowed.
            MissingExtraError: ``memory://`` without fakeredis.
            RuntimeError: the app has the extension already.
        """
        if "tallymark" in app.extensions:
            raise RuntimeError("the app has a Tallymark extension already")
        settings = {**self._settings, **app.config.get_namespace("TALLYMARK_")}
        app.extensions["tallymark"] = tally_of_settings(
            settings.pop("url"), settings, lambda option: f"TALLYMARK_{option.upper()}"
        )
        app.after_request(self._mark_response)
        connect_flask_login(app, self._mark_login)

    @property
    def tally(self) -> SyncTally[Any]:
        """The tally of the current app, which waits for Redis."""
        return tally_of_app()

    @property
    def buffer(self) -> SyncBuffer[Any]:
        """The buffer of the current app, whose marks are plain calls that return at once."""
        return buffer_of(tally_of_app())

    def mark_requests(
        self,
        event: str | Callable[[Request], str | None] = "active",
        *,
        user: Callable[[Request], UserId | None] = loaded_user,
        when: Callable[[Request, int], bool] | None = None,
    ) -> None:
        """Mark an event of the user of each request, in all apps of this extension.

        Arguments:
            event: the event, or a function of the request that returns it, or ``None``.
            user: a function of the request that returns the user's id, or ``None`` for nobody.
                By default it is the ``get_id()`` of Flask-Login's user, converted to the type
                of the tally's ids, if the request has loaded the user.
            when: a function of the request and the response's status code that says whether to
                mark; by default, all below 400 are marked.

        Raises:
            InvalidTypeError, InvalidValueError: the event is no name that can be marked, or a
                function is none, or async.
        """
        self._of_requests.append(RequestMarks(user, event, when, tally_of_app))

    def mark_logins(
        self, event: str = "login", *, user: Callable[[Request], UserId | None] = loaded_user
    ) -> None:
        """Mark an event when Flask-Login logs a user in.

        Arguments:
            event, user: as of `mark_requests`.
        """
        self._of_logins.append(RequestMarks(user, event, None, tally_of_app))

    def marks(
        self,
        event: str | Callable[[Request], str | None],
        *,
        user: Callable[[Request], UserId | None] = loaded_user,
        when: Callable[[Request, int], bool] | None = None,
    ) -> Callable[[ViewT], ViewT]:
        """Decorate a view, below ``@app.route``.

        Arguments:
            event, user, when: as of `mark_requests`.
        """
        marks = RequestMarks(user, event, when, tally_of_app)

        def decorate(view: ViewT) -> ViewT:
            @functools.wraps(view)
            def marked(*args: Any, **kwargs: Any) -> Any:
                request.environ.setdefault(MARKS, []).append(marks)
                return current_app.ensure_sync(view)(*args, **kwargs)

            return cast("ViewT", marked)

        return decorate

    def _mark_response(self, response: Response) -> Response:
        mark_request(request.environ.get(MARKS, []), response.status_code)
        if not is_unmarked():
            mark_request(self._of_requests, response.status_code)
        return response

    def _mark_login(self, _: Flask, **__: object) -> None:
        mark_request(self._of_logins, 200)
