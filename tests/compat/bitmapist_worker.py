"""Runs under the Python that has bitmapist, and makes the call of each line of standard input.

A line is a JSON object with the database's URL, the name of a function of
bitmapist, its arguments and its options. The answer is a line of JSON too.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

import bitmapist  # pyright: ignore[reportMissingImports]
import redis


def read(kind: str, event: str, moment: datetime | None, users: list[int]) -> dict[str, Any]:
    """Return what each reading method of bitmapist returns for one period."""
    events = getattr(bitmapist, kind).from_date(event, moment)
    return {
        "key": events.redis_key,
        "users": list(events),
        "count": len(events),
        "contained": [user for user in users if user in events],
        "any": events.has_events_marked(),
    }


def answer(call: dict[str, Any]) -> Any:
    """Make the call of one line."""
    options = call["options"]
    if "now" in options:
        options["now"] = datetime.fromisoformat(options["now"])
    if call["function"] == "read":
        return read(call["args"][0], call["args"][1], options.get("now"), call["args"][2])
    return getattr(bitmapist, call["function"])(*call["args"], **options)


for line in sys.stdin:
    request = json.loads(line)
    bitmapist.SYSTEMS["default"] = redis.Redis.from_url(request["url"])
    print(json.dumps(answer(request)), flush=True)
