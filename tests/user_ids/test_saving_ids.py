"""`save` while users are forgotten, merged or deleted: no bit of them comes back, none is lost."""

from __future__ import annotations

import itertools
from datetime import date
from typing import TYPE_CHECKING, Any, cast

import pytest

from tallymark import StoreError, StoreNotReadyError, SyncTally
from tallymark._reading import expressions, key_scan, saving, user_bits
from tallymark._reading.keyspace import delete_all
from tallymark._reading.requests import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from stores import Store

DAY = date(2026, 11, 23)
USERS = ["ann", "bob", "eve", "joe"]


@pytest.fixture(params=["in_redis", "in_client"], autouse=True)
def side(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Compute flags in Redis, and in the client."""
    monkeypatch.setattr(key_scan, "_STEP", 1)  # a request for each key
    if request.param == "in_client":
        monkeypatch.setattr(expressions, "_SHORT_WORK", 0)
    return str(request.param)


def interrupted(query: Any, at: int, action: Callable[[], Any]) -> Any:
    """Yield the effects of a query, with an action before a request; return their number.

    The action is called at the end, if there are fewer requests.
    """
    effect, count = next(query), 0
    try:
        while True:
            if count == at and isinstance(effect, Request):
                action()
            count += isinstance(effect, Request)
            try:
                outcome = yield effect
            except StoreError as error:
                effect = query.throw(error)
            else:
                effect = query.send(outcome)
    except StopIteration:
        if count <= at:
            action()
        return count


def fill(tally: Any, raw: Any, shards: int) -> None:
    raw.flushdb()
    tally._context.lengths._known.clear()  # so that the same requests are sent each time
    for name in ("a", "b", "saved", "z"):
        for user in USERS[: 2 if name == "saved" else 4]:
            tally.mark_event(name, user, now=DAY)
    tally.save(tally.day("z", DAY), as_="z")
    if shards == 1:
        assert raw.bitcount("trackist_z_u") == 4


def users_of(tally: Any, raw: Any) -> tuple[set[str], int]:
    """Return the users of the flag, and how many bits it has, also those of nobody."""
    bits = sum(raw.bitcount(key) for key in raw.keys("trackist_*saved_u"))
    return set(tally.users(tally.unique("saved"))), bits


@pytest.mark.parametrize("verb", ["forget", "merge"])
@pytest.mark.parametrize("event", ["a", "z"])
def test_a_flag_is_saved_while_a_user_is_erased(redis_store: Store, verb: str, event: str) -> None:
    """Before each of the requests of the other verb."""
    raw = redis_store.raw
    with (
        SyncTally.from_url(redis_store.url, user_ids=str) as tally,
        SyncTally.from_url(redis_store.url, user_ids=str) as other,
    ):
        arguments = ["ann"] if verb == "forget" else ["ann", "new"]
        expected = {*USERS[1:], *arguments[1:]}
        at, requests = 0, 1
        while at < requests:
            fill(tally, raw, 1)
            query = getattr(user_bits, verb)(tally._context, *arguments)

            def save() -> None:
                other.save(other.day(event, DAY) | other.unique(event), as_="saved")

            requests = tally.backend.reader.answer(interrupted(query, at, save), None)
            assert users_of(other, raw) == (expected, len(expected)), at
            assert raw.hlen("trackist_ids:forgetting") == 0
            at += 1
        assert requests > 5


@pytest.mark.parametrize("verb", ["forget", "merge"])
def test_a_user_is_erased_while_a_flag_is_saved(redis_store: Store, verb: str) -> None:
    """Before each of the requests of `save`."""
    raw = redis_store.raw
    with (
        SyncTally.from_url(redis_store.url, user_ids=str) as tally,
        SyncTally.from_url(redis_store.url, user_ids=str) as other,
    ):
        arguments = ["ann"] if verb == "forget" else ["ann", "new"]
        expected = {*USERS[1:], *arguments[1:]}
        at, requests = 0, 1
        while at < requests:
            fill(tally, raw, 1)
            query = saving.save(tally._context, tally.day("a", DAY) | tally.day("b", DAY), "saved")
            requests = tally.backend.reader.answer(
                interrupted(query, at, lambda: getattr(other, verb)(*arguments)), None
            )
            assert users_of(other, raw) == (expected, len(expected)), at
            at += 1


@pytest.mark.parametrize("verb", ["forget", "merge"])
def test_both_are_in_the_midst(redis_store: Store, verb: str) -> None:
    """A `forget` that has begun before `save`, and ends in the midst of it, at all steps."""
    raw = redis_store.raw
    with (
        SyncTally.from_url(redis_store.url, user_ids=str) as tally,
        SyncTally.from_url(redis_store.url, user_ids=str) as other,
    ):
        arguments = ["ann"] if verb == "forget" else ["ann", "new"]
        expected = {*USERS[1:], *arguments[1:]}

        def nested(at: int, again: int) -> int:
            fill(tally, raw, 1)
            query = saving.save(tally._context, tally.day("a", DAY) | tally.day("b", DAY), "saved")
            steps = paused(getattr(user_bits, verb)(other._context, *arguments), other)
            for _ in range(again):
                next(steps, None)
            requests = tally.backend.reader.answer(
                interrupted(query, at, lambda: [None for _ in steps]), None
            )
            for _ in steps:
                pass
            assert users_of(other, raw) == (expected, len(expected)), (at, again)
            return int(requests)

        at, requests = 0, 1
        while at < requests:
            requests = max(nested(at, again) for again in range(24))
            at += 1


def paused(query: Any, tally: Any) -> Any:
    """Execute the effects of a query one by one; yield after each."""

    def single(effect: Any) -> Any:
        return (yield effect)

    try:
        effect = next(query)
        while True:
            outcome = tally.backend.reader.answer(single(effect), None)
            yield
            effect = query.send(outcome)
    except StopIteration:
        return


#: Several flags: a scan passes some of their keys before those that they are computed from.
FLAGS = ["saved", "1saved", "2saved", "3saved"]


def save_all(tally: Any) -> None:
    """Save each of the flags; it has the users of any of them, too."""
    every = tally.day("a", DAY) | tally.day("b", DAY) | tally.unique("z")
    for flag in FLAGS:
        tally.save(every | tally.unique(flag), as_=flag)


def test_flags_are_saved_while_all_is_deleted(redis_store: Store) -> None:
    """Before each of the requests of `delete_all`: no bit of nobody is left."""
    raw = redis_store.raw
    with (
        SyncTally.from_url(redis_store.url, user_ids=str) as tally,
        SyncTally.from_url(redis_store.url, user_ids=str) as other,
    ):
        at, requests = 0, 1
        while at < requests:
            fill(tally, raw, 1)
            query = delete_all(tally._context, "trackist_")
            requests = tally.backend.reader.answer(
                interrupted(query, at, lambda: save_all(other)), None
            )
            assert users_of(other, raw) == (set(), 0), at
            assert raw.hlen("trackist_ids:forgetting") == 0
            at += 1
        assert requests > 20


def test_a_flag_is_saved_in_the_midst_of_a_deletion(
    redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both go on in turn: a part of the deletion, of `save`, of the deletion, and so on."""
    monkeypatch.setattr(key_scan, "_STEP", 4)
    raw = redis_store.raw
    with (
        SyncTally.from_url(redis_store.url, user_ids=str) as tally,
        SyncTally.from_url(redis_store.url, user_ids=str) as other,
    ):
        cuts = itertools.product(range(0, 60, 2), range(1, 12), range(1, 30, 3))
        for before, of_save, after in itertools.islice(cuts, 0, None, 13):
            fill(tally, raw, 1)
            every = tally.day("a", DAY) | tally.day("b", DAY) | tally.unique("z")
            saves = paused(saving.save(tally._context, every, "saved"), tally)
            deletion = paused(delete_all(other._context, "trackist_"), other)
            for steps, count in ((deletion, before), (saves, of_save), (deletion, after)):
                for _ in range(count):
                    next(steps, None)
            for _ in itertools.chain(saves, deletion):
                pass
            assert users_of(other, raw) == (set(), 0), (before, of_save, after)
            assert raw.hlen("trackist_ids:forgetting") == 0


def test_deletions_at_the_same_time_end(redis_store: Store) -> None:
    """Each finds the entry of the other one in the journal, or misses its own."""
    raw = redis_store.raw
    with (
        SyncTally.from_url(redis_store.url, user_ids=str) as tally,
        SyncTally.from_url(redis_store.url, user_ids=str) as other,
    ):
        for ahead in range(0, 60, 3):
            fill(tally, raw, 1)
            first, second = (
                paused(delete_all(each._context, "trackist_"), each) for each in (tally, other)
            )
            for _ in range(ahead):
                next(first, None)
            for count, _ in enumerate(itertools.zip_longest(first, second)):
                assert count < 1_000, ahead
            assert users_of(other, raw) == (set(), 0), ahead
            assert raw.hlen("trackist_ids:forgetting") == 0


def test_it_gives_up_if_users_are_forgotten_all_the_time(redis_store: Store, side: str) -> None:
    raw = redis_store.raw
    with (
        SyncTally.from_url(redis_store.url, user_ids=str) as tally,
        SyncTally.from_url(redis_store.url, user_ids=str) as other,
    ):
        fill(tally, raw, 1)
        for number in range(60):
            tally.mark_event("a", f"user-{number}", now=DAY)
        before = users_of(tally, raw)
        numbers = iter(range(60))

        def endless() -> Any:
            query = saving.save(tally._context, tally.day("a", DAY) & tally.day("b", DAY), "saved")
            effect = next(query)
            try:
                while True:
                    other.forget(f"user-{next(numbers)}")
                    try:
                        outcome = yield effect
                    except StoreError as error:
                        effect = query.throw(error)
                    else:
                        effect = query.send(outcome)
            except StopIteration as end:
                return end.value

        if side == "in_redis":
            assert tally.backend.reader.answer(endless(), None) == 4
            return
        with pytest.raises(StoreNotReadyError, match="users were forgotten"):
            tally.backend.reader.answer(endless(), None)
        assert users_of(tally, raw) == before
        assert not raw.keys("*tmp*")


@pytest.mark.parametrize("shards", [2, 5])
def test_with_shards(redis_store: Store, shards: int) -> None:
    options: Any = {"user_ids": str, "shards": shards}
    with SyncTally.from_url(redis_store.url, **options) as tally:
        fill(tally, redis_store.raw, shards)
        assert tally.save(tally.day("a", DAY) - tally.unique("z"), as_="saved") == 0
        assert tally.save(tally.day("a", DAY), as_="saved") == 4
        assert set(tally.users(tally.unique("saved"))) == set(USERS)
        tally.forget(cast("Any", "bob"))
        assert tally.save(tally.unique("z"), as_="saved") == 3
        assert users_of(tally, redis_store.raw) == ({"ann", "eve", "joe"}, 3)
