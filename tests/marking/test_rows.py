"""`mark_rows`: as `mark_event` for each row, whatever the rows come in."""

from __future__ import annotations

import importlib
import itertools
from collections import Counter
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tallymark
from facades import ON_SOME_STORES, internals
from moments import naive_moments, zones
from proxy import proxied
from tallymark import Granularity, Tally
from tallymark._core import moments as core_moments
from tallymark._marking import row_blocks, row_pieces, row_reader, rows
from tallymark._marking.marks import BitMark
from tallymark._marking.row_marks import RowMarks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from facades import Facade
    from stores import Store

pa: Any = importlib.import_module("pyarrow")  # which has no types

M, W, D, H = Granularity.MONTH, Granularity.WEEK, Granularity.DAY, Granularity.HOUR
BERLIN = ZoneInfo("Europe/Berlin")

MODEL = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

#: Few days, so that many rows share them, and any others.
days = st.builds(lambda day: date(2026, 11, 23) + timedelta(day), st.integers(0, 12))
moments = st.one_of(
    days,
    days.map(lambda day: datetime(day.year, day.month, day.day, 23, 30)),
    naive_moments,
    st.builds(lambda moment, zone: moment.replace(tzinfo=zone), naive_moments, zones),
)
users = st.integers(0, 40) | st.integers(5_000, 5_100) | st.integers(0, 20_000_000)
single = st.lists(st.tuples(st.sampled_from("abc"), users, moments), max_size=30)
#: Neighbours, for parts of bitmaps; some of them twice.
crowd = st.builds(
    lambda event, first, count, step, of_days: [
        (event, first + step * at, of_days[at % len(of_days)]) for at in range(count)
    ],
    st.sampled_from("abc"),
    st.integers(0, 9_000) | st.integers(2**20 - 100, 2**20),
    st.integers(30, 400),
    st.integers(1, 3),
    st.lists(days, min_size=1, max_size=4),
)
tables = st.builds(
    lambda few, crowds: few + list(itertools.chain.from_iterable(crowds)),
    single,
    st.lists(crowd, max_size=3),
).flatmap(st.permutations)
switches = st.fixed_dictionaries({"track_hourly": st.booleans(), "track_unique": st.booleans()})


async def marked_singly(tally: Any, table: list[Any], **options: Any) -> Counter[Granularity]:
    """Mark each row by itself; return how many bits that flipped."""
    async with tally.transaction() as tx:
        pending = [
            tx.mark_event(event, user_id, now=moment, **options) for event, user_id, moment in table
        ]
    return Counter(granularity for mark in pending for granularity in mark.flipped)


def positive(counts: dict[Granularity, int]) -> dict[Granularity, int]:
    return {granularity: count for granularity, count in counts.items() if count}


@ON_SOME_STORES
@MODEL
@given(
    table=tables,
    before=single,
    options=switches,
    zone=st.sampled_from(["UTC", "Europe/Berlin"]),
    yearly=st.booleans(),
    has_numpy=st.booleans(),
    longest=st.sampled_from([20.0, 1500.0]),
)
async def test_as_each_row_by_itself(
    facade: Facade,
    store: Store,
    table: list[Any],
    before: list[Any],
    options: Any,
    zone: str,
    yearly: bool,
    has_numpy: bool,
    longest: float,
) -> None:
    found = []
    for by_rows in (False, True):
        store.raw.flushdb()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(row_pieces, "_LONGEST", longest)
            if not has_numpy:
                patch.setattr(row_reader, "loaded_numpy", lambda: None)
            async with facade.open(store.url, timezone=zone, track_yearly=yearly) as tally:
                await marked_singly(tally, before)
                if by_rows:
                    counts = await tally.mark_rows(table, **options)
                    assert await tally.mark_rows(table, **options) == dict.fromkeys(counts, 0)
                else:
                    counts = await marked_singly(tally, table, **options)
        found.append((positive(counts), store.bits(), store.names()))
    assert found[0] == found[1]


@MODEL
@given(
    table=tables,
    options=st.sampled_from(
        [
            {"shards": 5},
            {"shards": 5, "max_user_id": 20_000_000},
            {"bitfield": False},
            {"bitfield": False, "shards": 3},
            {"expire": {"day": timedelta(days=90), "week": timedelta(days=20_000)}},
        ]
    ),
)
async def test_as_each_row_with_options(
    facade: Facade, redis_store: Store, table: list[Any], options: Any
) -> None:
    found = []
    for by_rows in (False, True):
        redis_store.raw.flushdb()
        async with facade.open(redis_store.url, **options) as tally:
            if by_rows:
                counts = await tally.mark_rows(table)
            else:
                counts = await marked_singly(tally, table)
        values = redis_store.values()
        ends = redis_store.expiries()
        trimmed = {key: value.rstrip(b"\0") for key, value in values.items()}
        found.append((positive(counts), trimmed, ends))
    assert found[0] == found[1]


