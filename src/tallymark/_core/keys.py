"""The key schema: (event, period, user id) to (key, offset), and back. Pure.

The plain format is that of bitmapist, byte for byte, so that both can share a database:
``{prefix}{event}_{suffix}``, by default with the prefix ``trackist_``. A suffix never contains
``_``, so the last ``_`` of a key ends the event's name, and each key parses as exactly one event
and period.

With S shards, user u is in shard u mod S, at offset u div S. Each shard is a plain database with
the prefix ``{prefix}{tag}``, where ``tag`` is in braces.

A cluster maps each key to one of 16,384 slots, by the hash tag: the part of the key between
braces; and each slot to one of its nodes. All bitmaps of a shard have the shard's tag, so a mark
is one transaction, and set operations stay within a shard. Nodes have ranges of slots, usually
of equal length. The slots of the tags are at equal distances, so each node has the same number
of shards, plus or minus one.

Slots: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
"""

from __future__ import annotations

import binascii
import functools
import itertools
import re
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..errors import InvalidTypeError, InvalidValueError
from .arguments import (
    USE_USER_IDS,
    check_name,
    checked_int,
    checked_name,
    described,
    exact_int,
    is_array,
)
from .offsets import Numbers, Offsets, as_list, bounded, is_array_of_ints, partition, widened
from .periods import UNIQUE_SUFFIX, Period, parse_suffix
from .untrusted import shown
from .user_ids import BUCKETS, Dictionary, id_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "DEFAULT_PREFIX",
    "MAX_USER_ID",
    "SLOTS",
    "KeySchema",
    "bitmap_key",
    "key_slot",
    "results_of_bitmapist",
    "scan_pattern",
    "tag_slot",
    "tags",
    "users_at",
]

DEFAULT_PREFIX: Final = "trackist_"

#: The highest offset of a bit in Redis: a string has at most 512 MB, 2**32 bits
#: (https://redis.io/docs/latest/commands/setbit/).
MAX_USER_ID: Final = 2**32 - 1

#: How many slots a cluster has.
SLOTS: Final = 16384

#: The most shards, about the most nodes of a cluster. Each shard makes queries of all shards
#: slower.
MAX_SHARDS: Final = 1024


