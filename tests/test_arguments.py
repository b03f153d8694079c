"""Arguments as callers pass them: ids, arrays, moments, clients, loops, text from outside."""

from __future__ import annotations

import array
import asyncio
import collections
import contextlib
import decimal
import enum
import fractions
import importlib.metadata
import logging
import re
import types
import uuid
from datetime import date, datetime, timedelta, timezone, tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import fakeredis
import numpy as np
import pandas as pd
import pytest
import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.cluster

import tallymark
from facades import FACADES, Facade
from tallymark import (
    EventSet,
    Granularity,
    InvalidTypeError,
    InvalidValueError,
    KeySchema,
    Period,
    SyncTally,
    Tally,
    TallymarkError,
    WrongEventLoopError,
    WrongKeyTypeError,
    all_of,
    any_of,
    bitmapist,
)
from tallymark._charts.page import isolated
from tallymark._core.options import Options
from tallymark._core.untrusted import escaped, shown
from tallymark._reports.retention import Retention

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from stores import Store

NOON = datetime(2026, 11, 23, 12)
SHARDS = [None, 1, 16, 256, 1024]


# --- ids


class Ids(enum.IntEnum):
    ONE = 1


class Odd(int):
    """An int that is not what its methods say."""

    def __int__(self) -> int:
        return 99

    __index__ = __int__

    def __lt__(self, other: object) -> bool:
        raise RuntimeError("never asked")

    __le__ = __gt__ = __ge__ = __lt__


@pytest.mark.parametrize(
    "user_id",
    [np.int64(1), np.uint8(1), np.int16(1), Ids.ONE, Odd(1), pd.Series([1])[0]],
    ids=lambda value: type(value).__name__,
)
async def test_any_integer_is_an_id(facade: Facade, redis_store: Store, user_id: Any) -> None:
    async with facade.open(redis_store.url, shards=3) as tally:
        assert await tally.mark_unique("a", user_id)
        assert await tally.mark_event("a", user_id, now=NOON)
        assert await tally.unmark_event("a", user_id, now=NOON, exact=True)
        async with tally.transaction() as tx:
            tx.mark_event("a", user_id, now=NOON)
        flag = tally.unique("a")
        assert await tally.contains(flag, user_id)
        assert [each async for each in tally.users(flag)] == [1]
        assert await tally.contains_many(flag, [0, user_id]) == [False, True]
        assert await tally.history(user_id, "a", NOON, NOON + timedelta(days=1)) == {
            "a": [Period.containing(Granularity.DAY, NOON)]
        }
        assert await tally.mark_many("b", [user_id, 5], now=NOON)
        assert await tally.count(tally.day("b", NOON)) == 2
        assert await tally.merge(user_id, 2) == 7
        assert await tally.merge(2, user_id) == 7
        assert await tally.forget(user_id) == 7
    assert type(KeySchema().offset(user_id)) is int


@pytest.mark.parametrize(
    "user_id",
    [
        "7",
        "abc",
        b"7",
        7.0,
        None,
        uuid.UUID(int=7),
        decimal.Decimal(7),
        np.float64(7),
        np.array(7),
        np.array([7]),
        np.ma.masked,
        pd.NA,
        pd.NaT,
        [7],
    ],
    ids=lambda value: type(value).__name__,
)
async def test_ids_of_other_types_are_refused_with_advice(facade: Facade, user_id: Any) -> None:
    async with facade.open("memory://") as tally:
        for call in (
            lambda: tally.mark_event("a", user_id),
            lambda: tally.unmark_unique("a", user_id),
            lambda: tally.mark_many("a", [user_id]),
            lambda: tally.contains(tally.unique("a"), user_id),
            lambda: tally.contains_many(tally.unique("a"), [user_id]),
            lambda: tally.forget(user_id),
            lambda: tally.merge(user_id, 1),
            lambda: tally.merge(1, user_id),
            lambda: tally.history(user_id, "a", NOON),
        ):
            with pytest.raises(InvalidTypeError, match="make a tally with user_ids="):
                await call()
        assert await tally.event_names() == []


