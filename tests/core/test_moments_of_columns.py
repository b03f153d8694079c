"""Columns of moments are converted as each of them is alone."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moments import naive_moments, zones
from tallymark import InvalidTypeError, InvalidValueError, Period
from tallymark._core.moments import (
    Instants,
    IrregularError,
    unit_of,
    units_of_instants,
    units_of_list,
)
from tallymark._core.periods import Granularity, wall_clock

if TYPE_CHECKING:
    from datetime import tzinfo

#: Two changes within a year; at midnight; by half an hour; a day that did not exist.
TALLY_ZONES = st.sampled_from(
    [timezone.utc, timezone(timedelta(hours=5, minutes=45))]
    + [
        ZoneInfo(name)
        for name in (
            "Europe/Berlin",
            "America/Havana",
            "Australia/Lord_Howe",
            "Pacific/Apia",
            "America/St_Johns",
            "UTC",
        )
    ]
)
#: Every few minutes around changes of the clocks, beside any moments.
CHANGES = [
    datetime(2011, 12, 30, 10),
    datetime(2018, 11, 4, 4),
    datetime(2024, 3, 31, 1),
    datetime(2024, 10, 27, 1),
    datetime(2024, 4, 6, 15),
]
near_changes = st.builds(
    lambda change, minutes: change + timedelta(minutes=minutes),
    st.sampled_from(CHANGES),
    st.integers(-2000, 2000),
)
naive = naive_moments | near_changes


def model(moment: Any, zone: tzinfo, hourly: bool) -> int:
    """Return the unit by `Period`, as a mark does."""
    granularity = Granularity.HOUR if hourly else Granularity.DAY
    start = Period.containing(granularity, wall_clock(moment, zone)).start
    return 24 * start.toordinal() + start.hour if hourly else start.toordinal()


@settings(max_examples=150, deadline=None)
@given(
    moments=st.lists(naive, min_size=1, max_size=20),
    zone=TALLY_ZONES,
    kind=st.sampled_from(["naive", "own", "other", "date"]),
    other=zones,
    fold=st.booleans(),
    hourly=st.booleans(),
)
def test_lists_as_each_moment(
    moments: list[datetime], zone: tzinfo, kind: str, other: tzinfo, fold: bool, hourly: bool
) -> None:
    found: list[Any] = [moment.replace(fold=fold) for moment in moments]
    if kind == "date":
        found = [moment.date() for moment in moments]
    elif kind != "naive":
        found = [
            moment.replace(tzinfo=zone if kind == "own" else other, fold=fold) for moment in moments
        ]
    wanted = [model(moment, zone, hourly) for moment in found]
    assert units_of_list(found, zone, hourly=hourly) == wanted
    assert [unit_of(moment, zone, hourly=hourly) for moment in found] == wanted


@settings(max_examples=150, deadline=None)
@given(
    moments=st.lists(naive, min_size=1, max_size=20),
    zone=TALLY_ZONES,
    unit=st.sampled_from(["s", "ms", "us", "ns", "m", "h", "D", "25s", "W", "M", "Y"]),
    aware=st.booleans(),
    hourly=st.booleans(),
)
def test_arrays_as_each_moment(
    moments: list[datetime], zone: tzinfo, unit: str, aware: bool, hourly: bool
) -> None:
    values = np.array(moments, dtype="datetime64[us]").astype(f"datetime64[{unit}]")
    aware = aware and unit in ("s", "ms", "us", "ns")
    instants = Instants(values, aware)
    exact = [
        datetime.combine(value, datetime.min.time()) if type(value) is date else value
        for value in values.astype("datetime64[us]").tolist()
    ]
    if aware:
        exact = [moment.replace(tzinfo=timezone.utc) for moment in exact]
    wanted = [model(moment, zone, hourly) for moment in exact]
    assert units_of_instants(instants, zone, hourly=hourly).tolist() == wanted
    singly = [unit_of(instants.value(at), zone, hourly=hourly) for at in range(len(values))]
    assert singly == wanted


@pytest.mark.parametrize("aware", [False, True])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "D", "Y"])
def test_what_is_outside_of_the_years_or_missing_needs_a_look(unit: str, aware: bool) -> None:
    make: Any = np.datetime64
    good = make("2026-01-01", unit)
    zone = ZoneInfo("Europe/Berlin")
    for bad in ("NaT", "0000-12-31", "10000-01-01", "-9000-01-01"):
        values = np.array([good, make(bad, unit)])
        with pytest.raises(IrregularError):
            units_of_instants(Instants(values, aware), zone, hourly=False)
        moment = Instants(values, aware).value(1)
        with pytest.raises((InvalidValueError, InvalidTypeError), match="moment"):
            unit_of(moment, zone, hourly=False)


def test_the_ends_of_the_years() -> None:
    ends = np.array(["0001-01-01T00:00", "9999-12-31T23:59"], dtype="datetime64[s]")
    found = units_of_instants(Instants(ends, aware=False), timezone.utc, hourly=True)
    assert found.tolist() == [24, 24 * date.max.toordinal() + 23]
    with pytest.raises(IrregularError):  # a conversion leaves the years
        units_of_instants(Instants(ends, aware=True), ZoneInfo("Asia/Tokyo"), hourly=True)


def test_few_days_far_apart_need_no_table() -> None:
    days = np.array(["0100-01-01T22:30", "2026-07-01T22:30", "9000-01-01T22:30"], "datetime64[s]")
    zone = ZoneInfo("Europe/Berlin")
    wanted = [model(moment.replace(tzinfo=timezone.utc), zone, True) for moment in days.tolist()]
    assert units_of_instants(Instants(days, aware=True), zone, hourly=True).tolist() == wanted


@pytest.mark.parametrize(
    "moments",
    [
        [datetime(2026, 1, 1), date(2026, 1, 1)],
        [datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=timezone.utc)],
        ["2026-01-01"],
        [None],
        [datetime.min.replace(tzinfo=timezone(timedelta(hours=5)))],
    ],
)
def test_mixed_and_wrong_lists_need_a_look(moments: list[Any]) -> None:
    with pytest.raises(IrregularError):
        units_of_list(moments, ZoneInfo("Europe/Berlin"), hourly=False)


@pytest.mark.parametrize(
    "name", ["Europe/Berlin", "America/Havana", "Australia/Lord_Howe", "Pacific/Apia"]
)
def test_every_ten_minutes_around_changes_of_the_clock(name: str) -> None:
    zone = ZoneInfo(name)
    for change in CHANGES:
        values = np.datetime64(change, "s") + 600 * np.arange(-300, 300)
        instants = Instants(values, aware=True)
        exact = [moment.replace(tzinfo=timezone.utc) for moment in values.tolist()]
        wanted = [model(moment, zone, hourly=True) for moment in exact]
        assert units_of_instants(instants, zone, hourly=True).tolist() == wanted
