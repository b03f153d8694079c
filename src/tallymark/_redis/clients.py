"""The redis-py clients that a tally makes, for either facade."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.credentials import UsernamePasswordCredentialProvider
from redis.exceptions import RedisError
from redis.retry import Retry

from .._core.options import REPLICAS
from .._core.untrusted import reraise_from_handler
from .._core.urls import StoreUrl
from ..errors import InvalidValueError
from . import memory
from .stores import same_sentinels
from .tls import check_tls

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._core.options import Options
    from .._core.urls import Hidden, Login, StoreAddress

__all__ = [
    "MAX_CONNECTIONS",
    "OF_POOLS",
    "READ_SIZE",
    "ClientKinds",
    "check_settings",
    "connecting",
    "make_client",
    "make_client_like",
    "make_read_client",
]

#: How many connections a client that the tally made opens at most. Further calls wait for a
#: connection.
MAX_CONNECTIONS: Final = 50

#: How many bytes are read from a socket at once. Reports receive megabytes, which with
#: redis-py's 32 KiB takes a third longer.
READ_SIZE: Final = 256 * 1024

#: The settings of pools; the others are of connections.
OF_POOLS: Final = frozenset(("timeout", "max_connections"))

#: A Sentinel that does not answer within this many seconds is skipped.
_SENTINEL_TIMEOUT: Final = 1.0


class ClientKinds(NamedTuple):
    """The classes of one facade.

    Attributes:
        facade, remedy: for errors: the name of the tally, and what to use for other clients.
        client: the client.
        fake: the name of fakeredis's client.
        tcp, tls, socket: the connections over TCP, over TLS, and over a Unix socket.
        plain: the pool for one server.
        watched: the pool for a server that Sentinels name.
        sentinel: the client of the Sentinels.
        any_watched: the base class of all pools for a server that Sentinels name.
        cluster, cluster_node: the client of a cluster, and a node as its argument.
        each_wait_is_bounded: whether connections and pools need timeouts of their own; if
            not, one deadline cancels the whole call.
    """

    facade: str
    remedy: str
    client: Any
    fake: str
    tcp: Any
    tls: Any
    socket: Any
    plain: Any
    watched: Any
    sentinel: Any
    any_watched: type
    cluster: Any
    cluster_node: Any
    each_wait_is_bounded: bool

    def wait_limit(self, options: Options) -> float | None:
        """Return how many seconds one wait of a connection or a pool may take."""
        return options.seconds if self.each_wait_is_bounded else None


def make_client(kinds: ClientKinds, store: StoreUrl, options: Options) -> Any:
    """Return a client for a URL.

    Raises:
        InvalidTypeError, InvalidValueError: the URL is not allowed.
        MissingExtraError: it is that of an embedded store, without fakeredis.
    """
    address = store.address
    if not address.is_embedded:
        return kinds.client.from_pool(_make_pool(kinds, address, options))
    return getattr(memory.fakeredis(), kinds.fake)(
        server=memory.store(address.name),
        connection_pool_class=kinds.plain,
        max_connections=MAX_CONNECTIONS,
    )


def make_client_like(kinds: ClientKinds, pool: Any, options: Options) -> Any:
    """Return a client with a pool of the tally's own, for the server of another plain pool."""
    settings = dict(pool.connection_kwargs)
    if "socket_read_size" in settings:
        settings["socket_read_size"] = READ_SIZE
    settings["timeout"] = kinds.wait_limit(options)
    new_pool = kinds.plain(
        connection_class=pool.connection_class, max_connections=MAX_CONNECTIONS, **settings
    )
    return kinds.client.from_pool(new_pool)


def make_read_client(kinds: ClientKinds, client: Any, options: Options) -> Any:
    """Return the client for reads if the option ``read_from`` needs one; else ``None``.

    Raises:
        InvalidTypeError, InvalidValueError, MissingExtraError: as `make_client`, or the
            option asks for replicas of a client without Sentinel.
    """
    if options.read_from == REPLICAS:
        return kinds.client.from_pool(_make_replica_pool(kinds, client.connection_pool))
    if isinstance(options.read_from, StoreUrl):
        return make_client(kinds, options.read_from, options)
    return None


def connecting(kinds: ClientKinds, address: StoreAddress) -> tuple[Any, dict[str, Any]]:
    """Return the class of connections to a server, and their settings except host and port.

    Names in certificates are checked unless the URL turns that off: redis-py does so by
    default only from version 6 on.
    """
    settings: dict[str, Any] = {"db": address.database, **address.options}
    if address.login:
        settings["credential_provider"] = _credentials(address.login)
    if address.path:
        return kinds.socket, {"path": address.path, **settings}
    if not address.is_secure:
        return kinds.tcp, settings
    checked = settings.setdefault("ssl_cert_reqs", "required") != "none"
    settings.setdefault("ssl_check_hostname", checked)
    if "ssl_password" in settings:
        settings["ssl_password"] = _unshown(settings["ssl_password"])
    if "ssl_min_version" in settings:
        settings["ssl_min_version"] = ssl.TLSVersion(settings["ssl_min_version"])
    for name in ("ssl_include_verify_flags", "ssl_exclude_verify_flags"):
        if name in settings:
            settings[name] = [_verify_flag(name, flag) for flag in settings[name]]
    return kinds.tls, settings


