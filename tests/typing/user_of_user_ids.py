"""What a user's type checker sees of the types of ids. Checked by mypy and pyright, never run."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from datetime import date
from typing import TYPE_CHECKING, Any

from typing_extensions import Self, assert_type

import tallymark
from tallymark import (
    Batch,
    EventSet,
    Granularity,
    PendingMark,
    Period,
    SyncTally,
    Tally,
    Transaction,
)
from tallymark import sync as tm

if TYPE_CHECKING:
    import redis
    import redis.asyncio

URL = "redis://localhost"


def made_with_a_client(client: redis.asyncio.Redis, blocking: redis.Redis) -> None:
    assert_type(Tally(client), Tally[int])
    assert_type(Tally(client), Tally)
    assert_type(Tally(client, user_ids=None, shards=64), Tally[int])
    assert_type(Tally(client, user_ids=int), Tally[int])
    assert_type(Tally(client, user_ids=str, max_cached_ids=10), Tally[str])
    assert_type(Tally(client, user_ids=bytes), Tally[bytes])
    assert_type(Tally(client, user_ids=uuid.UUID), Tally[uuid.UUID])
    assert_type(SyncTally(blocking), SyncTally[int])
    assert_type(SyncTally(blocking), SyncTally)
    assert_type(SyncTally(blocking, user_ids=None, shards=64), SyncTally[int])
    assert_type(SyncTally(blocking, user_ids=int), SyncTally[int])
    assert_type(SyncTally(blocking, user_ids=str, max_cached_ids=10), SyncTally[str])
    assert_type(SyncTally(blocking, user_ids=bytes), SyncTally[bytes])
    assert_type(SyncTally(blocking, user_ids=uuid.UUID), SyncTally[uuid.UUID])


async def made_from_a_url() -> None:
    async with Tally.from_url(URL) as tally:
        assert_type(tally, Tally[int])
    async with Tally.from_url(URL, user_ids=uuid.UUID, timeout=1) as uuids:
        assert_type(uuids, Tally[uuid.UUID])
    assert_type(Tally.from_url(URL, user_ids=None), Tally[int])
    assert_type(Tally.from_url(URL, user_ids=int), Tally[int])
    assert_type(Tally.from_url(URL, user_ids=str), Tally[str])
    assert_type(Tally.from_url(URL, user_ids=bytes), Tally[bytes])
    with SyncTally.from_url(URL) as blocking:
        assert_type(blocking, SyncTally[int])
    with SyncTally.from_url(URL, user_ids=uuid.UUID, timeout=1) as blocking_uuids:
        assert_type(blocking_uuids, SyncTally[uuid.UUID])
    assert_type(SyncTally.from_url(URL, user_ids=None), SyncTally[int])
    assert_type(SyncTally.from_url(URL, user_ids=int), SyncTally[int])
    assert_type(SyncTally.from_url(URL, user_ids=str), SyncTally[str])
    assert_type(SyncTally.from_url(URL, user_ids=bytes), SyncTally[bytes])
    declared: Tally[uuid.UUID] = Tally.from_url(URL, user_ids=uuid.UUID)
    assert_type(declared, Tally[uuid.UUID])


def other_types(client: redis.asyncio.Redis, blocking: redis.Redis) -> None:
    Tally(client, user_ids=float)  # type: ignore[type-var]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Tally(client, user_ids="uuid")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Tally.from_url(URL, user_ids=float)  # type: ignore[type-var]  # pyright: ignore[reportCallIssue, reportArgumentType]
    SyncTally(blocking, user_ids=float)  # type: ignore[type-var]  # pyright: ignore[reportCallIssue, reportArgumentType]
    SyncTally.from_url(URL, user_ids="uuid")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    tallymark.configure(URL, user_ids=float)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    declared: Tally[uuid.UUID] = Tally(client)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(declared)


async def async_uuids(
    tally: Tally[uuid.UUID], user: uuid.UUID, event_set: EventSet, stream: AsyncIterator[uuid.UUID]
) -> None:
    assert_type(await tally.mark_event("active", user), Granularity)
    assert_type(await tally.unmark_event("active", user, exact=True), Granularity)
    assert_type(await tally.mark_unique("premium", user), Granularity)
    assert_type(await tally.unmark_unique("premium", user), Granularity)
    assert_type(await tally.mark_many("active", [user]), dict[Granularity, int])
    assert_type(await tally.mark_many("active", stream), dict[Granularity, int])
    assert_type(await tally.unmark_many("active", {user}), dict[Granularity, int])
    assert_type(await tally.mark_rows([("active", user, date.min)]), dict[Granularity, int])
    assert_type(await tally.mark_unique_many("premium", stream), int)
    assert_type(await tally.unmark_unique_many("premium", {user}), int)
    async with tally.transaction() as tx:
        assert_type(tx, Transaction[uuid.UUID])
        assert_type(tx.mark_event("signup", user), PendingMark)
        assert_type(tx.unmark_event("signup", user), PendingMark)
        assert_type(tx.mark_unique("trial", user), PendingMark)
        assert_type(tx.unmark_unique("trial", user), PendingMark)
        tx.mark_event("signup", 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await tally.contains(event_set, user), bool)
    assert_type(await tally.contains_many(event_set, [user]), list[bool])
    assert_type(tally.users(event_set), AsyncGenerator[uuid.UUID, None])
    assert_type([found async for found in tally.users(event_set, start=user)], list[uuid.UUID])
    assert_type([page async for page in tally.user_chunks(event_set)], list[list[uuid.UUID]])
    assert_type(await tally.history(user, "active", date.min), dict[str, list[Period]])
    assert_type(await tally.forget(user), int)
    assert_type(await tally.merge(user, user), int)
    assert_type([batch async for batch in tally.export()], list[Batch[uuid.UUID]])
    assert_type(await tally.numbers([user]), "list[int | None]")
    assert_type(await tally.ids([1, 2]), "list[uuid.UUID | None]")


async def wrong_async_ids(tally: Tally[uuid.UUID], event_set: EventSet) -> None:
    await tally.mark_event("active", 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await tally.unmark_event("active", "7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await tally.mark_unique("premium", b"7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await tally.unmark_unique("premium", 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await tally.mark_many("active", [7])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    await tally.mark_rows([("active", 7, date.min)])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    await tally.unmark_many("active", range(7))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await tally.mark_unique_many("premium", [7])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    await tally.contains(event_set, 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await tally.contains_many(event_set, range(7))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tally.users(event_set, start=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tally.user_chunks(event_set, start=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await tally.history(7, "active", date.min)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await tally.forget(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await tally.merge(7, uuid.UUID(int=8))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await tally.numbers([7])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    await tally.ids([uuid.UUID(int=8)])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


def blocking_strs(tally: SyncTally[str], event_set: EventSet) -> None:
    assert_type(tally.mark_event("active", "ann"), Granularity)
    assert_type(tally.unmark_event("active", "ann", exact=True), Granularity)
    assert_type(tally.mark_unique("premium", "ann"), Granularity)
    assert_type(tally.unmark_unique("premium", "ann"), Granularity)
    assert_type(tally.mark_many("active", ["ann"]), dict[Granularity, int])
    assert_type(tally.unmark_many("active", {"ann"}), dict[Granularity, int])
    with tally.transaction() as tx:
        assert_type(tx, Transaction[str])
        assert_type(tx.mark_event("signup", "ann"), PendingMark)
        tx.mark_event("signup", 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(tally.contains(event_set, "ann"), bool)
    assert_type(tally.contains_many(event_set, ["ann"]), list[bool])
    assert_type(tally.users(event_set, start="ann"), Iterator[str])
    assert_type(tally.user_chunks(event_set), Iterator[list[str]])
    assert_type(tally.history("ann", "active", date.min), dict[str, list[Period]])
    assert_type(tally.forget("ann"), int)
    assert_type(tally.merge("ann", "bob"), int)
    assert_type(next(tally.export()).ids(), list[str])
    assert_type(tally.numbers(["ann"]), "list[int | None]")
    assert_type(tally.ids([1, 2]), "list[str | None]")


def wrong_blocking_ids(tally: SyncTally[str], event_set: EventSet) -> None:
    tally.mark_event("active", 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tally.unmark_event("active", b"7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tally.mark_unique("premium", 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tally.unmark_unique("premium", 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tally.mark_many("active", [7])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    tally.unmark_many("active", [7])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    tally.contains(event_set, 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tally.contains_many(event_set, range(7))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tally.users(event_set, start=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tally.user_chunks(event_set, start=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tally.history(7, "active", date.min)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tally.forget(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tally.merge("ann", 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tally.numbers([7])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


async def the_other_types(
    event_set: EventSet,
    ints: Tally[int],
    strs: Tally[str],
    raws: Tally[bytes],
    blocking: SyncTally,
    blocking_raws: SyncTally[bytes],
    blocking_uuids: SyncTally[uuid.UUID],
) -> None:
    await ints.mark_event("active", -(2**63))
    await ints.mark_event("active", "7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(ints.users(event_set), AsyncGenerator[int, None])
    assert_type(await ints.contains_many(event_set, range(7)), list[bool])
    await strs.mark_event("active", "ann")
    await strs.mark_event("active", b"ann")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(strs.users(event_set), AsyncGenerator[str, None])
    assert_type(await strs.contains_many(event_set, ["ann"]), list[bool])
    await raws.mark_event("active", b"ann")
    await raws.mark_event("active", "ann")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(raws.users(event_set), AsyncGenerator[bytes, None])
    assert_type(await raws.contains_many(event_set, [b"ann"]), list[bool])
    blocking.mark_event("active", 7)
    blocking.mark_event("active", "7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(blocking.users(event_set, start=0), Iterator[int])
    assert_type(blocking.contains_many(event_set, range(7)), list[bool])
    blocking_raws.mark_event("active", b"ann")
    blocking_raws.mark_event("active", "ann")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(blocking_raws.users(event_set), Iterator[bytes])
    assert_type(blocking_raws.contains_many(event_set, [b"ann"]), list[bool])
    blocking_uuids.mark_event("active", uuid.UUID(int=7))
    blocking_uuids.mark_event("active", 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(blocking_uuids.users(event_set), Iterator[uuid.UUID])
    assert_type(blocking_uuids.contains_many(event_set, [uuid.UUID(int=7)]), list[bool])


class Ours(Tally):
    """Of bit offsets."""


class OurUuids(Tally[uuid.UUID]):
    """Of one type of ids."""

    @classmethod
    def made(cls) -> Self:
        return cls.from_url(URL, user_ids=uuid.UUID)


class OurBlockingUuids(SyncTally[uuid.UUID]):
    """Of one type of ids, with a constructor of its own."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client, user_ids=uuid.UUID)


