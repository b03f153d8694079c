"""Streaks of one user, against a model: the set of days on which the user was marked."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from facades import ASYNC, ON_SOME_STORES
from moments import BERLIN
from proxy import proxied
from tallymark import (
    InvalidTypeError,
    InvalidValueError,
    StoreTimeoutError,
    Streak,
    WrongKeyTypeError,
)
from tallymark._core.context import Context
from tallymark._core.options import Options
from tallymark._reading.requests import Request
from tallymark._reports import streaks
from tallymark._reports.streaks import last_days

if TYPE_CHECKING:
    from collections.abc import Iterable

    from facades import Facade
    from stores import Store

UTC = timezone.utc
DAY = timedelta(days=1)
#: A Wednesday, in the afternoon.
NOON = datetime(2025, 4, 2, 15)
#: Longer than the test data is old: such bitmaps may expire, and have not; others have.
LONG = timedelta(days=7000)


def longest_run(days: Iterable[date]) -> tuple[int, date | None]:
    """Return the length and the first day of the last of the longest runs."""
    best: tuple[int, date | None] = (0, None)
    length = 0
    marked = set(days)
    for day in sorted(marked):
        length = length + 1 if day - DAY in marked else 1
        if length >= best[0]:
            best = length, day - (length - 1) * DAY
    return best


def expected(event: str, days: Iterable[date], until: datetime) -> Streak:
    """Return the streak of a user with some days, for a local moment."""
    begun = {day for day in days if datetime(day.year, day.month, day.day) < until}
    day = until.date()
    if day not in begun:
        day -= DAY
    current = 0
    while day - current * DAY in begun:
        current += 1
    since = day - (current - 1) * DAY if current else None
    longest, longest_since = longest_run(begun)
    return Streak(event, current, since, longest, longest_since, until)


async def mark_days(tally: Any, days: Iterable[date], user_id: Any = 7, event: str = "a") -> None:
    for day in days:
        await tally.mark_event(event, user_id, now=day)


def days_before(day: date, count: int) -> list[date]:
    return [day - number * DAY for number in range(1, count + 1)]


async def test_the_day_of_the_moment_counts_and_breaks_nothing(
    facade: Facade, store: Store
) -> None:
    today = NOON.date()
    async with facade.open(store.url) as tally:
        await mark_days(tally, [*days_before(today, 3), *days_before(date(2025, 3, 1), 5)])
        await mark_days(tally, [today], user_id=8)  # another user
        since = today - 3 * DAY
        found = await tally.streak("a", 7, until=NOON)
        assert found == Streak("a", 3, since, 5, date(2025, 2, 24), NOON)
        await mark_days(tally, [today])
        found = await tally.streak("a", 7, until=NOON)
        assert (found.current, found.since, found.longest) == (4, since, 5)
        # Days after the moment do not count, and at its midnight, the day has not begun.
        for until in (today, datetime(2025, 4, 2)):
            found = await tally.streak("a", 7, until=until)
            assert (found.current, found.since) == (3, since)
            assert found.until == datetime(2025, 4, 2)
        found = await tally.streak("a", 7, until=NOON + DAY)
        assert (found.current, found.since) == (4, since)
        # The day before is over at a midnight, and breaks the run.
        for until, current in ((today + DAY, 4), (today + 2 * DAY, 0), (NOON + 2 * DAY, 0)):
            found = await tally.streak("a", 7, until=until)
            assert (found.current, found.since) == (current, since if current else None)
            assert found.longest == 5
        nothing = Streak("b", 0, None, 0, None, NOON, unknown_events=("b",))
        assert await tally.streak("b", 7, until=NOON) == nothing
        assert (await tally.streak("a", 9, until=NOON)).longest == 0
        assert (await tally.streak("a", 7, until=date(1, 1, 1))).longest == 0
        assert (await tally.streak("a", 7, until=date(1970, 1, 1))).longest == 0


async def test_of_several_longest_runs_the_last_counts(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await mark_days(tally, [*days_before(NOON.date(), 4), *days_before(date(2025, 1, 2), 4)])
        found = await tally.streak("a", 7, until=NOON)
        assert (found.longest, found.longest_since) == (found.current, found.since)
        assert found.current == 4


async def test_the_present(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        while True:
            today = datetime.now(UTC).date()
            await mark_days(tally, [today, today - DAY, today + DAY])
            found = await tally.streak("a", 7)
            later = await tally.streak("a", 7, until=today + 9 * DAY)  # the present, at most
            if datetime.now(UTC).date() == today:
                break
    assert (found.current, found.since, found.longest) == (2, today - DAY, 2)
    assert (later.current, later.since, later.longest) == (2, today - DAY, 2)
    assert found.until <= later.until <= datetime.now(UTC).replace(tzinfo=None)


def test_on_which_days_a_run_may_end() -> None:
    midnight = datetime(2025, 4, 2)
    today = midnight.toordinal()

    def at(seconds: float, until: Any = None) -> tuple[datetime, int, bool]:
        present = midnight.replace(tzinfo=UTC).timestamp() + seconds
        return last_days(Context.of("database", Options(), lambda: present), until)

    # Marks at the present may be of the new day, also exactly at midnight.
    assert at(0) == (midnight, today, False)
    assert at(0, midnight) == (midnight, today, False)
    assert at(0, midnight + DAY) == (midnight, today, False)
    assert at(1, midnight) == (midnight, today - 1, True)
    assert at(60, midnight + timedelta(seconds=1)) == (midnight + DAY / 86400, today, False)
    assert at(-1) == (midnight - DAY / 86400, today - 1, False)


async def test_rows_and_html(facade: Facade) -> None:
    async with facade.open("memory://") as tally:
        await mark_days(tally, [date(2025, 3, 1), date(2025, 3, 2), date(2025, 4, 2)])
        found = await tally.streak("a", 7, until=NOON, labels={"a": "Active"})
        none = await tally.streak("a", 7, until=date(2025, 3, 31))
        with pytest.raises(InvalidTypeError, match="labels"):
            await tally.streak("a", 7, labels=cast("Any", 5))
    assert found.to_rows() == [
        {
            "event": "a",
            "current": 1,
            "since": "2025-04-02",
            "longest": 2,
            "longest_since": "2025-03-01",
            "until": "2025-04-02T15:00:00",
        }
    ]
    page = found.to_html()
    assert "<h1>Streak: Active</h1>" in page
    assert '<tr><th scope="row">Longest</th><td>2</td><td>2025-03-01</td></tr>' in page
    assert '<tr><th scope="row">Current</th><td>0</td><td>\N{EN DASH}</td></tr>' in none.to_html()
    assert none.to_csv().splitlines()[1] == "a,0,,2,2025-03-01,2025-03-31T00:00:00"


# --- against the model

#: Moments around the ends of years, leap days, and the nights in which clocks change in Berlin.
moments = st.builds(
    lambda day, hours: day + timedelta(hours=hours),
    st.sampled_from(
        [
            datetime(2023, 12, 31, tzinfo=UTC),
            datetime(2024, 2, 29, tzinfo=UTC),
            datetime(2024, 10, 27, tzinfo=UTC),
            datetime(2024, 12, 30, tzinfo=UTC),
            datetime(2025, 3, 30, tzinfo=UTC),
        ]
    ),
    st.integers(-80, 80),
)
#: Several days in a row are marked or unmarked, so that long runs occur, and gaps in them.
operations = st.lists(
    st.tuples(st.sampled_from(["mark", "unmark", "exact"]), moments, st.integers(1, 7)),
    max_size=12,
)
#: Which bitmaps there are, and which expire, decides where the query looks for days.
OPTIONS: dict[str, dict[str, Any]] = {
    "months and years": {"track_yearly": True, "track_hourly": True},
    "weeks": {"expire": {"month": DAY}},
    "days": {"expire": {"month": DAY, "week": DAY}},
    "days alone": {"expire": {"day": LONG}},
    "all expire": {"expire": {"month": DAY, "week": DAY, "day": LONG}},
}


_SOME = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
#: The month loses the user, who is still marked on other days.
_INEXACT: Any = [
    ("mark", datetime(2025, 3, 28, 12, tzinfo=UTC), 4),
    ("unmark", datetime(2025, 3, 28, 12, tzinfo=UTC), 1),
]
_AFTERWARDS = datetime(2025, 3, 31, 12, tzinfo=UTC)


@ON_SOME_STORES
@pytest.mark.parametrize("user_ids", [None, str])
@_SOME
@example(program=_INEXACT, until=_AFTERWARDS)
@given(program=operations, until=moments)
async def test_streaks_agree_with_sets_of_days(
    facade: Facade, store: Store, program: list[Any], until: datetime, user_ids: type | None
) -> None:
    await check(facade, store, program, until, {"user_ids": user_ids})


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@_SOME
@example(program=_INEXACT, until=_AFTERWARDS)
@given(program=operations, until=moments)
async def test_streaks_do_not_depend_on_which_bitmaps_expire(
    redis_store: Store, program: list[Any], until: datetime, options: dict[str, Any]
) -> None:
    await check(ASYNC, redis_store, program, until, options)


async def check(
    facade: Facade, store: Store, program: list[Any], until: datetime, options: dict[str, Any]
) -> None:
    store.raw.flushdb()
    user, other = ("ann", "bob") if options.get("user_ids") else (7, 8)
    days: set[date] = set()
    async with facade.open(store.url, timezone="Europe/Berlin", **options) as tally:
        await tally.mark_event("a", other, now=datetime(2024, 12, 30, tzinfo=UTC))
        for verb, begin, count in program:
            for number in range(count):
                moment = begin + number * DAY
                day = moment.astimezone(BERLIN).date()
                if verb == "mark":
                    await tally.mark_event("a", user, now=moment)
                    days.add(day)
                else:
                    await tally.unmark_event("a", user, now=moment, exact=verb == "exact")
                    days.discard(day)
        names = store.names()
        found = await tally.streak("a", user, until=until)
        assert store.names() == names
    assert found == expected("a", days, until.astimezone(BERLIN).replace(tzinfo=None))


# --- costs and limits


async def test_ten_years_are_few_requests(facade: Facade, redis_store: Store) -> None:
    first = date(2015, 4, 2)
    count = (NOON.date() - first).days
    async with facade.open(redis_store.url) as tally:
        await mark_days(tally, [first + number * DAY for number in range(count)])
    with proxied(redis_store.url) as proxy:
        async with facade.open(proxy.url) as tally:
            await tally.count(tally.unique("a"))
            before = redis_store.raw.info("commandstats")["cmdstat_getbit"]["calls"]
            found = await tally.streak("a", 7, until=NOON)
            bits = redis_store.raw.info("commandstats")["cmdstat_getbit"]["calls"] - before
    assert (found.current, found.since, found.longest) == (count, first, count)
    assert count <= bits < count + 40  # no day of a month without a bitmap


async def test_more_days_than_one_query_may_read(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, max_bitmaps=40) as tally:
        await mark_days(tally, [date(2025, 3, 31), date(2025, 4, 1)])
        assert (await tally.streak("a", 7, until=NOON)).current == 2
        await mark_days(tally, [date(2020, 1, 1)])
        with pytest.raises(InvalidValueError, match=r"too many days: .*max_bitmaps=40"):
            await tally.streak("a", 7, until=NOON)
        assert (await tally.streak("a", 7, until=date(2020, 2, 1))).longest == 1


async def test_expired_days_are_not_looked_up(facade: Facade, redis_store: Store) -> None:
    """However many months have a bitmap: only the days that may still exist."""
    lives = {"day": timedelta(days=20)}
    today = datetime.now(UTC).date()
    async with facade.open(redis_store.url) as tally:
        await mark_days(tally, days_before(today - 200 * DAY, 5))
    async with facade.open(redis_store.url, expire=lives, max_bitmaps=24) as tally:
        await mark_days(tally, days_before(today, 20))  # the first of them expires this night
        found = await tally.streak("a", 7, until=today)
    assert (found.current, found.longest) in {(20, 20), (19, 19)}  # if that is now


async def test_days_that_have_not_expired_are_looked_up(facade: Facade, redis_store: Store) -> None:
    """A lifetime that is no whole number of days ends in the middle of a day."""
    lives = {"day": timedelta(days=20, hours=23, minutes=59, seconds=59)}
    async with facade.open(redis_store.url, expire=lives) as tally:
        while True:
            today = datetime.now(UTC).date()
            await mark_days(tally, days_before(today, 21))  # the first of them expires tonight
            found = await tally.streak("a", 7, until=today)
            if (datetime.now(UTC) + timedelta(seconds=2)).date() == today:
                break
    assert (found.current, found.longest) == (21, 21)


@pytest.mark.parametrize("hours", [0, 5, 23])
def test_days_are_looked_up_that_end_later_elsewhere(hours: int) -> None:
    """The clock of the time zone may have been put forward by a day since they were marked."""
    life = timedelta(days=20, hours=hours)
    midnight = datetime(2025, 4, 2)
    for minutes in range(0, 24 * 60, 20):
        present = midnight + timedelta(minutes=minutes)
        clock = present.replace(tzinfo=UTC).timestamp
        context = Context.of("database", Options(expire={"day": life}), clock)
        query = streaks._days_to_read(context, "a", midnight.toordinal())
        days = finished(query)
        missing = datetime.fromordinal(days[0] - 1)
        assert missing + DAY + life + DAY <= present


def finished(query: Any) -> Any:
    """Return the result of a query for which all bitmaps exist."""
    outcome = None
    while True:
        try:
            effect = query.send(outcome)
        except StopIteration as end:
            return end.value
        outcome = [1] * len(effect.commands) if isinstance(effect, Request) else None


async def test_arguments_are_checked_before_anything_is_sent(facade: Facade) -> None:
    async with facade.open("redis://nowhere.invalid:1") as opened:
        tally: Any = opened
        with pytest.raises(InvalidTypeError, match="event"):
            await tally.streak(5, 7)
        with pytest.raises(InvalidValueError, match="event"):
            await tally.streak("", 7)
        with pytest.raises(InvalidValueError, match="user id"):
            await tally.streak("a", -1)
        with pytest.raises(InvalidTypeError, match="until must be"):
            await tally.streak("a", 7, until="today")
        with pytest.raises(TypeError, match="positional"):
            await tally.streak("a", 7, NOON)


async def test_a_key_of_the_wrong_type(facade: Facade, plain_store: Store) -> None:
    async with facade.open(plain_store.url) as tally:
        await mark_days(tally, [date(2025, 4, 1)])
        plain_store.raw.lpush("trackist_a_2025-4-2", "not a bitmap")
        with pytest.raises(WrongKeyTypeError):
            await tally.streak("a", 7, until=NOON)


async def test_the_deadline_holds(facade: Facade, redis_store: Store) -> None:
    with proxied(redis_store.url) as proxy:
        async with facade.open(proxy.url) as tally:
            await mark_days(tally, [date(2025, 4, 1)])
            await tally.streak("a", 7, until=NOON)
            proxy.marker = b":"  # the replies to all commands that read
            proxy.passing.clear()
            with pytest.raises(StoreTimeoutError, match=r"within 0\.2 s"):
                await tally.streak("a", 7, until=NOON, timeout=0.2)
            proxy.passing.set()
