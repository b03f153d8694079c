"""The drop-in: what it does that bitmapist does not, or does wrong.

That it does the rest as bitmapist does is compared step by step in compat/test_dropin.py.
"""

from __future__ import annotations

import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from unittest import mock

import fakeredis
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

import tallymark
from tallymark import InvalidTypeError, InvalidValueError, bitmapist
from tallymark import sync as tm
from tallymark._core.options import Options
from tallymark.bitmapist import (
    BitOpAnd,
    BitOperation,
    BitOpNot,
    BitOpOr,
    DayEvents,
    GenericPeriodEvents,
    HourEvents,
    MonthEvents,
    UniqueEvents,
    WeekEvents,
    YearEvents,
    mark_event,
    mark_unique,
    unmark_event,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from facades import Facade
    from stores import Store

NOW = datetime(2026, 11, 23, 13, 7)
#: A week that belongs to another year than its first days do.
NEW_YEAR = datetime(2024, 12, 30, 13)


pytestmark = pytest.mark.usefixtures("systems")


class TestMarks:
    def test_the_wall_clock_is_taken_as_it_is(self, plain_store: Store) -> None:
        zone = timezone(timedelta(hours=9))
        mark_event("active", 1, now=datetime(2026, 11, 1, 0, 30, tzinfo=zone), track_hourly=True)
        assert plain_store.bits() == {
            "trackist_active_2026-11": {1},
            "trackist_active_W2026-44": {1},
            "trackist_active_2026-11-1": {1},
            "trackist_active_2026-11-1-0": {1},
        }

    def test_a_date_is_its_midnight(self, plain_store: Store) -> None:
        mark_event("active", 1, now=date(2024, 12, 30), track_hourly=True)
        assert "trackist_active_W2025-1" in plain_store.bits()
        assert 1 in HourEvents.from_date("active", date(2024, 12, 30))

    def test_nothing_is_returned(self) -> None:
        """As with bitmapist, whatever changed."""
        for verb in (mark_event, unmark_event, mark_unique, bitmapist.unmark_unique):
            assert verb("active", 1) is None

    def test_a_pipeline_as_the_system_may_be_passed_by(self, plain_store: Store) -> None:
        """With use_pipeline, which is the default, bitmapist goes past it too."""
        pipeline = plain_store.raw.pipeline()
        mark_event("active", 1, system=pipeline, now=NOW)
        assert len(pipeline) == 0
        assert plain_store.bits()["trackist_active_2026-11"] == {1}

    @pytest.mark.parametrize("queued", [False, True])
    @pytest.mark.parametrize(
        ("event", "user"), [("active", -1), ("active", 2**32), ("active", "1x"), ("active", "01")]
    )
    def test_bad_ids_are_refused_before_anything_is_sent(
        self, plain_store: Store, queued: bool, event: str, user: Any
    ) -> None:
        system: Any = plain_store.raw.pipeline() if queued else "default"
        with pytest.raises((InvalidTypeError, InvalidValueError)):
            mark_event(event, user, system=system, use_pipeline=not queued)
        assert not queued or len(system) == 0
        assert plain_store.names() == set()

    @pytest.mark.parametrize("name", ["", "a\nb"])
    def test_bad_names_are_refused(self, plain_store: Store, name: str) -> None:
        with pytest.raises(InvalidValueError):
            mark_event(name, 1)
        with pytest.raises(InvalidValueError):
            mark_unique(name, 1, plain_store.raw.pipeline())
        assert plain_store.names() == set()

    def test_other_names_are_taken_as_they_print(self, plain_store: Store) -> None:
        event: Any = 42
        mark_unique(event, 1)
        assert plain_store.bits() == {"trackist_42_u": {1}}
        assert 1 in UniqueEvents(event)


class TestSwitches:
    def test_they_are_those_of_tallymark(self, plain_store: Store) -> None:
        bitmapist.TRACK_HOURLY = True
        assert tallymark.TRACK_HOURLY
        tm.TRACK_UNIQUE = True
        assert bitmapist.TRACK_UNIQUE
        mark_event("active", 1, now=NOW)
        assert {"trackist_active_u", "trackist_active_2026-11-23-13"} < plain_store.names()

    def test_what_is_true_is_on(self) -> None:
        on: Any = 1
        bitmapist.TRACK_HOURLY = on
        assert tallymark.TRACK_HOURLY is True

    @pytest.mark.parametrize("module", ["tallymark", "tallymark.sync", "tallymark.bitmapist"])
    def test_they_can_be_patched(self, module: str) -> None:
        """`mock.patch` puts back what it found, in whichever module."""
        tallymark.TRACK_HOURLY = True
        with mock.patch(f"{module}.TRACK_HOURLY", new=False):
            assert not tm.TRACK_HOURLY
        assert tallymark.TRACK_HOURLY
        with mock.patch(f"{module}.TRACK_UNIQUE", new=True):
            assert bitmapist.TRACK_UNIQUE
        assert not bitmapist.TRACK_UNIQUE


def test_the_same_data_as_a_tally(plain_store: Store) -> None:
    mark_event("active", 1, now=NOW)
    with tallymark.SyncTally(plain_store.raw) as tally:
        tally.mark_event("active", 2, now=NOW)
        assert list(tally.users(tally.day("active", NOW))) == [1, 2]
    assert list(DayEvents("active", 2026, 11, 23)) == [1, 2]


class TestPeriods:
    @given(
        day=st.dates(date(1990, 1, 1), date(2050, 12, 31)),
        count=st.integers(-1_000, 1_000),
        begin=st.sampled_from(
            [cls.from_date for cls in (YearEvents, MonthEvents, WeekEvents, DayEvents, HourEvents)]
        ),
    )
    def test_each_begins_where_the_one_before_ends(
        self, day: date, count: int, begin: Callable[[str, date], GenericPeriodEvents]
    ) -> None:
        events = begin("active", day).delta(count % 40)
        assert events.next().period_start() - events.period_end() == timedelta(microseconds=1)
        assert events.next().prev() == events
        assert begin("active", events.period_start()) == events
        assert begin("active", events.period_end()) == events

    @given(day=st.dates(date(1990, 1, 1), date(2050, 12, 31)), count=st.integers(-999, 999))
    def test_weeks_go_with_their_iso_year(self, day: date, count: int) -> None:
        later = WeekEvents.from_date("active", day).delta(count)
        assert later == WeekEvents.from_date("active", day + timedelta(weeks=count))
        year, week, _ = (day + timedelta(weeks=count)).isocalendar()
        assert (later.year, later.week) == (year, week)
        assert later.redis_key == f"trackist_active_W{year}-{week}"

    def test_a_flag_has_no_date(self) -> None:
        flag = UniqueEvents.from_date("premium", NOW)
        assert flag.next() is flag.prev() is flag.delta(3) is flag

    def test_a_period_of_the_programs_own(self, plain_store: Store) -> None:
        class Quarter(GenericPeriodEvents):
            def __init__(self, event_name: str, year: int, quarter: int) -> None:
                super().__init__(event_name)
                self.year, self.quarter = year, quarter
                months = [MonthEvents(event_name, year, 3 * quarter - at) for at in range(3)]
                self.redis_key = BitOpOr(*months).redis_key

            def delta(self, value: int) -> Self:
                years, quarter = divmod(self.quarter - 1 + value, 4)
                return self.__class__(self.event_name, self.year + years, quarter + 1)

            def period_start(self) -> datetime:
                return datetime(self.year, 3 * self.quarter - 2, 1, tzinfo=timezone.utc)

            def period_end(self) -> datetime:
                return self.next().period_start() - timedelta(microseconds=1)

        mark_event("active", 1, now=NOW)
        mark_event("active", 2, now=NOW - timedelta(days=40))
        quarter = Quarter("active", 2026, 4)
        assert list(quarter) == [1, 2]
        assert len(quarter & DayEvents.from_date("active", NOW)) == 1
        assert not quarter.next()
        assert len(plain_store.raw.keys("trackist_bitop_*")) == 1
        quarter.delete()
        assert plain_store.raw.keys("trackist_bitop_*") == []


class TestOperations:
    def test_they_leave_no_key_behind(self, plain_store: Store) -> None:
        for user in (1, 2, 3):
            mark_event("active", user, now=NOW)
        mark_event("active", 2, now=NEW_YEAR)
        before = plain_store.names()
        month, year = MonthEvents.from_date("active", NOW), YearEvents("active", 2024)
        both = BitOpAnd(month, BitOpOr(year, ~month))
        for question in (len, list, bool, set, BitOperation.has_events_marked):
            question(both)
            assert plain_store.names() == before
        assert (2 in both, 3 in both) == (True, False)
        next(iter(month | year))
        assert both == BitOpAnd(month, BitOpOr(year, ~month))
        assert hash(both) == hash(BitOpAnd(month, BitOpOr(year, ~month)))
        assert "bitop_AND" in repr(both)
        year.delete()  # of the result, which there is not; the months stay
        assert plain_store.names() == before

    def test_a_key_is_written_for_who_asks_for_it(self, plain_store: Store) -> None:
        mark_event("active", 9, now=NOW)
        both = MonthEvents.from_date("active", NOW) | UniqueEvents("premium")
        key = both.redis_key
        assert key == "trackist_bitop_OR_trackist_active_2026-11-trackist_premium_u"
        assert plain_store.bits()[key] == {9}
        # It is of that moment; the operation itself goes on to look.
        mark_unique("premium", 8)
        assert plain_store.bits()[key] == {9}
        assert list(both) == [8, 9]
        assert both.redis_key == key
        assert plain_store.bits()[key] == {8, 9}
        both.delete()
        assert key not in plain_store.names()
        assert list(both) == [8, 9]

    def test_each_thread_deletes_its_own_keys(self, plain_store: Store) -> None:
        mark_event("active", 9, now=NOW)
        mine = (DayEvents.from_date("active", NOW) & MonthEvents.from_date("active", NOW)).redis_key

        def others() -> None:
            _ = YearEvents("active", NOW.year).redis_key
            bitmapist.delete_runtime_bitop_keys()

        thread = threading.Thread(target=others)
        thread.start()
        thread.join()
        assert [key.decode() for key in plain_store.raw.keys("trackist_bitop_*")] == [mine]

    def test_readers_do_not_disturb_each_other(self, plain_store: Store) -> None:
        """bitmapist's readers delete, and write anew, the results that others are reading."""
        for user in range(50):
            mark_event("active", user, now=NOW)
        wrong: list[int] = []

        def read() -> None:
            for _ in range(50):
                both = DayEvents.from_date("active", NOW) & MonthEvents.from_date("active", NOW)
                wrong.extend(count for count in (len(both), len(list(both))) if count != 50)
                both.delete()
                bitmapist.delete_temporary_bitop_keys()

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def test_what_cannot_be_combined(self) -> None:
        day = DayEvents("active")
        with pytest.raises(InvalidValueError, match="NAND"):
            BitOperation("NAND", day, day)
        with pytest.raises(InvalidValueError, match="one event or more"):
            BitOpAnd("default")
        with pytest.raises(InvalidValueError, match="needs one event, got 2"):
            BitOpNot(day, day)
        for wrong in (1, "active"):
            with pytest.raises(InvalidTypeError, match="not an event"):
                _ = day & wrong  # type: ignore[operator] # pyright: ignore[reportOperatorIssue]

    def test_anything_with_a_key_can_take_part(self, plain_store: Store) -> None:
        class Mine:
            redis_key = "mine"

        plain_store.raw.setbit("mine", 3, 1)
        mark_event("active", 3, now=NOW)
        mine: Any = Mine()
        assert list(BitOpAnd(mine, DayEvents.from_date("active", NOW))) == [3]
        assert list(~BitOpAnd(mine, mine)) == []
        other = DayEvents("active")
        other.redis_key = "mine"
        assert other == mine


EVENTS = ["a", "b", "c"]
trees = st.recursive(
    st.sampled_from(EVENTS).map(lambda name: (name,)),
    lambda parts: st.tuples(st.just("~"), parts) | st.tuples(st.sampled_from("&|^"), parts, parts),
    max_leaves=6,
)


def events_of(tree: tuple[Any, ...]) -> Any:
    operator, *operands = tree
    parts = [events_of(operand) for operand in operands]
    if not parts:
        return DayEvents.from_date(operator, NOW)
    if operator == "~":
        return ~parts[0]
    first, second = parts
    return {"&": first & second, "|": first | second, "^": first ^ second}[operator]


def users_of(tree: tuple[Any, ...], marked: dict[str, set[int]], everybody: set[int]) -> set[int]:
    operator, *operands = tree
    parts = [users_of(operand, marked, everybody) for operand in operands]
    if not parts:
        return marked[operator]
    if operator == "~":
        return everybody - parts[0]
    first, second = parts
    return {"&": first & second, "|": first | second, "^": first ^ second}[operator]


def leaves_of(tree: tuple[Any, ...]) -> set[str]:
    return set().union(*map(leaves_of, tree[1:])) if tree[1:] else {tree[0]}


class TestComplements:
    @settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        tree=trees,
        today=st.fixed_dictionaries({name: st.sets(st.integers(0, 30)) for name in EVENTS}),
        before=st.fixed_dictionaries({name: st.sets(st.integers(0, 99)) for name in EVENTS}),
    )
    def test_they_are_of_all_who_were_ever_marked(
        self,
        plain_store: Store,
        tree: tuple[Any, ...],
        today: dict[str, set[int]],
        before: dict[str, set[int]],
    ) -> None:
        plain_store.raw.flushdb()
        with tallymark.SyncTally(plain_store.raw) as tally:
            for name in EVENTS:
                tally.mark_many(name, today[name], now=NOW)
                tally.mark_many(name, before[name], now=NEW_YEAR)
                tally.mark_unique(name, 7)
        leaves = leaves_of(tree)
        everybody = {7}.union(*(today[name] | before[name] for name in leaves))
        events = events_of(tree)
        wanted = users_of(tree, today, everybody)
        assert list(events) == sorted(wanted)
        assert len(events) == len(wanted)
        assert {user for user in (0, 7, 30, 99) if user in events} == wanted & {0, 7, 30, 99}

    def test_an_intersection_needs_nobody_else(self, plain_store: Store) -> None:
        """``a & ~b`` is a difference, also where b's bitmap ends before a's."""
        for user in (3, 70_000):
            mark_event("active", user, now=NOW)
        mark_unique("premium", 3)
        active, premium = DayEvents.from_date("active", NOW), UniqueEvents("premium")
        assert list(active & ~premium) == [70_000]
        assert list(~premium & active) == [70_000]
        assert list(~premium) == []  # nobody else was ever marked as premium


