"""User ids that are no bit offsets: their types, their encoding, their dictionary's keys. Pure.

With the option ``user_ids``, the database gives each user a number, the offset of the user's
bit. The numbers are in a dictionary of the same database. Each shard has one of its own, under
keys with the shard's tag, so that a user's bitmaps and dictionary are in one slot of a cluster:

===================  =========================================================================
``ids:stamp``        8 random bytes, renewed when a user is forgotten, or all are deleted
``ids:next``         the next number, in decimal digits
``ids:f:<bucket>``   forward: a hash of the ids' fields to their numbers
``ids:r:<block>``    reverse: of UUIDs and ints a string of 4,000 records of equal length, of
                     others a hash of 256, of the number's position in the block to the id
``ids:forgetting``   a hash of the numbers whose bits are being cleared or moved
===================  =========================================================================

An id's field in its bucket is the encoded id, if that has fewer than 32 bytes, else the
BLAKE2b digest of it, which has 32. Many small hashes take a third of the memory of a large one
(https://redis.io/docs/latest/operate/oss_and_stack/management/optimization/memory-optimization/).
"""

from __future__ import annotations

import binascii
import contextlib
import functools
import hashlib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from ..errors import InvalidTypeError, InvalidValueError
from .arguments import described, exact_int
from .untrusted import shown

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from typing_extensions import TypeVar

    IdT = TypeVar("IdT", str, bytes, uuid.UUID, int, default=int)
    OtherIdT = TypeVar("OtherIdT", str, bytes, uuid.UUID, int)
else:  # before Python 3.13, the variables of `typing` have no defaults
    from typing import TypeVar

    IdT = TypeVar("IdT", str, bytes, uuid.UUID, int)
    OtherIdT = TypeVar("OtherIdT", str, bytes, uuid.UUID, int)

__all__ = [
    "BUCKETS",
    "TYPES_BY_NAME",
    "Dictionary",
    "Entry",
    "IdT",
    "IdType",
    "OtherIdT",
    "Record",
    "UserId",
    "id_type",
    "random_token",
]

#: A user's id, where the type checker does not know of which type the ids of the database are.
UserId: TypeAlias = str | bytes | uuid.UUID | int

#: How many forward buckets the shards of a database have together. Up to about 28 million ids,
#: each has at most 512 fields, and so takes little memory.
BUCKETS: Final = 2**16

#: How many records a reverse block has, if they have equal length; and otherwise.
_RECORDS: Final = 4_000
_FIELDS: Final = 256

#: From this length on, in bytes, the field of an id is its digest; and the digest's length.
_DIGEST: Final = 32

#: The longest id, in bytes.
_LONGEST: Final = 1024

_NIL: Final = uuid.UUID(int=0)


class IdType:
    """A type of user ids.

    A user's key is what marks and the cache hold in place of the id: an equal key is the same
    user. A UUID's key is its integer, whose hash takes a seventh of the time of the UUID's.

    Attributes:
        name: the type's name in the schema key.
        width: the length of an encoded id in bytes; 0 if it varies.
        nil: the id whose encoding has only zeros, if there is one.
    """

    name: str
    width = 0
    nil: Any = None

    def key(self, user_id: Any) -> Hashable:
        """Return the key of an id.

        Raises:
            InvalidTypeError, InvalidValueError: the id is not allowed.
        """
        raise NotImplementedError

    def keys(self, user_ids: Iterable[Any]) -> list[Any]:
        """Return the keys of ids. Raises as `key`, about the first such id."""
        return list(map(self.key, user_ids))

    def encode(self, key: Any) -> bytes:
        """Return the bytes of the id with a key."""
        raise NotImplementedError

    def decode(self, data: bytes) -> Any:
        """Return the id with these bytes."""
        raise NotImplementedError


