"""Mark events of users in Redis bitmaps, and count users by event and period.

``await mark_event("active", 123)`` sets the bit of user 123 in the month, week and
day bitmaps of the event ``active``, in one transaction. A `Tally` reads the bitmaps:
``await tally.count(tally.month("active") - tally.day("active"))``. `tallymark.sync`
has the same functions for programs without an event loop.

Users may also have UUIDs, strings, bytes or any 64-bit ints as ids:
``Tally.from_url(url, user_ids=uuid.UUID)``, or ``configure(url, user_ids=uuid.UUID)``.

``TRACK_HOURLY`` and ``TRACK_UNIQUE`` are switches: set
``tallymark.TRACK_HOURLY = True`` to also mark the hour, wherever neither
the call nor its tally sets ``track_hourly``. Read a switch as ``tallymark.TRACK_HOURLY``:
``from tallymark import TRACK_HOURLY`` copies its value at the time of the import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING as _TYPE_CHECKING

from ._async.default import (
    current_tally,
    mark_event,
    mark_many,
    mark_rows,
    mark_unique,
    mark_unique_many,
    transaction,
    unmark_event,
    unmark_many,
    unmark_unique,
    unmark_unique_many,
)
from ._async.tally import Tally
from ._core import options as _options
from ._core.calendars import DaySpan
from ._core.events import EventSet, all_of, any_of
from ._core.keys import KeySchema
from ._core.observers import Observer, Operation
from ._core.options import TallyOptions
from ._core.periods import Granularity, Period
from ._core.thresholds import at_least
from ._marking.stats import Stats
from ._marking.transaction import PendingMark, Transaction
from ._redis.defaults import configure
from .errors import (
    ClosedError,
    CommandError,
    InvalidTypeError,
    InvalidValueError,
    MissingExtraError,
    NotPersistingError,
    OverloadedError,
    PermissionDeniedError,
    ReentrantCallError,
    StoreError,
    StoreFullError,
    StoreNotReadyError,
    StoreTimeoutError,
    StoreUnavailableError,
    TallymarkError,
    UnknownCommandError,
    WrongEventLoopError,
    WrongKeyTypeError,
    WrongSchemaError,
)

if _TYPE_CHECKING:
    from ._async.buffer import Buffer
    from ._core.batches import Batch
    from ._marking.buffering import BufferedMark, BufferStats
    from ._reading.expiring import AppliedExpiry
    from ._reading.purging import Deleted
    from ._reports.bars import Bar, DaysBar
    from ._reports.days_active import DaysActive
    from ._reports.engagement import Funnel, FunnelStep, Stickiness
    from ._reports.health.diagnosis import Diagnosis, Finding
    from ._reports.lifecycle import Lifecycle, LifecycleRow, LifecycleTotals
    from ._reports.ordered_funnel import OrderedFunnel, OrderedStep
    from ._reports.results import Report
    from ._reports.retention import Cell, CellState, Cohort, CurvePoint, Retention
    from ._reports.streak_lengths import Streaks
    from ._reports.streaks import Streak
    from ._reports.trend import Trend, TrendPoint
    from ._sync.buffer import SyncBuffer
    from .sync import SyncTally

__all__ = [
    "TRACK_HOURLY",
    "TRACK_UNIQUE",
    "AppliedExpiry",
    "Bar",
    "Batch",
    "Buffer",
    "BufferStats",
    "BufferedMark",
    "Cell",
    "CellState",
    "ClosedError",
    "Cohort",
    "CommandError",
    "CurvePoint",
    "DaySpan",
    "DaysActive",
    "DaysBar",
    "Deleted",
    "Diagnosis",
    "EventSet",
    "Finding",
    "Funnel",
    "FunnelStep",
    "Granularity",
    "InvalidTypeError",
    "InvalidValueError",
    "KeySchema",
    "Lifecycle",
    "LifecycleRow",
    "LifecycleTotals",
    "MissingExtraError",
    "NotPersistingError",
    "Observer",
    "Operation",
    "OrderedFunnel",
    "OrderedStep",
    "OverloadedError",
    "PendingMark",
    "Period",
    "PermissionDeniedError",
    "ReentrantCallError",
    "Report",
    "Retention",
    "Stats",
    "Stickiness",
    "StoreError",
    "StoreFullError",
    "StoreNotReadyError",
    "StoreTimeoutError",
    "StoreUnavailableError",
    "Streak",
    "Streaks",
    "SyncBuffer",
    "SyncTally",
    "Tally",
    "TallyOptions",
    "TallymarkError",
    "Transaction",
    "Trend",
    "TrendPoint",
    "UnknownCommandError",
    "WrongEventLoopError",
    "WrongKeyTypeError",
    "WrongSchemaError",
    "all_of",
    "any_of",
    "at_least",
    "configure",
    "current_tally",
    "mark_event",
    "mark_many",
    "mark_rows",
    "mark_unique",
    "mark_unique_many",
    "transaction",
    "unmark_event",
    "unmark_many",
    "unmark_unique",
    "unmark_unique_many",
]

TRACK_HOURLY: bool
TRACK_UNIQUE: bool
#: The release of tallymark that is installed, such as ``"0.1.0"``.
__version__: str

#: The names that are imported at their first use, and their modules. Together the modules take
#: 10 ms, and a program that marks events on an event loop needs none of them.
_LAZY = {
    "AppliedExpiry": "_reading.expiring",
    "Bar": "_reports.bars",
    "Batch": "_core.batches",
    "Buffer": "_async.buffer",
    "BufferStats": "_marking.buffering",
    "BufferedMark": "_marking.buffering",
    "Cell": "_reports.retention",
    "CellState": "_reports.retention",
    "Cohort": "_reports.retention",
    "CurvePoint": "_reports.retention",
    "DaysActive": "_reports.days_active",
    "DaysBar": "_reports.bars",
    "Deleted": "_reading.purging",
    "Diagnosis": "_reports.health.diagnosis",
    "Finding": "_reports.health.diagnosis",
    "Funnel": "_reports.engagement",
    "FunnelStep": "_reports.engagement",
    "Lifecycle": "_reports.lifecycle",
    "LifecycleRow": "_reports.lifecycle",
    "LifecycleTotals": "_reports.lifecycle",
    "OrderedFunnel": "_reports.ordered_funnel",
    "OrderedStep": "_reports.ordered_funnel",
    "Report": "_reports.results",
    "Retention": "_reports.retention",
    "Stickiness": "_reports.engagement",
    "Streak": "_reports.streaks",
    "Streaks": "_reports.streak_lengths",
    "SyncBuffer": "_sync.buffer",
    "SyncTally": "sync",
    "Trend": "_reports.trend",
    "TrendPoint": "_reports.trend",
}

if not _TYPE_CHECKING:  # for a type checker, a module with `__getattr__` has every name

    def __getattr__(name: str) -> object:
        """Return, at its first use, a name of `_LAZY`, the module `sync`, or the version."""
        import importlib  # noqa: PLC0415

        if name == "sync":  # an attribute of this module from its import on
            return importlib.import_module(f"{__name__}.sync")
        if name in _LAZY:
            value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
        elif name == "__version__":
            value = importlib.import_module(f"{__name__}._version").__version__
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LAZY, "sync", "__version__"})


_options.install_switches(__name__)
