"""Ids of users as programs pass them. Pure."""

from __future__ import annotations

from typing import Any, cast

__all__ = ["checked_id"]


def checked_id(uuid: Any) -> int:
    """Return a user's id as an int, if it is a string of digits, as redis-py sends it too.

    All else is returned as it is, for the tally to judge.
    """
    if isinstance(uuid, str) and uuid.isascii() and uuid.isdecimal() and str(int(uuid)) == uuid:
        return int(uuid)
    return cast("int", uuid)
