"""The functions and classes of bitmapist, for programs that were written for it.

Change ``import bitmapist`` to ``from tallymark import bitmapist``, and ``from bitmapist
import ...`` to ``from tallymark.bitmapist import ...``: the program works with the same
database and the same calls. docs/from-bitmapist.md lists the differences, and shows the
migration to the async API.

``TRACK_HOURLY`` and ``TRACK_UNIQUE`` are the switches of `tallymark` itself.
"""

from __future__ import annotations

from .._core import options as _options
from .dates import add_month, iso_to_gregorian, iso_year_start, not_none
from .keyspace import delete_all_events, delete_temporary_bitop_keys, get_event_names
from .marking import mark_event, mark_unique, unmark_event, unmark_unique
from .period_events import (
    DayEvents,
    GenericPeriodEvents,
    HourEvents,
    MonthEvents,
    UniqueEvents,
    WeekEvents,
    YearEvents,
)
from .sets import (
    BitOpAnd,
    BitOperation,
    BitOpNot,
    BitOpOr,
    BitOpXor,
    MixinBitOperations,
    MixinContains,
    MixinCounts,
    MixinEventsMisc,
    MixinIter,
    delete_runtime_bitop_keys,
    local_thread,
)
from .systems import SYSTEMS, get_redis, setup_redis

__all__ = [
    "SYSTEMS",
    "TRACK_HOURLY",
    "TRACK_UNIQUE",
    "BitOpAnd",
    "BitOpNot",
    "BitOpOr",
    "BitOpXor",
    "BitOperation",
    "DayEvents",
    "GenericPeriodEvents",
    "HourEvents",
    "MixinBitOperations",
    "MixinContains",
    "MixinCounts",
    "MixinEventsMisc",
    "MixinIter",
    "MonthEvents",
    "UniqueEvents",
    "WeekEvents",
    "YearEvents",
    "add_month",
    "delete_all_events",
    "delete_runtime_bitop_keys",
    "delete_temporary_bitop_keys",
    "get_event_names",
    "get_redis",
    "iso_to_gregorian",
    "iso_year_start",
    "local_thread",
    "mark_event",
    "mark_unique",
    "not_none",
    "setup_redis",
    "unmark_event",
    "unmark_unique",
]

TRACK_HOURLY: bool
TRACK_UNIQUE: bool
_options.install_switches(__name__, _options.TolerantSwitchModule)
