"""The embedded store: an in-process stand-in for Redis, for trying out and for tests.

It is fakeredis, an optional dependency, so nothing imports it before the first
``memory://`` URL. Without a name, a store is its tally's alone, and gone with it. Each
name is one store, which lives as long as the process; every tally on that name shares
it, of either facade, on any thread or loop. After ``fork``, the child has a copy.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from ..errors import InvalidTypeError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from fakeredis import FakeServer

__all__ = ["Place", "fakeredis", "make_interruptible", "store"]

_stores: dict[str, FakeServer] = {}


def fakeredis() -> Any:
    """Return the module fakeredis.

    Raises:
        MissingExtraError: it is not installed, or the Lua interpreter that it
            needs for exact unmarks is not.
    """
    try:
        import fakeredis  # noqa: PLC0415
        import lupa  # noqa: F401, PLC0415 - fakeredis would fail at the first script only
    except ImportError as error:
        raise MissingExtraError(
            f"memory:// needs the package {error.name}, which is not installed; "
            'run: pip install "tallymark[memory]"'
        ) from error
    return fakeredis


def store(name: str) -> FakeServer:
    """Return the store of this name, made at its first use; without a name, a new one."""
    if not name:
        return _new()
    found = _stores.get(name)
    if found is None:
        found = _stores.setdefault(name, _new())  # another thread may have been first
    return found


class _Ready(threading.Event):
    """An event whose lock is no obstacle to the thread that has it.

    An exception of a signal handler may come when `threading.Condition` has the lock, and
    the ``with`` statement does not know it yet; then nobody releases it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._cond = threading.Condition(threading.RLock())


def make_interruptible(connection: Any) -> None:
    """See to it that a blocking connection, just made, can be closed wherever it was interrupted.

    Connections to a Redis stay as they are.
    """
    found: Any = getattr(connection, "_sock", None)
    if found is not None and hasattr(found, "response_ready"):
        found.response_ready = _Ready()


@dataclass(frozen=True)
class Place:
    """Where the bitmaps of an event set are, if nothing but an object of this process tells.

    Attributes:
        found: an embedded store, or the connection pool of a client.
    """

    found: Hashable

    def __reduce__(self) -> tuple[Callable[[str], Place], tuple[str]]:
        """Return how pickle gets it again: an embedded store by its name.

        Raises:
            InvalidTypeError: it has none.
        """
        for name, each in list(_stores.items()):
            if each is self.found:
                return _place, (name,)
        raise InvalidTypeError(
            "event sets of this tally cannot be pickled, since its database is known in this "
            "process only; those of a URL of Redis or of memory://name can"
        )


def _place(name: str) -> Place:
    return Place(store(name))


def _new() -> FakeServer:
    made: Any = fakeredis().FakeServer(version=(7, 0))
    made.lock = threading.RLock()  # see `tallymark._sync.connection`
    return cast("FakeServer", made)
