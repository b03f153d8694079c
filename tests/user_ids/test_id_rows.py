"""`mark_rows` of users with ids: as `mark_event` of each row, with numbers in the rows' order."""

from __future__ import annotations

import uuid
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facades import ON_SOME_STORES, internals
from tallymark import (
    Granularity,
    InvalidTypeError,
    InvalidValueError,
    SyncTally,
    TallymarkError,
    WrongSchemaError,
)
from tallymark._marking import id_rows, rows

if TYPE_CHECKING:
    from facades import Facade
    from stores import Store

M, W, D = Granularity.MONTH, Granularity.WEEK, Granularity.DAY
MONDAY = date(2026, 11, 23)

TABLES = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.integers(0, 60),
        st.builds(lambda day: MONDAY + timedelta(day), st.integers(0, 5)),
    ),
    max_size=120,
)


async def contents(tally: Any, table: list[Any], names: Any) -> dict[Any, set[Any]]:
    """Return the users, by name, of each day, week and month that the rows have."""
    found = {}
    for event, moment in {(event, moment) for event, _, moment in table}:
        for make in ("day", "week", "month"):
            event_set = getattr(tally, make)(event, moment)
            users = {names(user) async for user in tally.users(event_set)}
            assert await tally.count(event_set) == len(users)
            found[event, make, moment] = users
    return found


@ON_SOME_STORES
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    tables=st.lists(TABLES, min_size=1, max_size=3),
    cached=st.sampled_from([1, 7, 1000]),
    has_numpy=st.booleans(),
    longest=st.sampled_from([20.0, 1500.0]),
)
async def test_as_rows_by_offset(
    facade: Facade,
    store: Store,
    tables: list[Any],
    cached: int,
    has_numpy: bool,
    longest: float,
) -> None:
    store.raw.flushdb()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tallymark._marking.row_pieces._LONGEST", longest)
        patch.setattr(id_rows, "MAX_IDS", 10)
        if not has_numpy:
            patch.setattr("tallymark._marking.row_reader.loaded_numpy", lambda: None)
        async with (
            facade.open(store.url, prefix="plain_") as plain,
            facade.open(store.url, prefix="ids_", user_ids=str, max_cached_ids=cached) as mapped,
        ):
            for table in tables:
                wanted = await plain.mark_rows(table)
                named = [(event, f"user-{user}", moment) for event, user, moment in table]
                assert await mapped.mark_rows(named) == wanted
                assert await contents(
                    mapped, table, lambda name: int(name.removeprefix("user-"))
                ) == await contents(plain, table, int)


IDS: dict[type, list[Any]] = {
    str: ["ann", "bob", "ärger", "x" * 40],
    bytes: [b"ann", b"bob", b"\0", b"x" * 40],
    uuid.UUID: [uuid.UUID(int=number) for number in (0, 5, 2**100, 2**127)],
    int: [-5, 0, 7, 2**62],
}


@pytest.mark.parametrize("kind", IDS)
async def test_ids_of_all_types(facade: Facade, redis_store: Store, kind: type) -> None:
    ids = IDS[kind]
    table = [("a", user_id, MONDAY) for user_id in [*ids, *reversed(ids)]]
    async with facade.open(redis_store.url, user_ids=kind) as tally:
        assert await tally.mark_rows(table) == {M: 4, W: 4, D: 4}
        assert {user async for user in tally.users(tally.day("a", MONDAY))} == set(ids)
        assert await tally.numbers(ids) == [0, 1, 2, 3]
        assert await tally.mark_rows(
            {"event": "b", "user_id": [row[1] for row in table], "moment": MONDAY}
        ) == {M: 4, W: 4, D: 4}


async def test_ids_in_columns(facade: Facade, redis_store: Store) -> None:
    texts = ["ann", "bob", "ann", "eve"]
    categories = pd.Categorical(texts, categories=["zoe", "eve", "ann", "bob"])
    for column in (texts, np.array(texts), pd.Series(texts), categories):
        redis_store.raw.flushdb()
        async with facade.open(redis_store.url, user_ids=str) as tally:
            table = {"event": "a", "user_id": column, "moment": MONDAY}
            assert await tally.mark_rows(table) == {M: 3, W: 3, D: 3}
            assert await tally.numbers(["ann", "bob", "eve"]) == [0, 1, 2]
    redis_store.raw.flushdb()
    async with facade.open(redis_store.url, user_ids=int) as tally:
        for column in (np.array([-5, 3, 3]), pd.Series([-5, 3, 3])):
            await tally.mark_rows({"event": "a", "user_id": column, "moment": MONDAY})
        assert await tally.numbers([-5, 3]) == [0, 1]


