"""Marks of many users at once: whatever the ids come in, and however they are sent."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections import Counter, deque
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tallymark
from facades import ON_SOME_STORES, internals
from proxy import proxied
from tallymark import (
    ClosedError,
    Granularity,
    InvalidTypeError,
    InvalidValueError,
    StoreTimeoutError,
    SyncTally,
    Tally,
    WrongKeyTypeError,
)
from tallymark._core.keys import KeySchema
from tallymark._core.offsets import BLOCK, WINDOW, as_bits, blocks, bounded, windows
from tallymark._marking.bulk import BulkWrite, Target
from tallymark._marking.marks import Bitmaps, DenseMarks, SparseMarks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from facades import Facade
    from stores import Store

M, W, D, H = Granularity.MONTH, Granularity.WEEK, Granularity.DAY, Granularity.HOUR
MONDAY = date(2026, 11, 23)
KEYS = ["trackist_a_2026-11", "trackist_a_W2026-48", "trackist_a_2026-11-23"]


def each(count: int) -> dict[Granularity, int]:
    return dict.fromkeys((M, W, D), count)


class Bulk(NamedTuple):
    """A verb for many users, its opposite, and what they write for the event "a".

    Attributes:
        verbs: the names of the verb that marks and of the one that unmarks.
        arguments: their arguments besides the event and the users.
        keys: the bitmaps that they write to.
        flipped: their result for a number of users whose bits were flipped.
    """

    verbs: tuple[str, str]
    arguments: dict[str, Any]
    keys: list[str]
    flipped: Callable[[int], Any]

    async def mark(self, tally: Any, user_ids: Any, event: str = "a") -> Any:
        return await getattr(tally, self.verbs[0])(event, user_ids, **self.arguments)

    async def unmark(self, tally: Any, user_ids: Any, event: str = "a") -> Any:
        return await getattr(tally, self.verbs[1])(event, user_ids, **self.arguments)


EVENTS = Bulk(("mark_many", "unmark_many"), {"now": MONDAY}, KEYS, each)
FLAGS = Bulk(("mark_unique_many", "unmark_unique_many"), {}, ["trackist_a_u"], int)
BULKS = pytest.mark.parametrize("bulk", [EVENTS, FLAGS], ids=["events", "flags"])
VERBS = pytest.mark.parametrize("verb", [*EVENTS.verbs, *FLAGS.verbs])


async def streamed(ids: list[int]) -> AsyncIterator[int]:
    for user_id in ids:
        yield user_id


CONTAINERS: list[Callable[[list[int]], Any]] = [
    list,
    tuple,
    set,
    deque,
    iter,
    lambda ids: (user_id for user_id in ids),
    lambda ids: np.array(ids, dtype=np.int64),
    lambda ids: np.array(ids, dtype=np.uint32),
    lambda ids: np.array(ids * 2, dtype=np.uint64)[: len(ids)],
]
NAMES = ["list", "tuple", "set", "deque", "iterator", "generator", "int64", "uint32", "uint64"]


@BULKS
@pytest.mark.parametrize("container", CONTAINERS, ids=NAMES)
@pytest.mark.parametrize("ids", [[], [5], [9, 3, 4_000_000], list(range(3, 900))])
async def test_any_iterable_of_ids(
    facade: Facade,
    redis_store: Store,
    container: Callable[[list[int]], Any],
    ids: list[int],
    bulk: Bulk,
) -> None:
    store = redis_store
    async with facade.open(store.url) as tally:
        assert await bulk.mark(tally, container(ids)) == bulk.flipped(len(ids))
        assert await bulk.mark(tally, container(ids)) == bulk.flipped(0)
        assert store.bits() == ({key: set(ids) for key in bulk.keys} if ids else {})
        assert await bulk.unmark(tally, container(ids)) == bulk.flipped(len(ids))
    assert store.bits() == {}


@BULKS
async def test_async_iterables_of_ids(store: Store, bulk: Bulk) -> None:
    ids = list(range(0, 3 * BLOCK, 2))
    async with Tally.from_url(store.url) as tally:
        assert await bulk.mark(tally, streamed(ids)) == bulk.flipped(len(ids))
        assert await bulk.mark(tally, streamed([])) == bulk.flipped(0)
        assert await bulk.mark(tally, streamed([1, 1])) == bulk.flipped(1)
    assert store.raw.bitcount(bulk.keys[0]) == len(ids) + 1


# Clusters of neighbours, and far ones; few enough to coincide, and to be distinguished by hand.
ids = st.lists(
    st.integers(0, 300) | st.integers(100_000, 100_200) | st.integers(0, 20_000_000), max_size=200
)
runs = st.builds(range, st.integers(0, 400), st.integers(0, 600), st.integers(1, 3)).map(list)
programs = st.lists(st.tuples(st.booleans(), ids | runs, st.sampled_from(CONTAINERS)), max_size=6)


@BULKS
@ON_SOME_STORES
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(program=programs, bitfield=st.booleans())
async def test_random_programs_agree_with_sets(
    facade: Facade, store: Store, program: list[Any], bitfield: bool, bulk: Bulk
) -> None:
    store.raw.flushdb()
    model: set[int] = set()
    async with facade.open(store.url, bitfield=bitfield) as tally:
        for mark, user_ids, container in program:
            before = set(model)
            if mark:
                model |= set(user_ids)
                counts = await bulk.mark(tally, container(user_ids))
            else:
                model -= set(user_ids)
                counts = await bulk.unmark(tally, container(user_ids))
            assert counts == bulk.flipped(len(before ^ model))
    assert store.bits() == (dict.fromkeys(bulk.keys, model) if model else {})
    assert store.names() <= set(bulk.keys)


async def test_switches_and_the_default_tally(facade: Facade, store: Store) -> None:
    tallymark.configure(store.url)
    verbs = facade.verbs(facade.module)
    counts = await verbs.mark_many("a", range(100), track_hourly=True, track_unique=True)
    assert set(counts) == {M, W, D, H, Granularity.UNIQUE}
    assert set(counts.values()) == {100}
    assert set((await verbs.unmark_many("a", range(50), track_unique=True)).values()) == {50}
    assert store.raw.bitcount("trackist_a_u") == 50


async def test_flags_with_the_default_tally_and_an_exact_str(facade: Facade, store: Store) -> None:
    class Name(str):
        __slots__ = ()

    tallymark.configure(store.url)
    verbs = facade.verbs(facade.module)
    assert await verbs.mark_unique_many(Name("a"), range(100)) == 100
    assert await verbs.mark_unique("a", 100)
    assert await verbs.unmark_unique_many("a", range(50, 200)) == 51
    assert store.bits() == {"trackist_a_u": set(range(50))}


@pytest.mark.parametrize("exact", [True, False])
async def test_exact_or_not_as_for_one_user(facade: Facade, store: Store, exact: bool) -> None:
    tuesday = date(2026, 11, 24)
    async with facade.open(store.url) as tally:
        await tally.mark_many("a", range(100), now=MONDAY)
        await tally.mark_many("a", range(50), now=tuesday)
        counts = await tally.unmark_many("a", range(20, 200), now=MONDAY, exact=exact)
    assert counts == ({M: 50, W: 50, D: 80} if exact else each(80))


# --- what is sent


@BULKS
async def test_neighbours_go_as_bitmaps_and_others_bit_by_bit(
    facade: Facade, redis_store: Store, bulk: Bulk
) -> None:
    dense, few = list(range(5000, 9000)), list(range(10_000_000, 50_000_000, 1_000_000))
    with proxied(redis_store.url) as proxy:
        async with facade.open(proxy.url) as tally:
            await bulk.mark(tally, few + dense)
    sent = b"".join(proxy.transactions())
    assert sent.count(b"EVAL") == 1
    assert sent.count(b"BITFIELD") == len(bulk.keys)
    assert len(sent) < 8000
    assert redis_store.bits() == {key: {*few, *dense} for key in bulk.keys}


@BULKS
async def test_an_expiry_is_kept_and_nothing_is_left_behind(
    facade: Facade, plain_store: Store, bulk: Bulk
) -> None:
    async with facade.open(plain_store.url) as tally:
        await bulk.mark(tally, [1])
        for key in bulk.keys:
            plain_store.raw.expire(key, 1000)
        await bulk.mark(tally, range(10_000))
        await bulk.mark(tally, [2**20])
        await bulk.unmark(tally, range(5000))
    assert all(900 < plain_store.raw.ttl(key) <= 1000 for key in bulk.keys)
    assert plain_store.names() == set(bulk.keys)


@BULKS
async def test_unmarking_many_neighbours_makes_no_bitmap_longer(
    facade: Facade, plain_store: Store, bulk: Bulk
) -> None:
    async with facade.open(plain_store.url) as tally:
        await bulk.mark(tally, [8])
        assert await bulk.unmark(tally, range(1000)) == bulk.flipped(1)
        assert {plain_store.raw.strlen(key) for key in bulk.keys} == {2}
        assert await bulk.unmark(tally, range(1000), "b") == bulk.flipped(0)
    assert plain_store.names() == set(bulk.keys)


async def test_few_far_users_need_no_more_memory_than_their_bitmaps(
    facade: Facade, redis_store: Store
) -> None:
    far = list(range(0, 2**26, 50_000))
    async with facade.open(redis_store.url) as tally:
        await tally.mark_many("b", [1], now=MONDAY)
        before = redis_store.raw.info("memory")["used_memory"]
        await tally.mark_many("a", far, now=MONDAY)
        after = redis_store.raw.info("memory")["used_memory"]
    needed = len(KEYS) * (max(far) // 8)
    slack = len(KEYS) * 2**20  # Redis rounds up when a string grows
    assert after - before <= needed + slack + 2**20


# --- errors


BAD: list[tuple[Any, type[Exception], str]] = [
    (-1, InvalidValueError, r"user id must be in \[0, 4294967295\], got -1"),
    (2**32, InvalidValueError, "got 4294967296"),
    (True, InvalidTypeError, "got True of type bool"),
    ("7", InvalidTypeError, "got '7' of type str"),
    (None, InvalidTypeError, "got None"),
    (1.0, InvalidTypeError, "got 1.0 of type float"),
]


@pytest.mark.parametrize(("bad", "error", "message"), BAD)
@VERBS
@pytest.mark.parametrize("container", [list, tuple, deque])
async def test_a_bad_id_fails_before_anything_is_sent(
    facade: Facade, verb: str, container: Any, bad: Any, error: type[Exception], message: str
) -> None:
    many = container([*range(2 * BLOCK), bad, 5])
    async with facade.open("redis://nowhere.invalid:1") as tally:
        with pytest.raises(error, match=message):
            await getattr(tally, verb)("a", many)


@pytest.mark.parametrize(
    "array",
    [
        np.array([3, -1, 5]),
        np.array([2**40]),
        np.array([1.0, 2.0]),
        np.array([True]),
        np.array([[1, 2], [3, 4]]),
        np.array(["x"]),
    ],
    ids=str,
)
async def test_bad_arrays(facade: Facade, array: Any) -> None:
    async with facade.open("redis://nowhere.invalid:1") as tally:
        with pytest.raises((InvalidValueError, InvalidTypeError)):
            await tally.mark_many("a", array)


@pytest.mark.parametrize("wrong", [5, None, "123", b"123"])
async def test_what_holds_no_ids(facade: Facade, wrong: Any) -> None:
    async with facade.open("redis://nowhere.invalid:1") as tally:
        with pytest.raises(InvalidTypeError, match="iterable of ints"):
            await tally.mark_many("a", wrong)


async def test_a_single_id_is_refused_with_the_advice_to_pass_an_iterable(facade: Facade) -> None:
    async with facade.open("redis://nowhere.invalid:1") as tally:
        for call in (
            lambda wrong: tally.mark_many("a", wrong),
            lambda wrong: tally.unmark_many("a", wrong),
            lambda wrong: tally.mark_unique_many("a", wrong),
            lambda wrong: tally.unmark_unique_many("a", wrong),
            lambda wrong: tally.contains_many(tally.unique("a"), wrong),
        ):
            for wrong in (5, None):
                expected = f"user ids must be an iterable of ints, got a {type(wrong).__name__}"
                with pytest.raises(InvalidTypeError) as raised:
                    await call(wrong)
                assert str(raised.value) == expected


USE_USER_IDS = r"make a tally with user_ids=uuid\.UUID, str"


@pytest.mark.parametrize(
    ("ids", "wanted"),
    [
        ("alice", rf"got a str; .*{USE_USER_IDS}"),
        (b"alice", rf"got a bytes; .*{USE_USER_IDS}"),
        (uuid.UUID(int=7), rf"got a UUID; .*{USE_USER_IDS}"),
        (["alice"], rf"got 'alice' of type str; .*{USE_USER_IDS}"),
        ([uuid.UUID(int=7)], USE_USER_IDS),
        (np.array(["a", "b"]), rf"got one of str32; .*{USE_USER_IDS}"),
        (np.array([b"a"]), rf"got one of bytes8; .*{USE_USER_IDS}"),
        (pd.Series(["a", "b"]), USE_USER_IDS),
        (np.array([(1, 2)], [("x" * 999, int), ("y", int)]), r"one of void128; "),
        (pd.Series([1.5, None]), r"one of float64; leave out those that are missing"),
    ],
    ids=lambda value: str(type(value)),
)
async def test_what_holds_other_ids_is_refused_with_advice(
    facade: Facade, ids: Any, wanted: str
) -> None:
    async with facade.open("redis://nowhere.invalid:1") as tally:
        for call in (
            lambda: tally.mark_many("a", ids),
            lambda: tally.unmark_many("a", ids),
            lambda: tally.mark_unique_many("a", ids),
            lambda: tally.unmark_unique_many("a", ids),
            lambda: tally.contains_many(tally.unique("a"), ids),
        ):
            with pytest.raises(InvalidTypeError, match=wanted) as raised:
                await call()
            assert len(str(raised.value)) < 300


async def test_the_advice_about_missing_ids_is_right(facade: Facade) -> None:
    ids = pd.Series([1, None, 3])
    async with facade.open("memory://") as tally:
        with pytest.raises(InvalidTypeError, match=r"series\.dropna\(\)\.astype\('Int64'\)"):
            await tally.mark_many("a", ids)
        assert await tally.mark_many("a", ids.dropna().astype("Int64"), now=MONDAY) == each(2)
        assert await tally.contains_many(tally.day("a", MONDAY), [1, 2, 3]) == [True, False, True]


def test_async_iterables_are_for_the_async_tally() -> None:
    wrong: Any = streamed([1])
    with SyncTally.from_url("redis://nowhere.invalid:1") as tally:
        with pytest.raises(InvalidTypeError, match="got a async_generator"):
            tally.mark_many("a", wrong)


async def test_the_other_arguments_are_checked_too(facade: Facade) -> None:
    async with facade.open("redis://nowhere.invalid:1") as opened:
        tally: Any = opened
        with pytest.raises(InvalidValueError, match="event"):
            await tally.mark_many("", [1])
        for verb in FLAGS.verbs:
            with pytest.raises(InvalidValueError, match="event"):
                await getattr(tally, verb)("", [1])
            with pytest.raises(InvalidTypeError, match="event"):
                await getattr(tally, verb)(5, [1])
            with pytest.raises(TypeError, match="positional"):
                await getattr(tally, verb)("a", [1], 5)
        with pytest.raises(InvalidTypeError, match="now must be"):
            await tally.mark_many("a", [1], now="today")
        with pytest.raises(InvalidTypeError, match="exact must be"):
            await tally.unmark_many("a", [1], exact=1)
        with pytest.raises(TypeError, match="positional"):
            await tally.mark_many("a", [1], MONDAY)


@BULKS
async def test_a_stream_tells_how_many_were_marked_before(
    facade: Facade, store: Store, bulk: Bulk
) -> None:
    def stream() -> Iterator[int]:
        yield from range(BLOCK + 10)
        yield -1

    async with facade.open(store.url) as tally:
        with pytest.raises(InvalidValueError, match=f"got -1; {BLOCK} ids before were written"):
            await bulk.mark(tally, stream())
    assert store.raw.bitcount(bulk.keys[0]) == BLOCK


async def test_an_async_stream_tells_it_too(store: Store) -> None:
    async with Tally.from_url(store.url) as tally:
        with pytest.raises(InvalidValueError, match=f"{BLOCK} ids before were written"):
            await tally.mark_many("a", streamed([*range(BLOCK), -1]), now=MONDAY)


@pytest.mark.parametrize(
    ("count", "written", "message"),
    [
        (5, 5, "trackist_a_W2026-48 was not changed; others may have been"),
        (5000, 0, "users of 'a': nothing was changed"),  # dense ids: the type is checked first
    ],
)
async def test_a_key_of_the_wrong_type(
    facade: Facade, plain_store: Store, count: int, written: int, message: str
) -> None:
    plain_store.raw.lpush(KEYS[1], "not a bitmap")
    async with facade.open(plain_store.url) as tally:
        with pytest.raises(WrongKeyTypeError, match=message):
            await tally.mark_many("a", range(count), now=MONDAY)
        assert plain_store.raw.bitcount(KEYS[2]) == written
        with pytest.raises(WrongKeyTypeError, match=message):
            await tally.unmark_many("a", range(count), now=MONDAY)
        assert plain_store.raw.bitcount(KEYS[2]) == 0
    assert plain_store.names() <= set(KEYS)


@pytest.mark.parametrize("count", [5, 5000])
async def test_a_flag_of_the_wrong_type(facade: Facade, plain_store: Store, count: int) -> None:
    plain_store.raw.lpush("trackist_a_u", "not a bitmap")
    async with facade.open(plain_store.url) as tally:
        for verb in FLAGS.verbs:
            with pytest.raises(WrongKeyTypeError):
                await getattr(tally, verb)("a", range(count))
    assert plain_store.names() == {"trackist_a_u"}


@BULKS
async def test_a_closed_tally(facade: Facade, store: Store, bulk: Bulk) -> None:
    made = facade.tally.from_url(store.url)
    await facade.close(made)
    with pytest.raises(ClosedError):
        await bulk.mark(facade.verbs(made), [1])


async def test_a_stream_that_breaks_leaves_what_came_before(facade: Facade, store: Store) -> None:
    def stream() -> Iterator[int]:
        yield from range(BLOCK)
        raise ZeroDivisionError

    async with facade.open(store.url) as tally:
        with pytest.raises(ZeroDivisionError):
            await tally.mark_many("a", stream(), now=MONDAY)
    assert store.raw.bitcount(KEYS[0]) == BLOCK


@BULKS
async def test_a_failure_tells_how_far_it_got(
    facade: Facade, redis_store: Store, bulk: Bulk
) -> None:
    with proxied(redis_store.url) as proxy:
        async with facade.open(proxy.url, timeout=0.3) as tally:

            def stream() -> Iterator[int]:
                yield from range(2 * BLOCK)
                proxy.passing.clear()  # from here on, nobody answers
                yield from range(2 * BLOCK, 3 * BLOCK)

            with pytest.raises(StoreTimeoutError, match=r"\d+ ids before were written") as raised:
                await bulk.mark(tally, stream())
            done = int(str(raised.value).split("; ")[-1].split()[0])
            assert BLOCK <= done <= 2 * BLOCK
            assert redis_store.raw.bitcount(bulk.keys[0]) >= done


@BULKS
async def test_a_broken_connection_is_retried(
    facade: Facade, redis_store: Store, bulk: Bulk
) -> None:
    with proxied(redis_store.url) as proxy:
        async with facade.open(proxy.url) as tally:
            await tally.mark_unique("b", 0)
            proxy.cuts = 3
            await bulk.mark(tally, range(5 * BLOCK))
            assert proxy.cuts == 0
    assert {redis_store.raw.bitcount(key) for key in bulk.keys} == {5 * BLOCK}
    assert redis_store.names() == {*bulk.keys, "trackist_b_u"}


@BULKS
async def test_cancelled_it_leaves_whole_pieces(redis_store: Store, bulk: Bulk) -> None:
    with proxied(redis_store.url) as proxy:
        async with Tally.from_url(proxy.url) as tally:
            await tally.mark_unique("b", 0)
            proxy.passing.clear()
            task = asyncio.create_task(bulk.mark(tally, range(10 * BLOCK)))
            await asyncio.to_thread(proxy.held.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            proxy.passing.set()
            assert await tally.mark_unique("b", 1)
            assert tally.stats().waiting == 0
    assert redis_store.raw.bitcount(bulk.keys[0]) in {BLOCK, 0}
    assert redis_store.names() <= {*bulk.keys, "trackist_b_u"}


async def test_cancelled_while_it_waits_for_a_stream(redis_store: Store) -> None:
    async def stalled() -> AsyncIterator[int]:
        for user_id in range(BLOCK):
            yield user_id
        await asyncio.Event().wait()

    with proxied(redis_store.url) as proxy:
        async with Tally.from_url(proxy.url) as tally:
            await tally.mark_unique("b", 0)
            tasks = asyncio.all_tasks()
            proxy.passing.clear()
            task = asyncio.create_task(tally.mark_many("a", stalled(), now=MONDAY))
            await asyncio.to_thread(proxy.held.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0)
            assert tally.stats().waiting == 0
            assert asyncio.all_tasks() <= tasks | {internals(tally).writer._task}
            proxy.passing.set()


async def test_other_tasks_mark_in_between(redis_store: Store) -> None:
    async with Tally.from_url(redis_store.url) as tally:
        many = asyncio.create_task(tally.mark_many("a", range(30 * BLOCK), now=MONDAY))
        singles = 0
        while not many.done():
            await tally.mark_unique("b", singles)
            singles += 1
        await many
        assert singles > 10


# --- the pieces


@given(ids.filter(bool) | runs.filter(bool), st.booleans())
def test_windows_hold_each_offset_once(offsets: list[int], array: bool) -> None:
    given_ids = np.array(offsets) if array else offsets
    found: list[int] = []
    for some in windows(bounded(given_ids)):
        assert some.high - some.low < WINDOW
        assert some == bounded(some.values) or array
        found += [int(offset) for offset in some.values]
    assert Counter(found) == Counter(offsets)
    assert list(given_ids) == offsets  # not sorted in place


@given(
    st.lists(st.integers(0, 2000), min_size=1) | runs.filter(bool),
    st.integers(0, 2**32 - 2001),
    st.booleans(),
)
def test_bits_are_those_of_a_bitmap(distances: list[int], start: int, array: bool) -> None:
    offsets = [start + distance for distance in distances]
    first, bits = as_bits(bounded(np.array(offsets) if array else offsets))
    found = {
        8 * (first + index) + bit
        for index, byte in enumerate(bits)
        for bit in range(8)
        if byte & (128 >> bit)
    }
    assert found == set(offsets)
    assert bits[0]
    assert bits[-1]


@pytest.mark.parametrize(
    ("ids_given", "kinds"),
    [
        (range(64), [DenseMarks]),
        (range(63), [SparseMarks]),
        (range(0, 4000 * 64, 3900), [DenseMarks]),
        (range(0, 4000 * 70, 4100), [SparseMarks]),
        (range(0, 4100 * 1001, 4100), [SparseMarks, SparseMarks]),
        (itertools.chain(range(100), range(WINDOW, WINDOW + 100)), [DenseMarks, DenseMarks]),
    ],
)
def test_which_pieces_go_as_bitmaps(ids_given: Any, kinds: list[type]) -> None:
    bitmaps = Bitmaps("a", D, [b"aD"])
    for temp_keys in ((b"1", b"2"), None):
        target = Target(bitmaps, temp_keys)
        many = BulkWrite(lambda _: target, KeySchema(), value=1)  # noqa: B023 - used in this turn
        offsets = many.checked(list(ids_given) if temp_keys else list(range(100)))
        chunks = list(many.chunks(offsets))
        found = [type(mark) for chunk in chunks for mark in chunk.marks]
        assert found == (kinds if temp_keys else [SparseMarks])
        assert sum(chunk.ids for chunk in chunks) == len(offsets.values)


def test_blocks_bound_what_is_looked_at_in_one_go() -> None:
    found, all_there = blocks(range(2 * BLOCK + 1))
    assert ([len(block) for block in found], all_there) == ([BLOCK, BLOCK, 1], True)
    found, all_there = blocks(iter(range(BLOCK)))
    assert ([len(block) for block in found], all_there) == ([BLOCK], False)
    found, all_there = blocks(np.arange(300_000))
    assert ([len(block) for block in found], all_there) == ([131_072, 131_072, 37_856], True)


# --- sources that stall


@VERBS
async def test_an_async_source_that_stalls_is_left_at_the_deadline(
    redis_store: Store, verb: str
) -> None:
    closed = []

    async def stalling() -> AsyncIterator[int]:
        try:
            for user_id in range(BLOCK + 5):
                yield user_id
            await asyncio.get_running_loop().create_future()
        finally:
            closed.append(True)

    async with Tally.from_url(redis_store.url) as tally:
        begun = time.monotonic()
        with pytest.raises(
            StoreTimeoutError, match=rf"did not give the next one in time; {BLOCK} ids before"
        ):
            await getattr(tally, verb)("a", stalling(), timeout=1)
        assert time.monotonic() - begun < 5
        assert closed == [True]
        assert await tally.mark_many("b", streamed([1, 2]), now=MONDAY) == each(2)


async def test_an_async_source_is_closed_after_a_bad_id(redis_store: Store) -> None:
    closed = []

    async def bad() -> AsyncIterator[Any]:
        try:
            for _ in range(2 * BLOCK):
                yield "no id"
        finally:
            closed.append(True)

    async with Tally.from_url(redis_store.url) as tally:
        with pytest.raises(InvalidTypeError):
            await tally.mark_many("a", bad(), now=MONDAY)
        assert closed == [True]


@VERBS
async def test_a_timeout_names_that_of_the_call(
    facade: Facade, redis_store: Store, verb: str
) -> None:
    def ids() -> Iterator[int]:
        time.sleep(0.1)
        yield 1

    with proxied(redis_store.url) as proxy:
        async with facade.open(proxy.url) as tally:
            await tally.mark_unique("a", 1)
            proxy.passing.clear()
            with pytest.raises(StoreTimeoutError, match=r"did not answer within 0\.4 s; marks may"):
                await getattr(tally, verb)("a", ids(), timeout=0.4)


@VERBS
async def test_a_slow_source_is_left_after_the_next_id(
    facade: Facade, redis_store: Store, verb: str
) -> None:
    given: list[int] = []

    def slow() -> Iterator[int]:
        for user_id in itertools.count():
            given.append(user_id)
            yield user_id
            time.sleep(0.02)

    async with facade.open(redis_store.url) as tally:
        with pytest.raises(StoreTimeoutError, match=r"not done within 0\.1 s"):
            await getattr(tally, verb)("a", slow(), timeout=0.1)
    assert len(given) < 50
