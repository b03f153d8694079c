"""Counting in how many sets each user is, for all users at once. Pure.

The counts are bit-sliced: a value of the `Algebra` for each binary digit has one bit for each user.
Numbers are added as in a carry-save adder: three values of the same weight become a sum of the same
weight and a carry of twice the weight, with five operations for all users.
"""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Any

from .._reading.bits import algebra

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = ["BitCounter"]


class BitCounter:
    """Counts for each user of a window in how many values the user is."""

    def __init__(self) -> None:
        """Make a counter with no values."""
        self._algebra = algebra()
        #: The values of each weight: at most two between two calls.
        self._columns: list[list[Any]] = []

    @property
    def is_empty(self) -> bool:
        """Whether no user is in any value."""
        return not any(self._algebra.any(value) for column in self._columns for value in column)

    def add(self, value: Any) -> Iterator[None]:
        """Add 1 to the counts of some users. Yields after each addition of three values."""
        yield from self._add(0, value)

    def totals(self, most: int) -> Generator[None, None, list[int]]:
        """Return how many users are in exactly 1, 2, ... values. Yields between steps.

        No value may be added later.

        Arguments:
            most: the largest number of values to count; no user is in more of them.
        """
        weight = 0
        while weight < len(self._columns):
            column = self._columns[weight]
            if len(column) > 1:
                first, second = column
                column[:] = [first ^ second]
                yield from self._add(weight + 1, first & second)
            weight += 1
        digits = [value for (value,) in self._columns]
        totals = [0] * most
        if not digits:
            return totals
        users = functools.reduce(operator.or_, digits)
        # The users with the same highest digits: these digits as a number, the users, how many
        # they are, and how many digits are left. Depth first, so few values are held.
        groups = [(0, users, self._algebra.count(users), len(digits))]
        while groups:
            number, users, size, left = groups.pop()
            if not left:
                totals[number - 1] += size
                continue
            ones = users & digits[left - 1]
            with_one = self._algebra.count(ones)
            if with_one:
                groups.append((2 * number + 1, ones, with_one, left - 1))
            if size > with_one:
                # At the last digit, only the number of users is needed.
                zeros = users ^ ones if left > 1 else None
                groups.append((2 * number, zeros, size - with_one, left - 1))
            yield
        return totals

    def _add(self, weight: int, value: Any) -> Iterator[None]:
        """Add a value of a weight, and what is carried."""
        while True:
            if weight == len(self._columns):
                self._columns.append([])
            column = self._columns[weight]
            column.append(value)
            if len(column) < 3:
                return
            first, second, third = column
            half = first ^ second
            column[:] = [half ^ third]
            value = (first & second) | (half & third)
            weight += 1
            yield
