"""Buffered marks of the blocking facade: threads, forks, signal handlers, the end of a process."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from servers import free_port
from tallymark import (
    ClosedError,
    InvalidValueError,
    OverloadedError,
    ReentrantCallError,
    StoreTimeoutError,
    SyncTally,
    WrongKeyTypeError,
)

if TYPE_CHECKING:
    from stores import Store


def test_threads_mark_and_flush(store: Store) -> None:
    with SyncTally.from_url(store.url) as tally, tally.buffered() as buffer:

        def work(first: int) -> None:
            for user in range(first, first + 500):
                buffer.mark_unique("flag", user)

        threads = [threading.Thread(target=work, args=(500 * number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        buffer.flush()
        assert buffer.stats() == (2_000, 2_000, 0, 0, 0)
    assert store.bits() == {"trackist_flag_u": set(range(2_000))}


def test_random_programs_in_order(store: Store) -> None:
    chance = random.Random(9)
    expected: set[int] = set()
    with SyncTally.from_url(store.url) as tally, tally.buffered() as buffer:
        for _ in range(3_000):
            user = chance.randrange(20)
            if chance.random() < 0.5:
                buffer.mark_unique("flag", user)
                expected.add(user)
            else:
                buffer.unmark_unique("flag", user)
                expected.discard(user)
    assert store.bits() == ({"trackist_flag_u": expected} if expected else {})


def test_full_and_bad_arguments() -> None:
    with SyncTally.from_url(f"redis://127.0.0.1:{free_port()}/0", timeout=0.3) as tally:
        raising, dropping = tally.buffered(max_size=2), tally.buffered(max_size=2, on_full="drop")
        for user in (1, 2):
            raising.mark_event("a", user)
        with pytest.raises(OverloadedError):
            raising.mark_event("a", 3)
        for user in range(5):
            dropping.mark_event("b", user)
        assert dropping.stats() == (2, 0, 3, 0, 2)
        with pytest.raises(InvalidValueError):
            raising.mark_event("a", -1)
        with pytest.raises(StoreTimeoutError, match="2 marks were not sent"):
            raising.flush(0.01)
        raising.flush(5)
        assert raising.stats() == (2, 0, 0, 2, 0)
        dropping.close(5)
        assert dropping.stats() == (2, 0, 3, 2, 0)
        with pytest.raises(ClosedError):
            dropping.mark_event("b", 1)


def test_refused_marks_and_their_neighbours(redis_store: Store) -> None:
    redis_store.raw.acl_setuser(
        "halves", enabled=True, nopass=True, keys=["trackist_ok*"], commands=["+@all"]
    )
    try:
        url = redis_store.url.replace("redis://", "redis://halves:x@", 1)
        failed: list[Any] = []
        with SyncTally.from_url(url) as tally:
            with tally.buffered(on_error=lambda _, marks: failed.extend(marks)) as buffer:
                for user in range(500):
                    buffer.mark_unique("ok" if user % 2 else "denied", user)
            assert buffer.stats() == (500, 250, 0, 250, 0)
        assert {mark.user_id for mark in failed} == set(range(0, 500, 2))
        assert redis_store.bits() == {"trackist_ok_u": set(range(1, 500, 2))}
    finally:
        redis_store.raw.acl_deluser("halves")


def test_on_error_that_marks_flushes_and_closes(redis_store: Store) -> None:
    redis_store.raw.lpush("trackist_bad_u", 1)
    seen: list[Any] = []
    ended = threading.Event()

    def on_error(error: Exception, marks: Any) -> None:
        seen.append(error)
        if marks[0].user_id < 3:
            buffer.mark_unique("bad", marks[0].user_id + 1)
            return
        try:
            buffer.flush()
        except ReentrantCallError as reentrant:
            seen.append(reentrant)
        buffer.close()
        ended.set()

    with SyncTally.from_url(redis_store.url) as tally:
        buffer = tally.buffered(on_error=on_error)
        buffer.mark_unique("bad", 0)
        assert ended.wait(10)
        assert buffer.stats() == (4, 0, 0, 4, 0)
    assert [type(error) for error in seen] == 4 * [WrongKeyTypeError] + [ReentrantCallError]


def test_closing_the_tally_sends_the_marks(store: Store) -> None:
    tally = SyncTally.from_url(store.url)
    buffer = tally.buffered()
    for user in range(100):
        buffer.mark_unique("flag", user)
    tally.close()
    assert buffer.stats() == (100, 100, 0, 0, 0)
    assert store.bits() == {"trackist_flag_u": set(range(100))}


@pytest.mark.timed  # without coverage, which has a lock, in which the handler may interrupt it
def test_signal_handlers_may_mark(redis_store: Store) -> None:
    """Also one that interrupts another one, and the start of the thread."""
    users = itertools.count()
    depth = deepest = 0

    def handler(*_: object) -> None:
        nonlocal depth, deepest
        depth += 1
        deepest = max(depth, deepest)
        if depth < 3:  # else, on a slow machine, each one would be interrupted by another one
            signal.setitimer(signal.ITIMER_REAL, 0.00002)
        buffer.mark_unique("signal", next(users))
        depth -= 1
        if not depth:
            signal.setitimer(signal.ITIMER_REAL, 0.0002)

    with SyncTally.from_url(redis_store.url) as tally, tally.buffered(max_size=10**6) as buffer:
        previous = signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0002)
        try:
            for user in range(20_000):
                buffer.mark_unique("flag", user)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        buffer.flush()
        marked = next(users)
        assert buffer.stats() == (20_000 + marked, 20_000 + marked, 0, 0, 0)
    assert marked
    assert deepest > 1
    assert redis_store.bits()["trackist_signal_u"] == set(range(marked))


PROGRAM = """
import multiprocessing, os, sys
from tallymark import SyncTally
tally = SyncTally.from_url(sys.argv[1])
buffer = tally.buffered()
def child():
    assert buffer.stats() == (0, 0, 0, 0, 0), buffer.stats()
    for user in range(100, 200):
        buffer.mark_unique("child", user)
