"""The commands that mark and unmark."""

import itertools
import sys
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from .._core.periods import Granularity
from ._errors import NO, UsageError, warn
from ._invocation import Invocation, Run
from ._lines import text_of
from ._periods import moment_of
from ._store import StoreOptions
from ._writing import counted, grouped

__all__ = [
    "mark",
    "mark_many",
    "mark_unique",
    "mark_unique_many",
    "unmark",
    "unmark_many",
    "unmark_unique",
    "unmark_unique_many",
]

#: Up to how many ids of a file are checked before any of them is marked, and marked together.
_BLOCK: Final = 1_000_000

#: The standard input, as a file.
_STDIN: Final = "-"

_AT: Final = Parameter(help="when it happened; the present by default")
_HOURLY: Final = Parameter(help="also the hour")
_UNIQUE: Final = Parameter(help="also the bit without a date: the flag")
_EXACT: Final = Parameter(help="keep the week, month and year if another day of them has the user")
_FILE: Final = Parameter(help="a file with one user id per line; - is the standard input")


def mark(
    event: str,
    user_id: str,
    /,
    *,
    at: Annotated[str | None, _AT] = None,
    hourly: Annotated[bool, _HOURLY] = False,
    unique: Annotated[bool, _UNIQUE] = False,
    run: Run,
) -> None:
    """Record that a user did something: set the bits of the month, week and day.

    For example:

      tallymark mark active 123
      tallymark mark page:view 123 --at 2026-01-05T13:07 --hourly

    Arguments:
        event: the name of the event
        user_id: the user
    """
    user = run.store.user_id(user_id)
    with run.tally() as tally:
        flipped = tally.mark_event(event, user, now=_moment(tally, at), **_tracked(hourly, unique))
    _print_flipped(run, event, user_id, flipped, "new in", "marked before")


def unmark(
    event: str,
    user_id: str,
    /,
    *,
    at: Annotated[str | None, _AT] = None,
    hourly: Annotated[bool, _HOURLY] = False,
    unique: Annotated[bool, _UNIQUE] = False,
    exact: Annotated[bool, _EXACT] = False,
    run: Run,
) -> None:
    """Take a mark back: clear the bits of the month, week and day.

    For example:

      tallymark unmark active 123 --at yesterday --exact

    Arguments:
        event: the name of the event
        user_id: the user
    """
    user = run.store.user_id(user_id)
    with run.tally() as tally:
        flipped = tally.unmark_event(
            event, user, now=_moment(tally, at), exact=exact, **_tracked(hourly, unique)
        )
    _print_flipped(run, event, user_id, flipped, "cleared in", "was not marked")


def mark_unique(event: str, user_id: str, /, *, run: Run) -> None:
    """Set a user's flag: the bit without a date.

    For example:

      tallymark mark-unique premium 123

    Arguments:
        event: the name of the flag
        user_id: the user
    """
    user = run.store.user_id(user_id)
    with run.tally() as tally:
        flipped = tally.mark_unique(event, user)
    _print_flipped(run, event, user_id, flipped, "new in", "marked before")


def unmark_unique(event: str, user_id: str, /, *, run: Run) -> None:
    """Clear a user's flag: the bit without a date.

    For example:

      tallymark unmark-unique premium 123

    Arguments:
        event: the name of the flag
        user_id: the user
    """
    user = run.store.user_id(user_id)
    with run.tally() as tally:
        flipped = tally.unmark_unique(event, user)
    _print_flipped(run, event, user_id, flipped, "cleared in", "was not marked")


def mark_many(
    event: str,
    file: Annotated[str, _FILE] = _STDIN,
    /,
    *,
    at: Annotated[str | None, _AT] = None,
    hourly: Annotated[bool, _HOURLY] = False,
    unique: Annotated[bool, _UNIQUE] = False,
    run: Run,
) -> None:
    """Record that many users did something, with the ids of a file.

    Prints how many bits are new. All ids are checked first, or the first million of them. It is
    safe to repeat. With --user-ids str, a line may be a string of JSON.

    For example:

      tallymark mark-many newsletter ids.txt --at 2026-01-05
      tallymark users active --last 7 | tallymark mark-many reached

    Arguments:
        event: the name of the event
    """
    with run.tally() as tally:
        now = _moment(tally, at)
        tracked = _tracked(hourly, unique)
        _write_many(run, file, lambda ids: tally.mark_many(event, ids, now=now, **tracked))


