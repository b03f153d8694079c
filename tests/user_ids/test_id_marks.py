"""Marks of users with ids of any type: as marks by offset, whatever the connection has cached."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusters import Cluster
from deployments import RIGHTS
from facades import ASYNC, ON_SOME_STORES, internals
from servers import running_server
from stores import ClusterStore
from tallymark import (
    CommandError,
    Granularity,
    InvalidTypeError,
    InvalidValueError,
    PermissionDeniedError,
    StoreTimeoutError,
    SyncTally,
    Tally,
    TallymarkError,
    WrongKeyTypeError,
    WrongSchemaError,
)
from tallymark._marking.id_batch import IdBatch

if TYPE_CHECKING:
    from facades import Facade
    from stores import Store

M, W, D, U = Granularity.MONTH, Granularity.WEEK, Granularity.DAY, Granularity.UNIQUE
MONDAY = date(2026, 11, 23)

IDS: dict[type, list[Any]] = {
    str: ["ada", "Zoë", "a" * 31, "a" * 32, "b" * 1024, "7", " "],
    bytes: [b"\x00", b"\xff" * 31, b"\xff" * 32, b"+", b"7"],
    uuid.UUID: [uuid.UUID(int=0), uuid.UUID(int=1), uuid.UUID(int=2**128 - 1)],
    int: [0, -1, 7, 2**63 - 1, -(2**63)],
}


@pytest.mark.parametrize("kind", IDS, ids=lambda kind: kind.__name__)
async def test_each_id_is_a_user_of_its_own(facade: Facade, store: Store, kind: type) -> None:
    async with facade.open(store.url, user_ids=kind) as tally:
        for number, user_id in enumerate(IDS[kind], 1):
            assert await tally.mark_event("a", user_id, now=MONDAY) == M | W | D
            assert not await tally.mark_event("a", user_id, now=MONDAY)
            assert await tally.count(tally.day("a", MONDAY)) == number
    async with facade.open(store.url, user_ids=kind) as another:
        for user_id in IDS[kind]:
            assert not await another.mark_event("a", user_id, now=MONDAY)
            assert await another.contains(another.day("a", MONDAY), user_id)
        users = [user_id async for user_id in another.users(another.day("a", MONDAY))]
        assert sorted(map(repr, users)) == sorted(map(repr, IDS[kind]))


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (str, ["", 7, b"a", None, "b" * 1025, "é" * 513, "\ud800"]),
        (bytes, [b"", "a", bytearray(b"a"), b"b" * 1025]),
        (uuid.UUID, ["6e8bc430-9c3a-11d9-9669-0800200c9a66", 7, None]),
        (int, [True, 1.0, "1", 2**63, -(2**63) - 1, None]),
    ],
    ids=lambda item: item.__name__ if isinstance(item, type) else "",
)
async def test_wrong_ids_are_refused(
    facade: Facade, redis_store: Store, kind: type, wrong: list[Any]
) -> None:
    async with facade.open(redis_store.url, user_ids=kind) as tally:
        for user_id in wrong:
            for verb in (tally.mark_event, tally.unmark_event, tally.mark_unique):
                with pytest.raises((InvalidTypeError, InvalidValueError), match="user id"):
                    await verb("a", user_id)
            with pytest.raises((InvalidTypeError, InvalidValueError), match="user id"):
                await tally.mark_many("a", [IDS[kind][1], user_id])
            with pytest.raises((InvalidTypeError, InvalidValueError), match="user id"):
                async with tally.transaction() as tx:
                    tx.mark_event("a", user_id)
        texts: list[Any] = ["ada", b"ada", 7, None]
        for text in texts:
            with pytest.raises(InvalidTypeError, match="iterable"):
                await tally.mark_many("a", text)
    assert not redis_store.raw.keys("*")


USERS = [f"user-{number}" for number in range(6)]

EVENTS = ["a", "b"]

#: A verb and its arguments, with the position of the user among `USERS`.
OPERATION: st.SearchStrategy[Any] = st.one_of(
    st.tuples(
        st.sampled_from(["mark_event", "unmark_event", "unmark_exactly"]),
        st.sampled_from(EVENTS),
        st.integers(0, 5),
        st.fixed_dictionaries(
            {
                "now": st.sampled_from([MONDAY, date(2026, 11, 24), datetime(2026, 12, 1, 5)]),
                "track_hourly": st.booleans(),
                "track_unique": st.booleans(),
            }
        ),
    ),
    st.tuples(
        st.sampled_from(["mark_unique", "unmark_unique"]),
        st.sampled_from(EVENTS),
        st.integers(0, 5),
        st.just({}),
    ),
    st.tuples(
        st.sampled_from(["mark_many", "unmark_many"]),
        st.sampled_from(EVENTS),
        st.lists(st.integers(0, 5), max_size=8),
        st.just({"now": MONDAY}),
    ),
    st.tuples(
        st.sampled_from(["mark_unique_many", "unmark_unique_many"]),
        st.sampled_from(EVENTS),
        st.lists(st.integers(0, 5), max_size=8),
        st.just({}),
    ),
    st.tuples(
        st.just("transaction"),
        st.sampled_from(EVENTS),
        st.lists(st.integers(0, 5), min_size=1, max_size=4),
        st.just({"now": MONDAY}),
    ),
)


async def run(tally: Any, operation: Any, users: list[Any]) -> Any:
    """Run an operation and return its result."""
    verb, event, user, options = operation
    ids = [users[number] for number in user] if isinstance(user, list) else users[user]
    if verb == "transaction":
        async with tally.transaction() as tx:
            pending = [tx.mark_event(event, user_id, **options) for user_id in ids]
            pending += [tx.unmark_event(event, ids[0], now=date(2026, 11, 24))]
        return [mark.flipped for mark in pending]
    if verb == "unmark_exactly":
        verb, options = "unmark_event", {**options, "exact": True}
    return await getattr(tally, verb)(event, ids, **options)


async def run_all(tally: Any, step: list[Any], users: list[Any]) -> list[Any]:
    """Run operations at once; bulk marks alone, since their pieces mix with other marks."""
    if any(verb.endswith("_many") for verb, _, _, _ in step):
        return [await run(tally, operation, users) for operation in step]
    return await asyncio.gather(*(run(tally, operation, users) for operation in step))


@pytest.mark.exhaustive
@ON_SOME_STORES
@pytest.mark.parametrize("cached", [1, 4, 1000])
async def test_results_are_those_of_marks_by_offset(
    facade: Facade, store: Store, cached: int
) -> None:
    """At once and one after the other, with caches that are too small and large enough."""
    async with (
        facade.open(store.url, prefix="plain_") as plain,
        facade.open(store.url, prefix="ids_", user_ids=str, max_cached_ids=cached) as mapped,
    ):

        @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
        @given(steps=st.lists(st.lists(OPERATION, min_size=1, max_size=6), max_size=6))
        def check(steps: list[list[Any]]) -> None:
            future = asyncio.run_coroutine_threadsafe(compare(steps), loop)
            future.result()

        async def compare(steps: list[list[Any]]) -> None:
            for tally, prefix in ((plain, "plain_"), (mapped, "ids_")):
                await tally.delete_all(prefix)
            for step in steps:
                results = [
                    await run_all(tally, step, users)
                    for tally, users in ((plain, list(range(6))), (mapped, USERS))
                ]
                assert results[0] == results[1], step
            for event in EVENTS:
                for make in ("day", "week", "month"):
                    own = getattr(plain, make)(event, MONDAY), getattr(mapped, make)(event, MONDAY)
                    names = {USERS[number] async for number in plain.users(own[0])}
                    assert {user async for user in mapped.users(own[1])} == names
                    assert await mapped.count(own[1]) == len(names)

        loop = asyncio.get_running_loop()
        await asyncio.to_thread(check)


def calls(store: Store, command: str) -> int:
    """Return how often the server has executed a command."""
    stats: dict[str, Any] = store.raw.info("commandstats").get(f"cmdstat_{command}", {})
    return int(stats.get("calls", 0))


def evals(store: Store) -> int:
    """Return how many scripts the server has executed."""
    return calls(store, "eval")


def watches(store: Store) -> int:
    """Return how many ``WATCH`` the server has executed."""
    return calls(store, "watch")


async def test_known_ids_need_no_script(facade: Facade, redis_store: Store) -> None:
    async with facade.open(redis_store.url, user_ids=uuid.UUID) as tally:
        ids = [uuid.uuid4() for _ in range(5)]
        for user_id in ids:
            await tally.mark_event("a", user_id)
        before = evals(redis_store)
        for user_id in ids:
            assert not await tally.mark_event("a", user_id)
            assert await tally.mark_event("b", user_id) == M | W | D
        await tally.unmark_event("b", ids[0])
        async with tally.transaction() as tx:
            tx.mark_event("c", ids[0])
            tx.mark_event("c", ids[1])
        assert evals(redis_store) == before
        # A bitmap is merged by a script of its own.
        await tally.mark_many("d", ids)
        assert evals(redis_store) == before
        assert await tally.count(tally.day("d")) == 5


async def test_unknown_ids_cost_no_further_round_trip(redis_store: Store) -> None:
    async with ASYNC.open(redis_store.url, user_ids=int) as tally:
        await tally.mark_event("a", -1)
        batches = tally.stats().batches
        flips = await asyncio.gather(*(tally.mark_event("a", -user_id) for user_id in range(300)))
        assert sum(map(bool, flips)) == 299
        # The first mark, those that came meanwhile, and not one more.
        assert tally.stats().batches - batches <= 2


async def test_a_transaction_with_many_new_ids_is_one_script(
    facade: Facade, redis_store: Store
) -> None:
    async with facade.open(redis_store.url, user_ids=str) as tally:
        await tally.mark_event("other", "first")
        async with tally.transaction() as tx:
            before = evals(redis_store)
            marks = [tx.mark_event("a", f"user-{number}") for number in range(1200)]
        assert evals(redis_store) == before + 1
        assert all(mark.flipped == M | W | D for mark in marks)
        assert await tally.count(tally.day("a")) == 1200


async def test_a_transaction_of_known_and_unknown_ids(facade: Facade, redis_store: Store) -> None:
    async with facade.open(redis_store.url, user_ids=str) as tally:
        await tally.mark_event("a", "ada")
        before = evals(redis_store)
        async with tally.transaction() as tx:
            flips = [
                tx.mark_event("a", "ada"),
                tx.mark_event("a", "eve"),
                tx.unmark_event("a", "ada"),
            ]
        assert [mark.flipped for mark in flips] == [Granularity(0), M | W | D, M | W | D]
        assert evals(redis_store) == before + 1
        assert [user async for user in tally.users(tally.day("a"))] == ["eve"]


async def test_unmarks_of_unknown_users_write_nothing(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, user_ids=str) as tally:
        assert not await tally.unmark_event("a", "nobody")
        assert not await tally.unmark_event("a", "nobody", exact=True)
        assert not await tally.unmark_unique("a", "nobody")
        assert not sum((await tally.unmark_many("a", ["nobody", "no one"])).values())
        assert not sum((await tally.unmark_many("a", ["nobody"], exact=True)).values())
        assert not await tally.unmark_unique_many("a", ["nobody", "no one"])
        names = store.names()
        assert not [name for name in names if not name.endswith("schema")]


async def test_expiry_is_that_of_marks_by_offset(facade: Facade, plain_store: Store) -> None:
    expire = {"day": timedelta(days=3), "week": timedelta(days=30)}
    async with (
        facade.open(plain_store.url, prefix="plain_", expire=expire) as plain,
        facade.open(plain_store.url, prefix="ids_", expire=expire, user_ids=str) as mapped,
    ):
        for _ in range(2):  # unknown, then known
            await plain.mark_event("a", 7)
            await mapped.mark_event("a", "ada")
            await mapped.mark_event("b", "eve", track_unique=True)
        await mapped.mark_many("c", ["ada", "new"])
        names = [name for name in plain_store.names() if name.startswith("plain_a")]
        assert len(names) == 3
        for name in names:
            for event in ("a", "b", "c"):
                own = plain_store.raw.pttl(name.replace("plain_a", f"ids_{event}"))
                assert own == pytest.approx(plain_store.raw.pttl(name), abs=60_000)
        assert plain_store.raw.pttl("ids_b_u") == -1


async def test_marks_of_expired_periods_allocate_nothing(
    facade: Facade, redis_store: Store
) -> None:
    gone = date(2001, 1, 1)
    expire = {by: timedelta(days=1) for by in ("hour", "day", "week", "month")}
    async with facade.open(redis_store.url, user_ids=str, expire=expire) as tally:
        assert not await tally.mark_event("a", "ada", now=gone)
        assert not await tally.mark_many("a", ["ada"], now=gone)
    assert redis_store.names() <= {"trackist_schema"}


async def test_numbers_are_used_up(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, user_ids=str, max_user_id=1, shards=1) as tally:
        await tally.mark_event("a", "first")
        async with tally.transaction() as tx:
            tx.mark_event("a", "second")
        results = await asyncio.gather(
            tally.mark_event("b", "third"), tally.mark_event("b", "first"), return_exceptions=True
        )
        assert isinstance(results[0], InvalidValueError)
        assert "max_user_id" in str(results[0])
        assert results[1] == M | W | D
        with pytest.raises(InvalidValueError, match="max_user_id"):
            await tally.mark_many("b", ["first", "third"])
        assert not await tally.unmark_event("a", "third")
        assert await tally.count(tally.day("b")) == 1


async def test_a_key_of_another_type_fails_its_own_marks(
    facade: Facade, redis_store: Store
) -> None:
    async with facade.open(redis_store.url, user_ids=str) as tally:
        await tally.mark_event("other", "first", now=MONDAY)
        redis_store.raw.lpush("trackist_bad_2026-11-23", "no bitmap")
        for _ in range(2):  # unknown, then known
            results = await asyncio.gather(
                *(tally.mark_event(event, "ada", now=MONDAY) for event in ("good", "bad", "fine")),
                return_exceptions=True,
            )
            assert isinstance(results[1], WrongKeyTypeError)
            assert "trackist_bad_2026-11-23" in str(results[1])
            assert results[0] == results[2]
        with pytest.raises(WrongKeyTypeError):
            await tally.mark_many("bad", ["ada", "eve"], now=MONDAY)
        with pytest.raises(WrongKeyTypeError):
            await tally.unmark_event("bad", "ada", exact=True, now=MONDAY)
        with pytest.raises(WrongKeyTypeError):
            await tally.unmark_event("bad", "first", exact=True, now=MONDAY)
        assert not await tally.unmark_event("bad", "stranger", exact=True, now=MONDAY)
    assert redis_store.raw.lrange("trackist_bad_2026-11-23", 0, -1) == [b"no bitmap"]


async def test_the_schema_key(facade: Facade, store: Store) -> None:
    """It says the type of the ids; other tallies are refused before they write."""
    async with facade.open(store.url, user_ids=uuid.UUID) as tally:
        await tally.mark_event("a", uuid.uuid4())
    if not isinstance(store, ClusterStore):
        stored = json.loads(store.raw.get("trackist_schema"))
        assert stored == {"version": 2, "shards": None, "user_ids": "uuid", "buckets": 65536}
    before = store.names()
    for user_ids, user_id in ((None, 7), (str, "ada"), (bytes, b"a"), (int, 7)):
        async with facade.open(store.url, user_ids=user_ids) as other:
            with pytest.raises(WrongSchemaError, match=r"user_ids=uuid\.UUID"):
                await other.mark_event("a", user_id)
            with pytest.raises(WrongSchemaError, match=r"user_ids=uuid\.UUID"):
                await other.count(other.day("a"))
    assert store.names() == before


async def test_a_database_of_offsets_is_not_continued_with_ids(
    facade: Facade, plain_store: Store
) -> None:
    async with facade.open(plain_store.url) as plain:
        await plain.mark_event("a", 0)
        before = plain_store.names()
        async with facade.open(plain_store.url, user_ids=str) as tally:
            for verb in (tally.mark_event, tally.mark_unique):
                with pytest.raises(WrongSchemaError, match="without user_ids"):
                    await verb("b", "ada")
        assert plain_store.names() == before
        await plain.mark_event("a", 1)
        assert await plain.count(plain.day("a")) == 2


async def test_a_flag_alone_is_a_database_of_offsets(facade: Facade, redis_store: Store) -> None:
    redis_store.raw.setbit("trackist_premium_u", 7, 1)
    async with facade.open(redis_store.url, user_ids=str) as tally:
        with pytest.raises(WrongSchemaError, match="without user_ids"):
            await tally.mark_event("a", "ada")


async def test_marks_by_offset_that_the_handshake_has_missed(
    facade: Facade, redis_store: Store
) -> None:
    """They were made after it, by a program that does not know the schema key."""
    async with facade.open(redis_store.url, user_ids=str) as tally:
        await tally.unmark_event("a", "ada")
        await tally.count(tally.day("a"))
        redis_store.raw.setbit("trackist_a_u", 0, 1)
        with pytest.raises(WrongSchemaError, match="without user_ids"):
            await tally.mark_unique("a", "ada")
    assert not [name for name in redis_store.names() if ":" in name]


@pytest.mark.parametrize("lost", ["stamp", "next"])
async def test_lost_dictionaries_are_noticed(facade: Facade, redis_store: Store, lost: str) -> None:
    raw = redis_store.raw
    async with facade.open(redis_store.url, user_ids=str) as tally:
        await tally.mark_event("a", "ada")
        raw.delete(f"trackist_ids:{lost}")
        for _ in range(2):
            with pytest.raises(WrongSchemaError, match="deleted or evicted"):
                await tally.mark_event("b", "eve")
        with pytest.raises(WrongSchemaError, match="deleted or evicted"):
            await tally.merge("ada", "eve")
        assert not [name for name in redis_store.names() if name.startswith("trackist_b")]


async def test_an_emptied_database_is_begun_again(facade: Facade, redis_store: Store) -> None:
    raw = redis_store.raw
    async with facade.open(redis_store.url, user_ids=str) as tally:
        await tally.mark_event("a", "ada")
        schema = raw.get("trackist_schema")
        raw.flushdb()
        assert await tally.mark_event("a", "eve") == M | W | D
        assert [user async for user in tally.users(tally.day("a"))] == ["eve"]
        assert raw.get("trackist_schema") == schema


async def test_a_forgotten_user_gets_no_late_mark(facade: Facade, redis_store: Store) -> None:
    """The number was cached: nothing of the transaction is applied, and the script follows."""
    raw = redis_store.raw
    async with facade.open(redis_store.url, user_ids=str) as tally:
        await tally.mark_event("a", "ada")
        await tally.mark_event("a", "eve")
        for key in raw.keys("trackist_ids:f:*"):
            raw.hdel(key, "ada")
        raw.hdel("trackist_ids:r:0", "0")
        raw.set("trackist_ids:stamp", b"renewed!")
        for key in raw.keys("trackist_a_*"):
            raw.setbit(key, 0, 0)
        flips = await asyncio.gather(tally.mark_event("a", "ada"), tally.mark_event("a", "eve"))
        assert list(flips) == [M | W | D, Granularity(0)]
        assert raw.hgetall("trackist_ids:r:0") == {b"1": b"eve", b"2": b"ada"}
        assert [user async for user in tally.users(tally.day("a"))] == ["eve", "ada"]
        await tally.mark_event("a", "ada")
        before = evals(redis_store)
        await tally.mark_event("a", "ada")
        assert evals(redis_store) == before


async def test_a_new_connection_begins_with_an_empty_cache(
    facade: Facade, redis_store: Store
) -> None:
    async with facade.open(redis_store.url, user_ids=str) as tally:
        await tally.mark_event("a", "ada")
        redis_store.raw.flushdb()
        redis_store.raw.client_kill_filter(_type="normal", skipme=True)
        assert await tally.mark_event("a", "eve") == M | W | D
        assert await tally.mark_event("a", "ada") == M | W | D
        assert [user async for user in tally.users(tally.day("a"))] == ["eve", "ada"]


@pytest.mark.parametrize("made", [Tally, SyncTally], ids=["async", "sync"])
async def test_a_client_of_the_caller_caches_nothing(made: Any, redis_store: Store) -> None:
    """Its connections go back to the pool, where no ``WATCH`` may stay."""
    before = watches(redis_store)
    kind: Any = redis.asyncio.Redis if made is Tally else redis.Redis
    client = kind.from_url(redis_store.url)
    tally = cast("Any", made)(client, user_ids=str)
    assert internals(tally).numbers is None
    for _ in range(2):
        result = tally.mark_event("a", "ada")
        if made is Tally:
            await result
    assert watches(redis_store) == before
    if made is Tally:
        await tally.aclose()
        await client.aclose()
    else:
        tally.close()
        client.close()


@pytest.mark.parametrize("denied", ["-watch", "+watch"])
async def test_rights(facade: Facade, denied: str) -> None:
    """Without WATCH, nothing is cached; a denied bitmap fails its own marks."""
    keys = "~trackist_a* ~trackist_ids:* ~trackist_schema"
    rules = f"user app on >secret {keys} {RIGHTS} +hget +hset {denied}"
    with running_server("--user", *rules.split()[1:]) as url:
        async with facade.open(url.replace("//", "//app:secret@"), user_ids=str) as tally:
            for _ in range(2):
                results = await asyncio.gather(
                    *(tally.mark_event(event, "ada") for event in ("a", "b", "ab")),
                    return_exceptions=True,
                )
                assert isinstance(results[1], CommandError)
                assert not isinstance(results[0], TallymarkError)
                assert not isinstance(results[2], TallymarkError)
            assert await tally.count(tally.day("a")) == 1
    with running_server("--user", *rules.replace("+eval", "").split()[1:]) as url:
        async with facade.open(url.replace("//", "//app:secret@"), user_ids=str) as tally:
            with pytest.raises(PermissionDeniedError):
                await tally.mark_event("a", "ada")


async def test_bulk_marks(facade: Facade, store: Store) -> None:
    """Unknown, known, and both; with repetitions; densely and sparsely numbered."""
    ids = [uuid.uuid4() for _ in range(2300)]
    each = dict.fromkeys((M, W, D), 1100)
    async with facade.open(store.url, user_ids=uuid.UUID) as tally:
        assert await tally.mark_many("a", ids[:1100], now=MONDAY) == each
        assert await tally.mark_many("a", ids[:1100], now=MONDAY) == dict.fromkeys(each, 0)
        assert await tally.mark_many("b", ids[:1100], now=MONDAY) == each
        assert await tally.mark_many("b", iter(ids + ids), now=MONDAY) == dict.fromkeys(each, 1200)
        assert await tally.mark_many("c", ids[::97], now=MONDAY) == dict.fromkeys(each, 24)
        assert await tally.unmark_many("b", ids[:5], now=MONDAY) == dict.fromkeys(each, 5)
        assert await tally.unmark_many("b", ids[:7], now=MONDAY, exact=True) == dict.fromkeys(
            each, 2
        )
        assert await tally.count(tally.day("b", MONDAY)) == 2293
        found = await tally.contains_many(tally.day("c", MONDAY), ids)
        assert [user for user, is_in in zip(ids, found, strict=True) if is_in] == ids[::97]


async def test_prepared_bulk_marks_are_looked_up_again(redis_store: Store) -> None:
    """If the numbers were fetched by a connection that has ended meanwhile."""
    ids = [f"user-{number}" for number in range(1500)]
    async with ASYNC.open(redis_store.url, user_ids=str) as tally:
        await tally.mark_many("a", ids)
        marker = internals(tally).marker
        many = marker.mark_many("b", None, None, None)
        sparse = marker.mark_many("c", None, None, None)
        chunks = list(many.chunks(many.checked(ids)))
        chunks += list(sparse.chunks(sparse.checked(ids[::100])))
        assert all(chunk.marks[0].prepared is not None for chunk in chunks)
        redis_store.raw.flushdb()
        redis_store.raw.client_kill_filter(_type="normal", skipme=True)
        # All numbers differ from now on.
        await tally.mark_many("a", reversed(ids))
        for chunk in chunks:
            (result,) = await internals(tally).submit_counted(chunk.marks, None)
            assert set(result.values()) == {chunk.ids}
        assert {user async for user in tally.users(tally.day("b"))} == set(ids)
        assert {user async for user in tally.users(tally.day("c"))} == set(ids[::100])


async def test_a_large_transaction_whose_connection_is_closed_before_it_is_sent(
    redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """redis-py would connect again, and send cached numbers that no ``WATCH`` guards."""
    ids = [f"user-{number}" for number in range(2500)]
    async with ASYNC.open(redis_store.url, user_ids=str) as tally:
        await tally.mark_many("a", ids)
        connection = internals(tally).writer._connection
        encode = IdBatch.encode

        def slow(batch: IdBatch) -> bytes:
            data = encode(batch)
            Cluster.until(lambda: not connection.ready, "end of the connection at the deadline")
            return data

        monkeypatch.setattr(IdBatch, "encode", slow)
        with pytest.raises(StoreTimeoutError, match="nothing was sent"):
            async with tally.transaction(timeout=0.1) as tx:
                for user_id in ids:
                    tx.mark_event("b", user_id)
        monkeypatch.undo()
        assert not await tally.mark_event("a", ids[0])
        assert await tally.is_empty(tally.day("b"))
