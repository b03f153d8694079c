"""Values that cannot be changed. Pure."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any, NoReturn, TypeVar

__all__ = ["immutable"]

ClassT = TypeVar("ClassT", bound=type)


def immutable(cls: ClassT) -> ClassT:
    """Have a frozen dataclass with slots refuse attributes that are not its fields, too.

    dataclasses refuses the fields, and for all others looks for the class as it was before
    it got its slots: a TypeError from ``super``.
    """
    refusing: Any = cls
    refusing.__setattr__ = _refuse_to_set
    refusing.__delattr__ = _refuse_to_delete
    return cls


def _refuse_to_set(self: object, name: str, value: object) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: object, name: str) -> NoReturn:
    raise FrozenInstanceError(f"cannot delete field {name!r}")
