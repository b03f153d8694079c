"""Bars: numbers of users in reports, with the event sets behind them. Pure."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from .._charts.bars import BarChart
from .._charts.drawing import Series
from .._charts.formats import percent
from .._charts.tables import Table
from .._core.arguments import checked_int, immutable
from .._core.events import EventSet
from .._core.untrusted import shown
from .._reading.requests import in_steps
from ..errors import InvalidValueError
from .results import Report, made
from .retention import rate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from .._charts.page import Figure
    from .._reading.requests import Query

__all__ = ["Bar", "DaysBar", "DaysReport", "days_bars"]


@immutable
@dataclass(frozen=True, slots=True, kw_only=True)  # a report may have many thousands
class Bar:
    """A number of users in a report.

    Attributes:
        count: how many users.
        rate: their share of the users that the report compares them with, from 0 to 1; ``None``
            if there are none.
    """

    count: int
    rate: float | None
    _users: Callable[[], EventSet] | None = field(default=None, compare=False, repr=False)

    @property
    def users(self) -> EventSet:
        """The event set of these users.

        Raises:
            InvalidValueError: no report of a tally has made this value.
        """
        return made(self._users, self)()


@immutable
@dataclass(frozen=True, slots=True, kw_only=True)
class DaysBar(Bar):
    """The users with one number of days.

    Attributes:
        count: how many users.
        rate: their share of all users of the report, from 0 to 1; ``None`` if there are none.
        days: the number of days.
    """

    days: int


#: Returns the event set of the users with so many days or more.
AtLeast = Callable[[int], EventSet]


@dataclass(frozen=True, kw_only=True)
class DaysReport(Report):
    """The base class of reports that group users by a number of days.

    Attributes:
        until: the moment of the report, naive, in the tally's time zone.
        bars: a bar for each number of days, from 1 on.
    """

    until: datetime
    bars: tuple[DaysBar, ...]
    _at_least: AtLeast | None = field(default=None, compare=False, repr=False)

    _integers: ClassVar[tuple[str, ...]] = ("days", "count")

    @property
    def days(self) -> int:
        """The largest number of days of a bar."""
        return len(self.bars)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many users each bar has."""
        return tuple(bar.count for bar in self.bars)

    @property
    def total(self) -> int:
        """How many users all bars have."""
        return sum(self.counts)

    def at_least(self, days: int) -> Bar:
        """Return the users with so many days or more. Sends no request.

        Arguments:
            days: from 1 to the largest number of days of a bar.

        Raises:
            InvalidTypeError, InvalidValueError: the argument is not allowed.
        """
        number = checked_int("days", days)
        if not 1 <= number <= self.days:
            raise InvalidValueError(f"days must be from 1 to {self.days}, got {shown(days)}")
        count = sum(self.counts[number - 1 :])
        users = self._at_least and functools.partial(self._at_least, number)
        return Bar(count=count, rate=rate(count, self.total), _users=users)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a dict for each bar, with values that JSON and CSV can represent.

        The keys: ``days``, ``count``, ``rate``.
        """
        return [{"days": bar.days, "count": bar.count, "rate": bar.rate} for bar in self.bars]

    def _bar_name(self, days: int) -> str:
        """Return the name of a bar in charts and tables."""
        return str(days)

    def _figures(self) -> Sequence[Figure]:
        names = [self._bar_name(bar.days) for bar in self.bars]
        return [
            BarChart(
                "Users by number of days",
                names,
                [Series("Users", self.counts)],
                above="Users",
                below="Days",
            ),
            Table(
                "Shares of all users",
                ["Days", "So many days", "At least so many"],
                [
                    [name, percent(bar.rate), percent(reached.rate)]
                    for name, bar, reached in zip(
                        names, self.bars, map(self.at_least, range(1, self.days + 1)), strict=True
                    )
                ],
            ),
        ]


def days_bars(counts: Sequence[int], at_least: AtLeast) -> Query[tuple[DaysBar, ...]]:
    """Return bars with so many users with 1, 2, 3 days and so on.

    Arguments:
        counts: how many users each bar has.
        at_least: returns the users with so many days or more, up to the number of bars.
    """
    total = sum(counts)
    bars = (
        DaysBar(
            days=days,
            count=count,
            rate=rate(count, total),
            _users=functools.partial(_users_with, days, len(counts), at_least),
        )
        for days, count in enumerate(counts, 1)
    )
    return tuple((yield from in_steps(bars)))


def _users_with(days: int, most: int, at_least: AtLeast) -> EventSet:
    """Return the users with so many days; with the largest number of days, also with more."""
    users = at_least(days)
    return users - at_least(days + 1) if days < most else users
