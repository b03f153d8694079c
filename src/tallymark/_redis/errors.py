"""Translation of redis-py's errors into tallymark's, and checks of its clients."""

from __future__ import annotations

import contextlib
import re
from typing import Any, Final, Literal, NoReturn

from redis import exceptions, sentinel
from redis.asyncio import sentinel as async_sentinel
from redis.asyncio.client import Pipeline as AsyncPipeline
from redis.asyncio.cluster import ClusterPipeline as AsyncClusterPipeline
from redis.client import Pipeline
from redis.cluster import ClusterPipeline

from .._core.failures import RedirectedError
from .._core.untrusted import escaped, kind_of, kind_with_module, reraise_from_handler
from ..errors import (
    CommandError,
    InvalidTypeError,
    NotPersistingError,
    PermissionDeniedError,
    ReentrantCallError,
    StoreError,
    StoreFullError,
    StoreNotReadyError,
    StoreTimeoutError,
    StoreUnavailableError,
    UnknownCommandError,
    WrongKeyTypeError,
)

__all__ = [
    "check_client",
    "discard_connection",
    "failure",
    "let_pass",
    "plain_reply",
    "raise_failure",
    "refused_reply",
]

#: Subclasses of clients that queue commands.
_PIPELINES: Final = (Pipeline, AsyncPipeline, ClusterPipeline, AsyncClusterPipeline)

#: Error replies of the server for which redis-py has subclasses of its ConnectionError.
_REFUSED_LOGINS = (exceptions.AuthenticationError, exceptions.AuthorizationError)

#: The codes of error replies for which redis-py has a class; it cuts the code off.
_CODES: Final[dict[type[Exception], str]] = {
    exceptions.AuthenticationError: "NOAUTH",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.BusyLoadingError: "LOADING",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.TryAgainError: "TRYAGAIN",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.ClusterDownError: "CLUSTERDOWN",
}

#: The packages of the types of exceptions that sockets and redis-py raise.
_SYSTEM: Final = frozenset(
    ("builtins", "socket", "ssl", "asyncio", "concurrent", "redis", "hiredis", "fakeredis")
)

#: Packages whose exceptions are failures of the store, whatever their type: redis-py has
#: raised AttributeErrors, and the packages that it calls raise their own types.
_REDIS_PY: Final = _SYSTEM - {"builtins"} | {"async_timeout", "encodings", "selectors"}

#: The message of an ``EXEC`` that was itself refused, with the code of the reason.
_ABORTED: Final = re.compile(r"Transaction discarded because of: ([A-Z]+)\b")

#: The message of an error in a script, of Redis 6, with the code of the reason.
_IN_SCRIPT: Final = re.compile(r"@user_script: \d+: -([A-Z]+) ")

#: The message of an error in a script about a command, or a key, that an ACL denies.
_DENIED_IN_SCRIPT: Final = "The user executing the script can't "

#: The codes of transient errors of the server.
_TRANSIENT_CODES: Final = frozenset(
    (
        "LOADING",
        "READONLY",
        "CLUSTERDOWN",
        "MASTERDOWN",
        "NOREPLICAS",
        "BUSY",
        "UNBLOCKED",
    )
)

#: The codes of errors that need an action, with their exceptions and the advice.
_REFUSALS: Final[dict[str, tuple[type[CommandError], str]]] = {
    "NOAUTH": (
        PermissionDeniedError,
        "give the user and password in the store's URL, as redis://user:password@host",
    ),
    "WRONGPASS": (PermissionDeniedError, "check the user and password in the store's URL"),
    "NOPERM": (
        PermissionDeniedError,
        "grant this Redis user the commands and keys (ACL SETUSER) of docs/how-to/connect.md",
    ),
    "OOM": (
        StoreFullError,
        "raise Redis's maxmemory, expire old bitmaps (option expire), or lower max_user_id",
    ),
    "MISCONF": (
        NotPersistingError,
        "look for a full disk or a failed save in Redis's log; it takes no writes until then",
    ),
}
#: The codes of those with which a server refuses the login.
_LOGIN_CODES: Final = frozenset(("NOAUTH", "WRONGPASS"))

#: The arguments in the error for an unknown command: for ``AUTH``, a password.
_ARGUMENTS: Final = re.compile(r",? with args beginning with.*", re.DOTALL)

