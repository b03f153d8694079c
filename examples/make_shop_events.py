"""Make the sample shop_events.csv: what invented customers of an invented shop did in November.

    python examples/make_shop_events.py > examples/shop_events.csv

The numbers come from a seeded generator, so every run makes the same file.
"""

import csv
import itertools
import random
import sys
from datetime import datetime, timedelta, timezone

FIRST = ["ada", "bo", "chen", "dara", "elif", "finn", "gita", "hugo", "ines", "jan"]
LAST = ["berg", "costa", "dahl", "ferri", "gallo"]
MONDAY = datetime(2026, 11, 2, tzinfo=timezone.utc)
DAYS = 28


def rows() -> list[tuple[str, str, str]]:
    """Return the rows: time, event and the customer's address, in the order of the times."""
    draw = random.Random(20261102)
    made: list[tuple[datetime, str, str]] = []
    for name in itertools.product(FIRST, LAST):
        customer = f"{'.'.join(name)}@example.com"
        signup = moment_of(draw, draw.randrange(DAYS - 7))
        made.append((signup, "signup", customer))
        share_of_days = draw.choice((0.03, 0.1, 0.5))
        visits = [signup + timedelta(minutes=1)]
        days = range((signup - MONDAY).days + 1, DAYS)
        visits += [moment_of(draw, day) for day in days if draw.random() < share_of_days]
        for visit in visits:
            made.append((visit, "visit", customer))
            if draw.random() < share_of_days / 2:
                order = visit + timedelta(minutes=draw.randrange(2, 40))
                made.append((order, "order", customer))
    return [(moment.isoformat(), event, customer) for moment, event, customer in sorted(made)]


def moment_of(draw: random.Random, day: int) -> datetime:
    """Return a random moment of a day, between 8 and 20 o'clock."""
    return MONDAY + timedelta(days=day, seconds=draw.randrange(8 * 3600, 20 * 3600))


if __name__ == "__main__":
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("time", "event", "user_id"))
    writer.writerows(rows())
