"""Which URLs name a store. Pure."""

from __future__ import annotations

import re
from typing import Final

from .errors import InvalidTypeError, InvalidValueError

__all__ = ["check_url", "store_name"]

MEMORY_SCHEME: Final = "memory"
#: redis-py would take database 0 for a path that is no number.
_DATABASE: Final = re.compile(r"[^:]+://[^/?]*(/[0-9]*)?(\?.*)?")
SCHEMES: Final = ("redis", "rediss", "unix", MEMORY_SCHEME)


def check_url(url: str) -> None:
    """Raise unless the URL has a scheme that we know.

    The message never holds the URL, which may hold a password.
    """
    if not isinstance(url, str):
        raise InvalidTypeError(f"a store's URL must be a str, got a {type(url).__name__}")
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        got = f"{scheme!r:.40}" if separator else "none"
        raise InvalidValueError(f"the URL of a store begins with one of {known}; got {got}")
    store_name(url)
    if scheme in {"redis", "rediss"} and not _DATABASE.fullmatch(url):
        raise InvalidValueError(
            f"the path of a {scheme}:// URL is the number of a database; "
            "a '/' in a password is written %2F"
        )


def store_name(url: str) -> str | None:
    """Return the name of the embedded store, or None if the URL names a server."""
    scheme, _, name = url.partition("://")
    if scheme != MEMORY_SCHEME:
        return None
    if any(character in name for character in "/?#@:"):
        raise InvalidValueError(
            "an embedded store is memory:// or memory://name, without host, path or options"
        )
    return name
