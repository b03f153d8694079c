"""bitmapist4 and a tally with the options that docs/from-bitmapist.md names, on one database."""

from __future__ import annotations

import json
import os
import random
import subprocess
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tallymark import SyncTally

if TYPE_CHECKING:
    from stores import Store

#: Marks, and prints the users of each period of a moment.
PROGRAM = """
import json, sys
from datetime import datetime
from bitmapist4 import Bitmapist

b = Bitmapist(sys.argv[1])
marks, moment = json.loads(sys.argv[2])
for verb, event, user, when in marks:
    getattr(b, verb)(event, user, datetime.fromisoformat(when), track_hourly=True)
kinds = ["MonthEvents", "WeekEvents", "DayEvents", "HourEvents", "UniqueEvents"]
when = datetime.fromisoformat(moment)
print(json.dumps([list(getattr(b, kind).from_date("active", when)) for kind in kinds]))
"""
NOW = datetime(2024, 12, 30, 13, 7)


def bitmapist4(store: Store, marks: list[Any]) -> Any:
    python = os.environ["TALLYMARK_BITMAPIST4_PYTHON"]
    request = json.dumps([marks, NOW.isoformat()])
    command = [python, "-W", "ignore", "-c", PROGRAM, store.url, request]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def test_each_reads_what_the_other_has_marked(redis_store: Store) -> None:
    chance = random.Random(5)
    marks = [
        (
            chance.choice(["mark_event", "mark_event", "unmark_event"]),
            chance.choice(["active", "a_b"]),
            chance.randrange(40),
            NOW + timedelta(hours=chance.choice([-300, -30, -1, 0, 0, 1, 24])),
        )
        for _ in range(300)
    ]
    with SyncTally.from_url(
        redis_store.url, prefix="bitmapist_", track_unique=True, track_hourly=True
    ) as tally:

        def seen() -> list[list[int]]:
            return [
                list(tally.users(events))
                for events in (
                    tally.month("active", NOW),
                    tally.week("active", NOW),
                    tally.day("active", NOW),
                    tally.hour("active", NOW),
                    tally.unique("active"),
                )
            ]

        theirs = [(verb, event, user, when.isoformat()) for verb, event, user, when in marks]
        users = bitmapist4(redis_store, theirs)
        assert seen() == users
        assert all(users)
        bits = redis_store.bits()
        redis_store.raw.flushdb()
        for verb, event, user, when in marks:
            getattr(tally, verb)(event, user, now=when)
        assert redis_store.bits() == bits
        assert bitmapist4(redis_store, []) == users
        assert tally.event_names() == ["a_b", "active"]