for user in range(100):
    buffer.mark_unique("parent", user)
if sys.argv[2] == "fork":
    if os.fork() == 0:
        child()
        sys.exit(3)
    os.wait()
elif sys.argv[2] == "multiprocessing":
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
elif sys.argv[2] == "interrupt":
    raise KeyboardInterrupt
sys.exit(1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("how", ["exit", "interrupt", "fork", "multiprocessing"])
def test_the_end_of_a_process_sends_the_marks(redis_store: Store, how: str) -> None:
    arguments = [sys.executable, "-c", PROGRAM, redis_store.url, how]
    ran = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert "AssertionError" not in ran.stderr
    expected = {"trackist_parent_u": set(range(100))}
    if how in {"fork", "multiprocessing"}:
        expected["trackist_child_u"] = set(range(100, 200))
    assert redis_store.bits() == expected


def test_marks_that_follow_each_other_share_a_transaction(redis_store: Store) -> None:
    """They gather for a moment, and leave without a `flush`."""
    with SyncTally.from_url(redis_store.url, timeout=60) as tally, tally.buffered() as buffer:
        tally.mark_unique("flag", 0)
        batches = tally.stats().batches
        for user in range(1, 20):
            buffer.mark_unique("flag", user)
        end = time.monotonic() + 30
        while buffer.stats().waiting:
            assert time.monotonic() < end
            time.sleep(0.001)
        assert tally.stats().batches - batches < 5
    assert redis_store.bits() == {"trackist_flag_u": set(range(20))}


def test_dropped_marks_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Once, and the number of the others when the buffer is closed."""
    url = f"redis://127.0.0.1:{free_port()}/0"
    with SyncTally.from_url(url, timeout=0.2) as tally:
        with tally.buffered(max_size=2, on_full="drop") as buffer:
            for user in range(7):
                buffer.mark_unique("flag", user)
        assert buffer.stats().dropped == 5
    messages = [record.getMessage() for record in caplog.records]
    assert "1 marks were dropped: the buffer is full, of max_size=2" in messages
    assert "4 more marks were dropped" in messages
