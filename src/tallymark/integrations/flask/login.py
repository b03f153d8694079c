"""The users of Flask-Login, if the app has it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

from flask import g

from ..._core.untrusted import shown
from ...errors import InvalidValueError
from .requests import tally_of_app

try:
    import flask_login as _flask_login
except ImportError:  # the app's users are of another kind
    _flask_login = None

flask_login: Any = _flask_login

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask, Request

    from ..._core.user_ids import UserId

__all__ = ["connect_flask_login", "loaded_user"]

#: Where Flask-Login (0.6.2 and newer) keeps the user in `flask.g`, once a request has loaded it.
_USER: Final = "_login_user"

#: From the ids of Flask-Login, which are strings, to those of a tally, by its ``user_ids``.
_FROM_STR: Final[dict[Any, Callable[[str], UserId]]] = {
    None: int,
    int: int,
    str: str,
    bytes: str.encode,
    uuid.UUID: uuid.UUID,
}


def connect_flask_login(app: Flask, mark_login: Callable[..., None]) -> None:
    """Call a function after each login, if there is Flask-Login."""
    if flask_login is not None:
        flask_login.user_logged_in.connect(mark_login, app)


def loaded_user(_: Request) -> UserId | None:
    """Return the id of Flask-Login's user, if the current request has loaded this user already.

    To load the user costs a query of the app's database, which a mark does not make.

    Raises:
        InvalidValueError: the id is not of the type of the tally's ids.
    """
    if _USER not in g or not flask_login.current_user.is_authenticated:
        return None
    text: str = flask_login.current_user.get_id()
    kind = tally_of_app().backend.context.options.user_ids
    try:
        return _FROM_STR[kind](text)
    except ValueError:
        name = "int" if kind is None else kind.__name__
        raise InvalidValueError(
            f"the ids of the tally are of the type {name}, and Flask-Login's get_id() returned "
            f"{shown(text)}: set user_ids, or pass a function user"
        ) from None