@dataclass(frozen=True)
class KeySchema:
    """Builds and parses the keys of one database, and checks their parts.

    Attributes:
        prefix: the first characters of every key.
        max_user_id: the largest user id allowed, at most 2**32 - 1.
        shards: the number of shards, from 1 to 1024; ``None`` for the plain format.
        user_ids: the type of the user ids, if a dictionary has their numbers; ``None`` if the
            ids are the numbers. All methods here take and return numbers.
    """

    prefix: str = DEFAULT_PREFIX
    max_user_id: int = MAX_USER_ID
    shards: int | None = None
    user_ids: type | None = None

    def __post_init__(self) -> None:
        # As exact str and int, also if these are instances of subclasses, or numpy's.
        object.__setattr__(self, "prefix", checked_name("prefix", self.prefix))
        highest = checked_int("max_user_id", self.max_user_id)
        object.__setattr__(self, "max_user_id", highest)
        if not 0 <= self.max_user_id <= MAX_USER_ID:
            raise InvalidValueError(
                f"max_user_id must be in [0, {MAX_USER_ID}], got {shown(self.max_user_id)}"
            )
        if self.shards is not None:
            object.__setattr__(self, "shards", checked_int("shards", self.shards))
            check_shards(self.shards)
            if "{" in self.prefix:
                raise InvalidValueError(
                    "with shards, the prefix must not contain '{', "
                    f"which begins a shard's own tag; got {shown(self.prefix)}"
                )
        if self.user_ids is not None:
            id_type(self.user_ids)

    @functools.cached_property
    def parts(self) -> tuple[KeySchema, ...]:
        """The plain schema of each shard; without shards, only this schema.

        With fewer user ids than shards, some shards have no users. Their ``max_user_id`` is 0,
        since it cannot be negative.
        """
        shards = self.shards
        if shards is None:
            return (self,)
        return tuple(
            KeySchema(f"{self.prefix}{{{tag}}}", max(0, (self.max_user_id - shard) // shards))
            for shard, tag in enumerate(tags(shards))
        )

    @functools.cached_property
    def _by_tag(self) -> dict[str, int]:
        return {tag: shard for shard, tag in enumerate(tags(len(self.parts)))}

    @functools.cached_property
    def dictionary(self) -> Dictionary | None:
        """The dictionary of the user ids; ``None`` if the ids are the numbers."""
        if self.user_ids is None:
            return None
        return Dictionary.of(self.user_ids, tuple(part.prefix for part in self.parts))

    @property
    def schema_key(self) -> bytes:
        """The key of what differs from the plain format. No bitmap has this key."""
        return f"{self.prefix}schema".encode()

    @property
    def stored(self) -> dict[str, Any] | None:
        """What the schema key has to hold; ``None`` for the plain format, which has no such key.

        Version 2 has ids of other types. Releases that know only version 1 refuse it.
        """
        if self.user_ids is not None:
            name = id_type(self.user_ids).name
            return {"version": 2, "shards": self.shards, "user_ids": name, "buckets": BUCKETS}
        if self.shards is not None:
            return {"version": 1, "shards": self.shards}
        return None

    def place(self, user_id: int) -> tuple[int, int]:
        """Return the shard of a user, and the offset of the user's bit in the shard's bitmaps.

        Arguments:
            user_id: an int from 0 to ``max_user_id``; with ``user_ids``, the user's number.

        Raises:
            InvalidTypeError, InvalidValueError: the id is not allowed, as in `offset`.
        """
        offset = self.offset(user_id)
        offset, shard = divmod(offset, len(self.parts))
        return shard, offset

    def partition(self, user_ids: Offsets) -> Iterator[tuple[int, Offsets]]:
        """Yield each shard that has some of the users, and the offsets of their bits there.

        Arguments:
            user_ids: ids as `offsets` has returned them.

        Raises:
            InvalidTypeError: this is no result of `offsets`.
        """
        if not isinstance(user_ids, Offsets):
            raise InvalidTypeError(
                f"user ids must be what offsets() returned, got {shown(user_ids)}"
            )
        if self.shards is None:
            yield 0, user_ids
        else:
            yield from partition(user_ids, self.shards)

    def located(self, key: bytes) -> tuple[int, str, Period | None]:
        """Return the shard, the event and the period of a key.

        Arguments:
            key: the key, as bytes; the shard is 0 without shards.

        Raises:
            InvalidTypeError: the key is not bytes.
            InvalidValueError: this is no key of this schema.
        """
        if not isinstance(key, bytes):
            raise InvalidTypeError(f"a key must be bytes, got {described(key)}")
        if self.shards is None:
            return (0, *self.parse(key))
        begin = f"{self.prefix}{{".encode()
        tag, brace, _ = key.removeprefix(begin).partition(b"}")
        shard = self._by_tag.get(tag.decode("ascii", "replace"))
        if not key.startswith(begin) or not brace or shard is None:
            raise InvalidValueError(f"not a key of {shown(self.prefix)}: {shown(key)}")
        return (shard, *self.parts[shard].parse(key))

    def key(self, event: str, period: Period | None) -> bytes:
        """Return the key of an event's bitmap in the plain format.

        Arguments:
            event: the event's name.
            period: the period; ``None`` for the dateless bitmap.

        Raises:
            InvalidTypeError, InvalidValueError: an argument is not allowed.
        """
        if period is not None and not isinstance(period, Period):
            raise InvalidTypeError(f"period must be a Period or None, got {shown(period)}")
        return bitmap_key(self.prefix, checked_name("event", event), period)

    def offset(self, user_id: int) -> int:
        """Return the offset of a user's bit in the plain format: the checked id as an exact int.

        Arguments:
            user_id: an int from 0 to ``max_user_id``.

        Raises:
            InvalidTypeError: the id is no integer, or is a bool.
            InvalidValueError: the id is not in ``[0, max_user_id]``.
        """
        number = user_id if type(user_id) is int else exact_int(user_id)
        if number is None:
            raise InvalidTypeError(
                f"user id must be an int in [0, {self.max_user_id}], got {described(user_id)}; "
                f"{USE_USER_IDS}"
            )
        if not 0 <= number <= self.max_user_id:
            advice = f"; {USE_USER_IDS}" if number > MAX_USER_ID else ""
            raise InvalidValueError(
                f"user id must be in [0, {self.max_user_id}], got {shown(number)}{advice}"
            )
        return number

    def offsets(self, user_ids: Numbers) -> Offsets:
        """Return the offsets of many users' bits in the plain format.

        Arguments:
            user_ids: a list or range of ids, or a one-dimensional numpy array of
                an integer type; at least one id.

        Raises:
            InvalidTypeError, InvalidValueError: an id is not allowed, as in `offset`; the error
                is about the first such id.
        """
        if type(user_ids) is range and user_ids:
            ends = self.offset(user_ids[0]), self.offset(user_ids[-1])
            return Offsets(user_ids, min(ends), max(ends))
        if is_array(user_ids):
            array: Any = user_ids
            is_allowed = array.ndim == 1 and array.size
        else:
            is_allowed = type(user_ids) is list and user_ids
        if not is_allowed:
            raise InvalidTypeError(
                f"user ids must be a list, a range or an array, got {shown(user_ids)}"
            )
        # These checks run in C, in a tenth of the time of a loop in Python.
        if is_array_of_ints(user_ids) or (
            type(user_ids) is list and {int}.issuperset(map(type, user_ids))
        ):
            offsets = bounded(user_ids)
            if offsets.low >= 0 and offsets.high <= self.max_user_id:
                return widened(offsets)
        return bounded([self.offset(user_id) for user_id in as_list(user_ids)])

    def parse(self, key: bytes | str) -> tuple[str, Period | None]:
        """Return the event and the period of a key in the plain format: the inverse of `key`.

        Arguments:
            key: the key, as bytes or as a str in UTF-8.

        Raises:
            InvalidTypeError: the key is neither bytes nor a str.
            InvalidValueError: this is no key of this schema.
        """
        if not isinstance(key, bytes | str):
            raise InvalidTypeError(f"a key must be bytes or a str, got {described(key)}")
        try:
            name = key.decode() if isinstance(key, bytes) else str.__str__(key)
        except UnicodeDecodeError as error:
            raise InvalidValueError(f"not a key of {shown(self.prefix)}: {shown(key)}") from error
        event, separator, suffix = name.removeprefix(self.prefix).rpartition("_")
        if not name.startswith(self.prefix) or not separator:
            raise InvalidValueError(f"not a key of {shown(self.prefix)}: {shown(key)}")
        check_name("event", event)
        return event, parse_suffix(suffix)


def scan_pattern(schema: KeySchema, beginning: str, shard: int | None) -> bytes:
    """Return a pattern for ``SCAN`` that matches the keys of bitmaps, and maybe some others.

    Arguments:
        schema: the schema of the keys.
        beginning: the first characters of the names of the events.
        shard: the shard of the bitmaps; ``None`` for all shards.
    """
    if shard is not None or schema.shards is None:
        begin = _escaped(schema.parts[shard or 0].prefix)
    else:  # after the prefix, a key has the tag of its shard, in braces
        begin = _escaped(f"{schema.prefix}{{") + "*}"
    return f"{begin}{_escaped(beginning)}*".encode()


def users_at(schema: KeySchema, shard: int, offsets: Iterable[int]) -> Iterable[int]:
    """Return the ids of the users at some offsets in the bitmaps of a shard."""
    shards = schema.shards
    if shards is None:
        return offsets
    return (offset * shards + shard for offset in offsets)


def _escaped(text: str) -> str:
    """Return a pattern for ``SCAN`` that matches only this text."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", text)


def results_of_bitmapist(prefix: str) -> re.Pattern[bytes]:
    """Return a pattern for the keys of results that bitmapist computes and leaves.

    Such a key has ``bitop_AND_`` or the like after the prefix, and then the keys of the operands;
    in place of long ones, `tallymark.bitmapist` writes a digest. bitmapist4 has the same keys
    with a prefix of its own.
    """
    begin = re.escape(prefix)
    return re.compile(rf"{begin}bitop_(?:AND|OR|XOR|NOT)_(?:{begin}|[0-9a-f]{{64}}\Z)".encode())


def bitmap_key(prefix: str, event: str, period: Period | None) -> bytes:
    """Return the key of a bitmap in the plain format. Checks no argument."""
    return suffixed_key(prefix, event, UNIQUE_SUFFIX if period is None else period.suffix)


def suffixed_key(prefix: str, event: str, suffix: str) -> bytes:
    """Return the key of the bitmap with a suffix, as `bitmap_key`."""
    # Concatenated, since format() shows a str Enum as its name on some Pythons.
    return (prefix + event + "_" + suffix).encode()


def check_shards(shards: int) -> None:
    """Raise `InvalidValueError` unless the number of shards is in ``[1, MAX_SHARDS]``."""
    if not 1 <= shards <= MAX_SHARDS:
        raise InvalidValueError(f"shards must be in [1, {MAX_SHARDS}], got {shown(shards, 40)}")


def tag_slot(tag: bytes) -> int:
    """Return the slot of all keys with this hash tag: its CRC16 (XMODEM), modulo 16,384."""
    return binascii.crc_hqx(tag, 0) % SLOTS


def key_slot(key: bytes) -> int:
    """Return the slot of a key: of its hash tag, or of the whole key if it has none."""
    _, brace, rest = key.partition(b"{")
    tag, end, _ = rest.partition(b"}")
    return tag_slot(tag if brace and end and tag else key)


@functools.cache
def tags(shards: int) -> tuple[str, ...]:
    """Return the hash tag of each shard.

    The slots are divided into as many ranges of equal length as there are shards. The tag of a
    shard is the first word whose slot is the middle of the shard's range. Words are made of
    lower-case letters, and sorted by length, then alphabetically. This is a part of the key
    format: it must never change.
    """
    middles = {(2 * shard + 1) * SLOTS // (2 * shards): shard for shard in range(shards)}
    tags_of_shards = [""] * shards
    words = (
        "".join(letters)
        for length in itertools.count(1)
        for letters in itertools.product(string.ascii_lowercase, repeat=length)
    )
    while middles:
        word = next(words)
        shard = middles.pop(tag_slot(word.encode()), None)
        if shard is not None:
            tags_of_shards[shard] = word
    return tuple(tags_of_shards)
