"""Calls in threads: how each of them has ended."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tallymark import TallymarkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


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
