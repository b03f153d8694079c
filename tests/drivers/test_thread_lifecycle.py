"""A blocking tally that is closed, or inherited by a forked process, while threads use it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tallymark import ClosedError, StoreError, SyncTally
from threads import MONDAY, TOLERANCE, Calls, marking, until_waiting
from wires import wired

if TYPE_CHECKING:
    from stores import Store


def test_closed_while_threads_mark(redis_store: Store) -> None:
    """Each call ends with a result or an error; what was acknowledged is there."""
    threads = 16
    clients = len(redis_store.raw.client_list())
    acknowledged: set[int] = set()
    users = itertools.count()
    for _ in range(15):
        tally = SyncTally.from_url(redis_store.url)
        ready = threading.Semaphore(0)

        def mark(tally: SyncTally = tally, ready: threading.Semaphore = ready) -> None:
            while True:
                user = next(users)
                tally.mark_event("a", user, now=MONDAY)
                acknowledged.add(user)
                ready.release()

        calls = Calls([mark] * threads)
        for _ in range(5 * threads):
            assert ready.acquire(timeout=30)
        tally.close()
        for each in calls.ended():
            assert isinstance(each.error, (ClosedError, StoreError))
        assert tally.stats().waiting == 0
    assert acknowledged <= redis_store.bits()["trackist_a_2026-11-23"]
    end = time.monotonic() + 10
    while len(redis_store.raw.client_list()) > clients:
        assert time.monotonic() < end, "connections are left open"
        time.sleep(0.01)


@pytest.mark.timed
def test_closed_while_redis_is_silent(redis_store: Store) -> None:
    """The calls of other threads go on: with an answer, or until their deadline."""
    with wired(redis_store.url) as wire:
        tally = SyncTally.from_url(wire.url, timeout=20)
        tally.mark_event("a", 0, now=MONDAY)
        wire.swallow()
        short = Calls(marking(tally, "a", range(1, 5), timeout=0.5))
        calls = Calls(marking(tally, "a", range(11, 19)))
        until_waiting(tally, 12)
        tally.close()
        with pytest.raises(ClosedError):
            tally.mark_event("a", 99)
        for each in short.ended():
            assert isinstance(each.error, StoreError)
            assert each.seconds < 0.5 + TOLERANCE
        wire.heal()
        marked = {
            user
            for user, each in zip(range(11, 19), calls.ended(), strict=True)
            if each.error is None
        }
        end = time.monotonic() + 10
        while wire.connections:
            assert time.monotonic() < end, "connections are left open"
            time.sleep(0.01)
    assert marked == set(range(11, 19))
    assert marked <= redis_store.bits()["trackist_a_2026-11-23"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("how", ["os.fork", "multiprocessing"])
def test_forked_while_threads_mark(redis_store: Store, how: str) -> None:
    """The child uses the inherited tally, with connections of its own; the parent goes on."""
    script = """
        import itertools, multiprocessing, os, sys, threading, warnings
        from tallymark import Granularity, SyncTally

        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads
        url, how = sys.argv[1:]
        tally = SyncTally.from_url(url)
        errors, stopped = [], threading.Event()
        done = [0] * 8

        def mark(tally, event, first, count, step):
            users = itertools.count(first, step)
            for user in itertools.islice(users, count):
                if stopped.is_set():
                    return
                flipped = tally.mark_unique(event, user)
                assert flipped == Granularity.UNIQUE, (event, user, flipped)
                assert user % 5 or tally.contains(tally.unique(event), user)
                if count is None:
                    done[first] += 1

        def guarded(*arguments):
            try:
                mark(*arguments)
            except BaseException as error:
                errors.append(repr(error))

        def child(number):
            stopped.clear()
            threads = [
                threading.Thread(target=guarded, args=(tally, f"child{number}", at, 50, 4))
                for at in range(4)
            ]
            for thread in threads:
                thread.start()
            mark(tally, f"main{number}", 0, 50, 1)
            for thread in threads:
                thread.join()
            assert not errors, errors
            tally.close()

        def forked(number):
            if how == "multiprocessing":
                process = multiprocessing.get_context("fork").Process(target=child, args=(number,))
                process.start()
                process.join(30)
                assert process.exitcode == 0, process.exitcode
                return
            pid = os.fork()
            if not pid:
                code = 1
                try:
                    child(number)
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitpid(pid, 0)[1] == 0

        threads = [
            threading.Thread(target=guarded, args=(tally, "parent", at, None, 8), daemon=True)
            for at in range(8)
        ]
        for thread in threads:
            thread.start()
        for number in range(8):
            before = min(done)
            forked(number)
            tally.mark_unique("between", number)
            while min(done) < before + 5 and not errors:
                pass
        stopped.set()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        assert not errors, errors
        assert tally.stats().waiting == 0
        tally.close()
        print("done", *done)
        """
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), redis_store.url, how],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (run.returncode, run.stderr) == (0, ""), run.stdout + run.stderr
    bits = redis_store.bits()
    for number in range(8):
        assert bits[f"trackist_child{number}_u"] == set(range(200))
        assert bits[f"trackist_main{number}_u"] == set(range(50))
    marked = bits["trackist_parent_u"]
    for at, count in enumerate(run.stdout.split()[1:]):
        assert set(range(at, 8 * int(count), 8)) <= marked
