"""What a tally does not take, and what does not stay."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments import RIGHTS
from servers import RedisProcess, running
from tallymark import (
    Granularity,
    InvalidTypeError,
    InvalidValueError,
    Period,
    PermissionDeniedError,
)
from tallymark._core.expiry import Expiry
from tallymark._core.options import Options
from tallymark._marking.batch import Batch
from tallymark._marking.marker import Marker
from tallymark.errors import CommandError

if TYPE_CHECKING:
    from facades import Facade
    from stores import Store

D, W, M, H = Granularity.DAY, Granularity.WEEK, Granularity.MONTH, Granularity.HOUR
WEEK = timedelta(days=7)
BERLIN = ZoneInfo("Europe/Berlin")


def end_of(store: Store, granularity: Granularity, moment: datetime) -> float | None:
    """Return how many seconds after its period a bitmap ends; None if it stays."""
    period = Period.containing(granularity, moment.replace(tzinfo=None))
    left = store.raw.pttl(f"trackist_a_{period.suffix}")
    assert left != -2, f"there is no bitmap of {period}"
    if left == -1:
        return None
    end = period.end.replace(tzinfo=moment.tzinfo).timestamp()
    return time.time() + left / 1000 - end  # type: ignore[no-any-return]


async def test_bitmaps_end_so_long_after_their_period(facade: Facade, plain_store: Store) -> None:
    now = datetime.now(BERLIN)
    yesterday = now - timedelta(days=1)
    lives: Any = {"hour": timedelta(days=2), D: WEEK}
    async with facade.open(
        plain_store.url,
        timezone="Europe/Berlin",
        track_hourly=True,
        track_unique=True,
        expire=lives,
    ) as tally:
        assert await tally.mark_event("a", 1) == H | D | W | M | Granularity.UNIQUE
        await tally.mark_event("a", 1, now=yesterday)
        for moment in (now, yesterday):
            assert end_of(plain_store, H, moment) == pytest.approx(2 * 86400, abs=2)
            assert end_of(plain_store, D, moment) == pytest.approx(7 * 86400, abs=2)
            assert end_of(plain_store, W, moment) is None
            assert end_of(plain_store, M, moment) is None
        assert await tally.mark_unique_many("a", range(2000)) == 1999
        assert plain_store.raw.ttl("trackist_a_u") == -1
        # Whatever took the end away, the next mark sets it again; a late mark does not move it.
        for write in (
            lambda: tally.mark_event("a", 2, now=now),
            lambda: tally.unmark_event("a", 3, now=now),
            lambda: tally.mark_many("a", range(2000), now=now),  # as a bitmap
            lambda: tally.mark_many("a", [5, 10**6], now=now),  # bit by bit
        ):
            plain_store.raw.persist(
                f"trackist_a_{Period.containing(D, now.replace(tzinfo=None)).suffix}"
            )
            await write()
            assert end_of(plain_store, D, now) == pytest.approx(7 * 86400, abs=2)


async def test_what_would_be_over_is_left_out(facade: Facade, store: Store) -> None:
    long_ago = datetime(2026, 1, 5, tzinfo=timezone.utc)
    async with facade.open(store.url) as keeping:
        await keeping.mark_event("a", 1, now=long_ago)
    async with facade.open(store.url, expire={"day": WEEK}) as tally:
        assert await tally.mark_event("a", 2, now=long_ago) == W | M
        assert await tally.mark_many("a", [3], now=long_ago) == {M: 1, W: 1}
        assert await tally.unmark_event("a", 2, now=long_ago) == W | M
        assert store.bits() == {  # and what was there stays
            "trackist_a_2026-1-5": {1},
            "trackist_a_W2026-2": {1, 3},
            "trackist_a_2026-1": {1, 3},
        }
    everything: Any = dict.fromkeys(("day", "week", "month"), WEEK)
    async with facade.open(store.url, expire=everything) as tally:
        assert await tally.mark_event("a", 9, now=long_ago) == Granularity(0)
        assert await tally.mark_many("a", [9], now=long_ago) == {}
        assert await tally.unmark_event("a", 9, now=long_ago, exact=True) == Granularity(0)
        assert 9 not in set().union(*store.bits().values())


@pytest.mark.parametrize(
    ("moment", "known"),
    [
        (datetime(2026, 11, 25, 12), D),  # Monday is over, and nobody knows who was there
        (datetime(2026, 11, 23, 12), D | W),  # a Monday
        (datetime(2026, 6, 1, 12), D | W | M),  # the first of a month, and a Monday
    ],
)
def test_an_exact_unmark_does_not_guess_about_days_that_are_over(
    moment: datetime, known: Granularity
) -> None:
    clock = moment.replace(tzinfo=timezone.utc).timestamp()
    marker = Marker(Options(expire={"day": timedelta(hours=1)}), lambda: clock)
    mark = marker.unmark_event("a", 1, None, None, None, True)
    assert mark.bitmaps.granularities == tuple(known)
    many = marker.unmark_many("a", None, None, None, True)
    assert many.counts.keys() == set(known)


def test_a_bitmap_that_ends_while_it_is_in_the_cache() -> None:
    moment = datetime(2026, 11, 23, 12)
    times = [moment.replace(tzinfo=timezone.utc).timestamp()]
    marker = Marker(Options(expire={"hour": timedelta(hours=2)}), lambda: times[-1])
    hours = [H in marker.mark_event("a", 1, moment, True, None).bitmaps.granularities]
    times.append(times[0] + 3 * 3600)
    hours.append(H in marker.mark_event("a", 1, moment, True, None).bitmaps.granularities)
    assert hours == [True, False]


@given(st.datetimes(datetime(1971, 1, 1), datetime(9998, 1, 1)), st.timedeltas(timedelta(1)))
def test_the_end_is_that_of_the_period_alone(moment: datetime, life: timedelta) -> None:
    expiry = Expiry(Options(timezone="Europe/Berlin", expire={"week": life}))
    week = Period.containing(W, moment)
    assert expiry.time(week) == expiry.time(Period.containing(W, week.start))
    assert expiry.time(week) > moment.replace(tzinfo=BERLIN).timestamp() + life.total_seconds()
    assert expiry.time(Period.containing(D, moment)) == expiry.time(None) == float("inf")


def test_an_end_that_redis_refuses_to_set() -> None:
    """As without the right to EXPIREAT: no mark is said to be written that has no end."""
    marker = Marker(Options(expire={"day": WEEK}), time.time)
    batch = Batch()
    batch.add(marker.mark_event("a", 1, None, None, None))
    batch.add(marker.mark_unique("b", 1))
    refused = CommandError("ERR no")
    first, second = batch.parse([b"OK", *[b"QUEUED"] * 5, [0, 0, 0, refused, 0]])
    assert isinstance(first, CommandError)
    assert "no end" in str(first)
    assert second == Granularity.UNIQUE


async def test_without_the_right_to_set_an_end_nothing_is_written(facade: Facade) -> None:
    rights = RIGHTS.replace("+expireat", "").split()
    with running(RedisProcess("--user", "app", "on", ">secret", "~trackist_*", *rights)) as server:
        url = server.url.replace("//", "//app:secret@")
        async with facade.open(url, expire={"day": WEEK}) as tally:
            with pytest.raises(PermissionDeniedError, match="nothing was applied"):
                await tally.mark_event("a", 1)
            assert await tally.event_names() == []


async def test_names_that_match_no_pattern(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, event_pattern="[a-z]+(:[a-z]+)?") as tally:
        await tally.mark_event("page:view", 1)
        for name in ("page:view:", "Page", "page view", "page\nview"):
            for write in (
                tally.mark_event(name, 1),
                tally.mark_many(name, [1]),
                tally.mark_unique_many(name, [1]),
                tally.unmark_event(name, 1, exact=True),
                tally.mark_unique(name, 1),
            ):
                with pytest.raises(InvalidValueError, match=r"event_pattern|control"):
                    await write
        assert await tally.event_names() == ["page:view"]
        assert await tally.count(tally.day("Page")) == 0  # to read does no harm


async def test_more_different_events_than_are_allowed(facade: Facade, store: Store) -> None:
    async with facade.open(store.url, max_events=2) as tally:
        await tally.mark_event("a", 1)
        with pytest.raises(InvalidValueError):
            await tally.mark_event("not\x00counted", 1)
        await tally.mark_unique("b", 1)
        for _ in range(2):
            with pytest.raises(InvalidValueError, match=r"max_events=2 .* 'c' would be one more"):
                await tally.mark_event("c", 1)
        await tally.mark_event("b", 1, track_hourly=True)
        assert await tally.event_names() == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"expire": WEEK}, InvalidTypeError),
        ({"expire": {"hour": 3600}}, InvalidTypeError),
        ({"expire": {"hour": timedelta(0)}}, InvalidValueError),
        ({"expire": {"unique": WEEK}}, InvalidValueError),
        ({"expire": {"fortnight": WEEK}}, InvalidValueError),
        ({"event_pattern": "("}, InvalidValueError),
        ({"event_pattern": 1}, InvalidTypeError),
        ({"max_events": 0}, InvalidValueError),
        ({"max_events": 1.5}, InvalidTypeError),
        ({"max_temp_bytes": 0}, InvalidValueError),
        ({"max_temp_bytes": "1 GiB"}, InvalidTypeError),
        ({"max_pending": 0}, InvalidValueError),
        ({"max_pending": True}, InvalidTypeError),
    ],
)
def test_options_that_are_refused(options: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options)).replace("expire", "expire|granularity")):
        Options(**options)
