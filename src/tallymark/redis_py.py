"""What both drivers know about redis-py: its errors, its options, its replies."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NoReturn

from redis import exceptions
from redis.asyncio.connection import SSLConnection as AsyncSSLConnection
from redis.backoff import DecorrelatedJitterBackoff, NoBackoff
from redis.connection import SSLConnection, parse_url
from redis.retry import Retry

from .errors import (
    CommandError,
    InvalidTypeError,
    InvalidValueError,
    NotPersistingError,
    PermissionDeniedError,
    StoreError,
    StoreFullError,
    StoreNotReadyError,
    StoreTimeoutError,
    StoreUnavailableError,
    UnknownCommandError,
    WrongKeyTypeError,
)

if TYPE_CHECKING:
    from collections.abc import Hashable

    from .options import Options
    from .urls import SentinelAddress

__all__ = [
    "MAX_CONNECTIONS",
    "READ_SIZE",
    "TOO_SHORT",
    "backoff",
    "check_options",
    "checked_client",
    "database",
    "failure",
    "plain_reply",
    "raise_failure",
    "refused_reply",
    "refused_url",
    "same_connections",
    "same_sentinels",
    "sentinel_pool",
    "sentinel_settings",
    "store_label",
]

#: How many connections a tally that made its own client opens at most. Calls
#: beyond that wait for one.
MAX_CONNECTIONS = 50

#: No attempt is made with fewer seconds left.
TOO_SHORT: Final = 0.001

#: How many bytes are taken from a socket at once. Reports receive megabytes; with
#: redis-py's 32 KiB that takes a third longer.
READ_SIZE = 256 * 1024

#: Connections with TLS.
_TLS: Final = (SSLConnection, AsyncSSLConnection)

#: A Sentinel that has not answered after so many seconds is not waited for.
_SENTINEL_SECONDS: Final = 1.0

#: Answers of the server that redis-py counts as errors of the connection.
_REFUSED_LOGINS = (exceptions.AuthenticationError, exceptions.AuthorizationError)

#: What those that redis-py has a class for begin with on the wire; it cuts that off.
_CODES: Final[dict[type[Exception], str]] = {
    exceptions.AuthenticationError: "NOAUTH",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.BusyLoadingError: "LOADING",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.TryAgainError: "TRYAGAIN",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.ClusterDownError: "CLUSTERDOWN",
}

#: An ``EXEC`` that was refused by itself tells why in its own words.
_ABORTED: Final = re.compile(r"Transaction discarded because of: ([A-Z]+)\b")

#: What Redis says while it cannot serve; another attempt may find it ready.
_PASSING: Final = frozenset(
    ("LOADING", "READONLY", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "NOREPLICAS", "BUSY")
)

#: What will not pass by itself, and what to do about it.
_REFUSALS: Final[dict[str, tuple[type[CommandError], str]]] = {
    "NOAUTH": (
        PermissionDeniedError,
        "give the user and password in the store's URL, as redis://user:password@host",
    ),
    "WRONGPASS": (PermissionDeniedError, "check the user and password in the store's URL"),
    "NOPERM": (
        PermissionDeniedError,
        "grant this Redis user the commands and keys that the README lists (ACL SETUSER)",
    ),
    "OOM": (
        StoreFullError,
        "raise Redis's maxmemory, expire old bitmaps (option expire), or lower max_user_id",
    ),
    "MISCONF": (
        NotPersistingError,
        "look for a full disk or a failed save in Redis's log; it takes no writes until then",
    ),
}
_UNKNOWN_COMMAND: Final = (
    "tallymark needs Redis 6.2, Valkey, or bitfield=False for servers that have only SETBIT"
)


def backoff() -> DecorrelatedJitterBackoff:
    """Return the pauses between attempts: 10 ms at first, at most a second, jittered.

    Retries of many clients must not come in step: see "Exponential Backoff And
    Jitter", https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    """
    return DecorrelatedJitterBackoff(cap=1.0, base=0.01)


def checked_client(client: Any, wanted: type, facade: str, remedy: str) -> Any:
    """Return the client if it is of the kind that this facade drives."""
    if not isinstance(client, wanted):
        raise InvalidTypeError(
            f"{facade} takes a {wanted.__module__.split('.client')[0]}.{wanted.__name__}, "
            f"got a {type(client).__module__}.{type(client).__name__}; {remedy}"
        )
    return client


def database(client: Any) -> Hashable:
    """Return what is equal for two clients only if they are on one database."""
    pool = client.connection_pool
    told = pool.connection_kwargs
    number = told.get("db") or 0
    if told.get("server") is not None:  # fakeredis, where each client has another host
        return told["server"], number
    if told.get("path") is not None:
        return told["path"], number
    if told.get("host") is not None:
        return told["host"], told.get("port", 6379), number
    manager = getattr(pool, "sentinel_manager", None)
    if manager is not None:
        return frozenset(same_sentinels(manager)["sentinels"]), pool.service_name, number
    found: Hashable = pool  # of a kind that finds its server in other ways
    return found


def store_label(client: Any) -> str:
    """Return how logs and observers call a client's store; never with a password."""
    pool = client.connection_pool
    told = pool.connection_kwargs
    number = told.get("db") or 0
    manager = getattr(pool, "sentinel_manager", None)
    if manager is not None:
        hosts = ",".join(f"{host}:{port}" for host, port in same_sentinels(manager)["sentinels"])
        role = "" if pool.is_master else " (replicas)"
        return f"redis+sentinel://{hosts}/{pool.service_name}/{number}{role}"
    if told.get("path") is not None:
        return f"unix://{told['path']}?db={number}"
    scheme = "rediss" if issubclass(pool.connection_class, _TLS) else "redis"
    return f"{scheme}://{told.get('host', 'localhost')}:{told.get('port', 6379)}/{number}"


