"""Checks of arguments: integers, names, flags; and value classes that refuse changes. Pure.

The checks return an exact ``int`` or ``str``, whatever a subclass overrides, and raise no
errors but tallymark's.
"""

from __future__ import annotations

import operator
import sys
import unicodedata
from collections.abc import Iterable
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING, Any, Final, NoReturn, SupportsIndex, TypeVar, cast

from ..errors import InvalidTypeError, InvalidValueError
from .untrusted import kind_of, reraise_from_handler, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "USE_USER_IDS",
    "check_flag",
    "check_name",
    "checked_int",
    "checked_name",
    "described",
    "exact_int",
    "immutable",
    "is_array",
    "iterated",
    "plain_str",
]

ItemT = TypeVar("ItemT")
ClassT = TypeVar("ClassT", bound=type)

#: Advice in errors about user ids of other types, or of 64 bits.
USE_USER_IDS: Final = (
    "for other ids, make a tally with user_ids=uuid.UUID, str, bytes or int (64 bits)"
)


def is_array(ids: object) -> bool:
    """Return whether this is a numpy array. Does not import numpy."""
    # While another thread imports numpy, it has no such class yet, and there are no arrays.
    array = getattr(sys.modules.get("numpy"), "ndarray", None)
    return array is not None and issubclass(type(ids), array)


def plain_str(value: ItemT) -> ItemT:
    """Return an instance of a subclass of str as an exact str, any other value unchanged."""
    if type(value) is not str and isinstance(value, str):
        return cast("ItemT", str.__str__(value))
    return value


def checked_name(what: str, name: str) -> str:
    """Return a name as an exact str. Raises as `check_name`."""
    plain = plain_str(name)
    check_name(what, plain)
    return plain


def check_name(what: str, name: str) -> None:
    """Raise unless ``name`` is a non-empty str that UTF-8 can encode, without control characters.

    Control characters are Unicode's category Cc. A name has them only by mistake, and they
    break the output of tools that list keys.

    Raises:
        InvalidTypeError, InvalidValueError: the name is not allowed.
    """
    if not isinstance(name, str):
        raise InvalidTypeError(
            f"{what} must be a non-empty str without control characters, got {described(name)}"
        )
    if not name:
        raise InvalidValueError(
            f"{what} must be a non-empty str without control characters, got ''"
        )
    if name.isprintable():  # the common case, in C
        return
    for character in name:
        category = unicodedata.category(character)
        if category == "Cc":
            raise InvalidValueError(
                f"{what} must not contain control characters, "
                f"got {shown(character)} in {shown(name)}"
            )
        if category == "Cs":
            raise InvalidValueError(
                f"{what} must be valid Unicode, got a lone surrogate in {shown(name)}"
            )


def checked_int(what: str, value: int) -> int:
    """Return an integer of any type as an exact int.

    Raises:
        InvalidTypeError: the value is no integer, or is a bool.
    """
    number = exact_int(value)
    if number is None:
        raise InvalidTypeError(f"{what} must be an int, got {described(value)}")
    return number


def exact_int(value: object) -> int | None:
    """Return an integer of any type, such as numpy's, as an exact int; ``None`` for other values.

    Neither a bool nor an array of one element counts as an integer.
    """
    kind = type(value)
    if issubclass(kind, int):
        # Not `int(value)`: a subclass may override `__int__`.
        return None if kind is bool else int.__index__(cast("int", value))
    if is_array(value):
        return None
    try:
        number = operator.index(cast("SupportsIndex", value))
    except Exception as error:  # noqa: BLE001 - there is no __index__, or it raises
        reraise_from_handler(error)
        return None
    return int.__index__(number)


def check_flag(what: str, value: object, *, optional: bool = False) -> None:
    """Raise unless a value is True or False, or ``None`` if it is optional.

    Raises:
        InvalidTypeError: it is neither.
    """
    if type(value) is not bool and not (optional and value is None):
        choices = "True, False or None" if optional else "True or False"
        raise InvalidTypeError(f"{what} must be {choices}, got {shown(value)}")


def iterated(what: str, items: Iterable[ItemT]) -> Iterator[ItemT]:
    """Return an iterator over an iterable of a caller.

    An exception that the iterator raises later is the caller's, and passes unchanged.

    Raises:
        InvalidTypeError: this is no iterable, or is a str or bytes.
    """
    error = None
    # Not objects that only have `__getitem__`: that of a Redis client sends a command.
    if isinstance(items, Iterable) and not isinstance(items, str | bytes):
        try:
            return iter(items)
        except TypeError as raised:  # `__iter__` exists and refuses
            reraise_from_handler(raised)
            error = raised
    raise InvalidTypeError(f"{what}, got {shown(items)}") from error


def described(value: object) -> str:
    """Return a value and its type as text, for the end of a message."""
    return f"{shown(value)} of type {kind_of(value)}"


def immutable(cls: ClassT) -> ClassT:
    """Make a frozen dataclass with slots raise `FrozenInstanceError` for every attribute.

    dataclasses does so for the fields alone. For other names its ``__setattr__`` calls
    ``super`` with the class as it was before it got slots, which is a TypeError.
    """
    frozen: Any = cls
    frozen.__setattr__ = _refuse_to_set
    frozen.__delattr__ = _refuse_to_delete
    return cls


def _refuse_to_set(self: object, name: str, value: object) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: object, name: str) -> NoReturn:
    raise FrozenInstanceError(f"cannot delete field {name!r}")
