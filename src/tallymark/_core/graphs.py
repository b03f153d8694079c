"""Expressions as graphs: their bitmaps and operations, each once, in topological order. Pure.

Event sets share parts, as those of "on at least 6 of 31 days" do. Written out, such an
expression doubles again and again; as a graph it has a few hundred operations.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from .events import Bitmap, Combination, walk

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from .events import EventSet, Operator

__all__ = ["LEAST_WRITTEN", "MOST_SOURCES", "SLOWER", "Graph", "Operation"]

T = TypeVar("T")

#: How many parts of an expression are looked at in one step.
_STEP: Final = 128

#: What a temporary key costs the server, at least, in bytes that it could have combined
#: meanwhile: a command in a transaction takes it as long as so many.
LEAST_WRITTEN: Final = 4096

#: As long as all operands last, Redis combines whole words; each byte beyond the shortest
#: takes it about as long as so many others (redis/src/bitops.c, bitopCommand).
SLOWER: Final = 6

#: Redis combines so many bitmaps by whole words, and more of them byte by byte, which
#: takes ten times as long (redis/src/bitops.c, bitopCommand).
MOST_SOURCES: Final = 16


class Operation(NamedTuple):
    """Some values combined from left to right.

    Attributes:
        operator: how.
        operands: the numbers of the values.
        last: those of them that are results of operations, and not used again.
    """

    operator: Operator
    operands: Sequence[int]
    last: Sequence[int]


class Graph:
    """Some expressions, whose equal parts are one.

    Values have numbers: the operations' results count from 0, and the bitmaps down from -1.
    So both are found in one list, in which the bitmaps' values are at the end; see `values`.

    Attributes:
        bitmaps: each once.
        operations: each once, after those whose results it uses.
        roots: for each of the expressions the number of its value.
        writes: how often a server writes a temporary key to work them out.
        prefix: what the bitmaps' keys begin with, if that is not what they say themselves.
    """

    __slots__ = ("bitmaps", "operations", "prefix", "roots", "writes")

    def __init__(self) -> None:
        """Begin without an expression."""
        self.bitmaps: Sequence[Bitmap] = ()
        self.operations: Sequence[Operation] = ()
        self.roots: Sequence[int] = ()
        self.writes = 0
        self.prefix: str | None = None

    @classmethod
    def of(cls, *event_sets: EventSet) -> Graph:
        """Return the graph of some expressions."""
        graph = cls()
        for _ in graph._built(event_sets):
            pass
        return graph

    @classmethod
    def steps(cls, event_sets: Sequence[EventSet]) -> Generator[None, None, Graph]:
        """Return the graph of some expressions, step by step."""
        graph = cls()
        yield from graph._built(event_sets)
        return graph

    @classmethod
    def of_tree(cls, event_set: EventSet) -> Graph:
        """Return the graph of an expression of no great size, which is soon walked through.

        As `of`, but what is used in several places is so often computed too.
        """
        graph = cls()
        bitmaps: dict[Bitmap, int] = {}
        operations: list[Operation] = []
        graph.roots = (_grown(event_set, bitmaps, operations),)
        graph.bitmaps, graph.operations = tuple(bitmaps), operations
        for operator, operands, _ in operations:
            graph.writes += _writes(operator, len(operands))
        return graph

    def _built(self, event_sets: Sequence[EventSet]) -> Iterator[None]:
        bitmaps: dict[Bitmap, int] = {}
        operations: dict[tuple[Operator, tuple[int, ...]], int] = {}
        numbers: dict[int, int] = {}  # by the parts' identity
        for count, one in enumerate(walk(event_sets)):
            if count % _STEP == _STEP - 1:
                yield
            if isinstance(one, Bitmap):
                number = bitmaps.setdefault(one, ~len(bitmaps))
            elif isinstance(one, Combination):
                number, *others = [numbers[id(operand)] for operand in one.operands]
                for other in others:
                    # Two at a time, so that what begins alike is shared as well.
                    number = _numbered(operations, one.operator, (number, other))
            else:
                own = [bitmaps.setdefault(each, ~len(bitmaps)) for each in one.bitmaps()]
                number = _numbered(operations, "|", tuple(own))
            numbers[id(one)] = number
        roots = [numbers[id(one)] for one in event_sets]
        found: list[tuple[Operator, Sequence[int]]] = list(operations)
        kept = yield from _merged(found, roots, len(bitmaps))
        places = {number: place for place, number in enumerate(kept)}
        self.bitmaps = tuple(bitmaps)
        self.roots = [places.get(number, number) for number in roots]
        self.operations = yield from _dying(
            [
                # Tuples of ints, unlike lists, are nothing that the garbage collector visits.
                (found[number][0], tuple([places.get(each, each) for each in found[number][1]]))
                for number in kept
            ]
        )
        for count, (operator, operands, _) in enumerate(self.operations):
            if count % _STEP == _STEP - 1:
                yield
            self.writes += _writes(operator, len(operands))

    def values(self, of_bitmaps: Sequence[T]) -> list[Any]:
        """Return a list that has a place for all values, and those of the bitmaps in theirs."""
        return [*itertools.repeat(None, len(self.operations)), *reversed(of_bitmaps)]

    def below(self, prefix: str) -> Graph:
        """Return the same expressions on keys with a prefix, such as that of a shard.

        Takes no time, however many bitmaps there are: their keys are made when they are sent.
        """
        if prefix == (self.prefix or self.bitmaps[0].origin.prefix):
            return self
        graph = Graph()
        graph.bitmaps, graph.operations = self.bitmaps, self.operations
        graph.roots, graph.writes, graph.prefix = self.roots, self.writes, prefix
        return graph

    def keys(self) -> Iterator[bytes]:
        """Yield the keys of the bitmaps, which may take long."""
        return self.keys_of(self.bitmaps)

    def key_of(self, bitmap: Bitmap) -> bytes:
        """Return the key of one of the bitmaps."""
        return bitmap.key if self.prefix is None else bitmap.key_below(self.prefix)

    def keys_of(self, bitmaps: Iterable[Bitmap]) -> Iterator[bytes]:
        """Yield the keys of some of the bitmaps."""
        if self.prefix is None:
            return (bitmap.key for bitmap in bitmaps)
        prefix = self.prefix
        return (bitmap.key_below(prefix) for bitmap in bitmaps)

    def evaluation(self, values: list[Any]) -> Iterator[None]:
        """Work out all operations, step by step, on values that have ``& | ^ ~``.

        Ints and numpy arrays have; of ints, only the bits that any of the bitmaps has are
        set, since ``~`` is used together with ``&``.

        Arguments:
            values: as `values` returns them. Results that are no roots are gone at the end.
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
        """Return the first byte that may have a user of the first expression, step by step.

        Arguments:
            nexts: the first byte of each bitmap that has one; None if none has.
        """
        found = self.values(nexts)
        for count, (operator, operands, _) in enumerate(self.operations):
            if count % _STEP == _STEP - 1:
                yield
            if operator == "-":
                found[count] = found[operands[0]]
                continue
            known = [one for number in operands if (one := found[number]) is not None]
            if operator == "&":
                found[count] = max(known) if len(known) == len(operands) else None
            else:
                found[count] = min(known, default=None)
        first: int | None = found[self.roots[0]]
        return first

    def cost(self, lengths: Sequence[int]) -> Generator[None, None, int]:
        """Return about how many bytes a server writes that works all out, step by step.

        Those beyond the shortest operand count several times, as they take it longer.

        Arguments:
            lengths: how many bytes each of the bitmaps has.
        """
        found = self.values(lengths)
        total = 0
        for count, (operator, operands, _) in enumerate(self.operations):
            if count % _STEP == _STEP - 1:
                yield
            own = [found[number] for number in operands]
            shortest, longest = min(own), max(own)
            found[count] = longest
            weight = max(shortest + SLOWER * (longest - shortest), LEAST_WRITTEN)
            total += _writes(operator, len(operands)) * weight
        return total


