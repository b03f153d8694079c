"""The exceptions that tallymark raises.

`TallymarkError` is the base class of all. Errors about arguments are also the built-in
`ValueError` or `TypeError`, and errors about the connection are also the built-in
`ConnectionError` or `TimeoutError`, so code that catches built-in exceptions handles
them too.
"""

from __future__ import annotations

__all__ = [
    "ClosedError",
    "CommandError",
    "InvalidTypeError",
    "InvalidValueError",
    "MissingExtraError",
    "NotPersistingError",
    "OverloadedError",
    "PermissionDeniedError",
    "ReentrantCallError",
    "StoreError",
    "StoreFullError",
    "StoreNotReadyError",
    "StoreTimeoutError",
    "StoreUnavailableError",
    "TallymarkError",
    "UnknownCommandError",
    "WrongEventLoopError",
    "WrongKeyTypeError",
    "WrongSchemaError",
]


class TallymarkError(Exception):
    """The base class of every exception that tallymark raises on purpose."""

    #: Whether the marks that the error is about may have been applied; see `may_be_applied`.
    _may_be_applied = False

    #: Whether the mark was refused only because another one of its transaction was.
    _is_retriable = False

    #: What did not happen within the timeout that the message names; "" if it names none.
    _missed = ""


class InvalidValueError(TallymarkError, ValueError):
    """An argument of the right type with a value outside its allowed range.

    Raised before anything is sent.
    """


class InvalidTypeError(TallymarkError, TypeError):
    """An argument of the wrong type. Raised before anything is sent."""


class MissingExtraError(TallymarkError, ImportError):
    """A feature whose optional dependency is not installed.

    The message has the ``pip install`` command for it.
    """


class ClosedError(TallymarkError, RuntimeError):
    """A tally was used after it was closed, or a transaction after the end of its block."""


class WrongEventLoopError(TallymarkError, RuntimeError):
    """A `Tally` was used on another event loop than the one on which it connected."""


class StoreError(TallymarkError):
    """Redis could not be reached, did not reply in time, or refused a command.

    ``__cause__`` is the exception of redis-py, if there was one.
    """


class StoreUnavailableError(StoreError, ConnectionError):
    """Redis cannot be reached, or the connection broke and no retry succeeded.

    The message says whether the marks may have been applied.
    """


class StoreTimeoutError(StoreError, TimeoutError):
    """The deadline of the call has passed.

    The message says whether the marks may have been applied.
    """


class StoreNotReadyError(StoreUnavailableError):
    """Redis replied until the deadline that it cannot serve requests at the moment.

    It is loading its data, has become a replica in a failover, has lost its
    master or its cluster, or is busy with a script. The message has Redis's error.
    """


class WrongSchemaError(StoreError):
    """The database has another number of shards, or another type of user ids, than this tally.

    Nothing was written. The message has the database's ``shards`` or ``user_ids``. Or marks were
    made with numbers as ids before, or the numbers of the users are missing.
    """


class OverloadedError(StoreError):
    """The call was refused, since too many calls of this tally are waiting for Redis.

    Nothing was sent. The option ``max_pending`` is the limit; see `tallymark.TallyOptions`.
    """


class ReentrantCallError(StoreError, RuntimeError):
    """A call in a signal handler or finalizer would wait for the call that it has interrupted.

    Nothing was sent. Most calls in a signal handler succeed, on another connection. This
    error is raised where there is no other one: if the pool has no free connection, with
    the embedded store, and if code of the pool of a client of the caller was interrupted.
    """


class CommandError(StoreError):
    """Redis received the command and replied with an error.

    There was no retry, since Redis would reply with the same error again.
    """


class PermissionDeniedError(CommandError):
    """Redis requires a login, or denies this user the command or key (``NOAUTH``, ``NOPERM``)."""

    #: Whether the login is refused, and so every command.
    _is_login = False


class StoreFullError(CommandError):
    """Redis has reached its ``maxmemory`` and cannot evict any key (``OOM``)."""


class NotPersistingError(CommandError):
    """Redis refuses writes because it cannot save to disk (``MISCONF``)."""


class UnknownCommandError(CommandError):
    """The server does not know a command that tallymark needs."""


class WrongKeyTypeError(CommandError):
    """A bitmap's key has a value of another type (``WRONGTYPE``).

    Only marks of this key raise this error. The message says which
    of the mark's other bitmaps were changed.
    """
