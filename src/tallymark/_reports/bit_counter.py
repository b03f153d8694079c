"""Counting in how many sets each user is, for all users at once. Pure.

The counts are bit-sliced: a value of the `Algebra` for each binary digit has one bit for each user.
An `Adder` adds them up.
"""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Any, Final

from .._reading.adders import Adder
from .._reading.bits import algebra

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

__all__ = ["BitCounter"]


_OPERATIONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
}


class BitCounter:
    """Counts for each user of a window in how many values the user is."""

    def __init__(self) -> None:
        """Make a counter with no values."""
        self._algebra = algebra()
        self._adder = Adder[Any](lambda name, values: _OPERATIONS[name](*values))

    @property
    def is_empty(self) -> bool:
        """Whether no user is in any value."""
        return not any(
            self._algebra.any(value) for column in self._adder.columns for value in column
        )

    def add(self, value: Any) -> Iterator[None]:
        """Add 1 to the counts of some users. Yields after each addition of three values."""
        yield from self._adder.add(value)

    def totals(self, most: int) -> Generator[None, None, list[int]]:
        """Return how many users are in exactly 1, 2, ... values. Yields between steps.

        No value may be added later.

        Arguments:
            most: the largest number of values to count; no user is in more of them.
        """
        digits = yield from self._adder.digits()
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
