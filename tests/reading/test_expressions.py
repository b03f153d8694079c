"""Large expressions: graphs whose parts are shared, of any depth, within bounds and deadlines."""

from __future__ import annotations

import asyncio
import copy
import itertools
import operator
import pickle
import random
import sys
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from facades import ASYNC, ON_SOME_STORES
from tallymark import InvalidTypeError, InvalidValueError, StoreTimeoutError, any_of
from tallymark._core.context import MIN_WRITE_COST, TAIL_FACTOR, Context
from tallymark._core.events import Bitmap
from tallymark._core.options import Options
from tallymark._core.periods import Granularity, Period
from tallymark._reading import expressions, id_streams, membership, queries
from tallymark._reading.bitop import BitopPlan
from tallymark._reading.graphs import MAX_SOURCES, Graph
from tallymark._reading.requests import Checkpoint, Compute, Page, Request, Scatter
from tallymark.bitmapist import BitOpAnd, BitOpOr, DayEvents
from tallymark.bitmapist import mark_event as mark_in_the_drop_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from facades import Facade
    from stores import Store
    from tallymark import EventSet, Tally

FIRST = date(2026, 10, 1)
WEEK = Period.containing(Granularity.WEEK, datetime(2026, 10, 1))
DAYS = 31
USERS = 400

context = Context.of("db", Options(), lambda: 0.0)
flags = [Bitmap(context.origin, f"f{number}", None) for number in range(40)]


def at_least(number: int, sets: Sequence[Any]) -> Any:
    """Return who is in at least so many of some sets, by dynamic programming."""
    reached = list(itertools.accumulate(sets, operator.or_))
    for already in range(1, number):
        again = [each & before for each, before in zip(sets[already:], reached, strict=False)]
        reached = list(itertools.accumulate(again, operator.or_))
    return reached[-1]


def chain(levels: int, sets: Sequence[Any]) -> Any:
    """Return ``(... ((a - b) | c) - d) | ...``."""
    found = sets[0]
    for level in range(levels):
        found = (found - sets[level % len(sets)]) | sets[(7 * level + 1) % len(sets)]
    return found


def doubled(levels: int, sets: Sequence[Any]) -> Any:
    """Return what has twice as many parts with each level, if it is written out."""
    found = sets[0]
    for level in range(levels):
        found = (found & sets[level % len(sets)]) ^ (found | sets[(level + 1) % len(sets)])
    return found


def active(seed: int = 1, days: int = DAYS) -> list[set[int]]:
    """Return who is active on which day, with some who are far beyond the others."""
    chance = random.Random(seed)
    users = [*range(USERS), 2_000, 3_000]
    return [{user for user in users if chance.random() < 0.3} for _ in range(days)]


async def marked(tally: Tally, data: Sequence[set[int]]) -> list[EventSet]:
    """Mark what is in some sets, a day each; return the event sets."""
    for count, users in enumerate(data):
        await tally.mark_many("active", sorted(users), now=FIRST + timedelta(days=count))
    return [tally.day("active", FIRST + timedelta(days=count)) for count in range(len(data))]


# --- answers


@ON_SOME_STORES
async def test_at_least_so_many_of_31_days(facade: Facade, store: Store) -> None:
    data = active()
    async with facade.open(store.url, timeout=60) as tally:
        sets = await marked(tally, data)
        before = store.names()
        for number in (6, 8, 10):
            expected = {user for user in range(3_001) if sum(user in day for day in data) >= number}
            assert at_least(number, data) == expected
            # A month later nobody was active, so it counts 0 there.
            shifted = at_least(number, [one.shift(40) for one in sets])
            event_set = at_least(number, sets)
            assert await tally.counts([event_set, shifted]) == [len(expected), 0]
            assert await tally.count(event_set) == len(expected)
        assert [user async for user in tally.users(event_set)] == sorted(expected)
        few = [*range(0, USERS, 7), 2_000, 3_000, 70_000]
        assert await tally.contains_many(event_set, few) == [user in expected for user in few]
        assert await tally.contains(event_set, 3_000) == (3_000 in expected)
        assert not await tally.is_empty(event_set)
        assert store.names() == before


