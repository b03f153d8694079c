"""Event sets as values: how they read, combine, move, and which bitmaps they are made of."""

from __future__ import annotations

import copy
import itertools
import pickle
from dataclasses import FrozenInstanceError
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moments import naive_moments
from tallymark import (
    Granularity,
    InvalidTypeError,
    InvalidValueError,
    Period,
    all_of,
    any_of,
)
from tallymark._core.context import Context, EventSets
from tallymark._core.options import Options
from tallymark._core.unions import cover
from tallymark._reports.retention import Cell, CellState

#: A Monday.
NOW = datetime(2026, 11, 23, 9, 30)


class Backend(NamedTuple):
    context: Context


class Builder(EventSets):
    def __init__(self, database: str = "db", **options: Any) -> None:
        clock = (NOW - datetime(1970, 1, 1)).total_seconds
        self.backend = Backend(Context.of(database, Options(**options), clock))


tally = Builder()
anything: Any = tally  # which type checkers let pass
day, week, month = tally.day("active"), tally.week("active"), tally.month("active")
premium = tally.unique("premium")


def keys(event_set: Any) -> list[str]:
    return [bitmap.key.decode() for bitmap in event_set.bitmaps()]


@pytest.mark.parametrize(
    ("event_set", "key"),
    [
        (tally.hour("active"), "trackist_active_2026-11-23-9"),
        (day, "trackist_active_2026-11-23"),
        (week, "trackist_active_W2026-48"),
        (month, "trackist_active_2026-11"),
        (premium, "trackist_premium_u"),
        (tally.day("active", datetime(2024, 12, 30)), "trackist_active_2024-12-30"),
        (tally.week("active", datetime(2024, 12, 30)), "trackist_active_W2025-1"),
        (Builder(prefix="x:").day("active"), "x:active_2026-11-23"),
        (Builder(timezone="Asia/Tokyo").hour("active"), "trackist_active_2026-11-23-18"),
    ],
)
def test_each_names_its_bitmap(event_set: Any, key: str) -> None:
    assert keys(event_set) == [key]


def test_a_year_without_a_bitmap_is_its_months() -> None:
    year = tally.year("active")
    assert keys(year) == [f"trackist_active_2026-{number}" for number in range(1, 13)]
    assert keys(year.prev())[0] == "trackist_active_2025-1"
    assert (year.start, year.end) == (datetime(2026, 1, 1), datetime(2027, 1, 1))


def test_a_year_with_a_bitmap_is_asked_for_its_months_too() -> None:
    """What was marked before the option was switched on, or by bitmapist, has no year."""
    months = [f"trackist_active_2026-{number}" for number in range(1, 13)]
    year = Builder(track_yearly=True).year("active")
    assert keys(year) == ["trackist_active_2026", *months]
    assert keys(year.at(year.origin)) == keys(year)
    assert repr(year) == "year('active', 2026)"
    last = Builder(track_yearly=True).year("active", datetime(9999, 12, 31))
    assert len(keys(last)) == 13


def test_a_period_that_expires_before_its_parts_is_asked_for_them_too() -> None:
    short = Builder(expire={"week": timedelta(days=2)})
    days = [f"trackist_active_2026-11-{number}" for number in range(23, 30)]
    assert keys(short.week("active")) == ["trackist_active_W2026-48", *days]
    assert keys(short.week("active").next())[0] == "trackist_active_W2026-49"
    assert keys(short.month("active")) == keys(month)
    assert short.week("active").start == week.start
    assert short.week("active").end == week.end
    assert repr(short.week("active")) == repr(week)
    assert short.week("active") == Builder(expire={"week": timedelta(days=2)}).week("active")
    # A year takes what its months cannot tell.
    no_months = Builder(expire={"month": timedelta(days=2)})
    assert "trackist_active_W2026-48" in keys(no_months.year("active"))
    # Hours do, where the option says that they are marked.
    short_days = {"day": timedelta(days=2)}
    for hourly in (None, False):
        without = Builder(expire=short_days, track_hourly=hourly)
        assert keys(without.day("active")) == keys(day)
    hours = keys(Builder(expire=short_days, track_hourly=True).day("active"))
    assert len(hours) == 25
    assert {"trackist_active_2026-11-23", "trackist_active_2026-11-23-9"} < set(hours)


