"""Functions on all keys of a system: the names of events, and deletion."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from .._core.keys import DEFAULT_PREFIX, results_of_bitmapist
from .systems import get_redis, tally_of, translated

if TYPE_CHECKING:
    import re

    from .systems import System

__all__ = ["delete_all_events", "delete_temporary_bitop_keys", "get_event_names"]

#: How many keys one command scans or deletes.
_BATCH: Final = 1000


def get_event_names(system: System = "default", prefix: str = "", batch: int = 10000) -> list[str]:
    """Return the names of all events that have a bitmap, sorted.

    Arguments:
        system: the system.
        prefix: only names that begin with this text; it is no pattern.
        batch: is not used; keys are scanned a thousand at a time.
    """
    with translated():
        return tally_of(system).event_names(prefix)


def delete_all_events(system: System = "default") -> None:
    """Delete all keys that begin with ``trackist_``: every bitmap of every event.

    This includes the keys of tallies whose prefix begins so, such as ``trackist_eu_``.

    Arguments:
        system: a name in `SYSTEMS`, or a client.
    """
    _delete(system, f"{DEFAULT_PREFIX}*")


def delete_temporary_bitop_keys(system: System = "default") -> None:
    """Delete results of operations: those that bitmapist has left, and those of a ``redis_key``.

    The bitmaps of an event whose name begins with ``bitop_`` stay, unless the name goes on
    with ``AND_trackist_``, or ``OR_``, ``XOR_``, ``NOT_`` instead of ``AND_``: such keys look
    the same as results.

    Arguments:
        system: a name in `SYSTEMS`, or a client.
    """
    _delete(system, f"{DEFAULT_PREFIX}bitop_*", results_of_bitmapist(DEFAULT_PREFIX))


def _delete(system: System, pattern: str, only: re.Pattern[bytes] | None = None) -> None:
    client = get_redis(system)
    keys = client.scan_iter(match=pattern, count=_BATCH)
    if only is not None:
        keys = (key for key in keys if only.match(key if isinstance(key, bytes) else key.encode()))
    while batch := list(itertools.islice(keys, _BATCH)):
        client.unlink(*batch)
