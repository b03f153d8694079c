"""Queries: generators of effects; executions: their deadlines and retries. Pure."""

from __future__ import annotations

__all__: list[str] = []
