"""Limits on which events a tally may mark. Pure."""

from __future__ import annotations

import contextlib
import hashlib
import re
from typing import TYPE_CHECKING, Any, Final

from .._core.untrusted import shown
from ..errors import InvalidValueError

if TYPE_CHECKING:
    from .._core.options import Options

__all__ = ["EventPolicy", "Lock"]

#: A lock, or a null context where there are no threads.
Lock = contextlib.AbstractContextManager[Any]

#: Names of more characters are stored as a digest, which bounds their memory.
_LONG_NAME: Final = 64


class EventPolicy:
    """Which events may be marked: ``event_pattern``, ``max_event_bytes``, ``max_events``.

    ``max_events`` is a quota of different events. An event counts once a mark of it was
    applied, or may have been. Until then its calls `reserve` a place and `release` it.

    Attributes:
        has_quota: whether ``max_events`` is set.
        lock: held while places are reserved and released.
    """

    def __init__(self, options: Options, lock: Lock) -> None:
        """Begin with an unused quota.

        Arguments:
            options: the tally's options.
            lock: held while places are reserved and released.
        """
        pattern = options.event_pattern
        self._pattern = None if pattern is None else re.compile(pattern)
        self._max_events = options.max_events
        self._max_event_bytes = options.max_event_bytes
        self.has_quota = self._max_events is not None
        #: The events that count, and the number of calls in progress for each other event
        #: that has a place reserved.
        self._counted: set[str | bytes] = set()
        self._reserved: dict[str | bytes, int] = {}
        self.lock = lock

    def check(self, event: str) -> None:
        """Raise an `InvalidValueError` if the name of an event is not allowed."""
        self.check_length(event)
        if self._pattern is not None and not self._pattern.fullmatch(event):
            raise InvalidValueError(
                f"event must match event_pattern {shown(self._pattern.pattern)}, got {shown(event)}"
            )

    def check_length(self, event: str) -> None:
        """Raise an `InvalidValueError` if the name of an event is too long."""
        max_bytes = self._max_event_bytes
        # UTF-8 takes at most four bytes per character, so short names need no encoding.
        if (
            max_bytes is not None
            and 4 * len(event) > max_bytes
            and (len(event) > max_bytes or len(event.encode(errors="replace")) > max_bytes)
        ):
            raise InvalidValueError(
                f"event must have at most max_event_bytes={max_bytes} bytes in UTF-8, "
                f"got {event[:40]!r}..."
            )

    def is_uncounted(self, event: str) -> bool:
        """Return whether there is a quota and an event does not count towards it yet."""
        return self.has_quota and _stored_name(event) not in self._counted

    def reserve(self, event: str) -> None:
        """Reserve a place for a call that marks an uncounted event; `release` must follow.

        Raises:
            InvalidValueError: the quota is used up; nothing is reserved.
        """
        name = _stored_name(event)
        with self.lock:
            if name in self._counted:
                return
            calls = self._reserved.get(name, 0)
            used = len(self._counted) + len(self._reserved)
            if not calls and self._max_events is not None and used >= self._max_events:
                raise InvalidValueError(
                    f"this tally has marked max_events={self._max_events} different events "
                    f"already; {shown(event)} would be one more"
                )
            self._reserved[name] = calls + 1

    def release(self, event: str, *, applied: bool) -> None:
        """End a call that had reserved a place.

        Arguments:
            event: the event.
            applied: whether a mark was applied, or may have been: the event counts from
                now on. If not, and no other call of the event is in progress, its place
                is free again.
        """
        name = _stored_name(event)
        with self.lock:
            if name in self._counted:
                return
            calls = self._reserved.pop(name, 0) - 1
            if applied:
                self._counted.add(name)
            elif calls > 0:
                self._reserved[name] = calls


def _stored_name(event: str) -> str | bytes:
    if len(event) <= _LONG_NAME:
        return event
    return hashlib.blake2b(event.encode(), digest_size=16).digest()
