"""What costs more than it looks: bounded by arithmetic, before anything is built or sent."""

from __future__ import annotations

import itertools
import sys
import tracemalloc
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest

from facades import ASYNC
from tallymark import (
    Granularity,
    InvalidValueError,
    Period,
    StoreFullError,
    StoreTimeoutError,
    SyncTally,
    TallymarkError,
    any_of,
    bitmapist,
)
from tallymark._core.context import Context
from tallymark._core.events import Bitmap
from tallymark._core.options import Options
from tallymark._marking.marker import Marker
from tallymark._reading.bounds import bounded
from tallymark._reading.requests import Checkpoint
from tallymark.bitmapist import cohort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

    from facades import Facade
    from stores import Store
    from tallymark import Operation, Tally

NOW = datetime(2026, 11, 23, 12)
ALL_TIME = date(1, 1, 1), date(9999, 12, 31)
HUGE = 10**30


def forever(item: Any) -> Iterator[Any]:
    yield from itertools.repeat(item)


async def streamed(stream: Any) -> list[Any]:
    return [item async for item in stream]


class Lines:
    """Counts the lines of tallymark that this thread runs."""

    def __init__(self) -> None:
        self.number = 0

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: Any, event: str, _: object) -> Any:
        if "tallymark" not in frame.f_code.co_filename.split("site-packages")[-1]:
            return None
        self.number += 1
        return self._trace


#: Each of them is too much for a tally with the defaults.
TOO_MUCH: dict[str, Callable[[Tally], Any]] = {
    "count": lambda tally: tally.count(tally.between("a", *ALL_TIME)),
    "count, far from each other": lambda tally: tally.count(
        any_of(
            tally.between("a", date(year, 1, 1), date(year + 600, 1, 1))
            for year in range(1, 9000, 600)
        )
    ),
    "counts": lambda tally: tally.counts([tally.between("a", *ALL_TIME)] * 20),
    "counts of many sets": lambda tally: tally.counts(forever(tally.day("a"))),
    "counts of different events": lambda tally: tally.counts(
        tally.unique(f"a{number}") for number in range(20_001)
    ),
    "contains": lambda tally: tally.contains(tally.last("a", 700_000), 7),
    "contains_many": lambda tally: tally.contains_many(tally.last("a", 700_000), [7]),
    "is_empty": lambda tally: tally.is_empty(tally.last("a", 700_000)),
    "users": lambda tally: streamed(tally.users(tally.last("a", 700_000))),
    "user_chunks": lambda tally: streamed(tally.user_chunks(tally.last("a", 700_000))),
    "history": lambda tally: tally.history(7, "a", date(1, 1, 1)),
    "history of years": lambda tally: tally.history(7, ["a", "b"], *ALL_TIME, granularity="year"),
    "history of many events": lambda tally: tally.history(
        7, map(str, itertools.count()), date.today()
    ),
    "retention, cohorts": lambda tally: tally.retention("a", "a", cohorts=500_000),
    "retention, periods": lambda tally: tally.retention("a", "a", periods=HUGE),
    "retention, a number that cannot be shown": lambda tally: tally.retention(
        "a", "a", periods=10**5000
    ),
    "retention, cells": lambda tally: tally.retention("a", "a", periods=900, cohorts=900),
    "retention, of long ranges": lambda tally: tally.retention(
        lambda _: tally.between("a", *ALL_TIME), "a"
    ),
    "funnel": lambda tally: tally.funnel(forever("a")),
    "funnel of long ranges": lambda tally: tally.funnel([tally.between("a", *ALL_TIME), "b"]),
}


@pytest.mark.parametrize("ask", TOO_MUCH.values(), ids=TOO_MUCH)
async def test_a_question_that_costs_too_much_is_refused_at_once(
    facade: Facade, redis_store: Store, ask: Callable[[Tally], Any]
) -> None:
    sent: list[Operation] = []
    async with facade.open(redis_store.url, observer=sent.append) as tally:
        with Lines() as lines, pytest.raises(InvalidValueError, match="max_bitmaps=20000"):
            await ask(tally)
        assert lines.number < 1_500_000  # the bitmaps of all time would be ten times that
        assert not sent
        assert await tally.count(tally.day("a")) == 0


async def test_a_long_range_is_refused_without_a_look_at_it(redis_store: Store) -> None:
    async with ASYNC.open(redis_store.url) as tally:
        whole = tally.between("a", *ALL_TIME)
        for ask in (
            lambda: tally.count(whole),
            lambda: tally.history(7, "a", date(1, 1, 1), granularity="hour"),
            lambda: tally.retention("a", "a", cohorts=500_000),
        ):
            with Lines() as lines, pytest.raises(InvalidValueError, match="max_bitmaps"):
                await ask()
            assert lines.number < 500


