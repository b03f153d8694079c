"""The key schema: how (event, period, user id) becomes (key, offset), and back.

Pure. The plain format is that of bitmapist, byte for byte, so that both can share
a database: ``{prefix}{event}_{suffix}`` with the prefix ``trackist_``. A suffix
never contains ``_``, hence the last one always ends the event's name and
every key reads back as exactly one event and period.

With S shards, user u is in shard u mod S, at the bit u div S, and each shard is a
plain database of its own, whose prefix is ``{prefix}{tag}`` with the tag in braces.

A cluster puts each key into one of 16,384 slots by the part of the key between
braces, its hash tag, and each slot on one of its nodes. All bitmaps of a user have
the tag of the user's shard, so a mark stays one transaction and set operations
stay within a shard. Nodes hold ranges of slots, as a rule of equal length, so tags in
slots of equal distance give them as many shards each, give or take one.

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
    NUMBER_THEM,
    check_flag,
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

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "DEFAULT_PREFIX",
    "MAX_USER_ID",
    "SLOTS",
    "KeySchema",
    "bitmap_key",
    "check_flag",
    "check_name",
    "checked_int",
    "checked_name",
    "exact_int",
    "key_slot",
    "results_of_bitmapist",
    "scan_pattern",
    "tag_slot",
    "tags",
    "users_at",
]

DEFAULT_PREFIX: Final = "trackist_"

#: The last bit that Redis can address: a string holds 512 MB, 2**32 bits
#: (https://redis.io/docs/latest/commands/setbit/).
MAX_USER_ID: Final = 2**32 - 1

SLOTS: Final = 16384

#: As many as a cluster may have nodes; what asks all shards gets slower with each.
MAX_SHARDS: Final = 1024


@dataclass(frozen=True)
class KeySchema:
    """Names the bitmaps of one database and checks what goes into the names.

    Attributes:
        prefix: what every key begins with.
        max_user_id: the largest user id accepted, at most `MAX_USER_ID`.
        shards: over how many shards users are spread; ``None`` for the plain format.
    """

    prefix: str = DEFAULT_PREFIX
    max_user_id: int = MAX_USER_ID
    shards: int | None = None

    def __post_init__(self) -> None:
        # Plain ones, also of a subclass or of numpy.
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

    @functools.cached_property
    def parts(self) -> tuple[KeySchema, ...]:
        """The plain schema of each shard; without shards, only this one.

        Where there are fewer users than shards, some have none, which a ``max_user_id``
        cannot say: theirs is 0.
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

    @property
    def schema_key(self) -> bytes:
        """The key that holds how the database is sharded. It is no bitmap's."""
        return f"{self.prefix}schema".encode()

    def place(self, user_id: int) -> tuple[int, int]:
        """Return a user's shard, and the bit that stands for the user in its bitmaps.

        Raises:
            InvalidTypeError, InvalidValueError: as `offset`.
        """
        offset = self.offset(user_id)
        offset, shard = divmod(offset, len(self.parts))
        return shard, offset

    def dealt(self, user_ids: Offsets) -> Iterator[tuple[int, Offsets]]:
        """Yield the shards of many users whose ids `offsets` has checked, and their bits there.

        Raises:
            InvalidTypeError: it is not from there.
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

        Raises:
            InvalidValueError: this schema has no such key.
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
        """Return the key of an event's bitmap for a period; ``None`` for the dateless one.

        Raises:
            InvalidTypeError, InvalidValueError: the event's name is not allowed.
        """
        if period is not None and not isinstance(period, Period):
            raise InvalidTypeError(f"period must be a Period or None, got {shown(period)}")
        return bitmap_key(self.prefix, checked_name("event", event), period)

    def offset(self, user_id: int) -> int:
        """Return the bit that stands for a user in every bitmap, in the plain format.

        Raises:
            InvalidTypeError, InvalidValueError: the id is no integer (a bool is
                none here) or lies outside ``[0, max_user_id]``.
        """
        number = user_id if type(user_id) is int else exact_int(user_id)
        if number is None:
            raise InvalidTypeError(
                f"user id must be an int in [0, {self.max_user_id}], got {described(user_id)}; "
                f"{NUMBER_THEM}"
            )
        if not 0 <= number <= self.max_user_id:
            advice = f"; {NUMBER_THEM}" if number > MAX_USER_ID else ""
            raise InvalidValueError(
                f"user id must be in [0, {self.max_user_id}], got {shown(number)}{advice}"
            )
        return number

    def offsets(self, user_ids: Numbers) -> Offsets:
        """Return the bits that stand for many users, in the plain format.

        Arguments:
            user_ids: a list or range of ids, or a one-dimensional numpy array of
                an integer type; at least one id.

        Raises:
            InvalidTypeError, InvalidValueError: as `offset`, about the first
                id that is not allowed.
        """
        if type(user_ids) is range and user_ids:
            ends = self.offset(user_ids[0]), self.offset(user_ids[-1])
            return Offsets(user_ids, min(ends), max(ends))
        if is_array(user_ids):
            array: Any = user_ids
            some = array.ndim == 1 and array.size
        else:
            some = type(user_ids) is list and user_ids
        if not some:
            raise InvalidTypeError(
                f"user ids must be a list, a range or an array, got {shown(user_ids)}"
            )
        # In C, and so in a tenth of the time that a look at each takes.
        if is_array_of_ints(user_ids) or (
            type(user_ids) is list and {int}.issuperset(map(type, user_ids))
        ):
            offsets = bounded(user_ids)
            if offsets.low >= 0 and offsets.high <= self.max_user_id:
                return widened(offsets)
        return bounded([self.offset(user_id) for user_id in as_list(user_ids)])

    def parse(self, key: bytes | str) -> tuple[str, Period | None]:
        """Return the event and the period of a key: the inverse of `key`.

        Raises:
            InvalidValueError: this schema has no such key.
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
    """Return a pattern for ``SCAN``, which the keys of bitmaps match, and maybe some others.

    Arguments:
        schema: the schema of the keys.
        beginning: the first characters of the names of the events.
        shard: the shard of the bitmaps; ``None`` for all shards.
    """
    if shard is not None or schema.shards is None:
        begin = _escaped(schema.parts[shard or 0].prefix)
    else:  # a key has the tag of its shard in braces
        begin = _escaped(f"{schema.prefix}{{") + "*}"
    return f"{begin}{_escaped(beginning)}*".encode()


