"""Databases with ids of other types, written as the format says, without tallymark.

So tests of what tallymark reads test the format, too.
"""

from __future__ import annotations

import binascii
import contextlib
import hashlib
import inspect
import struct
import uuid
from typing import TYPE_CHECKING, Any

from tallymark._core.keys import tags

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from facades import Facade

__all__ = ["SAMPLES", "UNKNOWN", "Written", "ask", "encoded", "opened"]

#: Ids at the edges of each type: of lengths where the format changes, of zeros, not ASCII.
SAMPLES: dict[type, list[Any]] = {
    str: ["a", "b" * 31, "c" * 32, "d" * 64, "e" * 65, "f" * 1024, "\0", "zoë@例え.jp", "日" * 341],
    bytes: [b"a", b"b" * 31, b"c" * 32, b"d" * 64, b"e" * 65, b"f" * 1024, bytes(8), b"\xff\r\n"],
    uuid.UUID: [uuid.UUID(int=number) for number in (0, 1, 2**64, 2**128 - 1, 10**38, 7 << 120)],
    int: [0, 1, -1, 255, 2**32, -(2**63), 2**63 - 1, -256],
}
#: Ids that no test marks.
UNKNOWN: dict[type, Any] = {str: "A", bytes: b"A", uuid.UUID: uuid.UUID(int=5), int: -5}


def encoded(user_id: Any) -> bytes:
    """Return the bytes of an id, as the format has them."""
    if isinstance(user_id, uuid.UUID):
        return user_id.bytes
    if isinstance(user_id, int):
        return struct.pack(">q", user_id)
    return user_id.encode() if isinstance(user_id, str) else bytes(user_id)


class Written:
    """A dictionary and flags, written with a client of Redis.

    Attributes:
        kind: the type of the ids.
        options: the options of a tally on this database, without those that have a default.
        shards: how many shards there are.
        numbers: the global number of each id, also of those that were forgotten.
    """

    def __init__(
        self, kind: type, shards: int | None, client: Callable[[str], Any], url: str = ""
    ) -> None:
        """Begin with an empty dictionary.

        Arguments:
            kind: the type of the ids.
            shards: the option of the same name.
            client: returns the client for a key.
            url: the URL of the database.
        """
        self.kind = kind
        self.options: dict[str, Any] = {"user_ids": kind, "shards": shards, "timeout": 30}
        self.shards = shards or 1
        self.numbers: dict[Any, int] = {}
        self.url = url
        self._client = client
        self._prefixes = ["trackist_"]
        if shards is not None:
            self._prefixes = [f"trackist_{{{tag}}}" for tag in tags(shards)]
        self._next = [0] * self.shards
        #: The width of a record, if all have the same.
        self._width = {uuid.UUID: 16, int: 8}.get(kind, 0)

    def execute(self, shard: int, command: str, name: str, *arguments: Any) -> Any:
        """Execute a command on a key of a shard."""
        key = self._prefixes[shard] + name
        return self._client(key).execute_command(command, key, *arguments)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Send the commands inside the block together; for a store with one client."""
        client = self._client
        pipeline = client("").pipeline(transaction=False)
        self._client = lambda _: pipeline
        try:
            yield
        finally:
            self._client = client
        pipeline.execute()

    def shard(self, user_id: Any) -> int:
        """Return the shard of an id."""
        return binascii.crc32(encoded(user_id)) % self.shards

    def add(self, *user_ids: Any) -> None:
        """Give each id the next number of its shard."""
        for user_id in user_ids:
            self.add_at(self._next[self.shard(user_id)], user_id)

    def add_at(self, offset: int, user_id: Any) -> None:
        """Give an id a number of its shard; further ones get higher ones."""
        shard, data = self.shard(user_id), encoded(user_id)
        assert offset >= self._next[shard]
        self._next[shard] = offset + 1
        self.numbers[user_id] = offset * self.shards + shard
        self.execute(shard, "HSET", *self.forward(user_id), offset)
        self.execute(shard, "SET", "ids:next", offset + 1)
        self.execute(shard, "SET", "ids:stamp", b"8 bytes.")
        if not self._width:
            self.execute(shard, "HSET", f"ids:r:{offset // 256}", offset % 256, data)
            return
        block, position = divmod(offset, 4000)
        name = f"ids:r:{block}"
        self.execute(shard, "SETRANGE", name, 4000 * self._width - 1, b"\0")
        self.execute(shard, "SETRANGE", name, position * self._width, data)

    def forward(self, user_id: Any) -> tuple[str, bytes]:
        """Return the name of the forward bucket of an id, and its field there."""
        data = encoded(user_id)
        bucket = binascii.crc32(data) // self.shards % (65536 // self.shards)
        field = data if len(data) < 32 else hashlib.blake2b(data, digest_size=32).digest()
        return f"ids:f:{bucket}", field

    def forget(self, *user_ids: Any) -> None:
        """Take ids out of the dictionary, as the first step of `forget`. Their bits stay."""
        for user_id in user_ids:
            offset, shard = divmod(self.numbers[user_id], self.shards)
            self.execute(shard, "HDEL", *self.forward(user_id))
            if self._width:
                block, position = divmod(offset, 4000)
                zeros = bytes(self._width)
                self.execute(shard, "SETRANGE", f"ids:r:{block}", position * self._width, zeros)
            else:
                self.execute(shard, "HDEL", f"ids:r:{offset // 256}", offset % 256)

    def flag(self, event: str, user_ids: Iterable[Any]) -> None:
        """Set the bits of users in the dateless bitmap of an event."""
        for user_id in user_ids:
            offset, shard = divmod(self.numbers[user_id], self.shards)
            self.execute(shard, "SETBIT", f"{event}_u", offset, 1)

    def in_order(self, user_ids: Iterable[Any]) -> list[Any]:
        """Return ids in the order of their numbers."""
        return sorted(user_ids, key=self.numbers.__getitem__)


async def ask(tally: Any, query: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Return the answer to a query of a tally of either facade, wrapped or not."""
    backend = getattr(tally, "_verbs", tally).backend
    answer = backend.reader.answer(query(backend.context, *arguments), **options)
    return await answer if inspect.isawaitable(answer) else answer


def opened(facade: Facade, written: Written, **options: Any) -> Any:
    """Open a tally on a database."""
    return facade.open(written.url, **{**written.options, **options})