#: The exceptions of redis-py if no Sentinel names a server.
_NOT_FOUND: Final = (
    sentinel.MasterNotFoundError,
    sentinel.SlaveNotFoundError,
    async_sentinel.MasterNotFoundError,
    async_sentinel.SlaveNotFoundError,
)
#: The parts of their message that may be shown: the service, and why Sentinels failed.
_SERVICE: Final = re.compile(r"No (?:master|slave) found for (?:'[^']*'|\"[^\"]*\")")
_SHOWN: Final = re.compile(_SERVICE.pattern + r"(?: \(Sentinels: [A-Za-z, ]*\))?")
_REASON: Final = re.compile(r" - (?:[a-z]+:)?((?:Connection|Timeout|Authentication)Error)\b")

_UNKNOWN_COMMAND: Final = (
    "tallymark needs Redis 6.2, Valkey, or bitfield=False for servers that have only SETBIT"
)


def check_client(client: Any, wanted: tuple[type, type], facade: str, remedy: str) -> None:
    """Raise unless a client is of the classes that a facade takes.

    Arguments:
        client: the client.
        wanted: the classes.
        facade, remedy: the name of the facade, and what to use for other clients.

    Raises:
        InvalidTypeError: it is not.
    """
    if isinstance(client, _PIPELINES):
        raise InvalidTypeError(
            f"{facade} takes a client, not its {kind_of(client)}, which queues commands until it "
            "is executed; for several marks in one transaction, use transaction() of a tally"
        )
    if not isinstance(client, wanted):
        module = wanted[0].__module__.split(".client")[0]
        names = " or ".join(f"{module}.{kind.__name__}" for kind in wanted)
        raise InvalidTypeError(
            f"{facade} takes a {names}, got a {kind_with_module(client)}; {remedy}"
        )


#: The types of the items of a list, if none of them is an error.
_PLAIN: Final = frozenset((int, bytes, list, str, bool, type(None)))


def plain_reply(reply: Any) -> Any:
    """Return a reply with tallymark's errors in the place of redis-py's, one level deep."""
    # Mostly there are none, which this check sees fastest.
    if isinstance(reply, list) and not _PLAIN.issuperset(map(type, reply)):
        return [refused_reply(item) if isinstance(item, Exception) else item for item in reply]
    return reply


def refused_reply(error: Exception) -> CommandError:
    """Return tallymark's error for an error reply of the server.

    Raises:
        StoreNotReadyError: the error is transient.
    """
    _hide_secrets(error)
    code, message = _code(error), str(error)
    if code and not message.startswith(code):
        message = f"{code} {message}"  # which redis-py has cut off
    if isinstance(error, exceptions.AskError):  # which a MovedError is too
        moved = isinstance(error, exceptions.MovedError)
        kind: Literal["MOVED", "ASK"] = "MOVED" if moved else "ASK"
        message = f"{kind} {error.slot_id} {error.host}:{error.port}"
        return RedirectedError.to(message, kind, error.host, error.port)
    if code in {"MOVED", "ASK"}:  # for which redis-py 5 has no class here
        _, _, address = message.split(" ", 2)
        host, _, port = address.rpartition(":")
        return RedirectedError.to(message, "MOVED" if code == "MOVED" else "ASK", host, int(port))
    if code == "TRYAGAIN":
        return RedirectedError(message)
    if code in _TRANSIENT_CODES:
        raise StoreNotReadyError(escaped(message)) from error
    refusal, advice = CommandError, ""
    if "WRONGTYPE" in message:  # not at the start, if a script of Redis 6 has raised it
        refusal = WrongKeyTypeError
    elif "unknown command" in message.lower():
        refusal, advice = UnknownCommandError, _UNKNOWN_COMMAND
    elif code in _REFUSALS:
        refusal, advice = _REFUSALS[code]
    message = escaped(message)
    refused = refusal(f"{message}; {advice}" if advice else message)
    refused.__cause__ = error
    if isinstance(refused, PermissionDeniedError):
        refused._is_login = code in _LOGIN_CODES  # noqa: SLF001
    return refused


