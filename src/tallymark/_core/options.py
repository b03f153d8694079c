"""The options of a tally, and the global switches for those that it leaves open. Pure.

`tallymark`, `tallymark.sync` and `tallymark.bitmapist` show the switches. A module attribute
cannot be shared by modules, so they give themselves a class, such as `SwitchModule`, whose
properties read and write the one `Switches` object here.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta, tzinfo
from datetime import timezone as fixed_timezone
from numbers import Real
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TypedDict, cast
from zoneinfo import ZoneInfo

from ..errors import InvalidTypeError, InvalidValueError, TallymarkError
from .arguments import plain_str
from .keys import DEFAULT_PREFIX, MAX_USER_ID, KeySchema, checked_int
from .periods import By, Granularity, checked_zone, dated
from .untrusted import escaped, kind_of, let_handlers_pass, shown
from .urls import StoreUrl

if TYPE_CHECKING:
    from collections.abc import Callable

    from .observers import Observer

__all__ = [
    "DEFAULT_TIMEOUT",
    "REPLICAS",
    "Options",
    "SwitchModule",
    "TallyOptions",
    "TolerantSwitchModule",
    "checked_timeout",
    "hide_urls",
    "install_switches",
    "switches",
]

DEFAULT_TIMEOUT = 5.0
DEFAULT_MAX_PENDING = 100_000

#: The longest timeout of a socket: poll(2) takes milliseconds in 32 bits.
_LONGEST: Final = 2_000_000.0
#: Some operations on the longest bitmaps that there may be, each of 512 MB.
DEFAULT_MAX_TEMP_BYTES: Final = 2 * 1024**3
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
        prefix: what every key begins with; ``trackist_``, bitmapist's, by default. Of
            several prefixes in one database, none may be the beginning of another:
            the keys of ``tenant1_eu_`` are events ``eu_...`` of ``tenant1_``, which
            lists, forgets and deletes them. docs/operations.md tells how to choose.
        timezone: the zone that decides which day, week or hour a moment falls
            in: a name of the IANA database (``"Europe/Berlin"``) or a
            ``tzinfo`` (also of pytz or dateutil; one that does not tell its
            offset is refused). UTC by default. Do not change it for a database
            that has marks.
        track_hourly: also mark the hour; ``None`` (the default) leaves it to
            the global ``TRACK_HOURLY``. Where days expire before their hours, this also
            says whether hours are read beside them.
        track_unique: also mark the dateless bitmap; ``None`` (the default)
            leaves it to the global ``TRACK_UNIQUE``.
        track_yearly: also mark the year; off by default (bitmapist has no
            year keys). Years are read from their months in any case, so it may
            be switched on and off; it is for years that outlive their months.
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
            out of marks and unmarks. All stay by default. Reads go by it too: a
            range takes no week for seven days if weeks expire first. So give all
            tallies on a database the same; a bitmap keeps the end that it was given.
        event_pattern: a regular expression that the whole name of an event
            has to match to be marked; ``None`` (the default) for none.
        max_events: how many different events this tally marks or unmarks, from
            when it is made; the next one is refused. ``None`` (the default) for any
            number. Set one of these two where names may come from outside.
        max_temp_bytes: how many bytes Redis may write to temporary keys for one
            question about expressions; 2 GiB by default, ``None`` for any number. That takes
            it about a second with bitmaps of some megabytes, and up to seven with some of
            hundreds, in which it does nothing else. Bytes beyond the end of an
            operation's shortest bitmap count six times. What may need more, by
            ``max_user_id``, begins with a request for the lengths of its bitmaps, unless
            the tally has learnt them within the last minute, and is refused with an
            `InvalidValueError` if these show that it does.
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
    max_temp_bytes: int | None
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
    max_temp_bytes: int | None = DEFAULT_MAX_TEMP_BYTES
    max_event_bytes: int | None = DEFAULT_MAX_EVENT_BYTES
    max_bitmaps: int = DEFAULT_MAX_BITMAPS
    read_from: str | StoreUrl = PRIMARY
    observer: Observer | None = None
    shards: int | None = None
    replicas: int = 0
    #: ``expire`` by granularity.
    lives: Mapping[Granularity, timedelta] = field(init=False)
    #: The time zone, whichever way it was given.
    zone: tzinfo = field(init=False)

    def __post_init__(self) -> None:
        for name in ("timezone", "event_pattern", "read_from"):
            object.__setattr__(self, name, plain_str(getattr(self, name)))
        _check_flag("track_hourly", self.track_hourly, optional=True)
        _check_flag("track_unique", self.track_unique, optional=True)
        _check_flag("track_yearly", self.track_yearly)
        _check_flag("bitfield", self.bitfield)
        object.__setattr__(self, "timeout", checked_timeout(self.timeout))
        self._check_least("max_pending", 1)
        if self.observer is not None and not callable(self.observer):
            raise InvalidTypeError(f"observer must be callable, got {shown(self.observer)}")
        if self.max_events is not None:
            self._check_least("max_events", 1)
        if self.max_temp_bytes is not None:
            self._check_least("max_temp_bytes", 1)
        if self.max_event_bytes is not None:
            self._check_least("max_event_bytes", 1)
        self._check_least("max_bitmaps", 1)
        self._check_least("replicas", 0)
        _check_pattern(self.event_pattern)
        object.__setattr__(self, "lives", _lives(self.expire))
        if not _is_word(self.read_from):
            if not isinstance(self.read_from, str | StoreUrl):
                raise InvalidTypeError(
                    f"read_from is 'primary', 'replicas' or a URL, got a {kind_of(self.read_from)}"
                )
            object.__setattr__(self, "read_from", _read_url(self.read_from))
        object.__setattr__(self, "zone", _zone(self.timezone))
        schema = self.schema()  # checks these
        for name in ("prefix", "max_user_id", "shards"):
            object.__setattr__(self, name, getattr(schema, name))

    def _check_least(self, name: str, least: int) -> None:
        """Check an option that is a number, and have it as a plain int."""
        number = checked_int(name, getattr(self, name))
        if number < least:
            raise InvalidValueError(f"{name} must be {least} or more, got {shown(number)}")
        object.__setattr__(self, name, number)

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
    """Return a number of seconds if it is one that a call may take.

    What is longer than the operating system's timers reach, some 24 days, is no limit.
    """
    kind = type(timeout)
    if issubclass(kind, float):
        plain = float.__float__(timeout)
    elif issubclass(kind, int) and kind is not bool:
        plain = int.__index__(cast("int", timeout))
    else:
        plain = _real(timeout)
    if not plain > 0:  # a NaN fails too
        raise InvalidValueError(f"timeout must be more than 0 seconds, got {shown(timeout)}")
    return plain if plain <= _LONGEST else math.inf


def _real(timeout: object) -> float:
    """Return a real number of another type, such as one of numpy's, as a float."""
    cause = None
    if not isinstance(timeout, bool) and isinstance(timeout, Real):
        try:
            return float.__float__(float(timeout))
        except Exception as error:  # noqa: BLE001 - of a class of somebody's
            let_handlers_pass(error)
            cause = error
    raise InvalidTypeError(f"timeout must be a number of seconds, got {shown(timeout)}") from cause