@pytest.mark.parametrize("user_id", [True, np.bool_(True), np.array(True)])
def test_a_bool_is_no_id(user_id: Any) -> None:
    with pytest.raises(InvalidTypeError, match="must be an int"):
        KeySchema().offset(user_id)


def test_ids_of_64_bits_are_refused_with_advice() -> None:
    with pytest.raises(InvalidValueError, match="make a tally with user_ids="):
        KeySchema().offset(1541815603606036480)
    with pytest.raises(InvalidValueError, match=r"got -1$"):
        KeySchema().offset(-1)


# --- arrays


def masked(values: Any, mask: Any) -> Any:
    return np.ma.array(values, mask=mask)


class Lending:
    """A column of a library of its own, which numpy can read."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array(self._values, dtype=dtype, subok=True)


class Closed:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise RuntimeError("on another device")


#: Arguments of `mark_many`: a function that makes the argument, and its user ids. Ids above
#: 255 * 256 are for the types that can hold them.
SMALL = [0, 3, 7, 100, 101, 127]
LARGE = [0, 3, 7, 255, 256, 65_535, 65_536, 70_000, 2**20, 2**20 + 1]
NEIGHBOURS = list(range(5_000, 9_000))
TAKEN: dict[str, tuple[Any, list[int]]] = {
    **{
        dtype: (lambda dtype=dtype: np.array(SMALL, dtype), SMALL)
        for dtype in ("int8", "uint8", "int16", "uint16", ">i2", ">u2")
    },
    **{
        f"large-{dtype}": (lambda dtype=dtype: np.array(LARGE, dtype), LARGE)
        for dtype in ("int32", "uint32", "int64", "uint64", ">i4", ">u8", "<i8")
    },
    **{
        f"dense-{dtype}": (lambda dtype=dtype: np.array(NEIGHBOURS, dtype), NEIGHBOURS)
        for dtype in ("uint16", ">u4", "uint64", "int64")
    },
    "every uint8": (lambda: np.arange(256, dtype="uint8"), list(range(256))),
    "strided": (lambda: np.arange(10_000)[4_000:2:-3], list(range(4_000, 2, -3))),
    "repeated": (lambda: np.array([5, 5, 5, 2]), [5, 2]),
    "empty": (lambda: np.array([]), []),
    "empty of objects": (lambda: np.array([], object), []),
    "read-only": (lambda: np.frombuffer(b"\1\0\7\0", "uint16"), [1, 7]),
    "objects": (lambda: np.array([1, np.int8(2), 3], object), [1, 2, 3]),
    "mask without effect": (lambda: masked([1, 2, 3], False), [1, 2, 3]),
    "recarray": (lambda: np.array([1, 2]).view(np.recarray), [1, 2]),
    "Series": (lambda: pd.Series(LARGE), LARGE),
    "Series uint8": (lambda: pd.Series(SMALL, dtype="uint8"), SMALL),
    "Series Int64": (lambda: pd.Series(LARGE, dtype="Int64"), LARGE),
    "Series UInt8": (lambda: pd.Series(SMALL, dtype="UInt8"), SMALL),
    "Series of categories": (lambda: pd.Series([5, 9, 5], dtype="category"), [5, 9]),
    "Series with an index": (lambda: pd.Series([5, 9], index=["x", "y"]), [5, 9]),
    "Index": (lambda: pd.Index(LARGE), LARGE),
    "RangeIndex": (lambda: pd.RangeIndex(10), list(range(10))),
    "Int64 array": (lambda: pd.array([1, 2], dtype="Int64"), [1, 2]),
    "another library's": (lambda: Lending(LARGE), LARGE),
    "another library's, mask without effect": (lambda: Lending(masked([1, 2], False)), [1, 2]),
    "array.array": (lambda: array.array("Q", LARGE), LARGE),
    "array.array of bytes": (lambda: array.array("b", SMALL), SMALL),
    "range": (lambda: range(10, 100_000, 7), list(range(10, 100_000, 7))),
    "range backwards": (lambda: range(10, 0, -1), list(range(1, 11))),
    "empty range": (lambda: range(0), []),
    "list of numpy's": (lambda: list(np.array(LARGE)), LARGE),
    "list of Odd": (lambda: [Odd(3), 4], [3, 4]),
    "tuple": (lambda: tuple(SMALL), SMALL),
    "set": (lambda: set(LARGE), LARGE),
    "frozenset": (lambda: frozenset(LARGE), LARGE),
    "dict": (lambda: dict.fromkeys(SMALL), SMALL),
    "dict view": (lambda: dict.fromkeys(SMALL).keys(), SMALL),
    "deque": (lambda: collections.deque(SMALL), SMALL),
    "generator": (lambda: (each for each in LARGE), LARGE),
    "iterator of an array": (lambda: iter(np.array(LARGE)), LARGE),
}

REFUSED: dict[str, tuple[Any, type[TallymarkError], str]] = {
    "masked": (lambda: masked([1, 2, 3], [0, 1, 0]), InvalidTypeError, r"ids\.compressed\(\)"),
    "all masked": (lambda: masked([1], True), InvalidTypeError, "must not be masked"),
    "another library's, masked": (
        lambda: Lending(masked([1, 2, 3], [0, 1, 0])),
        InvalidTypeError,
        "must not be masked",
    ),
    "bools": (lambda: np.array([True]), InvalidTypeError, "one of bool"),
    "floats": (lambda: np.array([1.0]), InvalidTypeError, "one of float64"),
    "NaN": (lambda: np.array([np.nan]), InvalidTypeError, "one of float64"),
    "complex": (lambda: np.array([1j]), InvalidTypeError, "one of complex128"),
    "times": (lambda: np.array([1, 2], "datetime64[ns]"), InvalidTypeError, "datetime64"),
    "durations": (lambda: np.array([1, 2], "timedelta64[ns]"), InvalidTypeError, "timedelta64"),
    "strings": (lambda: np.array(["1"]), InvalidTypeError, "array of ints"),
    "records": (lambda: np.array([(1, 2)], "i4,i4"), InvalidTypeError, "array of ints"),
    "objects": (lambda: np.array([1, "2"], object), InvalidTypeError, "got '2' of type str"),
    "objects bool": (lambda: np.array([True], object), InvalidTypeError, "of type bool"),
    "two dimensions": (lambda: np.array([[1], [2]]), InvalidTypeError, "2 dimensions"),
    "no dimension": (lambda: np.array(1), InvalidTypeError, "0 dimensions"),
    "empty rows": (lambda: np.empty((0, 2), int), InvalidTypeError, "2 dimensions"),
    "matrix": (lambda: np.array([1, 2]).view(np.matrix), InvalidTypeError, "2 dimensions"),
    "negative": (lambda: np.array([1, -1], "int8"), InvalidValueError, "got -1"),
    "too large": (lambda: np.array([1, 2**32]), InvalidValueError, "got 4294967296"),
    "far too large": (lambda: np.array([2**64 - 1], "uint64"), InvalidValueError, "got 1844"),
    "Series with NA": (lambda: pd.Series([1, None], dtype="Int64"), InvalidTypeError, "NA|float64"),
    "Series with NaN": (lambda: pd.Series([1, None]), InvalidTypeError, "one of float64"),
    "Series of times": (lambda: pd.Series([pd.Timestamp(1)]), InvalidTypeError, "datetime64"),
    "Series of bools": (lambda: pd.Series([True]), InvalidTypeError, "one of bool"),
    "DataFrame": (lambda: pd.DataFrame({"a": [1]}), InvalidTypeError, "2 dimensions"),
    "another device": (Closed, InvalidTypeError, "on another device"),
    "ragged": (lambda: Lending([[1], [2, 3]]), InvalidTypeError, "no array"),
    "array.array of floats": (lambda: array.array("d", [1.0]), InvalidTypeError, "got 1.0"),
    "bytes": (lambda: b"\1\2", InvalidTypeError, "got a bytes"),
    "bytearray": (lambda: bytearray(b"\1\2"), InvalidTypeError, "got a bytearray"),
    "memoryview": (lambda: memoryview(b"\1\2"), InvalidTypeError, "got a memoryview"),
    "str": (lambda: "12", InvalidTypeError, "got a str"),
    "int": (lambda: 12, InvalidTypeError, "got a int"),
    "None": (lambda: None, InvalidTypeError, "got a NoneType"),
    "nested": (lambda: [[1], [2]], InvalidTypeError, r"got \[1\] of type list"),
    "masked item": (lambda: [1, np.ma.masked], InvalidTypeError, "MaskedConstant"),
    "huge range": (lambda: range(10**30), InvalidValueError, "got 9999"),
    "range beyond": (lambda: range(2**32 - 5, 2**32 + 5), InvalidValueError, "got 4294967300"),
    "range below": (lambda: range(5, -5, -1), InvalidValueError, "got -4"),
}


def ids_of(names: Any) -> Any:
    return [pytest.param(*value, id=name) for name, value in names.items()]


@pytest.mark.exhaustive
@pytest.mark.parametrize("shards", SHARDS)
@pytest.mark.parametrize(("make", "wanted"), ids_of(TAKEN))
def test_arrays_are_marked_exactly(
    redis_store: Store, make: Any, wanted: list[int], shards: int | None
) -> None:
    with SyncTally.from_url(redis_store.url, shards=shards, prefix="x_") as tally:
        flipped = tally.mark_many("a", make(), now=NOON)
        day = tally.day("a", NOON)
        assert flipped[Granularity.DAY] == len(set(wanted))
        assert list(tally.users(day)) == sorted(set(wanted))
        given = list(make()) if not isinstance(make(), Lending) else wanted
        assert tally.contains_many(day, make()) == [True] * len(given)
        assert tally.unmark_many("a", make(), now=NOON)[Granularity.DAY] == len(set(wanted))
        assert tally.contains_many(day, make()) == [False] * len(given)


@pytest.mark.parametrize(("make", "wanted"), ids_of(TAKEN))
async def test_arrays_are_marked_exactly_async(
    redis_store: Store, make: Any, wanted: list[int]
) -> None:
    async with Tally.from_url(redis_store.url, shards=16) as tally:
        await tally.mark_many("a", make(), now=NOON)
        day = tally.day("a", NOON)
        assert [user async for user in tally.users(day)] == sorted(set(wanted))
        assert all(await tally.contains_many(day, make()))
        await tally.unmark_many("a", make(), now=NOON, exact=True)
        assert await tally.is_empty(day)


@pytest.mark.parametrize("shards", [None, 16])
@pytest.mark.parametrize(("make", "error", "message"), ids_of(REFUSED))
async def test_arrays_that_hold_no_ids_are_refused(
    facade: Facade,
    redis_store: Store,
    make: Any,
    error: type[TallymarkError],
    message: str,
    shards: int | None,
) -> None:
    async with facade.open(redis_store.url, shards=shards) as tally:
        for call in (
            lambda: tally.mark_many("a", make()),
            lambda: tally.unmark_many("a", make()),
            lambda: tally.contains_many(tally.unique("a"), make()),
        ):
            with pytest.raises(error, match=message):
                await call()
    assert redis_store.names() == set()


async def test_streams_of_numpys_ints_are_marked(redis_store: Store) -> None:
    async def stream() -> AsyncIterator[Any]:
        for user_id in np.array(LARGE):
            yield user_id

    async with Tally.from_url(redis_store.url) as tally:
        await tally.mark_many("a", stream(), now=NOON)
        assert await tally.count(tally.day("a", NOON)) == len(LARGE)


def test_a_long_range_takes_no_memory() -> None:
    from tallymark._core.offsets import blocks

    found, all_there = blocks(range(2**32))
    assert all_there
    assert len(next(found)) == 32_768
    assert type(next(found)) is range


def test_the_drop_in_takes_any_integer(systems: dict[str, Any]) -> None:
    five: Any = np.int64(5)
    bitmapist.mark_event("a", five, now=NOON)
    bitmapist.mark_unique("a", cast("Any", np.uint8(5)))
    day = bitmapist.DayEvents.from_date("a", NOON)
    assert list(day) == [5]
    assert five in day
    for user_id in (np.bool_(True), True, 5.0, "9" * 5000, "5.0", None):
        with pytest.raises(TallymarkError):
            bitmapist.mark_event("a", cast("Any", user_id), now=NOON)
    assert list(day) == [5]


# --- text from outside

TURNING = "\u202eevil\u2066x"


@pytest.mark.parametrize("exact", [False, True])
async def test_a_key_in_a_message_is_short_and_on_one_line(
    facade: Facade, redis_store: Store, exact: bool
) -> None:
    names = [f"a{TURNING}b", "\u2028c", "x" * 400]
    async with facade.open(redis_store.url) as tally:
        for name in names:
            for key in (f"trackist_{name}_2026-11", f"trackist_{name}_u"):
                redis_store.raw.lpush(key, "x")
            for call in (
                lambda name=name: tally.mark_event(name, 1, now=NOON),
                lambda name=name: tally.unmark_event(name, 1, now=NOON, exact=exact),
                lambda name=name: tally.mark_unique(name, 1),
                lambda name=name: tally.mark_many(name, range(1000), now=NOON),
                lambda name=name: tally.mark_many(name, [1, 10**9], now=NOON),
                lambda name=name: tally.count(tally.unique(name)),
            ):
                with pytest.raises(WrongKeyTypeError) as raised:
                    await call()
                assert str(raised.value).isprintable()
                assert len(str(raised.value)) < 900


async def test_many_event_sets_in_a_message_are_short(facade: Facade) -> None:
    async with facade.open("memory://") as one, facade.open("memory://") as two:
        many = any_of(one.day(f"a{number}", NOON) for number in range(5000))
        for call in (
            lambda: many & two.day("a"),
            lambda: two.count(many),
            lambda: two.counts([many]),
            lambda: one.delete(many & one.unique("b")),
        ):
            with pytest.raises(TallymarkError) as raised:
                result = call()
                await cast("Any", result)
            assert len(str(raised.value)) < 400


class Hostile:
    """Raises whatever is asked."""

    def _raise(self, *_: object) -> Any:
        raise RuntimeError("hostile")

    __repr__ = __str__ = __hash__ = __eq__ = __bool__ = __index__ = __int__ = _raise
    __len__ = __format__ = __float__ = __lt__ = __iter__ = _raise


def test_nothing_is_shown_long_raw_or_at_the_price_of_an_error() -> None:
    endless: list[Any] = []
    endless += [endless] * 10
    for value, wanted in (
        ("a\nb", r"'a\nb'"),
        (TURNING, r"'\u202eevil\u2066x'"),
        ("\ud800", r"'\ud800'"),
        ("x" * 10**7, None),
        (b"x" * 10**7, None),
        (10**5000, "an int of 16,610 bits"),
        (-(10**5000), "an int of 16,610 bits"),
        (list(range(5000)), "[0, 1, 2, 3, 4, ... (5,000 in all)]"),
        (["x" * 10**7] * 3, None),
        ({"a": 1}, "{'a': 1}"),
        (set(), "set()"),
        ((1,), "(1,)"),
        ((1, 2), "(1, 2)"),
        (endless, None),
        ([[[[[1]]]]], None),
        (Hostile(), "a value that cannot be shown"),
        ([Hostile()], "[a value that cannot be shown]"),
        (type("X\u202e", (), {"__repr__": lambda _: "a\u202eb\r\n"})(), r"a\u202eb\r\n"),
    ):
        text = shown(value)
        assert wanted is None or text == wanted or text[:10] == wanted[:10]
        assert len(text) <= 80
        assert text.isprintable()
    assert escaped(b"a\xff\n" + b"x" * 10**6)[:7] == r"a\xff\n"
    assert len(escaped("\u202e" * 10**6)) <= 300


def test_words_of_a_server_are_short_and_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    from tallymark._core.observers import Operation, observe
    from tallymark._redis import errors as redis_py

    words = f"WRONGTYPE {TURNING}\r\n" + "x" * 10**5
    for error in (
        redis_py.failure(redis.ResponseError(words)),
        redis_py.failure(redis.ConnectionError(words)),
        redis_py.failure(redis.TimeoutError(words)),
        redis_py.failure(RuntimeError(words)),
        redis_py.refused_reply(redis.ResponseError(f"ERR {words}")),
    ):
        assert str(error).isprintable()
        assert len(str(error)) < 600
    with caplog.at_level(logging.ERROR, "tallymark"):
        observe(cast("Any", Hostile()), Operation("read", "", 1, 1, 0, 0, None))
    assert "a value that cannot be shown" in caplog.text


def test_names_on_pages_do_not_turn_what_is_beside_them() -> None:
    day = Period.containing(Granularity.DAY, NOON)
    cell = tallymark.Cell(day, tallymark.CellState.FINISHED, 1, 1.0)
    rows = (tallymark.Cohort(day, 1, (cell,)),)
    table = Retention(f"a{TURNING}", "b\u2069\u202e", Granularity.DAY, "classic", False, NOON, rows)
    first, second = f"\u2068a{TURNING}\u2069\u2069", "\u2068b\u202e\u2069"
    for page in (table.to_html(), table._repr_html_()):
        assert page.count(first) == page.count(f"a{TURNING}")
        assert page.count(second) == page.count("b") - page.replace(
            second, second.replace("b", "")
        ).count("b")
        assert "b\u2069\u202e" not in page
    titled = table.to_html(title="x\u202e\ny")
    assert titled.count("\u2068x\u202e y\u2069") == 2
    assert isolated("Besuch → Käufe, “x” 100 %") == "Besuch → Käufe, “x” 100 %"
    assert isolated("\u05d0\u05d1") == "\u2068\u05d0\u05d1\u2069"


def test_labels_of_the_form_do_not_turn_what_is_beside_them() -> None:
    from tallymark.bitmapist.cohort import render_html_form

    page = render_html_form("/", [("a\u202e", "a"), ("plain", "b")])
    assert page.count(">\u2068a\u202e\u2069</option>") == 4
    assert ">plain</option>" in page


# --- event sets as containers


@pytest.mark.parametrize(
    ("use", "verb"),
    [
        (list, "users"),
        (iter, "users"),
        (set, "users"),
        (reversed, "users"),
        (len, "count"),
        (lambda found: 5 in found, "contains"),
        (lambda found: found[0], "users"),
        (lambda found: found[:10], "users"),
        (bool, "is_empty"),
        (lambda found: not found, "is_empty"),
        (lambda found: found & {1, 2}, "event sets"),
        (lambda found: {1, 2} | found, "event sets"),
        (lambda found: 1 - found, "event sets"),
        (lambda found: None ^ found, "event sets"),
        (lambda found: found - "a", r"day\(\), week\(\)"),
        (any_of, "iterable of event sets"),
        (all_of, "iterable of event sets"),
    ],
)
def test_an_event_set_tells_whom_to_ask(use: Any, verb: str) -> None:
    with SyncTally.from_url("memory://") as tally:
        for found in (
            tally.day("a"),
            tally.day("a") | tally.week("b"),
            tally.last("a"),
            tally.year("a"),
            tally.unique("a"),
        ):
            with pytest.raises(InvalidTypeError, match=verb):
                use(found)


async def test_an_event_set_is_not_iterated_in_async_code_either() -> None:
    async with Tally.from_url("memory://") as tally:
        with pytest.raises(InvalidTypeError, match="users"):
            async for _ in cast("Any", tally.day("a")):
                pass
        for call in (
            lambda: tally.funnel(cast("Any", tally.day("a"))),
            lambda: tally.counts(cast("Any", tally.day("a"))),
            lambda: tally.mark_many("a", cast("Any", tally.day("a"))),
            lambda: tally.contains_many(tally.day("a"), cast("Any", tally.day("a"))),
        ):
            with pytest.raises(InvalidTypeError):
                await cast("Any", call())


# --- moments, clients, event loops


@pytest.mark.parametrize(
    "now",
    [pd.NaT, pd.Timestamp("NaT")],
)
async def test_not_a_time_is_no_moment(facade: Facade, now: Any) -> None:
    async with facade.open("memory://") as tally:
        for call in (
            lambda: tally.mark_event("a", 1, now=now),
            lambda: tally.mark_many("a", [1], now=now),
            lambda: tally.history(1, "a", now),
            lambda: tally.stickiness("a", now),
        ):
            with pytest.raises(InvalidValueError, match="got NaT"):
                await call()
        builds: list[Any] = [lambda: tally.day("a", now), lambda: tally.between("a", now, NOON)]
        for build in builds:
            with pytest.raises(InvalidValueError, match="got NaT"):
                build()
    with pytest.raises(InvalidValueError, match="NaT"):
        Period.containing(Granularity.DAY, cast("datetime", now))


async def test_a_timestamp_of_pandas_is_a_moment(facade: Facade) -> None:
    moment = pd.Timestamp("2026-11-23 12:00:00.000000001", tz="Europe/Berlin")
    async with facade.open("memory://", track_hourly=True) as tally:
        await tally.mark_event("a", 1, now=moment)
        hour = datetime(2026, 11, 23, 11)
        assert await tally.contains(tally.hour("a", hour), 1)
        assert tally.hour("a", moment) == tally.hour("a", hour)


@pytest.mark.parametrize("hours", [-24 + 1 / 60, 24 - 1 / 60])
async def test_aware_moments_at_the_edges(facade: Facade, hours: float) -> None:
    zone = timezone(timedelta(hours=hours))
    async with facade.open("memory://") as tally:
        for moment in (datetime.min, datetime.max):
            aware = moment.replace(tzinfo=zone)
            try:
                tally.day("a", aware)
            except InvalidValueError as error:
                assert "the years 1 to 9999" in str(error)  # noqa: PT017


def test_a_pipeline_is_no_client() -> None:
    client, cluster_client = redis.Redis(port=1), redis.asyncio.Redis(port=1)
    for facade, pipeline in (
        (SyncTally, client.pipeline()),
        (SyncTally, client.pipeline(transaction=False)),
        (SyncTally, fakeredis.FakeRedis().pipeline()),
        (Tally, cluster_client.pipeline()),
        (SyncTally, object.__new__(redis.cluster.ClusterPipeline)),
        (Tally, object.__new__(cast("Any", redis.asyncio.cluster.ClusterPipeline))),
    ):
        make: Any = facade
        with pytest.raises(InvalidTypeError, match=r"transaction\(\) of a tally"):
            make(pipeline)


def test_names_of_modules_are_short_and_on_one_line() -> None:
    def no_idea(*_: Any) -> Any:
        raise ValueError("no idea")

    meta: Any = type("Meta", (type,), {"__module__": property(no_idea)})
    zone: Any = type("Zone", (tzinfo,), {"__module__": TURNING * 99, "utcoffset": no_idea})
    strange = (type("X", (), {"__module__": TURNING * 99})(), meta("Y", (), {})())
    makers: tuple[Any, ...] = (Tally, SyncTally)
    calls: list[Any] = [partial(make, client) for make in makers for client in strange]
    calls.append(lambda: SyncTally.from_url("memory://", timezone=zone()))
    for call in calls:
        with pytest.raises(TallymarkError) as raised:
            call()
        assert len(str(raised.value)) < 300
        assert str(raised.value).isprintable()


def test_the_name_of_a_system_that_there_is_not_is_short() -> None:
    for name, wanted in (("other", "'other'"), (TURNING * 999, None), ("x" * 9999, None)):
        with pytest.raises(KeyError) as raised:
            bitmapist.mark_event("a", 1, system=name)
        assert wanted in (None, str(raised.value))
        assert len(str(raised.value)) < 400
        assert raised.value.__suppress_context__


def by_hand(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine as trio and its like do: without an event loop of asyncio."""
    try:
        coroutine.send(None)
    finally:
        coroutine.close()


