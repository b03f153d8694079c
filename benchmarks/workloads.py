"""The marks of the contenders, and the bits that they must set. Standard library only."""

from __future__ import annotations

import bisect
import functools
import itertools
import random
from collections import defaultdict
from datetime import datetime, timezone

USERS = 100_000
EVENTS = 200


@functools.cache
def schedule(workload: str, count: int) -> list[tuple[str, int]]:
    """Return the event and the user of each mark, the same for the same arguments.

    Arguments:
        workload: ``hot``, where all marks are of one event, or ``zipf``, where
            they are of 200 events and the k-th is k**1.1 times as rare as the first.
        count: how many marks.
    """
    users = (number * 7919 % USERS for number in range(count))
    if workload == "hot":
        return [("active", user) for user in users]
    weights = itertools.accumulate(1 / rank**1.1 for rank in range(1, EVENTS + 1))
    bounds = list(weights)
    chance = random.Random(1)
    return [
        (f"event:{bisect.bisect(bounds, chance.random() * bounds[-1])}", user) for user in users
    ]


def expected(marks: list[tuple[str, int]]) -> dict[str, set[int]]:
    """Return the users of each event, which each of its bitmaps must have."""
    users: dict[str, set[int]] = defaultdict(set)
    for event, user in marks:
        users[event].add(user)
    return users


def keys(event: str) -> tuple[str, str, str]:
    """Return the keys of the current month, week and day, as handwritten code makes them."""
    now = datetime.now(timezone.utc)
    iso_year, iso_week, _ = now.isocalendar()
    return (
        f"trackist_{event}_{now.year}-{now.month}",
        f"trackist_{event}_W{iso_year}-{iso_week}",
        f"trackist_{event}_{now.year}-{now.month}-{now.day}",
    )