@ON_SOME_STORES
async def test_differences_and_unions_of_great_depth(facade: Facade, store: Store) -> None:
    data = active(seed=2, days=200)
    async with facade.open(store.url, timeout=60, max_temp_bytes=None) as tally:
        sets = await marked(tally, data)
        for levels, many in ((199, 200), (1_000, 31)):
            expected = chain(levels, data[:many])
            event_set = chain(levels, sets[:many])
            assert await tally.count(event_set) == len(expected)
            assert [user async for user in tally.users(event_set)] == sorted(expected)
            assert not await tally.is_empty(event_set)
            for user in (0, 1, 3_000):
                assert await tally.contains(event_set, user) == (user in expected)
            few = [*range(0, USERS, 7), 2_000, 3_000, 70_000]
            assert await tally.contains_many(event_set, few) == [user in expected for user in few]


@pytest.mark.parametrize("options", [{"shards": 3}, {"shards": 3, "bitfield": False}, {"read": 1}])
async def test_with_shards_or_read_from_elsewhere(
    facade: Facade, redis_store: Store, options: dict[str, Any]
) -> None:
    if options.pop("read", None):
        options = {"read_from": redis_store.url}
    data = active(seed=3)
    async with facade.open(redis_store.url, timeout=60, **options) as tally:
        sets = await marked(tally, data)
        for event_set, expected in (
            (at_least(9, sets), at_least(9, data)),
            (chain(300, sets), chain(300, data)),
        ):
            assert await tally.count(event_set) == len(expected)
            assert not await tally.is_empty(event_set)
            assert [user async for user in tally.users(event_set)] == sorted(expected)
            assert await tally.contains(event_set, 5) == (5 in expected)
            few = [*range(0, USERS, 7), 2_000, 3_000, 70_000]
            assert await tally.contains_many(event_set, few) == [user in expected for user in few]


async def test_reports_take_large_expressions(facade: Facade, store: Store) -> None:
    data = active(seed=4)
    async with facade.open(store.url, timeout=60) as tally:
        sets = await marked(tally, data)
        often, odd = at_least(9, sets), chain(500, sets)
        table = await tally.retention(
            lambda _: often,
            lambda _: odd,
            by="day",
            periods=1,
            cohorts=2,
            until=datetime(2026, 10, 20),
        )
        expected = len(at_least(9, data)), len(at_least(9, data) & chain(500, data))
        assert [(row.size, row.cells[0].count) for row in table.cohorts] == [expected] * 2
        steps = await tally.funnel([*sets, often, odd])
        assert [step.count for step in steps.steps[:31]] == [
            len(each) for each in itertools.accumulate(data, operator.and_)
        ]


async def test_the_drop_in_shares_parts_too(plain_store: Store, systems: Any) -> None:
    assert systems
    data = active(seed=5)
    for count, users in enumerate(data):
        for user in users:
            mark_in_the_drop_in("active", user, now=datetime(2026, 10, 1) + timedelta(days=count))
    days: list[Any] = [
        DayEvents.from_date("active", FIRST + timedelta(days=count)) for count in range(DAYS)
    ]
    often = at_least(6, days)
    expected = at_least(6, data)
    assert (len(often), list(often)) == (len(expected), sorted(expected))
    assert (5 in often) == (5 in expected)
    # The names of all parts, written out, would have trillions of characters.
    assert len(repr(often)) < 10_000
    assert often == at_least(6, days) != at_least(7, days)
    key = often.redis_key
    assert plain_store.bits()[key] == expected
    deep = days[0]
    for level in range(1_000):
        deep = BitOpOr(BitOpAnd(deep, ~days[level % DAYS]), days[(7 * level + 1) % DAYS])
    assert len(deep) == len(chain(1_000, data))


# --- as values


