"""The store of a command: ``--url``, ``--prefix``, ``--user-ids`` and so on become a tally."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from .._core.user_ids import TYPES_BY_NAME
from ._errors import UsageError, quoted

if TYPE_CHECKING:
    from .._core.urls import StoreUrl

__all__ = ["StoreOptions", "shards_of"]


@dataclass(frozen=True)
class StoreOptions:
    """Which database a command uses.

    Attributes:
        url: the URL of the store.
        user_ids: the name of the type of the user ids; ``None`` for numbers that are offsets.
        options: options of the tally.
        is_named: whether the command line names the store; else it is the default one.
    """

    url: StoreUrl
    user_ids: str | None
    options: dict[str, Any]
    is_named: bool = True

    def open(self) -> Any:
        """Return a blocking tally on the store; the caller closes it.

        Raises:
            InvalidTypeError, InvalidValueError: the URL or an option is not allowed.
            MissingExtraError: ``memory://`` without fakeredis.
        """
        from .._sync.tally import SyncTally  # noqa: PLC0415 - loads redis-py; no help needs it

        url: Any = self.url  # `from_url` takes it like a str
        return SyncTally.from_url(url, user_ids=self.id_type, **self.options)

    @property
    def id_type(self) -> Any:
        """The option ``user_ids`` of the tally."""
        return None if self.user_ids is None else TYPES_BY_NAME[self.user_ids]

    def text(self, user_id: Any) -> Any:
        """Return a user id for the output, as `user_id` takes it: an int, or a text."""
        if isinstance(user_id, bytes):
            return user_id.hex()
        return user_id if isinstance(user_id, int) else str(user_id)

    def numbered(self, number: int) -> Any:
        """Return the id of an invented user, from 1 on."""
        if self.user_ids == "uuid":
            return uuid.UUID(int=number)
        if self.user_ids == "bytes":
            return number.to_bytes(8, "big")
        return str(number) if self.user_ids == "str" else number

    def user_id(self, text: str) -> Any:
        """Return the user id that a text stands for: bytes are in hexadecimal digits.

        Raises:
            UsageError: it is no id of this type.
        """
        text = text.strip() if self.user_ids != "str" else text
        try:
            if self.user_ids == "str":
                return text
            if self.user_ids == "uuid":
                return uuid.UUID(text)
            if self.user_ids == "bytes":
                return bytes.fromhex(text)
            if text.isascii() and "_" not in text:
                return int(text)
        except ValueError:
            pass
        raise UsageError(
            f"user ids are {_DESCRIPTIONS[self.user_ids]}, got {quoted(text)} (--user-ids TYPE for "
            "ids of another type)"
        )


def shards_of(option: str, text: str) -> int | None:
    """Return the number of shards that an option has; ``None`` for ``none``.

    Raises:
        UsageError: it is neither.
    """
    if text == "none":
        return None
    if re.fullmatch(r"\d{1,5}", text, re.ASCII) is None:
        raise UsageError(f"{option} takes a number or none")
    return int(text)


_DESCRIPTIONS: Final = {
    None: "whole numbers",
    "int": "whole numbers",
    "uuid": "UUIDs",
    "bytes": "bytes in hexadecimal digits",
    "str": "texts",
}
