"""The database of a redis-py client, for comparison and for logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redis.asyncio.connection import SSLConnection as AsyncSSLConnection
from redis.connection import SSLConnection

from .._core.untrusted import escaped
from . import memory

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["database", "same_sentinels", "store_label"]

#: The classes of connections with TLS.
_TLS: Final = (SSLConnection, AsyncSSLConnection)


def database(client: Any) -> Hashable:
    """Return the identity of a client's database: equal only for clients of one database."""
    pool = client.connection_pool
    settings = pool.connection_kwargs
    number = settings.get("db") or 0
    if settings.get("server") is not None:  # fakeredis, where each client has another host
        return memory.Place(settings["server"]), number
    if settings.get("path") is not None:
        return settings["path"], number
    if settings.get("host") is not None:
        return settings["host"], settings.get("port", 6379), number
    manager = getattr(pool, "sentinel_manager", None)
    if manager is not None:
        return frozenset(same_sentinels(manager)["sentinels"]), pool.service_name, number
    return memory.Place(pool)  # of a class that finds its server in other ways


def store_label(client: Any) -> str:
    """Return the name of a client's store for logs and observers; never with a password."""
    pool = client.connection_pool
    settings = pool.connection_kwargs
    number = settings.get("db") or 0
    manager = getattr(pool, "sentinel_manager", None)
    if manager is not None:
        hosts = ",".join(f"{host}:{port}" for host, port in same_sentinels(manager)["sentinels"])
        role = "" if pool.is_master else " (replicas)"
        return escaped(f"redis+sentinel://{hosts}/{pool.service_name}/{number}{role}")
    if settings.get("path") is not None:
        return escaped(f"unix://{settings['path']}?db={number}")
    scheme = "rediss" if issubclass(pool.connection_class, _TLS) else "redis"
    host, port = settings.get("host", "localhost"), settings.get("port", 6379)
    return escaped(f"{scheme}://{host}:{port}/{number}")


def same_sentinels(manager: Any) -> dict[str, Any]:
    """Return the arguments for another ``Sentinel`` like this one."""
    settings = [sentinel.connection_pool.connection_kwargs for sentinel in manager.sentinels]
    return {
        "sentinels": [(server["host"], server["port"]) for server in settings],
        "min_other_sentinels": manager.min_other_sentinels,
        "sentinel_kwargs": manager.sentinel_kwargs,
    }
