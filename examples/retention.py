"""Simulate three months of an app, and write a page with its retention table.

    python examples/retention.py retention.html

Runs without a server, on a store inside this process.
"""

import asyncio
import random
import sys
from datetime import date, timedelta
from pathlib import Path

from tallymark import EventSet, Period, Retention, Tally

FIRST = date(2026, 8, 3)  # a Monday
WEEKS = 14


async def simulate(tally: Tally) -> None:
    """Mark the events of an app's users, day by day, for fourteen weeks."""
    chance = random.Random(7)
    users: list[tuple[int, float, float]] = []  # first day, loyalty, share of the phone
    for today in range(7 * WEEKS):
        day = FIRST + timedelta(days=today)
        weekend = day.weekday() >= 5
        # A campaign in the seventh week brings many users, few of whom stay.
        campaign = 42 <= today < 49
        new_users = int(chance.gauss(70 if weekend else 110, 12) * (2.2 if campaign else 1))
        # The app gets better: newer users are more loyal, except those of the campaign.
        loyalty = 0.04 if campaign else 0.09 + 0.0012 * today
        first = len(users)
        users += [
            (today, chance.betavariate(loyalty * 8, 8 - loyalty * 8), chance.random())
            for _ in range(new_users)
        ]
        active = set(range(first, len(users)))
        for user_id, (since, loyal, _) in enumerate(users[:first]):
            interest = loyal + 0.5 / (today - since + 0.6)
            if chance.random() < interest * (0.6 if weekend else 1):
                active.add(user_id)
        phone = {user_id for user_id in active if chance.random() < users[user_id][2]}
        await tally.mark_many("signup", range(first, len(users)), now=day)
        await tally.mark_many("ios", phone, now=day)
        await tally.mark_many("web", active - phone, now=day)


async def report(tally: Tally) -> Retention:
    """Count the users who signed up in a week and returned, on the web or on iOS."""

    def active(period: Period) -> EventSet:
        return tally.during("web", period) | tally.during("ios", period)

    # The Thursday of the last week: periods that are not over are not shown.
    until = FIRST + timedelta(days=7 * WEEKS - 4)
    return await tally.retention("signup", active, by="week", periods=12, cohorts=13, until=until)


async def run() -> tuple[Retention, int]:
    """Simulate the app, and return its retention table and the users of both platforms."""
    async with Tally.from_url("memory://") as tally:
        await simulate(tally)
        last_day = FIRST + timedelta(days=7 * WEEKS - 1)
        both = tally.month("web", last_day) & tally.month("ios", last_day)
        return await report(tally), await tally.count(both)


def main(path: Path) -> None:
    """Print some figures, and write the page."""
    table, both = asyncio.run(run())
    print(f"{both:,} users were on the web and on iOS in the last month")
    print(f"{sum(table.sizes):,} signed up in {len(table.cohorts)} weeks")
    for weeks in (1, 4):
        print(f"back after {weeks} weeks: {table.averages[weeks] or 0:.0%}")
    path.write_text(table.to_html("Sign-ups who came back"), encoding="utf-8")
    print(f"written: {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "retention.html"))
