"""The global switches that `tallymark`, `tallymark.sync` and `tallymark.bitmapist` show.

Pure state. A module attribute cannot be shared by modules, so they give
themselves a class, such as `SwitchModule`, whose properties read and write the one
`Switches` object here.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from ..errors import InvalidTypeError
from .excerpts import shown

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SwitchModule", "TolerantSwitchModule", "install", "switches"]


class Switches:
    """Whether tallies that do not say mark the hour and the unique bitmap too."""

    def __init__(self) -> None:
        self.track_hourly = False
        self.track_unique = False


switches = Switches()


def _switch(name: str, checked: Callable[[str, object], bool]) -> property:
    """Return a property that reads and writes the switch of the same name in lower case."""

    def get(_: ModuleType) -> bool:
        value: bool = getattr(switches, name.lower())
        return value

    def put(_: ModuleType, value: object) -> None:
        setattr(switches, name.lower(), checked(name, value))
        for module in _modules:
            _show(module)

    return property(get, put)


def _bool(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidTypeError(f"{name} must be True or False, got {shown(value)}")
    return value


def _truth(_: str, value: object) -> bool:
    return bool(value)


class SwitchModule(ModuleType):
    """A module with the settable attributes ``TRACK_HOURLY`` and ``TRACK_UNIQUE``."""

    TRACK_HOURLY = _switch("TRACK_HOURLY", _bool)
    TRACK_UNIQUE = _switch("TRACK_UNIQUE", _bool)


class TolerantSwitchModule(ModuleType):
    """The same, and takes anything that is true or false."""

    TRACK_HOURLY = _switch("TRACK_HOURLY", _truth)
    TRACK_UNIQUE = _switch("TRACK_UNIQUE", _truth)


_modules: list[ModuleType] = []


def install(module_name: str, kind: type[ModuleType] = SwitchModule) -> None:
    """Give an imported module the switches."""
    module = sys.modules[module_name]
    module.__class__ = kind
    _modules.append(module)
    _show(module)


def _show(module: ModuleType) -> None:
    """Put the switches where `unittest.mock.patch` looks for what it has to put back."""
    vars(module).update(
        TRACK_HOURLY=switches.track_hourly,
        TRACK_UNIQUE=switches.track_unique,
    )
