"""Retention by segments, in brackets and for own periods, against pandas; both facades."""

from __future__ import annotations

import copy
import functools
import pickle
import random
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facades import ON_SOME_STORES
from tallymark import (
    InvalidTypeError,
    InvalidValueError,
    Period,
    Retention,
    SyncTally,
)
from tallymark._core.calendars import DaySpan, calendar
from tallymark._core.periods import Granularity
from tallymark._reading import bits, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from facades import Facade
    from stores import Store

#: The clock of Berlin is set forward on 2025-03-30, and 2024-12-30 is in the first week of 2025.
ZONE = "Europe/Berlin"
FIRST = date(2024, 12, 20)
DAYS = 110
UNTIL = datetime(2025, 4, 2, 15)
SPREAD = 5000
PLATFORMS = {"ios": 0.4, "android": 0.5, "rare": 0.002}


def events() -> Any:
    """Return who did what on which day; some users were marked by mistake, and unmarked."""
    chance = random.Random(11)
    rows = []
    for distance in range(DAYS):
        day = FIRST + timedelta(days=distance)
        # Some days have users with low ids only, so that bitmaps have different lengths.
        spread = SPREAD if distance % 3 else 200
        for event, number in (("signup", 25), ("active", 120)):
            rows += [(event, day, user) for user in chance.sample(range(spread), number)]
    return pd.DataFrame(rows, columns=["event", "day", "user"])


def platforms() -> dict[str, set[int]]:
    chance = random.Random(12)
    return {
        name: {user for user in range(SPREAD) if chance.random() < share}
        for name, share in PLATFORMS.items()
    }


EVENTS, FLAGS = events(), platforms()


def groups() -> Any:
    return EVENTS.groupby(["event", "day"])


async def fill(tally: Any) -> None:
    for (event, day), rows in groups():
        await tally.mark_many(event, rows["user"].to_numpy(), now=day)
        mistaken = [user for user in range(40, 50) if user not in set(rows["user"])]
        await tally.mark_many(event, mistaken, now=day)
        await tally.unmark_many(event, mistaken, now=day, exact=True)
    async with tally.transaction() as transaction:
        for name, users in FLAGS.items():
            for user in users:
                transaction.mark_unique(name, user)


class Table(NamedTuple):
    """The numbers of a retention table."""

    sizes: list[int]
    counts: list[list[int | None]]


def expected(
    begin_of: Callable[[date], date],
    rows: int,
    columns: Sequence[tuple[int, int]],
    *,
    unbounded: bool,
    first_time: bool,
    segment: Callable[[date], set[int]] | None,
) -> Table:
    """Return a table as pandas computes it.

    Arguments:
        begin_of: returns the first day of the period of a day.
        rows: how many cohorts there are.
        columns: the first and the last offset of each.
        unbounded, first_time: as for `retention`.
        segment: returns the users of a segment, given the first day of a cohort.
    """
    marks = EVENTS.assign(period=EVENTS["day"].map(begin_of))
    begins = [begin_of(UNTIL.date())]
    while len(begins) <= rows:
        begins.append(begin_of(begins[-1] - timedelta(days=1)))
    starts = begins[:0:-1]  # of the complete periods
    signups = marks[marks["event"] == "signup"]
    if first_time:
        signups = signups.sort_values("day").drop_duplicates("user")
    active = marks[marks["event"] == "active"]
    sizes, counts = [], []
    for row, start in enumerate(starts):
        cohort = set(signups[signups["period"] == start]["user"])
        if segment is not None:
            cohort &= segment(start)
        sizes.append(len(cohort))
        cells: list[int | None] = []
        for first, last in columns:
            if row + last >= rows:
                cells.append(None)
                continue
            wanted = starts[row + first :] if unbounded else starts[row + first : row + last + 1]
            cells.append(len(cohort & set(active[active["period"].isin(wanted)]["user"])))
        counts.append(cells)
    return Table(sizes, counts)


def numbers(table: Retention) -> Table:
    return Table(list(table.sizes), [list(row) for row in table.counts])


