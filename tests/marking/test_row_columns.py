"""`mark_rows`: values of columns that are no events, ids or moments concern their rows alone."""

from __future__ import annotations

import importlib
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest

from tallymark import Batch, Granularity, InvalidTypeError, InvalidValueError, SyncTally
from tallymark._core.moments import Instants
from tallymark._marking import rows
from tallymark._marking.row_columns import Coded, column

if TYPE_CHECKING:
    from collections.abc import Callable

    from facades import Facade
    from stores import Store

pa: Any = importlib.import_module("pyarrow")  # which has no types

M, W, D = Granularity.MONTH, Granularity.WEEK, Granularity.DAY
NOON = datetime(2026, 11, 23, 12)
KEYS = ["trackist_a_2026-11", "trackist_a_W2026-48", "trackist_a_2026-11-23"]

COLUMNS: dict[str, Any] = {
    "event": ["a", "a", "a", "a"],
    "user_id": [1, 2, 3, 4],
    "moment": [NOON] * 4,
}
#: A day, and one beyond the year 9999, in days since 1970.
DAYS = [(NOON.date() - date(1970, 1, 1)).days, 10**7]


def indexed(values: Any, kind: Any, gap: int = 1) -> Any:
    """Return a dictionary array of four times the first value, but for one row."""
    indexes = [None if at == gap else 0 for at in range(4)]
    return pa.DictionaryArray.from_arrays(pa.array(indexes, kind), pa.array(values))


def times(kind: Any, per_day: int, *, missing: bool = False) -> Any:
    """Return four moments, of which the second is in no year of Python, or missing too."""
    numbers: list[int | None] = [
        per_day * DAYS[0],
        per_day * DAYS[1],
        per_day * DAYS[0],
        per_day * DAYS[0],
    ]
    if missing:
        numbers[2] = None
    return pa.array(numbers, pa.int32() if kind == pa.date32() else pa.int64()).cast(kind)


def no_text() -> Any:
    """Return an array of texts of which the second is not valid."""
    ends = pa.py_buffer(np.array([0, 1, 2, 3, 4], dtype="int32").tobytes())
    return pa.Array.from_buffers(pa.string(), 4, [None, ends, pa.py_buffer(b"a\xffaa")])


