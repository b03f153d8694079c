"""Marks, the commands of one transaction, and their results. Pure."""

from __future__ import annotations

__all__: list[str] = []