class _StrIds(IdType):
    name = "str"

    def key(self, user_id: Any) -> str:
        if not isinstance(user_id, str):
            raise InvalidTypeError(f"user id must be a str, got {described(user_id)}")
        key = str.__str__(user_id)
        if key.isascii():
            size = len(key)
        else:
            try:
                size = len(key.encode())
            except UnicodeEncodeError:
                raise InvalidValueError(
                    f"user id must be valid Unicode, got a lone surrogate in {shown(user_id)}"
                ) from None
        _check_size(size, user_id)
        return key

    def keys(self, user_ids: Iterable[Any]) -> list[str]:
        ids = user_ids if type(user_ids) is list else list(user_ids)
        if {str}.issuperset(map(type, ids)) and "" not in ids:
            # A tenth of the time of a `key` for each. A character has up to four bytes.
            with contextlib.suppress(UnicodeEncodeError):
                if max(map(len, ids), default=0) <= _LONGEST // 4 and "".join(ids).encode():
                    return ids
        return super().keys(ids)

    def encode(self, key: str) -> bytes:
        return key.encode()

    def decode(self, data: bytes) -> str:
        return data.decode()


class _BytesIds(IdType):
    name = "bytes"

    def key(self, user_id: Any) -> bytes:
        if not isinstance(user_id, bytes):
            raise InvalidTypeError(f"user id must be bytes, got {described(user_id)}")
        _check_size(len(user_id), user_id)
        return user_id if type(user_id) is bytes else bytes.__getitem__(user_id, slice(None))

    def encode(self, key: bytes) -> bytes:
        return key

    def decode(self, data: bytes) -> bytes:
        return data


class _UuidIds(IdType):
    name = "uuid"
    width = 16
    nil = _NIL

    def key(self, user_id: Any) -> int:
        if not isinstance(user_id, uuid.UUID):
            raise InvalidTypeError(f"user id must be a uuid.UUID, got {described(user_id)}")
        return user_id.int

    def keys(self, user_ids: Iterable[Any]) -> list[int]:
        ids = user_ids if type(user_ids) is list else list(user_ids)
        if {uuid.UUID}.issuperset(map(type, ids)):
            return [user_id.int for user_id in ids]
        return super().keys(ids)

    def encode(self, key: int) -> bytes:
        return key.to_bytes(16, "big")

    def decode(self, data: bytes) -> uuid.UUID:
        return uuid.UUID(bytes=data)


class _IntIds(IdType):
    name = "int"
    width = 8
    nil = 0

    def key(self, user_id: Any) -> int:
        number = user_id if type(user_id) is int else exact_int(user_id)
        if number is None:
            raise InvalidTypeError(f"user id must be an int, got {described(user_id)}")
        if not -(2**63) <= number < 2**63:
            raise InvalidValueError(f"user id must have 64 bits at most, got {shown(number)}")
        return number

    def keys(self, user_ids: Iterable[Any]) -> list[int]:
        ids = user_ids if type(user_ids) is list else list(user_ids)
        if ids and {int}.issuperset(map(type, ids)) and min(ids) >= -(2**63) and max(ids) < 2**63:
            return ids
        return super().keys(ids)

    def encode(self, key: int) -> bytes:
        return key.to_bytes(8, "big", signed=True)

    def decode(self, data: bytes) -> int:
        return int.from_bytes(data, "big", signed=True)


_TYPES: Final[dict[type, IdType]] = {
    str: _StrIds(),
    bytes: _BytesIds(),
    uuid.UUID: _UuidIds(),
    int: _IntIds(),
}

#: The values of the option ``user_ids`` by the names of their types.
TYPES_BY_NAME: Final[dict[str, type]] = {kind.name: user_ids for user_ids, kind in _TYPES.items()}


def id_type(user_ids: type) -> IdType:
    """Return the `IdType` for a value of the option ``user_ids``.

    Raises:
        InvalidTypeError: there is none.
    """
    found = _TYPES.get(user_ids) if isinstance(user_ids, type) else None
    if found is None:
        raise InvalidTypeError(
            f"user_ids must be str, bytes, uuid.UUID, int or None, got {shown(user_ids)}"
        )
    return found


def random_token() -> bytes:
    """Return 8 random bytes: a stamp, or a token of the journal."""
    return uuid.uuid4().bytes[:8]