BEGINS: dict[str, Callable[[date], date]] = {
    "day": lambda day: day,
    "week": lambda day: day - timedelta(days=day.weekday()),
    "month": lambda day: day.replace(day=1),
}
SUNDAY = date(2023, 1, 1)


def begin_of_span(days: int, anchor: date) -> Callable[[date], date]:
    return lambda day: day - timedelta(days=(day - anchor).days % days)


def flagged_weekly(tally: Any) -> Callable[[Period], Any]:
    """Return a segment that depends on the cohort: users on iOS, but Android in January."""
    return lambda period: tally.unique("android" if period.start.month == 1 else "ios")


def always(users: set[int], _: date) -> set[int]:
    return users


def weekly_users(start: date) -> set[int]:
    return FLAGS["android" if start.month == 1 else "ios"]


#: The users of each segment, given the first day of a cohort.
USERS_OF: dict[str, Callable[[date], set[int]]] = {
    **{name: functools.partial(always, users) for name, users in FLAGS.items()},
    "by month": weekly_users,
}

#: by, anchor, cohorts, brackets, mode, first_time.
CASES: tuple[Any, ...] = (
    ("day", None, 40, (1, 3, 7, 14, 30), "classic", False),
    ("day", None, 12, (5,), "unbounded", True),
    ("week", None, 9, None, "classic", True),
    ("week", None, 13, (1, 4, 8), "unbounded", False),
    ("month", None, 3, None, "classic", False),
    (timedelta(days=7), SUNDAY, 10, None, "classic", True),
    (timedelta(days=28), date(2025, 3, 3), 3, (2,), "unbounded", True),
    (timedelta(days=10), date(2031, 1, 1), 8, (1, 2, 5), "classic", False),
)


@functools.cache
def expected_of(case: Any, segment: str | None) -> Table:
    """Return the table of a case as pandas computes it, once for all stores."""
    by, anchor, rows, brackets, mode, first_time = case
    columns = [(offset, offset) for offset in range(7)]
    if brackets is not None:
        firsts = [1, *(last + 1 for last in brackets)]
        columns = [(0, 0), *zip(firsts, brackets, strict=False)]
    return expected(
        BEGINS[by] if isinstance(by, str) else begin_of_span(by.days, anchor),
        rows,
        columns,
        unbounded=mode == "unbounded",
        first_time=first_time,
        segment=None if segment is None else USERS_OF[segment],
    )