async def test_the_limit_is_that_of_the_tally(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, max_bitmaps=7) as tally:
        await tally.mark_event("a", 1)
        week = any_of(tally.day("a", NOW - timedelta(days)) for days in range(7))
        assert await tally.count(week) == 0
        # Each bitmap counts once, however often it is used.
        assert await tally.counts([week, week, tally.day("a", NOW)]) == [0, 0, 0]
        eighth = tally.day("a", NOW - timedelta(8))
        for ask in (
            lambda: tally.count(week | eighth),
            lambda: tally.contains(week - eighth, 1),
            lambda: tally.delete(week | eighth),
            lambda: tally.counts([week, eighth]),
            lambda: tally.count(tally.year("a")),
            lambda: tally.history(1, "a", NOW - timedelta(8), NOW),
            lambda: tally.stickiness("a", NOW.date().replace(day=5)),
            lambda: tally.retention("a", "a", by="day", periods=8, until=NOW),
            lambda: tally.funnel(["a", "b", "c", "d"], moment=NOW),
        ):
            with pytest.raises(InvalidValueError, match="max_bitmaps=7"):
                await ask()
        assert await tally.history(1, "a", NOW - timedelta(6), NOW) == {"a": []}


@pytest.mark.parametrize("count", [HUGE, -HUGE, 10**5000, -(10**5000)], ids=range(4))
def test_nothing_can_be_shifted_beyond_all_time(count: int) -> None:
    with SyncTally.from_url("memory://") as tally:
        day, days = tally.day("a", NOW), tally.last("a", 3, NOW)
        for shift in (
            day.shift,
            days.shift,
            (day & days).shift,
            tally.month("a", NOW).shift,
            tally.year("a", NOW).shift,
            tally.hour("a", NOW).shift,
            Period.containing(Granularity.WEEK, NOW).shift,
        ):
            with pytest.raises(InvalidValueError, match="years 1 to 9999"):
                shift(count)


@pytest.mark.parametrize("option", ["max_bitmaps", "max_event_bytes"])
def test_limits_that_are_none(option: str) -> None:
    with pytest.raises(InvalidValueError, match=f"{option} must be 1 or more"):
        Options(**cast("Any", {option: 0}))
    with pytest.raises(TallymarkError, match=f"{option} must be an int"):
        Options(**cast("Any", {option: "7"}))


# --- time


def test_a_large_expression_is_looked_at_in_steps() -> None:
    """Also where it is of few bitmaps."""
    context = Context.of("db", Options(), lambda: 0.0)
    one, two = (Bitmap(context.origin, name, None) for name in "ab")
    deep: Any = one
    for _ in range(5_000):
        deep = (deep | two) & one
    steps = list(bounded(context, [deep]))
    assert all(isinstance(step, Checkpoint) for step in steps)
    assert len(steps) >= 10_000 // 1_000


async def test_a_long_computation_ends_with_its_timeout(facade: Facade, redis_store: Store) -> None:
    def endless() -> Iterator[Checkpoint]:
        while True:
            yield Checkpoint()

    made = facade.tally.from_url(redis_store.url)
    try:
        with pytest.raises(StoreTimeoutError, match=r"not worked out within 0\.02 s"):
            found = made._reader.answer(endless(), 0.02)
            if facade.name == "async":
                await found
        with pytest.raises(StoreTimeoutError, match=r"not worked out within 0\.02 s"):
            parts = made._reader.parts(endless(), 0.02)
            if facade.name == "async":
                [part async for part in parts]
            else:
                list(parts)
    finally:
        await facade.close(made)


# --- names


LONG = "ä" * 257  # 514 bytes


