"""Numbers as text for readers: shares in per cent. Pure."""

from __future__ import annotations

__all__ = ["percent"]


def percent(rate: float | None) -> str:
    """Return a rate from 0 to 1 in per cent; a dash for ``None``."""
    if rate is None:
        return "\N{EN DASH}"
    hundredths = 100 * rate
    # Not rounded to 100 % or 0 %, which would mean all users or none.
    if 0 < hundredths < 0.1:
        return "<0.1%"
    if 99.9 < hundredths < 100:
        return ">99.9%"
    return f"{hundredths:.0f}%" if hundredths in {0, 100} else f"{hundredths:.1f}%"