@pytest.mark.exhaustive
@ON_SOME_STORES
async def test_segments_brackets_and_own_periods_agree_with_pandas(
    facade: Facade, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with facade.open(store.url, timezone=ZONE) as tally:
        await fill(tally)
        before = store.names()
        segments: Any = {name: tally.unique(name) for name in FLAGS}
        segments["by month"] = flagged_weekly(tally)
        for case in CASES:
            by, anchor, rows, brackets, mode, first_time = case
            options: Any = {
                "by": by,
                "anchor": anchor,
                "cohorts": rows,
                "until": UNTIL,
                "mode": mode,
                "first_time": first_time,
                **({"periods": 6} if brackets is None else {"brackets": brackets}),
            }
            table = await tally.retention("signup", "active", segments=segments, **options)
            assert numbers(table) == expected_of(case, None)
            assert list(table.segments) == list(segments)
            for name, part in table.segments.items():
                assert numbers(part) == expected_of(case, name), name
                assert part.segment == name
            # A table without segments has the same numbers.
            alone = await tally.retention("signup", "active", **options)
            assert numbers(alone) == numbers(table)
            # In windows of 512 bits, with a request for seven bitmaps: the same.
            for limit in ("_ALL_WINDOWS", "_MIN_WINDOW", "_MAX_WINDOW"):
                monkeypatch.setattr(sweep, limit, 64)
            monkeypatch.setattr(sweep, "_MAX_FETCH", 7 * 64)
            again = await tally.retention("signup", "active", segments=segments, **options)
            assert again == table
            monkeypatch.undo()
        assert store.names() == before


@pytest.mark.exhaustive
@ON_SOME_STORES
async def test_a_cell_has_the_event_set_of_its_users(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, timezone=ZONE) as tally:
        await fill(tally)
        segments: Any = {"ios": tally.unique("ios"), "by month": flagged_weekly(tally)}
        for options in (
            {"first_time": True, "mode": "unbounded", "periods": 3},
            {"brackets": [1, 3], "by": timedelta(days=7), "anchor": SUNDAY},
            {"brackets": [2, 3], "mode": "unbounded"},
        ):
            table = await tally.retention(
                "signup", "active", cohorts=4, until=UNTIL, segments=segments, **options
            )
            for part in (table, *table.segments.values()):
                for row in part.cohorts:
                    assert await tally.count(row.users) == row.size
                    for cell in row.cells:
                        if cell.users is None:
                            assert cell.count is None
                        else:
                            assert await tally.count(cell.users) == cell.count
            copied = pickle.loads(pickle.dumps(table))
            assert copied == copy.deepcopy(table) == table
            assert copied.cohorts[0].cells[0].users == table.cohorts[0].cells[0].users
            assert hash(copied) == hash(table)


@pytest.mark.exhaustive
@pytest.mark.parametrize("algebra", [bits.Ints, None])
def test_any_arguments_agree_with_pandas(
    algebra: Any, memory_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if algebra is not None:
        made = algebra()
        for module in ("_reading.sweep", "_reading.expressions", "_reports.retention_counts"):
            monkeypatch.setattr(f"tallymark.{module}.algebra", lambda: made)
    with SyncTally.from_url(memory_store.url, timezone=ZONE) as tally:
        for (event, day), rows in groups():
            tally.mark_many(event, rows["user"].to_numpy(), now=day)
        with tally.transaction() as transaction:
            for name, users in FLAGS.items():
                for user in users:
                    transaction.mark_unique(name, user)
        segments: Any = {
            "rare": tally.unique("rare"),
            "not ios": lambda period: tally.during("signup", period) - tally.unique("ios"),
        }

        @settings(deadline=None, max_examples=25)
        @given(
            st.integers(1, 20),
            st.dates(date(2020, 1, 1), date(2030, 1, 1)),
            st.integers(1, 8),
            st.sets(st.integers(1, 9), min_size=1),
            st.booleans(),
            st.booleans(),
        )
        def check(
            days: int, anchor: date, rows: int, lasts: set[int], unbounded: bool, first: bool
        ) -> None:
            brackets = sorted(lasts)
            table = tally.retention(
                "signup",
                "active",
                by=timedelta(days=days),
                anchor=anchor,
                cohorts=rows,
                until=UNTIL,
                mode="unbounded" if unbounded else "classic",
                first_time=first,
                segments=segments,
                brackets=brackets,
            )
            columns = [(0, 0), *zip([1, *(last + 1 for last in brackets)], brackets, strict=False)]
            for part, segment in (
                (table, None),
                (table.segments["rare"], lambda _: FLAGS["rare"]),
                (table.segments["not ios"], lambda _: set(range(SPREAD)) - FLAGS["ios"]),
            ):
                assert numbers(part) == expected(
                    begin_of_span(days, anchor),
                    rows,
                    columns,
                    unbounded=unbounded,
                    first_time=first,
                    segment=segment,
                )

        check()


@pytest.mark.exhaustive
async def test_first_ever_is_decided_by_all_that_a_function_reads(
    facade: Facade, store: Store
) -> None:
    async with facade.open(store.url) as tally:
        await tally.mark_many("v1", [1, 2], now=date(2025, 6, 1))
        await tally.mark_many("v2", [1, 3, 4], now=date(2025, 11, 17))
        await tally.mark_unique("legacy", 3)
        autumn = datetime(2025, 9, 1)
        until = date(2025, 11, 24)

        def renamed(period: Period) -> Any:
            return tally.during("v1" if period.start < autumn else "v2", period)

        def flagged(period: Period) -> Any:
            return tally.unique("legacy") if period.start < autumn else tally.during("v2", period)

        def later(period: Period) -> Any:
            """Read what happens six months after the period."""
            return tally.during("v1", period.shift(6 if period.start < autumn else -5))

        for by, periods in (("week", 2), ("week", 40), ("day", 7), ("month", 3)):
            options: Any = {"by": by, "until": date(2025, 12, 1) if by == "month" else until}
            for function, known in ((renamed, 1), (flagged, 1)):
                report = await tally.lifecycle(function, periods=periods, **options)
                row = next(row for row in report.rows[::-1] if row.active)
                assert (row.new.count, row.resurrected.count) == (3 - known, known)
                table = await tally.retention(
                    function, function, periods=periods, first_time=True, **options
                )
                assert [size for size in table.sizes if size][-1] == 3 - known
        options = {"by": "month", "until": date(2025, 12, 1)}
        table = await tally.retention(later, later, periods=1, first_time=True, **options)
        assert table.sizes == (0,)  # users 1 and 2 were in the cohort of December 2024


async def test_the_sets_of_one_cohort_share_bitmaps(redis_store: Store) -> None:
    """A bitmap is fetched once, or for functions once for each cohort, not for each segment."""
    with SyncTally.from_url(redis_store.url) as tally:
        for distance in range(8):
            tally.mark_many("a", [1, 2, 3], now=date(2025, 1, 1) + timedelta(days=distance))
        options: Any = {"by": "day", "periods": 1, "cohorts": 7, "until": date(2025, 1, 9)}

        def fetched(**segments: Any) -> int:
            redis_store.raw.config_resetstat()
            tally.retention("a", "a", segments=segments, **options)
            stats = redis_store.raw.info("commandstats")
            return int(stats["cmdstat_getrange"]["calls"])

        def of(flag: str) -> Any:
            return lambda period: tally.during("a", period) & tally.unique(flag)

        none = fetched()
        flags = {f"s{number}": tally.unique(f"s{number}") for number in range(5)}
        assert fetched(**flags) == none + 5
        # Of 7 cohorts and 5 segments, each of two bitmaps, nothing shared would be 70 more.
        assert fetched(**{name: of(name) for name in flags}) <= none + 50


@pytest.mark.parametrize("shards", [None, 16])
async def test_memory_is_bounded(plain_store: Store, shards: int | None) -> None:
    """However many windows an accumulator holds: they get shorter, and fewer shards are swept."""
    with SyncTally.from_url(plain_store.url, shards=shards) as tally:
        context = tally.backend.context
        sets = [tally.day("a", FIRST)]
        for held in (1, 37, 300, 2_000):
            query = sweep.Sweep.of(context, sets, bounding=1, held=held)
            try:
                while True:
                    next(query)
            except StopIteration as end:
                planned: sweep.Sweep = end.value
            assert planned.concurrency * planned._window * held <= sweep._ALL_WINDOWS
            assert planned._window >= sweep._MIN_WINDOW


async def test_averages_weighted_and_not(facade: Facade, plain_store: Store) -> None:
    async with facade.open(plain_store.url) as tally:
        for day, users in ((1, [1, 2, 3, 4]), (2, [5])):
            await tally.mark_many("signup", users, now=date(2025, 1, day))
        await tally.mark_many("active", [1, 5], now=date(2025, 1, 2))
        await tally.mark_many("active", [1], now=date(2025, 1, 3))
        table = await tally.retention(
            "signup", "active", by="day", periods=1, cohorts=3, until=date(2025, 1, 4)
        )
        # Rates of day 1: 1 of 4, 0 of 1; the cohort of the third day has no users.
        assert table.counts == ((0, 1), (1, 0), (0, None))
        assert table.averages == (1 / 5, 1 / 5)
        assert table.unweighted_averages == (1 / 2, 1 / 8)
        assert [tuple(point) for point in table.curve] == [
            ("0", 5, 1 / 5, 1 / 2),
            ("1", 5, 1 / 5, 1 / 8),
        ]
        nobody = await tally.retention("x", "y", periods=1, until=date(2025, 1, 4))
        assert nobody.unweighted_averages == (None, None)


#: The fields of a table that may be given by position.
POSITIONAL = ("cohort", "activity", "granularity", "mode", "first_time", "until", "cohorts")


async def test_rows_of_segments_and_brackets(facade: Facade, plain_store: Store) -> None:
    async with facade.open(plain_store.url) as tally:
        await tally.mark_many("signup", [1, 2], now=date(2025, 1, 1))
        await tally.mark_unique("ios", 1)
        table = await tally.retention(
            "signup",
            "signup",
            by=timedelta(days=7),
            anchor=SUNDAY,
            brackets=[2],
            cohorts=1,
            until=date(2025, 1, 5),
            segments={"ios": tally.unique("ios")},
        )
        rows = table.to_rows()
        assert rows[2] == {
            "segment": "ios",
            "cohort": "2024-12-29/P7D",
            "size": 1,
            "offset": 0,
            "last_offset": 0,
            "period": "2024-12-29/P7D",
            "count": 1,
            "rate": 1.0,
            "state": "finished",
        }
        assert [(row["segment"], row["offset"], row["last_offset"]) for row in rows] == [
            (None, 0, 0),
            (None, 1, 2),
            ("ios", 0, 0),
            ("ios", 1, 2),
        ]
        assert rows[1]["state"] == "future"
        frame = table.to_pandas()
        for brackets in ([1], [1, 2]):
            table = await tally.retention("a", "b", brackets=brackets, cohorts=1)
            assert list(table.to_rows()[0]) == [key for key in rows[0] if key != "segment"]
        table = Retention(*(getattr(table, name) for name in POSITIONAL))
        assert [row["last_offset"] for row in table.to_rows()] == [0, 1, 2]
        assert list(frame["count"].dropna()) == [2, 1]


async def test_tooltips_name_all_periods_of_a_bracket(facade: Facade, plain_store: Store) -> None:
    async with facade.open(plain_store.url) as tally:
        await tally.mark_many("signup", range(6), now=date(2025, 1, 1))
        await tally.mark_many("active", range(2), now=date(2025, 1, 2))
        await tally.mark_many("active", range(1, 5), now=date(2025, 1, 5))
        options: Any = {"by": "day", "cohorts": 5, "until": date(2025, 1, 6)}
        table = await tally.retention("signup", "active", brackets=[1, 4, 8], **options)
        page = table.to_html()
        for text in (
            "0 of 6 in 2025-01-01",
            "2 of 6 in 2025-01-02",
            "4 of 6 in 2025-01-03 to 2025-01-05",
            "2025-01-06 to 2025-01-09 is in the future",
            "2025-01-06 is in the future",
            "2025-01-05 to 2025-01-07 is not over yet",
            "no users in this cohort",
        ):
            assert f'"{text}"' in page, text
        later = await tally.retention(
            "signup", "active", brackets=[1, 4, 8], mode="unbounded", **options
        )
        page = later.to_html()
        for text in (
            "5 of 6 in 2025-01-01 or later",
            "5 of 6 in 2025-01-02 or later",
            "4 of 6 in 2025-01-03 or later",
            "2025-01-05 to 2025-01-07 is not over yet",
        ):
            assert f'"{text}"' in page, text


async def test_each_segment_has_cells_to_count(facade: Facade, plain_store: Store) -> None:
    async with facade.open(plain_store.url, max_bitmaps=24) as tally:

        async def count(segments: int) -> Retention:
            flag = tally.unique("ios")
            named = {f"segment {number}": flag for number in range(segments)}
            return await tally.retention("a", "b", by="day", periods=9, cohorts=10, segments=named)

        assert len((await count(5)).segments) == 5  # 600 cells
        with pytest.raises(InvalidValueError, match=r"too many cells .* there may be 600"):
            await count(6)


def bad_arguments() -> Iterator[tuple[dict[str, Any], type[Exception], str]]:
    yield {"by": timedelta(hours=30), "anchor": SUNDAY}, InvalidValueError, "whole days"
    yield {"by": timedelta(0), "anchor": SUNDAY}, InvalidValueError, "whole days"
    yield {"by": timedelta(days=-7), "anchor": SUNDAY}, InvalidValueError, "whole days"
    yield {"by": timedelta(days=7)}, InvalidTypeError, "anchor"
    yield {"by": timedelta(days=7), "anchor": "2025-01-01"}, InvalidTypeError, "anchor"
    yield {"by": "week", "anchor": SUNDAY}, InvalidValueError, "anchor"
    yield {"by": 7}, InvalidTypeError, "granularity"
    for by in (pd.NaT, np.timedelta64(7, "D"), 7, None):
        yield {"by": by, "anchor": SUNDAY}, InvalidTypeError, "by is a granularity or a timedelta"
    yield {"by": "fortnight", "anchor": SUNDAY}, InvalidValueError, "a granularity with periods"
    yield {"brackets": []}, InvalidValueError, "brackets"
    yield {"brackets": [0, 1]}, InvalidValueError, "brackets"
    yield {"brackets": [3, 3]}, InvalidValueError, "brackets"
    yield {"brackets": [3, 1]}, InvalidValueError, "brackets"
    yield {"brackets": 3}, InvalidTypeError, "brackets"
    yield {"brackets": "13"}, InvalidTypeError, "brackets"
    yield {"brackets": [1.5]}, InvalidTypeError, "bracket"
    yield {"brackets": [1], "periods": 3}, InvalidValueError, "periods"
    yield {"brackets": [1 << 40]}, InvalidValueError, "periods"
    yield {"segments": ["ios"]}, InvalidTypeError, "segments"
    yield {"segments": {"ios": "ios"}}, InvalidTypeError, "event set"
    yield {"segments": {"": lambda _: None}}, InvalidValueError, "segment"
    yield {"segments": {7: lambda _: None}}, InvalidTypeError, "segment"
    yield {"segments": {"ios": lambda _: None}}, InvalidTypeError, "event set"


@pytest.mark.parametrize(("options", "error", "text"), list(bad_arguments()))
async def test_bad_arguments_are_named(
    facade: Facade, options: Any, error: type[Exception], text: str
) -> None:
    # Nothing is sent: there is no server.
    async with facade.open("redis://localhost:1") as tally:
        with pytest.raises(error, match=text):
            await tally.retention("signup", "active", **options)


async def test_a_segment_of_another_database_is_refused(
    facade: Facade,
) -> None:
    url = "redis://localhost:1"
    async with facade.open(url) as tally, facade.open(url, prefix="other_") as other:
        with pytest.raises(InvalidValueError, match="another prefix"):
            await tally.retention("a", "b", segments={"x": other.unique("x")})


def test_a_period_of_days() -> None:
    span = DaySpan(Granularity.DAY, datetime(2024, 12, 29), 7)
    assert str(span) == "2024-12-29/P7D"
    assert span.end == datetime(2025, 1, 5)
    assert span.shift(-1).start == datetime(2024, 12, 22)
    assert [str(day) for day in span.days()][::6] == ["2024-12-29", "2025-01-04"]
    assert span != Period(Granularity.DAY, datetime(2024, 12, 29))
    assert pickle.loads(pickle.dumps(span)) == span
    with pytest.raises(InvalidValueError, match="no bitmap"):
        span.suffix  # noqa: B018
    with pytest.raises(InvalidValueError, match="9999"):
        span.shift(10**6)
    with pytest.raises(InvalidValueError, match="9999"):
        span.shift(10**12)
    for arguments in (
        (Granularity.WEEK, datetime(2024, 12, 30), 7),
        (Granularity.DAY, datetime(2024, 12, 30, 1), 7),
        (Granularity.DAY, datetime(2024, 12, 30), 0),
    ):
        with pytest.raises(InvalidValueError):
            DaySpan(*arguments)


@given(st.integers(1, 400), st.datetimes(), st.datetimes())
def test_each_moment_is_in_one_period(days: int, anchor: datetime, moment: datetime) -> None:
    spans = calendar(timedelta(days=days), anchor)
    try:
        period = spans.containing(moment)
        end = period.end
    except InvalidValueError:  # at the ends of the years 1 to 9999
        assert min(moment - datetime.min, datetime.max - moment) < timedelta(days=days)
        return
    assert period.start <= moment < end
    assert (period.start.toordinal() - anchor.toordinal()) % days == 0