def users_at(schema: KeySchema, shard: int, offsets: Iterable[int]) -> Iterable[int]:
    """Return the ids of the users at some offsets in the bitmaps of a shard."""
    shards = schema.shards
    if shards is None:
        return offsets
    return (offset * shards + shard for offset in offsets)


def _escaped(text: str) -> str:
    """Return the pattern of ``SCAN`` that matches just this text."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", text)


def results_of_bitmapist(prefix: str) -> re.Pattern[bytes]:
    """Return what matches the keys of results that bitmapist computes and leaves.

    It puts the keys of operands behind ``bitop_AND_`` and the like; the drop-in puts a
    digest there if these are long. bitmapist4 does the same below a prefix of its own.
    """
    begin = re.escape(prefix)
    return re.compile(rf"{begin}bitop_(?:AND|OR|XOR|NOT)_(?:{begin}|[0-9a-f]{{64}}\Z)".encode())


def bitmap_key(prefix: str, event: str, period: Period | None) -> bytes:
    """Return the key of a bitmap, of names that are known to be allowed."""
    suffix = UNIQUE_SUFFIX if period is None else period.suffix
    # Concatenated, since format() shows a str Enum as its name on some Pythons.
    return (prefix + event + "_" + suffix).encode()


def check_shards(shards: int) -> None:
    """Raise unless a database may have so many shards."""
    if not 1 <= shards <= MAX_SHARDS:
        raise InvalidValueError(f"shards must be in [1, {MAX_SHARDS}], got {shown(shards, 40)}")


def tag_slot(tag: bytes) -> int:
    """Return the slot of all keys with this hash tag: its CRC16 (XMODEM), modulo 16,384."""
    return binascii.crc_hqx(tag, 0) % SLOTS


def key_slot(key: bytes) -> int:
    """Return the slot of a key."""
    _, brace, rest = key.partition(b"{")
    tag, end, _ = rest.partition(b"}")
    return tag_slot(tag if brace and end and tag else key)


@functools.cache
def tags(shards: int) -> tuple[str, ...]:
    """Return the hash tag of each shard: the first word in the middle of its share of the slots.

    Words are those of lower-case letters, shorter ones first, then in the order
    of the alphabet. This is a part of the key format: it must never change.
    """
    wanted = {(2 * shard + 1) * SLOTS // (2 * shards): shard for shard in range(shards)}
    found = [""] * shards
    words = (
        "".join(letters)
        for length in itertools.count(1)
        for letters in itertools.product(string.ascii_lowercase, repeat=length)
    )
    while wanted:
        word = next(words)
        shard = wanted.pop(tag_slot(word.encode()), None)
        if shard is not None:
            found[shard] = word
    return tuple(found)
