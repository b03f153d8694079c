"""Many replies at once, where redis-py reads them one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import ResponseError

from . import redis_py

try:
    from redis._parsers import hiredis as _parsers
except ImportError:  # another redis-py than those that we know
    _parsers = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["buffered_replies"]

#: What Redis answers to our commands, apart from errors.
_PLAIN: Final = frozenset((bytes, str, int, list, bool, type(None)))


def buffered_replies(connection: Any) -> Callable[[int], list[Any]]:
    """Return what takes those replies out of a connection that it has received already.

    `read_response` costs three coroutines a reply, which is most of what it takes
    to read the hundreds that a batch of many events has. If this connection has
    hiredis's parser as we know it, its replies can be had at once; else none can,
    and `read_response` brings them one by one.
    """
    parser = getattr(connection, "_parser", None)
    take = getattr(getattr(parser, "_reader", None), "gets", None)
    if type(parser) is not getattr(_parsers, "_AsyncHiredisParser", None) or take is None:
        return lambda _: []
    not_enough_data = getattr(_parsers, "NOT_ENOUGH_DATA", None)

    def replies(most: int) -> list[Any]:
        found: list[Any] = []
        while len(found) < most:
            reply = take(False)  # not decoded
            kind = type(reply)
            if kind is bytes:  # as nearly all are: QUEUED
                found.append(reply)
            elif reply is not_enough_data:
                break
            elif isinstance(reply, ResponseError):
                found.append(redis_py.refused_reply(reply))
            elif isinstance(reply, Exception):
                raise reply
            elif kind in _PLAIN:
                found.append(redis_py.plain_reply(reply))
            # What else there is, such as a push message, is not an answer.
        return found

    return replies
