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
    from collections.abc import Callable, Iterator

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "NO",
    "UNWRITTEN",
    "USAGE",
    "OutputError",
    "UsageError",
    "guarded",
    "hidden",
    "quoted",
    "warn",
    "written",
]

#: The exit codes: the answer is no, or something is wrong; the command line or the input is not
#: allowed; the store has failed; the output cannot be written; Ctrl-C.
NO: Final = 1
USAGE: Final = 2
FAILED: Final = 3
UNWRITTEN: Final = 4
INTERRUPTED: Final = 130

#: A URL, up to the last ``@`` of the line; without one, up to the end of the line. As a path, it
#: has one slash.
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?:/+.*@[^\s'\"]*|//.*)", re.DOTALL)

#: A URL in a message, but for those that advice has: a scheme with nothing behind it, and
#: examples. What was typed stands in quotes in a message, and advice does not.
_OTHER_URL: Final = re.compile(
    r"(?<!\S)([a-z+]+://(?:host:port,host:port(?:/service)?)?|memory://name|unix:///path"
    r"|unix://user:password@/path|redis://user:password@host)(?=[,;.)]*(?:\s|$))|" + _URL.pattern
)

#: An option of a tally in a message, with its value if it has one.
_OPTION: Final = re.compile(
    r"\b(?:(user_ids|read_from|max_user_id)\b=?|(shards|replicas|timezone|timeout)=)"
    r"(?:(?<==)(?:uuid\.(UUID)|(None)|('[^']*'|[\w.]+)))?"
)

#: What a message of cyclopts may repeat of the command line: neither a URL nor a password.
_WORD: Final = re.compile(r"(?:--?)?[a-z][a-z-]{0,30}")

#: How many causes of an error are shown.
_MOST_CAUSES: Final = 10

#: How many characters a message has at most.
_LONGEST: Final = 2000


class UsageError(Exception):
    """The command line or the input is not allowed. The message says what would be."""


class OutputError(Exception):
    """The output cannot be written, which is no reason to believe that nothing was changed."""


@contextlib.contextmanager
def written(name: str) -> Iterator[None]:
    """Raise an `OutputError` for an output that cannot be written.

    Arguments:
        name: what the output is, for the message.

    Raises:
        BrokenPipeError: the reader of a pipe has gone, which is no error.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        problem = error.strerror or type(error).__name__
        raise OutputError(f"{_strictly_hidden(name)} cannot be written: {problem}") from error


def hidden(text: str) -> str:
    """Return a message without the URLs in it, which may have passwords."""
    return _OTHER_URL.sub(lambda match: match[1] or "<URL>", text)


def quoted(text: str, most: int = 80) -> str:
    """Return what somebody has typed in quotes, for a message: without URLs, and not too long."""
    return repr(_strictly_hidden(text)[:most])


def _strictly_hidden(text: str) -> str:
    """Return a text that somebody has typed without the URLs in it."""
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
        with written("the standard output"):
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
    if isinstance(error, OutputError):
        return UNWRITTEN
    # It is the options that are wrong in a `WrongSchemaError`, although the database tells.
    if isinstance(error, StoreError) and not isinstance(error, WrongSchemaError):
        return FAILED
    if isinstance(error, TallymarkError | UsageError | OSError | UnicodeError):
        return USAGE
    return USAGE if type(error).__module__.startswith("cyclopts") else NO


def _message(error: Exception) -> str:
    if type(error).__module__.startswith("cyclopts"):
        return _usage(error)
    if isinstance(error, UsageError | OutputError | MissingExtraError):
        return str(error)
    if isinstance(error, TallymarkError):
        is_ours = isinstance(error, InvalidTypeError | InvalidValueError | WrongSchemaError)
        advice = " (see --user-ids and --shards)" if isinstance(error, WrongSchemaError) else ""
        name = "" if is_ours else f"{type(error).__name__}: "
        return f"{name}{_in_options(str(error))}{advice}"
    if isinstance(error, OSError):
        name = _strictly_hidden(str(error.filename or "input or output"))
        return f"{name}: {error.strerror or type(error).__name__}"
    return f"an error in tallymark itself ({type(error).__name__}); --debug shows where"


def _in_options(message: str) -> str:
    """Return a message of the library with the options of the program for those of a tally."""
    message = message.replace("make a tally with user_ids=", "give user_ids=")
    message = message.replace("pass user_ids=None", "leave out --user-ids")

    def shown(match: re.Match[str]) -> str:
        name = (match[1] or match[2]).replace("_", "-")
        value = (match[3] and "uuid") or (match[4] and "none") or match[5]
        return f"--{name} {value}" if value else f"--{name}"

    return _OPTION.sub(shown, message)


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
