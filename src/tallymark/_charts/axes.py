"""The axes of charts: ticks at round numbers, positions, and labels that do not collide. Pure."""

from __future__ import annotations

import math
import operator
from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple

from .formats import compact, fitted, text_width
from .page import isolated

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HEIGHT", "Axes", "Scale", "ticks"]

#: The height of the plot between its axes, in pixels.
HEIGHT: Final = 220

#: The least width of four kinds of charts, in pixels, from the widest, and the class of what a
#: narrower chart has no room for: see the container queries of drawings.
_WIDTHS: Final = ((1040, "full"), (900, "wide"), (520, "medium"), (280, ""))

#: How wide the label of a point is at most, in pixels.
_LABEL: Final = 110


def ticks(low: float, high: float, *, whole: bool, most: int = 5) -> list[float]:
    """Return round numbers at equal distances, from at most ``low`` to at least ``high``.

    Arguments:
        low: the lowest number, 0 or less.
        high: the highest number, 0 or more.
        whole: whether all ticks are integers.
        most: about how many distances there are.
    """
    span = (high - low) or 1.0
    exponent = math.floor(math.log10(span / most))
    step: float = next(
        digit * 10.0**power
        for power in (exponent, exponent + 1)
        for digit in (1, 2, 5)
        if digit * 10.0**power * most >= span * (1 - 1e-9)
    )
    if whole:
        step = max(1, round(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if first == last:
        last += 1
    # Rounded, so that a tick at 0.3 is not at 0.30000000000000004.
    return [round(step * index, 12 - exponent) for index in range(first, last + 1)]


class Scale(NamedTuple):
    """Numbers as heights.

    Attributes:
        ticks: the numbers with a line, from the lowest to the highest.
        rates: whether the numbers are rates, shown in per cent.
    """

    ticks: Sequence[float]
    rates: bool

    @classmethod
    def of(cls, numbers: Sequence[float], *, rates: bool) -> Scale:
        """Return a scale with room for the numbers and 0."""
        low, high = min(0, *numbers, 0), max(0, *numbers, 0)
        return cls(ticks(low, high, whole=not rates), rates)

    def y(self, number: float) -> float:
        """Return the distance of a number from the top of the plot, in pixels."""
        top, bottom = self.ticks[-1], self.ticks[0]
        return round((top - number) / (top - bottom) * HEIGHT, 2)

    def text(self, tick: float) -> str:
        """Return the label of a tick."""
        return f"{round(100 * tick, 6):g}%" if self.rates else compact(tick)


class Axes(NamedTuple):
    """Two axes: numbers from bottom to top, points from left to right.

    Attributes:
        scale: the numbers.
        labels: the labels of the points.
        places: where the points are, in per cent of the width.
    """

    scale: Scale
    labels: Sequence[str]
    places: Sequence[float]

    def margins(self) -> tuple[int, int]:
        """Return the room for labels at the left and at the right, in pixels."""
        numbers = max(text_width(self.scale.text(tick)) for tick in self.scale.ticks)
        beyond = max(map(text_width, self._texts()), default=0) / 2
        return math.ceil(max(numbers + 10, beyond)), math.ceil(max(beyond, 8))

    def svg(self) -> str:
        """Return the lines and the labels of both axes."""
        lines = "".join(
            f'<line class="{"zero" if tick == 0 else "grid"}" x1="0" x2="100%" '
            f'y1="{self.scale.y(tick)}" y2="{self.scale.y(tick)}"/>'
            f'<text x="-8" y="{self.scale.y(tick)}" dy=".35em" text-anchor="end">'
            f"{self.scale.text(tick)}</text>\n"
            for tick in self.scale.ticks
        )
        texts = self._texts()
        steps = self._steps(max(map(text_width, texts), default=0))
        labels = []
        # Counted from the last point, which is the latest.
        for distance, (place, text) in enumerate(
            zip(reversed(self.places), reversed(texts), strict=True)
        ):
            names = [name for step, name in steps if distance % step == 0]
            if names:
                # That of the narrowest chart that has room.
                kind = f' class="{names[0]}"' if names[0] else ""
                labels.append(
                    f'<text{kind} x="{place:.5g}%" y="{HEIGHT + 24}" text-anchor="middle">'
                    f"{escape(text)}</text>\n"
                )
        return lines + "".join(labels)

    def room_for(self, needed: float) -> str | None:
        """Return the class of text of a width that stands at each point.

        It is hidden in charts that have no room for it; ``None`` if none has.
        """
        names = [name for distance, name in self._distances() if distance >= needed + 4]
        return names[-1] if names else None

    def _steps(self, widest: float) -> list[tuple[int, str]]:
        """Return, for each kind of chart, at every how manieth point there is a label.

        From the narrowest chart. Each step is a divisor of the one before, so that a label of
        a narrow chart is also one of a wider chart.
        """
        distances = self._distances()
        needed = [
            min(len(self.places), max(1, math.ceil((widest + 8) / distance)))
            for distance, _ in reversed(distances)
        ]
        candidates = [_divisors(needed, first) for first in range(needed[0], needed[0] + 64)]
        steps = min(candidates, key=lambda steps: sum(map(operator.truediv, steps, needed)))
        return [(step, name) for step, (_, name) in zip(steps, reversed(distances), strict=True)]

    def _distances(self) -> list[tuple[float, str]]:
        """Return the distance of two points in each kind of chart, in pixels, and its class."""
        share = (self.places[1] - self.places[0]) / 100 if len(self.places) > 1 else 1.0
        margins = sum(self.margins())
        return [(share * (width - margins), name) for width, name in _WIDTHS]

    def _texts(self) -> list[str]:
        return [isolated(fitted(label, _LABEL)) for label in self.labels]


def _divisors(needed: Sequence[int], first: int) -> list[int]:
    """Return steps that are at least as long as needed, each a divisor of the one before."""
    steps = [first]
    for least in needed[1:]:
        last = steps[-1]
        steps.append(next(step for step in range(least, last + 1) if last % step == 0))
    return steps
