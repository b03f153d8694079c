"""The current request of Flask: its tally, whether it is marked, and the answers to errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from flask import current_app, request
from werkzeug.exceptions import BadRequest, ServiceUnavailable

from ...errors import InvalidTypeError, InvalidValueError, StoreError
from .._failures import LoggedFailures

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask, Request

    from ..._sync.tally import SyncTally
    from .._request_marks import RequestMarks

__all__ = [
    "MARKS",
    "add_error_handlers",
    "is_unmarked",
    "mark_request",
    "skip_mark",
    "tally_of_app",
    "unmarked",
]

_store_failures = LoggedFailures("a request was answered with 503")

ViewT = TypeVar("ViewT", bound="Callable[..., Any]")

#: The key of a request's environ with what the decorators of its view mark.
MARKS: Final = "tallymark.marks"

#: A key of the request's environ: `flask.g` is shared by the requests of a test that has pushed a
#: context, as pytest-flask does.
_SKIP: Final = "tallymark.skip"

#: The attribute of a view that is not marked.
_UNMARKED: Final = "_tallymark_unmarked"


def tally_of_app(_: Request | None = None) -> SyncTally[Any]:
    """Return the tally of the current app, and so of a request.

    Raises:
        RuntimeError: there is no current app, or it has no tally.
    """
    tally: SyncTally[Any] | None = current_app.extensions.get("tallymark")
    if tally is None:
        raise RuntimeError("the app has no tally; call init_app of the Tallymark extension")
    return tally


def skip_mark() -> None:
    """Leave the current request unmarked, whatever would mark it: for handlers and hooks."""
    request.environ[_SKIP] = True


def unmarked(view: ViewT) -> ViewT:
    """Decorate a ``view`` whose requests `Tallymark.mark_requests` leaves out.

    May be above or below ``@app.route``; in a class of views, it goes into ``decorators``.
    """
    setattr(view, _UNMARKED, True)
    return view


def is_unmarked() -> bool:
    """Return whether the view of the current request is `unmarked`."""
    view = current_app.view_functions.get(request.endpoint or "")
    return getattr(view, _UNMARKED, False)


def mark_request(several: list[RequestMarks[Request]], status: int) -> None:
    """Mark the current request, unless it has called `skip_mark`. Raises nothing."""
    if _SKIP not in request.environ:
        for marks in several:
            marks.mark(request, status)


def add_error_handlers(app: Flask) -> None:
    """Respond to the errors of tallymark that the views of an ``app`` do not catch.

    An argument that tallymark refuses (`InvalidValueError`, `InvalidTypeError`) is answered with
    400 and its message. An error of the store (`StoreError`) is answered with 503 and a
    ``Retry-After`` of 5 seconds, and logged; its message, which may name hosts and keys, is
    not in the response.
    """
    app.register_error_handler(InvalidValueError, _refuse)
    app.register_error_handler(InvalidTypeError, _refuse)
    app.register_error_handler(StoreError, _unavailable)


def _refuse(error: Exception) -> BadRequest:
    return BadRequest(str(error))


def _unavailable(error: Exception) -> ServiceUnavailable:
    _store_failures.log(error)
    return ServiceUnavailable("events are not available at the moment", retry_after=5)
