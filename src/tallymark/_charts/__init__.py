"""Pieces of HTML pages: heat maps and tables, which know nothing of users and events. Pure."""

from __future__ import annotations

__all__: list[str] = []
