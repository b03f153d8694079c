"""The commands that change bitmaps as a whole, or all bits of a user."""

from collections.abc import Callable
from typing import Any

from ._errors import NO, UsageError, quoted
from ._expressions import Expression, Name
from ._invocation import Invocation, Run
from ._periods import TODAY, PeriodOptions
from ._reads import event_set
from ._writing import counted

__all__ = ["delete", "delete_all", "forget", "merge", "save"]


def save(what: str, name: str, /, *, period: PeriodOptions = TODAY, run: Run) -> int:
    """Save an event set as a flag, and print its size. Asks before it replaces a flag.

    For example:

      tallymark save active reached --last 7
      tallymark save "active@last28 & premium@unique" regulars

    Arguments:
        what: an event, or an expression with & | ^ - and ( )
        name: the name of the flag
    """
    with run.tally() as tally:
        users = event_set(tally, what, period)
        replaced = 0 if run.yes else tally.count(tally.unique(name))
        if replaced and not run.confirm(f"replace the flag {name} of {replaced:,} users"):
            return NO
        saved = tally.save(users, as_=name)
    run.output.answer({"users": saved}, counted(saved, "user"))
    return 0


def delete(what: str, /, *, period: PeriodOptions = TODAY, run: Run) -> int:
    """Delete bitmaps of an event: one, or a union of some. Asks before.

    A day is deleted only in its own bitmap: its week and month still have the users.

    For example:

      tallymark delete active --day 2026-01-05
      tallymark delete "active@2026-01 | active@2026-02"

    Arguments:
        what: an event with a period, or several with |
    """
    expression = Expression.parse(what)
    if period == TODAY and not expression.has_all_periods:
        raise UsageError("which bitmap? Give a period, such as --day 2026-01-05 or --unique")
    if any(not isinstance(part, Name) and part != "|" for part in expression.postfix):
        raise UsageError("delete takes an event with a period, or several with |")
    with run.tally() as tally:
        bitmaps = event_set(tally, what, period)
        return _ask(run, f"delete {bitmaps!r}", "bitmap", lambda: tally.delete(bitmaps))


def delete_all(prefix: str, /, *, run: Run) -> int:
    """Delete all bitmaps of a prefix, of all events and all time, and all ids. Asks before.

    For example:

      tallymark delete-all trackist_

    Arguments:
        prefix: the prefix again, as a guard against the wrong database
    """
    with run.tally() as tally:
        own = tally.backend.context.origin.prefix
        if prefix != own:
            raise UsageError(
                f"PREFIX has to be that of the database, {own!r}, or that of --prefix; "
                f"got {quoted(prefix)}"
            )
        return _ask(
            run,
            f"delete everything that begins with {prefix}",
            "bitmap",
            lambda: tally.delete_all(prefix),
        )


def forget(user_id: str, /, *, run: Run) -> int:
    """Clear a user's bit in every bitmap, and erase the id. Scans all keys. Asks before.

    For example:

      tallymark forget 123

    Arguments:
        user_id: the user
    """
    user = run.store.user_id(user_id)
    with run.tally() as tally:
        _check_user(tally, user)
        return _ask(run, f"forget the user {user_id}", "bit", lambda: tally.forget(user))


def merge(source: str, target: str, /, *, run: Run) -> int:
    """Move all bits of a user to another user. Scans all keys. Asks before.

    For example:

      tallymark merge 900001 123

    Arguments:
        source: the user who has no bit afterwards
        target: the user who gets the bits
    """
    users = run.store.user_id(source), run.store.user_id(target)
    if users[0] == users[1]:
        raise UsageError("SOURCE and TARGET are the same user")
    with run.tally() as tally:
        for user in users:
            _check_user(tally, user)
        question = f"move all bits of the user {source} to {target}"
        return _ask(run, question, "bit", lambda: tally.merge(*users))


def _check_user(tally: Any, user_id: Any) -> None:
    """Raise what a request about this user would raise before anything is sent."""
    schema = tally.backend.context.schema
    if schema.dictionary is None:
        schema.place(user_id)
    else:
        schema.dictionary.ids.key(user_id)


def _ask(run: Invocation, question: str, unit: str, change: Callable[[], Any]) -> int:
    """Change something if that is confirmed; print how many units were changed."""
    if not run.confirm(question):
        return NO
    number = change()
    run.output.answer({f"{unit}s": number}, counted(number, unit))
    return 0
