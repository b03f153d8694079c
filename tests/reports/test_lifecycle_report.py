"""Lifecycle reports against pandas and sets; both facades, all stores."""

from __future__ import annotations

import copy
import pickle
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from day_marks import (
    DAY,
    UNTIL,
    VARIANTS,
    Days,
    check_deadline,
    frame,
    mark,
    plausible,
    programs,
    run,
    tiny_windows,
    users_of,
    with_algebra,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facades import ASYNC, ON_SOME_STORES, ON_SOME_STORES_WITH_ALGEBRAS
from moments import BERLIN
from servers import running_server
from tallymark import (
    Bar,
    InvalidTypeError,
    InvalidValueError,
    Lifecycle,
    LifecycleRow,
    Period,
    any_of,
)
from tallymark._core.calendars import calendar

if TYPE_CHECKING:
    from facades import Facade
    from stores import Store

#: A Sunday.
SUNDAY = date(2021, 1, 3)
#: How to ask for periods, and the frequencies of pandas.
PERIODS: dict[str, tuple[dict[str, Any], str, int]] = {
    "days": ({"by": "day"}, "D", 20),
    "weeks": ({"by": "week"}, "W-SUN", 12),
    "months": ({"by": "month"}, "M", 3),
    "years": ({"by": "year"}, "Y", 1),
    "weeks from Sunday": ({"by": timedelta(days=7), "anchor": SUNDAY}, "W-SAT", 12),
}
Numbers = list[tuple[int, int, int, int]]


def numbers(found: Lifecycle) -> Numbers:
    return [
        (row.new.count, row.returning.count, row.resurrected.count, row.dormant.count)
        for row in found.rows
    ]


def by_pandas(days: Days, frequency: str, count: int) -> Numbers:
    """Return the numbers of the last periods before `UNTIL`, computed from rows."""
    rows = frame(days)
    rows["period"] = rows.day.dt.to_period(frequency)
    this = pd.Timestamp(UNTIL).to_period(frequency)
    active = rows[rows.period < this].drop_duplicates(["user", "period"])[["user", "period"]]
    first = active.groupby("user").period.min().rename("first")
    active = active.join(first, on="user")
    found: Numbers = []
    for period in (this - distance for distance in range(count, 0, -1)):
        now = active[active.period == period]
        before = active[active.period == period - 1]
        back = now.user.isin(before.user)
        new = now["first"] == period
        found.append(
            (
                int(new.sum()),
                int(back.sum()),
                int((~new & ~back).sum()),
                int((~before.user.isin(now.user)).sum()),
            )
        )
    return found


def sets_of(days: Days, periods: list[Period]) -> list[dict[str, set[int]]]:
    """Return the users of each kind in each period, in the words of the documentation."""

    def active(start: datetime | None, end: datetime) -> set[int]:
        return {
            user
            for day, users in days.items()
            for user in users
            if (start is None or start.date() <= day) and day < end.date()
        }

    found = []
    for period in periods:
        now = active(period.start, period.end)
        ever = active(None, period.start)
        before = active(period.shift(-1).start, period.start)
        found.append(
            {
                "new": now - ever,
                "returning": now & before,
                "resurrected": (now & ever) - before,
                "dormant": before - now,
            }
        )
    return found


@ON_SOME_STORES_WITH_ALGEBRAS
async def test_periods_agree_with_pandas(
    facade: Facade, store: Store, algebra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_algebra(monkeypatch, algebra)
    days = plausible()
    async with facade.open(store.url, timezone="Europe/Berlin") as tally:
        await mark(tally, days)
        before = store.names()
        for options, frequency, count in PERIODS.values():
            found = await tally.lifecycle("a", periods=count, until=UNTIL, **options)
            assert numbers(found) == by_pandas(days, frequency, count)
            with tiny_windows(monkeypatch):
                assert await tally.lifecycle("a", periods=count, until=UNTIL, **options) == found
            for earlier, row in zip(found.rows, found.rows[1:], strict=False):
                assert row.net_growth == row.active - earlier.active
                for bar, total in ((row.new, row.active), (row.dormant, earlier.active)):
                    assert bar.rate == (bar.count / total if total else None)
        assert store.names() == before
        week = await tally.lifecycle("a", until=UNTIL)
        assert "2020-W53" in {str(row.period) for row in week.rows} | {
            str(week.rows[0].period.shift(-1))
        }


@ON_SOME_STORES
@pytest.mark.parametrize("user_ids", [None, str])
async def test_the_users_of_each_number(facade: Facade, store: Store, user_ids: Any) -> None:
    days = plausible(600)
    async with facade.open(store.url, user_ids=user_ids) as tally:
        await mark(tally, {day: map(user_ids or int, users) for day, users in days.items()})
        every: list[dict[str, Any]] = [
            {"by": "week"},
            {"by": timedelta(days=9), "anchor": SUNDAY},
        ]
        for options in every:
            found = await tally.lifecycle("a", periods=5, until=UNTIL, **options)
            models = sets_of(days, [row.period for row in found.rows])
            for row, model in zip(found.rows, models, strict=True):
                for kind, users in model.items():
                    bar = getattr(row, kind)
                    assert bar.count == len(users), (row.period, kind)
                    assert await users_of(tally, bar.users) == {
                        (user_ids or int)(user) for user in users
                    }
                assert row.active == sum(len(model[k]) for k in model if k != "dormant")


@pytest.mark.parametrize(("algebra", "options"), VARIANTS, ids=str)
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    made=programs("mark", "exact"),
    every=st.sampled_from(
        [
            {"by": "day"},
            {"by": "week"},
            {"by": "month"},
            {"by": timedelta(days=3), "anchor": datetime(2024, 2, 28)},
        ]
    ),
    count=st.integers(1, 6),
)
async def test_periods_agree_with_sets(
    redis_store: Store, algebra: str, options: Any, made: Any, every: Any, count: int
) -> None:
    redis_store.raw.flushdb()
    program, until = made
    with pytest.MonkeyPatch.context() as monkeypatch:
        with_algebra(monkeypatch, algebra)
        async with ASYNC.open(redis_store.url, timezone="Europe/Berlin", **options) as tally:
            days = await run(tally, program, BERLIN, options.get("user_ids", int))
            marked = "a" in await tally.event_names()
            with tiny_windows(monkeypatch):
                found = await tally.lifecycle("a", periods=count, until=until, **every)
            anchor = every.get("anchor")
            spans = calendar(
                every["by"], anchor and datetime(anchor.year, anchor.month, anchor.day)
            )
            last = spans.containing(until.astimezone(BERLIN).replace(tzinfo=None))
            periods = [last.shift(distance) for distance in range(-count, 0)]
            assert [row.period for row in found.rows] == periods
            models = sets_of(days, periods)
            wanted = [
                (
                    len(model["new"]),
                    len(model["returning"]),
                    len(model["resurrected"]),
                    len(model["dormant"]),
                )
                for model in models
            ]
            assert numbers(found) == wanted
            row = found.rows[-1]
            bars = (row.new, row.returning, row.resurrected, row.dormant)
            assert await tally.counts([bar.users for bar in bars]) == list(wanted[-1])
            assert found.unknown_events == (() if marked else ("a",))


async def test_first_ever_looks_back_beyond_the_report(facade: Facade, store: Store) -> None:
    day = UNTIL.date() - 7 * DAY  # the last week that is over
    async with facade.open(store.url) as tally:
        await mark(tally, {date(1999, 5, 1): [1], day: [1, 2, 3], day - 7 * DAY: [3]})
        await tally.mark_unique("ios", 1)

        def named(period: Period) -> Any:
            return tally.during("a", period)

        for activity in ("a", named):
            found = await tally.lifecycle(activity, periods=1, until=UNTIL)
            assert numbers(found) == [(1, 1, 1, 0)]
            row = found.rows[0]
            assert await users_of(tally, row.new.users) == {2}
            assert await users_of(tally, row.resurrected.users) == {1}
            assert row.quick_ratio is None
            found = await tally.lifecycle(activity, periods=1, until=UNTIL + 7 * DAY)
            assert numbers(found) == [(0, 0, 0, 3)]
            assert (found.rows[0].dormant.rate, found.rows[0].new.rate) == (1.0, None)
            assert found.quick_ratio == 0.0
        # Before 1970 nothing is looked for, and nothing is needed.
        found = await tally.lifecycle("a", periods=2, until=date(1969, 5, 1))
        assert numbers(found) == [(0, 0, 0, 0)] * 2
        flags = await tally.lifecycle(lambda _: tally.unique("ios"), periods=2, until=UNTIL)
        assert numbers(flags) == [(0, 1, 0, 0)] * 2
        assert flags.activity == "<lambda>"


async def test_totals(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await mark(tally, plausible())
        found = await tally.lifecycle("a", periods=6, until=UNTIL)
        before = await tally.count(tally.during("a", found.rows[0].period.shift(-1)))
    assert tuple(found.totals) == tuple(map(sum, zip(*numbers(found), strict=True)))
    assert found.net_growth == found.rows[-1].active - before
    totals = found.totals
    assert found.quick_ratio == (totals.new + totals.resurrected) / totals.dormant


async def test_users_far_away_are_found_and_the_empty_space_is_not_fetched(
    facade: Facade, redis_store: Store
) -> None:
    far = 300_000_000
    async with facade.open(redis_store.url) as tally:
        for distance in (1, 8, 40):
            await tally.mark_many("a", [5, far + distance], now=UNTIL - distance * DAY)
        before = redis_store.raw.info("stats")["total_net_output_bytes"]
        found = await tally.lifecycle("a", by="day", periods=2, until=UNTIL)
        assert numbers(found) == [(0, 0, 0, 0), (1, 0, 1, 0)]
        assert redis_store.raw.info("stats")["total_net_output_bytes"] - before < 8_000_000


async def test_earlier_sets_are_not_fetched_once_nobody_can_be_new(
    facade: Facade, redis_store: Store
) -> None:
    months = [date(2021 - at // 12, 12 - at % 12, 1) for at in range(11, 131)]
    async with facade.open(redis_store.url) as tally:
        await mark(tally, {month: [1, 2] for month in months})
        await mark(tally, {UNTIL.date() - DAY: [1, 2]})
        await tally.lifecycle("a", by="day", periods=2, until=UNTIL)
        before = redis_store.raw.info("commandstats")["cmdstat_getrange"]["calls"]
        found = await tally.lifecycle("a", by="day", periods=2, until=UNTIL)
        fetched = redis_store.raw.info("commandstats")["cmdstat_getrange"]["calls"] - before
    assert numbers(found) == [(0, 0, 0, 0), (0, 0, 2, 0)]
    assert fetched < 60


async def test_an_empty_database(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        found = await tally.lifecycle("visit", periods=2, until=UNTIL, labels={"visit": "Visit"})
    assert numbers(found) == [(0, 0, 0, 0)] * 2
    assert (found.quick_ratio, found.net_growth, found.rows[0].dormant.rate) == (None, 0, None)
    assert found.unknown_events == ("visit",)
    assert "Lifecycle: Visit" in found.to_html()
    assert "Nobody was ever marked for “visit”" in found.to_html()


async def test_from_a_replica(facade: Facade, redis_store: Store) -> None:
    days = plausible()
    with running_server() as replica:
        async with facade.open(replica) as elsewhere:
            await mark(elsewhere, days)
        async with facade.open(redis_store.url, read_from=replica) as tally:
            found = await tally.lifecycle("a", until=UNTIL)
            assert numbers(found) == by_pandas(days, "W-SUN", 12)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"periods": 0}, InvalidValueError, "periods must be 1 or more"),
        ({"periods": "2"}, InvalidTypeError, "periods must be an int"),
        ({"periods": 20_000}, InvalidValueError, "too many periods: .*max_bitmaps=20000"),
        ({"by": "fortnight"}, InvalidValueError, "a granularity with periods"),
        ({"anchor": SUNDAY}, InvalidValueError, "anchor goes with"),
        ({"by": timedelta(days=7)}, InvalidTypeError, "needs an anchor"),
        ({"until": "today"}, InvalidTypeError, "until must be a date"),
        ({"until": date(1, 1, 1)}, InvalidValueError, "years 1 to 9999"),
        ({"activity": ""}, InvalidValueError, "event must be"),
        ({"activity": lambda _: "a"}, InvalidTypeError, "not an event set"),
        ({"labels": {"a": 1}}, InvalidTypeError, "labels must be"),
    ],
)
async def test_bad_arguments(
    facade: Facade, options: Any, error: type[Exception], message: str
) -> None:
    given_options = {"activity": "a", **options}
    async with facade.open("redis://nowhere.invalid:1") as tally:
        with pytest.raises(error, match=message):
            await tally.lifecycle(given_options.pop("activity"), **given_options)


async def test_the_deadline_holds(facade: Facade, redis_store: Store) -> None:
    async def ask(tally: Any, **options: Any) -> None:
        await tally.lifecycle("a", until=UNTIL, **options)

    await check_deadline(facade, redis_store, ask)


async def test_the_result_is_a_value(facade: Facade, store: Store) -> None:
    day = UNTIL.date() - DAY
    async with facade.open(store.url) as tally:
        await mark(tally, {day: [1, 2], day - DAY: [2, 3]})
        found = await tally.lifecycle("a", by="day", periods=1, until=UNTIL)
    moved = pickle.loads(pickle.dumps(found))
    assert moved == found == copy.deepcopy(found)
    assert moved.rows[0].new.users == found.rows[0].new.users
    half = Bar(count=1, rate=0.5)
    row = LifecycleRow(
        period=found.rows[0].period,
        new=half,
        returning=half,
        resurrected=Bar(count=0, rate=0.0),
        dormant=half,
    )
    assert found == Lifecycle(activity="a", unit="day", until=UNTIL, rows=(row,))
    assert hash(found) == hash(moved)
    with pytest.raises(InvalidValueError, match="no report of a tally has made"):
        _ = half.users
    assert found.to_rows() == [
        {
            "period": "2021-03-30",
            "active": 2,
            "new": 1,
            "returning": 1,
            "resurrected": 0,
            "dormant": 1,
            "net_growth": 0,
            "quick_ratio": 1.0,
        }
    ]
    assert str(found.to_pandas().dtypes["dormant"]) == "Int64"
    assert "new: in no day before" in found.to_html()
    assert "dormant: in the day before, and not in this one." in found.to_html()


async def test_growth_has_a_minus_sign_as_the_axis_has(facade: Facade, store: Store) -> None:
    day = UNTIL.date() - DAY
    async with facade.open(store.url) as tally:
        await mark(tally, {day: [1], day - DAY: range(2, 15)})
        found = await tally.lifecycle("a", by="day", periods=2, until=UNTIL)
    assert [row.net_growth for row in found.rows] == [13, -12]
    page = found.to_html()
    assert ">+13</td>" in page
    assert ">\N{MINUS SIGN}12</td>" in page
    assert "-12</" not in page


async def test_functions_with_too_many_bitmaps(facade: Facade, store: Store) -> None:
    until = date(1969, 5, 1)  # before 1970, so no earlier periods are looked for
    async with facade.open(store.url, max_bitmaps=24) as tally:

        def any_of_eight(period: Period) -> Any:
            return any_of(tally.during(f"e{number}", period) for number in range(8))

        found = await tally.lifecycle(any_of_eight, by="day", periods=2, until=until)
        assert numbers(found) == [(0, 0, 0, 0)] * 2  # 3 periods, 24 bitmaps
        with pytest.raises(InvalidValueError, match="max_bitmaps=24"):
            await tally.lifecycle(any_of_eight, by="day", periods=3, until=until)
