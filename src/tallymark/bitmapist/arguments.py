"""User ids, names and switches as programs pass them. Pure."""

from __future__ import annotations

from typing import Any, cast

from .._core.untrusted import kind_of, reraise_from_handler, shown
from ..errors import InvalidTypeError, InvalidValueError

__all__ = ["as_bool", "as_id", "as_text"]


def as_id(uuid: Any) -> int:
    """Convert a string of digits to an int, as redis-py sends both alike.

    Any other value is returned as it is; the tally checks it.
    """
    if isinstance(uuid, str):
        digits = str.__str__(uuid)  # also of a subclass
        # The longest id has 10 digits: Python refuses to convert thousands of them.
        if len(digits) <= 10 and digits.isascii() and digits.isdecimal():
            number = int(digits)
            if str(number) == digits:
                return number
    return cast("int", uuid)


def as_text(value: object) -> str:
    """Convert a value to ``str``, for a part of a key.

    Raises:
        InvalidValueError: the conversion fails, or UTF-8 cannot encode the text.
    """
    try:
        text = str.__str__(value if isinstance(value, str) else str(value))
        text.encode()
    except Exception as error:
        reraise_from_handler(error)
        raise InvalidValueError(f"a key cannot hold {shown(value)}") from error
    return text


def as_bool(name: str, value: object) -> bool:
    """Convert an argument to ``bool``.

    Arguments:
        name: the argument's name.
        value: its value.

    Raises:
        InvalidTypeError: the conversion fails.
    """
    try:
        return bool(value)
    except Exception as error:
        reraise_from_handler(error)
        raise InvalidTypeError(f"{name} must be true or false, got a {kind_of(value)}") from error
