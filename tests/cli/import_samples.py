"""Sample files of the shapes that the presets know, made by us, with what is in them.

All have the same hundred events, and odd rows between them: without an id, with an unreadable time,
cut off, empty, or of a kind that is no event.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import uuid
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SAMPLES", "ZONE", "Marked", "Sample", "marked"]

#: The time zone of the tally: some of the events are on another day than in UTC.
ZONE = ZoneInfo("Europe/Berlin")

_EVENTS = ("signup", "page:view", "größe geändert", "checkout", "login")
_USERS = (
    "zoë@example.com",
    "用户",
    "o'brien",
    'the "one"',
    "a,b",
    *(f"u-{n:02d}" for n in range(15)),
)


class Marked(NamedTuple):
    """What an event marks."""

    event: str
    user: str
    day: date


@dataclass
class Sample:
    """A file, and what an import of it does.

    Attributes:
        data: the file.
        suffix: its extension.
        marks: what it marks.
        rows: how many rows it has.
        skipped: how many of them are no events.
        rejected: how many are rejected, by reason.
        options: what the command needs beside the preset.
    """

    data: bytes
    suffix: str
    marks: set[Marked]
    rows: int
    skipped: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    options: tuple[str, ...] = ()


class _Event(NamedTuple):
    event: str
    user: str
    moment: datetime

    @property
    def seconds(self) -> int:
        return int(self.moment.timestamp())


def _events() -> list[_Event]:
    chance = random.Random(22)
    begin = datetime(2026, 1, 1, tzinfo=timezone.utc)
    events = [
        _Event(
            chance.choice(_EVENTS),
            chance.choice(_USERS),
            # The summer time begins on 29 March.
            begin + timedelta(seconds=chance.randrange(120 * 86_400)),
        )
        for _ in range(96)
    ]
    late = datetime(2026, 1, 31, 23, 30, tzinfo=timezone.utc)  # February in Berlin
    summer = datetime(2026, 3, 31, 22, 30, tzinfo=timezone.utc)  # April, two hours ahead
    edges = (late, late - timedelta(hours=1), summer, summer - timedelta(hours=1))
    return events + [_Event("login", f"edge-{n}", moment) for n, moment in enumerate(edges)]


def marked(events: list[_Event]) -> set[Marked]:
    """Return what events mark in `ZONE`."""
    return {Marked(event, user, moment.astimezone(ZONE).date()) for event, user, moment in events}


def _json(rows: list[Any], *odd: str) -> bytes:
    """Return JSON lines, with odd lines between them."""
    lines = [json.dumps(row, ensure_ascii=number % 2 == 0) for number, row in enumerate(rows)]
    for number, line in enumerate(odd):
        lines.insert(7 * number + 3, line)
    return ("\n".join(lines) + "\n").encode()


def _segment() -> Sample:
    events = _events()
    rows: list[dict[str, Any]] = []
    for number, (event, user, moment) in enumerate(events):
        times = (
            moment.strftime("%Y-%m-%dT%H:%M:%S.123Z"),
            moment.astimezone(timezone(timedelta(hours=-5))).isoformat(),
            moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        row: dict[str, Any] = {"type": "track", "event": event, "userId": user}
        row["anonymousId"] = str(uuid.UUID(int=9))
        if number % 5 == 1:
            row = {"type": "page", "name": event, "userId": None, "anonymousId": user}
        elif number % 5 == 2:
            row = {"type": "screen", "name": event, "anonymousId": user}
        row["properties"] = {"text": "two\nlines \u2028 and a tab\t", "n": number}
        rows.append({**row, "timestamp": times[number % 3]})
    identify = {"type": "identify", "userId": "u-01", "timestamp": "2026-01-05T10:00:00Z"}
    nameless = {"type": "page", "userId": "u-01", "timestamp": "2026-01-05T10:00:00Z"}
    without = {
        "type": "track",
        "event": "signup",
        "userId": "",
        "timestamp": "2026-01-05T10:00:00Z",
    }
    no_event = {"type": "track", "userId": "u-01", "timestamp": "2026-01-05T10:00:00Z"}
    whenever = {"type": "track", "event": "signup", "userId": "u-01", "timestamp": "yesterday"}
    odd = [identify, nameless, without, no_event, whenever]
    data = _json(rows, *map(json.dumps, odd), "", '{"type": "track", "event": "sig', "   ")
    return Sample(
        gzip.compress(data),
        ".json.gz",
        marked(events) | {Marked("page", "u-01", date(2026, 1, 5))},
        rows=100 + 5 + 1,
        skipped=1,
        rejected=Counter(
            {"no user id": 1, "no event": 1, "time not readable": 1, "malformed JSON": 1}
        ),
    )


def _mixpanel() -> Sample:
    events = _events()
    rows: list[dict[str, Any]] = []
    for number, each in enumerate(events):
        time: Any = each.seconds * (1000 if number % 3 == 0 else 1)  # milliseconds for seconds
        properties = {"time": str(time) if number % 7 == 0 else time, "distinct_id": each.user}
        rows.append({"event": each.event, "properties": properties})
    odd = [
        {"event": "signup", "properties": {"time": 1767607200}},
        {"event": "signup", "properties": {"distinct_id": "u-01"}},
        {"event": "signup", "properties": {"time": 1e25, "distinct_id": "u-01"}},
        {"event": "sign\x07up", "properties": {"time": 1767607200, "distinct_id": "u-01"}},
        {"event": "e" * 600, "properties": {"time": 1767607200, "distinct_id": "u-01"}},
        {"event": "signup", "properties": {"time": 1767607200, "distinct_id": "é" * 600}},
    ]
    rejected = ["no user id", "no time", "time not readable", "control character in the event"]
    rejected += ["event longer than 512 bytes", "user id longer than 1024 bytes"]
    data = _json(rows, *map(json.dumps, odd))
    return Sample(data, ".ndjson", marked(events), 106, rejected=Counter(rejected))


def _amplitude() -> Sample:
    events = _events()
    rows = [
        {
            "event_type": each.event,
            "user_id": each.user if number % 4 else None,
            "device_id": "device" if number % 4 else each.user,
            "event_time": each.moment.strftime("%Y-%m-%d %H:%M:%S" + ".250000" * (number % 2)),
        }
        for number, each in enumerate(events)
    ]
    odd = '{"event_type": "signup", "user_id": "u-01", "event_time": null}'
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("123/123_2026-01-05_1#0.json.gz", gzip.compress(_json(rows[:50])))
        archive.writestr("123/123_2026-01-05_2#1.json.gz", gzip.compress(_json(rows[50:], odd)))
    rejected = Counter({"no time": 1})
    return Sample(file.getvalue(), ".zip", marked(events), 101, rejected=rejected)


def _posthog() -> Sample:
    events = _events()
    rows: list[dict[str, Any]] = [
        {
            "event": each.event,
            "distinct_id": "anonymous" if number % 2 else each.user,
            "timestamp": each.seconds * 1_000_000 if number % 3 else each.moment.isoformat(),
            "properties": json.dumps({"$browser": "Firefox"}),
            **({"person_id": each.user} if number % 2 else {}),
        }
        for number, each in enumerate(events)
    ]
    return Sample(_json(rows), ".jsonl", marked(events), 100)


def _ga4() -> Sample:
    events = _events()
    rows = [
        {
            "event_date": "20260105",
            "event_name": each.event,
            "event_timestamp": str(each.seconds * 10**6) if number % 2 else each.seconds * 10**6,
            "user_id": each.user if number % 2 else None,
            "user_pseudo_id": "1.2" if number % 2 else each.user,
            "event_params": [{"key": "page", "value": {"string_value": "/"}}],
        }
        for number, each in enumerate(events)
    ]
    odd = '{"event_name": "signup", "event_timestamp": "1767607200000000"}'
    rejected = Counter({"no user id": 1, "malformed JSON": 1})
    return Sample(_json(rows, odd, "]"), ".json", marked(events), 102, rejected=rejected)


def _snowplow() -> Sample:
    lines = []
    events = _events()
    for number, each in enumerate(events):
        columns = [""] * 131
        columns[0], columns[1] = "shop", "web"
        columns[3] = "2026-01-01 00:00:00.000"
        columns[5], columns[126] = ("struct", each.event) if number % 2 else (each.event, "")
        columns[12], columns[15] = (each.user, "cookie") if number % 3 else ("", each.user)
        time = each.moment.strftime("%Y-%m-%d %H:%M:%S.000")
        columns[124], columns[3] = (time, columns[3]) if number % 4 else ("", time)
        lines.append("\t".join(columns))
    lines.insert(10, "\t".join(["shop", "web", ""]))
    lines.insert(20, "")
    data = ("\n".join(lines) + "\n").encode()
    rejected = Counter({"fewer than 127 columns": 1})
    return Sample(data, ".tsv", marked(events), 101, rejected=rejected)


def _nginx() -> Sample:
    paths = {"signup": "/join", "page:view": "/p/12?x=1", "login": "/login", "checkout": "/pay"}
    events = [each for each in _events() if each.event in paths and " " not in each.user]
    lines = []
    for number, each in enumerate(events):
        moment = each.moment.astimezone(timezone(timedelta(hours=number % 3)))
        agent = ' "https://example.com/" "Mozilla/5.0 (\\x22odd\\x22)"' if number % 2 else ""
        lines.append(
            f"192.0.2.{number} - {each.user} [{moment:%d/%b/%Y:%H:%M:%S %z}] "
            f'"GET {paths[each.event]} HTTP/1.1" 200 1{number}{agent}'
        )
    stray = [
        '192.0.2.1 - - [05/Jan/2026:10:00:00 +0000] "GET /join HTTP/1.1" 200 5',
        '192.0.2.1 - u-01 [05/Jan/2026:10:00:00 +0000] "GET /style.css HTTP/1.1" 200 5',
        '192.0.2.1 - u-01 [05/Jan/2026:10:00:00 +0000] "\\x16\\x03" 400 5',
        "2026/01/05 10:00:00 [error] 1#1: *2 open() failed",
    ]
    lines[3:3] = stray
    return Sample(
        ("\n".join(lines) + "\n").encode(),
        ".log",
        marked(events),
        rows=len(lines),
        skipped=3,
        rejected=Counter({"line of another format": 1}),
        options=(
            "--path-event",
            "^/join$=signup",
            "^/p/=page:view",
            "^/login$=login",
            "^/pay$=checkout",
        ),
    )


def _matomo() -> Sample:
    events = _events()
    visits: list[dict[str, Any]] = []
    for number, each in enumerate(events):
        action = {"type": "action", "timestamp": each.seconds, "url": "https://example.com/"}
        if number % 2:
            action |= {"type": "event", "eventAction": each.event}
        else:
            action["type"] = each.event
        before = visits[-1] if visits else {}
        if each.user in (before.get("userId"), before.get("visitorId")):
            before["actionDetails"].append(action)
            continue
        visit = {"userId": each.user} if number % 3 else {"userId": None, "visitorId": each.user}
        visits.append({**visit, "serverDate": "2026-01-05", "actionDetails": [action]})
    visits.insert(4, {"userId": "u-01", "actionDetails": []})
    visits.insert(5, {"actionDetails": [{"type": "signup", "timestamp": 1767607200}]})
    data = json.dumps(visits, indent=1, ensure_ascii=False).encode()
    return Sample(data, ".json", marked(events), 101, rejected=Counter({"no user id": 1}))


def _heap() -> Sample:
    events = _events()
    lines = ["event_id,identity,user_id,object,type,time,text"]
    for number, each in enumerate(events):
        object_, _, type_ = each.event.partition(":")
        user = '"' + each.user.replace('"', '""') + '"'
        users = f"{user},7" if number % 2 else f",{user}"
        text = '"two\nlines, ""quoted"""' if number % 10 == 0 else ""
        time = each.moment.strftime("%Y-%m-%d %H:%M:%S")
        lines.append(f"{number},{users},{object_},{type_},{time},{text}")
    lines += ["100,u-01,,,,2026-01-05 10:00:00,", "101,u-01,,signup,,soon,", "102,u-01"]
    rejected = Counter({"no event": 1, "time not readable": 1, "missing columns": 1})
    data = ("\ufeff" + "\r\n".join(lines)).encode()
    return Sample(data, ".csv", marked(events), 103, rejected=rejected)


SAMPLES: dict[str, Callable[[], Sample]] = {
    "segment": _segment,
    "rudderstack": _segment,
    "mixpanel": _mixpanel,
    "amplitude": _amplitude,
    "posthog": _posthog,
    "ga4": _ga4,
    "snowplow": _snowplow,
    "nginx": _nginx,
    "matomo": _matomo,
    "heap": _heap,
}
