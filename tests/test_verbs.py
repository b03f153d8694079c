"""What the verbs do to a store: one suite over both facades and both kinds of store."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

import tallymark
from tallymark import (
    ClosedError,
    Granularity,
    InvalidTypeError,
    InvalidValueError,
    TallymarkError,
    WrongKeyTypeError,
)
from tallymark import sync as tm

if TYPE_CHECKING:
    from facades import Facade
    from stores import Store

UTC = timezone.utc
DEFAULT = Granularity.MONTH | Granularity.WEEK | Granularity.DAY
MONDAY = datetime(2024, 12, 30, tzinfo=UTC)


async def test_every_granularity_has_its_key(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        flipped = await tally.mark_event(
            "active", 123, now=MONDAY, track_hourly=True, track_unique=True
        )
    assert flipped == DEFAULT | Granularity.HOUR | Granularity.UNIQUE
    assert store.bits() == {
        "trackist_active_2024-12": {123},
        "trackist_active_W2025-1": {123},
        "trackist_active_2024-12-30": {123},
        "trackist_active_2024-12-30-0": {123},
        "trackist_active_u": {123},
    }


async def test_the_first_mark_of_each_period_is_returned(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        assert await tally.mark_event("active", 7, now=MONDAY) == DEFAULT
        assert not await tally.mark_event("active", 7, now=MONDAY)
        tuesday = await tally.mark_event("active", 7, now=MONDAY + timedelta(days=1))
        assert tuesday == Granularity.DAY
        january = await tally.mark_event("active", 7, now=MONDAY + timedelta(days=2))
        assert january == Granularity.DAY | Granularity.MONTH


async def test_without_now_it_is_now(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        before = datetime.now(UTC)
        await tally.mark_event("active", 7)
        after = datetime.now(UTC)
    days = {f"trackist_active_{m.year}-{m.month}-{m.day}" for m in (before, after)}
    assert days & store.names()


async def test_unmark_clears_what_mark_sets(facade: Facade, store: Store) -> None:
    arguments: Any = {"now": MONDAY, "track_hourly": True, "track_unique": True}
    async with facade.open(store.url) as tally:
        marked = await tally.mark_event("active", 7, **arguments)
        await tally.mark_event("active", 8, **arguments)
        assert await tally.unmark_event("active", 7, **arguments) == marked
        assert not await tally.unmark_event("active", 7, **arguments)
    assert set().union(*store.bits().values()) == {8}


async def test_unmark_without_exact_forgets_the_other_days(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await tally.mark_event("active", 7, now=MONDAY)
        await tally.mark_event("active", 7, now=MONDAY + timedelta(days=1))
        await tally.unmark_event("active", 7, now=MONDAY)
    assert store.bits() == {"trackist_active_2024-12-31": {7}}


async def test_unique_flags(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        assert await tally.mark_unique("premium", 7) == Granularity.UNIQUE
        assert not await tally.mark_unique("premium", 7)
        assert store.bits() == {"trackist_premium_u": {7}}
        assert await tally.unmark_unique("premium", 7) == Granularity.UNIQUE
        assert not await tally.unmark_unique("premium", 7)
    assert store.bits() == {}


async def test_the_largest_id(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, max_user_id=2**20) as tally:
        await tally.mark_unique("premium", 2**20)
        with pytest.raises(InvalidValueError, match=r"in \[0, 1048576\]"):
            await tally.mark_unique("premium", 2**20 + 1)
    assert store.bits() == {"trackist_premium_u": {2**20}}


@pytest.mark.parametrize(
    ("call", "tally_option", "everywhere", "tracked"),
    [
        (None, None, False, False),
        (None, None, True, True),
        (None, False, True, False),
        (None, True, False, True),
        (False, True, True, False),
        (True, False, False, True),
    ],
)
async def test_the_call_wins_then_the_tally_then_the_global(
    facade: Facade,
    memory_store: Store,
    call: bool | None,
    tally_option: bool | None,
    everywhere: bool,
    tracked: bool,
) -> None:
    options = {"track_hourly": tally_option, "track_unique": tally_option}
    async with facade.open(memory_store.url, **options) as tally:
        tallymark.TRACK_HOURLY = tallymark.TRACK_UNIQUE = everywhere
        flipped = await tally.mark_event("active", 1, track_hourly=call, track_unique=call)
    assert (Granularity.HOUR in flipped) == (Granularity.UNIQUE in flipped) == tracked


async def test_years_on_request(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, track_yearly=True) as tally:
        assert await tally.mark_event("active", 7, now=MONDAY) == DEFAULT | Granularity.YEAR
        assert store.bits()["trackist_active_2024"] == {7}
        await tally.unmark_event("active", 7, now=MONDAY)
    assert store.bits() == {}


@pytest.mark.parametrize(
    ("now", "day"),
    [
        (datetime(2026, 1, 5, 23, 30, tzinfo=UTC), "2026-1-6-0"),  # aware: converted
        (datetime(2026, 1, 5, 23, 30), "2026-1-5-23"),  # naive: in the tally's zone
        (date(2026, 1, 5), "2026-1-5-0"),  # a date: its midnight there
        (datetime(2026, 1, 5, 23, tzinfo=ZoneInfo("America/New_York")), "2026-1-6-5"),
        (datetime(2026, 10, 25, 2, 30, fold=0), "2026-10-25-2"),  # both passes of an hour
        (datetime(2026, 10, 25, 2, 30, fold=1), "2026-10-25-2"),
        (datetime(2026, 10, 25, 1, 30, tzinfo=UTC), "2026-10-25-2"),
        (datetime(2026, 3, 29, 1, 30, tzinfo=UTC), "2026-3-29-3"),  # no hour 2 that day
    ],
)
async def test_time_zones(facade: Facade, memory_store: Store, now: date, day: str) -> None:
    async with facade.open(memory_store.url, timezone="Europe/Berlin") as tally:
        await tally.mark_event("active", 1, now=now, track_hourly=True)
    hours = {key for key in memory_store.names() if key.count("-") == 3}
    assert hours == {f"trackist_active_{day}"}


async def test_another_prefix(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, prefix="bitmapist_") as tally:
        await tally.mark_unique("premium", 1)
    assert store.names() == {"bitmapist_premium_u"}


# --- exact unmark


async def test_exact_keeps_week_and_month_for_other_days(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, track_yearly=True) as tally:
        for day in (2, 30):  # 2024-12-30 is in week W2025-1, 2024-12-2 is not
            await tally.mark_event("active", 7, now=date(2024, 12, day))
        cleared = await tally.unmark_event("active", 7, now=date(2024, 12, 30), exact=True)
        assert cleared == Granularity.DAY | Granularity.WEEK
        assert store.bits() == {
            "trackist_active_2024": {7},
            "trackist_active_2024-12": {7},
            "trackist_active_W2024-49": {7},
            "trackist_active_2024-12-2": {7},
        }
        cleared = await tally.unmark_event("active", 7, now=date(2024, 12, 2), exact=True)
        assert cleared == DEFAULT | Granularity.YEAR
    assert store.bits() == {}


async def test_exact_clears_the_given_hour_and_the_flag(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, track_hourly=True, track_unique=True) as tally:
        await tally.mark_event("active", 7, now=datetime(2026, 11, 23, 9))
        await tally.mark_event("active", 7, now=datetime(2026, 11, 23, 10))
        await tally.unmark_event("active", 7, now=datetime(2026, 11, 23, 9), exact=True)
    assert store.bits() == {"trackist_active_2026-11-23-10": {7}}


async def test_exact_creates_no_key_and_grows_no_bitmap(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, track_hourly=True, track_unique=True) as tally:
        assert not await tally.unmark_event("active", 7, now=MONDAY, exact=True)
        assert store.names() == set()
        await tally.mark_event("active", 7, now=MONDAY)
        assert not await tally.unmark_event("active", 100_000, now=MONDAY, exact=True)
    assert {store.raw.strlen(key) for key in store.names()} == {1}


async def test_exact_changes_nothing_beside_a_key_of_the_wrong_type(
    facade: Facade, store: Store
) -> None:
    store.raw.lpush("trackist_active_2024-12-29", "not a bitmap")
    async with facade.open(store.url) as tally:
        await tally.mark_event("active", 7, now=MONDAY)
        before = store.raw.get("trackist_active_2024-12-30")
        with pytest.raises(WrongKeyTypeError, match="nothing was changed"):
            await tally.unmark_event("active", 7, now=MONDAY, exact=True)
    assert store.raw.get("trackist_active_2024-12-30") == before


# --- errors


async def test_a_wrong_type_fails_the_mark_and_says_what_changed(
    facade: Facade, plain_store: Store
) -> None:
    plain_store.raw.lpush("trackist_active_2024-12", "not a bitmap")
    async with facade.open(plain_store.url) as tally:
        with pytest.raises(WrongKeyTypeError) as raised:
            await tally.mark_event("active", 7, now=MONDAY)
        assert "trackist_active_2024-12 was not changed" in str(raised.value)
        assert "other bitmaps: week|day" in str(raised.value)
        assert type(raised.value.__cause__).__module__ == "redis.exceptions"
        assert plain_store.raw.getbit("trackist_active_2024-12-30", 7) == 1
        assert await tally.mark_event("other", 7, now=MONDAY) == DEFAULT


BAD: list[tuple[tuple[Any, ...], dict[str, Any], type[TallymarkError], type[Exception], str]] = [
    (("", 1), {}, InvalidValueError, ValueError, "event must be a non-empty str"),
    ((None, 1), {}, InvalidTypeError, TypeError, "event must be a non-empty str"),
    (([], 1), {}, InvalidTypeError, TypeError, "event must be a non-empty str"),
    (("a\n", 1), {}, InvalidValueError, ValueError, "control characters"),
    (("a", -1), {}, InvalidValueError, ValueError, r"user id must be in \[0, 4294967295\], got -1"),
    (("a", 2**32), {}, InvalidValueError, ValueError, "got 4294967296"),
    (("a", True), {}, InvalidTypeError, TypeError, "got True of type bool"),
    (("a", "1"), {}, InvalidTypeError, TypeError, "got '1' of type str"),
    (("a", 1), {"now": 5}, InvalidTypeError, TypeError, "now must be a date or datetime, got 5"),
    (("a", 1), {"now": "2026-11-24"}, InvalidTypeError, TypeError, "now must be"),
    (("a", 1), {"track_hourly": 1}, InvalidTypeError, TypeError, "track_hourly must be True or"),
    (("a", 1), {"track_unique": "no"}, InvalidTypeError, TypeError, "track_unique must be True"),
]


@pytest.mark.parametrize(("args", "kwargs", "error", "builtin", "message"), BAD)
@pytest.mark.parametrize("verb", ["mark_event", "unmark_event"])
async def test_bad_input_fails_before_anything_is_sent(
    facade: Facade,
    verb: str,
    args: Any,
    kwargs: Any,
    error: type[TallymarkError],
    builtin: type[Exception],
    message: str,
) -> None:
    assert issubclass(error, builtin)
    async with facade.open("redis://nowhere.invalid:1") as tally:
        with pytest.raises(error, match=message):
            await getattr(tally, verb)(*args, **kwargs)
        async with tally.transaction() as tx:
            with pytest.raises(error, match=message):
                getattr(tx, verb)(*args, **kwargs)


async def test_bad_input_of_the_other_verbs(facade: Facade) -> None:
    edge = datetime.max.replace(tzinfo=UTC)
    number: Any = 1
    flag: Any = "yes"
    async with facade.open("redis://nowhere.invalid:1", timezone="Europe/Berlin") as tally:
        for verb in (tally.mark_unique, tally.unmark_unique):
            with pytest.raises(InvalidValueError, match="user id"):
                await verb("a", -1)
            with pytest.raises(InvalidTypeError, match="event"):
                await verb(number, 1)
        with pytest.raises(InvalidTypeError, match="exact must be True or False"):
            await tally.unmark_event("a", 1, exact=flag)
        with pytest.raises(InvalidValueError, match="years 1 to 9999"):
            await tally.mark_event("a", 1, now=edge)


@pytest.mark.parametrize("verb", ["mark_event", "mark_unique"])
async def test_only_event_and_user_are_positional(facade: Facade, verb: str) -> None:
    async with facade.open("redis://nowhere.invalid:1") as tally:
        with pytest.raises(TypeError, match="positional"):
            await getattr(tally, verb)("a", 1, MONDAY)


# --- transactions


@pytest.mark.parametrize("bitfield", [True, False])
async def test_a_transaction_tells_each_marks_own_result(
    facade: Facade, store: Store, bitfield: bool
) -> None:
    async with facade.open(store.url, bitfield=bitfield) as tally:
        async with tally.transaction() as tx:
            marks = [
                tx.mark_event("signup", 7, now=MONDAY),
                tx.mark_unique("trial", 7),
                tx.mark_event("signup", 7, now=MONDAY),
                tx.unmark_event("signup", 7, now=MONDAY, exact=True),
                tx.mark_event("signup", 8, now=MONDAY),
                tx.mark_event("signup", 7, now=MONDAY + timedelta(days=1)),
                tx.unmark_unique("trial", 7),
            ]
            assert store.names() == set()
    assert [str(mark.flipped) for mark in marks] == [
        "month|week|day",
        "unique",
        "none",
        "month|week|day",
        "month|week|day",
        "month|week|day",
        "unique",
    ]
    assert store.bits() == {
        "trackist_signup_2024-12": {7, 8},
        "trackist_signup_W2025-1": {7, 8},
        "trackist_signup_2024-12-30": {8},
        "trackist_signup_2024-12-31": {7},
    }


async def test_an_exception_in_the_block_sends_nothing(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        pending = []
        with pytest.raises(ZeroDivisionError):
            async with tally.transaction() as tx:
                pending.append(tx.mark_event("signup", 7))
                raise ZeroDivisionError
        assert store.names() == set()
        with pytest.raises(TallymarkError, match="not been confirmed"):
            _ = pending[0].flipped


async def test_a_transaction_ends_with_its_block(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        async with tally.transaction() as tx:
            pass
        with pytest.raises(ClosedError, match="has ended"):
            tx.mark_event("signup", 7)
    assert store.names() == set()


async def test_a_transaction_raises_the_first_error_and_keeps_the_rest(
    facade: Facade, store: Store
) -> None:
    store.raw.lpush("trackist_bad_u", "not a bitmap")
    pending = []
    async with facade.open(store.url) as tally:
        with pytest.raises(WrongKeyTypeError, match=r"trackist_({\w+})?bad_u"):
            async with tally.transaction() as tx:
                pending = [tx.mark_unique(event, 1) for event in ("good", "bad")]
    assert pending[0].flipped == Granularity.UNIQUE
    with pytest.raises(WrongKeyTypeError):
        _ = pending[1].flipped


async def test_the_result_is_not_known_inside_the_block(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally, tally.transaction() as tx:
        pending = tx.mark_unique("trial", 1)
        with pytest.raises(TallymarkError, match="not been confirmed"):
            _ = pending.flipped


# --- the switches of the two modules are the same


def test_the_global_switches_are_one() -> None:
    tallymark.TRACK_HOURLY = True
    assert tm.TRACK_HOURLY is True
    tm.TRACK_HOURLY = False
    assert tallymark.TRACK_HOURLY is False
    tm.TRACK_UNIQUE = True
    assert tallymark.TRACK_UNIQUE is True


@pytest.mark.parametrize("module", [tallymark, tm])
@pytest.mark.parametrize("switch", ["TRACK_HOURLY", "TRACK_UNIQUE"])
def test_switches_take_bools_only(module: Any, switch: str) -> None:
    with pytest.raises(InvalidTypeError, match=f"{switch} must be True or False, got 1"):
        setattr(module, switch, 1)
    assert getattr(module, switch) is False
