"""Calendars: how reports divide time into periods, also periods of a caller's own. Pure."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Final

from ..errors import InvalidTypeError, InvalidValueError
from .arguments import checked_int, described
from .periods import By, Granularity, Period, dated
from .untrusted import reraise_from_handler, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Calendar", "DaySpan", "Every", "calendar"]

#: The longest period of a caller's own, in days: ten years.
_MAX_DAYS: Final = 3660

#: The length of the periods of a report.
Every = By | timedelta


@dataclass(frozen=True)
class DaySpan(Period):
    """A period of a fixed number of days, such as a week that begins on Sunday.

    Reports make them for ``by=timedelta(days=...)``. `during` takes them as any other `Period`.

    Attributes:
        granularity: always DAY: the period is read from bitmaps of days, and from those of whole
            weeks and months inside it.
        start: the period's first midnight, naive, in the tally's zone.
        length: how many days, 1 or more.

    ``str()`` gives the notation of ISO 8601 for intervals: ``2026-11-22/P7D``.

    Raises:
        InvalidTypeError, InvalidValueError: ``start`` is no naive midnight, or ``length`` is not
            allowed.
    """

    length: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.granularity is not Granularity.DAY:
            raise InvalidValueError(f"a DaySpan has days, got {shown(self.granularity)}")
        if not 1 <= checked_int("length", self.length) <= _MAX_DAYS:
            raise InvalidValueError(
                f"a DaySpan has 1 to {_MAX_DAYS} days, got {shown(self.length)}"
            )

    def shift(self, count: int) -> DaySpan:
        """Return the period ``count`` lengths later (earlier, if negative). Raises as `Period`."""
        number = checked_int("count", count)
        try:
            start = self.start + timedelta(days=number * self.length)
        except OverflowError as error:
            reraise_from_handler(error)
            raise InvalidValueError(
                f"{self} cannot be shifted that far: it leaves the years 1 to 9999"
            ) from error
        return DaySpan(self.granularity, start, self.length)

    def days(self) -> Iterator[Period]:
        """Yield every day of the period, in order."""
        day = Period(Granularity.DAY, self.start)
        for number in range(self.length):
            yield day.shift(number)

    def __str__(self) -> str:
        return f"{super().__str__()}/P{self.length}D"

    @property
    def suffix(self) -> str:
        """Raise: no key has such a period."""
        raise InvalidValueError(f"{self} has no bitmap of its own")


@dataclass(frozen=True)
class Calendar:
    """The periods of a report.

    Attributes:
        unit: the name of a period in texts, in the singular: ``week``, ``7 days``.
        containing: returns the period that contains a naive moment.
    """

    unit: str
    containing: Callable[[datetime], Period]

    def between(self, begin: datetime, end: datetime) -> Iterator[Period]:
        """Yield in order the periods that have a moment in ``[begin, end)``; both are naive."""
        period = self.containing(begin)
        while period.start < end:
            yield period
            try:
                period = period.shift(1)
            except InvalidValueError:  # after the last one of the year 9999
                return


def calendar(by: Every, anchor: datetime | None = None) -> Calendar:
    """Return the calendar that the arguments ``by`` and ``anchor`` of a report ask for.

    Arguments:
        by: a dated granularity or its name; or a timedelta of whole days.
        anchor: for a timedelta the first day of one of the periods, a naive moment in the
            tally's zone.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed.
    """
    if not isinstance(by, timedelta):
        if not isinstance(by, str | Granularity):  # also `pandas.NaT`, numpy's timedelta64
            raise InvalidTypeError(
                f"by is a granularity or a timedelta of whole days, got {described(by)}"
            )
        granularity = dated(by)
        if anchor is not None:
            raise InvalidValueError("anchor goes with by=timedelta(days=...) only")
        return Calendar(str(granularity), functools.partial(Period.containing, granularity))
    days, rest = divmod(by, timedelta(days=1))
    if rest or not 1 <= days <= _MAX_DAYS:
        raise InvalidValueError(
            f"by is a granularity or a timedelta of 1 to {_MAX_DAYS} whole days, got {shown(by)}"
        )
    if anchor is None:
        raise InvalidTypeError(
            f"by={shown(by)} needs an anchor: the date on which one of the periods begins"
        )
    first = anchor.toordinal()

    def containing(moment: date) -> DaySpan:
        start = moment.toordinal() - (moment.toordinal() - first) % days
        if start < 1:
            raise InvalidValueError(f"the period of {shown(moment)} begins before the year 1")
        return DaySpan(Granularity.DAY, datetime.fromordinal(start), days)

    return Calendar("day" if days == 1 else f"{days} days", containing)
