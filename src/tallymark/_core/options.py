"""The options of a tally, and the global switches that are defaults of two of them. Pure.

The switches are attributes of `tallymark`, `tallymark.sync` and `tallymark.bitmapist`. Modules
cannot share an attribute, so these modules get a class, such as `SwitchModule`, whose
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

from ..errors import InvalidTypeError, InvalidValueError, TallymarkError
from .arguments import check_flag, checked_int, plain_str
from .keys import DEFAULT_PREFIX, MAX_USER_ID, KeySchema
from .periods import By, Granularity, checked_zone, dated
from .untrusted import escaped, kind_of, reraise_from_handler, shown
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
DEFAULT_MAX_CACHED_IDS: Final = 1_000_000

#: The longest timeout of a socket: poll(2) takes milliseconds in 32 bits.
_LONGEST: Final = 2_000_000.0
#: Enough for some operations on the longest possible bitmaps, of 512 MB each.
DEFAULT_MAX_TEMP_BYTES: Final = 2 * 1024**3
#: Enough for 54 years of days, or two years of hours.
DEFAULT_MAX_BITMAPS: Final = 20_000

#: In bytes of UTF-8.
DEFAULT_MAX_EVENT_BYTES: Final = 512

#: The shards of a cluster by default: enough for several masters, and not too many requests
#: for each read.
DEFAULT_SHARDS: Final = 16

#: The values of ``read_from`` that are no URL.
PRIMARY: Final = "primary"
REPLICAS: Final = "replicas"


class TallyOptions(TypedDict, total=False):
    """The keyword arguments of `Tally`, `SyncTally`, their ``from_url`` and `configure`.

    Attributes:
        prefix: the beginning of every key; ``trackist_``, bitmapist's, by default. Of
            several prefixes in one database, none may be the beginning of another:
            the keys of ``tenant1_eu_`` are events ``eu_...`` of ``tenant1_``, whose
            tally lists, forgets and deletes them. docs/how-to/prefixes.md says how to choose.
        timezone: the time zone that decides in which day, week or hour a moment lies:
            a name of the IANA database (``"Europe/Berlin"``) or a
            ``tzinfo`` (also of pytz or dateutil; one without an
            offset is refused). UTC by default. Do not change it for a database
            that has marks.
        track_hourly: also mark the hour; ``None`` (the default) takes the value of
            the global ``TRACK_HOURLY``. Where days expire before their hours, this option
            also says whether hours are read besides days.
        track_unique: also mark the dateless bitmap; ``None`` (the default)
            takes the value of the global ``TRACK_UNIQUE``.
        track_yearly: also mark the year; off by default (bitmapist has no
            year keys). Years are read from their months in any case, so this option may
            be switched on and off; it is for years that live longer than their months.
        max_user_id: the largest user id accepted, at most and by default
            ``2**32 - 1``. Redis allocates ``id / 8`` bytes for each bitmap
            of an id, 512 MB for the largest, so set this option to your largest id if
            ids come from untrusted sources.
        bitfield: write several bits of one key with one ``BITFIELD`` (the
            default); False for servers that lack the command.
        timeout: how many seconds a call may take at most, retries included, whatever
            Redis and the network do; 5 by default, ``math.inf`` for no limit. A call
            that sends several requests one after the other, such as a report,
            ends at most ``timeout`` seconds after the last reply; the ``timeout`` argument of the
            call limits the whole call.
        max_pending: how many marks, and how many reads, may wait for
            Redis; 100,000 by default, which takes about 200 MB with the waiting
            tasks. Further calls raise `OverloadedError`. A `SyncTally`
            counts marks only; its reads wait in the threads of their callers.
        expire: how long bitmaps live, for some of ``"hour"``, ``"day"``,
            ``"week"``, ``"month"``, ``"year"``: with ``{"hour": timedelta(days=7)}``
            Redis deletes the bitmap of an hour seven days after the end of that
            hour. The expiry is set with each mark, in the same transaction, and is the
            same for late marks; marks and unmarks leave out bitmaps that would have
            expired already. By default bitmaps never expire. Reads depend on this option: a
            range reads no week instead of seven days if weeks expire first. So give all
            tallies on a database the same value; existing bitmaps keep their expiry.
        event_pattern: a regular expression that the whole name of an event
            must match to be marked; ``None`` (the default) for no check.
        max_events: how many different events this tally marks or unmarks in its
            lifetime; further ones are refused. ``None`` (the default) for any
            number. Set one of these two options if names come from untrusted sources.
        max_temp_bytes: how many bytes Redis may write to temporary keys for one
            read of expressions; 2 GiB by default, ``None`` for any number. Writing 2 GiB
            takes about a second with bitmaps of some megabytes, and up to seven seconds with
            bitmaps of some hundred megabytes, and blocks the server meanwhile. Bytes beyond
            the end of an operation's shortest bitmap count six times. A read that may exceed
            the limit, by ``max_user_id``, first requests the lengths of its bitmaps, unless
            the tally has received them within the last minute, and is refused with an
            `InvalidValueError` if it does exceed the limit.
        max_event_bytes: how long the name of an event to mark or unmark may be,
            in bytes of UTF-8; 512 by default, ``None`` for no limit. A mark writes the
            name in three keys or more. Reads take any name.
        max_bitmaps: how many different bitmaps one call may read (`count`,
            `contains`, `users`, a report, ...); 20,000 by default, which is 54 years
            of days. A report may use each of them 25 times on average, so its table
            has 25 times as many cells at most. A call that would read more is refused
            before it computes or sends anything.
        read_from: where reads go: ``"primary"`` (the default), the server of the marks;
            ``"replicas"``, the replicas that the Sentinels of a ``redis+sentinel://`` URL
            report, in turn (the primary, while there are none); or the URL of a replica.
            Replies of a replica may be outdated by some moments, also for a task that has
            just marked. Replicas get no commands that write: event sets
            of more than one bitmap are computed by the client, part by part.
            Deletions go to the primary in any case.
        observer: is called with an `Operation` after each exchange with Redis;
            for example a `tallymark.otel.OpenTelemetry`; ``None`` by default.
        shards: the number of shards over which the users are spread, from 1 to 1,024. The
            number is stored in the database and cannot be changed; docs/how-to/cluster.md
            says how to choose it. ``None`` means bitmapist's format on one server,
            and 16 shards on a cluster.
        replicas: how many replicas must have acknowledged a mark before the call returns
            (``WAIT``); 0 by default. If there are fewer replicas, marks fail at
            their timeout, but may have been applied.
        max_cached_ids: with the argument ``user_ids``, of how many users the tally caches the
            number, at about 70 bytes each beside the id; 1,000,000 by default. Marks of other
            users look it up in Redis. With ``shards``, nothing is cached.
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
    max_cached_ids: int


