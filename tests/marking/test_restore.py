"""Restores: batches, rows and columns become the bits of single bitmaps."""

from __future__ import annotations

import uuid
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np
import pandas as pd
import pytest

from facades import ASYNC, Facade
from tallymark import (
    Batch,
    Granularity,
    InvalidTypeError,
    InvalidValueError,
    Period,
    StoreTimeoutError,
    SyncTally,
    Tally,
    WrongKeyTypeError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from stores import Store

MONDAY = date(2026, 1, 5)
DAY = Period.containing(Granularity.DAY, datetime(2026, 1, 5))
ROWS = [
    ("a", "day", "2026-01-05", 1),
    ("a", "day", "2026-01-05", 9),
    ("a", "unique", None, 1),
    ("b", "hour", "2026-01-05T13", 2),
    ("a", "day", "2026-01-05", 9),
    ("b", "week", "2026-W02", 3),
]
KEYS = {
    "trackist_a_2026-1-5": {1, 9},
    "trackist_a_u": {1},
    "trackist_b_2026-1-5-13": {2},
    "trackist_b_W2026-2": {3},
}
COLUMNS = ("event", "granularity", "period", "user_id")


def columns() -> dict[str, list[Any]]:
    return {
        name: list(values) for name, values in zip(COLUMNS, zip(*ROWS, strict=True), strict=True)
    }


def polars() -> Any:
    return pytest.importorskip("polars").DataFrame(columns())


def arrow() -> Any:
    return pytest.importorskip("pyarrow").table(columns())


FORMS: dict[str, Any] = {
    "rows": lambda: ROWS,
    "generator": lambda: iter(ROWS),
    "lists": lambda: [list(row) for row in ROWS],
    "objects": lambda: [
        ("a", Granularity.DAY, DAY, 1),
        ("a", Granularity.DAY, DAY, np.int64(9)),
        *ROWS[2:],
    ],
    "texts": lambda: [(*row[:2], row[2] or "", str(row[3])) for row in ROWS],
    "mapping": columns,
    "arrays": lambda: {**columns(), "user_id": np.array(columns()["user_id"])},
    "mappings": lambda: [columns(), {**columns(), "user_id": [1, 9, 1, 2, 9, 3]}],
    "pandas": lambda: pd.DataFrame(columns()),
    "categories": lambda: pd.DataFrame(columns()).astype(
        {"event": "category", "granularity": "category", "period": "category"}
    ),
    "nullable": lambda: pd.DataFrame(columns()).astype({"user_id": "Int64"}),
    "polars": polars,
    "arrow": arrow,
    "record batches": lambda: arrow().to_batches(),
    "batches": lambda: [
        Batch("a", Granularity.DAY, DAY, [1, 9]),
        Batch("a", Granularity.DAY, DAY, np.array([9], dtype=np.uint8)),
        Batch("a", Granularity.UNIQUE, None, (1,)),
        Batch("a", Granularity.UNIQUE, None, []),
        *ROWS[3:],
    ],
}


@pytest.mark.parametrize("form", FORMS)
async def test_forms(facade: Facade, memory_store: Store, form: str) -> None:
    async with facade.open(memory_store.url) as tally:
        counts = await tally.restore(FORMS[form]())
        assert counts == {
            Granularity.DAY: 2,
            Granularity.UNIQUE: 1,
            Granularity.HOUR: 1,
            Granularity.WEEK: 1,
        }
        assert memory_store.bits() == KEYS


async def test_one_batch_and_one_value_for_all_rows(facade: Facade, memory_store: Store) -> None:
    async with facade.open(memory_store.url) as tally:
        await tally.restore(Batch("a", Granularity.DAY, DAY, [1, 9]))
        await tally.restore(
            {"event": "a", "granularity": "unique", "period": None, "user_id": np.array([1])}
        )
        assert await tally.restore([]) == {}
    assert memory_store.bits() == {"trackist_a_2026-1-5": {1, 9}, "trackist_a_u": {1}}


async def test_an_async_iterable_is_closed(memory_store: Store) -> None:
    closed = []

    async def batches() -> AsyncIterator[Any]:
        try:
            for row in ROWS:
                yield row
            yield ("a", "day", "tomorrow", 1)
        finally:
            closed.append(True)

    async with Tally.from_url(memory_store.url) as tally:
        with pytest.raises(InvalidValueError, match="row 6: "):
            await tally.restore(batches())
        assert closed == [True]
        assert memory_store.bits() == {}


async def test_rows_are_counted_over_all_blocks(memory_store: Store) -> None:
    async def batches() -> AsyncIterator[Any]:
        for event in "abc":
            yield Batch(event, Granularity.UNIQUE, None, range(40_000))
        yield ("d", "unique", None, 1)
        yield ("d", "unique", None, -1)

    async with Tally.from_url(memory_store.url) as tally:
        with pytest.raises(InvalidValueError, match=r"row 120001: .*; 120000 ids before"):
            await tally.restore(batches())


async def test_an_async_iterable_that_does_not_go_on(memory_store: Store) -> None:
    async def batches() -> AsyncIterator[Any]:
        yield ROWS[0]
        await anyio.sleep_forever()

    async with Tally.from_url(memory_store.url) as tally:
        with pytest.raises(StoreTimeoutError):
            await tally.restore(batches(), timeout=0.05)


@pytest.mark.parametrize("shards", [None, 3])
async def test_large_items_and_unsorted_rows(
    facade: Facade, memory_store: Store, shards: int | None
) -> None:
    numbers = np.arange(100_000)
    async with facade.open(memory_store.url, shards=shards) as tally:
        await tally.restore([Batch("a", Granularity.UNIQUE, None, numbers * 3)])
        assert await tally.count(tally.unique("a")) == 100_000
        await tally.restore(
            {
                "event": [f"e{number % 3}" for number in range(100_000)],
                "granularity": "unique",
                "period": None,
                "user_id": numbers,
            }
        )
        assert await tally.counts([tally.unique(f"e{number}") for number in range(3)]) == [
            33_334,
            33_333,
            33_333,
        ]
        assert await tally.contains_many(tally.unique("e1"), [0, 1, 99_998]) == [False, True, False]


# --- what is not allowed

BAD_ROWS: list[tuple[Any, type[Exception], str]] = [
    (("a", "day", "2026-01-05"), InvalidValueError, "a row has an event"),
    (("", "day", "2026-01-05", 1), InvalidValueError, "event must be a non-empty str"),
    (("a\n", "day", "2026-01-05", 1), InvalidValueError, "control characters"),
    (("a", "days", "2026-01-05", 1), InvalidValueError, "one of hour, day"),
    (("a", ["day"], "2026-01-05", 1), InvalidTypeError, "one of hour, day"),
    (("a", "day", "2026-1-5", 1), InvalidValueError, "written as 2026-01-05, got '2026-1-5'"),
    (("a", "day", "2026-W02", 1), InvalidValueError, "written as 2026-01-05"),
    (("a", "day", None, 1), InvalidTypeError, "must be a Period or a text such as 2026-01-05"),
    (("a", "unique", "2026", 1), InvalidValueError, "has no period"),
    (("a", "day", "2026-01-05", -1), InvalidValueError, r"in \[0, 4294967295\]"),
    (("a", "day", "2026-01-05", "x"), InvalidValueError, "a whole number, got 'x'"),
    (("a", "day", "2026-01-05", "1.0"), InvalidValueError, "a whole number"),
    (("a", "day", "2026-01-05", "٣"), InvalidValueError, "a whole number"),
    (("a", "day", "2026-01-05", 1.5), InvalidTypeError, "must be an int"),
    (("a", "day", "2026-01-05", None), InvalidTypeError, "must be an int"),
    (("a", "day", "2026-01-05", True), InvalidTypeError, "got True of type bool"),
    (5, InvalidTypeError, "an iterable of tallymark.Batch"),
    ("text", InvalidTypeError, "an iterable of tallymark.Batch"),
]


@pytest.mark.parametrize(("row", "error", "message"), BAD_ROWS)
async def test_a_bad_row_is_named_before_its_block_is_sent(
    facade: Facade, row: Any, error: type[Exception], message: str
) -> None:
    async with facade.open("redis://nowhere.invalid:1") as tally:
        with pytest.raises(error, match=message) as raised:
            await tally.restore([*ROWS[:2], Batch("a", Granularity.DAY, DAY, [1, 2]), row, *ROWS])
        assert "row 4: " in str(raised.value)


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        (5, InvalidTypeError, "must be an iterable of tallymark.Batch"),
        ("text", InvalidTypeError, "must be an iterable of tallymark.Batch"),
        ({}, InvalidValueError, "event and granularity and period and user_id missing"),
        ({"event": "a", "user_id": [1]}, InvalidValueError, "granularity and period missing"),
        (
            {"event": ["a"], "granularity": "unique", "period": None, "user_id": [1, 2]},
            InvalidValueError,
            "must have equally many rows",
        ),
        (
            {"event": "a", "granularity": "unique", "period": None, "user_id": 1},
            InvalidTypeError,
            "user_id must be a column",
        ),
        (
            pd.DataFrame({**columns(), "user_id": [1, 2, np.nan, 4, 5, 6]}),
            InvalidTypeError,
            "row 0: user id must be an int",
        ),
        (
            {"event": "a", "granularity": "unique", "period": None, "user_id": [1, 2, "x"]},
            InvalidValueError,
            "row 2: user id must be a whole number",
        ),
    ],
)
async def test_bad_columns(
    facade: Facade, batches: Any, error: type[Exception], message: str
) -> None:
    async with facade.open("redis://nowhere.invalid:1") as tally:
        with pytest.raises(error, match=message):
            await tally.restore(batches)


