"""Many threads use one blocking tally: what each call gets, and what is in Redis afterwards."""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tallymark import (
    Granularity,
    OverloadedError,
    PermissionDeniedError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    SyncTally,
    WrongKeyTypeError,
)
from threads import KEYS, MONDAY, NEW, TOLERANCE, Calls, Ended, Lag, ended, marking, until_waiting
from wires import Wire, wired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stores import Store


# --- results


def test_each_flip_is_reported_once(redis_store: Store) -> None:
    """To the first of several threads that mark, or unmark, the same users at the same time."""
    threads, turns, users = 16, 150, 8
    flips: list[Counter[tuple[Granularity, int]]] = [Counter() for _ in range(threads)]
    begin = threading.Barrier(threads)

    with SyncTally.from_url(redis_store.url) as tally:

        def mark(number: int) -> None:
            chance = random.Random(number)
            begin.wait()
            for _ in range(turns):
                user = chance.randrange(users)
                if chance.random() < 0.6:
                    flipped, sign = tally.mark_event("a", user, now=MONDAY), 1
                else:
                    flipped, sign = tally.unmark_event("a", user, now=MONDAY), -1
                for granularity in flipped:
                    flips[number][granularity, user] += sign

        calls = Calls(functools.partial(mark, number) for number in range(threads))
        assert not any(each.error for each in calls.ended())
        stats = tally.stats()
        assert (stats.retries, stats.errors, stats.waiting) == (0, 0, 0)
        assert stats.marks == threads * turns
    bits = redis_store.bits()
    for granularity, key in KEYS.items():
        for user in range(users):
            # Marks and unmarks that flip a bit alternate.
            total = sum(each[granularity, user] for each in flips)
            assert total == (user in bits.get(key.format("a"), ())), (granularity, user)


def test_first_marks_of_the_same_users(redis_store: Store) -> None:
    threads, users = 16, 100
    with SyncTally.from_url(redis_store.url) as tally:

        def mark(number: int) -> list[Granularity]:
            order = random.Random(number).sample(range(users), users)
            flipped = {user: tally.mark_event("a", user, now=MONDAY) for user in order}
            return [flipped[user] for user in range(users)]

        done = Calls(functools.partial(mark, number) for number in range(threads)).ended()
    for user in range(users):
        counts = Counter(flag for each in done for flag in each.result[user])
        assert counts == Counter(NEW), user


# --- timeouts


@contextlib.contextmanager
def paused(wire: Wire, raw: Any) -> Iterator[None]:
    """Delay all commands."""
    raw.execute_command("CLIENT", "PAUSE", "1000")
    yield


@contextlib.contextmanager
def black_hole(wire: Wire, raw: Any) -> Iterator[None]:
    """Lose all packets."""
    wire.swallow()
    yield
    wire.heal()


@contextlib.contextmanager
def slow(wire: Wire, raw: Any) -> Iterator[None]:
    """Delay all data by more than the short timeout."""
    wire.delay = 0.1
    yield
    wire.heal()