@types.coroutine
def _nothing() -> Any:
    yield


def test_other_event_loops_are_refused_by_name() -> None:
    async def enter(tally: Tally) -> None:
        async with tally:
            await _nothing()

    async def together(tally: Tally) -> None:
        async with tally.transaction():
            await _nothing()

    async def stream(tally: Tally) -> None:
        async for _ in tally.users(tally.unique("a")):
            await _nothing()

    async def default_transaction() -> None:
        async with tallymark.transaction():
            await _nothing()

    tally = Tally(redis.asyncio.Redis(port=1))
    for call in (
        lambda: enter(tally),
        lambda: together(tally),
        lambda: stream(tally),
        lambda: tally.mark_event("a", 1),
        lambda: tally.mark_many("a", [1]),
        lambda: tally.count(tally.unique("a")),
        lambda: tally.retention("a", "a"),
        lambda: tallymark.mark_event("a", 1),
        lambda: tallymark.mark_many("a", [1]),
        lambda: tallymark.unmark_unique("a", 1),
        default_transaction,
        tallymark.current_tally,
    ):
        with pytest.raises(WrongEventLoopError, match=r"runs on asyncio.*trio"):
            by_hand(call())


async def test_the_default_tally_of_another_loop_is_not_taken_for_ours(memory_store: Store) -> None:
    tallymark.configure(memory_store.url)
    await tallymark.mark_unique("a", 1)
    coroutine = tallymark.mark_unique("a", 1)

    def outside() -> None:
        with pytest.raises(WrongEventLoopError, match="runs on asyncio"):
            by_hand(coroutine)

    await asyncio.to_thread(outside)


