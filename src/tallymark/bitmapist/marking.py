"""Marks as bitmapist makes them: by the wall clock that they are given, on a named system."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, cast

from .._marking.transaction import unwrapped
from .systems import pipeline_of, tally_of, translated
from .users import checked_id, text_of, truth_of

if TYPE_CHECKING:
    from redis.client import Pipeline

    from .._marking.marks import BitMark
    from .._sync.tally import SyncTally
    from .systems import System

__all__ = ["mark_event", "mark_unique", "unmark_event", "unmark_unique"]


def mark_event(
    event_name: str,
    uuid: int,
    system: System = "default",
    now: date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    use_pipeline: bool = True,
) -> None:
    """Record that a user did something: in the month, the week and the day, in one transaction.

    Arguments:
        event_name: the event's name.
        uuid: the user's id, from 0 to ``2**32 - 1``.
        system: where: a name of `SYSTEMS`, a client, or a pipeline.
        now: when; the present moment in UTC by default. Of any other, the wall clock is
            taken as it is, whatever its time zone.
        track_hourly: whether to mark the hour too; ``None`` leaves it to ``TRACK_HOURLY``.
        track_unique: whether to mark the flag too; ``None`` leaves it to ``TRACK_UNIQUE``.
        use_pipeline: only matters if the system is a pipeline. False queues the commands
            there, for the program to execute; True sends them at once, past it.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed; nothing was sent.
        redis.RedisError: Redis did not take it, or did not answer in time; the mark may
            have been made then.
    """
    _mark(True, event_name, uuid, system, now, track_hourly, track_unique, use_pipeline)


def unmark_event(
    event_name: str,
    uuid: int,
    system: System = "default",
    now: date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    use_pipeline: bool = True,
) -> None:
    """Take a mark back, in the same bitmaps that `mark_event` with these arguments sets.

    Arguments and errors as for `mark_event`. A user who was there at another hour of the
    day is not there on that day any more.
    """
    _mark(False, event_name, uuid, system, now, track_hourly, track_unique, use_pipeline)


def mark_unique(event_name: str, uuid: int, system: System = "default") -> None:
    """Give a user a flag, which has no date. Arguments and errors as for `mark_event`.

    A pipeline as the system gets the command, for the program to execute.
    """
    tally = tally_of(system)
    mark = tally.backend.marker.mark_unique(text_of(event_name), checked_id(uuid))
    _apply(mark, tally, pipeline_of(system))


def unmark_unique(event_name: str, uuid: int, system: System = "default") -> None:
    """Take a user's flag away. Arguments and errors as for `mark_event`.

    A pipeline as the system gets the command, for the program to execute.
    """
    tally = tally_of(system)
    mark = tally.backend.marker.unmark_unique(text_of(event_name), checked_id(uuid))
    _apply(mark, tally, pipeline_of(system))


def _mark(
    value: bool,
    event_name: str,
    uuid: int,
    system: System,
    now: date | None,
    track_hourly: bool | None,
    track_unique: bool | None,
    use_pipeline: bool,
) -> None:
    if isinstance(now, datetime):
        now = now.replace(tzinfo=None)
    at_once = truth_of("use_pipeline", use_pipeline)
    tally = tally_of(system)
    marker = tally.backend.marker
    given = (
        text_of(event_name),
        checked_id(uuid),
        now,
        _switch("track_hourly", track_hourly),
        _switch("track_unique", track_unique),
    )
    if value:
        mark = marker.mark_event(*given)
    else:
        mark = cast("BitMark", marker.unmark_event(*given, exact=False))
    _apply(mark, tally, None if at_once else pipeline_of(system))


def _switch(name: str, given: bool | None) -> bool | None:
    """Return True or False for whatever is true or false; ``None`` leaves it to the global one."""
    return None if given is None else truth_of(name, given)


def _apply(mark: BitMark, tally: SyncTally, pipeline: Pipeline | None) -> None:
    """Send a mark, or put its commands into a program's pipeline."""
    if pipeline is None:
        with translated():
            unwrapped(tally.backend.writer.submit(mark))
        return
    for key in mark.bitmaps.keys:
        pipeline.setbit(key, mark.offset, mark.value)
