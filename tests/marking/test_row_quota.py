"""`mark_rows`: places in ``max_events``, and rows whose bitmaps have all expired."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tallymark import Granularity, InvalidTypeError, InvalidValueError, SyncTally, WrongKeyTypeError
from tallymark._core.options import Options
from tallymark._marking import row_reader
from tallymark._marking.marker import Marker

if TYPE_CHECKING:
    from facades import Facade
    from stores import Store

M, W, D = Granularity.MONTH, Granularity.WEEK, Granularity.DAY
NOON = datetime(2026, 11, 23, 12)
KEYS = ["trackist_a_2026-11", "trackist_a_W2026-48", "trackist_a_2026-11-23"]
OLD, TODAY = date(2001, 1, 1), date.today()
#: Options with which all bitmaps of `OLD` have expired.
EXPIRING: Any = {"expire": dict.fromkeys(("day", "week", "month"), timedelta(days=60))}


async def test_a_quota_of_events(facade: Facade, redis_store: Store) -> None:
    table = [(event, user_id, NOON) for user_id in range(50) for event in "abc"]
    taken: list[Any] = []
    async with facade.open(redis_store.url, max_events=2) as tally:
        with pytest.raises(InvalidValueError, match=r"^row 2: .*max_events=2.*'c'"):
            await tally.mark_rows(table)
        # Nothing was sent, so no event counts.
        await tally.mark_rows(table[1:2])
        counts = await tally.mark_rows(table, on_error=lambda *bad: taken.append(bad[0]))
        assert counts == {M: 99, W: 99, D: 99}
        assert taken == list(range(0, 150, 3))[:0] or len(taken) == 50
        with pytest.raises(InvalidValueError, match="max_events"):
            await tally.mark_event("d", 1)


async def test_the_event_that_failed_does_not_count(facade: Facade, redis_store: Store) -> None:
    redis_store.raw.lpush(KEYS[0], "not a bitmap")
    redis_store.raw.lpush(KEYS[1], "not a bitmap")
    redis_store.raw.lpush(KEYS[2], "not a bitmap")
    async with facade.open(redis_store.url, max_events=1) as tally:
        with pytest.raises(WrongKeyTypeError):
            await tally.mark_rows([("a", 1, NOON)])
        assert await tally.mark_event("b", 1)


async def test_with_a_quota_no_event_shares_the_transaction_of_another(
    facade: Facade, redis_store: Store
) -> None:
    """The one that is refused does not count, and the other one is not written uncounted."""
    for key in KEYS:
        redis_store.raw.lpush(key, "not a bitmap")
    async with facade.open(redis_store.url, max_events=2) as tally:
        with pytest.raises(WrongKeyTypeError):
            await tally.mark_rows([("a", 1, NOON), ("b", 1, NOON)])
        assert await tally.mark_event("c", 1)
        assert await tally.mark_event("b", 2)
        with pytest.raises(InvalidValueError, match="max_events"):
            await tally.mark_event("d", 1)


@pytest.mark.parametrize("as_columns", [False, True])
async def test_a_bad_row_keeps_no_place(
    facade: Facade, redis_store: Store, as_columns: bool
) -> None:
    table: Any = [("a", -1, NOON), ("b", 1, NOON), ("c", 2, NOON)]
    if as_columns:
        table = {"event": pd.Categorical([*"abc"]), "user_id": [-1, 1, 2], "moment": NOON}
    taken: list[int] = []
    async with facade.open(redis_store.url, max_events=1) as tally:
        await tally.mark_rows(table, on_error=lambda index, row, error: taken.append(index))
    assert taken == [0, 2]
    assert {key.split("_")[1] for key in redis_store.bits()} == {"b"}


@pytest.mark.parametrize("count", [3, 40_000])
async def test_categories_get_places_in_the_order_of_the_rows(
    facade: Facade, redis_store: Store, count: int
) -> None:
    """Not in that of their codes; also in later slices."""
    events = ["c"] * (count - 2) + ["b", "a"]
    for column in (events, pd.Categorical(events), pd.Series(events, dtype="string[pyarrow]")):
        redis_store.raw.flushdb()
        taken: list[int] = []
        table = {"event": column, "user_id": np.arange(count), "moment": NOON}
        async with facade.open(redis_store.url, max_events=2) as tally:
            await tally.mark_rows(table, on_error=lambda index, row, error: taken.append(index))  # noqa: B023
        assert taken == [count - 1]
        assert {key.split("_")[1] for key in redis_store.bits()} == {"b", "c"}


async def test_an_expired_row_keeps_no_place(facade: Facade, redis_store: Store) -> None:
    table = [("a", 1, OLD), ("b", 2, TODAY), ("a", 3, OLD), ("b", 4, OLD), ("c", 5, TODAY)]
    taken: list[int] = []
    async with facade.open(redis_store.url, max_events=1, **EXPIRING) as tally:
        await tally.mark_rows(table, on_error=lambda index, row, error: taken.append(index))
        # As `mark_event`: an event without a place is refused, whatever is left of its row.
        assert taken == [2, 4]
        assert await tally.mark_rows(table[:1] * 2 + table[1:2], on_error=print) == {
            M: 0,
            W: 0,
            D: 0,
        }
    assert {key.split("_")[1] for key in redis_store.bits()} == {"b"}


NUMBERED = [("a", 0, OLD), ("a", 1, TODAY), ("a", 0, TODAY)]
ROWS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(-1, 3), st.sampled_from([OLD, TODAY, None])),
    max_size=12,
)


def is_marked(tally: Any, event: str, user_id: Any, moment: date | None) -> bool:
    """Mark a row by itself; return whether it is allowed."""
    try:
        if moment is not None:  # which would be the present
            tally.mark_event(event, user_id, now=moment)
    except (InvalidTypeError, InvalidValueError):
        return False
    return moment is not None


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    table=ROWS,
    places=st.integers(0, 2),
    form=st.sampled_from(["rows", "columns", "categories"]),
    expiring=st.booleans(),
    as_ids=st.booleans(),
    has_numpy=st.booleans(),
)
@example(table=NUMBERED, places=0, form="rows", expiring=True, as_ids=True, has_numpy=True)
@example(table=NUMBERED, places=0, form="rows", expiring=True, as_ids=True, has_numpy=False)
def test_as_each_row_by_itself(
    table: list[Any], places: int, form: str, expiring: bool, as_ids: bool, has_numpy: bool
) -> None:
    """The same rows are refused, the same events are marked, the users get the same numbers.

    0 places stand for no ``max_events``.
    """
    options: Any = {"max_events": places or None, **(EXPIRING if expiring else {})}
    if as_ids:
        table = [(event, f"u{user}" if user >= 0 else user, at) for event, user, at in table]
        options["user_ids"] = str
    events, users, moments = zip(*table, strict=True) if table else ((), (), ())
    rows: Any = table
    if form != "rows":
        rows = {"event": events, "user_id": users, "moment": moments}
    if form == "categories":
        rows["event"] = pd.Categorical(events, categories=[*"cba"])
    taken: list[int] = []
    with (
        pytest.MonkeyPatch.context() as patch,
        SyncTally.from_url("memory://", **options) as one,
        SyncTally.from_url("memory://", **options) as other,
    ):
        if not has_numpy and form != "categories":
            patch.setattr(row_reader, "loaded_numpy", lambda: None)
        singly = [at for at, row in enumerate(table) if not is_marked(one, *row)]
        other.mark_rows(rows, on_error=lambda index, row, error: taken.append(index))
        assert taken == singly
        assert sorted(other.event_names()) == sorted(one.event_names())
        names: Any = [f"u{at}" for at in range(4)] if as_ids else range(4)
        for event in "abc":
            found = [
                [tally.contains(tally.day(event, TODAY), name) for name in names]
                for tally in (one, other)
            ]
            assert found[0] == found[1]
        if as_ids:
            assert other.numbers(names) == one.numbers(names)


def test_an_event_has_one_place_in_a_call() -> None:
    """Also if its name has been forgotten meanwhile: the call releases it once."""
    marker = Marker(Options(max_events=1), lambda: 0.0)
    events = marker.mark_rows(None, None).events
    events.admit("a")
    events.admit("a")
    events.end()
    marker.mark_rows(None, None).events.admit("b")
