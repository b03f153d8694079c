"""The commands about the program itself: help, and completions."""

from typing import Literal

from ._app import app
from ._commands import COMMANDS, OPTIONS
from ._help import entry
from ._invocation import Run
from ._writing import write

__all__ = ["completion", "help_"]


def help_(command: str | None = None, /, *, run: Run) -> None:
    """Describe a command; or all of them, and the options that all commands have.

    For example:

      tallymark help
      tallymark help count

    Arguments:
        command: the command
    """
    if command is not None:
        app.parse_args([command, "--help"], exit_on_error=False, print_error=False)
        app.help_print([command])
        return
    rows = [
        *({"name": name, "does": text} for name, (_, _, text) in COMMANDS.items()),
        *({"name": f"--{name}", "does": text} for name, text in OPTIONS.items()),
    ]
    lines = [entry(row["name"], row["does"]) for row in rows]
    lines.insert(len(COMMANDS), "\n")
    run.output.answer(rows, "".join(lines).rstrip("\n"))


def completion(shell: Literal["bash", "zsh", "fish"], /, *, run: Run) -> None:
    """Print a script that completes commands and options in a shell.

    bash loads it with ``source`` from ~/.bashrc; zsh and fish find it in these folders.

    For example:

      tallymark completion bash > ~/.tallymark.bash
      tallymark completion zsh > "${fpath[1]}/_tallymark"
      tallymark completion fish > ~/.config/fish/completions/tallymark.fish

    Arguments:
        shell: the shell
    """
    write(app.generate_completion(shell=shell))
