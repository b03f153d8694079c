"""Export and restore: all bitmaps are equal afterwards, in whatever database."""

from __future__ import annotations

import uuid
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facades import ON_SOME_STORES, Facade
from stores import offsets
from tallymark import Batch, Granularity, Period, SyncTally
from tallymark._core.batches import ORDER

if TYPE_CHECKING:
    from stores import Store

NOON = datetime(2026, 1, 5, 13, 30)
HIGHEST = 100_000


def bitmaps(store: Store, prefix: str) -> dict[str, set[int]]:
    """Return the users of all bitmaps of a plain database, read without tallymark."""
    found: dict[str, set[int]] = {}
    for key, value in store.values().items():
        name = key.decode()
        if name.startswith(prefix) and isinstance(value, bytes):
            found[name.removeprefix(prefix)] = offsets(value)
    return {name: users for name, users in found.items() if users}


async def all_batches(tally: Any) -> list[Batch[Any]]:
    return [batch async for batch in tally.export()]


async def users_by_bitmap(tally: Any) -> dict[tuple[Any, ...], set[Any]]:
    found: dict[tuple[Any, ...], set[Any]] = {}
    for batch in await all_batches(tally):
        name = batch.event, batch.granularity, batch.period
        found.setdefault(name, set()).update(batch.ids())
    return found


async def fill(tally: Any, ids: list[Any]) -> None:
    """Mark users, and delete a day whose week and month stay."""
    for number, user_id in enumerate(ids):
        await tally.mark_event(
            "active", user_id, now=NOON + timedelta(hours=5 * number), track_hourly=number % 2 == 0
        )
        await tally.mark_unique('ü, "premium"', user_id)
    await tally.mark_many("order", ids, now=NOON)
    await tally.delete(tally.day("order", NOON))


@ON_SOME_STORES
async def test_another_prefix_bit_for_bit(facade: Facade, store: Store) -> None:
    ids = [*range(0, 900, 7), 70_000, HIGHEST]
    async with (
        facade.open(store.url, track_yearly=True) as old,
        facade.open(store.url, prefix="copy:") as new,
    ):
        await fill(old, ids)
        counts = await new.restore(await all_batches(old))
        assert set(counts) == set(ORDER)
        assert counts[Granularity.UNIQUE] == len(ids)
        assert counts[Granularity.WEEK] > len(ids)
        wanted = await users_by_bitmap(old)
        assert ("order", Granularity.WEEK, Period.containing(Granularity.WEEK, NOON)) in wanted
        assert ("order", Granularity.DAY, Period.containing(Granularity.DAY, NOON)) not in wanted
        assert await users_by_bitmap(new) == wanted
        assert await new.restore(await all_batches(old)) == dict.fromkeys(counts, 0)
    # The values themselves, without trailing zeros.
    values = {
        key.replace(b"copy:", b"trackist_"): value.rstrip(b"\0")
        for key, value in store.values().items()
        if isinstance(value, bytes) and key.startswith(b"copy:") and not key.endswith(b"schema")
    }
    olds = {
        key: value.rstrip(b"\0")
        for key, value in store.values().items()
        if isinstance(value, bytes) and key.startswith(b"trackist_") and not key.endswith(b"schema")
    }
    assert values == olds
    assert len(values) > 50


@pytest.mark.parametrize("shards", [1, 3, 16])
async def test_another_number_of_shards_and_back(
    facade: Facade, plain_store: Store, shards: int
) -> None:
    ids = [*range(0, 900, 7), 70_000, HIGHEST]
    async with (
        facade.open(plain_store.url, track_yearly=True) as old,
        facade.open(plain_store.url, prefix="many:", shards=shards) as many,
        facade.open(plain_store.url, prefix="back:") as back,
    ):
        await fill(old, ids)
        await many.restore(await all_batches(old))
        assert await users_by_bitmap(many) == await users_by_bitmap(old)
        await back.restore(await all_batches(many))
    assert bitmaps(plain_store, "back:") == bitmaps(plain_store, "trackist_")


IDS: dict[type, list[Any]] = {
    str: [f"user-{number}" for number in range(50)] + ["ü", "\x00", "a,b"],
    bytes: [bytes([number, 255]) for number in range(50)],
    uuid.UUID: [uuid.UUID(int=number * 10**30) for number in range(50)],
    int: [*range(-25, 25), 2**63 - 1, -(2**63)],
}


