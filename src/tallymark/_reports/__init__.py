"""Reports over many bitmaps: retention, stickiness, funnel. Pure."""

from __future__ import annotations

__all__: list[str] = []
