"""Time zones of all kinds: each is right, or refused when the tally is made."""

from __future__ import annotations

import importlib
import itertools
import math
import signal
import time
from datetime import date, datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallymark import Granularity, InvalidValueError, Period
from tallymark._core.context import Context
from tallymark._core.expiry import Expiry
from tallymark._core.options import Options
from tallymark._core.periods import timestamp
from tallymark._marking.marker import Marker

if TYPE_CHECKING:
    from collections.abc import Callable

    from facades import Facade
    from stores import Store

pytz: Any = importlib.import_module("pytz")  # which have no types
dateutil: Any = importlib.import_module("dateutil.tz")

DAY = timedelta(days=1)

#: With offsets of half an hour and of quarters; changes of the clock at midnight, by half
#: an hour, and by a day.
NAMES = [
    "UTC",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "America/Havana",
    "Australia/Lord_Howe",
    "Pacific/Apia",
]

#: Local times near such changes.
CHANGES = [
    datetime(2024, 3, 31, 2),
    datetime(2024, 10, 27, 2),
    datetime(2024, 3, 10, 2),
    datetime(2024, 11, 3, 1),
    datetime(2018, 11, 4),
    datetime(2018, 2, 18),
    datetime(2024, 4, 7, 2),
    datetime(2024, 10, 6, 2),
    datetime(2011, 12, 30),
    datetime(2011, 12, 31),
]
near_changes = st.builds(
    lambda change, minutes: change + timedelta(minutes=minutes),
    st.sampled_from(CHANGES),
    st.integers(-60, 60).map(lambda halves: halves * 30),
)
# Each library brings a database of its own, which agree about the recent past.
moments = near_changes | st.datetimes(datetime(1981, 1, 1), datetime(2025, 1, 1))


class Eastern(tzinfo):
    """US Eastern as classes had it before PEP 495: without ``fold``."""

    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(hours=-5) + self.dst(moment)

    def dst(self, moment: datetime | None) -> timedelta:
        if moment is None:
            return timedelta(0)
        local = moment.replace(tzinfo=None)
        begin = self._sunday(datetime(local.year, 3, 8, 2))
        end = self._sunday(datetime(local.year, 11, 1, 1))
        return timedelta(hours=1 if begin <= local < end else 0)

    def tzname(self, moment: datetime | None) -> str:
        return "Eastern"

    @staticmethod
    def _sunday(moment: datetime) -> datetime:
        return moment + (6 - moment.weekday()) * DAY


def zones(name: str) -> list[tzinfo]:
    """Return a zone as each library has it."""
    return [pytz.timezone(name), dateutil.gettz(name)]


@pytest.mark.parametrize("name", NAMES)
@given(local=moments)
def test_when_a_wall_clock_shows_a_time(name: str, local: datetime) -> None:
    """Just as with zoneinfo, also for times that it skips, or shows twice."""
    expected = timestamp(local, ZoneInfo(name))
    shown = datetime.fromtimestamp(expected, ZoneInfo(name)).replace(tzinfo=None)
    assert shown >= local  # later only where the clock skips it
    for zone in zones(name):
        assert timestamp(local, zone) == expected, zone


@pytest.mark.parametrize("name", NAMES)
def test_keys_and_ends_of_marks(name: str) -> None:
    lives: Any = {"hour": DAY, "day": DAY, "week": DAY, "month": DAY}
    every = [Options(timezone=zone, expire=lives) for zone in (ZoneInfo(name), *zones(name))]

    @settings(max_examples=30)
    @given(moment=moments, seconds=st.floats(4e8, 1.7e9))
    def are_the_same(moment: datetime, seconds: float) -> None:
        aware = moment.replace(tzinfo=timezone.utc)
        for now in (None, moment, moment.date(), aware, aware.astimezone(every[1].zone)):
            clock = seconds if now is None else aware.timestamp()
            first, *others = [
                Marker(options, lambda: clock).bitmaps("e", now, True, True)  # noqa: B023
                for options in every
            ]
            local, *locals_ = [
                Context.of("db", options, lambda: clock).local(now)  # noqa: B023
                for options in every
            ]
            assert locals_ == [local] * len(others)
            for bitmaps in others:
                assert bitmaps.keys == first.keys
                assert bitmaps.expiry_commands == first.expiry_commands

    are_the_same()


