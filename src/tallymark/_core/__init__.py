"""Values without I/O and without a clock: periods, keys, event sets, options, RESP."""

from __future__ import annotations

__all__: list[str] = []
