"""`delete_before` and `apply_expiry`: what they delete, keep and count, on every kind of store."""

from __future__ import annotations

import functools
import itertools
import operator
import uuid
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from facades import ON_SOME_STORES
from moments import EDGES
from tallymark import (
    Deleted,
    Granularity,
    InvalidTypeError,
    InvalidValueError,
    Period,
    StoreTimeoutError,
    SyncTally,
)
from tallymark._core.context import Context
from tallymark._core.keys import KeySchema
from tallymark._core.options import Options
from tallymark._reading import key_scan, purging, raw_keys
from tallymark._reading.requests import Request

if TYPE_CHECKING:
    from facades import Facade
    from stores import Store

HOUR, DAY, WEEK = Granularity.HOUR, Granularity.DAY, Granularity.WEEK
MONTH, YEAR = Granularity.MONTH, Granularity.YEAR
DATED = (HOUR, DAY, WEEK, MONTH, YEAR)

#: A Thursday in the middle of a month.
NOON = datetime(2026, 1, 15, 12, 30)


def key(event: str, period: Period | None) -> str:
    return f"trackist_{event}_{'u' if period is None else period.suffix}"


def ended(period: Period, moment: datetime) -> bool:
    """Return whether a period has ended, in another way than tallymark."""
    last = period.start
    while Period.containing(period.granularity, last) == period:
        if last >= moment:
            return False
        last += timedelta(minutes=30)
    return last <= moment


async def fill(tally: Any) -> None:
    """Mark an event in the 40 days before and the 20 days after `NOON`, and other things."""
    for days in range(-40, 20):
        moment = NOON + timedelta(days=days)
        await tally.mark_event("active", 3, now=moment, track_hourly=True)
    await tally.mark_event("old", 5, now=NOON - timedelta(days=400), track_unique=True)
    await tally.mark_unique("premium", 3)


@ON_SOME_STORES
async def test_what_has_ended_is_deleted_and_nothing_else(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, track_yearly=True) as tally:
        await fill(tally)
        before = store.bits()
        periods = {
            Period.containing(each, NOON + timedelta(days=days))
            for days in (-400, *range(-40, 20))
            for each in DATED
        }
        old = {
            name
            for event in ("active", "old")
            for period in periods
            if (name := key(event, period)) in before and ended(period, NOON)
        }
        assert key("active", Period.containing(DAY, NOON - timedelta(days=1))) in old
        assert key("active", Period.containing(DAY, NOON)) in before.keys() - old
        assert key("active", Period.containing(WEEK, NOON)) in before.keys() - old
        dry = await tally.delete_before(NOON, dry_run=True)
        assert store.bits() == before
        found = await tally.delete_before(NOON)
        assert store.bits() == {name: ids for name, ids in before.items() if name not in old}
        # 40 days, and one of the event "old"; of both events, the year and the month before.
        assert found.bitmaps == {YEAR: 2, MONTH: 2, WEEK: 7, DAY: 41, HOUR: 40}
        assert found == Deleted(found.bitmaps, found.bytes, dry_run=False)
        assert (dry.bitmaps, dry.bytes, dry.dry_run) == (found.bitmaps, found.bytes, True)
        assert found.total == len(old) == 92
        assert found.total_bytes == sum(found.bytes.values()) > 0
        again = await tally.delete_before(NOON)
        assert again == Deleted()
        assert again.total == 0
        # The bitmaps that are left still answer.
        assert await tally.count(tally.week("active", NOON)) == 1
        assert await tally.count(tally.day("active", NOON - timedelta(days=1))) == 0


