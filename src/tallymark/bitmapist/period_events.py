"""The events of a year, a month, a week, a day or an hour, and flags, which have no date."""

from __future__ import annotations

import abc
import calendar
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from .._core.keys import DEFAULT_PREFIX
from .arguments import as_text
from .dates import add_month, iso_to_gregorian, utc_now
from .sets import (
    BitOpOr,
    MixinBitOperations,
    MixinContains,
    MixinCounts,
    MixinEventsMisc,
    MixinIter,
    key_name,
    selection_of,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from .selections import Selection
    from .systems import System

__all__ = [
    "CalendarEvents",
    "DayEvents",
    "GenericPeriodEvents",
    "HourEvents",
    "MonthEvents",
    "UniqueEvents",
    "WeekEvents",
    "YearEvents",
]


class UniqueEvents(MixinIter, MixinCounts, MixinContains, MixinEventsMisc, MixinBitOperations):
    """The users with a flag, whenever it was set.

    Attributes:
        event_name: the event's name.
        system: the system, by its name or its client.
    """

    @classmethod
    def from_date(cls, event_name: str, dt: date | None = None, system: System = "default") -> Self:
        """Return the flag.

        Arguments:
            event_name: the event's name.
            dt: not used: a flag has no date.
            system: a name in `SYSTEMS`, a client, or a pipeline.
        """
        return cls(event_name, system=system)

    def __init__(self, event_name: str, system: System = "default") -> None:
        """Make the events of a flag.

        Arguments:
            event_name: the event's name.
            system: a name in `SYSTEMS`, a client, or a pipeline.
        """
        self.event_name = event_name
        self.system = system
        self.redis_key = _key(event_name, "u")

    def next(self) -> Self:
        """Return the flag itself, which has no date."""
        return self

    def prev(self) -> Self:
        """Return the flag itself, which has no date."""
        return self

    def delta(self, value: int) -> Self:
        """Return the flag itself, which has no date, whatever the ``value``."""
        return self


class GenericPeriodEvents(
    MixinIter, MixinCounts, MixinContains, MixinEventsMisc, MixinBitOperations, abc.ABC
):
    """The base of the events of all periods, also of your own classes.

    A class of your own sets ``redis_key`` in ``__init__``, and implements `delta`,
    `period_start` and `period_end`.

    Attributes:
        event_name: the event's name.
        system: the system, by its name or its client.
    """

    def __init__(self, event_name: str, *, system: System = "default") -> None:
        """Make the events of a period.

        Arguments:
            event_name: the event's name.
            system: a name in `SYSTEMS`, a client, or a pipeline.
        """
        self.event_name = event_name
        self.system = system

    @abc.abstractmethod
    def delta(self, value: int) -> Self:
        """Return the events ``value`` periods later (earlier, if negative)."""

    @abc.abstractmethod
    def period_start(self) -> datetime:
        """Return the first moment of the period, in UTC."""

    @abc.abstractmethod
    def period_end(self) -> datetime:
        """Return the last microsecond of the period, in UTC."""

    def next(self) -> Self:
        """Return the events of the period after this one."""
        return self.delta(value=1)

    def prev(self) -> Self:
        """Return the events of the period before this one."""
        return self.delta(value=-1)


class CalendarEvents(GenericPeriodEvents):
    """The events of a calendar period, which is named by numbers such as year and month."""

    @classmethod
    def from_date(cls, event_name: str, dt: date | None = None, system: System = "default") -> Self:
        """Return the events of the period of a moment.

        Arguments:
            event_name: the event's name.
            dt: the moment; by default the present one, in UTC.
            system: a name in `SYSTEMS`, a client, or a pipeline.
        """
        make: Any = cls
        events: Self = make(event_name, *cls.numbers(dt or utc_now()), system=system)
        return events

    @staticmethod
    @abc.abstractmethod
    def numbers(moment: date) -> tuple[int, ...]:
        """Return the numbers that name the period of a ``moment``."""

    def _filled(self, *numbers: int | None) -> tuple[int, ...]:
        """Return the numbers, with those of the present moment in place of None."""
        present = self.numbers(utc_now())
        return tuple(
            now if number is None else number for number, now in zip(numbers, present, strict=True)
        )


class YearEvents(CalendarEvents):
    """The users of an event in a year: the union of its months.

    Its ``redis_key`` is that of the union; see `BitOperation`.

    Attributes:
        event_name, system: as for `GenericPeriodEvents`.
        year: the year.
    """

    @staticmethod
    def numbers(moment: date) -> tuple[int, ...]:
        """Return the year of a ``moment``."""
        return (moment.year,)

    def __init__(
        self, event_name: str, year: int | None = None, system: System = "default"
    ) -> None:
        """Make the events of a year.

        Arguments:
            event_name: the event's name.
            year: the year; by default the present one, in UTC.
            system: a name in `SYSTEMS`, a client, or a pipeline.
        """
        super().__init__(event_name, system=system)
        (self.year,) = self._filled(year)
        months = [MonthEvents(event_name, self.year, month, system) for month in range(1, 13)]
        self._months = BitOpOr(system, *months)
        self.redis_key = key_name(self._months)

    def delta(self, value: int) -> Self:
        """Return the events ``value`` years later."""
        return self.__class__(self.event_name, self.year + value, self.system)

    def period_start(self) -> datetime:
        """Return the first moment of the year."""
        return datetime(self.year, 1, 1, tzinfo=timezone.utc)

    def period_end(self) -> datetime:
        """Return the last microsecond of the year."""
        return _end_of_day(date(self.year, 12, 31))

    def _store(self) -> None:
        _ = self._months.redis_key

    def _selection(self) -> Selection:
        return selection_of(self._months)


class MonthEvents(CalendarEvents):
    """The users of an event in a month.

    Attributes:
        event_name, system: as for `GenericPeriodEvents`.
        year, month: the month.
    """

    @staticmethod
    def numbers(moment: date) -> tuple[int, ...]:
        """Return the year and the month of a ``moment``."""
        return moment.year, moment.month

    def __init__(
        self,
        event_name: str,
        year: int | None = None,
        month: int | None = None,
        system: System = "default",
    ) -> None:
        """Make the events of a month.

        Arguments:
            event_name: the event's name.
            year, month: the month, each by default that of the present moment, in UTC.
            system: a name in `SYSTEMS`, a client, or a pipeline.
        """
        super().__init__(event_name, system=system)
        self.year, self.month = self._filled(year, month)
        self.redis_key = _key(event_name, self.year, self.month)

    def delta(self, value: int) -> Self:
        """Return the events ``value`` months later."""
        year, month = add_month(self.year, self.month, value)
        return self.__class__(self.event_name, year, month, self.system)

    def period_start(self) -> datetime:
        """Return the first moment of the month."""
        return datetime(self.year, self.month, 1, tzinfo=timezone.utc)

    def period_end(self) -> datetime:
        """Return the last microsecond of the month."""
        days = calendar.monthrange(self.year, self.month)[1]
        return _end_of_day(date(self.year, self.month, days))


class WeekEvents(CalendarEvents):
    """The users of an event in an ISO week, which begins on Monday.

    Attributes:
        event_name, system: as for `GenericPeriodEvents`.
        year, week: the ISO year and the ISO week.
    """

    @staticmethod
    def numbers(moment: date) -> tuple[int, ...]:
        """Return the ISO year and week of a ``moment``."""
        return tuple(moment.isocalendar()[:2])

    def __init__(
        self,
        event_name: str,
        year: int | None = None,
        week: int | None = None,
        system: System = "default",
    ) -> None:
        """Make the events of a week.

        Arguments:
            event_name: the event's name.
            year, week: the ISO year and week, each by default that of the present moment, in UTC.
            system: a name in `SYSTEMS`, a client, or a pipeline.
        """
        super().__init__(event_name, system=system)
        self.year, self.week = self._filled(year, week)
        self.redis_key = _key(event_name, self.year, self.week, mark="W")

    def delta(self, value: int) -> Self:
        """Return the events ``value`` weeks later."""
        later = self.period_start() + timedelta(weeks=value)
        return self.from_date(self.event_name, later, self.system)

    def period_start(self) -> datetime:
        """Return the first moment of the week's Monday."""
        return _midnight(iso_to_gregorian(self.year, self.week, 1))

    def period_end(self) -> datetime:
        """Return the last microsecond of the week's Sunday."""
        return _end_of_day(iso_to_gregorian(self.year, self.week, 7))


class DayEvents(CalendarEvents):
    """The users of an event on a day.

    Attributes:
        event_name, system: as for `GenericPeriodEvents`.
        year, month, day: the day.
    """

    @staticmethod
    def numbers(moment: date) -> tuple[int, ...]:
        """Return the year, the month and the day of a ``moment``."""
        return moment.year, moment.month, moment.day

    def __init__(
        self,
        event_name: str,
        year: int | None = None,
        month: int | None = None,
        day: int | None = None,
        system: System = "default",
    ) -> None:
        """Make the events of a day.

        Arguments:
            event_name: the event's name.
            year, month, day: the day, each by default that of the present moment, in UTC.
            system: a name in `SYSTEMS`, a client, or a pipeline.
        """
        super().__init__(event_name, system=system)
        self.year, self.month, self.day = self._filled(year, month, day)
        self.redis_key = _key(event_name, self.year, self.month, self.day)

    def delta(self, value: int) -> Self:
        """Return the events ``value`` days later."""
        later = self.period_start() + timedelta(days=value)
        return self.from_date(self.event_name, later, self.system)

    def period_start(self) -> datetime:
        """Return the first moment of the day."""
        return _midnight(date(self.year, self.month, self.day))

    def period_end(self) -> datetime:
        """Return the last microsecond of the day."""
        return _end_of_day(date(self.year, self.month, self.day))


class HourEvents(CalendarEvents):
    """The users of an event in an hour, if hours were marked.

    Attributes:
        event_name, system: as for `GenericPeriodEvents`.
        year, month, day, hour: the hour.
    """

    @staticmethod
    def numbers(moment: date) -> tuple[int, ...]:
        """Return the year, the month, the day and the hour of a ``moment``."""
        hour = moment.hour if isinstance(moment, datetime) else 0
        return moment.year, moment.month, moment.day, hour

    def __init__(
        self,
        event_name: str,
        year: int | None = None,
        month: int | None = None,
        day: int | None = None,
        hour: int | None = None,
        system: System = "default",
    ) -> None:
        """Make the events of an hour.

        Arguments:
            event_name: the event's name.
            year, month, day, hour: the hour, from 0 to 23, of a day, each by default that of
                the present moment, in UTC.
            system: a name in `SYSTEMS`, a client, or a pipeline.
        """
        super().__init__(event_name, system=system)
        self.year, self.month, self.day, self.hour = self._filled(year, month, day, hour)
        self.redis_key = _key(event_name, self.year, self.month, self.day, self.hour)

    def delta(self, value: int) -> Self:
        """Return the events ``value`` hours later."""
        later = self.period_start() + timedelta(hours=value)
        return self.from_date(self.event_name, later, self.system)

    def period_start(self) -> datetime:
        """Return the first moment of the hour."""
        return datetime(self.year, self.month, self.day, self.hour, tzinfo=timezone.utc)

    def period_end(self) -> datetime:
        """Return the last microsecond of the hour."""
        return self.period_start().replace(minute=59, second=59, microsecond=999_999)


def _key(event_name: str, *numbers: object, mark: str = "") -> str:
    """Return the key of an event's bitmap.

    Raises:
        InvalidValueError: a part of the key cannot be encoded.
    """
    suffix = mark + "-".join(map(as_text, numbers))
    return f"{DEFAULT_PREFIX}{as_text(event_name)}_{suffix}"


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=timezone.utc)


def _end_of_day(day: date) -> datetime:
    return _midnight(day).replace(hour=23, minute=59, second=59, microsecond=999_999)
