"""Exports: every bit of every bitmap, in order, in batches of bounded size."""

from __future__ import annotations

import contextlib
import itertools
import random
import uuid
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from facades import ASYNC, ON_SOME_STORES, Facade
from stores import ClusterStore
from tallymark import (
    Batch,
    Granularity,
    InvalidTypeError,
    InvalidValueError,
    MissingExtraError,
    Period,
    SyncTally,
    Tally,
    WrongSchemaError,
)
from tallymark._core.batches import ORDER, parse_period
from tallymark._reading import bits, exporting

if TYPE_CHECKING:
    from stores import Store

NOON = datetime(2026, 1, 5, 13, 30)
FAR = 3_000_000


async def exported(tally: Any, *args: Any, **options: Any) -> list[Batch[Any]]:
    return [batch async for batch in tally.export(*args, **options)]


def rows(batches: list[Batch[Any]]) -> list[tuple[Any, ...]]:
    return [row for batch in batches for row in batch.to_rows()]


async def fill(tally: Any) -> None:
    """Mark something in bitmaps of all granularities."""
    for user, hours in ((5, 0), (FAR, 1), (7, 30), (8, 24 * 40)):
        moment = NOON + timedelta(hours=hours)
        await tally.mark_event("b", user, now=moment, track_hourly=True, track_unique=True)
    await tally.mark_unique("a", 3)


ROWS = [
    ("a", "unique", None, 3),
    ("b", "hour", "2026-01-05T13", 5),
    ("b", "hour", "2026-01-05T14", FAR),
    ("b", "hour", "2026-01-06T19", 7),
    ("b", "hour", "2026-02-14T13", 8),
    ("b", "day", "2026-01-05", 5),
    ("b", "day", "2026-01-05", FAR),
    ("b", "day", "2026-01-06", 7),
    ("b", "day", "2026-02-14", 8),
    *(("b", "week", "2026-W02", user) for user in (5, 7, FAR)),
    ("b", "week", "2026-W07", 8),
    *(("b", "month", "2026-01", user) for user in (5, 7, FAR)),
    ("b", "month", "2026-02", 8),
    *(("b", "year", "2026", user) for user in (5, 7, 8, FAR)),
    *(("b", "unique", None, user) for user in (5, 7, 8, FAR)),
]


async def test_all_bits_in_order(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, track_yearly=True) as tally:
        await fill(tally)
        batches = await exported(tally)
    assert rows(batches) == ROWS
    assert {type(batch.user_ids) for batch in batches} == {np.ndarray}
    assert {np.asarray(batch.user_ids).dtype for batch in batches} == {np.dtype(np.int64)}


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({"events": "a"}, lambda row: row[0] == "a"),
        ({"events": ["b", "nobody"]}, lambda row: row[0] == "b"),
        ({"events": []}, lambda row: False),
        (
            {"granularities": Granularity.DAY | Granularity.UNIQUE},
            lambda r: r[1] in {"day", "unique"},
        ),
        ({"granularities": ["hour", Granularity.YEAR]}, lambda row: row[1] in {"hour", "year"}),
        ({"granularities": "week"}, lambda row: row[1] == "week"),
        (
            {"granularities": [*["day"] * 40, "week"]},
            lambda row: row[1] in {"day", "week"},
        ),
        (
            {"since": date(2026, 1, 6)},
            lambda row: row[1] != "unique" and not str(row[2]).startswith("2026-01-05"),
        ),
        (
            {"until": datetime(2026, 1, 5, 14)},
            lambda row: (
                (row[1] not in {"unique", "hour", "day"} and row[3] != 8 and row[2] != "2026-W07")
                or row[1] == "year"
                or row[2] in {"2026-01-05T13", "2026-01-05"}
            ),
        ),
        (
            {
                "since": datetime(2026, 1, 5, 14),
                "until": datetime(2026, 1, 6),
                "granularities": ["hour", "unique"],
            },
            lambda row: row[1] == "unique" or row[2] == "2026-01-05T14",
        ),
    ],
)
async def test_some_bitmaps(
    facade: Facade, memory_store: Store, arguments: dict[str, Any], wanted: Any
) -> None:
    async with facade.open(memory_store.url, track_yearly=True) as tally:
        await fill(tally)
        assert rows(await exported(tally, **arguments)) == [row for row in ROWS if wanted(row)]