GAPS: dict[str, tuple[Callable[[], Any], list[int]]] = {
    "lists": (lambda: {**COLUMNS, "event": ["a", None, "a", ""]}, [1, 3]),
    "floats": (lambda: {**COLUMNS, "user_id": np.array([1.0, 2.0, 3.0, 4.0])}, [0, 1, 2, 3]),
    "negative": (lambda: {**COLUMNS, "user_id": np.array([1, -2, 3, 4])}, [1]),
    "unsigned": (
        lambda: {**COLUMNS, "user_id": np.array([1, 2, 2**64 - 1, 4], dtype=np.uint64)},
        [2],
    ),
    "NaT": (
        lambda: {**COLUMNS, "moment": np.array(["2026-11-23", "NaT"] * 2, "datetime64[s]")},
        [1, 3],
    ),
    "years": (
        lambda: {**COLUMNS, "moment": np.array(["2026-11-23", "20000-01-01"] * 2, "M8[ms]")},
        [1, 3],
    ),
    "masked": (
        lambda: {**COLUMNS, "user_id": np.ma.array([1, 2, 3, 4], mask=[False, True, False, False])},
        [1],
    ),
    "pandas": (
        lambda: pd.DataFrame(
            {
                "event": pd.Categorical(["a", None, "a", "a"]),
                "user_id": pd.array([1, 2, None, 4], dtype="Int64"),
                "moment": pd.to_datetime(["2026-11-23"] * 3 + [""], utc=True),
            }
        ),
        [1, 2, 3],
    ),
    "pandas, arrow": (
        lambda: pd.DataFrame(
            {**COLUMNS, "user_id": pd.array([1, None, 3, 4], dtype="int64[pyarrow]")}
        ),
        [1],
    ),
    "polars": (
        lambda: pl.DataFrame(
            {**COLUMNS, "user_id": [1, None, 3, -4], "moment": [None, *[NOON] * 3]}
        ),
        [0, 1, 3],
    ),
    "pyarrow": (
        lambda: pa.table(
            {
                "event": pa.array(["a", None, "a", "a"]),
                "user_id": pa.array([1, 2, None, 4]),
                "moment": pa.array([NOON, NOON, NOON, None]),
            }
        ),
        [1, 2, 3],
    ),
    "pyarrow, dates": (lambda: pa.table({**COLUMNS, "moment": [None, *[NOON.date()] * 3]}), [0]),
    "unsigned indexes": (lambda: pa.table({**COLUMNS, "event": indexed(["a"], pa.uint8())}), [1]),
    "unsigned indexes of 64 bits": (
        lambda: pa.table({**COLUMNS, "user_id": indexed([7], pa.uint64())}),
        [1],
    ),
    "indexes of dates": (
        lambda: pa.table({**COLUMNS, "moment": indexed([NOON.date()], pa.uint32())}),
        [1],
    ),
    "polars, to arrow": (
        lambda: (
            pl.DataFrame({**COLUMNS, "event": ["a", "a", None, "a"]})
            .cast({"event": pl.Categorical})
            .to_arrow()
        ),
        [2],
    ),
    "date32": (
        lambda: pa.table({**COLUMNS, "moment": times(pa.date32(), 1, missing=True)}),
        [1, 2],
    ),
    "date64": (
        lambda: pa.table({**COLUMNS, "moment": times(pa.date64(), 86_400_000, missing=True)}),
        [1, 2],
    ),
    "timestamps": (lambda: pa.table({**COLUMNS, "moment": times(pa.timestamp("s"), 86_400)}), [1]),
    "categories of timestamps": (
        lambda: pa.table(
            {**COLUMNS, "moment": times(pa.timestamp("s", "UTC"), 86_400).dictionary_encode()}
        ),
        [1],
    ),
    "durations": (
        lambda: {**COLUMNS, "moment": pa.array([10**15] * 4, pa.duration("s"))},
        [0, 1, 2, 3],
    ),
    "not UTF-8": (lambda: {**COLUMNS, "event": no_text()}, [1]),
    "polars, years": (
        lambda: {
            **COLUMNS,
            "moment": pl.Series([86_400_000 * day for day in (*DAYS, DAYS[0])] + [None]).cast(
                pl.Datetime("ms", "UTC")
            ),
        },
        [1, 3],
    ),
    "polars, dates": (
        lambda: {
            **COLUMNS,
            "moment": pl.Series([DAYS[0], None, DAYS[1], DAYS[0]]).cast(pl.Date),
        },
        [1, 2],
    ),
    "polars, 128 bits": (
        lambda: {**COLUMNS, "user_id": pl.Series([1, 2, -3, 4], dtype=pl.Int128)},
        [2],
    ),
    "pandas, sparse": (
        lambda: {**COLUMNS, "user_id": pd.Series(pd.arrays.SparseArray([1, -2, 3, 4]))},
        [1],
    ),
    "ids that are durations": (
        lambda: {**COLUMNS, "user_id": np.array([1, 2, 3, 4], dtype="m8[ns]")},
        [0, 1, 2, 3],
    ),
    "one event": (lambda: {**COLUMNS, "event": "a\n"}, [0, 1, 2, 3]),
    "one moment": (lambda: {**COLUMNS, "moment": np.datetime64("NaT")}, [0, 1, 2, 3]),
}


