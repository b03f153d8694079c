"""`forget` with ids of any type: the id is erased, and no trace and no bit of it are left."""

from __future__ import annotations

import asyncio
import itertools
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from erasures import (
    ANN,
    BOB,
    EVE,
    IDS,
    LAYOUTS,
    NOBODY,
    USERS,
    VERBS,
    Crashed,
    Inspector,
    crashing,
    fill,
    fill_blocking,
    losing_an_answer,
    losing_writes,
    opened,
    opened_blocking,
    repeating,
    run,
    step_by_step,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facades import ASYNC, ON_SOME_STORES
from tallymark import (
    CommandError,
    InvalidTypeError,
    StoreUnavailableError,
)
from tallymark._core.keys import key_slot
from tallymark._reading import bit_changes, forgetting, key_scan

if TYPE_CHECKING:
    from facades import Facade
    from stores import Store


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each request read three bitmaps, and change two."""
    monkeypatch.setattr(forgetting, "READ", 3)
    monkeypatch.setattr(bit_changes, "_CHANGED", 2)


# --- what it does


@pytest.mark.parametrize("kind", IDS)
async def test_the_bits_and_the_id_are_gone(facade: Facade, store: Store, kind: type) -> None:
    ann, bob, eve, nobody = users = IDS[kind]
    inspector = Inspector(store, kind)
    async with opened(facade, store.url, kind) as tally:
        await fill(tally, users)
        before, stamps = inspector.users(users), inspector.stamps()
        assert await tally.forget(nobody) == 0
        assert inspector.stamps() == stamps
        (number,) = [at for at, user in inspector.numbers(users).items() if user == ann]
        assert await tally.forget(ann) == 4
        after = inspector.users(users)
        assert after == {name: found - {ann} for name, found in before.items()}
        assert ann not in inspector.numbers(users).values()
        assert not inspector.record(*number).strip(b"\0")
        assert inspector.stamps() != stamps
        assert inspector.stamps().keys() == stamps.keys()
        assert inspector.journals() == []
        assert await tally.forget(ann) == 0
        # Whoever is marked again is a new user.
        await tally.mark_unique("active", ann)
        numbers = inspector.numbers(users)
        assert set(numbers.values()) == {ann, bob, eve}
        assert numbers.get(number) is None
        assert await tally.forget(ann) == 1
        assert inspector.users(users) == after


async def test_a_wrong_id_is_refused(facade: Facade, redis_store: Store) -> None:
    async with opened(facade, redis_store.url, uuid.UUID) as tally:
        with pytest.raises(InvalidTypeError, match=r"uuid\.UUID"):
            await tally.forget(7)
    assert redis_store.names() == set()


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("options", LAYOUTS)
async def test_no_trace(redis_store: Store, kind: type, options: Any) -> None:
    """Neither the bytes of the id nor its digest are in any key or value, or in a dump of it."""
    users = IDS[kind]
    inspector = Inspector(redis_store, kind, **options)
    before = redis_store.raw.config_get("rdbcompression")
    redis_store.raw.config_set("rdbcompression", "no")
    try:
        async with opened(ASYNC, redis_store.url, kind, **options) as tally:
            await fill(tally, users)
            for user in users[:3]:
                _, field, encoded = inspector.dictionary.entry(inspector.dictionary.ids.key(user))
                traces = [each for each in (field, encoded) if each.strip(b"\0")]
                assert all(map(inspector.has_bytes, traces))
                await tally.forget(user)
                assert not any(map(inspector.has_bytes, traces))
    finally:
        redis_store.raw.config_set("rdbcompression", before["rdbcompression"])


# --- concurrency


@pytest.mark.parametrize("options", LAYOUTS)
async def test_several_at_once(facade: Facade, redis_store: Store, options: Any) -> None:
    inspector = Inspector(redis_store, uuid.UUID, **options)
    async with opened(facade, redis_store.url, uuid.UUID, **options) as tally:
        await fill(tally, USERS)
        before = inspector.users(USERS)
        counts = await asyncio.gather(*(tally.forget(user) for user in [ANN, BOB] * 4))
        # Others finish what they find, and do not count it.
        assert sum(counts) <= 5
        assert inspector.users(USERS) == {name: {EVE} for name in before}
        assert inspector.journals() == []


@pytest.mark.parametrize("options", LAYOUTS)
async def test_marks_meanwhile(redis_store: Store, options: Any) -> None:
    """Another tally, which has the number in its cache, goes on marking: no bit is of nobody."""
    inspector = Inspector(redis_store, uuid.UUID, **options)
    async with (
        opened(ASYNC, redis_store.url, uuid.UUID, **options) as tally,
        opened(ASYNC, redis_store.url, uuid.UUID, **options) as other,
    ):
        stop = False

        async def mark() -> None:
            at = 0
            while not stop:
                at += 1
                users = [ANN, EVE] if at % 2 else [EVE, ANN]
                await asyncio.gather(*(other.mark_unique(f"e{at % 7}", user) for user in users))

        marking = asyncio.create_task(mark())
        for _ in range(40):
            await tally.forget(ANN)
        stop = True
        await marking
        found = inspector.users([ANN, EVE])
        assert all(users <= {ANN, EVE} for users in found.values())
        assert all(EVE in users for users in found.values())
        await tally.forget(ANN)
        assert set().union(*inspector.users([ANN, EVE]).values()) == {EVE}


# --- faults


def requests_of(redis_store: Store, options: Any, verb: str, arguments: Any) -> int:
    """Return how many requests a query has."""
    redis_store.raw.flushdb()
    with opened_blocking(redis_store.url, **options) as tally:
        fill_blocking(tally, USERS)
        numbers: list[int] = []
        query = VERBS[verb](tally.backend.context, *arguments)
        assert run(tally, step_by_step(query, numbers.append)) == 4
    return len(numbers)


def after_forget(before: dict[str, set[Any]]) -> dict[str, set[Any]]:
    return {name: users - {ANN} for name, users in before.items()}


def after_merge(before: dict[str, set[Any]]) -> dict[str, set[Any]]:
    return {
        name: users - {ANN} | ({BOB} if ANN in users else set()) for name, users in before.items()
    }


CASES = [
    pytest.param(options, verb, arguments, after, id=f"{verb}-{name}")
    for verb, arguments, after in (
        ("forget", (ANN,), after_forget),
        ("merge", (ANN, BOB), after_merge),
    )
    for name, options in (("plain", {}), ("shards", {"shards": 16}), ("one shard", {"shards": 1}))
]


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize(("options", "verb", "arguments", "after"), CASES)
def test_a_crash_at_any_step(
    redis_store: Store, options: Any, verb: str, arguments: Any, after: Any
) -> None:
    """Either nothing has happened, or the next call, of any user, does the rest."""
    inspector = Inspector(redis_store, uuid.UUID, **options)
    count = requests_of(redis_store, options, verb, arguments)
    states = set()
    for step in range(count):
        redis_store.raw.flushdb()
        with (
            opened_blocking(redis_store.url, **options) as tally,
            opened_blocking(redis_store.url, **options) as other,
        ):
            fill_blocking(other, USERS)
            before = inspector.users(USERS)
            with pytest.raises(Crashed):
                run(tally, crashing(VERBS[verb](tally.backend.context, *arguments), step))
            in_journal = bool(inspector.journals())
            erased = ANN not in inspector.numbers(USERS).values()
            states.add((erased, in_journal))
            assert other.forget(NOBODY) == 0
            assert inspector.users(USERS) == (after(before) if erased else before)
            assert inspector.journals() == []
            # As does a repetition.
            assert getattr(other, verb)(*arguments) == (0 if erased else 4)
            assert inspector.users(USERS) == after(before)
            assert inspector.journals() == []
    assert states == {(False, False), (True, True)}


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize(("options", "verb", "arguments", "after"), CASES)
def test_a_crash_and_the_id_is_marked_again(
    redis_store: Store, options: Any, verb: str, arguments: Any, after: Any
) -> None:
    inspector = Inspector(redis_store, uuid.UUID, **options)
    for step in range(requests_of(redis_store, options, verb, arguments)):
        redis_store.raw.flushdb()
        with opened_blocking(redis_store.url, **options) as tally:
            fill_blocking(tally, USERS)
            before = inspector.users(USERS)
            with pytest.raises(Crashed):
                run(tally, crashing(VERBS[verb](tally.backend.context, *arguments), step))
            if ANN in inspector.numbers(USERS).values():
                continue
            tally.mark_unique("again", ANN)
            tally.forget(NOBODY)
            assert inspector.users(USERS) == {**after(before), "again None": {ANN}}


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize(("options", "verb", "arguments", "after"), CASES)
def test_a_lost_reply(
    redis_store: Store, options: Any, verb: str, arguments: Any, after: Any
) -> None:
    """A request that is sent again, and one that fails although it was executed."""
    inspector = Inspector(redis_store, uuid.UUID, **options)
    count = requests_of(redis_store, options, verb, arguments)
    messages, counts = [], set()
    for step in range(count):
        for fault in (repeating, losing_an_answer):
            redis_store.raw.flushdb()
            with opened_blocking(redis_store.url, **options) as tally:
                fill_blocking(tally, USERS)
                before = inspector.users(USERS)
                query = VERBS[verb](tally.backend.context, *arguments)
                if fault is repeating:
                    counts.add(run(tally, fault(query, step)))
                else:
                    with pytest.raises(StoreUnavailableError) as raised:
                        run(tally, fault(query, step))
                    messages.append(str(raised.value))
                    getattr(tally, verb)(*arguments)
                assert inspector.users(USERS) == after(before), (step, fault)
                assert inspector.journals() == []
    # A repeated clearing counts nothing; all other repetitions do not matter.
    assert 4 in counts
    assert counts <= {2, 3, 4}
    assert sum("the id is erased" in message for message in messages) >= 4
    assert sum("the id is erased" not in message for message in messages) >= 3


@pytest.mark.exhaustive
@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("shard", ["of the source", "all"])
@pytest.mark.parametrize(("options", "verb", "arguments", "after"), CASES)
def test_a_failover(
    redis_store: Store, options: Any, verb: str, arguments: Any, after: Any, shard: str
) -> None:
    """Before a request, the server loses its last writes; the query goes on with the rest.

    Only a move to another shard may lose bits, if that shard loses them when the source has
    cleared them already: for which there is the option ``replicas``.
    """
    inspector, raw = Inspector(redis_store, uuid.UUID, **options), redis_store.raw
    place = inspector.dictionary.shard(inspector.dictionary.ids.key(ANN))
    prefix = inspector.dictionary.prefixes[place].encode()
    may_lose = verb == "merge" and options == {"shards": 16} and shard == "all"
    count = requests_of(redis_store, options, verb, arguments)

    def keys() -> list[bytes]:
        found: list[bytes] = raw.keys("*")
        return [key for key in found if shard == "all" or key.startswith(prefix)]

    for step, lost in itertools.combinations(range(count), 2):
        raw.flushdb()
        with opened_blocking(redis_store.url, **options) as tally:
            fill_blocking(tally, USERS)
            before = inspector.users(USERS)
            query = VERBS[verb](tally.backend.context, *arguments)
            run(tally, step_by_step(query, losing_writes(raw, step, lost, keys)))
            tally.forget(NOBODY)
            users, wanted = inspector.users(USERS), after(before)
            if may_lose:
                assert all(users[name] <= wanted[name] for name in users), (step, lost)
                assert all(EVE in found for found in users.values())
            else:
                assert users == wanted, (step, lost)
            assert inspector.journals() == []


@pytest.mark.parametrize(
    "right", ["eval", "hget", "hkeys", "hset", "hdel", "set", "getrange", "setrange"]
)
async def test_a_missing_right(facade: Facade, redis_store: Store, right: str) -> None:
    """Nothing is changed."""
    inspector, raw = Inspector(redis_store, uuid.UUID), redis_store.raw
    async with opened(facade, redis_store.url, uuid.UUID) as tally:
        await fill(tally, USERS)
    before, numbers = inspector.users(USERS), inspector.numbers(USERS)
    raw.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", f"-{right}")
    try:
        url = redis_store.url.replace("//", "//app:secret@")
        async with opened(facade, url, uuid.UUID) as tally:
            # About a command of a script, Redis does not say which one it is.
            with pytest.raises(CommandError, match=f"(?i){right}|can't run this command"):
                await tally.forget(ANN)
    finally:
        raw.execute_command("ACL", "DELUSER", "app")
    assert inspector.users(USERS) == before
    assert inspector.numbers(USERS) == numbers
    assert inspector.journals() == []


async def test_the_rights_of_the_documentation(facade: Facade, redis_store: Store) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "connect.md").read_text()
    section = page.partition("## The rights of a Redis user")[2].partition("\n## ")[0]
    rights = set(re.findall(r"\+[a-z_@|]+", section))
    assert {"+hget", "+hkeys", "+eval"} <= rights
    raw = redis_store.raw
    async with opened(facade, redis_store.url, uuid.UUID, shards=16) as tally:
        await fill(tally, USERS)
    raw.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~trackist_*", *rights)
    try:
        url = redis_store.url.replace("//", "//app:secret@")
        async with opened(facade, url, uuid.UUID, shards=16) as tally:
            assert await tally.merge(ANN, BOB) == 4
            assert await tally.merge(BOB, NOBODY) == 4
            assert await tally.forget(NOBODY) == 4
    finally:
        raw.execute_command("ACL", "DELUSER", "app")


async def test_the_journal_is_of_another_type(facade: Facade, plain_store: Store) -> None:
    inspector = Inspector(plain_store, uuid.UUID)
    async with opened(facade, plain_store.url, uuid.UUID) as tally:
        await fill(tally, USERS)
        before = inspector.users(USERS)
        plain_store.raw.set("trackist_ids:forgetting", "x")
        with pytest.raises(CommandError):
            await tally.forget(ANN)
        plain_store.raw.delete("trackist_ids:forgetting")
        assert inspector.users(USERS) == before


async def test_keys_of_another_type_stay(facade: Facade, plain_store: Store) -> None:
    raw = plain_store.raw
    async with opened(facade, plain_store.url, uuid.UUID) as tally:
        await fill(tally, USERS)
        raw.rpush("trackist_list_2026", "x")
        raw.set("trackist_foreign", b"\xff" * 100)
        assert await tally.forget(ANN) == 4
        assert raw.lrange("trackist_list_2026", 0, -1) == [b"x"]
        assert raw.get("trackist_foreign") == b"\xff" * 100


async def test_a_stamp_that_was_evicted_stays_missing(facade: Facade, plain_store: Store) -> None:
    """It says that the dictionary is damaged. The user is forgotten nevertheless."""
    inspector = Inspector(plain_store, uuid.UUID)
    async with opened(facade, plain_store.url, uuid.UUID) as tally:
        await fill(tally, USERS)
        plain_store.raw.delete("trackist_ids:stamp")
        assert await tally.forget(ANN) == 4
        assert inspector.stamps() == {}


async def test_a_full_server_forgets(facade: Facade, redis_store: Store) -> None:
    """Redis refuses SETBIT then, whatever the value, unless a script has written before."""
    inspector, raw = Inspector(redis_store, uuid.UUID), redis_store.raw
    async with opened(facade, redis_store.url, uuid.UUID) as tally:
        await fill(tally, USERS)
        before = inspector.users(USERS)
        raw.config_set("maxmemory", 1)
        try:
            assert await tally.forget(ANN) == 4
        finally:
            raw.config_set("maxmemory", 0)
        assert ANN not in inspector.numbers(USERS).values()
        assert inspector.users(USERS) == after_forget(before)


# --- replicas, and a cluster that changes


async def test_nothing_is_erased_without_replicas(facade: Facade, redis_store: Store) -> None:
    inspector = Inspector(redis_store, uuid.UUID)
    async with opened(facade, redis_store.url, uuid.UUID) as tally:
        await fill(tally, USERS)
    before = inspector.users(USERS)
    async with opened(facade, redis_store.url, uuid.UUID, replicas=1) as tally:
        with pytest.raises(StoreUnavailableError, match="0 of the 1 replicas"):
            await tally.forget(ANN)
    assert inspector.users(USERS) == before


async def test_with_replicas(facade: Facade, cluster_store: Store) -> None:
    inspector = Inspector(cluster_store, uuid.UUID)
    async with opened(facade, cluster_store.url, uuid.UUID, replicas=1) as tally:
        await fill(tally, USERS)
        before = inspector.users(USERS)
        assert await tally.forget(ANN) == 4
        assert inspector.users(USERS) == after_forget(before)
        assert await tally.merge(EVE, NOBODY) == 4


@pytest.mark.parametrize("verb", ["forget", "merge"])
async def test_while_a_slot_moves(facade: Facade, cluster_store: Any, verb: str) -> None:
    """The call waits until all keys of the slot are at one node, and loses nothing."""
    inspector, cluster = Inspector(cluster_store, uuid.UUID), cluster_store.raw._cluster
    arguments, after = {
        "forget": ((ANN,), after_forget),
        "merge": ((ANN, BOB), after_merge),
    }[verb]
    shard = inspector.dictionary.shard(inspector.dictionary.ids.key(ANN))
    slot = key_slot(inspector.dictionary.key(shard, "stamp"))
    async with opened(ASYNC, cluster_store.url, uuid.UUID) as tally:
        await fill(tally, USERS)
    before = inspector.users(USERS)
    source = cluster.owner(slot)
    target = next(node for node in cluster.masters() if node is not source)
    try:
        async with opened(facade, cluster_store.url, uuid.UUID, timeout=0.3) as tally:
            cluster.begin_move(slot, target)
            cluster.move_keys(slot, source, target, 3)
            with pytest.raises(StoreUnavailableError):
                await getattr(tally, verb)(*arguments)
            while cluster.move_keys(slot, source, target, 10):
                pass
            cluster.end_move(slot, target)
        cluster.settle()
        async with opened(facade, cluster_store.url, uuid.UUID) as tally:
            await getattr(tally, verb)(*arguments)
            assert inspector.users(USERS) == after(before)
            assert inspector.journals() == []
    finally:
        cluster.move(slot, source)
        cluster.settle()


@pytest.mark.usefixtures("small_steps")
def test_a_slot_moves_during_the_scan(cluster_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that come to a node behind its cursor are found nevertheless."""
    monkeypatch.setattr(key_scan, "_STEP", 1)
    inspector, cluster = Inspector(cluster_store, uuid.UUID), cluster_store.raw._cluster
    shard = inspector.dictionary.shard(inspector.dictionary.ids.key(ANN))
    slot = key_slot(inspector.dictionary.key(shard, "stamp"))
    home = cluster.owner(slot)
    other = next(node for node in cluster.masters() if node is not home)
    # A cursor comes past few keys of the other node, and past many of the first one.
    for step in range(5, 21, 3):
        cluster.flush()
        with opened_blocking(cluster_store.url) as tally:
            for number in range(20):
                tally.mark_unique(f"e{number}", ANN)
                tally.mark_unique(f"e{number}", EVE)

            def move(number: int, at: int = step) -> None:
                if number == at:
                    cluster.move(slot, other)  # noqa: B023

            query = VERBS["forget"](tally.backend.context, ANN)
            run(tally, step_by_step(query, move))
            located = {}
            for node in cluster.masters():
                raw = cluster.raw(node)
                located.update(dict.fromkeys(raw.keys("*"), raw))
            monkeypatch.setattr(inspector, "located", lambda found=located: found)
            assert inspector.users(USERS) == {f"e{number} None": {EVE} for number in range(20)}
            assert inspector.journals() == []
        home, other = other, home
        cluster.settle()


# --- against a model

ids = st.sampled_from(USERS)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("mark_unique"), st.sampled_from("ab"), ids),
        st.tuples(st.just("mark_unique"), st.sampled_from("ab"), ids),
        st.tuples(st.just("unmark_unique"), st.sampled_from("ab"), ids),
        st.tuples(st.just("merge"), ids, ids).filter(lambda step: step[1] != step[2]),
        st.tuples(st.just("forget"), ids),
    ),
    max_size=25,
)


@ON_SOME_STORES
@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(program=steps)
async def test_against_sets(facade: Facade, store: Store, program: list[Any]) -> None:
    """Two tallies in turn: each has numbers cached that the other one has erased."""
    store.raw.flushdb()
    model: dict[str, set[Any]] = {}
    inspector = Inspector(store, uuid.UUID)
    async with (
        opened(facade, store.url, uuid.UUID) as first,
        opened(facade, store.url, uuid.UUID) as second,
    ):
        for at, (verb, *arguments) in enumerate(program):
            result = await getattr((first, second)[at % 2], verb)(*arguments)
            if verb in {"mark_unique", "unmark_unique"}:
                users = model.setdefault(f"{arguments[0]} None", set())
                (users.add if verb == "mark_unique" else users.discard)(arguments[1])
                continue
            having = [users for users in model.values() if arguments[0] in users]
            assert result == len(having)
            for users in having:
                users.discard(arguments[0])
                users.update(arguments[1:])
        assert inspector.users(USERS) == {name: users for name, users in model.items() if users}
        assert inspector.journals() == []
