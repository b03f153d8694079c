"""The command line: all commands, the options that all of them have, and help.

To add a command, write a function in a module of its group, and add a line to `_COMMANDS`. The
module is imported when the command runs. The function's signature is the command line: what is
before ``/`` is an argument, what is after ``*`` an option; ``run: Run`` gets the `Invocation`.
Its docstring is the help: a line, examples behind "For example:", and "Arguments:". It prints
with ``run.output``, raises, and returns ``None`` for 0 or an exit code of `_errors`. So that
cyclopts can evaluate annotations, its module has no ``from __future__ import annotations``.
"""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import App, Group, Parameter

from ._errors import UsageError, guarded
from ._invocation import Invocation
from ._output import Output
from ._store import StoreOptions, store_url

__all__ = ["app", "run"]

_MARKS = Group("Marks", sort_key=1)
_READS = Group("Reads", sort_key=2)
_TRANSFER = Group("Data in and out", sort_key=4)

#: The import path of each command, without ``tallymark.cli.``, its group, and its help.
_COMMANDS: Final[dict[str, tuple[str, Group, str]]] = {
    "mark": ("_marks:mark", _MARKS, "Record that a user did something."),
    "import": ("_transfer:import_", _TRANSFER, "Mark the events of files."),
    "count": ("_reads:count", _READS, "Print how many users are in an event set."),
}

_ALL: Final = Group("Options of all commands", sort_key=9)


def _option(text: str, **more: Any) -> Any:
    return Parameter(help=text, group=_ALL, **more)


app = App(
    name="tallymark",
    help="Mark events of users on Redis bitmaps, and read them back.",
    help_format="plaintext",
    help_flags=["--help", "-h"],
    default_parameter=Parameter(negative=(), show_default=False),
)
for _name, (_path, _group, _help) in _COMMANDS.items():
    app.command(f"tallymark.cli.{_path}", name=_name, group=_group, help=_help)


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    url: Annotated[
        str | None,
        _option("the store; or env:NAME, file:PATH (default: TALLYMARK_URL, or localhost)"),
    ] = None,
    prefix: Annotated[str | None, _option("what all keys begin with (default: trackist_)")] = None,
    user_ids: Annotated[
        Literal["str", "uuid", "int", "bytes"] | None,
        _option("the type of the user ids (default: offsets, from 0 on)"),
    ] = None,
    shards: Annotated[int | None, _option("the number of shards of the database")] = None,
    timezone: Annotated[str | None, _option("the time zone of the periods (default: UTC)")] = None,
    timeout: Annotated[float | None, _option("how many seconds a request may take")] = None,
    json: Annotated[bool, _option("print an array of objects")] = False,
    csv: Annotated[bool, _option("print CSV with a header")] = False,
    html: Annotated[Path | None, _option("also write a page to this file")] = None,
    yes: Annotated[bool, _option("destroy without asking")] = False,
    debug: Annotated[bool, _option("print tracebacks")] = False,
) -> int:
    """Run a command with the options that all commands have."""
    if json and csv:
        raise UsageError("--json and --csv are two forms; one is possible")
    if prefix is not None and "://" in prefix:  # error messages show prefixes
        raise UsageError("--prefix is what keys begin with, not a URL")
    chosen = {"prefix": prefix, "shards": shards, "timezone": timezone, "timeout": timeout}
    options = {name: value for name, value in chosen.items() if value is not None}
    invocation = Invocation(
        StoreOptions(store_url(url), user_ids, options),
        Output("json" if json else "csv" if csv else "table", html),
        yes,
    )
    command, bound, injected = app.parse_args(tokens, exit_on_error=False, print_error=False)
    code = command(*bound.args, **bound.kwargs, **dict.fromkeys(injected, invocation))
    return code if isinstance(code, int) else 0


def run(arguments: list[str]) -> int:
    """Run a command line, and return its exit code."""

    def command() -> int:
        code = app.meta(
            arguments, exit_on_error=False, print_error=False, result_action="return_value"
        )
        return code if isinstance(code, int) else 0

    return guarded(command, debug="--debug" in arguments)
