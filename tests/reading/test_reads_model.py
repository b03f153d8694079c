"""Random expressions against a model: a dict from an event and a period to a set of users."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facades import ON_SOME_STORES
from tallymark import any_of

if TYPE_CHECKING:
    from facades import Facade
    from stores import Store

FIRST = date(2026, 10, 26)
EVENTS = ["a", "b", "c"]

# Bitmaps of very different lengths: some end in their first byte, some after 75 kB.
ids = st.one_of(
    st.integers(0, 40),
    st.integers(0, 40).map(lambda distance: 65_500 + distance),
    st.sampled_from([8_191, 8_192, 524_287, 524_288, 600_000]),
)
#: The users of each event on each of ten days, which lie in two weeks and two months.
marks = st.dictionaries(
    st.tuples(st.sampled_from(EVENTS), st.integers(0, 9)), st.sets(ids, max_size=12), max_size=8
)


@dataclass(frozen=True)
class Leaf:
    kind: str
    event: str
    day: int
    length: int = 1

    def built(self, tally: Any) -> Any:
        moment = FIRST + timedelta(days=self.day)
        if self.kind == "unique":
            return tally.unique(self.event)
        if self.kind == "between":
            return tally.between(self.event, moment, moment + timedelta(days=self.length))
        return getattr(tally, self.kind)(self.event, moment)

    def users(self, marked: dict[tuple[str, int], set[int]]) -> set[int]:
        found = set()
        for (event, day), users in marked.items():
            if event == self.event and self.holds(day):
                found |= users
        return found

    def holds(self, day: int) -> bool:
        mine, other = FIRST + timedelta(days=self.day), FIRST + timedelta(days=day)
        return {
            "day": mine == other,
            "week": mine.isocalendar()[:2] == other.isocalendar()[:2],
            "month": (mine.year, mine.month) == (other.year, other.month),
            "year": mine.year == other.year,
            "unique": True,
            "between": self.day <= day < self.day + self.length,
        }[self.kind]


@dataclass(frozen=True)
class Node:
    operation: Any
    left: Any
    right: Any

    def built(self, tally: Any) -> Any:
        return self.operation(self.left.built(tally), self.right.built(tally))

    def users(self, marked: dict[tuple[str, int], set[int]]) -> set[int]:
        found: set[int] = self.operation(self.left.users(marked), self.right.users(marked))
        return found


leaves = st.builds(
    Leaf,
    st.sampled_from(["day", "day", "week", "month", "year", "unique", "between"]),
    st.sampled_from(EVENTS),
    st.integers(0, 9),
    st.integers(1, 9),
)
operations = st.sampled_from([operator.and_, operator.or_, operator.xor, operator.sub])


def expressions(depth: int) -> st.SearchStrategy[Any]:
    if depth == 0:
        return leaves
    below = expressions(depth - 1)
    return st.one_of(leaves, st.builds(Node, operations, below, below))


examples = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@ON_SOME_STORES
@examples
@given(marked=marks, wanted=st.lists(expressions(5), min_size=1, max_size=4))
async def test_answers_agree_with_sets(
    facade: Facade, store: Store, marked: dict[tuple[str, int], set[int]], wanted: list[Any]
) -> None:
    store.raw.flushdb()
    async with facade.open(store.url) as tally:
        for (event, day), users in marked.items():
            when = FIRST + timedelta(days=day)
            await tally.mark_many(event, users, now=when, track_unique=True)
        before = {key: store.raw.get(key) for key in store.names()}
        built = [expression.built(tally) for expression in wanted]
        answers = [expression.users(marked) for expression in wanted]
        assert await tally.counts(built) == [len(users) for users in answers]
        union = set().union(*answers)
        assert await tally.count(any_of(built)) == len(union)
        asked = sorted({0, 5, 41, 65_499, *union, *(user_id + 1 for user_id in union)})
        for event_set, users in zip(built, answers, strict=True):
            assert [user_id async for user_id in tally.users(event_set)] == sorted(users)
            assert await tally.is_empty(event_set) == (not users)
            inside = [user_id in users for user_id in asked]
            assert await tally.contains_many(event_set, asked) == inside
            for user_id in asked[:3]:
                assert await tally.contains(event_set, user_id) == (user_id in users)
        assert {key: store.raw.get(key) for key in store.names()} == before