@ON_SOME_STORES
@pytest.mark.parametrize("kind", IDS)
async def test_mapped_ids(facade: Facade, store: Store, kind: type) -> None:
    async with (
        facade.open(store.url, user_ids=kind) as old,
        facade.open(store.url, user_ids=kind, prefix="copy:") as new,
    ):
        await new.mark_unique("other", IDS[kind][-1])  # so that the numbers differ
        await fill(old, IDS[kind])
        await new.restore(await all_batches(old))
        await new.delete(new.unique("other"))
        assert await users_by_bitmap(new) == await users_by_bitmap(old)


@pytest.mark.parametrize(
    ("old", "new", "ids"),
    [
        (None, str, [0, 7, 123_456]),
        (None, int, [0, 7, 123_456]),
        (int, None, [0, 7, 123_456]),
        (int, str, [-1, 2**62]),
        (uuid.UUID, str, [uuid.UUID(int=5), uuid.UUID(int=2**100)]),
        (bytes, str, [b"\x00\xff", b"abc"]),
    ],
)
def test_other_types_of_ids_and_back(old: Any, new: Any, ids: list[Any]) -> None:
    with (
        SyncTally.from_url("memory://", user_ids=old) as first,
        SyncTally.from_url("memory://", user_ids=new) as second,
        SyncTally.from_url("memory://", user_ids=old) as third,
    ):
        first.mark_many("a", ids, now=NOON)
        counts = second.restore(first.export())
        assert counts == dict.fromkeys(
            (Granularity.DAY, Granularity.WEEK, Granularity.MONTH), len(ids)
        )
        third.restore(second.export())
        (batch,) = third.export(granularities="day")
        assert set(batch.ids()) == set(ids)


# --- against a model

names = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=8)
moments = st.datetimes(datetime(2020, 1, 1), datetime(2027, 1, 1))
users = st.lists(st.integers(0, HIGHEST), min_size=1, max_size=30)
contents = st.lists(st.tuples(names, st.sampled_from(ORDER), moments, users), max_size=12)


@settings(max_examples=40)
@given(contents, st.sampled_from([None, 1, 2, 5]), st.sampled_from([None, 1, 16]), st.booleans())
def test_any_bitmaps(
    content: list[Any], old_shards: int | None, new_shards: int | None, as_rows: bool
) -> None:
    """Bitmaps of any granularity that do not fit together, as if others had expired."""
    wanted: dict[tuple[Any, ...], set[int]] = {}
    for name, granularity, moment, ids in content:
        period = (
            None if granularity is Granularity.UNIQUE else Period.containing(granularity, moment)
        )
        wanted.setdefault((name, granularity, period), set()).update(ids)
    with (
        SyncTally.from_url("memory://", shards=old_shards) as old,
        SyncTally.from_url("memory://", shards=new_shards, prefix="x") as new,
    ):
        counts = old.restore(
            Batch(name, granularity, period, list(ids))
            for (name, granularity, period), ids in wanted.items()
        )
        assert sum(counts.values()) == sum(map(len, wanted.values()))
        batches = list(old.export())
        assert [(batch.event, ORDER.index(batch.granularity)) for batch in batches] == sorted(
            (batch.event, ORDER.index(batch.granularity)) for batch in batches
        )
        new.restore([row for batch in batches for row in batch.to_rows()] if as_rows else batches)
        found = {
            (batch.event, batch.granularity, batch.period): set(batch.ids())
            for batch in new.export()
        }
    assert found == wanted


def test_a_whole_year_in_days_weeks_and_months() -> None:
    """What marks make, and no more: the counts of the copy are those of the original."""
    with (
        SyncTally.from_url("memory://") as old,
        SyncTally.from_url("memory://", prefix="x") as new,
    ):
        for day in range(0, 365, 5):
            old.mark_many("a", range(day, day + 40), now=date(2025, 1, 1) + timedelta(days=day))
        new.restore(old.export())
        for month in range(1, 13):
            moment = date(2025, month, 1)
            assert new.count(new.month("a", moment)) == old.count(old.month("a", moment))
        assert new.event_names() == ["a"]
        assert new.periods("a", "week") == old.periods("a", "week")
