"""The argument ``user_ids`` of both facades, and what becomes of it."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, get_origin

import pytest
import redis
import redis.asyncio

from tallymark import (
    Granularity,
    InvalidTypeError,
    InvalidValueError,
    SyncTally,
    Tally,
    Transaction,
    WrongSchemaError,
)
from tallymark import sync as tm
from tallymark._core.user_ids import id_type
from tallymark._redis import defaults

if TYPE_CHECKING:
    from collections.abc import Callable

    from facades import Facade
    from stores import Store

NOON = datetime(2026, 11, 23, 12)
TWO_EACH = dict.fromkeys(Granularity.MONTH | Granularity.WEEK | Granularity.DAY, 2)

#: Each type, and ids of it.
IDS: dict[type, list[Any]] = {
    str: ["ann", "bob", "Zoë", "7"],
    bytes: [b"ann", b"\0", b"\xff" * 1024, b"7"],
    uuid.UUID: [uuid.UUID(int=number) for number in (0, 7, 2**64, 2**128 - 1)],
    int: [0, 7, -(2**63), 2**63 - 1],
}
TYPES = pytest.mark.parametrize("kind", IDS, ids=lambda kind: kind.__name__)

WAYS = pytest.mark.parametrize("way", ["client", "from_url", "configure"])


class OurUuid(uuid.UUID):
    """A subclass, whose instances would come back as UUIDs."""


def make(facade: Facade, way: str, url: str) -> Callable[..., Any]:
    """Return a function that takes the options of a tally."""
    if way == "configure":
        return lambda **options: facade.module.configure(url, **options)
    if way == "from_url":
        return lambda **options: facade.tally.from_url(url, **options)
    kind = redis.Redis if facade.name == "sync" else redis.asyncio.Redis
    return lambda **options: facade.tally(kind.from_url(url), **options)


@WAYS
@pytest.mark.parametrize(
    "wrong",
    [OurUuid, bool, float, object, uuid.UUID(int=7), "uuid", 7, [str], str | None],
    ids=lambda wrong: str(wrong)[:20],
)
async def test_other_types_are_refused(
    facade: Facade, redis_store: Store, way: str, wrong: Any
) -> None:
    before = redis_store.raw.info("stats")["total_connections_received"]
    configured = defaults.configured()
    with pytest.raises(
        InvalidTypeError, match=r"must be str, bytes, uuid\.UUID, int or None"
    ) as ours:
        make(facade, way, redis_store.url)(user_ids=wrong)
    with pytest.raises(InvalidTypeError) as theirs:
        id_type(wrong)
    assert str(ours.value) == str(theirs.value)
    assert defaults.configured() is configured
    assert redis_store.raw.info("stats")["total_connections_received"] == before


@WAYS
@TYPES
async def test_ids_need_scripts(facade: Facade, redis_store: Store, way: str, kind: type) -> None:
    with pytest.raises(InvalidValueError, match="which user_ids needs"):
        make(facade, way, redis_store.url)(user_ids=kind, bitfield=False)


@TYPES
async def test_every_verb_takes_the_ids_and_gives_them_back(
    facade: Facade, store: Store, kind: type
) -> None:
    ids = IDS[kind]
    first, second, third, fourth = ids
    async with facade.open(store.url, user_ids=kind) as tally:
        assert await tally.mark_event("a", first, now=NOON)
        assert await tally.mark_unique("a", second)
        assert await tally.mark_many("a", [second, third, first], now=NOON) == TWO_EACH
        async with tally.transaction() as tx:
            tx.mark_event("a", fourth, now=NOON)
            tx.mark_unique("b", first)
            tx.unmark_unique("a", second)
            tx.unmark_event("a", third, now=NOON, exact=True)
        assert await tally.is_empty(tally.unique("a"))
        day = tally.day("a", NOON)
        numbers = await tally.numbers(ids)
        assert len({*numbers} - {None}) == len(ids)
        assert await tally.ids(number for number in numbers if number is not None) == ids
        assert await tally.ids([4_000_000_000]) == [None]
        found = [user async for user in tally.users(day)]
        assert {type(user) for user in found} == {kind}
        assert sorted(found, key=ids.index) == [first, second, fourth]
        assert [page async for page in tally.user_chunks(day)] == [found]
        rest = [user async for user in tally.users(day, start=found[1])]
        assert rest == found[1:]
        assert await tally.contains(day, first)
        assert not await tally.contains(day, third)
        assert await tally.contains_many(day, ids) == [True, True, False, True]
        history = await tally.history(first, ["a", "b"], NOON, NOON + timedelta(days=1))
        assert [len(periods) for periods in history.values()] == [1, 0]
        assert await tally.unmark_many("a", [second, fourth], now=NOON) == TWO_EACH
        assert [user async for user in tally.users(day)] == [first]
        assert await tally.mark_unique_many("flag", [second, third, second]) == 2
        assert await tally.unmark_unique_many("flag", iter([first, third])) == 1
        assert [user async for user in tally.users(tally.unique("flag"))] == [second]
        assert await tally.merge(first, fourth) == 4
        assert [user async for user in tally.users(day)] == [fourth]
        assert await tally.forget(fourth) == 4
        assert await tally.is_empty(day)
        assert await tally.numbers(ids) == [None, *numbers[1:3], None]


@TYPES
async def test_an_unmark_of_an_unknown_id_writes_nothing(
    facade: Facade, store: Store, kind: type
) -> None:
    first, second, *_ = IDS[kind]
    async with facade.open(store.url, user_ids=kind) as tally:
        await tally.mark_event("a", first)
        before = store.names()
        assert not await tally.unmark_event("a", second)
        assert not await tally.unmark_event("a", second, exact=True)
        assert not await tally.unmark_unique("a", second)
        await tally.unmark_many("a", [second])
        assert not await tally.unmark_unique_many("a", [second])
        assert await tally.numbers([second]) == [None]
        assert store.names() == before


#: The verbs, with one user.
CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "mark_event": lambda tally, user_id: tally.mark_event("a", user_id),
    "unmark_event": lambda tally, user_id: tally.unmark_event("a", user_id),
    "mark_unique": lambda tally, user_id: tally.mark_unique("a", user_id),
    "unmark_unique": lambda tally, user_id: tally.unmark_unique("a", user_id),
    "mark_many": lambda tally, user_id: tally.mark_many("a", [user_id]),
    "unmark_many": lambda tally, user_id: tally.unmark_many("a", [user_id]),
    "mark_unique_many": lambda tally, user_id: tally.mark_unique_many("a", [user_id]),
    "unmark_unique_many": lambda tally, user_id: tally.unmark_unique_many("a", [user_id]),
    "contains": lambda tally, user_id: tally.contains(tally.unique("a"), user_id),
    "contains_many": lambda tally, user_id: tally.contains_many(tally.unique("a"), [user_id]),
    "history": lambda tally, user_id: tally.history(user_id, "a", NOON),
    "forget": lambda tally, user_id: tally.forget(user_id),
    "merge": lambda tally, user_id: tally.merge(user_id, user_id),
    "numbers": lambda tally, user_id: tally.numbers([user_id]),
}


@TYPES
@pytest.mark.parametrize("verb", CALLS)
async def test_ids_of_another_type_are_refused(
    facade: Facade, redis_store: Store, verb: str, kind: type
) -> None:
    wrong = [None, 1.5, [], *(ids[1] for other, ids in IDS.items() if other != kind)]
    async with facade.open(redis_store.url, user_ids=kind) as tally, tally.transaction() as tx:
        for user_id in wrong:
            with pytest.raises(InvalidTypeError, match="user id must be"):
                await CALLS[verb](tally, user_id)
            if hasattr(tx, verb):
                with pytest.raises(InvalidTypeError, match="user id must be"):
                    getattr(tx, verb)("a", user_id)
    assert redis_store.raw.dbsize() == 0


async def test_without_user_ids_the_numbers_are_the_ids(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        assert await tally.numbers([7, 0, 2**32 - 1]) == [7, 0, 2**32 - 1]
        assert await tally.ids([7, 0, 2**32 - 1]) == [7, 0, 2**32 - 1]
        assert await tally.numbers(range(2)) == await tally.ids(range(2)) == [0, 1]
        await tally.mark_many("a", [3, 5])
        for start, users in ((None, [3, 5]), (0, [3, 5]), (4, [5])):
            assert [user async for user in tally.users(tally.day("a"), start=start)] == users


@TYPES
async def test_a_database_has_one_type(facade: Facade, store: Store, kind: type) -> None:
    async with facade.open(store.url, user_ids=kind) as tally:
        await tally.mark_unique("a", IDS[kind][0])
    for other in {*IDS, None} - {kind}:
        async with facade.open(store.url, user_ids=other) as tally:
            user_id = IDS[other][0] if other else 0
            with pytest.raises(WrongSchemaError):
                await tally.mark_unique("a", user_id)


@TYPES
async def test_the_default_tallies_take_the_ids(
    facade: Facade, redis_store: Store, kind: type
) -> None:
    ids = IDS[kind]
    facade.module.configure(redis_store.url, user_ids=kind)
    verbs = facade.verbs(facade.module)
    assert await verbs.mark_event("a", ids[0])
    assert await verbs.mark_unique("a", ids[1])
    assert await verbs.mark_many("a", ids)
    async with verbs.transaction() as tx:
        tx.unmark_event("a", ids[2])
    assert await verbs.unmark_unique("a", ids[1])
    async with facade.open(redis_store.url, user_ids=kind) as tally:
        assert await tally.contains_many(tally.day("a"), ids) == [True, True, False, True]
    facade.module.configure(redis_store.url)
    with pytest.raises(WrongSchemaError):
        await verbs.mark_event("a", 7)


def test_the_classes_are_generic_at_runtime() -> None:
    with SyncTally[uuid.UUID].from_url("memory://", user_ids=uuid.UUID) as tally:
        assert type(tally) is SyncTally

    class Ours(SyncTally[str]):
        """A subclass of a tally with one type of ids."""

    with Ours.from_url("memory://", user_ids=str) as ours:
        assert type(ours) is Ours
    assert type(tm.current_tally()) is SyncTally
    assert [get_origin(kind) for kind in (Tally[str], Transaction[str])] == [Tally, Transaction]