def check_settings(connection_class: Any, settings: dict[str, Any], options: Iterable[str]) -> None:
    """Raise unless redis-py makes a connection object with these settings.

    redis-py checks most of them when it makes the first connection. The check here has errors
    raised when the program starts, not at its first mark.

    Arguments:
        connection_class: the class of the connections.
        settings: their settings.
        options: the names of the settings that are options of the URL.

    Raises:
        InvalidValueError: this version of redis-py does not accept an option, or an option
            for TLS cannot be used.
    """
    refusal = _refusal(connection_class, settings)
    if refusal:
        given = [name for name in options if name in settings]
        tried = {name: value for name, value in settings.items() if name not in given}
        for name in given:
            tried[name] = settings[name]
            if _refusal(connection_class, tried):
                raise InvalidValueError(
                    f"the store's URL has the option {name}, or a value of it, that redis-py "
                    f"{redis.__version__} does not accept here ({refusal})"
                )
        raise InvalidValueError(f"redis-py makes no connection for the store's URL ({refusal})")
    check_tls(settings)


def _refusal(connection_class: Any, settings: dict[str, Any]) -> str:
    """Return the name of the error with which redis-py refuses settings; "" if it accepts them."""
    try:
        connection_class(**settings)
    except (ValueError, TypeError, RedisError) as error:
        reraise_from_handler(error)
        return type(error).__name__  # not its message, which may quote a setting
    return ""


def _make_pool(kinds: ClientKinds, address: StoreAddress, options: Options) -> Any:
    """Return a pool for the address of a server.

    Raises:
        InvalidValueError: redis-py does not accept an option of the URL.
    """
    seconds = kinds.wait_limit(options)
    connection_class, given = connecting(kinds, address)
    settings = {
        "max_connections": MAX_CONNECTIONS,
        "timeout": seconds,
        "socket_timeout": seconds,
        "socket_connect_timeout": options.seconds,
        "socket_read_size": READ_SIZE,
        **given,  # the options of the URL
    }
    of_connections = {name: settings[name] for name in settings.keys() - OF_POOLS}
    check_settings(connection_class, of_connections, address.options)
    if address.service:
        asking = _sentinel_settings(address, settings, options.timeout)
        check_settings(kinds.client, asking, address.options)
        sentinels = kinds.sentinel(address.hosts, sentinel_kwargs=asking)
        pool = kinds.watched(address.service, sentinels, ssl=address.is_secure, **settings)
    else:
        if not address.path:
            settings["host"], settings["port"] = address.hosts[0]
        pool = kinds.plain(connection_class=connection_class, **settings)
    return pool


def _make_replica_pool(kinds: ClientKinds, pool: Any) -> Any:
    """Return a pool for the replicas of the service of another pool.

    Raises:
        InvalidValueError: the other pool has no Sentinels.
    """
    if not isinstance(pool, kinds.any_watched):
        raise InvalidValueError(
            "read_from='replicas' asks a Sentinel for them, so it needs a redis+sentinel:// URL; "
            "without Sentinel, read_from may be the URL of a replica"
        )
    watched: Any = pool
    settings = {**watched.connection_kwargs, "max_connections": MAX_CONNECTIONS, "is_master": False}
    settings.pop("connection_pool", None)
    # With Sentinel clients of its own, which are closed with it.
    sentinels = kinds.sentinel(**same_sentinels(watched.sentinel_manager))
    return kinds.watched(
        watched.service_name, sentinels, connection_class=watched.connection_class, **settings
    )


def _sentinel_settings(
    address: StoreAddress, settings: dict[str, Any], timeout: float
) -> dict[str, Any]:
    """Return the settings of connections to Sentinels.

    Arguments:
        address: the address in the URL.
        settings: those of connections to the servers.
        timeout: the tally's.
    """
    sentinel_timeout = min(timeout / 3, _SENTINEL_TIMEOUT)  # then the next Sentinel is asked
    asking: dict[str, Any] = {
        "socket_timeout": sentinel_timeout,
        "socket_connect_timeout": sentinel_timeout,
        "retry": Retry(NoBackoff(), 0),  # an execution retries, until the deadline
        "ssl": address.is_secure,
        **{name: value for name, value in settings.items() if name.startswith("ssl_")},
    }
    if address.sentinel_login:
        asking["credential_provider"] = _credentials(address.sentinel_login)
    return asking


def _credentials(login: Login) -> UsernamePasswordCredentialProvider:
    """Return the user and password as redis-py's credential provider.

    redis-py has shown plain passwords in the `repr` of a client, and so in messages.
    """
    return UsernamePasswordCredentialProvider(login.user, login.password.reveal())


class _Unshown(str):
    """A password as text, which redis-py requires, that hides itself in a `repr`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<hidden>"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return repr(self)


def _unshown(hidden: Hidden) -> str:
    return _Unshown(hidden.reveal())


def _verify_flag(option: str, name: str) -> ssl.VerifyFlags:
    flag = ssl.VerifyFlags.__members__.get(name)
    if flag is None:
        raise InvalidValueError(
            f"the store's URL has {option} with a flag that the module ssl does not know"
        )
    return flag