def _check_pattern(pattern: str | None) -> None:
    if pattern is None:
        return
    if not isinstance(pattern, str):
        raise InvalidTypeError(f"event_pattern must be a str or None, got {shown(pattern)}")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidValueError(
            f"event_pattern is no regular expression: {escaped(str(error))}"
        ) from None


def _lives(expire: Mapping[By, timedelta]) -> dict[Granularity, timedelta]:
    if not isinstance(expire, Mapping):
        raise InvalidTypeError(f"expire must map granularities to timedeltas, got {shown(expire)}")
    found = {}
    for by, life in _items(expire):
        if not isinstance(life, timedelta):
            raise InvalidTypeError(f"expire must hold timedeltas, got {shown(life)}")
        if life <= timedelta(0):
            raise InvalidValueError(f"expire must hold timedeltas above 0, got {shown(life)}")
        found[dated(by)] = life
    return found


def _items(expire: Mapping[By, timedelta]) -> list[tuple[By, timedelta]]:
    try:
        return list(expire.items())
    except Exception as error:
        let_handlers_pass(error)
        raise InvalidTypeError(f"expire cannot be read: {shown(error)}") from error


def hide_urls(options: TallyOptions) -> None:
    """Let go of the text of a URL in options that nobody else has, before anything is raised.

    Error reporters show the locals of all frames that an exception has passed.
    """
    found: Any = options
    if not _is_word(found.get("read_from", PRIMARY)):
        found["read_from"] = StoreUrl(found["read_from"])


