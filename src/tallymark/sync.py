"""The blocking functions, on this process's default tally.

Names, arguments and results are those of the functions in `tallymark`::

    from tallymark import sync as tm

    tm.mark_event("active", 123)

They call the methods of a `tallymark.SyncTally`, which uses no event loop and no thread of its own.
"""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING

from ._core import options as _options
from ._redis import defaults
from ._redis.defaults import configure
from ._sync.tally import SyncTally

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Iterable
    from datetime import date
    from typing import Any

    from ._core.failures import OnError
    from ._core.periods import Granularity
    from ._core.user_ids import UserId
    from ._marking.row_columns import Rows
    from ._marking.transaction import Transaction

__all__ = [
    "TRACK_HOURLY",
    "TRACK_UNIQUE",
    "SyncTally",
    "configure",
    "current_tally",
    "mark_event",
    "mark_many",
    "mark_rows",
    "mark_unique",
    "mark_unique_many",
    "transaction",
    "unmark_event",
    "unmark_many",
    "unmark_unique",
    "unmark_unique_many",
]

TRACK_HOURLY: bool
TRACK_UNIQUE: bool
_options.install_switches(__name__)


class _Default:
    """A default tally of this process, and its configuration."""

    def __init__(self, configured: defaults.Defaults) -> None:
        self.configured = configured
        self.tally: SyncTally[Any] = SyncTally.from_url(
            defaults.url(configured), user_ids=configured.user_ids, **configured.options
        )


_default: _Default | None = None

#: The default tallies that are not closed yet, by configuration. There is no lock: a signal
#: handler that has interrupted the holder of a lock would wait for it for ever.
_open: dict[defaults.Defaults, _Default] = {}


def current_tally() -> SyncTally[Any]:
    """Return this process's default tally, which the functions of this module use.

    For its other methods, such as those that read. The tally has the configuration of the
    last call of `configure`, and is closed when `configure` is called again, so call this
    function each time instead of keeping the tally.

    Returns:
        The tally.

    Raises:
        InvalidValueError: the environment variable ``TALLYMARK_URL`` is no URL of a store.
        MissingExtraError: ``memory://`` without fakeredis.
    """
    current = _default
    if current is None or current.configured is not defaults.configured():
        current = _replace_default()
    return current.tally


def _replace_default() -> _Default:
    global _default
    configured = defaults.configured()
    # If another thread was first, the new tally is dropped; it has not connected yet.
    current = _open.setdefault(configured, _Default(configured))
    _default = current
    for other in list(_open):
        if other is not configured:
            replaced = _open.pop(other, None)
            if replaced is not None:
                replaced.tally.close()
    return current


def _close_default() -> None:
    for default in list(_open.values()):
        default.tally.close()


atexit.register(_close_default)


def mark_event(
    event: str,
    user_id: UserId,
    *,
    now: date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    timeout: float | None = None,
) -> Granularity:
    """Record that a user did something: set the bits of the month, week and day.

    On this process's default tally, which `configure` describes.

    Arguments:
        event: a non-empty str without control characters.
        user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of that
            type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).
        now: when it happened; the present by default. An aware datetime is converted to
            the tally's time zone, a naive datetime is taken as in that zone, and a date
            is its midnight.
        track_hourly: also mark the hour; ``None`` for the tally's option, or without that
            for ``tallymark.TRACK_HOURLY``.
        track_unique: also mark the event's dateless bitmap; ``None`` for the tally's
            option, or without that for ``tallymark.TRACK_UNIQUE``.
        timeout: how many seconds the call may take, more than 0; ``math.inf`` for no
            limit, ``None`` for the tally's timeout.

    Returns:
        The granularities whose bit this call flipped; falsy if the user was marked in all
        of them before. ``Granularity.DAY in flipped`` is true for the first time today.
        Some may be missing after a broken connection and a retry.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed; nothing was sent.
        CommandError: Redis refused the mark; the message says what was changed.
        StoreUnavailableError, StoreTimeoutError: no answer within the timeout; the
            message says whether anything was sent. If so, the mark may or may not have
            been applied. The call may be repeated.
        OverloadedError: ``max_pending`` marks were waiting; nothing was sent.
        ClosedError: the tally is closed.
    """
    return current_tally().mark_event(
        event,
        user_id,
        now=now,
        track_hourly=track_hourly,
        track_unique=track_unique,
        timeout=timeout,
    )


