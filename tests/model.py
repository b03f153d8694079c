"""Random programs of marks, and a model of their effects: a set of users for each key."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Any

from hypothesis import strategies as st

from moments import moments
from tallymark import Granularity

EVENTS = ["active", "a_b", "a:b", "u", "W2026-1", "*", "{x}", "🎉"]


@dataclass(frozen=True)
class Call:
    """One call of a verb."""

    verb: str
    event: str
    user_id: int
    options: tuple[tuple[str, Any], ...] = ()


# Few days and few users, so that calls change the same bits; ids at the borders of bytes.
users = st.sampled_from([0, 1, 7, 8, 9, 1000, 65_536])
busy_days = st.builds(
    lambda day, hours: day + timedelta(hours=hours),
    st.sampled_from([datetime(2024, 12, 28), datetime(2026, 12, 29), datetime(2026, 3, 28)]),
    st.integers(0, 150),
)
some_options = st.fixed_dictionaries(
    {"now": busy_days | moments},
    optional={
        "track_hourly": st.booleans(),
        "track_unique": st.booleans(),
    },
)
event_calls = st.builds(
    lambda verb, event, user, options: Call(verb, event, user, tuple(options.items())),
    st.sampled_from(["mark_event", "mark_event", "unmark_event"]),
    st.sampled_from(EVENTS),
    users,
    some_options,
)
exact_calls = st.builds(
    lambda call: Call("unmark_event", call.event, call.user_id, (*call.options, ("exact", True))),
    event_calls,
)
unique_calls = st.builds(
    Call, st.sampled_from(["mark_unique", "unmark_unique"]), st.sampled_from(EVENTS), users
)
programs = st.lists(event_calls | event_calls | exact_calls | unique_calls, max_size=25)


class Model:
    """A model of the store: sets of users, and the rules implemented independently."""

    def __init__(self, zone: tzinfo) -> None:
        self.bits: dict[str, set[int]] = defaultdict(set)
        self.zone = zone

    def run(self, call: Call) -> Granularity:
        options = dict(call.options)
        if call.verb.endswith("unique"):
            keys = {Granularity.UNIQUE: f"trackist_{call.event}_u"}
        else:
            keys = self.keys(call.event, options)
        if call.verb.startswith("mark"):
            return self.write(keys, call.user_id, marked=True)
        if options.get("exact"):
            today = self.local(options["now"]).date()
            for granularity in (Granularity.WEEK, Granularity.MONTH):
                if self.other_days(call, today, granularity):
                    del keys[granularity]
        return self.write(keys, call.user_id, marked=False)

    def write(self, keys: dict[Granularity, str], user: int, *, marked: bool) -> Granularity:
        flipped = Granularity(0)
        for granularity, key in keys.items():
            if (user in self.bits[key]) != marked:
                flipped |= granularity
                self.bits[key] ^= {user}
        return flipped

    def keys(self, event: str, options: dict[str, Any]) -> dict[Granularity, str]:
        moment = self.local(options["now"])
        iso_year, iso_week, _ = moment.isocalendar()
        day = moment.strftime("%Y-%m-%d").replace("-0", "-")
        keys = {
            Granularity.MONTH: day.rpartition("-")[0],
            Granularity.WEEK: f"W{iso_year}-{iso_week}",
            Granularity.DAY: day,
        }
        if options.get("track_hourly"):
            keys[Granularity.HOUR] = f"{day}-{moment.hour}"
        if options.get("track_unique"):
            keys[Granularity.UNIQUE] = "u"
        return {granularity: f"trackist_{event}_{suffix}" for granularity, suffix in keys.items()}

    def other_days(self, call: Call, today: date, granularity: Granularity) -> bool:
        for distance in range(-31, 32):
            day = today + timedelta(days=distance)
            same_week = day.isocalendar()[:2] == today.isocalendar()[:2]
            same_month = (day.year, day.month) == (today.year, today.month)
            together = same_week if granularity is Granularity.WEEK else same_month
            key = f"trackist_{call.event}_{day.year}-{day.month}-{day.day}"
            if distance and together and call.user_id in self.bits[key]:
                return True
        return False

    def local(self, now: date) -> datetime:
        if not isinstance(now, datetime):
            return datetime(now.year, now.month, now.day)
        return now if now.tzinfo is None else now.astimezone(self.zone).replace(tzinfo=None)

    def filled(self) -> dict[str, set[int]]:
        return {key: users for key, users in self.bits.items() if users}
