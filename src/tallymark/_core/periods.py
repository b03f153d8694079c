"""Granularities and calendar periods, and their place in a key.

Pure: no clock, no time zone, no I/O. Every datetime in this module is naive
wall-clock time; `tallymark._marking.marker` converts to the tally's zone before it gets
here. The suffix format is bitmapist's (https://github.com/Doist/bitmapist):
unpadded numbers, and the ISO 8601 year beside the ISO week.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from ..errors import InvalidTypeError, InvalidValueError
from .arguments import checked_int, described
from .excerpts import shown
from .handlers import let_handlers_pass

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "UNIQUE_SUFFIX",
    "By",
    "Granularity",
    "Period",
    "count_between",
    "dated",
    "parse_suffix",
    "periods_between",
]

#: The suffix of a bitmap without a date.
UNIQUE_SUFFIX = "u"


class Granularity(enum.Flag):
    """How wide a bitmap's period is; values combine with ``|``.

    Marks return the combination of the granularities whose bit they flipped:
    it is falsy when nothing changed, ``Granularity.DAY in flipped`` asks for
    one of them, and iterating yields the single ones.
    """

    MONTH = enum.auto()
    WEEK = enum.auto()
    DAY = enum.auto()
    HOUR = enum.auto()
    UNIQUE = enum.auto()
    YEAR = enum.auto()

    def __iter__(self) -> Iterator[Granularity]:  # enum brings it from 3.11 on only
        """Yield the single granularities in the order of their definition."""
        return (member for member in type(self) if member in self)

    def __str__(self) -> str:
        """Return the names in lower case, such as ``month|week|day``, or ``none``."""
        return "|".join(str(member.name).lower() for member in self) or "none"


#: A dated granularity, or its name.
By = Granularity | Literal["hour", "day", "week", "month", "year"]


def dated(by: By) -> Granularity:
    """Return one dated granularity, which may be given by its name.

    Raises:
        InvalidTypeError, InvalidValueError: it is none, or several, or not dated.
    """
    if isinstance(by, Granularity):
        if by in _DATED.values():
            return by
    elif not isinstance(by, str):
        raise InvalidTypeError(f"a granularity is {_DATED_NAMES}, got {shown(by)}")
    elif (name := str.__str__(by)) in _DATED:  # of a subclass, too
        return _DATED[name]
    got = str(by) if isinstance(by, Granularity) else by
    raise InvalidValueError(f"a granularity with periods is {_DATED_NAMES}, got {shown(got)}")


_DATED = {
    str(granularity): granularity
    for granularity in (
        Granularity.HOUR,
        Granularity.DAY,
        Granularity.WEEK,
        Granularity.MONTH,
        Granularity.YEAR,
    )
}
_DATED_NAMES = "one of " + ", ".join(map(repr, _DATED))


@dataclass(frozen=True)
class Period:
    """One calendar unit, such as the day 2026-11-23 or the ISO week 2026-W48.

    Attributes:
        granularity: one of YEAR, MONTH, WEEK, DAY, HOUR.
        start: its first moment, as naive wall-clock time of the tally's zone.
            Build periods with `containing`, which finds it.

    Where the clock is set back an hour, both passes of that hour are one
    period, since their keys are the same. ``str()`` gives ISO 8601's notation:
    ``2026``, ``2026-11``, ``2026-W48``, ``2026-11-23``, ``2026-11-23T09``.
    """

    granularity: Granularity
    start: datetime

    def __post_init__(self) -> None:
        begin = _start(self.granularity, self.start)
        try:
            right = self.start == begin  # never, if it is aware
        except (ArithmeticError, TypeError, ValueError) as error:  # of its zone
            let_handlers_pass(error)
            right = False
        if not right:
            raise InvalidValueError(
                f"{shown(self.start)} is not the start of a {self.granularity}, in naive time"
            )

    @classmethod
    def containing(cls, granularity: Granularity, moment: datetime) -> Period:
        """Return the period of this granularity that holds a naive moment.

        Raises:
            InvalidTypeError, InvalidValueError: this is no dated granularity, or
                no moment.
        """
        return cls(granularity, _start(granularity, moment))

    @property
    def end(self) -> datetime:
        """The first moment after the period (naive; excluded from it).

        Raises:
            InvalidValueError: it lies after the year 9999.
        """
        return self.shift(1).start

    def shift(self, count: int) -> Period:
        """Return the period ``count`` units later (earlier, if negative).

        Raises:
            InvalidTypeError: the count is no int.
            InvalidValueError: the result lies outside the years 1 to 9999.
        """
        number = checked_int("count", count)
        try:
            return Period(self.granularity, _shifted(self.granularity, self.start, number))
        except (OverflowError, ValueError) as error:
            let_handlers_pass(error)
            raise InvalidValueError(
                f"{self.granularity} {self.suffix} cannot be shifted that far: "
                "it leaves the years 1 to 9999"
            ) from error

    def days(self) -> Iterator[Period]:
        """Yield every day of the period, in order; of an hour, its one day."""
        day = Period.containing(Granularity.DAY, self.start)
        while True:
            yield day
            try:
                day = day.shift(1)
            except InvalidValueError:  # it was 9999-12-31
                return
            if Period.containing(self.granularity, day.start) != self:
                return

    def __str__(self) -> str:
        start = self.start
        if self.granularity is Granularity.WEEK:
            year, week, _ = start.isocalendar()
            return f"{year:04}-W{week:02}"
        return start.isoformat()[: _ISO_LENGTHS[self.granularity]]

    @property
    def suffix(self) -> str:
        """The period's part of a key, such as ``2026-11-23`` or ``W2026-48``."""
        start = self.start
        if self.granularity is Granularity.YEAR:
            return f"{start.year}"
        if self.granularity is Granularity.MONTH:
            return f"{start.year}-{start.month}"
        if self.granularity is Granularity.WEEK:
            year, week, _ = start.isocalendar()
            return f"W{year}-{week}"
        if self.granularity is Granularity.DAY:
            return f"{start.year}-{start.month}-{start.day}"
        return f"{start.year}-{start.month}-{start.day}-{start.hour}"


