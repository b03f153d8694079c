"""Everything tallymark raises.

One root, `TallymarkError`. Errors about arguments are also the built-in
exception a Python programmer would expect (`ValueError`, `TypeError`), and
errors about the connection are also `ConnectionError` or `TimeoutError`, so
code that knows nothing of tallymark still catches them.
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
    """The root of every exception that tallymark raises on purpose."""

    #: Whether it is of marks that may have been applied all the same; see `may_be_applied`.
    _may_be_applied = False


class InvalidValueError(TallymarkError, ValueError):
    """An argument of the right type with a value outside its allowed range.

    Raised before anything is sent.
    """


class InvalidTypeError(TallymarkError, TypeError):
    """An argument of the wrong type. Raised before anything is sent."""


class MissingExtraError(TallymarkError, ImportError):
    """A feature whose optional dependency is not installed.

    The message holds the ``pip install`` command that brings it.
    """


class ClosedError(TallymarkError, RuntimeError):
    """A tally was used after it was closed, or a transaction after its end."""


class WrongEventLoopError(TallymarkError, RuntimeError):
    """A `Tally` was used on another event loop than the one it connected on."""


class StoreError(TallymarkError):
    """Redis could not be reached, did not answer in time, or refused.

    ``__cause__`` holds the exception of redis-py, where there was one.
    """


class StoreUnavailableError(StoreError, ConnectionError):
    """Redis cannot be reached, or the connection broke and no retry helped.

    The message says whether the marks may have been applied.
    """


class StoreTimeoutError(StoreError, TimeoutError):
    """The call's deadline ran out.

    The message says whether the marks may have been applied.
    """


class StoreNotReadyError(StoreUnavailableError):
    """Redis is there, and said until the deadline that it cannot serve for now.

    It is loading its data, has become a replica in a failover, has lost its
    master or its cluster, or is busy with a script. The message holds its words.
    """


class WrongSchemaError(StoreError):
    """The database is sharded in another way than this tally.

    Nothing was written. The message tells which number of ``shards`` it has.
    """


class OverloadedError(StoreError):
    """So many calls of this tally are waiting for Redis already that no more are taken.

    Nothing was sent. The option ``max_pending`` is the bound; see `tallymark.TallyOptions`.
    """


class ReentrantCallError(StoreError, RuntimeError):
    """A call in a signal handler, or a finalizer, that would wait for the call it has interrupted.

    Nothing was sent. Most calls in a signal handler work: they take another connection.
    This is for what has only one: a pool with ``max_connections=1``, the embedded store,
    and the pool of a client of the caller's, if it was interrupted itself.
    """


class CommandError(StoreError):
    """Redis received the command and answered with an error.

    It would give the same answer again, so there was no second attempt.
    """


class PermissionDeniedError(CommandError):
    """Redis wants a login, or does not let this user do that (``NOAUTH``, ``NOPERM``)."""


class StoreFullError(CommandError):
    """Redis has reached its ``maxmemory`` and may not evict anything (``OOM``)."""


class NotPersistingError(CommandError):
    """Redis takes no writes because it cannot save to disk (``MISCONF``)."""


class UnknownCommandError(CommandError):
    """The server does not know a command that tallymark needs."""


class WrongKeyTypeError(CommandError):
    """A bitmap's key holds a value of another type (``WRONGTYPE``).

    Only the marks that touch this key get this error. The message says which
    of the mark's other bitmaps were changed all the same.
    """
