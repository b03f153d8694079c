"""Numbers as text for readers: grouped, compact, or in per cent; and the width of text. Pure."""

from __future__ import annotations

import unicodedata
from typing import Final

__all__ = ["MISSING", "compact", "fitted", "grouped", "percent", "signed", "text_width"]

#: The text of a number that does not exist.
MISSING: Final = "\N{EN DASH}"

_SUFFIXES: Final = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k"))


def percent(rate: float | None) -> str:
    """Return a rate from 0 to 1 in per cent; a dash for ``None``."""
    if rate is None:
        return MISSING
    hundredths = 100 * rate
    # Not rounded to 100 % or 0 %, which would mean all users or none.
    if 0 < hundredths < 0.1:
        return "<0.1%"
    if 99.9 < hundredths < 100:
        return ">99.9%"
    return f"{hundredths:.0f}%" if hundredths in {0, 100} else f"{hundredths:.1f}%"


def grouped(number: float | None) -> str:
    """Return a number with commas and at most two decimals; a dash for ``None``."""
    if number is None:
        return MISSING
    text = f"{abs(number):,}" if isinstance(number, int) else f"{abs(number):,.2f}"
    return _signed(number, text.rstrip("0").rstrip(".") if "." in text else text)


def signed(number: int) -> str:
    """Return a number with commas and its sign, also if that is a plus."""
    return grouped(number) if number < 0 else f"+{grouped(number)}"


def compact(number: float, digits: int = 3) -> str:
    """Return a number of 1,000 or more with so many digits that count, as in ``1.23M``."""
    size = abs(number)
    for unit, suffix in _SUFFIXES:
        share = size / unit
        if share >= 0.9995:
            # Not in the form of 1e+02.
            text = f"{share:.{digits}g}" if share < 10**digits - 0.5 else f"{share:,.0f}"
            return _signed(number, text + suffix)
    return _signed(number, f"{size:.3g}")


def _signed(number: float, text: str) -> str:
    return f"\N{MINUS SIGN}{text}" if number < 0 else text


def text_width(text: str, size: float = 12) -> float:
    """Return how wide a text is, in pixels, at most: its font is not known."""
    return size * sum(map(_character_width, text))


def fitted(text: str, most: float, size: float = 12) -> str:
    """Return as much of a text as fits into so many pixels, with an ellipsis if that is not all."""
    if text_width(text, size) <= most:
        return text
    left = most - text_width("…", size)
    kept = []
    for character in text:
        left -= size * _character_width(character)
        if left < 0:
            break
        kept.append(character)
    return "".join(kept).rstrip() + "…"


def _character_width(character: str) -> float:
    """Return the width of a character in em, for wide fonts."""
    if unicodedata.east_asian_width(character) in "WF":
        return 1.05
    if unicodedata.category(character) in _WITHOUT_WIDTH:
        return 0.0
    if character.isascii() and character in _NARROW:
        return 0.4
    return 0.92 if character.isupper() or character in _WIDE else 0.66


#: Marks that combine with the character before them, and controls of the direction.
_WITHOUT_WIDTH: Final = frozenset(("Mn", "Me", "Cf", "Cc"))
_NARROW: Final = frozenset("iljtfr.,:;'|!()[] /-")
_WIDE: Final = frozenset("mw@%&—…→")
