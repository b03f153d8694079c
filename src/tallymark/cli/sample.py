"""The sample app: what the users of an invented app do, made by a seeded generator.

``tallymark demo`` fills a store with it, and the cookbook (docs/cookbook.md) asks questions of it.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SampleApp", "SampleUser"]

ItemT = TypeVar("ItemT")

_PLATFORMS: Final = {"ios": 0.40, "android": 0.35, "web": 0.25}
_COUNTRIES: Final = {"us": 0.45, "de": 0.20, "in": 0.20, "br": 0.15}
#: For users who open the app now and then, often, or almost daily: on which share of their days.
_HABITS: Final = {0.12: 0.45, 0.35: 0.40, 0.85: 0.15}

#: The shares of the time after which the new onboarding and the bad release begin.
_ONBOARDING: Final = 0.5
_RELEASE: Final = 0.6
_BROKEN_DAYS: Final = 7
_HOURLY_DAYS: Final = 2


@dataclass(frozen=True)
class SampleApp:
    """An invented app for teams that plan projects.

    There are fewer users at weekends, and later cohorts stay longer. In the second half of the
    time, half of the new users get a new onboarding. Later on, a release breaks the app on Android
    for a week.

    Attributes:
        first: the day on which the app starts.
        days: how many days there are, from 14 on.
        size: how many users sign up on these days.
    """

    first: date
    days: int
    size: int = 2000

    @property
    def end(self) -> date:
        """The day after the last one."""
        return self.first + timedelta(days=self.days)

    @property
    def hourly(self) -> datetime:
        """From this moment on, the hours of "open" are known: for the last two days."""
        return self._start(self.days - _HOURLY_DAYS)

    @property
    def onboarding(self) -> int:
        """The number of the day on which the new onboarding begins."""
        return int(self.days * _ONBOARDING) - 1

    @property
    def broken(self) -> range:
        """The numbers of the days of the bad release."""
        begin = int(self.days * _RELEASE) - 1
        return range(begin, begin + _BROKEN_DAYS)

    @cached_property
    def users(self) -> list[SampleUser]:
        """All users, in the order in which they signed up. Their numbers begin with 1."""
        draw = random.Random(20260201)  # noqa: S311 - the same sample in every run
        weights = [
            (1 + day / 80) * (0.6 if self.is_weekend(day) else 1) for day in range(self.days)
        ]
        signups = sorted(draw.choices(range(self.days), weights, k=self.size))
        return [SampleUser(self, number, day, draw) for number, day in enumerate(signups, 1)]

    def events(self) -> Iterator[tuple[datetime, str, list[int]]]:
        """Yield when, which event, and by whom: by days, and "open" by hours from `hourly` on."""
        draw = random.Random(7)  # noqa: S311
        found: dict[tuple[datetime, str], list[int]] = defaultdict(list)
        for user in self.users:
            for event, days in user.done.items():
                for day in days:
                    moment = self._start(day)
                    if event == "open" and moment >= self.hourly:
                        moment += timedelta(hours=min(23, max(0, int(draw.gauss(14, 4)))))
                    found[moment, event].append(user.number)
        for moment, event in sorted(found):
            yield moment, event, found[moment, event]

    def flags(self) -> dict[str, list[int]]:
        """Return the users of each flag: platforms, countries, new onboarding, paying users."""
        found: dict[str, list[int]] = {}
        for user in self.users:
            names = [user.platform, user.country]
            names += ["new_onboarding"] * user.new_onboarding + ["paying"] * user.paying
            for name in names:
                found.setdefault(name, []).append(user.number)
        return found

    def is_weekend(self, day: int) -> bool:
        """Return whether a day, given by its number, is a Saturday or a Sunday."""
        return (self.first + timedelta(days=day)).weekday() >= 5

    def _start(self, day: int) -> datetime:
        return datetime.combine(self.first, time()) + timedelta(days=day)


class SampleUser:
    """An invented user: who they are, and what they did on which day.

    Attributes:
        number: the user's id.
        platform, country, new_onboarding, paying: the user's flags.
        done: for each event, the numbers of the days on which the user did it.
    """

    def __init__(self, app: SampleApp, number: int, signup: int, draw: random.Random) -> None:
        """Draw the life of a user.

        Arguments:
            app: what the user uses.
            number: the user's id.
            signup: the number of the day on which the user signs up.
            draw: the generator.
        """
        self.number = number
        self.platform = _drawn(draw, _PLATFORMS)
        self.country = _drawn(draw, _COUNTRIES)
        self.new_onboarding = signup >= app.onboarding and draw.random() < 0.5
        self.paying = False
        self.done: dict[str, list[int]] = defaultdict(list)
        self._habit = _drawn(draw, _HABITS)
        self._starts = draw.random() < (0.75 if self.new_onboarding else 0.5)
        self._live(app, signup, draw)

    def _live(self, app: SampleApp, signup: int, draw: random.Random) -> None:
        self.done["signup"].append(signup)
        # Later cohorts stay longer, and so do users who have a project.
        leaving = (0.035 - 0.02 * signup / app.days) * (0.5 if self._starts else 1.6)
        left = False
        for day in range(signup, app.days):
            broken = self.platform == "android" and day in app.broken
            chance = self._habit * (0.55 if app.is_weekend(day) else 1) * (0.4 if broken else 1)
            if left:
                left = draw.random() > 0.003  # a few come back
            elif day > signup:
                left = draw.random() < leaving * (4 if broken else 1)
            if day > signup and (left or draw.random() > chance):
                continue
            self.done["open"].append(day)
            age = day - signup
            if self._starts and draw.random() < (0.5 if age < 3 else 0.15):
                self.done["project"].append(day)
            if self.done["project"]:
                if draw.random() < 0.30:
                    self.done["comment"].append(day)
                if draw.random() < 0.10:
                    self.done["upload"].append(day)
                if draw.random() < 0.06:
                    self.done["invite"].append(day)
            self._pay(day, draw)

    def _pay(self, day: int, draw: random.Random) -> None:
        """Draw whether the user pays, or no longer pays, on a day on which the app is open."""
        if self.paying:
            if draw.random() < 0.01:
                self.done["cancel"].append(day)
                self.paying = False
        elif self.done["checkout"] and day - self.done["checkout"][-1] < 5 and draw.random() < 0.35:
            self.done["subscribe"].append(day)
            self.paying = True
        elif draw.random() < (0.06 if self.done["project"] else 0.01):
            self.done["checkout"].append(day)


def _drawn(draw: random.Random, shares: dict[ItemT, float]) -> ItemT:
    return draw.choices(list(shares), list(shares.values()))[0]
