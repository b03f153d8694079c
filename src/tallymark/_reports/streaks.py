"""Streaks: the days in a row on which users were marked. Pure."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import date, time
from typing import TYPE_CHECKING, Final

from .._charts.tables import Table
from .._core.arguments import checked_name
from .._core.keys import suffixed_key
from .._core.periods import Granularity, suffix_of
from .._core.unions import spans
from .._reading.bounds import check_number
from .._reading.existence import EPOCH, bitmaps_exist, find_unknown
from .._reading.fanout import gather
from .._reading.requests import Checkpoint, Request, in_steps
from .._reading.user_ids import find_user
from .results import Report, checked_labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from typing import Any

    from .._charts.page import Figure
    from .._core.context import Context
    from .._reading.requests import Query

__all__ = ["Streak", "last_days", "streak"]

#: How many bits one request looks up.
_STEP: Final = 1000

#: What a table shows in place of a day.
_NO_DAY: Final = "\N{EN DASH}"


@dataclass(frozen=True)
class Streak(Report):
    """The days in a row on which one user was marked.

    Attributes:
        event: the event's name.
        current: the length of the run that is going on, in days; 0 for none.
        since: its first day; ``None`` for none.
        longest: the length of the longest run, in days; 0 if the user was never marked.
        longest_since: its first day; ``None`` for none. Of several longest runs, it is the last.
        until: the moment of the report, as naive wall-clock time of the tally's zone.
    """

    event: str
    current: int
    since: date | None
    longest: int
    longest_since: date | None
    until: datetime

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a list of one dict, with values that JSON and CSV can represent.

        The keys: ``event``, ``current``, ``since``, ``longest``, ``longest_since``, ``until``
        (dates in ISO 8601).
        """
        return [
            {
                "event": self.event,
                "current": self.current,
                "since": _iso(self.since),
                "longest": self.longest,
                "longest_since": _iso(self.longest_since),
                "until": self.until.isoformat(),
            }
        ]

    def _title(self) -> str:
        return f"Streak: {self._isolated(self.event)}"

    def _caption(self) -> str:
        return (
            "Days in a row on which the user was marked. The current run ends on the last day "
            f"or on the day before. As of {self.until:%Y-%m-%d %H:%M}."
        )

    def _figures(self) -> Sequence[Figure]:
        return [
            Table(
                "Streak",
                ["Run", "Days", "Since"],
                [
                    ["Current", f"{self.current:,}", _iso(self.since) or _NO_DAY],
                    ["Longest", f"{self.longest:,}", _iso(self.longest_since) or _NO_DAY],
                ],
            )
        ]


def _iso(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


def streak(
    context: Context,
    event: str,
    user_id: Any,
    until: date | None,
    labels: Mapping[str, str] | None,
) -> Query[Streak]:
    """Return the current and the longest run of days on which a user was marked.

    Arguments:
        context: the database.
        event: the event's name.
        user_id: the user's id.
        until: the moment of the report; None for the present.
        labels: readable names of events.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed, or there are more days
            than one query may read.
    """
    event = checked_name("event", event)
    readable = checked_labels(labels)
    moment, last, is_over = last_days(context, until)
    marked: list[int] = []
    is_known = False
    place = yield from find_user(context, user_id)
    if place is not None:
        shard, offset = place
        query = _marked_days(context.shards[shard], event, offset, last)
        ((marked, is_known),) = yield from gather(context, [(shard, query)])
    runs = _runs(marked)
    since, current = 0, 0
    if runs and sum(runs[-1]) > (last if is_over else last - 1):
        since, current = runs[-1]
    longest_since, longest = max(runs, key=lambda run: (run[1], run[0]), default=(0, 0))
    return Streak(
        event=event,
        current=current,
        since=date.fromordinal(since) if current else None,
        longest=longest,
        longest_since=date.fromordinal(longest_since) if longest else None,
        until=moment,
        labels=readable,
        unknown_events=(yield from find_unknown(context, [] if is_known else [event])),
    )


def last_days(context: Context, until: date | None) -> tuple[datetime, int, bool]:
    """Return on which days a current run may end.

    Arguments:
        context: the database.
        until: the moment of the report; None for the present, which is the latest.

    Returns:
        The moment; the ordinal of the last day that has begun before it; and whether that day
        is over. If it is not, a run may as well end on the day before.

    Raises:
        InvalidTypeError, InvalidValueError: this is no moment.
    """
    moment = present = context.local(None)
    if until is not None:
        moment = min(present, context.local(until, "until"))
    today = moment.toordinal()
    # At the present, a midnight, marks of the new day may have been made.
    is_over = moment < present and moment.time() == time.min
    return moment, today - is_over, is_over


def _marked_days(
    context: Context, event: str, offset: int, last: int
) -> Query[tuple[list[int], bool]]:
    """Return the ordinals of the days on which a user was marked, from 1970 on, in order.

    And whether the event has a bitmap that was found meanwhile.

    Arguments:
        context: the shard of the user.
        event: the event's name.
        offset: the offset of the user's bit.
        last: the ordinal of the last day.
    """
    days = yield from _days_to_read(context, event, last)
    check_number(context, len(days), "days")
    digits = b"%d" % offset
    marked: list[int] = []
    for at in range(0, len(days), _STEP):
        yield Checkpoint()
        chunk = days[at : at + _STEP]
        keys = (
            suffixed_key(
                context.origin.prefix, event, suffix_of(Granularity.DAY, date.fromordinal(day))
            )
            for day in chunk
        )
        bits = yield Request([(b"GETBIT", key, digits) for key in keys])
        marked += itertools.compress(chunk, bits)
    return marked, bool(days)


def _days_to_read(context: Context, event: str, last: int) -> Query[Sequence[int]]:
    """Return the ordinals of the days of which an event may have a bitmap, in order.

    They are the days of existing months; if months may expire, of existing weeks, or existing
    days. Whether the user is in a month says nothing: an unmark that is not exact clears the
    month, and other days stay.
    """
    coverage = context.coverage
    # A bitmap expires its lifetime after the end of its day. A zone's offset may change meanwhile.
    oldest = context.local(None).toordinal() - coverage.lifetime(Granularity.DAY).days - 2
    days = range(max(EPOCH.toordinal(), oldest), last + 1)
    granularity = next(iter(coverage.permanent), Granularity.DAY)
    periods = yield from in_steps(spans(granularity, days.start, days.stop))
    suffixes = (suffix_of(granularity, date.fromordinal(first)) for first, _ in periods)
    exist = yield from bitmaps_exist(context, event, suffixes)
    existing = (
        range(max(first, days.start), min(after, days.stop))
        for first, after in itertools.compress(periods, exist)
    )
    return list(itertools.chain.from_iterable(existing))


def _runs(days: Iterable[int]) -> list[tuple[int, int]]:
    """Return the first day and the length of each run of consecutive days, in order."""
    runs: list[tuple[int, int]] = []
    for day in days:
        if runs and sum(runs[-1]) == day:
            first, length = runs[-1]
            runs[-1] = first, length + 1
        else:
            runs.append((day, 1))
    return runs
