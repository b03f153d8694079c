"""Immutable mappings, as parts of values. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

__all__ = ["FrozenMapping"]

KeyT = TypeVar("KeyT")
ItemT = TypeVar("ItemT")


class FrozenMapping(Mapping[KeyT, ItemT]):
    """A mapping that never changes.

    Unlike a ``MappingProxyType``, it has a hash, if its values have one, and can be pickled.
    """

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[KeyT, ItemT] | None = None) -> None:
        """Copy a mapping; none is made without an argument."""
        self._items = dict(items or {})

    def __getitem__(self, name: KeyT) -> ItemT:
        return self._items[name]

    def __iter__(self) -> Iterator[KeyT]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)

    def __reduce__(self) -> tuple[object, ...]:
        return FrozenMapping, (self._items,)