def sentinel_settings(
    address: SentinelAddress, settings: dict[str, Any], options: Options
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of connections to Sentinels, and of those to the server.

    Arguments:
        address: what the URL says.
        settings: of connections to any server, which the URL may override.
        options: the tally's.

    Raises:
        ValueError: the URL has an option with a bad value.
    """
    told: dict[str, Any] = dict(parse_url(address.redis))
    for needless in ("host", "connection_class"):
        told.pop(needless, None)
    secure = address.redis.startswith("rediss:")
    patience = min(options.timeout / 3, _SENTINEL_SECONDS)  # then the next one is asked
    asking: dict[str, Any] = {
        "username": told.pop("sentinel_username", None),
        "password": told.pop("sentinel_password", None),
        "socket_timeout": patience,
        "socket_connect_timeout": patience,
        "retry": Retry(NoBackoff(), 0),  # we do that, until the deadline
        "ssl": secure,
        **{name: told[name] for name in told if name.startswith("ssl_")},
    }
    return asking, settings | told | {"ssl": secure}


def sentinel_pool(client: Any, wanted: type) -> Any:
    """Return a client's pool if it is one that Sentinels name servers for."""
    pool = client.connection_pool
    if not isinstance(pool, wanted):
        raise InvalidValueError(
            "read_from='replicas' asks a Sentinel for them, so it needs a redis+sentinel:// URL; "
            "without Sentinel, read_from may be the URL of a replica"
        )
    return pool


def same_sentinels(manager: Any) -> dict[str, Any]:
    """Return what makes another ``Sentinel`` like this one."""
    asked = [sentinel.connection_pool.connection_kwargs for sentinel in manager.sentinels]
    return {
        "sentinels": [(each["host"], each["port"]) for each in asked],
        "min_other_sentinels": manager.min_other_sentinels,
        "sentinel_kwargs": manager.sentinel_kwargs,
    }


def same_connections(master: Any) -> dict[str, Any]:
    """Return the settings of a pool for the replicas of the service that another pool is for."""
    settings = dict(master.connection_kwargs)
    settings.pop("connection_pool", None)
    return {
        **settings,
        "connection_class": master.connection_class,
        "max_connections": MAX_CONNECTIONS,
        "is_master": False,
    }


def check_options(pool: Any) -> None:
    """Raise redis-py's error if a URL held options that no connection takes.

    redis-py looks at them when it makes the first connection; a program should
    hear of them when it starts, not at its first mark.
    """
    pool.connection_class(**pool.connection_kwargs)


def plain_reply(reply: Any) -> Any:
    """Return a reply with our errors in the place of redis-py's, one level deep."""
    # Mostly there are none, which is seen faster so.
    if isinstance(reply, list) and any(issubclass(kind, Exception) for kind in {*map(type, reply)}):
        return [refused_reply(item) if isinstance(item, Exception) else item for item in reply]
    return reply


def refused_reply(error: Exception) -> CommandError:
    """Return our error for one that the server gave as a reply.

    Raises:
        StoreNotReadyError: it is of a kind that passes.
    """
    code, message = _code(error), str(error)
    if code and not message.startswith(code):
        message = f"{code} {message}"  # redis-py has taken the code for a class of its own
    if code in _PASSING:
        raise StoreNotReadyError(message) from error
    kind, advice = CommandError, ""
    if "WRONGTYPE" in message:  # from within a script, Redis 6 puts its own words before
        kind = WrongKeyTypeError
    elif "unknown command" in message.lower():
        kind, advice = UnknownCommandError, _UNKNOWN_COMMAND
    elif code in _REFUSALS:
        kind, advice = _REFUSALS[code]
    refused = kind(f"{message}; {advice}" if advice else message)
    refused.__cause__ = error
    return refused


def _code(error: Exception) -> str:
    """Return the code, such as ``OOM``, that begins an error reply; "" if there is none."""
    found = _ABORTED.search(str(error))
    if found:
        return found[1]
    told = getattr(error, "status_code", None)  # redis-py 7 keeps it for some
    if isinstance(told, str):
        return told
    known = next((code for kind, code in _CODES.items() if isinstance(error, kind)), "")
    first = str(error).partition(" ")[0]
    return known or (first if first.isupper() and first.isalpha() else "")


def refused_url(error: Exception) -> InvalidValueError:
    """Return our error for a URL or URL option that redis-py does not accept.

    Its message may quote the URL, and with it a password, so it is left out,
    and the cause should be suppressed too.
    """
    return InvalidValueError(
        f"the store's URL has a part that redis-py does not accept ({type(error).__name__}); "
        "check the host, the port and the options behind '?'"
    )


def raise_failure(error: Exception) -> NoReturn:
    """Raise our error for what kept commands from being sent or answered; see `failure`."""
    found = failure(error)
    if found is error:
        raise found
    raise found from error


def failure(error: Exception) -> StoreError:
    """Return our error for what kept commands from being sent or answered.

    A `StoreUnavailableError` or a `StoreTimeoutError` might not come again on
    another connection; any other would.
    """
    if isinstance(error, StoreError):
        return error
    if isinstance(error, (exceptions.ResponseError, exceptions.BusyLoadingError, *_REFUSED_LOGINS)):
        try:
            return refused_reply(error)
        except StoreNotReadyError as passing:
            return passing
    if isinstance(error, (TimeoutError, exceptions.TimeoutError)):
        return StoreTimeoutError(f"{error}")
    if isinstance(error, (exceptions.ConnectionError, OSError)):
        return StoreUnavailableError(f"{error}")
    # redis-py has let AttributeErrors out.
    return StoreError(f"{type(error).__name__}: {error}")