def test_they_read_like_what_they_are() -> None:
    assert repr(day) == "day('active', 2026-11-23)"
    assert repr(tally.hour("active")) == "hour('active', 2026-11-23T09)"
    assert repr(week) == "week('active', 2026-W48)"
    assert repr(month - day) == "month('active', 2026-11) - day('active', 2026-11-23)"
    assert repr((day | week) & premium) == (
        "(day('active', 2026-11-23) | week('active', 2026-W48)) & unique('premium')"
    )
    assert repr(tally.year("a")) == "year('a', 2026)"
    assert repr(tally.last("a", 7)) == "between('a', 2026-11-17, 2026-11-24)"


def test_they_are_values() -> None:
    assert day == tally.day("active")
    assert hash(day) == hash(tally.day("active"))
    assert day not in {day.prev(), week, tally.day("other"), premium}
    assert {(month - day) & premium: 1} == {(tally.month("active") - day) & premium: 1}
    assert month - day != day - month
    with pytest.raises(AttributeError):
        anything.day("active").event = "other"


def test_they_take_no_attributes() -> None:
    monday = Period.containing(Granularity.DAY, NOW)
    cell = Cell(monday, CellState.FUTURE, None, None)
    day = tally.day("a")
    for value in (day, day & tally.unique("b"), tally.last("a"), tally.year("a"), cell):
        for name in ("event", "operator", "period", "x", "__doc__"):
            before = getattr(value, name, None)
            with pytest.raises(FrozenInstanceError, match="cannot assign to field"):
                setattr(value, name, 1)
            with pytest.raises(FrozenInstanceError, match="cannot delete field"):
                delattr(value, name)
            assert getattr(value, name, None) is before
        assert (
            copy.copy(value) == copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == value
        )


def test_chains_stay_flat_and_differences_keep_their_order() -> None:
    parts = [day.shift(count) for count in range(2000)]
    chain = parts[0]
    for part in parts[1:]:
        chain = chain | part
    assert chain == any_of(parts)
    assert len(keys(chain)) == 2000
    assert repr(day - week - month) == f"{day!r} - {week!r} - {month!r}"
    assert repr(day - (week - month)) == f"{day!r} - ({week!r} - {month!r})"
    assert repr(day & (week & month)) == repr(day & week & month)


def test_any_of_and_all_of() -> None:
    assert any_of(iter([day, week, day])) == day | week
    assert all_of([day]) == day
    many: Any
    for many in (any_of, all_of):
        with pytest.raises(InvalidValueError, match="one event set or more"):
            many([])
        with pytest.raises(InvalidTypeError, match="iterable"):
            many(day)
        with pytest.raises(InvalidTypeError, match="not an event set"):
            many([day, "active"])


def test_shifts_go_through_expressions_each_in_its_own_unit() -> None:
    mixed = ((month & premium) - day).shift(-2)
    assert mixed == (tally.month("active", datetime(2026, 9, 1)) & premium) - tally.day(
        "active", datetime(2026, 11, 21)
    )
    assert mixed.next().next() == (month & premium) - day
    assert tally.last("a").prev() == tally.between(
        "a", datetime(2026, 9, 29), datetime(2026, 10, 27)
    )
    assert premium.prev() == premium
    wrong: Any
    for wrong in ("1", 1.0, True, None):
        for event_set in (day, premium, month - day, tally.year("a"), tally.last("a")):
            with pytest.raises(InvalidTypeError, match="count must be an int"):
                event_set.shift(wrong)
    for event_set in (day, tally.year("a"), tally.last("a"), day | premium):
        with pytest.raises(InvalidValueError, match="years 1 to 9999"):
            event_set.shift(10**8)


