"""Reads a database with user ids by its format alone, and checks that it agrees with itself.

It shares no code with the library, but for the tags of the shards.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tallymark._core.keys import tags

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clusters import Cluster

__all__ = ["Database", "read_cluster", "read_database"]

PREFIX = "trackist_"
WIDTHS = {"uuid": 16, "int": 8, "str": 0, "bytes": 0}


@dataclass
class Database:
    """What a database says.

    Attributes:
        numbers: the global number of each id.
        users: the ids in each bitmap, by its name without the shard's tag.
        forgetting: how many numbers are in the journals.
    """

    numbers: dict[Any, int] = field(default_factory=dict)
    users: dict[str, set[Any]] = field(default_factory=dict)
    forgetting: int = 0


def read_cluster(cluster: Cluster) -> Database:
    """Read the masters of a cluster, and check them."""
    return read_database(*(cluster.raw(node) for node in cluster.masters()))


def read_database(*clients: Any) -> Database:
    """Read the database of one server, or of the masters of a cluster, and check it.

    Raises:
        AssertionError: it contradicts itself.
    """
    keys = {key: value for client in clients for key, value in _contents(client)}
    found = Database()
    if not keys:
        return found
    schema = json.loads(keys[f"{PREFIX}schema"])
    names = tags(schema["shards"]) if schema["shards"] else [""]
    shards: dict[str, dict[str, Any]] = {}
    for key, value in keys.items():
        if key.endswith("schema"):
            continue
        assert key.startswith(PREFIX)
        tag, name = "", key.removeprefix(PREFIX)
        if schema["shards"]:
            tag, _, name = name.removeprefix("{").partition("}")
        shards.setdefault(tag, {})[name] = value
    for tag, own in shards.items():
        _Shard(schema, len(names), names.index(tag), own).read(found)
    return found


def _contents(client: Any) -> Iterable[tuple[str, Any]]:
    """Yield each key with its value."""
    keys = sorted(client.scan_iter(count=1_000))
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.type(key)
    kinds = pipeline.execute()
    reads = {b"string": "GET", b"hash": "HGETALL", b"set": "SMEMBERS"}
    for key, kind in zip(keys, kinds, strict=True):
        pipeline.execute_command(reads[kind], key)
    return zip((key.decode() for key in keys), pipeline.execute(), strict=True)


class _Shard:
    """A shard: its dictionary, and its bitmaps."""

    def __init__(self, schema: Any, shards: int, shard: int, keys: dict[str, Any]) -> None:
        self._kind = schema["user_ids"]
        self._width = WIDTHS[self._kind]
        self._buckets = max(1, 2**16 // shards)
        assert schema["buckets"] in {2**16, self._buckets}
        self._shards, self._shard = shards, shard
        self._dictionary = {
            name.removeprefix("ids:"): value
            for name, value in keys.items()
            if name.startswith("ids:")
        }
        self._bitmaps = {name: value for name, value in keys.items() if not name.startswith("ids:")}

    def read(self, found: Database) -> None:
        """Check the shard, and add it to what was found."""
        places = self._forward()
        ids = self._reverse(places)
        assert len(ids) == len(places), "an id is in one direction only"
        for number, encoded in ids.items():
            assert places.get(self._place(encoded)) == number, (number, encoded)
        counter = int(self._dictionary.get("next", 0))
        assert all(number < counter for number in ids), "a number is above the counter"
        assert not ids or len(self._dictionary["stamp"]) == 8
        journal = {
            int(entry.partition(b":")[0]) for entry in self._dictionary.get("forgetting", ())
        }
        assert journal.isdisjoint(ids), "the number of an id is being forgotten"
        found.forgetting += len(journal)
        for number, encoded in ids.items():
            found.numbers[self._decoded(encoded)] = number * self._shards + self._shard
        for name, value in self._bitmaps.items():
            set_bits = _set_bits(value)
            assert set_bits <= set(ids) | journal, f"{name}: a bit without an id"
            users = {self._decoded(ids[number]) for number in set_bits - journal}
            found.users.setdefault(name, set()).update(users)

    def _forward(self) -> dict[tuple[int, bytes], int]:
        """Return the number of each bucket and field."""
        places = {
            (int(name.removeprefix("f:")), entry): int(number)
            for name, bucket in self._dictionary.items()
            if name.startswith("f:")
            for entry, number in bucket.items()
        }
        assert len(set(places.values())) == len(places), "a number belongs to two ids"
        return places

    def _reverse(self, places: dict[tuple[int, bytes], int]) -> dict[int, bytes]:
        """Return the encoded id of each number."""
        ids: dict[int, bytes] = {}
        for name, block in self._dictionary.items():
            if not name.startswith("r:"):
                continue
            index, width = int(name.removeprefix("r:")), self._width
            if not width:
                for position, encoded in block.items():
                    assert 0 <= int(position) < 256
                    ids[256 * index + int(position)] = encoded
                continue
            assert len(block) == 4_000 * width, "a block does not have its full size"
            nil = bytes(width)
            for at in range(0, len(block), width):
                number, encoded = 4_000 * index + at // width, block[at : at + width]
                if encoded != nil or places.get(self._place(nil)) == number:
                    ids[number] = encoded
        assert len(set(ids.values())) == len(ids), "an id has two numbers"
        return ids

    def _place(self, encoded: bytes) -> tuple[int, bytes]:
        """Return the bucket and the field of an id."""
        crc = binascii.crc32(encoded)
        entry = encoded
        if len(encoded) >= 32:
            entry = hashlib.blake2b(encoded, digest_size=32).digest()
        return crc // self._shards % self._buckets, entry

    def _decoded(self, encoded: bytes) -> Any:
        assert binascii.crc32(encoded) % self._shards == self._shard, "an id in another shard"
        if self._kind == "uuid":
            return uuid.UUID(bytes=encoded)
        if self._kind == "int":
            return int.from_bytes(encoded, "big", signed=True)
        return encoded.decode() if self._kind == "str" else encoded


def _set_bits(bitmap: bytes) -> set[int]:
    return {
        8 * index + bit
        for index, byte in enumerate(bitmap)
        if byte
        for bit in range(8)
        if byte & (128 >> bit)
    }
