"""The embedded store: an in-process stand-in for Redis, for trying out and for tests.

It is fakeredis, an optional dependency, which is imported at the first ``memory://`` URL. A
store without a name belongs to one tally, and ends with it. A store with a name lives as long
as the process; all tallies with that name share it, of both facades, and on all threads and
loops. After ``fork``, the child has a copy.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from ..errors import InvalidTypeError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from fakeredis import FakeServer

__all__ = ["Place", "drop", "fakeredis", "make_interruptible", "store"]

_stores: dict[str, FakeServer] = {}


def fakeredis() -> Any:
    """Return the module fakeredis.

    Raises:
        MissingExtraError: fakeredis is not installed, or the Lua interpreter that it needs for
            exact unmarks.
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
    """Return the store of a name, made at its first use; without a name, a new store."""
    if not name:
        return _new()
    server = _stores.get(name)
    if server is None:
        server = _stores.setdefault(name, _new())  # another thread may have been first
    return server


def drop(name: str) -> None:
    """Forget the store of a name: the next use of the name makes another one."""
    _stores.pop(name, None)


class _Ready(threading.Event):
    """An event with a re-entrant lock.

    A signal handler may raise when `threading.Condition` has acquired the lock, and the
    ``with`` statement has not begun yet. The lock is then never released, but the thread that
    holds it can acquire it again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._cond = threading.Condition(threading.RLock())


def make_interruptible(connection: Any) -> None:
    """Make a new blocking connection closable after a signal handler has interrupted it.

    Changes connections to an embedded store only.
    """
    sock: Any = getattr(connection, "_sock", None)
    if sock is not None and hasattr(sock, "response_ready"):
        sock.response_ready = _Ready()


@dataclass(frozen=True)
class Place:
    """A database that only an object of this process identifies.

    Attributes:
        identity: an embedded store, or the connection pool of a client.
    """

    identity: Hashable

    def __reduce__(self) -> tuple[Callable[[str], Place], tuple[str]]:
        """Return how pickle restores the object: by the name of an embedded store.

        Raises:
            InvalidTypeError: the store has no name.
        """
        for name, server in list(_stores.items()):
            if server is self.identity:
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
