"""The standard output: texts in any encoding, and numbers for people or for scripts."""

from __future__ import annotations

import sys

from ._errors import written

__all__ = ["counted", "grouped", "write"]


def write(text: str) -> None:
    """Print a text on the standard output; what its encoding does not have is escaped.

    Raises:
        OutputError: it cannot be written.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    with written("the standard output"):
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))


def grouped(number: int) -> str:
    """Return a number for people: with commas on a terminal, without them for scripts."""
    return f"{number:,}" if sys.stdout.isatty() else str(number)


def counted(number: int, unit: str) -> str:
    """Return a number with its unit, in the singular or the plural."""
    return f"{grouped(number)} {unit}" if number == 1 else f"{grouped(number)} {unit}s"
