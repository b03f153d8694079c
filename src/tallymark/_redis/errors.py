"""What both drivers know about redis-py: its errors, its replies, its pauses."""

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
from .._core.untrusted import escaped, kind_of, kind_with_module, let_handlers_pass
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

#: Clients by their class, but none that answer.
_PIPELINES: Final = (Pipeline, AsyncPipeline, ClusterPipeline, AsyncClusterPipeline)

#: Answers of the server that redis-py counts as errors of the connection.
_REFUSED_LOGINS = (exceptions.AuthenticationError, exceptions.AuthorizationError)

#: What those that redis-py has a class for begin with on the wire; it cuts that off.
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

#: Where the types of exceptions are from that sockets and redis-py raise.
_SYSTEM: Final = frozenset(
    ("builtins", "socket", "ssl", "asyncio", "concurrent", "redis", "hiredis", "fakeredis")
)

#: Whose exceptions are the store's, whatever their type: redis-py has let AttributeErrors
#: out, and what it calls raises some of its own.
_REDIS_PY: Final = _SYSTEM - {"builtins"} | {"async_timeout", "encodings", "selectors"}

#: An ``EXEC`` that was refused by itself tells why in its own words.
_ABORTED: Final = re.compile(r"Transaction discarded because of: ([A-Z]+)\b")