def unmark_event(
    event: str,
    user_id: UserId,
    *,
    now: date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    exact: bool = False,
    timeout: float | None = None,
) -> Granularity:
    """Take a mark back: clear the bits that `mark_event` would set.

    On this process's default tally, which `configure` describes.

    By default all of them are cleared, as by bitmapist: the user is no longer in the week
    and the month, even if other days of them have the user. Redis extends a bitmap that
    is too short for the user's bit, or creates it, to write the 0.

    With ``exact=True``, the week, month and year are cleared only if no other day of them
    has the user, and no bitmap is extended or created. A script on the server does this
    atomically. The day, and with the switches the given hour and the dateless bit, are
    cleared in any case; other hours of that day keep their bits.

    With ``user_ids``, nothing is written for an id that has never been marked.

    Arguments:
        event: a non-empty str without control characters.
        user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of that
            type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).
        now: when it happened; the present by default. An aware datetime is converted to
            the tally's time zone, a naive datetime is taken as in that zone, and a date
            is its midnight.
        track_hourly: also clear the hour's bit; ``None`` for the tally's option, or
            without that for ``tallymark.TRACK_HOURLY``.
        track_unique: also clear the event's dateless bit; ``None`` for the tally's option,
            or without that for ``tallymark.TRACK_UNIQUE``.
        exact: whether to look at the other days first.
        timeout: how many seconds the call may take, more than 0; ``math.inf`` for no
            limit, ``None`` for the tally's timeout.

    Returns:
        The granularities whose bit this call cleared. Some may be missing after a broken
        connection and a retry.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed; nothing was sent.
        CommandError: Redis refused; the message says what was changed. With
            ``exact=True``, nothing is changed if a key has the wrong type.
        StoreUnavailableError, StoreTimeoutError: no answer within the timeout; the
            message says whether anything was sent. If so, the mark may or may not have
            been applied. The call may be repeated.
        OverloadedError: ``max_pending`` marks were waiting; nothing was sent.
        ClosedError: the tally is closed.
    """
    return current_tally().unmark_event(
        event,
        user_id,
        now=now,
        track_hourly=track_hourly,
        track_unique=track_unique,
        exact=exact,
        timeout=timeout,
    )


def mark_many(
    event: str,
    user_ids: Iterable[UserId],
    *,
    now: date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    timeout: float | None = None,
) -> dict[Granularity, int]:
    """Record that many users did something at the same time.

    On this process's default tally, which `configure` describes.

    The ids are sent in pieces, each a transaction of its own; marks of other threads are sent
    in between. Where the ids lie close together (from about one in 4,000), a piece is sent
    as a bitmap and merged on the server, some 20 times as fast as bit by bit. The expiry
    of a bitmap is kept.

    Arguments:
        event: a non-empty str without control characters.
        user_ids: ids as `mark_event` takes them, in any order, repetitions allowed: an
            iterable, or a one-dimensional array of integers, of numpy or that numpy can read,
            such as a column of a data frame, which is not copied to a list. Arrays with masked
            or missing values are refused. Other iterables than collections are read in blocks
            of 32,768 ids; each block is sent as soon as it is complete.
        now: when it happened; the present by default. An aware datetime is converted to
            the tally's time zone, a naive datetime is taken as in that zone, and a date
            is its midnight.
        track_hourly: also mark the hour; ``None`` for the tally's option, or without that
            for ``tallymark.TRACK_HOURLY``.
        track_unique: also mark the event's dateless bitmap; ``None`` for the tally's
            option, or without that for ``tallymark.TRACK_UNIQUE``.
        timeout: how many seconds the whole call may take, with the time that the iterable
            takes; ``None`` for the tally's timeout for each piece. An iterable that does not
            give its next id cannot be interrupted: the call ends as soon as it does.

    Returns:
        For each granularity, how many bits this call flipped. The number may be too low
        after a broken connection and a retry.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed. If the ids are a
            collection (a list, a set, an array), nothing was sent; else the message says
            how many ids were marked before.
        CommandError, StoreUnavailableError, StoreTimeoutError, OverloadedError: Redis
            refused a piece, or did not answer in time, or ``max_pending`` marks were
            waiting; the message says how many ids were marked before. A
            `StoreTimeoutError` also if the iterable did not give its ids in time.
        ClosedError: the tally is closed.
    """
    return current_tally().mark_many(
        event,
        user_ids,
        now=now,
        track_hourly=track_hourly,
        track_unique=track_unique,
        timeout=timeout,
    )


