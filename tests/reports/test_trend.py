"""Trends: counts, rolling actives and stickiness over time, against pandas and sets of users."""

from __future__ import annotations

import copy
import functools
import itertools
import pickle
import random
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facades import ON_SOME_STORES, ON_SOME_STORES_WITH_ALGEBRAS
from servers import running_server
from tallymark import (
    InvalidTypeError,
    InvalidValueError,
    Period,
    SyncTally,
    Trend,
    TrendPoint,
)
from tallymark._core.periods import Granularity
from tallymark._reading import bits, raw_keys, sweep
from tallymark._reports.trend_counts import SlidingUnion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from facades import Facade
    from stores import Store

#: The week of 2020-12-28 is the 53rd; the clock of Berlin is set forward on 2021-03-28.
ZONE = "Europe/Berlin"
FIRST = date(2020, 12, 1)
DAYS = 130
UNTIL = datetime(2021, 4, 7, 15)
SPREAD = 2000
IOS = frozenset([*range(0, 200, 3), *range(200, SPREAD, 41)])
SUNDAY = date(2023, 1, 1)


def events() -> Any:
    """Return who did what on which day. On some days, the bitmaps are much shorter."""
    chance = random.Random(7)
    rows = []
    for distance in range(DAYS):
        day = FIRST + timedelta(days=distance)
        spread = SPREAD if distance % 3 else 200
        for event, number in (("active", 40), ("buy", 5)):
            if distance % 11:  # on other days, there is no bitmap
                rows += [(event, day, user) for user in chance.sample(range(spread), number)]
    return pd.DataFrame(rows, columns=["event", "day", "user"])


EVENTS = events()


def by_day() -> Iterator[tuple[str, date, list[int]]]:
    for (event, day), rows in EVENTS.groupby(["event", "day"]):
        yield event, day, rows["user"].tolist()


async def fill(tally: Any) -> None:
    for event, day, users in by_day():
        await tally.mark_many(event, users, now=day)
        if day.day % 10 == 1:
            mistaken = [user for user in range(1900, 2000) if user not in set(users)]
            await tally.mark_many(event, mistaken, now=day)
            await tally.unmark_many(event, mistaken, now=day, exact=True)
    async with tally.transaction() as transaction:
        for user in IOS:
            transaction.mark_unique("ios", user)


BEGINS: dict[str, Callable[[date], date]] = {
    "day": lambda day: day,
    "week": lambda day: day - timedelta(days=day.weekday()),
    "month": lambda day: day.replace(day=1),
    "year": lambda day: day.replace(month=1, day=1),
}


def begin_of_span(days: int, anchor: date) -> Callable[[date], date]:
    return lambda day: day - timedelta(days=(day - anchor).days % days)


def expected(
    begin_of: Callable[[date], date], periods: int, rolling: int | None, marks: Any
) -> list[tuple[date, int, int | None, float | None]]:
    """Return the points as pandas computes them: first day, count, rolling, stickiness.

    Arguments:
        begin_of: returns the first day of the period of a day.
        periods, rolling: as for `trend`.
        marks: a frame with a row for each day and user.
    """
    begins = [begin_of(UNTIL.date())]
    while len(begins) <= periods:
        begins.append(begin_of(begins[-1] - timedelta(days=1)))
    begins.reverse()
    counts = marks.assign(begin=marks["day"].map(begin_of)).groupby("begin")["user"].nunique()
    points: list[tuple[date, int, int | None, float | None]] = []
    for begin, after in itertools.pairwise(begins):
        count = int(counts.get(begin, 0))
        if rolling is None:
            points.append((begin, count, None, None))
            continue
        inside = (marks["day"] >= after - timedelta(days=rolling)) & (marks["day"] < after)
        users = marks[inside]["user"].nunique()
        share = count / users if users and (after - begin).days <= rolling else None
        points.append((begin, count, users, share))
    return points


def numbers(points: tuple[TrendPoint, ...]) -> list[tuple[date, int, int | None, float | None]]:
    return [
        (point.period.start.date(), point.count, point.rolling, point.stickiness)
        for point in points
    ]


def series_of(tally: Any) -> dict[str, Any]:
    """Return the selectors of some series."""
    return {
        "active": "active",
        "ios": lambda period: tally.during("active", period) & tally.unique("ios"),
        "others": lambda period: tally.during("active", period) - tally.unique("ios"),
        "bought": "buy",
        "nobody": "nobody",
    }


