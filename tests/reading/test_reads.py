"""What the read verbs answer: one suite over both facades and both kinds of store."""

from __future__ import annotations

import contextlib
import random
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY

import numpy as np
import pytest

from facades import ON_SOME_STORES
from stores import ClusterStore
from tallymark import (
    ClosedError,
    CommandError,
    Granularity,
    InvalidTypeError,
    InvalidValueError,
    Period,
    WrongKeyTypeError,
    all_of,
    any_of,
)
from tallymark._reading import bits

if TYPE_CHECKING:
    from collections.abc import Callable

    from facades import Facade
    from stores import Store

MONDAY = date(2026, 11, 23)
TUESDAY = date(2026, 11, 24)
FAR = 3_000_000


@pytest.fixture(params=["numpy", "ints"])
def _either_algebra(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reckon with each of the two ways in turn."""
    made = bits.Arrays(np) if request.param == "numpy" else bits.Ints()
    for module in (
        "_reading.expressions",
        "_reading.id_streams",
        "_reading.sweep",
        "_reports.retention_counts",
        "_async.executor",
    ):
        monkeypatch.setattr(f"tallymark.{module}.algebra", lambda: made)
    # Last: a module that is imported meanwhile would keep it for ever.
    monkeypatch.setattr(bits, "algebra", lambda: made)


async def listed(stream: Any) -> list[Any]:
    return [item async for item in stream]


# --- the four wrong answers of bitmapist


async def test_who_is_not_in_a_set_is_asked_of_somebody(facade: Facade, store: Store) -> None:
    """bitmapist's NOT counts the padding bits of the last byte as users."""
    async with facade.open(store.url) as tally:
        await tally.mark_many("signup", [1, 2, 3], now=MONDAY)
        await tally.mark_event("active", 2, now=MONDAY)
        rest = tally.day("signup", MONDAY) - tally.day("active", MONDAY)
        assert await tally.count(rest) == 2
        assert await listed(tally.users(rest)) == [1, 3]
        with pytest.raises(InvalidTypeError, match="everybody - this"):
            await tally.count(~tally.day("active", MONDAY))


async def test_a_difference_keeps_users_beyond_the_other_bitmap(
    facade: Facade, store: Store
) -> None:
    """bitmapist's `A & ~B` loses everybody after B's last byte."""
    async with facade.open(store.url) as tally:
        await tally.mark_many("signup", [1, 2, FAR], now=MONDAY)
        await tally.mark_event("active", 2, now=MONDAY)
        rest = tally.day("signup", MONDAY) - tally.day("active", MONDAY)
        assert await tally.count(rest) == 2
        assert await tally.contains(rest, FAR)
        assert await listed(tally.users(rest)) == [1, FAR]
        assert await tally.count(rest - tally.day("nobody")) == 2


async def test_no_reader_takes_away_what_another_computes(redis_store: Store) -> None:
    """bitmapist's temporary keys have names that readers share, and delete under each other."""
    import asyncio

    from tallymark import Tally

    async with Tally.from_url(redis_store.url) as tally:
        await tally.mark_many("a", range(1000), now=MONDAY)
        await tally.mark_many("b", range(500, 1500), now=MONDAY)
        before = redis_store.names()
        both = tally.day("a", MONDAY) & tally.day("b", MONDAY)
        either = tally.day("a", MONDAY) | tally.day("b", MONDAY)

        async def read() -> None:
            for _ in range(20):
                assert await tally.counts([both, either, either - both]) == [500, 1500, 1000]
                assert await tally.contains(both, 700)
                assert not await tally.is_empty(either - both)
                assert len(await listed(tally.users(both))) == 500

        await asyncio.gather(*(read() for _ in range(50)))
        assert redis_store.names() == before


async def test_sets_of_two_databases_are_not_mixed(
    facade: Facade, store: Store, redis_server: str
) -> None:
    """bitmapist computes `a & b` on the default database, wherever the events are."""
    other_url = "memory://other" if store.url.startswith("redis") else redis_server
    async with facade.open(store.url) as here, facade.open(other_url) as there:
        ours, theirs = here.day("active"), there.day("active")
        with pytest.raises(InvalidValueError, match="different databases"):
            await here.count(ours & theirs)
        for asked in (
            lambda: here.count(theirs),
            lambda: here.counts([ours, theirs]),
            lambda: here.contains(theirs, 1),
            lambda: here.contains_many(theirs, [1]),
            lambda: here.is_empty(theirs),
            lambda: here.delete(theirs),
            lambda: listed(here.users(theirs)),
            lambda: here.retention(lambda _: theirs, "active"),
            lambda: here.funnel([theirs]),
        ):
            with pytest.raises(InvalidValueError, match="of another database"):
                await asked()


async def test_tallies_on_one_database_understand_each_other(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as one, facade.open(store.url, max_user_id=9) as other:
        await one.mark_event("active", 7)
        assert await other.count(one.day("active") & other.day("active")) == 1


# --- counts and membership


async def test_mixed_granularities_and_flags(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await tally.mark_many("active", [1, 2, 3, 4], now=MONDAY, track_hourly=True)
        await tally.mark_many("active", [3, 4, 5], now=TUESDAY)
        await tally.mark_many("active", [5, 6], now=date(2026, 10, 31))
        for user_id in (2, 5, 9):
            await tally.mark_unique("premium", user_id)
        monday, tuesday = tally.day("active", MONDAY), tally.day("active", TUESDAY)
        month, premium = tally.month("active", MONDAY), tally.unique("premium")
        sets = {
            monday: {1, 2, 3, 4},
            monday & tuesday: {3, 4},
            monday ^ tuesday: {1, 2, 5},
            tuesday - monday: {5},
            month & premium: {2, 5},
            month - monday - premium: set(),
            month & month.prev(): {5},
            month.prev() - month: {6},
            tally.week("active", MONDAY) - tuesday: {1, 2},
            tally.hour("active", MONDAY): {1, 2, 3, 4},
            tally.year("active", MONDAY): {1, 2, 3, 4, 5, 6},
            tally.between("active", date(2026, 10, 31), TUESDAY): {1, 2, 3, 4, 5, 6},
            tally.last("active", 2, TUESDAY): {1, 2, 3, 4, 5},
            any_of([monday, tuesday, premium]): {1, 2, 3, 4, 5, 9},
            all_of([monday, tuesday, premium]): set(),
            premium - (monday | tuesday): {9},
            (monday - premium) | (tuesday - premium): {1, 3, 4},
            (monday | tuesday) & (premium | (monday - tuesday)): {1, 2, 5},
            monday.shift(100): set(),
        }
        before = store.names()
        assert await tally.counts(sets) == [len(users) for users in sets.values()]
        for event_set, users in sets.items():
            assert await tally.count(event_set) == len(users), event_set
            assert await tally.is_empty(event_set) == (not users)
            assert await listed(tally.users(event_set)) == sorted(users)
            asked = [9, *range(8)]
            answers = await tally.contains_many(event_set, asked)
            assert answers == [user_id in users for user_id in asked]
            assert [await tally.contains(event_set, user_id) for user_id in asked] == answers
        assert store.names() == before
        assert await tally.counts([]) == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("bitfield", [True, False])
async def test_contains_many_of_near_and_far_users(
    facade: Facade, store: Store, bitfield: bool
) -> None:
    chance = random.Random(1)
    marked = set(chance.sample(range(5000), 2500)) | set(chance.sample(range(FAR), 300))
    banned = set(chance.sample(sorted(marked), 700))
    async with facade.open(store.url, bitfield=bitfield) as tally:
        await tally.mark_many("active", marked, now=MONDAY)
        await tally.mark_many("banned", banned, now=MONDAY)
        remaining = tally.day("active", MONDAY) - tally.day("banned", MONDAY)
        asked = chance.sample(range(5000), 5000) + chance.sample(range(FAR), 2000) + [7, 7]
        expected = [user_id in marked - banned for user_id in asked]
        assert await tally.contains_many(remaining, asked) == expected
        assert await tally.contains_many(remaining, np.array(asked)) == expected
        assert await tally.contains_many(remaining, iter(asked)) == expected
        assert await tally.contains_many(remaining, []) == []


async def test_bad_arguments_raise_before_anything_is_sent(
    facade: Facade, redis_store: Store
) -> None:
    async with facade.open(redis_store.url, max_user_id=1000) as tally:
        day = tally.day("active")
        sent = redis_store.raw.info("stats")["total_commands_processed"]
        verbs: Any = tally  # which type checkers let pass
        cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
            (lambda: verbs.count("active"), InvalidTypeError, "build one with the tally's day"),
            (lambda: verbs.counts(day), InvalidTypeError, "not an iterable"),
            (lambda: verbs.counts("active"), InvalidTypeError, "not an iterable"),
            (lambda: verbs.counts([day, None]), InvalidTypeError, "not an event set: None"),
            (lambda: verbs.contains(day, -1), InvalidValueError, r"in \[0, 1000\]"),
            (lambda: verbs.contains(day, "1"), InvalidTypeError, "user id must be an int"),
            (lambda: verbs.contains_many(day, [1, 1001]), InvalidValueError, "got 1001"),
            (lambda: verbs.contains_many(day, 3), InvalidTypeError, "iterable of ints"),
            (lambda: listed(verbs.users(day, start=-1)), InvalidValueError, "start must be in"),
            (lambda: listed(verbs.users(day, start=2**32)), InvalidValueError, "start must be in"),
            (
                lambda: listed(verbs.users(day, start=True)),
                InvalidTypeError,
                "start must be an int",
            ),
            (lambda: listed(verbs.users(day, limit=-1)), InvalidValueError, "limit must be 0"),
            (lambda: listed(verbs.users(day, limit=1.5)), InvalidTypeError, "limit must be an int"),
            (lambda: verbs.is_empty(None), InvalidTypeError, "not an event set"),
            (lambda: verbs.delete(day & day.prev()), InvalidTypeError, "a union of several"),
            (lambda: verbs.delete(verbs.last("active")), InvalidTypeError, "a union of several"),
            (lambda: verbs.periods("active", "decade"), InvalidValueError, "one of 'hour', 'day'"),
            (lambda: verbs.periods("active", Granularity.UNIQUE), InvalidValueError, "'unique'"),
            (lambda: verbs.periods("active", 3), InvalidTypeError, "a granularity is one of"),
            (lambda: verbs.periods("", "day"), InvalidValueError, "event must be"),
            (lambda: verbs.event_names(None), InvalidTypeError, "prefix must be"),
            (lambda: verbs.memory("\n"), InvalidValueError, "control characters"),
            (lambda: verbs.history(1, 5, MONDAY), InvalidTypeError, "a name or several"),
            (lambda: verbs.history(1, ["a", ""], MONDAY), InvalidValueError, "event must be"),
            (lambda: verbs.history(1, "a", None), InvalidTypeError, "since must be"),
            (lambda: verbs.history(1, "a", MONDAY, MONDAY), InvalidValueError, "before until"),
            (lambda: verbs.history(2000, "a", MONDAY), InvalidValueError, "got 2000"),
            (lambda: verbs.forget(1001), InvalidValueError, "got 1001"),
            (lambda: verbs.merge(1001, 1), InvalidValueError, "got 1001"),
            (lambda: verbs.merge(1, 1001), InvalidValueError, "got 1001"),
            (lambda: verbs.merge(7, 7), InvalidValueError, "different users, got 7 twice"),
            (lambda: verbs.merge(1, True), InvalidTypeError, "user id must be an int"),
            (lambda: verbs.delete_all(""), InvalidValueError, "'trackist_'"),
            (lambda: verbs.delete_all("other_"), InvalidValueError, "'trackist_'"),
            (lambda: verbs.delete_all("trackist"), InvalidValueError, "'trackist_'"),
            (lambda: verbs.delete_all("trackist_*"), InvalidValueError, "'trackist_'"),
            (lambda: verbs.delete_all("TRACKIST_"), InvalidValueError, "'trackist_'"),
            (lambda: verbs.delete_all(b"trackist_"), InvalidTypeError, "prefix must be a str"),
            (lambda: verbs.delete_all(None), InvalidTypeError, "prefix must be a str"),
            (lambda: verbs.delete_all(ANY), InvalidTypeError, "prefix must be a str"),
        ]
        for asked, error, message in cases:
            with pytest.raises(error, match=message):
                await asked()
        now = redis_store.raw.info("stats")["total_commands_processed"]
        assert now - sent == 1  # our own question


async def test_a_key_of_another_type_raises_and_leaves_no_key(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await tally.mark_event("active", 7, now=MONDAY)
        store.raw.rpush("trackist_list_2026-11-23", "x")
        before = store.names()
        day, wrong = tally.day("active", MONDAY), tally.day("list", MONDAY)
        for asked in (
            lambda: tally.count(wrong),
            lambda: tally.count(day | wrong),
            lambda: tally.contains(day & wrong, 7),
            lambda: listed(tally.users(wrong)),
            lambda: tally.contains_many(wrong, [1, 2]),
        ):
            with pytest.raises(WrongKeyTypeError, match="Redis refused: WRONGTYPE"):
                await asked()
        assert await tally.count(day) == 1
        assert store.names() == before


async def test_a_refused_command_raises(facade: Facade, redis_store: Store) -> None:
    redis_store.raw.acl_setuser(
        "reader", enabled=True, nopass=True, keys="*", commands=["+@all", "-bitop"]
    )
    try:
        url = redis_store.url.replace("//", "//reader:x@")
        async with facade.open(url) as tally:
            day = tally.day("active", MONDAY)
            with pytest.raises(CommandError, match=r"Redis refused: .*bitop"):
                await tally.count(day & day.prev())
            assert await tally.count(day) == 0
    finally:
        redis_store.raw.acl_deluser("reader")


async def test_a_closed_tally_answers_no_more(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await tally.mark_many("active", range(200_000), now=MONDAY)
        day = tally.day("active", MONDAY)
        stream = tally.users(day)
        assert await anext(stream) == 0
    with pytest.raises(ClosedError):
        await tally.count(day)
    with pytest.raises(ClosedError):
        await listed(stream)


async def test_a_client_that_decodes_reads_bitmaps_all_the_same(redis_store: Store) -> None:
    import redis
    import redis.asyncio

    from tallymark import SyncTally, Tally

    async with redis.asyncio.Redis.from_url(redis_store.url, decode_responses=True) as client:
        tally = Tally(client)
        await tally.mark_many("active", [1, 8, 255], now=MONDAY)
        day = tally.day("active", MONDAY)
        assert await listed(tally.users(day)) == [1, 8, 255]
        assert await tally.event_names() == ["active"]
        assert await tally.count(day & tally.month("active", MONDAY)) == 3
        await tally.aclose()
    with redis.Redis.from_url(redis_store.url, decode_responses=True) as blocking:
        with SyncTally(blocking) as reader:
            assert list(reader.users(reader.day("active", MONDAY))) == [1, 8, 255]
            assert reader.event_names() == ["active"]


# --- iteration


@pytest.mark.exhaustive
@ON_SOME_STORES
@pytest.mark.usefixtures("_either_algebra")
async def test_users_are_streamed_in_order(facade: Facade, store: Store) -> None:
    chance = random.Random(3)
    dense = set(range(100_000, 200_000))
    sparse = set(chance.sample(range(9_000_000), 500))
    async with facade.open(store.url) as tally:
        await tally.mark_many("dense", dense, now=MONDAY)
        await tally.mark_many("sparse", sparse, now=MONDAY)
        one, other = tally.day("dense", MONDAY), tally.day("sparse", MONDAY)
        for event_set, users in (
            (one, dense),
            (other, sparse),
            (one - other, dense - sparse),
            (other - one, sparse - dense),
            (one | other, dense | sparse),
            (one ^ other, dense ^ sparse),
            (one & other, dense & sparse),
            (one.prev(), set()),
        ):
            assert await listed(tally.users(event_set)) == sorted(users)
            chunks = await listed(tally.user_chunks(event_set))
            assert [user_id for chunk in chunks for user_id in chunk] == sorted(users)
            assert all(1 <= len(chunk) <= 8192 for chunk in chunks)


@ON_SOME_STORES
@pytest.mark.usefixtures("_either_algebra")
async def test_pages(facade: Facade, store: Store) -> None:
    users = [0, 1, 7, 8, 63, 64, 65, 1000, 70_000, 2_000_000, 2_000_001]
    async with facade.open(store.url) as tally:
        await tally.mark_many("active", users, now=MONDAY)
        day = tally.day("active", MONDAY)
        for start in (0, 1, 2, 7, 64, 66, 999, 1001, 69_999, 2_000_001, 2_000_002, 2**32 - 1):
            expected = [user_id for user_id in users if user_id >= start]
            assert await listed(tally.users(day, start=start)) == expected
            for limit in (0, 1, 3, 11, 100):
                found = await listed(tally.users(day, start=start, limit=limit))
                assert found == expected[:limit]
        pages, start = [], 0
        while page := await listed(tally.users(day, start=start, limit=3)):
            pages.append(page)
            start = page[-1] + 1
        assert [len(page) for page in pages] == [3, 3, 3, 2]
        assert [user_id for page in pages for user_id in page] == users


async def test_empty_space_is_searched_by_the_server(facade: Facade, redis_store: Store) -> None:
    """Two users 500 million apart: 60 MB of nothing must not travel."""
    far = 500_000_000
    async with facade.open(redis_store.url) as tally:
        for event in ("a", "b"):
            await tally.mark_event(event, 3, now=MONDAY)
            await tally.mark_event(event, far, now=MONDAY)
        await tally.mark_event("a", far - 1_000_000, now=MONDAY)
        one, other = tally.day("a", MONDAY), tally.day("b", MONDAY)
        before = redis_store.raw.info("stats")["total_net_output_bytes"]
        assert await listed(tally.users(one)) == [3, far - 1_000_000, far]
        assert await listed(tally.users(one & other)) == [3, far]
        assert await listed(tally.users(one - other)) == [far - 1_000_000]
        assert await listed(tally.users(one ^ other)) == [far - 1_000_000]
        assert await listed(tally.users(other - one)) == []
        assert await listed(tally.users(one & other.prev())) == []
        sent = redis_store.raw.info("stats")["total_net_output_bytes"] - before
        assert sent < 20_000_000


# --- the key space


NAMES = [
    "active",
    "active_user",
    "act*ive",
    "a[bc]",
    "back\\slash",
    "quest?",
    "ünï→",
    "u",
    "a_2026",
]


async def test_event_names_and_periods(facade: Facade, plain_store: Store) -> None:
    async with facade.open(plain_store.url) as tally:
        for name in NAMES:
            await tally.mark_event(name, 1, now=MONDAY, track_hourly=True)
        await tally.mark_event("active", 1, now=date(2024, 12, 30))
        await tally.mark_unique("flag", 1)
        for foreign in (
            "trackist_",
            "trackist_x",
            "trackist__2026",
            "other_a_2026-1",
            "trackist_a_x",
        ):
            plain_store.raw.set(foreign, "x")
        plain_store.raw.set("trackist_bitop_AND_trackist_active_2026-11-trackist_b_2026-11", "x")
        assert await tally.event_names() == sorted([*NAMES, "flag"])
        for prefix in ("act", "act*", "a[", "back\\", "quest?", "ü", "nobody", "[", "*"):
            expected = sorted(name for name in [*NAMES, "flag"] if name.startswith(prefix))
            assert await tally.event_names(prefix) == expected
        found = await tally.periods("active", "day")
        assert [str(period) for period in found] == ["2024-12-30", "2026-11-23"]
        assert [str(each) for each in await tally.periods("active", "week")] == [
            "2025-W01",
            "2026-W48",
        ]
        assert await tally.periods("active", Granularity.YEAR) == []
        assert await tally.periods("a", "day") == []  # but "a_2026" has one
        assert await tally.memory("a") == {}
        assert [str(each) for each in await tally.periods("act*ive", "hour")] == ["2026-11-23T00"]
        day = tally.during("active", found[0])
        assert await tally.count(day) == 1
    async with facade.open(plain_store.url, prefix="track") as other:
        # A shorter prefix sees the same keys under other names, as it has to.
        assert "ist_active" in await other.event_names()


@pytest.mark.parametrize("prefix", ["trackist_", "my_"])
async def test_an_event_that_is_named_like_a_result(
    facade: Facade, plain_store: Store, prefix: str
) -> None:
    async with facade.open(plain_store.url, prefix=prefix) as tally:
        name = f"bitop_OR_{prefix}x"
        for event in (name, "bitop_OR_x"):
            await tally.mark_event(event, 1, now=MONDAY)
            assert [str(each) for each in await tally.periods(event, "day")] == ["2026-11-23"]
            assert len(await tally.memory(event)) == 3
            assert await tally.history(1, event, MONDAY, TUESDAY)
        assert await tally.event_names() == ["bitop_OR_x"]  # the drop-in's name of a temporary key


async def test_many_keys_are_walked_over_in_steps(facade: Facade, store: Store) -> None:
    store.raw.mset({f"trackist_event{number}_u": b"\x80" for number in range(2500)})
    async with facade.open(store.url) as tally:
        assert len(await tally.event_names()) == 2500
        assert await tally.forget(0) == 2500
        assert await tally.delete_all("trackist_") == 2500
    assert store.names() == set()


async def test_memory(facade: Facade, plain_store: Store) -> None:
    async with facade.open(plain_store.url) as tally:
        await tally.mark_event("active", 80_000, now=MONDAY, track_unique=True)
        await tally.mark_event("active", 8, now=TUESDAY)
        found = await tally.memory("active")
        assert list(found) == [
            Granularity.MONTH,
            Granularity.WEEK,
            Granularity.DAY,
            Granularity.UNIQUE,
        ]
        assert all(10_001 <= size < 40_000 for size in found.values())
        assert found[Granularity.DAY] > found[Granularity.MONTH]
        assert await tally.memory("nobody") == {}


async def test_history(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await tally.mark_event("login", 7, now=datetime(2026, 11, 23, 9), track_hourly=True)
        await tally.mark_event("login", 7, now=datetime(2026, 11, 25, 9))
        await tally.mark_event("buy", 7, now=date(2025, 2, 1))
        await tally.mark_event("buy", 7, now=date(2025, 3, 1))
        await tally.mark_event("login", 8, now=TUESDAY)

        async def asked(*args: Any) -> dict[str, list[str]]:
            found = await tally.history(7, *args)
            return {event: [str(period) for period in when] for event, when in found.items()}

        november, december = date(2026, 11, 1), date(2026, 12, 1)
        assert await asked(["login", "buy", "login"], november, december) == {
            "login": ["2026-11-23", "2026-11-25"],
            "buy": [],
        }
        assert await asked("login", MONDAY, datetime(2026, 11, 25)) == {"login": ["2026-11-23"]}
        assert await asked("login", MONDAY, datetime(2026, 11, 25, 0, 1)) == {
            "login": ["2026-11-23", "2026-11-25"]
        }
        assert await asked(["login"], november, december, "hour") == {"login": ["2026-11-23T09"]}
        assert await asked(["buy"], date(2024, 1, 1), december, "year") == {"buy": ["2025"]}
        assert await asked(["buy"], date(2024, 1, 1), december, Granularity.MONTH) == {
            "buy": ["2025-02", "2025-03"]
        }
        now = datetime.now(timezone.utc)
        await tally.mark_event("today", 7, now=now)
        found = await tally.history(7, "today", now - timedelta(days=400))
        assert found["today"] == [Period.containing(Granularity.DAY, now.replace(tzinfo=None))]


@pytest.mark.parametrize("bitfield", [True, False])
async def test_forget_clears_every_bit_and_grows_nothing(
    facade: Facade, plain_store: Store, bitfield: bool
) -> None:
    async with facade.open(plain_store.url, bitfield=bitfield) as tally:
        await tally.mark_event("active", 500, now=MONDAY, track_hourly=True, track_unique=True)
        await tally.mark_event("active", 3, now=MONDAY)
        await tally.mark_event("other", 501, now=TUESDAY)
        plain_store.raw.setbit("trackist_bitop_OR_trackist_active_2026-11-trackist_a_u", 500, 1)
        plain_store.raw.set("trackist_foreign", b"\xff" * 100)
        plain_store.raw.rpush("trackist_list_2026", "x")
        sizes = {
            key: plain_store.raw.strlen(key) for key in plain_store.names() if "list" not in key
        }
        assert await tally.forget(500) == 6
        assert await tally.forget(500) == 0
        assert await tally.forget(2**32 - 1) == 0
        assert sizes == {
            key: plain_store.raw.strlen(key) for key in plain_store.names() if "list" not in key
        }
        plain_store.raw.delete("trackist_list_2026", "trackist_foreign")
        assert set().union(*plain_store.bits().values()) == {3, 501}


async def test_delete_takes_bitmaps_and_unions_of_them(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await tally.mark_event("active", 1, now=MONDAY, track_unique=True)
        await tally.mark_event("active", 1, now=TUESDAY)
        day = tally.day("active", MONDAY)
        assert await tally.delete(day) == 1
        assert await tally.delete(day) == 0
        assert await tally.delete(any_of([day, day.next(), tally.unique("active")])) == 2
        assert store.names() == {"trackist_active_2026-11", "trackist_active_W2026-48"}
        assert await tally.delete(day | (day.next() | tally.month("active", MONDAY))) == 1
        with pytest.raises(InvalidTypeError, match="union"):
            await tally.delete(day | (tally.week("active", MONDAY) - day))
        assert store.names() == {"trackist_active_W2026-48"}


async def test_delete_all_takes_the_tallys_bitmaps_and_no_other_key(
    facade: Facade, store: Store
) -> None:
    async with facade.open(store.url) as tally, facade.open(store.url, prefix="x:") as other:
        await tally.mark_event("active", 1, now=MONDAY)
        await other.mark_event("active", 1, now=MONDAY)
        store.raw.set("trackist_settings", "x")
        store.raw.set("trackist_bitop_AND_trackist_active_2026-11-trackist_b_2026-11", "x")
        assert await tally.delete_all("trackist_") == 4
        assert store.names() == {
            *("trackist_settings", "x:active_2026-11", "x:active_W2026-48"),
            "x:active_2026-11-23",
        }


async def test_a_longer_prefix_is_a_part_of_a_shorter_one(facade: Facade, store: Store) -> None:
    """As the docstrings say, with the remedy that docs/how-to/prefixes.md has."""
    prefixes = ["tenant1_", "tenant1_eu_", "tenant1:", "tenant1-eu:"]
    async with contextlib.AsyncExitStack() as stack:
        tallies = {
            prefix: await stack.enter_async_context(facade.open(store.url, prefix=prefix))
            for prefix in prefixes
        }
        for tally in tallies.values():
            await tally.mark_event("active", 7, now=MONDAY)
        short, long, first, second = tallies.values()
        sharded = isinstance(store, ClusterStore)  # the tag of a shard ends the prefix
        overlap = 0 if sharded else 3
        listed = ["active"] if sharded else ["active", "eu_active"]
        assert await short.event_names() == listed
        assert await long.event_names() == ["active"]
        for tally in (first, second):
            assert await tally.event_names() == ["active"]
            assert await tally.forget(7) == 3
        assert await short.forget(7) == 3 + overlap
        assert await long.forget(7) == 3 - overlap
        assert await first.delete_all("tenant1:") == 3
        assert await second.count(second.day("active", MONDAY)) == 0
        assert await second.delete_all("tenant1-eu:") == 3
        assert await short.delete_all("tenant1_") == 3 + overlap
        assert await long.delete_all("tenant1_eu_") == 3 - overlap


async def test_the_default_tally_reads_too(facade: Facade, store: Store) -> None:
    import tallymark

    tallymark.configure(store.url)
    module = facade.verbs(facade.module)
    await module.mark_event("active", 7)
    tally = facade.verbs(await module.current_tally())
    assert await tally.contains(tally.day("active"), 7)
    await facade.close(await module.current_tally())
