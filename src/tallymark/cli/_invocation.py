"""What every command gets: the store, the output, and how to ask before something is destroyed."""

from __future__ import annotations

import contextlib
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from .._core.untrusted import escaped
from ._errors import UsageError, warn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._output import Output
    from ._store import StoreOptions

__all__ = ["Invocation", "Run", "Whole"]


@dataclass(frozen=True)
class Invocation:
    """The options that all commands have, as objects.

    Attributes:
        store: which database.
        output: how to print.
        yes: whether to destroy without asking.
    """

    store: StoreOptions
    output: Output
    yes: bool

    @contextlib.contextmanager
    def tally(self) -> Iterator[Any]:
        """Yield a blocking tally on the store, and close it."""
        with self.store.open() as tally:
            yield tally

    def confirm(self, question: str) -> bool:
        """Return whether to go on; ask on a terminal.

        Arguments:
            question: what would be destroyed, without the question mark.

        Raises:
            UsageError: there is neither a terminal nor the option ``--yes``.
        """
        if self.yes:
            return True
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError(f"{escaped(question)}: without a terminal, this needs --yes")
        print(f"{escaped(question)}? [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
        answer = sys.stdin.readline().strip().lower()
        if answer in {"y", "yes"}:
            return True
        warn("nothing was changed")
        return False


if TYPE_CHECKING:
    Run = Invocation
else:
    #: The annotation of the parameter ``run`` of a command. The class is hidden from cyclopts,
    #: which would look for options in it.
    Run = Annotated[Any, Parameter(parse=False)]


def _whole(_: object, tokens: Sequence[Any]) -> int:
    """Return the number in an argument; cyclopts itself rounds 1.5, and takes 0x10."""
    (token,) = tokens
    if re.fullmatch(r"[+-]?\d{1,18}", token.value, re.ASCII) is None:
        raise ValueError("a whole number")
    return int(token.value)


#: The annotation of a number.
Whole = Annotated[int, Parameter(converter=_whole)]
