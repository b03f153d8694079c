"""Heat maps: HTML tables whose cells are coloured by their rates. Pure."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple

from .formats import percent
from .tables import scrolling

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HeatCell", "HeatMap", "HeatRow"]


class HeatCell(NamedTuple):
    """A cell of a heat map.

    Attributes:
        rate: decides the colour, from 0 to 1; ``None`` for a cell without colour.
        title: the tooltip.
        text: the text of the cell; if empty, the rate in per cent.
    """

    rate: float | None
    title: str
    text: str = ""


class HeatRow(NamedTuple):
    """A row of a heat map.

    Attributes:
        name: the heading of the row.
        size: how many users the row has.
        cells: the cells, one for each column.
    """

    name: str
    size: int
    cells: Sequence[HeatCell]


class HeatMap(NamedTuple):
    """A table whose cells are coloured by their rates.

    Attributes:
        title: the accessible name of the table.
        corner: the heading of the column of row names.
        columns: the headings of the columns.
        rows: the rows; the first one is a summary, and underlined.
        notes: the meaning of cells without colour, for the legend.
    """

    title: str
    corner: str
    columns: Sequence[str]
    rows: Sequence[HeatRow]
    notes: Sequence[str]

    @property
    def style(self) -> str:
        """The CSS rules of heat maps."""
        return _STYLE

    def html(self) -> str:
        """Return the table with its legend."""
        headings = [self.corner, "Users", *self.columns]
        columns = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
        body = "".join(
            _row(row, ' class="summary"' if index == 0 else "")
            for index, row in enumerate(self.rows)
        )
        legend = "".join(
            f'<li><span class="r{level}"></span>{label}</li>'
            for level, label in enumerate(["0%", *(f"to {step}0%" for step in range(1, 11))])
        )
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        table = (
            f'<table class="heatmap">\n<thead><tr>{columns}</tr></thead>\n'
            f"<tbody>\n{body}</tbody>\n</table>\n"
        )
        return f'{scrolling(self.title, table)}<ul class="legend">{legend}{notes}</ul>\n'


#: The CSS classes of rates: `r0` is for exactly 0, `r1` for more than 0 up to 10 %, and so on
#: up to `r10` for more than 90 %.
_LEVELS: Final = 10

#: The background of each class: one hue, from the colour of the page to a strong one. The
#: contrast of the text is at least 4.5 to 1 (WCAG 2.2, 1.4.3), as the browser test measures.
_LIGHT: Final = (
    *("#f4f6f8", "#e3eefa", "#cfe2f7", "#b9d5f3", "#a1c7ee", "#86b7e8"),
    *("#69a5e0", "#3170b3", "#2864a5", "#1d5794", "#12457c"),
)
_DARK: Final = (
    *("#20262d", "#1d2f43", "#1c3854", "#1b4166", "#1b4b78", "#1c568b"),
    *("#1e629f", "#7db4ea", "#93c1ee", "#a9cef2", "#bfdbf6"),
)
#: The first class whose background is so strong that the text has the opposite colour.
_STRONG: Final = 7


def _row(row: HeatRow, attributes: str) -> str:
    cells = "".join(map(_cell, row.cells))
    return (
        f'<tr{attributes}><th scope="row">{escape(row.name)}</th>'
        f'<td class="size">{row.size:,}</td>{cells}</tr>\n'
    )


def _cell(cell: HeatCell) -> str:
    title = escape(cell.title)
    if cell.rate is None:
        return f'<td class="none" title="{title}">{escape(cell.text)}</td>'
    text = escape(cell.text or percent(cell.rate))
    return f'<td class="r{_level(cell.rate)}" title="{title}">{text}</td>'


def _level(rate: float) -> int:
    """Return the number of a rate's CSS class: the rate in tens of per cent, rounded up."""
    return min(math.ceil(round(rate * _LEVELS, 9)), _LEVELS)


def _level_styles(colours: tuple[str, ...]) -> str:
    return "".join(
        f".tallymark .r{level} {{ background: {colour}; "
        f"color: var(--{'strong' if level >= _STRONG else 'ink'}); }}\n"
        for level, colour in enumerate(colours)
    )


_STYLE: Final = f"""\
.tallymark .heatmap td {{ border-radius: 3px; min-width: 3.2em; }}
.tallymark .heatmap td.size, .tallymark .heatmap td.none {{ color: var(--faint);
  background: var(--paper); }}
.tallymark .heatmap tr.summary > * {{ border-bottom: 2px solid var(--line); border-radius: 0; }}
.tallymark .legend {{ color: var(--faint); margin: .8em 0 0; padding: 0;
  display: flex; flex-wrap: wrap; gap: .3em .9em; list-style: none; }}
.tallymark .legend span {{ display: inline-block; width: 1.1em; height: 1.1em;
  border-radius: 3px; vertical-align: -.15em; margin-right: .15em; }}
{_level_styles(_LIGHT)}@media (prefers-color-scheme: dark) {{
{_level_styles(_DARK)}}}
"""