def unmark_many(
    event: str,
    file: Annotated[str, _FILE] = _STDIN,
    /,
    *,
    at: Annotated[str | None, _AT] = None,
    hourly: Annotated[bool, _HOURLY] = False,
    unique: Annotated[bool, _UNIQUE] = False,
    exact: Annotated[bool, _EXACT] = False,
    run: Run,
) -> int:
    """Take back the marks of many users, with the ids of a file. Asks before.

    For example:

      tallymark unmark-many newsletter ids.txt --at 2026-01-05 --yes

    Arguments:
        event: the name of the event
    """
    with run.tally() as tally:
        now = _moment(tally, at)
        tracked: Any = {"exact": exact, **_tracked(hourly, unique)}
        return _write_many(
            run,
            file,
            lambda ids: tally.unmark_many(event, ids, now=now, **tracked),
            f"unmark all users of the file for {event}",
        )


def mark_unique_many(event: str, file: Annotated[str, _FILE] = _STDIN, /, *, run: Run) -> None:
    """Set the flag of many users, with the ids of a file.

    For example:

      tallymark mark-unique-many premium ids.txt

    Arguments:
        event: the name of the flag
    """
    with run.tally() as tally:
        _write_many(run, file, lambda ids: {Granularity.UNIQUE: tally.mark_unique_many(event, ids)})


def unmark_unique_many(event: str, file: Annotated[str, _FILE] = _STDIN, /, *, run: Run) -> int:
    """Clear the flag of many users, with the ids of a file. Asks before.

    For example:

      tallymark unmark-unique-many premium ids.txt --yes

    Arguments:
        event: the name of the flag
    """
    with run.tally() as tally:
        return _write_many(
            run,
            file,
            lambda ids: {Granularity.UNIQUE: tally.unmark_unique_many(event, ids)},
            f"clear the flag {event} of all users of the file",
        )


def _moment(tally: Any, at: str | None) -> date | None:
    return None if at is None else moment_of("--at", at, tally.backend.context.local(None))


def _tracked(hourly: bool, unique: bool) -> dict[str, bool | None]:
    """Return the switches: ``None``, for the tally's option, unless they are on."""
    return {"track_hourly": hourly or None, "track_unique": unique or None}


def _print_flipped(
    run: Invocation, event: str, user_id: str, flipped: Granularity, some: str, none: str
) -> None:
    names = str(flipped).replace("|", ", ")
    row = {"event": event, "user_id": user_id, "flipped": str(flipped) if flipped else ""}
    run.output.answer(row, f"{some}: {names}" if flipped else none)


def _write_many(run: Invocation, file: str, write: Any, question: str | None = None) -> int:
    """Mark or unmark the users of a file, and print how many bits have changed.

    Arguments:
        run: the invocation.
        file: the path, or `_STDIN`.
        write: marks some users; returns how many bits it has flipped of each granularity.
        question: what to confirm before, if anything.

    Returns:
        The exit code.
    """
    done = 0
    totals: dict[Granularity, int] = {}
    ids = _ids_of(file, run.store)
    # The answer to the question may come from the standard input, too.
    first = [] if file == _STDIN else list(itertools.islice(ids, _BLOCK))
    if question is not None and not run.confirm(question):
        return NO
    ids = itertools.chain(first, ids)
    try:
        while block := list(itertools.islice(ids, _BLOCK)):
            for granularity, flipped in write(block).items():
                totals[granularity] = totals.get(granularity, 0) + flipped
            done += len(block)
    except BaseException:  # Ctrl-C, too
        if done:
            warn(f"the first {counted(done, 'user')} of the file are done; behind them:")
        raise
    rows: list[dict[str, Any]] = [
        {"granularity": str(kind), "bits": count} for kind, count in totals.items()
    ]
    bits = ", ".join(f"{row['granularity']} {grouped(row['bits'])}" for row in rows)
    text = f"{counted(done, 'user')}; changed: {bits or 'nothing'}"
    run.output.answer(rows, text, ["granularity", "bits"])
    return 0


def _ids_of(file: str, store: StoreOptions) -> Iterator[Any]:
    """Yield the user ids in a file, one per line; blank lines are skipped.

    Raises:
        UsageError: a line is no user id, or no text.
        OSError: the file cannot be read.
    """
    if file == _STDIN:
        yield from _parsed(sys.stdin, store)
        return
    with Path(file).open(encoding="utf-8", newline=None) as lines:
        yield from _parsed(lines, store)


def _parsed(lines: Iterable[str], store: StoreOptions) -> Iterator[Any]:
    number = 0
    try:
        for line in lines:
            number += 1
            text = line.rstrip("\n")
            if number == 1:
                text = text.removeprefix("\ufeff")  # a byte order mark
            if text.strip():
                yield store.user_id(text_of(text) if store.user_ids == "str" else text)
    except UsageError as error:
        raise UsageError(f"line {number:,}: {error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"behind line {number:,}: the file is no text in {error.encoding.upper()} "
            f"({error.reason})"
        ) from None
