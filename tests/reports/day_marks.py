"""Marks of days for the tests of reports, and two models of the numbers: sets, and pandas."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st

from proxy import proxied
from tallymark import StoreTimeoutError
from tallymark._reading import bits, sweep

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

    from facades import Facade
    from stores import Store

__all__ = [
    "ALGEBRAS",
    "DAY",
    "FIRST",
    "UNTIL",
    "VARIANTS",
    "Days",
    "check_deadline",
    "count_streaks",
    "frame",
    "mark",
    "plausible",
    "programs",
    "run",
    "tiny_windows",
    "users_of",
    "with_algebra",
]

DAY = timedelta(days=1)
UTC = timezone.utc
#: From before ISO week 53 to after the change of the clock in Berlin, with ends of months.
FIRST = date(2020, 12, 1)
#: A Wednesday, in the afternoon: the report's moment.
UNTIL = datetime(2021, 3, 31, 15)

#: Who was marked on which day.
Days = dict[date, set[int]]

ALGEBRAS = ["numpy", "ints"]

#: Algebras, each with options of a tally: numbers of users are those of one bitmap or of many.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("numpy", {}),
    ("ints", {"user_ids": str}),
    ("numpy", {"shards": 16}),
]


def with_algebra(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Combine with numpy, or with Python's ints."""
    made = bits.Arrays(np) if name == "numpy" else bits.Ints()
    for module in (
        "_reading.expressions",
        "_reading.id_streams",
        "_reading.sweep",
        "_reports.bit_counter",
        "_reports.lifecycle_query",
        "_reports.streak_lengths",
        "_async.executor",
    ):
        monkeypatch.setattr(f"tallymark.{module}.algebra", lambda: made)
    # Last: a module that is imported meanwhile would keep it for ever.
    monkeypatch.setattr(bits, "algebra", lambda: made)


@contextlib.contextmanager
def tiny_windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fetch windows of 512 bits, with a request for seven bitmaps."""
    with monkeypatch.context() as tiny:
        for limit in ("_ALL_WINDOWS", "_MIN_WINDOW", "_MAX_WINDOW"):
            tiny.setattr(sweep, limit, 64)
        tiny.setattr(sweep, "_MAX_FETCH", 7 * 64)
        yield


def plausible(spread: int = 3000) -> Days:
    """Return who was marked on which day: some users often, and some bitmaps much longer."""
    chance = random.Random(7)
    regulars = chance.sample(range(spread // 3), 25)
    days: Days = {}
    for distance in range((UNTIL.date() - FIRST).days + 1):
        day = FIRST + distance * DAY
        few = chance.sample(range(spread if distance % 7 == 3 else spread // 20), 20)
        some = [user for user in regulars if chance.random() < 0.8]
        days[day] = {*few, *some} if distance % 11 else set()
    return days


async def mark(tally: Any, days: Mapping[date, Iterable[Any]], event: str = "a") -> None:
    for day, users in days.items():
        await tally.mark_many(event, users, now=day)


async def users_of(tally: Any, event_set: Any) -> set[Any]:
    return {user async for user in tally.users(event_set)}


def frame(days: Days) -> Any:
    """Return a row for each user and day."""
    rows = [(pd.Timestamp(day), user) for day, users in days.items() for user in users]
    return pd.DataFrame(rows, columns=["day", "user"])


# --- programs for hypothesis

#: Around the ends of years, leap days, and the nights in which clocks change in Berlin.
EDGES = [
    datetime(2020, 12, 31, tzinfo=UTC),
    datetime(2021, 1, 3, 22, tzinfo=UTC),
    datetime(2024, 2, 29, tzinfo=UTC),
    datetime(2024, 10, 27, tzinfo=UTC),
    datetime(2025, 3, 30, tzinfo=UTC),
]

#: Some users, of bitmaps of very different lengths.
USERS = (0, 7, 63, 64, 700, 5000)


def programs(*verbs: str) -> Any:
    """Return marks and unmarks of runs of days, near one edge, and the moment of a report."""

    def near(edge: datetime) -> Any:
        moments = st.integers(-150, 150).map(lambda hours: edge + timedelta(hours=hours))
        steps = st.tuples(
            st.sampled_from(verbs), moments, st.integers(1, 9), st.sampled_from(USERS)
        )
        return st.tuples(st.lists(steps, max_size=12), moments)

    return st.sampled_from(EDGES).flatmap(near)


async def run(tally: Any, program: Sequence[Any], zone: Any, user_id: Any) -> Days:
    """Run a program; return who is marked on which day.

    Arguments:
        tally: the tally.
        program: the steps.
        zone: the time zone of the days.
        user_id: returns the id of a user.
    """
    days: Days = {}
    async with tally.transaction() as tx:
        for verb, begin, count, user in program:
            for number in range(count):
                moment = begin + number * DAY
                marked = days.setdefault(moment.astimezone(zone).date(), set())
                if verb == "mark":
                    tx.mark_event("a", user_id(user), now=moment)
                    marked.add(user)
                else:
                    tx.unmark_event("a", user_id(user), now=moment, exact=verb == "exact")
                    marked.discard(user)
    return days


def count_streaks(days: Days, until: datetime, most: int) -> list[int]:
    """Return how many users have a current run of 1, 2, ... days; the last one: or more."""
    begun = {
        day: users for day, users in days.items() if datetime(day.year, day.month, day.day) < until
    }
    lengths: Counter[int] = Counter()
    for user in set().union(*begun.values()):
        day = until.date()
        if user not in begun.get(day, ()):
            day -= DAY
        length = 0
        while user in begun.get(day, ()):
            length, day = length + 1, day - DAY
        lengths[min(length, most)] += 1
    return [lengths[length] for length in range(1, most + 1)]


async def check_deadline(
    facade: Facade, store: Store, ask: Callable[..., Awaitable[object]]
) -> None:
    """Check that a report ends at its timeout, though the bitmaps never arrive.

    Arguments:
        facade: the facade.
        store: a store with Redis.
        ask: asks a tally for the report, with the options that it is given.
    """
    with proxied(store.url) as proxy:
        async with facade.open(proxy.url) as tally:
            await mark(tally, {FIRST: [1]})
            await ask(tally)
            proxy.marker = b":"
            proxy.passing.clear()
            with pytest.raises(StoreTimeoutError, match=r"within 0\.2 s"):
                await ask(tally, timeout=0.2)
            proxy.passing.set()
