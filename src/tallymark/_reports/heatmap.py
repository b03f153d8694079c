"""Tables coloured by rates, as HTML that needs nothing else. Pure."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple

from .._core.untrusted import isolated

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["HeatCell", "HeatMap", "HeatRow"]


class HeatCell(NamedTuple):
    """One cell.

    Attributes:
        rate: from 0 to 1, which decides the colour; ``None`` for a blank cell.
        title: what a pointer that rests on it brings up.
        text: what it shows; of a cell with a rate, the rate by default.
    """

    rate: float | None
    title: str
    text: str = ""


class HeatRow(NamedTuple):
    """One row: what it is, how many users it has, its cells."""

    name: str
    size: int
    cells: Sequence[HeatCell]


class HeatMap(NamedTuple):
    """A table whose cells are coloured by their rates.

    Attributes:
        title: the heading.
        caption: what it shows, in a sentence.
        corner: what the rows' names are.
        columns: the columns' names.
        rows: the rows; the first one is set apart, as a summary.
        notes: what blank cells mean, for the legend.
    """

    title: str
    caption: str
    corner: str
    columns: Sequence[str]
    rows: Sequence[HeatRow]
    notes: Sequence[str]

    def page(self) -> str:
        """Return a whole page of HTML."""
        title = escape(isolated(self.title))
        return (
            f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{title}</title>\n<style>\n{_PAGE_STYLE}</style>\n</head>\n"
            f"<body>\n<h1>{title}</h1>\n{self._table(escape(self.caption))}</body>\n</html>\n"
        )

    def fragment(self) -> str:
        """Return the table with its style and legend, to be put into a page."""
        return self._table(f"<b>{escape(isolated(self.title))}</b><br>{escape(self.caption)}")

    def _table(self, caption: str) -> str:
        heads = [self.corner, "Users", *self.columns]
        columns = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
        body = "".join(
            _row(row, ' class="summary"' if number == 0 else "")
            for number, row in enumerate(self.rows)
        )
        legend = "".join(
            f'<li><span class="r{level}"></span>{label}</li>'
            for level, label in enumerate(["0%", *(f"to {step}0%" for step in range(1, 11))])
        )
        label = escape(isolated(self.title))
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return (
            f'<div class="tallymark-heatmap">\n<style>\n{_STYLE}{_scale()}</style>\n'
            f"<p>{caption}</p>\n"
            f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">\n'
            f"<table>\n<thead><tr>{columns}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n"
            f'</div>\n<ul class="legend">{legend}{notes}</ul>\n</div>\n'
        )


#: The classes of rates: `r0` is for 0 alone, `r1` for up to 10 %, `r10` for more than 90 %.
_LEVELS: Final = 10

#: One hue, from the page's own colour to a strong one; the text on it keeps a contrast
#: of at least 4.5 to 1 (WCAG 2.2, 1.4.3), which the browser test measures.
_LIGHT: Final = (
    *("#f4f6f8", "#e3eefa", "#cfe2f7", "#b9d5f3", "#a1c7ee", "#86b7e8"),
    *("#69a5e0", "#3170b3", "#2864a5", "#1d5794", "#12457c"),
)
_DARK: Final = (
    *("#20262d", "#1d2f43", "#1c3854", "#1b4166", "#1b4b78", "#1c568b"),
    *("#1e629f", "#7db4ea", "#93c1ee", "#a9cef2", "#bfdbf6"),
)
#: From this class on, the text is that of the other end of the scale.
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


def _row(row: HeatRow, kind: str) -> str:
    cells = "".join(map(_cell, row.cells))
    return (
        f'<tr{kind}><th scope="row">{escape(row.name)}</th>'
        f'<td class="size">{row.size:,}</td>{cells}</tr>\n'
    )


def _cell(cell: HeatCell) -> str:
    title = escape(cell.title)
    if cell.rate is None:
        return f'<td class="none" title="{title}">{escape(cell.text)}</td>'
    text = escape(cell.text) or _percent(cell.rate)
    return f'<td class="r{_level(cell.rate)}" title="{title}">{text}</td>'


def _level(rate: float) -> int:
    """Return the class of a rate: the tens of per cent, rounded up."""
    return min(math.ceil(round(rate * _LEVELS, 9)), _LEVELS)


def _percent(rate: float) -> str:
    percent = 100 * rate
    # 99.96 % is not all of them, nor is 0.04 % nobody.
    if 0 < percent < 0.1:
        return "&lt;0.1%"
    if 99.9 < percent < 100:
        return "&gt;99.9%"
    return f"{percent:.0f}%" if percent in {0, 100} else f"{percent:.1f}%"


def _scale() -> str:
    dark = (
        ".tallymark-heatmap { --ink: #e8eef4; --faint: #9fb0c0; --paper: #12171d; "
        "--line: #46535f; --strong: #0b1118; }\n" + "".join(_shades(_DARK))
    )
    return "".join(_shades(_LIGHT)) + f"@media (prefers-color-scheme: dark) {{\n{dark}}}\n"


def _shades(colours: tuple[str, ...]) -> Iterable[str]:
    return (
        f".tallymark-heatmap .r{level} {{ background: {colour}; "
        f"color: var(--{'strong' if level >= _STRONG else 'ink'}); }}\n"
        for level, colour in enumerate(colours)
    )
