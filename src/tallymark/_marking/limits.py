"""What a tally does not take, so that no stranger can fill its database. Pure."""

from __future__ import annotations

import contextlib
import hashlib
import re
from typing import TYPE_CHECKING, Any, Final

from .._core.untrusted import shown
from ..errors import InvalidValueError

if TYPE_CHECKING:
    from .._core.options import Options

__all__ = ["EventLimits", "Lock"]

#: What is held for a moment: a lock, or nothing where there are no threads.
Lock = contextlib.AbstractContextManager[Any]


#: Longer names are remembered by a digest, so that they take no more memory than these.
_LONG: Final = 64


class EventLimits:
    """Which events a tally marks, where their names may come from outside.

    Attributes:
        counts: whether there may be so many different ones only, so that it has to be told
            what became of the marks of those that are on trial.
        lock: held while calls are counted.
    """

    def __init__(self, options: Options, lock: Lock) -> None:
        """Begin without having seen any.

        Arguments:
            options: the tally's, with ``event_pattern``, ``max_events`` and
                ``max_event_bytes``.
            lock: held while calls are counted.
        """
        pattern = options.event_pattern
        self._pattern = None if pattern is None else re.compile(pattern)
        self._most = options.max_events
        self._longest = options.max_event_bytes
        self.counts = self._most is not None
        #: Events that were marked; and of others, how many calls are under way.
        self._seen: set[str | bytes] = set()
        self._on_trial: dict[str | bytes, int] = {}
        self.lock = lock

    def check(self, event: str) -> None:
        """Raise InvalidValueError if the name of an event is not allowed."""
        self.check_length(event)
        if self._pattern is not None and not self._pattern.fullmatch(event):
            raise InvalidValueError(
                f"event must match event_pattern {shown(self._pattern.pattern)}, got {shown(event)}"
            )

    def begin(self, event: str) -> None:
        """Take note of a call that marks an event on trial; `end` has to follow.

        Raises:
            InvalidValueError: it is one too many; nothing has begun.
        """
        name = _remembered(event)
        with self.lock:
            if name in self._seen:
                return
            calls = self._on_trial.get(name, 0)
            used = len(self._seen) + len(self._on_trial)
            if not calls and self._most is not None and used >= self._most:
                raise InvalidValueError(
                    f"this tally has marked max_events={self._most} different events already; "
                    f"{shown(event)} would be one more"
                )
            self._on_trial[name] = calls + 1

    def end(self, event: str, *, applied: bool) -> None:
        """Take note of the end of a call that had begun.

        Arguments:
            event: the event.
            applied: whether something of it was applied, or may have been. If not, and if
                no other call is under way, the place is free for another event.
        """
        name = _remembered(event)
        with self.lock:
            if name in self._seen:
                return
            calls = self._on_trial.pop(name, 0) - 1
            if applied:
                self._seen.add(name)
            elif calls > 0:
                self._on_trial[name] = calls

    def check_length(self, event: str) -> None:
        """Raise if the name of an event is too long to be marked."""
        longest = self._longest
        # Which is known of most by a look at their length.
        if (
            longest is not None
            and 4 * len(event) > longest
            and (len(event) > longest or len(event.encode(errors="replace")) > longest)
        ):
            raise InvalidValueError(
                f"event must have at most max_event_bytes={longest} bytes in UTF-8, "
                f"got {event[:40]!r}..."
            )

    def is_on_trial(self, event: str) -> bool:
        """Return whether it is not known yet that an event was marked, where that matters."""
        return self.counts and _remembered(event) not in self._seen


def _remembered(event: str) -> str | bytes:
    if len(event) <= _LONG:
        return event
    return hashlib.blake2b(event.encode(), digest_size=16).digest()
