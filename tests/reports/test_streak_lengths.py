"""Users by the length of their streaks, against sets and the streaks of single users."""

from __future__ import annotations

import copy
import pickle
from datetime import date, datetime, timezone
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from day_marks import (
    DAY,
    UNTIL,
    VARIANTS,
    Days,
    check_deadline,
    count_streaks,
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
    DaysBar,
    InvalidTypeError,
    InvalidValueError,
    Streaks,
)

if TYPE_CHECKING:
    from facades import Facade
    from stores import Store


def by_pandas(days: Days, until: datetime, most: int) -> list[int]:
    """Return the same numbers as `count_streaks`, computed from rows."""
    rows = frame(days)
    rows = rows[rows.day < pd.Timestamp(until)].sort_values(["user", "day"])
    starts = rows.groupby("user").day.diff() != pd.Timedelta(days=1)
    runs = rows.groupby([rows.user, starts.cumsum()]).day.agg(["max", "size"])
    current = runs[runs["max"] >= pd.Timestamp(until).normalize() - pd.Timedelta(days=1)]
    histogram = current["size"].clip(upper=most).value_counts()
    return [int(histogram.get(length, 0)) for length in range(1, most + 1)]


@pytest.mark.exhaustive
@ON_SOME_STORES_WITH_ALGEBRAS
async def test_bars_agree_with_pandas(
    facade: Facade, store: Store, algebra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_algebra(monkeypatch, algebra)
    days = plausible()
    days[UNTIL.date() - 9 * DAY] |= set(range(40))
    async with facade.open(store.url, timezone="Europe/Berlin") as tally:
        await mark(tally, days)
        before = store.names()
        for until in (UNTIL, UNTIL - DAY, date(2021, 3, 28), datetime(2021, 1, 4, 1)):
            moment = until if isinstance(until, datetime) else datetime(2021, 3, 28)
            for most in (1, 2, 5, 60):
                found = await tally.streaks("a", days=most, until=until)
                assert list(found.counts) == by_pandas(days, moment, most)
                assert list(found.counts) == count_streaks(days, moment, most)
                with tiny_windows(monkeypatch):
                    assert await tally.streaks("a", days=most, until=until) == found
            assert any(found.counts)
        assert store.names() == before


@pytest.mark.exhaustive
@ON_SOME_STORES
@pytest.mark.parametrize("user_ids", [None, str])
async def test_the_users_of_each_bar_have_such_streaks(
    facade: Facade, store: Store, user_ids: Any
) -> None:
    days = plausible(400)
    async with facade.open(store.url, user_ids=user_ids) as tally:
        await mark(tally, {day: map(user_ids or int, users) for day, users in days.items()})
        for until in (UNTIL, UNTIL.date()):
            found = await tally.streaks("a", days=4, until=until)
            assert await tally.counts([bar.users for bar in found.bars]) == list(found.counts)
            assert sum(map(bool, found.counts)) > 1
            for bar in found.bars:
                for user in list(await users_of(tally, bar.users))[:6]:
                    streak = await tally.streak("a", user, until=until)
                    assert min(streak.current, 4) == bar.days
            for length in (1, 3, 4):
                reached = found.at_least(length)
                assert reached.count == sum(found.counts[length - 1 :])
                assert await tally.count(reached.users) == reached.count


@pytest.mark.parametrize(("algebra", "options"), VARIANTS, ids=str)
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    made=programs("mark", "mark", "unmark", "exact"), most=st.integers(1, 12), over=st.booleans()
)
async def test_bars_agree_with_sets(
    redis_store: Store, algebra: str, options: Any, made: Any, most: int, over: bool
) -> None:
    redis_store.raw.flushdb()
    program, until = made
    until = until.astimezone(BERLIN).replace(tzinfo=None)
    if over:
        until = datetime(until.year, until.month, until.day)
    with pytest.MonkeyPatch.context() as monkeypatch:
        with_algebra(monkeypatch, algebra)
        async with ASYNC.open(redis_store.url, timezone="Europe/Berlin", **options) as tally:
            days = await run(tally, program, BERLIN, options.get("user_ids", int))
            marked = "a" in await tally.event_names()
            with tiny_windows(monkeypatch):
                found = await tally.streaks("a", days=most, until=until)
            wanted = count_streaks(days, until, most)
            assert list(found.counts) == wanted
            assert await tally.counts([bar.users for bar in found.bars]) == wanted
            assert found.unknown_events == (() if marked else ("a",))


