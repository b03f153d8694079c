"""Marks as bitmapist makes them: by the wall clock of the given moment, on a named system."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, cast

from .._marking.transaction import unwrapped
from .arguments import as_bool, as_id, as_text
from .systems import pipeline_of, tally_of, translated

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
    """Mark a user in the month, the week and the day of an event, in one transaction.

    Arguments:
        event_name: the event's name.
        uuid: the user's id, from 0 to ``2**32 - 1``.
        system: a name in `SYSTEMS`, a client, or a pipeline.
        now: the moment of the event; by default the present one, in UTC. The wall clock of
            any other is taken as it is, whatever its time zone.
        track_hourly: whether to mark the hour too; ``None`` means ``TRACK_HOURLY``.
        track_unique: whether to mark the flag too; ``None`` means ``TRACK_UNIQUE``.
        use_pipeline: only matters if the system is a pipeline. False queues the commands
            there, for the program to execute; True sends them at once, outside the pipeline.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed; nothing was sent.
        redis.RedisError: Redis refused the mark, or did not answer in time; it may have
            been applied then.
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
    """Clear the bits that `mark_event` sets with the same arguments.

    Arguments:
        event_name: the event's name.
        uuid: the user's id, from 0 to ``2**32 - 1``.
        system: a name in `SYSTEMS`, a client, or a pipeline.
        now: a moment of the day; as for `mark_event`.
        track_hourly: whether to clear the hour too; ``None`` means ``TRACK_HOURLY``.
        track_unique: whether to clear the flag too; ``None`` means ``TRACK_UNIQUE``.
        use_pipeline: as for `mark_event`.

    Raises as `mark_event`. The day's bit is cleared also if the user was
    active in another hour of that day; likewise for the week and the month.
    """
    _mark(False, event_name, uuid, system, now, track_hourly, track_unique, use_pipeline)


def mark_unique(event_name: str, uuid: int, system: System = "default") -> None:
    """Set a user's flag, which has no date.

    Arguments:
        event_name: the event's name.
        uuid: the user's id, from 0 to ``2**32 - 1``.
        system: a name in `SYSTEMS`, a client, or a pipeline.

    If the system is a pipeline, the command is queued there, for the program to execute.
    Raises as `mark_event`.
    """
    tally = tally_of(system)
    mark = tally.backend.marker.mark_unique(as_text(event_name), as_id(uuid))
    _apply(mark, tally, pipeline_of(system))


def unmark_unique(event_name: str, uuid: int, system: System = "default") -> None:
    """Clear a user's flag, which has no date.

    Arguments:
        event_name: the event's name.
        uuid: the user's id, from 0 to ``2**32 - 1``.
        system: a name in `SYSTEMS`, a client, or a pipeline.

    If the system is a pipeline, the command is queued there, for the program to execute.
    Raises as `mark_event`.
    """
    tally = tally_of(system)
    mark = tally.backend.marker.unmark_unique(as_text(event_name), as_id(uuid))
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
    send_now = as_bool("use_pipeline", use_pipeline)
    tally = tally_of(system)
    marker = tally.backend.marker
    arguments = (
        as_text(event_name),
        as_id(uuid),
        now,
        _switch("track_hourly", track_hourly),
        _switch("track_unique", track_unique),
    )
    if value:
        mark = marker.mark_event(*arguments)
    else:
        mark = cast("BitMark", marker.unmark_event(*arguments, exact=False))
    _apply(mark, tally, None if send_now else pipeline_of(system))


def _switch(name: str, value: bool | None) -> bool | None:
    """Convert a switch to ``bool``; ``None`` means the global switch."""
    return None if value is None else as_bool(name, value)


def _apply(mark: BitMark, tally: SyncTally, pipeline: Pipeline | None) -> None:
    """Send a mark, or queue its commands in a program's pipeline."""
    if pipeline is None:
        with translated():
            unwrapped(tally.backend.writer.submit(mark))
        return
    for key in mark.bitmaps.keys:
        pipeline.setbit(key, mark.offset, mark.value)
