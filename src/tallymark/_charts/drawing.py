"""What all charts share: the drawing with its text alternatives, the legend, the numbers. Pure.

Charts are SVG that needs no script. Positions from left to right are in per cent and those
from top to bottom in pixels, so a chart fills its container, and text keeps its size. What
only a wide chart has room for, such as a label at every point, is hidden in a narrow one by a
container query.

The geometry is written here, and not taken from a library: those that draw SVG (matplotlib,
Altair, Plotly, pygal) are many times as large as tallymark, need a font's metrics or a
script, or give no text alternatives.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple

from .axes import HEIGHT
from .formats import grouped, percent
from .page import isolated
from .tables import TABLE_STYLE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from .axes import Axes
    from .tables import Table

__all__ = [
    "COLOURS",
    "DRAWING_STYLE",
    "Series",
    "empty",
    "image",
    "legend",
    "marker",
    "numbers",
    "plot",
    "summary",
    "tooltip",
]


class Series(NamedTuple):
    """Numbers with a name: a line, or the bars of one colour.

    Attributes:
        name: the name in the legend.
        values: a number for each point; ``None`` for a point without one.
        unfinished: the indices of the points whose periods are not over.
    """

    name: str
    values: Sequence[float | None]
    unfinished: Collection[int] = ()


#: How many colours there are. Neighbours differ in luminance, by at least 1.4 to 1, and each
#: from the page by at least 3 to 1 (WCAG 2.2, 1.4.11), as the browser test measures.
COLOURS: Final = 8
_LIGHT: Final = (
    *("#2166ac", "#d9730d", "#0b5d53", "#a06cd5", "#8c1d40", "#9a8300", "#3b4754", "#d65f9c"),
)
_DARK: Final = (
    *("#5aa2ee", "#f7c07f", "#2fa38f", "#d6bdf7", "#d95f7f", "#e6d66b", "#8b9bab", "#f5a3cb"),
)

#: The outlines of markers, around the origin. As many as have no common factor with the
#: number of colours, so that 56 lines differ in one or the other.
_MARKERS: Final = (
    "M-3.5 0A3.5 3.5 0 1 0 3.5 0A3.5 3.5 0 1 0-3.5 0Z",  # circle
    "M-3.2-3.2H3.2V3.2H-3.2Z",  # square
    "M0-4.6L4.6 0L0 4.6L-4.6 0Z",  # diamond
    "M0-4.4L4.2 3.2H-4.2Z",  # triangle
    "M0 4.4L4.2-3.2H-4.2Z",  # triangle upside down
    "M-4-1.3H-1.3V-4H1.3V-1.3H4V1.3H1.3V4H-1.3V1.3H-4Z",  # cross
    "M0-4.6L4.4-1.4L2.7 3.7H-2.7L-4.4-1.4Z",  # pentagon
)

#: Up to how many rows the table of the numbers is open.
_OPEN: Final = 6


def _colours(colours: Sequence[str]) -> str:
    return " ".join(f"--c{index}: {colour};" for index, colour in enumerate(colours))


#: The widths of the container queries are those of `axes`.
DRAWING_STYLE: Final = f"""\
{TABLE_STYLE}\
.tallymark {{ {_colours(_LIGHT)} --axis: #76828e; --track: #eef1f4; }}
@media (prefers-color-scheme: dark) {{ .tallymark {{ {_colours(_DARK)} --axis: #7b8996;
  --track: #1e262f; }} }}
{"".join(f".tallymark .c{index} {{ --c: var(--c{index}); }}{chr(10)}" for index in range(COLOURS))}\
.tallymark .chart {{ container-type: inline-size; min-width: min(100%, 17em); max-width: 75em; }}
.tallymark .chart svg {{ display: block; overflow: visible; }}
.tallymark .chart text {{ font: 12px system-ui, sans-serif; fill: var(--faint);
  font-variant-numeric: tabular-nums; }}
.tallymark .chart .of-axis {{ color: var(--faint); font-size: 12px; margin: 0; }}
.tallymark .chart .of-axis.below {{ text-align: center; }}
.tallymark .chart .grid {{ stroke: var(--rule); }}
.tallymark .chart .zero {{ stroke: var(--axis); }}
.tallymark .chart .fill {{ fill: var(--c); }}
.tallymark .chart path.fill {{ stroke: var(--paper); }}
.tallymark .chart rect.fill {{ shape-rendering: crispEdges; }}
.tallymark .chart .line {{ fill: none; stroke: var(--c); stroke-width: 2;
  stroke-linejoin: round; stroke-linecap: round; vector-effect: non-scaling-stroke; }}
.tallymark .chart .line.dashed {{ stroke-dasharray: 2 5; }}
.tallymark .chart .hollow {{ fill: var(--paper); stroke: var(--c); stroke-width: 1.5; }}
.tallymark .chart .key {{ color: var(--ink); margin: 0 0 .5em; padding: 0; display: flex;
  flex-wrap: wrap; gap: .2em 1.2em; list-style: none; }}
.tallymark .chart .key li {{ display: flex; align-items: baseline; gap: .45em;
  overflow-wrap: anywhere; }}
.tallymark .chart .key svg {{ flex: none; align-self: center; }}
.tallymark details {{ margin: .6em 0 0; }}
.tallymark summary {{ color: var(--faint); cursor: pointer; }}
@container (max-width: 1039px) {{ .tallymark .chart .full {{ display: none; }} }}
@container (max-width: 899px) {{ .tallymark .chart .wide {{ display: none; }} }}
@container (max-width: 519px) {{ .tallymark .chart .medium {{ display: none; }} }}
"""


def image(title: str, description: str, height: float, content: str, margin: str = "0") -> str:
    """Return an SVG with a name and a description for screen readers.

    Arguments:
        title: the name.
        description: the numbers that matter most.
        height: the height, in pixels.
        content: the SVG elements.
        margin: the CSS margins around it.
    """
    top_right_bottom_left = margin.split()
    sides = " + ".join(top_right_bottom_left[1::2]) or "0px"
    return (
        f'<svg role="img" width="100%" height="{height:g}" '
        f'style="margin: {margin}; width: calc(100% - ({sides}))">\n'
        f"<title>{escape(isolated(title))}</title>\n<desc>{escape(description)}</desc>\n"
        # Its parts are no images of their own, though some have tooltips.
        f'<g aria-hidden="true">\n{content}</g>\n</svg>\n'
    )


def empty(title: str) -> str:
    """Return a drawing that says that there are no numbers."""
    text = '<text x="50%" y="25" text-anchor="middle">No numbers</text>\n'
    return f'<div class="chart">\n{image(title, "No numbers.", 40, text)}</div>\n'


def plot(title: str, description: str, axes: Axes, content: str, *, above: str, below: str) -> str:
    """Return a drawing with axes, and the names of its axes.

    Arguments:
        title, description: see `image`.
        axes: the axes.
        content: the SVG elements between the axes.
        above: what the numbers are, such as "Users"; may be empty.
        below: what the points are, such as "Days"; may be empty.
    """
    left, right = axes.margins()
    drawn = image(title, description, HEIGHT, axes.svg() + content, f"16px {right}px 32px {left}px")
    first = f'<p class="of-axis">{escape(above)}</p>\n' if above else ""
    second = f'<p class="of-axis below">{escape(below)}</p>\n' if below else ""
    return f"{first}{drawn}{second}"


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Return a legend of pairs: the SVG elements of a sample, 26 x 12 pixels, and its name."""
    items = "".join(
        f'<li><svg aria-hidden="true" width="26" height="12">{sample}</svg>'
        f"<span>{escape(isolated(name))}</span></li>\n"
        for sample, name in entries
    )
    return f'<ul class="key">\n{items}</ul>\n'


def marker(index: int, x: str, y: float, within: str = "", *, hollow: bool = False) -> str:
    """Return the marker of a series at a place; ``within`` may be its tooltip."""
    kind = "hollow" if hollow else "fill"
    shape = f'<path class="{kind}" d="{_MARKERS[index % len(_MARKERS)]}">{within}</path>'
    return f'<svg class="c{index % COLOURS}" x="{x}" y="{y}">{shape}</svg>\n'


def tooltip(names: Sequence[str], text: str = "") -> str:
    """Return the tooltip of the SVG element around it: some names and a text."""
    shown = f"{', '.join(map(isolated, names))}{': ' if text else ''}{text}"
    return f"<title>{escape(shown)}</title>"


def numbers(table: Table) -> str:
    """Return a table of the numbers of a chart, which is closed if it is long."""
    opened = " open" if len(table.rows) <= _OPEN else ""
    return f"<details{opened}><summary>Table of the numbers</summary>\n{table.html()}</details>\n"


def summary(series: Series, labels: Sequence[str], *, rates: bool) -> str:
    """Return the numbers of a series that matter most, as a sentence for screen readers."""
    text: Callable[[float], str] = percent if rates else grouped
    name = isolated(series.name)
    known = [
        (value, isolated(label))
        for value, label in zip(series.values, labels, strict=True)
        if value is not None
    ]
    if not known:
        return f"{name}: no numbers."
    if len(known) <= 8:
        return f"{name}: {', '.join(f'{text(value)} ({label})' for value, label in known)}."
    (first, begin), *_, (last, end) = known
    (low, at_low), (high, at_high) = min(known), max(known)
    return (
        f"{name}: from {text(first)} ({begin}) to {text(last)} ({end}), "
        f"lowest {text(low)} ({at_low}), highest {text(high)} ({at_high})."
    )