def subclasses(client: redis.asyncio.Redis, blocking: redis.Redis) -> None:
    assert_type(Ours(client), Ours)
    assert_type(Ours.from_url(URL), Ours)
    Ours(client, user_ids=str)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    assert_type(OurUuids(client, user_ids=uuid.UUID), OurUuids)
    assert_type(OurUuids.from_url(URL, user_ids=uuid.UUID), OurUuids)
    assert_type(OurUuids.made(), OurUuids)
    OurUuids(client)  # pyright: ignore[reportCallIssue]
    assert_type(OurBlockingUuids(blocking), OurBlockingUuids)
    assert_type(OurBlockingUuids(blocking).users(any_set()), Iterator[uuid.UUID])


def any_set() -> EventSet:
    return SyncTally.from_url(URL).unique("premium")


async def default_tally(user: uuid.UUID, stream: AsyncIterator[str]) -> None:
    tallymark.configure(URL, user_ids=uuid.UUID)
    tm.configure(user_ids=None, shards=16)
    assert_type(await tallymark.mark_event("active", user), Granularity)
    assert_type(await tallymark.unmark_event("active", "ann"), Granularity)
    assert_type(await tallymark.mark_unique("active", b"ann"), Granularity)
    assert_type(await tallymark.mark_many("active", stream), dict[Granularity, int])
    assert_type(tm.mark_event("active", user), Granularity)
    assert_type(tm.unmark_unique("active", "ann"), Granularity)
    assert_type(tm.unmark_many("active", [user]), dict[Granularity, int])
    assert_type(await tallymark.current_tally(), Tally[Any])
    assert_type(tm.current_tally(), SyncTally[Any])
    async with tallymark.transaction() as tx:
        tx.mark_event("active", user)
    with tm.transaction() as tx:
        tx.mark_event("active", "ann")
    await tallymark.mark_event("active", 1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tm.mark_unique("active", None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