def mark_rows(
    rows: Rows[UserId],
    *,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    on_error: OnError | None = None,
    timeout: float | None = None,
) -> dict[Granularity, int]:
    """Record many events: each row is an event, a user and a moment.

    On this process's default tally, which `configure` describes.

    Like `mark_event` for each row, some 50 times as fast: rows are gathered in blocks of
    524,288 and sorted by event and day, so that each bitmap is written with few commands, as
    bits or as a bitmap, whichever takes less of Redis's time. A transaction has rows of one
    event and month, or of several; it takes about 1.5 ms of Redis's time, and marks of other
    threads are sent in between. All bits of a row are set by the same transaction.

    Arguments:
        rows: one of

            * an iterable of rows: tuples or lists of an event, a user id and
              a moment;
            * columns: a mapping, or a data frame of pandas, polars or pyarrow, with the
              columns ``event``, ``user_id`` and ``moment``, of lists, arrays or columns of
              such a frame. In a mapping, ``event`` may be a str and ``moment`` a date for all
              rows. A mapping has no other columns; those of a frame are ignored.
            * a stream of record batches of pyarrow.

            Events and user ids are as `mark_event` takes them. The moment is a date or a
            datetime as ``now`` of `mark_event`; a ``datetime64`` of numpy is naive.
        track_hourly: also mark the hour; ``None`` for the tally's option, or without that
            for ``tallymark.TRACK_HOURLY``.
        track_unique: also mark the event's dateless bitmap; ``None`` for the tally's
            option, or without that for ``tallymark.TRACK_UNIQUE``.
        on_error: is called with each row that cannot be marked: its index from 0 on, the row
            as it was given (of columns, a tuple), and the error. All other rows are marked. By
            default the first one is raised.
        timeout: how many seconds the whole call may take, with the time that the iterable
            takes; ``None`` for the tally's timeout for each transaction. An
            iterable that does not give its next row cannot be interrupted: the call ends as
            soon as it does.

    Returns:
        For each granularity, how many bits this call flipped. The number may be too low
        after a broken connection and a retry.

    Raises:
        InvalidTypeError, InvalidValueError: a row cannot be marked: the message begins with
            its index, as in ``row 17: ...``, and no row of its block was sent. Or the
            columns, or another argument, are not allowed. The message says how many rows were
            marked before.
        CommandError, StoreUnavailableError, StoreTimeoutError, OverloadedError: Redis
            refused a transaction, or did not answer in time, or ``max_pending`` marks
            were waiting; the message says how many rows were marked before: all of the
            blocks before, and of the last block some transactions. A `StoreTimeoutError` also
            if the iterable did not give its rows in time, or the rows were not prepared.
        ClosedError: the tally is closed.

    With ``user_ids``, new users get their numbers in the order of the rows. A row all of whose
    bitmaps have expired gives none.
    """
    return current_tally().mark_rows(
        rows,
        track_hourly=track_hourly,
        track_unique=track_unique,
        on_error=on_error,
        timeout=timeout,
    )


