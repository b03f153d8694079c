"""How a tally makes clients for the nodes of a cluster, of either facade.

redis-py's own cluster clients do far more than a tally needs, and take far longer:
they start a thread, or lock, for every command of a transaction. A tally takes from
them what is needed to connect, and talks to the nodes itself.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from redis.connection import parse_url

from .arguments import plain_str
from .clients import MAX_CONNECTIONS, READ_SIZE, make_client
from .errors import InvalidValueError
from .urls import check_url, cluster_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from .clients import ClientKinds
    from .options import Options
    from .topology import Address

__all__ = ["ClusterClients", "cluster_from_client", "opened"]

#: A node that has not taken a connection after so many seconds is taken to be down.
CONNECT_SECONDS: Final = 1.0

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
    settings: dict[str, Any]
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
        nodes = [self.kinds.cluster_node(host, port) for host, port in self.startup]
        secure = "ssl" in self.connection_class.__name__.lower()
        ours = {"timeout", "socket_read_size"}  # which not every redis-py takes there
        settings = {name: value for name, value in self.settings.items() if name not in ours}
        return self.kinds.cluster(startup_nodes=nodes, ssl=secure, **settings)


def opened(kinds: ClientKinds, url: str, options: Options) -> Any:
    """Return a client for a URL; of a cluster, what it takes to connect to the nodes.

    Raises: as `make_client`.
    """
    url = plain_str(url)
    check_url(url)
    address = cluster_address(url)
    if address is None:
        return make_client(kinds, url, options)
    seconds = options.seconds if kinds.each_wait_is_bounded else None
    try:
        told: dict[str, Any] = dict(parse_url(address.redis))
        connection_class = kinds.plain.from_url(address.redis).connection_class
        for needless in ("host", "port", "db", "connection_class"):
            told.pop(needless, None)
        settings = {
            "timeout": seconds,
            "socket_timeout": seconds,
            "socket_connect_timeout": min(options.timeout / 3, CONNECT_SECONDS),
            "socket_read_size": READ_SIZE,
            **told,
        }
        of_the_pool = {"timeout", "max_connections"}
        connection_class(**{name: settings[name] for name in settings.keys() - of_the_pool})
    except (ValueError, TypeError) as error:
        # Its message may quote the URL, and with it a password.
        raise InvalidValueError(
            f"the store's URL has a part that redis-py does not accept ({type(error).__name__}); "
            "check the hosts, the ports and the options behind '?'"
        ) from None
    return ClusterClients(kinds, address.nodes, connection_class, settings)


def cluster_from_client(kinds: ClientKinds, client: Any, options: Options) -> ClusterClients:
    """Return what a cluster client of the caller's is made of."""
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