@pytest.mark.parametrize(
    "build",
    [
        lambda of: at_least(10, of),
        lambda of: chain(5_000, of),
        lambda of: doubled(5_000, of),
    ],
)
def test_they_are_values_of_any_depth(build: Callable[[Any], Any]) -> None:
    one, same = build(flags[:31]), build(flags[:31])
    other = build([*flags[:30], flags[31]])
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != flags[0]
    assert len({one, same, other}) == 2
    assert len(repr(one)) < 2_100
    assert repr(one).endswith(" …")
    assert (one.start, one.end) == (None, None)
    assert one.shift(1) == one
    assert {bitmap.event for bitmap in one.bitmaps()} <= {f"f{number}" for number in range(31)}
    assert pickle.loads(pickle.dumps(one)) == one
    assert copy.copy(one) is copy.deepcopy(one) is one
    elsewhere = one.at(Context.of("other", Options(), lambda: 0.0).origin)
    assert elsewhere != one
    assert elsewhere.at(one.origin) == one
    with pytest.raises(InvalidValueError, match="another database"):
        context.checked(elsewhere)


def test_how_they_are_put_together_tells_them_apart_and_their_text_does_not_grow() -> None:
    a, b, c = flags[:3]
    assert any_of([a, b, c]) == (a | b) | c != a | (b | c)
    assert repr(any_of([a, b, c])) == repr(a | (b | c)) == repr((a | b) | c)
    assert (a - b) - c != a - (b - c)
    assert repr(any_of(flags * 2)).count("|") == 39
    many = [Bitmap(context.origin, f"g{number}", None) for number in range(5_000)]
    assert len(repr(any_of(many))) < 2_100


# --- as graphs and programs


def answers(commands: Sequence[tuple[bytes, ...]], stored: dict[bytes, int]) -> list[Any]:
    """Do what Redis does."""
    found: list[Any] = []
    for name, *arguments in commands:
        if name == b"BITOP":
            what, result, *keys = arguments
            assert len(keys) <= MAX_SOURCES
            combine = {b"AND": operator.and_, b"OR": operator.or_, b"XOR": operator.xor}[what]
            value, *others = [stored.get(key, 0) for key in keys]
            for each in others:
                value = combine(value, each)
            stored[result] = value
            found.append(0)
        elif name == b"UNLINK":
            for key in arguments:
                del stored[key]
            found.append(len(arguments))
        else:
            assert name == b"BITCOUNT"
            found.append(stored.get(arguments[0], 0))
    return found


#: Which two of the sets so far are combined, and how; and which of all are asked about.
COMBINE = {"&": operator.and_, "|": operator.or_, "^": operator.xor, "-": operator.sub}
steps_of_expressions = st.lists(
    st.tuples(st.sampled_from(sorted(COMBINE)), st.integers(0, 30), st.integers(0, 30)),
    min_size=1,
    max_size=25,
)


def built(steps: Sequence[tuple[str, int, int]], sets: Sequence[Any]) -> list[Any]:
    """Return some sets, and those that are made of them, from each other."""
    found = list(sets)
    for name, left, right in steps:
        # The latest ones count from the end.
        found.append(COMBINE[name](found[-1 - left % len(found)], found[right % len(found)]))
    return found


@settings(max_examples=150, deadline=None)
@given(
    steps=steps_of_expressions,
    values=st.lists(st.sets(st.integers(0, 7)), min_size=5, max_size=5),
    roots=st.lists(st.integers(0, 30), max_size=3),
)
@example([("-", 0, 24), ("-", 0, 0)], [set(), set(), set(), set(), {0}], [])  # (a - a) - b
def test_a_plan_computes_what_its_expressions_say(
    steps: list[tuple[str, int, int]], values: list[set[int]], roots: list[int]
) -> None:
    sets, users = built(steps, flags[:5]), built(steps, values)
    chosen = [len(sets) - 1, *(root % len(sets) for root in roots)]
    expected = [as_bits(users[number]) for number in chosen]
    by_bitmap = dict(zip(flags, map(as_bits, values), strict=False))
    graphs = [Graph.of(*(sets[number] for number in chosen))]
    if sets[-1].size < 100:
        graphs.append(Graph.of_tree(sets[-1]))
    for graph in graphs:
        stored = {bitmap.key: value for bitmap, value in by_bitmap.items()}
        plan = BitopPlan("x_")
        assert all(step is None for step in plan.add(graph, lambda key: (b"BITCOUNT", key)))
        replies = answers(plan.commands, stored)
        wanted = expected[: len(graph.roots)]
        assert [replies[index] for index in plan.reply_indexes] == wanted
        assert len(stored) == len(by_bitmap)  # nothing is left
        worked_out = graph.values([by_bitmap[bitmap] for bitmap in graph.bitmaps])
        assert all(step is None for step in graph.evaluation(worked_out))
        assert [worked_out[root] for root in graph.roots] == wanted
        assert sum(command[0] == b"BITOP" for command in plan.commands) == graph.writes