@pytest.mark.parametrize(
    ("name", "begin", "hours"),
    [
        # In Berlin, the hour from 2 on is skipped in March, and comes twice in October.
        ("Europe/Berlin", datetime(2024, 3, 31, 1), [1, 0, 1]),
        ("Europe/Berlin", datetime(2024, 10, 27, 1), [1, 2, 1]),
        # In Havana, the clock goes from midnight to 1, and back from 1 to midnight.
        ("America/Havana", datetime(2024, 3, 9, 23), [1, 0, 1]),
        ("America/Havana", datetime(2024, 11, 2, 23), [1, 2, 1]),
        # In Lord Howe, by half an hour.
        ("Australia/Lord_Howe", datetime(2024, 10, 6, 1), [1, 0.5, 1]),
        ("Australia/Lord_Howe", datetime(2024, 4, 7, 0), [1, 1.5, 1]),
        ("Asia/Kolkata", datetime(2024, 4, 7, 0), [1, 1, 1]),
    ],
)
def test_how_long_hours_are(name: str, begin: datetime, hours: list[float]) -> None:
    for zone in [ZoneInfo(name), *zones(name)]:
        expiry = Expiry(Options(timezone=zone, expire={"hour": timedelta(hours=9)}))
        first = Period.containing(Granularity.HOUR, begin)
        ends = [expiry.time(first.shift(number)) for number in range(-1, 3)]
        assert [(end - before) / 3600 for before, end in itertools.pairwise(ends)] == hours


@given(local=near_changes | st.datetimes(datetime(2008, 1, 1), datetime(2036, 1, 1)))
def test_a_zone_without_fold(local: datetime) -> None:
    zone, eastern = ZoneInfo("America/New_York"), Eastern()
    assert Options(timezone=eastern).zone is eastern
    expected = timestamp(local, zone)
    assert timestamp(local, eastern) == expected
    hours = [Expiry(Options(timezone=each, expire={"hour": DAY})) for each in (zone, eastern)]
    period = Period.containing(Granularity.HOUR, local)
    assert hours[0].time(period) == hours[1].time(period)


async def test_bitmaps_expire_when_their_period_has_ended(
    facade: Facade, redis_store: Store
) -> None:
    """pytz's Asia/Kolkata, taken as it is, would be 23 minutes early."""
    zones = [
        ZoneInfo("Asia/Kolkata"),
        pytz.timezone("Asia/Kolkata"),
        dateutil.gettz("Asia/Kolkata"),
        timezone(timedelta(hours=5, minutes=30)),
        pytz.FixedOffset(330),
    ]
    today = datetime.now(zones[0]).date()
    midnight = datetime(today.year, today.month, today.day, tzinfo=timezone.utc) + DAY
    end = midnight.timestamp() - 5.5 * 3600 + 86_400
    for number, zone in enumerate(zones):
        options = {"timezone": zone, "expire": {"day": DAY}, "prefix": f"{number}:"}
        async with facade.open(redis_store.url, **options) as tally:
            await tally.mark_event("e", 7, now=today)
            left = redis_store.raw.pttl(f"{number}:e_{today.year}-{today.month}-{today.day}") / 1000
            assert abs(time.time() + left - end) < 2
            assert await tally.contains(tally.day("e", today), 7)


class Zone(tzinfo):
    """A zone that returns the answers of its arguments."""

    def __init__(self, offset: Any, *, dst: Any = timedelta(0), skew: timedelta | None = None):
        self.answers = offset, dst
        self.skew = skew

    def utcoffset(self, moment: datetime | None) -> Any:
        return self._told(0)

    def dst(self, moment: datetime | None) -> Any:
        return self._told(1)

    def fromutc(self, moment: datetime) -> datetime:
        return super().fromutc(moment) if self.skew is None else moment + self.skew

    def tzname(self, moment: datetime | None) -> str:
        return "a zone"

    def _told(self, index: int) -> Any:
        answer = self.answers[index]
        if isinstance(answer, Exception):
            raise answer
        return answer


