"""User ids of another type than a database has: from texts, and from a database with others. Pure.

A backup outlives the choice of a type: ids are restored as what a file or another database has
them, if there is one obvious id of the wanted type for each.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

from ..errors import InvalidValueError
from .arguments import is_array
from .offsets import as_objects
from .untrusted import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from .offsets import Numbers

__all__ = ["BYTES_PREFIX", "bytes_text", "converted"]

#: What the text of bytes begins with. No int and no UUID does: hexadecimal digits alone may be
#: those of a number, and so of another user.
BYTES_PREFIX: Final = "\\x"

#: What texts of ids of a type look like, for messages.
_NOTATIONS: Final = {
    int: "a whole number",
    uuid.UUID: "a UUID",
    bytes: r"bytes as \x and hexadecimal digits",
}


def converted(user_ids: Numbers, kind: type | None) -> Numbers:
    """Return ids as those of a type, if they are of another one and that is unambiguous.

    A text becomes the int, the UUID or the bytes that it writes (bytes as `bytes_text`),
    and an int, a UUID or bytes become such a text. All other ids are returned as they are; the
    key schema or the dictionary refuses them.

    Arguments:
        user_ids: a list of ids, or a numpy array.
        kind: the option ``user_ids``; ``None`` for ints that are offsets.

    Raises:
        InvalidValueError: a text is no id of this type.
    """
    wanted = kind or int
    if is_array(user_ids):
        if wanted is int and user_ids.dtype.kind in "iu":
            return user_ids
        user_ids = as_objects(user_ids)
    if {wanted}.issuperset(map(type, user_ids)):
        return user_ids
    convert = _as_text if wanted is str else _PARSERS[wanted]
    return [convert(user_id) for user_id in user_ids]


def bytes_text(user_id: bytes) -> str:
    r"""Return the text of an id of bytes, such as ``\x00ff``."""
    return f"{BYTES_PREFIX}{user_id.hex()}"


def _as_text(user_id: Any) -> Any:
    if type(user_id) is bytes:
        return bytes_text(user_id)
    if type(user_id) is int or isinstance(user_id, uuid.UUID):
        return str(user_id)
    return user_id


def _parser(wanted: type, parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    def parsed(user_id: Any) -> Any:
        if not isinstance(user_id, str):
            return user_id
        text = str.__str__(user_id)
        try:
            result = parse(text)
        except ValueError:
            result = None
        if result is None:
            raise InvalidValueError(f"user id must be {_NOTATIONS[wanted]}, got {shown(text)}")
        return result

    return parsed


def _parse_int(text: str) -> int | None:
    # Not as `int` alone, which takes spaces, underscores and the digits of all scripts; and at
    # most as many digits as 64 bits have, so that a long text takes no time.
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 20 else None


def _parse_uuid(text: str) -> uuid.UUID | None:
    return uuid.UUID(text) if text.isascii() else None


def _parse_bytes(text: str) -> bytes | None:
    digits = text.removeprefix(BYTES_PREFIX)
    # Not as `bytes.fromhex` alone, which takes white space.
    is_text = digits != text and digits.isalnum()
    return bytes.fromhex(digits) if is_text else None


_PARSERS: Final = {
    int: _parser(int, _parse_int),
    uuid.UUID: _parser(uuid.UUID, _parse_uuid),
    bytes: _parser(bytes, _parse_bytes),
}
