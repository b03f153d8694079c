"""Ids of users, names and switches as programs pass them. Pure."""

from __future__ import annotations

from typing import Any, cast

from .._core.excerpts import kind_of, shown
from .._core.handlers import let_handlers_pass
from ..errors import InvalidTypeError, InvalidValueError

__all__ = ["checked_id", "text_of", "truth_of"]


def checked_id(uuid: Any) -> int:
    """Return a user's id as an int, if it is a string of digits, as redis-py sends it too.

    All else is returned as it is, for the tally to judge.
    """
    if isinstance(uuid, str):
        digits = str.__str__(uuid)  # of a subclass, too
        # As many as an id has at most: Python refuses to read thousands of them.
        if len(digits) <= 10 and digits.isascii() and digits.isdecimal():
            number = int(digits)
            if str(number) == digits:
                return number
    return cast("int", uuid)


def text_of(value: object) -> str:
    """Return what ``str`` makes of a value, as a part of a key.

    Raises:
        InvalidValueError: there is no such text, or UTF-8 cannot encode it.
    """
    try:
        text = str.__str__(value if isinstance(value, str) else str(value))
        text.encode()
    except Exception as error:
        let_handlers_pass(error)
        raise InvalidValueError(f"a key cannot hold {shown(value)}") from error
    return text


def truth_of(name: str, value: object) -> bool:
    """Return whether a value is true.

    Raises:
        InvalidTypeError: it does not tell.
    """
    try:
        return bool(value)
    except Exception as error:
        let_handlers_pass(error)
        raise InvalidTypeError(f"{name} must be true or false, got a {kind_of(value)}") from error
