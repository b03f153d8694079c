"""Systems: the databases that programs name, as bitmapist has them, and a tally on each."""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING, Any, Final

import redis
from redis.client import Pipeline
from redis.exceptions import NoPermissionError

from .. import errors
from .._core.excerpts import escaped, kind_with_module, shown
from .._core.handlers import let_handlers_pass
from .._core.options import Options, TallyOptions
from .._redis.blocking_clients import KINDS
from .._redis.clients import make_client_like
from .._sync.tally import SyncTally, owning

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "SYSTEMS",
    "System",
    "get_redis",
    "pipeline_of",
    "setup_redis",
    "tally_of",
    "translated",
]

#: A system's name in `SYSTEMS`, or a client, or a pipeline.
System = str | redis.Redis

#: The clients by the names of their systems. Add your own, or call `setup_redis`.
SYSTEMS: dict[str, Any] = {"default": redis.Redis(host="localhost", port=6379)}

#: What redis-py takes as ``ssl_cert_reqs`` if certificates are not looked at.
_NO_CERTIFICATES: Final = (None, "none", ssl.CERT_NONE)

#: How many pools have a tally at a time. Programs have few; but some make a client for
#: each call.
_TALLIES: Final = 16


def setup_redis(name: str, host: str, port: int, **kw: Any) -> None:
    """Make a client and put it into `SYSTEMS`.

    Arguments:
        name: the system's name; ``"default"`` is the one that is used if a call names none.
        host, port: where the server is.
        kw: what else the client takes; ``redis_client`` is the client's class, if it is
            not ``redis.Redis``. With ``ssl=True`` the name in the server's certificate is
            checked, unless ``ssl_check_hostname`` or ``ssl_cert_reqs`` says otherwise.
    """
    kind = kw.pop("redis_client", redis.Redis)
    # As redis-py does it from version 6 on; 5 would send the password to any host that
    # has a certificate.
    if kw.get("ssl") and kw.get("ssl_cert_reqs", "required") not in _NO_CERTIFICATES:
        kw.setdefault("ssl_check_hostname", True)
    try:
        SYSTEMS[name] = kind(host=host, port=port, **kw)
    finally:
        kw.clear()  # error reporters show the locals of frames, and there may be a password


def get_redis(system: System = "default") -> Any:
    """Return the client of a system; a client or a pipeline is returned as it is.

    Raises:
        KeyError: there is no system of this name.
        InvalidTypeError: this can be no name.
    """
    if isinstance(system, redis.Redis):
        return system
    try:
        return SYSTEMS[system]
    except Exception as error:
        let_handlers_pass(error)
        if isinstance(error, KeyError) and isinstance(system, str):
            raise KeyError(escaped(system)) from None  # as a dict does, but never long
        raise errors.InvalidTypeError(
            f"a system is the name of one, or a redis.Redis, got {shown(system)}"
        ) from error


def pipeline_of(system: System) -> Pipeline | None:
    """Return the pipeline that a program has given as the system, if it is one."""
    client = get_redis(system)
    return client if isinstance(client, Pipeline) else None


def tally_of(system: System) -> SyncTally:
    """Return the tally on a system's database.

    It opens connections of its own, as the client's are: redis-py's way to lend them takes
    long, and has no deadline. If the client's pool is a special one, such as that of a
    Sentinel, they are the pool's.

    Raises:
        InvalidTypeError: the client is none that a tally can work on, such as that of a
            cluster, where bitmapist's keys of one mark are on several nodes.
    """
    client = get_redis(system)
    if not isinstance(client, redis.Redis):
        raise errors.InvalidTypeError(
            f"a system is a redis.Redis, got a {kind_with_module(client)}; "
            "for a cluster there are tallymark.migrate and tallymark.SyncTally"
        )
    pool = client.connection_pool
    return _tallies.get(pool) or _tally_on(pool)


#: By the client's pool, which a pipeline and its client have in common.
_tallies: dict[Any, SyncTally] = {}


#: bitmapist marks events of any name.
_OPTIONS: Final[TallyOptions] = {"max_event_bytes": None}


def _tally_on(pool: redis.ConnectionPool) -> SyncTally:
    """Make the tally on a pool, and let go of the one that was made first, if there are many."""
    if type(pool) is redis.ConnectionPool:
        options = Options(**_OPTIONS)
        tally = owning(SyncTally, make_client_like(KINDS, pool, options), options)
    else:
        tally = SyncTally(redis.Redis(connection_pool=pool), **_OPTIONS)
    tally = _tallies.setdefault(pool, tally)  # another thread may have been first
    for oldest in list(_tallies)[:-_TALLIES]:
        gone = _tallies.pop(oldest, None)
        if gone is not None:
            # Not the tally: another thread may be about to use it, and still can.
            gone.backend.disconnect()
    return tally


#: What redis-py raises where a tally raises these.
_SAME_IN_REDIS_PY: Final[tuple[tuple[type[errors.StoreError], type[redis.RedisError]], ...]] = (
    (errors.StoreTimeoutError, redis.TimeoutError),
    (errors.StoreUnavailableError, redis.ConnectionError),
    (errors.PermissionDeniedError, NoPermissionError),
    (errors.CommandError, redis.ResponseError),
)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise redis-py's errors in the place of tallymark's, as programs expect that catch them."""
    try:
        yield
    except errors.StoreError as error:
        let_handlers_pass(error)
        kinds = (theirs for ours, theirs in _SAME_IN_REDIS_PY if isinstance(error, ours))
        raise next(kinds, redis.RedisError)(str(error)) from error
