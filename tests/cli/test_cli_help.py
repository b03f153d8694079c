"""Help fits a screen, and completions know all commands."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from terminals import COLUMNS, LINES

import tallymark
from tallymark import SyncTally
from tallymark.cli import _app
from tallymark.cli._commands import ALL, COMMANDS, OPTIONS

if TYPE_CHECKING:
    from command_line import CommandLine

ROOT = Path(__file__).parents[2]

#: Verbs that are no commands, or have another name as one.
OTHER_NAMES = {
    "mark_event": "mark",
    "unmark_event": "unmark",
    "event_names": "events",
    "user_chunks": "users",
    "contains_many": "contains",
    "last_hours": "count",
    "counts": "count",
    "mark_rows": "import",
    "restore": "import",
}
#: What builds event sets, and what is about the client.
NO_COMMANDS = {
    *("hour", "day", "week", "month", "year", "unique", "during", "between", "last"),
    *("backend", "buffered", "client", "close", "from_url", "stats", "transaction", "configure"),
}

#: Commands whose page is longer than most.
MANY_OPTIONS = {"import", "export"}


def test_every_verb_is_a_command() -> None:
    verbs = {name for name in dir(SyncTally) if not name.startswith("_")} - NO_COMMANDS
    commands = {OTHER_NAMES.get(name, name).replace("_", "-") for name in verbs}
    assert commands <= set(COMMANDS)


def test_the_page_of_the_program(cli: CommandLine) -> None:
    page = cli.out("--help")
    assert page == cli.out("") == cli.out("-h")
    lines = page.splitlines()
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS
    for name in COMMANDS:
        assert re.search(rf"(?<!\S){name}(?!\S)", page), name
    for name in OPTIONS:
        assert f"--{name}" in page
    assert cli.out("--version") == f"{tallymark.__version__}\n"


def test_all_commands_and_options_are_described(cli: CommandLine) -> None:
    page = cli.out("help")
    assert max(map(len, page.splitlines())) <= COLUMNS
    for name, (_, _, text) in COMMANDS.items():
        assert re.search(rf"^  {name} +{text[:40]}", page, re.MULTILINE), name
    assert {row["name"] for row in cli.rows("help")} == {*COMMANDS, *(f"--{n}" for n in OPTIONS)}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_of_a_command(name: str, cli: CommandLine) -> None:
    page = cli.out(f"{name} --help")
    assert page == cli.out(f"help {name}")
    lines = page.splitlines()
    assert max(map(len, lines)) <= COLUMNS
    assert len(lines) <= (2 if name in MANY_OPTIONS else 1) * LINES
    assert lines[0].startswith(f"Usage: tallymark {name} ")
    examples = re.findall(rf"^  (tallymark {name}\b.*)", page, re.MULTILINE)
    assert examples, page
    assert f"{ALL}, such as --url and --json: see tallymark help" in page
    assert "ARGS" not in page
    for argument in re.findall(r"[A-Z_]{2,}", lines[0].replace("OPTIONS", "")):
        assert re.search(rf"^  {argument}\b", page, re.MULTILINE), page


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_help_are_command_lines(name: str, cli: CommandLine) -> None:
    page = cli.out(f"help {name}")
    for example in re.findall(rf"^  tallymark ({name}\b.*)", page, re.MULTILINE):
        words = shlex.split(re.split(r" > | \| | && ", re.sub(r'"[^"]*"', "X", example))[0])
        words = [" -" if word == "-" else word for word in words]  # as the program does
        # These raise nothing.
        _, bound, _ = _app.app.meta.parse_args(words, exit_on_error=False, print_error=False)
        _app.app.parse_args(bound.args, exit_on_error=False, print_error=False)


def test_docstrings_have_what_help_needs() -> None:
    """The line in the list of commands is shorter than the first line of the docstring."""
    for path, _, text in COMMANDS.values():
        module, _, function = path.partition(":")
        tree = ast.parse((ROOT / "src/tallymark/cli" / f"{module}.py").read_text("utf-8"))
        (found,) = (
            node
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and node.name == function
        )
        assert (ast.get_docstring(found) or "").splitlines()[0].endswith(".")
        assert len(text) <= COLUMNS - 26
        assert not text.endswith(".")


SHELLS = {"bash": ["bash", "-n"], "zsh": ["zsh", "-n"], "fish": ["fish", "--no-execute"]}


@pytest.mark.parametrize("shell", SHELLS)
def test_completions_parse(shell: str, cli: CommandLine, tmp_path: Path) -> None:
    script = cli.out(f"completion {shell}")
    for name in COMMANDS:
        assert name in script
    for name in OPTIONS:
        assert re.search(rf"--{name}\b|-l '?{name}\b", script), name
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    file = tmp_path / "script"
    file.write_text(script, encoding="utf-8")
    subprocess.run([*SHELLS[shell], str(file)], check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tallymark cou", {"count"}),
        ("tallymark stre", {"streak", "streaks"}),
        ("tallymark count active --mon", {"--month"}),
        ("tallymark mark active 1 --ho", {"--hourly"}),
        ("tallymark count --user-ids u", {"uuid"}),
    ],
)
def test_bash_completes(words: str, expected: set[str], cli: CommandLine) -> None:
    script = cli.out("completion bash")
    split = words.split()
    program = (
        f"{script}\nCOMP_WORDS=({' '.join(split)}) COMP_CWORD={len(split) - 1}\n"
        '_tallymark\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash"], input=program, text=True, capture_output=True, check=True)
    assert {word.strip() for word in done.stdout.splitlines()} == expected
