"""The blocking functions, on this process's default tally.

They have the names, arguments and results of those in `tallymark`::

    from tallymark import sync as tm

    tm.mark_event("active", 123)

No event loop and no thread: see `tallymark.SyncTally`.
"""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING

from . import defaults
from . import switches as _switches
from .defaults import configure
from .sync_tally import SyncTally

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Iterable
    from datetime import date

    from .periods import Granularity
    from .transactions import Transaction

__all__ = [
    "TRACK_HOURLY",
    "TRACK_UNIQUE",
    "SyncTally",
    "configure",
    "current_tally",
    "mark_event",
    "mark_many",
    "mark_unique",
    "transaction",
    "unmark_event",
    "unmark_many",
    "unmark_unique",
]

TRACK_HOURLY: bool
TRACK_UNIQUE: bool
_switches.install(__name__)


class _Default:
    """The default tally of this process, and what it was made of."""

    def __init__(self, configured: defaults.Defaults) -> None:
        self.configured = configured
        self.tally = SyncTally.from_url(defaults.url(configured), **configured.options)


_default: _Default | None = None

#: The default tallies that were made and not yet closed, by what they were made of. Without
#: a lock, for which a signal handler would wait for ever if it had interrupted its holder.
_made: dict[defaults.Defaults, _Default] = {}


def current_tally() -> SyncTally:
    """Return this process's default tally, which the functions of this module use.

    For what they do not do, such as reading. It is made of what `configure`
    said last, and closed when `configure` is called again, so ask for it anew
    instead of keeping it.
    """
    current = _default
    if current is None or current.configured is not defaults.configured():
        current = _replace_default()
    return current.tally


def _replace_default() -> _Default:
    global _default
    configured = defaults.configured()
    # If another thread was first, this one has no connection yet.
    current = _made.setdefault(configured, _Default(configured))
    _default = current
    for before in list(_made):
        if before is not configured:
            gone = _made.pop(before, None)
            if gone is not None:
                gone.tally.close()
    return current


def _close_default() -> None:
    for made in list(_made.values()):
        made.tally.close()


atexit.register(_close_default)


def mark_event(
    event: str,
    user_id: int,
    *,
    now: date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    timeout: float | None = None,
) -> Granularity:
    """Call `SyncTally.mark_event` of the default tally."""
    return current_tally().mark_event(
        event,
        user_id,
        now=now,
        track_hourly=track_hourly,
        track_unique=track_unique,
        timeout=timeout,
    )


def unmark_event(
    event: str,
    user_id: int,
    *,
    now: date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    exact: bool = False,
    timeout: float | None = None,
) -> Granularity:
    """Call `SyncTally.unmark_event` of the default tally."""
    return current_tally().unmark_event(
        event,
        user_id,
        now=now,
        track_hourly=track_hourly,
        track_unique=track_unique,
        exact=exact,
        timeout=timeout,
    )


def mark_many(
    event: str,
    user_ids: Iterable[int],
    *,
    now: date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    timeout: float | None = None,
) -> dict[Granularity, int]:
    """Call `SyncTally.mark_many` of the default tally."""
    return current_tally().mark_many(
        event,
        user_ids,
        now=now,
        track_hourly=track_hourly,
        track_unique=track_unique,
        timeout=timeout,
    )


def unmark_many(
    event: str,
    user_ids: Iterable[int],
    *,
    now: date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    exact: bool = False,
    timeout: float | None = None,
) -> dict[Granularity, int]:
    """Call `SyncTally.unmark_many` of the default tally."""
    return current_tally().unmark_many(
        event,
        user_ids,
        now=now,
        track_hourly=track_hourly,
        track_unique=track_unique,
        exact=exact,
        timeout=timeout,
    )


def mark_unique(event: str, user_id: int, *, timeout: float | None = None) -> Granularity:
    """Call `SyncTally.mark_unique` of the default tally."""
    return current_tally().mark_unique(event, user_id, timeout=timeout)


def unmark_unique(event: str, user_id: int, *, timeout: float | None = None) -> Granularity:
    """Call `SyncTally.unmark_unique` of the default tally."""
    return current_tally().unmark_unique(event, user_id, timeout=timeout)


def transaction(*, timeout: float | None = None) -> contextlib.AbstractContextManager[Transaction]:
    """Call `SyncTally.transaction` of the default tally."""
    return current_tally().transaction(timeout=timeout)
