"""Commands of the program ``tallymark``, run in the process of the tests."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tallymark.cli import main

if TYPE_CHECKING:
    import pytest

__all__ = ["CommandLine", "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """What a command has printed, and its exit code."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class CommandLine:
    """The program on one store.

    Attributes:
        url: the URL of the store, which each command gets.
        capsys: takes what the commands print.
    """

    url: str
    capsys: pytest.CaptureFixture[str]

    def __call__(self, command: str | list[str], *, code: int = 0) -> Outcome:
        """Run a command and return its outcome.

        Arguments:
            command: the command without ``tallymark``, as words or as a shell would take it.
            code: the exit code that it has to have.
        """
        words = shlex.split(command) if isinstance(command, str) else command
        self.capsys.readouterr()
        got = main(["--url", self.url, *words])
        printed = self.capsys.readouterr()
        outcome = Outcome(got, printed.out, printed.err)
        assert got == code, outcome
        return outcome

    def out(self, command: str | list[str]) -> str:
        """Run a command that succeeds without a warning; return what it prints."""
        outcome = self(command)
        assert not outcome.err, outcome
        return outcome.out

    def rows(self, command: str) -> Any:
        """Run a command that succeeds with ``--json``; return its rows."""
        return json.loads(self(f"{command} --json").out)