@pytest.mark.parametrize("kind", GAPS)
async def test_gaps_in_columns_are_bad_rows(facade: Facade, redis_store: Store, kind: str) -> None:
    make, bad = GAPS[kind]
    taken: list[int] = []
    async with facade.open(redis_store.url) as tally:
        with pytest.raises((InvalidTypeError, InvalidValueError), match=f"^row {bad[0]}: "):
            await tally.mark_rows(make())
        assert not redis_store.names()
        await tally.mark_rows(make(), on_error=lambda index, row, error: taken.append(index))
    assert taken == bad
    good = {at + 1 for at in range(4)} - {at + 1 for at in bad}
    if kind == "unsigned indexes of 64 bits":
        good = {7}
    assert redis_store.bits() == (dict.fromkeys(KEYS, good) if good else {})


async def test_a_query_of_duckdb(facade: Facade, redis_store: Store) -> None:
    query: Any = duckdb.sql(
        "SELECT 'a'::ENUM ('b', 'a') AS event, range AS user_id, DATE '2026-11-23' AS moment "
        "FROM range(5000)"
    )
    async with facade.open(redis_store.url) as tally:
        assert await tally.mark_rows(query) == dict.fromkeys((M, W, D), 5_000)
    assert {redis_store.raw.bitcount(key) for key in KEYS} == {5_000}


@pytest.mark.parametrize("unit", ["ns", "us"])
def test_moments_and_durations_are_no_ids(unit: str) -> None:
    with SyncTally.from_url("memory://", user_ids=int) as tally:
        for kind in ("m8", "M8"):
            ids = np.array([1, 2], dtype=f"{kind}[{unit}]")
            taken: list[int] = []
            tally.mark_rows(
                {"event": "a", "user_id": ids, "moment": NOON},
                on_error=lambda index, row, error: taken.append(index),  # noqa: B023
            )
            assert taken == [0, 1]
            with pytest.raises(InvalidTypeError, match="user id must be"):
                tally.mark_many("a", ids)
            batch = {"event": "a", "granularity": "unique", "period": None, "user_id": ids}
            as_batch = Batch("a", Granularity.UNIQUE, None, ids)
            assert not any(isinstance(user_id, int) for user_id in as_batch.ids())
            for given in (batch, [batch], pd.DataFrame(batch), as_batch):
                with pytest.raises(InvalidTypeError, match=r"^row 0: user id must be"):
                    tally.restore(given)
        assert tally.event_names() == []


async def test_a_date_in_milliseconds_is_its_midnight(facade: Facade, redis_store: Store) -> None:
    moments = pa.array([86_400_000 * DAYS[0] + 3_600_000 * 5], pa.int64()).cast(pa.date64())
    async with facade.open(redis_store.url) as tally:
        table = {"event": "a", "user_id": [1], "moment": moments}
        await tally.mark_rows(table, track_hourly=True)
        await tally.mark_rows(zip("a", [1], moments.to_pylist(), strict=True), track_hourly=True)
    assert redis_store.names() == {*KEYS, f"{KEYS[2]}-0"}


def test_categories_of_moments_are_read_as_moments() -> None:
    """In nanoseconds they are no objects of Python."""
    moments = pa.array([1, None, 2**62 + 1], pa.timestamp("ns", "UTC"))
    found = column("moment", moments.dictionary_encode())
    assert isinstance(found, Instants)
    assert found.aware
    assert found.values.tolist()[::2] == [1, 2**62 + 1]


async def test_events_are_forgotten_between_blocks(
    facade: Facade, redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "BLOCK", 16_384)
    monkeypatch.setattr(rows, "_EVENTS", 1)
    events = [*"ab" * 10_000, *"bc" * 10_000]
    table = {"event": pd.Categorical(events), "user_id": np.arange(40_000), "moment": NOON}
    async with facade.open(redis_store.url) as tally:
        await tally.mark_rows(table)
        days = [tally.day(event, NOON) for event in "abc"]
        assert await tally.counts(days) == [10_000, 20_000, 10_000]


def test_the_codes_of_categories_without_gaps_are_not_copied() -> None:
    codes = pa.array([0, 1, 0], pa.uint32())
    found = column("event", pa.DictionaryArray.from_arrays(codes, pa.array(["a", "b"])))
    assert isinstance(found, Coded)
    assert found.codes.dtype == np.uint32
