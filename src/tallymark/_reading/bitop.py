"""Plans of ``BITOP`` commands on temporary keys that compute event sets on a server. Pure.

The commands of a plan run in one transaction, which ends with the ``UNLINK`` of the temporary
keys, so no other client sees these keys. Their names are random, so concurrent transactions
share none. A plan writes to a temporary key again as soon as its value has had its last use,
so it needs no more keys than there are intermediate results at one time.

A difference ``a - b`` is computed as ``a XOR (a AND b)``. ``BITOP NOT`` would set the bits
between the last user and the end of the last byte, and ``a AND (NOT b)`` would lose the users
beyond b's last byte.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from .graphs import MAX_SOURCES

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from .._core.events import Operator
    from .graphs import Graph, Operation
    from .requests import Command

__all__ = ["BitopPlan", "plan_operation"]

_OPERATIONS: Final[dict[Operator, bytes]] = {"&": b"AND", "|": b"OR", "^": b"XOR"}

#: How many operations one step of a generator plans.
_STEP: Final = 64


class BitopPlan:
    """The commands that compute the expressions of a graph and read each result.

    Attributes:
        commands: all commands, in order; to be sent as one transaction. The last one unlinks
            the temporary keys, if there are any.
        reply_indexes: for each expression the index of the command that reads its result.
        temp_keys: the temporary keys.
    """

    def __init__(self, prefix: str) -> None:
        """Make an empty plan.

        Arguments:
            prefix: the first characters of the temporary keys.
        """
        self.commands: list[Command] = []
        self.reply_indexes: list[int] = []
        # No bitmap has such a key: a bitmap's key has another underscore after the prefix.
        self._temp_prefix = f"{prefix}tmp:{secrets.token_hex(16)}:"
        self.temp_keys: list[bytes] = []
        #: The temporary keys whose values are not used any more.
        self._free_keys: list[bytes] = []

    def add(
        self, graph: Graph, read_command: Callable[[bytes], Command]
    ) -> Generator[None, None, None]:
        """Add the commands for a graph; yields between steps.

        Arguments:
            graph: the expressions.
            read_command: returns the command that reads the bitmap under a key, such as
                ``BITCOUNT``.
        """
        bitmap_keys: list[bytes] = []
        for key in graph.keys_of(graph.bitmaps):
            bitmap_keys.append(key)
            if len(bitmap_keys) % _STEP == 0:
                yield
        keys: list[bytes] = graph.values(bitmap_keys)
        roots = graph.roots
        if len(roots) == 1:
            for count, operation in enumerate(graph.operations):
                if count % _STEP == _STEP - 1:
                    yield
                keys[count] = self._compute(operation, keys)
            self.reply_indexes = [len(self.commands)]
            self.commands.append(read_command(keys[roots[0]]))
        else:
            yield from self._add_several(graph, keys, read_command)
        if self.temp_keys:
            self.commands.append((b"UNLINK", *self.temp_keys))

    def _add_several(
        self, graph: Graph, keys: list[bytes], read_command: Callable[[bytes], Command]
    ) -> Generator[None, None, None]:
        """Add the commands for several expressions; each result is read once it is computed."""
        roots = graph.roots
        self.reply_indexes = [0] * len(roots)
        expressions_of: dict[int, list[int]] = {}
        for index, root in enumerate(roots):
            expressions_of.setdefault(root, []).append(index)
        for number, indexes in expressions_of.items():
            if number < 0:
                self._read(indexes, read_command(keys[number]))
        used: set[int] = set()
        used.update(*(operation.last for operation in graph.operations))
        for count, operation in enumerate(graph.operations):
            if count % _STEP == _STEP - 1:
                yield
            keys[count] = self._compute(operation, keys)
            if count in expressions_of:
                self._read(expressions_of[count], read_command(keys[count]))
                if count not in used:
                    self._free_keys.append(keys[count])

    def _read(self, indexes: Sequence[int], command: Command) -> None:
        for index in indexes:
            self.reply_indexes[index] = len(self.commands)
        self.commands.append(command)

    def _take_temp_key(self) -> bytes:
        """Return a temporary key that may be written to."""
        if self._free_keys:
            return self._free_keys.pop()
        self.temp_keys.append(f"{self._temp_prefix}{len(self.temp_keys)}".encode())
        return self.temp_keys[-1]

    def _compute(self, operation: Operation, keys: Sequence[bytes]) -> bytes:
        """Add the commands for an operation, and return the key of its result."""
        operator, operands, last = operation
        if operator == "-":
            return self._subtract(operands, last, keys)
        # The result may overwrite an operand: BITOP reads all operands before it writes.
        self._free_keys += [keys[number] for number in last]
        result = self._take_temp_key()
        self._combine(_OPERATIONS[operator], result, [keys[number] for number in operands])
        return result

    def _subtract(
        self, operands: Sequence[int], last: Sequence[int], keys: Sequence[bytes]
    ) -> bytes:
        """Add the commands for the first operand without all others; return the result's key."""
        first, *others = operands
        # The first operand is read twice, so the result must not overwrite it.
        self._free_keys += [keys[number] for number in last if number != first]
        result, minuend = self._take_temp_key(), keys[first]
        subtrahend = keys[others[0]]
        if len(others) > 1:
            self._combine(b"OR", result, [keys[number] for number in others])
            subtrahend = result
        self._combine(b"AND", result, [minuend, subtrahend])
        self._combine(b"XOR", result, [minuend, result])
        if first in last:
            self._free_keys.append(minuend)
        return result

    def _combine(self, name: bytes, result: bytes, keys: Sequence[bytes]) -> None:
        """Add the ``BITOP`` commands of a commutative operation on one or more keys."""
        if len(keys) > MAX_SOURCES:
            # Later commands combine the result so far with more keys. A key that the result
            # overwrites has to be read by the first command.
            keys = sorted(keys, key=result.__ne__)
            first, keys = keys[:MAX_SOURCES], keys[MAX_SOURCES:]
            self.commands.append((b"BITOP", name, result, *first))
            for at in range(0, len(keys), MAX_SOURCES - 1):
                chunk = keys[at : at + MAX_SOURCES - 1]
                self.commands.append((b"BITOP", name, result, result, *chunk))
            return
        self.commands.append((b"BITOP", name, result, *keys))


def plan_operation(
    prefix: str,
    operator: Operator,
    keys: Sequence[bytes],
    read_command: Callable[[bytes], Command],
) -> list[Command]:
    """Return the commands of a `BitopPlan` with one ``BITOP``, the common case, in less time.

    Arguments:
        prefix, read_command: as for `BitopPlan`.
        operator: any operator but ``-``.
        keys: the keys of the operands, `MAX_SOURCES` at most.
    """
    result = f"{prefix}tmp:{secrets.token_hex(16)}:0".encode()
    operation = (b"BITOP", _OPERATIONS[operator], result, *keys)
    return [operation, read_command(result), (b"UNLINK", result)]
