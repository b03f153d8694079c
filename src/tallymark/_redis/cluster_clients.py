"""How a tally makes clients for the nodes of a cluster, of either facade.

redis-py's own cluster clients do far more than a tally needs, and take far longer:
they start a thread, or lock, for every command of a transaction. A tally takes from
them what is needed to connect, and talks to the nodes itself.
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

#: A node that has not taken a connection after so many seconds is taken to be down.
CONNECT_SECONDS: Final = 1.0

#: Settings that redis-py's cluster client reads itself.
_OF_CLUSTERS: Final = (
    "decode_responses",
    "encoding",
    "encoding_errors",
    "legacy_responses",
    "max_connections",
    "protocol",
)

#: What a connection of redis-py's cluster clients is told that is for them alone.
_THEIRS: Final = frozenset(("host", "port", "path", "db", "redis_connect_func", "parser_class"))


@dataclass(frozen=True)
class ClusterClients:
    """What it takes to connect to the nodes of a cluster.

    Attributes:
        kinds: the classes of the facade.
        startup: nodes to begin with.
        connection_class: of connections.
        settings: of connections and of their pools.
        remap: turns an address that nodes tell into one that can be reached.
        theirs: the cluster client that the caller has passed, if there is one.
    """

    kinds: ClientKinds
    startup: tuple[Address, ...]
    connection_class: type
    settings: dict[str, Any] = field(repr=False)  # a caller's have a plain password
    remap: Callable[[Address], Address] | None = None
    theirs: Any = None

    def client(self, address: Address) -> Any:
        """Return a client for a node, which is the tally's own."""
        host, port = address
        pool = self.kinds.plain(
            connection_class=self.connection_class,
            **{"max_connections": MAX_CONNECTIONS, **self.settings, "host": host, "port": port},
        )
        return self.kinds.client.from_pool(pool)

    @property
    def cluster_client(self) -> Any:
        """The caller's cluster client; else one of our own, made when somebody wants it."""
        return self._ours if self.theirs is None else self.theirs

    @property
    def made(self) -> Any:
        """The cluster client of our own, if it was made: it is ours to close."""
        return vars(self).get("_ours")

    @functools.cached_property
    def _ours(self) -> Any:
        if not self.kinds.each_wait_is_bounded:
            return self._async_cluster()
        # redis-py 5 hands on some settings only, and not whether to check names in
        # certificates; so the class of connections has them. A URL is how to name it.
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
        """Return the settings of connections alone."""
        return {name: self.settings[name] for name in self.settings.keys() - OF_POOLS}


def _preset(connection_class: Any, settings: dict[str, Any]) -> type:
    """Return a class of connections that has these settings by default."""

    class Preset(connection_class):  # type: ignore[misc]
        def __init__(self, **told: Any) -> None:
            super().__init__(**{**settings, **told})

    return Preset


def check_store(kinds: ClientKinds, store: StoreUrl, options: Options) -> None:
    """Raise what a tally with this URL and these options would raise, and connect to nothing."""
    found = from_url(kinds, store, options)
    if isinstance(found, ClusterClients):
        options.on_a_cluster()
    else:
        make_read_client(kinds, found, options)


def from_url(kinds: ClientKinds, store: StoreUrl, options: Options) -> Any:
    """Return a client for a URL; of a cluster, what it takes to connect to the nodes.

    Raises: as `make_client`.
    """
    address = store.address
    if not address.is_cluster:
        return make_client(kinds, store, options)
    connection_class, told = connecting(kinds, address)
    del told["db"]
    seconds = options.seconds if kinds.each_wait_is_bounded else None
    settings = {
        "timeout": seconds,
        "socket_timeout": seconds,
        "socket_connect_timeout": min(options.timeout / 3, CONNECT_SECONDS),
        "socket_read_size": READ_SIZE,
        **told,
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
    pool = next((one.redis_connection.connection_pool for one in nodes if _is_blocking(one)), None)
    holder = nodes[0] if pool is None else pool
    accepted = {
        name
        for base in inspect.getmro(holder.connection_class)
        for name in inspect.signature(vars(base).get("__init__", object)).parameters
    }
    told = {
        name: value
        for name, value in holder.connection_kwargs.items()
        if name in accepted - _THEIRS
    }
    told.setdefault("socket_connect_timeout", min(options.timeout / 3, CONNECT_SECONDS))
    seconds = options.seconds if kinds.each_wait_is_bounded else None
    startup = tuple(dict.fromkeys((one.host, int(one.port)) for one in nodes))
    remap = getattr(manager, "address_remap", None)
    return ClusterClients(
        kinds, startup, holder.connection_class, {"timeout": seconds, **told}, remap, client
    )


def _is_blocking(node: Any) -> bool:
    """Tell whether this is a node of the blocking facade that has a client of its own."""
    return getattr(node, "redis_connection", None) is not None
