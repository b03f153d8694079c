"""Queries: generators of requests. Pure."""

from __future__ import annotations

__all__: list[str] = []
