"""Small requests of concurrent reads of several threads, sent with one write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .shared_connection import SharedConnection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._reading.execution import Sendable
    from .leadership import Call, Leadership

__all__ = ["RequestPipeline"]


class _Requests(NamedTuple):
    """Requests that are sent with one write."""

    requests: Sequence[Sendable]
    share: int = 1

    def encode(self) -> bytes:
        """Return the bytes to send."""
        return b"".join([request.encode() for request in self.requests])

    def reply_count(self) -> int:
        """Return how many replies the server sends."""
        return sum([request.reply_count() for request in self.requests])


class RequestPipeline(SharedConnection):
    """Sends small requests over one connection, those of several threads with one write.

    The payload of a call is a request, the outcome the list of its replies.
    """

    kind = "read"

    def _request(self, calls: Sequence[Call]) -> Sendable:
        if len(calls) == 1:
            request: Sendable = calls[0].payload
            return request
        return _Requests([call.payload for call in calls])

    def _receive(self, leadership: Leadership, deadline: float) -> Sequence[Any]:
        calls, replies = leadership.calls, leadership.replies
        leadership.connection.receive(replies, leadership.request.reply_count(), deadline)
        if len(calls) == 1:
            return (replies,)
        outcomes = []
        begin = end = 0
        for call in calls:
            begin, end = end, end + call.size
            outcomes.append(replies[begin:end])
        return outcomes
