from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moments import naive_moments
from tallymark import Granularity, InvalidTypeError, InvalidValueError, Period
from tallymark._core.periods import dated, parse_suffix, periods_between

DATED = [g for g in Granularity if g is not Granularity.UNIQUE]
any_moment = naive_moments | st.datetimes()


@pytest.mark.parametrize(
    ("granularity", "moment", "suffix"),
    [
        (Granularity.MONTH, datetime(2026, 1, 5, 13, 7), "2026-1"),
        (Granularity.WEEK, datetime(2026, 1, 5, 13, 7), "W2026-2"),
        (Granularity.DAY, datetime(2026, 1, 5, 13, 7), "2026-1-5"),
        (Granularity.HOUR, datetime(2026, 1, 5, 13, 7), "2026-1-5-13"),
        (Granularity.YEAR, datetime(2026, 1, 5, 13, 7), "2026"),
        (Granularity.WEEK, datetime(2024, 12, 30), "W2025-1"),
        (Granularity.WEEK, datetime(2027, 1, 1), "W2026-53"),
        (Granularity.WEEK, datetime.max, "W9999-52"),
        (Granularity.WEEK, datetime.min, "W1-1"),
    ],
)
def test_suffix_of_a_moment(granularity: Granularity, moment: datetime, suffix: str) -> None:
    assert Period.containing(granularity, moment).suffix == suffix


@given(st.sampled_from(DATED), any_moment)
def test_parsing_is_the_inverse_of_the_suffix(granularity: Granularity, moment: datetime) -> None:
    period = Period.containing(granularity, moment)
    assert parse_suffix(period.suffix) == period


def test_the_unique_suffix_has_no_period() -> None:
    assert parse_suffix("u") is None


@pytest.mark.parametrize(
    "suffix",
    [
        "",
        "U",
        "2026-01",
        "2026-13",
        "2026-2-30",
        "2026-1-1-24",
        "W2026-54",
        "W2026",
        "W2025-1-1",
        "W2025-53",
        "0",
        "-1",
        "+2026",
        " 2026",
        "2026 ",
        "10000",
        "2026-1-1-1-1",
        "٢٠٢٦",
        "u1",
        "x",
        "9" * 5000,
    ],
)
def test_other_suffixes_are_refused(suffix: str) -> None:
    with pytest.raises(InvalidValueError, match="not a period's suffix"):
        parse_suffix(suffix)


@given(st.sampled_from(DATED), naive_moments, st.integers(-400, 400))
def test_shifting_there_and_back(granularity: Granularity, moment: datetime, count: int) -> None:
    period = Period.containing(granularity, moment)
    assert period.shift(count).shift(-count) == period
    assert (period.shift(count).start > period.start) == (count > 0)


@given(st.sampled_from(DATED), naive_moments)
def test_periods_follow_each_other_without_gap(granularity: Granularity, moment: datetime) -> None:
    period = Period.containing(granularity, moment)
    assert period.start <= moment < period.end
    assert period.shift(1).start == period.end
    last = period.end - timedelta(microseconds=1)
    assert Period.containing(granularity, last) == period


@pytest.mark.parametrize("granularity", DATED)
def test_no_shift_leaves_the_calendar(granularity: Granularity) -> None:
    with pytest.raises(InvalidValueError, match="years 1 to 9999"):
        _ = Period.containing(granularity, datetime.max).end
    with pytest.raises(InvalidValueError, match="years 1 to 9999"):
        Period.containing(granularity, datetime.min).shift(-1)


@given(st.sampled_from(DATED), any_moment)
def test_days_are_all_days_of_the_period(granularity: Granularity, moment: datetime) -> None:
    period = Period.containing(granularity, moment)
    days = list(period.days())
    day = Period.containing(Granularity.DAY, period.start)
    assert days[0] == day
    for before, after in pairwise(days):
        assert after.start - before.start == timedelta(days=1)
    if moment.year < 9999:
        following = days[-1].shift(1)
        assert following.start >= period.end
    else:
        assert Period.containing(Granularity.DAY, moment) in days


def test_a_week_at_the_calendars_end_is_cut_short() -> None:
    assert len(list(Period.containing(Granularity.WEEK, datetime.max).days())) == 5


def test_a_period_starts_at_its_start() -> None:
    with pytest.raises(InvalidValueError, match="not the start of a week"):
        Period(Granularity.WEEK, datetime(2026, 11, 24))
    with pytest.raises(InvalidValueError, match="dated granularities"):
        Period(Granularity.UNIQUE, datetime(2026, 11, 24))


@pytest.mark.parametrize(
    ("granularity", "text"),
    [
        (Granularity.HOUR, "0987-01-02T03"),
        (Granularity.DAY, "0987-01-02"),
        (Granularity.WEEK, "0987-W01"),
        (Granularity.MONTH, "0987-01"),
        (Granularity.YEAR, "0987"),
    ],
)
def test_a_period_reads_as_iso_8601_has_it(granularity: Granularity, text: str) -> None:
    assert str(Period.containing(granularity, datetime(987, 1, 2, 3, 4))) == text


@given(st.sampled_from(DATED), any_moment, st.integers(0, 3))
def test_periods_between_are_those_with_a_moment_in_it(
    granularity: Granularity, begin: datetime, count: int
) -> None:
    first = Period.containing(granularity, begin)
    try:
        last = first.shift(count)
        end = last.start + timedelta(microseconds=1)
    except InvalidValueError:
        return
    found = list(periods_between(granularity, begin, end))
    assert found == [first.shift(step) for step in range(count + 1)]
    assert list(periods_between(granularity, begin, last.start))[-1:] in ([], [last.shift(-1)])


def test_periods_between_end_with_the_calendar() -> None:
    found = periods_between(Granularity.YEAR, datetime(9998, 5, 1), datetime.max)
    assert [str(year) for year in found] == ["9998", "9999"]


def test_a_granularity_may_be_named() -> None:
    name: Any
    for granularity in DATED:
        assert dated(granularity) is granularity
        name = str(granularity)
        assert dated(name) is granularity
    wrong: Any
    for wrong in ("unique", "days", "", Granularity.UNIQUE, Granularity.DAY | Granularity.WEEK):
        with pytest.raises(InvalidValueError, match="one of 'hour', 'day'"):
            dated(wrong)
    for wrong in (None, 7, b"day"):
        with pytest.raises(InvalidTypeError, match="one of 'hour', 'day'"):
            dated(wrong)


def test_granularity_reads_well() -> None:
    both = Granularity.DAY | Granularity.MONTH
    assert list(both) == [Granularity.MONTH, Granularity.DAY]
    assert str(both) == "month|day"
    assert str(Granularity(0)) == "none"
    assert not Granularity(0)
    assert f"{Granularity.UNIQUE}" == "unique"
