"""Pairs of a number and an id: from iterables and files, and what is refused."""

from __future__ import annotations

import random
import tracemalloc
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tallymark import InvalidTypeError, InvalidValueError
from tallymark._core.keys import KeySchema
from tallymark._core.user_ids import id_type
from tallymark._reading import bits
from tallymark.migrate import _translation
from tallymark.migrate._pairs import read_pairs

if TYPE_CHECKING:
    from pathlib import Path

ONE, OTHER = (uuid.UUID(int=number << 60) for number in (5, 6))


def read(pairs: Any, user_ids: type = uuid.UUID) -> dict[int, Any]:
    """Return the pairs, as they are after the checks."""
    ids = id_type(user_ids)
    checked = read_pairs(pairs, KeySchema(max_user_id=9999), ids)
    numbers = list(checked.numbers)
    assert numbers == sorted(set(numbers))
    keys = [key for at in range(0, len(checked), 3) for key in checked.keys(at, at + 3)]
    decoded = [ids.decode(ids.encode(key)) for key in keys]
    return dict(zip(numbers, decoded, strict=True))


@pytest.mark.parametrize("with_numpy", [True, False])
def test_from_iterables(monkeypatch: pytest.MonkeyPatch, with_numpy: bool) -> None:
    if not with_numpy:
        monkeypatch.setattr(_translation, "algebra", bits.Ints)
    chance = random.Random(5)
    for user_ids, make in (
        (uuid.UUID, lambda: uuid.UUID(int=chance.getrandbits(128))),
        (str, lambda: "ü" * chance.randrange(1, 30) + str(chance.random())),
        (bytes, lambda: chance.randbytes(chance.randrange(8, 90))),
        (int, lambda: chance.randrange(-(2**63), 2**63)),
    ):
        pairs = {number: make() for number in chance.sample(range(10_000), 500)}
        in_order = dict(sorted(pairs.items()))
        assert read(pairs, user_ids) == in_order
        assert read(in_order, user_ids) == in_order
        assert read(iter(pairs.items()), user_ids) == in_order
        # The same pair twice is one pair.
        twice = [*pairs.items(), *pairs.items()]
        assert read(([number, user_id] for number, user_id in twice), user_ids) == in_order
        assert read((), user_ids) == {}


@pytest.mark.parametrize(
    ("pairs", "error", "message"),
    [
        (5, InvalidTypeError, "a mapping of numbers to ids, or pairs of both, got an? int"),
        (b"ab", InvalidTypeError, "got a bytes"),
        ([(1, ONE), 7], InvalidTypeError, "pair 1: must be a number and an id, got 7"),
        ([(1, ONE, 2)], InvalidTypeError, "pair 0: must be a number and an id"),
        (["ab"], InvalidTypeError, "pair 0: must be a number and an id, got 'ab'"),
        ([("1", ONE)], InvalidTypeError, "pair 0: user id must be an int"),
        ([(10_000, ONE)], InvalidValueError, r"pair 0: user id must be in \[0, 9999\]"),
        ({1: ONE, 2: "a"}, InvalidTypeError, "pair 1: user id must be a uuid.UUID"),
        ([(7, ONE), (7, OTHER)], InvalidValueError, f"number 7 has two ids: .*{ONE}.*{OTHER}"),
        ([(7, ONE), (5, OTHER), (3, ONE)], InvalidValueError, f"{ONE}.* two numbers: 3 and 7;"),
    ],
)
def test_wrong_pairs(pairs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read(pairs)


def test_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "ids.csv"
    # As spreadsheets write it, with a byte order mark and the names of the columns.
    file.write_bytes(f"\ufeffNumber,Id\r\n5,{ONE}\r\n\r\n3,{{{OTHER}}}\r\n".encode())
    assert read(file) == read(str(file)) == {3: OTHER, 5: ONE}
    file.write_text('5," a, b "\n3,"x\ny"\n4,ü', "utf-8")
    assert read(file, str) == {3: "x\ny", 4: "ü", 5: " a, b "}
    file.write_text("5,-7\n3,9223372036854775807\n")
    assert read(file, int) == {3: 2**63 - 1, 5: -7}
    file.write_text("5,00ff\n")
    assert read(file, bytes) == {5: b"\x00\xff"}
    file.write_text("")
    assert read(file) == {}
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("line", "user_ids", "message"),
    [
        (f"5x,{ONE}", uuid.UUID, "not a number: '5x'"),
        (f"5,{ONE.hex[:31]} ", uuid.UUID, "not a UUID"),
        (f"5,0x{ONE.hex[:30]}", uuid.UUID, "not a UUID"),
        (f"1_0,{ONE}", uuid.UUID, "not a number: '1_0'"),
        (f"٣,{ONE}", uuid.UUID, "not a number"),
        (f"{'9' * 5000},{ONE}", uuid.UUID, "not a number: '999"),
        (f"-1,{ONE}", uuid.UUID, r"user id must be in \[0, 9999\], got -1"),
        ("5,abc", uuid.UUID, "not a UUID: 'abc'"),
        ("5", uuid.UUID, r"must be a number and an id, got \['5'\]"),
        (f"5,{ONE},6", uuid.UUID, "must be a number and an id"),
        ("5,", str, "user id must have 1 to 1024 bytes, got 0"),
        (f"5,{'a' * 1025}", str, "user id must have 1 to 1024 bytes, got 1025"),
        ('5,"a', str, "unexpected end of data"),
        ("5,abc", bytes, "not bytes in hexadecimal digits: 'abc'"),
        ("5,1.5", int, "not a number: '1.5'"),
        ("5,9223372036854775808", int, "user id must have 64 bits at most"),
    ],
)
def test_wrong_lines(tmp_path: Path, line: str, user_ids: type, message: str) -> None:
    good = {uuid.UUID: OTHER, bytes: "00"}.get(user_ids, 7)
    file = tmp_path / "ids.csv"
    file.write_text(f"1,{good}\n{line}\n", "utf-8")
    with pytest.raises(InvalidValueError, match=rf"line [23] of .*ids\.csv: {message}"):
        read(file, user_ids)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "ids.csv"
    file.write_bytes(b"1,a\n2,\xff\n")
    with pytest.raises(InvalidValueError, match=r"ids\.csv is no UTF-8 text"):
        read(file, str)


@pytest.mark.parametrize("in_order", [True, False])
def test_what_it_takes_in_memory(in_order: bool) -> None:
    count = 50_000
    step = 1 if in_order else 7919  # coprime to the count, so that all numbers differ
    numbers = (index * step % count for index in range(count))
    ids = id_type(uuid.UUID)
    tracemalloc.start()
    try:
        pairs = read_pairs(
            ((number, uuid.UUID(int=number << 64)) for number in numbers), KeySchema(), ids
        )
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(pairs) == count
    assert held < 30 * count
    assert peak < 60 * count
