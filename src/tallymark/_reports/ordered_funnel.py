"""The results of ordered funnels: who did step after step within a window. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from .._charts.funnels import FunnelBar, FunnelBars, FunnelGroup
from .._core.frozen import FrozenMapping
from .results import Report, made

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .._charts.page import Figure
    from .._core.events import EventSet

__all__ = ["OrderedFunnel", "OrderedStep", "Resolution"]

#: The length of the periods in which steps are ordered.
Resolution = Literal["day", "hour"]


@dataclass(frozen=True)
class OrderedStep:
    """One step of an ordered funnel: how many users reached it, at what rate and how fast.

    Attributes:
        name: the name of the event or of the function, or the ``repr`` of the event set.
        count: how many users reached the step.
        of_previous: ``count`` divided by that of the previous step, from 0 to 1; ``None`` if
            nobody reached the previous step. For the first step, 1, or ``None`` if its count is 0.
        of_first: ``count`` divided by that of the first step, from 0 to 1; ``None`` if nobody
            entered.
        median: the median of the times from the entry to this step, in whole days, or hours: the
            least time in which at least half of the users who reached the step did so. Of a user
            with several entries, the shortest time counts. ``None`` if ``count`` is 0.
        times: how many users reached the step so many days, or hours, after an entry: 0 for the
            same day, and so on, up to the end of the window.
    """

    name: str
    count: int
    of_previous: float | None
    of_first: float | None
    median: int | None
    times: tuple[int, ...] = field(repr=False)
    _users: Callable[[], EventSet] | None = field(default=None, compare=False, repr=False)

    @property
    def users(self) -> EventSet:
        """The event set of the users who reached the step.

        It is large: about two operations for each day of the window of each entry and each step.
        So it takes longer to count than the whole report, and with hundreds of entries and days
        it takes some tenths of a second to build, during which the event loop waits: then
        ``await asyncio.to_thread(lambda: step.users)``.

        Raises:
            InvalidValueError: no report of a tally has made this value.
        """
        return made(self._users, self)()


_NO_SEGMENTS: FrozenMapping[str, Any] = FrozenMapping()


@dataclass(frozen=True)
class OrderedFunnel(Report):
    """The conversion of users from step to step, in the order of the steps, within a window.

    Attributes:
        since: the first moment of the first day, or hour, in which users enter; naive, in the
            tally's time zone.
        until: the first moment after the last one.
        window: how long users have for all steps, the day (or hour) of the entry included.
        resolution: ``"day"`` or ``"hour"``: steps of the same day, or hour, count as ordered.
        steps: the steps, in order.
        complete_until: the windows of the entries before this moment were over. If it is less
            than ``until``, later users may still reach further steps, and the rates may rise.
        unfinished: how many users have not reached the last step, and may still: the window of
            an entry of theirs was not over.
        segment: the name of the segment; ``None`` for all users.
        segments: the funnel of each segment, by name; none in the funnel of a segment.
    """

    since: datetime
    until: datetime
    window: timedelta
    resolution: Resolution
    steps: tuple[OrderedStep, ...]
    complete_until: datetime
    unfinished: int
    segment: str | None = field(default=None, kw_only=True)
    segments: Mapping[str, OrderedFunnel] = field(default=_NO_SEGMENTS, kw_only=True, repr=False)
    _unfinished_users: Callable[[], EventSet] | None = field(
        default=None, kw_only=True, compare=False, repr=False
    )

    @property
    def unfinished_users(self) -> EventSet:
        """The event set of the users who may still reach the last step.

        Raises:
            InvalidValueError: no report of a tally has made this value.
        """
        return made(self._unfinished_users, self)()

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a dict for each step, with values that JSON and CSV can represent.

        The keys: ``since`` and ``until`` (ISO 8601), ``step`` (from 1), ``name``, ``count``,
        ``of_previous``, ``of_first``, ``median`` (in days, or hours), ``unfinished``. With
        segments, ``segment`` comes first: ``None`` for all users, whose rows come before those
        of the segments.
        """
        return [
            {
                **({"segment": funnel.segment} if self.segments else {}),
                "since": self.since.isoformat(),
                "until": self.until.isoformat(),
                "step": number,
                "name": step.name,
                "count": step.count,
                "of_previous": step.of_previous,
                "of_first": step.of_first,
                "median": step.median,
                "unfinished": funnel.unfinished,
            }
            for funnel in (self, *self.segments.values())
            for number, step in enumerate(funnel.steps, 1)
        ]

    _integers = ("median",)

    def _title(self) -> str:
        return " → ".join(self._isolated(step.name) for step in self.steps)

    def _caption(self) -> str:
        unit = self.resolution
        length = timedelta(days=1) if unit == "day" else timedelta(hours=1)
        first = self._isolated(self.steps[0].name)
        unfinished = (
            f" {self.unfinished:,} of them may still reach the last step: the windows of entries "
            f"from {_moment(self.complete_until, unit)} on are not over."
            if self.complete_until < self.until
            else ""
        )
        last = _moment(self.until - length, unit)
        window = _number(self.window // length, unit)
        at = "on" if unit == "day" else "in"
        return (
            f"The users with “{first}” {at} any {unit} from {_moment(self.since, unit)} to {last} "
            f"who took the later steps in this order, {at} the same {unit} or later, within "
            f"{window}, the first one included.{unfinished}"
        )

    def _figures(self) -> Sequence[Figure]:
        return [
            FunnelBars(
                "Funnel",
                [self.label(step.name) for step in self.steps],
                [
                    FunnelGroup(
                        "All users" if funnel.segment is None else funnel.segment,
                        [self._bar(step) for step in funnel.steps],
                    )
                    for funnel in (self, *self.segments.values())
                ],
            )
        ]

    def _bar(self, step: OrderedStep) -> FunnelBar:
        time = "" if step.median is None else _number(step.median, self.resolution)
        return FunnelBar(step.count, step.of_first, step.of_previous, time)


def _number(number: int, unit: str) -> str:
    return f"{number:,} {unit}" if number == 1 else f"{number:,} {unit}s"


def _moment(moment: datetime, resolution: Resolution) -> str:
    return f"{moment:%Y-%m-%d}" if resolution == "day" else f"{moment:%Y-%m-%d %H:%M}"
