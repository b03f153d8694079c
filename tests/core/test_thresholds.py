"""`at_least` as a value: how it reads, compares, moves, and what it refuses."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from tallymark import InvalidTypeError, InvalidValueError, all_of, any_of, at_least
from tallymark._core.context import Context
from tallymark._core.events import Bitmap, walk
from tallymark._core.options import Options
from tallymark._core.periods import Granularity, Period
from tallymark._core.thresholds import Threshold

context = Context.of("db", Options(), lambda: 0.0)
other = Context.of("db", Options(prefix="other_"), lambda: 0.0)
flags = [Bitmap(context.origin, f"f{number}", None) for number in range(40)]
DAY = Period.containing(Granularity.DAY, context.local(None))
days = [Bitmap(context.origin, "a", DAY.shift(number)) for number in range(5)]
anything: Any = at_least


def test_it_reads_like_what_it_is() -> None:
    a, b, c = flags[:3]
    assert repr(at_least(2, [a, b, c])) == (
        "at_least(2, [unique('f0'), unique('f1'), unique('f2')])"
    )
    assert repr(at_least(2, [a, b & c, c]) - (a | b)) == (
        "at_least(2, [unique('f0'), unique('f1') & unique('f2'), unique('f2')]) "
        "- (unique('f0') | unique('f1'))"
    )
    long = repr(at_least(20, flags * 500))
    assert long.startswith("at_least(20, [unique('f0'), ")
    assert len(long) < 2100


def test_the_least_and_the_most_are_unions_and_intersections() -> None:
    assert at_least(1, flags) == any_of(flags)
    assert at_least(40, flags) == all_of(flags)
    assert at_least(1, flags[:1]) == flags[0]
    assert at_least(2, [flags[0], flags[0]]) == flags[0]  # which counts twice


def test_it_is_a_value() -> None:
    one, same = at_least(2, flags[:3]), at_least(2, iter(flags[:3]))
    assert one == same
    assert hash(one) == hash(same)
    assert one == copy.deepcopy(one) == pickle.loads(pickle.dumps(one))
    assert len({one, same, one | flags[7], same | flags[7]}) == 2
    different = [
        one,
        at_least(3, flags[:4]),
        at_least(2, flags[:4]),
        at_least(2, flags[2::-1]),
        at_least(2, [at_least(2, flags[:3]), flags[2], flags[3]]),
        at_least(2, [*flags[:3], flags[2]]),
        flags[0] | flags[1] | flags[2],
    ]
    assert len(set(different)) == len(different)
    assert all(a != b for at, a in enumerate(different) for b in different[:at])
    assert one != anything
    with pytest.raises(AttributeError):
        anything(2, flags[:3]).threshold = 3


def nested(levels: int) -> Any:
    event_set: Any = flags[0]
    for level in range(levels):
        event_set = at_least(2, [event_set, flags[level % 7], event_set & flags[level % 5]])
    return event_set


def test_depth_is_limited_by_memory_only() -> None:
    deep = nested(3_000)
    assert deep == nested(3_000)
    assert hash(deep) == hash(nested(3_000))
    assert deep != nested(2_999)
    copied = pickle.loads(pickle.dumps(deep))
    assert copied == deep
    assert isinstance(copied, Threshold)
    assert len(repr(deep)) < 2100
    assert deep.size == 2**32
    assert len(list(walk([deep.at(other.origin)]))) == len(list(walk([deep])))


def test_it_moves_with_its_sets() -> None:
    event_set = at_least(2, [*days[:3], flags[0]])
    assert event_set.next() == at_least(2, [*days[1:4], flags[0]])
    assert event_set.shift(0) == event_set
    assert (event_set.start, event_set.end) == (days[0].start, days[2].end)
    moved = event_set.at(other.origin)
    assert moved.origin == other.origin
    assert {bitmap.origin for bitmap in moved.bitmaps()} == {other.origin}
    assert list(event_set.bitmaps()) == [*days[:3], flags[0]]
    with pytest.raises(InvalidTypeError):
        event_set.shift(anything)


def test_its_size_is_that_of_its_adder() -> None:
    assert 31 * 5 < at_least(20, flags[:31]).size < 31 * 20


@pytest.mark.parametrize(
    ("number", "event_sets", "error", "message"),
    [
        (0, flags[:3], InvalidValueError, "number must be from 1 to 3"),
        (4, flags[:3], InvalidValueError, "number must be from 1 to 3"),
        (-1, flags[:1], InvalidValueError, "number must be from 1 to 1"),
        (10**50, flags[:3], InvalidValueError, "number must be from 1 to 3"),
        (2.0, flags[:3], InvalidTypeError, "number"),
        (True, flags[:3], InvalidTypeError, "number"),
        (flags[:3], 2, InvalidTypeError, "number"),
        (1, [], InvalidValueError, "one event set or more"),
        (1, 7, InvalidTypeError, "iterable of event sets"),
        (2, [*flags[:2], "f3"], InvalidTypeError, "not an event set"),
        (2, [*flags[:2], flags[2].at(other.origin)], InvalidValueError, "different databases"),
        (1, [flags[0], flags[2].at(other.origin)], InvalidValueError, "different databases"),
    ],
)
def test_bad_input_raises(
    number: Any, event_sets: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        at_least(number, event_sets)