@pytest.mark.parametrize(
    ("kind", "bad"),
    [(str, 1.5), (uuid.UUID, "x"), (uuid.UUID, 5), (bytes, "0"), (bytes, 7), (int, 2**63)],
)
async def test_ids_of_the_wrong_type(kind: type, bad: Any) -> None:
    async with ASYNC.open("redis://nowhere.invalid:1", user_ids=kind) as tally:
        with pytest.raises((InvalidTypeError, InvalidValueError), match="row 0: user id"):
            await tally.restore([("a", "unique", None, bad)])


async def test_the_blocks_before_a_bad_row_are_sent(facade: Facade, memory_store: Store) -> None:
    def batches() -> Iterator[Any]:
        yield Batch("a", Granularity.UNIQUE, None, range(40_000))
        yield Batch("b", Granularity.UNIQUE, None, range(40_000))
        yield ("c", "unique", None, 1)
        yield ("c", "unique", None, -1)

    async with facade.open(memory_store.url) as tally:
        with pytest.raises(InvalidValueError, match=r"row 80001: .*; 80000 ids before were"):
            await tally.restore(batches())
        assert await tally.count(tally.unique("b")) == 40_000
        assert await tally.is_empty(tally.unique("c"))


async def test_a_key_of_another_type(facade: Facade, plain_store: Store) -> None:
    plain_store.raw.lpush("trackist_a_u", "x")
    async with facade.open(plain_store.url) as tally:
        with pytest.raises(WrongKeyTypeError):
            await tally.restore(ROWS)
    assert plain_store.raw.lrange("trackist_a_u", 0, -1) == [b"x"]


