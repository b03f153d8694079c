"""The command that prints completions for a shell."""

from typing import Literal

from ._invocation import Run
from ._writing import write

__all__ = ["completion"]


def completion(shell: Literal["bash", "zsh", "fish"], /, *, run: Run) -> None:
    """Print a script that completes commands and options in a shell.

    For example:

      tallymark completion bash > ~/.local/share/bash-completion/completions/tallymark
      tallymark completion zsh > "${fpath[1]}/_tallymark"
      tallymark completion fish > ~/.config/fish/completions/tallymark.fish

    Arguments:
        shell: the shell
    """
    from ._app import app  # noqa: PLC0415 - a cycle otherwise

    write(app.generate_completion(shell=shell))
