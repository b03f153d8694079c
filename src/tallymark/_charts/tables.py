"""Plain tables of numbers. Pure."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple

from .page import isolated

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TABLE_STYLE", "Table", "scrolling"]


class Table(NamedTuple):
    """A table of numbers with a name for each row.

    Attributes:
        title: the accessible name.
        columns: the headings of the columns, that of the names first.
        rows: the rows: the name, then the numbers, as text.
        names: how many columns, at the left, hold names.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1

    @property
    def style(self) -> str:
        """The CSS rules of plain tables."""
        return TABLE_STYLE

    def html(self) -> str:
        """Return the table as HTML."""
        columns = "".join(
            f'<th scope="col"{_kind(index, self.names)}>{escape(heading)}</th>'
            for index, heading in enumerate(map(isolated, self.columns))
        )
        body = "".join(_row(row, self.names) for row in self.rows)
        return scrolling(
            self.title,
            f'<table class="plain">\n<thead><tr>{columns}</tr></thead>\n'
            f"<tbody>\n{body}</tbody>\n</table>\n",
        )


TABLE_STYLE: Final = """\
.tallymark .plain { border-spacing: 0; }
.tallymark .plain td, .tallymark .plain th { padding: .15em 1.2em .15em 0;
  border-bottom: 1px solid var(--rule); }
.tallymark .plain th, .tallymark .plain .name { max-width: 16em; white-space: normal;
  overflow-wrap: break-word; }
.tallymark .plain .name, .tallymark .plain tr > th:first-child { text-align: left;
  min-width: 8em; }
"""


def scrolling(title: str, content: str) -> str:
    """Return HTML with a region that scrolls if the content is too wide, also by the keyboard."""
    label = escape(isolated(title))
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">\n{content}</div>\n'
    )


def _row(row: Sequence[str], names: int) -> str:
    first, *cells = map(escape, map(isolated, row))
    others = "".join(f"<td{_kind(index, names)}>{cell}</td>" for index, cell in enumerate(cells, 1))
    return f'<tr><th scope="row">{first}</th>{others}</tr>\n'


def _kind(index: int, names: int) -> str:
    return ' class="name"' if 0 < index < names else ""
