"""`merge` with ids of any type: the source's id is erased, and the target has all bits."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from erasures import (
    ANN,
    BOB,
    DAY,
    EVE,
    IDS,
    LAYOUTS,
    NOBODY,
    USERS,
    VERBS,
    Crashed,
    Inspector,
    Stepper,
    crashing,
    fill,
    fill_blocking,
    opened,
    opened_blocking,
    run,
    step_by_step,
)

from tallymark import InvalidTypeError, InvalidValueError, WrongKeyTypeError, WrongSchemaError

if TYPE_CHECKING:
    from facades import Facade
    from stores import Store

EVERYBODY = [*USERS, NOBODY]


def dumped(store: Any) -> dict[bytes, bytes]:
    """Return everything in a store."""
    return {key: store.raw.dump(key) for key in store.raw.keys("*")}


def merged(bitmaps: dict[str, set[Any]], source: Any, target: Any) -> dict[str, set[Any]]:
    """Return the users of bitmaps after a merge."""
    return {
        name: users - {source} | ({target} if source in users else set())
        for name, users in bitmaps.items()
    }


# --- what it does


@pytest.mark.parametrize("kind", IDS)
async def test_all_bits_move(facade: Facade, store: Store, kind: type) -> None:
    ann, bob, eve, nobody = users = IDS[kind]
    inspector = Inspector(store, kind)
    async with opened(facade, store.url, kind) as tally:
        await fill(tally, users)
        before, stamps = inspector.users(users), inspector.stamps()
        assert await tally.merge(ann, bob) == 4
        after = merged(before, ann, bob)
        assert inspector.users(users) == after
        assert set(inspector.numbers(users).values()) == {bob, eve}
        assert inspector.stamps() != stamps
        assert inspector.journals() == []
        assert await tally.merge(ann, bob) == 0
        assert inspector.users(users) == after
        # The target is a new user.
        assert await tally.merge(bob, nobody) == 4
        assert inspector.users(users) == merged(after, bob, nobody)
        # A source that is marked again has other bits.
        await tally.mark_unique("more", ann)
        assert await tally.merge(ann, nobody) == 1
        assert inspector.users(users) == {**merged(after, bob, nobody), "more None": {nobody}}


@pytest.mark.parametrize("options", LAYOUTS)
async def test_an_unknown_source(facade: Facade, plain_store: Store, options: Any) -> None:
    """Nothing is written, and the target gets no number."""
    async with opened(facade, plain_store.url, uuid.UUID, **options) as tally:
        await tally.mark_unique("active", ANN)
        before = dumped(plain_store)
        assert await tally.merge(NOBODY, ANN) == 0
        assert await tally.merge(NOBODY, BOB) == 0
        assert dumped(plain_store) == before


async def test_wrong_arguments(facade: Facade, redis_store: Store) -> None:
    async with opened(facade, redis_store.url, uuid.UUID) as tally:
        with pytest.raises(InvalidValueError, match="different users"):
            await tally.merge(ANN, uuid.UUID(int=ANN.int))
        for pair in ((ANN, 7), ("ann", BOB)):
            with pytest.raises(InvalidTypeError):
                await tally.merge(*pair)
    assert redis_store.names() == set()


@pytest.mark.parametrize("options", LAYOUTS)
async def test_no_trace_of_the_source(redis_store: Store, facade: Facade, options: Any) -> None:
    inspector = Inspector(redis_store, str, **options)
    source, target = "visitor-" + "x" * 50, "user-" + "y" * 50
    _, field, encoded = inspector.dictionary.entry(source)
    redis_store.raw.config_set("rdbcompression", "no")
    try:
        async with opened(facade, redis_store.url, str, **options) as tally:
            await tally.mark_event("active", source)
            assert inspector.has_bytes(field)
            assert inspector.has_bytes(encoded)
            assert await tally.merge(source, target) == 3
            assert not inspector.has_bytes(field)
            assert not inspector.has_bytes(encoded)
            assert inspector.has_bytes(target.encode())
            assert await tally.forget(target) == 3
            assert not inspector.has_bytes(target.encode())
    finally:
        redis_store.raw.config_set("rdbcompression", "yes")


@pytest.mark.parametrize("options", [*LAYOUTS, {"shards": 1}])
async def test_expiries_are_kept(facade: Facade, plain_store: Store, options: Any) -> None:
    raw = plain_store.raw
    expire = {"day": timedelta(days=30), "month": timedelta(days=90)}
    inspector = Inspector(plain_store, uuid.UUID, **options)

    def ends() -> dict[str, int | None]:
        found: dict[str, int | None] = {}
        for key in raw.keys("*"):
            if b"ids:" not in key and not key.endswith(b"schema"):
                name = "{} {}".format(*inspector.schema.located(key)[1:])
                ttl = raw.pttl(key)
                end = None if ttl == -1 else round(time.time() + ttl / 1000)
                assert found.setdefault(name, end) == end
        return found

    async with opened(facade, plain_store.url, uuid.UUID, expire=expire, **options) as tally:
        await tally.mark_event("active", ANN, track_unique=True)
        before = ends()
        assert sum(end is not None for end in before.values()) == 2
        assert await tally.merge(ANN, BOB) == 4
        assert ends() == before


def numbers_of(inspector: Inspector) -> int:
    return len(inspector.numbers(EVERYBODY))


async def test_all_numbers_are_given(facade: Facade, plain_store: Store) -> None:
    """Nothing is erased, since the target can have no number."""
    inspector = Inspector(plain_store, uuid.UUID)
    async with opened(facade, plain_store.url, uuid.UUID, max_user_id=2) as tally:
        await fill(tally, USERS)
        before = dumped(plain_store)
        with pytest.raises(InvalidValueError, match="max_user_id"):
            await tally.merge(ANN, NOBODY)
        assert dumped(plain_store) == before
        assert numbers_of(inspector) == 3


async def test_the_stamp_was_evicted(facade: Facade, plain_store: Store) -> None:
    async with opened(facade, plain_store.url, uuid.UUID) as tally:
        await fill(tally, USERS)
        plain_store.raw.delete("trackist_ids:stamp")
        before = dumped(plain_store)
        with pytest.raises(WrongSchemaError):
            await tally.merge(ANN, NOBODY)
        assert dumped(plain_store) == before


@pytest.mark.parametrize("kind", [uuid.UUID, str])
async def test_the_target_begins_a_block(facade: Facade, plain_store: Store, kind: type) -> None:
    """A new block of reverse records is as one that a mark has begun."""
    inspector = Inspector(plain_store, kind)
    ann, bob, _, nobody = IDS[kind]
    block = inspector.dictionary.block
    async with opened(facade, plain_store.url, kind) as tally:
        await tally.mark_unique("active", ann)
        plain_store.raw.set("trackist_ids:next", block)
        assert await tally.merge(ann, bob) == 1
        assert inspector.numbers([bob]) == {(0, block): bob}
        if kind is uuid.UUID:
            assert plain_store.raw.strlen("trackist_ids:r:1") == 16 * block
        await tally.mark_unique("active", nobody)
        assert inspector.numbers([bob, nobody]) == {(0, block): bob, (0, block + 1): nobody}


# --- keys of another type


def taken_key(inspector: Inspector, user_id: uuid.UUID) -> str:
    shard = inspector.dictionary.shard(user_id.int)
    return f"{inspector.dictionary.prefixes[shard]}active_2026-11"


async def test_a_key_of_the_targets_shard_holds_something_else(
    facade: Facade, plain_store: Store
) -> None:
    """All other bits move; the rest stays in the journal, and moves later."""
    inspector = Inspector(plain_store, uuid.UUID, shards=16)
    taken = taken_key(inspector, BOB)
    async with opened(facade, plain_store.url, uuid.UUID, shards=16) as tally:
        await tally.mark_event("active", ANN, now=DAY, track_unique=True)
        plain_store.raw.rpush(taken, "x")
        with pytest.raises(WrongKeyTypeError) as raised:
            await tally.merge(ANN, BOB)
        assert taken in str(raised.value)
        assert "1 bits stay where they are, 3 others were moved" in str(raised.value)
        # Others are not affected; a repetition fails again.
        assert await tally.forget(NOBODY) == 0
        with pytest.raises(WrongKeyTypeError):
            await tally.merge(ANN, BOB)
        plain_store.raw.delete(taken)
        assert await tally.merge(ANN, BOB) == 0
        assert inspector.journals() == []
        assert set(map(frozenset, inspector.users(EVERYBODY).values())) == {frozenset([BOB])}
        assert await tally.forget(BOB) == 4


async def test_the_target_of_a_rest_is_forgotten(facade: Facade, plain_store: Store) -> None:
    inspector = Inspector(plain_store, uuid.UUID, shards=16)
    async with opened(facade, plain_store.url, uuid.UUID, shards=16) as tally:
        await tally.mark_event("active", ANN, now=DAY)
        plain_store.raw.rpush(taken_key(inspector, BOB), "x")
        with pytest.raises(WrongKeyTypeError):
            await tally.merge(ANN, BOB)
        assert await tally.forget(BOB) == 2
        assert inspector.users(EVERYBODY) == {}
        assert inspector.journals() == []


# --- a merge that has crashed, and the next call about its target


@pytest.mark.parametrize("options", LAYOUTS)
@pytest.mark.parametrize(
    ("verb", "arguments", "heir"),
    [
        ("forget", (BOB,), None),
        ("merge", (BOB, EVE), EVE),
        ("merge", (BOB, NOBODY), NOBODY),
        ("merge", (BOB, ANN), ANN),  # which is a new user
        ("merge", (ANN, EVE), BOB),  # ANN is unknown
        ("forget", (ANN,), BOB),
    ],
)
def test_a_crashed_merge_follows_its_target(
    redis_store: Store, options: Any, verb: str, arguments: Any, heir: Any
) -> None:
    inspector = Inspector(redis_store, uuid.UUID, **options)
    tried = 0
    for step in range(100):
        redis_store.raw.flushdb()
        with opened_blocking(redis_store.url, **options) as tally:
            fill_blocking(tally, USERS)
            before = inspector.users(USERS)
            try:
                run(tally, crashing(VERBS["merge"](tally.backend.context, ANN, BOB), step))
            except Crashed:
                pass
            else:
                break
            if not inspector.journals():
                continue
            tried += 1
            getattr(tally, verb)(*arguments)
            wanted = {name: users - {ANN, BOB} for name, users in before.items()}
            if heir is not None:
                wanted = {name: users | {heir} for name, users in wanted.items()}
            assert inspector.users(EVERYBODY) == wanted
            assert inspector.journals() == []
    assert tried >= 4


# --- concurrency

CALLS = {
    "forget the source": ("forget", (ANN,)),
    "forget the target": ("forget", (BOB,)),
    "forget another": ("forget", (EVE,)),
    "the same": ("merge", (ANN, BOB)),
    "another target": ("merge", (ANN, EVE)),
    "the target is merged": ("merge", (BOB, NOBODY)),
    "the other way": ("merge", (BOB, ANN)),
    "the target of others": ("merge", (EVE, BOB)),
    "the source is marked": ("mark_unique", ("more", ANN)),
    "the target is marked": ("mark_unique", ("more", BOB)),
}


@pytest.mark.parametrize("options", LAYOUTS)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("verb", ["forget", "merge"])
def test_another_call_at_any_step(redis_store: Store, options: Any, verb: str, call: str) -> None:
    """Between any two requests of a query, another tally does something else.

    Nobody else has a bit, no bit is of nobody, and only those who are forgotten lose theirs.
    """
    inspector = Inspector(redis_store, uuid.UUID, **options)
    other_verb, arguments = CALLS[call]
    own = {"forget": (ANN,), "merge": (ANN, BOB)}[verb]
    for step in itertools.count():
        redis_store.raw.flushdb()
        numbers: list[int] = []
        with (
            opened_blocking(redis_store.url, **options) as tally,
            opened_blocking(redis_store.url, **options) as other,
        ):
            fill_blocking(other, USERS)
            before = inspector.users(USERS)

            def interfere(
                number: int, at: int = step, seen: Any = numbers, by: Any = other
            ) -> None:
                seen.append(number)
                if number == at:
                    getattr(by, other_verb)(*arguments)

            run(tally, step_by_step(VERBS[verb](tally.backend.context, *own), interfere))
            if step not in numbers:
                break
            found = inspector.users(EVERYBODY)
            assert inspector.journals() == []
            everybody = set().union(*found.values())
            assert everybody <= set(EVERYBODY), (step, everybody)
            if "forget" not in {verb, other_verb}:
                # Nothing is lost: each bitmap has as many users as the bits of all allow.
                for name in before:
                    assert found[name], (step, name)
                    if call not in {"another target", "the target of others"}:
                        assert EVE in found[name], (step, name)
                        assert found[name] - {EVE}, (step, name)
            if other_verb == "mark_unique":
                assert found.get("more None", set()) <= {ANN, BOB}
                assert len(found.get("more None", ())) == 1 or verb == "forget"
            if (other_verb, arguments) != ("forget", (EVE,)) and call not in {
                "another target",
                "the target of others",
            }:
                assert all(EVE in found[name] for name in before), step
    assert step > 5  # pyright: ignore[reportPossiblyUnboundVariable]


@pytest.mark.exhaustive
@pytest.mark.parametrize("options", LAYOUTS)
@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("forget", (ANN,)),
        ("forget", (BOB,)),
        ("merge", (ANN, BOB)),
        ("merge", (BOB, ANN)),
        ("merge", (BOB, NOBODY)),
    ],
)
def test_two_queries_by_turns(redis_store: Store, options: Any, verb: str, arguments: Any) -> None:
    """A merge runs up to any request, then another query up to any; then both end."""
    inspector = Inspector(redis_store, uuid.UUID, **options)
    with opened_blocking(redis_store.url, **options) as tally:
        for first, second in itertools.product(range(11), range(9)):
            redis_store.raw.flushdb()
            fill_blocking(tally, USERS)
            names = set(inspector.users(USERS))
            merge = Stepper(tally, VERBS["merge"](tally.backend.context, ANN, BOB))
            other = Stepper(tally, VERBS[verb](tally.backend.context, *arguments))
            merge.step(first)
            other.step(second)
            merge.step(100)
            other.step(100)
            assert not merge.has_more
            assert not other.has_more
            found = inspector.users(EVERYBODY)
            assert set().union(*found.values()) <= set(EVERYBODY), (first, second)
            assert all(EVE in found[name] for name in names)
            if verb == "merge":  # no bit is lost
                assert all(len(found[name]) >= 2 for name in names), (first, second)
            assert inspector.journals() == []


@pytest.mark.parametrize("options", LAYOUTS)
async def test_merges_of_one_source_at_once(
    facade: Facade, redis_store: Store, options: Any
) -> None:
    inspector = Inspector(redis_store, uuid.UUID, **options)
    async with opened(facade, redis_store.url, uuid.UUID, **options) as tally:
        await fill(tally, USERS)
        before = inspector.users(USERS)
        counts = await asyncio.gather(*(tally.merge(ANN, BOB) for _ in range(8)))
        assert sum(counts) <= 4
        assert inspector.users(USERS) == merged(before, ANN, BOB)
        assert inspector.journals() == []


@pytest.mark.parametrize("options", LAYOUTS)
async def test_marks_of_the_source_meanwhile(
    facade: Facade, redis_store: Store, options: Any
) -> None:
    """By a tally that has the source's number cached. Each mark is the source's or the target's."""
    inspector = Inspector(redis_store, uuid.UUID, **options)
    async with (
        opened(facade, redis_store.url, uuid.UUID, **options) as tally,
        opened(facade, redis_store.url, uuid.UUID, **options) as other,
    ):
        await other.mark_unique("active", ANN)
        marks = 0

        async def mark() -> None:
            nonlocal marks
            for marks in range(200):
                await other.mark_unique(f"e{marks}", ANN)
                await asyncio.sleep(0)

        marking = asyncio.create_task(mark())
        while not marking.done():
            await tally.merge(ANN, BOB)
            await asyncio.sleep(0)
        await tally.merge(ANN, BOB)
        found = inspector.users([ANN, BOB])
        assert found == {name: {BOB} for name in found}
        assert len(found) == 201
