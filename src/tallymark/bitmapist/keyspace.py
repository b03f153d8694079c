"""What is about all keys of a system: the names of events, and deleting."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from .._core.keys import DEFAULT_PREFIX, results_of_bitmapist
from .systems import get_redis, tally_of, translated

if TYPE_CHECKING:
    import re

    from .systems import System

__all__ = ["delete_all_events", "delete_temporary_bitop_keys", "get_event_names"]

#: How many keys one command looks at, or deletes.
_STEP: Final = 1000


def get_event_names(system: System = "default", prefix: str = "", batch: int = 10000) -> list[str]:
    """Return the names of all events that have a bitmap, sorted.

    Arguments:
        system: the system.
        prefix: what the names begin with, to the letter.
        batch: is not used; the walk over the keys goes a thousand at a time.
    """
    with translated():
        return tally_of(system).event_names(prefix)


def delete_all_events(system: System = "default") -> None:
    """Delete all that begins with ``trackist_``: every bitmap, of all events and all time.

    Also what a tally has whose prefix begins so, such as ``trackist_eu_``.
    """
    _delete(system, f"{DEFAULT_PREFIX}*")


def delete_temporary_bitop_keys(system: System = "default") -> None:
    """Delete what bitmapist has computed and left, and what a `redis_key` has had written.

    The bitmaps of an event whose name begins with ``bitop_`` stay, unless it goes on with
    ``AND_trackist_``, or ``OR_``, ``XOR_``, ``NOT_`` instead of ``AND_``, since these cannot
    be told from results.
    """
    _delete(system, f"{DEFAULT_PREFIX}bitop_*", results_of_bitmapist(DEFAULT_PREFIX))


def _delete(system: System, pattern: str, only: re.Pattern[bytes] | None = None) -> None:
    client = get_redis(system)
    keys = client.scan_iter(match=pattern, count=_STEP)
    if only is not None:
        keys = (key for key in keys if only.match(key if isinstance(key, bytes) else key.encode()))
    while some := list(itertools.islice(keys, _STEP)):
        client.unlink(*some)
