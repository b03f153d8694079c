"""The stores of the tests, with clients that inspect them without tallymark."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tallymark._core.keys import SLOTS, tags

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusters import Cluster

__all__ = ["ClusterStore", "Store"]

SHARDS = 16


@dataclass(frozen=True)
class Store:
    """A store, and a client that inspects it."""

    url: str
    raw: Any  # redis.Redis, whose stubs promise awaitables too

    def names(self) -> set[str]:
        """Return the names of all keys."""
        return {key.decode() for key in self.raw.keys("*")}

    def bits(self) -> dict[str, set[int]]:
        """Return the users in every bitmap that has any."""
        bitmaps = {key: _users(self.raw.get(key)) for key in self.names()}
        return {key: users for key, users in bitmaps.items() if users}


class ClusterStore(Store):
    """A cluster, inspected as one server in the plain format: shards are combined."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.url, ShardedRaw(cluster))

    def names(self) -> set[str]:
        return {_plain(key)[0] for key in self.raw.located()}

    def bits(self) -> dict[str, set[int]]:
        bitmaps: dict[str, set[int]] = {}
        for key, node in self.raw.located().items():
            name, shard = _plain(key)
            users = {user * SHARDS + shard for user in _users(node.get(key))}
            if users:
                bitmaps[name] = bitmaps.get(name, set()) | users
        return bitmaps


class ShardedRaw:
    """Some commands of a client, for keys by their plain names, on all shards of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._masters = [cluster.raw(node) for node in cluster.masters()]
        #: The node of each shard; slots must not move during a test.
        self._nodes = [
            cluster.raw(cluster.owner((2 * shard + 1) * SLOTS // (2 * SHARDS)))
            for shard in range(SHARDS)
        ]

    def located(self) -> dict[str, Any]:
        """Return all keys, each with a client of its node."""
        nodes = {}
        for raw in self._masters:
            nodes.update({key.decode(): raw for key in raw.keys("*")})
        return {key: raw for key, raw in nodes.items() if not key.endswith("schema")}

    def flushdb(self) -> None:
        self._cluster.flush()

    def bitcount(self, name: str) -> int:
        return int(sum(self._each(name, lambda raw, key: raw.bitcount(key))))

    def getbit(self, name: str, user: int) -> int:
        return int(user in ClusterStore(self._cluster).bits().get(name, ()))

    def get(self, name: str) -> list[Any]:
        return self._each(name, lambda raw, key: raw.get(key))

    def strlen(self, name: str) -> int:
        return int(max(self._each(name, lambda raw, key: raw.strlen(key))))

    def expire(self, name: str, seconds: int) -> None:
        self._each(name, lambda raw, key: raw.expire(key, seconds))

    def ttl(self, name: str) -> int:
        ttls = self._each(name, lambda raw, key: raw.ttl(key))
        return int(min(seconds for seconds in ttls if seconds != -2))

    def pttl(self, name: str) -> int:
        ttls = self._each(name, lambda raw, key: raw.pttl(key))
        return int(min((ttl for ttl in ttls if ttl != -2), default=-2))

    def lpush(self, name: str, value: str) -> None:
        self._each(name, lambda raw, key: raw.lpush(key, value))

    rpush = lpush

    def set(self, name: str, value: Any) -> None:
        self._each(name, lambda raw, key: raw.set(key, value))

    def mset(self, values: dict[str, Any]) -> None:
        prefix = "trackist_"
        for tag, raw in zip(tags(SHARDS), self._nodes, strict=True):
            pipeline = raw.pipeline(transaction=False)
            for name, value in values.items():
                pipeline.set(f"{prefix}{{{tag}}}{name.removeprefix(prefix)}", value)
            pipeline.execute()

    def delete(self, *names: str) -> None:
        for name in names:
            self._each(name, lambda raw, key: raw.delete(key))

    def _each(self, name: str, ask: Callable[[Any, str], Any]) -> list[Any]:
        """Call a function with the node and the key of each shard."""
        prefix = "trackist_"
        answers = []
        for tag, raw in zip(tags(SHARDS), self._nodes, strict=True):
            answers.append(ask(raw, f"{prefix}{{{tag}}}{name.removeprefix(prefix)}"))
        return answers


def _plain(key: str) -> tuple[str, int]:
    """Return the name of a key in the plain format, and its shard."""
    match = re.fullmatch(r"([^{]*)\{([a-z]+)\}(.*)", key, re.DOTALL)
    assert match is not None, key
    return match[1] + match[3], tags(SHARDS).index(match[2])


def _users(bitmap: bytes | None) -> set[int]:
    return {
        8 * index + bit
        for index, byte in enumerate(bitmap or b"")
        if byte
        for bit in range(8)
        if byte & (128 >> bit)
    }
