"""The commands that read."""

from datetime import datetime, timedelta
from typing import Any, Literal

from .._core.events import EventSet
from ._errors import NO, UsageError
from ._expressions import Expression
from ._invocation import Invocation, Run, Whole
from ._periods import TODAY, PeriodOptions, moment_of
from ._writing import grouped

__all__ = [
    "contains",
    "count",
    "events",
    "history",
    "ids",
    "is_empty",
    "memory",
    "numbers",
    "periods",
    "users",
]

By = Literal["hour", "day", "week", "month", "year"]


def event_set(tally: Any, text: str, period: PeriodOptions) -> EventSet:
    """Return the event set of an expression; names without a period have that of the options."""
    return Expression.parse(text).build(tally, lambda event: period.select(tally, event))


def count(*what: str, period: PeriodOptions = TODAY, run: Run) -> None:
    """Print how many users are in an event set, at one moment.

    For example:

      tallymark count active --month 2026-01
      tallymark count active premium --last 28
      tallymark count "active & premium@unique - churned"

    Arguments:
        what: events, or expressions with & | ^ - and ( ); several are counted together
    """
    if not what:
        raise UsageError("WHAT is missing; see --help")
    with run.tally() as tally:
        counts = tally.counts([event_set(tally, text, period) for text in what])
    if len(what) == 1:
        run.output.answer({"users": counts[0]}, grouped(counts[0]))
    else:
        pairs = zip(what, counts, strict=True)
        run.output.table([{"what": text, "users": users} for text, users in pairs], "Users")


def users(
    what: str,
    /,
    *,
    start: str | None = None,
    limit: Whole | None = None,
    period: PeriodOptions = TODAY,
    run: Run,
) -> None:
    """Print the ids of the users in an event set, one per line.

    For example:

      tallymark users active --month 2026-01 --limit 100
      tallymark users "active@2026-01 - active@2026-02" > lost.txt

    Arguments:
        what: an event, or an expression with & | ^ - and ( )
        start: the first user to print
        limit: how many users at most
    """
    first = None if start is None else run.store.user_id(start)
    with run.tally() as tally:
        chunks = tally.user_chunks(event_set(tally, what, period), start=first, limit=limit)
        run.output.lines("user_id", (run.store.text(user) for chunk in chunks for user in chunk))


def contains(what: str, /, *user_id: str, period: PeriodOptions = TODAY, run: Run) -> int:
    """Print whether users are in an event set; the exit code is 1 if one is not.

    For example:

      tallymark contains active 123 --week this
      tallymark contains active 123 124 125 --last 24h
      tallymark contains premium 123 --unique && echo yes

    Arguments:
        what: an event, or an expression with & | ^ - and ( )
        user_id: the user, or several
    """
    if not user_id:
        raise UsageError("USER_ID is missing; see --help")
    users_ = [run.store.user_id(text) for text in user_id]
    with run.tally() as tally:
        answers = tally.contains_many(event_set(tally, what, period), users_)
    if len(user_id) == 1:
        run.output.answer({"contains": answers[0]}, "yes" if answers[0] else "no")
    else:
        pairs = zip(user_id, answers, strict=True)
        run.output.table([{"user_id": text, "contains": answer} for text, answer in pairs], what)
    return 0 if all(answers) else NO


def is_empty(what: str, /, *, period: PeriodOptions = TODAY, run: Run) -> int:
    """Print whether an event set has no users; the exit code is 1 if it has some.

    For example:

      tallymark is-empty error --last 1

    Arguments:
        what: an event, or an expression with & | ^ - and ( )
    """
    with run.tally() as tally:
        answer = tally.is_empty(event_set(tally, what, period))
    run.output.answer({"is_empty": answer}, "yes" if answer else "no")
    return 0 if answer else NO


def events(prefix: str = "", /, *, run: Run) -> None:
    """Print the names of all events, or of those that begin with a text. Scans all keys.

    For example:

      tallymark events
      tallymark events page:

    Arguments:
        prefix: what the names begin with
    """
    with run.tally() as tally:
        names = tally.event_names(prefix)
    run.output.lines("event", names)


def periods(event: str, /, *, by: By = "day", run: Run) -> None:
    """Print the periods for which an event has a bitmap. Scans all keys.

    For example:

      tallymark periods active --by month

    Arguments:
        event: the name of the event
        by: which bitmaps
    """
    with run.tally() as tally:
        found = tally.periods(event, by)
    run.output.lines("period", map(str, found))


def memory(*event: str, run: Run) -> None:
    """Print how many bytes the bitmaps of events take, by granularity. Scans all keys.

    For example:

      tallymark memory active
      tallymark memory --json

    Arguments:
        event: the names of events; all by default
    """
    rows: list[dict[str, Any]] = []
    with run.tally() as tally:
        for name in event or tally.event_names():
            sizes = tally.memory(name).items()
            rows += [{"event": name, "granularity": str(by), "bytes": size} for by, size in sizes]
    run.output.table(rows, "Memory", ["event", "granularity", "bytes"])


def history(
    user_id: str,
    /,
    *event: str,
    since: str | None = None,
    until: str | None = None,
    by: By = "day",
    run: Run,
) -> None:
    """Print in which periods a user did some events.

    For example:

      tallymark history 123 active login --since 2026-01-01
      tallymark history 123 --since 2025-01-01 --by month

    Arguments:
        user_id: the user
        event: the names of events; all by default, which scans all keys
        since: the first moment; 28 days ago by default
        until: the end, not included; the present by default
        by: the length of the periods
    """
    user = run.store.user_id(user_id)
    with run.tally() as tally:
        now: datetime = tally.backend.context.local(None)
        begin = moment_of("--since", since or str(now.date() - timedelta(days=27)), now)
        end = None if until is None else moment_of("--until", until, now)
        names = list(event) or tally.event_names()
        found = tally.history(user, names, begin, end, by) if names else {}
    rows = [{"event": name, "period": str(period)} for name in found for period in found[name]]
    run.output.table(rows, f"User {user_id}", ["event", "period"])


def numbers(*user_id: str, run: Run) -> int:
    """Print the numbers of users: the bits that are theirs. With --user-ids.

    For example:

      tallymark numbers alice bob --user-ids str

    Arguments:
        user_id: the users
    """
    _need_ids(run)
    users_ = [run.store.user_id(text) for text in user_id]
    with run.tally() as tally:
        found = tally.numbers(users_)
    pairs = zip(user_id, found, strict=True)
    rows = [{"user_id": text, "number": number} for text, number in pairs]
    run.output.table(rows, "Numbers", ["user_id", "number"])
    return NO if None in found else 0


def ids(*number: Whole, run: Run) -> int:
    """Print the ids of users by their numbers: the inverse of numbers. With --user-ids.

    For example:

      tallymark ids 0 1 2 --user-ids uuid

    Arguments:
        number: the numbers
    """
    _need_ids(run)
    with run.tally() as tally:
        found = tally.ids(number)
    pairs = zip(number, found, strict=True)
    rows = [
        {"number": each, "user_id": None if user is None else run.store.text(user)}
        for each, user in pairs
    ]
    run.output.table(rows, "User ids", ["number", "user_id"])
    return NO if None in found else 0


def _need_ids(run: Invocation) -> None:
    if run.store.user_ids is None:
        raise UsageError("without --user-ids, the ids of users are their numbers")
