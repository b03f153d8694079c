"""Heat maps: HTML tables whose cells are coloured by their rates. Pure.

The HTML needs no script, font or other file.
"""

from __future__ import annotations

import math
import unicodedata
from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["HeatCell", "HeatMap", "HeatRow", "isolated"]


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
        title: the heading of the page.
        caption: one sentence that says what the table shows.
        corner: the heading of the column of row names.
        columns: the headings of the columns.
        rows: the rows; the first one is a summary, and underlined.
        notes: the meaning of cells without colour, for the legend.
    """

    title: str
    caption: str
    corner: str
    columns: Sequence[str]
    rows: Sequence[HeatRow]
    notes: Sequence[str]

    def page(self) -> str:
        """Return a complete HTML page."""
        title = escape(isolated(self.title))
        return (
            f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{title}</title>\n<style>\n{_PAGE_STYLE}</style>\n</head>\n"
            f"<body>\n<h1>{title}</h1>\n{self._table(escape(self.caption))}</body>\n</html>\n"
        )

    def fragment(self) -> str:
        """Return the table with its style and legend, as a part of another page."""
        return self._table(f"<b>{escape(isolated(self.title))}</b><br>{escape(self.caption)}")

    def _table(self, caption: str) -> str:
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
        label = escape(isolated(self.title))
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return (
            f'<div class="tallymark-heatmap">\n<style>\n{_STYLE}{_colour_styles()}</style>\n'
            f"<p>{caption}</p>\n"
            f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">\n'
            f"<table>\n<thead><tr>{columns}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n"
            f'</div>\n<ul class="legend">{legend}{notes}</ul>\n</div>\n'
        )


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

_STYLE: Final = """\
.tallymark-heatmap { color-scheme: light dark; --ink: #1b2530; --faint: #5b6875;
  --paper: #ffffff; --line: #b8c2cc; --strong: #ffffff;
  color: var(--ink); background: var(--paper); font: 14px/1.4 system-ui, sans-serif; }
.tallymark-heatmap p { color: var(--faint); margin: 0 0 .8em; max-width: 75em; text-wrap: pretty; }
.tallymark-heatmap .scroll { overflow-x: auto; }
.tallymark-heatmap table { border-collapse: separate; border-spacing: 2px; margin: 0; }
.tallymark-heatmap th, .tallymark-heatmap td { padding: .3em .55em; text-align: right;
  white-space: nowrap; font-variant-numeric: tabular-nums; border: 0; }
.tallymark-heatmap th { font-weight: 600; background: var(--paper); color: var(--ink); }
.tallymark-heatmap tr > th:first-child { text-align: left; position: sticky; left: 0; }
.tallymark-heatmap td { border-radius: 3px; min-width: 3.2em; }
.tallymark-heatmap td.size, .tallymark-heatmap td.none { color: var(--faint);
  background: var(--paper); }
.tallymark-heatmap tr.summary > * { border-bottom: 2px solid var(--line); border-radius: 0; }
.tallymark-heatmap .legend { color: var(--faint); margin: .8em 0 0; padding: 0;
  display: flex; flex-wrap: wrap; gap: .3em .9em; list-style: none; }
.tallymark-heatmap .legend span { display: inline-block; width: 1.1em; height: 1.1em;
  border-radius: 3px; vertical-align: -.15em; margin-right: .15em; }
"""

_PAGE_STYLE: Final = """\
html { color-scheme: light dark; background: #ffffff; color: #1b2530; }
body { margin: 0; padding: 1.2em; }
h1 { font: 600 20px/1.3 system-ui, sans-serif; margin: 0 0 .4em; }
@media (prefers-color-scheme: dark) { html { background: #12171d; color: #e8eef4; } }
"""


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
    text = escape(cell.text) or _percent(cell.rate)
    return f'<td class="r{_level(cell.rate)}" title="{title}">{text}</td>'


def _level(rate: float) -> int:
    """Return the number of a rate's CSS class: the rate in tens of per cent, rounded up."""
    return min(math.ceil(round(rate * _LEVELS, 9)), _LEVELS)


def _percent(rate: float) -> str:
    percent = 100 * rate
    # Not rounded to 100 % or 0 %, which would mean all users or none.
    if 0 < percent < 0.1:
        return "&lt;0.1%"
    if 99.9 < percent < 100:
        return "&gt;99.9%"
    return f"{percent:.0f}%" if percent in {0, 100} else f"{percent:.1f}%"


def _colour_styles() -> str:
    dark = (
        ".tallymark-heatmap { --ink: #e8eef4; --faint: #9fb0c0; --paper: #12171d; "
        "--line: #46535f; --strong: #0b1118; }\n" + "".join(_level_styles(_DARK))
    )
    return "".join(_level_styles(_LIGHT)) + f"@media (prefers-color-scheme: dark) {{\n{dark}}}\n"


def _level_styles(colours: tuple[str, ...]) -> Iterable[str]:
    return (
        f".tallymark-heatmap .r{level} {{ background: {colour}; "
        f"color: var(--{'strong' if level >= _STRONG else 'ink'}); }}\n"
        for level, colour in enumerate(colours)
    )


#: First strong isolate, pop directional isolate, and all characters that begin an isolate
#: (https://www.unicode.org/reports/tr9/#Explicit_Directional_Isolates).
_ISOLATE: Final = "\u2068"
_POP: Final = "\u2069"
_ISOLATES: Final = frozenset("\u2066\u2067\u2068")

#: The bidirectional classes of characters that run from right to left, that set the direction
#: of others, or that end a paragraph
#: (https://www.unicode.org/reports/tr9/#Bidirectional_Character_Types).
_DIRECTIONAL: Final = frozenset(
    (*("R", "AL", "AN", "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"), "B")
)

#: The characters that end a paragraph, and so all isolates, are replaced by spaces.
_PARAGRAPHS: Final = dict.fromkeys(map(ord, "\n\r\x1c\x1d\x1e\x85\u2029"), " ")


def isolated(text: str) -> str:
    """Return text that does not change the direction of the text around it.

    Text with characters that have a direction gets a bidirectional isolate. Works also where
    HTML markup is not possible, such as in a title.
    """
    if _DIRECTIONAL.isdisjoint(map(unicodedata.bidirectional, text)):
        return text
    return f"{_ISOLATE}{_balanced(text)}{_POP}"


def _balanced(text: str) -> str:
    """Return text that ends all isolates that begin in it, and no others."""
    depth = 0
    characters = []
    for character in text.translate(_PARAGRAPHS):
        if character == _POP and not depth:
            continue
        depth += (character in _ISOLATES) - (character == _POP)
        characters.append(character)
    return "".join(characters) + _POP * depth