def as_bits(users: set[int]) -> int:
    return sum(1 << user for user in users)


def written(*sets: EventSet) -> BitopPlan:
    plan = BitopPlan("x_")
    for _ in plan.add(Graph.of(*sets), lambda key: (b"BITCOUNT", key)):
        pass
    return plan


def temporary_keys(plan: BitopPlan) -> int:
    return len(plan.commands[-1]) - 1


def test_shared_parts_are_computed_once_and_keys_used_again() -> None:
    often = written(at_least(10, flags[:31]))
    assert len(often.commands) < 2 * 10 * 31
    assert temporary_keys(often) <= 31
    deep = written(chain(5_000, flags))
    assert len(deep.commands) == 3 * 5_000 + 2
    assert temporary_keys(deep) <= 3
    assert len(written(doubled(5_000, flags)).commands) <= 3 * 5_000 + 2
    # Those of a funnel begin alike.
    steps = list(itertools.accumulate(flags, operator.and_))
    assert len(written(*steps).commands) == 40 + 39 + 1


def test_chains_are_combined_in_one_go_as_far_as_redis_is_fast() -> None:
    for build in (operator.or_, operator.and_, operator.xor):
        few: Any = flags[0]
        for each in flags[1:16]:
            few = build(few, each)
        assert len(written(few).commands) == 3
    assert len(written(any_of(flags[:17])).commands) == 4
    assert len(written(any_of(flags)).commands) == 1 + 2 + 2
    taken: Any = flags[0]
    for each in flags[1:10]:
        taken = taken - each
    assert [command[1] for command in written(taken).commands[:3]] == [b"OR", b"AND", b"XOR"]
    assert len(written(taken).commands) == 5


def test_millions_of_levels_are_no_matter() -> None:
    """Not even for Python's own recursion: to drop them, say."""
    deep = chain(100_000, flags)
    assert deep.size == 2 + 4 * 100_000 - 1
    assert doubled(100, flags).size == 2**32
    del deep


# --- bounds


def asked(query: Any, *replies: Any) -> list[Request]:
    """Return what a query sends if it gets these replies."""
    sent: list[Request] = []
    following = iter(replies)
    reply = None
    while True:
        try:
            step = query.send(reply)
        except StopIteration:
            return sent
        reply = None
        if isinstance(step, Compute):
            for _ in step.steps:
                pass
        elif not isinstance(step, Checkpoint):
            sent.append(step)
            reply = next(following, None)
            if reply is None:
                return sent


def sized(**options: Any) -> Context:
    return Context.of("db", Options(**options), lambda: 0.0)


def test_what_is_small_for_certain_takes_one_request() -> None:
    a, b, c, d = flags[:4]
    for event_set in (a & b, a - b, (a | b) - c, any_of(flags[:30]), all_four(a, b, c, d)):
        (transaction,) = asked(queries.count(sized(max_user_id=10**8), event_set))
        assert transaction.commands[0][0] == b"BITOP"
    # With ids that are not so large, it may be much more.
    limited = sized(max_user_id=10**6, shards=2)
    (both,) = asked(queries.count(limited, at_least(10, flags[:31])))
    assert isinstance(both, Scatter)
    (transaction,) = asked(queries.count(sized(max_user_id=10**6), at_least(10, flags[:31])))
    assert transaction.commands[0][0] == b"BITOP"


