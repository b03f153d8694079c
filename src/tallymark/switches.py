"""The global switches that `tallymark` and `tallymark.sync` both show.

Pure state. A module attribute cannot be shared by two modules, so both give
themselves the class `SwitchModule`, whose properties read and write the one
`Switches` object here.
"""

from __future__ import annotations

import sys
from types import ModuleType

from .errors import InvalidTypeError

__all__ = ["install", "switches"]


class Switches:
    """Whether tallies that do not say mark the hour and the unique bitmap too."""

    def __init__(self) -> None:
        self.track_hourly = False
        self.track_unique = False


switches = Switches()


def _switch(name: str) -> property:
    """Return a property that reads and writes the switch of the same name in lower case."""

    def get(_: ModuleType) -> bool:
        value: bool = getattr(switches, name.lower())
        return value

    def put(_: ModuleType, value: bool) -> None:
        if not isinstance(value, bool):
            raise InvalidTypeError(f"{name} must be True or False, got {value!r}")
        setattr(switches, name.lower(), value)

    return property(get, put)


class SwitchModule(ModuleType):
    """A module with the settable attributes ``TRACK_HOURLY`` and ``TRACK_UNIQUE``."""

    TRACK_HOURLY = _switch("TRACK_HOURLY")
    TRACK_UNIQUE = _switch("TRACK_UNIQUE")


def install(module_name: str) -> None:
    """Give an imported module the switches."""
    sys.modules[module_name].__class__ = SwitchModule
