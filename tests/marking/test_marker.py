"""Which bitmaps the present has: they change with the wall clock's hour, never later."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone, tzinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moments import BERLIN
from tallymark._core.options import Options
from tallymark._marking import bitmap_cache
from tallymark._marking.bitmap_cache import _PRESENT_EVENTS, _memory
from tallymark._marking.marker import Marker

LORD_HOWE = "Australia/Lord_Howe"  # its summer time is half an hour
ODD = timezone(timedelta(hours=5, minutes=17, microseconds=500_000))


class Clock:
    def __init__(self, time: float = 0.0) -> None:
        self.time = time

    def __call__(self) -> float:
        return self.time


def last_key(marker: Marker, event: str = "a") -> str:
    return marker.mark_event(event, 1, None, True, None).bitmaps.keys[-1].decode()


def hour_key(time: float, zone: tzinfo) -> str:
    moment = datetime.fromtimestamp(time, zone)
    return f"trackist_a_{moment.year}-{moment.month}-{moment.day}-{moment.hour}"


# Steps from a fraction of a second to days, also back, around each change of the clocks.
steps = st.lists(st.floats(-4000, 4000) | st.floats(-200_000, 200_000), max_size=30)
changes = st.sampled_from(
    [
        datetime(2026, 3, 29, 1, tzinfo=timezone.utc),  # Berlin
        datetime(2026, 10, 25, 1, tzinfo=timezone.utc),
        datetime(2026, 4, 4, 15, tzinfo=timezone.utc),  # Lord Howe Island
        datetime(2026, 10, 3, 15, 30, tzinfo=timezone.utc),
        datetime(2026, 12, 31, 23, 59, 59, tzinfo=timezone.utc),
    ]
)


@given(
    change=changes,
    steps=steps,
    zone=st.sampled_from([timezone.utc, BERLIN, LORD_HOWE, "Asia/Kolkata", "Pacific/Chatham", ODD]),
)
def test_the_present_has_the_keys_of_its_hour(
    change: datetime, steps: list[float], zone: str | tzinfo
) -> None:
    options = Options(timezone=zone)
    clock = Clock(change.timestamp())
    marker = Marker(options, clock)
    for step in steps:
        clock.time += step
        assert last_key(marker) == hour_key(clock.time, options.zone)


@pytest.mark.parametrize(("seconds", "same"), [(3599.999, True), (3600.0, False), (-0.001, False)])
def test_within_an_hour_the_calendar_is_left_alone(seconds: float, same: bool) -> None:
    clock = Clock(datetime(2026, 11, 23, 9, tzinfo=timezone.utc).timestamp())
    marker = Marker(Options(), clock)
    first = marker.mark_event("a", 1, None, True, None).bitmaps
    begun = marker._cache.present
    clock.time += seconds
    assert (marker.mark_event("a", 1, None, True, None).bitmaps is first) == same
    assert (marker._cache.present is begun) == same


def test_names_from_strangers_do_not_fill_the_memory() -> None:
    marker = Marker(Options(), Clock())
    for number in range(_PRESENT_EVENTS + 10):
        marker.mark_event(f"event {number}", 1, None, None, None)
    assert sum(map(len, marker._cache.present.bitmaps)) == 10


def test_each_hour_has_all_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    size = _memory(Marker(Options(), clock).mark_event("0", 1, None, None, None).bitmaps)
    monkeypatch.setattr(bitmap_cache, "_MAX_BYTES", 20 * size)
    marker = Marker(Options(), clock)

    def cached() -> int:
        return sum(map(len, marker._cache.present.bitmaps))

    for events, kept in ((19, 19), (20, 20), (21, 1)):
        for number in range(events):
            marker.mark_event(chr(ord("a") + number), 1, None, None, None)
        assert cached() == kept
        clock.time += 3600


@pytest.mark.parametrize(
    ("minutes", "hour"), [(1, "4-23"), (19, "4-23"), (21, "5-0"), (45, "5-0"), (81, "5-1")]
)
def test_the_offset_of_a_zone_may_change_within_an_hour(minutes: int, hour: str) -> None:
    """As in Pyongyang on 2018-05-04, when the clocks went from 23:30 to 24:00."""
    clock = Clock(datetime(2018, 5, 4, 14, 40, tzinfo=timezone.utc).timestamp())  # 23:10
    marker = Marker(Options(timezone="Asia/Pyongyang"), clock)
    assert last_key(marker) == "trackist_a_2018-5-4-23"
    clock.time += 60 * minutes
    assert last_key(marker) == f"trackist_a_2018-5-{hour}"


def test_an_exact_unmark_looks_at_the_clock_once() -> None:
    times = iter([3599.9, 3600.1])
    marker = Marker(Options(), lambda: next(times))
    mark = marker.unmark_event("a", 1, None, True, None, True)
    assert mark.bitmaps.keys[-1] == b"trackist_a_1970-1-1-0"