def test_what_was_small_a_moment_ago_takes_one_request() -> None:
    now = 1000.0
    its = Context.of("db", Options(), lambda: now)
    a, b, c = flags[:3]

    def names(event_set: Any, *replies: Any) -> list[bytes]:
        return [each.commands[0][0] for each in asked(queries.count(its, event_set), *replies)]

    assert names(a & b, [1000, 10**6]) == [b"STRLEN", b"BITOP"]
    now += 59
    assert names(a & b) == names(b - a) == names(any_of([a, b])) == [b"BITOP"]
    assert names(a & c)[0] == b"STRLEN"  # nobody knows how long that is
    with pytest.raises(InvalidValueError, match="max_temp_bytes"):
        names(a & c, [1000, 2**29])
    # In the case that one has become empty, this would be too much.
    assert names(chain(200, [a, b]))[0] == b"STRLEN"
    assert names(a & c)[0] == b"STRLEN"
    now += 2
    assert names(a & b)[0] == b"STRLEN"
    now -= 100  # the clock was set back
    assert names(a & b)[0] == b"STRLEN"


def test_with_shards_the_longest_of_all_is_remembered() -> None:
    its = Context.of("db", Options(shards=2), lambda: 0.0)
    a, b = (its.during("a", WEEK), its.during("b", WEEK))
    rounds: list[Any] = list(asked(queries.count(its, a & b), [[5, 7], [6, 10**6]]))
    first, second = rounds
    assert [part.commands[0][0] for _, part in first.parts] == [b"STRLEN"] * 2
    assert [part.commands[0][0] for _, part in second.parts] == [b"BITOP"] * 2
    assert len(asked(queries.count(its, a & b))) == 1
    assert its.lengths.longest([*a.bitmaps(), *b.bitmaps()]) == 10**6


def test_each_shard_writes_as_much() -> None:
    a, b = flags[:2]
    limit = 4 * MIN_WRITE_COST
    assert asked(queries.count(sized(shards=4, max_temp_bytes=limit), a & b))
    with pytest.raises(InvalidValueError, match=f"about {limit} bytes"):
        next(queries.count(sized(shards=4, max_temp_bytes=limit - 1), a & b))


@pytest.mark.parametrize(("shards", "requests"), [(2, 1), (3, 2)])
def test_cached_lengths_are_those_of_each_shard(shards: int, requests: int) -> None:
    length = 10**6
    its = sized(shards=shards, max_temp_bytes=2 * 2 * TAIL_FACTOR * length)
    a, b = (its.during(name, WEEK) for name in "ab")
    its.lengths.learn([*a.bitmaps(), *b.bitmaps()], [length, length])
    # Up to half of the limit, the lengths need not be fetched again.
    replies = [[[length, length]] * shards]
    assert len(asked(queries.count(its, a & b), *replies[: requests - 1])) == requests


