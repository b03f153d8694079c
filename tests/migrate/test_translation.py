"""The translation of numbers: against a model of dicts, with and without numpy."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallymark._reading import bits
from tallymark.migrate import _translation
from tallymark.migrate._translation import TargetBits, Translation, argsort, has_repetitions

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["numpy", "ints"], autouse=True)
def _either_algebra(request: pytest.FixtureRequest) -> Iterator[None]:
    made = bits.Arrays(np) if request.param == "numpy" else bits.Ints()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_translation, "algebra", lambda: made)
        yield


offsets = st.integers(0, 200) | st.sampled_from([2**16, 2**19 - 1, 2**19, 2**19 + 1, 2**20 + 7])
highest = 2**32 - 1


def bitmap(users: set[int]) -> bytes:
    data = bytearray(max(users, default=-1) // 8 + 1)
    for user in users:
        data[user >> 3] |= 128 >> (user & 7)
    return bytes(data)


@given(
    st.lists(st.dictionaries(offsets, st.integers(0, highest), max_size=40), max_size=4),
    st.sets(offsets, max_size=40),
    st.integers(0, 3).map(lambda number: 8 * number),
)
def test_bits_get_their_numbers(added: list[dict[int, int]], users: set[int], first: int) -> None:
    translation = Translation()
    model: dict[int, int] = {}
    for numbers in added:
        fresh = {old: new for old, new in numbers.items() if old not in model}
        translation.add(sorted(fresh), [fresh[old] for old in sorted(fresh)])
        model |= fresh
    assert translation.highest == max(model.values(), default=0)
    found, unknown = translation.translate(bitmap(users), first)
    moved = [user + first for user in sorted(users)]
    assert list(found) == [model[user] for user in moved if user in model]
    assert unknown == [user for user in moved if user not in model]


@given(st.lists(st.integers(0, 5000), max_size=60), st.integers(1, 20))
def test_bits_of_the_target(numbers: list[int], shards: int) -> None:
    target = TargetBits(shards)
    for at in range(0, len(numbers), 7):
        target.add(array("I", numbers[at : at + 7]))
    assert target.parts() == [
        bitmap({number // shards for number in numbers if number % shards == shard})
        for shard in range(shards)
    ]


@given(st.lists(st.integers(0, 50), max_size=60))
def test_order_and_repetitions(numbers: list[int]) -> None:
    order = argsort(array("I", numbers))
    assert list(order) == sorted(range(len(numbers)), key=numbers.__getitem__)
    assert has_repetitions(array("q", numbers)) == (len(set(numbers)) < len(numbers))
