"""All that knows redis-py and fakeredis from inside."""

from __future__ import annotations

__all__: list[str] = []
