"""What a user's type checker sees. Checked by mypy and pyright, never run."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from datetime import date, datetime, timedelta
from typing import Any

import redis
import redis.asyncio
from typing_extensions import assert_type

import tallymark
from tallymark import (
    AppliedExpiry,
    Bar,
    Batch,
    Buffer,
    BufferStats,
    Cell,
    DaysActive,
    DaysBar,
    Deleted,
    Diagnosis,
    EventSet,
    Finding,
    Funnel,
    Granularity,
    KeySchema,
    Lifecycle,
    LifecycleRow,
    LifecycleTotals,
    Operation,
    OrderedFunnel,
    OrderedStep,
    PendingMark,
    Period,
    Report,
    Retention,
    Stats,
    Stickiness,
    Streak,
    Streaks,
    SyncBuffer,
    SyncTally,
    Tally,
    Transaction,
    Trend,
    TrendPoint,
    __version__,
    all_of,
    any_of,
    at_least,
    configure,
    current_tally,
    mark_event,
    mark_many,
    mark_rows,
    mark_unique,
    mark_unique_many,
    transaction,
    unmark_event,
    unmark_many,
    unmark_unique,
    unmark_unique_many,
)
from tallymark import sync as tm
from tallymark.migrate import Migration, migrate
from tallymark.otel import OpenTelemetry


async def async_functions(now: datetime, day: date, stream: AsyncIterator[int]) -> None:
    assert_type(await mark_many("active", [1, 2]), dict[Granularity, int])
    assert_type(await mark_many("active", stream, now=now), dict[Granularity, int])
    assert_type(await unmark_many("active", {1, 2}, exact=True), dict[Granularity, int])
    await mark_many("active", 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await mark_rows([("active", 1, now), ("a", 2, day)]), dict[Granularity, int])
    assert_type(
        await mark_rows({"event": "a", "user_id": [1], "moment": day}, on_error=print),
        dict[Granularity, int],
    )
    await mark_rows(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await mark_event("active", 123), Granularity)
    assert_type(await mark_event("active", 123, now=now, track_hourly=True), Granularity)
    assert_type(await unmark_event("active", 123, now=day, exact=True), Granularity)
    assert_type(await mark_unique("premium", 1), Granularity)
    assert_type(await unmark_unique("premium", 1), Granularity)
    assert_type(await mark_unique_many("premium", stream), int)
    assert_type(await unmark_unique_many("premium", {1, 2}, timeout=5), int)
    async with transaction() as tx:
        assert_type(tx, Transaction[Any])
        assert_type(tx.mark_event("signup", 7), PendingMark)
        assert_type(tx.mark_unique("trial", 7).flipped, Granularity)
    assert_type(tallymark.TRACK_HOURLY, bool)
    tallymark.TRACK_UNIQUE = True
    await mark_event("active", 1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await mark_event("active", 123, now)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await mark_event("active", 123, when=now)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def async_tally(client: redis.asyncio.Redis, blocking: redis.Redis) -> None:
    async with Tally.from_url("redis://localhost", timezone="Europe/Berlin") as tally:
        assert_type(tally, Tally)
        assert_type(await tally.mark_event("active", 123), Granularity)
        async with tally.transaction() as tx:
            assert_type(tx, Transaction)
        async with tally.buffered(max_size=5, on_full="drop") as buffer:
            assert_type(buffer, Buffer)
            assert_type(buffer.stats(), BufferStats)
        assert_type(tally.client, redis.asyncio.Redis | redis.asyncio.RedisCluster)
        assert_type(await tally.mark_event("active", 123, timeout=0.5), Granularity)
        assert_type(await tally.count(tally.day("active"), timeout=math.inf), int)
        assert_type(tally.stats(), Stats)
        assert_type(tally.stats().marks_per_batch, float)
        assert_type(await tally.mark_many("active", range(10)), dict[Granularity, int])
        assert_type(await tally.mark_unique_many("premium", range(10)), int)
        assert_type(await tally.mark_rows([("a", 1, date.min)]), dict[Granularity, int])
    assert_type(await Tally(client, track_yearly=True).aclose(), None)
    Tally(blocking)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    Tally(client, track_yaerly=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    Tally(client, timeout="5")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


def blocking_functions(now: datetime, day: date, stream: AsyncIterator[int]) -> None:
    assert_type(tm.mark_many("active", (1, 2), now=day), dict[Granularity, int])
    assert_type(tm.unmark_many("active", [1], now=now), dict[Granularity, int])
    assert_type(tm.mark_rows(iter([("active", 1, now)])), dict[Granularity, int])
    tm.mark_rows(stream)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tm.mark_rows([("active", 1, now)], on_error=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tm.mark_many("active", stream)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(tm.mark_event("active", 123, now=now, track_unique=None), Granularity)
    assert_type(tm.unmark_event("active", 123, now=day, exact=True), Granularity)
    assert_type(tm.mark_unique("premium", 1), Granularity)
    assert_type(tm.unmark_unique("premium", 1), Granularity)
    assert_type(tm.mark_unique_many("premium", [1]), int)
    tm.unmark_unique_many("premium", stream)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with tm.transaction() as tx:
        assert_type(tx, Transaction[Any])
    assert_type(tm.TRACK_HOURLY, bool)
    tm.TRACK_HOURLY = True
    assert_type(configure("memory://", prefix="x_"), None)
    tm.configure(track_hourly=None)
    tm.mark_event("active", 1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def blocking_tally(client: redis.Redis) -> None:
    with SyncTally.from_url("redis://localhost", max_user_id=1000) as tally:
        assert_type(tally, SyncTally)
        assert_type(tally.mark_event("active", 123), Granularity)
        assert_type(tally.unmark_unique("active", 123), Granularity)
        assert_type(tally.unmark_unique_many("active", (1, 2)), int)
        with tally.buffered(on_error=print) as buffer:
            assert_type(buffer, SyncBuffer)
            assert_type(buffer.stats(), BufferStats)
        with tally.transaction() as tx:
            assert_type(tx, Transaction)
        assert_type(tally.client, redis.Redis | redis.RedisCluster)
        assert_type(tally.stats(), Stats)
        assert_type(tally.mark_many("active", range(10)), dict[Granularity, int])
        assert_type(tally.mark_event("active", 123, timeout=1), Granularity)
        assert_type(tally.count(tally.day("active"), timeout=2), int)
    assert_type(SyncTally(client).close(), None)


def options(client: redis.Redis, operations: list[Operation]) -> None:
    week = timedelta(days=7)
    configure(expire={"hour": week}, event_pattern="[a-z]+", max_events=10, max_pending=10)
    configure(max_temp_bytes=None)
    SyncTally(client, expire={Granularity.HOUR: week, "day": week}, observer=OpenTelemetry())
    SyncTally(client, observer=operations.append, read_from="redis://replica")
    SyncTally(client, expire={"hour": 7})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    SyncTally(client, observer=lambda: None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


def values(moment: datetime) -> None:
    period = Period.containing(Granularity.DAY, moment)
    assert_type(period.shift(-1).start, datetime)
    assert_type(KeySchema().key("active", period), bytes)
    assert_type(KeySchema().parse(b"trackist_active_u"), "tuple[str, Period | None]")
    assert_type(list(Granularity.DAY | Granularity.WEEK), list[Granularity])


def event_sets(tally: Tally, blocking: SyncTally, now: datetime, day: date) -> None:
    both = tally.day("active", now) & blocking.month("active", day).prev()
    assert_type(both, EventSet)
    assert_type((both | tally.unique("premium")) - both.shift(-2) ^ both, EventSet)
    assert_type(both.start, "datetime | None")
    assert_type(any_of([both, tally.last("active", 7)]), EventSet)
    assert_type(at_least(2, [both, tally.last("active", 7), tally.unique("x")]), EventSet)
    assert_type(all_of({both}), EventSet)
    tally.between("active", day)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    both & "active"  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnusedExpression]


async def async_reads(tally: Tally, event_set: EventSet, day: date) -> None:
    assert_type(await current_tally(), Tally[Any])
    assert_type(await tally.count(event_set), int)
    assert_type(await tally.counts([event_set]), list[int])
    assert_type(await tally.contains(event_set, 1), bool)
    assert_type(await tally.contains_many(event_set, range(9)), list[bool])
    assert_type(tally.users(event_set, start=3, limit=None), AsyncGenerator[int, None])
    assert_type([user async for user in tally.users(event_set)], list[int])
    assert_type([chunk async for chunk in tally.user_chunks(event_set)], list[list[int]])
    assert_type(await tally.is_empty(event_set), bool)
    assert_type(await tally.delete(event_set), int)
    assert_type(await tally.save(event_set, as_="regulars"), int)
    assert_type(tally.last_hours("active", 48, day), EventSet)
    assert_type(await tally.event_names(), list[str])
    assert_type(await tally.periods("active", "week"), list[Period])
    assert_type(await tally.memory("active"), dict[Granularity, int])
    assert_type(await tally.history(1, "active", day), dict[str, list[Period]])
    assert_type(await tally.forget(1), int)
    deleted = await tally.delete_before(
        day, events="active", granularities=["day", Granularity.HOUR]
    )
    assert_type(deleted, Deleted)
    assert_type(deleted.bitmaps, Mapping[Granularity, int])
    applied = await tally.apply_expiry(dry_run=True)
    assert_type(applied, AppliedExpiry)
    assert_type(applied.deleted, Mapping[Granularity, int])
    diagnosis = await tally.doctor(timeout=9)
    assert_type(diagnosis, Diagnosis)
    assert_type(diagnosis.findings, tuple[Finding, ...])
    assert_type(diagnosis.ok, bool)
    await tally.delete_before(day, granularities="unique")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await tally.merge(1, 2, timeout=1.0), int)
    await tally.merge(1, "2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await tally.delete_all("trackist_"), int)
    assert_type(tally.export("active", since=day), AsyncGenerator[Batch[int], None])
    async for batch in tally.export(granularities=["day", Granularity.UNIQUE]):
        assert_type(batch.ids(), list[int])
        assert_type(batch.to_rows(), "list[tuple[str, str, str | None, int]]")
        assert_type(batch.period, "Period | None")
    assert_type(await tally.restore(tally.export()), dict[Granularity, int])
    assert_type(await tally.restore([("a", "unique", None, 1)]), dict[Granularity, int])
    assert_type(Batch("a", Granularity.UNIQUE, None, [1, 2]), Batch[int])
    table = await tally.retention("a", lambda period: tally.during("b", period), by="day")
    assert_type(table, Retention)
    assert_type(table.cohorts[0].cells[0], Cell)
    assert_type(table.rates[0][0], "float | None")
    assert_type(table.to_html("a", fragment=True), str)
    assert_type(table.label("a"), str)
    report: Report = table
    assert_type(report.to_rows(), list[dict[str, Any]])
    assert_type(report.labels, Mapping[str, str])
    trend = await tally.trend({"a": "a", "b": lambda period: tally.during("b", period)}, by="week")
    assert_type(trend, Trend)
    assert_type(trend.series["a"][0], TrendPoint)
    assert_type(trend.points[0].stickiness, "float | None")
    assert_type(trend.points[0].users, EventSet)
    assert_type(trend.points[0].rolling_users, "EventSet | None")
    assert_type(await tally.stickiness("active"), Stickiness)
    by_days = await tally.days_active(lambda period: tally.during("b", period), days=31)
    assert_type(by_days, DaysActive)
    assert_type(by_days.bars[0], DaysBar)
    assert_type(await tally.count(by_days.at_least(20).users), int)
    assert_type(by_days.median, "float | None")
    lifecycle = await tally.lifecycle("active", by=timedelta(days=7), anchor=day, periods=3)
    assert_type(lifecycle, Lifecycle)
    assert_type(lifecycle.rows[0], LifecycleRow)
    assert_type(lifecycle.rows[0].resurrected, Bar)
    assert_type(lifecycle.rows[0].dormant.users, EventSet)
    assert_type(lifecycle.totals, LifecycleTotals)
    assert_type(await tally.streaks("active", until=day, labels={"active": "Active"}), Streaks)
    await tally.streaks(lambda period: tally.during("b", period))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await tally.streak("active", 7, until=day), Streak)
    assert_type((await tally.streak("active", 7)).since, date | None)
    assert_type(await tally.funnel(["a", event_set]), Funnel)
    assert_type(await tally.funnel(["a"], by="day", moment=date(2026, 1, 1)), Funnel)
    ordered = await tally.funnel(
        ["a", event_set, lambda period: tally.during("b", period)], since=date(2026, 1, 1)
    )
    assert_type(ordered, OrderedFunnel)
    assert_type(ordered.steps[0], OrderedStep)
    assert_type(ordered.steps[0].median, int | None)
    assert_type(ordered.steps[0].users, EventSet)
    assert_type(ordered.segments, Mapping[str, OrderedFunnel])
    await tally.funnel(["a"], since=date(2026, 1, 1), by="day")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await tally.periods("active", "weeks")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await tally.retention("a", "b", mode="first")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await tally.count("active")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def event_sets_hold_no_users(event_set: EventSet) -> None:
    list(event_set)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    len(event_set)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(5 in event_set)  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
    print(event_set[0])  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
    print(event_set & {5})  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
    assert_type(__version__, str)


def blocking_reads(tally: SyncTally, event_set: EventSet, day: date) -> None:
    assert_type(tm.current_tally(), SyncTally[Any])
    assert_type(tally.count(event_set), int)
    assert_type(tally.counts([event_set]), list[int])
    assert_type(tally.contains_many(event_set, [1]), list[bool])
    assert_type(tally.users(event_set), Iterator[int])
    assert_type(tally.user_chunks(event_set), Iterator[list[int]])
    assert_type(tally.history(1, ["a", "b"], day, day, "hour"), dict[str, list[Period]])
    assert_type(tally.retention("a", "b", by=Granularity.WEEK, until=day), Retention)
    window = timedelta(hours=24)
    ordered = tally.funnel(["a"], since=day, until=day, window=window, resolution="hour")
    assert_type(ordered, OrderedFunnel)
    assert_type(tally.funnel(["a"], by="day"), Funnel)
    assert_type(tally.trend(["a", "b"], rolling=None, until=day), Trend)
    assert_type(tally.stickiness("active", day).ratio, "float | None")
    assert_type(tally.days_active("active", until=day).counts, tuple[int, ...])
    assert_type(tally.lifecycle("active", by="month").quick_ratio, "float | None")
    assert_type(tally.streaks("active").at_least(7), Bar)
    assert_type(tally.forget(1), int)
    assert_type(tally.delete_before(date(2026, 1, 1), granularities="hour", dry_run=True), Deleted)
    assert_type(tally.apply_expiry(), AppliedExpiry)
    assert_type(tally.doctor(), Diagnosis)
    assert_type(tally.merge(source=1, target=2), int)
    assert_type(tally.export(timeout=1), Generator[Batch[int], None, None])
    assert_type(tally.restore(tally.export(), timeout=60), dict[Granularity, int])
    tally.restore()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    tally.merge(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def on_a_cluster(client: redis.asyncio.RedisCluster) -> None:
    async with Tally(client, shards=64, replicas=1) as tally:
        assert_type(await tally.mark_event("active", 1), Granularity)
        assert_type(await tally.count(tally.day("active")), int)


def migrating(old: SyncTally, client: redis.RedisCluster) -> None:
    with SyncTally(client, shards=64) as new:
        migration = migrate(old, new, exact=False, progress=lambda now: print(now.bitmaps))
        assert_type(migration, Migration)
        assert_type(migration.differing, dict[str, tuple[int, int]])
