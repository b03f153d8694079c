"""What both drivers know about redis-py: its errors, its options, its replies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis import exceptions
from redis.backoff import DecorrelatedJitterBackoff

from .errors import (
    CommandError,
    InvalidTypeError,
    InvalidValueError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    WrongKeyTypeError,
)

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = [
    "MAX_CONNECTIONS",
    "READ_SIZE",
    "RETRY_FOREVER",
    "backoff",
    "check_options",
    "checked_client",
    "database",
    "failure",
    "plain_reply",
    "raise_if_final",
    "refused_reply",
    "refused_url",
]

#: How many connections a tally that made its own client opens at most. Calls
#: beyond that wait for one.
MAX_CONNECTIONS = 50

#: How many bytes are taken from a socket at once. Reports receive megabytes; with
#: redis-py's 32 KiB that takes a third longer.
READ_SIZE = 256 * 1024

#: redis-py retries without end for a negative count; the deadline is the end.
RETRY_FOREVER = -1


#: Answers of the server that redis-py counts as errors of the connection.
_REFUSED_LOGINS = (exceptions.AuthenticationError, exceptions.AuthorizationError)


def backoff() -> DecorrelatedJitterBackoff:
    """Return the pauses between attempts: 10 ms at first, at most a second, jittered.

    Retries of many clients must not come in step: see "Exponential Backoff And
    Jitter", https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    """
    return DecorrelatedJitterBackoff(cap=1.0, base=0.01)


def raise_if_final(error: Exception) -> None:
    """Raise a connection error again that another attempt cannot mend."""
    if isinstance(error, _REFUSED_LOGINS):
        raise error


def checked_client(client: Any, wanted: type, facade: str, remedy: str) -> Any:
    """Return the client if it is of the kind that this facade drives."""
    if not isinstance(client, wanted):
        raise InvalidTypeError(
            f"{facade} takes a {wanted.__module__.split('.client')[0]}.{wanted.__name__}, "
            f"got a {type(client).__module__}.{type(client).__name__}; {remedy}"
        )
    return client


def database(client: Any) -> Hashable:
    """Return what is equal for two clients only if they are on one database."""
    pool = client.connection_pool
    told = pool.connection_kwargs
    number = told.get("db") or 0
    if told.get("server") is not None:  # fakeredis, where each client has another host
        return told["server"], number
    if told.get("path") is not None:
        return told["path"], number
    if told.get("host") is not None:
        return told["host"], told.get("port", 6379), number
    found: Hashable = pool  # of a kind that finds its server in other ways
    return found


def check_options(pool: Any) -> None:
    """Raise redis-py's error if a URL held options that no connection takes.

    redis-py looks at them when it makes the first connection; a program should
    hear of them when it starts, not at its first mark.
    """
    pool.connection_class(**pool.connection_kwargs)


def plain_reply(reply: Any) -> Any:
    """Return a reply with our errors in the place of redis-py's, one level deep."""
    # Mostly there are none, which is seen faster so.
    if isinstance(reply, list) and any(issubclass(kind, Exception) for kind in {*map(type, reply)}):
        return [refused_reply(item) if isinstance(item, Exception) else item for item in reply]
    return reply


def refused_reply(error: Exception) -> CommandError:
    """Return our error for one that the server gave as a reply."""
    # From within a script, Redis 6 puts its own words before the code.
    kind = WrongKeyTypeError if "WRONGTYPE" in str(error) else CommandError
    refused = kind(str(error))
    refused.__cause__ = error
    return refused


def refused_url(error: Exception) -> InvalidValueError:
    """Return our error for a URL or URL option that redis-py does not accept.

    Its message may quote the URL, and with it a password, so it is left out,
    and the cause should be suppressed too.
    """
    return InvalidValueError(
        f"the store's URL has a part that redis-py does not accept ({type(error).__name__}); "
        "check the host, the port and the options behind '?'"
    )


def failure(error: Exception) -> StoreError:
    """Return our error for what kept commands from being sent or answered.

    A `StoreUnavailableError` or a `StoreTimeoutError` might not come again on
    another connection; any other would.
    """
    if isinstance(error, (exceptions.ResponseError, *_REFUSED_LOGINS)):
        return refused_reply(error)
    if isinstance(error, (TimeoutError, exceptions.TimeoutError)):
        return StoreTimeoutError(f"{error}")
    if isinstance(error, (exceptions.ConnectionError, OSError)):
        return StoreUnavailableError(f"{error}")
    # redis-py has let AttributeErrors out.
    return StoreError(f"{type(error).__name__}: {error}")
