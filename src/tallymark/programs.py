"""Event sets as programs for the server: a few ``BITOP``s on temporary keys. Pure.

A program runs inside one transaction, whose last command unlinks its temporary
keys, so nobody ever sees them. Their names are random: two programs at the
same time share none.

True set algebra: a difference ``a - b`` is ``a XOR (a AND b)``. ``BITOP NOT``
would turn on the bits between the last user and the end of the last byte, and
``a AND (NOT b)`` would lose whoever is beyond b's last byte.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from .events import Bitmap, Combination

if TYPE_CHECKING:
    from collections.abc import Callable

    from .events import EventSet, Operator
    from .requests import Command

__all__ = ["Program"]

_OPERATIONS: Final[dict[Operator, bytes]] = {"&": b"AND", "|": b"OR", "^": b"XOR"}


class Program:
    """The commands that compute event sets, with commands of the query's own in between.

    Attributes:
        commands: all of them, in order. They belong into one transaction.
    """

    def __init__(self, prefix: str) -> None:
        """Begin an empty program for keys with this prefix."""
        self.commands: list[Command] = []
        #: No schema parses a name without a second underscore, so it is nobody's bitmap.
        self._scratch = f"{prefix}tmp:{secrets.token_hex(16)}:"
        self._registers: list[bytes] = []

    def ask(self, event_set: EventSet, question: Callable[[bytes], Command]) -> int:
        """Ask about the key that holds an event set; return the index of the reply."""
        self.commands.append(question(self._key(event_set, 0)))
        return len(self.commands) - 1

    def finished(self) -> list[Command]:
        """Return all commands, down to the one that unlinks the temporary keys."""
        if self._registers:
            return [*self.commands, (b"UNLINK", *self._registers)]
        return self.commands

    def _register(self, number: int) -> bytes:
        while len(self._registers) <= number:
            self._registers.append(f"{self._scratch}{len(self._registers)}".encode())
        return self._registers[number]

    def _key(self, event_set: EventSet, free: int) -> bytes:
        """Return the key of an event set; compute it first, if it is no bitmap.

        Arguments:
            event_set: what is wanted.
            free: the first register that may be written, of this number and
                above. What is computed is in that one.
        """
        if isinstance(event_set, Bitmap):
            return event_set.key
        if not isinstance(event_set, Combination):
            return self._folded(b"OR", [bitmap.key for bitmap in event_set.bitmaps()], free)
        if event_set.operator == "-":
            return self._difference(*event_set.operands, free=free)
        return self._operation(event_set.operator, event_set.operands, free)

    def _operation(self, operator: Operator, operands: tuple[EventSet, ...], free: int) -> bytes:
        """Combine operands in any order: what is a key already in one go, the rest one by one."""
        name = _OPERATIONS[operator]
        keys = [operand.key for operand in operands if isinstance(operand, Bitmap)]
        others = [operand for operand in operands if not isinstance(operand, Bitmap)]
        keys += [self._key(operand, free) for operand in others[:1]]
        result = self._folded(name, keys, free)
        for operand in others[1:]:
            other = self._key(operand, free + 1)
            result = self._folded(name, [result, other], free)
        return result

    def _difference(self, first: EventSet, *others: EventSet, free: int) -> bytes:
        """Take all others away from the first."""
        whole = self._key(first, free)
        less = self._operation("|", others, free + 1)
        common = self._folded(b"AND", [whole, less], free + 1)
        return self._folded(b"XOR", [whole, common], free)

    def _folded(self, name: bytes, keys: list[bytes], free: int) -> bytes:
        """Combine keys into a register, unless there is nothing to combine."""
        if len(keys) == 1:
            return keys[0]
        result = self._register(free)
        self.commands.append((b"BITOP", name, result, *keys))
        return result