@ON_SOME_STORES
async def test_only_some_granularities_and_events(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await fill(tally)
        everything = store.bits()
        later = NOON + timedelta(days=10)
        hours = await tally.delete_before(later, granularities="hour")
        assert set(hours.bitmaps) == {HOUR}
        assert not [name for name in store.bits() if name.endswith("2026-1-24-12")]
        assert key("active", Period.containing(DAY, NOON)) in store.bits()
        old = await tally.delete_before(later, events="old", granularities=DAY | WEEK)
        assert old.bitmaps == {WEEK: 1, DAY: 1}
        rows = old.to_rows()
        assert [(row["granularity"], row["bitmaps"]) for row in rows] == [("week", 1), ("day", 1)]
        some = await tally.delete_before(later, events=["active", "nobody"], granularities=[DAY])
        assert some.bitmaps == {DAY: 50}
        empty: list[dict[str, Any]] = [{"events": []}, {"events": ()}]
        for nothing in empty:
            assert await tally.delete_before(later, **nothing) == Deleted()
        # The month still has the users of the days that are gone.
        assert await tally.count(tally.month("active", NOON)) == 1
        assert await tally.count(tally.between("active", date(2026, 1, 1), date(2026, 2, 1))) == 1
        assert everything.keys() - store.bits().keys() == {
            name
            for name in everything
            if name in {key("old", Period.containing(each, NOON - timedelta(days=400)))
                        for each in (DAY, WEEK)}
            or any(
                name == key("active", Period.containing(each, NOON + timedelta(days=days)))
                for days in range(-40, 10)
                for each in (DAY, HOUR)
            )
        }  # fmt: skip


@pytest.mark.parametrize(
    ("moment", "kept"),
    [
        (datetime(2025, 7, 2, 0, 0, tzinfo=timezone.utc), {"2025-7-2", "2025-7-3"}),
        (datetime(2025, 7, 1, 22, 0, tzinfo=timezone.utc), {"2025-7-2", "2025-7-3"}),
        (datetime(2025, 7, 1, 21, 59, tzinfo=timezone.utc), {"2025-7-1", "2025-7-2", "2025-7-3"}),
        (datetime(2025, 7, 2), {"2025-7-2", "2025-7-3"}),  # naive: in the tally's zone
        (date(2025, 7, 3), {"2025-7-3"}),  # a date: its midnight there
        (datetime(2025, 7, 3, 0, 0, tzinfo=ZoneInfo("Asia/Tokyo")), {"2025-7-2", "2025-7-3"}),
    ],
)
async def test_the_moment_is_in_the_zone_of_the_tally(
    facade: Facade, memory_store: Store, moment: date, kept: set[str]
) -> None:
    async with facade.open(memory_store.url, timezone="Europe/Berlin") as tally:
        for day in (1, 2, 3):
            await tally.mark_event("a", 1, now=date(2025, 7, day))
        await tally.delete_before(moment, granularities="day")
    assert {name.removeprefix("trackist_a_") for name in memory_store.bits()} == {
        "2025-7",
        "W2025-27",
        *kept,
    }


async def test_bad_arguments_are_refused_and_nothing_is_deleted(
    facade: Facade, memory_store: Store
) -> None:
    tally: Any
    async with facade.open(memory_store.url) as tally:
        await tally.mark_event("a", 1, now=date(2025, 7, 1))
        before = memory_store.bits()
        now = datetime.now(timezone.utc)
        for call, error, says in (
            (lambda: tally.delete_before(None), InvalidTypeError, "got None"),
            (lambda: tally.delete_before("2025-07-02"), InvalidTypeError, "date or datetime"),
            (
                lambda: tally.delete_before(now + timedelta(hours=1)),
                InvalidValueError,
                "end of the present hour",
            ),
            (lambda: tally.delete_before(date(9999, 12, 31)), InvalidValueError, "present hour"),
            (
                lambda: tally.delete_before(NOON, granularities="unique"),
                InvalidValueError,
                "have periods",
            ),
            (
                lambda: tally.delete_before(NOON, granularities=DAY | Granularity.UNIQUE),
                InvalidValueError,
                "unique",
            ),
            (lambda: tally.delete_before(NOON, granularities=7), InvalidTypeError, "granularities"),
            (lambda: tally.delete_before(NOON, granularities=[]), InvalidValueError, "one or more"),
            (lambda: tally.delete_before(NOON, events=["a", ""]), InvalidValueError, "event"),
            (lambda: tally.delete_before(NOON, events=7), InvalidTypeError, "events"),
            (lambda: tally.delete_before(NOON, dry_run=1), InvalidTypeError, "dry_run"),
            (tally.apply_expiry, InvalidValueError, "no option expire"),
            (lambda: tally.apply_expiry(dry_run=None), InvalidTypeError, "dry_run"),
        ):
            with pytest.raises(error, match=says):
                await call()
        assert memory_store.bits() == before


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata"])
def test_the_present_hour_is_never_deleted(zone: str) -> None:
    """Also where the clock shows an hour twice; and a moment up to the present is allowed."""
    for start in (1761438600, 1743895800, 1768480200):  # around changes of the clock
        for half_hours in range(8):
            now = start + 1800 * half_hours
            context = Context.of("x", Options(timezone=zone), lambda: now)  # noqa: B023
            moment = datetime.fromtimestamp(now, timezone.utc)
            end = purging._checked_end(context, moment)
            present = Period.containing(HOUR, context.local(None))
            assert not purging._has_ended(present, end)
            assert purging._checked_end(context, moment - timedelta(hours=1))
            for later in (moment + timedelta(hours=2), present.start + timedelta(hours=1)):
                with pytest.raises(InvalidValueError):
                    purging._checked_end(context, later)


async def test_flags_ids_and_other_keys_stay(facade: Facade, redis_store: Store) -> None:
    user, other = uuid.uuid4(), uuid.uuid4()
    async with facade.open(redis_store.url, user_ids=uuid.UUID) as tally:
        await tally.mark_event("a", user, now=NOON, track_unique=True)
        await tally.mark_event("a", other, now=NOON + timedelta(days=40))
        redis_store.raw.set("trackist_a_2025-13-1", "no period")
        redis_store.raw.set("other_a_2025-1-1", "no key of the tally")
        before = redis_store.names()
        await tally.delete_before(NOON + timedelta(days=40))
        assert before - redis_store.names() == {
            key("a", Period.containing(each, NOON)) for each in (DAY, WEEK, MONTH)
        }
        assert await tally.numbers([user, other]) == [0, 1]
        assert await tally.count(tally.unique("a")) == 1
        # A late mark makes a bitmap anew.
        assert await tally.mark_event("a", user, now=NOON) == DAY | WEEK | MONTH


async def test_keys_of_another_type_and_results_of_bitmapist(
    facade: Facade, plain_store: Store
) -> None:
    result = "bitop_OR_trackist_x"
    async with facade.open(plain_store.url) as tally:
        plain_store.raw.rpush("trackist_a_2025-1-1", "a", "list")
        plain_store.raw.set(f"trackist_{result}_2025-1-1", "x")
        assert (await tally.delete_before(NOON)).bitmaps == {DAY: 1}
        assert plain_store.names() == {f"trackist_{result}_2025-1-1"}
        for events in (result, [result, "a"]):  # an event may have such a name
            assert (await tally.delete_before(NOON, events=events)).bitmaps == {DAY: 1}
            plain_store.raw.set(f"trackist_{result}_2025-1-1", "x")


@pytest.mark.parametrize("shards", [None, 4])
@pytest.mark.parametrize("verb", ["delete_before", "delete_all", "delete"])
async def test_thousands_of_bitmaps_in_small_steps(
    facade: Facade,
    redis_store: Store,
    monkeypatch: pytest.MonkeyPatch,
    shards: int | None,
    verb: str,
) -> None:
    sent: list[int] = []

    def request(commands: Any, **more: Any) -> Any:
        sent.append(sum(len(names) for command, *names in commands if command == b"UNLINK"))
        return original(commands, **more)

    original = Request
    monkeypatch.setattr(raw_keys, "Request", request)
    days = [datetime(2010, 1, 1) + timedelta(days=number) for number in range(1200)]
    schemas = KeySchema(shards=shards).parts
    periods = {Period.containing(each, day) for each in (DAY, MONTH) for day in days}
    redis_store.raw.mset(
        {schemas[period.start.day % len(schemas)].key("a", period): b"\x80" for period in periods}
    )
    async with facade.open(redis_store.url, shards=shards) as tally:
        if verb == "delete_before":
            found = await tally.delete_before(NOON, granularities="day")
            assert found.bitmaps == {DAY: 1200}
        elif verb == "delete":
            union = functools.reduce(operator.or_, (tally.day("a", day) for day in days))
            assert await tally.delete(union | tally.day("a", NOON)) == 1200
        else:
            assert await tally.delete_all("trackist_") == 1200 + 40
        assert (
            sum(sent)
            == {
                "delete_before": 1200,
                "delete_all": 1240,
                "delete": 1201 * len(schemas),  # each shard may have each of them
            }[verb]
        )
        assert max(sent) == raw_keys._DELETED_KEYS
        assert await tally.periods("a", "day") == []
        assert len(await tally.periods("a", "month")) == (0 if verb == "delete_all" else 40)


@ON_SOME_STORES
async def test_long_bitmaps_are_deleted_in_small_steps(
    facade: Facade, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[list[bytes]] = []

    def noted(keys: Any, sizes: Any) -> Any:
        for step in original(keys, sizes):
            steps.append(step)
            yield step

    original = raw_keys.deletion_steps
    monkeypatch.setattr(raw_keys, "deletion_steps", noted)
    monkeypatch.setattr(raw_keys, "_DELETED_BYTES", 200_000)
    async with facade.open(store.url) as tally:
        for verb in ("delete_all", "delete"):
            for number in range(4):
                await tally.mark_unique(f"long{number}", 4_000_000)
                await tally.mark_unique(f"short{number}", 7)
            steps.clear()
            if verb == "delete":
                events = [f"{name}{number}" for name in ("long", "short") for number in range(4)]
                union = functools.reduce(operator.or_, map(tally.unique, events))
                assert await tally.delete(union | tally.unique("none")) == 8
            else:
                assert await tally.delete_all("trackist_") == 8
            assert not store.bits()
            for step in steps:
                assert sum(b"long" in key for key in step) <= (16 if "cluster" in store.url else 3)
            assert len(steps) > 1


sizes = st.lists(st.integers(0, 2**25) | st.just(1), max_size=300)


@given(sizes)
def test_a_request_deletes_little(sizes: list[int]) -> None:
    keys = [b"%d" % number for number in range(len(sizes))]
    by_key = dict(zip(keys, sizes, strict=True))
    steps = list(raw_keys.deletion_steps(keys, sizes))
    assert [each for step in steps for each in step] == keys
    for step in steps:
        assert 1 <= len(step) <= raw_keys._DELETED_KEYS
        assert len(step) == 1 or sum(by_key[each] for each in step) <= raw_keys._DELETED_BYTES
    for step, following in itertools.pairwise(steps):  # no more of them than needed
        size = sum(by_key[each] for each in step)
        assert (
            len(step) == raw_keys._DELETED_KEYS
            or size + by_key[following[0]] > raw_keys._DELETED_BYTES
        )


async def test_a_key_that_a_scan_returns_twice_counts_once(
    facade: Facade, redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when Redis makes its table of keys smaller during the scan."""
    following = key_scan.KeyScan.next

    def twice(self: Any) -> Any:
        if hasattr(self, "again"):
            self.has_more = False
            return self.again
        found = yield from following(self)
        if not self.has_more:
            self.again, self.has_more = found, True
        return found

    monkeypatch.setattr(key_scan.KeyScan, "next", twice)
    async with facade.open(redis_store.url, expire={"day": timedelta(days=10**5)}) as tally:
        await tally.mark_event("a", 1, now=NOON)
        redis_store.raw.persist("trackist_a_2026-1-15")
        for dry_run in (True, False):
            assert (await tally.apply_expiry(dry_run=dry_run)).changed == {DAY: 1}
        dry = await tally.delete_before(date(2026, 2, 2), dry_run=True)
        assert dry.bitmaps == {MONTH: 1, WEEK: 1, DAY: 1}
        assert (await tally.delete_before(date(2026, 2, 2))).bytes == dry.bytes


async def test_a_deadline_holds_and_a_repetition_ends_it(
    facade: Facade, redis_store: Store
) -> None:
    async with facade.open(redis_store.url) as tally:
        redis_store.raw.mset({f"trackist_a{number}_2025-1-1": b"\x80" for number in range(20_000)})
        with pytest.raises(StoreTimeoutError):
            await tally.delete_before(NOON, timeout=0.01)
        assert (await tally.delete_before(NOON, dry_run=True)).total > 0
        assert (await tally.delete_before(NOON, timeout=20)).total > 0
        assert redis_store.names() == set()


periods = st.builds(
    Period.containing,
    st.sampled_from(DATED),
    st.builds(
        lambda edge, hours: edge + timedelta(hours=hours),
        st.sampled_from([edge for edge in EDGES if edge.year < 2026]),
        st.integers(-500, 500),
    ),
)
moments = st.one_of(
    periods.map(lambda period: period.start),
    periods.map(lambda period: period.end),
    periods.map(lambda period: period.start + timedelta(minutes=7)),
)
bitmaps = st.dictionaries(
    st.tuples(st.sampled_from(["a", "a_b", "b", "a_2025"]), periods | st.none()),
    st.integers(0, 40),
    max_size=25,
)
EVERY = st.none()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    bitmaps=bitmaps,
    moment=moments,
    events=EVERY | st.sets(st.sampled_from(["a", "a_b", "b", "c"])),
    granularities=EVERY | st.sets(st.sampled_from(DATED), min_size=1),
    shards=st.sampled_from([None, 3]),
)
@example(
    bitmaps={("a", Period.containing(DAY, NOON)): 1},
    moment=NOON + timedelta(hours=11, minutes=30),  # the midnight at its end
    events=None,
    granularities={DAY},
    shards=None,
)
def test_the_model(
    redis_store: Store,
    bitmaps: dict[tuple[str, Period | None], int],
    moment: datetime,
    events: set[str] | None,
    granularities: set[Granularity] | None,
    shards: int | None,
) -> None:
    redis_store.raw.flushdb()
    with SyncTally.from_url(redis_store.url, shards=shards) as tally:
        schemas = tally.backend.context.schema.parts
        names = {
            (event, period): schemas[user % len(schemas)].key(event, period).decode()
            for (event, period), user in bitmaps.items()
        }
        for name in names.values():
            redis_store.raw.set(name, b"\x80")
        old = {
            (event, period)
            for event, period in names
            if period is not None
            and (events is None or event in events)
            and (granularities is None or period.granularity in granularities)
            and period.end <= moment
        }
        dry = tally.delete_before(moment, events=events, granularities=granularities, dry_run=True)
        found = tally.delete_before(moment, events=events, granularities=granularities)
        left = redis_store.names()
        assert {name for name in left if not name.endswith("schema")} == {
            name for bitmap, name in names.items() if bitmap not in old
        }
        assert found.total == dry.total == len(old)
        for each in DATED:
            count = [period.granularity for _, period in old if period].count(each)
            assert found.bitmaps.get(each, 0) == count
