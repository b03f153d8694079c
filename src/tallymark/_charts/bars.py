"""Bar charts: stacked bars of several series, or a histogram of one. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from .axes import Axes, Scale
from .drawing import (
    COLOURS,
    DRAWING_STYLE,
    Series,
    empty,
    legend,
    numbers,
    plot,
    summary,
    tooltip,
)
from .formats import compact, grouped, text_width
from .tables import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BarChart"]

#: The width of a bar, as a share of the distance between two bars; up to how many bars there
#: is a distance.
_WIDTH: Final = 0.76
_APART: Final = 80

#: The distance of two bars that stand upon each other, in pixels.
_GAP: Final = 1

#: Fewer bars are as wide as those of so many.
_FEWEST: Final = 8


class BarChart(NamedTuple):
    """Bars of several series, one upon the other; negative numbers are below the axis.

    With one series, that is a histogram: each bar has its number above, where there is room.

    Attributes:
        title: the accessible name.
        labels: the labels of the bars, from left to right.
        series: the series, each with a number or ``None`` for each label. The first is the
            nearest to the axis.
        above: what the numbers are, such as "Users".
        below: what the bars are, such as "Days".
    """

    title: str
    labels: Sequence[str]
    series: Sequence[Series]
    above: str = ""
    below: str = ""

    @property
    def style(self) -> str:
        """The CSS rules of all charts."""
        return DRAWING_STYLE

    def html(self) -> str:
        """Return the chart, its legend, and a table of its numbers."""
        if not self.labels or not self.series:
            return empty(self.title)
        count = len(self.labels)
        slots = max(count, _FEWEST)
        places = [100 * (index + (slots - count + 1) / 2) / slots for index in range(count)]
        axes = Axes(Scale.of(self._extremes(), rates=False), self.labels, places)
        width = (_WIDTH if count <= _APART else 1) * 100 / slots
        content = "".join(self._bar(at, axes, width) for at in range(count))
        zero = axes.scale.y(0)
        content += f'<line class="zero" x1="0" x2="100%" y1="{zero}" y2="{zero}"/>\n'
        if len(self.series) == 1:
            content += self._counts(axes)
        description = " ".join(summary(each, self.labels, rates=False) for each in self.series)
        key = [
            (f'<rect class="fill c{index % COLOURS}" x="6" width="14" height="12"/>', each.name)
            for index, each in enumerate(self.series)
        ]
        rows = [
            [label, *(grouped(each.values[at]) for each in self.series)]
            for at, label in enumerate(self.labels)
        ]
        names = [each.name for each in self.series]
        return (
            f'<div class="chart">\n{legend(key) if len(key) > 1 else ""}'
            f"{plot(self.title, description, axes, content, above=self.above, below=self.below)}"
            f"</div>\n{numbers(Table(self.title, [self.below, *names], rows))}"
        )

    def _extremes(self) -> list[float]:
        """Return how far each bar reaches up and down."""
        reach: list[float] = []
        for at in range(len(self.labels)):
            values = [each.values[at] or 0 for each in self.series]
            reach += sum(max(0, value) for value in values), sum(min(0, value) for value in values)
        return reach

    def _bar(self, at: int, axes: Axes, width: float) -> str:
        """Return the rectangles of a bar."""
        ends = {True: 0.0, False: 0.0}  # up and down
        parts = []
        for index, each in enumerate(self.series):
            value = each.values[at]
            if not value:
                continue
            start = ends[value > 0]
            ends[value > 0] = start + value
            top, bottom = sorted((axes.scale.y(start), axes.scale.y(start + value)))
            gap = _GAP if start and bottom - top > 2 * _GAP else 0
            if value > 0:
                bottom -= gap
            else:
                top += gap
            parts.append(
                f'<rect class="fill c{index % COLOURS}" x="{axes.places[at] - width / 2:.5g}%" '
                f'y="{top:g}" width="{width:.5g}%" height="{bottom - top:.4g}">'
                f"{tooltip([each.name, self.labels[at]], grouped(value))}</rect>\n"
            )
        return "".join(parts)

    def _counts(self, axes: Axes) -> str:
        """Return the numbers above the bars of a histogram."""
        values = [value for value in self.series[0].values if value is not None]
        for digits in (3, 2):
            texts = [compact(value, digits) for value in values]
            kind = axes.room_for(max(map(text_width, texts), default=0))
            if kind in ("", "medium"):
                break
        if kind is None:
            return ""
        named = f'class="count {kind}"' if kind else 'class="count"'
        return "".join(
            f'<text {named} x="{place:.5g}%" y="{axes.scale.y(max(0, value)) - 5:g}" '
            f'text-anchor="middle">{compact(value, digits)}</text>\n'
            for place, value in zip(axes.places, self.series[0].values, strict=True)
            if value is not None
        )
