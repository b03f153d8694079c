"""Expressions as graphs: their bitmaps and operations, each once, in topological order. Pure.

Event sets may share parts. An expression such as "on at least 6 of 31 days" grows
exponentially if it is written out; as a graph it has some hundred operations.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from .._core.context import MIN_WRITE_COST, TAIL_FACTOR
from .._core.events import Bitmap, Combination, walk
from .._core.thresholds import Threshold
from .adders import count_at_least

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from .._core.events import EventSet, Operator

__all__ = ["MAX_SOURCES", "Graph", "Operation"]

T = TypeVar("T")

#: How many parts of an expression one step of a generator processes.
_STEP: Final = 128

#: Up to this many bitmaps, Redis combines whole words; more bitmaps byte by byte, in ten times
#: the time (redis/src/bitops.c, bitopCommand).
MAX_SOURCES: Final = 16


class Operation(NamedTuple):
    """One operator applied to several values, from left to right.

    Attributes:
        operator: the operator.
        operands: the numbers of the values.
        last: the operands that are results of operations and not used by later operations.
    """

    operator: Operator
    operands: Sequence[int]
    last: Sequence[int]


class Graph:
    """The graph of one or more expressions; equal parts of them are one node.

    Each value has a number: results of operations count up from 0, bitmaps down from -1. So
    one list holds both, with the values of bitmaps at its end; see `values`.

    Attributes:
        bitmaps: the bitmaps, each once.
        operations: the operations, each once, after those whose results it uses.
        roots: the number of the value of each expression.
        writes: how often a server writes a temporary key to compute the roots.
        prefix: the prefix of the bitmaps' keys, if it is not that of their origin.
        has_thresholds: whether an expression has a `Threshold`, which takes many operations.
    """

    __slots__ = ("bitmaps", "has_thresholds", "operations", "prefix", "roots", "writes")

    def __init__(self) -> None:
        """Make an empty graph."""
        self.bitmaps: Sequence[Bitmap] = ()
        self.operations: Sequence[Operation] = ()
        self.roots: Sequence[int] = ()
        self.writes = 0
        self.prefix: str | None = None
        self.has_thresholds = False

    @classmethod
    def of(cls, *event_sets: EventSet) -> Graph:
        """Return the graph of some expressions."""
        graph = cls()
        for _ in graph._built(event_sets):
            pass
        return graph

    @classmethod
    def steps(cls, event_sets: Sequence[EventSet]) -> Generator[None, None, Graph]:
        """Return the graph of some expressions; yields between steps."""
        graph = cls()
        yield from graph._built(event_sets)
        return graph

    @classmethod
    def of_tree(cls, event_set: EventSet) -> Graph:
        """Return the graph of a small expression without thresholds, faster than `of`.

        Operations of a part that the expression uses several times are there several times.
        """
        graph = cls()
        bitmaps: dict[Bitmap, int] = {}
        operations: list[Operation] = []
        graph.roots = (_added(event_set, bitmaps, operations),)
        graph.bitmaps, graph.operations = tuple(bitmaps), operations
        for operator, operands, _ in operations:
            graph.writes += _writes(operator, len(operands))
        return graph

    def _built(self, event_sets: Sequence[EventSet]) -> Generator[None, None, None]:
        bitmaps: dict[Bitmap, int] = {}
        operations: dict[tuple[Operator, tuple[int, ...]], int] = {}
        numbers: dict[int, int] = {}  # by the parts' identity
        for count, part in enumerate(walk(event_sets)):
            if count % _STEP == _STEP - 1:
                yield
            if isinstance(part, Bitmap):
                number = bitmaps.setdefault(part, ~len(bitmaps))
            elif isinstance(part, Combination):
                number, *others = [numbers[id(operand)] for operand in part.operands]
                for other in others:
                    # Pairwise, so that expressions with the same beginning share operations.
                    number = _numbered(operations, part.operator, (number, other))
            elif isinstance(part, Threshold):
                self.has_thresholds = True
                counted = [numbers[id(operand)] for operand in part.operands]
                compute = functools.partial(_numbered, operations)
                number = yield from count_at_least(part.threshold, counted, compute)
            else:
                union = [bitmaps.setdefault(bitmap, ~len(bitmaps)) for bitmap in part.bitmaps()]
                number = _numbered(operations, "|", tuple(union))
            numbers[id(part)] = number
        roots = [numbers[id(event_set)] for event_set in event_sets]
        merged: list[tuple[Operator, Sequence[int]]] = list(operations)
        kept = yield from _merged(merged, roots, len(bitmaps))
        new_numbers = {number: new for new, number in enumerate(kept)}
        self.bitmaps = tuple(bitmaps)
        self.roots = [new_numbers.get(number, number) for number in roots]
        self.operations = yield from _with_last_uses(
            [
                # Unlike lists, tuples of ints are not tracked by the garbage collector.
                (operator, tuple([new_numbers.get(number, number) for number in operands]))
                for operator, operands in [merged[number] for number in kept]
            ]
        )
        for count, (operator, operands, _) in enumerate(self.operations):
            if count % _STEP == _STEP - 1:
                yield
            self.writes += _writes(operator, len(operands))

    def values(self, of_bitmaps: Sequence[T]) -> list[Any]:
        """Return a list with an item for each value: None for results, then those of bitmaps.

        Arguments:
            of_bitmaps: the value of each bitmap, in the order of `bitmaps`.
        """
        return [*itertools.repeat(None, len(self.operations)), *reversed(of_bitmaps)]

    def with_prefix(self, prefix: str) -> Graph:
        """Return the same expressions on keys with another prefix, such as a shard's.

        In constant time: keys are computed when they are sent.
        """
        if prefix == (self.prefix or self.bitmaps[0].origin.prefix):
            return self
        graph = Graph()
        graph.bitmaps, graph.operations = self.bitmaps, self.operations
        graph.roots, graph.writes, graph.prefix = self.roots, self.writes, prefix
        graph.has_thresholds = self.has_thresholds
        return graph

    def keys(self) -> Iterator[bytes]:
        """Yield the keys of the bitmaps. There may be many; do not compute all in one step."""
        return self.keys_of(self.bitmaps)

    def key_of(self, bitmap: Bitmap) -> bytes:
        """Return the key of one of the bitmaps."""
        return bitmap.key if self.prefix is None else bitmap.key_with_prefix(self.prefix)

    def keys_of(self, bitmaps: Iterable[Bitmap]) -> Iterator[bytes]:
        """Yield the keys of some of the bitmaps."""
        if self.prefix is None:
            return (bitmap.key for bitmap in bitmaps)
        prefix = self.prefix
        return (bitmap.key_with_prefix(prefix) for bitmap in bitmaps)

    def evaluation(self, values: list[Any]) -> Iterator[None]:
        """Compute all operations in the client; yields after each.

        Arguments:
            values: a list that `values` has returned; results are stored in it. The values
                are ints, numpy arrays or others with ``& | ^ ~``. Results that are no roots
                are None again at the end. Ints never get negative, since ``~`` is used only
                together with ``&``.
        """
        roots = set(self.roots)
        for count, (operator, operands, last) in enumerate(self.operations):
            value, *others = [values[number] for number in operands]
            for other in others:
                if operator == "&":
                    value = value & other
                elif operator == "|":
                    value = value | other
                elif operator == "^":
                    value = value ^ other
                else:
                    value = value & ~other
            values[count] = value
            for number in last:
                if number not in roots:
                    values[number] = None
            yield

    def candidate(self, nexts: Sequence[int | None]) -> Generator[None, None, int | None]:
        """Return the index of the first byte that may have a user of the first expression.

        Yields between steps.

        Arguments:
            nexts: for each bitmap the index of its next byte that is not 0; None for no such
                byte.

        Returns:
            The index, or None if there is no such byte.
        """
        candidates = self.values(nexts)
        for count, (operator, operands, _) in enumerate(self.operations):
            if count % _STEP == _STEP - 1:
                yield
            if operator == "-":
                candidates[count] = candidates[operands[0]]
                continue
            own = [index for number in operands if (index := candidates[number]) is not None]
            if operator == "&":
                candidates[count] = max(own) if len(own) == len(operands) else None
            else:
                candidates[count] = min(own, default=None)
        first: int | None = candidates[self.roots[0]]
        return first

    def cost(self, lengths: Sequence[int]) -> Generator[None, None, int]:
        """Return about how many bytes a server writes to compute all operations.

        Bytes beyond the end of the shortest operand count `TAIL_FACTOR` times. Yields between
        steps.

        Arguments:
            lengths: the length of each bitmap, in bytes.
        """
        all_lengths = self.values(lengths)
        total = 0
        for count, (operator, operands, _) in enumerate(self.operations):
            if count % _STEP == _STEP - 1:
                yield
            own = [all_lengths[number] for number in operands]
            shortest, longest = min(own), max(own)
            all_lengths[count] = longest
            weight = max(shortest + TAIL_FACTOR * (longest - shortest), MIN_WRITE_COST)
            total += _writes(operator, len(operands)) * weight
        return total


def _added(event_set: EventSet, bitmaps: dict[Bitmap, int], operations: list[Operation]) -> int:
    """Add the bitmaps and operations of an expression, and return the number of its value."""
    if isinstance(event_set, Bitmap):
        return bitmaps.setdefault(event_set, ~len(bitmaps))
    operands: list[int] = []
    operator: Operator = "|"
    if isinstance(event_set, Combination):
        operator = event_set.operator
        stack = list(event_set.operands[::-1])
        while stack:
            part = stack.pop()
            if isinstance(part, Bitmap):
                operands.append(bitmaps.setdefault(part, ~len(bitmaps)))
            elif (
                isinstance(part, Combination)
                and part.operator == operator
                # A difference in a difference is merged only as the first operand.
                and not (operator == "-" and operands)
            ):
                stack += part.operands[::-1]
            else:
                operands.append(_added(part, bitmaps, operations))
    else:
        operands += [bitmaps.setdefault(bitmap, ~len(bitmaps)) for bitmap in event_set.bitmaps()]
        if len(operands) == 1:
            return operands[0]
    last = [number for number in operands if number >= 0]
    operations.append(Operation(operator, operands, last))
    return len(operations) - 1


def _writes(operator: Operator, count: int) -> int:
    """Return how often a server writes a temporary key for an operation on ``count`` operands.

    See `tallymark._reading.bitop`.
    """
    if operator == "-":
        return 2 if count == 2 else 2 + _writes("|", count - 1)
    return 1 if count <= MAX_SOURCES else -(-(count - 1) // (MAX_SOURCES - 1))


def _numbered(
    operations: dict[tuple[Operator, tuple[int, ...]], int],
    operator: Operator,
    operands: tuple[int, ...],
) -> int:
    """Return the number of an operation's result: that of its operand, if all are the same."""
    if operator in "&|" and operands.count(operands[0]) == len(operands):
        return operands[0]
    return operations.setdefault((operator, operands), len(operations))