def _grown(event_set: EventSet, bitmaps: dict[Bitmap, int], operations: list[Operation]) -> int:
    """Add what an expression is made of, and return the number of its value."""
    if isinstance(event_set, Bitmap):
        return bitmaps.setdefault(event_set, ~len(bitmaps))
    operands: list[int] = []
    operator: Operator = "|"
    if isinstance(event_set, Combination):
        operator = event_set.operator
        todo = list(event_set.operands[::-1])
        while todo:
            one = todo.pop()
            if isinstance(one, Bitmap):
                operands.append(bitmaps.setdefault(one, ~len(bitmaps)))
            elif (
                isinstance(one, Combination)
                and one.operator == operator
                # Of a difference, only what the others are taken from.
                and not (operator == "-" and operands)
            ):
                todo += one.operands[::-1]
            else:
                operands.append(_grown(one, bitmaps, operations))
    else:
        operands += [bitmaps.setdefault(one, ~len(bitmaps)) for one in event_set.bitmaps()]
        if len(operands) == 1:
            return operands[0]
    operations.append(Operation(operator, operands, [each for each in operands if each >= 0]))
    return len(operations) - 1


def _writes(operator: Operator, count: int) -> int:
    """Return how often the server writes a temporary key for so many operands.

    See `tallymark._reading.bitop`.
    """
    if operator == "-":
        return 2 if count == 2 else 2 + _writes("|", count - 1)
    return 1 if count <= MOST_SOURCES else -(-(count - 1) // (MOST_SOURCES - 1))


def _numbered(
    operations: dict[tuple[Operator, tuple[int, ...]], int],
    operator: Operator,
    operands: tuple[int, ...],
) -> int:
    """Return the number of an operation's result, which is an operand's if it changes nothing."""
    if operator in "&|" and operands.count(operands[0]) == len(operands):
        return operands[0]
    return operations.setdefault((operator, operands), len(operations))


def _merged(
    operations: list[tuple[Operator, Sequence[int]]], roots: Sequence[int], bitmaps: int
) -> Generator[None, None, list[int]]:
    """Merge chains of an operator whose results in between nobody else uses.

    A server combines many operands at once faster than two at a time.

    Arguments:
        operations: all of them; changed in place.
        roots: the numbers of the expressions' values.
        bitmaps: how many bitmaps there are.

    Returns:
        The numbers of the operations that are left, in order.
    """
    # Those of bitmaps are at the end.
    uses = [0] * (len(operations) + bitmaps)
    for number in roots:
        uses[number] += 1
    for count, (_, operands) in enumerate(operations):
        if count % _STEP == _STEP - 1:
            yield
        for number in operands:
            uses[number] += 1
    gone = [False] * len(operations)
    kept: list[int] = []
    for number in range(len(operations) - 1, -1, -1):
        if number % _STEP == 0:
            yield
        if gone[number]:
            continue
        kept.append(number)
        operator, operands = operations[number]
        if not any(
            each >= 0 and uses[each] == 1 and operations[each][0] == operator for each in operands
        ):
            continue
        todo, found = list(operands[::-1]), list[int]()
        while todo:
            operand = todo.pop()
            if (
                operand >= 0
                and uses[operand] == 1
                and operations[operand][0] == operator
                # Of a difference, only what the others are taken from.
                and not (operator == "-" and found)
            ):
                gone[operand] = True
                todo += operations[operand][1][::-1]
            else:
                found.append(operand)
        operations[number] = operator, _without_repetitions(operator, found)
    kept.reverse()
    return kept


def _without_repetitions(operator: Operator, operands: list[int]) -> list[int]:
    """Return operands without those that change nothing, since they are there already."""
    if operator == "^":
        return operands
    if operator == "-":  # the first one is not the same as its like among those taken away
        return [operands[0], *dict.fromkeys(operands[1:])]
    return list(dict.fromkeys(operands))


def _dying(
    operations: Sequence[tuple[Operator, Sequence[int]]],
) -> Generator[None, None, list[Operation]]:
    """Return operations with what they use last."""
    seen: set[int] = set()
    found: list[Operation] = []
    for count in range(len(operations) - 1, -1, -1):
        if count % _STEP == _STEP - 1:
            yield
        operator, operands = operations[count]
        last = [each for each in dict.fromkeys(operands) if each >= 0 and each not in seen]
        seen.update(last)
        found.append(Operation(operator, operands, tuple(last)))
    found.reverse()
    return found
