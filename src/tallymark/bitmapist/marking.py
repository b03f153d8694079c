"""Marks as bitmapist makes them: by the wall clock that they are given, on a named system."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from ..errors import StoreError
from ..keys import KeySchema
from ..periods import Granularity, Period
from ..switches import switches
from .dates import utc_now
from .systems import as_redis_py, get_redis, pipeline_of, tally_of, translated
from .users import checked_id

if TYPE_CHECKING:
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
    _mark("mark_event", event_name, uuid, system, now, track_hourly, track_unique, use_pipeline)


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
    _mark("unmark_event", event_name, uuid, system, now, track_hourly, track_unique, use_pipeline)


def mark_unique(event_name: str, uuid: int, system: System = "default") -> None:
    """Give a user a flag, which has no date. Arguments and errors as for `mark_event`.

    A pipeline as the system gets the command, for the program to execute.
    """
    _mark_unique("mark_unique", event_name, uuid, system)


def unmark_unique(event_name: str, uuid: int, system: System = "default") -> None:
    """Take a user's flag away. Arguments and errors as for `mark_event`.

    A pipeline as the system gets the command, for the program to execute.
    """
    _mark_unique("unmark_unique", event_name, uuid, system)


def _mark(
    verb: str,
    event_name: str,
    uuid: int,
    system: System,
    now: date | None,
    track_hourly: bool | None,
    track_unique: bool | None,
    use_pipeline: bool,
) -> None:
    if isinstance(now, datetime) and now.tzinfo is not None:
        now = now.replace(tzinfo=None)
    hourly = switches.track_hourly if track_hourly is None else bool(track_hourly)
    unique = switches.track_unique if track_unique is None else bool(track_unique)
    if not use_pipeline and pipeline_of(system) is not None:
        granularities = [Granularity.MONTH, Granularity.WEEK, Granularity.DAY]
        granularities += [Granularity.HOUR] * hourly + [Granularity.UNIQUE] * unique
        moment = utc_now() if now is None else now
        _queue(get_redis(system), event_name, uuid, granularities, moment, verb == "mark_event")
        return
    call = getattr(tally_of(system), verb)
    try:
        call(str(event_name), checked_id(uuid), now=now, track_hourly=hourly, track_unique=unique)
    except StoreError as error:
        raise as_redis_py(error) from error


def _mark_unique(verb: str, event_name: str, uuid: int, system: System) -> None:
    if pipeline_of(system) is not None:
        value = verb == "mark_unique"
        _queue(get_redis(system), event_name, uuid, [Granularity.UNIQUE], utc_now(), value)
        return
    with translated():
        getattr(tally_of(system), verb)(str(event_name), checked_id(uuid))


def _queue(
    pipeline: Any,
    event_name: str,
    uuid: int,
    granularities: list[Granularity],
    moment: date,
    value: bool,
) -> None:
    """Put the commands of a mark into a program's pipeline."""
    schema = KeySchema()
    offset = schema.offset(checked_id(uuid))
    wall = datetime(*moment.timetuple()[:6])
    for granularity in granularities:
        unique = granularity is Granularity.UNIQUE
        period = None if unique else Period.containing(granularity, wall)
        pipeline.setbit(schema.key(str(event_name), period), offset, int(value))
