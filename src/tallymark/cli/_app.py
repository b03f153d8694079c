"""The command line: the app, the options that all commands have, and how a command is run.

The commands are listed in `_commands.py`, which says how to add one.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import App, Group, Parameter

from .. import __version__
from .._redis.url_sources import url_in, url_of_environment
from ._commands import ALL, COMMANDS, OPTIONS
from ._errors import UsageError, guarded
from ._help import HelpPage
from ._invocation import Invocation, Whole
from ._output import Output
from ._pages import check_page
from ._periods import lifetimes_of
from ._store import StoreOptions, shards_of

__all__ = ["app", "run"]


def _option(name: str, **more: Any) -> Any:
    return Parameter(help=OPTIONS[name], group=_GROUP, **more)


#: What stands for the argument ``-`` while cyclopts parses, since it takes that for an option.
_HYPHEN: Final = " -"

_GROUP: Final = Group(ALL, sort_key=9)

app = App(
    name="tallymark",
    help="Mark events of users on Redis bitmaps, and read them back.",
    help_format="plaintext",
    help_formatter=HelpPage(),
    version=__version__,
    help_flags=["--help", "-h"],
    default_parameter=Parameter(negative=(), show_default=False),
    group_parameters=Group("Options", sort_key=3),
)
for _name, (_path, _group, _) in COMMANDS.items():
    app.command(f"tallymark.cli.{_path}", name=_name, group=_group)
app.meta.suppress_keyboard_interrupt = False


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    url: Annotated[str | None, _option("url")] = None,
    prefix: Annotated[str | None, _option("prefix")] = None,
    user_ids: Annotated[Literal["str", "uuid", "int", "bytes"] | None, _option("user-ids")] = None,
    shards: Annotated[str | None, _option("shards")] = None,
    timezone: Annotated[str | None, _option("timezone")] = None,
    yearly: Annotated[bool, _option("yearly")] = False,
    max_user_id: Annotated[Whole | None, _option("max-user-id")] = None,
    read_from: Annotated[str | None, _option("read-from")] = None,
    replicas: Annotated[Whole | None, _option("replicas")] = None,
    timeout: Annotated[float | None, _option("timeout")] = None,
    expire: Annotated[list[str] | None, _option("expire")] = None,
    json: Annotated[bool, _option("json")] = False,
    csv: Annotated[bool, _option("csv")] = False,
    html: Annotated[Path | None, _option("html")] = None,
    yes: Annotated[bool, _option("yes")] = False,
    debug: Annotated[bool, _option("debug")] = False,
) -> int:
    """Run a command with the options that all commands have."""
    if json and csv:
        raise UsageError("--json and --csv are two forms; one is possible")
    if prefix is not None and "://" in prefix:  # error messages show prefixes
        raise UsageError("--prefix is what keys begin with, not a URL")
    is_named = url is not None
    store = url_of_environment() if url is None else url_in(url, "--url: ")
    del url  # error reporters show the locals of frames
    reads: Any = read_from  # a word or a URL, which error reporters do not show
    if read_from not in {None, "primary", "replicas"}:
        reads = url_in(str(read_from), "--read-from: ")
    del read_from
    chosen = {
        "prefix": prefix,
        "timezone": timezone,
        "track_yearly": yearly or None,
        "max_user_id": max_user_id,
        "read_from": reads,
        "replicas": replicas,
        "timeout": timeout,
    }
    options: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    if shards is not None:
        options["shards"] = shards_of("--shards", shards)
    if expire:
        options["expire"] = lifetimes_of(expire)
    if html is not None:
        check_page(html)
    invocation = Invocation(
        StoreOptions(store, user_ids, options, is_named=is_named),
        Output("json" if json else "csv" if csv else "table", html),
        yes,
    )
    words = [_HYPHEN if word == "-" else word for word in tokens]
    command, bound, injected = app.parse_args(words, exit_on_error=False, print_error=False)
    arguments = ["-" if argument == _HYPHEN else argument for argument in bound.args]
    code = command(*arguments, **bound.kwargs, **dict.fromkeys(injected, invocation))
    return code if isinstance(code, int) else 0


def run(arguments: list[str]) -> int:
    """Run a command line, and return its exit code."""
    # Streams that were closed when the program began are None.
    sys.stdin = sys.stdin or os.fdopen(os.open(os.devnull, os.O_RDONLY))
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")

    def command() -> int:
        code = app.meta(
            arguments, exit_on_error=False, print_error=False, result_action="return_value"
        )
        return code if isinstance(code, int) else 0

    return guarded(command, debug="--debug" in arguments)
