"""Ordered funnels against brute force over the users, in pandas and in SQL; both facades."""

from __future__ import annotations

import copy
import functools
import itertools
import pickle
import random
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import duckdb
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facades import ON_SOME_STORES
from tallymark import (
    InvalidTypeError,
    InvalidValueError,
    OrderedFunnel,
    OrderedStep,
    Period,
    SyncTally,
)
from tallymark._reading import bits, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from facades import Facade
    from stores import Store

#: The clock of Berlin is set forward on 2025-03-30, and back on 2025-10-26.
ZONE = "Europe/Berlin"
FIRST = date(2025, 3, 17)
DAYS = 24
SPREAD = 1500
PREMIUM = set(range(0, SPREAD, 7))
EVENTS = {"signup": 90, "cart": 150, "buy": 110}

#: For each step, by user, the periods in which he did it.
Did = dict[int, set[datetime]]


class Found(NamedTuple):
    """The numbers of a funnel.

    Attributes:
        times: for each step, how many users reached it, by the number of periods since the entry.
        unfinished: how many may still reach the last step.
    """

    times: list[dict[int, int]]
    unfinished: int


def brute_force(
    steps: Sequence[Did],
    begin: datetime,
    end: datetime,
    window: int,
    now: datetime,
    unit: timedelta = timedelta(days=1),
    segment: Callable[[datetime], set[int]] | None = None,
) -> Found:
    """Return a funnel in the words of the issue, user by user and entry by entry.

    Arguments:
        steps: who did each step when.
        begin, end: users enter in periods with a moment from one to the other.
        window: the length of the window in periods.
        now: the present.
        unit: the length of a period.
        segment: returns the users of the segment, given the first moment of an entry.
    """
    times: list[dict[int, int]] = [{} for _ in steps]
    unfinished = 0
    for user, moments in steps[0].items():
        best: dict[int, int] = {}
        open_windows = 0
        for entry in moments:
            if entry + unit <= begin or entry >= end or entry > now:
                continue
            if segment is not None and user not in segment(entry):
                continue
            best[0] = 0
            open_windows += entry + window * unit > now
            last: datetime = entry
            for number, did in enumerate(steps[1:], 1):
                # The first possible moment of a step leaves the most time for the later ones.
                possible = [at for at in did.get(user, ()) if last <= at < entry + window * unit]
                possible = [at for at in possible if at <= now]
                if not possible:
                    break
                last = min(possible)
                best[number] = min(best.get(number, window), (last - entry) // unit)
        for number, time in best.items():
            times[number][time] = times[number].get(time, 0) + 1
        unfinished += bool(open_windows) and len(steps) - 1 not in best
    return Found(times, unfinished)


def numbers(funnel: OrderedFunnel) -> Found:
    return Found(
        [{time: n for time, n in enumerate(step.times) if n} for step in funnel.steps],
        funnel.unfinished,
    )


def check_numbers(funnel: OrderedFunnel, wanted: Found) -> None:
    """Check all numbers of a funnel."""
    assert numbers(funnel) == wanted
    counts = [sum(times.values()) for times in wanted.times]
    assert [step.count for step in funnel.steps] == counts
    for number, step in enumerate(funnel.steps):
        times = sorted(
            itertools.chain.from_iterable([time] * n for time, n in wanted.times[number].items())
        )
        assert step.median == (times[(len(times) - 1) // 2] if times else None)
        previous = counts[max(0, number - 1)]
        assert step.of_previous == (counts[number] / previous if previous else None)
        assert step.of_first == (counts[number] / counts[0] if counts[0] else None)


def some_events(unit: timedelta, number: int, begin: datetime) -> Any:
    """Return who did what in which period; some users were marked by mistake, and unmarked."""
    chance = random.Random(3)
    rows = []
    for distance in range(number):
        at = begin + distance * unit
        # Some periods have users with low ids only, so that bitmaps have different lengths.
        spread = SPREAD if distance % 4 else 100
        for event, users in EVENTS.items():
            rows += [(event, at, user) for user in chance.sample(range(spread), users % spread)]
    return pd.DataFrame(rows, columns=["event", "at", "user"])


MARKS = some_events(timedelta(days=1), DAYS, datetime(2025, 3, 17))


def did(event: str, marks: Any = MARKS) -> Did:
    """Return by user when he did something."""
    of_event = marks[marks["event"] == event]
    return {
        int(user): {at.to_pydatetime() for at in rows["at"]}
        for user, rows in of_event.groupby("user")
    }


def always(users: Iterable[int]) -> Did:
    """Return by user all days: of those who are in a set."""
    days = {datetime(2025, 3, 1) + timedelta(days=distance) for distance in range(120)}
    return dict.fromkeys(users, days)


async def fill(tally: Any, marks: Any = MARKS, ids: Callable[[int], Any] = int) -> None:
    for (event, at), rows in marks.groupby(["event", "at"]):
        users = set(rows["user"])
        mistaken = set(range(40, 50)) - users if at.day % 3 == 0 else set()
        now = at.to_pydatetime()
        await tally.mark_many(event, [ids(user) for user in users | mistaken], now=now)
        if mistaken:
            await tally.unmark_many(event, [ids(user) for user in mistaken], now=now, exact=True)
    await tally.mark_many("premium", [ids(user) for user in PREMIUM], now=FIRST)
    for user in PREMIUM:
        await tally.mark_unique("premium", ids(user))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """Return a list with the present, in Berlin, which may be changed."""
    present = [datetime(2025, 4, 9, 15, 30)]
    monkeypatch.setattr(
        "tallymark._core.context.clock_at", lambda _seconds, _zone: (present[-1], None)
    )
    return present


def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("_ALL_WINDOWS", "_MIN_WINDOW", "_MAX_WINDOW", "_MAX_FETCH"):
        monkeypatch.setattr(sweep, limit, 40)


CART, BUY, SIGNUP = did("cart"), did("buy"), did("signup")


@pytest.mark.exhaustive
@ON_SOME_STORES
async def test_funnels_agree_with_brute_force(
    facade: Facade, store: Store, monkeypatch: pytest.MonkeyPatch, clock: list[datetime]
) -> None:
    async with facade.open(store.url, timezone=ZONE) as tally:
        await fill(tally)
        before = store.names()

        def cart_or_premium(period: Period) -> Any:
            return tally.during("cart", period) | tally.unique("premium")

        premium = always(PREMIUM)
        either = {
            user: CART.get(user, set()) | premium.get(user, set()) for user in {*CART, *premium}
        }
        segments: dict[str, Any] = {
            "premium": tally.unique("premium"),
            "carted": lambda period: tally.during("cart", period),
        }
        of_segment: dict[str, Callable[[datetime], set[int]]] = {
            "premium": lambda _: PREMIUM,
            "carted": lambda at: {user for user, days in CART.items() if at in days},
        }
        now = clock[0]
        cases: list[tuple[list[Any], list[Did], date, date | None, int]] = [
            (["signup", "cart", "buy"], [SIGNUP, CART, BUY], date(2025, 3, 20), None, 7),
            (["signup", "cart", "buy"], [SIGNUP, CART, BUY], FIRST, date(2025, 4, 1), 7),
            (["signup", "signup", "cart"], [SIGNUP, SIGNUP, CART], FIRST, date(2030, 1, 1), 3),
            (["buy", cart_or_premium], [BUY, either], date(2025, 3, 29), date(2025, 3, 31), 5),
            (["cart", tally.unique("premium"), "buy"], [CART, premium, BUY], FIRST, None, 4),
            ([tally.unique("premium"), "cart"], [premium, CART], FIRST, date(2025, 4, 2), 2),
            (["cart", "buy"], [CART, BUY], datetime(2025, 3, 20, 12), datetime(2025, 3, 22, 1), 1),
            (["signup"], [SIGNUP], FIRST, date(2025, 4, 2), 7),
            (
                ["signup", "cart", "buy", "cart", "signup"],
                [SIGNUP, CART, BUY, CART, SIGNUP],
                FIRST,
                None,
                30,
            ),
        ]
        for steps, dids, since, until, window in cases:
            options: Any = {"since": since, "until": until, "window": timedelta(days=window)}
            begin = datetime.combine(since, datetime.min.time())
            end = now if until is None else datetime.combine(until, datetime.min.time())
            if isinstance(since, datetime) and isinstance(until, datetime):
                begin, end = since, until
            found = await tally.funnel(steps, **options, segments=segments)
            check_numbers(found, brute_force(dids, begin, end, window, now))
            assert list(found.segments) == list(segments)
            for name, part in found.segments.items():
                check_numbers(
                    part, brute_force(dids, begin, end, window, now, segment=of_segment[name])
                )
                assert (part.segment, part.segments) == (name, {})
            assert numbers(await tally.funnel(steps, **options)) == numbers(found)
            with monkeypatch.context() as patch:
                small_windows(patch)
                assert await tally.funnel(steps, **options, segments=segments) == found
        assert store.names() == before


async def members(tally: Any, event_set: Any) -> list[int]:
    return [user async for user in tally.users(event_set)]


@ON_SOME_STORES
async def test_a_step_has_the_event_set_of_its_users(
    facade: Facade, store: Store, clock: list[datetime]
) -> None:
    async with facade.open(store.url, timezone=ZONE) as tally:
        await fill(tally)
        segments: Any = {
            "premium": tally.unique("premium"),
            "carted": lambda period: tally.during("cart", period),
        }
        flag: Any = tally.unique("premium")
        for steps, window in ((["signup", "cart", "buy"], 4), (["signup", "signup"], 7)):
            found = await tally.funnel(
                [*steps, flag],
                since=date(2025, 3, 25),
                until=date(2025, 4, 8),
                window=timedelta(days=window),
                segments=segments,
            )
            assert found.steps[1].count > found.steps[2].count > 0
            assert found.unfinished > 0
            for part in (found, *found.segments.values()):
                for step in part.steps:
                    event_set: Any = step.users
                    assert await tally.count(event_set) == step.count
                    users = await members(tally, event_set)
                    assert len(users) == step.count
                    some = [*users[:3], *range(3)]
                    is_in = await tally.contains_many(event_set, some)
                    assert is_in == [user in users for user in some]
                unfinished = await members(tally, part.unfinished_users)
                assert len(unfinished) == part.unfinished
        copied = pickle.loads(pickle.dumps(found))
        assert copied == copy.deepcopy(found) == found
        assert hash(copied) == hash(found)
        assert copied.steps[1].users == found.steps[1].users
        assert copied.segments["premium"] == found.segments["premium"] != found
        clock.append(datetime(2025, 5, 1))
        over = await tally.funnel(["signup", "cart"], since=FIRST, until=date(2025, 4, 2))
        assert over.unfinished == 0
        assert await members(tally, over.unfinished_users) == []


async def test_users_of_a_step_are_counted_without_large_temporary_keys(
    facade: Facade, redis_store: Store, clock: list[datetime]
) -> None:
    async with facade.open(redis_store.url, timezone=ZONE, max_temp_bytes=100_000) as tally:
        await fill(tally)
        found = await tally.funnel(["signup", "cart", "buy"], since=FIRST)
        for step in found.steps:
            event_set: Any = step.users
            assert await tally.count(event_set) == step.count
            assert await tally.is_empty(event_set) is False
        first: Any = found.steps[0].users
        assert await tally.count(first - found.steps[1].users) == (
            found.steps[0].count - found.steps[1].count
        )


async def test_whether_windows_are_over(
    facade: Facade, plain_store: Store, clock: list[datetime]
) -> None:
    async with facade.open(plain_store.url, timezone=ZONE) as tally:
        for day in (1, 2, 3):
            await tally.mark_many("a", [day, 9], now=date(2025, 1, day))
        await tally.mark_event("b", 3, now=date(2025, 1, 5))
        await tally.mark_event("b", 2, now=date(2025, 1, 6))  # in the future
        options: Any = {"since": date(2025, 1, 1), "window": timedelta(days=3)}
        for now, until, ends, complete, unfinished, reached in (
            # Of the entries on the first day, the window is over with the end of the third.
            (datetime(2025, 1, 3, 23, 59), None, 4, 1, [1, 2, 3, 9], 0),
            (datetime(2025, 1, 4, 0), None, 5, 2, [2, 3, 9], 0),
            (datetime(2025, 1, 5), None, 6, 3, [9], 1),
            (datetime(2025, 1, 5), date(2025, 1, 3), 3, 3, [], 0),
            (datetime(2025, 1, 5), date(2025, 1, 4), 4, 3, [9], 1),
            (datetime(2025, 1, 5), date(9999, 12, 31), 6, 3, [9], 1),
            (datetime(2025, 1, 9), date(2025, 1, 5), 5, 5, [], 1),
            (datetime(2025, 1, 6), None, 7, 4, [], 1),
        ):
            clock.append(now)
            found = await tally.funnel(["a", "b"], until=until, **options)
            case = (now, until)
            assert (found.until, found.complete_until) == (
                datetime(2025, 1, ends),
                datetime(2025, 1, complete),
            ), case
            assert found.unfinished == len(unfinished), case
            users = await members(tally, found.unfinished_users)
            assert users == unfinished, case
            assert found.steps[1].count == reached, case
            warned = "may still reach the last step" in found.to_html()
            assert warned == (complete < ends)


@pytest.mark.parametrize("algebra", [bits.Ints, None])
def test_any_arguments_agree_with_brute_force(
    algebra: Any, memory_store: Store, monkeypatch: pytest.MonkeyPatch, clock: list[datetime]
) -> None:
    use(algebra, monkeypatch)
    with SyncTally.from_url(memory_store.url, timezone=ZONE) as tally:
        for (event, at), rows in MARKS.groupby(["event", "at"]):
            tally.mark_many(event, set(rows["user"]), now=at.to_pydatetime())
        for user in PREMIUM:
            tally.mark_unique("premium", user)
        dids = {event: did(event) for event in EVENTS} | {"premium": always(PREMIUM)}
        begin = datetime(2025, 3, 10)

        @settings(deadline=None, max_examples=30)
        @given(
            st.lists(st.sampled_from(list(dids)), min_size=1, max_size=5),
            st.integers(0, 900),
            st.integers(1, 900),
            st.integers(1, 12),
            st.integers(0, 500),
            st.sampled_from([40, 64, 1024 * 1024]),
        )
        def check(
            names: list[str], since: int, hours: int, window: int, later: int, limit: int
        ) -> None:
            monkeypatch.setattr(sweep, "_MAX_WINDOW", limit)
            start = begin + timedelta(hours=since)
            end = start + timedelta(hours=hours)
            clock.append(start + timedelta(hours=later))
            found = tally.funnel(
                [tally.unique(name) if name == "premium" else name for name in names],
                since=start,
                until=end,
                window=timedelta(days=window),
                segments={"rare": lambda period: tally.during("buy", period)},
            )
            steps = [dids[name] for name in names]
            check_numbers(found, brute_force(steps, start, end, window, clock[-1]))
            wanted = brute_force(
                steps,
                start,
                end,
                window,
                clock[-1],
                segment=lambda at: {user for user, days in dids["buy"].items() if at in days},
            )
            check_numbers(found.segments["rare"], wanted)

        check()


#: The modules with values of the algebra.
MODULES = (
    *("_reading.sweep", "_reading.expressions", "_reading.id_streams"),
    "_reports.ordered_funnel_counts",
)


def use(algebra: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use an algebra, or that of this process."""
    if algebra is not None:
        made = algebra()
        for module in MODULES:
            monkeypatch.setattr(f"tallymark.{module}.algebra", lambda: made)


@pytest.mark.parametrize("algebra", [bits.Ints, None])
def test_any_marks_agree_with_all_sequences_of_days(
    algebra: Any, memory_store: Store, monkeypatch: pytest.MonkeyPatch, clock: list[datetime]
) -> None:
    """The reference tries each sequence of days, one for each step, as the definition says."""
    use(algebra, monkeypatch)
    clock.append(datetime(2025, 4, 1))
    days = [date(2025, 3, 28) + timedelta(days=number) for number in range(7)]
    names = itertools.count()
    with SyncTally.from_url(memory_store.url, timezone=ZONE) as tally:

        @settings(deadline=None, max_examples=60)
        @given(
            st.lists(st.sets(st.integers(0, 6), max_size=4), min_size=9, max_size=9),
            st.integers(1, 4),
            st.integers(1, 5),
            st.integers(1, 7),
        )
        def check(marks: list[set[int]], number: int, window: int, entries: int) -> None:
            # Three users did up to three things, each on some days.
            run = next(names)
            steps = [f"{run}-{step % 3}" for step in range(number)]
            for user, step in itertools.product(range(3), range(3)):
                for day in marks[3 * user + step]:
                    tally.mark_event(f"{run}-{step}", user, now=days[day])
            found = tally.funnel(
                steps,
                since=days[0],
                until=days[0] + timedelta(days=entries),
                window=timedelta(days=window),
            )
            for step in range(number):
                times = []
                for user in range(3):
                    sequences = itertools.product(
                        *(marks[3 * user + at % 3] for at in range(step + 1))
                    )
                    valid = [
                        days_of[-1] - days_of[0]
                        for days_of in sequences
                        if days_of[0] < entries
                        and list(days_of) == sorted(days_of)
                        and days_of[-1] - days_of[0] < window
                        and days_of[-1] <= 4  # the present
                    ]
                    times += [min(valid)] if valid else []
                wanted = tuple(times.count(time) for time in range(window))
                assert found.steps[step].times == wanted
                users = list(tally.users(cast("Any", found.steps[step].users)))
                assert len(users) == len(times)

        check()


async def test_sql_agrees(facade: Facade, plain_store: Store, clock: list[datetime]) -> None:
    async with facade.open(plain_store.url, timezone=ZONE) as tally:
        await fill(tally)
        found = await tally.funnel(["signup", "cart", "buy"], since=FIRST, until=date(2025, 4, 3))
    marks = MARKS  # noqa: F841 - DuckDB finds it by its name
    rows = cast("Any", duckdb.sql)(
        """
        WITH entries AS (
            SELECT DISTINCT "user", "at" AS entry FROM marks
            WHERE event = 'signup' AND "at" >= DATE '2025-03-17' AND "at" < DATE '2025-04-03'
        ), carts AS (
            SELECT e."user", e.entry, min(m."at") AS cart FROM entries e JOIN marks m
            ON m."user" = e."user" AND m.event = 'cart'
            AND m."at" >= e.entry AND m."at" < e.entry + INTERVAL 7 DAY GROUP BY ALL
        ), buys AS (
            SELECT c."user", c.entry, min(m."at") AS buy FROM carts c JOIN marks m
            ON m."user" = c."user" AND m.event = 'buy'
            AND m."at" >= c.cart AND m."at" < c.entry + INTERVAL 7 DAY GROUP BY ALL
        ), times AS (
            SELECT 1 AS step, "user", 0 AS time FROM entries
            UNION ALL SELECT 2, "user", datediff('day', entry, cart) FROM carts
            UNION ALL SELECT 3, "user", datediff('day', entry, buy) FROM buys
        ), best AS (SELECT step, "user", min(time) AS time FROM times GROUP BY ALL)
        SELECT count(*), quantile_disc(time, 0.5) FROM best GROUP BY step ORDER BY step
        """
    ).fetchall()
    assert [(step.count, step.median) for step in found.steps] == rows
    assert rows[2][0] > 10


@pytest.mark.exhaustive
@ON_SOME_STORES
@pytest.mark.parametrize(
    "begin", [datetime(2025, 3, 29, 18), datetime(2025, 10, 25, 18), datetime(2024, 12, 31, 18)]
)
async def test_hours_of_the_wall_clock(
    facade: Facade, store: Store, clock: list[datetime], begin: datetime
) -> None:
    hour = timedelta(hours=1)
    marks = some_events(hour, 30, begin)
    # The clock skips an hour, in which nobody can be marked.
    marks = marks[marks["at"] != datetime(2025, 3, 30, 2)]
    clock.append(begin + 28 * hour + timedelta(minutes=20))
    async with facade.open(store.url, timezone=ZONE, track_hourly=True) as tally:
        await fill(tally, marks)
        steps = [did(event, marks) for event in ("signup", "cart", "buy")]
        for since, until, window in (
            (begin, None, 4),
            (begin + hour / 2, begin + 20 * hour, 7),
            (begin.date(), begin + 5 * hour, 26),
        ):
            found = await tally.funnel(
                ["signup", "cart", "buy"],
                since=since,
                until=until,
                window=window * hour,
                resolution="hour",
                segments={"premium": tally.unique("premium")},
            )
            start = (
                since if isinstance(since, datetime) else datetime.combine(since, begin.min.time())
            )
            end = clock[-1] if until is None else until
            wanted = functools.partial(brute_force, steps, start, end, window, clock[-1], hour)
            check_numbers(found, wanted())
            check_numbers(found.segments["premium"], wanted(segment=lambda _: PREMIUM))
            assert found.complete_until == min(
                begin + (29 - window) * hour, begin + 29 * hour if until is None else until
            )


async def test_the_hour_that_occurs_twice_is_one(
    facade: Facade, plain_store: Store, clock: list[datetime]
) -> None:
    clock.append(datetime(2025, 10, 26, 12))
    async with facade.open(plain_store.url, timezone=ZONE, track_hourly=True) as tally:
        # 02:30 in summer, and an hour later 02:30 in winter; then 03:30.
        utc = [datetime(2025, 10, 26, at, 30, tzinfo=timezone.utc) for at in range(3)]
        await tally.mark_event("a", 1, now=utc[1])
        await tally.mark_event("b", 1, now=utc[0])
        await tally.mark_event("a", 2, now=utc[0])
        await tally.mark_event("b", 2, now=utc[2])
        found = await tally.funnel(
            ["a", "b"], since=date(2025, 10, 26), window=timedelta(hours=2), resolution="hour"
        )
        assert [step.times for step in found.steps] == [(2, 0), (1, 1)]


async def test_shards_mapped_ids_and_a_replica(
    facade: Facade, redis_store: Store, clock: list[datetime]
) -> None:
    options: Any = {"since": FIRST, "window": timedelta(days=5)}
    wanted = brute_force([SIGNUP, CART, BUY], datetime(2025, 3, 17), clock[0], 5, clock[0])
    databases: list[dict[str, Any]] = [
        {"shards": 4},
        {"user_ids": str},
        {"user_ids": str, "shards": 3},
        {"read_from": redis_store.url},
    ]
    for number, made in enumerate(databases):
        async with facade.open(
            redis_store.url, timezone=ZONE, prefix=f"p{number}_", **made
        ) as tally:
            await fill(tally, ids="user-{}".format if "user_ids" in made else int)
            found = await tally.funnel(
                ["signup", "cart", "buy"], **options, segments={"p": tally.unique("premium")}
            )
            check_numbers(found, wanted)
            users = await members(tally, found.segments["p"].steps[1].users)
            assert len(users) == found.segments["p"].steps[1].count > 10


async def test_empty_funnels_and_unknown_events(
    facade: Facade, store: Store, clock: list[datetime]
) -> None:
    async with facade.open(store.url, timezone=ZONE) as tally:
        await tally.mark_event("known", 3, now=date(2020, 1, 1))
        await tally.mark_event("b", 3, now=date(2025, 4, 1))
        nothing = await tally.funnel(["known", "b", "misspelt"], since=date(2025, 4, 1))
        assert [step.count for step in nothing.steps] == [0, 0, 0]
        assert [step.of_first for step in nothing.steps] == [None] * 3
        assert [step.median for step in nothing.steps] == [None] * 3
        assert [step.times for step in nothing.steps] == [(0,) * 7] * 3
        assert nothing.unknown_events == ("misspelt",)
        assert "“misspelt”" in nothing.to_html()
        some = await tally.funnel(["b", "misspelt", "b"], since=date(2025, 4, 1))
        assert [step.count for step in some.steps] == [1, 0, 0]
        assert some.unknown_events == ("misspelt",)


async def test_rows_and_readable_names(
    facade: Facade, plain_store: Store, clock: list[datetime]
) -> None:
    async with facade.open(plain_store.url, timezone=ZONE) as tally:
        await tally.mark_many("signup", [1, 2, 3, 4], now=date(2025, 4, 1))
        await tally.mark_many("buy", [1, 2], now=date(2025, 4, 3))

        def on_the_web(period: Period) -> Any:
            return tally.during("buy", period)

        found = await tally.funnel(
            ["signup", "buy", on_the_web],
            since=date(2025, 4, 1),
            until=date(2025, 4, 8),
            segments={"one": tally.day("buy", date(2025, 4, 3)) - tally.day("buy")},
            labels={"signup": "Sign-up & more"},
        )
        assert [step.name for step in found.steps] == ["signup", "buy", "on_the_web"]
        rows = found.to_rows()
        assert [row["segment"] for row in rows] == [None] * 3 + ["one"] * 3
        assert rows[1] == {
            "segment": None,
            "since": "2025-04-01T00:00:00",
            "until": "2025-04-08T00:00:00",
            "step": 2,
            "name": "buy",
            "count": 2,
            "of_previous": 0.5,
            "of_first": 0.5,
            "median": 2,
            "unfinished": 0,
        }
        assert found.to_csv().splitlines()[2] == (
            ",2025-04-01T00:00:00,2025-04-08T00:00:00,2,buy,2,0.5,0.5,2,0"
        )
        assert str(found.to_pandas()["median"].dtype) == "Int64"
        page = found.to_html()
        for text in (
            "<h1>Sign-up &amp; more → buy → on_the_web</h1>",
            "from 2025-04-01 to 2025-04-07",
            "within 7 days",
            "All users",
            "50.0%",
        ):
            assert text in page, text
        assert "segment" not in (await tally.funnel(["signup"], since=FIRST)).to_rows()[0]
        of_week = await tally.funnel(["signup"], moment=FIRST, labels={"signup": "Sign-up"})
        assert "<h1>Sign-up</h1>" in of_week.to_html()


async def test_wrong_arguments_before_anything_is_sent(
    facade: Facade, clock: list[datetime]
) -> None:
    day = timedelta(days=1)
    async with (
        facade.open("redis://localhost:1", timezone=ZONE, max_bitmaps=400) as tally,
        facade.open("redis://localhost:2") as other,
    ):

        def of_other(period: Period) -> Any:
            return other.during("a", period)

        cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
            ([], {}, InvalidValueError, "one step or more"),
            ("abc", {}, InvalidTypeError, "several names"),
            (["a", 5], {}, InvalidTypeError, "a step is"),
            (["a", ""], {}, InvalidValueError, "non-empty"),
            (["a", lambda _: "b"], {}, InvalidTypeError, "not an event set"),
            (["a", of_other], {}, InvalidValueError, "another database"),
            (["a", other.day("a")], {}, InvalidValueError, "another database"),
            (["a"], {"window": 7}, InvalidTypeError, "timedelta"),
            (["a"], {"window": 0 * day}, InvalidValueError, "one or more whole days"),
            (["a"], {"window": -day}, InvalidValueError, "one or more whole days"),
            (["a"], {"window": day / 2}, InvalidValueError, "resolution='hour'"),
            (
                ["a"],
                {"window": timedelta(minutes=90), "resolution": "hour"},
                InvalidValueError,
                "whole hours",
            ),
            (["a"], {"resolution": "week"}, InvalidValueError, "'day' or 'hour'"),
            (["a"], {"resolution": ["day"]}, InvalidValueError, "'day' or 'hour'"),
            (["a"], {"since": date(2025, 4, 10)}, InvalidValueError, "in the future"),
            (["a"], {"until": FIRST}, InvalidValueError, "since must be before until"),
            (["a"], {"until": FIRST - day}, InvalidValueError, "since must be before until"),
            (["a"], {"since": "2025-01-01"}, InvalidTypeError, "since must be"),
            (["a"], {"until": 5}, InvalidTypeError, "until must be"),
            (["a"], {"by": "week"}, InvalidValueError, "since goes without by, anchor and moment"),
            (
                ["a"],
                {"moment": FIRST},
                InvalidValueError,
                "since goes without by, anchor and moment",
            ),
            (["a"], {"since": None, "window": day}, InvalidValueError, "window without since"),
            (["a"], {"since": None, "until": FIRST}, InvalidValueError, "until without since"),
            (
                ["a"],
                {"since": None, "resolution": "day", "segments": {}},
                InvalidValueError,
                "resolution and segments without since",
            ),
            (["a", lambda _: None], {"since": None}, InvalidTypeError, "not an event set"),
            (["a"], {"segments": {"x": 5}}, InvalidTypeError, "not an event set"),
            (["a"], {"segments": [5]}, InvalidTypeError, "segments must be a dict"),
            (["a"], {"labels": {"a": 5}}, InvalidTypeError, "labels"),
            (["a"], {"since": date(2020, 1, 1)}, InvalidValueError, "too many days times"),
            (["a"] * 401, {}, InvalidValueError, "too many steps"),
            (["a"], {"window": 401 * day}, InvalidValueError, "too many days of the window"),
            (itertools.repeat("a"), {}, InvalidValueError, "too many steps"),
            (
                [tally.between("a", date(1900, 1, 1), date(2025, 1, 1)), "a"],
                {},
                InvalidValueError,
                "too many",
            ),
            (
                ["a", "b"],
                {"since": date(2025, 1, 1), "window": 90 * day},
                InvalidValueError,
                "too many entries times days of the window",
            ),
        ]
        for steps, options, error, text in cases:
            with pytest.raises(error, match=text):
                await tally.funnel(steps, **{"since": FIRST, **options})


def test_values() -> None:
    step = OrderedStep("a", 1, 1.0, 1.0, 0, (1,))
    with pytest.raises(InvalidValueError, match="no report of a tally has made this OrderedStep"):
        step.users  # noqa: B018
    assert "times" not in repr(step)
    made = functools.partial(
        OrderedFunnel,
        datetime(2025, 1, 1),
        datetime(2025, 1, 2),
        timedelta(days=1),
        "day",
        (step,),
        datetime(2025, 1, 2),
    )
    assert made(0) == made(0) != made(1)
    with pytest.raises(InvalidValueError, match="no report of a tally has made"):
        made(0).unfinished_users  # noqa: B018
    assert made(0).segments == {}