def _merged(
    operations: list[tuple[Operator, Sequence[int]]], roots: Sequence[int], bitmaps: int
) -> Generator[None, None, list[int]]:
    """Merge nested operations of the same operator whose results have no other use.

    A server combines many operands at once faster than two at a time. Operations whose results
    have no use at all are left out, such as the digits of a count below those of its threshold.
    Yields between steps.

    Arguments:
        operations: all operations; changed in place.
        roots: the numbers of the expressions' values.
        bitmaps: how many bitmaps there are.

    Returns:
        The numbers of the remaining operations, in ascending order.
    """
    uses = yield from _uses(operations, roots, bitmaps)
    is_merged = [False] * len(operations)
    kept: list[int] = []
    for number in range(len(operations) - 1, -1, -1):
        if number % _STEP == 0:
            yield
        if is_merged[number]:
            continue
        operator, operands = operations[number]
        if not uses[number]:
            for operand in operands:
                uses[operand] -= 1
            continue
        kept.append(number)
        if not any(
            operand >= 0 and uses[operand] == 1 and operations[operand][0] == operator
            for operand in operands
        ):
            continue
        stack, flat = list(operands[::-1]), list[int]()
        while stack:
            operand = stack.pop()
            if (
                operand >= 0
                and uses[operand] == 1
                and operations[operand][0] == operator
                # A difference in a difference is merged only as the first operand.
                and not (operator == "-" and flat)
            ):
                is_merged[operand] = True
                stack += operations[operand][1][::-1]
            else:
                flat.append(operand)
        operations[number] = operator, _without_repetitions(operator, flat)
    kept.reverse()
    return kept


