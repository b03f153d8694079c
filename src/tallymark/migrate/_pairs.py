"""Pairs of a number and a user id: which user of the old database has which id in the new one.

They come from an iterable, a mapping or a CSV file, are checked, and are held packed: a pair
takes the bytes of its id and 8 more for the numbers, and 8 more until all are checked.
"""

from __future__ import annotations

import csv
import os
import re
import uuid
from array import array
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from .._core.untrusted import escaped, kind_of, shown
from ..errors import InvalidTypeError, InvalidValueError
from ._translation import argsort, has_repetitions

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core.keys import KeySchema
    from .._core.user_ids import IdType

__all__ = ["IdSource", "Pairs", "read_pairs"]

#: Where pairs may come from: the path of a CSV file, a mapping of numbers to ids, or pairs.
IdSource = str | os.PathLike[str] | Mapping[int, Any] | Iterable[tuple[int, Any]]

_INTEGER: Final = re.compile(r"-?[0-9]+", re.ASCII)

_UUID: Final = re.compile(
    r"(?:urn:uuid:)?\{?(?:[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}?",
    re.ASCII | re.IGNORECASE,
)

#: The most digits of a number of either side, so that a long one is not converted.
_DIGITS: Final = 20


class Pairs:
    """Checked pairs, by number: no number has two ids, and no id two numbers.

    Attributes:
        numbers: the numbers of the old database, in ascending order.
    """

    def __init__(self, ids: IdType) -> None:
        """Begin without pairs of ids of a type."""
        self._ids = ids
        self.numbers = array("I")
        self._encoded = bytearray()
        #: Where each id ends, if their lengths vary.
        self._ends = array("Q")
        #: The index of each pair's id, in the order of the numbers; ``None`` if that is it.
        self._order: array[int] | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def append(self, number: int, key: Any) -> None:
        """Add a pair; the key is that of a checked id."""
        self.numbers.append(number)
        self._encoded += self._ids.encode(key)
        if not self._ids.width:
            self._ends.append(len(self._encoded))

    def keys(self, begin: int, end: int) -> list[Any]:
        """Return the keys of the ids of some pairs, in the order of their numbers."""
        return [self._key(self._id(at)) for at in range(begin, min(end, len(self)))]

    def close(self) -> None:
        """Sort the pairs by their numbers, and check that both sides are unique.

        Raises:
            InvalidValueError: a number has two ids, or an id two numbers.
        """
        if any(map(int.__ge__, self.numbers[:-1], self.numbers[1:])):
            self._sort()
        self._check_ids()

    def _sort(self) -> None:
        """Sort the pairs by their numbers, and drop those that are there already."""
        order = argsort(self.numbers)
        unsorted, self.numbers, self._order = self.numbers, array("I"), array("I")
        for index in order:
            number = unsorted[index]
            if self.numbers and self.numbers[-1] == number:
                ids = self._at(self._order[-1]), self._at(index)
                if ids[0] != ids[1]:
                    one, other = (shown(self._ids.decode(each)) for each in ids)
                    raise InvalidValueError(f"number {number} has two ids: {one} and {other}")
                continue
            self.numbers.append(number)
            self._order.append(index)

    def _check_ids(self) -> None:
        """Raise an `InvalidValueError` if an id has two numbers."""
        # A hash takes 8 bytes, a set of the ids ten times as much.
        hashes = array("q", (hash(self._id(at)) for at in range(len(self))))
        if not has_repetitions(hashes):
            return
        once: set[int] = set()
        twice = {each for each in hashes if each in once or once.add(each)}  # type: ignore[func-returns-value]
        found: dict[bytes, int] = {}
        for at, (number, each) in enumerate(zip(self.numbers, hashes, strict=True)):
            if each in twice and (other := found.setdefault(self._id(at), number)) != number:
                raise InvalidValueError(
                    f"the id {shown(self._ids.decode(self._id(at)))} has two numbers: {other} and "
                    f"{number}; if both are one user, merge them in the old database first"
                )

    def _id(self, at: int) -> bytes:
        """Return the encoded id of a pair, by the order of the numbers."""
        return self._at(at if self._order is None else self._order[at])

    def _at(self, index: int) -> bytes:
        """Return the encoded id of a pair, by the order in which they came."""
        if width := self._ids.width:
            return bytes(self._encoded[index * width : (index + 1) * width])
        return bytes(self._encoded[self._ends[index - 1] if index else 0 : self._ends[index]])

    def _key(self, encoded: bytes) -> Any:
        return self._ids.key(self._ids.decode(encoded))


