"""Helper functions for dates, which bitmapist exports too. Pure."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import TypeVar

__all__ = ["add_month", "iso_to_gregorian", "iso_year_start", "not_none", "utc_now"]

T = TypeVar("T")


def add_month(year: int, month: int, delta: int) -> tuple[int, int]:
    """Return the year and the month ``delta`` months later (earlier, if negative).

    Arguments:
        year: the year.
        month: the month, from 1 to 12.
        delta: how many months later; earlier, if negative.
    """
    years, months = divmod(month - 1 + delta, 12)
    return year + years, months + 1


def not_none(*keys: T | None) -> T | None:
    """Return the first of some ``keys`` that is not None; None if there is none."""
    return next((key for key in keys if key is not None), None)


def iso_year_start(iso_year: int) -> date:
    """Return the first day of the ISO year ``iso_year``, a Monday."""
    return date.fromisocalendar(iso_year, 1, 1)


def iso_to_gregorian(iso_year: int, iso_week: int, iso_day: int) -> date:
    """Return the day with an ISO year, week and weekday.

    Arguments:
        iso_year: the ISO year.
        iso_week: the ISO week. Out of range, it is of another year: 54 is in the next one, 0 in
            the year before.
        iso_day: the day of the week: 1 is Monday. Out of range, it is of another week.
    """
    return iso_year_start(iso_year) + timedelta(weeks=iso_week - 1, days=iso_day - 1)


def utc_now() -> datetime:
    """Return the present moment, aware, in UTC."""
    return datetime.now(tz=timezone.utc)
