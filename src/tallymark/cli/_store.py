"""The store of a command: ``--url``, ``--prefix``, ``--user-ids`` and so on become a tally."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .._core.urls import StoreUrl
from .._core.user_ids import id_type
from .._redis.defaults import DEFAULT_URL, URL_VARIABLE
from ._errors import UsageError

__all__ = ["StoreOptions", "store_url"]

_ID_TYPES: Final[dict[str, type]] = {
    id_type(kind).name: kind for kind in (str, uuid.UUID, int, bytes)
}


def store_url(text: str | None) -> StoreUrl:
    """Return the URL in an argument, or in the variable or file that the argument names.

    Arguments:
        text: a URL, ``env:NAME`` or ``file:PATH``; ``None`` for the variable `URL_VARIABLE`,
            or the default.

    Raises:
        UsageError: there is no such variable, or the file cannot be read.
    """
    if text is None:
        value = os.environ.get(URL_VARIABLE)
        return StoreUrl(value or DEFAULT_URL, f"{URL_VARIABLE}: " if value else "")
    kind, _, name = text.partition(":")
    del text  # error reporters show the locals of frames
    if kind == "env":
        value = os.environ.get(name)
        if value is None:
            raise UsageError("--url: there is no such environment variable")
        return StoreUrl(value, "--url: ")
    if kind == "file":
        try:
            return StoreUrl(Path(name).read_text("utf-8-sig").strip(), "--url: ")
        except (OSError, ValueError) as error:
            problem = type(error).__name__
        raise UsageError(f"--url: the file cannot be read ({problem})")
    return StoreUrl(f"{kind}:{name}", "--url: ")


@dataclass(frozen=True)
class StoreOptions:
    """Which database a command uses.

    Attributes:
        url: the URL of the store.
        user_ids: the name of the type of the user ids; ``None`` for numbers that are offsets.
        options: options of the tally.
    """

    url: StoreUrl
    user_ids: str | None
    options: dict[str, Any]

    def open(self) -> Any:
        """Return a blocking tally on the store; the caller closes it.

        Raises:
            InvalidTypeError, InvalidValueError: the URL or an option is not allowed.
            MissingExtraError: ``memory://`` without fakeredis.
        """
        from .._sync.tally import SyncTally  # noqa: PLC0415 - loads redis-py; no help needs it

        kind = None if self.user_ids is None else _ID_TYPES[self.user_ids]
        url: Any = self.url  # `from_url` takes it like a str
        return SyncTally.from_url(url, user_ids=kind, **self.options)

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
            f"user ids are {_DESCRIPTIONS[self.user_ids]}, got {text[:80]!r} (--user-ids TYPE for "
            "ids of another type)"
        )


_DESCRIPTIONS: Final = {
    None: "whole numbers",
    "int": "whole numbers",
    "uuid": "UUIDs",
    "bytes": "bytes in hexadecimal digits",
    "str": "texts",
}
