"""What costs more than it looks: bounded by arithmetic, before anything is built or sent."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import tracemalloc
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest

from facades import ASYNC, internals
from tallymark import (
    Granularity,
    InvalidTypeError,
    InvalidValueError,
    Period,
    StoreFullError,
    StoreTimeoutError,
    SyncTally,
    Tally,
    TallymarkError,
    WrongKeyTypeError,
    any_of,
    bitmapist,
)
from tallymark._core.context import Context
from tallymark._core.events import Bitmap
from tallymark._core.options import Options
from tallymark._marking.marker import Marker
from tallymark._reading.bounds import check_bitmaps
from tallymark._reading.requests import Checkpoint
from tallymark.bitmapist import cohort

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from typing_extensions import Self

    from facades import Facade
    from stores import Store
    from tallymark import Operation

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
    "days_active": lambda tally: tally.days_active("a", days=HUGE),
    "days_active, of long ranges": lambda tally: tally.days_active(
        lambda _: tally.between("a", *ALL_TIME)
    ),
    "lifecycle": lambda tally: tally.lifecycle("a", periods=HUGE),
    "lifecycle, of long ranges": lambda tally: tally.lifecycle(
        lambda _: tally.between("a", *ALL_TIME)
    ),
    "streaks": lambda tally: tally.streaks("a", days=HUGE),
    "funnel": lambda tally: tally.funnel(forever("a")),
    "ordered funnel": lambda tally: tally.funnel(forever("a"), since=date(2025, 1, 1)),
    "ordered funnel of all time": lambda tally: tally.funnel(["a"], since=date(1, 1, 1)),
    "ordered funnel, windows": lambda tally: tally.funnel(
        ["a"], since=date(2025, 1, 1), window=timedelta(days=999_999_999)
    ),
    "ordered funnel of long ranges": lambda tally: tally.funnel(
        ["a", lambda _: tally.between("a", *ALL_TIME)], since=date.today()
    ),
    "ordered funnel, entries": lambda tally: tally.funnel(
        ["a"], since=date(2000, 1, 1), until=date(2020, 1, 1), window=timedelta(days=300)
    ),
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
    steps = list(check_bitmaps(context, [deep]))
    assert all(isinstance(step, Checkpoint) for step in steps)
    assert len(steps) >= 10_000 // 1_000


async def test_a_long_computation_ends_with_its_timeout(facade: Facade, redis_store: Store) -> None:
    def endless() -> Iterator[Checkpoint]:
        while True:
            yield Checkpoint()

    made = facade.tally.from_url(redis_store.url)
    try:
        with pytest.raises(StoreTimeoutError, match=r"not computed within 0\.02 s"):
            found = made.backend.reader.answer(endless(), 0.02)
            if facade.name == "async":
                await found
        with pytest.raises(StoreTimeoutError, match=r"not computed within 0\.02 s"):
            parts = made.backend.reader.pages(endless(), 0.02)
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
            lambda name: tally.mark_unique_many(name, [1]),
            lambda name: tally.unmark_unique_many(name, [1]),
        ]

    async with facade.open(store.url) as tally:
        for mark in marks(tally):
            await mark(LONG[1:])
            for name in (LONG, "x" * 513, "x" * 10_000_000):
                with pytest.raises(InvalidValueError, match="max_event_bytes=512") as raised:
                    await mark(name)
                assert len(str(raised.value)) < 200
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
            marker.reserve([mark])
            marker.release([mark], [Granularity.DAY])  # and from now on it may be kept
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
                    lambda name: tally.mark_unique_many(name, [1, 2]),
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


async def frees_its_place(
    tally: Tally, call: Callable[[], Any], error: type[BaseException]
) -> None:
    """Of one event that is allowed, none is used up by a call that fails."""
    with pytest.raises(error):
        await call()
    await tally.mark_event("another", 1)
    with pytest.raises(InvalidValueError, match="max_events=1"):
        await tally.mark_event("one more", 1)


def broken(ids: int) -> Iterator[int]:
    yield from range(ids)
    raise ZeroDivisionError


SENT_NOTHING: dict[str, tuple[Callable[[Tally], Any], type[BaseException]]] = {
    "timeout": (lambda tally: tally.mark_many("x", [1], timeout=-1), InvalidValueError),
    "of one": (lambda tally: tally.mark_event("x", 1, timeout=-1), InvalidValueError),
    "no ids": (lambda tally: tally.mark_many("x", cast("Any", 5)), InvalidTypeError),
    "wrong id": (lambda tally: tally.unmark_many("x", [1, -1]), InvalidValueError),
    "source": (lambda tally: tally.mark_many("x", broken(0)), ZeroDivisionError),
    "of flags": (lambda tally: tally.mark_unique_many("x", broken(9)), ZeroDivisionError),
    "few of it": (lambda tally: tally.mark_many("x", broken(9)), ZeroDivisionError),
}


@pytest.mark.parametrize(("call", "error"), SENT_NOTHING.values(), ids=SENT_NOTHING)
async def test_calls_that_sent_nothing_use_up_no_event(
    facade: Facade, store: Store, call: Callable[[Tally], Any], error: type[BaseException]
) -> None:
    async with facade.open(store.url, max_events=1) as tally:
        await frees_its_place(tally, lambda: call(tally), error)


async def test_marks_of_periods_that_are_over_use_up_no_event(facade: Facade, store: Store) -> None:
    lives: Any = dict.fromkeys(("day", "week", "month"), timedelta(days=1))
    async with facade.open(store.url, max_events=1, expire=lives) as tally:
        assert not await tally.mark_event("x", 1, now=date(2020, 1, 1))
        assert not await tally.mark_many("y", [1], now=date(2020, 1, 1))
        await tally.mark_event("another", 1)


BITMAPS = ["2026-11", "W2026-48", "2026-11-23"]
MARKS: dict[str, Callable[[Tally], Any]] = {
    "one": lambda tally: tally.mark_event("x", 1, now=NOW),
    "sparse": lambda tally: tally.mark_many("x", [1, 2], now=NOW),
    "dense": lambda tally: tally.mark_many("x", range(5000), now=NOW),
    "exact": lambda tally: tally.unmark_event("x", 1, now=NOW, exact=True),
    "exact ones": lambda tally: tally.unmark_many("x", [1], now=NOW, exact=True),
}


@pytest.mark.parametrize("mark", MARKS.values(), ids=MARKS)
async def test_keys_of_other_types_use_up_no_event(
    facade: Facade, plain_store: Store, mark: Callable[[Tally], Any]
) -> None:
    for suffix in BITMAPS:
        plain_store.raw.rpush(f"trackist_x_{suffix}", "no bitmap")
    async with facade.open(plain_store.url, max_events=1) as tally:
        await frees_its_place(tally, lambda: mark(tally), WrongKeyTypeError)


@pytest.mark.parametrize("bitfield", [True, False])
@pytest.mark.parametrize("which", BITMAPS)
@pytest.mark.parametrize("mark", [MARKS["one"], MARKS["sparse"]], ids=["one", "sparse"])
async def test_where_some_bitmaps_were_marked_the_event_counts(
    facade: Facade, plain_store: Store, mark: Callable[[Tally], Any], which: str, bitfield: bool
) -> None:
    plain_store.raw.rpush(f"trackist_x_{which}", "no bitmap")
    async with facade.open(plain_store.url, max_events=1, bitfield=bitfield) as tally:
        with pytest.raises(WrongKeyTypeError):
            await mark(tally)
        with pytest.raises(InvalidValueError, match="max_events=1"):
            await tally.mark_event("another", 1)


class HandlerError(Exception):
    """What a signal handler raises."""


class Interrupting(dict[Any, int]):
    """Stands for a signal handler that raises where the blocking writer cleans up."""

    raised = False

    def pop(self, *arguments: Any) -> Any:
        """Raise, the first time."""
        if not self.raised:
            self.raised = True
            raise HandlerError
        return super().pop(*arguments)


def test_a_mark_whose_call_a_signal_handler_ended_counts(plain_store: Store) -> None:
    with SyncTally.from_url(plain_store.url, max_events=1) as tally:
        tally.backend.writer._pending = Interrupting()
        with pytest.raises(HandlerError):
            tally.mark_event("first", 1)
        assert tally.contains(tally.day("first"), 1)
        with pytest.raises(InvalidValueError, match="max_events=1"):
            tally.mark_event("second", 1)


@contextlib.contextmanager
def paused(store: Store) -> Iterator[None]:
    """Have a server take marks, and answer none of them before the block ends."""
    store.raw.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
    try:
        yield
    finally:
        store.raw.execute_command("CLIENT", "UNPAUSE")


async def test_what_may_have_been_applied_counts(facade: Facade, redis_store: Store) -> None:
    calls: list[Callable[[Tally], Any]] = [
        lambda tally: tally.mark_event("x", 1, timeout=0.5),
        lambda tally: tally.mark_many("x", [1], timeout=0.5),
    ]
    for fail in calls:
        async with facade.open(redis_store.url, max_events=1) as tally:
            assert await tally.event_names() == []  # is connected
            with paused(redis_store), pytest.raises(StoreTimeoutError, match="may or may not"):
                await fail(tally)
            with pytest.raises(InvalidValueError, match="max_events=1"):
                await tally.mark_event("another", 1)
        redis_store.raw.flushdb()
    async with facade.open(redis_store.url, max_events=1) as tally:
        with pytest.raises(ZeroDivisionError):
            await tally.mark_many("x", broken(40_000))  # of which one block was sent
        assert await tally.event_names() == ["x"]
        with pytest.raises(InvalidValueError, match="max_events=1"):
            await tally.mark_event("another", 1)


async def on_the_wire(tally: Tally, mark: Any) -> asyncio.Task[Any]:
    """Begin a call, and return it when all of its bytes are written."""
    commits = internals(tally).writer
    task: asyncio.Task[Any] = asyncio.ensure_future(mark)
    with anyio.fail_after(10):
        while commits._in_flight is None or not commits._in_flight.on_the_wire:
            await asyncio.sleep(0)
    return task


async def given_up(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_marks_under_way_count(redis_store: Store) -> None:
    async with Tally.from_url(redis_store.url, max_events=1) as tally:

        async def nothing() -> None:
            pass

        async def no_ids() -> None:
            await tally.mark_many("x", [])

        async def no_end() -> None:
            with pytest.raises(ZeroDivisionError):
                async with tally.transaction() as tx:
                    tx.mark_event("x", 1)
                    raise ZeroDivisionError

        async def cancelled() -> None:
            waiting = asyncio.ensure_future(tally.mark_event("x", 2))
            await asyncio.sleep(0)
            await given_up(waiting)

        with paused(redis_store):
            first = await on_the_wire(tally, tally.mark_event("x", 1))
            # Others of the same event come and go, and nothing comes of them.
            for other in (nothing, no_ids, no_end, cancelled):
                await other()
                with pytest.raises(InvalidValueError, match="max_events=1"):
                    await tally.mark_event("another", 1)
        await first
        with pytest.raises(InvalidValueError, match="max_events=1"):
            await tally.mark_event("another", 1)
        assert await tally.event_names() == ["x"]


@pytest.mark.parametrize("mark", [MARKS["one"], MARKS["sparse"]], ids=["one", "sparse"])
async def test_marks_that_were_cancelled_count_if_they_were_sent(
    redis_store: Store, mark: Callable[[Tally], Any]
) -> None:
    async with Tally.from_url(redis_store.url, max_events=1) as tally:
        with paused(redis_store):
            await given_up(await on_the_wire(tally, mark(tally)))
        with pytest.raises(InvalidValueError, match="max_events=1"):
            await tally.mark_event("another", 1)
    async with Tally.from_url(redis_store.url, max_events=2) as tally:
        with paused(redis_store):
            first = await on_the_wire(tally, tally.mark_event("first", 1))
            waiting = asyncio.ensure_future(mark(tally))
            for _ in range(5):
                await asyncio.sleep(0)
            await given_up(waiting)
        await first
        await tally.mark_event("another", 1)


@pytest.mark.parametrize(
    "verb", ["mark_many", "unmark_many", "mark_unique_many", "unmark_unique_many"]
)
async def test_a_source_that_sleeps_holds_its_place_until_it_is_cancelled(
    store: Store, verb: str
) -> None:
    asked = asyncio.Event()

    async def source() -> AsyncIterator[int]:
        asked.set()
        await asyncio.Event().wait()
        yield 1

    async with Tally.from_url(store.url, max_events=1) as tally:
        slow = asyncio.ensure_future(getattr(tally, verb)("x", source()))
        await asked.wait()
        with pytest.raises(InvalidValueError, match="max_events=1"):
            await tally.mark_event("another", 1)
        await given_up(slow)
        await tally.mark_event("another", 1)


# --- the drop-in


def test_results_of_long_expressions_are_temporary_too(systems: dict[str, Any]) -> None:
    days = [bitmapist.DayEvents(f"{number}{'x' * 500}", 2026, 11, 23) for number in range(10)]
    key = bitmapist.BitOpOr(*days).redis_key
    assert len(key) < 500
    assert systems["default"].set(key, b"x")
    bitmapist.delete_temporary_bitop_keys()
    assert not systems["default"].exists(key)


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
    bitmapist.mark_event("bitop_OR_sale", 1)
    bitmapist.mark_event("bitop_NOT_trackist_x", 1)  # as the result of one event
    both = bitmapist.BitOpAnd(bitmapist.DayEvents("bitop_sale"), bitmapist.DayEvents("bitop_"))
    assert systems["default"].exists(both.redis_key)
    bitmapist.delete_temporary_bitop_keys()
    assert not systems["default"].exists(both._key)
    assert bitmapist.get_event_names() == ["bitop_", "bitop_OR_sale", "bitop_sale"]
    assert 1 in bitmapist.DayEvents("bitop_sale")
    assert 1 in bitmapist.DayEvents("bitop_OR_sale")
    assert 1 not in bitmapist.DayEvents("bitop_NOT_trackist_x")
    assert 1 in bitmapist.DayEvents("bitop_")