async def test_names_are_short_unless_an_option_says_otherwise(
    facade: Facade, store: Store
) -> None:
    def marks(tally: Tally) -> list[Callable[[str], Any]]:
        return [
            lambda name: tally.mark_event(name, 1),
            lambda name: tally.mark_event(name, 1, now=NOW),
            lambda name: tally.unmark_event(name, 1),
            lambda name: tally.unmark_event(name, 1, exact=True),
            lambda name: tally.mark_unique(name, 1),
            lambda name: tally.unmark_unique(name, 1),
            lambda name: tally.mark_many(name, [1]),
            lambda name: tally.unmark_many(name, [1]),
        ]

    async with facade.open(store.url) as tally:
        for mark in marks(tally):
            await mark(LONG[1:])
            for name in (LONG, "x" * 513, "x" * 10_000_000):
                with pytest.raises(InvalidValueError, match="max_event_bytes=512") as told:
                    await mark(name)
                assert len(str(told.value)) < 200
        with pytest.raises(InvalidValueError, match="max_event_bytes=512"):
            async with tally.transaction() as tx:
                tx.mark_event(LONG, 1)
        # Whoever else has marked them, they can be read.
        assert await tally.count(tally.day(LONG)) == 0
        assert await tally.event_names() == [LONG[1:]]
    async with facade.open(store.url, max_event_bytes=514) as tally:
        for mark in marks(tally):
            await mark(LONG)
    async with facade.open(store.url, max_event_bytes=None) as tally:
        await tally.mark_event("x" * 5000, 1)
        assert await tally.event_names("x") == ["x" * 5000]


def test_the_drop_in_marks_events_of_any_name(systems: dict[str, Any]) -> None:
    bitmapist.mark_event("x" * 5000, 7)
    assert 7 in bitmapist.MonthEvents("x" * 5000)


@pytest.mark.parametrize("now", [None, NOW])
def test_long_names_do_not_fill_the_memory(now: datetime | None) -> None:
    marker = Marker(Options(max_event_bytes=None, max_events=10**6), NOW.timestamp)
    tracemalloc.start()
    try:
        for number in range(4_000):
            mark = marker.mark_event(f"{number:020000}", 1, now, None, None)
            marker.ended([mark], [Granularity.DAY])  # and from now on it may be kept
            marker.mark_event(mark.bitmaps.event, 1, now, None, None)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 48_000_000  # of names of 80 MB, each of which is in nine keys


# --- max_events


async def test_marks_that_failed_use_up_no_event(facade: Facade, redis_store: Store) -> None:
    async with facade.open(redis_store.url, max_events=2) as tally:
        redis_store.raw.config_set("maxmemory", 1)
        try:
            for number in range(3):
                for fail in (
                    lambda name: tally.mark_event(name, 1),
                    lambda name: tally.mark_unique(name, 1),
                    lambda name: tally.mark_many(name, [1, 2]),
                ):
                    with pytest.raises(StoreFullError):
                        await fail(f"failed{number}")
                with pytest.raises(StoreFullError):
                    async with tally.transaction() as tx:
                        tx.mark_event(f"failed{number}", 1)
        finally:
            redis_store.raw.config_set("maxmemory", 0)
        for number in range(3):
            with pytest.raises(ZeroDivisionError):
                async with tally.transaction() as tx:
                    tx.mark_event(f"given up{number}", 1)
                    raise ZeroDivisionError
            with pytest.raises(InvalidValueError):
                await tally.mark_event(f"misspelt{number}", 1, timeout=-1)
            assert not any((await tally.mark_many(f"nobody{number}", [])).values())
        await tally.mark_event("a", 1)
        await tally.mark_many("b", [1])
        await tally.mark_event("a", 2)
        with pytest.raises(InvalidValueError, match="max_events=2"):
            await tally.mark_event("c", 1)
        with pytest.raises(InvalidValueError, match="max_events=2"):
            await tally.mark_unique("c", 1)


# --- the drop-in


@pytest.mark.parametrize(
    "numbers",
    [{"num_results": 100_000}, {"num_of_rows": 10**9}, {"num_results": 900, "num_of_rows": 900}],
)
def test_a_cohort_table_of_the_drop_in_has_an_end(
    systems: dict[str, Any], numbers: dict[str, int]
) -> None:
    with Lines() as lines, pytest.raises(InvalidValueError, match="max_bitmaps=20000"):
        cohort.get_dates_data("a", "b", **cast("Any", numbers))
    assert lines.number < 2000


def test_events_that_look_like_temporary_keys_stay(systems: dict[str, Any]) -> None:
    bitmapist.mark_event("bitop_", 1)
    bitmapist.mark_event("bitop_sale", 1)
    both = bitmapist.BitOpAnd(bitmapist.DayEvents("bitop_sale"), bitmapist.DayEvents("bitop_"))
    assert systems["default"].exists(both.redis_key)
    bitmapist.delete_temporary_bitop_keys()
    assert not systems["default"].exists(both._key)
    assert 1 in bitmapist.DayEvents("bitop_sale")
    assert 1 in bitmapist.DayEvents("bitop_")