async def test_the_last_periods_of_the_calendar(memory_store: Store) -> None:
    async with ASYNC.open(memory_store.url) as tally:
        await tally.mark_event("a", 1, now=date(9999, 12, 31))
        await tally.mark_event("a", 2, now=date(1, 1, 1))
        late = rows(await exported(tally, since=date(9999, 12, 31)))
        assert late == [
            ("a", "day", "9999-12-31", 1),
            ("a", "week", "9999-W52", 1),
            ("a", "month", "9999-12", 1),
        ]
        early = rows(await exported(tally, until=date(1, 1, 2)))
        assert [row[2] for row in early] == ["0001-01-01", "0001-W01", "0001-01"]
        assert await tally.restore(late + early) == dict.fromkeys(
            (Granularity.DAY, Granularity.WEEK, Granularity.MONTH), 0
        )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"events": 5}, InvalidTypeError, "events must be a name or several"),
        ({"events": ["a", ""]}, InvalidValueError, "event must be a non-empty str"),
        ({"events": map(str, range(10**9))}, InvalidValueError, "too many events"),
        ({"granularities": "second"}, InvalidValueError, "one of hour, day"),
        ({"granularities": []}, InvalidValueError, "one or more"),
        ({"granularities": Granularity(0)}, InvalidValueError, "one or more"),
        ({"granularities": [Granularity.DAY | Granularity.WEEK]}, InvalidValueError, "week.day"),
        ({"granularities": 5}, InvalidTypeError, "some of Granularity"),
        ({"granularities": [*["day"] * 40, "second"]}, InvalidValueError, "'second'"),
        ({"granularities": itertools.repeat("day")}, InvalidValueError, "at most 1,000"),
        ({"since": 5}, InvalidTypeError, "since must be a date"),
        ({"since": NOON, "until": NOON}, InvalidValueError, "before until"),
        ({"on_skip": 5}, InvalidTypeError, "on_skip must be callable"),
        ({"timeout": -1}, InvalidValueError, "timeout"),
    ],
)
async def test_bad_arguments_send_nothing(
    facade: Facade, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    async with facade.open("redis://nowhere.invalid:1") as tally:
        with pytest.raises(error, match=message):
            await exported(tally, **arguments)


@ON_SOME_STORES
@pytest.mark.parametrize("numpy", [True, False], ids=["numpy", "ints"])
async def test_long_bitmaps(
    facade: Facade, store: Store, numpy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dense ones of several batches, sparse ones with long gaps, and many in one request."""
    made = bits.Arrays(np) if numpy else bits.Ints()
    monkeypatch.setattr(exporting, "algebra", lambda: made)
    generator = random.Random(7)
    users = {
        "dense": range(150_000),
        "gaps": [0, 1, 700_000, 700_001, FAR, 2**24],
        "half": sorted(generator.sample(range(400_000), 200_000)),
        **{f"short{number:03}": [number] for number in range(100)},
    }
    shards = None if isinstance(store, ClusterStore) else (3 if facade is ASYNC else None)
    async with facade.open(store.url, shards=shards) as tally:
        for event, ids in users.items():
            await tally.mark_unique_many(event, ids)
        batches = await exported(tally)
    assert [len(batch) for batch in batches[:4]] == [65_536, 65_536, 18_928, 6]
    assert max(map(len, batches)) == 65_536
    found: dict[str, list[int]] = {}
    for batch in batches:
        found.setdefault(batch.event, []).extend(batch.ids())
    assert {event: list(ids) for event, ids in users.items()} == found


async def test_keys_that_are_skipped(facade: Facade, plain_store: Store) -> None:
    result = "trackist_bitop_AND_trackist_a_u_trackist_b_u"
    plain_store.raw.set(result, b"\x80")
    plain_store.raw.lpush("trackist_list_u", "x")
    plain_store.raw.set("trackist_no_period", b"\x80")
    plain_store.raw.set("other_a_u", b"\x80")
    skipped: list[tuple[str, str]] = []
    async with facade.open(plain_store.url) as tally:
        await tally.mark_unique("a", 1)
        assert rows(await exported(tally)) == [("a", "unique", None, 1)]
        await exported(tally, on_skip=lambda *args: skipped.append(args))
        assert sorted(key for key, _ in skipped) == [result, "trackist_list_u"]
        assert {reason.split()[0] for _, reason in skipped} == {"it"}
        event = result.removeprefix("trackist_").removesuffix("_u")
        assert rows(await exported(tally, event)) == [(event, "unique", None, 0)]


async def test_odd_names(facade: Facade, store: Store) -> None:
    names = [
        "a",
        "a_u",
        "a_2026-1-5",
        "ü, \"x\" 'y'",
        "W2026-2",
        "*?[]",
        "\u2028",
        "a b",
        "u",
        "日本",
    ]
    async with facade.open(store.url) as tally:
        for user, name in enumerate(names):
            await tally.mark_unique(name, user)
        assert rows(await exported(tally)) == [
            (name, "unique", None, names.index(name)) for name in sorted(names)
        ]
        assert [row[0] for row in rows(await exported(tally, "a"))] == ["a"]


async def test_bitmaps_that_are_deleted_meanwhile(facade: Facade, memory_store: Store) -> None:
    async with facade.open(memory_store.url) as tally:
        await tally.mark_unique_many("a", range(100_000))
        for number in range(100):
            await tally.mark_unique(f"b{number:03}", 1)
        batches = tally.export()
        assert len(await anext(batches)) == 65_536
        memory_store.raw.flushdb()
        # What had been fetched, and nothing else.
        rest = [batch.event async for batch in batches]
        assert len(rest) < 80
        assert rest[-1] < "b099"


async def test_an_iteration_may_stop_at_any_time(redis_store: Store) -> None:
    async with Tally.from_url(redis_store.url) as tally:
        await tally.mark_unique_many("a", range(200_000))
        batches = tally.export()
        await anext(batches)
        await batches.aclose()
        assert await tally.count(tally.unique("a")) == 200_000
        async with contextlib.aclosing(tally.export()) as others:
            async for batch in others:
                assert await tally.contains(tally.unique("a"), int(batch.user_ids[0]))
                break
    with SyncTally.from_url(redis_store.url) as blocking:
        with contextlib.closing(blocking.export()) as stream:
            next(stream)
            assert blocking.count(blocking.unique("a")) == 200_000
        assert list(stream) == []
    assert redis_store.names() == {"trackist_a_u"}


IDS: dict[type, list[Any]] = {
    str: ["ann", "bob, 'x'", "ü\n", "007", "\x00"],
    bytes: [b"ann", b"\x00", b"\xff\xfe"],
    uuid.UUID: [uuid.UUID(int=number) for number in (0, 1, 2**128 - 1)],
    int: [0, -1, 2**63 - 1, -(2**63)],
}


@pytest.mark.parametrize("kind", IDS)
async def test_ids_of_all_types(facade: Facade, store: Store, kind: type) -> None:
    ids = IDS[kind]
    async with facade.open(store.url, user_ids=kind) as tally:
        await tally.mark_many("a", ids, now=NOON)
        (batch,) = await exported(tally, granularities="day")
        assert type(batch.user_ids) is list
        assert sorted(batch.user_ids) == sorted(ids)
        await tally.forget(ids[1])
        (batch,) = await exported(tally, granularities="day")
        assert set(batch.user_ids) == {*ids} - {ids[1]}


async def test_bits_of_nobody(plain_store: Store) -> None:
    """Such as those that a mark of a user sets who is forgotten at the same time."""
    with SyncTally.from_url(plain_store.url, user_ids=str) as tally:
        tally.mark_unique("a", "ann")
        plain_store.raw.setbit("trackist_a_u", 700, 1)
        plain_store.raw.setbit("trackist_b_u", 800, 1)
        skipped: list[tuple[str, str]] = []
        batches = list(tally.export(on_skip=lambda *args: skipped.append(args)))
        assert rows(batches) == [("a", "unique", None, "ann")]
    assert skipped == [(f"trackist_{event}_u", "1 of its users have no id") for event in ("a", "b")]


@pytest.mark.parametrize(
    "options", [{"user_ids": str}, {"shards": 3}, {"user_ids": int, "shards": 2}]
)
async def test_a_database_without_the_options(
    facade: Facade, plain_store: Store, options: dict[str, Any]
) -> None:
    """Its users would be missing in a backup."""
    async with facade.open(plain_store.url, **options) as tally:
        assert await exported(tally) == []
        plain_store.raw.setbit("trackist_no_period", 1, 1)
        assert await exported(tally) == []
        plain_store.raw.setbit("trackist_a_u", 1, 1)
        missing = "shards" if "shards" in options else "user_ids"
        for arguments in ({}, {"events": "b", "granularities": "day"}):
            with pytest.raises(WrongSchemaError, match=f"bitmaps without {missing}"):
                await exported(tally, **arguments)
    assert len(plain_store.names()) == 2
    async with facade.open(plain_store.url) as tally:
        assert rows(await exported(tally)) == [("a", "unique", None, 1)]


async def test_a_schema_key_that_was_evicted(plain_store: Store) -> None:
    with SyncTally.from_url(plain_store.url, user_ids=str) as tally:
        tally.mark_unique("a", "ann")
        plain_store.raw.delete("trackist_schema")
        assert rows(list(tally.export())) == [("a", "unique", None, "ann")]


async def test_batches_of_many_ids(memory_store: Store) -> None:
    with SyncTally.from_url(memory_store.url, user_ids=str, shards=2) as tally:
        ids = [f"user-{number}" for number in range(20_000)]
        tally.mark_unique_many("a", ids)
        batches = list(tally.export())
        assert max(map(len, batches)) <= 65_536
        assert sorted(user for batch in batches for user in batch.user_ids) == sorted(ids)


# --- batches


def test_a_batch_in_other_forms() -> None:
    day = Period.containing(Granularity.DAY, NOON)
    batch = Batch("a", Granularity.DAY, day, [1, 2])
    assert len(batch) == 2
    assert repr(batch) == "<Batch of 'a', day 2026-01-05: 2 users>"
    assert batch.to_rows() == [("a", "day", "2026-01-05", 1), ("a", "day", "2026-01-05", 2)]
    arrow = batch.to_arrow()
    assert arrow.to_pylist() == [
        {"event": "a", "granularity": "day", "period": "2026-01-05", "user_id": user}
        for user in (1, 2)
    ]
    frame = batch.to_pandas()
    assert frame.astype(object).values.tolist() == [list(row) for row in batch.to_rows()]
    flag = Batch("f", Granularity.UNIQUE, None, [uuid.UUID(int=1)])
    assert flag.to_arrow().to_pylist()[0] == {
        "event": "f",
        "granularity": "unique",
        "period": None,
        "user_id": str(uuid.UUID(int=1)),
    }
    assert pd.isna(flag.to_pandas().period[0])
    assert Batch("f", Granularity.UNIQUE, None, np.array([1, 2])).ids() == [1, 2]


@pytest.mark.parametrize("form", ["arrow", "pandas"])
def test_a_form_without_its_library(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library = {"arrow": "pyarrow", "pandas": "pandas"}[form]
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(MissingExtraError, match=f"pip install {library}"):
        getattr(Batch("f", Granularity.UNIQUE, None, [1]), f"to_{form}")()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("", Granularity.UNIQUE, None, []), InvalidValueError),
        (("a", Granularity.DAY, None, []), InvalidTypeError),
        (("a", Granularity.DAY, Period.containing(Granularity.WEEK, NOON), []), InvalidValueError),
        (
            ("a", Granularity.UNIQUE, Period.containing(Granularity.WEEK, NOON), []),
            InvalidValueError,
        ),
        (("a", Granularity.DAY | Granularity.WEEK, None, []), InvalidValueError),
        (("a", 5, None, []), InvalidTypeError),
        (("a", Granularity.UNIQUE, None, 5), InvalidTypeError),
        (("a", Granularity.UNIQUE, None, "ab"), InvalidTypeError),
        (("a", Granularity.UNIQUE, None, iter([1])), InvalidTypeError),
    ],
)
def test_bad_batches(arguments: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Batch(*arguments)


def test_periods_are_parsed_as_they_are_written() -> None:
    for granularity in ORDER[:-1]:
        for moment in (NOON, datetime.min, datetime.max, datetime(2027, 1, 1)):
            period = Period.containing(granularity, moment)
            assert parse_period(str(period)) == period
    for text in (
        "",
        "2026-1",
        "2026-13",
        "2026-W54",
        "2026-W00",
        "0000",
        "2026-01-05T24",
        "2026-01-05 ",
        "\uff12\uff10\uff12\uff16",
        "2026-01-05T13:00",
        "2025-W53",
    ):
        assert parse_period(text) is None