@pytest.mark.parametrize(
    "seconds", [np.int64(5), np.uint8(5), np.float64(5), np.float32(5), fractions.Fraction(5)]
)
async def test_a_timeout_is_any_real_number(facade: Facade, seconds: Any) -> None:
    async with facade.open("memory://", timeout=seconds) as tally:
        await tally.mark_event("a", 1, timeout=seconds)
        assert await tally.count(tally.day("a"), timeout=seconds) == 1
    assert type(Options(timeout=seconds).timeout) in {int, float}


@pytest.mark.parametrize(
    "seconds", [np.bool_(True), np.array(5), np.array([5.0]), 5j, fractions.Fraction(10**400)]
)
def test_timeouts_of_other_types_are_refused(seconds: Any) -> None:
    with pytest.raises(InvalidTypeError, match="timeout must be a number of seconds"):
        Options(timeout=seconds)


async def test_a_timeout_of_a_month_is_no_limit(facade: Facade, redis_store: Store) -> None:
    for seconds in (31 * 86400, 10**400, 1e300, Odd(10**9)):
        async with facade.open(redis_store.url, timeout=seconds) as tally:
            await tally.mark_event("a", 1, timeout=seconds)
            await tally.mark_many("a", [1], timeout=seconds)
            assert await tally.count(tally.day("a"), timeout=seconds) == 1