@dataclass(frozen=True)
class Options:
    """`TallyOptions` with defaults, every value checked.

    Raises:
        InvalidTypeError, InvalidValueError: the value of an option is not allowed.
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
    max_cached_ids: int = DEFAULT_MAX_CACHED_IDS
    user_ids: type | None = None
    #: ``expire`` by granularity.
    lifetimes: Mapping[Granularity, timedelta] = field(init=False)
    #: ``timezone`` as a tzinfo.
    zone: tzinfo = field(init=False)

    def __post_init__(self) -> None:
        for name in ("timezone", "event_pattern", "read_from"):
            object.__setattr__(self, name, plain_str(getattr(self, name)))
        check_flag("track_hourly", self.track_hourly, optional=True)
        check_flag("track_unique", self.track_unique, optional=True)
        check_flag("track_yearly", self.track_yearly)
        check_flag("bitfield", self.bitfield)
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
        self._check_least("max_cached_ids", 1)
        if self.user_ids is not None and not self.bitfield:
            raise InvalidValueError(
                "bitfield=False is for servers without scripts, which user_ids needs"
            )
        _check_pattern(self.event_pattern)
        object.__setattr__(self, "lifetimes", _lifetimes(self.expire))
        if not _is_word(self.read_from):
            if not isinstance(self.read_from, str | StoreUrl):
                raise InvalidTypeError(
                    f"read_from is 'primary', 'replicas' or a URL, got a {kind_of(self.read_from)}"
                )
            object.__setattr__(self, "read_from", _read_url(self.read_from))
        object.__setattr__(self, "zone", _zone(self.timezone))
        schema = self.schema()  # checks these three
        for name in ("prefix", "max_user_id", "shards"):
            object.__setattr__(self, name, getattr(schema, name))

    def _check_least(self, name: str, least: int) -> None:
        """Check an option that is a number, and replace it by an exact int."""
        number = checked_int(name, getattr(self, name))
        if number < least:
            raise InvalidValueError(f"{name} must be {least} or more, got {shown(number)}")
        object.__setattr__(self, name, number)

    @property
    def seconds(self) -> float | None:
        """The timeout in seconds, as most libraries take it: ``None`` for no limit."""
        return None if self.timeout == math.inf else self.timeout

    @property
    def reads_elsewhere(self) -> bool:
        """Whether reads go to another server than marks, one that takes no writes."""
        return self.read_from != PRIMARY

    def on_a_cluster(self) -> Options:
        """Return the same options for a cluster: with the default number of shards.

        Raises:
            InvalidValueError: an option is not for clusters.
        """
        if self.reads_elsewhere:
            raise InvalidValueError("read_from is not for clusters: reads go to the masters")
        return self if self.shards is not None else replace(self, shards=DEFAULT_SHARDS)

    def schema(self) -> KeySchema:
        """Return the key schema of these options."""
        return KeySchema(self.prefix, self.max_user_id, self.shards, self.user_ids)


def checked_timeout(timeout: float) -> float:
    """Return a timeout in seconds as an exact int or float.

    A timeout beyond the range of the operating system's timers, about 24 days, becomes
    ``math.inf``, no limit.

    Raises:
        InvalidTypeError: this is no real number.
        InvalidValueError: the number is not more than 0.
    """
    kind = type(timeout)
    if issubclass(kind, float):
        seconds = float.__float__(timeout)
    elif issubclass(kind, int) and kind is not bool:
        seconds = int.__index__(cast("int", timeout))
    else:
        seconds = _real(timeout)
    if not seconds > 0:  # also for NaN
        raise InvalidValueError(f"timeout must be more than 0 seconds, got {shown(timeout)}")
    return seconds if seconds <= _LONGEST else math.inf


def _real(timeout: object) -> float:
    """Return a real number of another type, such as one of numpy, as a float."""
    cause = None
    if not isinstance(timeout, bool) and isinstance(timeout, Real):
        try:
            return float.__float__(float(timeout))
        except Exception as error:  # noqa: BLE001 - the caller's class may raise anything
            reraise_from_handler(error)
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


def _lifetimes(expire: Mapping[By, timedelta]) -> dict[Granularity, timedelta]:
    if not isinstance(expire, Mapping):
        raise InvalidTypeError(f"expire must map granularities to timedeltas, got {shown(expire)}")
    lifetimes: dict[Granularity, timedelta] = {}
    for by, lifetime in _items(expire):
        if not isinstance(lifetime, timedelta):
            raise InvalidTypeError(f"expire must hold timedeltas, got {shown(lifetime)}")
        if lifetime <= timedelta(0):
            raise InvalidValueError(f"expire must hold timedeltas above 0, got {shown(lifetime)}")
        lifetimes[dated(by)] = lifetime
    return lifetimes


def _items(expire: Mapping[By, timedelta]) -> list[tuple[By, timedelta]]:
    try:
        return list(expire.items())
    except Exception as error:
        reraise_from_handler(error)
        raise InvalidTypeError(f"expire cannot be read: {shown(error)}") from error


def hide_urls(options: TallyOptions) -> None:
    """Replace the text of the URL in ``read_from`` by a `StoreUrl`, in place. Raises nothing.

    Error reporters show the local variables of all frames that an exception has passed, so
    call this before anything else, with a dict that no other code refers to.
    """
    mutable: Any = options
    if not _is_word(mutable.get("read_from", PRIMARY)):
        mutable["read_from"] = StoreUrl(mutable["read_from"])


def _is_word(read_from: object) -> bool:
    """Return whether ``read_from`` is `PRIMARY` or `REPLICAS`, and so no URL."""
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


def _zone(timezone: str | tzinfo) -> tzinfo:
    if isinstance(timezone, tzinfo):
        return checked_zone(timezone)
    if not isinstance(timezone, str):
        raise InvalidTypeError(
            f"timezone must be a tzinfo or a name such as 'Europe/Berlin', got {shown(timezone)}"
        )
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - takes 2 ms, and the default is UTC

    try:
        return ZoneInfo(timezone)
    except (ValueError, OSError, KeyError) as error:  # ZoneInfoNotFoundError is a KeyError
        reraise_from_handler(error)
        raise InvalidValueError(
            f"unknown time zone {shown(timezone)} (on a system without a time zone database, "
            "as Windows is, run: pip install tzdata)"
        ) from error


class Switches:
    """The values of ``track_hourly`` and ``track_unique`` for tallies that leave them open."""

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
    check_flag(name, value)
    return bool(value)


def _truth(_: str, value: object) -> bool:
    return bool(value)


class SwitchModule(ModuleType):
    """A module with the settable attributes ``TRACK_HOURLY`` and ``TRACK_UNIQUE``."""

    TRACK_HOURLY = _switch("TRACK_HOURLY", _bool)
    TRACK_UNIQUE = _switch("TRACK_UNIQUE", _bool)


class TolerantSwitchModule(ModuleType):
    """A module with the same attributes, which take values of any type by their truth."""

    TRACK_HOURLY = _switch("TRACK_HOURLY", _truth)
    TRACK_UNIQUE = _switch("TRACK_UNIQUE", _truth)


_modules: list[ModuleType] = []


def install_switches(module_name: str, kind: type[ModuleType] = SwitchModule) -> None:
    """Add the switches to an imported module.

    Arguments:
        module_name: the module's name in `sys.modules`.
        kind: the class that the module gets.
    """
    module = sys.modules[module_name]
    module.__class__ = kind
    _modules.append(module)
    _show(module)


def _show(module: ModuleType) -> None:
    """Store the switches in a module's namespace, where `unittest.mock.patch` reads them."""
    vars(module).update(
        TRACK_HOURLY=switches.track_hourly,
        TRACK_UNIQUE=switches.track_unique,
    )