def _code(error: Exception) -> str:
    """Return the code, such as ``OOM``, with which an error reply begins; "" if it has none."""
    message = str(error)
    reason = _ABORTED.search(message) or _IN_SCRIPT.search(message)
    if reason:
        return reason[1]
    if _DENIED_IN_SCRIPT in message:
        return "NOPERM"
    code = getattr(error, "status_code", None)  # redis-py 7 has it on some errors
    if isinstance(code, str):
        return code
    known = next((code for kind, code in _CODES.items() if isinstance(error, kind)), "")
    first = str(error).partition(" ")[0]
    return known or (first if first.isupper() and first.isalpha() else "")


def _hide_secrets(error: Exception) -> None:
    """Remove what may be a secret from the message of redis-py's error, the cause of ours."""
    message = str(error)
    kept = message
    if isinstance(error, _NOT_FOUND) and not _SHOWN.fullmatch(message):
        # Some releases quote each Sentinel's client, with all its settings.
        service = _SERVICE.match(message)
        reasons = dict.fromkeys(_REASON.findall(message))
        kept = service[0] if service else "No server found by the Sentinels"
        if reasons:
            kept += f" (Sentinels: {', '.join(reasons)})"
    elif isinstance(error, exceptions.ResponseError):
        kept = _ARGUMENTS.sub("", message)
    if kept != message:
        error.args = (kept,)


def let_pass(error: BaseException) -> None:
    """Raise an exception again, unchanged, if neither redis-py nor the socket has raised it.

    A signal handler may have raised it: a time limit of the program, of any type.
    """
    reraise_from_handler(error)
    if not _is_of_the_store(error):
        raise error


def _is_of_the_store(error: BaseException) -> bool:
    """Return whether redis-py or the socket has raised it, judged by its type and traceback."""
    if isinstance(error, (StoreError, exceptions.RedisError)):
        return not isinstance(error, ReentrantCallError)
    kind, place = type(error).__module__.partition(".")[0], ""
    trace = error.__traceback__
    while trace is not None:
        place = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        trace = trace.tb_next
    if isinstance(error, (OSError, EOFError)):
        # Others are of the program, or of a replacement of the socket that raises its own.
        return kind in _SYSTEM or kind == place
    if isinstance(error, (AttributeError, ValueError)) and place == "tallymark":
        return kind == "builtins"  # another thread has closed the connection
    return isinstance(error, Exception) and kind in _SYSTEM and place in _REDIS_PY


def raise_failure(error: Exception) -> NoReturn:
    """Raise tallymark's error for a failed attempt: the one that `failure` returns."""
    let_pass(error)
    translated = failure(error)
    if translated is error:
        raise translated
    raise translated from error


def failure(error: Exception) -> StoreError:
    """Return tallymark's error for a failed attempt.

    An attempt on another connection can succeed after one of `TRANSIENT`, and after no other.
    """
    if isinstance(error, StoreError):
        return error
    _hide_secrets(error)
    if isinstance(error, (exceptions.ResponseError, exceptions.BusyLoadingError, *_REFUSED_LOGINS)):
        try:
            return refused_reply(error)
        except StoreNotReadyError as transient:
            return transient
    if isinstance(error, (TimeoutError, exceptions.TimeoutError)):
        return StoreTimeoutError(escaped(f"{error}"))
    if isinstance(error, (exceptions.ConnectionError, OSError)):
        return StoreUnavailableError(escaped(f"{error}"))
    # Such as an AttributeError, which redis-py has raised.
    return StoreError(escaped(f"{type(error).__name__}: {error}"))


def discard_connection(connection: Any) -> None:
    """Close the socket of a connection whose event loop has been closed.

    Its transport would leave that to the loop. For the transports of asyncio; those of uvloop
    are closed with their loop.
    """
    writer = getattr(connection, "_writer", None)
    if writer is None:
        return
    connection._writer = connection._reader = None  # noqa: SLF001
    transport = getattr(writer, "transport", None)
    if transport is None:  # of an embedded store
        return
    protocol = getattr(transport, "_ssl_protocol", None)
    if protocol is not None:
        transport._closed = True  # noqa: SLF001 - or it warns that it was not
        transport = protocol._transport  # noqa: SLF001
    with contextlib.suppress(RuntimeError, AttributeError):  # the loop is closed
        transport.abort()
    sock = getattr(transport, "_sock", None)
    if sock is not None:
        transport._sock = None  # noqa: SLF001
        sock.close()
