"""Which events have bitmaps at all: misspelt names are found, in any shard, at a low cost."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from facades import internals
from tallymark import SyncTally
from tallymark._reading.existence import find_unknown

if TYPE_CHECKING:
    from stores import Store

LONG = timedelta(days=7000)
TODAY = datetime.now(timezone.utc).date()
EVENTS = ["flag", "old", "new", "next", "hours", "flags", "ol", "old_2", "flag"]


def unknown(tally: SyncTally[Any], events: list[str]) -> tuple[str, ...]:
    backend = internals(tally)
    found: tuple[str, ...] = backend.reader.answer(find_unknown(backend.context, events), None)
    return found


def calls(store: Store, command: str) -> int:
    stats = store.raw.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "months expire": {"expire": {"month": LONG}},
    "all expire": {"expire": dict.fromkeys(("day", "week", "month"), LONG)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_events_without_a_bitmap_are_found(store: Store, options: dict[str, Any]) -> None:
    with SyncTally.from_url(store.url, **options) as tally:
        assert unknown(tally, EVENTS) == tuple(dict.fromkeys(EVENTS))
        names = store.names()
        tally.mark_unique("flag", 1)
        tally.mark_event("old", 2, now=TODAY - 3000 * timedelta(days=1))
        tally.mark_event("new", 3)
        tally.mark_event("next", 4, now=date(TODAY.year + 1, 12, 31))
        tally.mark_event("hours", 5, track_hourly=True)
        tally.mark_unique("old_2_3", 6)  # the beginning of its name is that of another event
        assert unknown(tally, EVENTS) == ("flags", "ol", "old_2")
        assert unknown(tally, ["old", "new"]) == ()
        assert unknown(tally, []) == ()
        # Marks that were taken back count: the event is not misspelt.
        tally.unmark_event("new", 3)
        assert unknown(tally, ["new", "ol"]) == ("ol",)
    assert {name for name in store.names() - names if "schema" not in name}


@pytest.mark.parametrize("user", range(6))
def test_a_bitmap_in_any_shard_counts(store: Store, user: int) -> None:
    with SyncTally.from_url(store.url, prefix="sharded_", shards=3) as tally:
        tally.mark_event("a", user)
        assert unknown(tally, ["a", "b"]) == ("b",)


def test_no_keys_are_scanned_if_months_stay(redis_store: Store) -> None:
    with SyncTally.from_url(redis_store.url) as tally:
        tally.mark_event("a", 1)
        before = calls(redis_store, "scan"), calls(redis_store, "exists")
        assert unknown(tally, ["b"]) == ("b",)
        months = 12 * (TODAY.year + 3 - 1970)
        after = calls(redis_store, "scan"), calls(redis_store, "exists")
        assert after == (before[0], before[1] + months + 2)  # the flag twice
        # Nearly all events have a flag, or a month of the last years: no others are looked for.
        tally.mark_event("c", 1, now=date(TODAY.year - 1, 1, 1))
        before = calls(redis_store, "scan"), calls(redis_store, "exists")
        assert unknown(tally, ["c"]) == ()
        after = calls(redis_store, "scan"), calls(redis_store, "exists")
        assert after == (before[0], before[1] + 12 * 4 + 1)
        tally.mark_event("d", 1, now=date(TODAY.year + 2, 12, 31))
        tally.mark_event("e", 1, now=date(TODAY.year + 3, 1, 1))
        assert unknown(tally, ["c", "d", "e"]) == ("e",)