class NoOffset(ZoneInfo):
    """A zone of the standard library, spoilt by a subclass."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None


#: A class that says nothing at all, which type checkers would not let pass.
Nothing: Any = tzinfo


@pytest.mark.parametrize(
    "zone",
    [
        Nothing(),
        Zone(None),
        Zone(None, skew=timedelta(0)),
        Zone(KeyError("no")),
        Zone(MemoryError("no")),
        Zone("+01:00"),
        Zone(timedelta(hours=25)),
        Zone(timedelta(hours=1), dst=None),
        Zone(timedelta(hours=1), skew=timedelta(hours=2)),
        NoOffset("Europe/Berlin"),
    ],
    ids=[
        *("nothing", "none", "none for UTC", "raises", "memory", "str", "25 h", "dst", "skew"),
        "subclass",
    ],
)
async def test_zones_that_are_refused(facade: Facade, zone: tzinfo) -> None:
    with pytest.raises(InvalidValueError, match=r"cannot be reckoned with \(.*zoneinfo\.ZoneInfo"):
        async with facade.open("redis://localhost", timezone=zone):
            pass


class Failing(tzinfo):
    """A zone that has been right for years."""

    def __init__(self, fail: Callable[[], Any], since: int = 2050) -> None:
        self.fail = fail
        self.since = since

    def utcoffset(self, moment: datetime | None) -> Any:
        if moment is not None and moment.year < self.since:
            return timedelta(hours=1)
        return self.fail()

    def dst(self, moment: datetime | None) -> timedelta:
        return timedelta(0)

    def tzname(self, moment: datetime | None) -> str:
        return "a zone"


class OwnError(Exception):
    """Of a zone."""


def fails(error: Exception) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    "fail",
    [
        lambda: 1 / 0,
        lambda: None,
        lambda: "+01:00",
        fails(OverflowError("no")),
        fails(OwnError("no")),
        fails(MemoryError("no")),
    ],
    ids=["division", "none", "str", "overflow", "own", "memory"],
)
async def test_a_zone_that_fails_in_years_to_come(
    facade: Facade, redis_store: Store, fail: Callable[[], Any]
) -> None:
    """Years that were not looked at when the tally was made."""
    later = datetime(2060, 6, 1, 12)
    zone = Failing(fail)
    every = dict.fromkeys(["hour", "day", "week", "month", "year"], DAY)
    async with facade.open(redis_store.url, timezone=zone, expire=every) as tally:
        for now in (later, date(2060, 6, 1), later.replace(tzinfo=timezone.utc)):
            for call in (
                lambda: tally.mark_event("e", 1, now=now),  # noqa: B023
                lambda: tally.mark_many("e", [1], now=now),  # noqa: B023
                lambda: tally.unmark_event("e", 1, now=now),  # noqa: B023
                lambda: tally.unmark_event("e", 1, now=now, exact=True),  # noqa: B023
                lambda: tally.unmark_many("e", [1], now=now),  # noqa: B023
            ):
                with pytest.raises(InvalidValueError, match="2060"):
                    await call()
        with pytest.raises(InvalidValueError, match="2060"):
            tally.day("e", later.replace(tzinfo=timezone.utc))
        assert await tally.mark_event("e", 1, now=date(2049, 6, 1))
    assert all("2049" in name for name in redis_store.names())


@pytest.mark.parametrize("fail", [fails(OwnError("no")), lambda: None], ids=["own", "none"])
def test_a_zone_that_fails_at_present(fail: Callable[[], Any]) -> None:
    later = datetime(2060, 6, 1, 12, tzinfo=timezone.utc).timestamp()
    options = Options(timezone=Failing(fail))
    with pytest.raises(InvalidValueError, match="2060-06-01"):
        Marker(options, lambda: later).mark_event("e", 1, None, None, None)
    with pytest.raises(InvalidValueError, match="2060-06-01"):
        Context.of("db", options, lambda: later).local(None)


def test_a_zone_that_cannot_say_the_ends_of_time() -> None:
    """As dateutil's, whose errors are of many classes."""
    for error in (OverflowError("no"), ValueError("year 10000 is out of range")):
        expiry = Expiry(Options(timezone=Failing(fails(error), 9999), expire={"day": DAY}))
        with pytest.raises(InvalidValueError):
            expiry.time(Period.containing(Granularity.DAY, datetime(9999, 6, 1)))
        last = Period.containing(Granularity.DAY, datetime(9999, 12, 30))
        assert expiry.time(last) == math.inf


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="Windows has no SIGUSR1")
@pytest.mark.parametrize("raised", [OwnError, RuntimeError, ValueError])
def test_what_a_signal_handler_raises_in_a_zone_passes(raised: type[Exception]) -> None:
    limit = raised("of the program")

    def ring(signum: int, frame: Any) -> None:
        raise limit

    def interrupt() -> Any:
        signal.raise_signal(signal.SIGUSR1)
        return timedelta(0)

    options = Options(timezone=Failing(interrupt), expire={"day": DAY})
    marker = Marker(options, lambda: 0.0)
    before = signal.signal(signal.SIGUSR1, ring)
    try:
        for now in (datetime(2060, 6, 1), datetime(2060, 6, 1, tzinfo=timezone.utc)):
            with pytest.raises(raised) as caught:
                marker.mark_event("e", 1, now, None, None)
            assert caught.value is limit
        with pytest.raises(raised) as caught:
            Options(timezone=Failing(interrupt, since=2000))
        assert caught.value is limit
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_zones_of_ones_own() -> None:
    zone = Zone(timedelta(hours=1, seconds=7))
    assert Options(timezone=zone).zone is zone
    assert timestamp(datetime(1970, 1, 1, 1, 0, 7), zone) == 0


@pytest.mark.parametrize(
    "zone",
    [*NAMES, *map(pytz.timezone, NAMES)],
    ids=[*NAMES, *(f"pytz {name}" for name in NAMES)],
)
def test_both_ends_of_time(zone: Any) -> None:
    """What Python cannot say is over, or to come."""
    expiry = Expiry(Options(timezone=zone, expire=dict.fromkeys(["hour", "day"], DAY)))
    for period in (
        Period.containing(Granularity.DAY, datetime(1, 1, 1)),
        Period.containing(Granularity.HOUR, datetime(1, 1, 1)),
    ):
        assert expiry.time(period) < 0
    for period in (
        Period.containing(Granularity.DAY, datetime(9999, 12, 31)),
        Period.containing(Granularity.HOUR, datetime(9999, 12, 31, 23)),
    ):
        assert expiry.time(period) == math.inf
    marker = Marker(Options(timezone=zone, expire={"day": DAY}), lambda: 0.0)
    assert marker.bitmaps("e", date(9999, 12, 31), None, None).expiry_count == 0
