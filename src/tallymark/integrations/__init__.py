"""Integrations with frameworks, each in a module that imports the framework itself."""

from __future__ import annotations

__all__: list[str] = []
