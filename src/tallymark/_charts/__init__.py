"""HTML and SVG for reports: heat maps, charts and tables, which know nothing of events. Pure."""

from __future__ import annotations

__all__: list[str] = []
