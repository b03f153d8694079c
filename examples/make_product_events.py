"""Make a sample: what the users of an invented app did from February to May 2026.

    python examples/make_product_events.py > product_events.csv

The app, for teams that plan projects, starts on February 1. There are fewer users at weekends;
later cohorts stay longer; a release in April breaks the app on Android for a week; and from April
on, half of the new users get a new onboarding. The numbers come from a seeded generator, so every
run makes the same events. The cookbook (docs/cookbook.md) uses them.
"""

import csv
import random
import sys
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import TypeVar

ItemT = TypeVar("ItemT")

USERS = 2000
FIRST = date(2026, 2, 1)
#: The day after the last one; a Monday.
END = date(2026, 6, 1)
DAYS = (END - FIRST).days
#: From this day on, the hours of "open" are known.
HOURLY = datetime(2026, 5, 30)

_APRIL = (date(2026, 4, 1) - FIRST).days
#: The days of the bad release.
_BROKEN = range((date(2026, 4, 13) - FIRST).days, (date(2026, 4, 20) - FIRST).days)
_PLATFORMS = {"ios": 0.40, "android": 0.35, "web": 0.25}
_COUNTRIES = {"us": 0.45, "de": 0.20, "in": 0.20, "br": 0.15}
#: For users who open the app now and then, often, or almost daily: on which share of their days.
_HABITS = {0.12: 0.45, 0.35: 0.40, 0.85: 0.15}


class User:
    """An invented user: who they are, and what they did on which day."""

    def __init__(self, number: int, signup: int, draw: random.Random) -> None:
        """Draw the life of a user who signs up on a day, counted from `FIRST`."""
        self.number = number
        self.signup = signup
        self.platform = _drawn(draw, _PLATFORMS)
        self.country = _drawn(draw, _COUNTRIES)
        self.new_onboarding = signup >= _APRIL and draw.random() < 0.5
        self.paying = False
        #: The days of each event.
        self.done: dict[str, list[int]] = defaultdict(list)
        self._habit = _drawn(draw, _HABITS)
        self._starts = draw.random() < (0.75 if self.new_onboarding else 0.5)
        self._live(draw)

    def _live(self, draw: random.Random) -> None:
        self.done["signup"].append(self.signup)
        # Later cohorts stay longer, and so do users who have a project.
        leaving = (0.035 - 0.02 * self.signup / DAYS) * (0.5 if self._starts else 1.6)
        left = False
        checkout = None
        for day in range(self.signup, DAYS):
            broken = self.platform == "android" and day in _BROKEN
            chance = self._habit * (0.55 if _is_weekend(day) else 1) * (0.4 if broken else 1)
            if left:
                left = draw.random() > 0.003  # a few come back
            elif day > self.signup:
                left = draw.random() < leaving * (4 if broken else 1)
            if day > self.signup and (left or draw.random() > chance):
                continue
            self.done["open"].append(day)
            age = day - self.signup
            if self._starts and draw.random() < (0.5 if age < 3 else 0.15):
                self.done["project"].append(day)
            if self.done["project"]:
                if draw.random() < 0.30:
                    self.done["comment"].append(day)
                if draw.random() < 0.10:
                    self.done["upload"].append(day)
                if draw.random() < 0.06:
                    self.done["invite"].append(day)
            if self.paying:
                if draw.random() < 0.01:
                    self.done["cancel"].append(day)
                    self.paying = False
            elif checkout is not None and day - checkout < 5 and draw.random() < 0.35:
                self.done["subscribe"].append(day)
                self.paying = True
            elif draw.random() < (0.06 if self.done["project"] else 0.01):
                self.done["checkout"].append(day)
                checkout = day


def users() -> list[User]:
    """Return all users, in the order in which they signed up. Their numbers begin with 1."""
    draw = random.Random(20260201)
    weights = [(1 + day / 80) * (0.6 if _is_weekend(day) else 1) for day in range(DAYS)]
    signups = sorted(draw.choices(range(DAYS), weights, k=USERS))
    return [User(number, signup, draw) for number, signup in enumerate(signups, 1)]


def events(everyone: list[User]) -> Iterator[tuple[datetime, str, list[int]]]:
    """Yield when, which event, and by whom: by days, and "open" by hours from `HOURLY` on."""
    draw = random.Random(7)
    found: dict[tuple[datetime, str], list[int]] = defaultdict(list)
    for user in everyone:
        for event, days in user.done.items():
            for day in days:
                moment = datetime(FIRST.year, FIRST.month, FIRST.day) + timedelta(days=day)
                if event == "open" and moment >= HOURLY:
                    moment += timedelta(hours=min(23, max(0, int(draw.gauss(14, 4)))))
                found[moment, event].append(user.number)
    for moment, event in sorted(found):
        yield moment, event, found[moment, event]


def flags(everyone: list[User]) -> dict[str, list[int]]:
    """Return the users of each flag: platforms, countries, the test's variant, paying users."""
    found: dict[str, list[int]] = {}
    for user in everyone:
        names = [user.platform, user.country]
        names += ["new_onboarding"] * user.new_onboarding + ["paying"] * user.paying
        for name in names:
            found.setdefault(name, []).append(user.number)
    return found


def _is_weekend(day: int) -> bool:
    return (FIRST + timedelta(days=day)).weekday() >= 5


def _drawn(draw: random.Random, shares: dict[ItemT, float]) -> ItemT:
    return draw.choices(list(shares), list(shares.values()))[0]


if __name__ == "__main__":
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("time", "event", "user_id"))
    for moment, event, numbers in events(users()):
        writer.writerows((moment.isoformat(), event, number) for number in numbers)
