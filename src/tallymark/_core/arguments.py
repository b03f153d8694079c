"""Checks of arguments that many verbs take: integers, names, switches. Pure.

They return plain values, whatever a subclass of ``int`` or ``str`` does, and never raise
anything but errors of tallymark.
"""

from __future__ import annotations

import operator
import sys
import unicodedata
from collections.abc import Iterable
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING, Any, Final, NoReturn, SupportsIndex, TypeVar, cast

from ..errors import InvalidTypeError, InvalidValueError
from .untrusted import kind_of, let_handlers_pass, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "NUMBER_THEM",
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

#: What to do with ids of other types, or of 64 bits.
NUMBER_THEM: Final = (
    "for other ids, number the users in your database, as in a table with an integer key"
)


def is_array(ids: object) -> bool:
    """Tell whether this is a numpy array."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(type(ids), numpy.ndarray)


def plain_str(value: ItemT) -> ItemT:
    """Return the plain str of a subclass of it, and all else as it is."""
    if type(value) is not str and isinstance(value, str):
        return cast("ItemT", str.__str__(value))
    return value


def checked_name(what: str, name: str) -> str:
    """Return a name if `check_name` finds nothing wrong with it; a plain str of a subclass."""
    plain = plain_str(name)
    check_name(what, plain)
    return plain


def check_name(what: str, name: str) -> None:
    """Raise unless ``name`` is a non-empty str that UTF-8 can encode, without control characters.

    Control characters are Unicode's category Cc. They never belong in a name
    on purpose, and they break the lines of every tool that lists keys.
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
    """Return a value as an int if it is an integer; a bool is none here."""
    number = exact_int(value)
    if number is None:
        raise InvalidTypeError(f"{what} must be an int, got {described(value)}")
    return number


def exact_int(value: object) -> int | None:
    """Return an integer of any type, such as numpy's, as an int; ``None`` if it is none.

    A bool is no integer here, nor is an array that happens to have one element.
    """
    kind = type(value)
    if issubclass(kind, int):
        # Not `int(value)`, which a subclass may define.
        return None if kind is bool else int.__index__(cast("int", value))
    if is_array(value):
        return None
    try:
        number = operator.index(cast("SupportsIndex", value))
    except Exception as error:  # noqa: BLE001 - it has no __index__, or one that raises whatever
        let_handlers_pass(error)
        return None
    return int.__index__(number)


def check_flag(what: str, value: bool) -> None:
    """Raise unless a value is True or False."""
    if type(value) is not bool:
        raise InvalidTypeError(f"{what} must be True or False, got {shown(value)}")


def iterated(what: str, items: Iterable[ItemT]) -> Iterator[ItemT]:
    """Return an iterator over items of a caller's.

    What it raises later, in the middle, is the caller's own.

    Raises:
        InvalidTypeError: there is nothing to iterate over, or it is a text.
    """
    error = None
    # What has only `__getitem__` may be a client, which would be asked for keys.
    if isinstance(items, Iterable) and not isinstance(items, str | bytes):
        try:
            return iter(items)
        except TypeError as raised:  # some look as if there were
            let_handlers_pass(raised)
            error = raised
    raise InvalidTypeError(f"{what}, got {shown(items)}") from error


def described(value: object) -> str:
    """Return a value and its type, for the end of a message."""
    return f"{shown(value)} of type {kind_of(value)}"


def immutable(cls: ClassT) -> ClassT:
    """Have a frozen dataclass with slots refuse attributes that are not its fields, too.

    dataclasses refuses the fields, and for all others looks for the class as it was before
    it got its slots: a TypeError from ``super``.
    """
    refusing: Any = cls
    refusing.__setattr__ = _refuse_to_set
    refusing.__delattr__ = _refuse_to_delete
    return cls


def _refuse_to_set(self: object, name: str, value: object) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: object, name: str) -> NoReturn:
    raise FrozenInstanceError(f"cannot delete field {name!r}")
