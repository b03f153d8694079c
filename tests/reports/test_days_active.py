"""Users by days active, against pandas and sets; both facades, all stores."""

from __future__ import annotations

import copy
import pickle
import re
import statistics
from collections import Counter
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from day_marks import (
    ALGEBRAS,
    DAY,
    FIRST,
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
    DaysActive,
    DaysBar,
    InvalidTypeError,
    InvalidValueError,
)
from tallymark._reports.bit_counter import BitCounter

if TYPE_CHECKING:
    from facades import Facade
    from stores import Store


def expected(days: Days, until: datetime, number: int) -> list[int]:
    """Return how many users were active on 1, 2, ... of the last days that are over."""
    counts: Counter[int] = Counter()
    last = until.date() - DAY
    for distance in range(number):
        counts.update(days.get(last - distance * DAY, ()))
    by_days = Counter(counts.values())
    return [by_days[at] for at in range(1, number + 1)]


def by_pandas(days: Days, until: datetime, number: int) -> list[int]:
    """Return the same numbers, computed from rows."""
    rows = frame(days)
    end = pd.Timestamp(until).normalize()
    rows = rows[(rows.day < end) & (rows.day >= end - pd.Timedelta(days=number))]
    histogram = rows.groupby("user").day.nunique().value_counts()
    return [int(histogram.get(at, 0)) for at in range(1, number + 1)]


