"""Queries for the numbers of users, and for the users' ids. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core.offsets import blocks
from .requests import in_steps

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._core.context import Context
    from .requests import Query

__all__ = ["ids", "numbers"]


def numbers(context: Context, user_ids: Iterable[Any]) -> Query[list[int | None]]:
    """Return a query for the number of each of some users; ``None`` if one has none."""
    id_blocks, _ = blocks(user_ids)
    checked = yield from in_steps(map(context.schema.offsets, id_blocks), 1)
    return [int(number) for block in checked for number in block.values]


def ids(context: Context, numbers: Iterable[int]) -> Query[list[Any]]:
    """Return a query for the id of each of some users; ``None`` for a number without a user."""
    id_blocks, _ = blocks(numbers)
    checked = yield from in_steps(map(context.schema.offsets, id_blocks), 1)
    return [int(number) for block in checked for number in block.values]
