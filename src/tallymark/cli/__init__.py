"""The program ``tallymark``: marks, reads, reports and maintenance on the command line.

It needs the extra ``cli``. docs/reference/cli.md describes all commands.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program ``tallymark``.

    Arguments:
        arguments: the command line without the program's name; ``sys.argv`` by default.

    Returns:
        The exit code: 0; 1 if the answer is no, or something is wrong; 2 if the command line
        or the input is not allowed; 3 if the store has failed; 4 if the output cannot be
        written; 130 after Ctrl-C.
    """
    try:
        if arguments is None:
            sys.unraisablehook = _end_if_interrupted
        return _run(sys.argv[1:] if arguments is None else list(arguments))
    except KeyboardInterrupt:  # in an import; `guarded` catches all others
        return _interrupted()


def _run(words: list[str]) -> int:
    for needed in ("cyclopts", "rich"):
        if importlib.util.find_spec(needed) is None:
            print(  # noqa: T201 - this is a program
                f"tallymark: the program needs {needed}, which is not installed; run: "
                "pip install 'tallymark[cli]'",
                file=sys.stderr,
            )
            return 2
    if words in ([], ["--help"], ["-h"]):
        from ._errors import guarded  # noqa: PLC0415 - see below
        from ._help import print_overview  # noqa: PLC0415

        return guarded(print_overview, debug=False)
    from ._app import run  # noqa: PLC0415 - takes a tenth of a second, and needs the extra

    return run(words)


def _interrupted() -> int:
    sys.stderr.write("tallymark: interrupted\n")
    return 130


def _end_if_interrupted(error: Any) -> None:
    """End the process after Ctrl-C in a callback, such as a finalizer, which drops exceptions."""
    if not issubclass(error.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(error)
        return
    _interrupted()
    sys.stderr.flush()
    os._exit(130)
