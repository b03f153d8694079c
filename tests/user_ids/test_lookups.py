"""Reads of databases with ids of other types: every verb that takes or yields user ids."""

from __future__ import annotations

import itertools
import uuid
from datetime import date, datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import redis

from servers import RedisProcess, running
from stores import SHARDS
from tallymark import (
    Granularity,
    InvalidTypeError,
    InvalidValueError,
    Period,
    StoreError,
    StoreTimeoutError,
)
from tallymark._core.context import Context
from tallymark._core.keys import key_slot, tags
from tallymark._core.options import Options
from tallymark._reading import user_ids as lookups
from tallymark._reading.requests import Compute, Request
from written_ids import SAMPLES, UNKNOWN, Written, ask, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from clusters import Cluster
    from facades import Facade
    from stores import Store
    from tallymark._reading.requests import Query

DAY = date(2026, 11, 23)

#: Each kind of store, with a number of shards.
PLACES = ["redis", "redis-1", "redis-5", "memory", "memory-3", "cluster"]


@pytest.fixture(params=list(SAMPLES), ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type:
    """Return each type of ids in turn."""
    param_kind: type = request.param
    return param_kind


@pytest.fixture
def write(request: pytest.FixtureRequest) -> Callable[..., Written]:
    """Return a function that takes a type and one of `PLACES`, and returns an empty dictionary."""

    def written(kind: type, place: str = "redis") -> Written:
        name, _, shards = place.partition("-")
        store: Store = request.getfixturevalue(f"{name}_store")
        if name != "cluster":
            return Written(kind, int(shards) if shards else None, lambda _: store.raw, store.url)
        cluster: Cluster = request.getfixturevalue("redis_cluster")
        nodes = {
            tag: cluster.raw(cluster.owner(key_slot(f"{{{tag}}}".encode()))) for tag in tags(SHARDS)
        }
        return Written(
            kind, SHARDS, lambda key: nodes[key.partition("{")[2].partition("}")[0]], store.url
        )

    return written


@pytest.fixture(params=PLACES)
def written(request: pytest.FixtureRequest, write: Callable[..., Written], kind: type) -> Written:
    """Return an empty dictionary of each type, in each kind of store in turn."""
    return write(kind, request.param)


async def listed(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


async def test_every_verb_takes_and_yields_ids(facade: Facade, written: Written) -> None:
    samples, unknown = SAMPLES[written.kind], UNKNOWN[written.kind]
    written.add(*samples)
    written.flag("a", samples[::2])
    written.flag("b", samples)
    for each in samples[::3]:
        offset, shard = divmod(written.numbers[each], written.shards)
        written.execute(shard, "SETBIT", "login_2026-11-23", offset, 1)
    async with opened(facade, written) as tally:
        a, b = tally.unique("a"), tally.unique("b")
        asked = [*samples, unknown]
        for event_set, has in ((a, samples[::2]), (b - a, samples[1::2]), (b, samples)):
            members = [each in has for each in asked]
            assert [await tally.contains(event_set, each) for each in asked] == members
            assert await tally.contains_many(event_set, asked) == members
            assert await tally.contains_many(event_set, [unknown]) == [False]
            assert await listed(tally.users(event_set, start=None)) == written.in_order(has)
            assert await tally.count(event_set) == len(has)
        for each in asked:
            history = await tally.history(each, ["login", "a"], DAY, date(2026, 11, 25))
            days = [str(period) for period in history["login"]]
            assert days == (["2026-11-23"] if each in samples[::3] else [])
            assert history["a"] == []
        numbers = [written.numbers[each] for each in samples]
        assert await ask(tally, lookups.numbers, asked) == [*numbers, None]
        assert await ask(tally, lookups.ids, [*numbers, 999_999]) == [*samples, None]


@pytest.mark.exhaustive
async def test_after_marks(facade: Facade, written: Written) -> None:
    """Users whose numbers the tally has given, beside those who had one."""
    known, new = SAMPLES[written.kind], [make(written.kind, number) for number in range(600)]
    written.add(*known)
    ids = [*new, *known]
    async with opened(facade, written) as tally:
        await tally.mark_many("a", ids, track_unique=True)
        await tally.mark_event("b", known[0], track_unique=True)
        await tally.mark_event("b", new[5], track_unique=True)
        a, b = tally.unique("a"), tally.unique("b")
        assert await tally.contains_many(a, [*ids, UNKNOWN[written.kind]]) == [True] * len(ids) + [
            False
        ]
        numbers = await ask(tally, lookups.numbers, ids)
        assert numbers[-len(known) :] == [written.numbers[each] for each in known]
        assert await ask(tally, lookups.ids, numbers) == ids
        in_order = [user_id for _, user_id in sorted(zip(numbers, ids, strict=True))]
        assert await listed(tally.users(a, start=None)) == in_order
        assert await listed(tally.users(a, start=in_order[300])) == in_order[300:]
        assert set(await listed(tally.users(b, start=None))) == {known[0], new[5]}
        assert await tally.history(new[5], ["b", "c"], DAY, granularity="year") == {
            "b": [
                Period.containing(Granularity.YEAR, datetime.now(timezone.utc).replace(tzinfo=None))
            ],
            "c": [],
        }


@pytest.mark.parametrize("place", ["redis", "redis-5", "memory"])
async def test_edges_of_blocks(
    facade: Facade, write: Callable[..., Written], kind: type, place: str
) -> None:
    written = write(kind, place)
    offsets = [0, 254, 255, 256, 257, 511, 512, 3998, 3999, 4000, 4001, 7999, 8000, 8001]
    for number, offset in enumerate(offsets):
        written.add_at(offset, make(kind, number))
    ids = written.in_order(written.numbers)
    written.flag("a", ids)
    async with opened(facade, written) as tally:
        assert await listed(tally.users(tally.unique("a"), start=None)) == ids
        assert await tally.contains_many(tally.unique("a"), ids) == [True] * len(ids)
        # Next to each of them is nobody.
        near = [
            number + step * written.shards
            for number in written.numbers.values()
            for step in (-1, 0, 1)
        ]
        by_number = {number: user_id for user_id, number in written.numbers.items()}
        asked = [number for number in near if number >= 0]
        assert await ask(tally, lookups.ids, asked) == [by_number.get(each) for each in asked]


def make(kind: type, number: int) -> Any:
    """Return one of as many different ids as there are numbers."""
    if kind is int:
        return 3**30 * (number + 1) * (-1) ** number
    if kind is uuid.UUID:
        return uuid.UUID(int=3**70 * (number + 1))
    text = f"{number}@example.com" + "x" * (number % 7 * 11)
    return text if kind is str else text.encode()


@pytest.mark.exhaustive
@pytest.mark.parametrize("place", ["redis", "redis-5"])
async def test_some_thousand_users(
    facade: Facade, write: Callable[..., Written], kind: type, place: str
) -> None:
    """Dense and sparse blocks, pages of several requests, and users whose ids are forgotten."""
    written = write(kind, place)
    with written.together():
        written.add(*(make(kind, number) for number in range(10_000)))
    ids = written.in_order(written.numbers)
    sets = {
        "all": ids,
        "half": ids[::2],
        "few": ids[5::97],
        "run": ids[3000:4500],
        "ends": [*ids[:3], ids[-1]],
    }
    forgotten = {*ids[4000:4100], *ids[7::10]}
    with written.together():
        written.forget(*forgotten)
        for event, members in sets.items():
            written.flag(event, members)
    numbers = [written.numbers[each] for each in ids]
    async with opened(facade, written) as tally:
        for event, members in sets.items():
            known = [each for each in members if each not in forgotten]
            pages = await listed(tally.user_chunks(tally.unique(event), start=None))
            assert list(itertools.chain.from_iterable(pages)) == known
            assert all(0 < len(page) <= 8192 for page in pages)
            in_set = set(known)
            assert await tally.contains_many(tally.unique(event), ids) == [
                each in in_set for each in ids
            ]
        backwards = [numbers[-1], *reversed(numbers), numbers[0]]
        expected = [None if each in forgotten else each for each in ids]
        assert await ask(tally, lookups.ids, backwards) == [
            expected[-1],
            *reversed(expected),
            expected[0],
        ]
        assert await ask(tally, lookups.numbers, iter(ids)) == [
            None if each in forgotten else number for each, number in zip(ids, numbers, strict=True)
        ]


@pytest.mark.exhaustive
async def test_start_and_limit(facade: Facade, written: Written) -> None:
    ids = [make(written.kind, number) for number in range(300)]
    written.add(*ids)
    ids = written.in_order(ids)
    forgotten = {*ids[20:140], ids[-1]}
    written.flag("a", ids)
    written.forget(*forgotten)
    known = [each for each in ids if each not in forgotten]
    async with opened(facade, written) as tally:
        a = tally.unique("a")
        for limit in (0, 1, 19, 20, 21, 64, 100, len(known), len(known) + 1):
            assert await listed(tally.users(a, start=None, limit=limit)) == known[:limit]
            pages = await listed(tally.user_chunks(a, start=None, limit=limit))
            assert list(itertools.chain.from_iterable(pages)) == known[:limit]
        for at in (0, 1, 19, 20, 100, len(known) - 1):
            assert await listed(tally.users(a, start=known[at])) == known[at:]
            assert await listed(tally.users(a, start=known[at], limit=3)) == known[at : at + 3]
        # The first page, then the next one.
        assert await listed(tally.users(a - a, start=known[0])) == []
        for unknown in (UNKNOWN[written.kind], ids[30]):
            with pytest.raises(InvalidValueError, match=r"^start must be the id of a known user"):
                await listed(tally.users(a, start=unknown))


@pytest.mark.parametrize("place", ["redis", "redis-5", "memory"])
@pytest.mark.parametrize("nil", [uuid.UUID(int=0), 0])
async def test_the_id_of_zeros(
    facade: Facade, write: Callable[..., Written], nil: Any, place: str
) -> None:
    written = write(type(nil), place)
    others = [make(type(nil), number) for number in range(40)]
    written.add(*others[:20])
    written.forget(*others[5:15])
    written.flag("a", others[:20])
    async with opened(facade, written) as tally:
        a = tally.unique("a")
        assert await ask(tally, lookups.numbers, [nil]) == [None]
        assert not await tally.contains(a, nil)
        known = written.in_order([*others[:5], *others[15:20]])
        assert await listed(tally.users(a, start=None)) == known
        written.add(nil, *others[20:])
        written.flag("a", [nil])
        assert await listed(tally.users(a, start=None)) == written.in_order([*known, nil])
        assert await listed(tally.users(a, start=nil, limit=1)) == [nil]
        assert await tally.contains_many(a, [nil, *others[19:21]]) == [True, True, False]
        numbers = [written.numbers[each] for each in (nil, others[7], nil)]
        assert await ask(tally, lookups.ids, numbers) == [nil, None, nil]
        written.forget(nil)
        assert await listed(tally.users(a, start=None)) == known
        assert await ask(tally, lookups.ids, numbers) == [None, None, None]


WRONG: dict[type, list[Any]] = {
    str: [b"a", 1, None, "", "x" * 1025, "\ud800"],
    bytes: ["a", 1, bytearray(b"a"), b"", b"x" * 1025],
    uuid.UUID: ["00000000-0000-0000-0000-000000000000", 0, None, bytes(16)],
    int: ["1", 1.0, True, 2**63, -(2**63) - 1, None],
}


async def test_ids_are_checked_before_anything_is_sent(facade: Facade, kind: type) -> None:
    written = Written(kind, None, lambda _: None, "redis://127.0.0.1:1")  # where nothing listens
    good = SAMPLES[kind][0]
    async with opened(facade, written) as tally:
        a = tally.unique("a")
        refused = pytest.raises((InvalidTypeError, InvalidValueError))
        for wrong in WRONG[kind]:
            with refused:
                await tally.contains(a, wrong)
            with refused:
                await tally.contains_many(a, [*[good] * 10_000, wrong])
            with refused:
                await tally.history(wrong, "a", DAY)
            with refused:
                await ask(tally, lookups.numbers, [good, wrong])
            if wrong is not None:
                with refused:
                    tally.users(a, start=wrong)
        for no_ids in (None, 5, "text", b"bytes", object()):
            with pytest.raises(InvalidTypeError, match=r"user ids must be an iterable of"):
                await tally.contains_many(a, no_ids)
        for wrong in (-1, 2**32, "1", 1.0, True, None):
            with pytest.raises((InvalidTypeError, InvalidValueError), match=r"^number must be"):
                await ask(tally, lookups.ids, [0, wrong])
        with pytest.raises(InvalidTypeError, match=r"^numbers must be an iterable"):
            await ask(tally, lookups.ids, "12")
        with refused:
            await tally.history(good, "a", DAY, date(2026, 11, 22))
        # No id, nothing to send.
        assert await tally.contains_many(a, []) == []
        assert await ask(tally, lookups.numbers, ()) == await ask(tally, lookups.ids, ()) == []


async def test_int_ids_of_arrays_and_ranges(facade: Facade, write: Callable[..., Written]) -> None:
    written = write(int)
    ids = [-3, 5, 2**40, 2**40 + 1, -(2**63)]
    written.add(*ids)
    written.flag("a", ids)
    async with opened(facade, written) as tally:
        a = tally.unique("a")
        assert await tally.contains_many(a, np.array([*ids, 6])) == [True] * 5 + [False]
        assert await tally.contains_many(a, np.array([5, 6], np.uint8)) == [True, False]
        assert await tally.contains_many(a, range(2**40 - 1, 2**40 + 2)) == [False, True, True]
        assert await tally.contains_many(a, range(-5, -1)) == [False, False, True, False]
        assert await ask(tally, lookups.numbers, np.array(ids)) == [0, 1, 2, 3, 4]
        assert await ask(tally, lookups.ids, np.array([4, 0, 9])) == [-(2**63), -3, None]
        assert await tally.contains(a, np.int64(5))
        for wrong in (np.array([2**63], np.uint64), np.array([1.5]), np.array([[1]])):
            with pytest.raises((InvalidTypeError, InvalidValueError)):
                await tally.contains_many(a, wrong)


@pytest.mark.parametrize("shards", [None, 3])
async def test_plain_ids_are_the_numbers(
    facade: Facade, plain_store: Store, shards: int | None
) -> None:
    async with facade.open(plain_store.url, shards=shards, max_user_id=9000) as tally:
        await tally.mark_many("a", [0, 8, 9000], track_unique=True)
        a = tally.unique("a")
        beginning: Any = None
        assert await listed(tally.users(a, start=beginning)) == [0, 8, 9000]
        # No list is empty, also if the first byte has only lower ids.
        assert await listed(tally.user_chunks(a, start=1, limit=1)) == [[8]]
        assert await listed(tally.user_chunks(a, start=9)) == [[9000]]
        for query in (lookups.numbers, lookups.ids):
            assert await ask(tally, query, [3, 9000, 0]) == [3, 9000, 0]
            assert await ask(tally, query, np.array([3, 4])) == [3, 4]
            assert await ask(tally, query, range(3)) == [0, 1, 2]
            for wrong in ([9001], [-1], ["a"], 5, "text"):
                with pytest.raises((InvalidTypeError, InvalidValueError)):
                    await ask(tally, query, wrong)


async def test_from_a_replica(facade: Facade, kind: type) -> None:
    fast = ("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", "--appendonly", "no")
    with running(RedisProcess(*fast)) as primary:
        follows = ("--replicaof", "127.0.0.1", str(primary.port))
        with (
            running(RedisProcess(*fast, *follows)) as replica,
            redis.Redis(port=primary.port) as raw,
        ):
            written = Written(kind, None, lambda _: raw, primary.url)
            ids = [make(kind, number) for number in range(600)]
            written.add(*ids)
            written.flag("a", ids)
            written.flag("b", ids[::50])
            written.forget(ids[50])
            assert raw.wait(1, 30_000) == 1
            async with opened(facade, written, read_from=replica.url) as tally:
                a, b = tally.unique("a"), tally.unique("b")
                primary.stop()  # nothing is asked of it
                assert await listed(tally.users(a & b, start=None)) == [ids[0], *ids[100::50]]
                assert await tally.contains(a, ids[1])
                assert await tally.contains_many(b, ids[:3]) == [True, False, False]
                assert await tally.history(ids[0], "a", DAY) == {"a": []}
                assert await ask(tally, lookups.ids, range(48, 52)) == [*ids[48:50], None, ids[51]]


async def test_resp3(facade: Facade, write: Callable[..., Written], kind: type) -> None:
    written = write(kind)
    ids = [make(kind, number) for number in range(700)]
    written.add(*ids)
    written.flag("a", ids)
    written.url += "?protocol=3"
    async with opened(facade, written) as tally:
        assert await listed(tally.users(tally.unique("a"), start=None)) == ids
        assert await ask(tally, lookups.numbers, ids[:3]) == [0, 1, 2]
        assert await ask(tally, lookups.ids, [4, 300, 900]) == [ids[4], ids[300], None]


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("HSET", ("field", "no number")),
        ("HSET", ("field", "-1")),
        ("HSET", ("field", "123456789012")),
        ("SET", ("a string",)),
    ],
)
async def test_damaged_forward_buckets(
    facade: Facade,
    write: Callable[..., Written],
    command: str,
    arguments: tuple[str, ...],
) -> None:
    written = write(str)
    written.add("a")
    written.flag("a", ["a"])
    bucket, field = written.forward("a")
    written.execute(0, "DEL", bucket)
    written.execute(0, command, bucket, *(field if each == "field" else each for each in arguments))
    async with opened(facade, written) as tally:
        for call in (
            tally.contains(tally.unique("a"), "a"),
            tally.contains_many(tally.unique("a"), ["a"]),
            tally.history("a", "a", DAY),
            ask(tally, lookups.numbers, ["a"]),
        ):
            with pytest.raises(StoreError):
                await call