def unmark_many(
    event: str,
    user_ids: Iterable[UserId],
    *,
    now: date | None = None,
    track_hourly: bool | None = None,
    track_unique: bool | None = None,
    exact: bool = False,
    timeout: float | None = None,
) -> dict[Granularity, int]:
    """Take back what `mark_many` with the same arguments sets.

    On this process's default tally, which `configure` describes.

    Like `unmark_event` for each of the users. With ``exact=True``, it executes a script for
    each user, which takes as long as `unmark_event`. Without, the users are no longer in
    the week and the month, and a bitmap may be extended to hold a 0.

    With ``user_ids``, nothing is written for an id that has never been marked.

    Arguments:
        event: a non-empty str without control characters.
        user_ids: ids as `mark_event` takes them, in any order, repetitions allowed: an
            iterable, or a one-dimensional array of integers, of numpy or that numpy can read,
            such as a column of a data frame, which is not copied to a list. Arrays with masked
            or missing values are refused. Other iterables than collections are read in blocks
            of 32,768 ids; each block is sent as soon as it is complete.
        now: when it happened; the present by default. An aware datetime is converted to
            the tally's time zone, a naive datetime is taken as in that zone, and a date
            is its midnight.
        track_hourly: also clear the hour's bits; ``None`` for the tally's option, or
            without that for ``tallymark.TRACK_HOURLY``.
        track_unique: also clear the event's dateless bits; ``None`` for the tally's
            option, or without that for ``tallymark.TRACK_UNIQUE``.
        exact: whether to look at the other days first.
        timeout: as for `mark_many`.

    Returns:
        For each granularity, how many bits this call cleared. The number may be too low
        after a broken connection and a retry.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed. If the ids are a
            collection (a list, a set, an array), nothing was sent; else the message says
            how many ids were unmarked before.
        CommandError, StoreUnavailableError, StoreTimeoutError, OverloadedError: Redis
            refused a piece, or did not answer in time, or ``max_pending`` marks were
            waiting; the message says how many ids were unmarked before.
        ClosedError: the tally is closed.
    """
    return current_tally().unmark_many(
        event,
        user_ids,
        now=now,
        track_hourly=track_hourly,
        track_unique=track_unique,
        exact=exact,
        timeout=timeout,
    )


def mark_unique_many(
    event: str,
    user_ids: Iterable[UserId],
    *,
    timeout: float | None = None,
) -> int:
    """Set the flag of many users: their bits in the event's bitmap without a date.

    On this process's default tally, which `configure` describes.

    Like `mark_unique` for each of the users, in pieces as `mark_many` sends them: each
    piece is a transaction, and a bitmap where the ids lie close together.

    Arguments:
        event: a non-empty str without control characters.
        user_ids, timeout: as for `mark_many`.

    Returns:
        How many of the users did not have the flag. The number may be too low after a broken
        connection and a retry.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed. If the ids are a
            collection (a list, a set, an array), nothing was sent; else the message says
            how many ids were marked before.
        CommandError, StoreUnavailableError, StoreTimeoutError, OverloadedError: Redis
            refused a piece, or did not answer in time, or ``max_pending`` marks were
            waiting; the message says how many ids were marked before.
        ClosedError: the tally is closed.
    """
    return current_tally().mark_unique_many(event, user_ids, timeout=timeout)


def unmark_unique_many(
    event: str,
    user_ids: Iterable[UserId],
    *,
    timeout: float | None = None,
) -> int:
    """Take the flag from many users: clear their bits in the event's bitmap without a date.

    On this process's default tally, which `configure` describes.

    Like `unmark_unique` for each of the users, in pieces as `mark_many` sends them. A
    bitmap may be extended to hold a 0.

    With ``user_ids``, nothing is written for an id that has never been marked.

    Arguments:
        event: a non-empty str without control characters.
        user_ids, timeout: as for `mark_many`.

    Returns:
        How many of the users had the flag. The number may be too low after a broken connection
        and a retry.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed. If the ids are a
            collection (a list, a set, an array), nothing was sent; else the message says
            how many ids were unmarked before.
        CommandError, StoreUnavailableError, StoreTimeoutError, OverloadedError: Redis
            refused a piece, or did not answer in time, or ``max_pending`` marks were
            waiting; the message says how many ids were unmarked before.
        ClosedError: the tally is closed.
    """
    return current_tally().unmark_unique_many(event, user_ids, timeout=timeout)


