"""Lifecycle reports: new, returning, resurrected and dormant users of each period. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from .._charts.bars import BarChart
from .._charts.drawing import Series
from .._charts.formats import grouped, percent, signed
from .._charts.tables import Table
from .._core.arguments import immutable
from .results import Report
from .retention import rate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from .._charts.page import Figure
    from .._core.periods import Period
    from .bars import Bar

__all__ = ["Lifecycle", "LifecycleRow", "LifecycleTotals"]


@immutable
@dataclass(frozen=True, slots=True, kw_only=True)
class LifecycleRow:
    """The users of one period by what they did before; and those of the period before it.

    Attributes:
        period: the period.
        new: the users who were active in no earlier period.
        returning: the users who were also active in the period before.
        resurrected: the users who were active in an earlier period, but not in the one before.
        dormant: the users who were active in the period before, but not in this one.

    The rates of ``new``, ``returning`` and ``resurrected`` are shares of the users who were active
    in the period; that of ``dormant`` is the share of those who were active in the one before.
    """

    period: Period
    new: Bar
    returning: Bar
    resurrected: Bar
    dormant: Bar

    @property
    def active(self) -> int:
        """How many users were active in the period."""
        return self.new.count + self.returning.count + self.resurrected.count

    @property
    def net_growth(self) -> int:
        """How many more users were active than in the period before."""
        return self.new.count + self.resurrected.count - self.dormant.count

    @property
    def quick_ratio(self) -> float | None:
        """New and resurrected users for each dormant one; ``None`` if none is dormant."""
        return rate(self.new.count + self.resurrected.count, self.dormant.count)


class LifecycleTotals(NamedTuple):
    """The numbers of all periods of a lifecycle report, added up.

    Attributes:
        new, returning, resurrected, dormant: the sum of the counts. Only new users are different
            users: one of the others may count in several periods.
    """

    new: int
    returning: int
    resurrected: int
    dormant: int


@dataclass(frozen=True, kw_only=True)
class Lifecycle(Report):
    """New, returning, resurrected and dormant users, period by period.

    Attributes:
        activity: the name of the event, or of the function that selects the active users.
        unit: the length of a period, such as ``week`` or ``7 days``.
        until: the moment of the report, naive, in the tally's time zone.
        rows: the numbers of each period, from the earliest to the latest.
    """

    activity: str
    unit: str
    until: datetime
    rows: tuple[LifecycleRow, ...]

    _integers: ClassVar[tuple[str, ...]] = (
        *("active", "new", "returning", "resurrected", "dormant", "net_growth"),
    )

    @property
    def totals(self) -> LifecycleTotals:
        """The numbers of all periods, added up."""
        rows = self.rows
        return LifecycleTotals(
            sum(row.new.count for row in rows),
            sum(row.returning.count for row in rows),
            sum(row.resurrected.count for row in rows),
            sum(row.dormant.count for row in rows),
        )

    @property
    def net_growth(self) -> int:
        """How many more users were active in the last period than in that before the first."""
        return sum(row.net_growth for row in self.rows)

    @property
    def quick_ratio(self) -> float | None:
        """New and resurrected users of all periods for each dormant one of all periods.

        ``None`` if none is dormant.
        """
        totals = self.totals
        return rate(totals.new + totals.resurrected, totals.dormant)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a dict for each period, with values that JSON and CSV can represent.

        The keys: ``period`` (ISO 8601, such as ``2026-W48``), ``active``, ``new``,
        ``returning``, ``resurrected``, ``dormant``, ``net_growth``, ``quick_ratio``.
        """
        return [
            {
                "period": str(row.period),
                "active": row.active,
                "new": row.new.count,
                "returning": row.returning.count,
                "resurrected": row.resurrected.count,
                "dormant": row.dormant.count,
                "net_growth": row.net_growth,
                "quick_ratio": row.quick_ratio,
            }
            for row in self.rows
        ]

    def _title(self) -> str:
        return f"Lifecycle: {self._isolated(self.activity)}"

    def _caption(self) -> str:
        return (
            f"Users by “{self._isolated(self.activity)}” in each {self.unit}: new: in no "
            f"{self.unit} before; returning: also in the {self.unit} before; resurrected: earlier, "
            f"but not in the {self.unit} before; dormant: in the {self.unit} before, and not "
            f"in this one. As of "
            f"{self.until:%Y-%m-%d %H:%M}."
        )

    def _figures(self) -> Sequence[Figure]:
        rows = self.rows
        unit = self.unit.capitalize()
        return [
            BarChart(
                f"Users by {self.unit}",
                [str(row.period) for row in rows],
                [
                    Series("Returning", [row.returning.count for row in rows]),
                    Series("Resurrected", [row.resurrected.count for row in rows]),
                    Series("New", [row.new.count for row in rows]),
                    Series("Dormant", [-row.dormant.count for row in rows]),
                ],
                above="Users",
                below=unit,
            ),
            Table(
                "Growth",
                [unit, "Active", "Net growth", "Quick ratio", "Share dormant"],
                [
                    [
                        str(row.period),
                        grouped(row.active),
                        signed(row.net_growth),
                        _ratio(row.quick_ratio),
                        percent(row.dormant.rate),
                    ]
                    for row in rows
                ],
            ),
        ]


def _ratio(ratio: float | None) -> str:
    """Return a ratio as text; a dash for ``None``."""
    return "\N{EN DASH}" if ratio is None else f"{ratio:,.2f}"
