"""A process whose calls are interrupted by a signal, at each line of a call in turn.

Run as ``interruptions.py SCENARIO ACTION URL``. A trace function delivers the signal, at
each line in turn, also of the connections of redis-py. Fails with the lines
at which something went wrong; a call that hangs ends the process with its stack.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import gc
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import redis

import tallymark
from tallymark import ReentrantCallError, StoreTimeoutError, SyncTally, bitmapist
from tallymark import sync as tm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The files whose lines are interrupted.
TRACED = ("/tallymark/", "/redis/", "/contextlib.py", "/threading.py", "/queue.py")

#: A call that takes longer, in seconds, has waited for the code that it interrupted.
AT_ONCE = 2.0

HANDLERS = 1_000_000


class TimeLimit(TimeoutError):  # noqa: N818 - as task queues call theirs
    """The time limit of a program, a subclass of TimeoutError."""


class SoftTimeLimit(Exception):  # noqa: N818
    """The time limit that a task queue raises in its tasks."""


class Stop(BaseException):
    """An exception that no code may catch."""


RAISED: dict[str, Callable[[], BaseException]] = {
    "soft": SoftTimeLimit,
    "limit": lambda: TimeLimit("too long"),
    "timeout": lambda: TimeoutError("too long"),
    "store": lambda: StoreTimeoutError("of a call in the handler"),
    "redis": lambda: redis.ConnectionError("of a call in the handler"),
    "os": lambda: ConnectionResetError("of the handler"),
    "index": lambda: IndexError("of the handler"),
    "lookup": lambda: KeyError("of the handler"),
    "value": lambda: ValueError("of the handler"),
    "attribute": lambda: AttributeError("of the handler"),
    "runtime": lambda: RuntimeError("of the handler"),
    "key": KeyboardInterrupt,
    "exit": lambda: SystemExit(3),
    "stop": Stop,
}


class Interrupter:
    """Delivers a signal at one line of what is called."""

    def __init__(self, traced: tuple[str, ...]) -> None:
        self._traced = traced
        self.at = 0
        self.reached = ""
        self._count = 0

    def trace(self, frame: Any, event: str, arg: Any) -> Any:
        """Trace what is to be interrupted."""
        name = frame.f_code.co_filename
        if event == "call" and not any(part in name for part in self._traced):
            return None
        # Where a `with` statement has got what it will not give back, if it is interrupted here.
        entered = event == "return" and frame.f_code.co_name == "__enter__"
        if event == "line" or entered:
            self._count += 1
            if self._count == self.at:
                inside = frame
                while inside is not None and inside.f_code.co_name != "__del__":
                    inside = inside.f_back
                finalizer = "" if inside is None else " in __del__"
                self.reached = (
                    f"{name.rpartition('/')[2]}:{frame.f_lineno} {frame.f_code.co_name}{finalizer}"
                )
                signal.raise_signal(signal.SIGUSR1)
        return self.trace

    def call(self, at: int, function: Callable[[], Any]) -> Any:
        """Call a function, and deliver the signal at the line with this number."""
        self.at, self._count, self.reached = at, 0, ""
        before = sys.gettrace()  # that of coverage
        sys.settrace(self.trace)
        try:
            return function()
        finally:
            sys.settrace(before)


class Scenario:
    """Something to interrupt.

    Attributes:
        connects: whether each turn begins without a connection.
        step: each line gets its turn, or only each second one, and so on.
        traced: whose lines are interrupted.
    """

    traced: tuple[str, ...] = TRACED

    def __init__(self, url: str, *, connects: bool = False, step: int = 1, **options: Any) -> None:
        self.url = url
        self.connects = connects
        self.step = step
        self.options = options
        self.tally = self.make()

    def make(self) -> Any:
        """Return a tally to interrupt."""
        return SyncTally.from_url(self.url, **self.options)

    def call(self, user: int) -> Any:
        """Make the call that is interrupted; return a true value."""
        return self.tally.mark_unique("a", user)

    def in_handler(self, user: int) -> Any:
        """Make the call of the handler; return a true value."""
        return self.tally.mark_unique("a", user)

    def renew(self) -> None:
        """Prepare the next interruption."""
        if self.connects:
            self.tally.close()
            self.tally = self.make()

    def leaks(self) -> str:
        """Return which resources of ended calls were not released; empty if all were."""
        if not isinstance(self.tally, SyncTally):
            return ""
        found = self.tally.stats()
        backend: Any = self.tally.backend
        single = hasattr(backend, "_primary")
        links = [backend._primary] if single else list(backend._nodes._nodes.values())
        for link in links:
            if link.owned:
                places = link._pool.pool.queue
                known = [each for each in places if each is not None]
                if len(places) != link._pool.max_connections or len(set(known)) != len(known):
                    return f"{len(places)} places"
                if link._pool._acquired:
                    return "lent"
        group = getattr(backend.writer, "_commit", None)
        if group is not None:
            if "leadership" not in group._free or group._free["leadership"].calls:
                return "the leadership"
            if group._queue or group._asleep:
                return "a call in the queue"
        return f"{found.waiting} marks wait" if found.waiting else ""

    def close(self) -> None:
        """Close the tally."""
        self.tally.close()


class Reading(Scenario):
    def call(self, user: int) -> Any:
        self.tally.mark_unique("a", user)
        return self.tally.contains(self.tally.unique("a") & self.tally.unique("a"), user)


class Streaming(Scenario):
    def call(self, user: int) -> Any:
        self.tally.mark_unique("a", user)
        return user in list(self.tally.users(self.tally.unique("a"), start=user))


class InTransaction(Scenario):
    def call(self, user: int) -> Any:
        with self.tally.transaction() as tx:
            mark = tx.mark_unique("a", user)
            tx.mark_event("b", user)
        return mark.flipped


class Bulk(Scenario):
    def call(self, user: int) -> Any:
        return self.tally.mark_many("c", [user]) and self.tally.mark_unique("a", user)


class Closing(Scenario):
    def call(self, user: int) -> Any:
        flipped = self.tally.mark_unique("a", user)
        self.tally.close()
        return flipped

    def in_handler(self, user: int) -> Any:
        with SyncTally.from_url(self.url) as other:
            return other.mark_unique("a", user)


class Default(Scenario):
    def make(self) -> Any:
        tallymark.configure(self.url)
        return tm

    def call(self, user: int) -> Any:
        return tm.mark_unique("a", user)

    in_handler = call

    def renew(self) -> None:
        tallymark.configure(self.url)

    def close(self) -> None:
        tm._close_default()


class ClientOfTheCaller(Scenario):
    def make(self) -> Any:
        self.client: Any = redis.Redis.from_url(self.url)
        return SyncTally(self.client)


class DropIn(Scenario):
    def make(self) -> Any:
        bitmapist.SYSTEMS["default"] = redis.Redis.from_url(self.url)
        return None

    def call(self, user: int) -> Any:
        bitmapist.mark_unique("a", user)
        return user in bitmapist.UniqueEvents("a")

    in_handler = call

    def close(self) -> None:
        bitmapist.SYSTEMS["default"].close()


class Embedded(Scenario):
    #: Not fakeredis: at the end of a `with` statement there is a line of its own, before the
    #: lock is released. A trace function can interrupt there, but no signal does.
    traced = TRACED


SCENARIOS: dict[str, Callable[[str], Scenario]] = {
    "mark": Scenario,
    "connect": lambda url: Scenario(url, connects=True),
    "read": Reading,
    "stream": lambda url: Streaming(url, step=7),
    "transaction": InTransaction,
    "bulk": Bulk,
    "close": lambda url: Closing(url, connects=True, step=11),
    "default": lambda url: Default(url, step=47),
    "client": ClientOfTheCaller,
    "drop-in": DropIn,
    "one-connection": lambda url: Scenario(url + "?max_connections=1"),
    "memory": lambda _: Embedded("memory://interruptions"),
    "cluster": lambda url: Scenario(url, connects=True, step=37, shards=2),
}

#: Where exceptions of whatever kind end: redis-py's telemetry drops them, and Python those of
#: finalizers.
KEPT = ("recorder.py", "providers.py", "__del__")

#: Where a call in the handler may be refused.
MAY_REFUSE = {"client", "one-connection", "memory"}


def points(scenario: Scenario, action: Callable[[], Any]) -> Iterator[tuple[int, str, Any]]:
    """Interrupt a call at each of its lines; yield where that was, and what came of it."""
    interrupter = Interrupter(scenario.traced)
    signal.signal(signal.SIGUSR1, lambda signum, frame: action())
    turn = 0
    while True:
        turn += scenario.step
        scenario.renew()
        outcome: Any = None
        try:
            outcome = interrupter.call(turn, functools.partial(scenario.call, turn))
        except BaseException as error:  # noqa: BLE001 - it is what is looked at
            outcome = error
        if not interrupter.reached:
            if isinstance(outcome, BaseException):
                raise outcome
            return
        yield turn, interrupter.reached, outcome


def marking(scenario: Scenario, may_refuse: bool) -> Iterator[str]:
    """Mark in the handler; yield what went wrong."""
    marked: list[tuple[int, Any]] = []

    def mark() -> None:
        began = time.monotonic()
        user = HANDLERS + len(marked)
        try:
            marked.append((user, scenario.in_handler(user)))
        except (ReentrantCallError, redis.RedisError) as error:
            refused = isinstance(
                error if isinstance(error, ReentrantCallError) else error.__cause__,
                ReentrantCallError,
            )
            marked.append((user, "refused" if refused else error))
        if time.monotonic() - began > AT_ONCE:
            marked.append((user, "took long"))

    refusals = 0
    for _, place, outcome in points(scenario, mark):
        _, done = marked[-1]
        if done == "refused":
            refusals += 1
        if not outcome or isinstance(outcome, BaseException):
            yield f"{place}: the call ended in {outcome!r}"
        if (
            not done
            or isinstance(done, BaseException)
            or done == "took long"
            or (done == "refused" and not may_refuse)
        ):
            yield f"{place}: the call in the handler ended in {done!r}"
        if scenario.leaks():
            yield f"{place}: {scenario.leaks()}"
    print(len(marked), "interruptions,", refusals, "refused")


def raising(scenario: Scenario, make: Callable[[], BaseException]) -> Iterator[str]:
    """Raise in the handler; yield what went wrong."""
    made: list[BaseException] = []

    def fail() -> None:
        made.append(make())
        raise made[-1]

    for turn, place, outcome in points(scenario, fail):
        if outcome is not made[-1] and not any(each in place for each in KEPT):
            yield f"{place}: {outcome!r} arrived instead"
        made[-1].__traceback__ = None
        made[-1].__context__ = None
        patience = time.monotonic() + AT_ONCE
        while scenario.leaks() and time.monotonic() < patience:
            # A thread that connects for nobody gives its place back in its own time.
            gc.collect()
        if scenario.leaks():
            yield f"{place}: {scenario.leaks()}"
        if isinstance(scenario, Closing):
            scenario.tally.close()
            continue
        try:
            if not scenario.call(10_000 + turn):
                yield f"{place}: the next call was wrong"
        except BaseException as error:  # noqa: BLE001 - it is what is looked at
            yield f"{place}: the next call ended in {error!r}"
    print(len(made), "interruptions")


def main() -> None:
    """Run one scenario."""
    name, action, url = sys.argv[1:]
    faulthandler.dump_traceback_later(100, exit=True)
    scenario = SCENARIOS[name](url)
    with contextlib.suppress(AttributeError):
        scenario.call(0)  # nothing but what is to be interrupted happens for the first time
    wrong = (
        marking(scenario, name in MAY_REFUSE)
        if action == "mark"
        else raising(scenario, RAISED[action])
    )
    faults = list(wrong)
    scenario.close()
    print(*faults, sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
