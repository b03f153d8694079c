"""A program that marks many users. Run as ``marking_program.py URL FACADE COUNT SEED``.

It prints "ready" when its tally is connected, and begins when it gets a line. It marks the
same `COUNT` users as all others with that count, in an order by the SEED, and prints the index
of each user whose mark was acknowledged. FACADE is ``async`` (50 tasks) or ``sync`` (8 threads).
"""

from __future__ import annotations

import asyncio
import random
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

from tallymark import SyncTally, Tally

__all__ = ["EVENT", "user"]

EVENT = "active"

#: Long enough for a restart of the server.
TIMEOUT = 60.0


def user(index: int) -> uuid.UUID:
    """Return a user of all programs."""
    return uuid.UUID(int=random.Random(index).getrandbits(128))


def report(index: int) -> None:
    """Print that a mark was acknowledged; in one write, as threads and a kill may interfere."""
    sys.stdout.write(f"{index}\n")
    sys.stdout.flush()


def wait_for_the_others() -> None:
    """Say that the program is ready, and wait for the start."""
    print("ready", flush=True)
    sys.stdin.readline()


async def mark_in_tasks(url: str, order: list[int]) -> None:
    """Mark the users with the async facade."""
    async with Tally.from_url(url, user_ids=uuid.UUID, timeout=TIMEOUT) as tally:
        await tally.count(tally.unique(EVENT))
        wait_for_the_others()
        indexes = iter(order)

        async def mark() -> None:
            for index in indexes:
                await tally.mark_unique(EVENT, user(index))
                report(index)

        await asyncio.gather(*(mark() for _ in range(50)))


def mark_in_threads(url: str, order: list[int]) -> None:
    """Mark the users with the blocking facade."""
    with SyncTally.from_url(url, user_ids=uuid.UUID, timeout=TIMEOUT) as tally:
        tally.count(tally.unique(EVENT))
        wait_for_the_others()

        def mark(index: int) -> None:
            tally.mark_unique(EVENT, user(index))
            report(index)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(mark, order))


def main() -> None:
    """Mark the users."""
    url, facade, count, seed = sys.argv[1:]
    order = list(range(int(count)))
    random.Random(int(seed)).shuffle(order)
    if facade == "async":
        asyncio.run(mark_in_tasks(url, order))
    else:
        mark_in_threads(url, order)


if __name__ == "__main__":
    main()