#: What Redis says while it cannot serve; another attempt may find it ready.
_PASSING: Final = frozenset(
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

#: What will not pass by itself, and what to do about it.
_REFUSALS: Final[dict[str, tuple[type[CommandError], str]]] = {
    "NOAUTH": (
        PermissionDeniedError,
        "give the user and password in the store's URL, as redis://user:password@host",
    ),
    "WRONGPASS": (PermissionDeniedError, "check the user and password in the store's URL"),
    "NOPERM": (
        PermissionDeniedError,
        "grant this Redis user the commands and keys that docs/operations.md lists (ACL SETUSER)",
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
#: A server that does not know a command repeats what came with it: a password after ``AUTH``.
_REPEATED: Final = re.compile(r",? with args beginning with.*", re.DOTALL)

#: What redis-py raises if no Sentinel names a server.
_NOT_FOUND: Final = (
    sentinel.MasterNotFoundError,
    sentinel.SlaveNotFoundError,
    async_sentinel.MasterNotFoundError,
    async_sentinel.SlaveNotFoundError,
)
#: What of its message is ours to show: the service, and what kept Sentinels from answering.
_SERVICE: Final = re.compile(r"No (?:master|slave) found for (?:'[^']*'|\"[^\"]*\")")
_SHOWN: Final = re.compile(_SERVICE.pattern + r"(?: \(Sentinels: [A-Za-z, ]*\))?")
_REASON: Final = re.compile(r" - (?:[a-z]+:)?((?:Connection|Timeout|Authentication)Error)\b")

_UNKNOWN_COMMAND: Final = (
    "tallymark needs Redis 6.2, Valkey, or bitfield=False for servers that have only SETBIT"
)


def check_client(client: Any, wanted: tuple[type, type], facade: str, remedy: str) -> None:
    """Raise unless the client is of a kind that this facade drives."""
    if isinstance(client, _PIPELINES):
        raise InvalidTypeError(
            f"{facade} takes a client, not its {kind_of(client)}, which queues commands until it "
            "is executed; for several marks in one transaction, use transaction() of a tally"
        )
    if not isinstance(client, wanted):
        module = wanted[0].__module__.split(".client")[0]
        names = " or ".join(f"{module}.{one.__name__}" for one in wanted)
        raise InvalidTypeError(
            f"{facade} takes a {names}, got a {kind_with_module(client)}; {remedy}"
        )


#: What a list of replies holds, if none of them is an error.
_HARMLESS: Final = frozenset((int, bytes, list, str, bool, type(None)))


def plain_reply(reply: Any) -> Any:
    """Return a reply with our errors in the place of redis-py's, one level deep."""
    # Mostly there are none, which is seen faster so.
    if isinstance(reply, list) and not _HARMLESS.issuperset(map(type, reply)):
        return [refused_reply(item) if isinstance(item, Exception) else item for item in reply]
    return reply


def refused_reply(error: Exception) -> CommandError:
    """Return our error for one that the server gave as a reply.

    Raises:
        StoreNotReadyError: it is of a kind that passes.
    """
    _hide_secrets(error)
    code, message = _code(error), str(error)
    if code and not message.startswith(code):
        message = f"{code} {message}"  # redis-py has taken the code for a class of its own
    if isinstance(error, exceptions.AskError):  # which a MovedError is too
        how: Literal["MOVED", "ASK"] = (
            "MOVED" if isinstance(error, exceptions.MovedError) else "ASK"
        )
        words = f"{how} {error.slot_id} {error.host}:{error.port}"
        return RedirectedError.to(words, how, error.host, error.port)
    if code in {"MOVED", "ASK"}:  # redis-py 5 has no class for it here
        _, _, address = message.split(" ", 2)
        host, _, port = address.rpartition(":")
        return RedirectedError.to(message, "MOVED" if code == "MOVED" else "ASK", host, int(port))
    if code == "TRYAGAIN":
        return RedirectedError(message)
    if code in _PASSING:
        raise StoreNotReadyError(escaped(message)) from error
    kind, advice = CommandError, ""
    if "WRONGTYPE" in message:  # from within a script, Redis 6 puts its own words before
        kind = WrongKeyTypeError
    elif "unknown command" in message.lower():
        kind, advice = UnknownCommandError, _UNKNOWN_COMMAND
    elif code in _REFUSALS:
        kind, advice = _REFUSALS[code]
    message = escaped(message)
    refused = kind(f"{message}; {advice}" if advice else message)
    refused.__cause__ = error
    return refused


def _code(error: Exception) -> str:
    """Return the code, such as ``OOM``, that begins an error reply; "" if there is none."""
    found = _ABORTED.search(str(error))
    if found:
        return found[1]
    told = getattr(error, "status_code", None)  # redis-py 7 keeps it for some
    if isinstance(told, str):
        return told
    known = next((code for kind, code in _CODES.items() if isinstance(error, kind)), "")
    first = str(error).partition(" ")[0]
    return known or (first if first.isupper() and first.isalpha() else "")


def _hide_secrets(error: Exception) -> None:
    """Take what may be a secret out of an error of redis-py, which stays the cause of ours."""
    told = str(error)
    kept = told
    if isinstance(error, _NOT_FOUND) and not _SHOWN.fullmatch(told):
        # Some versions put each Sentinel's client there, with all its settings.
        service = _SERVICE.match(told)
        reasons = dict.fromkeys(_REASON.findall(told))
        kept = service[0] if service else "No server found by the Sentinels"
        if reasons:
            kept += f" (Sentinels: {', '.join(reasons)})"
    elif isinstance(error, exceptions.ResponseError):
        kept = _REPEATED.sub("", told)
    if kept != told:
        error.args = (kept,)


def let_pass(error: BaseException) -> None:
    """Raise an exception again, as it is, if neither redis-py nor the socket has raised it.

    Such as one of a signal handler: a time limit of the program's, of whatever type.
    """
    let_handlers_pass(error)
    if not _is_of_the_store(error):
        raise error


def _is_of_the_store(error: BaseException) -> bool:
    """Tell whether redis-py or the socket has raised it, by its type and its place."""
    if isinstance(error, (StoreError, exceptions.RedisError)):
        return not isinstance(error, ReentrantCallError)
    kind, place = type(error).__module__.partition(".")[0], ""
    trace = error.__traceback__
    while trace is not None:
        place = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        trace = trace.tb_next
    if isinstance(error, (OSError, EOFError)):
        # Others are of a program, or of whatever stands in for the socket and raises them.
        return kind in _SYSTEM or kind == place
    if isinstance(error, (AttributeError, ValueError)) and place == "tallymark":
        return kind == "builtins"  # of a connection that another thread has closed
    return isinstance(error, Exception) and kind in _SYSTEM and place in _REDIS_PY


def raise_failure(error: Exception) -> NoReturn:
    """Raise our error for what kept commands from being sent or answered; see `failure`."""
    let_pass(error)
    found = failure(error)
    if found is error:
        raise found
    raise found from error


def failure(error: Exception) -> StoreError:
    """Return our error for what kept commands from being sent or answered.

    One of `TRANSIENT` might not come again on another connection; any other would.
    """
    if isinstance(error, StoreError):
        return error
    _hide_secrets(error)
    if isinstance(error, (exceptions.ResponseError, exceptions.BusyLoadingError, *_REFUSED_LOGINS)):
        try:
            return refused_reply(error)
        except StoreNotReadyError as passing:
            return passing
    if isinstance(error, (TimeoutError, exceptions.TimeoutError)):
        return StoreTimeoutError(escaped(f"{error}"))
    if isinstance(error, (exceptions.ConnectionError, OSError)):
        return StoreUnavailableError(escaped(f"{error}"))
    # redis-py has let AttributeErrors out.
    return StoreError(escaped(f"{type(error).__name__}: {error}"))


def discard_connection(connection: Any) -> None:
    """Close the socket of a connection whose event loop has been closed.

    Its transport would leave that to the loop. Knows the transports of asyncio; those of
    uvloop are closed with their loop.
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
    found = getattr(transport, "_sock", None)
    if found is not None:
        transport._sock = None  # noqa: SLF001
        found.close()