# --- options of the target


async def test_the_expiry_of_the_tally(facade: Facade, plain_store: Store) -> None:
    now = datetime.now(timezone.utc)
    old, new = now - timedelta(days=40), now - timedelta(days=2)
    days = [Period.containing(Granularity.DAY, each.replace(tzinfo=None)) for each in (old, new)]
    expire = {"day": timedelta(days=30)}
    async with facade.open(plain_store.url, expire=expire) as tally:
        counts = await tally.restore(
            [
                Batch("a", Granularity.DAY, days[0], range(1_000)),
                ("a", "day", days[0], 2**20),
                ("a", "day", days[1], 1),
                ("a", "year", "2020", 1),
            ]
        )
        # What would have expired is left out, so that no EXPIREAT in the past deletes a key.
        assert counts == {Granularity.DAY: 1, Granularity.YEAR: 1}
        assert plain_store.names() == {
            f"trackist_a_{days[1].suffix}",
            "trackist_a_2020",
        }
        ttl = plain_store.raw.ttl(f"trackist_a_{days[1].suffix}")
        assert 27 * 86_400 < ttl < 30 * 86_400
        assert plain_store.raw.ttl("trackist_a_2020") == -1


async def test_ids_of_expired_bitmaps_get_no_numbers(memory_store: Store) -> None:
    expire = {"day": timedelta(days=30)}
    async with ASYNC.open(memory_store.url, user_ids=str, expire=expire) as tally:
        await tally.restore([("a", "day", "2020-01-05", "ann")])
        assert await tally.numbers(["ann"]) == [None]


async def test_limits_on_events(facade: Facade, memory_store: Store) -> None:
    async with facade.open(memory_store.url, event_pattern="[a-z]+", max_events=1) as tally:
        with pytest.raises(InvalidValueError, match=r"row 1: .*event_pattern"):
            await tally.restore([("a", "unique", None, 1), ("a-b", "unique", None, 1)])
        assert memory_store.names() == set()
        with pytest.raises(InvalidValueError, match="max_events=1"):
            await tally.restore([("a", "unique", None, 1), ("b", "unique", None, 1)])


async def test_years_without_the_option(facade: Facade, memory_store: Store) -> None:
    async with facade.open(memory_store.url) as tally:
        await tally.restore([("a", "year", "2026", 1)])
    assert memory_store.bits() == {"trackist_a_2026": {1}}


# --- transactions


def test_small_bitmaps_share_transactions(redis_store: Store) -> None:
    def executed() -> int:
        return int(redis_store.raw.info("commandstats")["cmdstat_exec"]["calls"])

    with SyncTally.from_url(redis_store.url) as tally:
        tally.mark_unique("a", 1)
        before = executed()
        batches = [
            Batch(f"e{number}", Granularity.UNIQUE, None, range(10)) for number in range(1_000)
        ]
        assert tally.restore(batches) == {Granularity.UNIQUE: 10_000}
        assert 10 <= executed() - before <= 11
        assert tally.count(tally.unique("e999")) == 10


def test_ids_of_small_bitmaps_share_transactions(redis_store: Store) -> None:
    with SyncTally.from_url(redis_store.url, user_ids=str) as tally:
        rows = [
            (f"e{number % 200}", "unique", None, f"user-{number % 30}") for number in range(6_000)
        ]
        assert tally.restore(rows) == {Granularity.UNIQUE: 600}
        assert tally.restore(reversed(rows)) == {Granularity.UNIQUE: 0}
        assert set(tally.users(tally.unique("e7"))) == {"user-7", "user-17", "user-27"}