async def test_options_may_be_numpys(facade: Facade, redis_store: Store) -> None:
    options: Any = {
        "shards": np.int64(3),
        "max_user_id": np.int64(100),
        "max_pending": np.int16(5),
        "max_events": np.int8(9),
        "replicas": np.int8(0),
    }
    async with facade.open(redis_store.url, **options) as tally:
        assert await tally.mark_unique("a", 100)
        with pytest.raises(InvalidValueError, match=r"in \[0, 100\]"):
            await tally.mark_unique("a", 101)


# --- the package


def test_the_version_is_that_of_the_distribution_and_of_the_changelog() -> None:
    """Where tallymark is not installed, there is no distribution to compare."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        assert importlib.metadata.version("tallymark") == tallymark.__version__
    changelog = (Path(__file__).parent.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    newest, *released = re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    # The version after "Unreleased" is the next one.
    assert tallymark.__version__ not in released[newest == "Unreleased" :]
    assert newest in ("Unreleased", tallymark.__version__)


def test_the_names_of_the_package() -> None:
    assert "__version__" in dir(tallymark)
    with pytest.raises(AttributeError, match="no attribute 'versoin'"):
        _ = cast("Any", tallymark).versoin


@pytest.mark.parametrize("facade", FACADES, ids=lambda facade: facade.name)
def test_facades_are_whole(facade: Facade) -> None:
    assert isinstance(facade.tally.from_url("memory://").day("a", date.max), EventSet)
