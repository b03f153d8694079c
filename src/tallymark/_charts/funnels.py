"""Funnels: a bar for each step, as long as its share of the first step. Pure."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple

from .drawing import COLOURS, DRAWING_STYLE, empty, image, numbers, tooltip
from .formats import fitted, grouped, percent, text_width
from .page import isolated
from .tables import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["FunnelBar", "FunnelBars", "FunnelGroup"]

#: The width of the narrowest chart, and of the narrowest one that is not called narrow.
_NARROW: Final = 270
_MEDIUM: Final = 500


class FunnelBar(NamedTuple):
    """A step of a funnel, or of one group of its users.

    Attributes:
        users: how many users reached the step.
        of_first, of_previous: the conversion from the first and from the previous step, from
            0 to 1; ``None`` if nobody reached that one.
        time: the median time to convert, such as "2 days"; may be empty.
    """

    users: int
    of_first: float | None
    of_previous: float | None
    time: str = ""


class FunnelGroup(NamedTuple):
    """The bars of some users, such as those of a segment.

    Attributes:
        name: the name of the group.
        bars: a bar for each step.
    """

    name: str
    bars: Sequence[FunnelBar]


class FunnelBars(NamedTuple):
    """A funnel from top to bottom, with a bar in each step for each group.

    Attributes:
        title: the accessible name.
        steps: the names of the steps.
        groups: the groups; the name of a single one is not shown.
        time: the heading of the times to convert, in the table.
    """

    title: str
    steps: Sequence[str]
    groups: Sequence[FunnelGroup]
    time: str = "Median time"

    @property
    def style(self) -> str:
        """The CSS rules of all charts."""
        return DRAWING_STYLE + _STYLE

    def html(self) -> str:
        """Return the chart, and a table of its numbers."""
        if not self.steps or not self.groups:
            return empty(self.title)
        parts = []
        top = 0
        for step in range(len(self.steps)):
            for height, content in self._step(step):
                parts.append(f'<svg y="{top}" width="100%" height="{height}">\n{content}</svg>\n')
                top += height
        drawn = image(self.title, self._description(), top, "".join(parts))
        return f'<div class="chart funnel">\n{drawn}</div>\n{self._numbers()}'

    def _step(self, step: int) -> Iterator[tuple[int, str]]:
        """Yield the rows of a step: the height of each, and its SVG elements."""
        name = f"{step + 1}. {self.steps[step]}"
        if len(self.groups) > 1:
            yield 26, _named(name, "step", _NARROW, _MEDIUM)
            for index, group in enumerate(self.groups):
                yield 38, _bar(group.name, "group", group.bars[step], index, thickness=12)
            yield 12, ""
            return
        bar = self.groups[0].bars[step]
        yield 50, _bar(name, "step", bar, 0, thickness=20)
        if step:
            text = f"{percent(bar.of_previous)} of the previous step"
            if bar.time:
                text += f", median time {bar.time}"
            yield 34, f'<text y="13">{escape(text)}</text>\n'
        else:
            yield 14, ""

    def _description(self) -> str:
        sentences = []
        for group in self.groups:
            steps = ", ".join(
                f"{isolated(name)} {bar.users:,} ({percent(bar.of_first)})"
                for name, bar in zip(self.steps, group.bars, strict=True)
            )
            sentences.append(f"{isolated(group.name)}: {steps}." if group.name else f"{steps}.")
        return " ".join(sentences)

    def _numbers(self) -> str:
        several = len(self.groups) > 1
        timed = any(bar.time for group in self.groups for bar in group.bars)
        columns = ["Step", *(["Group"] if several else []), "Users", "Of first", "Of previous"]
        rows = []
        for step, name in enumerate(self.steps):
            for group in self.groups:
                bar = group.bars[step]
                row = [name, *([group.name] if several else []), grouped(bar.users)]
                row += [percent(bar.of_first), percent(bar.of_previous)]
                rows.append([*row, bar.time] if timed else row)
        columns += [self.time] if timed else []
        return numbers(Table(self.title, columns, rows, names=2 if several else 1))


_STYLE: Final = """\
.tallymark .funnel { max-width: 60em; }
.tallymark .funnel .track { fill: var(--track); }
.tallymark .chart.funnel rect.fill { shape-rendering: auto; }
.tallymark .funnel text.step { font-size: 13px; font-weight: 600; fill: var(--ink); }
.tallymark .funnel text.group, .tallymark .funnel text.users { fill: var(--ink); }
@container (min-width: 520px) { .tallymark .funnel .narrow { display: none; } }
"""


def _bar(name: str, kind: str, bar: FunnelBar, index: int, *, thickness: int) -> str:
    """Return a bar, with its name and its users above."""
    users = f"{grouped(bar.users)} · {percent(bar.of_first)}"
    room = text_width(users) + 12
    # What is not nobody can be seen.
    filled = max(0.3, 100 * (bar.of_first or 0)) if bar.users else 0
    return (
        f"{_named(name, kind, _NARROW - room, _MEDIUM - room)}"
        f'<text class="users" x="100%" y="14" text-anchor="end">{escape(users)}</text>\n'
        f'<rect class="track" y="21" width="100%" height="{thickness}" rx="2"/>\n'
        f'<rect class="fill c{index % COLOURS}" y="21" width="{filled:.5g}%" '
        f'height="{thickness}" rx="2">{tooltip([name], users)}</rect>\n'
    )


def _named(name: str, kind: str, narrow: float, medium: float) -> str:
    """Return the name of a bar, with an ellipsis if it is longer than the chart has room for."""
    short, long = (isolated(fitted(name, most, 13)) for most in (narrow, medium))
    if short == long:
        return f'<text class="{kind}" y="14">{escape(short)}</text>\n'
    return (
        f'<text class="{kind} narrow" y="14">{escape(short)}{tooltip([name])}</text>\n'
        f'<text class="{kind} medium" y="14">{escape(long)}{tooltip([name])}</text>\n'
    )
