"""`merge`: the bits of one user become another's, on every kind of store and in both facades."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusters import running_cluster
from facades import ASYNC, ON_SOME_STORES, SYNC
from servers import running_server
from stores import ClusterStore
from tallymark import (
    PermissionDeniedError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    WrongKeyTypeError,
    WrongSchemaError,
)
from tallymark._core.keys import key_slot, tags
from tallymark._reading import raw_keys
from wires import wired

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from facades import Facade
    from stores import Store

MONDAY = date(2026, 11, 23)
NOON = datetime(2026, 11, 23, 12)
TUESDAY = date(2026, 11, 24)

#: A visitor and a user who are in different shards, of 16 or of 3, and another pair that is in
#: the same shard.
VISITOR, USER = 500, 7
APART = (VISITOR, USER)
TOGETHER = (5, 5 + 16 * 3 * 10)

MOVED_BEFORE = "moved before, and others may have been: call it again"

#: Without shards, and with each kind of pair.
LAYOUTS = [
    pytest.param({}, APART, id="plain"),
    pytest.param({"shards": 16}, APART, id="two shards"),
    pytest.param({"shards": 16}, TOGETHER, id="one shard"),
]


def users_of(bits: dict[str, set[int]], user: int) -> set[str]:
    """Return the names of the bitmaps that have a user."""
    return {name for name, users in bits.items() if user in users}


async def fill(tally: Any, user: int) -> None:
    """Mark a user in six bitmaps: of an hour, a day, a week, a month, a year, and a flag."""
    await tally.mark_event("active", user, now=NOON, track_hourly=True, track_unique=True)


# --- what it does


@pytest.mark.parametrize("ids", [APART, TOGETHER, TOGETHER[::-1]])
async def test_all_bits_move(facade: Facade, store: Store, ids: tuple[int, int]) -> None:
    source, target = ids
    async with facade.open(store.url, track_yearly=True) as tally:
        await fill(tally, source)
        await tally.mark_event("active", 9, now=NOON, track_hourly=True)
        await tally.mark_event("active", target, now=TUESDAY)
        await tally.mark_event("other", 9, now=MONDAY)
        await tally.mark_unique("premium", source)
        before, names = store.bits(), store.names()
        assert await tally.merge(source, target) == 7
        after = store.bits()
        assert users_of(after, source) == set()
        assert users_of(after, target) == users_of(before, source) | users_of(before, target)
        assert users_of(after, 9) == users_of(before, 9)
        assert store.names() == names
        assert await tally.merge(source, target) == 0
        assert store.bits() == after
        week = await tally.history(target, "active", MONDAY, date(2026, 11, 30), "day")
        assert [str(day) for day in week["active"]] == ["2026-11-23", "2026-11-24"]
        assert await tally.count(tally.day("active", MONDAY)) == 2
        # Back again, as far as that is possible.
        assert await tally.merge(target, source) == 8


@pytest.mark.parametrize("bitfield", [True, False])
@pytest.mark.parametrize(("options", "ids"), LAYOUTS)
async def test_on_one_server(
    facade: Facade,
    plain_store: Store,
    options: Any,
    ids: tuple[int, int],
    bitfield: bool,
) -> None:
    """Keys that hold no bitmap stay, and no key is created where the source has no bit."""
    source, target = ids
    async with facade.open(plain_store.url, bitfield=bitfield, **options) as tally:
        await fill(tally, source)
        await tally.mark_event("other", target, now=TUESDAY)
        raw = plain_store.raw
        tag = f"{{{tags(16)[source % 16]}}}" if options else ""
        raw.rpush(f"trackist_{tag}list_2026", "x")
        raw.set(f"trackist_{tag}foreign", b"\xff" * 100)
        temporary = f"trackist_{tag}bitop_OR_trackist_active_2026-11-trackist_a_u"
        raw.setbit(temporary, source // 16 if options else source, 1)
        others = {key for key in plain_store.names() if "other" in key}
        assert await tally.merge(source, target) == 6
        assert await tally.merge(source, target) == 0
        assert await tally.forget(source) == 0
        assert raw.lrange(f"trackist_{tag}list_2026", 0, -1) == [b"x"]
        assert raw.get(f"trackist_{tag}foreign") == b"\xff" * 100
        assert {key for key in plain_store.names() if "other" in key} == others
        assert await tally.forget(target) == 6 + 3


async def test_bits_that_the_target_has_count_too(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        for user in APART:
            await tally.mark_event("active", user, now=MONDAY)
        assert await tally.merge(*APART) == 3
        assert store.bits() == {name: {USER} for name in store.bits()}


async def test_weeks_and_months_whose_days_are_gone(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await tally.mark_event("active", VISITOR, now=MONDAY)
        await tally.delete(tally.day("active", MONDAY))
        assert await tally.merge(*APART) == 2
        assert await tally.contains(tally.week("active", MONDAY), USER)
        assert await tally.contains(tally.month("active", MONDAY), USER)


async def test_a_source_without_bits_creates_nothing(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        assert await tally.merge(*APART) == 0
        await tally.mark_event("active", 9, now=MONDAY)
        before = store.names()
        assert await tally.merge(*APART) == 0
        assert await tally.merge(VISITOR, 2**32 - 1) == 0
        assert store.names() == before
        assert store.raw.strlen("trackist_active_2026-11") <= 2


async def test_no_bitmap_grows_beyond_the_target(facade: Facade, plain_store: Store) -> None:
    async with facade.open(plain_store.url) as tally:
        await tally.mark_event("active", 3, now=MONDAY)
        await tally.mark_event("other", 80_000, now=MONDAY)
        assert await tally.merge(3, 79) == 3
        assert plain_store.raw.strlen("trackist_active_2026-11") == 10
        assert await tally.merge(80_000, 5) == 3
        assert plain_store.raw.strlen("trackist_other_2026-11") == 10_001


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", [USER, 30_000_000])
async def test_many_bitmaps(facade: Facade, store: Store, target: int) -> None:
    """More than one step reads or changes; the less, the more the bitmaps grow."""
    number = 2500 if target == USER else 20
    store.raw.mset({f"trackist_event{at}_u": b"\x80" for at in range(number)})
    async with facade.open(store.url) as tally:
        assert await tally.merge(0, target) == number
        assert await tally.merge(0, target) == 0
        assert await tally.forget(target) == number


@pytest.mark.parametrize(("target", "number", "most"), [(16, 600, 250), (8_000_000, 9, 4)])
async def test_a_step_is_bounded(redis_store: Store, target: int, number: int, most: int) -> None:
    """No request changes more than 250 bitmaps, or lengthens some by more than 4 MiB."""
    redis_store.raw.mset({f"trackist_event{at}_u": b"\x80" for at in range(number)})
    async with ASYNC.open(redis_store.url) as tally:
        with redis_store.raw.monitor() as monitor:
            await tally.merge(0, target)
            redis_store.raw.ping()
            steps = []
            for command in monitor.listen():
                if command["command"] == "PING":
                    break
                if command["command"].startswith("EVAL"):
                    steps.append(command["command"].count("trackist_event"))
    assert max(steps) == most
    assert sum(steps) == number


async def test_bitmaps_of_a_longer_prefix(facade: Facade, plain_store: Store) -> None:
    """As the docstring and docs/how-to/erase-users.md say."""
    async with (
        facade.open(plain_store.url, prefix="tenant1_") as short,
        facade.open(plain_store.url, prefix="tenant1_eu_") as long,
    ):
        await short.mark_event("active", VISITOR, now=MONDAY)
        await long.mark_event("active", VISITOR, now=MONDAY)
        assert await long.merge(*APART) == 3
        assert await short.merge(*APART) == 3
        await long.mark_event("active", VISITOR, now=MONDAY)
        assert await short.merge(*APART) == 3
        assert await long.merge(*APART) == 0


# --- against a model


ids = st.sampled_from([0, 1, 7, 8, 16, 23, 1000, 65_536])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("mark"), st.sampled_from("ab"), st.integers(0, 9), ids),
        st.tuples(st.just("unmark"), st.sampled_from("ab"), st.integers(0, 9), ids),
        st.tuples(st.just("merge"), ids, ids).filter(lambda step: step[1] != step[2]),
        st.tuples(st.just("forget"), ids),
    ),
    max_size=25,
)


def keys_of(event: str, day: date) -> list[str]:
    """Return the keys of a mark, written down independently."""
    year, week, _ = day.isocalendar()
    suffixes = (
        f"{day.year}-{day.month}",
        f"W{year}-{week}",
        f"{day.year}-{day.month}-{day.day}",
        "u",
    )
    return [f"trackist_{event}_{suffix}" for suffix in suffixes]


@ON_SOME_STORES
@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(program=steps)
async def test_against_sets(facade: Facade, store: Store, program: list[Any]) -> None:
    """Marks, unmarks and merges in any order, of users in the same and in different shards."""
    first = date(2026, 10, 27)
    store.raw.flushdb()
    model: dict[str, set[int]] = {}
    async with facade.open(store.url, track_unique=True) as tally:
        for verb, *arguments in program:
            if verb in {"mark", "unmark"}:
                event, number, user = arguments
                day = first + timedelta(days=number)
                await getattr(tally, f"{verb}_event")(event, user, now=day)
                for key in keys_of(event, day):
                    users = model.setdefault(key, set())
                    (users.add if verb == "mark" else users.discard)(user)
                continue
            source = arguments[0]
            having = [users for users in model.values() if source in users]
            assert await getattr(tally, verb)(*arguments) == len(having)
            for users in having:
                users.discard(source)
                users.update(arguments[1:])
        assert store.bits() == {key: users for key, users in model.items() if users}
        for event in "ab":
            for number in range(10):
                day = first + timedelta(days=number)
                wanted = model.get(keys_of(event, day)[2], set())
                assert await tally.count(tally.day(event, day)) == len(wanted)
        for user in (0, 16, 1000):
            found = await tally.history(user, ["a", "b"], first, first + timedelta(days=10))
            for event, periods in found.items():
                days = [period.start.date() for period in periods]
                assert days == [
                    day
                    for day in (first + timedelta(days=number) for number in range(10))
                    if user in model.get(keys_of(event, day)[2], set())
                ]


# --- expiry


@pytest.mark.parametrize("bitfield", [True, False])
@pytest.mark.parametrize(("options", "ids"), LAYOUTS)
async def test_expiries_are_kept(
    facade: Facade, plain_store: Store, options: Any, ids: tuple[int, int], bitfield: bool
) -> None:
    source, target = ids
    raw, now = plain_store.raw, datetime.now()
    expire = {"day": timedelta(days=30), "month": timedelta(days=90)}
    async with facade.open(
        plain_store.url, expire=expire, bitfield=bitfield, track_unique=True, **options
    ) as tally:
        await tally.mark_event("active", source, now=now)
        ends = {_plain(key): end for key in plain_store.names() if (end := _expiry(raw, key))}
        assert len(ends) == 2
        assert await tally.merge(source, target) == 4
        keys = [key for key in plain_store.names() if not key.endswith("schema")]
        assert len(keys) == (8 if ids == APART and options else 4)
        for key in keys:
            assert _expiry(raw, key) == ends.get(_plain(key)), key


async def test_an_existing_bitmap_of_the_target_keeps_its_expiry(
    facade: Facade, redis_store: Store
) -> None:
    raw = redis_store.raw
    async with facade.open(redis_store.url, shards=16) as tally:
        for user in APART:
            await tally.mark_unique("active", user)
            await tally.mark_unique("other", user)
        source, target = (f"{{{tags(16)[user % 16]}}}" for user in APART)
        raw.expire(f"trackist_{source}active_u", 1000)
        raw.expire(f"trackist_{target}other_u", 2000)
        assert await tally.merge(*APART) == 2
        assert raw.ttl(f"trackist_{target}active_u") == -1
        assert 1990 <= raw.ttl(f"trackist_{target}other_u") <= 2000
        assert 990 <= raw.ttl(f"trackist_{source}active_u") <= 1000


def _plain(key: str) -> str:
    return key.partition("}")[2] or key.removeprefix("trackist_")


def _expiry(raw: Any, key: str) -> int | None:
    """Return when a key expires, in seconds since 1970; to the second, as it was set."""
    ttl = raw.pttl(key)
    return None if ttl == -1 else round(time.time() + ttl / 1000)


# --- keys of another type


async def test_a_key_of_the_targets_shard_holds_something_else(
    facade: Facade, plain_store: Store
) -> None:
    """All other bits move, and the source keeps those that cannot."""
    async with facade.open(plain_store.url, shards=16) as tally:
        await tally.mark_event("active", VISITOR, now=MONDAY)
        await tally.mark_unique("active", VISITOR)
        taken = f"trackist_{{{tags(16)[USER % 16]}}}active_2026-11"
        plain_store.raw.rpush(taken, "x")
        with pytest.raises(WrongKeyTypeError) as raised:
            await tally.merge(*APART)
        assert taken in str(raised.value)
        assert "1 bits stay where they are, 3 others were moved" in str(raised.value)
        assert await tally.forget(USER) == 3
        plain_store.raw.delete(taken)
        assert await tally.merge(*APART) == 1
        assert await tally.contains(tally.month("active", MONDAY), USER)


# --- concurrency


@pytest.mark.parametrize(("options", "ids"), LAYOUTS)
async def test_marks_of_others_meanwhile(
    redis_store: Store, options: Any, ids: tuple[int, int]
) -> None:
    """Every mark of another user is kept, in the same bytes as the bits that move."""
    source, target = ids
    others = [user for user in range(600) if user not in {source, target}]
    async with ASYNC.open(redis_store.url, **options) as tally:
        for number in range(30):
            await tally.mark_event(f"e{number}", source, now=MONDAY)

        async def mark(number: int) -> None:
            for user in others[number::30]:
                await tally.mark_event(f"e{number}", user, now=MONDAY)
                await tally.mark_event(f"e{(number + 7) % 30}", user, now=MONDAY)
                await asyncio.sleep(0)

        async def merge() -> int:
            moved = 0
            for _ in range(10):
                moved += await tally.merge(source, target)
                moved += await tally.merge(target, source)
            return moved + await tally.merge(source, target)

        *_, moved = await asyncio.gather(*map(mark, range(30)), merge())
        assert moved == 21 * 90
        for number in range(30):
            day = tally.day(f"e{number}", MONDAY)
            wanted = {*others[number::30], *others[(number - 7) % 30 :: 30], target}
            assert {user async for user in tally.users(day)} == wanted


@pytest.mark.parametrize(("options", "ids"), LAYOUTS)
async def test_marks_of_the_source_meanwhile(
    redis_store: Store, options: Any, ids: tuple[int, int]
) -> None:
    """Each is moved or stays: after another call, the target has them all."""
    source, target = ids
    async with ASYNC.open(redis_store.url, **options) as tally:

        async def mark() -> None:
            for number in range(300):
                await tally.mark_unique(f"e{number}", source)

        marking = asyncio.create_task(mark())
        moved = 0
        while not marking.done():
            moved += await tally.merge(source, target)
        moved += await tally.merge(source, target)
        assert moved == 300
        for number in range(300):
            assert await tally.contains(tally.unique(f"e{number}"), target)
        assert await tally.forget(source) == 0


@pytest.mark.parametrize(("options", "ids"), LAYOUTS)
async def test_merges_of_one_source_at_once(
    redis_store: Store, options: Any, ids: tuple[int, int]
) -> None:
    async with ASYNC.open(redis_store.url, **options) as tally:
        await fill(tally, ids[0])
        moved = await asyncio.gather(*(tally.merge(*ids) for _ in range(8)))
        assert sum(moved) == 5
        assert await tally.forget(ids[0]) == 0
        assert await tally.forget(ids[1]) == 5


# --- faults


@pytest.mark.exhaustive
@pytest.mark.parametrize("direction", ["request", "reply"])
@pytest.mark.parametrize(("options", "ids"), LAYOUTS)
async def test_a_connection_that_breaks_anywhere(
    facade: Facade, redis_store: Store, direction: Any, options: Any, ids: tuple[int, int]
) -> None:
    """It is retried: nothing is lost, nothing is left over."""
    source, target = ids
    with wired(redis_store.url) as wire:
        async with facade.open(wire.url, **options) as tally:
            await fill(tally, source)
            before = wire.bytes[direction]
            await tally.merge(source, target)
            total = wire.bytes[direction] - before
            for position in range(0, total, 7 if direction == "reply" else 41):
                await tally.merge(target, source)
                wire.cut_after(direction, position)
                assert await tally.merge(source, target) <= 5
                wire.heal()
                assert await tally.merge(source, target) == 0
                names = {name for name in redis_store.names() if "schema" not in name}
                assert len(names) == (10 if options and ids == APART else 5)
                assert await tally.contains(tally.day("active", MONDAY), target)
                assert await tally.contains(tally.unique("active"), target)
            assert await tally.forget(target) == 5
            assert await tally.forget(source) == 0


@pytest.mark.exhaustive
@pytest.mark.parametrize("direction", ["request", "reply"])
@pytest.mark.parametrize(("options", "ids"), LAYOUTS)
async def test_a_call_that_ends_anywhere_may_be_repeated(
    redis_store: Store, direction: Any, options: Any, ids: tuple[int, int]
) -> None:
    """Each bit is the source's, the target's or both; the repetition moves the rest."""
    source, target = ids
    expire = {"day": timedelta(days=100 * 365)}
    messages: set[str] = set()
    with wired(redis_store.url) as wire:
        # Blocking, so that the bytes of a call come in the same order each time.
        async with (
            SYNC.open(wire.url, expire=expire, **options) as tally,
            SYNC.open(redis_store.url, expire=expire, **options) as observer,
        ):
            await fill(observer, source)
            before = wire.bytes[direction]
            await tally.merge(source, target)
            total = wire.bytes[direction] - before
            states = set()
            step = 7 if direction == "reply" else 41
            # The reply of a script has four bytes, and may lie between two positions of a step;
            # where it begins depends on the others. Then positions between these are tried too.
            positions = itertools.chain(range(0, total, step), range(4, total, step))
            for position in positions:
                if position == 4 and any(MOVED_BEFORE in each for each in messages):
                    break
                redis_store.raw.flushdb()
                await fill(observer, source)
                await tally.event_names()  # is connected again
                wire.cut_after(direction, position)
                wire.refusing = True
                try:
                    await tally.merge(source, target, timeout=0.05)
                except (StoreUnavailableError, StoreTimeoutError) as error:
                    messages.add(str(error))
                state = []
                for event_set in _sets(observer):
                    has = [await observer.contains(event_set, user) for user in ids]
                    assert any(has), position
                    state.append(tuple(has))
                states.add(tuple(state))
                wire.heal()
                await observer.merge(source, target)
                for event_set in _sets(observer):
                    assert await observer.contains(event_set, target)
                    assert not await observer.contains(event_set, source)
                for key in redis_store.names():
                    is_day = key.endswith("_2026-11-23")
                    assert (redis_store.raw.ttl(key) > 0) == is_day, key
    if options and ids == APART:
        both = ((True, True),) * 5
        assert both in states  # between the two steps
    assert any(MOVED_BEFORE in each for each in messages)
    assert any("call it again" not in each for each in messages)  # before the first change


def _sets(tally: Any) -> list[Any]:
    verbs = (tally.hour, tally.day, tally.week, tally.month)
    return [*(verb("active", NOON) for verb in verbs), tally.unique("active")]


async def test_the_deadline_of_the_whole_call(facade: Facade, redis_store: Store) -> None:
    redis_store.raw.mset({f"trackist_event{at}_u": b"\x80" for at in range(5000)})
    with wired(redis_store.url) as wire:
        async with facade.open(wire.url) as tally:
            before = wire.bytes["reply"]
            assert await tally.merge(0, USER) == 5000
            wire.hold_after("reply", (wire.bytes["reply"] - before) // 2)
            begun = time.monotonic()
            message = r"within 0\.3 s; [1-4]\d\d\d bits were moved before"
            with pytest.raises(StoreTimeoutError, match=message):
                await tally.merge(USER, 0, timeout=0.3)
            assert time.monotonic() - begun < 2
            wire.heal()
            assert 0 < await tally.merge(USER, 0) < 5000
            assert await tally.forget(0) == 5000


@pytest.mark.parametrize("right", ["eval", "getbit"])
async def test_a_missing_right(facade: Facade, redis_store: Store, right: str) -> None:
    """Nothing is changed. Only after the first change, the message says how many there were."""
    async with facade.open(redis_store.url) as tally:
        await fill(tally, VISITOR)
    raw = redis_store.raw
    raw.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", f"-{right}")
    try:
        url = redis_store.url.replace("//", "//app:secret@")
        async with facade.open(url) as tally:
            for call, verb in ((tally.merge(*APART), "moved"), (tally.forget(VISITOR), "cleared")):
                with pytest.raises(PermissionDeniedError, match=f"(?i){right}") as raised:
                    await call
                says = f"0 bits were {verb} before" in str(raised.value)
                assert says == (right == "eval")
    finally:
        raw.execute_command("ACL", "DELUSER", "app")
    assert len(users_of(redis_store.bits(), VISITOR)) == 5


async def test_a_database_with_other_shards_is_refused(facade: Facade, redis_store: Store) -> None:
    async with facade.open(redis_store.url, shards=16) as tally:
        await tally.mark_unique("a", VISITOR)
    async with facade.open(redis_store.url, shards=8) as other:
        with pytest.raises(WrongSchemaError) as raised:
            await other.merge(*APART)
        assert "moved" not in str(raised.value)


# --- replicas


async def test_a_replica_is_not_read(facade: Facade, redis_store: Store) -> None:
    """It may not have the newest bitmaps yet: this one has none at all."""
    with running_server() as replica:
        for options, ids in (({}, APART), ({"shards": 16}, APART)):
            redis_store.raw.flushdb()
            async with facade.open(redis_store.url, read_from=replica, **options) as tally:
                await fill(tally, VISITOR)
                assert await tally.merge(*ids) == 5
                assert await tally.forget(USER) == 5


@contextlib.asynccontextmanager
async def _without_replicas(facade: Facade, url: str) -> AsyncIterator[Any]:
    async with facade.open(url, shards=16) as writer:
        await fill(writer, VISITOR)
    async with facade.open(url, shards=16, replicas=1) as tally:
        yield tally


async def test_the_source_keeps_its_bits_until_replicas_have_the_targets(
    facade: Facade, redis_store: Store
) -> None:
    """Otherwise, a failover of one of two masters could lose them."""
    async with _without_replicas(facade, redis_store.url) as tally:
        with pytest.raises(StoreUnavailableError, match=r"0 of the 1 replicas.*call it again"):
            await tally.merge(*APART)
        assert await tally.count(tally.unique("active")) == 2  # both have it
    async with facade.open(redis_store.url, shards=16) as tally:
        assert await tally.merge(*APART) == 5


async def test_replicas_of_a_cluster(facade: Facade, cluster_store: Store) -> None:
    async with facade.open(cluster_store.url, replicas=1) as tally:
        await fill(tally, VISITOR)
        assert await tally.merge(*APART) == 5
        assert await tally.forget(USER) == 5


# --- a cluster that changes


async def test_while_slots_move(facade: Facade) -> None:
    """Of the source's shard and then of the target's, with some keys at each node."""
    with running_cluster(replicas=False) as cluster:
        store = ClusterStore(cluster)
        async with facade.open(store.url) as tally:
            for moving in APART:
                await fill(tally, VISITOR)
                await tally.mark_event("active", USER + 16, now=TUESDAY)
                slot = key_slot(f"{{{tags(16)[moving % 16]}}}".encode())
                source = cluster.owner(slot)
                target = next(node for node in cluster.masters() if node is not source)
                cluster.begin_move(slot, target)
                cluster.move_keys(slot, source, target, 2)
                assert await tally.merge(*APART) == 5
                assert await tally.merge(*APART) == 0
                while cluster.move_keys(slot, source, target, 10):
                    pass
                cluster.end_move(slot, target)
                assert await tally.forget(USER) == 5
            assert await tally.forget(USER + 16) == 2 * 3 - 3


async def test_a_node_that_is_gone(facade: Facade) -> None:
    """That of the target: the source keeps its bits."""
    with running_cluster(replicas=False) as cluster:
        store = ClusterStore(cluster)
        async with facade.open(store.url) as tally:
            source_node = cluster.owner(key_slot(f"{{{tags(16)[VISITOR % 16]}}}".encode()))
            user = next(
                user
                for user in range(16)
                if cluster.owner(key_slot(f"{{{tags(16)[user]}}}".encode())) is not source_node
            )
            stuck = cluster.owner(key_slot(f"{{{tags(16)[user]}}}".encode()))
            await fill(tally, VISITOR)
            stuck.freeze()
            try:
                with pytest.raises(StoreError):
                    await tally.merge(VISITOR, user, timeout=0.5)
            finally:
                stuck.thaw()
            cluster.settle()
            moved = await tally.merge(VISITOR, user)
            assert moved == 5
            assert await tally.forget(user) == 5


def test_a_bitmap_that_expires_meanwhile_is_not_made_again() -> None:
    """It would never expire in the shard of the target."""
    query = raw_keys.expiry_times([b"gone", b"kept", b"expiring"])
    request: Any = next(query)
    assert [command[0] for command in request.commands] == [b"TIME", *[b"PTTL"] * 3]
    with pytest.raises(StopIteration) as ended:
        query.send([[b"1700000000", b"900000"], -2, -1, 99_099])
    assert ended.value.value == (1_700_000_000.9, {b"kept": None, b"expiring": 1_700_000_100})