async def test_new_users_get_numbers_in_the_order_of_the_rows(
    facade: Facade, redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever their events and days: also in further blocks, and behind users who are known."""
    monkeypatch.setattr(rows, "BLOCK", 4_096)
    users = [f"user-{7 * number % 6_001}" for number in range(6_000)]
    table = [
        (f"event-{number * 11 % 13}", user, MONDAY + timedelta(number * 5 % 17))
        for number, user in enumerate(users)
    ]
    async with facade.open(redis_store.url, user_ids=str) as tally:
        await tally.mark_event("a", users[3_000])
        await tally.mark_rows([*table, *table])
        known = [users[3_000], *users[:3_000], *users[3_001:]]
        assert await tally.numbers(known) == list(range(6_000))


def evals(store: Store) -> int:
    stats: dict[str, Any] = store.raw.info("commandstats").get("cmdstat_eval", {})
    return int(stats.get("calls", 0))


async def test_known_users_need_no_script_and_new_ones_few(
    facade: Facade, redis_store: Store
) -> None:
    users = [f"user-{number}" for number in range(3_000)]
    table = [
        (f"event-{number % 97}", user, MONDAY + timedelta(number % 7))
        for number, user in enumerate(users)
    ]
    async with facade.open(redis_store.url, user_ids=str) as tally:
        before = evals(redis_store)
        await tally.mark_rows(table)
        assert evals(redis_store) - before == 7  # one of them when it connects
        await tally.mark_rows(table)
        assert evals(redis_store) - before == 7


@pytest.mark.parametrize("shards", [None, 3])
async def test_a_user_is_forgotten_meanwhile(
    facade: Facade, redis_store: Store, shards: int | None
) -> None:
    """The numbers of the rows are no longer valid: all users of the transaction are looked up."""
    options: Any = {"user_ids": str, "shards": shards}
    table = [
        (event, f"user-{number}", MONDAY + timedelta(number % 3))
        for number in range(1_000)
        for event in "ab"
    ]
    async with facade.open(redis_store.url, **options) as tally:
        await tally.mark_rows(table)
        first = await tally.numbers(["user-5", "user-6"])
        backend: Any = internals(getattr(tally, "_verbs", tally))
        submit = backend.submit_counted
        forgotten: list[bool] = []

        def forget(marks: Any, timeout: float | None) -> Any:
            if not forgotten:
                forgotten.append(True)
                other: Any = SyncTally.from_url(redis_store.url, **options)
                with other:
                    other.forget("user-5")
            return submit(marks, timeout)

        backend.submit_counted = forget
        assert await tally.mark_rows(table) == {M: 2, W: 2, D: 2}
        assert forgotten
        second = await tally.numbers(["user-5", "user-6"])
        assert second[0] != first[0]
        assert second[1] == first[1]
        for event in "ab":
            users = {user async for user in tally.users(tally.month(event, MONDAY))}
            assert users == {f"user-{number}" for number in range(1_000)}


async def test_bad_ids(facade: Facade, redis_store: Store) -> None:
    table: list[Any] = [("a", "ann", MONDAY), ("a", 7, MONDAY), ("a", "", MONDAY)]
    table += [("a", "x" * 1025, MONDAY), ("a", "\ud800", MONDAY), ("a", "bob", MONDAY)]
    taken: list[int] = []
    async with facade.open(redis_store.url, user_ids=str) as tally:
        with pytest.raises((InvalidTypeError, InvalidValueError), match=r"^row 1: user id must be"):
            await tally.mark_rows(table)
        assert not redis_store.names()
        await tally.mark_rows(table, on_error=lambda index, row, error: taken.append(index))
        assert taken == [1, 2, 3, 4]
        assert await tally.numbers(["ann", "bob"]) == [0, 1]


async def test_all_numbers_are_given(facade: Facade, redis_store: Store) -> None:
    table = [("a", f"user-{number}", MONDAY) for number in range(2_000)]
    async with facade.open(redis_store.url, user_ids=str, max_user_id=999) as tally:
        with pytest.raises(InvalidValueError, match="all numbers up to max_user_id are given"):
            await tally.mark_rows(table)


@pytest.mark.parametrize("is_open", [False, True])
async def test_a_dictionary_that_was_evicted_is_not_begun_anew(
    facade: Facade, redis_store: Store, is_open: bool
) -> None:
    """New users would get the numbers of others, whose bits are still there."""
    table = [("a", f"user-{number}", MONDAY) for number in range(2_000)]
    options: Any = {"user_ids": str}
    if not is_open:
        other: Any = SyncTally.from_url(redis_store.url, **options)
        with other:
            other.mark_event("a", "ann", now=MONDAY)
        redis_store.raw.delete(*redis_store.raw.keys("*ids:*"))
    async with facade.open(redis_store.url, **options) as tally:
        if is_open:
            await tally.mark_event("a", "ann", now=MONDAY)
            redis_store.raw.delete(*redis_store.raw.keys("*ids:*"))
        with pytest.raises(WrongSchemaError, match="evicted"):
            await tally.mark_rows(table)
    assert redis_store.raw.bitcount("trackist_a_2026-11") == 1


async def test_days_that_have_expired(facade: Facade, redis_store: Store) -> None:
    """Some rows have no bitmap any more, others one; also those that a script marks."""
    options: Any = {"expire": {"day": timedelta(30), "week": timedelta(30)}, "user_ids": str}
    old, today = date(2001, 1, 1), date.today()
    table = [("a", f"user-{at}", day) for at in range(50) for day in (old, today)]
    for shards in (None, 3):
        redis_store.raw.flushdb()
        async with facade.open(redis_store.url, shards=shards, **options) as tally:
            assert await tally.mark_rows(table) == {M: 100, W: 50, D: 50}
            backend: Any = internals(getattr(tally, "_verbs", tally))
            if backend.numbers is not None:
                backend.numbers.clear()
            assert await tally.mark_rows(table) == {M: 0, W: 0, D: 0}


def test_a_call_that_was_cancelled_reserves_no_event_any_more() -> None:
    from tallymark._core.options import Options
    from tallymark._marking.marker import Marker

    marker = Marker(Options(max_events=1), lambda: 0.0)
    write = marker.mark_rows(None, None)
    write.events.admit("a")
    with pytest.raises(InvalidValueError, match="max_events"):
        marker.mark_rows(None, None).events.admit("b")
    write.events.end()
    with pytest.raises(TallymarkError, match="ended"):
        write.events.admit("a")
    marker.mark_rows(None, None).events.admit("b")