def _check_size(size: int, user_id: object) -> None:
    if not 0 < size <= _LONGEST:
        raise InvalidValueError(
            f"user id must have 1 to {_LONGEST} bytes, got {size}"
            + (f": {shown(user_id, 80)}" if size else "")
        )


#: The place of an id in the dictionary of its shard: the number of the forward bucket, the id's
#: field in the bucket, and the encoded id, which may be the same object. A plain tuple: there
#: is one for each unknown id of a write.
Entry = tuple[int, bytes, bytes]


class Record(NamedTuple):
    """The place of a number's id in the dictionary of its shard.

    Attributes:
        key: the key of the reverse block.
        position: the number's position in the block.
    """

    key: bytes
    position: int


@dataclass(frozen=True)
class Dictionary:
    """The keys of the dictionaries of a database: which keys have the number of an id, and back.

    Attributes:
        ids: the type of the ids.
        prefixes: the first characters of the keys of each shard, its tag included.
        buckets: how many forward buckets each shard has.
    """

    ids: IdType
    prefixes: tuple[str, ...]
    buckets: int

    @classmethod
    def of(cls, user_ids: type, prefixes: tuple[str, ...]) -> Dictionary:
        """Return the dictionary of a database with ids of a type, and these shards."""
        return cls(id_type(user_ids), prefixes, max(1, BUCKETS // len(prefixes)))

    @property
    def block(self) -> int:
        """How many numbers have their ids in the same reverse block."""
        return _RECORDS if self.ids.width else _FIELDS

    def key(self, shard: int, name: str) -> bytes:
        """Return the key of a part of a shard's dictionary: ``"stamp"``, ``"f:17"``, ..."""
        return f"{self.prefixes[shard]}ids:{name}".encode()

    def part(self, key: bytes) -> tuple[int, str, int] | None:
        """Return the shard, the kind and the number of a bucket or block; ``None`` for other keys.

        Arguments:
            key: a key of Redis.

        Returns:
            The kind is ``"f"`` for a forward bucket, ``"r"`` for a reverse block.
        """
        begin, _, name = key.rpartition(b"ids:")
        kind, colon, digits = name.partition(b":")
        shard = self._by_prefix.get(begin)
        if shard is None or kind not in {b"f", b"r"} or not colon or not digits.isdigit():
            return None
        return shard, kind.decode(), int(digits)

    @functools.cached_property
    def _by_prefix(self) -> dict[bytes, int]:
        return {prefix.encode(): shard for shard, prefix in enumerate(self.prefixes)}

    def shard(self, key: Any) -> int:
        """Return the shard of the user with a key."""
        shards = len(self.prefixes)
        return binascii.crc32(self.ids.encode(key)) % shards if shards > 1 else 0

    def by_shard(self, keys: Iterable[Any]) -> dict[int, list[Any]]:
        """Return the keys of users of each shard that has any, in order."""
        if len(self.prefixes) == 1:
            return {0: list(keys)}
        shards: dict[int, list[Any]] = {}
        for key in keys:
            shards.setdefault(self.shard(key), []).append(key)
        return shards

    def entry(self, key: Any) -> Entry:
        """Return the place of the id with a key."""
        encoded = self.ids.encode(key)
        # Not the remainder of the hash itself, which all ids of a shard have in common.
        bucket = binascii.crc32(encoded) // len(self.prefixes) % self.buckets
        if len(encoded) < _DIGEST:
            return bucket, encoded, encoded
        return bucket, hashlib.blake2b(encoded, digest_size=_DIGEST).digest(), encoded

    def forward(self, shard: int, bucket: int) -> bytes:
        """Return the key of a forward bucket."""
        return self.key(shard, f"f:{bucket}")

    def record(self, shard: int, offset: int) -> Record:
        """Return the place of the id of the user at an offset in the bitmaps of a shard."""
        block, position = divmod(offset, self.block)
        return Record(self.key(shard, f"r:{block}"), position)
