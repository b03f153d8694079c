"""Thresholds as operations ``& | ^``: an adder counts, a comparison decides. Pure.

A value has one bit for each user. An adder takes values of the same weight, at first those of
the sets, and adds them for all users at once, as a carry-save adder does: of three values it
makes a sum of the same weight and a carry of twice the weight. In the end there is one value
of each weight: the binary digits of each user's count, which are compared with the threshold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from .._core.events import Operator

__all__ = ["count_at_least"]


def count_at_least(
    threshold: int,
    operands: Iterable[int],
    compute: Callable[[Operator, tuple[int, int]], int],
) -> Generator[None, None, int]:
    """Return the number of the value of the users who are in at least ``threshold`` operands.

    It takes five operations for each operand, and twice as many values as a count has digits
    are in use at a time. Yields between steps.

    Arguments:
        threshold: from 1 to the number of operands.
        operands: the numbers of the operands' values.
        compute: returns the number of the result of an operation on two values.
    """
    #: The values of each weight: one or two between two steps.
    columns: list[list[int]] = [[]]

    def add(weight: int, value: int) -> None:
        """Add a value to a column, and to the next ones what is carried."""
        while True:
            if weight == len(columns):
                columns.append([])
            column = columns[weight]
            column.append(value)
            if len(column) < 3:
                return
            first, second, third = column
            half = compute("^", (first, second))
            columns[weight] = [compute("^", (half, third))]
            both = compute("&", (first, second))
            value = compute("|", (both, compute("&", (half, third))))
            weight += 1

    for operand in operands:
        add(0, operand)
        yield
    digits: list[int] = []
    while len(digits) < len(columns):
        column = columns[len(digits)]
        if len(column) > 1:
            first, second = column
            column[:] = [compute("^", (first, second))]
            add(len(digits) + 1, compute("&", (first, second)))
        digits.append(column[0])
        yield
    return _compared(threshold, digits, compute)


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