def marks_of_series() -> dict[str, Any]:
    """Return the marks of each of these series."""
    active = EVENTS[EVENTS["event"] == "active"]
    on_ios = active["user"].isin(IOS)
    return {
        "active": active,
        "ios": active[on_ios],
        "others": active[~on_ios],
        "bought": EVENTS[EVENTS["event"] == "buy"],
        "nobody": active[:0],
    }


MARKS = marks_of_series()
CASES: list[dict[str, Any]] = [
    {"by": "day", "periods": 90, "rolling": 28},
    {"by": "day", "periods": 5, "rolling": 1},
    {"by": "day", "periods": 30, "rolling": 7},
    {"by": "day", "periods": 1, "rolling": 60},
    {"by": "day", "periods": 140, "rolling": None},
    {"by": "week", "periods": 16, "rolling": 28},
    {"by": "week", "periods": 16, "rolling": 3},
    {"by": "month", "periods": 4, "rolling": 28},
    {"by": "month", "periods": 4, "rolling": 100},
    {"by": "year", "periods": 1, "rolling": 14},
    {"by": timedelta(days=7), "anchor": SUNDAY, "periods": 12, "rolling": 28},
    {"by": timedelta(days=1), "anchor": SUNDAY, "periods": 12, "rolling": 2},
    {"by": timedelta(days=10), "anchor": SUNDAY, "periods": 9, "rolling": 9},
]


def begin_of_case(case: dict[str, Any]) -> Callable[[date], date]:
    by = case["by"]
    return BEGINS[by] if isinstance(by, str) else begin_of_span(by.days, case["anchor"])


@functools.cache
def expected_of(number: int, series: str) -> list[tuple[date, int, int | None, float | None]]:
    """Return the points of a case as pandas computes them, once for all stores."""
    case = CASES[number]
    return expected(begin_of_case(case), case["periods"], case["rolling"], MARKS[series])