@pytest.mark.parametrize("kind", [str, int], ids=["str", "int"])
async def test_damaged_records(facade: Facade, write: Callable[..., Written], kind: type) -> None:
    written = write(kind)
    written.add(*(make(kind, number) for number in range(10)))
    written.flag("a", written.numbers)
    async with opened(facade, written) as tally:
        a = tally.unique("a")
        # As after the loss of the key: those whose id is lost are nobody.
        written.execute(0, "DEL", "ids:r:0")
        assert await listed(tally.users(a, start=None)) == []
        if kind is str:
            written.execute(0, "HSET", "ids:r:0", 3, b"\xff is no UTF-8")
        else:
            written.execute(0, "LPUSH", "ids:r:0", "a list")
        message = "does not fit" if kind is str else "refused: WRONGTYPE"
        with pytest.raises(StoreError, match=message):
            await listed(tally.users(a, start=None))
        with pytest.raises(StoreError, match=message):
            await ask(tally, lookups.ids, [3])


async def test_records_end_with_their_string(facade: Facade, write: Callable[..., Written]) -> None:
    """A string that is shorter than its block, or ends inside of a record, has no further ones."""
    written = write(uuid.UUID)
    ids = [make(uuid.UUID, number) for number in range(5)]
    written.add(*ids)
    data = b"".join(each.bytes for each in ids)
    written.execute(0, "SET", "ids:r:0", data[:-1])
    async with opened(facade, written) as tally:
        assert await ask(tally, lookups.ids, range(7)) == [*ids[:4], None, None, None]
        assert await ask(tally, lookups.ids, [0, 4, 900, 3999, 4000]) == [ids[0], *[None] * 4]


