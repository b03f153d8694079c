"""Queries for the numbers of users, and for the users' ids. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._core.context import Context
    from .requests import Query

__all__ = ["ids", "numbers"]


def numbers(context: Context, user_ids: Iterable[Any]) -> Query[list[int | None]]:
    """Return a query for the number of each of some users; ``None`` if one has none."""
    return _answered([context.schema.offset(user_id) for user_id in user_ids])


def ids(context: Context, numbers: Iterable[int]) -> Query[list[Any]]:
    """Return a query for the id of each of some users; ``None`` for a number without a user."""
    return _answered([context.schema.offset(number) for number in numbers])


def _answered(answer: list[Any]) -> Query[list[Any]]:
    yield from ()
    return answer
