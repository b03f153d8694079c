"""Line charts: several series over the same points. Pure."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Final, NamedTuple

from .axes import HEIGHT, Axes, Scale
from .drawing import (
    COLOURS,
    DRAWING_STYLE,
    Series,
    empty,
    legend,
    marker,
    numbers,
    plot,
    summary,
    tooltip,
)
from .formats import grouped, percent
from .tables import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["LineChart"]

#: Up to how many points each point has a marker; beyond, so many of them have one.
_POINTS: Final = 40
_MARKED: Final = 8

#: The width of the coordinates of lines, which are stretched to the width of the chart.
_WIDTH: Final = 1000


class LineChart(NamedTuple):
    """A line for each series. A line has a gap where a number is missing.

    The part of a line that leads to an unfinished point is dotted, and the point hollow.

    Attributes:
        title: the accessible name.
        labels: the labels of the points, from left to right.
        series: the series, each with a number or ``None`` for each label.
        rates: whether the numbers are rates from 0 to 1, shown in per cent.
        above: what the numbers are, such as "Users".
        below: what the points are, such as "Weeks later".
    """

    title: str
    labels: Sequence[str]
    series: Sequence[Series]
    rates: bool = False
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
        values = [value for each in self.series for value in each.values if value is not None]
        count = len(self.labels)
        places = [100 * index / (count - 1) for index in range(count)] if count > 1 else [50.0]
        axes = Axes(Scale.of(values, rates=self.rates), self.labels, places)
        description = " ".join(summary(each, self.labels, rates=self.rates) for each in self.series)
        content = "".join(
            self._line(index, axes) + self._markers(index, axes)
            for index in reversed(range(len(self.series)))  # the first one on top
        )
        return (
            f'<div class="chart">\n{self._legend()}'
            f"{plot(self.title, description, axes, content, above=self.above, below=self.below)}"
            f"</div>\n{self._numbers()}"
        )

    def _legend(self) -> str:
        entries = [(_sample(index), each.name) for index, each in enumerate(self.series)]
        if len(entries) == 1:
            entries.clear()
        if any(each.unfinished for each in self.series):
            entries.append((_sample(0, dashed=True), "not over yet"))
        return legend(entries) if entries else ""

    def _line(self, index: int, axes: Axes) -> str:
        """Return the line of a series: its finished and its unfinished part."""
        series = self.series[index]
        points = [
            None if value is None else f"{place * _WIDTH / 100:.6g} {axes.scale.y(value)}"
            for place, value in zip(axes.places, series.values, strict=True)
        ]
        paths: dict[str, list[str]] = {"line": [], "line dashed": []}
        drawn = ""
        for at, (start, end) in enumerate(itertools.pairwise(points), 1):
            if start is None or end is None:
                drawn = ""
                continue
            kind = "line dashed" if at in series.unfinished else "line"
            paths[kind].append(f"L{end}" if drawn == kind else f"M{start}L{end}")
            drawn = kind
        shapes = "".join(
            f'<path class="{kind}" d="{"".join(parts)}"/>' for kind, parts in paths.items() if parts
        )
        return (
            f'<svg class="c{index % COLOURS}" width="100%" height="{HEIGHT}" '
            f'viewBox="0 0 {_WIDTH} {HEIGHT}" preserveAspectRatio="none">{shapes}</svg>\n'
        )

    def _markers(self, index: int, axes: Axes) -> str:
        series = self.series[index]
        return "".join(
            marker(
                index,
                f"{axes.places[at]:.5g}%",
                axes.scale.y(value),
                tooltip([series.name, self.labels[at]], self._text(index, at)),
                hollow=at in series.unfinished,
            )
            for at, value in self._marked(index)
        )

    def _marked(self, index: int) -> Iterator[tuple[int, float]]:
        """Yield the points with a marker: each, or some and those that no line leads to."""
        values = self.series[index].values
        count, several = len(values), len(self.series) > 1
        step = 1 if count <= _POINTS else math.ceil(count / _MARKED)
        # Where lines meet, their markers stand beside each other.
        shift = index * step // max(1, len(self.series))
        for at, value in enumerate(values):
            if value is None:
                continue
            alone = (at == 0 or values[at - 1] is None) and (
                at == count - 1 or values[at + 1] is None
            )
            regular = at % step == shift and (several or step == 1)
            if alone or regular or at in self.series[index].unfinished:
                yield at, value

    def _text(self, index: int, at: int) -> str:
        value = self.series[index].values[at]
        text = percent(value) if self.rates else grouped(value)
        return f"{text} so far" if at in self.series[index].unfinished else text

    def _numbers(self) -> str:
        rows = [
            [label, *(self._text(index, at) for index in range(len(self.series)))]
            for at, label in enumerate(self.labels)
        ]
        names = [series.name for series in self.series]
        return numbers(Table(self.title, [self.below, *names], rows))


def _sample(index: int, *, dashed: bool = False) -> str:
    kind = "line dashed" if dashed else "line"
    return (
        f'<path class="c{index % COLOURS} {kind}" d="M1 6H25"/>'
        f"{marker(index, '13', 6, hollow=dashed)}"
    )