async def test_deadlines(facade: Facade, kind: type) -> None:
    process = RedisProcess("--appendonly", "no")
    with running(process), redis.Redis(port=process.port) as raw:
        written = Written(kind, None, lambda _: raw, process.url)
        ids = [make(kind, number) for number in range(50)]
        written.add(*ids)
        written.flag("a", ids)
        async with opened(facade, written) as tally:
            a = tally.unique("a")
            assert await tally.contains_many(a, ids, timeout=30) == [True] * 50
            # The deadline is that of the whole call, also where only the client is busy.
            with pytest.raises(StoreTimeoutError):
                await tally.contains_many(a, ids * 1000, timeout=1e-3)
            with pytest.raises(StoreTimeoutError):
                await ask(tally, lookups.ids, [*range(50)] * 1000, timeout=1e-3)
            process.freeze()
            for call in (
                tally.contains(a, ids[0], timeout=0.2),
                tally.history(ids[0], "a", DAY, timeout=0.2),
                listed(tally.users(a, start=ids[0], timeout=0.2)),
                ask(tally, lookups.numbers, ids, timeout=0.2),
            ):
                with pytest.raises(StoreTimeoutError):
                    await call
            process.thaw()
            assert await listed(tally.users(a, start=ids[49])) == [ids[49]]