def test_start_and_end() -> None:
    assert (day.start, day.end) == (datetime(2026, 11, 23), datetime(2026, 11, 24))
    both = month | week.shift(2)
    assert (both.start, both.end) == (datetime(2026, 11, 1), datetime(2026, 12, 14))
    assert (premium.start, premium.end) == (None, None)
    assert ((premium & day).start, (premium & premium).end) == (day.start, None)
    ranged = tally.between("a", datetime(2026, 11, 1), datetime(2026, 11, 23, 9))
    assert (ranged.start, ranged.end) == (datetime(2026, 11, 1), datetime(2026, 11, 24))


def test_sets_of_different_databases_do_not_mix() -> None:
    for other in (Builder("other").day("active"), Builder(prefix="x_").day("active")):
        combinations: list[Any] = [
            lambda: day & other,  # noqa: B023
            lambda: any_of([day, other]),  # noqa: B023
            lambda: day - (other | other.prev()),  # noqa: B023
        ]
        for combine in combinations:
            with pytest.raises(InvalidValueError, match="different databases or prefixes"):
                combine()
    assert Builder(track_hourly=True, max_user_id=7).day("active") == day


def test_there_is_no_complement_and_no_truth() -> None:
    one: Any = day
    complement: Any = lambda: ~one  # noqa: E731
    with pytest.raises(InvalidTypeError, match="everybody - this"):
        complement()
    wrongs: list[Any] = [lambda: one and week, lambda: not one, lambda: bool(one | week)]
    for wrong in wrongs:
        with pytest.raises(InvalidTypeError, match="is_empty"):
            wrong()
    others: list[Any] = [lambda: one & "week", lambda: 123 in one, lambda: len(one)]
    for wrong in others:
        with pytest.raises(TypeError):
            wrong()


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: anything.day(""), InvalidValueError, "event must be"),
        (lambda: anything.unique("a\n"), InvalidValueError, "control characters"),
        (lambda: anything.year(3), InvalidTypeError, "event must be"),
        (lambda: anything.last(b"a"), InvalidTypeError, "event must be"),
        (lambda: anything.day("a", "2026"), InvalidTypeError, "moment must be a date or datetime"),
        (lambda: anything.during("a", NOW), InvalidTypeError, "takes a Period"),
        (lambda: anything.between("a", NOW, None), InvalidTypeError, "start and for end"),
        (
            lambda: anything.between("a", NOW.date(), NOW.date()),
            InvalidValueError,
            "before it ends",
        ),
        (lambda: anything.between("a", "x", NOW), InvalidTypeError, "start must be a date"),
        (lambda: anything.last("a", 0), InvalidValueError, "days must be 1 or more"),
        (lambda: anything.last("a", 2.0), InvalidTypeError, "days must be an int"),
        (lambda: anything.last("a", 10**9), InvalidValueError, "years 1 to 9999"),
    ],
)
def test_bad_input_raises(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


# --- covers


def test_whole_weeks_and_months_with_days_at_the_edges() -> None:
    ranged = anything.between("a", datetime(2026, 9, 24), datetime(2026, 11, 24))
    assert [str(period) for period in ranged.periods()] == [
        *("2026-09-24", "2026-09-25", "2026-09-26", "2026-09-27"),
        *("2026-W40", "2026-10", "2026-W44", "2026-W45", "2026-W46", "2026-W47", "2026-11-23"),
    ]
    years = Builder(track_yearly=True).between("a", datetime(2020, 1, 1), datetime(2026, 1, 2))
    assert len(keys(years)) == 6 * 12 + 1
    assert keys(tally.last("a", 1)) == ["trackist_a_2026-11-23"]


def test_the_end_of_time_can_be_covered() -> None:
    last = tally.between("a", datetime(9999, 12, 1), datetime(9999, 12, 31))
    assert keys(last)[-1].startswith("trackist_a_9999-12-")
    with pytest.raises(InvalidValueError, match="years 1 to 9999"):
        tally.between("a", datetime(9999, 12, 1), datetime(9999, 12, 31, 1))


midnights = naive_moments.map(lambda moment: datetime(moment.year, moment.month, moment.day))


#: How many days after their period bitmaps live, by their granularity; for ever by default.
lives = st.dictionaries(
    st.sampled_from(["hour", "day", "week", "month", "year"]),
    st.sampled_from([1, 3, 8, 30, 100, 400]).map(lambda days: timedelta(days=days)),
)


def covered(begin: datetime, end: datetime, **options: Any) -> tuple[Period, ...]:
    coverage = Builder(**options)._context.coverage
    return tuple(cover(begin.toordinal(), end.toordinal(), coverage))


@given(
    begin=midnights,
    days=st.integers(1, 500),
    expire=lives,
    yearly=st.booleans(),
    hourly=st.booleans(),
)
def test_a_cover_is_exactly_the_days_of_its_range(
    begin: datetime, days: int, expire: Any, yearly: bool, hourly: bool
) -> None:
    end = begin + timedelta(days=days)
    options = {"expire": expire, "track_yearly": yearly, "track_hourly": hourly}
    found = covered(begin, end, **options)
    assert len(set(found)) == len(found)
    assert {day.start for period in found for day in period.days()} == {
        begin + timedelta(days=count) for count in range(days)
    }


@settings(max_examples=200)
@given(
    begin=st.sampled_from([datetime(2025, 11, 20), datetime(2026, 1, 1), datetime(2026, 3, 2)]),
    days=st.one_of(st.integers(1, 70), st.just(365), st.integers(360, 400)),
    expire=lives,
    yearly=st.booleans(),
    hourly=st.booleans(),
    now=st.integers(0, 500),
    data=st.data(),
)
def test_a_cover_tells_all_that_is_known(
    begin: datetime,
    days: int,
    expire: dict[str, timedelta],
    yearly: bool,
    hourly: bool,
    now: int,
    data: st.DataObject,
) -> None:
    """Against all bitmaps inside the range, some of which have expired, or were never marked."""
    end = begin + timedelta(days=days)
    present = begin + timedelta(days=now)

    def there(period: Period, moment: datetime) -> bool:
        life = expire.get(str(period.granularity), timedelta(days=100_000))
        return period.end + life > moment

    marks = data.draw(
        st.lists(
            st.tuples(
                st.integers(0, 24 * min(days, now + 1) - 1),  # the hour that is marked
                st.integers(0, now),  # the day on which it is
                st.booleans(),  # whether years and hours were switched on then
            ),
            max_size=12,
        )
    )
    bitmaps: dict[Period, set[int]] = {}
    for user, (hour, when, switched_on) in enumerate(marks):
        moment = begin + timedelta(hours=hour)
        at = max(moment, begin + timedelta(days=when))
        optional = {Granularity.YEAR: yearly, Granularity.HOUR: hourly}
        for granularity in ~Granularity.UNIQUE:
            period = Period.containing(granularity, moment)
            tracked = optional[granularity] and switched_on if granularity in optional else True
            if tracked and there(period, at):
                bitmaps.setdefault(period, set()).add(user)
    alive = {
        period: users
        for period, users in bitmaps.items()
        if there(period, present) and begin <= period.start and period.end <= end
    }
    options = {"expire": expire, "track_yearly": yearly, "track_hourly": hourly}
    asked = covered(begin, end, **options)
    known = set[int]().union(*(alive.get(period, set()) for period in asked))
    assert known == set[int]().union(*alive.values())


@settings(max_examples=40)
@given(begin=midnights, days=st.integers(1, 50))
def test_no_cover_has_fewer_periods(begin: datetime, days: int) -> None:
    """Against the shortest path from the first day to the end, over all periods inside."""
    end = begin + timedelta(days=days)
    all_days = [begin + timedelta(days=count) for count in range(days)]
    steps = {
        period
        for moment, granularity in itertools.product(
            all_days, (Granularity.DAY, Granularity.WEEK, Granularity.MONTH)
        )
        for period in (Period.containing(granularity, moment),)
        if begin <= period.start and period.end <= end
    }
    fewest = {begin: 0}
    for moment in [*all_days[1:], end]:
        fewest[moment] = 1 + min(
            fewest[reached]
            for reached in fewest
            if any(step.start <= reached and step.end >= moment for step in steps)
        )
    assert len(covered(begin, end)) == fewest[end]
