"""Calls in threads: how each of them has ended. And marks for them to make."""

from __future__ import annotations

import functools
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from tallymark import Granularity, TallymarkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Self

    from tallymark import SyncTally

#: The seconds after its deadline from which a call counts as late, beside what a `Lag` measures.
TOLERANCE = 0.3

MONDAY = date(2026, 11, 23)
NEW = Granularity.MONTH | Granularity.WEEK | Granularity.DAY
KEYS = {
    Granularity.MONTH: "trackist_{}_2026-11",
    Granularity.WEEK: "trackist_{}_W2026-48",
    Granularity.DAY: "trackist_{}_2026-11-23",
}


class Lag:
    """How late the threads of this process run: the machine, or other threads, hold them up.

    Attributes:
        worst: the seconds by which a sleep overran, at most.
    """

    def __init__(self) -> None:
        self.worst = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._stopped.wait(0.01):
            self.worst = max(self.worst, time.monotonic() - begun - 0.01)
            begun = time.monotonic()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join()


@dataclass
class Ended:
    """How a call has ended: with a result or an error, and after how many seconds."""

    result: Any
    error: BaseException | None
    seconds: float


def ended(call: Callable[[], Any]) -> Ended:
    """Make a call; return how it ended."""
    begun = time.monotonic()
    result = error = None
    try:
        result = call()
    except TallymarkError as raised:
        error = raised
    return Ended(result, error, time.monotonic() - begun)


class Calls:
    """Calls in threads, one each; a call that hangs does not keep the process from ending."""

    def __init__(self, calls: Iterable[Callable[[], Any]] = ()) -> None:
        self._futures: list[Future[Ended]] = []
        for call in calls:
            self.add(call)

    def add(self, call: Callable[[], Any]) -> None:
        """Begin one more call."""
        future: Future[Ended] = Future()
        self._futures.append(future)
        threading.Thread(target=self._run, args=(future, call), daemon=True).start()

    @staticmethod
    def _run(future: Future[Ended], call: Callable[[], Any]) -> None:
        try:
            future.set_result(ended(call))
        except BaseException as error:  # noqa: BLE001 - raised where the result is wanted
            future.set_exception(error)

    def ended(self) -> list[Ended]:
        """Wait for all calls; return how they ended, in their order."""
        return [future.result(30) for future in self._futures]


def until_waiting(tally: SyncTally, count: int) -> None:
    """Wait until so many marks wait for Redis."""
    end = time.monotonic() + 30
    while tally.stats().waiting != count:
        assert time.monotonic() < end, tally.stats()
        time.sleep(0.001)


def marking(
    tally: SyncTally, event: str, users: Iterable[int], **options: Any
) -> list[Callable[[], Any]]:
    """Return calls that mark users."""
    return [
        functools.partial(tally.mark_event, event, user, now=MONDAY, **options) for user in users
    ]
