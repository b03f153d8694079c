"""The last hours: which bitmaps they are read from, at changes of the clock too."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from facades import ON_SOME_STORES
from tallymark import Granularity, InvalidTypeError, InvalidValueError
from tallymark._core.context import Context, EventSets
from tallymark._core.options import Options

if TYPE_CHECKING:
    from facades import Facade
    from stores import Store

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOW = datetime(2026, 11, 23, 9, 30)


class Backend(NamedTuple):
    context: Context


class Builder(EventSets):
    def __init__(self, **options: Any) -> None:
        clock = (NOW - datetime(1970, 1, 1)).total_seconds
        self.backend = Backend(Context.of("db", Options(**options), clock))


tally = Builder()
berlin = Builder(timezone="Europe/Berlin")
anything: Any = tally


def keys(event_set: Any) -> list[str]:
    return [bitmap.key.decode().removeprefix("trackist_a_") for bitmap in event_set.bitmaps()]


def test_the_hour_of_the_moment_is_the_last_one() -> None:
    assert keys(tally.last_hours("a", 1)) == ["2026-11-23-9"]
    assert keys(tally.last_hours("a", 3)) == ["2026-11-23-7", "2026-11-23-8", "2026-11-23-9"]
    day = keys(tally.last_hours("a"))
    assert (len(day), day[0], day[-1]) == (24, "2026-11-22-10", "2026-11-23-9")
    assert tally.last_hours("a") == tally.last_hours("a", 24, NOW)
    assert tally.last_hours("a") != tally.last_hours("a", 23)


def test_whole_days_are_read_as_days() -> None:
    assert keys(tally.last_hours("a", 24, datetime(2026, 11, 23, 23, 59))) == ["2026-11-23"]
    assert keys(tally.last_hours("a", 26, datetime(2026, 11, 24, 0))) == [
        "2026-11-22-23",
        "2026-11-23",
        "2026-11-24-0",
    ]
    month = keys(tally.last_hours("a", 24 * 30, datetime(2026, 12, 1, 12)))
    assert "2026-11" not in month  # that begins a day earlier
    assert len(month) < 40
    assert "2026-11" in keys(tally.last_hours("a", 24 * 31, datetime(2026, 12, 1, 12)))


def test_days_that_expire_before_their_hours_do_not_suffice() -> None:
    lasting = Builder(expire={"day": DAY, "hour": 40 * DAY}, track_hourly=True)
    assert keys(lasting.last_hours("a", 24, datetime(2026, 11, 23, 23)))[-24:] == [
        f"2026-11-23-{hour}" for hour in range(24)
    ]


def test_it_is_a_value() -> None:
    hours = tally.last_hours("a", 30)
    assert (hours.start, hours.end) == (datetime(2026, 11, 22, 4), datetime(2026, 11, 23, 10))
    assert repr(hours) == "hours('a', 2026-11-22 04:00, 2026-11-23 10:00)"
    early = tally.last_hours("a", 2, datetime(87, 7, 21, 5))
    assert repr(early) == "hours('a', 0087-07-21 04:00, 0087-07-21 06:00)"
    assert hours.prev().end == hours.start
    assert hours.prev().next() == hours
    assert hours.size == 30
    last = tally.last_hours("a", 2)
    assert keys((hours | last) & hours) == [*keys(hours), *keys(last)]


def test_the_clock_is_put_forward() -> None:
    noon = datetime(2026, 3, 29, 12)  # at 2:00, it was put to 3:00
    hours = keys(berlin.last_hours("a", 24, noon))
    assert hours[0] == "2026-3-28-12"  # 25 hours of the wall clock, of which one did not occur
    assert hours[-1] == "2026-3-29-12"
    assert len(set(hours) - {"2026-3-29-2"}) == 24
    assert keys(berlin.last_hours("a", 1, datetime(2026, 3, 29, 3, 10))) == ["2026-3-29-3"]
    assert keys(berlin.last_hours("a", 23, datetime(2026, 3, 29, 23))) == ["2026-3-29"]
    # A moment that did not occur, as naive datetimes may be, is marked in its hour.
    assert "2026-3-29-2" in keys(berlin.last_hours("a", 1, datetime(2026, 3, 29, 2, 30)))


def test_the_clock_is_put_back() -> None:
    noon = datetime(2026, 10, 25, 12)  # at 3:00, it was put to 2:00
    hours = keys(berlin.last_hours("a", 24, noon))
    assert (len(hours), hours[0], hours[-1]) == (23, "2026-10-24-14", "2026-10-25-12")
    assert keys(berlin.last_hours("a", 25, datetime(2026, 10, 25, 23))) == ["2026-10-25"]
    first, second = (datetime(2026, 10, 25, 2, 30, fold=fold) for fold in (0, 1))
    assert keys(berlin.last_hours("a", 2, first)) == ["2026-10-25-1", "2026-10-25-2"]
    assert keys(berlin.last_hours("a", 2, second)) == ["2026-10-25-2"]
    aware = datetime(2026, 10, 25, 1, 30, tzinfo=timezone.utc)  # the second one
    assert berlin.last_hours("a", 2, aware) == berlin.last_hours("a", 2, second)


ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "Asia/Kathmandu",
    "Africa/Casablanca",
]


@settings(max_examples=400)
@given(
    zone=st.sampled_from(ZONES),
    instant=st.datetimes(datetime(2024, 1, 1), datetime(2027, 12, 31)),
    hours=st.one_of(st.integers(1, 60), st.integers(1, 1_000)),
)
@example("Antarctica/Troll", datetime(2026, 10, 25, 2, 30), 1)
@example("Antarctica/Troll", datetime(2026, 10, 25, 2, 30), 2)
@example("Antarctica/Troll", datetime(2026, 10, 25, 1, 30), 3)
@example("Antarctica/Troll", datetime(2026, 10, 25, 6, 30), 7)
@example("Antarctica/Casey", datetime(2018, 3, 10, 18), 3)  # put back by three hours
@example("Antarctica/Casey", datetime(2018, 3, 10, 18, 30), 4)
@example("Antarctica/Casey", datetime(2018, 3, 10, 19, 30), 5)
@example("Australia/Lord_Howe", datetime(2026, 4, 4, 15, 10), 2)
@example("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 40), 2)
def test_they_are_the_hours_of_all_moments(zone: str, instant: datetime, hours: int) -> None:
    tz = ZoneInfo(zone)
    moment = instant.replace(tzinfo=timezone.utc).astimezone(tz)
    found = Builder(timezone=zone).last_hours("a", hours, moment)
    begun = moment.replace(minute=0, second=0, microsecond=0).astimezone(timezone.utc)
    at = begun - (hours - 1) * HOUR
    expected = set()
    while at <= moment:
        local = at.astimezone(tz).replace(tzinfo=None, fold=0)
        expected.add(local.replace(minute=0, second=0, microsecond=0))
        at += timedelta(minutes=10)
    covered = set()
    for bitmap in found.bitmaps():
        assert bitmap.period is not None
        start = bitmap.period.start
        while start < bitmap.period.end:
            covered.add(start)
            start += HOUR
    assert expected <= covered
    surplus = {
        hour
        for hour in covered - expected
        # Hours of the wall clock that did not occur.
        if hour.replace(tzinfo=tz).astimezone(timezone.utc).astimezone(tz).hour == hour.hour
    }
    assert not surplus


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("a", 0), InvalidValueError),
        (("a", -1), InvalidValueError),
        (("a", 2.0), InvalidTypeError),
        (("a", True), InvalidTypeError),
        ((7, 24), InvalidTypeError),
        (("a", 24, "today"), InvalidTypeError),
        (("a", 24, date(1, 1, 1)), InvalidValueError),
        (("a", 1, datetime(9999, 12, 31, 23)), InvalidValueError),
        (("a", 10**30), InvalidValueError),
        (("a", 10**9), InvalidValueError),
    ],
)
def test_bad_input_raises(arguments: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        tally.last_hours(*arguments)
    with pytest.raises(InvalidValueError, match="shifted that far"):
        tally.last_hours("a").shift(10**7)


@ON_SOME_STORES
async def test_users_of_the_last_hours(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, timezone="Europe/Berlin", track_hourly=True) as tally:
        last = datetime(2026, 10, 26, 8, 59, tzinfo=timezone.utc)
        for user in range(60):
            await tally.mark_event("a", user, now=last - user * HOUR)
        for hours in (1, 2, 24, 25, 26, 47, 48, 59):
            event_set = tally.last_hours("a", hours, last)
            found = [user async for user in tally.users(event_set)]
            # The hour that occurs twice is one bitmap: users 31 and 32.
            assert found == list(range(33 if hours == 32 else hours)), hours
        with pytest.raises(InvalidTypeError):
            await tally.delete(tally.last_hours("a", 3, last))
        assert len(await tally.periods("a", Granularity.HOUR)) == 59
