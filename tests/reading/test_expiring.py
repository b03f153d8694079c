"""`apply_expiry`: the expiry that bitmaps get, and what it counts, on every kind of store."""

from __future__ import annotations

import math
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from facades import ON_SOME_STORES
from tallymark import AppliedExpiry, Granularity, Period
from tallymark._core.expiry import Expiry
from tallymark._core.frozen import FrozenMapping
from tallymark._reading import expiring
from tallymark._reading.key_scan import FoundBitmap
from tallymark._reading.requests import Request

if TYPE_CHECKING:
    from collections.abc import Iterable

    from facades import Facade
    from stores import Store

HOUR, DAY = Granularity.HOUR, Granularity.DAY

#: A Thursday in the middle of a month.
NOON = datetime(2026, 1, 15, 12, 30)

LIVES = {"day": timedelta(days=30), "hour": timedelta(hours=50)}


async def mark_some(tally: Any, days: Iterable[int], user: int = 1) -> None:
    now = datetime.now(timezone.utc).replace(tzinfo=None, minute=30)
    for number in days:
        await tally.mark_event("a", user, now=now - timedelta(days=number), track_hourly=True)


@ON_SOME_STORES
async def test_bitmaps_get_the_expiry_that_marks_set(facade: Facade, store: Store) -> None:
    async with (
        facade.open(store.url) as endless,
        facade.open(store.url, expire=LIVES) as expiring_,
    ):
        # Marks of a tally with the option: the expected state.
        await mark_some(expiring_, [0, 1, 5, 20])
        expected = store.expiries()
        store.raw.flushdb()
        await mark_some(endless, [0, 1, 5, 20, 40, 100])
        await endless.mark_unique("premium", 1)
        before = store.bits()
        assert set(store.expiries().values()) == {-1}
        dry = await expiring_.apply_expiry(dry_run=True)
        assert set(store.expiries().values()) == {-1}
        applied = await expiring_.apply_expiry()
        assert applied == AppliedExpiry(
            FrozenMapping({DAY: 4, HOUR: 2}),
            FrozenMapping({DAY: 2, HOUR: 4}),
            FrozenMapping({DAY: 0, HOUR: 0}),
        )
        assert dry == AppliedExpiry(
            applied.changed, applied.deleted, applied.unchanged, dry_run=True
        )
        assert applied.to_rows() == [
            {"granularity": "day", "changed": 4, "deleted": 2, "unchanged": 0},
            {"granularity": "hour", "changed": 2, "deleted": 4, "unchanged": 0},
        ]
        assert sum(applied.deleted.values()) == len(before) - len(store.bits())
        after = store.expiries()
        for name, end in after.items():  # weeks, months and flags never expire
            assert abs(end - expected.get(name, -1)) <= 1, name
        again = await expiring_.apply_expiry()
        assert again.unchanged == {DAY: 4, HOUR: 2}
        assert not sum(again.changed.values()) + sum(again.deleted.values())


async def test_another_expiry_is_replaced_and_none_is_removed(
    facade: Facade, plain_store: Store
) -> None:
    names = ["trackist_a_2026-1-15", "trackist_a_2026-1", "trackist_a_2026-1-14"]
    async with facade.open(plain_store.url, expire={"day": timedelta(days=10**5)}) as tally:
        await tally.mark_event("a", 1, now=NOON)
        await tally.mark_event("a", 1, now=NOON - timedelta(days=1))
        expected = plain_store.expiries()
        plain_store.raw.expire(names[0], 60)  # too early
        plain_store.raw.expire(names[1], 600)  # the option says nothing about months
        plain_store.raw.pexpire(names[2], 10**13)  # too late
        assert (await tally.apply_expiry()).changed == {DAY: 2}
        after = plain_store.expiries()
        assert [abs(after[name] - expected[name]) <= 1 for name in names] == [True, False, True]
        assert abs(after[names[1]] - time.time() - 600) < 20


async def test_periods_at_both_ends_of_the_calendar(facade: Facade, redis_store: Store) -> None:
    lives = {"day": timedelta(days=1), "year": timedelta(days=1)}
    async with facade.open(redis_store.url, expire=lives, timezone="Asia/Tokyo") as tally:
        for name in ("trackist_a_1-1-1", "trackist_a_9999-12-31", "trackist_a_1969-12-1"):
            redis_store.raw.set(name, b"\x80")
        dry = await tally.apply_expiry(dry_run=True)
        applied = await tally.apply_expiry()
        assert redis_store.names() == {"trackist_a_9999-12-31"}
        assert (applied.deleted, applied.unchanged) == ({DAY: 2}, {DAY: 1})
        assert dry.deleted == applied.deleted


async def test_periods_before_all_timestamps(
    facade: Facade, redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a tzinfo of the caller's, in the year 1."""
    monkeypatch.setattr(Expiry, "time", lambda *_: -math.inf)
    redis_store.raw.set("trackist_a_1-1-1", b"\x80")
    async with facade.open(redis_store.url, expire={"day": timedelta(days=1)}) as tally:
        assert (await tally.apply_expiry()).deleted == {DAY: 1}
    assert redis_store.names() == set()


async def test_many_bitmaps_get_their_expiry_in_small_steps(
    facade: Facade, redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []

    def request(commands: Any, **more: Any) -> Any:
        sent.append(len(commands))
        return original(commands, **more)

    original = Request
    monkeypatch.setattr(expiring, "Request", request)
    redis_store.raw.mset({f"trackist_a{number}_2026-1-1": b"\x80" for number in range(2500)})
    async with facade.open(redis_store.url, expire={"day": timedelta(days=10**5)}) as tally:
        assert (await tally.apply_expiry()).changed == {DAY: 2500}
    assert sum(sent) == 2500
    assert max(sent) == expiring._CHANGES


@pytest.mark.parametrize(
    ("end", "present", "kind"),
    [
        (99, None, "deleted"),
        (100, None, "deleted"),  # Redis deletes a key at the second of its expiry
        (100, 100, "deleted"),
        (101, None, "changed"),
        (101, 99, "changed"),
        (101, 101, "unchanged"),
        (math.inf, None, "unchanged"),
        (-math.inf, None, "deleted"),
    ],
)
def test_what_an_expiry_means_now(end: float, present: int | None, kind: str) -> None:
    outcome = expiring._Outcome()
    bitmap = FoundBitmap(b"trackist_a_2026-1-15", 0, "a", Period.containing(DAY, NOON))
    outcome.add([bitmap], {bitmap.key: end}, {bitmap.key: present}, 100.0)
    result = outcome.result(dry_run=False)
    counts = {"changed": 0, "deleted": 0, "unchanged": 0, kind: 1}
    assert result.to_rows() == [{"granularity": "day", **counts}]


async def test_redis_deletes_at_the_second_of_the_expiry(redis_store: Store) -> None:
    redis_store.raw.set("trackist_a_u", b"\x80")
    seconds, _ = redis_store.raw.time()
    redis_store.raw.expireat("trackist_a_u", seconds)
    assert redis_store.names() == set()