def _uses(
    operations: Sequence[tuple[Operator, Sequence[int]]], roots: Sequence[int], bitmaps: int
) -> Generator[None, None, list[int]]:
    """Return how often each value is used, indexed by its number. Arguments as `_merged`."""
    uses = [0] * (len(operations) + bitmaps)  # those of bitmaps are at the end
    for number in roots:
        uses[number] += 1
    for count, (_, operands) in enumerate(operations):
        if count % _STEP == _STEP - 1:
            yield
        for number in operands:
            uses[number] += 1
    return uses


def _without_repetitions(operator: Operator, operands: list[int]) -> list[int]:
    """Return operands without repetitions that do not change the result."""
    if operator == "^":
        return operands
    if operator == "-":  # the first operand may also be one of those subtracted
        return [operands[0], *dict.fromkeys(operands[1:])]
    return list(dict.fromkeys(operands))


def _with_last_uses(
    operations: Sequence[tuple[Operator, Sequence[int]]],
) -> Generator[None, None, list[Operation]]:
    """Return operations with `Operation.last`; yields between steps."""
    used: set[int] = set()
    backwards: list[Operation] = []
    for count in range(len(operations) - 1, -1, -1):
        if count % _STEP == _STEP - 1:
            yield
        operator, operands = operations[count]
        last = [number for number in dict.fromkeys(operands) if number >= 0 and number not in used]
        used.update(last)
        backwards.append(Operation(operator, operands, tuple(last)))
    backwards.reverse()
    return backwards
