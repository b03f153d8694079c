"""Redis Cluster: shards, slots, routing, redirects. Pure."""

from __future__ import annotations

__all__: list[str] = []