def mark_unique(event: str, user_id: UserId, *, timeout: float | None = None) -> Granularity:
    """Set a user's flag: the bit in the event's bitmap without a date.

    On this process's default tally, which `configure` describes.

    Arguments:
        event: a non-empty str without control characters.
        user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of that
            type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).
        timeout: how many seconds the call may take, more than 0; ``math.inf`` for no
            limit, ``None`` for the tally's timeout.

    Returns:
        ``Granularity.UNIQUE`` if the user did not have the flag, else a falsy value.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed; nothing was sent.
        CommandError: Redis refused the mark; the message says what was changed.
        StoreUnavailableError, StoreTimeoutError: no answer within the timeout; the
            message says whether anything was sent. If so, the mark may or may not have
            been applied. The call may be repeated.
        OverloadedError: ``max_pending`` marks were waiting; nothing was sent.
        ClosedError: the tally is closed.
    """
    return current_tally().mark_unique(event, user_id, timeout=timeout)


def unmark_unique(event: str, user_id: UserId, *, timeout: float | None = None) -> Granularity:
    """Clear a user's flag: the bit in the event's bitmap without a date.

    On this process's default tally, which `configure` describes.

    With ``user_ids``, nothing is written for an id that has never been marked.

    Arguments:
        event: a non-empty str without control characters.
        user_id: an int from 0 to the tally's ``max_user_id``; with ``user_ids``, an id of that
            type (str and bytes: 1 to 1,024 bytes; int: signed 64 bit).
        timeout: how many seconds the call may take, more than 0; ``math.inf`` for no
            limit, ``None`` for the tally's timeout.

    Returns:
        ``Granularity.UNIQUE`` if the user had the flag, else a falsy value.

    Raises:
        InvalidTypeError, InvalidValueError: an argument is not allowed; nothing was sent.
        CommandError: Redis refused the mark; the message says what was changed.
        StoreUnavailableError, StoreTimeoutError: no answer within the timeout; the
            message says whether anything was sent. If so, the mark may or may not have
            been applied. The call may be repeated.
        OverloadedError: ``max_pending`` marks were waiting; nothing was sent.
        ClosedError: the tally is closed.
    """
    return current_tally().unmark_unique(event, user_id, timeout=timeout)


def transaction(
    *, timeout: float | None = None
) -> contextlib.AbstractContextManager[Transaction[Any]]:
    """Collect several marks and apply them in one ``MULTI``/``EXEC``.

    On this process's default tally, which `configure` describes.

    ``with tally.transaction() as tx:`` gives a `Transaction` with the same verbs as
    plain methods. The marks are sent at the end of the block, unless an exception leaves
    it.

    On a cluster there is one ``MULTI``/``EXEC`` for each shard: the marks of a shard are
    applied all or none, and an error concerns the marks of one shard only.

    Arguments:
        timeout: how many seconds the end of the block may take, more than 0; ``math.inf``
            for no limit, ``None`` for the tally's timeout.

    Returns:
        A context manager that gives a `Transaction`.

    Raises:
        ClosedError: at the start of the block: the tally is closed.
        InvalidTypeError, InvalidValueError: the timeout is not allowed; nothing was sent.
        CommandError: at the end of the block, like all further errors: Redis refused a
            mark; the `PendingMark` of each mark has its result.
        StoreUnavailableError, StoreTimeoutError: no answer within the timeout; the
            message says whether anything was sent. If so, the marks may or may not have
            been applied. They may be sent again.
        OverloadedError: ``max_pending`` marks were waiting; nothing was sent.
    """
    return current_tally().transaction(timeout=timeout)
