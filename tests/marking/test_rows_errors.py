"""`mark_rows`: bad rows, bad columns, deadlines, cancellation, and refusals of Redis."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import time
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from facades import ASYNC, FACADES
from proxy import proxied
from tallymark import (
    ClosedError,
    CommandError,
    Granularity,
    InvalidTypeError,
    InvalidValueError,
    StoreError,
    StoreTimeoutError,
    SyncTally,
    Tally,
    TallymarkError,
    WrongKeyTypeError,
)
from tallymark._async import row_bulk
from tallymark._marking import row_pieces, rows
from tallymark._marking.marks import Bitmaps
from tallymark._marking.row_marks import RowMarks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from facades import Facade
    from stores import Store

pa: Any = importlib.import_module("pyarrow")  # which has no types

M, W, D = Granularity.MONTH, Granularity.WEEK, Granularity.DAY
NOON = datetime(2026, 11, 23, 12)
KEYS = ["trackist_a_2026-11", "trackist_a_W2026-48", "trackist_a_2026-11-23"]
NOWHERE = "redis://nowhere.invalid:1"


class Hostile:
    """Raises whatever is asked of it."""

    def __iter__(self) -> Iterator[Any]:
        raise ZeroDivisionError

    def __hash__(self) -> int:
        raise ZeroDivisionError


BAD_ROWS: list[Any] = [
    ("", 1, NOON),
    (5, 1, NOON),
    (None, 1, NOON),
    (["a"], 1, NOON),
    ("a\n", 1, NOON),
    ("\ud800", 1, NOON),
    ("a", -1, NOON),
    ("a", 2**32, NOON),
    ("a", "1", NOON),
    ("a", 1.0, NOON),
    ("a", True, NOON),
    ("a", None, NOON),
    ("a", Hostile(), NOON),
    ("a", 1, None),
    ("a", 1, "2026-11-23"),
    ("a", 1, 1_700_000_000),
    ("a", 1, pd.NaT),
    ("a", 1, np.datetime64("NaT")),
    ("a", 1, np.datetime64("30000-01-01")),
    ("a", 1, datetime.max.replace(tzinfo=None).astimezone().replace(year=9999)),
    ("a", 1),
    ("a", 1, NOON, 4),
    (),
    "a1m",
    b"a1m",
    5,
    None,
    {"event": "a", "user_id": 1, "moment": NOON},
    Hostile(),
]
BAD_ROWS.pop(19)  # depends on the zone of the machine


@pytest.mark.parametrize("bad", BAD_ROWS, ids=lambda row: repr(row)[:40])
async def test_a_bad_row_is_named_and_nothing_is_sent(facade: Facade, bad: Any) -> None:
    table = [*[("a", 1, NOON)] * 17, bad, ("a", 1, NOON)]
    async with facade.open(NOWHERE) as tally:
        with pytest.raises((InvalidTypeError, InvalidValueError), match=r"^row 17: ") as raised:
            await tally.mark_rows(iter(table))
    assert len(str(raised.value)) < 400


async def test_bad_rows_are_handed_over_and_all_others_marked(
    facade: Facade, redis_store: Store
) -> None:
    table: list[Any] = []
    for at, bad in enumerate(BAD_ROWS):
        table += [("a", at, NOON), bad]
    taken: list[Any] = []
    async with facade.open(redis_store.url) as tally:
        counts = await tally.mark_rows(table, on_error=lambda *bad: taken.append(bad))
    assert counts == dict.fromkeys((M, W, D), len(BAD_ROWS))
    assert redis_store.bits() == {key: set(range(len(BAD_ROWS))) for key in KEYS}
    assert [index for index, _, _ in taken] == list(range(1, len(table), 2))
    assert all(row is bad for (_, row, _), bad in zip(taken, BAD_ROWS, strict=True))
    assert all(isinstance(error, TallymarkError) for _, _, error in taken)


COLUMNS: dict[str, Any] = {
    "event": ["a", "a", "a", "a"],
    "user_id": [1, 2, 3, 4],
    "moment": [NOON] * 4,
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"event": [], "user_id": []}, "moment missing"),
        ({**COLUMNS, "hour": [1]}, "got 'hour'"),
        (pd.DataFrame({"event": ["a"]}), "user_id and moment missing, got"),
        (pl.DataFrame({"event": ["a"]}), "user_id and moment missing, got"),
        (pa.table({"event": ["a"]})[:0], "user_id and moment missing, got"),
        ({**COLUMNS, "user_id": [1, 2]}, "event 4, user_id 2, moment 4"),
        ({**COLUMNS, "user_id": 5}, "user_id must be a column"),
        ({**COLUMNS, "user_id": "abcd"}, "user_id must be a column"),
        ({**COLUMNS, "user_id": NOON}, "user_id must be a column"),
        ({**COLUMNS, "event": NOON}, "event must be a column"),
        ({**COLUMNS, "event": {"a": 1}}, "event must be a column"),
        ({**COLUMNS, "event": iter("abcd")}, "event must be a column"),
        ({**COLUMNS, "moment": None}, "moment must be a column"),
        ({**COLUMNS, "moment": np.array([[NOON] * 4])}, "one-dimensional"),
        ({**COLUMNS, "user_id": np.array(5)}, "one-dimensional"),
        (5, "rows must be an iterable"),
        (None, "rows must be an iterable"),
        ("abc", "rows must be an iterable"),
        (b"abc", "rows must be an iterable"),
        (pl.DataFrame(COLUMNS).lazy(), "rows must be an iterable"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_has_no_rows(facade: Facade, wrong: Any, message: str) -> None:
    async with facade.open(NOWHERE) as tally:
        with pytest.raises((InvalidTypeError, InvalidValueError), match=message):
            await tally.mark_rows(wrong)


async def test_the_other_arguments_are_checked_too(facade: Facade) -> None:
    async with facade.open(NOWHERE) as opened:
        tally: Any = opened
        for wrong in (
            {"track_hourly": 1},
            {"track_unique": "yes"},
            {"timeout": "5"},
            {"timeout": 0},
            {"on_error": 5},
        ):
            with pytest.raises((InvalidTypeError, InvalidValueError), match=next(iter(wrong))):
                await tally.mark_rows([("a", 1, NOON)], **wrong)


def test_async_iterables_are_for_the_async_tally() -> None:
    async def stream() -> AsyncIterator[Any]:
        yield "a", 1, NOON

    wrong: Any = stream()
    with SyncTally.from_url(NOWHERE) as tally, pytest.raises(InvalidTypeError, match="iterable"):
        tally.mark_rows(wrong)


# --- blocks


@pytest.fixture
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BLOCK", 2_048)


@pytest.mark.usefixtures("_small_blocks")
async def test_the_blocks_before_a_bad_row_are_marked(facade: Facade, redis_store: Store) -> None:
    table: list[Any] = [("a", user_id, NOON) for user_id in range(6_000)]
    table[5_000] = ("a", -1, NOON)
    async with facade.open(redis_store.url) as tally:
        with pytest.raises(InvalidValueError, match=r"^row 5000: .*; 4096 rows before were marked"):
            await tally.mark_rows(table)
        assert redis_store.bits() == {key: set(range(4_096)) for key in KEYS}
        redis_store.raw.flushdb()
        columns = {"event": "a", "user_id": [row[1] for row in table] * 4, "moment": NOON}
        with pytest.raises(InvalidValueError, match=r"^row 5000: [^;]*$"):
            await tally.mark_rows(columns)  # they are checked in longer pieces
    assert not redis_store.names()


@pytest.mark.usefixtures("_small_blocks")
async def test_a_function_for_bad_rows_that_raises_ends_the_call(
    facade: Facade, redis_store: Store
) -> None:
    table: list[Any] = [("a", user_id, NOON) for user_id in range(6_000)]
    table[5_000] = ("a", -1, NOON)

    def refuse(index: int, row: Any, error: TallymarkError) -> None:
        raise ZeroDivisionError(index)

    async with facade.open(redis_store.url) as tally:
        with pytest.raises(ZeroDivisionError, match="5000"):
            await tally.mark_rows(table, on_error=refuse)
        assert redis_store.bits() == {key: set(range(4_096)) for key in KEYS}
        assert await tally.mark_event("b", 1)


@pytest.mark.usefixtures("_small_blocks")
async def test_an_iterable_that_breaks_leaves_what_came_before(
    facade: Facade, redis_store: Store
) -> None:
    def broken() -> Iterator[Any]:
        for user_id in range(9_000):
            yield "a", user_id, NOON
        raise ZeroDivisionError

    async with facade.open(redis_store.url) as tally:
        with pytest.raises(ZeroDivisionError):
            await tally.mark_rows(broken())
    assert redis_store.bits() == {key: set(range(8_192)) for key in KEYS}


async def test_a_closed_tally(facade: Facade, store: Store) -> None:
    made = facade.tally.from_url(store.url)
    await facade.close(made)
    with pytest.raises(ClosedError):
        await facade.verbs(made).mark_rows([("a", 1, NOON)])


# --- deadlines


async def test_rows_that_come_too_late(redis_store: Store) -> None:
    closed = []

    async def stalled() -> AsyncIterator[Any]:
        try:
            yield "a", 1, NOON
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    async with Tally.from_url(redis_store.url) as tally:
        with pytest.raises(StoreTimeoutError, match="did not give the next one in time"):
            await tally.mark_rows(stalled(), timeout=0.05)
        assert closed
        assert await tally.mark_event("a", 1)


def slow() -> Iterator[Any]:
    for user_id in itertools.count():
        time.sleep(0.001)
        yield "a", user_id, NOON


@pytest.mark.parametrize("facade", FACADES, ids=lambda facade: facade.name)
async def test_a_slow_iterable_and_a_long_computation_end_at_the_deadline(
    redis_store: Store, facade: Facade
) -> None:
    many = {"event": ["a"] * 2_000_000, "user_id": [1] * 2_000_000, "moment": [NOON] * 2_000_000}
    async with facade.open(redis_store.url) as tally:
        for table in (slow(), many):
            began = time.monotonic()
            with pytest.raises(StoreTimeoutError, match=r"0\.1 s"):
                await tally.mark_rows(table, timeout=0.1)
            assert time.monotonic() - began < 5
        assert await tally.mark_event("b", 1)


async def test_an_answer_that_does_not_come(facade: Facade, redis_store: Store) -> None:
    table = [("a", user_id, NOON) for user_id in range(100)]
    with proxied(redis_store.url) as proxy:
        async with facade.open(proxy.url, timeout=0.2) as tally:
            await tally.mark_unique("b", 0)
            proxy.passing.clear()
            with pytest.raises(StoreTimeoutError):
                await tally.mark_rows(table)
            proxy.passing.set()
            await tally.mark_rows(table)


@pytest.mark.usefixtures("_small_blocks")
async def test_a_failure_tells_how_far_it_got(facade: Facade, redis_store: Store) -> None:
    with proxied(redis_store.url) as proxy:
        async with facade.open(proxy.url, timeout=1) as tally:

            def stream() -> Iterator[Any]:
                for user_id in range(50_000):
                    if user_id == 40_000:
                        proxy.passing.clear()  # from here on, nobody answers
                    yield "a", user_id, NOON

            with pytest.raises(StoreError, match=r"\d+ rows before were marked") as raised:
                await tally.mark_rows(stream())
            done = int(str(raised.value).split("; ")[-1].split()[0])
            assert 20_000 <= done <= 40_960
            assert redis_store.raw.bitcount(KEYS[0]) >= done


async def test_a_broken_connection_is_retried(facade: Facade, redis_store: Store) -> None:
    table = [("a", 3 * user_id, NOON) for user_id in range(40_000)]
    with proxied(redis_store.url) as proxy:
        async with facade.open(proxy.url) as tally:
            await tally.mark_unique("b", 0)
            proxy.cuts = 2
            await tally.mark_rows(table)
            assert proxy.cuts == 0
    assert {redis_store.raw.bitcount(key) for key in KEYS} == {40_000}
    assert redis_store.names() == {*KEYS, "trackist_b_u"}


async def test_cancelled_it_leaves_whole_rows(
    redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_pieces, "_LONGEST", 100.0)
    table = [("a", user_id * 5_000, NOON) for user_id in range(4_000)]
    with proxied(redis_store.url) as proxy:
        async with Tally.from_url(proxy.url) as tally:
            await tally.mark_unique("b", 0)
            proxy.passing.clear()
            task = asyncio.create_task(tally.mark_rows(table))
            await asyncio.to_thread(proxy.held.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            proxy.passing.set()
            assert await tally.mark_unique("b", 1)
            assert tally.stats().waiting == 0
    bits = redis_store.bits()
    bits.pop("trackist_b_u")
    assert len(bits.get(KEYS[0], ())) < 4_000
    assert len({frozenset(bits.get(key, ())) for key in KEYS}) == 1


# --- refusals


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (5, "trackist_a_W2026-48 was not changed; others may have been"),
        (5000, "a was not changed; others may have been"),
    ],
)
async def test_a_key_of_the_wrong_type(
    facade: Facade, plain_store: Store, count: int, message: str
) -> None:
    plain_store.raw.lpush(KEYS[1], "not a bitmap")
    table: list[Any] = [("a", user_id, NOON) for user_id in range(count)]
    async with facade.open(plain_store.url) as tally:
        with pytest.raises(WrongKeyTypeError, match=message):
            await tally.mark_rows([*table, ("b", 1, NOON)])
        # The rows of the other event were in the same transaction.
        assert await tally.contains(tally.day("b", NOON), 1)
        written = plain_store.raw.bitcount(KEYS[2])
        assert written == (5 if count == 5 else 0)
    assert not [name for name in plain_store.names() if "tmp" in name]


async def test_a_slow_function_for_bad_rows_ends_at_the_deadline(
    facade: Facade, redis_store: Store
) -> None:
    taken: list[int] = []

    def slow_to_take(index: int, row: Any, error: TallymarkError) -> None:
        taken.append(index)
        time.sleep(0.01)

    async with facade.open(redis_store.url) as tally:
        with pytest.raises(StoreTimeoutError, match=r"0\.05 s"):
            await tally.mark_rows([("a", -1, NOON)] * 500, on_error=slow_to_take, timeout=0.05)
        assert 1 <= len(taken) <= 6
        assert await tally.mark_event("a", 1)


async def test_a_slow_function_for_bad_rows_lets_other_tasks_run(redis_store: Store) -> None:
    order: list[str] = []

    def slow_to_take(index: int, row: Any, error: TallymarkError) -> None:
        order.append("row")
        time.sleep(row_bulk._TURN_TIME)

    async def other() -> None:
        while True:
            order.append("task")
            await asyncio.sleep(0)

    async with Tally.from_url(redis_store.url) as tally:
        task = asyncio.create_task(other())
        await tally.mark_rows([("a", -1, NOON)] * 20, on_error=slow_to_take)
        task.cancel()
    first = order.index("row")
    last = len(order) - order[::-1].index("row")
    assert order[first:last].count("row") == 20
    assert order[first:last] == ["row", "task"] * 19 + ["row"]


@pytest.mark.parametrize("wrong", [{"on_error": 5}, {"timeout": 0}, {"track_hourly": 1}])
async def test_rows_of_a_call_that_is_refused_are_not_read(wrong: Any) -> None:
    begun = []

    async def stream() -> AsyncIterator[Any]:
        begun.append(True)
        yield "a", 1, NOON

    async with Tally.from_url(NOWHERE) as tally:
        with pytest.raises((InvalidTypeError, InvalidValueError), match=next(iter(wrong))):
            await tally.mark_rows(stream(), **wrong)
    assert not begun


def test_the_thread_of_a_call_that_has_ended_stops() -> None:
    thread = row_bulk._Thread()
    steps = itertools.repeat(None)
    thread.pause()
    thread.stop()
    with pytest.raises(TallymarkError, match="ended"):
        for _ in steps:
            thread.pause()


async def test_names_of_events_are_checked(facade: Facade) -> None:
    async with facade.open(NOWHERE, event_pattern="[a-z]+", max_event_bytes=8) as tally:
        for event in ("A", "a" * 9, "ü" * 5):
            with pytest.raises(InvalidValueError, match=r"^row 0: event must"):
                await tally.mark_rows([(event, 1, NOON)])


@pytest.mark.parametrize("reply", [None, b"OK", 5, [0], [0, 0, 0], [0, 2], [[0], 0], [b"0", 0]])
def test_replies_that_do_not_fit(reply: Any) -> None:
    bitmaps = Bitmaps("a", (), ())
    for kind, count in ((0, 2), ((0, 1), 0)):
        marks = RowMarks(
            bitmaps, b"", [kind], [count], [b"k"], temp_keys=(), rows=2, users=lambda _: ()
        )
        if kind and reply == [0, 2]:
            continue  # two bits more in the second bitmap
        with pytest.raises(StoreError):
            marks.command(0).parse([reply])


def test_an_error_for_a_single_bit() -> None:
    marks = RowMarks(
        Bitmaps("a", (), ()), b"", [0], [2], [b"k"], temp_keys=(), rows=2, users=lambda _: ()
    )
    found = marks.command(0).parse([[0, CommandError("ERR no")]])
    assert isinstance(found, CommandError)
    assert str(found).startswith("k was not changed")


async def test_other_marks_get_in_between(redis_store: Store) -> None:
    """A mark does not wait for all of a long call."""
    table = [
        ("a", user_id * 50, NOON.date() - timedelta(user_id % 90)) for user_id in range(60_000)
    ]
    async with ASYNC.open(redis_store.url) as tally:
        await tally.mark_event("b", 0)
        call = asyncio.create_task(tally.mark_rows(table))
        marked = 0
        while not call.done():
            marked += 1
            await tally.mark_event("b", marked, now=date(2026, 1, 1))
        await call
    assert marked > 20
