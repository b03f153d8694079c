"""Which URLs name a store. Pure."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from .errors import InvalidTypeError, InvalidValueError
from .excerpts import kind_of, shown

__all__ = [
    "ClusterAddress",
    "SentinelAddress",
    "check_url",
    "cluster_address",
    "sentinel_address",
    "store_name",
]

MEMORY_SCHEME: Final = "memory"
#: redis-py would take database 0 for a path that is no number.
_DATABASE: Final = re.compile(r"[^:]+://[^/?]*(/[0-9]*)?(\?.*)?")
#: A Sentinel's scheme, and that of the Redis that it leads to.
_SENTINELS: Final = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
#: A cluster's scheme, and that of its nodes.
_CLUSTERS: Final = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
_NUMBER: Final = re.compile(r"[0-9]*")
SCHEMES: Final = ("redis", "rediss", "unix", *_SENTINELS, *_CLUSTERS, MEMORY_SCHEME)

#: Where a Sentinel listens that does not say so.
_SENTINEL_PORT: Final = 26379

#: Where a node of a cluster listens that does not say so.
_REDIS_PORT: Final = 6379


class SentinelAddress(NamedTuple):
    """What a ``redis+sentinel://`` URL says.

    Attributes:
        sentinels: the host and the port of each.
        service: the name under which they watch a master and its replicas.
        redis: a URL with all else that is needed to connect to one of these.
            Its host has no meaning.
    """

    sentinels: tuple[tuple[str, int], ...]
    service: str
    redis: str


class ClusterAddress(NamedTuple):
    """What a ``redis+cluster://`` URL says.

    Attributes:
        nodes: the host and the port of each node that it names; the others get known.
        redis: a URL with all else that is needed to connect to one of these.
            Its host has no meaning.
    """

    nodes: tuple[tuple[str, int], ...]
    redis: str


def check_url(url: str) -> None:
    """Raise unless the URL has a scheme that we know.

    The message never holds the URL, which may hold a password.
    """
    if not isinstance(url, str):
        raise InvalidTypeError(f"a store's URL must be a str, got a {kind_of(url)}")
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        got = shown(scheme, 40) if separator else "none"
        raise InvalidValueError(f"the URL of a store begins with one of {known}; got {got}")
    store_name(url)
    sentinel_address(url)
    cluster_address(url)
    if scheme in {"redis", "rediss"} and not _DATABASE.fullmatch(url):
        raise InvalidValueError(
            f"the path of a {scheme}:// URL is the number of a database; "
            "a '/' in a password is written %2F"
        )


def store_name(url: str) -> str | None:
    """Return the name of the embedded store, or None if the URL names a server."""
    scheme, _, name = url.partition("://")
    if scheme != MEMORY_SCHEME:
        return None
    if any(character in name for character in "/?#@:"):
        raise InvalidValueError(
            "an embedded store is memory:// or memory://name, without host, path or options"
        )
    return name


def sentinel_address(url: str) -> SentinelAddress | None:
    """Return whom to ask for the server, or None if the URL names the server itself.

    The form is ``redis+sentinel://[[user]:password@]host[:port][,host[:port]]/service[/db]``,
    with options behind ``?``. User and password are those of the Redis server.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in _SENTINELS:
        return None
    login, hosts, path, options = _parts(rest)
    service, _, database = path.partition("/")
    if not hosts or not service or "/" in login or not _NUMBER.fullmatch(database):
        raise InvalidValueError(
            f"a Sentinel's URL is {scheme}://host:port,host:port/service or, with the number "
            "of a database, .../service/0; a '/' or '@' in a password is written %2F or %40"
        )
    sentinels = tuple(_host_and_port(host, _SENTINEL_PORT) for host in hosts.split(","))
    redis = f"{_SENTINELS[scheme]}://{login}sentinel/{database}{options}"
    return SentinelAddress(sentinels, unquote(service), redis)


def cluster_address(url: str) -> ClusterAddress | None:
    """Return where a cluster is, or None if the URL names none.

    The form is ``redis+cluster://[[user]:password@]host[:port][,host[:port]]``, with
    options behind ``?``. A cluster has no databases to choose from.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in _CLUSTERS:
        return None
    login, hosts, path, options = _parts(rest)
    if not hosts or "/" in login or path not in {"", "0"}:
        raise InvalidValueError(
            f"a cluster's URL is {scheme}://host:port,host:port, without the number of a "
            "database; a '/' or '@' in a password is written %2F or %40"
        )
    nodes = tuple(_host_and_port(host, _REDIS_PORT) for host in hosts.split(","))
    redis = f"{_CLUSTERS[scheme]}://{login}node/{options}"
    return ClusterAddress(nodes, redis)


def _parts(rest: str) -> tuple[str, str, str, str]:
    """Return what is behind a scheme: the login with its @, hosts, path, and options with a ?."""
    address, question, options = rest.partition("?")
    login, at, address = address.rpartition("@")
    hosts, _, path = address.partition("/")
    return login + at, hosts, path, question + options


def _host_and_port(text: str, default: int) -> tuple[str, int]:
    try:
        found = urlsplit(f"//{text}")
        if found.hostname:
            return found.hostname, found.port or default
    except ValueError:
        pass
    raise InvalidValueError(
        "a Sentinel or node is host or host:port, an IPv6 address in [brackets]"
    )
