"""Reading many replies at once, by a deadline, where redis-py reads them one by one.

redis-py's `read_response` costs three coroutines for each reply, or five calls in the
blocking client. Each of its reads from the socket may take the whole timeout, so a server
that sends a byte now and then can delay a reply without end. If a connection has a parser of
hiredis that this module knows, the module takes the replies out of that parser; else
redis-py reads them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from . import errors as redis_py

try:
    from redis._parsers import hiredis as _parsers
except ImportError:  # a redis-py that this module does not know
    _parsers = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BLOCKING", "UNASKED", "Received", "hiredis_reader", "parsed"]

#: The types of the replies to our commands, apart from errors.
_PLAIN: Final = frozenset((bytes, str, int, list, bool, type(None)))

#: The names of the known parsers.
_ASYNC, BLOCKING = "_AsyncHiredisParser", "_HiredisParser"

UNASKED: Final = "the connection has more than the replies to what was sent, or was closed"

_NOT_ENOUGH_DATA: Final = getattr(_parsers, "NOT_ENOUGH_DATA", None)


class Received:
    """The data that an async connection has received, until it is disconnected."""

    __slots__ = ("_reader", "_stream")

    def __init__(self, connection: Any) -> None:
        """Find hiredis's reader; a connection with another parser has no data for `take`."""
        self._reader = hiredis_reader(connection, _ASYNC)
        self._stream = getattr(connection, "_reader", None)  # asyncio's

    def take(self, most: int) -> list[Any]:
        """Return the replies that are received, ``most`` of them at the most."""
        return [] if self._reader is None else parsed(self._reader.gets, most)

    def check_empty(self) -> None:
        """Raise if there is data beyond the replies that were read.

        The replies are out of step with the commands then.

        Raises:
            redis.exceptions.ConnectionError: there is more.
        """
        reader = self._reader
        if reader is not None and (reader.has_data() or getattr(self._stream, "_buffer", None)):
            raise RedisConnectionError(UNASKED)


def hiredis_reader(connection: Any, name: str) -> Any:
    """Return the hiredis reader of a connection; ``None`` if its parser is not the known one."""
    parser = getattr(connection, "_parser", None)
    if type(parser) is not getattr(_parsers, name, None):
        return None
    # Parsers of older releases of redis-py may have read the next reply in advance.
    if getattr(parser, "_next_response", _NOT_ENOUGH_DATA) is not _NOT_ENOUGH_DATA:
        return None
    return getattr(parser, "_reader", None)


def parsed(take: Callable[[bool], Any], most: int) -> list[Any]:
    """Return the replies that a reader has received, ``most`` of them at the most."""
    replies: list[Any] = []
    while len(replies) < most:
        reply = take(False)  # not decoded: bitmaps are no text
        kind = type(reply)
        if kind is bytes or kind is int:  # nearly all replies: QUEUED, and bits
            replies.append(reply)
        elif reply is _NOT_ENOUGH_DATA:
            break
        elif isinstance(reply, ResponseError):
            replies.append(redis_py.refused_reply(reply))
        elif isinstance(reply, Exception):
            raise reply
        elif kind in _PLAIN:
            replies.append(redis_py.plain_reply(reply))
        # Other types, such as push messages, are no replies.
    return replies