@pytest.mark.timed
@pytest.mark.parametrize("connected", [True, False], ids=["connected", "not connected"])
@pytest.mark.parametrize("fault", [paused, black_hole, slow])
def test_short_timeouts_beside_long_ones(
    redis_store: Store,
    fault: Callable[[Wire, Any], contextlib.AbstractContextManager[None]],
    connected: bool,
) -> None:
    """The short ones end in time and say truly whether they were sent; the long ones succeed."""
    short, long, threads = 0.05, 10.0, 8
    stopped = threading.Event()
    hasty = itertools.count(100_000)
    over: list[tuple[int, Ended]] = []

    def give_up() -> None:
        while not stopped.is_set():
            user = next(hasty)
            over.append((user, ended(*marking(tally, "a", [user], timeout=short))))

    def last(number: int) -> list[Granularity]:
        """Mark one user after the other; return what each call flipped."""
        flipped = []
        for user in itertools.count(10_000 * number):
            flipped.append(tally.mark_event("a", user, now=MONDAY))
            if stopped.is_set():
                break
        return flipped

    with wired(redis_store.url) as wire, SyncTally.from_url(wire.url, timeout=long) as tally:
        if connected:
            tally.mark_event("a", 0, now=MONDAY)
        with Lag() as lag:
            with fault(wire, redis_store.raw):
                hasty_calls = Calls([give_up] * threads)
                patient_calls = Calls(functools.partial(last, number) for number in range(1, 9))
                time.sleep(1)  # how long the fault lasts
            stopped.set()
            assert not any(each.error for each in hasty_calls.ended())
        patient = patient_calls.ended()
        assert not any(each.error for each in patient)
        assert tally.stats().waiting == 0
        assert tally.mark_event("a", 99_999, now=MONDAY) == NEW
        if not tally.stats().retries:
            assert all(flipped == NEW for each in patient for flipped in each.result)
    bits = redis_store.bits()
    # The caller waits for its turn among the threads to send, to give up and to return.
    assert max(each.seconds for _, each in over) < short + TOLERANCE + 3 * lag.worst
    assert any(each.error for _, each in over)
    for key in KEYS.values():
        marked = bits[key.format("a")]
        for number, each in enumerate(patient, 1):
            first = 10_000 * number
            assert set(range(first, first + len(each.result))) <= marked
        for user, each in over:
            if each.error is None:
                assert user in marked
            elif "nothing was sent" in str(each.error):
                assert user not in marked
            else:
                assert "may or may not have been applied" in str(each.error)
                assert isinstance(each.error, (StoreTimeoutError, StoreUnavailableError))


@pytest.mark.timed
def test_a_short_timeout_behind_a_call_that_waits(redis_store: Store) -> None:
    """Its error is true later too: also if the call before it is sent again."""
    with wired(redis_store.url) as wire, SyncTally.from_url(wire.url, timeout=20) as tally:
        tally.mark_event("a", 0, now=MONDAY)
        wire.swallow()
        calls = Calls(marking(tally, "a", range(1, 9)))
        until_waiting(tally, 8)
        short = Calls(marking(tally, "a", range(11, 19), timeout=0.1)).ended()
        wire.cut_all()
        wire.heal()
        assert [each.result for each in calls.ended()] == [NEW] * 8
        assert tally.mark_event("a", 20, now=MONDAY) == NEW
    marked = redis_store.bits()["trackist_a_2026-11-23"]
    for user, each in zip(range(11, 19), short, strict=True):
        assert isinstance(each.error, StoreTimeoutError)
        assert each.seconds < 0.1 + TOLERANCE
        if "nothing was sent" in str(each.error):
            assert user not in marked
    assert marked - set(range(11, 19)) == {*range(9), 20}


@pytest.mark.parametrize("fault", [paused, black_hole, slow])
def test_reads_with_short_timeouts_beside_long_ones(
    redis_store: Store, fault: Callable[[Wire, Any], contextlib.AbstractContextManager[None]]
) -> None:
    """Each answer is that to its own question, also if others gave up and left theirs unread."""
    stopped = threading.Event()
    with wired(redis_store.url) as wire, SyncTally.from_url(wire.url, timeout=10) as tally:
        tally.mark_many("a", range(0, 100, 2), now=MONDAY)
        day, week = tally.day("a", MONDAY), tally.week("a", MONDAY)
        given_up: list[StoreError] = []

        def read(number: int, timeout: float) -> None:
            for user in itertools.count(number):
                try:
                    if user % 5:
                        found = tally.contains(day, user % 100, timeout=timeout)
                        assert found is (user % 2 == 0)
                    else:
                        assert tally.count(day & week, timeout=timeout) == 50
                except StoreError as error:
                    if timeout > 1:
                        raise
                    given_up.append(error)
                if stopped.is_set():
                    return

        with fault(wire, redis_store.raw):
            calls = Calls(
                functools.partial(read, number, 0.05 if number % 2 else 10) for number in range(16)
            )
            time.sleep(1)  # how long the fault lasts
        stopped.set()
        assert not any(each.error for each in calls.ended())
    assert given_up
    kinds = (StoreTimeoutError, StoreUnavailableError)
    assert all(isinstance(each, kinds) for each in given_up)


