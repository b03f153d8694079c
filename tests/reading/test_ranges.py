"""Ranges on databases where some bitmaps have expired, or were never marked."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tallymark
from tallymark import Granularity, InvalidTypeError, Period, any_of, bitmapist
from tallymark._core.context import Context
from tallymark._core.expiry import Expiry
from tallymark._core.options import Options
from tallymark._core.unions import cover, days_of
from tallymark.bitmapist import DayEvents, MonthEvents

if TYPE_CHECKING:
    from facades import Facade
    from stores import Store

#: The last day that is over. Bitmaps that have expired are left out of marks by the clock.
YESTERDAY = datetime.now(timezone.utc).date() - timedelta(days=1)
DAY = timedelta(days=1)
LAST_YEAR = YESTERDAY.year - 1

EVERY_MARK = (Granularity.MONTH, Granularity.WEEK, Granularity.DAY)


async def mark_each_day(tally: Any, days: int) -> None:
    """Mark another user on each of the last days: user 1 yesterday, user 2 the day before."""
    for number in range(days):
        await tally.mark_event("e", number + 1, now=YESTERDAY - number * DAY)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "short", [["week"], ["month"], ["week", "month"], ["year"], ["week", "month", "year"]]
)
@pytest.mark.parametrize("yearly", [False, True])
async def test_days_that_outlive_what_is_wider(
    facade: Facade, store: Store, short: list[str], yearly: bool
) -> None:
    expire = dict.fromkeys(short, 2 * DAY)
    async with facade.open(store.url, expire=expire, track_yearly=yearly) as tally:
        await mark_each_day(tally, 70)
        last = tally.last("e", moment=YESTERDAY)
        assert await tally.count(last) == 28
        assert [user async for user in tally.users(last)] == list(range(1, 29))
        assert await tally.contains(last, 28)
        assert not await tally.contains(last, 29)
        assert await tally.count(last.prev()) == 28
        assert (await tally.stickiness("e", YESTERDAY)).monthly == 28
        assert await tally.count(tally.between("e", YESTERDAY - 69 * DAY, YESTERDAY + DAY)) == 70
        years = [tally.year("e", date(number, 1, 1)) for number in (LAST_YEAR, YESTERDAY.year)]
        assert await tally.count(any_of(years)) == 70
        assert await tally.count(tally.week("e", YESTERDAY).shift(-2)) == 7
        table = await tally.retention(
            "e", lambda period: tally.during("e", period), by="week", cohorts=3, periods=0
        )
        # The last week that is over may be the one of yesterday.
        assert table.sizes == (7, 7, 7)
        history = await tally.history(28, "e", YESTERDAY - 40 * DAY, granularity="week")
        assert len(history["e"]) == 1


async def test_weeks_that_outlive_their_days(facade: Facade, store: Store) -> None:
    monday = date(2025, 6, 2)
    async with facade.open(store.url, expire={"day": 3 * DAY}) as tally:
        for number in range(28):
            await tally.mark_event("e", number, now=monday + number * DAY)
        assert await tally.count(tally.last("e", moment=monday + 27 * DAY)) == 28
        # Of the weeks at the edges, some days are outside, and nobody can tell which were marked.
        assert await tally.count(tally.between("e", monday + DAY, monday + 27 * DAY)) == 14


async def test_years_of_a_database_that_had_none(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as before:
        for number in range(120):
            await before.mark_event("e", number, now=date(LAST_YEAR, 1, 1) + 3 * number * DAY)
    async with facade.open(store.url, track_yearly=True) as tally:
        await tally.mark_event("e", 500, now=date(LAST_YEAR, 12, 31))
        year = tally.year("e", date(LAST_YEAR, 6, 1))
        assert await tally.count(year) == 121
        begin, end = date(LAST_YEAR, 1, 1), date(LAST_YEAR + 1, 1, 1)
        assert await tally.count(tally.between("e", begin, end)) == 121
        assert await tally.count(tally.between("e", begin - 9 * DAY, end + 9 * DAY)) == 121
        assert await tally.contains(year, 7)
        history = await tally.history(7, "e", begin - 400 * DAY, end, "year")
        assert [str(period) for period in history["e"]] == [str(LAST_YEAR)]
        table = await tally.retention("e", "e", by="year", cohorts=1, periods=0, until=end)
        assert table.sizes == (121,)


async def test_a_year_that_outlives_its_months(facade: Facade, store: Store) -> None:
    short = dict.fromkeys(["day", "week", "month"], DAY)
    async with facade.open(store.url, expire=short, track_yearly=True) as tally:
        begin, end = date(LAST_YEAR, 1, 1), date(LAST_YEAR + 1, 1, 1)
        assert str(await tally.mark_event("e", 7, now=begin)) == "year"
        for asked in (
            tally.year("e", begin),
            tally.between("e", begin, end),
            tally.between("e", begin - 9 * DAY, end + 9 * DAY),
        ):
            assert await tally.contains(asked, 7)
        assert await tally.is_empty(tally.between("e", begin, end - DAY))  # nobody can tell


async def test_hours_that_outlive_their_days(facade: Facade, store: Store) -> None:
    short = dict.fromkeys(["day", "week", "month"], DAY)
    noon = datetime(LAST_YEAR, 6, 1, 12)
    async with facade.open(store.url, expire=short, track_hourly=True) as tally:
        assert str(await tally.mark_event("e", 7, now=noon)) == "hour"
        for asked in (tally.day("e", noon), tally.week("e", noon), tally.last("e", 3, noon)):
            assert await tally.contains(asked, 7)


async def test_hours_that_were_marked_with_the_switch(
    facade: Facade, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    noon = datetime(LAST_YEAR, 6, 1, 12)
    async with facade.open(store.url, expire={"day": DAY, "week": DAY, "month": DAY}) as tally:
        assert await tally.is_empty(tally.day("e", noon))
        monkeypatch.setattr(tallymark, "TRACK_HOURLY", True)  # which a tally sees that is open
        assert str(await tally.mark_event("e", 7, now=noon)) == "hour"
        for asked in (tally.day("e", noon), tally.week("e", noon), tally.last("e", 3, noon)):
            assert await tally.contains(asked, 7)
            assert await tally.count(asked) == 1
        table = await tally.retention(
            "e", "e", by="day", cohorts=1, periods=0, first_time=True, until=noon + DAY
        )
        assert table.sizes == (1,)
    async with facade.open(store.url, expire={"day": DAY}, track_hourly=False) as tally:
        assert await tally.is_empty(tally.day("e", noon))  # the option goes before the switch


@pytest.mark.parametrize(
    ("options", "bitmaps"),
    [
        ({}, 1),
        ({"expire": {"hour": DAY}}, 1),
        ({"expire": {"hour": DAY, "day": DAY}}, 1),
        ({"expire": {"week": DAY, "month": DAY}}, 1),
        ({"expire": {"day": DAY}}, 1),
        ({"expire": {"hour": DAY, "day": DAY}, "track_hourly": True}, 1),
        ({"expire": {"hour": 2 * DAY, "day": DAY}, "track_hourly": True}, 25),
        ({"expire": {"day": DAY}, "track_hourly": True}, 25),
        ({"expire": {"day": DAY}, "track_hourly": False}, 1),
    ],
)
def test_hours_are_asked_only_where_they_outlive_days(options: Any, bitmaps: int) -> None:
    context = Context.of("db", Options(**options), lambda: 0.0)
    day = Period.containing(Granularity.DAY, datetime(2026, 6, 10))
    assert len(list(context.during("e", day).bitmaps())) == bitmaps


async def test_years_that_live_as_long_as_all_others(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as before:  # which marks no years
        for number in range(100):
            await before.mark_event("e", number, now=date(LAST_YEAR, 1, 1) + 3 * number * DAY)
    same = dict.fromkeys(["day", "week", "month", "year"], 1000 * DAY)
    for expire in (same, {by: life for by, life in same.items() if by != "year"}):
        async with facade.open(store.url, expire=expire, track_yearly=True) as tally:
            begin, end = date(LAST_YEAR, 1, 1), date(LAST_YEAR + 1, 1, 1)
            assert await tally.count(tally.year("e", begin)) == 100
            assert await tally.count(tally.between("e", begin, end)) == 100


async def test_months_that_live_for_years_and_days_for_ever(facade: Facade, store: Store) -> None:
    first = date(LAST_YEAR - 8, 5, 1)
    async with facade.open(store.url, expire={"month": 2000 * DAY, "week": 2000 * DAY}) as tally:
        assert str(await tally.mark_event("e", 7, now=first)) == "day"
        assert await tally.count(tally.between("e", first, first + 31 * DAY)) == 1
        assert await tally.count(tally.between("e", first - 7 * DAY, first + 60 * DAY)) == 1


#: How long bitmaps live; some never expire.
lives = st.none() | st.integers(1, 30 * 24).map(lambda hours: timedelta(hours=hours))


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "Pacific/Apia"])
@given(
    first=st.dates(date(2011, 11, 1), date(2012, 5, 1)),
    days=st.integers(1, 70),
    month=lives,
    week=lives,
    day=lives,
)
# A week whose Sunday is an hour shorter: Saturday's bitmap is the last one for an hour.
@example(date(2012, 3, 19), 7, DAY, 5 * DAY, 6 * DAY)
# A week whose Friday there was not: Thursday's is the last one for half a day.
@example(date(2011, 12, 26), 7, DAY, 5 * DAY, 7.5 * DAY)
def test_what_covers_a_day_is_there_as_long_as_any_other(
    name: str,
    first: date,
    days: int,
    month: timedelta | None,
    week: timedelta | None,
    day: timedelta | None,
) -> None:
    """Whenever it is asked: some bitmap that has all users of the day outlives all others."""
    expire: Any = {"month": month, "week": week, "day": day}
    expire = {by: life for by, life in expire.items() if life is not None}
    options = Options(expire=expire, timezone=name, track_hourly=False)
    context = Context.of("db", options, lambda: 0.0)
    ends = Expiry(options).time
    begin, after = first.toordinal(), first.toordinal() + days
    asked = list(cover(begin, after, context.coverage))
    assert len(set(asked)) == len(asked)
    for number in range(begin, after):
        midnight = datetime.fromordinal(number)
        every = [Period.containing(each, midnight) for each in EVERY_MARK]
        inside = [each for each in every if begin <= days_of(each)[0] and days_of(each)[1] <= after]
        assert max(map(ends, set(inside) & set(asked))) == max(map(ends, inside))


async def test_first_time_looks_back_on_whatever_there_is(facade: Facade, store: Store) -> None:
    """Months tell when there was anything, unless they have expired."""
    async with facade.open(store.url, expire={"month": 2 * DAY}) as tally:
        await tally.mark_event("e", 7, now=YESTERDAY - 400 * DAY)
        for user_id in (7, 8):
            await tally.mark_event("e", user_id, now=YESTERDAY)

        def named(period: Period) -> Any:
            return tally.during("e", period)

        for cohort in ("e", named):
            table = await tally.retention(
                cohort, "e", by="day", cohorts=1, periods=0, first_time=True, until=YESTERDAY + DAY
            )
            assert table.sizes == (1,)


async def test_what_is_deleted_is_the_periods_own_bitmap(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, expire={"week": 900 * DAY}, track_yearly=True) as tally:
        await tally.mark_event("e", 7, now=YESTERDAY)
        names = store.names()
        year, week = tally.year("e", YESTERDAY), tally.week("e", YESTERDAY)
        assert await tally.delete(year | week) == 2
        assert len(store.names()) == len(names) - 2
        assert await tally.delete(year) == 0
        # The months and the days are left, and tell it still.
        assert await tally.counts([year, week]) == [1, 1]
        with pytest.raises(InvalidTypeError, match="what is deleted are bitmaps"):
            await tally.delete(year | tally.last("e"))
    async with facade.open(store.url) as tally:
        with pytest.raises(InvalidTypeError, match="what is deleted are bitmaps"):
            await tally.delete(tally.year("e", YESTERDAY))


async def test_an_unmark_that_is_not_exact(facade: Facade, store: Store) -> None:
    """It takes the user out of the whole week and month, as docs/how-to/delete-old-data.md says."""
    tuesday = date(2026, 11, 24)
    async with facade.open(store.url) as tally:
        for day in (tuesday - DAY, tuesday):
            await tally.mark_event("e", 7, now=day)
        await tally.unmark_event("e", 7, now=tuesday)
        whole = tally.between("e", tuesday - DAY, tuesday + 6 * DAY)
        part = tally.between("e", tuesday - DAY, tuesday + 5 * DAY)
        assert await tally.counts([whole, part]) == [0, 1]


@pytest.mark.usefixtures("systems")
def test_everybody_else_of_bitmapist_when_months_have_expired(plain_store: Store) -> None:
    plain_store.raw.setbit("trackist_e_2026-11", 1, 1)
    plain_store.raw.setbit("trackist_e_2026-11-2", 1, 1)
    plain_store.raw.setbit("trackist_e_2026-10-2", 2, 1)  # without its month
    plain_store.raw.setbit("trackist_e_W2026-40", 3, 1)  # which lies in two months
    plain_store.raw.setbit("trackist_e_2025", 4, 1)
    assert list(~DayEvents("e", 2026, 11, 2)) == [2, 3, 4]
    assert list(~MonthEvents("e", 2026, 10)) == [1, 2, 3, 4]
    assert bitmapist.SYSTEMS["default"] is plain_store.raw
