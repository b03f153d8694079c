"""Carry-save adders: counting in how many sets each user is, for all users at once. Pure.

A value has one bit for each user. An adder takes values of the same weight, at first those of
the sets, and adds them for all users at once: of three values it makes a sum of the same weight
and a carry of twice the weight, with five operations ``& | ^``. In the end there is one value of
each weight: the binary digits of each user's count. A comparison of the digits with a threshold
takes one more operation for each digit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from .._core.events import Operator

__all__ = ["Adder", "count_at_least"]

ValueT = TypeVar("ValueT")


class Adder(Generic[ValueT]):
    """Counts for each user in how many values the user is.

    Twice as many values as a count has digits are in use at a time.

    Attributes:
        columns: the values of each weight, the lowest first: at most two between two calls.
    """

    def __init__(self, compute: Callable[[Operator, tuple[ValueT, ValueT]], ValueT]) -> None:
        """Make an adder with no values.

        Arguments:
            compute: returns the result of an operation on two values.
        """
        self.columns: list[list[ValueT]] = []
        self._compute = compute

    def add(self, value: ValueT, weight: int = 0) -> Iterator[None]:
        """Add a value of a weight, and what is carried. Yields after each sum of three values."""
        compute = self._compute
        while True:
            if weight == len(self.columns):
                self.columns.append([])
            column = self.columns[weight]
            column.append(value)
            if len(column) < 3:
                return
            first, second, third = column
            half = compute("^", (first, second))
            column[:] = [compute("^", (half, third))]
            both = compute("&", (first, second))
            value = compute("|", (both, compute("&", (half, third))))
            weight += 1
            yield

    def digits(self) -> Generator[None, None, list[ValueT]]:
        """Return the binary digits of the counts, the lowest first. Yields between steps.

        No value may be added later.
        """
        weight = 0
        while weight < len(self.columns):
            column = self.columns[weight]
            if len(column) > 1:
                first, second = column
                column[:] = [self._compute("^", (first, second))]
                yield from self.add(self._compute("&", (first, second)), weight + 1)
            weight += 1
        return [value for (value,) in self.columns]


def count_at_least(
    threshold: int,
    operands: Iterable[int],
    compute: Callable[[Operator, tuple[int, int]], int],
) -> Generator[None, None, int]:
    """Return the number of the value of the users who are in at least ``threshold`` operands.

    It takes five operations for each operand. Yields between steps.

    Arguments:
        threshold: from 1 to the number of operands.
        operands: the numbers of the operands' values.
        compute: returns the number of the result of an operation on two values.
    """
    adder = Adder(compute)
    for operand in operands:
        yield from adder.add(operand)
        yield
    return _compared(threshold, (yield from adder.digits()), compute)


def _compared(
    threshold: int,
    digits: list[int],
    compute: Callable[[Operator, tuple[int, int]], int],
) -> int:
    """Return the number of the value of the users whose count is at least the threshold.

    From the lowest digit to the highest: with a 1 in the threshold, the count needs a 1 and
    enough in the lower digits; with a 0, a 1 is enough, and else the lower digits decide.
    Below the lowest 1 of the threshold, every count is enough.
    """
    lowest = (threshold & -threshold).bit_length() - 1
    result = digits[lowest]
    for weight in range(lowest + 1, len(digits)):
        operator: Operator = "&" if threshold >> weight & 1 else "|"
        result = compute(operator, (digits[weight], result))
    return result
