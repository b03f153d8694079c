"""Exit codes, and one line on the standard error for each exception: no traceback, no URL."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import textwrap
import traceback
from typing import TYPE_CHECKING, Any, Final, TextIO

from .._core.untrusted import escaped
from ..errors import (
    InvalidTypeError,
    InvalidValueError,
    MissingExtraError,
    StoreError,
    TallymarkError,
    WrongSchemaError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FAILED", "INTERRUPTED", "NO", "USAGE", "UsageError", "guarded", "hidden", "warn"]

#: The exit codes: the answer is no, or something is wrong; the command line or the input is not
#: allowed; the store has failed; Ctrl-C.
NO: Final = 1
USAGE: Final = 2
FAILED: Final = 3
INTERRUPTED: Final = 130

#: A URL, up to the last ``@`` of the line; without one, up to the end of the line. As a path, it
#: has one slash.
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?:/+.*@[^\s'\"]*|//.*)")

#: What a message of cyclopts may repeat of the command line: neither a URL nor a password.
_WORD: Final = re.compile(r"(?:--?)?[a-z][a-z-]{0,30}")

#: How many causes of an error are shown.
_MOST_CAUSES: Final = 10

#: How many characters a message has at most.
_LONGEST: Final = 2000


class UsageError(Exception):
    """The command line or the input is not allowed. The message says what would be."""


def hidden(text: str) -> str:
    """Return a text without the URLs in it, which may have passwords."""
    return _URL.sub("<URL>", text)


def warn(message: str) -> None:
    """Print a message on the standard error; on a terminal, in lines of its width."""
    text = f"tallymark: {hidden(escaped(message, _LONGEST))}"
    if sys.stderr.isatty():
        text = textwrap.fill(
            text,
            shutil.get_terminal_size().columns,
            break_long_words=False,
            break_on_hyphens=False,
        )
    print(text, file=sys.stderr)  # noqa: T201


def guarded(command: Callable[[], int], *, debug: bool) -> int:
    """Run a command and return its exit code; say what went wrong on the standard error.

    Arguments:
        command: returns an exit code, or raises.
        debug: whether to print tracebacks, without the values of variables.
    """
    try:
        return _reported(command, debug=debug)
    except BrokenPipeError:  # as after `| head`: its reader has what it wanted
        return 0
    finally:
        _flush(sys.stdout)
        _flush(sys.stderr)


def _reported(command: Callable[[], int], *, debug: bool) -> int:
    """Run a command as `guarded` does. Raises a `BrokenPipeError` only."""
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        warn("interrupted")
        return INTERRUPTED
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else USAGE
    except Exception as error:  # noqa: BLE001 - a program's users get a message, not a traceback
        if debug:
            print(_traceback(error), file=sys.stderr)  # noqa: T201
        warn(_message(error))
        return _code(error)
    return code


def _traceback(error: BaseException) -> str:
    """Return the traceback of an error and of its causes, each with its message on one line."""
    texts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(texts) < _MOST_CAUSES:
        # The messages of cyclopts repeat arguments.
        is_usage = type(cause).__module__.startswith("cyclopts")
        message = "" if is_usage else f": {hidden(escaped(str(cause), _LONGEST))}"
        frames = "".join(traceback.format_tb(cause.__traceback__))
        texts.append(f"Traceback (most recent call last):\n{frames}{type(cause).__name__}{message}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\n\ncaused by:\n\n".join(texts)


def _flush(stream: TextIO) -> None:
    """Write what a stream holds, or drop it, so that Python does not try again at its end."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):  # it may have no descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _code(error: Exception) -> int:
    if isinstance(error, StoreError):
        return FAILED
    if isinstance(error, TallymarkError | UsageError | OSError | UnicodeError):
        return USAGE
    return USAGE if type(error).__module__.startswith("cyclopts") else NO


def _message(error: Exception) -> str:
    if type(error).__module__.startswith("cyclopts"):
        return _usage(error)
    if isinstance(error, WrongSchemaError):
        return f"{error} (see --user-ids and --shards)"
    if isinstance(error, UsageError | InvalidTypeError | InvalidValueError | MissingExtraError):
        return str(error)
    if isinstance(error, TallymarkError):
        return f"{type(error).__name__}: {error}"
    if isinstance(error, OSError):
        return f"{error.filename or 'input or output'}: {error.strerror or type(error).__name__}"
    return f"an error in tallymark itself ({type(error).__name__}); --debug shows where"


def _usage(error: Any) -> str:
    """Return what is wrong with a command line, without repeating values of it.

    Arguments:
        error: one of cyclopts.
    """
    import cyclopts  # noqa: PLC0415 - an extra

    if isinstance(error, cyclopts.UnknownCommandError):
        return _unknown("command", (error.unused_tokens or [""])[0], "tallymark --help lists all")
    if isinstance(error, cyclopts.UnknownOptionError):
        option = (error.token.keyword or error.token.value).partition("=")[0]
        return _unknown("option", option, "--help lists those of the command")
    if isinstance(error, cyclopts.UnusedCliTokensError):
        return "there are too many arguments; see --help"
    name = error.argument.name if error.argument is not None else "an argument"
    if isinstance(error, cyclopts.MissingArgumentError):
        return f"{name} is missing, or its value; see --help"
    if isinstance(error, cyclopts.RepeatArgumentError):
        return f"{error.token.keyword or name} is given twice"
    return f"{name} does not take this value; see --help"


def _unknown(kind: str, word: str, advice: str) -> str:
    shown = f": {word}" if _WORD.fullmatch(word) else ""
    return f"there is no such {kind}{shown}; {advice}"
