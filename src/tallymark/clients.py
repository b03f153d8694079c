"""How a tally makes its own clients of redis-py, of either facade."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from . import memory
from .errors import InvalidValueError
from .options import REPLICAS
from .stores import same_sentinels
from .urls import check_url, sentinel_address, store_name

if TYPE_CHECKING:
    from .options import Options
    from .urls import SentinelAddress

__all__ = [
    "MAX_CONNECTIONS",
    "READ_SIZE",
    "ClientKinds",
    "make_client",
    "make_client_like",
    "make_read_client",
]

#: How many connections a tally that made its own client opens at most. Calls
#: beyond that wait for one.
MAX_CONNECTIONS: Final = 50

#: How many bytes are taken from a socket at once. Reports receive megabytes; with
#: redis-py's 32 KiB that takes a third longer.
READ_SIZE: Final = 256 * 1024

#: A Sentinel that has not answered after so many seconds is not waited for.
_SENTINEL_SECONDS: Final = 1.0


class ClientKinds(NamedTuple):
    """The classes of one facade.

    Attributes:
        client: a client.
        fake: the name of fakeredis's client.
        plain: a pool for one server.
        watched: a pool for a server that Sentinels name.
        sentinel: asks them.
        cluster, cluster_node: redis-py's client of a cluster, and how it is told of a node.
        any_watched: what every pool for such a server is, also one of the caller's.
        each_wait_is_bounded: whether connections and pools have timeouts of their
            own; else there is one deadline around the whole call.
    """

    client: Any
    fake: str
    plain: Any
    watched: Any
    sentinel: Any
    any_watched: type
    cluster: Any
    cluster_node: Any
    each_wait_is_bounded: bool


def make_client(kinds: ClientKinds, url: str, options: Options) -> Any:
    """Return a client for a URL.

    Raises:
        InvalidTypeError, InvalidValueError: the URL is not allowed.
        MissingExtraError: it is that of an embedded store, without fakeredis.
    """
    check_url(url)
    name = store_name(url)
    if name is None:
        return kinds.client.from_pool(_make_pool(kinds, url, options))
    return getattr(memory.fakeredis(), kinds.fake)(
        server=memory.store(name),
        connection_pool_class=kinds.plain,
        max_connections=MAX_CONNECTIONS,
    )


def make_client_like(kinds: ClientKinds, pool: Any, options: Options) -> Any:
    """Return a client with a pool of the tally's own, on the server of another, plain pool."""
    settings = dict(pool.connection_kwargs)
    if "socket_read_size" in settings:
        settings["socket_read_size"] = READ_SIZE
    settings["timeout"] = options.seconds if kinds.each_wait_is_bounded else None
    own = kinds.plain(
        connection_class=pool.connection_class, max_connections=MAX_CONNECTIONS, **settings
    )
    return kinds.client.from_pool(own)


def make_read_client(kinds: ClientKinds, client: Any, options: Options) -> Any:
    """Return the client for reads if they are to have another one than this, else None.

    Raises:
        InvalidTypeError, InvalidValueError, MissingExtraError: as `make_client`, or
            replicas are wanted, and this client knows of none.
    """
    if options.read_from == REPLICAS:
        return kinds.client.from_pool(_make_replica_pool(kinds, client.connection_pool))
    return make_client(kinds, options.read_from, options) if options.reads_elsewhere else None


def _make_pool(kinds: ClientKinds, url: str, options: Options) -> Any:
    """Return a pool for a URL of a server, which was checked.

    Raises:
        InvalidValueError: redis-py does not accept a part of the URL.
    """
    seconds = options.seconds if kinds.each_wait_is_bounded else None
    settings = {  # which the URL may override
        "max_connections": MAX_CONNECTIONS,
        "timeout": seconds,
        "socket_timeout": seconds,
        "socket_connect_timeout": options.seconds,
        "socket_read_size": READ_SIZE,
    }
    address = sentinel_address(url)
    try:
        if address is None:
            pool = kinds.plain.from_url(url, **settings)
        else:
            asking, connecting = _sentinel_settings(address, settings, options)
            asked = kinds.sentinel(address.sentinels, sentinel_kwargs=asking)
            pool = kinds.watched(address.service, asked, **connecting)
        # redis-py looks at most options when it makes the first connection; a program
        # should hear of them when it starts, not at its first mark.
        pool.connection_class(**pool.connection_kwargs)
    except (ValueError, TypeError) as error:
        # Its message may quote the URL, and with it a password.
        raise InvalidValueError(
            f"the store's URL has a part that redis-py does not accept ({type(error).__name__}); "
            "check the host, the port and the options behind '?'"
        ) from None
    return pool


def _make_replica_pool(kinds: ClientKinds, pool: Any) -> Any:
    """Return a pool for the replicas of the service that another pool is for.

    Raises:
        InvalidValueError: the other pool knows of none.
    """
    if not isinstance(pool, kinds.any_watched):
        raise InvalidValueError(
            "read_from='replicas' asks a Sentinel for them, so it needs a redis+sentinel:// URL; "
            "without Sentinel, read_from may be the URL of a replica"
        )
    found: Any = pool
    settings = {**found.connection_kwargs, "max_connections": MAX_CONNECTIONS, "is_master": False}
    settings.pop("connection_pool", None)
    # Sentinel clients of our own, which are ours to close.
    sentinels = kinds.sentinel(**same_sentinels(found.sentinel_manager))
    return kinds.watched(
        found.service_name, sentinels, connection_class=found.connection_class, **settings
    )


def _sentinel_settings(
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
