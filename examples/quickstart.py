"""Mark some events, and print the bits that Redis holds; then do so for users with addresses.

Runs without a server, on a store inside this process; set TALLYMARK_URL to use a
Redis database.
"""

import asyncio
import csv
import os
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

from tallymark import SyncTally, Tally, all_of

URL = os.environ.get("TALLYMARK_URL", "memory://quickstart")  # with a name: two tallies share it
MONDAY = datetime(2026, 11, 23, 9, 30, tzinfo=timezone.utc)
SHOP = Path(__file__).with_name("shop_events.csv")  # made by make_shop_events.py


async def mark() -> None:
    """Mark, and print what each call returned."""
    async with Tally.from_url(URL) as tally:
        first = await tally.mark_event("active", 123, now=MONDAY)
        again = await tally.mark_event("active", 123, now=MONDAY + timedelta(days=1))
        print("user 123 is active on Monday:  first time this", first)
        print("user 123 is active on Tuesday: first time this", again)

        async with tally.transaction() as tx:
            for user_id in (7, 8, 9):
                tx.mark_event("active", user_id, now=MONDAY, track_hourly=True)
            tx.mark_unique("premium", 8)
        print("users 7, 8, 9 are active, 8 is premium: one transaction")

        await tally.unmark_event("active", 9, now=MONDAY, track_hourly=True, exact=True)
        print("user 9 was not, after all")


def show() -> None:
    """Print every bitmap, read with plain Redis commands."""
    with SyncTally.from_url(URL) as tally:
        redis = tally.client
        print("\nbits set:")
        for key in sorted(redis.keys("trackist_*")):
            users = [user_id for user_id in range(200) if redis.getbit(key, user_id)]
            name = key if isinstance(key, str) else key.decode()
            print(f"  {name:32} {users}")


def ask() -> None:
    """Mark the events of a file whose users are e-mail addresses, and answer three questions."""
    with SyncTally.from_url(URL, prefix="shop_", user_ids=str) as shop:
        with SHOP.open(newline="") as file:
            rows = list(csv.DictReader(file))
        with shop.transaction() as tx:
            for row in rows:
                moment = datetime.fromisoformat(row["time"])
                tx.mark_event(row["event"], row["user_id"], now=moment)
        print(f"\na shop: {len(rows)} events of users with e-mail addresses")

        weeks = [date(2026, 11, day) for day in (2, 9, 16, 23)]
        visits = [shop.week("visit", week) for week in weeks]
        orders = [shop.week("order", week) for week in weeks]
        print("visitors of four weeks:", *shop.counts(visits))
        print("visitors of the first week who came back in the fourth:", end=" ")
        print(shop.count(visits[0] & visits[3]))
        print("who ordered in each of the last three weeks:")
        for address in shop.users(all_of(orders[1:])):
            print(f"  {address}")


if __name__ == "__main__":
    asyncio.run(mark())
    show()
    ask()
