"""The calls of one thread act in their order, whatever happens to them and to those of others."""

from __future__ import annotations

import contextlib
import functools
import random
import threading
import time
from typing import TYPE_CHECKING

import pytest
import redis

from servers import RedisProcess, running
from tallymark import StoreError, SyncTally
from threads import Calls
from wires import Wire, wired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def stalling(server: RedisProcess, wire: Wire) -> Iterator[None]:
    """Suspend the server from time to time; requests wait in its sockets."""
    with _again_and_again(server.freeze, server.thaw):
        yield


@contextlib.contextmanager
def delayed(server: RedisProcess, wire: Wire) -> Iterator[None]:
    """Delay all data."""
    wire.delay = 0.1
    yield
    wire.heal()


@contextlib.contextmanager
def cut(server: RedisProcess, wire: Wire) -> Iterator[None]:
    """Cut all connections from time to time; the server gets what was sent before."""
    with _again_and_again(wire.cut_all, lambda: None):
        yield


@contextlib.contextmanager
def _again_and_again(begin: Callable[[], object], end: Callable[[], object]) -> Iterator[None]:
    over = threading.Event()

    def run() -> None:
        while not over.wait(0.05):
            begin()
            over.wait(0.15)
            end()

    thread = threading.Thread(target=run)
    thread.start()
    yield
    over.set()
    thread.join()


class Ordered:
    """One thread's calls on its own users, and what their bits can be after them.

    A call that has ended takes effect before a call that begins then, or never, whatever its
    result and that of other threads: the tally sends nothing of a call that has ended. So after
    a call that was acknowledged, only its own effect is there.
    """

    def __init__(self, tally: SyncTally, number: int) -> None:
        self.possible: dict[int, set[bool]] = {10 * number + at: {False} for at in range(4)}
        self.acknowledged = self.failed = 0
        self._tally = tally
        self._chance = random.Random(number)

    def step(self) -> None:
        """Mark or unmark a user, with little time or much."""
        user = self._chance.choice(list(self.possible))
        verb, is_set = self._chance.choice((("mark_unique", True), ("unmark_unique", False)))
        timeout = self._chance.choice((0.08, 0.15, 10.0))
        try:
            getattr(self._tally, verb)("a", user, timeout=timeout)
        except StoreError as error:
            self.failed += 1
            if "may or may not have been applied" in str(error):
                self.possible[user] = {is_set, *self.possible[user]}
        else:
            self.acknowledged += 1
            self.possible[user] = {is_set}
            if self._chance.random() < 0.3:
                event = self._tally.unique("a")
                assert self._tally.contains(event, user, timeout=10) == is_set


@pytest.mark.parametrize("fault", [stalling, delayed, cut])
def test_calls_of_one_thread_act_in_their_order(
    fault: Callable[[RedisProcess, Wire], contextlib.AbstractContextManager[None]],
) -> None:
    """Also a call after one that has failed, and also if calls of others are sent again."""
    stopped = threading.Event()

    def run(ordered: Ordered) -> None:
        while not stopped.is_set():
            ordered.step()

    with running(RedisProcess()) as server, wired(server.url) as wire:
        # A suspended server takes what has come first, when it goes on. A wire has a thread for
        # each connection: what it held back of a closed one might pass after a newer one's.
        url = wire.url if fault is not stalling else server.url
        with SyncTally.from_url(url, timeout=10) as tally:
            tally.mark_unique("a", 1000)
            threads = [Ordered(tally, number) for number in range(12)]
            with fault(server, wire):
                calls = Calls(functools.partial(run, each) for each in threads)
                time.sleep(2)  # how long the faults last
            stopped.set()
            assert not any(each.error for each in calls.ended())
            retries = tally.stats().retries
        with redis.Redis(port=server.port) as raw:
            for each in threads:
                for user, possible in each.possible.items():
                    assert bool(raw.getbit("trackist_a_u", user)) in possible, user
    assert sum(each.acknowledged for each in threads) > 10
    # Calls have failed, or have been made again.
    assert sum(each.failed for each in threads) > 10 or retries > 10
