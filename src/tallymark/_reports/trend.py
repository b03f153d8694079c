"""Trends: active users, rolling actives and stickiness over time. Pure."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from .._charts.drawing import Series
from .._charts.lines import LineChart
from .._core.arguments import immutable
from .results import Report, made

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from .._charts.page import Figure
    from .._core.events import EventSet
    from .._core.periods import Period

__all__ = ["Trend", "TrendPoint"]


class PointSets(Protocol):
    """The event sets of the points of a series."""

    def users(self, point: int) -> EventSet:
        """Return the users of the period of the point with this index."""
        ...

    def rolling_users(self, point: int) -> EventSet:
        """Return the users of the days that end with it."""
        ...


@immutable
@dataclass(frozen=True, slots=True)  # a trend may have ten thousand points
class TrendPoint:
    """The active users of one period, and of the days that end with it.

    Attributes:
        period: the period.
        count: how many users were active in the period.
        rolling: how many users were active on any of the ``rolling`` days that end with the last
            day of the period; ``None`` in a trend without rolling actives.
        stickiness: ``count / rolling``, from 0 to 1. ``None`` if that was no share: without
            rolling actives, if there are none, or if the period has more days than ``rolling``.
    """

    period: Period
    count: int
    rolling: int | None
    stickiness: float | None
    _sets: PointSets | None = field(default=None, compare=False, repr=False)
    _index: int = field(default=0, compare=False, repr=False)

    @property
    def users(self) -> EventSet:
        """The event set of the users who were active in the period.

        Raises:
            InvalidValueError: no report of a tally has made this value.
        """
        return made(self._sets, self).users(self._index)

    @property
    def rolling_users(self) -> EventSet | None:
        """The event set of the rolling actives; ``None`` if ``rolling`` is ``None``.

        Raises:
            InvalidValueError: no report of a tally has made this value.
        """
        sets = made(self._sets, self)
        return None if self.rolling is None else sets.rolling_users(self._index)


@dataclass(frozen=True, kw_only=True)
class Trend(Report):
    """Numbers of active users over time, in one or more series.

    Attributes:
        series: the points of each series, by name, from the earliest period to the latest.
        unit: the length of a period, such as ``day`` or ``7 days``.
        rolling: how many days rolling actives are counted over; ``None`` for no rolling actives.
        until: the moment of the report, naive, in the tally's time zone.
    """

    series: Mapping[str, tuple[TrendPoint, ...]]
    unit: str
    rolling: int | None
    until: datetime

    _integers: ClassVar[tuple[str, ...]] = ("count", "rolling")

    @property
    def points(self) -> tuple[TrendPoint, ...]:
        """The points of the first series: of the only one, if one selector was given."""
        return next(iter(self.series.values()))

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a dict for each series and period, with values that JSON and CSV can represent.

        The keys: ``series``, ``period`` (ISO 8601, such as ``2026-W48``), ``count``,
        ``rolling``, ``stickiness``.
        """
        return [
            {
                "series": name,
                "period": str(point.period),
                "count": point.count,
                "rolling": point.rolling,
                "stickiness": point.stickiness,
            }
            for name, points in self.series.items()
            for point in points
        ]

    def _title(self) -> str:
        return f"{', '.join(map(self._isolated, self.series))} by {self.unit}"

    def _caption(self) -> str:
        rolling = ""
        if self.rolling is not None:
            rolling = (
                f" Rolling: users who were active on any of the {self.rolling} days that end with "
                f"the {self.unit}. Stickiness: the share of these who were active in it."
            )
        first, last = self.points[0].period, self.points[-1].period
        return (
            f"Active users of each {self.unit}, {first} to {last}.{rolling} "
            f"As of {self.until:%Y-%m-%d %H:%M}."
        )

    def _figures(self) -> Sequence[Figure]:
        figures = [self._chart(f"Active users by {self.unit}", "count")]
        if self.rolling is not None:
            figures.append(self._chart(f"Rolling actives, {self.rolling} days", "rolling"))
            if any(point.stickiness is not None for point in self.points):
                figures.append(self._chart("Stickiness", "stickiness"))
        return figures

    def _chart(self, title: str, attribute: str) -> LineChart:
        """Return the chart of an attribute of all points."""
        value = operator.attrgetter(attribute)
        return LineChart(
            title,
            [str(point.period) for point in self.points],
            [
                Series(self.label(name), [value(point) for point in points])
                for name, points in self.series.items()
            ],
            rates=attribute == "stickiness",
            above="" if attribute == "stickiness" else "Users",
        )