async def test_it_stops_when_no_run_goes_on(facade: Facade, redis_store: Store) -> None:
    today = UNTIL.date()
    async with facade.open(redis_store.url) as tally:
        await mark(tally, {today: [1], today - DAY: [1, 2], today - 2 * DAY: [2, 3]})
        await mark(tally, {today - distance * DAY: [3] for distance in range(3, 400)})
        await tally.streaks("a", until=UNTIL)
        before = redis_store.raw.info("commandstats")["cmdstat_getrange"]["calls"]
        found = await tally.streaks("a", days=390, until=UNTIL)
        fetched = redis_store.raw.info("commandstats")["cmdstat_getrange"]["calls"] - before
    assert found.counts[:3] == (0, 2, 0)
    assert fetched < 100


async def test_the_present(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        while True:
            today = datetime.now(timezone.utc).date()
            await mark(tally, {today: [1, 2], today - DAY: [2, 3], today + DAY: [3, 4]})
            found = await tally.streaks("a", days=3)
            later = await tally.streaks("a", days=3, until=today + 9 * DAY)
            if datetime.now(timezone.utc).date() == today:
                break
    assert found.counts == later.counts == (2, 1, 0)


async def test_an_empty_database(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        found = await tally.streaks("visit", days=3, until=UNTIL, labels={"visit": "Visit"})
    assert (found.counts, found.total, found.bars[0].rate) == ((0, 0, 0), 0, None)
    assert found.unknown_events == ("visit",)
    assert "Streaks: Visit" in found.to_html()
    assert "Nobody was ever marked for “visit”" in found.to_html()


async def test_from_a_replica(facade: Facade, redis_store: Store) -> None:
    days = plausible()
    with running_server() as replica:
        async with facade.open(replica) as elsewhere:
            await mark(elsewhere, days)
        async with facade.open(redis_store.url, read_from=replica) as tally:
            found = await tally.streaks("a", until=UNTIL)
            assert list(found.counts) == count_streaks(days, UNTIL, 60)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"days": 0}, InvalidValueError, "days must be 1 or more"),
        ({"days": 1.0}, InvalidTypeError, "days must be an int"),
        ({"days": 20_000}, InvalidValueError, "too many days: .*max_bitmaps=20000"),
        ({"until": "today"}, InvalidTypeError, "until must be a date"),
        ({"until": date(1, 1, 1)}, InvalidValueError, "year"),
        ({"event": ""}, InvalidValueError, "event must be"),
        ({"event": 3}, InvalidTypeError, "event must be"),
        ({"labels": 3}, InvalidTypeError, "labels must be"),
    ],
)
async def test_bad_arguments(
    facade: Facade, options: Any, error: type[Exception], message: str
) -> None:
    given_options = {"event": "a", **options}
    async with facade.open("redis://nowhere.invalid:1") as tally:
        with pytest.raises(error, match=message):
            await tally.streaks(given_options.pop("event"), **given_options)


async def test_the_deadline_holds(facade: Facade, redis_store: Store) -> None:
    async def ask(tally: Any, **options: Any) -> None:
        await tally.streaks("a", until=UNTIL, **options)

    await check_deadline(facade, redis_store, ask)


async def test_the_result_is_a_value(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await mark(tally, {UNTIL.date(): [1], UNTIL.date() - DAY: [1, 2]})
        found = await tally.streaks("a", days=2, until=UNTIL)
    moved = pickle.loads(pickle.dumps(found))
    assert moved == found == copy.deepcopy(found)
    assert moved.bars[1].users == found.bars[1].users
    bars = (DaysBar(days=1, count=1, rate=0.5), DaysBar(days=2, count=1, rate=0.5))
    assert found == Streaks(event="a", until=UNTIL, bars=bars)
    assert hash(found) == hash(moved)
    assert found.to_rows() == [
        {"days": 1, "or_more": False, "count": 1, "rate": 0.5},
        {"days": 2, "or_more": True, "count": 1, "rate": 0.5},
    ]
    assert str(found.to_pandas().dtypes["count"]) == "Int64"
    assert ">2+<" in found.to_html()
