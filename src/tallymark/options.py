"""The options of a tally: their types, their defaults, their checks. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta, tzinfo
from datetime import timezone as fixed_timezone
from typing import TYPE_CHECKING, Final, TypedDict
from zoneinfo import ZoneInfo

from .errors import InvalidTypeError, InvalidValueError
from .keys import DEFAULT_PREFIX, MAX_USER_ID, KeySchema, checked_int
from .periods import By, Granularity, dated
from .urls import check_url

if TYPE_CHECKING:
    from .observers import Observer

__all__ = ["DEFAULT_TIMEOUT", "REPLICAS", "Options", "TallyOptions", "checked_timeout"]

DEFAULT_TIMEOUT = 5.0
DEFAULT_MAX_PENDING = 100_000

#: How many bitmaps one question may read: 54 years of days, or two of hours.
DEFAULT_MAX_BITMAPS: Final = 20_000

#: How long the name of an event may be that is marked, in bytes of UTF-8.
DEFAULT_MAX_EVENT_BYTES: Final = 512

#: How many shards a cluster has if nobody says how many: enough for some masters, and
#: few to ask.
DEFAULT_SHARDS: Final = 16

#: What ``read_from`` may be, apart from a URL.
PRIMARY: Final = "primary"
REPLICAS: Final = "replicas"


class TallyOptions(TypedDict, total=False):
    """What `Tally`, `SyncTally`, their ``from_url`` and `configure` take by keyword.

    Attributes:
        prefix: what every key begins with; ``trackist_``, bitmapist's, by default.
        timezone: the zone that decides which day, week or hour a moment falls
            in: a name of the IANA database (``"Europe/Berlin"``) or a
            ``tzinfo``. UTC by default. Do not change it for a database that
            has marks.
        track_hourly: also mark the hour; ``None`` (the default) leaves it to
            the global ``TRACK_HOURLY``.
        track_unique: also mark the dateless bitmap; ``None`` (the default)
            leaves it to the global ``TRACK_UNIQUE``.
        track_yearly: also mark the year; off by default (bitmapist has no
            year keys).
        max_user_id: the largest user id accepted, at most and by default
            ``2**32 - 1``. Redis allocates ``id / 8`` bytes for each bitmap
            that an id touches, 512 MB for the largest, so set this to what
            your ids can reach if they come from outside.
        bitfield: write several bits of one key with one ``BITFIELD`` (the
            default); False for servers that lack the command.
        timeout: how many seconds a call may take, whatever Redis and the network
            do, retries included; 5 by default, ``math.inf`` for no limit. A call
            that sends several requests one after the other, such as a report,
            ends that long after the last one that was answered; its own
            ``timeout`` bounds all of them together.
        max_pending: how many marks, and how many reads, may be waiting for
            Redis; 100,000 by default, which takes about 200 MB with the tasks
            that wait. Whoever comes then gets an `OverloadedError`. A `SyncTally`
            counts marks alone; its reads wait in threads of their callers.
        expire: how long bitmaps live, for some of ``"hour"``, ``"day"``,
            ``"week"``, ``"month"``, ``"year"``: ``{"hour": timedelta(days=7)}``
            lets Redis drop an hour's bitmap seven days after that hour has
            ended. It is set with each mark, in the same transaction, and is the
            same for late marks; bitmaps that would be over already are left
            out of marks and unmarks. All stay by default.
        event_pattern: a regular expression that the whole name of an event
            has to match to be marked; ``None`` (the default) for none.
        max_events: how many different events this tally marks or unmarks, from
            when it is made; the next one is refused. ``None`` (the default) for any
            number. Set one of these two where names may come from outside.
        max_event_bytes: how long the name of an event may be to be marked or unmarked,
            in bytes of UTF-8; 512 by default, ``None`` for no limit. A mark writes the
            name in three keys or more. Reads take any name.
        max_bitmaps: how many different bitmaps one question may read (`count`,
            `contains`, `users`, a report, ...); 20,000 by default, which is 54 years
            of days. A report may use each of them 25 times on average, so its table
            has 25 times as many cells at most. What would be more is refused before
            anything is built or sent.
        read_from: where reads go: ``"primary"`` (the default), where marks go
            too; ``"replicas"``, those that a ``redis+sentinel://`` URL leads to, in
            turn (the primary, while there are none); or the URL of a replica.
            What a replica tells may be some moments old, even for who has
            just marked. It is asked for nothing that writes: event sets that
            take more than one bitmap are counted on this side, part by part.
            What deletes goes to the primary in any case.
        observer: is called with an `Operation` after each exchange with Redis,
            such as a `tallymark.otel.OpenTelemetry`; ``None`` by default.
        shards: over how many shards the users are spread, from 1 to 1,024, which
            holds for the life of a database and is written into it; docs/scale.md
            tells how many to take. ``None`` is bitmapist's format on one server,
            and 16 shards on a cluster.
        replicas: how many replicas have to have a mark before it counts as done
            (``WAIT``); 0 by default. If there are fewer of them, marks fail at
            their timeout, and may be applied all the same.
    """

    prefix: str
    timezone: str | tzinfo
    track_hourly: bool | None
    track_unique: bool | None
    track_yearly: bool
    max_user_id: int
    bitfield: bool
    timeout: float
    max_pending: int
    expire: Mapping[By, timedelta]
    event_pattern: str | None
    max_events: int | None
    max_event_bytes: int | None
    max_bitmaps: int
    read_from: str
    observer: Observer | None
    shards: int | None
    replicas: int


@dataclass(frozen=True)
class Options:
    """`TallyOptions` with the defaults filled in and every value checked.

    Raises:
        InvalidTypeError, InvalidValueError: an option has no such value.
    """

    prefix: str = DEFAULT_PREFIX
    timezone: str | tzinfo = fixed_timezone.utc
    track_hourly: bool | None = None
    track_unique: bool | None = None
    track_yearly: bool = False
    max_user_id: int = MAX_USER_ID
    bitfield: bool = True
    timeout: float = DEFAULT_TIMEOUT
    max_pending: int = DEFAULT_MAX_PENDING
    expire: Mapping[By, timedelta] = field(default_factory=dict)
    event_pattern: str | None = None
    max_events: int | None = None
    max_event_bytes: int | None = DEFAULT_MAX_EVENT_BYTES
    max_bitmaps: int = DEFAULT_MAX_BITMAPS
    read_from: str = PRIMARY
    observer: Observer | None = None
    shards: int | None = None
    replicas: int = 0
    #: ``expire`` by granularity.
    lives: Mapping[Granularity, timedelta] = field(init=False)
    #: The time zone, whichever way it was given.
    zone: tzinfo = field(init=False)

    def __post_init__(self) -> None:
        _check_flag("track_hourly", self.track_hourly, optional=True)
        _check_flag("track_unique", self.track_unique, optional=True)
        _check_flag("track_yearly", self.track_yearly)
        _check_flag("bitfield", self.bitfield)
        checked_timeout(self.timeout)
        if checked_int("max_pending", self.max_pending) < 1:
            raise InvalidValueError(f"max_pending must be 1 or more, got {self.max_pending}")
        if self.observer is not None and not callable(self.observer):
            raise InvalidTypeError(f"observer must be callable, got {self.observer!r:.80}")
        if self.max_events is not None and checked_int("max_events", self.max_events) < 1:
            raise InvalidValueError(f"max_events must be 1 or more, got {self.max_events}")
        if checked_int("max_bitmaps", self.max_bitmaps) < 1:
            raise InvalidValueError("max_bitmaps must be 1 or more")
        longest = self.max_event_bytes
        if longest is not None and checked_int("max_event_bytes", longest) < 1:
            raise InvalidValueError("max_event_bytes must be 1 or more, or None")
        if checked_int("replicas", self.replicas) < 0:
            raise InvalidValueError(f"replicas must be 0 or more, got {self.replicas}")
        _check_pattern(self.event_pattern)
        object.__setattr__(self, "lives", _lives(self.expire))
        if self.read_from not in {PRIMARY, REPLICAS}:
            _check_read_url(self.read_from)
        object.__setattr__(self, "zone", _zone(self.timezone))
        self.schema()  # checks the prefix and max_user_id

    @property
    def seconds(self) -> float | None:
        """The timeout as most libraries want it: ``None`` for no limit."""
        return None if self.timeout == math.inf else self.timeout

    @property
    def reads_elsewhere(self) -> bool:
        """Whether reads go to a server that may not be written to."""
        return self.read_from != PRIMARY

    def on_a_cluster(self) -> Options:
        """Return the same options with what a cluster needs.

        Raises:
            InvalidValueError: one of them is not for clusters.
        """
        if self.reads_elsewhere:
            raise InvalidValueError("read_from is not for clusters: reads go to the masters")
        return self if self.shards is not None else replace(self, shards=DEFAULT_SHARDS)

    def schema(self) -> KeySchema:
        """Return the key schema these options describe."""
        return KeySchema(self.prefix, self.max_user_id, self.shards)


def checked_timeout(timeout: float) -> float:
    """Return a number of seconds if it is one that a call may take."""
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool):
        raise InvalidTypeError(f"timeout must be a number of seconds, got {timeout!r:.80}")
    if not timeout > 0:  # a NaN fails too
        raise InvalidValueError(f"timeout must be more than 0 seconds, got {timeout!r:.80}")
    return timeout


def _check_pattern(pattern: str | None) -> None:
    if pattern is None:
        return
    if not isinstance(pattern, str):
        raise InvalidTypeError(f"event_pattern must be a str or None, got {pattern!r:.80}")
    try:
        re.compile(pattern)
    except re.error as error:
        raise InvalidValueError(f"event_pattern is no regular expression: {error}") from None


def _lives(expire: Mapping[By, timedelta]) -> dict[Granularity, timedelta]:
    if not isinstance(expire, Mapping):
        raise InvalidTypeError(f"expire must map granularities to timedeltas, got {expire!r:.80}")
    found = {}
    for by, life in expire.items():
        if not isinstance(life, timedelta):
            raise InvalidTypeError(f"expire must hold timedeltas, got {life!r:.80}")
        if life <= timedelta(0):
            raise InvalidValueError(f"expire must hold timedeltas above 0, got {life!r:.80}")
        found[dated(by)] = life
    return found


def _check_read_url(url: str) -> None:
    try:
        check_url(url)
    except (InvalidTypeError, InvalidValueError) as error:
        raise type(error)(f"read_from is 'primary', 'replicas' or a URL: {error}") from None


def _check_flag(name: str, value: object, *, optional: bool = False) -> None:
    if not (isinstance(value, bool) or (optional and value is None)):
        choices = "True, False or None" if optional else "True or False"
        raise InvalidTypeError(f"{name} must be {choices}, got {value!r}")


def _zone(timezone: str | tzinfo) -> tzinfo:
    if isinstance(timezone, tzinfo):
        return timezone
    if not isinstance(timezone, str):
        raise InvalidTypeError(
            f"timezone must be a tzinfo or a name such as 'Europe/Berlin', got {timezone!r}"
        )
    try:
        return ZoneInfo(timezone)
    except (ValueError, OSError, KeyError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise InvalidValueError(
            f"unknown time zone {timezone!r} (on a system without a time zone database, "
            "as Windows is, run: pip install tzdata)"
        ) from error
