"""Which store a client of redis-py is on, as both drivers need to know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redis.asyncio.connection import SSLConnection as AsyncSSLConnection
from redis.connection import SSLConnection

from .._core.untrusted import escaped
from . import memory

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["database", "same_sentinels", "store_label"]

#: Connections with TLS.
_TLS: Final = (SSLConnection, AsyncSSLConnection)


def database(client: Any) -> Hashable:
    """Return what is equal for two clients only if they are on one database."""
    pool = client.connection_pool
    told = pool.connection_kwargs
    number = told.get("db") or 0
    if told.get("server") is not None:  # fakeredis, where each client has another host
        return memory.Place(told["server"]), number
    if told.get("path") is not None:
        return told["path"], number
    if told.get("host") is not None:
        return told["host"], told.get("port", 6379), number
    manager = getattr(pool, "sentinel_manager", None)
    if manager is not None:
        return frozenset(same_sentinels(manager)["sentinels"]), pool.service_name, number
    return memory.Place(pool)  # of a kind that finds its server in other ways


def store_label(client: Any) -> str:
    """Return how logs and observers call a client's store; never with a password."""
    pool = client.connection_pool
    told = pool.connection_kwargs
    number = told.get("db") or 0
    manager = getattr(pool, "sentinel_manager", None)
    if manager is not None:
        hosts = ",".join(f"{host}:{port}" for host, port in same_sentinels(manager)["sentinels"])
        role = "" if pool.is_master else " (replicas)"
        return escaped(f"redis+sentinel://{hosts}/{pool.service_name}/{number}{role}")
    if told.get("path") is not None:
        return escaped(f"unix://{told['path']}?db={number}")
    scheme = "rediss" if issubclass(pool.connection_class, _TLS) else "redis"
    host, port = told.get("host", "localhost"), told.get("port", 6379)
    return escaped(f"{scheme}://{host}:{port}/{number}")


def same_sentinels(manager: Any) -> dict[str, Any]:
    """Return what makes another ``Sentinel`` like this one."""
    asked = [sentinel.connection_pool.connection_kwargs for sentinel in manager.sentinels]
    return {
        "sentinels": [(each["host"], each["port"]) for each in asked],
        "min_other_sentinels": manager.min_other_sentinels,
        "sentinel_kwargs": manager.sentinel_kwargs,
    }