@pytest.mark.exhaustive
@ON_SOME_STORES_WITH_ALGEBRAS
async def test_bars_agree_with_pandas(
    facade: Facade, store: Store, algebra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_algebra(monkeypatch, algebra)
    days = plausible()
    async with facade.open(store.url, timezone="Europe/Berlin") as tally:
        await mark(tally, days)
        before = store.names()
        for number in (1, 2, 3, 7, 28, 31):
            found = await tally.days_active("a", days=number, until=UNTIL)
            assert list(found.counts) == by_pandas(days, UNTIL, number)
            assert found.total == sum(found.counts)
            rates = [bar.count / found.total for bar in found.bars]
            assert [bar.rate for bar in found.bars] == rates
            with tiny_windows(monkeypatch):
                assert await tally.days_active("a", days=number, until=UNTIL) == found
        assert found.counts[5] > 0
        assert store.names() == before


@pytest.mark.exhaustive
@ON_SOME_STORES
@pytest.mark.parametrize("user_ids", [None, str])
async def test_the_users_of_each_bar(facade: Facade, store: Store, user_ids: Any) -> None:
    days = plausible(600)
    async with facade.open(store.url, user_ids=user_ids) as tally:
        await mark(tally, {day: map(user_ids or int, users) for day, users in days.items()})
        found = await tally.days_active("a", days=10, until=UNTIL)
        assert list(found.counts) == expected(days, UNTIL, 10)
        assert await tally.counts([bar.users for bar in found.bars]) == list(found.counts)
        active: Counter[int] = Counter()
        for distance in range(10):
            active.update(days[UNTIL.date() - (1 + distance) * DAY])
        for bar in (found.bars[0], found.bars[6], found.bars[9]):
            wanted = {user for user, number in active.items() if number == bar.days}
            assert await users_of(tally, bar.users) == {(user_ids or int)(u) for u in wanted}
        for number in (1, 4, 10):
            regulars = found.at_least(number)
            wanted = {user for user, times in active.items() if times >= number}
            assert regulars.count == len(wanted)
            assert regulars.rate == len(wanted) / len(active)
            assert await users_of(tally, regulars.users) == {(user_ids or int)(u) for u in wanted}
        assert found.mean == statistics.mean(active.values())
        assert found.median == statistics.median(active.values())


@pytest.mark.parametrize(("algebra", "options"), VARIANTS, ids=str)
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(made=programs("mark", "unmark", "exact"), number=st.integers(1, 17))
async def test_bars_agree_with_sets(
    redis_store: Store, algebra: str, options: Any, made: Any, number: int
) -> None:
    redis_store.raw.flushdb()
    program, until = made
    with pytest.MonkeyPatch.context() as monkeypatch:
        with_algebra(monkeypatch, algebra)
        async with ASYNC.open(redis_store.url, timezone="Europe/Berlin", **options) as tally:
            days = await run(tally, program, BERLIN, options.get("user_ids", int))
            marked = "a" in await tally.event_names()
            with tiny_windows(monkeypatch):
                found = await tally.days_active("a", days=number, until=until)
            wanted = expected(days, until.astimezone(BERLIN).replace(tzinfo=None), number)
            assert list(found.counts) == wanted
            assert await tally.counts([bar.users for bar in found.bars]) == wanted
            assert found.unknown_events == (() if marked else ("a",))


@pytest.mark.parametrize("algebra", ALGEBRAS)
@settings(max_examples=200, deadline=None)
@given(values=st.lists(st.integers(0, 2**64 - 1), max_size=40))
def test_the_counter_agrees_with_a_counter(algebra: str, values: list[int]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        with_algebra(monkeypatch, algebra)
        from tallymark._reading.bits import algebra as current

        counter = BitCounter()
        for value in values:
            list(counter.add(current().load(value.to_bytes(8, "little"), 8)))
        assert counter.is_empty == (not any(values))
        steps = counter.totals(len(values))
        try:
            while True:
                next(steps)
        except StopIteration as end:
            totals = end.value
    users = Counter(bit for value in values for bit in range(64) if value >> bit & 1)
    wanted = Counter(users.values())
    assert totals == [wanted[number] for number in range(1, len(values) + 1)]


async def test_median_of_two_users_in_the_middle(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        for user, days in enumerate((1, 2, 5, 5)):
            for distance in range(days):
                await tally.mark_event("a", user, now=UNTIL - (1 + distance) * DAY)
        found = await tally.days_active("a", days=6, until=UNTIL)
    assert found.median == 3.5
    assert found.mean == 13 / 4


def test_the_table_of_shares() -> None:
    bars = (DaysBar(days=1, count=3, rate=0.75), DaysBar(days=2, count=1, rate=0.25))
    page = DaysActive(activity="a", until=UNTIL, bars=bars).to_html()
    shares = page.split("Shares of all users")[-1].split("</table>")[0]
    rows = [re.findall(r">([^<>\n]+)</t[hd]>", row) for row in shares.split("<tr>")[1:]]
    assert rows == [
        ["Days", "So many days", "At least so many"],
        ["1", "75.0%", "100%"],
        ["2", "25.0%", "25.0%"],
    ]


async def test_the_day_that_is_not_over_does_not_count(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, timezone="Europe/Berlin") as tally:
        await mark(tally, {UNTIL.date(): [1], UNTIL.date() - DAY: [2], UNTIL.date() - 2 * DAY: [2]})
        found = await tally.days_active("a", days=2, until=UNTIL)
        assert found.counts == (0, 1)
        assert found == await tally.days_active("a", until=UNTIL, days=2)
        assert found.until == UNTIL
        midnight = await tally.days_active("a", days=2, until=UNTIL.date() + DAY)
        assert midnight.counts == (2, 0)


async def test_a_function_selects_the_active_users(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await mark(tally, {UNTIL.date() - DAY: [1, 2], UNTIL.date() - 2 * DAY: [2]})
        await mark(tally, {UNTIL.date() - 2 * DAY: [3]}, event="b")
        await tally.mark_unique("ios", 2)
        await tally.mark_unique("ios", 3)

        def on_ios(period: Any) -> Any:
            either = tally.during("a", period) | tally.during("b", period)
            return either & tally.unique("ios")

        found = await tally.days_active(on_ios, days=3, until=UNTIL)
        assert found.counts == (1, 1, 0)
        assert found.activity == "on_ios"
        assert await users_of(tally, found.bars[0].users) == {3}


async def test_an_empty_database(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        found = await tally.days_active("signup", days=3, until=UNTIL, labels={"signup": "Sign-up"})
    assert found.counts == (0, 0, 0)
    assert (found.mean, found.median, found.bars[0].rate, found.at_least(2).rate) == (None,) * 4
    assert found.unknown_events == ("signup",)
    assert "Days active: Sign-up" in found.to_html()
    assert "Nobody was ever marked for “signup”" in found.to_html()


async def test_known_events_without_users_are_not_unknown(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await mark(tally, {FIRST: [1]})
        found = await tally.days_active("a", days=3, until=UNTIL)
    assert (found.counts, found.unknown_events) == ((0, 0, 0), ())


async def test_from_a_replica(facade: Facade, redis_store: Store) -> None:
    days = plausible()
    with running_server() as replica:
        async with facade.open(replica) as elsewhere:
            await mark(elsewhere, days)
        async with facade.open(redis_store.url, read_from=replica) as tally:
            found = await tally.days_active("a", until=UNTIL)
            assert list(found.counts) == expected(days, UNTIL, 28)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"days": 0}, InvalidValueError, "days must be 1 or more"),
        ({"days": True}, InvalidTypeError, "days must be an int"),
        ({"days": 30_000}, InvalidValueError, "too many days: .*max_bitmaps=20000"),
        ({"until": "today"}, InvalidTypeError, "until must be a date"),
        ({"until": date(1, 1, 1)}, InvalidValueError, "years 1 to 9999"),
        ({"activity": ""}, InvalidValueError, "event must be"),
        ({"activity": 3}, InvalidTypeError, "an event's name, or a function"),
        ({"labels": 3}, InvalidTypeError, "labels must be"),
    ],
)
async def test_bad_arguments(
    facade: Facade, options: Any, error: type[Exception], message: str
) -> None:
    given_options = {"activity": "a", **options}
    async with facade.open("redis://nowhere.invalid:1") as tally:
        with pytest.raises(error, match=message):
            await tally.days_active(given_options.pop("activity"), **given_options)


async def test_the_deadline_holds(facade: Facade, redis_store: Store) -> None:
    async def ask(tally: Any, **options: Any) -> None:
        await tally.days_active("a", until=UNTIL, **options)

    await check_deadline(facade, redis_store, ask)


async def test_the_result_is_a_value(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await mark(tally, {UNTIL.date() - DAY: [1, 2], UNTIL.date() - 2 * DAY: [2]})
        found = await tally.days_active("a", days=2, until=UNTIL)
        moved = pickle.loads(pickle.dumps(found))
        assert moved == found == copy.deepcopy(found)
        assert moved.bars[1].users == found.bars[1].users
    bars = (DaysBar(days=1, count=1, rate=0.5), DaysBar(days=2, count=1, rate=0.5))
    assert found == DaysActive(activity="a", until=UNTIL, bars=bars)
    assert hash(found) == hash(moved)
    with pytest.raises(InvalidValueError, match="no report of a tally has made"):
        _ = bars[0].users
    assert found.to_rows() == [
        {"days": 1, "count": 1, "rate": 0.5},
        {"days": 2, "count": 1, "rate": 0.5},
    ]
    assert found.to_csv().splitlines() == ["days,count,rate", "1,1,0.5", "2,1,0.5"]
    assert str(found.to_pandas().dtypes["count"]) == "Int64"
    assert "_users" not in repr(found)
    assert "at_least" not in repr(found)
    wrong: list[tuple[Any, type[Exception]]] = [
        (0, InvalidValueError),
        (3, InvalidValueError),
        ("1", InvalidTypeError),
    ]
    for number, error in wrong:
        with pytest.raises(error):
            found.at_least(number)
