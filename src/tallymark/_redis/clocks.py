"""The clocks of the drivers, which tests that freeze the time cannot freeze by accident.

freezegun replaces ``time.monotonic`` and ``time.perf_counter`` beside ``time.time``, in the module
`time` and wherever another module has them as an attribute. A deadline by a frozen clock never
passes, and one that was computed before the clock was frozen has passed at once. So the drivers
call the real functions, which are attributes of an object.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["clocks"]


class Clocks:
    """The clocks: one for what a mark is dated with, and two that never go back.

    Attributes:
        time: the present, in seconds since 1970, as marks without ``now`` are dated. The
            fixtures for pytest replace it by a function that sees a frozen time.
        monotonic, perf_counter: the functions of `time`, for deadlines and for durations.
    """

    __slots__ = ("monotonic", "perf_counter", "time")

    def __init__(self) -> None:
        self.time: Callable[[], float] = time.time
        self.monotonic: Callable[[], float] = time.monotonic
        self.perf_counter: Callable[[], float] = time.perf_counter


clocks: Final = Clocks()
