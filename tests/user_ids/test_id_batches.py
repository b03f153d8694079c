"""Batches of users with ids: which marks go by the cache and which by the script, and why."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tallymark import Granularity, StoreNotReadyError
from tallymark._cluster.batches import batches, make_marker
from tallymark._core.options import Options
from tallymark._marking.number_cache import NumberCache

if TYPE_CHECKING:
    from tallymark._marking.id_batch import IdBatch

STAMP = b"a stamp."
NONE = Granularity(0)


class Maker:
    """Makes marks and batches of one tally, whose cache has the numbers of some users."""

    def __init__(self, **known: int) -> None:
        options = Options(user_ids=str)
        cache = NumberCache.of(options)
        assert cache is not None
        self.cache = cache
        self.begin(**known)
        self.marker = make_marker(options, time.time, cache=cache)
        self._new_batch: Any = batches(options, cache)

    def begin(self, **known: int) -> None:
        """Begin with a new connection, which has fetched the numbers of some users."""
        self.cache.clear()
        self.cache.stamp = STAMP
        self.cache.learn(known.keys(), known.values())

    def batch(self, *users: str) -> IdBatch:
        """Return a batch with a flag of some users."""
        batch: IdBatch = self._new_batch()
        for user in users:
            batch.add(self.marker.mark_unique("a", user))
        return batch


def calls(data: bytes) -> int:
    """Return how many calls of the script a write has."""
    return data.count(b"\r\nEVAL\r\n")


def test_numbers_of_an_ended_connection_are_not_sent() -> None:
    maker = Maker(ann=17)
    batch = maker.batch("ann")
    maker.begin(ann=29)
    data = batch.encode()
    assert b"$2\r\n29\r\n" in data
    assert b"$2\r\n17\r\n" not in data
    batch = maker.batch("ann")
    maker.begin()
    data = batch.encode()
    assert calls(data) == 1
    assert b"MULTI" not in data


def test_a_transaction_is_not_divided() -> None:
    maker = Maker(ann=17)
    data = maker.batch("ann", "bob").encode()
    assert (calls(data), data.count(b"MULTI")) == (1, 1)
    batch = maker.batch("ann", "bob")
    batch.keep_together()
    data = batch.encode()
    assert (calls(data), data.count(b"MULTI")) == (1, 0)


def test_a_call_has_few_ids_unless_they_are_of_a_transaction() -> None:
    users = [f"user-{number}" for number in range(1200)]
    batch = Maker().batch(*users)
    assert calls(batch.encode()) == 3
    batch.keep_together()
    assert calls(batch.encode()) == 1


def test_an_aborted_transaction_clears_the_cache() -> None:
    """Also if the stamp is the same: the server may have been resynchronised."""
    maker = Maker(ann=17)
    batch = maker.batch("ann")
    batch.encode()
    (result,) = batch.parse([b"OK", b"QUEUED", None, b"OK", STAMP])
    assert isinstance(result, StoreNotReadyError)
    assert batch.retriable == {0}
    assert maker.cache.get("ann") is None


@pytest.mark.parametrize("event", ["a", "other"])
def test_users_of_bulk_marks_that_are_unknown_stay_so(event: str) -> None:
    """A later mark of the same user does not overtake them, although its number is known."""
    maker = Maker()
    many = maker.marker.mark_many(event, None, None, None)
    (chunk,) = many.chunks(many.checked(["ann", "bob"]))
    maker.begin(ann=17, bob=18, eve=19)
    batch: IdBatch = maker.batch("eve")
    batch.add(chunk.marks[0])
    batch.add(maker.marker.unmark_unique("a", "ann"))
    batch.add(maker.marker.unmark_event("a", "bob", None, None, None, exact=True))
    data = batch.encode()
    assert data.index(b"EXEC") < data.index(b"EVAL")
    assert b"$2\r\n17\r\n" not in data
    assert b"$2\r\n18\r\n" not in data
    assert b"$2\r\n19\r\n" in data


def test_prepared_bulk_marks_do_not_overtake() -> None:
    """An earlier mark of one of their users is unknown, as its number has left the cache."""
    maker = Maker(ann=17, bob=18)
    many = maker.marker.mark_many("a", None, None, None)
    (chunk,) = many.chunks(many.checked(["ann", "bob"]))
    maker.cache.young.pop("ann")
    batch = maker.batch("ann")
    batch.add(chunk.marks[0])
    data = batch.encode()
    assert b"MULTI" not in data
    assert calls(data) == 2


def test_bulk_marks_fill_a_batch_by_their_users() -> None:
    """All of them may become calls of the script."""
    users = [f"user-{number}" for number in range(20_000)]
    maker = Maker(**{user: number for number, user in enumerate(users)})
    many = maker.marker.mark_many("a", None, None, None)
    chunks = list(many.chunks(many.checked(users)))
    assert [chunk.ids for chunk in chunks] == [8192, 8192, 3616]
    batch = maker.batch()
    batch.add(chunks[0].marks[0])
    assert batch.size > 256 * 1024


def test_the_cache_holds_as_many_numbers_as_it_may() -> None:
    cache = NumberCache(100)
    for number in range(100):
        cache.learn([number], [number])
    for _ in range(2):
        assert cache.get_many(range(100)) == list(range(100))
    cache.learn([100], [100])
    assert len(cache) == 100
    assert cache.get(100) == 100
    for number in range(200, 1000):
        assert cache.get(7) in {7, None}
        cache.learn([number], [number])
        assert len(cache) <= 100
    assert cache.get(7) == 7
    assert cache.get_all([7, 999]) in {(7, 999), None}
    assert cache.get_many([7, 5000]) == [7, None]