def read_pairs(pairs: IdSource, source: KeySchema, ids: IdType) -> Pairs:
    """Read all pairs of a number and an id.

    Arguments:
        pairs: the pairs, or the path of a CSV file with two columns.
        source: checks the numbers.
        ids: the type of the ids.

    Raises:
        InvalidTypeError, InvalidValueError: a pair is not allowed; the message says which.
            Or a number has two ids, or an id two numbers.
        OSError: the file cannot be read.
    """
    result = Pairs(ids)
    if isinstance(pairs, str | os.PathLike):
        _read_file(result, pairs, source, ids)
    else:
        items: Any = pairs.items() if isinstance(pairs, Mapping) else pairs
        if isinstance(items, bytes | bytearray) or not isinstance(items, Iterable):
            raise InvalidTypeError(
                "ids must be the path of a file, a mapping of numbers to ids, or pairs of both, "
                f"got a {kind_of(pairs)}"
            )
        index = 0
        try:
            for index, pair in enumerate(items):  # noqa: B007 - used if it fails
                number, user_id = _unpacked(pair)
                result.append(source.offset(number), ids.key(user_id))
        except (InvalidTypeError, InvalidValueError) as error:
            raise type(error)(f"pair {index}: {error}") from None
    result.close()
    return result


def _unpacked(pair: Any) -> tuple[Any, Any]:
    if isinstance(pair, tuple | list) and len(pair) == 2:
        number, user_id = pair
        return number, user_id
    raise InvalidTypeError(f"must be a number and an id, got {shown(pair)}")


def _read_file(result: Pairs, path: str | os.PathLike[str], source: KeySchema, ids: IdType) -> None:
    """Add the pairs of a CSV file. Raises as `read_pairs`."""
    parse = _PARSERS[ids.name]
    name = escaped(os.fspath(path))
    with open(path, encoding="utf-8-sig", newline="") as file:  # noqa: PTH123 - may be a str
        reader = csv.reader(file, strict=True)
        try:
            for row in reader:
                if not row or (reader.line_num == 1 and not re.search(r"\d", row[0])):
                    continue  # an empty line, or the names of the columns
                number, text = _unpacked(row)
                result.append(source.offset(_number(number)), ids.key(parse(text)))
        except (InvalidTypeError, InvalidValueError, csv.Error) as error:
            problem = f"line {reader.line_num} of {name}: {error}"
            raise InvalidValueError(problem) from None
        except UnicodeDecodeError:
            problem = f"{name} is no UTF-8 text, somewhere behind line {reader.line_num}"
            raise InvalidValueError(problem) from None


def _number(text: str) -> int:
    """Return the integer in decimal digits; no spaces, underscores or other digits."""
    if _INTEGER.fullmatch(text) is None or len(text) > _DIGITS:
        raise InvalidValueError(f"not a number: {shown(text)}")
    return int(text)


def _uuid(text: str) -> uuid.UUID:
    # `uuid.UUID` takes some damaged ones too, such as 31 digits and a space.
    if not _UUID.fullmatch(text):
        raise InvalidValueError(f"not a UUID: {shown(text)}")
    return uuid.UUID(text)


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise InvalidValueError(f"not bytes in hexadecimal digits: {shown(text)}") from None


#: How a file has the ids of each type.
_PARSERS: Final[dict[str, Callable[[str], Any]]] = {
    "str": str,
    "bytes": _bytes,
    "uuid": _uuid,
    "int": _number,
}
