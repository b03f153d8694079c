"""Systems: named databases, as in bitmapist, and a tally on each."""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING, Any, Final

import redis
from redis.client import Pipeline
from redis.exceptions import NoPermissionError

from .. import errors
from .._core.options import Options, TallyOptions
from .._core.untrusted import escaped, kind_with_module, reraise_from_handler, shown
from .._redis.blocking_clients import KINDS
from .._redis.clients import make_client_like
from .._sync.tally import SyncTally, make_owning_tally

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

#: The values of redis-py's ``ssl_cert_reqs`` that turn off the check of certificates.
_UNCHECKED_CERTIFICATES: Final = (None, "none", ssl.CERT_NONE)

#: How many pools have a tally at a time. Most programs have few pools; some make a client
#: for each call.
_MAX_TALLIES: Final = 16


def setup_redis(name: str, host: str, port: int, **kw: Any) -> None:
    """Make a client and register it in `SYSTEMS`.

    Arguments:
        name: the system's name; calls without a system use ``"default"``.
        host, port: the address of the server.
        kw: other arguments of the client; ``redis_client`` is the client's class, by
            default ``redis.Redis``. With ``ssl=True`` the name in the server's certificate is
            checked, unless ``ssl_check_hostname`` or ``ssl_cert_reqs`` says otherwise.
    """
    kind = kw.pop("redis_client", redis.Redis)
    # redis-py does so from version 6 on; 5 would send the password to any host with a
    # certificate.
    if kw.get("ssl") and kw.get("ssl_cert_reqs", "required") not in _UNCHECKED_CERTIFICATES:
        kw.setdefault("ssl_check_hostname", True)
    try:
        SYSTEMS[name] = kind(host=host, port=port, **kw)
    finally:
        kw.clear()  # error reporters show the locals of frames, and there may be a password


def get_redis(system: System = "default") -> Any:
    """Return the client of a system. A client or a pipeline is returned unchanged.

    Arguments:
        system: a name in `SYSTEMS`, a client, or a pipeline.

    Raises:
        KeyError: there is no system of this name.
        InvalidTypeError: the argument is no name.
    """
    if isinstance(system, redis.Redis):
        return system
    try:
        return SYSTEMS[system]
    except Exception as error:
        reraise_from_handler(error)
        if isinstance(error, KeyError) and isinstance(system, str):
            raise KeyError(escaped(system)) from None  # as from a dict, but never long
        raise errors.InvalidTypeError(
            f"a system is the name of one, or a redis.Redis, got {shown(system)}"
        ) from error


def pipeline_of(system: System) -> Pipeline | None:
    """Return the client of a system if it is a pipeline, else None."""
    client = get_redis(system)
    return client if isinstance(client, Pipeline) else None


def tally_of(system: System) -> SyncTally:
    """Return the tally on a system's database.

    The tally opens connections of its own with the settings of the client's pool, since
    redis-py's pool is slow and has no deadline. If the pool is of a special class, such as
    that of a Sentinel, the tally borrows its connections.

    Raises:
        InvalidTypeError: a tally cannot use the client, such as that of a cluster, where
            bitmapist's keys of one mark are on several nodes.
    """
    client = get_redis(system)
    if not isinstance(client, redis.Redis):
        raise errors.InvalidTypeError(
            f"a system is a redis.Redis, got a {kind_with_module(client)}; "
            "for a cluster there are tallymark.migrate and tallymark.SyncTally"
        )
    pool = client.connection_pool
    return _tallies.get(pool) or _tally_on(pool)


#: The tallies by the client's pool, which a pipeline shares with its client.
_tallies: dict[Any, SyncTally] = {}


#: bitmapist takes event names of any length.
_OPTIONS: Final[TallyOptions] = {"max_event_bytes": None}


def _tally_on(pool: redis.ConnectionPool) -> SyncTally:
    """Make the tally on a pool, and drop the oldest tally if there are too many."""
    if type(pool) is redis.ConnectionPool:
        options = Options(**_OPTIONS)
        tally = make_owning_tally(SyncTally, make_client_like(KINDS, pool, options), options)
    else:
        tally = SyncTally(redis.Redis(connection_pool=pool), **_OPTIONS)
    tally = _tallies.setdefault(pool, tally)  # another thread may have been faster
    for old_pool in list(_tallies)[:-_MAX_TALLIES]:
        dropped = _tallies.pop(old_pool, None)
        if dropped is not None:
            # Do not close the tally: another thread may still use it, and it connects again.
            dropped.backend.disconnect()
    return tally


#: Errors of tallymark, and the errors of redis-py that replace them.
_REDIS_ERRORS: Final[tuple[tuple[type[errors.StoreError], type[redis.RedisError]], ...]] = (
    (errors.StoreTimeoutError, redis.TimeoutError),
    (errors.StoreUnavailableError, redis.ConnectionError),
    (errors.PermissionDeniedError, NoPermissionError),
    (errors.CommandError, redis.ResponseError),
)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise redis-py's errors in place of tallymark's, for programs that catch those."""
    try:
        yield
    except errors.StoreError as error:
        reraise_from_handler(error)
        kinds = (theirs for ours, theirs in _REDIS_ERRORS if isinstance(error, ours))
        raise next(kinds, redis.RedisError)(str(error)) from error
