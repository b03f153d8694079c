"""What a tally does not take, so that no stranger can fill its database. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .errors import InvalidValueError
from .excerpts import shown

if TYPE_CHECKING:
    from .options import Options

__all__ = ["EventLimits"]


class EventLimits:
    """Which events a tally marks, where their names may come from outside."""

    def __init__(self, options: Options) -> None:
        """Begin without having seen any.

        Arguments:
            options: the tally's, with ``event_pattern`` and ``max_events``.
        """
        pattern = options.event_pattern
        self._pattern = None if pattern is None else re.compile(pattern)
        self._most = options.max_events
        self._seen: set[str] = set()

    def check(self, event: str) -> None:
        """Take note of an event that is to be marked.

        Raises:
            InvalidValueError: its name is not allowed, or it is one too many.
        """
        if self._pattern is not None and not self._pattern.fullmatch(event):
            raise InvalidValueError(
                f"event must match event_pattern {shown(self._pattern.pattern)}, got {shown(event)}"
            )
        if self._most is not None and event not in self._seen:
            if len(self._seen) >= self._most:
                raise InvalidValueError(
                    f"this tally has marked max_events={self._most} different events already; "
                    f"{shown(event)} would be one more"
                )
            self._seen.add(event)
