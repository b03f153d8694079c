"""A program under gevent, whose greenlets share one blocking tally.

Run as ``gevent_program.py WHAT URL``. WHAT is ``together``: all calls succeed; or ``timeouts``:
many greenlets give up, by the timeout of a call or by one of gevent's, which raises wherever
the greenlet waits. Fails with an exception if anything went wrong.
"""

# ruff: noqa: E402 - gevent patches before everything else is imported
from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import random
import sys
import time
from typing import TYPE_CHECKING, Any

import gevent
import redis

from tallymark import Granularity, StoreError, SyncTally

if TYPE_CHECKING:
    from collections.abc import Callable

GREENLETS = 50


def joined(work: Callable[[SyncTally, int], Any], tally: SyncTally) -> None:
    """Run some work in all greenlets; raise if one fails or does not end."""
    jobs = [gevent.spawn(work, tally, number) for number in range(GREENLETS)]
    gevent.joinall(jobs, timeout=60, raise_error=True)
    assert all(job.ready() for job in jobs), "a greenlet hangs"


def succeed(tally: SyncTally, number: int) -> None:
    """Mark and read new users."""
    flag = tally.unique("a")
    for user in range(number, 10 * GREENLETS, GREENLETS):
        assert tally.mark_unique("a", user) == Granularity.UNIQUE
        assert tally.contains(flag, user)
        assert not tally.contains(flag, user + 10 * GREENLETS)
    assert tally.count(flag & flag) >= 10


#: The users whose marks were acknowledged, and those of which nothing was sent.
acknowledged: set[int] = set()
unsent: set[int] = set()
given_up = {"gevent": 0, "tallymark": 0}


def give_up(tally: SyncTally, number: int) -> None:
    """Mark new users, with too little time for some; each fifth greenlet has enough."""
    chance = random.Random(number)
    for user in range(number, 20 * GREENLETS, GREENLETS):
        kind = "patient" if number % 5 == 0 else chance.choice(("gevent", "tallymark", "patient"))
        limit = gevent.Timeout(chance.uniform(0.001, 0.02)) if kind == "gevent" else None
        seconds = chance.uniform(0.002, 0.02) if kind == "tallymark" else 20.0
        try:
            try:
                if limit is not None:
                    limit.start()
                tally.mark_unique("a", user, timeout=seconds)
                acknowledged.add(user)
            finally:
                if limit is not None:
                    limit.close()
        except (gevent.Timeout, StoreError) as error:
            if error is not limit and (kind != "tallymark" or isinstance(error, gevent.Timeout)):
                raise
            given_up[kind] += 1
            if "nothing was sent" in str(error):
                unsent.add(user)
        if user % 3 == 0:
            assert tally.contains(tally.unique("a"), user, timeout=20) or user not in acknowledged


def main() -> None:
    """Run one of the programs."""
    what, url = sys.argv[1:]
    began = time.monotonic()
    with SyncTally.from_url(url, timeout=20) as tally:
        joined(succeed if what == "together" else give_up, tally)
        assert tally.stats().waiting == 0
        assert tally.mark_unique("a", 100_000) == Granularity.UNIQUE
    if what == "timeouts":
        assert min(given_up.values()) > 20, given_up
        raw: Any = redis.Redis.from_url(url)
        bitmap = raw.get("trackist_a_u")
        marked = {at for at in range(8 * len(bitmap)) if bitmap[at >> 3] & (128 >> (at & 7))}
        assert acknowledged <= marked
        assert not unsent & marked
        raw.close()
    print(f"{time.monotonic() - began:.2f} seconds,", len(acknowledged), given_up)


if __name__ == "__main__":
    main()
