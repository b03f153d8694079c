"""What the type checker of a program sees that was written for bitmapist. Never run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from typing_extensions import assert_type

from tallymark import bitmapist
from tallymark.bitmapist import (
    BitOpAnd,
    BitOpNot,
    BitOpOr,
    BitOpXor,
    DayEvents,
    MonthEvents,
    UniqueEvents,
    cohort,
    mark_event,
)

if TYPE_CHECKING:
    import redis


def marks(client: redis.Redis, now: datetime) -> None:
    assert_type(mark_event("active", 1, "default", now, None, True, use_pipeline=False), None)
    assert_type(bitmapist.mark_unique("premium", 1, client), None)
    bitmapist.unmark_event("active", 1, system=client.pipeline(), track_hourly=True)
    bitmapist.TRACK_HOURLY = True
    bitmapist.setup_redis("stats", "localhost", 6379, db=1)
    mark_event(b"active", 1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def reads(now: datetime) -> None:
    month = MonthEvents("active", 2026, 11)
    assert_type(month.prev().next().delta(-3), MonthEvents)
    assert_type(DayEvents.from_date("active", now), DayEvents)
    assert_type(month.period_end(), datetime)
    assert_type(month & UniqueEvents("premium"), BitOpAnd)
    assert_type(~(month | month), BitOpNot)
    assert_type(month ^ BitOpOr(month, month), BitOpXor)
    assert_type(BitOpAnd("default", month, month).get_count(), int)
    assert_type(month.get_uuids(), Iterator[int])
    assert_type(list(month), list[int])
    assert_type(month.has_events_marked(), bool)
    assert_type(month.redis_key, str)
    assert_type(len(month) + (1 in month), int)
    assert_type(bitmapist.get_event_names(prefix="a"), list[str])
    _ = month & 1  # type: ignore[operator] # pyright: ignore[reportOperatorIssue]


def tables() -> None:
    table = cohort.get_dates_data("signup", "active", time_group="weeks")
    assert_type(table, list[list[Any]])
    assert_type(cohort.render_html_data(table), str)
    cohort.get_dates_data(
        "signup",
        "active",
        time_group="hours",  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    )
