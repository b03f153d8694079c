"""Ranges on databases where some bitmaps have expired, or were never marked."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from tallymark import InvalidTypeError, Period, any_of, bitmapist
from tallymark.bitmapist import DayEvents, MonthEvents

if TYPE_CHECKING:
    from facades import Facade
    from stores import Store

#: The last day that is over. Bitmaps that have expired are left out of marks by the clock.
YESTERDAY = datetime.now(timezone.utc).date() - timedelta(days=1)
DAY = timedelta(days=1)
LAST_YEAR = YESTERDAY.year - 1


async def mark_each_day(tally: Any, days: int) -> None:
    """Mark another user on each of the last days: user 1 yesterday, user 2 the day before."""
    for number in range(days):
        await tally.mark_event("e", number + 1, now=YESTERDAY - number * DAY)


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
    """It takes the user out of the whole week and month, as docs/operations.md says."""
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
