"""The clients that a tally makes for the nodes of a cluster, for either facade.

redis-py's cluster clients are too slow for a tally: they start a thread, or take a lock, for
every command of a transaction. A tally takes the settings of connections from them, and has
a client of its own for each node.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from .clients import (
    MAX_CONNECTIONS,
    OF_POOLS,
    READ_SIZE,
    check_settings,
    connecting,
    make_client,
    make_read_client,
)
from .errors import check_client

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core.options import Options
    from .._core.urls import Address, StoreUrl
    from .clients import ClientKinds

__all__ = ["ClusterClients", "check_store", "from_client", "from_url"]

#: A node that does not accept a connection within this many seconds counts as down.
CONNECT_TIMEOUT: Final = 1.0

#: Settings that redis-py's cluster client itself needs.
_OF_CLUSTERS: Final = (
    "decode_responses",
    "encoding",
    "encoding_errors",
    "legacy_responses",
    "max_connections",
    "protocol",
)

#: Settings of the connections of redis-py's cluster clients that a tally must not copy.
_NOT_COPIED: Final = frozenset(("host", "port", "path", "db", "redis_connect_func", "parser_class"))


@dataclass(frozen=True)
class ClusterClients:
    """Makes the clients of the nodes of a cluster, and a cluster client.

    Attributes:
        kinds: the classes of the facade.
        startup: the nodes for the first discovery.
        connection_class: the class of the connections.
        settings: the settings of connections and of their pools.
        remap: returns the reachable address for one that a node has announced.
        given: the caller's cluster client, if the tally was made with one.
    """

    kinds: ClientKinds
    startup: tuple[Address, ...]
    connection_class: type
    settings: dict[str, Any] = field(repr=False)  # may have a plain password
    remap: Callable[[Address], Address] | None = None
    given: Any = None

    def client(self, address: Address) -> Any:
        """Return a new client for a node, which the tally has to close."""
        host, port = address
        pool = self.kinds.plain(
            connection_class=self.connection_class,
            **{"max_connections": MAX_CONNECTIONS, **self.settings, "host": host, "port": port},
        )
        return self.kinds.client.from_pool(pool)

    @property
    def cluster_client(self) -> Any:
        """The caller's cluster client; without one, a cluster client made at the first use."""
        return self._made if self.given is None else self.given

    @property
    def made(self) -> Any:
        """The cluster client that the tally made, and has to close; ``None`` if it made none."""
        return vars(self).get("_made")

    @functools.cached_property
    def _made(self) -> Any:
        if not self.kinds.each_wait_is_bounded:
            return self._async_cluster()
        # redis-py 5 passes only some settings to connections, and not whether to check names
        # in certificates: so a class of connections has them. That class is taken with a URL.
        (host, port), *others = self.startup
        nodes = [self.kinds.cluster_node(*other) for other in others]
        return self.kinds.cluster(
            url=f"redis://[{host}]:{port}" if ":" in host else f"redis://{host}:{port}",
            startup_nodes=nodes,
            connection_class=_preset(self.connection_class, self._of_connections()),
            **{name: self.settings[name] for name in _OF_CLUSTERS if name in self.settings},
        )

    def _async_cluster(self) -> Any:
        nodes = [self.kinds.cluster_node(host, port) for host, port in self.startup]
        secure = "ssl" in self.connection_class.__name__.lower()
        accepted = inspect.signature(self.kinds.cluster).parameters
        settings = {name: value for name, value in self.settings.items() if name in accepted}
        return self.kinds.cluster(startup_nodes=nodes, ssl=secure, **settings)

    def _of_connections(self) -> dict[str, Any]:
        """Return the settings of connections, without those of pools."""
        return {name: self.settings[name] for name in self.settings.keys() - OF_POOLS}


def _preset(connection_class: Any, settings: dict[str, Any]) -> type:
    """Return a class of connections with these settings as defaults."""

    class Preset(connection_class):  # type: ignore[misc]
        def __init__(self, **given: Any) -> None:
            super().__init__(**{**settings, **given})

    return Preset


def check_store(kinds: ClientKinds, store: StoreUrl, options: Options) -> None:
    """Validate a URL and options as for a tally, without connecting.

    Raises:
        InvalidTypeError, InvalidValueError, MissingExtraError: a tally cannot be made with
            them.
    """
    client = from_url(kinds, store, options)
    if isinstance(client, ClusterClients):
        options.on_a_cluster()
    else:
        make_read_client(kinds, client, options)


def from_url(kinds: ClientKinds, store: StoreUrl, options: Options) -> Any:
    """Return a client for a URL; for a cluster, `ClusterClients`.

    Raises:
        InvalidTypeError, InvalidValueError, MissingExtraError: as `make_client`.
    """
    address = store.address
    if not address.is_cluster:
        return make_client(kinds, store, options)
    connection_class, given = connecting(kinds, address)
    del given["db"]
    seconds = kinds.wait_limit(options)
    settings = {
        "timeout": seconds,
        "socket_timeout": seconds,
        "socket_connect_timeout": min(options.timeout / 3, CONNECT_TIMEOUT),
        "socket_read_size": READ_SIZE,
        **given,
    }
    clients = ClusterClients(kinds, address.hosts, connection_class, settings)
    check_settings(connection_class, clients._of_connections(), address.options)  # noqa: SLF001
    return clients


def from_client(kinds: ClientKinds, client: Any, options: Options) -> Any:
    """Return a client of the caller's; of a cluster client, `ClusterClients` with its settings.

    Raises:
        InvalidTypeError: it is no client of this facade.
    """
    check_client(client, (kinds.client, kinds.cluster), kinds.facade, kinds.remedy)
    if not isinstance(client, kinds.cluster):
        return client
    manager = client.nodes_manager
    nodes = [*manager.nodes_cache.values(), *manager.startup_nodes.values()]
    pools = (node.redis_connection.connection_pool for node in nodes if _has_client(node))
    pool = next(pools, None)
    holder = nodes[0] if pool is None else pool
    accepted = {
        name
        for base in inspect.getmro(holder.connection_class)
        for name in inspect.signature(vars(base).get("__init__", object)).parameters
    }
    copied = {
        name: value
        for name, value in holder.connection_kwargs.items()
        if name in accepted - _NOT_COPIED
    }
    copied.setdefault("socket_connect_timeout", min(options.timeout / 3, CONNECT_TIMEOUT))
    settings = {"timeout": kinds.wait_limit(options), **copied}
    startup = tuple(dict.fromkeys((node.host, int(node.port)) for node in nodes))
    remap = getattr(manager, "address_remap", None)
    return ClusterClients(kinds, startup, holder.connection_class, settings, remap, client)


def _has_client(node: Any) -> bool:
    """Return whether a node has a client.

    A `redis.cluster.ClusterNode` has one once the cluster client has connected to it; a
    `redis.asyncio.cluster.ClusterNode` has connections of its own, and no client.
    """
    return getattr(node, "redis_connection", None) is not None
