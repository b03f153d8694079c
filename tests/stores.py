"""The stores of the tests, with clients that inspect them without tallymark."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tallymark._core.keys import SLOTS, tags

if TYPE_CHECKING:
    from clusters import Cluster

__all__ = ["ClusterStore", "Store", "offsets"]

SHARDS = 16


@dataclass(frozen=True)
class Store:
    """A store, and a client that inspects it."""

    url: str
    raw: Any  # redis.Redis, whose stubs promise awaitables too

    def names(self) -> set[str]:
        """Return the names of all keys."""
        return {key.decode() for key in self.raw.keys("*")}

    def values(self) -> dict[bytes, Any]:
        """Return the values of all strings (bytes) and hashes (dict), by their keys."""
        located = self.located()
        types = _together([(raw, ("TYPE", key)) for key, raw in located.items()])
        reading = {b"string": "GET", b"hash": "HGETALL"}
        commands = {
            key: (raw, (reading[kind], key))
            for (key, raw), kind in zip(located.items(), types, strict=True)
            if kind in reading
        }
        return dict(zip(commands, _together(list(commands.values())), strict=True))

    def located(self) -> dict[bytes, Any]:
        """Return all keys, each with a client of its server."""
        return dict.fromkeys(self.raw.keys("*"), self.raw)

    def bits(self) -> dict[str, set[int]]:
        """Return the users in every bitmap that has any."""
        names = sorted(self.names())
        values = _together([(self.raw, ("GET", key)) for key in names])
        bitmaps = {key: offsets(value) for key, value in zip(names, values, strict=True)}
        return {key: users for key, users in bitmaps.items() if users}

    def expiries(self) -> dict[str, int]:
        """Return when each bitmap expires, in seconds since 1970; -1 for never.

        Reckoned from PTTL, as Redis before 7.0 has no EXPIRETIME.
        """
        now = time.time()
        return {
            name: -1 if (pttl := self.raw.pttl(name)) == -1 else round(now + pttl / 1000)
            for name in self.bits()
        }


class ClusterStore(Store):
    """A cluster, inspected as one server in the plain format: shards are combined."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.url, ShardedRaw(cluster))

    def names(self) -> set[str]:
        return {_plain(key)[0] for key in self.raw.located()}

    def located(self) -> dict[bytes, Any]:
        return {key.encode(): raw for key, raw in self.raw.located().items()}

    def bits(self) -> dict[str, set[int]]:
        located = self.raw.located()
        values = _together([(node, ("GET", key)) for key, node in located.items()])
        bitmaps: dict[str, set[int]] = {}
        for key, value in zip(located, values, strict=True):
            name, shard = _plain(key)
            users = {user * SHARDS + shard for user in offsets(value)}
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
            cluster.raw(node)
            for node in cluster.owners(
                [(2 * shard + 1) * SLOTS // (2 * SHARDS) for shard in range(SHARDS)]
            )
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
        return int(sum(self._each(name, "BITCOUNT")))

    def getbit(self, name: str, user: int) -> int:
        offset, shard = divmod(user, SHARDS)
        return int(offset in offsets(self.get(name)[shard]))

    def get(self, name: str) -> list[Any]:
        return self._each(name, "GET")

    def strlen(self, name: str) -> int:
        return int(max(self._each(name, "STRLEN")))

    def expire(self, name: str, seconds: int) -> None:
        self._each(name, "EXPIRE", seconds)

    def ttl(self, name: str) -> int:
        ttls = self._each(name, "TTL")
        return int(min(seconds for seconds in ttls if seconds != -2))

    def pttl(self, name: str) -> int:
        ttls = self._each(name, "PTTL")
        return int(min((ttl for ttl in ttls if ttl != -2), default=-2))

    def lpush(self, name: str, value: str) -> None:
        self._each(name, "LPUSH", value)

    rpush = lpush

    def set(self, name: str, value: Any) -> None:
        self._each(name, "SET", value)

    def mset(self, values: dict[str, Any]) -> None:
        prefix = "trackist_"
        for tag, raw in zip(tags(SHARDS), self._nodes, strict=True):
            pipeline = raw.pipeline(transaction=False)
            for name, value in values.items():
                pipeline.set(f"{prefix}{{{tag}}}{name.removeprefix(prefix)}", value)
            pipeline.execute()

    def delete(self, *names: str) -> None:
        for name in names:
            self._each(name, "DEL")

    def _each(self, name: str, command: str, *arguments: Any) -> list[Any]:
        """Execute a command on the key of each shard."""
        prefix = "trackist_"
        rest = name.removeprefix(prefix)
        return _together(
            [
                (node, (command, f"{prefix}{{{tag}}}{rest}", *arguments))
                for tag, node in zip(tags(SHARDS), self._nodes, strict=True)
            ]
        )


def _together(commands: list[tuple[Any, tuple[Any, ...]]]) -> list[Any]:
    """Return the answers to commands, each for a client: one exchange with each of these."""
    pipelines = {id(client): client.pipeline(transaction=False) for client, _ in commands}
    for client, command in commands:
        pipelines[id(client)].execute_command(*command)
    answers = {each: iter(pipeline.execute()) for each, pipeline in pipelines.items()}
    return [next(answers[id(client)]) for client, _ in commands]


def _plain(key: str) -> tuple[str, int]:
    """Return the name of a key in the plain format, and its shard."""
    match = re.fullmatch(r"([^{]*)\{([a-z]+)\}(.*)", key, re.DOTALL)
    assert match is not None, key
    return match[1] + match[3], tags(SHARDS).index(match[2])


def offsets(bitmap: bytes | None) -> set[int]:
    """Return the offsets of the ones in a bitmap."""
    return {
        8 * index + bit
        for index, byte in enumerate(bitmap or b"")
        if byte
        for bit in range(8)
        if byte & (128 >> bit)
    }
