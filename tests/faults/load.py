"""Callers that mark in a loop, and record the result of each call."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from tallymark import TallymarkError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tallymark import SyncTally, Tally

EVENTS = ("active", "login", "page:view", "search", "buy")

#: The moment of all marks, so that a midnight during the run changes no key.
NOW = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)
KEYS = {
    event: [f"trackist_{event}_{suffix}" for suffix in ("2026-11-24", "W2026-48", "2026-11")]
    for event in EVENTS
}

#: The seconds after its deadline from which a call counts as late, for the delays of a busy
#: machine.
TOLERANCE = 0.3

#: The pause of a caller between two calls, in seconds.
PAUSE = 0.01

#: The seconds after its deadline from which a call counts as one that never ends.
PATIENCE = 10.0

#: What is known of a bit. UNSENT: of its only call, "nothing was sent".
UNTOUCHED, MARKED, CLEARED, UNKNOWN, UNSENT = range(5)

#: The states after which a bit is known to be set, or not.
EXPECTED = {MARKED: True, CLEARED: False, UNSENT: False}


class Load:
    """The callers of one tally, and the results of their calls.

    Attributes:
        acknowledged: how many calls returned normally.
        acknowledged_of: the same for each caller.
        raised: how many calls raised each class of errors.
        late: how many calls returned or raised after their deadline.
        overrun: the seconds after its deadline of the latest call; negative if none was late.
    """

    def __init__(self, callers: int, timeout: float, pause: float = PAUSE) -> None:
        self.callers = callers
        self.timeout = timeout
        self.pause = pause
        self.acknowledged = 0
        self.acknowledged_of = [0] * callers
        self.raised: Counter[str] = Counter()
        self.late = 0
        self.overrun = -timeout
        self._states = {event: bytearray() for event in EVENTS}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._failures: list[BaseException] = []

    async def run(self, tally: Tally) -> None:
        """Mark from tasks until `stop`."""
        await asyncio.gather(*(self._task(tally, caller) for caller in range(self.callers)))

    def run_blocking(self, tally: SyncTally) -> None:
        """Mark from threads until `stop`; raise if a call does not end, or fails unexpectedly."""
        threads = [
            threading.Thread(target=self._thread, args=(tally, caller), daemon=True)
            for caller in range(self.callers)
        ]
        for thread in threads:
            thread.start()
        self._stopped.wait()
        end = time.monotonic() + self.timeout + PATIENCE
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        hanging = sum(thread.is_alive() for thread in threads)
        assert not hanging, f"calls of {hanging} threads do not end"
        assert not self._failures, self._failures

    @contextlib.contextmanager
    def running_blocking(self, tally: SyncTally) -> Iterator[None]:
        """Mark from threads during the block."""
        with ThreadPoolExecutor(1) as executor:
            ended = executor.submit(self.run_blocking, tally)
            try:
                yield
            finally:
                self.stop()
            ended.result()

    def acknowledge(self, count: int) -> None:
        """Wait until so many more calls of threads have returned normally."""
        wanted = self.acknowledged + count
        end = time.monotonic() + 30
        while self.acknowledged < wanted:
            assert time.monotonic() < end, "no mark is acknowledged any more"
            time.sleep(0.005)

    def stop(self) -> None:
        """End every caller after its present call."""
        self._stopped.set()

    async def _task(self, tally: Tally, caller: int) -> None:
        for verb, event, user_id in self._calls(caller):
            begun = time.monotonic()
            try:
                await getattr(tally, verb)(event, user_id, now=NOW)
            except TallymarkError as error:
                self._note(caller, event, user_id, begun, verb, error)
            else:
                self._note(caller, event, user_id, begun, verb, None)
            await asyncio.sleep(self.pause)

    def _thread(self, tally: SyncTally, caller: int) -> None:
        try:
            for verb, event, user_id in self._calls(caller):
                begun = time.monotonic()
                try:
                    getattr(tally, verb)(event, user_id, now=NOW)
                except TallymarkError as error:
                    self._note(caller, event, user_id, begun, verb, error)
                else:
                    self._note(caller, event, user_id, begun, verb, None)
                if self.pause:
                    time.sleep(self.pause)
        except BaseException as error:  # noqa: BLE001 - raised in `run_blocking`
            self._failures.append(error)

    def _calls(self, caller: int) -> Iterator[tuple[str, str, int]]:
        """Yield the calls of a caller: marks of its own ids, every fourth one with an unmark."""
        number = 0
        while not self._stopped.is_set():
            event = EVENTS[number % len(EVENTS)]
            user_id = number // len(EVENTS) * self.callers + caller
            yield "mark_event", event, user_id
            if number % 4 == 0:
                yield "unmark_event", event, user_id
            number += 1

    def _note(
        self,
        caller: int,
        event: str,
        user_id: int,
        begun: float,
        verb: str,
        error: Exception | None,
    ) -> None:
        overrun = time.monotonic() - begun - self.timeout
        with self._lock:
            self.overrun = max(self.overrun, overrun)
            self.late += overrun > TOLERANCE
            states = self._states[event]
            if user_id >= len(states):
                states.extend(bytes(user_id - len(states) + 1000))
            if error is not None:
                self.raised[type(error).__name__] += 1
                if "nothing was sent" not in str(error):
                    states[user_id] = UNKNOWN
                elif states[user_id] == UNTOUCHED:
                    states[user_id] = UNSENT
            else:
                self.acknowledged += 1
                self.acknowledged_of[caller] += 1
                states[user_id] = MARKED if verb == "mark_event" else CLEARED

    def lost(self, raw: Any) -> int:
        """Return how many bits of Redis, in all bitmaps, contradict the results of the calls.

        An acknowledged call is not there, or a mark is there of which the error said that
        nothing was sent.
        """
        lost = 0
        for event, states in self._states.items():
            bitmaps = [raw.get(key) or b"" for key in KEYS[event]]
            for user_id, state in enumerate(states):
                if state in EXPECTED:
                    byte, mask = user_id >> 3, 128 >> (user_id & 7)
                    for bitmap in bitmaps:
                        is_set = byte < len(bitmap) and bool(bitmap[byte] & mask)
                        lost += is_set != EXPECTED[state]
        return lost
