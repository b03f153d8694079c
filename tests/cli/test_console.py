"""The commands of the documents print, in a terminal, what the documents say.

A ``console`` block has lines that begin with ``$ ``, with ``> `` where a command goes on, and
behind each command what it prints. ``...`` stands for any text; alone on a line, for any lines.
What a reader types after a question stands behind it: ``delete 3 bitmaps? [y/N] y``. The commands
of a document share a folder and a database, which its ``python`` blocks fill first, each a
program of its own. ``$ echo $?`` prints the exit code of the command before.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import pytest
from terminals import COLUMNS, Terminals

from documents import DOCUMENTS, READERS_URL, fences

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stores import Store

WITH_COMMANDS = [name for name, text in DOCUMENTS.items() if "```console" in text]


class Step(NamedTuple):
    """A command of a document, and what it prints."""

    line: int
    command: str
    printed: list[str]


def steps(document: str) -> Iterator[Step]:
    """Yield the commands of a document."""
    for token in fences(document):
        if token.info != "console":
            continue
        assert token.map is not None
        step: Step | None = None
        for line, text in enumerate(token.content.splitlines(), token.map[0] + 2):
            if text.startswith("$ "):
                if step is not None:
                    yield step
                step = Step(line, text[2:], [])
            elif text.startswith("> ") and step is not None and not step.printed:
                step = step._replace(command=f"{step.command}\n{text[2:]}")
            else:
                assert step is not None, f"line {line}: output without a command"
                step.printed.append(text)
        if step is not None:
            yield step


def pattern(printed: list[str]) -> str:
    """Return the regular expression for what a command prints."""
    lines = []
    for text in printed:
        if text.strip() == "...":
            lines.append(r"(?:.*\n)*")
        else:
            lines.append(".*".join(map(re.escape, text.rstrip().split("..."))) + r"\n")
    return "".join(lines)


def programs(document: str) -> list[str]:
    """Return the Python blocks of a document."""
    return [token.content for token in fences(document) if token.info == "python"]


@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_commands_print_what_a_document_says(name: str, redis_store: Store, tmp_path: Path) -> None:
    document = DOCUMENTS[name]
    if name != "README.md":  # its commands begin with an empty database
        for program in programs(document):
            exec(program.replace(READERS_URL, redis_store.url), {"__name__": "document"})
    folder = tmp_path / "reader"
    folder.mkdir()
    code = 0
    with Terminals(folder, {"TALLYMARK_URL": redis_store.url}) as terminals:
        for step in steps(document):
            if step.command == "echo $?":
                assert step.printed == [str(code)], f"{name}, line {step.line}"
                continue
            answers = [
                match[1] for text in step.printed if (match := re.search(r"\[y/N\] (\w+)$", text))
            ]
            command = step.command.replace(READERS_URL, redis_store.url)
            shown, code = terminals.run(command, answers)
            message = f"{name}, line {step.line}: {step.command}\n{shown}"
            assert re.fullmatch(pattern(step.printed), f"{shown}\n" if shown else ""), message
            assert all(len(text) <= COLUMNS for text in step.printed), message


def test_what_a_document_says_is_compared() -> None:
    (first, second) = steps("```console\n$ a \\\n> b\nx...z\n...\n$ echo $?\n1\n```\n")
    assert first == Step(2, "a \\\nb", ["x...z", "..."])
    assert second == Step(6, "echo $?", ["1"])
    assert re.fullmatch(pattern(first.printed), "xyz\nmore\nlines\n")
    assert re.fullmatch(pattern(first.printed), "xz\n")
    assert not re.fullmatch(pattern(first.printed), "xy\n")
    assert not re.fullmatch(pattern(["a"]), "a\nb\n")
