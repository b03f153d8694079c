"""Plain tables of numbers. Pure."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

from .page import isolated

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Table", "scrolling"]


class Table(NamedTuple):
    """A table of numbers with a name for each row.

    Attributes:
        title: the accessible name.
        columns: the headings of the columns, that of the names first.
        rows: the rows: the name, then the numbers, as text.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def style(self) -> str:
        """The CSS rules of plain tables."""
        return ".tallymark .plain td, .tallymark .plain th { padding: .2em .8em .2em 0; }\n"

    def html(self) -> str:
        """Return the table as HTML."""
        columns = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in self.columns)
        return scrolling(
            self.title,
            f'<table class="plain">\n<thead><tr>{columns}</tr></thead>\n<tbody>\n'
            f"{''.join(map(_row, self.rows))}</tbody>\n</table>\n",
        )


def scrolling(title: str, content: str) -> str:
    """Return HTML with a region that scrolls if the content is too wide, also by the keyboard."""
    label = escape(isolated(title))
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">\n{content}</div>\n'
    )


def _row(row: Sequence[str]) -> str:
    name, *cells = map(escape, map(isolated, row))
    numbers = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr><th scope="row">{name}</th>{numbers}</tr>\n'
