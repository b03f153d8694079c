"""`delete_all` with ids of any type: marks, other calls and faults between its requests."""

from __future__ import annotations

import itertools
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from deletions import PREFIX, checked, deletion, has_traces, requests, with_merge_that_crashed
from erasures import (
    ANN,
    BOB,
    EVE,
    LAYOUTS,
    NOBODY,
    USERS,
    Crashed,
    Inspector,
    crashing,
    fill,
    fill_blocking,
    losing_an_answer,
    losing_writes,
    opened,
    opened_blocking,
    repeating,
    run,
    step_by_step,
)

from facades import ASYNC
from tallymark import StoreUnavailableError
from tallymark._core.keys import key_slot
from tallymark._reading import id_deletion, key_scan
from tallymark._reading.user_bits import forget

if TYPE_CHECKING:
    from facades import Facade
    from stores import Store


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each request change two keys, and examine about four."""
    monkeypatch.setattr(id_deletion, "_STEP", 2)
    monkeypatch.setattr(id_deletion, "_FIELDS", 1)
    monkeypatch.setattr(key_scan, "_STEP", 4)


# --- concurrency


@pytest.mark.exhaustive
@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("options", LAYOUTS)
def test_marks_before_any_step(redis_store: Store, options: Any) -> None:
    """Another tally, with numbers in its cache, marks before one of the requests, or all."""
    count = requests(redis_store.url, options)
    assert count >= 8
    for wanted in [*range(count + 1), None]:
        redis_store.raw.flushdb()
        with (
            opened_blocking(redis_store.url, **options) as tally,
            opened_blocking(redis_store.url, **options) as other,
        ):
            fill_blocking(other, USERS)
            with_merge_that_crashed(redis_store.url, **options)

            def mark(step: int, at: int | None = wanted, marking: Any = other) -> None:
                if at in {step, None}:
                    for user in (EVE, uuid.uuid4()):
                        marking.mark_unique(f"e{step}", user)
                        marking.mark_unique("late", user)

            run(tally, step_by_step(deletion(tally), mark))
            found = checked(redis_store)  # no bit is without an id
            assert not has_traces(redis_store, options, [ANN, BOB])
            if wanted == 0:
                assert (found.numbers, found.users) == ({}, {})
            for user in (EVE, ANN):
                other.mark_unique("late", user)
            now = checked(redis_store).users["late_u"]
            assert {EVE, ANN} <= now
            assert (
                tally.count(tally.unique("late"))
                == len(now)
                == len(set(tally.users(tally.unique("late"))))
            )
            tally.delete_all(PREFIX)
            found = checked(redis_store)
            assert (found.numbers, found.users) == ({}, {})


@pytest.mark.exhaustive
@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("options", LAYOUTS)
@pytest.mark.parametrize("verb", ["forget", "merge"])
def test_users_are_forgotten_before_any_step(redis_store: Store, options: Any, verb: str) -> None:
    """Also users who were marked after the deletion has begun: no bit of them is left."""
    count = requests(redis_store.url, options)
    for wanted in range(count):
        redis_store.raw.flushdb()
        with (
            opened_blocking(redis_store.url, **options) as tally,
            opened_blocking(redis_store.url, **options) as other,
        ):
            fill_blocking(other, USERS)
            with_merge_that_crashed(redis_store.url, **options)
            begun = False

            def erase(step: int, at: int = wanted, marking: Any = other) -> None:
                nonlocal begun
                if step == at and not begun:  # it may begin anew
                    begun = True
                    marking.mark_unique("late", NOBODY)
                    arguments = (NOBODY,) if verb == "forget" else (NOBODY, EVE)
                    assert getattr(marking, verb)(*arguments) == 1

            run(tally, step_by_step(deletion(tally), erase))
            found = checked(redis_store)
            assert found.numbers.keys() <= ({BOB, EVE} if verb == "merge" else {BOB})
            assert found.forgetting == 0
            tally.delete_all(PREFIX)
            found = checked(redis_store)
            assert (found.numbers, found.users) == ({}, {})


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("options", LAYOUTS)
def test_a_forget_that_has_begun_meanwhile(redis_store: Store, options: Any) -> None:
    """The entry of a number that was given meanwhile stays in the journal until it is finished."""
    for step in range(requests(redis_store.url, options)):
        redis_store.raw.flushdb()
        with (
            opened_blocking(redis_store.url, **options) as tally,
            opened_blocking(redis_store.url, **options) as other,
        ):
            fill_blocking(other, USERS)

            def erase(number: int, at: int = step, marking: Any = other) -> None:
                if number == at:
                    marking.mark_unique("late", NOBODY)
                    with pytest.raises(Crashed):
                        run(marking, crashing(forget(marking.backend.context, NOBODY), 3))

            run(tally, step_by_step(deletion(tally), erase))
            checked(redis_store)  # a bit has an id, or an entry in the journal
            other.forget(EVE)
            found = checked(redis_store)
            assert (found.users.get("late_u", set()), found.forgetting) == (set(), 0)


# --- faults


@pytest.mark.exhaustive
@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("fault", [crashing, repeating, losing_an_answer])
@pytest.mark.parametrize("options", LAYOUTS)
def test_a_fault_at_any_step(redis_store: Store, options: Any, fault: Any) -> None:
    """Another tally marks behind it with the numbers that it has cached; a repetition does all."""
    for step in range(requests(redis_store.url, options)):
        redis_store.raw.flushdb()
        with (
            opened_blocking(redis_store.url, **options) as tally,
            opened_blocking(redis_store.url, **options) as other,
        ):
            fill_blocking(other, USERS)
            with_merge_that_crashed(redis_store.url, **options)
            if fault is repeating:
                run(tally, fault(deletion(tally), step))
            else:
                with pytest.raises((Crashed, StoreUnavailableError)):
                    run(tally, fault(deletion(tally), step))
                other.mark_unique("late", EVE)
                assert other.contains(other.unique("late"), EVE) in {True, False}
                other.mark_unique("late", EVE)
                tally.delete_all(PREFIX)
            found = checked(redis_store)
            assert (found.numbers, found.users, found.forgetting) == ({}, {}, 0)
            assert not has_traces(redis_store, options, USERS)
            other.mark_unique("late", EVE)
            assert other.count(other.unique("late")) == 1
            assert checked(redis_store).users["late_u"] == {EVE}


@pytest.mark.exhaustive
@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("options", LAYOUTS)
def test_a_failover_at_any_step(redis_store: Store, options: Any) -> None:
    """The server loses its last writes; no user has a number without an id, or another's bit."""
    raw = redis_store.raw
    pairs = itertools.combinations(range(requests(redis_store.url, options)), 2)
    for step, lost in itertools.islice(pairs, 0, None, 4):  # all would take a minute
        raw.flushdb()
        fail_over = losing_writes(raw, step, lost, lambda: list(raw.keys("*")))
        with opened_blocking(redis_store.url, **options) as tally:
            fill_blocking(tally, USERS)
            run(tally, step_by_step(deletion(tally), fail_over))
            places = Inspector(redis_store, uuid.UUID, **options)
            places.numbers(USERS)  # asserts that each number has its id
            tally.mark_unique("late", EVE)
            assert set(tally.users(tally.unique("late"))) == {EVE}
            tally.delete_all(PREFIX)
            found = checked(redis_store)
            assert (found.numbers, found.users) == ({}, {})


