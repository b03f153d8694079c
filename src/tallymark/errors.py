"""Everything tallymark raises.

One root, `TallymarkError`. Errors about arguments are also the built-in
exception a Python programmer would expect (`ValueError`, `TypeError`), and
errors about the connection are also `ConnectionError` or `TimeoutError`, so
code that knows nothing of tallymark still catches them.
"""

from __future__ import annotations

import inspect
from typing import Final, Literal, TypeVar

from ._core.excerpts import shown

__all__ = [
    "MAY_PASS",
    "ClosedError",
    "CommandError",
    "InvalidTypeError",
    "InvalidValueError",
    "MissingExtraError",
    "NotPersistingError",
    "OverloadedError",
    "PermissionDeniedError",
    "RedirectedError",
    "ReentrantCallError",
    "SlotMovingError",
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
    "let_handlers_pass",
    "may_be_applied",
    "misfit",
    "overloaded",
    "repeated",
    "with_fate",
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


class SlotMovingError(StoreNotReadyError):
    """A cluster is moving some of the keys of a request to another node, so none has them all."""


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


#: What might not come again on another connection, or a moment later.
MAY_PASS: Final = (StoreUnavailableError, StoreTimeoutError)


class CommandError(StoreError):
    """Redis received the command and answered with an error.

    It would give the same answer again, so there was no second attempt.
    """


class RedirectedError(CommandError):
    """A node of a cluster does not have what a command is about, or not all of it.

    Drivers of clusters follow it; nobody else is to see it.

    Attributes:
        kind: ``"MOVED"`` for good, ``"ASK"`` for this once, ``"TRYAGAIN"`` if it is
            on its way.
        address: the host, "" for that of the node itself, and the port.
    """

    kind: Literal["MOVED", "ASK", "TRYAGAIN"] = "TRYAGAIN"
    address: tuple[str, int] = ("", 0)

    @classmethod
    def to(
        cls, message: str, kind: Literal["MOVED", "ASK"], host: str, port: int
    ) -> RedirectedError:
        """Make one that leads somewhere."""
        made = cls(message)
        made.kind = kind
        made.address = ("" if host == "?" else host, port)
        return made


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


ErrorT = TypeVar("ErrorT", bound=TallymarkError)


def may_be_applied(error: TallymarkError) -> bool:
    """Return whether marks that ended with an error may have been applied all the same."""
    # A key of another type is one of the event's name, and the other bitmaps were written.
    return isinstance(error, WrongKeyTypeError) or error._may_be_applied  # noqa: SLF001


def with_fate(
    failure: ErrorT, *, sent: bool | None, timeout: float, missed: str = "Redis did not answer"
) -> ErrorT:
    """Return what kept a call from its answer as its error, which tells what became of it.

    Arguments:
        failure: what went wrong last.
        sent: whether a byte of the mark was written; ``None`` if it was no mark.
        timeout: how many seconds were tried.
        missed: what did not happen in that time, if nothing else is known.
    """
    if isinstance(failure, CommandError):
        return repeated(failure, str(failure))
    message = str(failure)
    if isinstance(failure, StoreTimeoutError):
        message = f"{missed} within {round(timeout, 2):g} s"
    if sent is None:
        return repeated(failure, message)
    fate = "marks may or may not have been applied" if sent else "nothing was sent"
    told = repeated(failure, f"{message}; {fate}")
    told._may_be_applied = sent  # noqa: SLF001
    return told


def overloaded(pending: int, kind: Literal["marks", "reads"], most: int) -> OverloadedError:
    """Return the error for a call that comes while as many wait as may."""
    fate = "; nothing was sent" if kind == "marks" else ""
    return OverloadedError(
        f"{pending} {kind} are waiting for Redis already (max_pending is {most}){fate}"
    )


def misfit(reply: object) -> StoreError:
    """Return the error for a reply that no command of ours gets."""
    return StoreError(f"the server's reply does not fit the commands: {shown(reply)}")


def repeated(error: ErrorT, message: str) -> ErrorT:
    """Return an error of the same class and cause with another message.

    Every mark gets an instance of its own: one that is raised in several tasks
    would gather the tracebacks of all.
    """
    copy = type(error)(message)
    copy.__cause__ = error.__cause__
    copy._may_be_applied = error._may_be_applied  # noqa: SLF001
    return copy


#: So many causes of causes are looked at; a program may have made a circle of them.
_LONGEST_CHAIN: Final = 32


def let_handlers_pass(error: BaseException) -> None:
    """Raise an exception again, as it is, if a signal handler has raised it."""
    seen: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):  # redis-py may have turned it into one of its own
        if seen is None:
            return
        if _is_of_a_signal_handler(seen):
            raise seen
        seen = seen.__cause__ or seen.__context__


def _is_of_a_signal_handler(error: BaseException) -> bool:
    """Tell whether it has come through a function that got the frame that it has interrupted."""
    trace = error.__traceback__
    while trace is not None:
        frame, trace = trace.tb_frame, trace.tb_next
        caller, code = frame.f_back, frame.f_code
        if caller is not None:
            known = code.co_argcount + bool(code.co_flags & inspect.CO_VARARGS)
            for name in code.co_varnames[: known + code.co_kwonlyargcount]:
                given = frame.f_locals.get(name)
                if given is caller or (
                    type(given) is tuple and any(each is caller for each in given)
                ):
                    return True
    return False