def reckon_with(algebra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reckon with numpy, or with Python's ints."""
    made: Any = bits.Arrays(np) if algebra == "numpy" else bits.Ints()
    for module in (
        "_reading.expressions",
        "_reading.sweep",
        "_reports.trend_counts",
        "_async.executor",
    ):
        monkeypatch.setattr(f"tallymark.{module}.algebra", lambda: made)


@pytest.mark.exhaustive
@ON_SOME_STORES_WITH_ALGEBRAS
async def test_all_numbers_agree_with_pandas(
    facade: Facade, store: Store, algebra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reckon_with(algebra, monkeypatch)
    async with facade.open(store.url, timezone=ZONE) as tally:
        await fill(tally)
        before = store.names()
        series = series_of(tally)
        for number, case in enumerate(CASES):
            trend = await tally.trend(series, until=UNTIL, **case)
            assert list(trend.series) == list(series)
            for name, points in trend.series.items():
                assert numbers(points) == expected_of(number, name), (case, name)
            # In windows of 200 bytes, with a request for seven bitmaps: the same. The other
            # stores take long for so many requests.
            if number % 3 and not store.url.startswith("redis://"):
                continue
            with monkeypatch.context() as tiny:
                for limit in ("_ALL_WINDOWS", "_MIN_WINDOW", "_MAX_WINDOW"):
                    tiny.setattr(sweep, limit, 200)
                tiny.setattr(sweep, "_MAX_FETCH", 7 * 200)
                assert await tally.trend(series, until=UNTIL, **case) == trend
        assert store.names() == before


async def test_in_shards(facade: Facade, redis_store: Store) -> None:
    async with facade.open(redis_store.url, shards=16, timezone=ZONE) as tally:
        await fill(tally)
        series = series_of(tally)
        trend = await tally.trend(series, until=UNTIL, periods=20)
        for name, points in trend.series.items():
            assert numbers(points) == expected(BEGINS["day"], 20, 28, MARKS[name])


async def test_on_a_replica(facade: Facade, redis_store: Store) -> None:
    """A replica refuses commands that write, so it is asked no such command."""
    with running_server() as replica:
        async with facade.open(replica, timezone=ZONE) as filling:
            await fill(filling)
        async with facade.open(redis_store.url, read_from=replica, timezone=ZONE) as tally:
            series = series_of(tally)
            trend = await tally.trend(series, until=UNTIL, periods=20)
            for name, points in trend.series.items():
                assert numbers(points) == expected(BEGINS["day"], 20, 28, MARKS[name])
        assert redis_store.names() == set()


async def test_mapped_ids(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, user_ids=str) as tally:
        await tally.mark_many("active", ["ann", "ben"], now=date(2025, 3, 1))
        await tally.mark_many("active", ["ben", "cleo"], now=date(2025, 3, 2))
        trend = await tally.trend("active", periods=2, rolling=2, until=date(2025, 3, 3))
        assert [(point.count, point.rolling) for point in trend.points] == [(2, 2), (2, 3)]
        point: Any = trend.points[1]
        assert {user async for user in tally.users(point.users)} == {"ben", "cleo"}
        assert {user async for user in tally.users(point.rolling_users)} == {"ann", "ben", "cleo"}


@ON_SOME_STORES
async def test_the_users_behind_each_number(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, timezone=ZONE) as tally:
        await fill(tally)
        series = series_of(tally)
        del series["bought"], series["others"]
        case: Any
        for case in (
            {"by": "day", "periods": 6},
            {"by": "week", "periods": 5, "rolling": 30},
            {"by": timedelta(days=5), "anchor": SUNDAY, "periods": 4, "rolling": 3},
            {"by": "month", "periods": 2, "rolling": None},
        ):
            trend = await tally.trend(series, until=UNTIL, **case)
            points: list[Any] = [point for of_one in trend.series.values() for point in of_one]
            assert await tally.counts([point.users for point in points]) == [
                point.count for point in points
            ]
            if trend.rolling is None:
                assert all(point.rolling_users is None for point in points)
            else:
                rolling = [point.rolling_users for point in points]
                assert await tally.counts(rolling) == [point.rolling for point in points]
            copied = pickle.loads(pickle.dumps(trend))
            assert copied == copy.deepcopy(trend) == trend
            assert hash(copied) == hash(trend)
            assert copied.points[0].users == trend.points[0].users


@ON_SOME_STORES
async def test_rolling_actives_are_those_of_last(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, timezone=ZONE) as tally:
        await fill(tally)
        trend = await tally.trend("active", until=UNTIL, periods=10)
        days = [point.period.start for point in trend.points]
        lasts = [tally.last("active", 28, day) for day in days]
        assert [point.rolling for point in trend.points] == await tally.counts(lasts)
        daily = [tally.day("active", day) for day in days]
        assert [point.count for point in trend.points] == await tally.counts(daily)


async def test_an_unmark_that_is_not_exact_leaves_the_other_days(
    facade: Facade, store: Store
) -> None:
    """Rolling actives are read from days, `last` from the whole weeks inside its 28 days."""
    async with facade.open(store.url) as tally:
        for day in (3, 4):
            await tally.mark_event("active", 7, now=date(2025, 3, day))
        await tally.unmark_event("active", 7, now=date(2025, 3, 4))
        trend = await tally.trend("active", periods=1, until=date(2025, 3, 10))
        point: Any = trend.points[0]
        assert (point.count, point.rolling) == (0, 1)
        assert await tally.count(tally.last("active", 28, date(2025, 3, 9))) == 0
        assert await tally.count(point.rolling_users) == 1
        weekly = await tally.trend("active", by="week", periods=1, until=date(2025, 3, 10))
        assert [(point.count, point.rolling) for point in weekly.points] == [(0, 1)]


async def test_hours_around_a_change_of_the_clock(facade: Facade, store: Store) -> None:
    """The hour from 2 to 3 is skipped in March, and occurs twice in October."""
    utc = timezone.utc
    async with facade.open(store.url, timezone=ZONE, track_hourly=True) as tally:
        for change in (datetime(2025, 3, 30, 1, tzinfo=utc), datetime(2025, 10, 26, 1, tzinfo=utc)):
            for offset in (-90, -30, 30, 90):
                moment = change + timedelta(minutes=offset)
                await tally.mark_event("active", offset + 100, now=moment)
            trend = await tally.trend(
                "active", by="hour", periods=4, rolling=None, until=change + timedelta(hours=2)
            )
            counts = {str(point.period)[-2:]: point.count for point in trend.points}
            if change.month == 3:
                assert [counts[hour] for hour in ("01", "02", "03")] == [1, 0, 1]
            else:
                assert [counts[hour] for hour in ("01", "02")] == [1, 2]


async def test_only_periods_that_are_over(facade: Facade, store: Store) -> None:
    now = datetime.now(timezone.utc)
    async with facade.open(store.url) as tally:
        future = await tally.trend("a", until=now + timedelta(days=9), periods=2)
        default = await tally.trend("a", periods=2)
        assert now.replace(tzinfo=None) <= future.until <= default.until
        assert future.points[-1].period.end <= future.until
        assert len(default.points) == 2
        midnight = await tally.trend("a", until=date(2025, 4, 2), periods=1)
        assert str(midnight.points[0].period) == "2025-04-01"
        weekly = await tally.trend("a", by="week", until=date(2021, 1, 4), periods=2)
        assert [str(point.period) for point in weekly.points] == ["2020-W52", "2020-W53"]


async def test_each_bitmap_is_fetched_once(
    facade: Facade, redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that all series and all days use."""
    fetched: list[bytes] = []
    original = raw_keys.getrange_commands

    def watched(keys: Any, start: int, size: int) -> Any:
        keys = list(keys)
        fetched.extend(keys)
        return original(iter(keys), start, size)

    monkeypatch.setattr(sweep, "getrange_commands", watched)
    monkeypatch.setattr(sweep, "_MAX_FETCH", 64)
    async with facade.open(redis_store.url) as tally:
        await fill(tally)
        series = series_of(tally)
        await tally.trend(series, until=UNTIL, by="week", periods=8)
        # For "active", "buy" and "nobody" the days and weeks, and the flag.
        assert len(fetched) == len(set(fetched)) == 3 * (7 * 8 + 21 + 8) + 1


async def test_a_function_is_called_once_for_each_period_and_day(
    facade: Facade, plain_store: Store
) -> None:
    async with facade.open(plain_store.url) as tally:
        called: list[Period] = []

        def active(period: Period) -> Any:
            called.append(period)
            return tally.during("active", period)

        options: Any
        for options, number in (
            ({"by": "day", "periods": 10, "rolling": 28}, 37),
            ({"by": "week", "periods": 2, "rolling": 28}, 2 + 35),
            ({"by": "month", "periods": 3, "rolling": 7}, 3 + 21),
            ({"by": "month", "periods": 3, "rolling": None}, 3),
        ):
            called.clear()
            trend = await tally.trend(active, until=UNTIL, **options)
            assert list(trend.series) == ["active"]
            assert len(called) == len(set(called)) == number


async def test_far_users_and_empty_space(facade: Facade, redis_store: Store) -> None:
    far = 300_000_000
    async with facade.open(redis_store.url) as tally:
        await tally.mark_many("active", [5, far], now=date(2025, 3, 31))
        await tally.mark_many("active", [6, far], now=date(2025, 4, 1))
        before = redis_store.raw.info("stats")["total_net_output_bytes"]
        trend = await tally.trend("active", periods=2, rolling=2, until=date(2025, 4, 2))
        sent = redis_store.raw.info("stats")["total_net_output_bytes"] - before
        assert [(point.count, point.rolling) for point in trend.points] == [(2, 2), (2, 3)]
        assert sent < 10_000_000  # the bitmaps have 37 MB each


async def test_series_and_rows(facade: Facade, plain_store: Store) -> None:
    async with facade.open(plain_store.url) as tally:
        await tally.mark_many("active", [1, 2], now=date(2025, 1, 1))
        await tally.mark_many("buy", [2], now=date(2025, 1, 2))
        trend = await tally.trend(["active", "buy"], periods=2, rolling=2, until=date(2025, 1, 3))
        assert trend == Trend(
            series=trend.series, unit="day", rolling=2, until=datetime(2025, 1, 3)
        )
        frame = trend.to_pandas()
        assert frame["rolling"].tolist() == [2, 2, 0, 1]
        assert trend.to_csv().splitlines()[:2] == [
            "series,period,count,rolling,stickiness",
            "active,2025-01-01,2,2,1.0",
        ]
        assert trend.points == trend.series["active"]
        assert trend.to_rows() == [
            {
                "series": name,
                "period": day,
                "count": count,
                "rolling": rolling,
                "stickiness": stickiness,
            }
            for name, day, count, rolling, stickiness in (
                ("active", "2025-01-01", 2, 2, 1.0),
                ("active", "2025-01-02", 0, 2, 0.0),
                ("buy", "2025-01-01", 0, 0, None),
                ("buy", "2025-01-02", 1, 1, 1.0),
            )
        ]
        made = TrendPoint(Period(Granularity.DAY, datetime(2025, 1, 1)), 2, 2, 1.0)
        assert trend.points[0] == made
        with pytest.raises(InvalidValueError, match="no report"):
            made.users  # noqa: B018
        with pytest.raises(InvalidValueError, match="no report"):
            made.rolling_users  # noqa: B018


async def test_charts_and_unknown_events(facade: Facade, plain_store: Store) -> None:
    async with facade.open(plain_store.url) as tally:
        await tally.mark_many("active", [1, 2], now=date(2025, 1, 1))
        await tally.mark_many("old", [1], now=date(2024, 1, 1))
        await tally.mark_unique("ios", 1)
        options: dict[str, Any] = {"periods": 3, "rolling": 2, "until": date(2025, 1, 4)}
        trend = await tally.trend(
            {
                "active": "active",
                "old": "old",
                "ios": lambda period: tally.during("active", period) & tally.unique("isos"),
            },
            labels={"active": "Active <all>", "ios": "On iOS"},
            **options,
        )
        assert trend.unknown_events == ("isos",)
        assert trend.label("ios") == "On iOS"
        page = trend.to_html()
        assert "Active &lt;all&gt;" in page
        assert "On iOS" in page
        assert "isos" in page
        assert page.count("<figure") == 3
        counted = await tally.trend("active", rolling=None, periods=3, until=date(2025, 1, 4))
        assert counted.unknown_events == ()
        assert counted.to_html(fragment=True).count("<figure") == 1
        empty = await tally.trend("actve", **options)
        assert empty.unknown_events == ("actve",)
        assert [(point.count, point.rolling, point.stickiness) for point in empty.points] == [
            (0, 0, None)
        ] * 3


def bad_arguments() -> Iterator[tuple[Any, dict[str, Any], type[Exception], str]]:
    yield 7, {}, InvalidTypeError, "what"
    yield "", {}, InvalidValueError, "event"
    yield [], {}, InvalidValueError, "series"
    yield {}, {}, InvalidValueError, "series"
    yield ["a", 3], {}, InvalidTypeError, "event"
    yield ["a", "a"], {}, InvalidValueError, "different names"
    yield {3: "a"}, {}, InvalidTypeError, "name"
    yield {"": "a"}, {}, InvalidValueError, "name"
    yield {"x": None}, {}, InvalidTypeError, "event"
    yield lambda _: None, {}, InvalidTypeError, "event set"
    yield "a", {"periods": 0}, InvalidValueError, "periods"
    yield "a", {"periods": 1 << 40}, InvalidValueError, "points"
    yield "a", {"periods": None}, InvalidTypeError, "periods"
    yield "a", {"rolling": 0}, InvalidValueError, "rolling"
    yield "a", {"rolling": 1.5}, InvalidTypeError, "rolling"
    yield "a", {"rolling": 1 << 40}, InvalidValueError, "rolling"
    yield "a", {"by": "hour"}, InvalidValueError, "rolling=None"
    yield "a", {"by": "fortnight"}, InvalidValueError, "granularity"
    yield "a", {"by": timedelta(days=7)}, InvalidTypeError, "anchor"
    yield "a", {"labels": ["a"]}, InvalidTypeError, "labels"
    yield "a", {"anchor": SUNDAY}, InvalidValueError, "anchor"
    yield "a", {"until": "now"}, InvalidTypeError, "until"
    yield "a", {"until": date(1, 1, 20), "periods": 3}, InvalidValueError, "year 1"
    yield "a", {"until": date(1, 1, 2), "periods": 3}, InvalidValueError, "1 to 9999"
    yield "a", {"by": "week", "periods": 9999}, InvalidValueError, "days of rolling"


@pytest.mark.parametrize(("what", "options", "error", "text"), list(bad_arguments()))
async def test_bad_arguments_are_named(
    facade: Facade, what: Any, options: Any, error: type[Exception], text: str
) -> None:
    # Nothing is sent: there is no server.
    async with facade.open("redis://localhost:1") as tally:
        with pytest.raises(error, match=text):
            await tally.trend(what, **options)


async def test_another_database_is_refused(facade: Facade) -> None:
    url = "redis://localhost:1"
    async with facade.open(url) as tally, facade.open(url, prefix="other_") as other:
        with pytest.raises(InvalidValueError, match="another prefix"):
            await tally.trend(lambda period: other.during("a", period))


@pytest.mark.parametrize("algebra", [bits.Ints, None])
def test_any_marks_agree_with_sets(
    algebra: Any, memory_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if algebra is not None:
        made = algebra()
        for module in ("_reading.sweep", "_reading.expressions", "_reports.trend_counts"):
            monkeypatch.setattr(f"tallymark.{module}.algebra", lambda: made)
    for limit in ("_ALL_WINDOWS", "_MIN_WINDOW", "_MAX_WINDOW", "_MAX_FETCH"):
        monkeypatch.setattr(sweep, limit, 8)
    first = date(2020, 12, 21)
    # Users on each of 40 days, which lie in two years, and those unmarked later on the same day.
    ids = st.sampled_from([0, 1, 7, 8, 63, 64, 500, 2000])
    of_day = st.tuples(st.sets(ids, max_size=5), st.sets(ids, max_size=2))
    whole_days = st.dictionaries(st.integers(0, 39), of_day, max_size=12)

    @settings(deadline=None, max_examples=60)
    @given(
        whole_days,
        st.sampled_from(["day", "week", "month"]) | st.integers(1, 12),
        st.integers(1, 6),
        st.integers(1, 30),
        st.integers(0, 45),
        st.booleans(),
    )
    def check(
        marked: dict[int, tuple[set[int], set[int]]],
        by: Any,
        periods: int,
        rolling: int,
        last: int,
        only_low: bool,
    ) -> None:
        memory_store.raw.flushdb()
        until = first + timedelta(days=last)
        model: dict[date, set[int]] = {}
        with SyncTally.from_url(memory_store.url) as tally:
            for user in range(10):
                tally.mark_unique("low", user)
            for distance, (users, removed) in marked.items():
                day = first + timedelta(days=distance)
                tally.mark_many("a", users, now=day)
                tally.unmark_many("a", removed, now=day, exact=True)
                model[day] = users - removed
                if only_low:
                    model[day] = {user for user in model[day] if user < 10}

            def low(period: Period) -> Any:
                return tally.during("a", period) & tally.unique("low")

            options: Any = {"by": by}
            begin_of = BEGINS.get(by)
            if begin_of is None:
                options = {"by": timedelta(days=by), "anchor": SUNDAY}
                begin_of = begin_of_span(by, SUNDAY)
            trend = tally.trend(
                low if only_low else "a", periods=periods, rolling=rolling, until=until, **options
            )
        after = begin_of(until)
        for point in reversed(trend.points):
            begin = begin_of(after - timedelta(days=1))
            assert point.period.start.date() == begin

            def between(start: date, end: date) -> set[int]:
                return set().union(*(model[day] for day in model if start <= day < end))

            assert point.count == len(between(begin, after))
            assert point.rolling == len(between(after - timedelta(days=rolling), after))
            after = begin

    check()


class Counted:
    """An algebra of sets of users, as lists of one set, that counts unions and reuses lists."""

    def __init__(self) -> None:
        self.unions = 0

    def union(self, one: list[Any], other: list[Any], unused: list[Any] | None = None) -> list[Any]:
        self.unions += 1
        result = [] if unused is None else unused
        result[:] = [one[0] | other[0]]
        return result


@given(st.lists(st.tuples(st.integers(0, 4), st.frozensets(st.integers(0, 9)))))
def test_a_sliding_union_is_that_of_the_sets_in_the_queue(
    turns: list[tuple[int, frozenset[int]]],
) -> None:
    algebra: Any = Counted()
    window, queue = SlidingUnion(algebra), list[frozenset[int]]()
    pushed = []
    for dropped, users in turns:
        count = min(dropped, len(queue))
        del queue[:count]
        list(window.drop(count))
        queue.append(users)
        pushed.append(([users], users))
        window.push(pushed[-1][0])
        assert window.union() == [frozenset().union(*queue)]
    # No union was written over a set of the caller's.
    assert all(value == [users] for value, users in pushed)


@pytest.mark.parametrize("length", [1, 2, 28, 365])
def test_a_sliding_union_takes_three_unions_a_day(length: int) -> None:
    algebra: Any = Counted()
    window = SlidingUnion(algebra)
    for day in range(length):
        window.push([frozenset([day])])
    algebra.unions = 0
    for day in range(length, length + 1000):
        list(window.drop(1))
        window.push([frozenset([day])])
        assert window.union() == [frozenset(range(day - length + 1, day + 1))]
    assert algebra.unions <= 3 * 1000 + length