async def test_while_a_slot_moves(facade: Facade, cluster_store: Any) -> None:
    """The call waits until all keys of the slot are at one node."""
    inspector, cluster = Inspector(cluster_store, uuid.UUID), cluster_store.raw._cluster
    shard = inspector.dictionary.shard(inspector.dictionary.ids.key(ANN))
    slot = key_slot(inspector.dictionary.key(shard, "stamp"))
    async with opened(ASYNC, cluster_store.url, uuid.UUID) as tally:
        await fill(tally, USERS)
    source = cluster.owner(slot)
    target = next(node for node in cluster.masters() if node is not source)
    try:
        async with opened(facade, cluster_store.url, uuid.UUID, timeout=0.3) as tally:
            cluster.begin_move(slot, target)
            for _ in range(3):
                cluster.move_keys(slot, source, target, 2)
                with pytest.raises(StoreUnavailableError):
                    await tally.delete_all(PREFIX)
            while cluster.move_keys(slot, source, target, 10):
                pass
            cluster.end_move(slot, target)
        cluster.settle()
        async with opened(facade, cluster_store.url, uuid.UUID) as tally:
            await tally.delete_all(PREFIX)
        found = checked(cluster_store)
        assert (found.numbers, found.users) == ({}, {})
    finally:
        cluster.move(slot, source)
        cluster.settle()


@pytest.mark.usefixtures("small_steps")
def test_a_slot_moves_during_the_scans(cluster_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that come to a node behind its cursor are found nevertheless."""
    monkeypatch.setattr(key_scan, "_STEP", 1)
    inspector, cluster = Inspector(cluster_store, uuid.UUID), cluster_store.raw._cluster
    of_shard = inspector.dictionary.shard
    users = [
        user
        for user in map(uuid.UUID, map("{:032x}".format, range(400)))
        if of_shard(user.int) == 5
    ]
    slot = key_slot(inspector.dictionary.key(5, "stamp"))
    home = cluster.owner(slot)
    other = next(node for node in cluster.masters() if node is not home)
    count = 0

    def observe(number: int) -> None:
        nonlocal count
        count = number

    # The first deletion counts the requests.
    for step in [10**6, *range(-60, 0, 5)]:
        cluster.flush()
        with opened_blocking(cluster_store.url) as tally:
            for number, user in enumerate(users):
                tally.mark_unique(f"e{number}", user)

            def move(number: int, at: int = step) -> None:
                if at > 0:
                    observe(number)
                elif number == count + at:
                    cluster.move(slot, other)  # noqa: B023

            run(tally, step_by_step(deletion(tally), move))
        found = checked(cluster_store)
        assert (found.numbers, found.users) == ({}, {}), step
        if step < 0:
            home, other = other, home
        cluster.settle()
