"""The key schema: how (event, period, user id) becomes (key, offset), and back.

Pure. The plain format is that of bitmapist, byte for byte, so that both can share
a database: ``{prefix}{event}_{suffix}`` with the prefix ``trackist_``. A suffix
never contains ``_``, hence the last one always ends the event's name and
every key reads back as exactly one event and period.

With S shards, user u is in shard u mod S, at the bit u div S, and each shard is a
plain database of its own, whose prefix is ``{prefix}{tag}`` with the tag in braces.
"""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .errors import InvalidTypeError, InvalidValueError
from .offsets import Numbers, Offsets, as_list, bounded, dealt, is_array
from .periods import UNIQUE_SUFFIX, Period, parse_suffix
from .shards import check_shards, tags

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "DEFAULT_PREFIX",
    "MAX_USER_ID",
    "KeySchema",
    "bitmap_key",
    "check_flag",
    "check_name",
    "checked_int",
]

DEFAULT_PREFIX: Final = "trackist_"

#: The last bit that Redis can address: a string holds 512 MB, 2**32 bits
#: (https://redis.io/docs/latest/commands/setbit/).
MAX_USER_ID: Final = 2**32 - 1


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
        check_name("prefix", self.prefix)
        checked_int("max_user_id", self.max_user_id)
        if not 0 <= self.max_user_id <= MAX_USER_ID:
            raise InvalidValueError(
                f"max_user_id must be in [0, {MAX_USER_ID}], got {_short(self.max_user_id)}"
            )
        if self.shards is not None:
            check_shards(checked_int("shards", self.shards))
            if "{" in self.prefix:
                raise InvalidValueError(
                    "with shards, the prefix must not contain '{', "
                    f"which begins a shard's own tag; got {_short(self.prefix)}"
                )

    @functools.cached_property
    def parts(self) -> tuple[KeySchema, ...]:
        """The plain schema of each shard; without shards, only this one."""
        shards = self.shards
        if shards is None:
            return (self,)
        return tuple(
            KeySchema(f"{self.prefix}{{{tag}}}", max(0, (self.max_user_id - shard) // shards))
            for shard, tag in enumerate(tags(shards))
        )

    @functools.cached_property
    def _by_tag(self) -> dict[str, int]:
        return {tag: shard for shard, tag in enumerate(tags(self.shards or 1))}

    @property
    def note(self) -> bytes:
        """The key of the note that says how the database is sharded. It is no bitmap's."""
        return f"{self.prefix}schema".encode()

    def place(self, user_id: int) -> tuple[int, int]:
        """Return a user's shard, and the bit that stands for the user in its bitmaps.

        Raises:
            InvalidTypeError, InvalidValueError: as `offset`.
        """
        offset = self.offset(user_id)
        if self.shards is None:
            return 0, offset
        offset, shard = divmod(offset, self.shards)
        return shard, offset

    def dealt(self, user_ids: Offsets) -> Iterator[tuple[int, Offsets]]:
        """Yield the shards of many users whose ids were checked, and their bits there."""
        if self.shards is None:
            yield 0, user_ids
        else:
            yield from dealt(user_ids, self.shards)

    def located(self, key: bytes) -> tuple[int, str, Period | None]:
        """Return the shard, the event and the period of a key.

        Raises:
            InvalidValueError: this schema has no such key.
        """
        if self.shards is None:
            return (0, *self.parse(key))
        begin = f"{self.prefix}{{".encode()
        tag, brace, _ = key.removeprefix(begin).partition(b"}")
        shard = self._by_tag.get(tag.decode("ascii", "replace"))
        if not key.startswith(begin) or not brace or shard is None:
            raise InvalidValueError(f"not a key of {self.prefix!r}: {key!r}")
        return (shard, *self.parts[shard].parse(key))

    def key(self, event: str, period: Period | None) -> bytes:
        """Return the key of an event's bitmap for a period; ``None`` for the dateless one.

        Raises:
            InvalidTypeError, InvalidValueError: the event's name is not allowed.
        """
        check_name("event", event)
        return bitmap_key(self.prefix, event, period)

    def offset(self, user_id: int) -> int:
        """Return the bit that stands for a user in every bitmap, in the plain format.

        Raises:
            InvalidTypeError, InvalidValueError: the id is no int (a bool is
                none here) or lies outside ``[0, max_user_id]``.
        """
        if not _is_int(user_id):
            raise InvalidTypeError(
                f"user id must be an int in [0, {self.max_user_id}], got {_described(user_id)}"
            )
        if not 0 <= user_id <= self.max_user_id:
            raise InvalidValueError(
                f"user id must be in [0, {self.max_user_id}], got {_short(user_id)}"
            )
        return int(user_id)  # an IntEnum would format as its name

    def offsets(self, user_ids: Numbers) -> Offsets:
        """Return the bits that stand for many users, in the plain format.

        Arguments:
            user_ids: a list of ids, or a one-dimensional numpy array of an
                integer type; at least one id.

        Raises:
            InvalidTypeError, InvalidValueError: as `offset`, about the first
                id that is not allowed.
        """
        # In C, and so in a tenth of the time that a look at each takes.
        if is_array(user_ids) or {int}.issuperset(map(type, user_ids)):
            offsets = bounded(user_ids)
            if offsets.low >= 0 and offsets.high <= self.max_user_id:
                return offsets
        return bounded([self.offset(user_id) for user_id in as_list(user_ids)])

    def parse(self, key: bytes | str) -> tuple[str, Period | None]:
        """Return the event and the period of a key: the inverse of `key`.

        Raises:
            InvalidValueError: this schema has no such key.
        """
        try:
            name = key.decode() if isinstance(key, bytes) else key
        except UnicodeDecodeError as error:
            raise InvalidValueError(f"not a key of {self.prefix!r}: {key!r}") from error
        event, separator, suffix = name.removeprefix(self.prefix).rpartition("_")
        if not name.startswith(self.prefix) or not separator:
            raise InvalidValueError(f"not a key of {self.prefix!r}: {key!r}")
        check_name("event", event)
        return event, parse_suffix(suffix)


def bitmap_key(prefix: str, event: str, period: Period | None) -> bytes:
    """Return the key of a bitmap, of names that are known to be allowed."""
    suffix = UNIQUE_SUFFIX if period is None else period.suffix
    # Concatenated, since format() shows a str Enum as its name on some Pythons.
    return (prefix + event + "_" + suffix).encode()


def check_name(what: str, name: str) -> None:
    """Raise unless ``name`` is a non-empty str that UTF-8 can encode, without control characters.

    Control characters are Unicode's category Cc. They never belong in a name
    on purpose, and they break the lines of every tool that lists keys.
    """
    if not isinstance(name, str):
        raise InvalidTypeError(
            f"{what} must be a non-empty str without control characters, got {_described(name)}"
        )
    if not name:
        raise InvalidValueError(
            f"{what} must be a non-empty str without control characters, got ''"
        )
    if name.isprintable():  # the common case, in C
        return
    for character in name:
        category = unicodedata.category(character)
        if category == "Cc":
            raise InvalidValueError(
                f"{what} must not contain control characters, got {character!r} in {_short(name)}"
            )
        if category == "Cs":
            raise InvalidValueError(
                f"{what} must be valid Unicode, got a lone surrogate in {_short(name)}"
            )


def checked_int(what: str, value: int) -> int:
    """Return a value if it is an int; a bool is none here."""
    if not _is_int(value):
        raise InvalidTypeError(f"{what} must be an int, got {_described(value)}")
    return int(value)


def check_flag(what: str, value: bool) -> None:
    """Raise unless a value is True or False."""
    if not isinstance(value, bool):
        raise InvalidTypeError(f"{what} must be True or False, got {value!r:.80}")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _described(value: object) -> str:
    return f"{_short(value)} of type {type(value).__name__}"


def _short(value: object) -> str:
    """Return a repr that fits into one line of a log, whatever a stranger sent."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - an int of more than 4,300 digits, or a broken __repr__
        return "a value that cannot be shown"
    return text if len(text) <= 80 else f"{text[:77]}..."
