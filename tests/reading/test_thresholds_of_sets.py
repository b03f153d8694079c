"""`at_least` against a model of sets: as operations, on all stores, on both sides."""

from __future__ import annotations

import asyncio
import random
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facades import ON_SOME_STORES
from servers import running_server
from tallymark import InvalidTypeError, StoreTimeoutError, any_of, at_least
from tallymark._core.context import Context
from tallymark._core.events import Bitmap
from tallymark._core.options import Options
from tallymark._reading import bits, expressions, queries
from tallymark._reading.graphs import Graph
from tallymark._reading.requests import Checkpoint, Compute, Request
from threshold_trees import Tree, counted, ids, trees

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facades import Facade
    from stores import Store

FIRST = date(2026, 10, 10)
context = Context.of("db", Options(), lambda: 0.0)
flags = [Bitmap(context.origin, f"f{number}", None) for number in range(3_650)]


@pytest.mark.parametrize("algebra", [bits.Ints(), bits.Arrays(np)])
@settings(max_examples=150)
@given(trees=st.lists(trees(), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_operations_agree_with_counting(algebra: Any, trees: list[Tree], seed: int) -> None:
    chance = random.Random(seed)
    data = [{user for user in range(64) if chance.random() < 0.4} for _ in range(7)]
    graph = Graph.of(*(tree.of(flags, at_least) for tree in trees))
    loaded = []
    for bitmap in graph.bitmaps:
        users = data[int(bitmap.event[1:])]
        loaded.append(
            algebra.load(
                bytes(
                    sum(128 >> bit for bit in range(8) if 8 * byte + bit in users)
                    for byte in range(8)
                ),
                8,
            )
        )
    values = graph.values(loaded)
    for _ in graph.evaluation(values):
        pass
    for root, tree in zip(graph.roots, trees, strict=True):
        ids = [user for part in algebra.ids(values[root], 8, 0) for user in part]
        assert ids == sorted(tree.of(data, counted))


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", [2, 3, 4, 5, 8, 20, 64, 99])
def test_every_threshold_of_some_sets(number: int) -> None:
    for threshold in range(1, number + 1):
        graph = Graph.of(at_least(threshold, flags[:number]))
        chance = random.Random(threshold)
        loaded = [chance.getrandbits(300) for _ in range(number)]
        values = graph.values(loaded)
        most = 0
        for _ in graph.evaluation(values):
            most = max(most, sum(value is not None for value in values[: len(graph.operations)]))
        assert values[graph.roots[0]] == sum(
            1 << bit for bit in range(300) if sum(value >> bit & 1 for value in loaded) >= threshold
        )
        assert len(graph.operations) <= 5 * number + 2 * number.bit_length()
        assert most <= 2 * number.bit_length() + 6, "the values of one part are in memory"


def test_digits_below_those_of_the_threshold_are_not_computed() -> None:
    assert len(Graph.of(at_least(16, flags[:31])).operations) < len(
        Graph.of(at_least(17, flags[:31])).operations
    )
    assert len(Graph.of(at_least(2, flags[:3])).operations) == 4


def test_parts_in_common_are_computed_once() -> None:
    both = Graph.of(*(at_least(number, flags[:31]) for number in range(12, 21)))
    one = Graph.of(at_least(12, flags[:31]))
    assert len(both.operations) < 1.5 * len(one.operations)


examples = settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(params=["in_redis", "in_client"])
def _either_side(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute thresholds in Redis, and in the client."""
    monkeypatch.setattr(
        expressions, "_SHORT_WORK", 0 if request.param == "in_client" else 10 * 2**30
    )


async def check(tally: Any, event_set: Any, users: set[Any], asked: Sequence[Any]) -> None:
    assert await tally.count(event_set) == len(users)
    assert await tally.counts([event_set, event_set]) == [len(users)] * 2
    assert await tally.is_empty(event_set) == (not users)
    assert {user async for user in tally.users(event_set)} == users
    assert await tally.contains_many(event_set, asked) == [user in users for user in asked]
    for user in asked[:2]:
        assert await tally.contains(event_set, user) == (user in users)


@pytest.mark.usefixtures("_either_side")
@ON_SOME_STORES
@examples
@given(tree=trees(5), data=st.lists(st.sets(ids, max_size=9), min_size=5, max_size=5))
async def test_answers_agree_with_sets(
    facade: Facade, store: Store, tree: Tree, data: list[set[int]]
) -> None:
    store.raw.flushdb()
    # The embedded store combines large bitmaps slowly.
    async with facade.open(store.url, timeout=120) as tally:
        sets = []
        for number, users in enumerate(data):
            await tally.mark_many("a", users, now=FIRST + timedelta(days=number))
            sets.append(tally.day("a", FIRST + timedelta(days=number)))
        before = store.names()
        event_set, expected = tree.of(sets, at_least), tree.of(data, counted)
        await check(tally, event_set, expected, [0, 7, 8_191, 65_500, 600_000, 600_001])
        assert store.names() == before


@pytest.mark.usefixtures("_either_side")
@pytest.mark.parametrize("options", [{}, {"shards": 3}, {"user_ids": str}, {"bitfield": False}])
async def test_with_options(facade: Facade, redis_store: Store, options: dict[str, Any]) -> None:
    chance = random.Random(4)
    everybody = [str(n) for n in range(50)] if "user_ids" in options else range(0, 5_000, 100)
    async with facade.open(redis_store.url, **options) as tally:
        data: list[set[Any]] = []
        for day in range(31):
            data.append({user for user in everybody if chance.random() < 0.5})
            await tally.mark_many("a", data[-1], now=FIRST + timedelta(days=day))
        sets = [tally.day("a", FIRST + timedelta(days=day)) for day in range(31)]
        for number in (2, 15, 16, 17, 30):
            await check(tally, at_least(number, sets), counted(number, data), list(everybody)[:9])
        several = [at_least(number, sets) for number in range(10, 20)]
        expected = [len(counted(number, data)) for number in range(10, 20)]
        assert await tally.counts([*several, sets[0]]) == [*expected, len(data[0])]
        with pytest.raises(InvalidTypeError, match="what is deleted are bitmaps"):
            await tally.delete(at_least(2, sets))


async def test_in_reports(facade: Facade, redis_store: Store) -> None:
    async with facade.open(redis_store.url) as tally:
        for user, days in ((1, 3), (2, 1), (3, 2)):
            for day in range(days):
                await tally.mark_event("a", user, now=FIRST + timedelta(days=day))

        def regulars(period: Any) -> Any:
            first = period.start
            return at_least(2, [tally.day("a", first + timedelta(days=day)) for day in range(7)])

        table = await tally.retention(
            regulars, "a", by="week", periods=1, cohorts=2, until=FIRST + timedelta(days=13)
        )
        assert [cohort.size for cohort in table.cohorts] == [2, 0]


async def test_from_a_replica(facade: Facade, redis_store: Store) -> None:
    with running_server() as replica:
        async with facade.open(replica) as elsewhere:
            for day in range(3):
                await elsewhere.mark_many("a", range(day, 9), now=FIRST + timedelta(days=day))
        async with facade.open(redis_store.url, read_from=replica) as tally:
            sets = [tally.day("a", FIRST + timedelta(days=day)) for day in range(3)]
            assert await tally.counts([at_least(2, sets), sets[0]]) == [8, 9]


def effects(query: Any, *replies: Any) -> list[Any]:
    """Return the effects that a query yields, given the replies to its first requests."""
    waiting, found = list(replies), []
    try:
        effect = next(query)
        while True:
            found.append(effect)
            if isinstance(effect, Compute):
                for _ in effect.steps:
                    pass
                effect = query.send(None)
            elif not isinstance(effect, Request):
                effect = query.send(None)
            elif waiting:
                effect = query.send(waiting.pop(0))
            else:
                return found
    except StopIteration:
        return found


def test_redis_computes_what_is_short_work() -> None:
    its = Context.of("db", Options(), lambda: 0.0)
    five = at_least(3, flags[:5])
    lengths, transaction = effects(queries.count(its, five), [1_000] * 5)
    assert [name for name, *_ in lengths.commands] == [b"STRLEN"] * 5
    assert transaction.commands[0][0] == b"BITOP"
    # The lengths are cached.
    (again,) = effects(queries.count(its, five))
    assert again.commands[0][0] == b"BITOP"
    # A bitmap of 10 million users; or a limit of the tally's.
    its = Context.of("db", Options(), lambda: 0.0)
    _, parts = effects(queries.count(its, five), [1_250_000] * 5)
    assert [name for name, *_ in parts.commands] == [b"GETRANGE"] * 5
    limited = Context.of("db", Options(max_temp_bytes=4096 * 10), lambda: 0.0)
    (parts,) = effects(queries.count(limited, five))
    assert [name for name, *_ in parts.commands] == [b"GETRANGE"] * 5
    # Other expressions stay in one transaction.
    its = Context.of("db", Options(), lambda: 0.0)
    others = effects(queries.count(its, any_of(flags[:5])), [1_250_000] * 5)
    assert others[-1].commands[0][0] == b"BITOP"


def test_large_ones_are_compiled_off_the_event_loop() -> None:
    found = effects(queries.count(context, at_least(1_000, flags)))
    kinds = [type(effect) for effect in found if not isinstance(effect, Checkpoint)]
    assert kinds[0] is Compute
    request = next(effect for effect in found if isinstance(effect, Request))
    assert request.commands[0][0] == b"GETRANGE"


async def test_ten_years_of_days(facade: Facade, redis_store: Store) -> None:
    chance = random.Random(1)
    data = [{user for user in range(100) if chance.random() < user / 100} for _ in range(3_650)]
    async with facade.open(redis_store.url, timeout=120) as tally:
        with redis_store.raw.pipeline(transaction=False) as pipeline:
            for day, users in enumerate(data):
                bitmap = bytearray(13)
                for user in users:
                    bitmap[user >> 3] |= 128 >> (user & 7)
                pipeline.set(f"trackist_{day}_u", bytes(bitmap))
            pipeline.execute()
        event_set = at_least(1_000, [tally.unique(str(day)) for day in range(3_650)])
        expected = counted(1_000, data)
        assert await tally.count(event_set) == len(expected)
        assert {user async for user in tally.users(event_set)} == expected
        with pytest.raises(StoreTimeoutError):
            await asyncio.wait_for(tally.count(event_set, timeout=0.02), 10)
