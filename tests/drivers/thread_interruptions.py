"""A process whose main thread is interrupted by signals while other threads mark too.

Run as ``thread_interruptions.py WHEN ACTION URL``. The main thread and eight others mark and
read through one tally. WHEN is ``mark`` or ``read``: a trace function delivers the signal at
each line of such a call of the main thread in turn; or ``random``: a timer does, at random
moments, also while the call waits. ACTION is ``mark``: the handler marks and reads; or
``raise``: it raises. Fails with all that went wrong; a call that hangs ends the process with
the stacks of all threads.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import itertools
import linecache
import random
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from interruptions import AT_ONCE, KEPT, RAISED, TRACED, Interrupter

from tallymark import Granularity, SyncTally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The timeout of a call, in seconds, and how late it may end on a busy machine.
TIMEOUT, TOLERANCE = 5.0, 0.3

NEIGHBOURS = 8

#: How long calls are interrupted at random moments, in seconds.
SECONDS = 3.0

#: How often a call is interrupted at its nth line: it has other lines if it waits for others.
TURNS = 2

#: How many calls in a row end before their nth line, before n counts as beyond the last one.
PATIENCE = 20

#: What handlers raise in turn. Some are of types that a connection may raise too.
KINDS = ("key", "soft", "os", "redis", "stop", "timeout")

#: The first ids of the main thread, of its handlers, and of the other threads.
MAIN, HANDLERS, OTHERS = 10, 100_000, 200_000

#: Who is marked before all others, and after them.
KNOWN, LAST = 1, 2


class SignalPoints(Interrupter):
    """Delivers a signal only where Python itself runs signal handlers.

    At the end of a ``with`` statement there is a line of its own, before the lock is released.
    A trace function can interrupt there, but no signal does. A lock that is left there is no
    matter for the thread itself if it is re-entrant, but it is for other threads.
    """

    def trace(self, frame: Any, event: str, arg: Any) -> Any:
        """Trace what is to be interrupted."""
        if event == "line" and _leaves_with(frame):
            return self.trace
        return super().trace(frame, event, arg)


def _leaves_with(frame: Any) -> bool:
    """Return whether a frame has come back to the line of a ``with``, at the end of its block."""
    code, line = frame.f_code, frame.f_lineno
    if not linecache.getline(code.co_filename, line).lstrip().startswith("with "):
        return False
    return bool(frame.f_lasti > min(at for at, _, of in code.co_lines() if of == line))


class Neighbours:
    """Threads that mark without a pause: the event of the main thread, and others.

    Attributes:
        faults: what went wrong.
    """

    def __init__(self, tally: SyncTally) -> None:
        self.faults: list[str] = []
        self._tally = tally
        self._stopped = threading.Event()
        self._marked: list[list[tuple[str, int]]] = [[] for _ in range(NEIGHBOURS)]
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(NEIGHBOURS)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        events = itertools.cycle(("a", "a", f"b{number % 3}"))
        for user in itertools.count(OTHERS + number, NEIGHBOURS):
            if self._stopped.is_set():
                return
            event = next(events)
            began = time.monotonic()
            try:
                self._tally.mark_unique(event, user)
                if user % 3 == 0 and not self._tally.contains(self._tally.unique(event), user):
                    self.faults.append("a read of another thread missed its mark")
            except BaseException as error:  # noqa: BLE001 - it is what is looked at
                self.faults.append(f"a call of another thread ended in {error!r}")
                if not isinstance(error, Exception):
                    return
            else:
                self._marked[number].append((event, user))
            took = time.monotonic() - began
            if took > 2 * TIMEOUT + TOLERANCE:
                self.faults.append(f"a call of another thread took {took:.1f} s")

    def stop(self) -> list[tuple[str, int]]:
        """End all threads; return the events and users that were acknowledged."""
        self._stopped.set()
        end = time.monotonic() + 2 * TIMEOUT
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                self.faults.append("a call of another thread does not end")
        for number, marked in enumerate(self._marked):
            if len(marked) < 20:
                self.faults.append(f"thread {number} got no further than {len(marked)} marks")
        return [mark for marked in self._marked for mark in marked]


class Main:
    """The main thread's calls, and its signal handler.

    Attributes:
        faults: what went wrong.
        marked: the events and users that were acknowledged.
    """

    def __init__(self, tally: SyncTally, action: str) -> None:
        self.faults: list[str] = []
        self.marked: list[tuple[str, int]] = []
        self.interruptions = 0
        self._tally = tally
        self._users = itertools.count(MAIN)
        self._raised: BaseException | None = None
        self._armed = False
        self._kinds = itertools.cycle(KINDS)
        self._handle = self._mark if action == "mark" else self._raise
        signal.signal(signal.SIGUSR1, self.handler)
        signal.signal(signal.SIGALRM, self.handler)

    def handler(self, signum: int, frame: Any) -> None:
        """Handle a signal, once for each call."""
        if self._armed:
            self._armed = False
            self.interruptions += 1
            self._handle()

    def _raise(self) -> None:
        self._raised = RAISED[next(self._kinds)]()
        raise self._raised

    def _mark(self) -> None:
        user = HANDLERS + self.interruptions
        began = time.monotonic()
        try:
            if self._tally.mark_unique("a", user) != Granularity.UNIQUE:
                self.faults.append("the handler's mark was reported to change nothing")
            self.marked.append(("a", user))
            if not self._tally.contains(self._tally.unique("a"), user):
                self.faults.append("the handler's read missed its mark")
        except Exception as error:  # noqa: BLE001 - it is what is looked at
            self.faults.append(f"a call of the handler ended in {error!r}")
        if time.monotonic() - began > AT_ONCE:
            self.faults.append("the calls of the handler took long")

    def call(self, verb: str, interrupted: Callable[[Callable[[], Any]], Any]) -> None:
        """Mark or read, interrupted by a signal, and mark again without one."""
        verb_call = self._next_mark if verb == "mark" else self._read
        self._raised = None
        try:
            self._armed = True
            interrupted(verb_call)
            self._armed = False
        except BaseException as error:  # noqa: BLE001 - it is what is looked at
            self._armed = False
            if error is not self._raised:
                self.faults.append(f"{error!r} arrived instead of {self._raised!r}")
            error.__traceback__ = error.__context__ = None
        if self._raised is not None:
            try:
                self._next_mark()
            except BaseException as error:  # noqa: BLE001 - it is what is looked at
                self.faults.append(f"the next call ended in {error!r}")

    def _next_mark(self) -> None:
        user = next(self._users)
        flipped = self._tally.mark_unique("a", user)
        self.marked.append(("a", user))
        if flipped != Granularity.UNIQUE and self._handle == self._mark:
            self.faults.append("the main thread's mark was reported to change nothing")

    def _read(self) -> None:
        if not self._tally.contains(self._tally.unique("a"), KNOWN):
            self.faults.append("the main thread's read was wrong")


def at_each_line(main: Main, verb: str) -> None:
    """Interrupt a call at each of its lines."""
    interrupter = SignalPoints(TRACED)
    beyond = 0
    for turn in itertools.count(TURNS):
        before = len(main.faults)
        main.call(verb, functools.partial(interrupter.call, turn // TURNS))
        if any(part in interrupter.reached for part in KEPT):
            del main.faults[before:]  # these drop what a handler raises
        main.faults[before:] = [f"{interrupter.reached}: {fault}" for fault in main.faults[before:]]
        beyond = 0 if interrupter.reached else beyond + 1
        if beyond == PATIENCE:
            return


def at_random(main: Main) -> None:
    """Interrupt calls at random moments."""
    chance = random.Random(19)

    def interrupted(call: Callable[[], Any]) -> None:
        signal.setitimer(signal.ITIMER_REAL, usual * chance.uniform(0.001, 1.1))
        call()

    usual = 0.001
    verbs = itertools.cycle(("mark", "mark", "read"))
    end = time.monotonic() + SECONDS
    while (began := time.monotonic()) < end:
        main.call(next(verbs), interrupted)
        usual = 0.95 * usual + 0.05 * min(0.05, time.monotonic() - began)
    signal.setitimer(signal.ITIMER_REAL, 0)


def opened(url: str) -> SyncTally:
    """Return a new tally."""
    if url.startswith("redis+cluster"):
        return SyncTally.from_url(url, timeout=TIMEOUT, shards=4)
    return SyncTally.from_url(url, timeout=TIMEOUT)


def missing(tally: SyncTally, marked: list[tuple[str, int]]) -> Iterator[str]:
    """Yield which acknowledged marks are not there."""
    found = {event: set(tally.users(tally.unique(event))) for event in {of for of, _ in marked}}
    for event, user in marked:
        if user not in found[event]:
            yield f"the mark of {event} for {user} is lost"


def main() -> None:
    """Run one of the programs."""
    when, action, url = sys.argv[1:]
    faulthandler.dump_traceback_later(100, exit=True)
    with opened(url) as tally:
        tally.mark_unique("a", KNOWN)
        neighbours = Neighbours(tally)
        made = Main(tally, action)
        if when == "random":
            at_random(made)
        else:
            at_each_line(made, when)
        marked = [*made.marked, *neighbours.stop()]
        faults = [*made.faults, *neighbours.faults]
        if tally.stats().waiting:
            faults.append(f"{tally.stats().waiting} marks wait")
        if tally.mark_unique("a", LAST) != Granularity.UNIQUE:
            faults.append("the last mark was wrong")
    with opened(url) as other:
        faults += missing(other, marked)
    print(made.interruptions, "interruptions,", len(marked), "marks")
    print(*faults[:50], sep="\n")
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.exit(bool(faults) or made.interruptions < 50)


if __name__ == "__main__":
    main()