# --- errors


def test_a_key_of_the_wrong_type_among_others(redis_store: Store) -> None:
    """Only the calls of its event fail, also if all share a transaction."""
    redis_store.raw.rpush("trackist_bad_W2026-48", "no bitmap")
    with wired(redis_store.url) as wire, SyncTally.from_url(wire.url) as tally:
        tally.mark_event("a", 0, now=MONDAY)
        for turn in range(5):
            wire.swallow()
            users = range(100 * turn + 1, 100 * turn + 9)
            calls = Calls(
                call
                for pair in zip(
                    marking(tally, "a", users), marking(tally, "bad", users), strict=True
                )
                for call in pair
            )
            until_waiting(tally, 16)
            wire.heal()
            done = calls.ended()
            assert [each.result for each in done[::2]] == [NEW] * 8
            assert {type(each.error) for each in done[1::2]} == {WrongKeyTypeError}
            assert len({id(each.error) for each in done[1::2]}) == 8
            assert all("trackist_bad_W2026-48" in str(each.error) for each in done[1::2])
    redis_store.raw.delete("trackist_bad_W2026-48")
    marked = {100 * turn + user for turn in range(5) for user in range(1, 9)}
    assert redis_store.bits()["trackist_a_2026-11-23"] == {0, *marked}
    assert redis_store.bits()["trackist_bad_2026-11-23"] == marked  # as README says


def test_marks_that_are_not_permitted_among_others(redis_store: Store) -> None:
    """Redis discards a transaction with one of them; the other marks are applied all the same."""
    rules = ("on", ">secret", "~trackist_good*", "+@all")
    redis_store.raw.execute_command("ACL", "SETUSER", "limited", *rules)
    try:
        with wired(redis_store.url) as wire:
            url = wire.url.replace("redis://", "redis://limited:secret@")
            with SyncTally.from_url(url) as tally:
                tally.mark_event("good", 0, now=MONDAY)
                wire.swallow()
                calls = Calls(
                    [*marking(tally, "good", range(1, 9)), *marking(tally, "bad", range(1, 5))]
                )
                until_waiting(tally, 12)
                wire.heal()
                done = calls.ended()
    finally:
        redis_store.raw.execute_command("ACL", "DELUSER", "limited")
    assert [each.result for each in done[:8]] == [NEW] * 8
    assert {type(each.error) for each in done[8:]} == {PermissionDeniedError}
    assert set(redis_store.bits()) == {key.format("good") for key in KEYS.values()}


def test_calls_beyond_the_bound(redis_store: Store) -> None:
    """They are refused at once and not applied; the others are applied, each once."""
    bound = 8
    with (
        wired(redis_store.url) as wire,
        SyncTally.from_url(wire.url, max_pending=bound, timeout=20) as tally,
    ):
        tally.mark_event("a", 0, now=MONDAY)
        for turn in range(3):
            wire.swallow()
            first = 100 * turn + 1
            calls = Calls()
            for at, call in enumerate(marking(tally, "a", range(first, first + bound))):
                calls.add(call)
                until_waiting(tally, at + 1)
            refused = Calls(marking(tally, "a", range(first + bound, first + 40))).ended()
            assert {type(each.error) for each in refused} == {OverloadedError}
            assert all("nothing was sent" in str(each.error) for each in refused)
            assert max(each.seconds for each in refused) < 2
            wire.heal()
            assert [each.result for each in calls.ended()] == [NEW] * bound
            assert tally.stats().waiting == 0
    expected = {100 * turn + 1 + at for turn in range(3) for at in range(bound)}
    assert redis_store.bits()["trackist_a_2026-11-23"] == {0, *expected}
