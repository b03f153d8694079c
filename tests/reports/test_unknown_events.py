"""Events of reports that nobody was ever marked for: named, at no cost while there are numbers."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tallymark._reading import bits

if TYPE_CHECKING:
    from facades import Facade
    from stores import Store

MONDAY = date(2025, 3, 31)
NOON = datetime(2025, 4, 2, 12)


def exists(store: Store) -> int:
    """Return how many keys the server has looked for."""
    stats = store.raw.info("commandstats")
    return int(stats.get("cmdstat_exists", {"calls": 0})["calls"])


async def fill(tally: Any) -> None:
    await tally.mark_many("visit", [1, 2, 3], now=MONDAY)
    await tally.mark_many("cart", [1, 2], now=MONDAY)
    await tally.mark_many("pay", [1], now=date(2024, 1, 1))
    await tally.mark_unique("trial", 9)


async def test_steps_of_a_funnel(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await fill(tally)

        async def unknown(*steps: Any) -> tuple[str, ...]:
            found: tuple[str, ...] = (await tally.funnel(steps, moment=MONDAY)).unknown_events
            return found

        assert await unknown("visit", "cart") == ()
        assert await unknown("visit", "cart", "pay") == ()  # of another week
        assert await unknown("vist", "visit", "payed", "vist", "cart") == ("vist", "payed")
        assert await unknown("visit", tally.unique("nobody"), "pay", "payed") == ("payed",)
        assert await unknown("trial", "visit") == ()  # a flag
        assert "is the name spelt correctly" in (await tally.funnel(["vist"])).to_html()


async def test_stickiness(facade: Facade, store: Store) -> None:
    async with facade.open(store.url) as tally:
        await fill(tally)
        assert (await tally.stickiness("visit", MONDAY)).unknown_events == ()
        assert (await tally.stickiness("pay", MONDAY)).unknown_events == ()
        assert (await tally.stickiness("payed", MONDAY)).unknown_events == ("payed",)


@pytest.mark.parametrize("numpy", [True, False])
async def test_retention(
    facade: Facade, store: Store, numpy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not numpy:
        for module in ("_reading.sweep", "_reports.retention_counts", "_async.executor"):
            monkeypatch.setattr(f"tallymark.{module}.algebra", bits.Ints)
    async with facade.open(store.url) as tally:
        await fill(tally)

        async def unknown(cohort: Any, activity: Any, **options: Any) -> tuple[str, ...]:
            table = await tally.retention(cohort, activity, periods=1, until=NOON, **options)
            for segment in table.segments.values():
                assert segment.unknown_events == ()
            found: tuple[str, ...] = table.unknown_events
            return found

        assert await unknown("visit", "cart") == ()
        assert await unknown("pay", "cart") == ()
        assert await unknown("visit", "cort") == ("cort",)
        segments = {"trial": tally.unique("trial"), "web": tally.unique("wep")}
        assert await unknown("vist", "cort", segments=segments) == ("cort", "vist", "wep")
        day = tally.day("payed", MONDAY)
        assert await unknown(lambda p: tally.during("cart", p) | day, "cart") == ("payed",)


@pytest.mark.parametrize("user_ids", [None, str])
async def test_streaks(facade: Facade, store: Store, user_ids: type | None) -> None:
    marked, other, stranger = (1, 2, 3) if user_ids is None else ("ann", "bob", "eve")
    async with facade.open(store.url, prefix=f"{user_ids}_", user_ids=user_ids) as tally:
        await tally.mark_event("visit", marked, now=MONDAY)
        await tally.mark_unique("trial", other)
        for user in (marked, other, stranger):
            assert (await tally.streak("visit", user, until=NOON)).unknown_events == ()
            assert (await tally.streak("trial", user, until=NOON)).unknown_events == ()
            assert (await tally.streak("vist", user, until=NOON)).unknown_events == ("vist",)


async def test_nothing_is_looked_for_while_there_are_numbers(
    facade: Facade, redis_store: Store
) -> None:
    async with facade.open(redis_store.url) as tally:
        await fill(tally)
        before = exists(redis_store)
        await tally.funnel(["visit", "cart", tally.unique("nobody")], moment=MONDAY)
        await tally.stickiness("visit", date(2025, 4, 20))
        await tally.retention("visit", "cart", until=date(2025, 4, 20))
        assert exists(redis_store) == before
        await tally.streak("visit", 8, until=NOON)  # one request for the months, as always
        months = 12 * (NOON.year - 1970) + NOON.month
        assert exists(redis_store) == before + months
