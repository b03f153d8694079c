"""What a tally does not take, so that no stranger can fill its database. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

from .._core.excerpts import shown
from .._core.failures import may_be_applied
from ..errors import InvalidValueError, TallymarkError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._core.options import Options

__all__ = ["EventLimits"]


#: Longer names are remembered by a digest, so that they take no more memory than these.
_LONG: Final = 64


class EventLimits:
    """Which events a tally marks, where their names may come from outside.

    Attributes:
        counts: whether there may be so many different ones only, so that it has to be told
            what became of the marks of those that are on trial.
    """

    def __init__(self, options: Options) -> None:
        """Begin without having seen any.

        Arguments:
            options: the tally's, with ``event_pattern``, ``max_events`` and
                ``max_event_bytes``.
        """
        pattern = options.event_pattern
        self._pattern = None if pattern is None else re.compile(pattern)
        self._most = options.max_events
        self._longest = options.max_event_bytes
        self.counts = self._most is not None
        #: Events that were marked; and others of which a mark is under way.
        self._seen: set[str | bytes] = set()
        self._on_trial: set[str | bytes] = set()

    def check(self, event: str) -> None:
        """Take note of an event that is to be marked.

        Raises:
            InvalidValueError: its name is not allowed, or it is one too many.
        """
        self.check_length(event)
        if self._pattern is not None and not self._pattern.fullmatch(event):
            raise InvalidValueError(
                f"event must match event_pattern {shown(self._pattern.pattern)}, got {shown(event)}"
            )
        if self._most is not None and self.is_on_trial(event):
            name = _remembered(event)
            used = len(self._seen) + len(self._on_trial)
            if used >= self._most and name not in self._on_trial:
                raise InvalidValueError(
                    f"this tally has marked max_events={self._most} different events already; "
                    f"{shown(event)} would be one more"
                )
            self._on_trial.add(name)

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

    def ended(self, events: Iterable[str], error: BaseException | None = None) -> None:
        """Take note of what became of marks of events that are on trial.

        Arguments:
            events: the events.
            error: why they may not have been applied. If it says that they were not, their
                names are free for others.
        """
        names = set(map(_remembered, events))
        self._on_trial -= names
        if error is None or not isinstance(error, TallymarkError) or may_be_applied(error):
            self._seen |= names


def _remembered(event: str) -> str | bytes:
    if len(event) <= _LONG:
        return event
    return hashlib.blake2b(event.encode(), digest_size=16).digest()