async def test_many_rows_in_several_blocks(
    facade: Facade, redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a window of offsets: some windows are dense, and others are not."""
    monkeypatch.setattr(rows, "BLOCK", 30_000)
    generator = np.random.default_rng(7)
    count = 50_000
    ids = np.where(
        generator.random(count) < 0.5,
        generator.integers(0, 30_000, count),
        generator.integers(0, 3_000_000, count),
    )
    moments = np.datetime64("2026-01-20") + generator.integers(0, 20, count)
    table = {"event": ["a"] * count, "user_id": ids, "moment": moments}
    async with facade.open(redis_store.url) as tally:
        counts = await tally.mark_rows(table)
        marked = redis_store.bits()
        wanted: dict[str, set[int]] = {}
        for user_id, moment in zip(ids.tolist(), moments.tolist(), strict=True):
            year, week, _ = moment.isocalendar()
            for suffix in (
                f"{moment.year}-{moment.month}",
                f"W{year}-{week}",
                f"{moment.year}-{moment.month}-{moment.day}",
            ):
                wanted.setdefault(f"trackist_a_{suffix}", set()).add(user_id)
        assert marked == wanted
        assert sum(counts.values()) == sum(map(len, wanted.values()))


# --- what rows may come in


NOON = datetime(2026, 11, 23, 12, 30)
ROWS: list[tuple[str, int, datetime]] = [
    ("a", 1, NOON),
    ("b", 2, NOON + timedelta(days=1)),
    ("a", 3, NOON - timedelta(days=40)),
    ("a", 1, NOON),
]
EVENTS, IDS, MOMENTS = map(list, zip(*ROWS, strict=True))
COLUMNS: dict[str, Any] = {"event": EVENTS, "user_id": IDS, "moment": MOMENTS}
IN_UTC = [moment.replace(tzinfo=BERLIN).astimezone(timezone.utc) for moment in MOMENTS]


class Row(tuple[Any, ...]):
    """As the named tuples of a database driver."""

    __slots__ = ()


def arrow(**changed: Any) -> Any:
    return pa.table({**COLUMNS, **changed})


CONTAINERS: dict[str, Callable[[], Any]] = {
    "list": lambda: ROWS,
    "lists in a tuple": lambda: tuple(map(list, ROWS)),
    "subclasses of tuple": lambda: [Row(row) for row in ROWS],
    "generator": lambda: (row for row in ROWS),
    "pandas timestamps": lambda: [
        (event, np.int64(user), pd.Timestamp(moment)) for event, user, moment in ROWS
    ],
    "datetime64": lambda: [
        (event, np.uint8(user), np.datetime64(moment)) for event, user, moment in ROWS
    ],
    "aware": lambda: [(*row[:2], moment) for row, moment in zip(ROWS, IN_UTC, strict=True)],
    "dict of lists": lambda: COLUMNS,
    "dict of tuples": lambda: {name: tuple(column) for name, column in COLUMNS.items()},
    "dict of arrays": lambda: {
        "event": np.array(EVENTS),
        "user_id": np.array(IDS, dtype=np.uint32),
        "moment": np.array(MOMENTS, dtype="datetime64[ns]"),
    },
    "arrays of objects": lambda: {
        name: np.array(column, dtype=object) for name, column in COLUMNS.items()
    },
    "big-endian arrays": lambda: {
        **COLUMNS,
        "user_id": np.array(IDS, dtype=">i8"),
        "moment": np.array(MOMENTS, dtype=">M8[s]"),
    },
    "masked arrays": lambda: {**COLUMNS, "user_id": np.ma.array(IDS, mask=[False] * 4)},
    "structured array": lambda: np.array(
        ROWS, dtype=[("event", "U1"), ("user_id", "i4"), ("moment", "M8[ms]")]
    ),
    "pandas": lambda: pd.DataFrame({**COLUMNS, "other": 1}),
    "pandas, aware": lambda: pd.DataFrame({**COLUMNS, "moment": pd.to_datetime(IN_UTC)}),
    "pandas, aware in Tokyo": lambda: pd.DataFrame(
        {**COLUMNS, "moment": pd.to_datetime(IN_UTC).tz_convert("Asia/Tokyo").as_unit("s")}
    ),
    "pandas, categories": lambda: pd.DataFrame(COLUMNS).astype(
        {"event": "category", "user_id": "Int64"}
    ),
    "pandas, arrow": lambda: pd.DataFrame(COLUMNS).convert_dtypes(dtype_backend="pyarrow"),
    "pandas, strings": lambda: pd.DataFrame(COLUMNS).convert_dtypes(),
    "columns of pandas": lambda: {
        "event": pd.Categorical(EVENTS),
        "user_id": pd.Series(IDS),
        "moment": pd.DatetimeIndex(IN_UTC),
    },
    "polars": lambda: pl.DataFrame({**COLUMNS, "other": [1, 2, 3, 4]}),
    "polars, categories": lambda: pl.DataFrame(COLUMNS).cast(
        {"event": pl.Categorical, "user_id": pl.UInt16, "moment": pl.Datetime("ms")}
    ),
    "polars, enum": lambda: pl.DataFrame(COLUMNS).cast({"event": pl.Enum(["z", "b", "a"])}),
    "polars, aware": lambda: pl.DataFrame({**COLUMNS, "moment": IN_UTC}),
    "pyarrow": arrow,
    "pyarrow, chunks": lambda: pa.concat_tables([arrow().slice(0, 3), arrow().slice(3)]),
    "pyarrow, chunks of categories": lambda: pa.concat_tables(
        [
            arrow(event=pa.array(EVENTS).dictionary_encode()).slice(0, 3),
            arrow(event=pa.array([*"bbba"]).dictionary_encode()).slice(3),
        ]
    ),
    "pyarrow, aware": lambda: arrow(moment=pa.array(IN_UTC, pa.timestamp("ns", "Asia/Tokyo"))),
    "pyarrow, seconds": lambda: arrow(moment=pa.array(MOMENTS, pa.timestamp("s"))),
    "pyarrow, large strings": lambda: arrow(event=pa.array(EVENTS, pa.large_string())),
    "record batch": lambda: arrow().to_batches()[0],
    "record batches": lambda: pa.concat_tables([arrow().slice(0, 3), arrow().slice(3)]).to_reader(),
    "columns of pyarrow": lambda: {name: pa.array(column) for name, column in COLUMNS.items()},
}
WANTED = {
    "trackist_a_2026-11": {1},
    "trackist_a_W2026-48": {1},
    "trackist_a_2026-11-23": {1},
    "trackist_b_2026-11": {2},
    "trackist_b_W2026-48": {2},
    "trackist_b_2026-11-24": {2},
    "trackist_a_2026-10": {3},
    "trackist_a_W2026-42": {3},
    "trackist_a_2026-10-14": {3},
}


@pytest.mark.parametrize("container", CONTAINERS)
async def test_containers(facade: Facade, redis_store: Store, container: str) -> None:
    async with facade.open(redis_store.url, timezone="Europe/Berlin") as tally:
        assert await tally.mark_rows(CONTAINERS[container]()) == {M: 3, W: 3, D: 3}
    assert redis_store.bits() == WANTED


async def test_dates_of_frames(facade: Facade, redis_store: Store) -> None:
    dates = [moment.date() for moment in MOMENTS]
    async with facade.open(redis_store.url) as tally:
        for table in (
            arrow(moment=dates),
            pl.DataFrame({**COLUMNS, "moment": dates}),
            {**COLUMNS, "moment": np.array(dates, dtype="datetime64[D]")},
        ):
            redis_store.raw.flushdb()
            assert await tally.mark_rows(table) == {M: 3, W: 3, D: 3}
            assert redis_store.bits() == WANTED


async def streamed(table: list[Any]) -> AsyncIterator[Any]:
    for row in table:
        yield row


async def test_async_iterables(redis_store: Store) -> None:
    many = [("a", user_id, NOON) for user_id in range(20_000)]
    async with Tally.from_url(redis_store.url, timezone="Europe/Berlin") as tally:
        assert await tally.mark_rows(streamed(ROWS)) == {M: 3, W: 3, D: 3}
        assert redis_store.bits() == WANTED
        assert await tally.mark_rows(streamed([])) == {M: 0, W: 0, D: 0}
        assert await tally.mark_rows(streamed(many)) == dict.fromkeys((M, W, D), 19_999)


@pytest.mark.parametrize(
    "moment", [date(2026, 11, 23), NOON, NOON.replace(tzinfo=BERLIN), np.datetime64("2026-11-23")]
)
async def test_one_event_and_one_moment(facade: Facade, redis_store: Store, moment: Any) -> None:
    async with facade.open(redis_store.url) as tally:
        table = {"event": "a", "user_id": np.arange(10_000), "moment": moment}
        assert await tally.mark_rows(table) == {M: 10_000, W: 10_000, D: 10_000}
        assert await tally.mark_rows({**table, "user_id": []}) == {M: 0, W: 0, D: 0}
        assert await tally.mark_rows({**table, "user_id": [5, 10_000]}) == {M: 1, W: 1, D: 1}
    assert redis_store.raw.bitcount("trackist_a_2026-11-23") == 10_001


@pytest.mark.parametrize(
    "empty",
    [
        [],
        (),
        iter([]),
        {"event": [], "user_id": [], "moment": []},
        pd.DataFrame(COLUMNS)[:0],
        pl.DataFrame(COLUMNS)[:0],
        arrow()[:0],
        arrow()[:0].to_reader(),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_no_rows(facade: Facade, redis_store: Store, empty: Any) -> None:
    async with facade.open(redis_store.url, track_hourly=True) as tally:
        assert await tally.mark_rows(empty) == dict.fromkeys((M, W, D, H), 0)
    assert not redis_store.names()


async def test_switches_and_the_default_tally(facade: Facade, store: Store) -> None:
    tallymark.configure(store.url)
    verbs = facade.verbs(facade.module)
    counts = await verbs.mark_rows(ROWS, track_hourly=True, track_unique=True)
    assert counts == {M: 3, W: 3, D: 3, H: 3, Granularity.UNIQUE: 3}
    assert {"trackist_a_2026-11-23-12", "trackist_a_u"} <= store.names()


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe", "UTC"])
async def test_hours_around_a_change_of_the_clock(
    facade: Facade, redis_store: Store, zone: str
) -> None:
    begin = datetime(2026, 10, 24, 12, tzinfo=timezone.utc)
    for start in (begin, begin.replace(month=3, day=28), begin.replace(month=4, day=4)):
        instants = [start + timedelta(minutes=10 * at) for at in range(200)]
        table = [("a", at, moment) for at, moment in enumerate(instants)]
        columns = {
            "event": "a",
            "user_id": list(range(200)),
            "moment": pa.array(instants, pa.timestamp("us", "UTC")),
        }
        async with facade.open(redis_store.url, timezone=zone, track_hourly=True) as tally:
            redis_store.raw.flushdb()
            await marked_singly(tally, table)
            wanted = redis_store.bits()
            redis_store.raw.flushdb()
            await tally.mark_rows(columns)
        assert redis_store.bits() == wanted


# --- what is sent


async def test_bits_or_bitmaps(facade: Facade, redis_store: Store) -> None:
    """The month of many neighbours goes as a bitmap, their days bit by bit."""
    table = [("a", user_id, NOON.date() + timedelta(user_id % 7)) for user_id in range(140)]
    with proxied(redis_store.url) as proxy:
        async with facade.open(proxy.url) as tally:
            await tally.mark_rows(table)
    sent = b"".join(proxy.transactions())
    assert sent.count(b"EVAL") == 1
    assert sent.count(b"BITFIELD") == 7
    assert sent.count(b"MULTI") == 1
    assert redis_store.raw.bitcount("trackist_a_2026-11") == 140


async def test_all_bits_of_a_row_are_in_one_transaction(
    facade: Facade, redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_pieces, "_LONGEST", 30.0)
    table = [
        ("a", user_id, NOON.date() + timedelta(day)) for user_id in range(60) for day in range(3)
    ]
    with proxied(redis_store.url) as proxy:
        async with facade.open(proxy.url) as tally:
            await tally.mark_rows(table)
    transactions = proxy.transactions()
    assert len(transactions) > 3
    for sent in transactions:
        assert b"trackist_a_2026-11\r\n" in sent
        assert b"trackist_a_W2026-48" in sent
        assert b"trackist_a_2026-11-2" in sent
    assert redis_store.raw.bitcount("trackist_a_2026-11") == 60


def test_a_transaction_takes_redis_a_millisecond_or_two() -> None:
    """By the estimates that divide a block; no row is in two transactions, or in none."""
    from tallymark._core.options import Options
    from tallymark._marking.marker import Marker
    from tallymark._marking.row_columns import Columns

    count = 200_000
    generator = np.random.default_rng(3)
    marker = Marker(Options(), lambda: 0.0)
    write = marker.mark_rows(None, None)
    for highest in (2_000, 200_000, 50_000_000):
        columns = Columns.of(
            {
                "event": np.array(["a", "b"])[generator.integers(0, 2, count)],
                "user_id": generator.integers(0, highest, count),
                "moment": np.datetime64("2026-01-01") + generator.integers(0, 60, count),
            }
        )
        found, bad = write._reader.of_columns(columns, 0, count, 0)
        assert found is not None
        assert not bad
        writer = row_blocks.BlockWriter(
            write._target, write._reader.names, write.events.is_uncounted
        )
        chunks = list(writer.chunks(found))
        assert sum(chunk.ids for chunk in chunks) == count
        for chunk in chunks:
            (mark,) = chunk.marks
            assert isinstance(mark, RowMarks)
            assert sum(mark.counts) <= 1500 / row_pieces._BIT
            assert mark.size < 3_000_000


async def test_an_expiry_is_kept_and_nothing_is_left_behind(
    facade: Facade, plain_store: Store
) -> None:
    keys = ["trackist_a_2026-11", "trackist_a_W2026-48", "trackist_a_2026-11-23"]
    async with facade.open(plain_store.url) as tally:
        await tally.mark_rows([("a", 1, NOON)])
        for key in keys:
            plain_store.raw.expire(key, 1000)
        for first in (0, 5_000):
            many = [("a", first + user_id, NOON) for user_id in range(3_000)]
            await tally.mark_rows(many)
    assert all(900 < plain_store.raw.ttl(key) <= 1000 for key in keys)
    assert plain_store.bits() == {key: {*range(3_000), *range(5_000, 8_000)} for key in keys}
    assert plain_store.names() == set(keys)


async def test_marks_act_in_call_order_in_one_transaction(redis_store: Store) -> None:
    """A mark behind rows must not join the command of one before them."""
    async with Tally.from_url(redis_store.url) as tally:
        backend = internals(tally)
        write = backend.marker.mark_rows(None, None)
        found, _ = write._reader.of_rows([("a", 1, NOON), ("b", 1, NOON)], 0)
        (chunk,) = row_blocks.BlockWriter(
            write._target, write._reader.names, write.events.is_uncounted
        ).chunks(found)
        others = [
            BitMark(backend.marker.bitmaps(event, NOON, None, None), user_id, 0)
            for event in ("a", "b")
            for user_id in (5, 1)
        ]
        before, after = others[::2], others[1::2]
        await backend.submit_counted([*before, *chunk.marks, *after], None)
    assert redis_store.bits() == {}


async def test_expired_days_are_left_out(facade: Facade, redis_store: Store) -> None:
    old, today = date(2001, 1, 1), datetime.now(timezone.utc).date()
    options: Any = {"expire": {"day": timedelta(days=30), "week": timedelta(days=30)}}
    table = [("a", user_id, day) for user_id in range(100) for day in (old, today)]
    async with facade.open(redis_store.url, **options) as tally:
        counts = await tally.mark_rows(table)
        assert counts == {M: 200, W: 100, D: 100}
    assert {key for key in redis_store.bits() if "2001" in key} == {"trackist_a_2001-1"}
    options["expire"]["month"] = timedelta(days=60)
    async with facade.open(redis_store.url, **options) as tally:
        assert await tally.mark_rows([("b", 1, old)]) == {M: 0, W: 0, D: 0}
    assert not [name for name in redis_store.names() if "_b_" in name]


def test_numpy_is_imported_only_for_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    from tallymark import SyncTally

    imported = []

    def imports() -> Any:
        imported.append(True)
        return np

    monkeypatch.setattr(row_reader, "loaded_numpy", lambda: None)
    monkeypatch.setattr(row_reader, "numpy_or_none", imports)
    with SyncTally.from_url("memory://") as tally:
        tally.mark_rows([("a", user_id, NOON) for user_id in range(4_000)])
        assert not imported
        tally.mark_rows([("a", user_id, NOON) for user_id in range(5_000)])
        assert imported
        imported.clear()
        tally.mark_rows({"event": "a", "user_id": list(range(4_000)), "moment": NOON})
        assert not imported
        tally.mark_rows({"event": "a", "user_id": list(range(5_000)), "moment": NOON})
        assert imported
    assert core_moments.numpy_or_none() is np