class TestSystems:
    def test_setup_redis(self, systems: dict[str, Any]) -> None:
        bitmapist.setup_redis("stats", "nowhere", 1, db=3, redis_client=fakeredis.FakeRedis)
        client = bitmapist.get_redis("stats")
        assert isinstance(client, fakeredis.FakeRedis)
        assert client.connection_pool.connection_kwargs["db"] == 3
        bitmapist.setup_redis("plain", "127.0.0.1", 1)
        assert type(bitmapist.get_redis("plain")) is redis.Redis
        assert bitmapist.get_redis(client) is client
        with pytest.raises(KeyError):
            bitmapist.get_redis("nobody's")

    def test_a_client_for_each_call_leaves_few_connections(self, redis_store: Store) -> None:
        before = redis_store.raw.info("clients")["connected_clients"]
        for user in range(40):
            with redis.Redis.from_url(redis_store.url) as client:
                mark_event("active", user, system=client, now=NOW)
        assert redis_store.raw.info("clients")["connected_clients"] <= before + 17
        assert redis_store.bits()["trackist_active_2026-11"] == set(range(40))

    def test_a_pool_of_the_programs_own_kind_is_used_as_it_is(
        self, redis_store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It may find its server in other ways, as that for Sentinels does."""
        impatient = functools.partial(tallymark.SyncTally, timeout=0.2)
        monkeypatch.setattr(bitmapist.systems, "SyncTally", impatient)
        kind: Any = redis.BlockingConnectionPool
        pool = kind.from_url(redis_store.url, max_connections=1, timeout=0.1)
        with redis.Redis.from_pool(pool) as client:
            mark_event("active", 1, system=client, now=NOW)
            taken = pool.get_connection()
            with pytest.raises(redis.ConnectionError):
                mark_event("active", 2, system=client, now=NOW)
            pool.release(taken)
            assert list(MonthEvents("active", 2026, 11, client)) == [1]

    def test_results_are_on_the_system_of_the_events(self, plain_store: Store) -> None:
        """bitmapist looks for them on the default one."""
        for user in (1, 2):
            mark_event("active", user, "other", NOW)
        mark_unique("premium", 2, "other")
        day, premium = DayEvents("active", 2026, 11, 23, "other"), UniqueEvents("premium", "other")
        assert list(day & premium) == [2]
        assert BitOpNot(premium).system == "other"
        assert YearEvents("active", 2026, "other").get_count() == 2
        assert plain_store.names() == set()

    def test_a_system_that_is_named_is_that_of_all(self, systems: dict[str, Any]) -> None:
        mark_event("active", 1, systems["other"], NOW)
        elsewhere = BitOpAnd(DayEvents.from_date("active", NOW), MonthEvents("active", 2026, 11))
        assert list(BitOpAnd("other", elsewhere)) == [1]

    def test_events_of_two_systems_do_not_mix(self, systems: dict[str, Any]) -> None:
        with pytest.raises(InvalidValueError, match="'default' and 'other'"):
            _ = DayEvents("active") & UniqueEvents("premium", "other")
        by_client = UniqueEvents("premium", systems["default"])
        assert len(DayEvents("active") & by_client) == 0  # it is the same one

    def test_what_is_no_client_is_refused(self, systems: dict[str, Any]) -> None:
        systems["default"] = object()
        with pytest.raises(InvalidTypeError, match=r"tallymark\.migrate"):
            mark_event("active", 1)

    def test_deleting_is_of_one_system(self, plain_store: Store, systems: dict[str, Any]) -> None:
        plain_store.raw.set("mine", 1)
        for system, client in systems.items():
            mark_event("active", 1, system)
            client.set("trackist_bitop_AND_trackist_active_u", b"x")
        bitmapist.delete_temporary_bitop_keys("other")
        assert len(systems["other"].keys("*")) == 3
        bitmapist.delete_all_events()
        assert plain_store.names() == {"mine"}
        assert bitmapist.get_event_names("other", "act") == ["active"]
        bitmapist.delete_all_events("other")
        assert systems["other"].keys("*") == []

    def test_a_pipeline_is_for_marks_and_counts(self, plain_store: Store) -> None:
        mark_event("active", 1, now=NOW)
        mark_event("active", 2, now=NOW, track_unique=True)
        pipeline = plain_store.raw.pipeline()
        day, flag = DayEvents("active", 2026, 11, 23, pipeline), UniqueEvents("active", pipeline)
        day.get_count()
        both = day & flag
        both.get_count()
        both.delete()
        assert pipeline.execute() == [2, 1, 1, 1]
        for question in (list, DayEvents.has_events_marked, lambda events: 1 in events):
            with pytest.raises(InvalidTypeError, match="pipeline"):
                question(day)
        with pytest.raises(InvalidTypeError, match="pipeline"):
            _ = ~day


class TestErrors:
    """They are redis-py's, since programs catch those."""

    def test_no_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Long enough for one attempt on a busy machine; else all it could say is: in time.
        impatient = functools.partial(Options, timeout=2)
        monkeypatch.setattr(bitmapist.systems, "Options", impatient)
        bitmapist.setup_redis("down", "127.0.0.1", 1, retry=Retry(NoBackoff(), 0))
        questions: list[Callable[[], object]] = [
            lambda: mark_event("active", 1, "down"),
            lambda: len(DayEvents("active", system="down")),
            lambda: list(DayEvents("active", system="down")),
            lambda: bitmapist.get_event_names("down"),
        ]
        with ThreadPoolExecutor(len(questions)) as pool:  # each takes all of its time
            answers = [pool.submit(question) for question in questions]
        for answer in answers:
            error = answer.exception()
            assert isinstance(error, redis.ConnectionError)
            assert isinstance(error.__cause__, tallymark.StoreUnavailableError)

    def test_no_bitmap(self, plain_store: Store) -> None:
        plain_store.raw.lpush("trackist_active_2026-11", 1)
        for question in (
            lambda: mark_event("active", 1, now=NOW),
            lambda: len(MonthEvents("active", 2026, 11)),
            lambda: 1 in MonthEvents("active", 2026, 11),
        ):
            with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
                question()

    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            (tallymark.StoreTimeoutError, redis.TimeoutError),
            (tallymark.StoreNotReadyError, redis.ConnectionError),
            (tallymark.StoreUnavailableError, redis.ConnectionError),
            (tallymark.PermissionDeniedError, NoPermissionError),
            (tallymark.WrongKeyTypeError, redis.ResponseError),
            (tallymark.OverloadedError, redis.RedisError),
        ],
    )
    def test_each_has_its_own(self, ours: type[Exception], theirs: type[Exception]) -> None:
        with pytest.raises(theirs) as caught, bitmapist.systems.translated():
            raise ours("message")
        assert type(caught.value) is theirs
        assert str(caught.value) == "message"


def test_a_facade_and_the_drop_in_share_the_default_switches(facade: Facade) -> None:
    facade.module.TRACK_UNIQUE = True
    assert bitmapist.TRACK_UNIQUE
