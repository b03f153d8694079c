"""Event sets as programs for the server: a few ``BITOP``s on temporary keys. Pure.

A program runs inside one transaction, whose last command unlinks its temporary
keys, so nobody ever sees them. Their names are random: two programs at the
same time share none. A key is written again as soon as what it holds is not needed any
more, so there are no more of them than results that wait for their use.

True set algebra: a difference ``a - b`` is ``a XOR (a AND b)``. ``BITOP NOT``
would turn on the bits between the last user and the end of the last byte, and
``a AND (NOT b)`` would lose whoever is beyond b's last byte.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from .graphs import MOST_SOURCES

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from .._core.events import Operator
    from .graphs import Graph, Operation
    from .requests import Command

__all__ = ["Program", "short_program"]

_OPERATIONS: Final[dict[Operator, bytes]] = {"&": b"AND", "|": b"OR", "^": b"XOR"}

#: How many operations are put into words in one step.
_STEP: Final = 64


class Program:
    """The commands that compute a graph's expressions, and ask about each.

    Attributes:
        commands: all of them, in order, the last one unlinks the temporary keys. They
            belong into one transaction.
        asked: for each expression the index of the reply to the question about it.
    """

    def __init__(self, prefix: str) -> None:
        """Begin an empty program for keys with this prefix."""
        self.commands: list[Command] = []
        self.asked: list[int] = []
        #: No schema parses a name without a second underscore, so it is nobody's bitmap.
        self._scratch = f"{prefix}tmp:{secrets.token_hex(16)}:"
        self._registers: list[bytes] = []
        #: Those that hold nothing that is needed.
        self._free: list[bytes] = []

    def write(
        self, graph: Graph, question: Callable[[bytes], Command]
    ) -> Generator[None, None, None]:
        """Add the commands for a graph, step by step.

        Arguments:
            graph: the expressions.
            question: returns the command that asks about the bitmap under a key.
        """
        of_bitmaps: list[bytes] = []
        for key in graph.keys_of(graph.bitmaps):
            of_bitmaps.append(key)
            if len(of_bitmaps) % _STEP == 0:
                yield
        keys: list[bytes] = graph.values(of_bitmaps)
        roots = graph.roots
        if len(roots) == 1:
            for count, operation in enumerate(graph.operations):
                if count % _STEP == _STEP - 1:
                    yield
                keys[count] = self._computed(operation, keys)
            self.asked = [len(self.commands)]
            self.commands.append(question(keys[roots[0]]))
        else:
            yield from self._several(graph, keys, question)
        if self._registers:
            self.commands.append((b"UNLINK", *self._registers))

    def _several(
        self, graph: Graph, keys: list[bytes], question: Callable[[bytes], Command]
    ) -> Generator[None, None, None]:
        """Add the commands for several expressions: each is asked about when it is there."""
        roots = graph.roots
        self.asked = [0] * len(roots)
        wanted: dict[int, list[int]] = {}
        for index, root in enumerate(roots):
            wanted.setdefault(root, []).append(index)
        for number in list(wanted):
            if number < 0:
                self._ask(wanted[number], question(keys[number]))
        used: set[int] = set()
        used.update(*(operation.last for operation in graph.operations))
        for count, operation in enumerate(graph.operations):
            if count % _STEP == _STEP - 1:
                yield
            keys[count] = self._computed(operation, keys)
            if count in wanted:
                self._ask(wanted[count], question(keys[count]))
                if count not in used:
                    self._free.append(keys[count])

    def _ask(self, indexes: Sequence[int], question: Command) -> None:
        for index in indexes:
            self.asked[index] = len(self.commands)
        self.commands.append(question)

    def _register(self) -> bytes:
        """Return a temporary key that may be written."""
        if self._free:
            return self._free.pop()
        self._registers.append(f"{self._scratch}{len(self._registers)}".encode())
        return self._registers[-1]

    def _computed(self, operation: Operation, keys: Sequence[bytes]) -> bytes:
        """Compute an operation, and return the key of its result."""
        operator, operands, last = operation
        if operator == "-":
            return self._difference(operands, last, keys)
        # The result may take the place of an operand: it is written when all are read.
        self._free += [keys[number] for number in last]
        result = self._register()
        self._fold(_OPERATIONS[operator], result, [keys[number] for number in operands])
        return result

    def _difference(
        self, operands: Sequence[int], last: Sequence[int], keys: Sequence[bytes]
    ) -> bytes:
        """Take all others away from the first."""
        first, *others = operands
        self._free += [keys[number] for number in last if number != first]
        result, whole = self._register(), keys[first]
        less = keys[others[0]]
        if len(others) > 1:
            self._fold(b"OR", result, [keys[number] for number in others])
            less = result
        self._fold(b"AND", result, [whole, less])
        self._fold(b"XOR", result, [whole, result])
        if first in last:
            self._free.append(whole)
        return result

    def _fold(self, name: bytes, result: bytes, keys: Sequence[bytes]) -> None:
        """Combine keys, in any order, into one."""
        if len(keys) > MOST_SOURCES:
            # Those that are left, with what the first ones came to. If the result takes the
            # place of one of them, that goes first.
            keys = sorted(keys, key=result.__ne__)
            first, keys = keys[:MOST_SOURCES], keys[MOST_SOURCES:]
            self.commands.append((b"BITOP", name, result, *first))
            for at in range(0, len(keys), MOST_SOURCES - 1):
                some = keys[at : at + MOST_SOURCES - 1]
                self.commands.append((b"BITOP", name, result, result, *some))
            return
        self.commands.append((b"BITOP", name, result, *keys))


def short_program(
    prefix: str, operator: Operator, keys: Sequence[bytes], question: Callable[[bytes], Command]
) -> list[Command]:
    """Return the commands for a single operation, as most questions have, in less time.

    Arguments:
        prefix, question: as for `Program`.
        operator: no difference.
        keys: those of the operands, `MOST_SOURCES` at most.
    """
    result = f"{prefix}tmp:{secrets.token_hex(16)}:0".encode()
    operation = (b"BITOP", _OPERATIONS[operator], result, *keys)
    return [operation, question(result), (b"UNLINK", result)]
