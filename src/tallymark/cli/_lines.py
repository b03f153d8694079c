"""Values on lines: any text, so that the commands with ``-many`` read what ``users`` prints."""

from __future__ import annotations

import json
from typing import Any, Final

__all__ = ["line_of", "text_of"]

#: What a text on a line of its own does not have, besides being blank or beginning with a quote.
_BREAKS: Final = frozenset("\n\r\ufeff")


def line_of(value: Any) -> str:
    """Return the line for a value: a text as it is, or, if it does not fit a line, as in JSON.

    Texts that begin with a quotation mark are written so, too: `text_of` is the inverse.
    """
    if not isinstance(value, str):
        return str(value)
    if value[:1] == '"' or not _BREAKS.isdisjoint(value) or not value.strip():
        return json.dumps(value, ensure_ascii=False)
    return value


def text_of(line: str) -> str:
    """Return the text that a line stands for."""
    if line[:1] == '"':
        try:
            text = json.loads(line)
        except ValueError:
            return line
        if isinstance(text, str):
            return text
    return line