async def test_of_a_moving_slot(
    facade: Facade, write: Callable[..., Written], redis_cluster: Cluster, kind: type
) -> None:
    """While a slot moves, some of its keys are at one node, and some at the other."""
    written = write(kind, "cluster")
    ids = [make(kind, number) for number in range(400)]
    written.add(*ids)
    written.flag("a", ids)
    slot = key_slot(f"{{{tags(SHARDS)[3]}}}".encode())
    target = next(each for each in redis_cluster.masters() if each is not redis_cluster.owner(slot))
    source = redis_cluster.begin_move(slot, target)
    home = source
    try:
        redis_cluster.move_keys(slot, source, target, 15)
        async with opened(facade, written) as tally:
            a = tally.unique("a")
            assert await listed(tally.users(a, start=None)) == written.in_order(ids)
            assert await tally.contains_many(a, ids) == [True] * 400
            assert await ask(tally, lookups.numbers, ids) == [written.numbers[each] for each in ids]
            in_slot = [each for each in ids if written.shard(each) == 3]
            for each in in_slot[:10]:
                assert await tally.contains(a, each)
    finally:
        while redis_cluster.move_keys(slot, source, target, 100):
            pass
        redis_cluster.end_move(slot, target)
        redis_cluster.move(slot, home)


def conversation(
    query: Query[Any], reply: Callable[[tuple[bytes, ...]], Any]
) -> tuple[Any, list[Request]]:
    """Return the result of a query and its requests, given a function that replies to a command."""
    requests: list[Request] = []
    outcome: Any = None
    while True:
        try:
            effect = query.send(outcome)
        except StopIteration as end:
            return end.value, requests
        outcome = None
        if isinstance(effect, Compute):
            for _ in effect.steps:
                pass
        elif isinstance(effect, Request):
            requests.append(effect)
            outcome = effect.parse([reply(command) for command in effect.commands])


