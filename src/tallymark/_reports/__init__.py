"""Reports of product analytics: retention tables, funnels and stickiness. Pure."""

from __future__ import annotations

__all__: list[str] = []