def count_between(granularity: Granularity, begin: datetime, end: datetime) -> int:
    """Return how many periods have a moment in ``[begin, end)``, or up to two more, by arithmetic.

    Arguments:
        granularity: a dated one.
        begin, end: naive, ``begin`` no later than ``end``.
    """
    if granularity is Granularity.YEAR:
        return end.year - begin.year + 1
    if granularity is Granularity.MONTH:
        return 12 * (end.year - begin.year) + end.month - begin.month + 1
    return (end - begin) // _LENGTHS[granularity] + 2


_LENGTHS = {
    Granularity.HOUR: timedelta(hours=1),
    Granularity.DAY: timedelta(days=1),
    Granularity.WEEK: timedelta(weeks=1),
}


def periods_between(granularity: Granularity, begin: datetime, end: datetime) -> Iterator[Period]:
    """Yield in order the periods that have a moment in ``[begin, end)``, which are naive."""
    period = Period.containing(granularity, begin)
    while period.start < end:
        yield period
        try:
            period = period.shift(1)
        except InvalidValueError:  # it was the last one of the year 9999
            return


def parse_suffix(suffix: str) -> Period | None:
    """Return the period that a key's suffix names: the inverse of `Period.suffix`.

    Returns:
        The period, or ``None`` for `UNIQUE_SUFFIX`.

    Raises:
        InvalidValueError: no key of ours ends so (``2026-01``, ``2026-13``).
    """
    if suffix == UNIQUE_SUFFIX:
        return None
    try:
        period = _parse_period(suffix)
    except (ValueError, OverflowError) as error:
        let_handlers_pass(error)
        raise InvalidValueError(f"not a period's suffix: {shown(suffix)}") from error
    if period.suffix != suffix:  # zero padding, "+1", " 1", other scripts' digits
        raise InvalidValueError(f"not a period's suffix: {shown(suffix)}")
    return period


def _parse_period(suffix: str) -> Period:
    if suffix.startswith("W"):
        year, week = map(int, suffix[1:].split("-"))
        return Period(Granularity.WEEK, datetime.fromisocalendar(year, week, 1))
    numbers = [int(part) for part in suffix.split("-")]
    granularity = _BY_NUMBERS.get(len(numbers))
    if granularity is None:
        raise ValueError(suffix)
    year, month, day, hour = numbers + _FIRST[len(numbers) :]
    return Period(granularity, datetime(year, month, day, hour))


#: How many numbers a dated suffix has.
_BY_NUMBERS = {
    1: Granularity.YEAR,
    2: Granularity.MONTH,
    3: Granularity.DAY,
    4: Granularity.HOUR,
}
#: How much of ``2026-11-23T09:00:00`` a period needs.
_ISO_LENGTHS = {
    Granularity.YEAR: 4,
    Granularity.MONTH: 7,
    Granularity.DAY: 10,
    Granularity.HOUR: 13,
}
#: What the numbers that a suffix leaves out stand for: the first of each.
_FIRST = [1, 1, 1, 0]


def _start(granularity: Granularity, moment: datetime) -> datetime:
    if type(moment) is not datetime and not isinstance(moment, date):
        raise InvalidTypeError(f"a moment must be a datetime, got {described(moment)}")
    try:
        midnight = datetime(moment.year, moment.month, moment.day)
        if granularity is Granularity.HOUR:
            return midnight.replace(hour=getattr(moment, "hour", 0))
    except (TypeError, ValueError) as error:  # pandas' NaT, whose year is a NaN
        let_handlers_pass(error)
        raise InvalidValueError(f"{shown(moment)} is no moment") from error
    if granularity is Granularity.DAY:
        return midnight
    if granularity is Granularity.WEEK:
        return midnight - timedelta(days=moment.weekday())
    if granularity is Granularity.MONTH:
        return midnight.replace(day=1)
    if granularity is Granularity.YEAR:
        return midnight.replace(month=1, day=1)
    if isinstance(granularity, Granularity):
        raise InvalidValueError(f"a period has one of the dated granularities, not {granularity}")
    raise InvalidTypeError(f"granularity must be a Granularity, got {described(granularity)}")


def _shifted(granularity: Granularity, start: datetime, count: int) -> datetime:
    if granularity is Granularity.HOUR:
        return start + timedelta(hours=count)
    if granularity is Granularity.DAY:
        return start + timedelta(days=count)
    if granularity is Granularity.WEEK:
        return start + timedelta(weeks=count)
    if granularity is Granularity.YEAR:
        return start.replace(year=start.year + count)
    years, month = divmod(start.month - 1 + count, 12)
    return start.replace(year=start.year + years, month=month + 1)