def context(kind: type) -> Context:
    return Context.of("a database", Options(user_ids=kind), lambda: 0.0)


@pytest.mark.parametrize("step", [1, 2, 3, 100, 300, 5000])
def test_requests_are_bounded(kind: type, step: int) -> None:
    """Whatever is looked up, a request has some thousand records at most."""
    offsets = range(0, 20_000 * min(step, 10), step)

    def reply(command: tuple[bytes, ...]) -> Any:
        name, key, *arguments = command
        if name == b"HMGET":
            return [key + field for field in arguments]
        if name == b"HSCAN":
            return [b"0", [each for at in range(256) for each in (b"%d" % at, key + b"%d" % at)]]
        begin, end = map(int, arguments)
        return b"1" * (end + 1 - begin)

    found, requests = conversation(lookups.find_ids(context(kind), offsets), reply)
    assert len(found) == len(offsets)
    assert None not in found
    # Where all are looked up, whole blocks are fetched.
    assert len(requests) <= (12 if step == 1 else len(offsets) / 512 + 2)
    for request in requests:
        assert len(request.commands) <= 1000
        replies = [reply(command) for command in request.commands]
        if kind in {str, bytes}:
            records = sum(
                len(each if isinstance(each[-1], bytes) else each[-1]) for each in replies
            )
            assert records <= 2 * (4096 + 256)
        else:
            assert sum(map(len, replies)) <= 16 * (4096 + 4000)


@pytest.mark.parametrize("reply", [1, [], [b"0"], [b"7", []], [b"0", 5], {}, b"a", [b"a", b"b"]])
def test_replies_that_do_not_fit(reply: Any) -> None:
    for offsets in (range(200), [1, 2, 3]):
        with pytest.raises(StoreError, match="does not fit"):
            conversation(lookups.find_ids(context(str), offsets), lambda _: reply)
    if reply != b"a":
        with pytest.raises(StoreError, match="does not fit"):
            conversation(lookups.find_ids(context(int), [1, 2, 3]), lambda _: reply)
    with pytest.raises(StoreError, match="does not fit"):
        conversation(lookups.find_numbers(context(str), ["a"]), lambda _: reply)