def _is_word(read_from: object) -> bool:
    """Tell whether this is no URL, but one of the words that ``read_from`` may be."""
    return isinstance(read_from, str) and plain_str(read_from) in {PRIMARY, REPLICAS}


def _read_url(url: str | StoreUrl) -> StoreUrl:
    store = StoreUrl(url)
    refusal: TallymarkError
    try:
        if not store.address.is_cluster and not store.is_private:
            return store
        refusal = InvalidValueError(
            "memory:// is a store of its own that is empty; give it a name"
            if store.is_private
            else "a cluster's nodes are found by a URL of its own"
        )
    except (InvalidTypeError, InvalidValueError) as error:
        refusal = error
    raise type(refusal)(f"read_from is 'primary', 'replicas' or a URL: {refusal}")


def _check_flag(name: str, value: object, *, optional: bool = False) -> None:
    if not (isinstance(value, bool) or (optional and value is None)):
        choices = "True, False or None" if optional else "True or False"
        raise InvalidTypeError(f"{name} must be {choices}, got {shown(value)}")


def _zone(timezone: str | tzinfo) -> tzinfo:
    if isinstance(timezone, tzinfo):
        return checked_zone(timezone)
    if not isinstance(timezone, str):
        raise InvalidTypeError(
            f"timezone must be a tzinfo or a name such as 'Europe/Berlin', got {shown(timezone)}"
        )
    try:
        return ZoneInfo(timezone)
    except (ValueError, OSError, KeyError) as error:  # ZoneInfoNotFoundError is a KeyError
        let_handlers_pass(error)
        raise InvalidValueError(
            f"unknown time zone {shown(timezone)} (on a system without a time zone database, "
            "as Windows is, run: pip install tzdata)"
        ) from error


class Switches:
    """Whether tallies that do not say mark the hour and the unique bitmap too."""

    def __init__(self) -> None:
        self.track_hourly = False
        self.track_unique = False


switches = Switches()


def _switch(name: str, checked: Callable[[str, object], bool]) -> property:
    """Return a property that reads and writes the switch of the same name in lower case."""

    def get(_: ModuleType) -> bool:
        value: bool = getattr(switches, name.lower())
        return value

    def put(_: ModuleType, value: object) -> None:
        setattr(switches, name.lower(), checked(name, value))
        for module in _modules:
            _show(module)

    return property(get, put)


def _bool(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidTypeError(f"{name} must be True or False, got {shown(value)}")
    return value


def _truth(_: str, value: object) -> bool:
    return bool(value)


class SwitchModule(ModuleType):
    """A module with the settable attributes ``TRACK_HOURLY`` and ``TRACK_UNIQUE``."""

    TRACK_HOURLY = _switch("TRACK_HOURLY", _bool)
    TRACK_UNIQUE = _switch("TRACK_UNIQUE", _bool)


class TolerantSwitchModule(ModuleType):
    """The same, and takes anything that is true or false."""

    TRACK_HOURLY = _switch("TRACK_HOURLY", _truth)
    TRACK_UNIQUE = _switch("TRACK_UNIQUE", _truth)


_modules: list[ModuleType] = []


def install_switches(module_name: str, kind: type[ModuleType] = SwitchModule) -> None:
    """Give an imported module the switches."""
    module = sys.modules[module_name]
    module.__class__ = kind
    _modules.append(module)
    _show(module)


def _show(module: ModuleType) -> None:
    """Put the switches where `unittest.mock.patch` looks for what it has to put back."""
    vars(module).update(
        TRACK_HOURLY=switches.track_hourly,
        TRACK_UNIQUE=switches.track_unique,
    )
