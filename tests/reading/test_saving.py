"""`save`: what it leaves in a store, at any time, also with faults and with other calls between."""

from __future__ import annotations

import asyncio
import random
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusters import running_cluster
from facades import ON_SOME_STORES
from servers import running_server
from stores import SHARDS, ClusterStore
from tallymark import (
    InvalidTypeError,
    InvalidValueError,
    StoreNotReadyError,
    StoreTimeoutError,
    StoreUnavailableError,
    SyncTally,
    WrongKeyTypeError,
    at_least,
)
from tallymark._core.keys import tag_slot, tags
from tallymark._reading import bits, expressions, id_streams, saving
from tallymark._reading.requests import Request
from threshold_trees import Tree, counted, ids, trees

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clusters import Cluster
    from facades import Facade
    from stores import Store

DAY = date(2026, 10, 10)
FLAG = "trackist_saved_u"


@pytest.fixture(params=["in_redis", "in_client"])
def either_side(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Compute flags in Redis, and in the client, in short parts."""
    if request.param == "in_client":
        monkeypatch.setattr(expressions, "_SHORT_WORK", 0)
        for name in ("MAX_PART", "MIN_PART", "_EFFICIENT_PART"):
            monkeypatch.setattr(expressions, name, 256)
    return str(request.param)


async def marked(tally: Any, data: list[set[int]]) -> list[Any]:
    for number, users in enumerate(data):
        await tally.mark_many("a", users, now=DAY + timedelta(days=number))
    return [tally.day("a", DAY + timedelta(days=number)) for number in range(len(data))]


@pytest.mark.usefixtures("either_side")
@ON_SOME_STORES
@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    tree=trees(6),
    data=st.lists(st.sets(ids, max_size=9), min_size=5, max_size=5),
    old=st.one_of(st.none(), st.sets(ids, max_size=5)),
    numeric=st.booleans(),
)
async def test_it_has_the_users_of_the_set(
    facade: Facade, store: Store, tree: Tree, data: list[set[int]], old: Any, numeric: bool
) -> None:
    """An old flag is the sixth of the sets, and may be a part of the expression."""
    store.raw.flushdb()
    made = bits.Arrays(np) if numeric else bits.Ints()
    with pytest.MonkeyPatch.context() as patch:
        for module in (expressions, id_streams):
            patch.setattr(module, "algebra", lambda: made)
        async with facade.open(store.url) as tally:
            sets = [*await marked(tally, data), tally.unique("saved")]
            if old is not None:
                await tally.mark_many("x", old, now=DAY)
                await tally.save(tally.day("x", DAY), as_="saved")
            before = store.bits()
            expected = tree.of([*data, old or set()], counted)
            assert await tally.save(tree.of(sets, at_least), as_="saved") == len(expected)
            after = store.bits()
            assert after.pop(FLAG, set()) == expected
            before.pop(FLAG, None)
            assert after == before
            assert {user async for user in tally.users(tally.unique("saved"))} == expected
            assert (FLAG in store.names()) == bool(expected)
            assert not [name for name in store.names() if "tmp" in name]


@pytest.mark.usefixtures("either_side")
async def test_flags_do_not_expire(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        (some,) = await marked(tally, [set(range(100))])
        await tally.save(some, as_="saved")
        store.raw.expire(FLAG, 100)
        assert await tally.save(some | tally.unique("saved"), as_="saved") == 100
        assert store.raw.ttl(FLAG) == -1


@pytest.mark.usefixtures("either_side")
async def test_another_type_is_not_overwritten(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        (some,) = await marked(tally, [set(range(100))])
        store.raw.lpush(FLAG, "x")
        with pytest.raises(WrongKeyTypeError) as caught:
            await tally.save(some & some.next(), as_="saved")
        assert "may have" not in str(caught.value)
        assert await tally.count(some) == 100
        store.raw.delete(FLAG)
        store.raw.lpush("trackist_list_u", "x")
        await tally.save(some, as_="saved")
        with pytest.raises(WrongKeyTypeError):
            await tally.save(some & some.next() | tally.unique("list"), as_="saved")
        assert await tally.count(tally.unique("saved")) == 100
        assert not [name for name in store.names() if "tmp" in name]


async def test_no_shard_is_changed_if_one_has_another_type(
    facade: Facade, redis_store: Store
) -> None:
    async with facade.open(redis_store.url, shards=4) as tally:
        (some,) = await marked(tally, [set(range(100))])
        keys = [f"trackist_{{{tag}}}saved_u" for tag in tags(4)]
        redis_store.raw.lpush(keys[3], "x")
        with pytest.raises(WrongKeyTypeError):
            await tally.save(some, as_="saved")
        assert redis_store.raw.exists(*keys[:3]) == 0


@pytest.mark.parametrize(
    ("event_set", "as_", "error", "text"),
    [
        ("a", "saved", InvalidTypeError, "not an event set"),
        (None, 7, InvalidTypeError, "as_ must be a non-empty str"),
        (None, None, InvalidTypeError, "as_ must be a non-empty str"),
        (None, "", InvalidValueError, "as_ must be a non-empty str"),
        (None, "a\0b", InvalidValueError, "as_ "),
    ],
)
async def test_bad_input(
    facade: Facade, event_set: Any, as_: Any, error: type[Exception], text: str
) -> None:
    async with facade.open("redis://localhost:1") as tally:
        with pytest.raises(error, match=text):
            await tally.save(event_set or tally.unique("a"), as_=as_)


async def test_without_scripts(facade: Facade, redis_store: Store) -> None:
    async with facade.open(redis_store.url, bitfield=False) as tally:
        sets = await marked(tally, [{1, 2}, {2, 3}, {3, 9_000}])
        assert await tally.save(at_least(2, sets), as_="saved") == 2
        assert await tally.save(sets[0] - sets[1], as_="saved") == 1
        assert await tally.save(sets[0], as_="saved") == 2
        assert redis_store.bits()[FLAG] == {1, 2}
        redis_store.raw.delete(FLAG)
        redis_store.raw.lpush(FLAG, "x")
        with pytest.raises(WrongKeyTypeError):
            await tally.save(sets[0], as_="saved")
    async with facade.open(redis_store.url, bitfield=False, max_temp_bytes=5_000) as tally:
        with pytest.raises(InvalidValueError, match="max_temp_bytes"):
            await tally.save((sets[0] - sets[1]) ^ sets[2], as_="other")


async def test_without_scripts_a_repetition_has_the_same_result(
    facade: Facade, redis_store: Store
) -> None:
    """The flag may be in its own expression if computing it again changes nothing."""
    async with facade.open(redis_store.url, bitfield=False) as tally:
        first, second = await marked(tally, [{1, 2, 3}, {3, 4}])
        flag = tally.unique("saved")
        for event_set in (
            flag ^ first,
            first - flag,
            first - (second | flag & first),
            (second - flag) | first,
            (flag | first) ^ (second - first),
            at_least(2, [flag, first, second]),
        ):
            with pytest.raises(InvalidValueError, match="saved from itself"):
                await tally.save(event_set, as_="saved")
            assert FLAG not in redis_store.names()
            await tally.save(event_set, as_="other")
    with SyncTally.from_url(redis_store.url, bitfield=False) as blocking:
        for event_set, users in (
            (flag | first, {1, 2, 3, 5}),
            (flag & first | second, {3, 4}),
            (flag - second | (first ^ second), {1, 2, 4, 5}),
        ):
            blocking.delete(flag)
            for user in (3, 5):
                blocking.mark_unique("saved", user)
            blocking._context.lengths._known.clear()
            at, effects = 0, 1
            while at < effects:
                query = saving.save(blocking._context, event_set, "saved")
                size, effects = blocking.backend.reader.answer(
                    interrupted(query, at, nothing, twice=True), None
                )
                assert (redis_store.bits()[FLAG], size) == (users, len(users))
                at += 1


async def test_from_elsewhere_it_reads_and_writes_the_master(
    facade: Facade, redis_store: Store, either_side: str
) -> None:
    with running_server() as replica:  # which has nothing
        async with facade.open(redis_store.url, read_from=replica) as tally:
            sets = await marked(tally, [{1, 2}, {2, 3}])
            assert await tally.save(sets[0] & sets[1], as_="saved") == 1
    assert redis_store.bits()[FLAG] == {2}, either_side


async def test_it_computes_long_bitmaps_itself(redis_store: Store) -> None:
    redis_store.raw.set("trackist_a_u", random.Random(1).randbytes(1_000_000))
    redis_store.raw.set("trackist_b_u", random.Random(2).randbytes(1_000_000))
    with SyncTally.from_url(redis_store.url) as tally:
        a, b = tally.unique("a"), tally.unique("b")
        redis_store.raw.config_resetstat()
        assert tally.save(a & b, as_="saved") == tally.count(a & b)
        tally.save(a, as_="saved")
        assert "cmdstat_getrange" not in redis_store.raw.info("commandstats")
        both = redis_store.raw.get(FLAG)
        assert both == redis_store.raw.get("trackist_a_u")
        size = tally.save((a - b) ^ (a & b) | b, as_="saved")
        assert "cmdstat_getrange" in redis_store.raw.info("commandstats")
        assert size == tally.count(a | b) == redis_store.raw.bitcount(FLAG)
    with SyncTally.from_url(redis_store.url, max_temp_bytes=500_000) as tally:
        assert tally.save(tally.unique("a"), as_="other") == tally.count(tally.unique("a"))


# --- in the midst of it


def interrupted(query: Any, at: int, action: Callable[[], Any], *, twice: bool = False) -> Any:
    """Yield the effects of a query, with an action before one of them.

    Arguments:
        query: the query.
        at: the number of the effect.
        action: is called before this effect; after the last one, if there are fewer.
        twice: whether the effect is executed twice, as after a lost reply.
    """
    effect, count = next(query), 0
    try:
        while True:
            if count == at:
                action()
                if twice and isinstance(effect, Request):
                    yield effect
            count += 1
            try:
                outcome = yield effect
            except Exception as error:  # noqa: BLE001 - as an execution does
                effect = query.throw(error)
            else:
                effect = query.send(outcome)
    except StopIteration as end:
        return end.value, count


def nothing() -> None:
    pass


@pytest.mark.usefixtures("either_side")
@pytest.mark.parametrize("shards", [None, 2])
def test_lost_replies_change_nothing(redis_store: Store, shards: int | None) -> None:
    data = [set(range(0, 3_000, 7)), set(range(0, 3_000, 3))]
    options: Any = {"shards": shards} if shards else {}
    with SyncTally.from_url(redis_store.url, **options) as tally:
        for number, users in enumerate(data):
            tally.mark_many(f"e{number}", users, now=DAY)
        a, b = (tally.day(f"e{number}", DAY) for number in range(2))
        at, effects = 0, 1
        while at <= effects:
            tally.save(a, as_="saved")
            tally._context.lengths._known.clear()  # so that the same requests are sent each time
            event_set = tally.unique("saved") ^ b
            query = saving.save(tally._context, event_set, "saved")
            size, effects = tally.backend.reader.answer(
                interrupted(query, at, nothing, twice=not shards), None
            )
            assert set(tally.users(tally.unique("saved"))) == data[0] ^ data[1]
            assert size == len(data[0] ^ data[1])
            at += 1
        assert effects >= 2
    assert not [name for name in redis_store.names() if "tmp" in name]


@pytest.mark.usefixtures("either_side")
def test_readers_see_the_old_or_the_new_one(redis_store: Store) -> None:
    old, new = set(range(0, 3_000, 7)), set(range(0, 3_000, 3))
    with SyncTally.from_url(redis_store.url) as tally, SyncTally.from_url(redis_store.url) as other:
        for name, users in (("old", old), ("new", new)):
            tally.mark_many(name, users, now=DAY)
        seen: list[frozenset[int]] = []

        def look() -> None:
            seen.append(frozenset(other.users(other.unique("saved"))))

        at, effects = 0, 1
        while at <= effects:
            tally.save(tally.day("old", DAY), as_="saved")
            query = saving.save(tally._context, tally.day("new", DAY), "saved")
            _, effects = tally.backend.reader.answer(interrupted(query, at, look), None)
            at += 1
        assert set(seen[:-1]) <= {frozenset(old), frozenset(new)}
        assert seen[0] == old


@pytest.mark.parametrize("loss", ["deleted", "shortened", "lengthened"])
def test_a_temporary_key_that_is_lost_is_written_again(
    redis_store: Store, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """By an eviction, an expiry, or a failover to a replica that lacks the last parts."""
    monkeypatch.setattr(expressions, "_SHORT_WORK", 0)
    for name in ("MAX_PART", "MIN_PART", "_EFFICIENT_PART"):
        monkeypatch.setattr(expressions, name, 64)
    users = {*range(0, 1_200, 3), 4_000}
    lost = 0

    def lose() -> None:
        nonlocal lost
        for key in redis_store.raw.keys("*tmp:*"):
            length = redis_store.raw.strlen(key)
            if key.endswith(b"reply"):
                continue
            lost += 1
            value = redis_store.raw.get(key)
            if loss == "deleted":
                redis_store.raw.delete(key)
            elif loss == "shortened":
                redis_store.raw.set(key, value[: length // 2], ex=60)
            else:
                redis_store.raw.set(key, value + b"\xff", ex=60)

    with SyncTally.from_url(redis_store.url) as tally:
        tally.mark_many("a", users, now=DAY)
        at, effects = 0, 2
        while at < effects - 1:
            query = saving.save(tally._context, tally.day("a", DAY), "saved")
            size, effects = tally.backend.reader.answer(interrupted(query, at, lose), None)
            assert redis_store.bits()[FLAG] == users
            assert size == len(users)
            at += 1
    assert lost > 3


def test_it_gives_up_if_temporary_keys_do_not_stay(
    redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expressions, "_SHORT_WORK", 0)
    monkeypatch.setattr(saving, "_LIFETIME", b"-1")
    with SyncTally.from_url(redis_store.url) as tally:
        tally.mark_many("a", range(100), now=DAY)
        tally.mark_unique("saved", 7)
        monkeypatch.setattr(saving, "_WRITE", b"redis.call('SET', KEYS[1], 'x', 'PX', 1) return 1")
        with pytest.raises(StoreNotReadyError, match="in each of 10 attempts"):
            tally.save(tally.day("a", DAY), as_="saved")
        assert redis_store.bits()[FLAG] == {7}


def test_a_temporary_key_lives_a_minute_longer_with_each_part(
    redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expressions, "_SHORT_WORK", 0)
    for name in ("MAX_PART", "MIN_PART", "_EFFICIENT_PART"):
        monkeypatch.setattr(expressions, name, 64)
    renewed = 0

    def count_and_shorten() -> None:
        """Shorten the lives of the temporary keys that were renewed."""
        nonlocal renewed
        for key in redis_store.raw.keys("*tmp:*"):
            if not key.endswith(b"reply") and redis_store.raw.ttl(key) > 10:
                renewed += 1
                redis_store.raw.expire(key, 10)

    with SyncTally.from_url(redis_store.url) as tally:
        tally.mark_many("a", range(0, 64 * 8 * 5, 3), now=DAY)
        query = saving.save(tally._context, tally.day("a", DAY), "saved")
        tally.backend.reader.answer(before_each(query, count_and_shorten), None)
    assert renewed == 5


def before_each(query: Any, action: Callable[[], Any]) -> Any:
    """Yield the effects of a query, with an action before each."""
    outcome = None
    try:
        while True:
            effect = query.send(outcome)
            action()
            outcome = yield effect
    except StopIteration as end:
        return end.value


def test_a_flag_ends_with_its_last_user(
    redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client writes no zeros behind that."""
    monkeypatch.setattr(expressions, "_SHORT_WORK", 0)
    with SyncTally.from_url(redis_store.url) as tally:
        tally.mark_many("a", [5, 9_000], now=DAY)
        tally.mark_many("b", [9_000], now=DAY)
        assert tally.save(tally.day("a", DAY) - tally.day("b", DAY), as_="saved") == 1
    assert redis_store.raw.get(FLAG) == b"\x04"


def test_what_is_cancelled_leaves_no_key_for_long(
    redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expressions, "_SHORT_WORK", 0)
    with SyncTally.from_url(redis_store.url) as tally:
        tally.mark_many("a", range(100), now=DAY)

        def stop() -> None:
            raise KeyboardInterrupt

        left: list[bytes] = []
        for at in range(4):
            query = saving.save(tally._context, tally.day("a", DAY), "saved")
            with pytest.raises(KeyboardInterrupt):
                tally.backend.reader.answer(interrupted(query, at, stop), None)
            left = [key for key in redis_store.raw.keys("*") if b"tmp" in key]
            assert all(0 < redis_store.raw.ttl(key) <= 60 for key in left)
        assert left


async def test_within_a_deadline(facade: Facade, redis_store: Store) -> None:
    async with facade.open(redis_store.url, timeout=60) as tally:
        sets = [tally.unique(f"f{number}") for number in range(2_000)]
        redis_store.raw.mset({f"trackist_f{number}_u": b"\x0f" * 50 for number in range(2_000)})
        with pytest.raises(StoreTimeoutError):
            await tally.save(at_least(500, sets), as_="saved", timeout=0.02)
        assert not redis_store.raw.exists(FLAG)
        assert await tally.save(at_least(500, sets), as_="saved") == 200


# --- on a cluster


@pytest.fixture(scope="module")
def moving() -> Iterator[Cluster]:
    with running_cluster(replicas=False) as cluster:
        yield cluster


async def test_it_waits_until_a_slot_has_moved(
    facade: Facade, moving: Cluster, either_side: str
) -> None:
    moving.flush()
    store = ClusterStore(moving)
    slot = tag_slot(tags(SHARDS)[5].encode())
    async with facade.open(store.url, timeout=60) as tally:
        await tally.mark_many("a", range(1_000), now=DAY)
        await tally.mark_many("b", range(0, 1_000, 2), now=DAY)
        both = tally.day("a", DAY) & tally.day("b", DAY)
        assert await tally.save(tally.day("a", DAY), as_="saved") == 1_000
        source = moving.owner(slot)
        target = next(node for node in moving.masters() if node is not source)
        moving.begin_move(slot, target)
        assert moving.move_keys(slot, source, target, 3)
        with pytest.raises((StoreTimeoutError, StoreUnavailableError)) as caught:
            await tally.save(both, as_="saved", timeout=0.5)
        assert "in some shards" in str(caught.value), either_side
        while moving.move_keys(slot, source, target, 100):
            pass
        if facade.name == "async":
            waiting = asyncio.create_task(tally.save(both, as_="saved", timeout=30))
            await asyncio.sleep(0)
            moving.end_move(slot, target)
            assert await waiting == 500
        else:
            moving.end_move(slot, target)
            assert await tally.save(both, as_="saved") == 500
        assert {user async for user in tally.users(tally.unique("saved"))} == {*range(0, 1_000, 2)}


async def test_the_name_of_a_flag_has_to_be_allowed(facade: Facade, plain_store: Store) -> None:
    url = plain_store.url
    async with facade.open(url, event_pattern="[a-z]+", max_event_bytes=5, max_events=2) as tally:
        await tally.mark_event("a", 1, now=date(2025, 1, 1))
        users = tally.day("a", date(2025, 1, 1))
        for name, text in (("B", "event_pattern"), ("toolong", "max_event_bytes"), ("", "empty")):
            with pytest.raises(InvalidValueError, match=text):
                await tally.save(users, as_=name)
        # A call that fails before anything is sent takes no place of ``max_events``.
        with pytest.raises(InvalidTypeError):
            await tally.save(cast("Any", "a"), as_="b")
        assert await tally.save(users, as_="c") == 1
        for _ in range(2):
            with pytest.raises(InvalidValueError, match="max_events"):
                await tally.save(users, as_="d")
            with pytest.raises(InvalidValueError, match="max_events"):
                await tally.mark_event("d", 1)
        assert await tally.save(users, as_="c") == 1
        assert await tally.save(users, as_="a") == 1