@pytest.mark.parametrize(("requests", "concurrency"), [(0, 1), (2, 2), (100, 3)])
def test_no_more_shards_are_encoded_at_once_than_fit(
    requests: int, concurrency: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    its = sized(shards=3)
    graph = Graph.of(flags[0] & flags[1])

    def build() -> tuple[Callable[[Context], Request], int]:
        query = expressions.build_shard_requests(its, graph, lambda key: (b"BITCOUNT", key))
        with pytest.raises(StopIteration) as end:
            next(query)
        request_of, _, number = end.value.value
        return request_of, number

    request_of, most = build()
    assert most == 3
    size = len(request_of(its.shards[0]).encode())
    monkeypatch.setattr(expressions, "_MAX_ENCODED", size * requests)
    assert build()[1] == concurrency


def test_bytes_beyond_the_shortest_operand_cost_more() -> None:
    def cost(event_set: Any, *lengths: int) -> int:
        with pytest.raises(StopIteration) as ended:
            next(Graph.of(event_set).cost(lengths))
        return int(ended.value.value)

    a, b, c = flags[:3]
    assert cost(a & b, 10**6, 10**6) == 10**6
    assert cost(a & b, 0, 10**6) == 6 * 10**6
    assert cost(a | b | c, 9 * 10**5, 10**6, 10**6) == 15 * 10**5
    # A result is as long as the longest of its operands.
    assert cost((a & b) | c, 0, 10**6, 10**6) == 7 * 10**6


async def test_a_stray_id_is_refused(facade: Facade, redis_store: Store) -> None:
    async with facade.open(redis_store.url) as tally:
        await tally.mark_event("a", 1_000_000_000)
        both = [tally.day("a") & tally.day("b").shift(-back) for back in range(10)]
        with pytest.raises(InvalidValueError, match="max_temp_bytes=2147483648"):
            await tally.counts(both)
        assert await tally.count(tally.day("b") & tally.day("c")) == 0


def all_four(*sets: Any) -> Any:
    return (sets[0] & sets[1]) | (sets[2] & sets[3])


def test_what_may_be_large_is_measured_first() -> None:
    event_set = at_least(3, flags[:5])
    lengths, transaction = asked(queries.count(sized(), event_set), [1000] * 5)
    assert lengths.commands == [(b"STRLEN", each.key) for each in Graph.of(event_set).bitmaps]
    assert not lengths.atomic
    assert transaction.commands[0][0] == b"BITOP"
    writes: list[Any] = [
        queries.count(sized(), event_set),
        queries.is_empty(sized(), event_set),
        queries.counts(sized(), [flags[0], event_set]),
        queries.store(sized(), event_set, b"result"),
    ]
    for query in writes:
        with pytest.raises(InvalidValueError, match="max_temp_bytes=2147483648"):
            asked(query, [1000, 1000, 1000, 2**29, 1000])
    reads: list[Any] = [
        membership.contains(sized(), event_set, 1),
        id_streams.users(sized(), event_set, 0, 1),
    ]
    for query in reads:
        (request,) = asked(query)
        assert request.commands[0][0] in (b"GETBIT", b"GETRANGE")
    unlimited = sized(max_temp_bytes=None)
    (transaction,) = asked(queries.count(unlimited, event_set))
    assert transaction.commands[0][0] == b"BITOP"


def test_commands_cost_something_too() -> None:
    """With the shortest bitmaps, nothing is sent to learn that there are too many of them."""
    small = sized(max_temp_bytes=4096 * 100, max_user_id=7)
    for levels, fits in ((33, True), (34, False)):
        query = queries.count(small, chain(levels, flags))
        if fits:
            assert len(asked(query)) == 1
        else:
            with pytest.raises(InvalidValueError, match=f"about {4096 * 102} bytes .*=409600"):
                asked(query)


async def test_refused_before_redis_computes_anything(facade: Facade, store: Store) -> None:
    options = {"max_temp_bytes": 2_000_000}
    async with facade.open(store.url, **options) as tally:
        day, week = tally.day("active", FIRST), tally.week("active", FIRST)
        await tally.mark_event("active", 900_000, now=FIRST)
        before = store.names()
        flag = tally.unique("flag")
        assert await tally.count(day & week) == 1
        assert await tally.count((day | week) - flag) == 1
        assert await tally.count(at_least(2, [day, week, flag])) == 1
        many = [day.shift(-count) for count in range(12)]
        for verb in (tally.count, tally.is_empty):
            with pytest.raises(InvalidValueError, match="max_temp_bytes=2000000"):
                await verb(at_least(3, many))
        with pytest.raises(InvalidValueError, match="max_temp_bytes=2000000"):
            await tally.counts(
                [day & week]
                + [both for each in many for both in (day & each, day ^ each, week & each)]
            )
        assert await tally.contains(at_least(1, many), 900_000)
        assert store.names() == before


# --- on the event loop, and in time


HOSTILE = 2_000


def turns(query: Any) -> Iterator[int]:
    """Yield how many functions are called on an event loop between a query's steps.

    The server knows nobody.
    """
    calls = 0

    def count(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    reply: Any = None
    while True:
        calls = 0
        sys.setprofile(count)
        try:
            step = query.send(reply)
            if isinstance(step, Request):
                step.encode()
        except StopIteration:
            return
        finally:
            sys.setprofile(None)
        yield calls
        reply = None
        if isinstance(step, Compute):
            for _ in step.steps:
                pass
        elif isinstance(step, Request):
            nothing = {int: 0, bytes: b"", list: [0] * 3}[step.replies]
            reply = [nothing] * len(step.commands)
        else:
            assert isinstance(step, Page | Checkpoint)


@pytest.mark.parametrize("options", [{}, {"read_from": "redis://replica"}])
@pytest.mark.parametrize(
    "ask",
    [
        queries.count,
        lambda its, one: queries.counts(its, [one, one.next()]),
        queries.is_empty,
        lambda its, one: membership.contains(its, one, 3),
        lambda its, one: membership.contains_many(its, one, [3, 10**6, 10**9]),
        lambda its, one: id_streams.users(its, one, 0, None),
        lambda its, one: queries.store(its, one, b"result"),
    ],
)
def test_the_event_loop_goes_on(options: dict[str, Any], ask: Any) -> None:
    """A large one takes hardly more of an event loop's turn than a small one."""
    its = sized(**options)
    most = {levels: max(turns(ask(its, chain(levels, flags)))) for levels in (100, HOSTILE)}
    # With forty bitmaps either way.
    assert most[HOSTILE] < most[100] + 2_000
    steps = list(turns(ask(its, chain(HOSTILE, flags))))
    assert len(steps) > 1


def test_no_step_of_the_work_is_long() -> None:
    query = queries.count(context, chain(HOSTILE, flags))
    step = next(query)
    while isinstance(step, Checkpoint):
        step = next(query)
    assert isinstance(step, Compute)
    assert step.pauses
    assert len(list(step.steps)) > 3 * HOSTILE // 128


class Endless:
    """Compute that never ends; counts its steps."""

    def __init__(self) -> None:
        self.steps = 0

    def __iter__(self) -> Endless:
        return self

    def __next__(self) -> None:
        self.steps += 1

    def query(self) -> Any:
        yield Compute(self, pauses=True)


@pytest.mark.exhaustive
async def test_work_ends_at_the_deadline(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, timeout=30) as tally:
        made: Any = getattr(tally, "_verbs", tally)
        endless = Endless()
        with pytest.raises(
            StoreTimeoutError, match=r"(not computed|did not answer) within 0\.05 s"
        ):
            answer = made.backend.reader.answer(endless.query(), 0.05)
            if facade.name == "async":
                await answer
        assert endless.steps
        with pytest.raises(StoreTimeoutError, match=r"0\.05 s"):
            await tally.count(
                chain(60_000, [tally.unique(f"f{n}") for n in range(9)]), timeout=0.05
            )
        assert await tally.count(tally.unique("a")) == 0


async def test_work_ends_when_it_is_cancelled(redis_store: Store) -> None:
    async with ASYNC.open(redis_store.url) as tally:
        endless = Endless()
        task = asyncio.create_task(tally.backend.reader.answer(endless.query()))
        while not endless.steps:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # The thread is on its way out; if it were not, it would count on and on.
        while True:
            before = endless.steps
            await asyncio.sleep(0.02)
            if endless.steps == before:
                break


async def test_only_unions_are_deleted_however_deep(facade: Facade, redis_store: Store) -> None:
    async with facade.open(redis_store.url) as tally:
        sets = await marked(tally, [{1}, {2}, {3}])
        deep = sets[0]
        for level in range(3_000):
            deep = sets[level % 3] | deep
        with pytest.raises(InvalidTypeError, match="what is deleted are bitmaps"):
            await tally.delete(deep | (sets[0] & sets[1]))
        assert await tally.delete(deep) == 3
